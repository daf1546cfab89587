"""Trials that take what their numbers say, and do nothing. Writes down when each starts and ends."""

import time

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

# Hydra 1.3 warns where version_base is not given; 1.4 where it is, and where nothing says what may be instantiated.
VERSION = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {"execution_whitelist": []}

ConfigStore.instance().store("timed", {"x": 0.0, "seconds": [0.2, 2.0], "log": "log"})


@hydra.main(config_path=None, config_name="timed", **VERSION)
def main(cfg: DictConfig) -> float:
    number, start = HydraConfig.get().job.num, time.monotonic()
    time.sleep(cfg.seconds[number % len(cfg.seconds)])
    with open(cfg.log, "a") as file:
        file.write(f"{number} {start} {time.monotonic()}\n")
    return cfg.x


if __name__ == "__main__":
    main()
