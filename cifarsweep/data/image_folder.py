"""A folder of image files, a folder a class, of any size and format that Pillow reads."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cifarsweep.data.cache import Writer, cached, file_key
from cifarsweep.data.dataset import DataSet, count, split, stratified
from cifarsweep.results import folders

IMAGE_ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}


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
    """Images in root/train/<class>/ and root/test/<class>/; without a test folder, `test_size` of train is split off.

    Images may have any size: the middle square is scaled to size×size. Skips hidden files and files without an image's
    ending. ValueError names images that cannot be read, empty classes, and classes of one split only.
    """
    folder = folders.expanded(root, "root")
    splits = {part: _class_folder(folder / part) for part in ("train", "test") if (folder / part).is_dir()}
    if "train" not in splits:
        raise ValueError(f"root={root}: expected a folder that holds train/<class>/<image files>")
    class_names = sorted(splits["train"])
    if len(class_names) < 2:
        raise ValueError(f"root={root}: train has {len(class_names)} class folder(s), expected two or more")
    if sorted(splits.get("test", class_names)) != class_names:
        raise ValueError(f"root={root}: expected the same class folders in train and test")
    files = [file for classes in splits.values() for of_class in classes.values() for file in of_class]
    if "test" not in splits:
        splits |= _split_files(splits["train"], test_size, split_seed)
    key = (size, test_size, split_seed, file_key(folder, files))
    decode = partial(_decode, splits, class_names, size)
    decoded = cached(folders.expanded(cache, "cache"), "image_folder", key, decode)
    return split(name, decoded, val_size, subset, augment, split_seed)


def _class_folder(folder: Path) -> dict[str, list[Path]]:
    """Image files by class name, both sorted; ValueError where a class has none."""
    classes = {}
    for name in sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in IMAGE_ENDINGS)
        classes[name] = [file for file in files if not file.name.startswith(".")]
        if not classes[name]:
            endings = " ".join(sorted(IMAGE_ENDINGS))
            raise ValueError(f"root={folder.parent}: no image in {folder / name}, expected files ending in {endings}")
    return classes


def _split_files(train: dict[str, list[Path]], test_size: float, seed: int) -> dict[str, dict[str, list[Path]]]:
    """Splits a stratified test set off."""
    labels = torch.repeat_interleave(torch.tensor([len(files) for files in train.values()]))
    held_out = set(stratified(labels, count("test_size", test_size, len(labels)), seed).tolist())
    splits: dict[str, dict[str, list[Path]]] = {part: {name: [] for name in train} for part in ("train", "test")}
    for place, (name, file) in enumerate((name, file) for name, files in train.items() for file in files):
        splits["test" if place in held_out else "train"][name].append(file)
    return splits


def _decode(splits: dict[str, dict[str, list[Path]]], class_names: list[str], size: int, writer: Writer) -> None:
    writer.class_names = class_names
    unreadable: list[Path] = []
    for split_name, classes in splits.items():
        files = [(file, label) for label, name in enumerate(class_names) for file in classes[name]]
        images, labels = writer.split(split_name, len(files), size)
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
