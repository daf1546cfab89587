"""A data set and its splits. Knows arrays in memory, not where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cifarsweep.data.augment import Augmentation, Batcher
from cifarsweep.data.cache import Decoded


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
        train, val = (
            Batcher(images, labels, indices.to(device), mean, std) for indices in (self.train_indices, self.val_indices)
        )
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
    labels = decoded.train_labels
    everything = torch.arange(len(labels))
    val = stratified(labels, count("val_size", val_size, len(labels)), split_seed)
    train = everything[torch.isin(everything, val, invert=True)]
    if subset is not None:
        if not 1 <= subset <= len(train):
            raise ValueError(f"subset={subset}: expected 1 to {len(train)}, the number of training images")
        train = train[stratified(labels[train], subset, split_seed)]
    augmentation = Augmentation(**(augment or {}))
    return DataSet(**vars(decoded), name=name, train_indices=train, val_indices=val, augmentation=augmentation)


def count(key: str, size: float, num_images: int) -> int:
    """`size` itself, or that part of the images where it is below 1. ValueError where these are too many."""
    count = round(size * num_images) if 0 < size < 1 else int(size)
    if not 0 <= count < num_images:
        raise ValueError(f"{key}={size}: expected 0 to {num_images - 1} images, or a part of them below 1")
    return count


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
