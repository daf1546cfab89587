"""A function of x and of some luck of the seed. It writes a line a step, and may be killed at one.

SEEDED_KILL names the step that kills it once, by x, seed and step; after `all` its whole command dies with it.
"""

import os
import signal
import time
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig

from cifarsweep import trial

VERSION = {"version_base": "1.3"} if hydra.__version__ < "1.4" else {"execution_whitelist": []}

ConfigStore.instance().store("seeded", {"x": 1.0, "seed": None, "steps": 2})


def die_once(step: int, cfg: DictConfig, killed: Path) -> None:
    words = os.environ.get("SEEDED_KILL", "").split()
    if words[-3:] == [f"{cfg.x:g}", str(cfg.seed), str(step)] and not killed.exists():
        killed.touch()
        if words[0] == "all":
            os.killpg(0, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


@hydra.main(config_path=None, config_name="seeded", **VERSION)
def main(cfg: DictConfig) -> list[float]:
    folder, luck = trial.directory(), cfg.seed or 0
    values = {"value": abs(cfg.x - 2) + luck / 100, "cost": cfg.x * luck}
    for step in range(1, cfg.steps + 1):
        with Path("steps.txt").open("a") as file:
            file.write(f"{cfg.x:g} {cfg.seed} {step} {folder.name}\n")
        die_once(step, cfg, folder / "killed")
        time.sleep(cfg.get("seconds", 0))
        if trial.report(step, {**values, "value": 100.0}):
            raise trial.Pruned
    if cfg.get("fails") == f"{cfg.x:g} {cfg.seed}":
        raise ValueError("no luck")
    return [values[name] for name in trial.current().objectives]


if __name__ == "__main__":
    main()
