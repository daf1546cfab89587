"""The files that a run writes beside its records: its log, its weights, its confusion matrix and pictures."""

import contextlib
import copy
import io
import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from cifarsweep.data import Augmentation, DataSet, samples
from cifarsweep.results import files, folders, mosaic, records
from cifarsweep.terminal import command_line, progress
from cifarsweep.training import checkpoint
from cifarsweep.training.session import Session

OF_TEST = ("confusion.csv", "confused.png")
"""Files on the test images."""


def start(run_dir: Path, session: Session) -> None:
    """Writes what is known before the training. Removes a result."""
    files.make_folder(run_dir)
    for name in ("result.json", "model.pt", *OF_TEST):  # an earlier result's, which this training may not have
        files.remove(run_dir / name)
    for left_by_a_killed_process in run_dir.glob(".*.part"):
        files.remove(left_by_a_killed_process)
    write_known(run_dir, session)


def write_pictures(session: Session) -> None:
    """Pictures of the data set, which all runs on it share: those that are not there yet, or damaged."""
    dataset = session.dataset
    folder = folders.pictures(Path(session.values["outputs"]), dataset.name, dataset.fingerprint)
    files.make_folder(folder)
    drawn = {"classes.png": samples.of_classes}
    if dataset.augmentation != Augmentation():
        drawn[folders.augmentation_picture(**vars(dataset.augmentation))] = samples.augmented
    for name, draw in drawn.items():
        try:
            is_there = mosaic.check(folder / name)
        except files.Corrupt as error:
            set_aside(error)
            is_there = False
        if not is_there:
            draw(dataset).write(folder / name)


def set_aside(error: files.Corrupt) -> None:
    """Renames a damaged file, and says so."""
    kept = ""
    with contextlib.suppress(FileNotFoundError):  # it is missing, or another process was faster
        kept = f"kept as {files.set_aside(error.path).name}, "
    progress.line(f"{error.path}: {error.reason}; {kept}the work is done again")


def write_known(run_dir: Path, session: Session) -> None:
    """The files on what is known before the training."""
    values = {key: value for key, value in session.values.items() if key != "tracker"}  # which is not the run's
    records.write_config(run_dir, command_line.hidden(values), session.description, session.choices)
    records.write_layers(run_dir, session.layers)


def read_model(run_dir: Path, session: Session) -> nn.Module:
    """The network with the weights of the run; that of the session stays as it is."""
    archive = io.BytesIO(files.read_bytes(run_dir / "model.pt", files.MOST_WEIGHTS))
    model: nn.Module = copy.deepcopy(session.model)
    model.load_state_dict(torch.load(archive, map_location="cpu", weights_only=True)["state_dict"])
    return model


def write_model(run_dir: Path, session: Session) -> None:
    """Weights and what a prediction needs beside them: plain values, which weights_only=True opens."""
    content = {
        "target": session.values["model"]["_target_"],
        "arguments": session.model_arguments,
        "state_dict": {name: value.detach().cpu() for name, value in session.model.state_dict().items()},
        "class_names": session.dataset.class_names,
        "mean": session.dataset.mean,
        "std": session.dataset.std,
    }
    with files.atomic(run_dir / "model.pt", "wb") as file:
        file.write(checkpoint.as_bytes(content))


def write_confusion(run_dir: Path, dataset: DataSet, predicted: Tensor) -> None:
    """Numbers of test images, a row a true class and a column a predicted one; and images of what was confused."""
    names = dataset.class_names
    pairs = dataset.test_labels * len(names) + predicted
    counts = torch.bincount(pairs, minlength=len(names) ** 2).view(len(names), -1).tolist()
    rows = [[name, *row] for name, row in zip(names, counts, strict=True)]
    files.write_csv(run_dir / "confusion.csv", ["true", *names], rows)
    confused = samples.confused(dataset, predicted)
    if confused:
        confused.write(run_dir / "confused.png")


class _Console(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        progress.line(record.getMessage())


def show_log(name: str) -> None:
    """Shows where the progress is what that logger says from now on."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    logger.handlers, logger.propagate = [_Console()], False


@contextlib.contextmanager
def log_file(path: Path, mode: str) -> Iterator[None]:
    """Inside, what our logger and Python's warnings say goes to the file.

    Goes on without a line that cannot be written: on a full disk, the next result is named in an error.
    """
    file = open(path, mode, encoding="utf-8", opener=files.opener)  # noqa: SIM115
    handler = logging.StreamHandler(file)
    handler.handleError = lambda record: None  # type: ignore[method-assign]
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log = logging.getLogger("cifarsweep")
    loggers = log, logging.getLogger("py.warnings")
    for logger in loggers:
        logger.addHandler(handler)
        logger.propagate = False
    log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        for logger in loggers:
            logger.removeHandler(handler)
        with contextlib.suppress(OSError):
            file.close()
