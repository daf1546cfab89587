"""Two objectives, reported by name."""

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from cifarsweep import trial

# Hydra 1.3 warns where version_base is not given; 1.4 where it is, and where nothing says what may be instantiated.
VERSION = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {"execution_whitelist": []}

ConfigStore.instance().store("several", {"x": 1.0, "y": 0.0})


@hydra.main(config_path=None, config_name="several", **VERSION)
def main(cfg: DictConfig) -> list[float]:
    error, size = (cfg.x - 2) ** 2 + cfg.y, abs(cfg.x)
    trial.report(1, {"error": error, "size": size})
    return [error, size]


if __name__ == "__main__":
    main()
