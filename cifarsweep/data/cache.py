"""Decoded data sets on disk: arrays that are made once, memory-mapped and shared by processes. Knows no data set."""

import errno
import functools
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from cifarsweep.results import files
from cifarsweep.results.locks import Lock

log = logging.getLogger("cifarsweep.data")

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
FORMAT = 2
"""Part of every key: a change of the layout makes new entries and leaves the old ones alone."""

MOST_META_BYTES = 100_000_000
"""Of meta.json, whose names of classes take the most room."""


@dataclass(frozen=True)
class Decoded:
    """A decoded data set.

    Images are uint8 (N, 3, H, W) in channels_last memory, a copy-on-write map of the cache file that all processes
    share; labels int64 (N,).
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: list[str]
    mean: list[float]
    std: list[float]
    fingerprint: str
    """SHA-256 (16 digits) of the images, labels and class names."""


def cached(cache: Path, kind: str, key: Iterable[object], decode: Callable[["Writer"], None]) -> Decoded:
    """The entry for `key`, decoded on the first call; processes that ask at once wait for the one that decodes."""
    digest = hashlib.sha256(repr((FORMAT, kind, *key)).encode()).hexdigest()[:16]
    folder = cache / "decoded" / f"{kind}-{digest}"
    if decoded := _open(folder):
        return decoded
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Lock(folder.with_name(folder.name + ".lock")):
        if decoded := _open(folder):  # by another process
            return decoded
        if folder.exists():  # processes that have mapped its files keep them
            log.info("%s: damaged, kept as %s", folder, files.set_aside(folder).name)
        log.info("preparing %s, once: %s", kind, folder)
        with temporary_folder(folder.parent, folder.name) as temporary:
            writer = Writer(temporary)
            decode(writer)
            writer.finish()
            temporary.chmod(0o755)
            os.rename(temporary, folder)
        if decoded := _open(folder):
            return decoded
        raise OSError(f"{folder}: what was just written cannot be read back")


@contextmanager
def temporary_folder(parent: Path, name: str) -> Iterator[Path]:
    """A folder that is removed at the end, unless it was renamed. Removes those that killed processes left, too."""
    for left_by_a_killed_process in parent.glob(f".{name}.*/"):
        shutil.rmtree(left_by_a_killed_process, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=parent, prefix=f".{name}.", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _open(folder: Path) -> Decoded | None:
    """The entry, or None where there is none or it is not what was written. Reads all images: 0.1 s for 200 MB.

    Mean and deviation are covered by the digest in meta.json, which tells of damage, not of whoever makes it fit.
    """
    paths = {name: folder / f"{name}.npy" for name in ARRAYS}
    if not all(path.is_file() for path in (*paths.values(), folder / "meta.json")):  # a FIFO would be waited for
        return None
    try:
        # "c", copy on write: PyTorch wants writable memory, and a stray write must never reach the file.
        arrays = {name: open_memmap(path, mode="c") for name, path in paths.items()}
        with (folder / "meta.json").open("rb") as file:
            meta = json.loads(file.read(MOST_META_BYTES))
        intact = meta.pop("sha256") == _digest(meta)
        warning = meta.pop("warning", "")
        tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in arrays.items()}
        decoded = Decoded(**tensors, **meta)
        if not intact or type(warning) is not str or not _holds_together(decoded, arrays):
            return None
    except OSError:
        raise
    except Exception:  # whatever the parsers of numpy and JSON raise on a damaged file: ValueError, TokenError, …
        return None
    if warning:
        _warn_once(warning if warning.isprintable() else ascii(warning))
    images = {name: tensors[name].permute(0, 3, 1, 2) for name in ("train_images", "test_images")}
    return replace(decoded, **images)


_warn_once = functools.cache(log.warning)
"""In a process, which may open the entry for many runs."""


def _holds_together(decoded: Decoded, arrays: Mapping[str, NDArray[Any]]) -> bool:
    names, figures = decoded.class_names, [*decoded.mean, *decoded.std]
    side = arrays["train_images"].shape[1]
    for part in ("train", "test"):
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        as_written = images.flags.c_contiguous and images.dtype == np.uint8 and labels.dtype == np.int64
        if not as_written or images.shape != (len(labels), side, side, 3) or labels.ndim != 1:
            return False
        if not 0 <= labels.min() <= labels.max() < len(names):
            return False
    if not {type(name) for name in names} <= {str} or {type(figure) for figure in figures} != {float}:
        return False
    return len(figures) == 6 and _fingerprint(names, arrays) == decoded.fingerprint


def _digest(meta: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _fingerprint(class_names: list[str], arrays: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(json.dumps(class_names).encode())
    for name in ARRAYS:
        digest.update(repr(arrays[name].shape).encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()[:16]


class Writer:
    """What a decoder fills: `split(...)` for train and test, and the class names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.class_names: list[str] = []
        self.warning = ""
        """What whoever uses the data should know. Logged whenever the entry is opened, once in a process."""

    def split(self, name: str, num_images: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images (N, side, side, 3) and labels (N,) of the split, mapped files to be written to in place."""
        needed, free = num_images * side * side * 3, shutil.disk_usage(self.folder).free
        if needed > free:  # before it fills up
            sizes = f"{num_images:,} images need {needed / 1e6:,.1f} MB, {free / 1e6:,.1f} MB are free"
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {sizes}", str(self.folder.parent))
        images = open_memmap(self.folder / f"{name}_images.npy", "w+", np.uint8, (num_images, side, side, 3))
        labels = open_memmap(self.folder / f"{name}_labels.npy", "w+", np.int64, (num_images,))
        for what in ("images", "labels"):
            _allocate(self.folder / f"{name}_{what}.npy")
        return images, labels

    def finish(self) -> None:
        arrays = {name: np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
        mean, std = _channel_statistics(arrays["train_images"])
        fingerprint = _fingerprint(self.class_names, arrays)
        meta: dict[str, Any] = {"class_names": self.class_names, "mean": mean, "std": std, "fingerprint": fingerprint}
        if self.warning:
            meta["warning"] = self.warning
        text = json.dumps({**meta, "sha256": _digest(meta)}, indent=1)
        (self.folder / "meta.json").write_text(text, encoding="utf-8")
        for file in self.folder.iterdir():
            with file.open("r+b") as opened:  # Windows syncs no file that is only read
                os.fsync(opened.fileno())


def _allocate(path: Path) -> None:
    """Reserves room on the disk: SIGBUS ends a process whose mapped file finds none later."""
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def _channel_statistics(images: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, with values 0 to 1, from exact integer counts."""
    counts = np.zeros((3, 256), np.int64)
    for start in range(0, len(images), 10_000):
        block = images[start : start + 10_000]
        for channel in range(3):
            counts[channel] += np.bincount(block[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(axis=1)
    deviation = np.sqrt(counts @ values**2 / counts.sum(axis=1) - mean**2)
    # Images of one colour have no deviation; 1 keeps normalisation finite.
    return mean.tolist(), np.where(deviation > 1e-6, deviation, 1.0).tolist()


def file_key(folder: Path, files: Iterable[Path]) -> tuple[tuple[str, int, int], ...]:
    """Names below `folder`, sizes and modification times, which tell a changed source without reading it."""
    stats = ((file.relative_to(folder).as_posix(), file.stat()) for file in files)
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))
