"""Keeps a checkpoint in the trial's folder, from which a killed trial goes on. Tells of each step in a log.

`dies_before_report` and `dies_after_report` are steps at which it kills itself, once each.
"""

import json
import os
import signal
import time
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from cifarsweep import trial

# Hydra 1.3 warns where version_base is not given; 1.4 where it is, and where nothing says what may be instantiated.
VERSION = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {"execution_whitelist": []}

ConfigStore.instance().store(
    "checkpointed",
    {"x": 1.0, "steps": 8, "seconds": 0.05, "log": "log", "dies_before_report": 0, "dies_after_report": 0},
)


@hydra.main(config_path=None, config_name="checkpointed", **VERSION)
def main(cfg: DictConfig) -> float:
    folder, state = trial.directory(), {"step": 0, "x": cfg.x}
    if folder and (folder / "checkpoint.json").exists():
        state = json.loads((folder / "checkpoint.json").read_text())
    tell(cfg, "starts", state["step"])
    for step in range(state["step"] + 1, cfg.steps + 1):
        time.sleep(cfg.seconds)
        tell(cfg, "ends", step)
        if folder:
            (folder / "new.json").write_text(json.dumps({**state, "step": step}))
            os.replace(folder / "new.json", folder / "checkpoint.json")
        if step == cfg.dies_before_report:
            die_once(cfg)
        pruned = trial.report(step, state["x"])
        if step == cfg.dies_after_report:
            die_once(cfg)
        if pruned:
            raise trial.Pruned
    return state["x"]


def tell(cfg: DictConfig, what: str, step: int) -> None:
    with open(cfg.log, "a") as file:
        file.write(f"{HydraConfig.get().job.get('num', 0)} {what} {step} {cfg.x}\n")


def die_once(cfg: DictConfig) -> None:
    died = Path(f"{cfg.log}.died")
    if not died.exists():
        died.touch()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
