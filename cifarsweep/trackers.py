"""Runs for other people's dashboards: an adapter for each tool, which is imported only where it was chosen.

Each tool holds a run once and each of its epochs once, whatever was killed on the way: an adapter is given all epochs
so far and adds those that its tool lacks. What only this run writes is written anew instead.
"""

import contextlib
import hashlib
import io
import json
import logging
import math
import netrc
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from cifarsweep.results import files, folders, records
from cifarsweep.results.locks import Lock
from cifarsweep.results.records import Epoch, RunResult
from cifarsweep.terminal import errors, progress

DONE = "trackers.json"
"""In a run's folder: to which tool its result was given, so that nothing is imported where it is asked for again."""
STATUS_OF_MLFLOW = {
    "complete": "FINISHED",
    "pruned": "KILLED",
    "paused": "SCHEDULED",
    "diverged": "FAILED",
    "failed": "FAILED",
}
FIGURES, TESTS = tuple(records.METRICS[1:]), ("test_loss", "test_accuracy")
"""Of an epoch, and of a complete run beside those of its last epoch."""


@dataclass(frozen=True)
class TrackedRun:
    run_dir: Path
    run_id: str
    outputs: Path
    settings: Mapping[str, Any]
    """What determines its result, under full keys."""
    sweep: Path | None = None
    is_anew: bool = False
    """Whether it is trained from its first epoch on, whatever was known of it."""

    @property
    def artefacts(self) -> list[Path]:
        """The files that its result has digests of: figures, pictures, weights."""
        return [self.run_dir / name for name in records.FILES if (self.run_dir / name).exists()]


class Tracker(Protocol):
    def epochs(self, epochs: Sequence[Epoch]) -> None: ...

    def end(self, result: RunResult) -> None: ...


class Trackers:
    """Those that were chosen, each with its keys. One that fails costs a line, and the run goes on without it."""

    def __init__(
        self, chosen: Mapping[str, Mapping[str, Any]], run: TrackedRun, result: RunResult | None = None
    ) -> None:
        """`result` is that of a run which was trained before. Tools that have it are left alone."""
        self._run, self._chosen = run, chosen
        self._open: dict[str, Tracker] = {}
        for name, keys in chosen.items():
            if result is None or self._done().get(name) != self._of(name, result):
                with self._reaching(name):
                    self._open[name] = ADAPTERS[name](run, **keys)

    def epochs(self, epochs: Sequence[Epoch]) -> None:
        """All epochs so far."""
        for name, tracker in [*self._open.items()]:
            with self._reaching(name):
                tracker.epochs(epochs)

    def end(self, result: RunResult) -> None:
        for name, tracker in [*self._open.items()]:
            with self._reaching(name):
                tracker.end(result)
                files.write_json(self._run.run_dir / DONE, {**self._done(), name: self._of(name, result)})

    @contextlib.contextmanager
    def _reaching(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._open.pop(name, None)
            progress.line(f"tracker={name}: {errors.one_line(error)}; {self._run.run_dir.name} goes on without it")

    def _done(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, ValueError):
            known = files.read_json(self._run.run_dir / DONE)
            return known if isinstance(known, dict) else {}
        return {}

    def _of(self, name: str, result: RunResult) -> list[str]:
        """What the tool was given, and where: another address, which may hold a password, begins anew."""
        where = hashlib.sha256(json.dumps(dict(self._chosen[name]), sort_keys=True).encode()).hexdigest()[:12]
        return [result.status, result.finished, where]


def missing(chosen: Mapping[str, Any]) -> str | None:
    """The first tracker whose package is not installed."""
    return next((name for name in chosen if find_spec(name) is None), None)


def _figures(record: Epoch | RunResult, names: Sequence[str]) -> dict[str, float]:
    """Those that are finite: a dashboard can draw no other."""
    values = {name: getattr(record, name) for name in names}
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def _of_epoch(epoch: Epoch) -> dict[str, float]:
    return _figures(epoch, FIGURES)


class TensorBoard:
    """A folder of its own for each run, written anew where it goes on: nothing else writes there.

    Figures are doubles, as in epochs.csv. TensorBoard's usual scalars have seven digits.
    """

    def __init__(self, run: TrackedRun, folder: str | None) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._run = run
        parent = folders.expanded(folder, "tracker.tensorboard.folder") if folder else run.outputs / "tensorboard"
        place = parent / run.run_dir.name
        for old in place.glob("events.out.tfevents.*"):
            files.remove(old)
        self._writer = SummaryWriter(str(place))
        self._num_epochs = 0

    def epochs(self, epochs: Sequence[Epoch]) -> None:
        for epoch in epochs[self._num_epochs :]:
            self._scalars(_of_epoch(epoch), epoch.epoch)
        self._num_epochs = len(epochs)
        self._writer.flush()

    def end(self, result: RunResult) -> None:
        from torch.utils.tensorboard.summary import hparams

        tests = _figures(result, TESTS)
        self._scalars(tests, result.epochs_trained)
        settings = {
            **self._run.settings,
            "sweep": self._run.sweep.name if self._run.sweep else "",
            "status": result.status,
        }
        texts = {key: value if isinstance(value, bool | int | float) else str(value) for key, value in settings.items()}
        writer: Any = self._writer.file_writer
        for summary in hparams(texts, {**_figures(result, ("val_accuracy",)), **tests}):  # type: ignore[no-untyped-call]
            writer.add_summary(summary)
        self._writer.close()

    def _scalars(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step, new_style=True, double_precision=True)


class MLflow:
    """A run of MLflow for each run, below one for its sweep, found again by tags. Asks which steps it has before."""

    def __init__(self, run: TrackedRun, uri: str | None, experiment: str) -> None:
        for key, value in (("MAX_RETRIES", "1"), ("TIMEOUT", "20")):  # 7 and 120: a run would wait for ten minutes
            os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{key}", value)
        from mlflow import MlflowClient
        from mlflow.entities import Param

        for name in ("mlflow", "alembic"):  # which tell of each table that they make
            logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger("urllib3").setLevel(logging.ERROR)  # it tells of each attempt; the last one's error is ours
        outputs = run.outputs.absolute()
        lock = Lock(outputs / "runs" / ".locks" / "mlflow.lock")
        self._run = run
        self._turn: contextlib.AbstractContextManager[Any] = contextlib.nullcontext() if uri else lock
        """In a file of SQLite, one process writes at a time, and others are told that it is locked."""
        with lock:  # of two that begin, one makes the tables and the run of the sweep
            self._client = MlflowClient(uri or f"sqlite:///{outputs / 'mlflow.db'}")
            known = self._client.get_experiment_by_name(experiment)
            place = None if uri else (outputs / "mlartifacts").as_uri()
            self._experiment = known.experiment_id if known else self._client.create_experiment(experiment, place)
            self._parent = None
            if run.sweep:
                where = hashlib.sha256(str(run.sweep).encode()).hexdigest()[:12]
                self._parent = self._found("cifarsweep.sweep", where, run.sweep.name, {})
            nested = {"mlflow.parentRunId": self._parent} if self._parent else {}
            self._id = self._found("cifarsweep.run_id", run.run_id, run.run_dir.name, nested, run.is_anew)
            # What it has already is not written again
            self._client.log_batch(self._id, params=[Param(key, str(value)) for key, value in run.settings.items()])
            self._has = {name: {each.step for each in self._history(name)} for name in (*FIGURES, *TESTS)}

    def _found(self, tag: str, value: str, name: str, tags: Mapping[str, str], is_anew: bool = False) -> str:
        """The MLflow run with this tag, which is made where there is none, and runs now."""
        known = [*self._client.search_runs([self._experiment], f"tags.`{tag}` = '{value}'", max_results=1)]
        if known and is_anew:
            self._client.delete_run(known.pop().info.run_id)
        run = known[0] if known else self._client.create_run(self._experiment, tags={tag: value, **tags}, run_name=name)
        self._client.update_run(run.info.run_id, status="RUNNING")
        return str(run.info.run_id)

    def _history(self, name: str) -> Sequence[Any]:
        return list(self._client.get_metric_history(self._id, name))

    def epochs(self, epochs: Sequence[Epoch]) -> None:
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        now, new = get_current_time_millis(), []
        for epoch in epochs:
            for name, value in _of_epoch(epoch).items():
                if epoch.epoch not in self._has[name]:
                    self._has[name].add(epoch.epoch)
                    new.append(Metric(name, value, now, epoch.epoch))
        if new:
            with self._turn:
                self._client.log_batch(self._id, metrics=new)

    def end(self, result: RunResult) -> None:
        from mlflow.entities import Metric, RunTag

        tests = _figures(result, TESTS)
        metrics = [
            Metric(name, value, 0, result.epochs_trained) for name, value in tests.items() if not self._has[name]
        ]
        tags = [RunTag("cifarsweep.status", result.status), *([RunTag("error", result.error)] if result.error else [])]
        with self._turn:
            self._client.log_batch(self._id, metrics, tags=tags)
            for path in self._run.artefacts:
                self._client.log_artifact(self._id, str(path))
            self._client.set_terminated(self._id, STATUS_OF_MLFLOW[result.status])
            if self._parent:  # the last run of the sweep leaves it so
                self._client.set_terminated(self._parent)


class WandB:
    """A run of W&B for each run, in the group of its sweep. Offline, unless the user has logged in.

    What is offline is written anew where the run goes on. W&B's server says itself which step is next.
    """

    def __init__(self, run: TrackedRun, project: str, entity: str | None, mode: str | None) -> None:
        if "wandb" not in sys.modules:  # a parent's service would hold the run of a process that was killed
            os.environ.pop("WANDB_SERVICE", None)
        # 90 and no end: a run would wait for a server that is gone
        for key, value in (("INIT_TIMEOUT", "20"), ("FINISH_TIMEOUT", "120"), ("SILENT", "true")):
            os.environ.setdefault(f"WANDB_{key}", value)
        import wandb

        mode = mode or os.environ.get("WANDB_MODE") or ("online" if self._has_logged_in() else "offline")
        for old in (run.outputs / "wandb").glob(f"offline-run-*-{run.run_id}") if mode == "offline" else ():
            shutil.rmtree(old)
        self._tracked = run
        self._run = wandb.init(
            project=project,
            entity=entity,
            id=run.run_id,
            name=run.run_dir.name,
            group=run.sweep.name if run.sweep else None,
            config=dict(run.settings),
            dir=str(run.outputs),
            mode=mode,
            resume=None if mode == "offline" else "allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True, x_disable_stats=True),
        )
        self._next = self._run.step

    @staticmethod
    def _has_logged_in() -> bool:
        """As wandb looks for it, but without asking at a terminal."""
        if os.environ.get("WANDB_API_KEY"):
            return True
        server = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            return server in netrc.netrc(os.environ.get("NETRC")).hosts
        return False

    def epochs(self, epochs: Sequence[Epoch]) -> None:
        for epoch in epochs:
            if epoch.epoch >= self._next:
                self._run.log(_of_epoch(epoch), step=epoch.epoch, commit=True)
                self._next = epoch.epoch + 1

    def end(self, result: RunResult) -> None:
        import wandb

        self._run.summary.update(
            {"status": result.status, "error": result.error, **_figures(result, (*TESTS, "train_seconds"))}
        )
        artefact = wandb.Artifact(f"run-{result.run_id}", type="run")
        for path in self._tracked.artefacts:
            artefact.add_file(str(path))
        self._run.log_artifact(artefact)
        self._run.finish(exit_code=1 if result.status in ("failed", "diverged") else 0)


class Trackio:
    """A run of Trackio for each run, in the group of its sweep. Its run knows which step comes next."""

    def __init__(self, run: TrackedRun, project: str, space_id: str | None) -> None:
        import trackio

        self._tracked = run
        if run.is_anew and space_id is None:
            with contextlib.suppress(ValueError):  # the project does not exist yet
                for known in [each for each in trackio.Api().runs(project) if each.name == run.run_dir.name]:
                    known.delete()
        with contextlib.redirect_stdout(io.StringIO()):  # what it prints is not about training
            self._run = trackio.init(
                project=project,
                name=run.run_dir.name,
                group=run.sweep.name if run.sweep else None,
                config=dict(run.settings),
                space_id=space_id,
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        self._next = max(self._run._next_step, 1)  # 0.43: nothing public tells it

    def epochs(self, epochs: Sequence[Epoch]) -> None:
        for epoch in epochs:
            self._log(_of_epoch(epoch), epoch.epoch)

    def _log(self, figures: Mapping[str, float], step: int) -> None:
        if step >= self._next:
            self._run.log(dict(figures), step=step)
            self._next = step + 1

    def end(self, result: RunResult) -> None:
        import trackio

        with contextlib.redirect_stdout(io.StringIO()):
            if result.status == "complete":
                self._log(_figures(result, TESTS), result.epochs_trained + 1)
                for path in self._tracked.artefacts:
                    self._run.log_artifact(path, name=f"{result.run_id}-{path.name}", type="run")
            else:  # it may go on, so that no step may come after its epochs
                self._run.alert(str(result), result.error)
            trackio.finish()  # as the end of the process would finish a run once more, and print a line


ADAPTERS: Mapping[str, Callable[..., Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WandB,
    "trackio": Trackio,
}
