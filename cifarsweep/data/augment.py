"""Batches for training and evaluation: gathering, augmentation and normalisation of whole batches on the device."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

ALTERNATING = "alternating"


@dataclass(frozen=True)
class Augmentation:
    """What training does to an image. `crop`: shifts it by up to so many pixels, the edge mirrored; `flip`: swaps left
    and right in half of the images; `cutout`: sets a square with a side of so many pixels to the mean colour.

    With flip=alternating an image is seen as it is in one epoch and mirrored in the next, so that two epochs hold both
    and neither twice (Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024).

    Pixels move while they are uint8, a quarter of the memory. The mean colour is exact only once they are normalised,
    so cutout is a second step. Both draw from `generator`, which is on the images' device.
    """

    crop: int = 0
    flip: bool | str = False
    cutout: int = 0

    def crop_and_flip(self, images: Tensor, odd: Tensor, generator: torch.Generator) -> Tensor:
        """uint8 (N, C, H, W) to uint8 of the same shape. `odd`, 0 or 1 (N,): whose turn to be mirrored it is."""
        if self.crop:
            images = random_crop(images, self.crop, generator)
        if self.flip == ALTERNATING:
            return mirror(images, odd)
        if self.flip:
            images = mirror(images, _randint(2, (len(images),), generator))
        return images

    def cut_out(self, batch: Tensor, generator: torch.Generator) -> Tensor:
        """Works in place on a normalised batch (N, C, H, W), in which 0 is the mean colour."""
        return batch.masked_fill_(cutout_mask(batch, self.cutout, generator), 0.0) if self.cutout else batch


def random_crop(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Each image shifted by -pixels … pixels in both directions. The edge is mirrored into the gap."""
    num, _, height, width = images.shape
    padded = _reflect_pad(images, pixels)
    dy, dx = _randint(2 * pixels + 1, (2, num), generator)
    # A view of every window, (N, shifts, shifts, C, H, W), of which one index takes each image's own: one copy in all.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1).permute(0, 2, 3, 4, 5, 1)
    return windows[torch.arange(num, device=images.device), dy, dx].permute(0, 3, 1, 2)


def _reflect_pad(images: Tensor, pixels: int) -> Tensor:
    """(N, C, H, W) to (N, C, H + 2·pixels, W + 2·pixels), channels_last; torch's own reflect pad knows no uint8."""
    num, channels, height, width = images.shape
    shape = (num, channels, height + 2 * pixels, width + 2 * pixels)
    padded = torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=torch.channels_last)
    padded[:, :, pixels : pixels + height, pixels : pixels + width] = images
    for dim, side in ((2, height), (3, width)):
        for i in range(1, pixels + 1):
            padded.select(dim, pixels - i).copy_(padded.select(dim, pixels + i))
            padded.select(dim, pixels + side - 1 + i).copy_(padded.select(dim, pixels + side - 1 - i))
    return padded


def mirror(images: Tensor, mirrored: Tensor) -> Tensor:
    """Left and right swapped in the images whose `mirrored`, int64 (N,), is 1 and not 0."""
    num = len(images)
    # Whole images are picked from both versions: torch.where decides value by value, three times as slow.
    both = torch.cat([images, images.flip(3)]).permute(0, 2, 3, 1)
    return both.index_select(0, torch.arange(num, device=images.device) + num * mirrored).permute(0, 3, 1, 2)


def cutout_mask(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """bool (N, 1, H, W), true in a square centred anywhere in the image (DeVries and Taylor, "Cutout", 2017)."""
    num, _, height, width = images.shape
    top = _randint(height, (num, 1), generator) - side // 2
    left = _randint(width, (num, 1), generator) - side // 2
    y, x = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    rows, columns = (y >= top) & (y < top + side), (x >= left) & (x < left + side)
    return rows[:, None, :, None] & columns[:, None, None, :]


def _randint(high: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(high, shape, generator=generator, device=generator.device)


@dataclass(frozen=True)
class Batcher:
    """Makes a split's images the batches a network sees: float (N, C, H, W), channels_last, mean 0, deviation 1.

    Images (N, C, H, W) uint8 and labels (N,) stay where they are given; `indices` are the split's places in them.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    mean: Tensor
    std: Tensor

    def training(
        self, batch_size: int, augmentation: Augmentation, seed: int, epoch: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in random order; what is left over after full batches waits for another epoch's order."""
        generator = torch.Generator(self.images.device).manual_seed(seed)
        order = torch.randperm(len(self.indices), generator=generator, device=generator.device)
        num_full = len(order) // batch_size
        for places in torch.split(self.indices[order][: num_full * batch_size], batch_size):
            images = augmentation.crop_and_flip(self._gather(places), (places + epoch) % 2, generator)
            yield augmentation.cut_out(self._normalised(images), generator), self.labels[places]

    def evaluation(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, in order, as they are."""
        for places in torch.split(self.indices, batch_size):
            yield self._normalised(self._gather(places)), self.labels[places]

    def _gather(self, places: Tensor) -> Tensor:
        """Rows of the uint8 images; over the (N, H, W, C) memory, where a row is one piece that is copied as such."""
        return self.images.permute(0, 2, 3, 1).index_select(0, places).permute(0, 3, 1, 2)

    def _normalised(self, images: Tensor) -> Tensor:
        num, channels, height, width = images.shape
        # By whole rows of the image: an inner loop of three channels would take seven times as long.
        scale = (1 / (255 * self.std)).repeat(width)
        shift = (self.mean / self.std).repeat(width)
        rows = images.permute(0, 2, 3, 1).reshape(num, height, width * channels)
        normalised = rows.to(torch.float32).mul_(scale).sub_(shift)
        return normalised.view(num, height, width, channels).permute(0, 3, 1, 2)
