"""A network of some width: the wider, the better. It says its size before it works, and its seconds after it."""

import logging

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from cifarsweep import trial

VERSION = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {"execution_whitelist": []}

log = logging.getLogger(__name__)
ConfigStore.instance().store("constrained", {"width": 1, "tells_seconds": True})


@hydra.main(config_path=None, config_name="constrained", **VERSION)
def main(cfg: DictConfig) -> float:
    trial.record(size=cfg.width**2)
    log.info("works with width %d", cfg.width)
    figures = {"value": 1 / cfg.width, **({"seconds": cfg.width / 2} if cfg.tells_seconds else {})}
    trial.report(1, figures)
    return figures["value"]


if __name__ == "__main__":
    main()
