"""A folder of image files, a folder a class, of any size and format that Pillow reads."""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cifarsweep.data.cache import Writer, cached, file_key
from cifarsweep.data.class_folders import check_same_classes, class_files, listed
from cifarsweep.data.dataset import DataSet, check_classes_left, check_sizes, count, split, stratified
from cifarsweep.data.image_file import read_image, why_unreadable
from cifarsweep.results import folders

DECODING = 2
"""Part of the cache's key, which takes no part in the fingerprint: what is decoded in another way is decoded anew."""

MOST_PIXELS = 1024
"""A side of more is a slip: 100 such images of three channels take 300 MB, and a batch's first layer 16 times that."""


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
    ending. ValueError names images that cannot be read, empty classes, and classes of one split only. Test images that
    are training images too are named in a warning.
    """
    if not 8 <= size <= MOST_PIXELS:
        raise ValueError(f"size={size}: expected 8 to {MOST_PIXELS}")
    folder = folders.expanded(root, "root")
    parts = [part for part in ("train", "test") if os.path.lexists(folder / part)]
    if "train" not in parts:
        raise ValueError(f"root={root}: expected a folder that holds train/<class>/<image files>")
    splits = {part: class_files(folder / part) for part in parts}
    class_names = sorted(splits["train"])
    if len(class_names) < 2:
        raise ValueError(f"root={root}: train has {len(class_names)} class folder(s), expected two or more")
    check_same_classes(root, class_names, splits.get("test", class_names))
    files = [file for classes in splits.values() for of_class in classes.values() for file in of_class]
    if "test" not in splits:
        splits |= _split_files(splits["train"], test_size, split_seed)
    check_sizes(sum(map(len, splits["train"].values())), val_size, subset)
    key = (DECODING, size, test_size, split_seed, file_key(folder, files))
    decode = partial(_decode, folder, splits, class_names, size)
    decoded = cached(folders.expanded(cache, "cache"), "image_folder", key, decode)
    return split(name, decoded, val_size, subset, augment, split_seed)


def _split_files(train: dict[str, list[Path]], test_size: float, seed: int) -> dict[str, dict[str, list[Path]]]:
    """Splits a stratified test set off."""
    labels = torch.repeat_interleave(torch.tensor([len(files) for files in train.values()]))
    held_out = stratified(labels, count("test_size", test_size, len(labels), least=1), seed)
    kept = torch.isin(torch.arange(len(labels)), held_out, invert=True)
    check_classes_left("test_size", test_size, list(train), labels, labels[kept])
    splits: dict[str, dict[str, list[Path]]] = {part: {name: [] for name in train} for part in ("train", "test")}
    every_file = ((name, file) for name, files in train.items() for file in files)
    for is_kept, (name, file) in zip(kept.tolist(), every_file, strict=True):
        splits["train" if is_kept else "test"][name].append(file)
    return splits


def _decode(
    root: Path, splits: dict[str, dict[str, list[Path]]], class_names: list[str], size: int, writer: Writer
) -> None:
    writer.class_names = class_names
    unreadable: dict[Path, str] = {}
    digests: dict[Path, bytes] = {}
    for split_name, classes in splits.items():
        files = [(file, label) for label, name in enumerate(class_names) for file in classes[name]]
        images, labels = writer.split(split_name, len(files), size)
        labels[:] = [label for _, label in files]

        def decode(place: int, file: Path, images: NDArray[np.uint8] = images) -> None:
            try:
                images[place] = read_image(file, size)
                digests[file] = hashlib.sha256(images[place].data).digest()
            except Exception as error:  # whatever a decoder raises on a damaged file: SyntaxError, struct.error, …
                unreadable[file] = why_unreadable(error)

        with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
            list(pool.map(decode, range(len(files)), [file for file, _ in files]))
    if unreadable:
        shown = listed(f"{file} ({reason})" for file, reason in sorted(unreadable.items()))
        raise ValueError(f"root={root}: {len(unreadable)} image file(s) cannot be read: {shown}")
    train, test = ([file for of_class in splits[part].values() for file in of_class] for part in ("train", "test"))
    trained_on = {digests[file]: file for file in reversed(train)}
    twins = [(file, trained_on[digests[file]]) for file in test if digests[file] in trained_on]
    if twins:
        # No refusal: folders from the web or of drawings hold a few, and their part says how wrong the accuracy may be.
        pairs = (f"{file.relative_to(root)} = {twin.relative_to(root)}" for file, twin in twins)
        number = f"{len(twins):,} of {len(test):,} test images are training images too"
        writer.warning = f"{root}: {number}, which makes the test accuracy look better than it is: {listed(pairs)}"
