"""A Hydra application on the project's configuration and sweeper whose task trains nothing: for tests and benchmarks.

    python tests/toy.py -m search=quick data=shapes hydra.sweeper.n_trials=10

The value is a smooth function of learning rate and depth. The environment says what happens on the way:
TOY_SECONDS an epoch, TOY_LOG a file that gets a line a start and an end, TOY_FAULT a Python expression over lr, depth,
number and epoch which says how an epoch goes wrong: "raise", "nan", "memory" or "kill"; anything else is fine.
TOY_BEST is the epoch after which the value falls. With TOY_REGISTER a job is recorded in sweep.json, as one with a run.
"""

import math
import os
import signal
import sys
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "cifarsweep" / "sweeper")]

from cifarsweep import trial  # noqa: E402
from cifarsweep.results import sweeps  # noqa: E402
from cifarsweep.sweeper.application import Cost  # noqa: E402
from cifarsweep.training import command  # noqa: E402
from cifarsweep.training.application import ImageTraining  # noqa: E402


def task(cfg):
    job = HydraConfig.get()
    number = job.job.num
    if "TOY_REGISTER" in os.environ:
        sweeps.register_job(Path(job.sweep.dir), number, list(job.overrides.task), run=f"toy-{number}")
    _log("start", number)
    lr, depth = cfg.optimizer.lr, cfg.model.get("depth", 3)
    for epoch in range(1, cfg.trainer.epochs + 1):
        time.sleep(float(os.environ.get("TOY_SECONDS", 0)))
        fault = eval(os.environ.get("TOY_FAULT", "None"), {"lr": lr, "depth": depth, "epoch": epoch, "number": number})
        if fault == "raise":
            raise ZeroDivisionError(f"no luck with lr {lr:g}")
        if fault == "memory":
            raise MemoryError
        if fault == "nan":
            return math.nan
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        value = (1 - (math.log10(lr) + 1) ** 2 / 10) * depth / 5
        value *= 1 - 0.5**epoch - 0.05 * max(0, epoch - int(os.environ.get("TOY_BEST", 99)))
        figures = {
            "val_accuracy": value,
            "val_loss": -value,
            "test_accuracy": value,
            "params": 10**depth,
            "train_seconds": epoch,
        }
        trial.record(run=f"toy-{number}")
        if trial.report(epoch, figures) and epoch < cfg.trainer.epochs:
            _log("pruned", number)
            raise trial.Pruned
    _log("end", number)
    searching = trial.current()  # a grid has no objectives
    return [figures[name] for name in searching.objectives] if searching else figures["val_accuracy"]


def _log(what, number):
    if path := os.environ.get("TOY_LOG"):
        with open(path, "a") as file:
            file.write(f"{what} {number} {os.getpid()} {time.monotonic()}\n")


class Toy(ImageTraining):
    """The project's own application, but that an epoch takes 1 s."""

    def cost(self, config, choices, threads):
        return Cost(choices["model"], 1.0, {"width": 16, "params": 100, "multiply_adds": 10})


task.application = Toy()

if __name__ == "__main__":
    sys.exit(command.run(task))  # no run, so no report
