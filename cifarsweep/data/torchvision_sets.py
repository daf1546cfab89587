"""CIFAR-10, CIFAR-100 and Fashion-MNIST from their official files, by torchvision, which downloads them."""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from cifarsweep.data.cache import Writer, cached, file_key, temporary_folder
from cifarsweep.data.dataset import DataSet, split
from cifarsweep.results import folders


def load_torchvision(
    name: str,
    root: str,
    cache: str,
    val_size: float,
    subset: int | None = None,
    augment: Mapping[str, Any] | None = None,
    split_seed: int = 0,
) -> DataSet:
    """cifar10, cifar100 or fashion_mnist from `root`, by torchvision: downloaded where missing, checksums compared."""
    folder = folders.expanded(root, "root")
    raw = folder / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}.get(name, "FashionMNIST/raw")
    files = file_key(raw, raw.iterdir()) if raw.is_dir() else ()
    if not files:
        _download(name, folder, raw)
        files = file_key(raw, raw.iterdir())
    decoded = cached(folders.expanded(cache, "cache"), name, files, lambda writer: _decode(name, folder, raw, writer))
    return split(name, decoded, val_size, subset, augment, split_seed)


def _torchvision_set(name: str) -> Any:
    from torchvision import datasets  # 1.7 s that a warm cache saves

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "fashion_mnist": datasets.FashionMNIST}[name]


def _download(name: str, root: Path, raw: Path) -> None:
    """One process downloads, beside the final place: an interrupted download leaves nothing that looks whole."""
    kind = _torchvision_set(name)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):
            if raw.is_dir() and any(raw.iterdir()):
                return  # another process was first
            with temporary_folder(root, f"{name}.part") as part, contextlib.redirect_stdout(io.StringIO()):
                kind(str(part), download=True)
                raw.parent.mkdir(parents=True, exist_ok=True)
                (part / raw.relative_to(root)).rename(raw)
    except Exception as error:  # urllib, HTTP, socket, checksum and file errors all mean the same to the user
        raise ValueError(
            f"root={root}: {raw.name} is not there and its download failed ({_first_line(error)}); expected the "
            f"official files in {raw}, or data=shapes, which needs none"
        ) from error


def _decode(name: str, root: Path, raw: Path, writer: Writer) -> None:
    kind = _torchvision_set(name)
    try:
        sets = {"train": kind(root, train=True), "test": kind(root, train=False)}
    except Exception as error:  # pickle, gzip and EOF errors, and torchvision's RuntimeError for a wrong checksum
        raise ValueError(
            f"root={root}: the files in {raw} are damaged or incomplete ({_first_line(error)}); expected the official "
            "ones"
        ) from error
    writer.class_names = list(sets["train"].classes)
    for name, source in sets.items():
        pixels = np.asarray(source.data)
        images, labels = writer.split(name, len(pixels), pixels.shape[1])
        images[:] = pixels if pixels.ndim == 4 else pixels[..., None]  # gray to three equal channels
        labels[:] = np.asarray(source.targets)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
