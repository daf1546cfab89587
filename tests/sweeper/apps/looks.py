"""Writes down what it sees of Hydra: its folder, its number, its environment, a resolver of its own."""

import json
import logging
import os
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

# Hydra 1.3 warns where version_base is not given; 1.4 where it is, and where nothing says what may be instantiated.
VERSION = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {"execution_whitelist": ["listener.*"]}

OmegaConf.register_new_resolver("double", lambda number: 2 * number)
callbacks = {"listener": {"_target_": "listener.Listener"}}
job = {"env_set": {"SEEN_BY_TASK": "${hydra.job.num}"}}
ConfigStore.instance().store(
    "looks", {"x": 1, "unused": 0, "doubled": "${double:${x}}", "hydra": {"callbacks": callbacks, "job": job}}
)


@hydra.main(config_path=None, config_name="looks", **VERSION)
def main(cfg: DictConfig) -> float:
    job = HydraConfig.get()
    seen = {
        "num": job.job.num,
        "id": job.job.id,
        "name": job.job.name,
        "overrides": list(job.overrides.task),
        "override_dirname": job.job.override_dirname,
        "sweep_dir": job.sweep.dir,
        "subdir": job.sweep.subdir,
        "output_dir": job.runtime.output_dir,
        "cwd": os.getcwd(),
        "environment": os.environ.get("SEEN_BY_TASK"),
        "config": OmegaConf.to_container(cfg, resolve=True),
    }
    logging.getLogger(__name__).info("x is %s", cfg.x)
    (Path(job.runtime.output_dir) / "seen.json").write_text(json.dumps(seen))
    return cfg.x


if __name__ == "__main__":
    main()
