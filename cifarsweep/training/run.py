"""One run, from its configuration to its result files: data, network, loop, results, in this order."""

import contextlib
import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from cifarsweep.data import Batcher
from cifarsweep.results import files, folders, identity, locks, provenance, records
from cifarsweep.results.records import CHECKPOINT, Description, Epoch, RunResult, Status
from cifarsweep.results.study_records import EARLY
from cifarsweep.terminal import command_line, domains, errors, progress
from cifarsweep.trackers import TrackedRun, Trackers
from cifarsweep.training import checkpoint, dry_step, loop, process, run_files
from cifarsweep.training.configuration import Configuration
from cifarsweep.training.session import Session, load_data

log = logging.getLogger("cifarsweep")
FINAL = ("complete", "diverged")
"""Status of a run that need not be trained again. Others that were stopped early may be trained further."""
EVALUATION_BATCH = 500

Report = Callable[[int, Mapping[str, Any]], Status | None]
"""Takes an epoch's number and figures; the status with which the training should stop there, None where it goes on."""


def train(
    configuration: Configuration,
    report: Report = lambda epoch, figures: None,
    announce: Callable[[Path], None] = lambda run_dir: None,
    describe: Callable[[Description], None] = lambda about: None,
    sweep: Path | None = None,
) -> RunResult:
    """Trains the configuration, or finds it trained.

    `describe` gets what is known before anything is trained or written. `report` gets the figures of each epoch, of a
    recorded run as well. `announce` gets the run's directory before the training starts. `sweep` is the folder of the
    sweep that this run is a job of.
    """
    values = configuration.values
    run_files.show_log("cifarsweep.data")
    process.prepare(values["trainer"])
    dataset = load_data(configuration)
    if values["batch_size"] > len(dataset.train_indices):
        most = f"1 to {len(dataset.train_indices)}, the number of training images"
        raise ValueError(f"batch_size={values['batch_size']}: expected {most}")
    session = Session(configuration, dataset)
    about, runs_dir = session.description, Path(values["outputs"]) / "runs"
    describe(about)
    begun = (run / name for run in runs_dir.glob(f"*-{about.run_id}") for name in (CHECKPOINT, "model.pt"))
    if not any(path.exists() for path in begun):
        dry_step.check(session)
        del session  # its memory is free for the next one, which seeds every generator again
        session = Session(configuration, dataset)
    slug = identity.slug(about.model, about.optimizer, about.lr, about.batch_size, about.seed)
    wait = partial(progress.line, f"{slug}-{about.run_id}: another process trains it, waiting for its result")
    with folders.owned(runs_dir, slug, about.run_id, wait) as (run_dir, lock):
        announce(run_dir)
        run_files.write_pictures(session)
        result = None if values["force"] else _recorded(session, run_dir, report)
        tracked = _trackers(session, run_dir, sweep, result)
        if result:
            tracked.epochs(records.read_metrics(run_dir))
            tracked.end(result)
            progress.result(f"{run_dir}: trained before, {result}")
            return result
        return _train(session, run_dir, lock, report, tracked)


def _trackers(session: Session, run_dir: Path, sweep: Path | None, result: RunResult | None) -> Trackers:
    values, about = session.values, session.description
    settings = dict(domains.flat(identity.identity(values, about.data_fingerprint)))
    run = TrackedRun(run_dir, about.run_id, Path(values["outputs"]), settings, sweep, is_anew=values["force"])
    return Trackers(values.get("tracker") or {}, run, result)


def _recorded(session: Session, run_dir: Path, report: Report) -> RunResult | None:
    """The result of a run that answers this request. One that was stopped early does so where it would be again.

    What is damaged is set aside and made again. Where that takes a training, the run does not count as trained.
    """
    try:
        result = RunResult.read(run_dir)
    except files.Corrupt as error:
        run_files.set_aside(error)
        return None
    if result is None or result.status not in (*FINAL, *EARLY):
        return None
    damaged = {error.path.name: error for error in result.damaged(run_dir)}
    try:
        epochs = records.read_metrics(run_dir)
        if len(epochs) != result.epochs_trained:
            reason = f"{len(epochs)} epochs, expected {result.epochs_trained}"
            raise files.Corrupt(run_dir / "metrics.csv", reason)
    except files.Corrupt as error:  # what an older version wrote has no digests
        damaged.setdefault(error.path.name, error)
    for each in damaged.values():
        run_files.set_aside(each)
    if damaged and not _made_again(session, run_dir, result, damaged.keys()):
        return None
    for num_epochs in range(1, len(epochs) + 1):
        if _reported(report, result, epochs[:num_epochs]) == result.status:
            return result
    if result.status not in FINAL:
        return None
    files.remove(run_dir / CHECKPOINT)  # of a process that was killed at the very end
    return result


def _reported(report: Report, about: Description, epochs: Sequence[Epoch]) -> Status | None:
    """Reports the last of these epochs; the status with which the training should stop there."""
    seconds = sum(epoch.seconds for epoch in epochs)
    costs = {"params": about.params, "flops": about.flops, "train_seconds": seconds}
    return report(epochs[-1].epoch, {**vars(epochs[-1]), **costs})


def _made_again(session: Session, run_dir: Path, result: RunResult, names: Set[str]) -> bool:
    """Makes lost files again that need no training, and says if these were all."""
    if {"metrics.csv", "model.pt"} & names or (result.status != "complete" and names & {*run_files.OF_TEST}):
        return False
    run_files.write_known(run_dir, session)
    if names & {*run_files.OF_TEST}:
        model = run_files.read_model(run_dir, session)
        test = _evaluate(session, model, session.dataset.batchers(session.device).test)
        if test.accuracy != result.test_accuracy:  # another device, or other versions
            return False
        run_files.write_confusion(run_dir, session.dataset, test.predicted)
    result.write(run_dir)
    return True


def _train(session: Session, run_dir: Path, lock: locks.Lock, report: Report, tracked: Trackers) -> RunResult:
    """Trains, from where an earlier process stopped, and writes the run's files, result.json last.

    A failure is recorded there and raised again. Nothing is written once the lock is lost.
    """
    started = provenance.now()
    run_files.start(run_dir, session)
    epochs, part = _resume(session, run_dir)
    where = f"after epoch {len(epochs)}/{session.description.epochs}"
    where += f" and {part.steps} steps" if part.steps else ""
    goes_on = bool(epochs or part.steps)
    with run_files.log_file(run_dir / "train.log", "a" if goes_on else "w"):
        command = " ".join(command_line.words())
        log.info("%s on %s, %d thread(s)", command, session.device, torch.get_num_threads())
        if goes_on:
            log.info("goes on %s", where)
            progress.detail(f"{run_dir.name}: goes on {where}")
        try:
            figures = _fit(session, run_dir, lock, epochs, part, report, tracked)
            lock.check()
        except locks.Lost:
            raise
        except Exception as error:
            lock.check()
            log.exception("failed")
            with contextlib.suppress(OSError):  # a full disk may be the very reason
                ended = {"status": "failed", "error": errors.one_line(error)}
                tracked.end(_result(session, started, epochs, ended).write(run_dir))
            raise
        finally:
            progress.end()
        result = _result(session, started, epochs, figures).write(run_dir)
        if result.status in FINAL:
            files.remove(run_dir / CHECKPOINT)
        tracked.end(result)
        log.info("%s", result)
        progress.result(f"{run_dir}: {result}")
    return result


def _resume(session: Session, run_dir: Path) -> tuple[list[Epoch], loop.Part]:
    """The epochs that an earlier process trained, and its part of the next, with everything put back to their end."""
    path = run_dir / CHECKPOINT
    if session.values["force"]:
        files.remove(path)
    try:
        epochs, part = checkpoint.restore(path, session.description.run_id, session.model, session.optimizer)
    except files.Corrupt as error:
        run_files.set_aside(error)
        return [], loop.NOTHING
    if epochs:  # an earlier process may have ended before it wrote them
        records.write_metrics(run_dir, epochs)
    return epochs, part


def _fit(
    session: Session,
    run_dir: Path,
    lock: locks.Lock,
    epochs: list[Epoch],
    part: loop.Part,
    report: Report,
    tracked: Trackers,
) -> dict[str, Any]:
    """Trains the epochs that are missing and adds them to `epochs`. Returns the status and figures of the end."""
    values, about, num_steps = session.values, session.description, session.steps_per_epoch
    data = session.dataset.batchers(session.device)
    network = cast(nn.Module, torch.compile(session.model)) if values["trainer"]["compile"] else session.model

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        # Each epoch has a seed of its own, so that a resumed run sees the same images in the same order: 64 bits, far
        # apart for neighbouring seeds and epochs.
        seed = int.from_bytes(hashlib.sha256(f"{about.seed} {epoch}".encode()).digest()[:8], "big")
        shuffled = data.train.training(about.batch_size, session.dataset.augmentation, seed, epoch)
        accuracy = _accuracy(epochs[-1]) if epochs else ""
        slug, done, total = run_dir.name.rpartition("-")[0], (epoch - 1) * num_steps, about.epochs * num_steps
        return progress.track(shuffled, progress.Stage(slug, epoch, about.epochs, accuracy, done, total))

    def save(part: loop.Part = loop.NOTHING) -> None:
        lock.check()
        checkpoint.save(run_dir / CHECKPOINT, about.run_id, epochs, session.model, session.optimizer, part)

    # A search may have missed the end of an epoch, so it hears of each again. So may a tracker.
    tracked.epochs(epochs)
    answers = [_reported(report, about, epochs[:n]) for n in range(1, len(epochs) + 1)]
    stopped = next(filter(None, answers), None)
    remaining = loop.train(
        model=network,
        optimizer=session.optimizer,
        schedule=session.schedule,
        loss_fn=session.loss_fn,
        batches=batches,
        steps_per_epoch=num_steps,
        first_epoch=len(epochs) + 1,
        num_epochs=about.epochs,
        validate=lambda: _evaluate(session, network, data.val) if len(data.val.indices) else None,
        autocast=session.autocast,
        begun=part,
        save_every=values["trainer"].get("checkpoint_seconds") or math.inf,
        save=save,
    )
    for epoch in () if stopped or (epochs and epochs[-1].diverged) else remaining:
        epochs.append(epoch)
        save()
        records.write_metrics(run_dir, epochs)
        tracked.epochs(epochs)
        line = _epoch_line(epoch, about.epochs, num_steps * about.batch_size)
        log.info("%s", line)
        progress.detail(f"{run_dir.name}: {line}")
        if stopped := _reported(report, about, epochs):
            break

    if epochs[-1].diverged:
        return {"status": "diverged", "diverged_epoch": epochs[-1].epoch}
    if stopped and len(epochs) < about.epochs:
        return {"status": stopped}
    test = _evaluate(session, network, data.test)
    lock.check()
    run_files.write_model(run_dir, session)
    run_files.write_confusion(run_dir, session.dataset, test.predicted)
    figures = {"status": "complete", "test_accuracy": test.accuracy, "test_loss": test.loss}
    if values["trainer"].get("test_mirrored"):
        figures["mirrored_test_accuracy"] = _evaluate(session, network, data.test, mirrored=True).accuracy
    return figures


def _evaluate(session: Session, network: nn.Module, batcher: Batcher, mirrored: bool = False) -> loop.Evaluation:
    return loop.evaluate(network, batcher.evaluation(EVALUATION_BATCH), session.loss_fn, session.autocast, mirrored)


def _result(session: Session, started: str, epochs: list[Epoch], figures: Mapping[str, Any]) -> RunResult:
    about, dataset, device = session.description, session.dataset, session.device
    names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    last = {name: getattr(epochs[-1], name) for name in names} if epochs else {}
    seconds = sum(epoch.seconds for epoch in epochs)
    num_images = session.steps_per_epoch * about.batch_size * len(epochs)
    return RunResult.of(
        {
            **about.as_dict(),
            **last,
            "train_seconds": seconds,
            "images_per_second": num_images / seconds if seconds else None,
            "epochs_trained": len(epochs),
            "num_train": len(dataset.train_indices),
            "num_val": len(dataset.val_indices),
            "num_test": len(dataset.test_labels),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
            "threads": torch.get_num_threads(),
            "started": started,
            "finished": provenance.now(),
            "command_line": command_line.words(),
            "provenance": provenance.provenance(),
            "format": identity.FORMAT,
            **figures,
        }
    )


def _epoch_line(epoch: Epoch, num_epochs: int, num_images: int) -> str:
    val = "" if epoch.val_accuracy is None else f"  val {epoch.val_loss:.3f} {epoch.val_accuracy:.2%}"
    return (
        f"epoch {epoch.epoch}/{num_epochs}  lr {epoch.lr:.2g}  train {epoch.train_loss:.3f} {epoch.train_accuracy:.2%}"
        f"{val}  {num_images / epoch.seconds:,.0f} images/s"
    )


def _accuracy(epoch: Epoch) -> str:
    return f"train {epoch.train_accuracy:.1%}" if epoch.val_accuracy is None else f"val {epoch.val_accuracy:.1%}"
