"""What the files of a run hold. Each is read and written in one place. Knows nothing of training."""

import contextlib
import math
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from cifarsweep.results import files, folders, identity, sweeps
from cifarsweep.results.typed import FileRecord, Record, Unexpected, whole

# fmt: off
COLUMNS = [
    "run_id", "status", "data", "model", "depth", "params", "optimizer", "lr", "batch_size", "schedule", "loss",
    "epochs", "seed", "train_accuracy", "val_accuracy", "test_accuracy", "val_loss", "test_loss", "train_seconds",
    "images_per_second",
]
# fmt: on
"""How runs.csv begins; result.json holds every one of them, in this order."""

FILES = ("config.yaml", "metrics.csv", "layers.csv", "confusion.csv", "confused.png", "model.pt")
"""What a run leaves beside result.json, which has their digests. Its checkpoint has one in it. Its log has none: no
command reads it, and nothing could write it again."""

Status = Literal["complete", "diverged", "pruned", "paused", "failed", "unfinished"]

CHECKPOINT = "checkpoint.pt"
"""What a run goes on from that has not ended."""

LAYERS = ["layer", "name", "kind", "inputs", "output_shape", "params", "multiply_adds"]


@dataclass(frozen=True, kw_only=True)
class Description(Record):
    """What is known of a run before it is trained; in config.yaml, under `run`."""

    may_lack_values = True
    run_id: str
    config_id: str
    """Shared by runs that differ in their seed only."""
    data: str
    model: str
    depth: int | None
    width: int | None
    params: int
    flops: int
    optimizer: str
    lr: float
    batch_size: int
    schedule: str
    loss: str
    epochs: int
    """How many were asked for."""
    seed: int
    data_fingerprint: str


@dataclass(frozen=True, kw_only=True)
class RunResult(FileRecord, Description):
    """result.json. Figures that are not finite are None; so is what an older version did not record."""

    file = "result.json"
    holds = "the result of a run"
    made_again_by = "the command that trained the run trains it again"
    instead = "update cifarsweep, or train the run again with force=true"
    status: Status
    """complete, diverged, pruned, paused or failed; unfinished where there is no result.json."""
    train_loss: float | None
    train_accuracy: float | None
    val_loss: float | None
    val_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    train_seconds: float | None
    images_per_second: float | None
    epochs_trained: int
    diverged_epoch: int | None
    error: str | None
    num_train: int
    num_val: int
    num_test: int
    device: str
    threads: int
    started: str
    finished: str
    command_line: list[str]
    provenance: dict[str, Any]
    format: int
    mirrored_test_accuracy: float | None = None
    """Of the mean scores of each test image and its mirror image, where trainer.test_mirrored asked for it."""
    sizes: dict[str, int] | None = None
    """In bytes, of the files that have digests, by name. None where an older version wrote it."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        result = super().of(values)
        if result.status is None:
            raise ValueError("status: missing")
        figures = {key: value for key, value in vars(result).items() if isinstance(value, float)}
        unknown: dict[str, Any] = {key: None for key, value in figures.items() if not math.isfinite(value)}
        return replace(result, **unknown)

    @classmethod
    def read_or_unfinished(cls, run_dir: Path) -> Self:
        """The result, or what was known at the start, with status `unfinished`.

        OSError or ValueError where neither file can be read.
        """
        if result := cls.read(run_dir):
            return result
        known = read_config(run_dir)["run"]
        try:
            return cls.of({**known, "status": "unfinished"})
        except Unexpected as error:
            raise files.Corrupt(run_dir / "config.yaml", f"not the configuration of a run (run.{error})") from error

    @property
    def versions(self) -> dict[str, Any]:
        """Of the libraries that trained it, as far as they are known."""
        versions = (self.provenance or {}).get("versions")
        return versions if isinstance(versions, dict) else {}

    @classmethod
    def advice(cls, folder: Path, started_by: Sequence[str] = ()) -> str:
        """By the command that trains the run alone: a search does not come back to a trial that has ended."""
        words = sweeps.command_of(folder) or started_by
        return f"{shlex.join(words)} makes it again" if words else cls.made_again_by

    def damaged(self, run_dir: Path, *names: str, by_size: bool = False) -> Iterator[files.Corrupt]:
        """Those of the run's files that are not what they were when the result was written; of all without `names`.

        With `by_size` none is read, so that a listing can ask: those that are missing, or have more or fewer bytes.
        """
        for path in (run_dir / name for name in names or FILES):
            try:
                reason = self._damage(path, by_size)
            except files.Corrupt as error:
                reason = error.reason
            if reason:
                yield files.Corrupt(path, reason, partial(self.advice, run_dir, self.command_line))

    def _damage(self, path: Path, by_size: bool) -> str | None:
        if self.digests is None:
            return None
        digest, size = self.digests.get(path.name), files.check_file(path)
        if size is None:
            return "missing" if digest else None
        if by_size:
            expected = (self.sizes or {}).get(path.name, size)
            return None if size == expected else f"{size:,} bytes, expected {expected:,}"
        return None if files.digest(path) == digest else "damaged: not what its digest in result.json says"

    def check(self, run_dir: Path, *names: str) -> None:
        """files.Corrupt where one of these files of the run is damaged or missing."""
        for error in self.damaged(run_dir, *names):
            raise error

    def row(self, run_dir: Path) -> dict[str, Any]:
        """What a listing shows: status `damaged` where a file of the run is missing or cut, and which as `error`."""
        lost = [f"{error.path.name}: {error.reason}" for error in self.damaged(run_dir, by_size=True)]
        damage = {"status": "damaged", "error": ", ".join(lost)} if lost else {}
        return {**vars(self), "run": run_dir.name, **damage}

    def as_dict(self) -> dict[str, Any]:
        values = super().as_dict()
        return {column: values[column] for column in COLUMNS} | values

    def write(self, run_dir: Path) -> Self:
        """With the digests and sizes of the run's files as they are now."""
        digests = {name: digest for name in FILES if (digest := files.digest(run_dir / name))}
        sizes = {name: (run_dir / name).stat().st_size for name in digests}
        return FileRecord.write(replace(self, digests=digests, sizes=sizes), run_dir)

    def __str__(self) -> str:
        """How the run ended, for a person."""
        if self.status == "diverged":
            return f"diverged in epoch {self.diverged_epoch}: the loss is no longer finite"
        num_epochs = self.epochs if self.status == "complete" else self.epochs_trained
        after = f"after {num_epochs} epoch{'' if num_epochs == 1 else 's'}"
        if self.status != "complete":
            return f"{self.status} {after}"
        accuracy = "unknown" if self.test_accuracy is None else f"{self.test_accuracy:.2%}"
        mirrored = self.mirrored_test_accuracy
        with_mirrored = "" if mirrored is None else f" ({mirrored:.2%} with mirrored images)"
        return f"test accuracy {accuracy}{with_mirrored} {after} in {self.train_seconds or 0:.0f} s"


def mark_failed(run_dir: Path, reason: str) -> None:
    """Writes a result for a run whose process died, unless it has ended or another process trains it by now."""

    def write() -> None:
        if not (run_dir / "result.json").exists():
            known = {**read_config(run_dir)["run"], "status": "failed", "error": reason}
            RunResult.of({**known, "format": identity.FORMAT}).write(run_dir)

    # Where it cannot be read or written, the sweep's record has the reason.
    with contextlib.suppress(OSError, ValueError):
        _unless_trained(run_dir, write)


def drop_checkpoint(run_dir: Path) -> None:
    """Removes what a run would go on from, unless another process trains it by now."""
    _unless_trained(run_dir, lambda: files.remove(run_dir / CHECKPOINT))


def _unless_trained(run_dir: Path, step: Callable[[], None]) -> None:
    """Takes the step with the run's lock held, if no process has it."""
    lock = folders.run_lock(run_dir.parent, run_dir.name.rpartition("-")[2])
    if lock.acquire(timeout=0):
        try:
            step()
        finally:
            lock.release()


def read_config(run_dir: Path) -> dict[str, Any]:
    """The resolved configuration. `run` in it has the run's description and `choices`. OSError or files.Corrupt."""
    path = run_dir / "config.yaml"
    config = files.read_yaml(path)
    if not isinstance(config, dict) or not isinstance(config.get("run"), dict):
        raise files.Corrupt(path, "not the configuration of a run")
    return config


def write_config(
    run_dir: Path, config: Mapping[str, Any], description: Description, choices: Mapping[str, str]
) -> None:
    content = {**config, "run": {**description.as_dict(), "choices": dict(choices)}}
    files.write_yaml(run_dir / "config.yaml", content)


@dataclass(frozen=True)
class Epoch:
    """A row of metrics.csv."""

    epoch: int
    """Counted from 1."""
    lr: float
    """Learning rate of the epoch's last step."""
    train_loss: float
    train_accuracy: float
    """Measured while training: on augmented images, by the weights of each moment."""
    val_loss: float | None
    val_accuracy: float | None
    seconds: float
    """Wall clock of the epoch's training, validation left out."""

    @property
    def diverged(self) -> bool:
        return not math.isfinite(self.train_loss) or not math.isfinite(self.val_loss or 0.0)


METRICS = [column.name for column in fields(Epoch)]


def write_metrics(run_dir: Path, epochs: Iterable[Epoch]) -> None:
    files.write_csv(run_dir / "metrics.csv", METRICS, map(astuple, epochs))


def read_metrics(run_dir: Path) -> list[Epoch]:
    """What metrics.csv holds; nothing where there is none. files.Corrupt where it is something else."""
    return files.read_csv(run_dir / "metrics.csv", METRICS, _epoch, "the metrics of a run")


def _epoch(row: Mapping[str, str]) -> Epoch:
    may_be_empty = ("val_loss", "val_accuracy")
    figures: dict[str, Any] = {
        key: float(text) if text or key not in may_be_empty else None for key, text in row.items()
    }
    return Epoch(**figures | {"epoch": int(row["epoch"])})


class Layer(NamedTuple):
    """A row of layers.csv: what happens to one image in a layer of a network."""

    name: str
    """Where the module is in the network, such as 0.1; empty for a function."""
    kind: str
    inputs: tuple[int, ...]
    """The layers, counted from 1, whose outputs it takes; 0 is the image."""
    shape: tuple[int, ...]
    """Of its output for one image: channels, height, width, or features."""
    params: int
    """Trainable numbers."""
    multiply_adds: int


def write_layers(run_dir: Path, layers: Iterable[Layer]) -> None:
    """layers.csv: the network that the run trains, a row a layer in the order of the computation."""
    rows = [
        [number, layer.name, layer.kind, " ".join(map(str, layer.inputs)), "×".join(map(str, layer.shape)), *layer[4:]]
        for number, layer in enumerate(layers, 1)
    ]
    files.write_csv(run_dir / "layers.csv", LAYERS, rows)


def read_layers(run_dir: Path) -> list[Layer]:
    """What layers.csv holds; nothing where there is none. files.Corrupt where it is something else."""
    path = run_dir / "layers.csv"
    layers = files.read_csv(path, LAYERS, _layer, "the layers of a network")
    if any(not 0 <= source < number for number, layer in enumerate(layers, 1) for source in layer.inputs):
        raise files.Corrupt(path, "a layer takes what is not there yet")
    return layers


def _layer(row: Mapping[str, str]) -> Layer:
    inputs = tuple(whole(word) for word in row["inputs"].split())
    shape = tuple(whole(size) for size in row["output_shape"].split("×") if size)
    params, multiply_adds = whole(row["params"]), whole(row["multiply_adds"])
    if min(params, multiply_adds, *shape, 0) < 0:
        raise ValueError("a negative number")
    return Layer(row["name"], row["kind"], inputs, shape, params, multiply_adds)
