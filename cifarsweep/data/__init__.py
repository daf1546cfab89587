"""Data sets as uint8 tensors: sources, cache, stratified splits. Knows nothing of networks, runs or Hydra."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from cifarsweep.data.augment import Augmentation, Batcher
from cifarsweep.data.cache import Arrays, Writer, cached, file_key, temporary_folder

__all__ = ["Augmentation", "Batcher", "DataSet", "load_image_folder", "load_shapes", "load_torchvision", "read_image"]

IMAGE_ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class DataSet:
    """A data set and its splits.

    Images are uint8 (N, 3, H, W) in channels_last memory, a map of the cache file that all processes share;
    labels int64 (N,). Training and validation are index tensors into the same images.
    """

    name: str
    fingerprint: str
    class_names: list[str]
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    train_indices: Tensor
    val_indices: Tensor
    mean: list[float]
    std: list[float]
    augmentation: Augmentation

    @property
    def image_size(self) -> int:
        return self.train_images.shape[-1]

    def batchers(self, device: torch.device) -> tuple[Batcher, Batcher, Batcher]:
        """Training, validation and test images on the device."""
        mean, std = torch.tensor(self.mean, device=device), torch.tensor(self.std, device=device)
        images, labels = self.train_images.to(device), self.train_labels.to(device)
        train, val = (
            Batcher(images, labels, indices.to(device), mean, std) for indices in (self.train_indices, self.val_indices)
        )
        everything = torch.arange(len(self.test_labels), device=device)
        test = Batcher(self.test_images.to(device), self.test_labels.to(device), everything, mean, std)
        return train, val, test


# sources


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
    folder = Path(root).expanduser()
    raw = folder / {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}.get(name, "FashionMNIST/raw")
    files = file_key(raw, raw.iterdir()) if raw.is_dir() else ()
    if not files:
        _download(name, folder, raw)
        files = file_key(raw, raw.iterdir())
    arrays = cached(
        Path(cache).expanduser(), name, files, lambda writer: _decode_torchvision(name, folder, raw, writer)
    )
    return _split(name, arrays, val_size, subset, augment, split_seed)


def load_image_folder(
    root: str,
    cache: str,
    val_size: float,
    size: int = 32,
    test_size: float = 0.2,
    subset: int | None = None,
    augment: Mapping[str, Any] | None = None,
    split_seed: int = 0,
    name: str = "image_folder",
) -> DataSet:
    """root/train/<class>/* and root/test/<class>/*, or only train, of which `test_size` is then split off.

    Any image size: the middle square is scaled to size×size. Hidden files and files whose ending is no image's
    are left aside; ValueError names images that cannot be read, empty classes, and classes of one split only.
    """
    folder = Path(root).expanduser()
    splits = {split: _class_folder(folder / split) for split in ("train", "test") if (folder / split).is_dir()}
    if "train" not in splits:
        raise ValueError(f"root={root}: expected a folder that holds train/<class>/<image files>")
    class_names = sorted(splits["train"])
    if len(class_names) < 2:
        raise ValueError(f"root={root}: train has {len(class_names)} class folder(s), expected two or more")
    if sorted(splits.get("test", class_names)) != class_names:
        raise ValueError(f"root={root}: expected the same class folders in train and test")
    files = [file for split in splits.values() for of_class in split.values() for file in of_class]
    if "test" not in splits:
        splits |= _split_files(splits["train"], test_size, split_seed)
    key = (size, test_size, split_seed, file_key(folder, files))
    arrays = cached(
        Path(cache).expanduser(), "image_folder", key, lambda writer: _decode_folder(splits, class_names, size, writer)
    )
    return _split(name, arrays, val_size, subset, augment, split_seed)


def load_shapes(
    cache: str,
    val_size: float,
    num_train: int = 50_000,
    num_test: int = 10_000,
    seed: int = 0,
    subset: int | None = None,
    augment: Mapping[str, Any] | None = None,
    split_seed: int = 0,
    name: str = "shapes",
) -> DataSet:
    """32×32 drawings of ten kinds of shape from a seed, as many as wanted; see cifarsweep.data.shapes."""
    from cifarsweep.data import shapes

    def decode(writer: Writer) -> None:
        writer.class_names = list(shapes.CLASS_NAMES)
        for stream, (split, num) in enumerate({"train": num_train, "test": num_test}.items()):
            images, labels = writer.split(split, num, 32)
            images[:], labels[:] = shapes.draw(num, seed, stream)

    key = (shapes.VERSION, num_train, num_test, seed)
    return _split(name, cached(Path(cache).expanduser(), "shapes", key, decode), val_size, subset, augment, split_seed)


# torchvision's sets


def _torchvision_set(name: str) -> Any:
    from torchvision import datasets  # 1.7 s that a warm cache saves

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "fashion_mnist": datasets.FashionMNIST}[name]


def _download(name: str, root: Path, raw: Path) -> None:
    """By one process at a time, and beside its place first: an interrupted download leaves nothing that looks whole."""
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


def _decode_torchvision(name: str, root: Path, raw: Path, writer: Writer) -> None:
    kind = _torchvision_set(name)
    try:
        sets = {"train": kind(root, train=True), "test": kind(root, train=False)}
    except Exception as error:  # pickle, gzip and EOF errors, and torchvision's RuntimeError for a wrong checksum
        raise ValueError(
            f"root={root}: the files in {raw} are damaged or incomplete ({_first_line(error)}); expected the official "
            "ones"
        ) from error
    writer.class_names = list(sets["train"].classes)
    for split, source in sets.items():
        pixels = np.asarray(source.data)
        images, labels = writer.split(split, len(pixels), pixels.shape[1])
        images[:] = pixels if pixels.ndim == 4 else pixels[..., None]  # gray to three equal channels
        labels[:] = np.asarray(source.targets)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


# folders of images


def _class_folder(folder: Path) -> dict[str, list[Path]]:
    """Image files by class name, both sorted; ValueError where a class has none."""
    classes = {}
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    for name in names:
        files = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in IMAGE_ENDINGS)
        classes[name] = [file for file in files if not file.name.startswith(".")]
        if not classes[name]:
            endings = " ".join(sorted(IMAGE_ENDINGS))
            raise ValueError(f"root={folder.parent}: no image in {folder / name}, expected files ending in {endings}")
    return classes


def _split_files(train: dict[str, list[Path]], test_size: float, seed: int) -> dict[str, dict[str, list[Path]]]:
    """Splits a test set off, stratified."""
    counts = np.array([len(files) for files in train.values()])
    labels = torch.from_numpy(np.repeat(np.arange(len(train)), counts))
    held_out = stratified(labels, _count("test_size", test_size, len(labels)), seed)
    chosen = set(held_out.tolist())
    splits: dict[str, dict[str, list[Path]]] = {"train": {}, "test": {}}
    place = 0
    for name, files in train.items():
        for split in splits.values():
            split[name] = []
        for file in files:
            splits["test" if place in chosen else "train"][name].append(file)
            place += 1
    return splits


def _decode_folder(splits: dict[str, dict[str, list[Path]]], class_names: list[str], size: int, writer: Writer) -> None:
    writer.class_names = class_names
    unreadable: list[Path] = []
    for split, classes in splits.items():
        files = [(file, label) for label, name in enumerate(class_names) for file in classes[name]]
        images, labels = writer.split(split, len(files), size)
        labels[:] = [label for _, label in files]

        def decode(place: int, file: Path, images: NDArray[np.uint8] = images) -> None:
            try:
                images[place] = read_image(file, size)
            except Exception:  # whatever a decoder raises on a damaged file: SyntaxError, struct.error, …
                unreadable.append(file)

        with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
            list(pool.map(decode, range(len(files)), [file for file, _ in files]))
    if unreadable:
        shown = ", ".join(str(file) for file in sorted(unreadable)[:5])
        more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        raise ValueError(f"root: {len(unreadable)} image file(s) cannot be read: {shown}{more}")


def read_image(file: Path, size: int) -> NDArray[np.uint8]:
    """(size, size, 3) of the image's middle square."""
    from PIL import Image, ImageOps

    with Image.open(file) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    return np.asarray(ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR))


# splits


def _split(
    name: str,
    arrays: Arrays,
    val_size: float,
    subset: int | None,
    augment: Mapping[str, Any] | None,
    split_seed: int,
) -> DataSet:
    labels = torch.from_numpy(arrays.train_labels)
    everything = torch.arange(len(labels))
    val = stratified(labels, _count("val_size", val_size, len(labels)), split_seed)
    train = everything[torch.isin(everything, val, invert=True)]
    if subset is not None:
        if not 1 <= subset <= len(train):
            raise ValueError(f"subset={subset}: expected 1 to {len(train)}, the number of training images")
        train = train[stratified(labels[train], subset, split_seed)]
    return DataSet(
        name=name,
        fingerprint=arrays.fingerprint,
        class_names=arrays.class_names,
        train_images=torch.from_numpy(arrays.train_images).permute(0, 3, 1, 2),
        train_labels=labels,
        test_images=torch.from_numpy(arrays.test_images).permute(0, 3, 1, 2),
        test_labels=torch.from_numpy(arrays.test_labels),
        train_indices=train,
        val_indices=val,
        mean=arrays.mean,
        std=arrays.std,
        augmentation=Augmentation(**(augment or {})),
    )


def _count(key: str, size: float, num_images: int) -> int:
    """A number of images, or a part of them where `size` is below 1."""
    count = round(size * num_images) if 0 < size < 1 else int(size)
    if not 0 <= count < num_images:
        raise ValueError(f"{key}={size}: expected 0 to {num_images - 1} images, or a part of them below 1")
    return count


def stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """`count` indices, sorted, drawn from `seed`, of which each class has its share to within one image."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    of_class = torch.bincount(labels)
    share = of_class.double() * count / len(labels)
    take = share.floor().long()
    left = count - int(take.sum())
    take[(share - take).argsort(descending=True, stable=True)[:left]] += 1
    by_class = torch.split(order[labels[order].argsort(stable=True)], of_class.tolist())
    return torch.cat([places[:n] for places, n in zip(by_class, take.tolist(), strict=True)]).sort().values
