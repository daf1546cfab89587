"""A structured configuration with a group, for conditional spaces."""

from dataclasses import dataclass, field
from typing import Any

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

# Hydra 1.3 warns where version_base is not given; 1.4 where it is, and where nothing says what may be instantiated.
VERSION = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {"execution_whitelist": []}


@dataclass
class SGD:
    lr: float = 0.1
    momentum: float = 0.9


@dataclass
class Adam:
    lr: float = 0.001


@dataclass
class Config:
    defaults: list[Any] = field(default_factory=lambda: [{"optimizer": "sgd"}, "_self_"])
    optimizer: Any = MISSING
    batch_size: int = 32


store = ConfigStore.instance()
store.store("structured", Config)
store.store("sgd", SGD, group="optimizer")
store.store("adam", Adam, group="optimizer")


@hydra.main(config_path=None, config_name="structured", **VERSION)
def main(cfg: Config) -> float:
    return abs(cfg.optimizer.lr - 0.05) + cfg.optimizer.get("momentum", 1.0) + cfg.get("extra", 0.0)


if __name__ == "__main__":
    main()
