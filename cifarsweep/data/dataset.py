"""A data set and its splits. Knows arrays in memory, not where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cifarsweep.data.augment import Augmentation, Batcher
from cifarsweep.data.cache import Decoded
from cifarsweep.data.class_folders import listed


@dataclass(frozen=True)
class Batchers:
    train: Batcher
    val: Batcher
    test: Batcher


@dataclass(frozen=True)
class DataSet(Decoded):
    """A data set and its splits. Training and validation are index tensors into the same images."""

    name: str
    train_indices: Tensor
    val_indices: Tensor
    augmentation: Augmentation

    @property
    def image_size(self) -> int:
        return self.train_images.shape[-1]

    def batchers(self, device: torch.device) -> Batchers:
        """With all images on the device."""
        mean, std = torch.tensor(self.mean, device=device), torch.tensor(self.std, device=device)
        images, labels = self.train_images.to(device), self.train_labels.to(device)
        indices = (self.train_indices, self.val_indices)
        train, val = (Batcher(images, labels, places.to(device), mean, std) for places in indices)
        everything = torch.arange(len(self.test_labels), device=device)
        test = Batcher(self.test_images.to(device), self.test_labels.to(device), everything, mean, std)
        return Batchers(train, val, test)


def split(
    name: str,
    decoded: Decoded,
    val_size: float,
    subset: int | None,
    augment: Mapping[str, Any] | None,
    split_seed: int,
) -> DataSet:
    """Splits validation images off, and leaves `subset` of the others for training, both stratified."""
    labels, class_names = decoded.train_labels, decoded.class_names
    check_sizes(len(labels), val_size, subset)
    everything = torch.arange(len(labels))
    val = stratified(labels, count("val_size", val_size, len(labels)), split_seed)
    train = everything[torch.isin(everything, val, invert=True)]
    check_classes_left("val_size", val_size, class_names, labels, labels[train])
    if subset is not None:
        before = labels[train]
        train = train[stratified(before, subset, split_seed)]
        check_classes_left("subset", subset, class_names, before, labels[train])
    augmentation = Augmentation(**(augment or {}))
    return DataSet(**vars(decoded), name=name, train_indices=train, val_indices=val, augmentation=augmentation)


def check_sizes(num_images: int, val_size: float, subset: int | None) -> None:
    """ValueError where a split of so many images cannot be made. Needs none of them, so nothing has to be decoded."""
    left = num_images - count("val_size", val_size, num_images)
    if subset is not None and not 1 <= subset <= left:
        raise ValueError(f"subset={subset}: expected 1 to {left}, the images that are not for validation")


def count(key: str, size: float, num_images: int, least: int = 0) -> int:
    """`size` itself, or that part of the images where it is below 1. ValueError where they are too few or too many."""
    is_part = 0 < size < 1
    count = round(size * num_images) if is_part else size
    if not least <= count < num_images or count != int(count):
        found = f"; of {num_images} images this is {count}" if is_part else ""
        expected = f"expected {least} to {num_images - 1} images, or a part of them below 1"
        raise ValueError(f"{key}={size}: {expected}{found}")
    return int(count)


def check_classes_left(key: str, value: float, class_names: list[str], before: Tensor, after: Tensor) -> None:
    """ValueError where `key` leaves no training image of a class that had some: labels `before` and `after` it."""
    had, has = (torch.bincount(labels, minlength=len(class_names)) > 0 for labels in (before, after))
    if lost := [class_names[label] for label in (had & ~has).nonzero()[:, 0].tolist()]:
        fewer = "more" if key == "subset" else "fewer"
        raise ValueError(f"{key}={value}: no training image of class {listed(lost)} is left; expected {fewer} images")


def stratified(labels: Tensor, count: int, seed: int) -> Tensor:
    """`count` sorted indices, drawn with `seed`. Each class has its share of them, to within one image."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    of_class = torch.bincount(labels)
    share = of_class.double() * count / len(labels)
    take = share.floor().long()
    left = count - int(take.sum())
    take[(share - take).argsort(descending=True, stable=True)[:left]] += 1
    by_class = torch.split(order[labels[order].argsort(stable=True)], of_class.tolist())
    return torch.cat([places[:n] for places, n in zip(by_class, take.tolist(), strict=True)]).sort().values
