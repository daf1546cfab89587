"""The sweep that this process runs, under any sweeper and launcher: its folder, its lock and its record."""

from contextvars import ContextVar
from pathlib import Path
from typing import Any

from filelock import FileLock
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from cifarsweep.results import sweeps
from cifarsweep.sweeper import hydra_compat
from cifarsweep.terminal import command_line, progress
from cifarsweep.training import schema
from cifarsweep.training.configuration import plain

_opened: ContextVar[tuple[Path, FileLock | None] | None] = ContextVar("cifarsweep_sweep", default=None)
"""The lock is on the sweep's name, to the end of this process. A search has none, as it lets others join."""


def opened() -> Path | None:
    """The folder of the sweep that this process has started, or None."""
    sweep = _opened.get()
    return None if sweep is None else sweep[0]


class SweepCallback(Callback):
    """Opens the sweep's folder at the start of a multirun."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            _open(config)
        except Exception as error:
            raise SystemExit(1) from error  # Hydra goes on after an Exception of a callback


def _open(config: DictConfig) -> None:
    schema.check_values({"name": config.name, "outputs": config.outputs})
    hydra_compat.check_plugins(config)
    folder = Path(config.hydra.sweep.dir).absolute()
    if OmegaConf.select(config, "hydra.sweeper.dry_run"):  # which leaves nothing
        return
    lock = None
    if not is_search(config):
        lock = sweeps.own_sweep(folder)
        if lock is None:
            raise ValueError(f"name={folder.name}: another process runs this sweep; wait, or give another name=")
    plan = command_line.hidden(plain(config, resolve=False))
    for line in sweeps.open_sweep(folder, command_line.words(), plan):
        progress.line(line)
    _opened.set((folder, lock))


def is_search(config: DictConfig) -> bool:
    """Whether the engine searches, so that other processes may work on the same sweep."""
    return OmegaConf.select(config, "hydra.sweeper.join") is not None
