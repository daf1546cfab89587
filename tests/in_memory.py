"""A search whose storage is this process's memory, with the engine's own queue: for tests and replays."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import optuna
from omegaconf import OmegaConf
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from cifarsweep.sweeper import settings, space
from cifarsweep.sweeper.application import Application
from cifarsweep.sweeper.queue import Outcome
from cifarsweep.sweeper.studies import OpenStudy, StudyPlan

KEYS = Path(settings.__file__).parent / "conf" / "hydra" / "sweeper"
T = TypeVar("T")


class Memory(InMemoryStorage):
    """One thread takes one step at a time."""

    def take(self, step: Callable[[], T], study_id: int | None = None) -> T:
        return step()


def option(group: str, name: str, **changed: Any) -> dict[str, Any]:
    """An option of hydra/sweeper/sampler or pruner with some of its keys changed."""
    return {**OmegaConf.to_container(OmegaConf.load(KEYS / group / f"{name}.yaml")), **changed}


def plan(folder: Path, searched: Mapping[str, Any], address: str = "memory", **given: Any) -> StudyPlan:
    """`given` are keys under hydra.sweeper. With an address of its own the study is for a storage there."""
    keys = OmegaConf.to_container(OmegaConf.load(KEYS / "study.yaml"))
    del keys["defaults"]
    keys |= {"sampler": option("sampler", "random"), "pruner": option("pruner", "none"), "direction": "maximize"}
    return StudyPlan(
        name=f"{time.monotonic_ns()}",
        address=address,
        folder=folder,
        space=space.parse(dict(searched), [], None),
        settings=settings.read(OmegaConf.create({**keys, **given}), Application(), OmegaConf.create({"seed": 0})),
    )


def opened(mine: StudyPlan) -> OpenStudy:
    memory = Memory()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    optuna.create_study(study_name=mine.name, storage=memory, directions=mine.settings.directions)
    study = OpenStudy(mine, memory)
    study.queue.top_up(mine.settings.n_trials)
    return study


def study(folder: Path, n_trials: int, pruner: Mapping[str, Any], **given: Any) -> OpenStudy:
    """With pruner=promote."""
    return opened(
        plan(folder, {"x": "interval(0, 1)"}, n_trials=n_trials, pruner=option("pruner", "promote", **pruner), **given)
    )


def complete(value: float) -> Outcome:
    return Outcome(TrialState.COMPLETE, [value])


PRUNED = Outcome(TrialState.PRUNED)
