"""A function of one number. Knows nothing of the engine."""

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

# Hydra 1.3 warns where version_base is not given; 1.4 where it is, and where nothing says what may be instantiated.
VERSION = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {"execution_whitelist": []}

ConfigStore.instance().store("plain", {"x": 1.0})


@hydra.main(config_path=None, config_name="plain", **VERSION)
def main(cfg: DictConfig) -> float:
    return (cfg.x - 2) ** 2


if __name__ == "__main__":
    main()
