"""Reports after each step, and stops where it is told to."""

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from cifarsweep import trial

# Hydra 1.3 warns where version_base is not given; 1.4 where it is, and where nothing says what may be instantiated.
VERSION = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {"execution_whitelist": []}

ConfigStore.instance().store("pruned", {"x": 1.0, "steps": 20})


@hydra.main(config_path=None, config_name="pruned", **VERSION)
def main(cfg: DictConfig) -> float:
    for step in range(1, cfg.steps + 1):
        if trial.report(step, cfg.x + 1 / step):
            raise trial.Pruned
    return cfg.x + 1 / cfg.steps


if __name__ == "__main__":
    main()
