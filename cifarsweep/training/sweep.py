"""The sweep that this process runs, under any sweeper and launcher: its folder, its lock and its record."""

import contextlib
import re
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, read_write

from cifarsweep.results import folders, sweeps
from cifarsweep.results.locks import Lock
from cifarsweep.sweeper import grid, hydra_compat, overrides
from cifarsweep.terminal import command_line, progress
from cifarsweep.training import schema
from cifarsweep.training.configuration import plain

_opened: ContextVar[tuple[Path, Lock | None] | None] = ContextVar("cifarsweep_sweep", default=None)
"""The lock is on the sweep's name, to the end of this process. A search has none, as it lets others join."""


OF_THE_SWEEP = ("name", "outputs", "force")
"""Keys that all jobs of a sweep share."""


def opened() -> Path | None:
    """The folder of the sweep that this process has started, or None."""
    sweep = _opened.get()
    return None if sweep is None else sweep[0]


class SweepCallback(Callback):
    """Checks at the start of a multirun what is the sweep's own."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            _check(config)
            sweeper = OmegaConf.select(config, "hydra.sweeper")
            if not sweeper._target_.startswith("hydra_plugins.cifarsweep_engine."):
                # Hydra's own sweepers do not say when they have checked everything
                start(config, _num_jobs(config) if sweeper._target_.endswith(".BasicSweeper") else None)
        except Exception as error:
            raise SystemExit(1) from error  # Hydra goes on after an Exception of a callback


def _check(config: DictConfig) -> None:
    """ValueError names what a sweep cannot have. Expands the folder of the results, for the jobs as well."""
    hydra_compat.check_plugins(config)
    words, params = config.hydra.overrides.task, OmegaConf.select(config, "hydra.sweeper.params")
    parser = OverridesParser.create()
    for key in OF_THE_SWEEP:
        of_key = [word for word in words if word.startswith(f"{key}=")]
        swept = [word for word in of_key if parser.parse_override(word).is_sweep_override()]
        if isinstance(params, DictConfig):
            zipped = re.compile(rf"[(,]\s*\+*{key}\s*=")
            named = [str(name) for name, text in params.items() if overrides.is_zip(text) and zipped.search(text)]
            swept += [f"hydra.sweeper.params.{name}" for name in ([key] if key in params else named)]
        if swept:
            raise ValueError(f"{swept[0]}: expected one value, as {key} is the whole sweep's")
    schema.check_values({key: OmegaConf.select(config, key) for key in OF_THE_SWEEP})
    outputs = folders.expanded(config.outputs, "outputs")
    folders.check_writable(outputs, "outputs")
    if str(outputs) != config.outputs:
        with read_write(config):
            config.outputs = str(outputs)
            quoted = QuotedString(str(outputs), Quote.single).with_quotes()
            words[:] = [*(word for word in words if not word.startswith("outputs=")), f"outputs={quoted}"]


def _num_jobs(config: DictConfig) -> int | None:
    """How many jobs Hydra's own grid has; None where it will refuse it."""
    sweeper: Any = OmegaConf.to_container(config.hydra.sweeper)
    words, loader = config.hydra.overrides.task, GlobalHydra.instance().config_loader()
    with contextlib.suppress(ValueError, HydraException):
        return len(grid.list_jobs(words, sweeper["params"] or {}, loader))
    return None


def start(config: DictConfig, num_jobs: int | None = None) -> None:
    """Makes the sweep's folder and record. Nothing is written before it."""
    folder, lock = Path(config.hydra.sweep.dir).absolute(), None
    if OmegaConf.select(config, "hydra.sweeper.join") is None:  # a search lets other processes work on it
        lock = sweeps.own_sweep(folder)
        if lock is None:
            raise ValueError(f"name={folder.name}: another process runs this sweep; wait, or give another name=")
    plan = command_line.hidden(plain(config, resolve=False))
    for line in sweeps.open_sweep(folder, command_line.words(), plan, num_jobs):
        progress.line(line)
    _opened.set((folder, lock))
