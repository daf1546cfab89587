"""Decoded data sets on disk: arrays that are made once, memory-mapped and shared by processes. Knows no data set."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

log = logging.getLogger("cifarsweep.data")

FORMAT = 1
"""Part of every key: a change of the layout makes new entries and leaves the old ones alone."""


@dataclass(frozen=True)
class Arrays:
    """A decoded data set. Images are uint8 (N, H, W, 3), copy-on-write maps of the cache file; labels int64 (N,)."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    class_names: list[str]
    mean: list[float]
    std: list[float]
    fingerprint: str
    """SHA-256 (16 digits) of the images, labels and class names."""


def cached(cache: Path, kind: str, key: Iterable[object], decode: Callable[[Writer], None]) -> Arrays:
    """The entry for `key`, decoded on the first call; processes that ask at once wait for the one that decodes."""
    digest = hashlib.sha256(repr((FORMAT, kind, *key)).encode()).hexdigest()[:16]
    folder = cache / "decoded" / f"{kind}-{digest}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(folder.name + ".lock")):
            if not folder.exists():
                log.info("preparing %s, once: %s", kind, folder)
                _make(folder, decode)
    return _open(folder)


def _make(folder: Path, decode: Callable[[Writer], None]) -> None:
    for left_by_a_killed_process in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left_by_a_killed_process, ignore_errors=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        writer = Writer(temporary)
        decode(writer)
        writer.finish()
        temporary.chmod(0o755)
        os.rename(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _open(folder: Path) -> Arrays:
    # "c", copy on write: PyTorch wants writable memory, and a stray write must never reach the file.
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="c") for name in ("train_images", "test_images")}
    labels = {name: np.load(folder / f"{name}.npy") for name in ("train_labels", "test_labels")}
    return Arrays(**arrays, **labels, **json.loads((folder / "meta.json").read_text(encoding="utf-8")))


class Writer:
    """What a decoder fills: `split(...)` for train and test, and the class names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.class_names: list[str] = []

    def split(self, name: str, num_images: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images (N, side, side, 3) and labels (N,) of the split, mapped files to be written to in place."""
        images = open_memmap(self.folder / f"{name}_images.npy", "w+", np.uint8, (num_images, side, side, 3))
        labels = open_memmap(self.folder / f"{name}_labels.npy", "w+", np.int64, (num_images,))
        return images, labels

    def finish(self) -> None:
        digest = hashlib.sha256(json.dumps(self.class_names).encode())
        for name in ("train_images", "train_labels", "test_images", "test_labels"):
            array = np.load(self.folder / f"{name}.npy", mmap_mode="r")
            digest.update(repr(array.shape).encode())
            digest.update(array)
        mean, std = _channel_statistics(np.load(self.folder / "train_images.npy", mmap_mode="r"))
        meta = {"class_names": self.class_names, "mean": mean, "std": std, "fingerprint": digest.hexdigest()[:16]}
        (self.folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
        for file in self.folder.iterdir():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _channel_statistics(images: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, with values 0 to 1, from exact integer counts."""
    counts = np.zeros((3, 256), np.int64)
    for start in range(0, len(images), 10_000):
        block = images[start : start + 10_000]
        for channel in range(3):
            counts[channel] += np.bincount(block[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    mean = counts @ values / counts.sum(axis=1)
    std = np.sqrt(counts @ values**2 / counts.sum(axis=1) - mean**2)
    # Images of one colour have no deviation; 1 keeps normalisation finite.
    return mean.tolist(), [float(s) if s > 1e-6 else 1.0 for s in std]


def file_key(folder: Path, files: Iterable[Path]) -> tuple[tuple[str, int, int], ...]:
    """Names below `folder`, sizes and modification times: what tells a changed source without reading it."""
    stats = ((file.relative_to(folder).as_posix(), file.stat()) for file in files)
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))
