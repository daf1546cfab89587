"""One run: configuration -> objects -> training -> result files. The only reader of a configuration's keys."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import itertools
import logging
import math
import os
import platform
import random
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
import yaml
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from cifarsweep import models
from cifarsweep.data import Augmentation, DataSet, samples
from cifarsweep.optim import parameter_groups
from cifarsweep.results import files, folders, identity, provenance, records
from cifarsweep.results.mosaic import Mosaic
from cifarsweep.terminal import errors, progress
from cifarsweep.training import checkpoint, layers
from cifarsweep.training.loop import Epoch, Evaluation, evaluate, train

log = logging.getLogger("cifarsweep")
T = TypeVar("T")
CHECKPOINT = "checkpoint.pt"
FINAL = {"complete", "diverged"}
"""Status of a run that need not be trained again. A pruned one was stopped early for others' sake."""
EVALUATION_BATCH = 500
NUM_STEPS_TIMED = 6
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


Stops = Callable[[int, Mapping[str, Any]], bool]
"""Hears the figures of an epoch, and says whether the training should end there as pruned."""


def never(epoch: int, measured: Mapping[str, Any]) -> bool:
    return False


def run(
    cfg: DictConfig,
    config: dict[str, Any],
    choices: Mapping[str, str],
    announce: Callable[[str], None],
    stops: Stops = never,
) -> dict[str, Any]:
    """Trains `cfg`, or finds it trained; the content of result.json.

    `config` is cfg as plain values; `choices` are the options chosen in each group, which name the run;
    `announce` is told the name of the run's directory before the training starts; `stops` hears the figures of each
    epoch, of a recorded run as well, and says whether the training should end there as pruned.
    """
    _log_to_console("cifarsweep.data")
    _keep_freed_memory()
    torch.set_num_threads(config["trainer"]["threads"] or num_cores())
    _set_determinism(config["trainer"]["deterministic"])
    dataset: DataSet = instantiate(cfg.data)
    if config["batch_size"] > len(dataset.train_indices):
        most = f"1 to {len(dataset.train_indices)}, the number of training images"
        raise ValueError(f"batch_size={config['batch_size']}: expected {most}")
    session = Session(cfg, config, dataset)
    what = identity.identity(session.config, dataset.fingerprint)
    about = {"run_id": identity.run_id(what), "config_id": identity.config_id(what), **session.describe(choices)}
    slug = identity.slug(about["model"], about["optimizer"], about["lr"], about["batch_size"], about["seed"])
    wait = partial(progress.line, f"{slug}-{about['run_id']}: another process trains it, waiting for its result")
    with folders.owned(Path(config["outputs"]) / "runs", slug, about["run_id"], wait) as run_dir:
        announce(run_dir.name)
        result = None if config["force"] else _recorded(run_dir, stops)
        if result:
            progress.result(f"{run_dir}: trained before, {_summary(result)}")
            return result
        return session.train(run_dir, about, choices, stops)


def cost(cfg: DictConfig, config: dict[str, Any], choices: Mapping[str, str], threads: int) -> dict[str, Any]:
    """What `cfg` would train, and how fast: measured over a few batches, of which nothing is kept."""
    _log_to_console("cifarsweep.data")
    torch.set_num_threads(config["trainer"]["threads"] or threads)
    dataset: DataSet = instantiate(cfg.data)
    session = Session(cfg, config, dataset)
    about = session.describe(choices)
    train_batches, _, _ = dataset.batchers(session.device)
    size = min(config["batch_size"], len(dataset.train_indices))
    num_steps = min(NUM_STEPS_TIMED, len(dataset.train_indices) // size)
    epochs = train(
        model=session.model,
        optimizer=session.optimizer,
        schedule=session.schedule,
        loss_fn=session.loss_fn,
        batches=lambda epoch: itertools.islice(train_batches.training(size, dataset.augmentation, epoch), num_steps),
        steps_per_epoch=num_steps,
        num_epochs=2,
        validate=lambda: None,
        autocast=session.autocast,
    )
    seconds = min(epoch.seconds for epoch in epochs)  # the first one makes the buffers
    return {
        **{key: about[key] for key in ("model", "width", "params")},
        "multiply_adds": about["flops"] // 2,
        "images_per_second": num_steps * size / seconds,
        "num_train": len(dataset.train_indices),
        "num_val": len(dataset.val_indices),
    }


def _recorded(run_dir: Path, stops: Stops) -> dict[str, Any] | None:
    """The result of a run that answers this request; a pruned one does where it would be pruned again.

    A file of it that is corrupt is set aside, and the run does not count as trained.
    """
    result, rows = _intact(records.read_result, run_dir), _intact(records.read_metrics, run_dir)
    if result is None or rows is None or result["status"] not in {*FINAL, "pruned"}:
        return None
    if len(rows) != result.get("epochs_trained"):
        _set_aside(
            files.Corrupt(run_dir / "metrics.csv", f"{len(rows)} epochs, expected {result.get('epochs_trained')}")
        )
        return None
    what_for = {key: result.get(key) for key in ("params", "flops")}
    seconds, stopped = 0.0, False
    for row in rows:
        seconds += row["seconds"] or 0.0
        stopped = stops(int(row["epoch"] or 0), {**what_for, **row, "train_seconds": seconds})
        if stopped and result["status"] == "pruned":
            return result
    if result["status"] not in FINAL:
        return None
    (run_dir / CHECKPOINT).unlink(missing_ok=True)  # of a process that was killed at the very end
    return result


def _intact(read: Callable[[Path], T], run_dir: Path) -> T | None:
    """What `read` finds there; a corrupt file is set aside, and there is nothing."""
    try:
        return read(run_dir)
    except files.Corrupt as error:
        _set_aside(error)
        return None


def _set_aside(error: files.Corrupt) -> None:
    progress.line(f"{error}; kept as {files.set_aside(error.path).name}, the work is done again")


def _seed(seed: int) -> None:
    """Of every generator that a model may draw from."""
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


def _called(group: str, function: Callable[..., T], *arguments: Any) -> T:
    """ValueError where `function`, made from this group of the configuration, has an argument that it does not know."""
    try:
        return function(*arguments)
    except TypeError as error:
        raise ValueError(f"{group}: {error}") from error


class Session:
    """The objects of one run, from construction to results."""

    def __init__(self, cfg: DictConfig, config: dict[str, Any], dataset: DataSet) -> None:
        self.config, self.dataset = config, dataset
        trainer = config["trainer"]
        self.device = choose_device(trainer["device"])
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=trainer["precision"] == "bf16")
        _seed(config["seed"])
        takes = {"image_size": dataset.image_size, "num_classes": len(dataset.class_names)}
        model: nn.Module = instantiate(cfg.model, **takes)
        if config["model"].get("match") is not None:  # the run is the one that its width, given as such, would be
            self.config = {**config, "model": {**config["model"], "width": model.width, "match": None}}
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.layers = layers.trace(self.model, dataset.train_images.shape[1:])
        self.model_arguments = {**{k: v for k, v in self.config["model"].items() if k != "_target_"}, **takes}
        make_optimizer, self.schedule = instantiate(cfg.optimizer), instantiate(cfg.schedule)
        self.optimizer: torch.optim.Optimizer = _called("optimizer", make_optimizer, parameter_groups(self.model))
        _called("schedule", self.schedule, 0, 1)
        self.loss_fn: nn.Module = instantiate(cfg.loss)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches; Batcher.training leaves the rest to another epoch's order."""
        return len(self.dataset.train_indices) // int(self.config["batch_size"])

    def describe(self, choices: Mapping[str, str]) -> dict[str, Any]:
        """The columns of runs.csv that are known before training."""
        config = self.config
        depth = config["model"].get("depth")
        return {
            "data": self.dataset.name,
            "model": choices["model"] if depth is None else re.sub(r"\d*$", str(depth), choices["model"], count=1),
            "depth": depth,
            "width": config["model"].get("width"),
            "params": models.num_parameters(self.model),
            "flops": 2 * sum(layer.multiply_adds for layer in self.layers),
            "optimizer": choices["optimizer"],
            "lr": config["optimizer"]["lr"],
            "batch_size": config["batch_size"],
            "schedule": choices["schedule"],
            "loss": choices["loss"],
            "epochs": config["trainer"]["epochs"],
            "seed": config["seed"],
            "data_fingerprint": self.dataset.fingerprint,
        }

    def train(
        self,
        run_dir: Path,
        about: dict[str, Any],
        choices: Mapping[str, str],
        stops: Stops,
    ) -> dict[str, Any]:
        """Trains, from where an earlier process stopped, and writes the run's files, result.json last.

        A failure is recorded there and raised again.
        """
        _start_directory(run_dir, self.config, {**about, "choices": dict(choices)})
        records.write_layers(run_dir, self.layers)
        _write_pictures(self.dataset, Path(self.config["outputs"]))
        started = provenance.now()
        epochs = self._resume(run_dir, about["run_id"])
        with _log_file(run_dir / "train.log", "a" if epochs else "w"):
            log.info(
                "%s on %s, %d thread(s)", " ".join(provenance.command_line()), self.device, torch.get_num_threads()
            )
            if epochs:
                log.info("goes on after epoch %d", len(epochs))
                progress.detail(f"{run_dir.name}: goes on after epoch {len(epochs)}/{about['epochs']}")
            try:
                figures = self._fit(run_dir, about["run_id"], epochs, partial(self._stops, about, stops))
            except Exception as error:
                log.exception("failed")
                with contextlib.suppress(OSError):  # a full disk may be the very reason
                    failed = {"status": "failed", "error": errors.one_line(error)}
                    files.write_json(run_dir / "result.json", self._result(about, started, epochs, failed))
                raise
            finally:
                progress.end()
            result = self._result(about, started, epochs, figures)
            files.write_json(run_dir / "result.json", result)
            if result["status"] in FINAL:
                (run_dir / CHECKPOINT).unlink(missing_ok=True)
            log.info("%s", _summary(result))
            progress.result(f"{run_dir}: {_summary(result)}")
        return result

    def _resume(self, run_dir: Path, run_id: str) -> list[Epoch]:
        """The epochs that an earlier process trained, with everything put back to their end."""
        path = run_dir / CHECKPOINT
        if self.config["force"]:
            path.unlink(missing_ok=True)
        try:
            epochs = [Epoch(**row) for row in checkpoint.restore(path, run_id, self.model, self.optimizer)]
        except files.Corrupt as error:
            _set_aside(error)
            return []
        if epochs:  # an earlier process may have ended before it wrote them
            _write_metrics(run_dir, epochs)
        return epochs

    def _fit(
        self, run_dir: Path, run_id: str, epochs: list[Epoch], stops: Callable[[list[Epoch]], bool]
    ) -> dict[str, Any]:
        """Adds to `epochs`; the figures of the end. Asks after each epoch whether the training `stops` there."""
        train_batches, val_batches, test_batches = self.dataset.batchers(self.device)
        batch_size, num_epochs = self.config["batch_size"], self.config["trainer"]["epochs"]
        steps_per_epoch = self.steps_per_epoch
        network = cast(nn.Module, torch.compile(self.model)) if self.config["trainer"]["compile"] else self.model

        def batches(epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            # A seed of its own for each epoch: a resumed run sees the same images in the same order.
            seed = _epoch_seed(self.config["seed"], epoch)
            one_epoch = train_batches.training(batch_size, self.dataset.augmentation, seed)
            slug, accuracy = run_dir.name.rpartition("-")[0], _accuracy(epochs[-1]) if epochs else ""
            done, total = (epoch - 1) * steps_per_epoch, num_epochs * steps_per_epoch
            return progress.track(one_epoch, progress.Stage(slug, epoch, num_epochs, accuracy, done, total))

        def validate() -> Evaluation | None:
            if not len(self.dataset.val_indices):
                return None
            return evaluate(network, val_batches.evaluation(EVALUATION_BATCH), self.loss_fn, self.autocast)

        remaining = train(
            model=network,
            optimizer=self.optimizer,
            schedule=self.schedule,
            loss_fn=self.loss_fn,
            batches=batches,
            steps_per_epoch=steps_per_epoch,
            first_epoch=len(epochs) + 1,
            num_epochs=num_epochs,
            validate=validate,
            autocast=self.autocast,
        )
        # A search may have missed the end of an epoch: it hears of each again.
        pruned = any(stops(epochs[:n]) for n in range(1, len(epochs) + 1))
        for done in () if pruned or (epochs and epochs[-1].diverged) else remaining:
            epochs.append(done)
            rows = [vars(epoch) for epoch in epochs]
            checkpoint.save(run_dir / CHECKPOINT, run_id, rows, self.model, self.optimizer)
            _write_metrics(run_dir, epochs)
            line = _epoch_line(done, num_epochs, steps_per_epoch * batch_size)
            log.info("%s", line)
            progress.detail(f"{run_dir.name}: {line}")
            if pruned := stops(epochs):
                break
        if epochs[-1].diverged:
            return {"status": "diverged", "diverged_epoch": epochs[-1].epoch}
        if pruned and len(epochs) < num_epochs:
            return {"status": "pruned"}
        test = evaluate(network, test_batches.evaluation(EVALUATION_BATCH), self.loss_fn, self.autocast)
        self._write_model(run_dir)
        self._write_confusion(run_dir, test)
        return {"status": "complete", "test_accuracy": test.accuracy, "test_loss": test.loss}

    def _stops(self, about: dict[str, Any], stops: Stops, epochs: list[Epoch]) -> bool:
        seconds = sum(epoch.seconds for epoch in epochs)
        what_for = {"params": about["params"], "flops": about["flops"], "train_seconds": seconds}
        return stops(epochs[-1].epoch, {**vars(epochs[-1]), **what_for})

    def _result(
        self, about: dict[str, Any], started: str, epochs: list[Epoch], figures: dict[str, Any]
    ) -> dict[str, Any]:
        """Everything result.json holds. Figures that are not finite, as of a diverged run, are null."""
        seconds = sum(epoch.seconds for epoch in epochs)
        num_images = self.steps_per_epoch * about["batch_size"] * len(epochs)
        last = epochs[-1] if epochs else None
        measured = {
            "train_loss": last and last.train_loss,
            "train_accuracy": last and last.train_accuracy,
            "val_loss": last and last.val_loss,
            "val_accuracy": last and last.val_accuracy,
            "test_loss": None,
            "test_accuracy": None,
            "train_seconds": seconds,
            "images_per_second": num_images / seconds if seconds else None,
            "epochs_trained": len(epochs),
            "diverged_epoch": None,
            "error": None,
            **figures,
        }
        context = {
            "num_train": len(self.dataset.train_indices),
            "num_val": len(self.dataset.val_indices),
            "num_test": len(self.dataset.test_labels),
            "device": _device_name(self.device),
            "threads": torch.get_num_threads(),
            "started": started,
            "finished": provenance.now(),
            "command_line": provenance.command_line(),
            "provenance": provenance.provenance(),
            "format": identity.FORMAT,
        }
        everything = {**about, **measured, **context}
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in everything.items()}
        return {**{column: finite[column] for column in records.COLUMNS}, **finite}

    def _write_model(self, run_dir: Path) -> None:
        """Weights and what a prediction needs beside them: plain values, which weights_only=True opens."""
        content = {
            "target": self.config["model"]["_target_"],
            "arguments": self.model_arguments,
            "state_dict": {name: value.detach().cpu() for name, value in self.model.state_dict().items()},
            "class_names": self.dataset.class_names,
            "mean": self.dataset.mean,
            "std": self.dataset.std,
        }
        buffer = io.BytesIO()  # torch.save itself answers a full disk with a RuntimeError that names neither
        torch.save(content, buffer)
        with files.atomic(run_dir / "model.pt", "wb") as file:
            file.write(buffer.getbuffer())

    def _write_confusion(self, run_dir: Path, test: Evaluation) -> None:
        """A row a true class, a column a predicted one; the numbers of test images. And images of what was confused."""
        names = self.dataset.class_names
        pairs = self.dataset.test_labels * len(names) + test.predicted
        counts = torch.bincount(pairs, minlength=len(names) ** 2).view(len(names), -1).tolist()
        rows = [[name, *row] for name, row in zip(names, counts, strict=True)]
        files.write_csv(run_dir / "confusion.csv", ["true", *names], rows)
        confused = samples.confused(self.dataset, test.predicted)
        if confused:
            _write_mosaic(run_dir / "confused.png", confused)


def _epoch_seed(seed: int, epoch: int) -> int:
    """64 bits, far apart for neighbouring seeds and epochs."""
    return int.from_bytes(hashlib.sha256(f"{seed} {epoch}".encode()).digest()[:8], "big")


# the process


def num_cores() -> int:
    """Cores this process may use: what a launcher gave it by OMP_NUM_THREADS or affinity."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_device(name: str) -> torch.device:
    """auto: CUDA where there is one, else Apple's GPU, else the CPU. ValueError where a named one is missing."""
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name != "auto" and name not in there:
        raise ValueError(f"trainer.device={name}: not on this machine, expected one of auto, {', '.join(there)}")
    return torch.device(there[0] if name == "auto" else name)


@cache
def _keep_freed_memory() -> None:
    """Once a process: glibc keeps what is freed, as each step needs it again.

    It would give blocks of 128 KiB and more back to the system, which then clears every page anew: a fifth of the time
    of a step of 512 images.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)  # no blocks of their own, which would go back at once
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _set_determinism(deterministic: bool) -> None:
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may sum in another order
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs a pass a tensor
    torch.backends.cudnn.benchmark = not deterministic


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


# the directory


def _write_metrics(run_dir: Path, epochs: list[Epoch]) -> None:
    rows = [[getattr(epoch, column) for column in records.METRICS] for epoch in epochs]
    files.write_csv(run_dir / "metrics.csv", records.METRICS, rows)


def _start_directory(run_dir: Path, config: dict[str, Any], about: dict[str, Any]) -> None:
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "result.json").unlink(missing_ok=True)
    for left_by_a_killed_process in run_dir.glob(".*.part"):
        left_by_a_killed_process.unlink()
    with files.atomic(run_dir / "config.yaml") as file:
        yaml.safe_dump({**config, "run": about}, file, sort_keys=False, allow_unicode=True)


def _write_pictures(dataset: DataSet, outputs: Path) -> None:
    """Images of the data set, written by the first of all runs on it."""
    folder = folders.pictures(outputs, dataset.name, dataset.fingerprint)
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {"classes.png": samples.of_classes}
    if dataset.augmentation != Augmentation():
        drawn[folders.augmentation_picture(**vars(dataset.augmentation))] = samples.augmented
    for name, draw in drawn.items():
        if not (folder / name).exists():
            _write_mosaic(folder / name, draw(dataset))


def _write_mosaic(path: Path, mosaic: Mosaic) -> None:
    with files.atomic(path, "wb") as file:
        mosaic.write(file)


class _Console(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        progress.line(record.getMessage())


def _log_to_console(name: str) -> None:
    """What that logger says from now on is shown where the progress is."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    logger.handlers, logger.propagate = [_Console()], False


class _LogFile(logging.FileHandler):
    """Goes on without a line that cannot be written: on a full disk, the next result says so by its name."""

    def handleError(self, record: logging.LogRecord) -> None:
        return

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def _log_file(path: Path, mode: str) -> Iterator[None]:
    """What the logger and Python's warnings say goes to the file, while it lasts."""
    handler = _LogFile(path, mode, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
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
        handler.close()


# what a person reads


def _epoch_line(done: Epoch, num_epochs: int, num_images: int) -> str:
    val = "" if done.val_accuracy is None else f"  val {done.val_loss:.3f} {done.val_accuracy:.2%}"
    return (
        f"epoch {done.epoch}/{num_epochs}  lr {done.lr:.2g}  train {done.train_loss:.3f} {done.train_accuracy:.2%}{val}"
        f"  {num_images / done.seconds:,.0f} images/s"
    )


def _accuracy(done: Epoch) -> str:
    return f"train {done.train_accuracy:.1%}" if done.val_accuracy is None else f"val {done.val_accuracy:.1%}"


def _summary(result: Mapping[str, Any]) -> str:
    if result["status"] == "diverged":
        return f"diverged in epoch {result['diverged_epoch']}: the loss is no longer finite"
    if result["status"] != "complete":
        return f"{result['status']} after {result['epochs_trained']} epochs"
    seconds = f"{result['epochs']} epochs in {result['train_seconds']:.0f} s"
    return f"test accuracy {result['test_accuracy']:.2%} after {seconds}"
