"""Runs and sweeps on disk: identity, names, atomic files. Knows nothing of Hydra, PyTorch or how a run is trained."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import IO, Any, NamedTuple

import yaml
from filelock import FileLock, Timeout

FORMAT = 1
"""Version of the on-disk format; part of every run_id, so runs of two formats never mix."""

# fmt: off
COLUMNS = [
    "run_id", "status", "data", "model", "depth", "params", "optimizer", "lr", "batch_size", "schedule", "loss",
    "epochs", "seed", "train_accuracy", "val_accuracy", "test_accuracy", "val_loss", "test_loss", "train_seconds",
    "images_per_second",
]
# fmt: on
"""How runs.csv begins; result.json holds every one of them."""

LAYERS = ["layer", "name", "kind", "inputs", "output_shape", "params", "multiply_adds"]
METRICS = ["epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "seconds"]


class Layer(NamedTuple):
    """A row of layers.csv: what happens to one image in a layer of a network."""

    name: str
    """Where the module is in the network, as 0.1; empty for a function."""
    kind: str
    inputs: tuple[int, ...]
    """The layers, counted from 1, whose outputs it takes; 0 is the image."""
    shape: tuple[int, ...]
    """Of its output for one image: channels, height, width, or features."""
    params: int
    """Trainable numbers."""
    multiply_adds: int


_DETERMINES = ("data", "model", "optimizer", "schedule", "loss", "trainer", "batch_size", "seed")
DOES_NOT_DETERMINE = {
    "data": {"_target_", "name", "root", "cache"},
    "trainer": {"device", "threads", "compile", "deterministic"},
}

_JOURNAL = "jobs.jsonl"
"""Beside sweep.json while a command runs: what its jobs have told."""

_MEANS_NOTHING = [("match", None)]
"""A model of a width of its own; so that runs from before there was the key are found."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there


# identity


def identity(config: Mapping[str, Any], data_fingerprint: str) -> dict[str, Any]:
    """The part of a resolved configuration that determines the result, with the data named by its content."""
    what: dict[str, Any] = {}
    for key in _DETERMINES:
        value = config[key]
        if isinstance(value, Mapping):
            left_out = DOES_NOT_DETERMINE.get(key, set()) | {"_partial_"}
            value = {k: v for k, v in value.items() if k not in left_out and (k, v) not in _MEANS_NOTHING}
        what[key] = value
    what["data"]["fingerprint"] = data_fingerprint
    what["format"] = FORMAT
    return what


def run_id(what: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits, equal for configurations that mean the same (0.1 and 1e-1, 1 and 1.0)."""
    text = json.dumps(_canonical(what), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def config_id(what: Mapping[str, Any]) -> str:
    """Like run_id, but shared by runs that differ in their seed only: the rows that a mean is taken over."""
    return run_id({key: value for key, value in what.items() if key != "seed"})


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _canonical(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_canonical(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def slug(model: str, optimizer: str, lr: float, batch_size: int, seed: int) -> str:
    """A readable name for a run: layers3-momentum-lr0.1-bs128-s0. Safe as a folder name on any system."""
    text = f"{model}-{optimizer}-lr{lr:g}-bs{batch_size}-s{seed}"
    return re.sub(r"[^A-Za-z0-9._+-]+", "_", text).lstrip(".")[:100]


# files


class Corrupt(ValueError):
    """A file of a run that cannot be what it should be; the message names it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


def set_aside(path: Path) -> Path:
    """Renames a corrupt file or folder to *.corrupt, past those of earlier times; its new name."""
    aside = path.with_name(f"{path.name}.corrupt")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.{number}.corrupt")
    path.rename(aside)
    return aside


@contextmanager
def atomic(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file that appears under its name whole and synced to disk, or not at all. OSError names it."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        binary = "b" in mode
        with os.fdopen(descriptor, mode, encoding=None if binary else "utf-8", newline=None if binary else "") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's 0600 would hide results from a group
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    with atomic(path) as file:
        json.dump(value, file, indent=1, ensure_ascii=False)
        file.write("\n")


def read_json(path: Path) -> Any:
    """The file's value; Corrupt where it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Corrupt(path, f"not a JSON file ({error})") from error


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Comma-separated, floats at full precision, None as an empty cell."""
    with atomic(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _read_csv(path: Path, columns: list[str]) -> Iterator[dict[str, str]]:
    """A row at a time, as what `write_csv` wrote; ValueError where the columns are others."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != columns:
            raise ValueError(f"columns {reader.fieldnames}")
        yield from reader


# runs


@contextmanager
def owned(runs_dir: Path, name: str, id: str, wait: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """The directory of run `id`, while no other process owns it; `wait` is called before another's is waited for.

    The directory need not exist yet. A run that stands under another slug keeps that name.
    """
    locks = runs_dir / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{id}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        wait()
        lock.acquire()
    try:
        yield next(iter(sorted(runs_dir.glob(f"*-{id}"))), runs_dir / f"{name}-{id}")
    finally:
        lock.release()


def read_result(run_dir: Path) -> dict[str, Any] | None:
    """What result.json holds, or None where the run has not ended. Corrupt where it is no result."""
    path = run_dir / "result.json"
    if not path.exists():
        return None
    result = read_json(path)
    if not isinstance(result, dict) or not result.keys() >= {*COLUMNS}:
        raise Corrupt(path, "not the result of a run")
    return result


def mark_failed(run_dir: Path, reason: str) -> None:
    """A result for a run whose process died, unless it has ended or another process trains it by now."""
    lock = FileLock(run_dir.parent / ".locks" / f"{run_dir.name.rpartition('-')[2]}.lock")
    try:
        with lock.acquire(blocking=False):
            if not (run_dir / "result.json").exists():
                about = read_config(run_dir)["run"]
                result = {**dict.fromkeys(COLUMNS), **about, "status": "failed", "error": reason, "format": FORMAT}
                write_json(run_dir / "result.json", result)
    except (Timeout, OSError, ValueError):  # it cannot be read or written: the sweep's record has the reason
        return


def read_run(run_dir: Path) -> dict[str, Any]:
    """result.json, or what was known at the start, with status `unfinished`, where the run has not ended.

    `dir` is added: where it was found. OSError or ValueError where neither file can be read.
    """
    row = read_result(run_dir)
    if row is None:
        row = {**read_config(run_dir)["run"], "status": "unfinished"}
    return {**row, "dir": run_dir}


def read_config(run_dir: Path) -> dict[str, Any]:
    """The resolved configuration, and under `run` what was known of the run at its start. OSError or Corrupt."""
    path = run_dir / "config.yaml"
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), _LOADER)
        if isinstance(config, dict) and isinstance(config["run"], dict):
            return config
    except (yaml.YAMLError, KeyError, ValueError, RecursionError) as error:
        raise Corrupt(path, "not the configuration of a run") from error
    raise Corrupt(path, "not the configuration of a run")


def read_metrics(run_dir: Path) -> list[dict[str, float | None]]:
    """One entry an epoch, keys METRICS; None where nothing was measured, as validation without a split."""
    path = run_dir / "metrics.csv"
    if not path.exists():
        return []
    try:
        return [{key: float(row[key]) if row[key] else None for key in METRICS} for row in _read_csv(path, METRICS)]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise Corrupt(path, "not the metrics of a run") from error


def write_layers(run_dir: Path, layers: Iterable[Layer]) -> None:
    """layers.csv: the network that the run trains, a row a layer in the order of the computation."""
    rows = [
        [at, layer.name, layer.kind, _words(layer.inputs), "×".join(map(str, layer.shape)), *layer[4:]]
        for at, layer in enumerate(layers, 1)
    ]
    write_csv(run_dir / "layers.csv", LAYERS, rows)


def _words(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))


def read_layers(run_dir: Path) -> list[Layer]:
    """What layers.csv holds; nothing where there is none. Corrupt where it is something else."""
    path = run_dir / "layers.csv"
    if not path.exists():
        return []
    try:
        layers = [_layer(row) for row in _read_csv(path, LAYERS)]
    except (KeyError, TypeError, AttributeError, ValueError, csv.Error) as error:
        raise Corrupt(path, "not the layers of a network") from error
    if any(not 0 <= source < at for at, layer in enumerate(layers, 1) for source in layer.inputs):
        raise Corrupt(path, "a layer takes what is not there yet")
    return layers


def _layer(row: Mapping[str, str]) -> Layer:
    shape = tuple(int(size) for size in row["output_shape"].split("×") if size)
    inputs = tuple(int(word) for word in row["inputs"].split())
    layer = Layer(row["name"], row["kind"], inputs, shape, int(row["params"]), int(row["multiply_adds"]))
    if min(layer.params, layer.multiply_adds, *shape, 0) < 0:
        raise ValueError("a negative number")
    return layer


def pictures(outputs: Path, data: str, fingerprint: str) -> Path:
    """The folder with images of a data set, which all runs on it share."""
    return outputs / "data" / re.sub(r"[^A-Za-z0-9_-]+", "_", f"{data[:60]}-{fingerprint[:12]}")


def augmentation_picture(crop: int = 0, flip: bool = False, cutout: int = 0) -> str:
    """The name of the file there that shows what this augmentation does."""
    return f"augmentation-crop{crop:d}-flip{flip:d}-cutout{cutout:d}.png"


def find(path: Path) -> list[Path]:
    """The run directories that `path` stands for: a run, a sweep, a folder of either, or a whole outputs folder."""
    path = Path(os.path.abspath(path))  # a sweep finds its runs from its parents, which Path("depth") does not have
    if (path / "config.yaml").exists():
        return [path]
    sweeps = [path] if (path / "sweep.json").exists() else [file.parent for file in path.glob("*/sweep.json")]
    if sweeps:
        names = {job["run"] for sweep in sweeps for job in read_sweep(sweep)["jobs"].values() if job.get("run")}
        found = (sweeps[0].parent.parent / "runs" / Path(name).name for name in names)
        return sorted(run for run in found if run.exists())
    folder = path / "runs" if (path / "runs").is_dir() else path
    if not folder.is_dir():
        raise ValueError(f"{path}: no such folder, expected a run, a sweep or an outputs folder")
    return sorted(run for run in folder.iterdir() if (run / "config.yaml").exists())


# sweeps


def find_sweeps(path: Path) -> list[Path]:
    """The sweeps that `path` stands for: one, a folder of them, or those of a whole outputs folder. Or ValueError."""
    path = Path(os.path.abspath(path))
    folders = [path, *path.glob("*"), *path.glob("sweeps/*")]
    found = sorted(folder for folder in folders if (folder / "sweep.json").exists())
    if not found:
        raise ValueError(f"{path}: no sweeps here, expected a sweep or an outputs folder")
    return found


def read_sweep(sweep_dir: Path) -> dict[str, Any]:
    """What sweep.json holds, with what the jobs of a command that still runs have told since: `commands`, one or more,
    and `jobs`, a mapping. ValueError where it is something else."""
    told = _read_journal(sweep_dir)  # first, as what is moved from there to sweep.json meanwhile may be read twice
    path = sweep_dir / "sweep.json"
    sweep = read_json(path)
    if isinstance(sweep, dict) and isinstance(sweep.get("jobs"), dict):
        _add(sweep["jobs"], told)
    found = sweep if isinstance(sweep, dict) else {}
    jobs, commands = found.get("jobs"), found.get("commands")
    is_sweep = (
        isinstance(jobs, dict)
        and all(isinstance(job, dict) and isinstance(job.get("run"), str | None) for job in jobs.values())
        and isinstance(commands, list)
        and all(isinstance(command, dict) for command in commands)
    )
    if not is_sweep or not commands:
        raise Corrupt(path, "expected the record of a sweep")
    return found


def own_sweep(sweep_dir: Path) -> FileLock | None:
    """The lock on a sweep, held by this process until it is released; None where another process holds it."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    lock = FileLock(sweep_dir / ".owner.lock")
    try:
        lock.acquire(timeout=0.5)  # who asks whether the sweep runs holds it for a moment
    except Timeout:
        return None
    return lock


def open_sweep(sweep_dir: Path, command_line: list[str], plan: Mapping[str, Any]) -> None:
    """Writes sweep.json, or adds this command to the one that is there."""
    sweep_dir.mkdir(parents=True, exist_ok=True)
    with _sweep(sweep_dir) as sweep:
        command = {"time": now(), "command_line": command_line, "plan": plan, "provenance": provenance()}
        sweep["commands"].append(command)


def register_job(sweep_dir: Path, job: int, overrides: list[str], **found: str) -> None:
    """Adds to what is known of a job: `run`, the name of its directory; `error`, the reason why it failed.

    A line of jobs.jsonl, as to write all jobs again for each would take a sweep of thousands longer than to train them.
    """
    line = json.dumps({"job": job, "overrides": overrides, **found}, ensure_ascii=False) + "\n"
    sweep_dir.mkdir(parents=True, exist_ok=True)
    path = sweep_dir / _JOURNAL
    with FileLock(sweep_dir / ".lock"):
        try:
            with path.open("ab+") as file:
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)  # less the line that a full disk has cut short
                file.write(line.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def job_of_sweep(sweep_dir: Path, job: int, overrides: list[str]) -> dict[str, Any]:
    """All that is known of a job; nothing where it never began."""
    known: dict[str, Any] = read_sweep(sweep_dir)["jobs"].get(_key(job, overrides), {})
    return known


def close_sweep(sweep_dir: Path) -> None:
    """At the end of a command, moves all that its jobs have told to sweep.json."""
    with _sweep(sweep_dir):
        pass


def _read_journal(sweep_dir: Path) -> list[dict[str, Any]]:
    """What jobs have told since sweep.json was written, in that order."""
    path = sweep_dir / _JOURNAL
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last end of a line was cut short
    except FileNotFoundError:
        return []
    try:
        told = [json.loads(line) for line in lines]
    except (ValueError, RecursionError) as error:
        raise Corrupt(path, f"not lines of JSON ({error})") from error
    for job in told:
        overrides = job.get("overrides") if isinstance(job, dict) and "job" in job else None
        if not isinstance(overrides, list) or not all(isinstance(word, str) for word in overrides):
            raise Corrupt(path, "expected the record of jobs")
    return told


def _add(jobs: dict[str, Any], told: Iterable[dict[str, Any]]) -> None:
    """A job that begins is told of anew; it changes nothing to add the same twice."""
    for job in told:
        key = _key(job["job"], job["overrides"])
        known = {} if "run" in job else jobs.get(key, {})
        jobs[key] = {**known, **job}


def _key(job: int, overrides: list[str]) -> str:
    return " ".join(overrides) or str(job)


def expect_jobs(sweep_dir: Path, num_jobs: int) -> None:
    """Adds to what sweep.json knows of the last command: how many jobs it has."""
    with _sweep(sweep_dir) as sweep:
        sweep["commands"][-1]["num_jobs"] = num_jobs


def is_running(sweep_dir: Path) -> bool:
    """Whether a process works on this sweep; a reader who may not write there need not be able to."""
    lock = FileLock(sweep_dir / ".owner.lock")
    if not Path(lock.lock_file).exists():
        return False
    try:
        with lock.acquire(blocking=False):
            return False
    except Timeout:
        return True
    except OSError:  # not writable
        return _is_locked(Path(lock.lock_file))


def _is_locked(path: Path) -> bool:
    """What FileLock's own call says of a file that is only read; nothing is known without that call, on Windows."""
    try:
        import fcntl
    except ImportError:
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def _sweep(sweep_dir: Path) -> Iterator[dict[str, Any]]:
    path = sweep_dir / "sweep.json"
    with FileLock(sweep_dir / ".lock"):
        sweep = read_sweep(sweep_dir) if path.exists() else {"format": FORMAT, "commands": [], "jobs": {}}
        yield sweep
        write_json(path, sweep)
        (sweep_dir / _JOURNAL).unlink(missing_ok=True)


# provenance


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def provenance() -> dict[str, Any]:
    """Versions, machine and git commit of the code that runs; the commit is None for an installed wheel."""
    names = ("cifarsweep", "torch", "torchvision", "hydra-core", "omegaconf", "optuna", "numpy")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = ""
    return {"versions": versions, "platform": platform.platform(), "cpu": _cpu(), "cores": os.cpu_count(), **_git()}


def _cpu() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    found = re.search(r"model name\s*:\s*(.*)", info)
    return found[1] if found else platform.processor()


def _git() -> dict[str, Any]:
    here = Path(__file__).resolve().parent.parent
    if not (here.parent / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    try:
        commit = _output("git", "-C", str(here), "rev-parse", "HEAD")
        changed = _output("git", "-C", str(here), "status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return {"git_commit": None, "git_dirty": None}
    return {"git_commit": commit, "git_dirty": bool(changed)}


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()


def command_line() -> list[str]:
    """The words this process was started with, `python -m cifarsweep` shown as a person typed it."""
    script = Path(sys.argv[0])
    started = ["python", "-m", script.parent.name] if script.name == "__main__.py" else [script.name]
    return [*started, *map(hide_password, sys.argv[1:])]


def hide_password(text: str) -> str:
    """With the password of a database's address left out: user:password@host, or ?password=…"""
    text = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"([?&]password=)[^&'\"\s]*", r"\1***", text)
