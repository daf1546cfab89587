"""Sweeps over depth, learning rate, optimizer and batch size of small image classifiers: for Python and notebooks.

Each function imports what it needs when it is called. A mistake of the user is a ValueError of one line.
"""

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from os import PathLike
    from typing import IO

    import optuna
    import pandas as pd

    from cifarsweep.classifier import Classifier
    from cifarsweep.report.tables import Tables
    from cifarsweep.results.records import RunResult

    StrPath = str | PathLike[str]

__all__ = ["load_epochs", "load_model", "load_runs", "load_study", "load_summary", "sweep", "train"]


def load_runs(path: "StrPath" = "outputs") -> "pd.DataFrame":
    """A row for each run that `path` stands for, as in runs.csv.

    `path` is a run or a sweep, by its folder, its name or the id of a run; or an outputs folder. ValueError where it is
    none. A run whose files cannot be read is left out with a warning.
    """
    return _tables(path).written()["runs"]


def load_epochs(path: "StrPath" = "outputs") -> "pd.DataFrame":
    """A row for each epoch of these runs, as in epochs.csv."""
    return _tables(path).written()["epochs"]


def load_summary(path: "StrPath" = "outputs") -> "pd.DataFrame":
    """A row for each configuration, with means and 95 % intervals over its seeds, as in summary.csv."""
    return _tables(path).written()["summary"]


def load_study(sweep: "StrPath", name: str | None = None, storage: str | None = None) -> "optuna.Study":
    """The Optuna study of a search, running or finished.

    `sweep` is the search's folder or name. `name` says which where it has several studies; ValueError lists them.
    `storage` is what hydra.sweeper.storage was, where it was given.
    """
    from pathlib import Path

    from cifarsweep.results import folders
    from cifarsweep.sweeper.storage import load_study

    return load_study(folders.meant(Path(sweep), "the folder of a search, or its name"), name, storage)


def load_model(run: "StrPath", trust: bool = False) -> "Classifier":
    """The trained network of a run, by its folder, name or id, in evaluation mode and with its preprocessing.

    Or that of a file which cifarsweep.export wrote; `trust` opens a .pt2 file, which may run any code.

    `load_model(run)(images)` takes uint8 images (N, 3, image_size, image_size) and gives probabilities (N, classes).
    It has `class_names`, `image_size` and `read(path)`, which makes such an image of a file.
    """
    from pathlib import Path

    from cifarsweep import classifier

    return classifier.load(Path(run), trust)


def train(*overrides: str) -> "RunResult":
    """Trains one configuration, or finds it trained: `train("model=layers4", "batch_size=64")`.

    As on the command line: the same folder, the same resuming after an interruption, the same figures.
    """
    from pathlib import Path

    from cifarsweep.results import folders
    from cifarsweep.terminal import command_line
    from cifarsweep.training import configuration, run

    command = ["python", "-m", "cifarsweep", *overrides]
    with _one_line_errors(overrides), command_line.standing_for(command):
        composed = configuration.compose([*overrides])
        folders.check_writable(Path(composed.values["outputs"]), "outputs")
        return run.train(composed)


def sweep(*overrides: str) -> "pd.DataFrame":
    """Sweeps, or searches, as `python -m cifarsweep -m` does: `sweep("model=layers2,layers3", "name=first")`.

    Gives a row for each of its runs. A process of its own does the work, whose lines appear here. Where something
    failed, ValueError has the last line, and load_runs has what was trained even so.
    """
    import subprocess
    import sys
    from datetime import datetime
    from threading import Thread

    from hydra.core.override_parser.overrides_parser import OverridesParser

    from cifarsweep.results import folders

    with _one_line_errors(overrides):
        parsed = OverridesParser.create().parse_overrides([*overrides])
    given = {each.key_or_group: each.value() for each in parsed if not each.is_sweep_override()}
    name = str(given.get("name", f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"))
    words = [sys.executable, "-m", "cifarsweep", "-m", *overrides, *([] if "name" in given else [f"name={name}"])]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        printed = Thread(target=_relay, args=(process.stdout, sys.stdout), daemon=True)
        printed.start()
        try:
            line = _relay(process.stderr, sys.stderr)
        except KeyboardInterrupt:  # which the process has got, too: it says how to go on
            _relay(process.stderr, sys.stderr)
            raise
        printed.join()
    if process.returncode:
        raise ValueError(line.strip() or f"exit code {process.returncode}")
    return load_runs(folders.expanded(str(given.get("outputs", "outputs")), "outputs") / "sweeps" / name)


def _relay(source: "IO[str]", target: "IO[str]") -> str:
    """Passes the lines on as they come; the last one."""
    line = ""
    for line in source:
        target.write(line)
        target.flush()
    return line


def _tables(path: "StrPath") -> "Tables":
    import warnings
    from pathlib import Path

    from cifarsweep.report import tables
    from cifarsweep.results import folders

    read = tables.read(folders.find(Path(path)), [])
    for reason in read.unreadable:
        warnings.warn(f"left out, cannot be read: {reason}", stacklevel=3)
    return read


@contextmanager
def _one_line_errors(words: "Sequence[str]") -> "Iterator[None]":
    """What the user can mend is a ValueError with the line that the command would print."""
    from cifarsweep.terminal import errors

    try:
        yield
    except Exception as error:
        if not errors.is_users(error):
            raise
        from cifarsweep.training.configuration import error_line

        raise ValueError(error_line(error, [*words])) from error
