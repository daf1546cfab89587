"""The networks. Plain arguments in, an nn.Module out that maps images (N, C, H, W) to one score a class (N, K)."""

import bisect
import itertools
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

NORMS = ("batch", "group", "none")
MATCH_TOLERANCE = 0.1
"""How far a matched network may be from its budget: at depth 5 and 2 M multiply-adds one more width is 17 % of it."""
MOST_WIDTH = 2**16


class LayersNet(nn.Sequential):
    """The tutorial's network: `depth` blocks of convolution and pooling, then two fully connected layers.

    A block is Conv2d 3×3 → MaxPool2d 2 → normalisation → ReLU; channels are width, 2·width, 4·width, …, and
    each block halves the image's side. Pooling first leaves the other two a quarter of the values: it trains
    1.1-1.5 times as many images a second as the textbook's order on two cores, and without normalisation it
    computes the same (max and ReLU commute). ValueError where the image is too small for `depth`.

    `match`, params:N or multiply_adds:N, takes the place of `width`, so that networks of different depth cost the
    same: see matched_width. The attribute `width` is what was taken.
    """

    def __init__(
        self,
        depth: int,
        width: int = 16,
        norm: str = "batch",
        dropout: float = 0.0,
        hidden: int = 128,
        image_size: int = 32,
        in_channels: int = 3,
        num_classes: int = 10,
        match: str | None = None,
    ) -> None:
        most = image_size.bit_length() - 1
        if not 1 <= depth <= most:
            size = f"{image_size}×{image_size}"
            raise ValueError(f"depth={depth}: expected 1 to {most}, as each layer halves an image of {size}")
        if match is not None:
            others = (norm, dropout, hidden, image_size, in_channels, num_classes)
            image_shape = (in_channels, image_size, image_size)
            width = matched_width(lambda width: LayersNet(depth, width, *others), match, image_shape)
        channels = [in_channels, *(width * 2**block for block in range(depth))]
        blocks = [conv_block(*pair, norm) for pair in itertools.pairwise(channels)]
        side = image_size >> depth
        super().__init__(
            *blocks,
            Flatten(),
            nn.Linear(channels[-1] * side * side, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        self.width = width


class SpeedNet(nn.Sequential):
    """A small residual network that trains fast: a stem, then three stages of which two end in a residual.

    After David Page, "How to train your ResNet" (2018), with pooling before normalisation. Stages have 2, 4
    and 8 times `width` channels; the scores come from the maximum over the last stage's positions.
    """

    def __init__(
        self,
        width: int = 32,
        norm: str = "batch",
        dropout: float = 0.0,
        image_size: int = 32,
        in_channels: int = 3,
        num_classes: int = 10,
    ) -> None:
        if image_size < 8:
            raise ValueError(f"image_size={image_size}: expected 8 or more, as three stages halve the image")
        super().__init__(
            conv_block(in_channels, width, norm, pool=False),
            conv_block(width, 2 * width, norm),
            Residual(2 * width, norm),
            conv_block(2 * width, 4 * width, norm),
            conv_block(4 * width, 8 * width, norm),
            Residual(8 * width, norm),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(8 * width, num_classes),
        )


class Airbench(nn.Sequential):
    """Whitened patches, then three blocks of two convolutions: the network of airbench94.

    After Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024). The first block has `width` channels,
    the other two `expansion` times as many; a block halves the image's side after its first convolution. Filters start
    as the identity where they can. The scores come from the maximum over the last block's positions.

    The first layer holds 2·4·in_channels filters of 2×2 pixels. They are no parameters: `initialize_from_data` sets
    them so that the patches of the training images come out uncorrelated and of variance 1. With whiten=False they are
    trained, from a random beginning.
    """

    def __init__(
        self,
        width: int = 64,
        expansion: int = 4,
        activation: str = "gelu",
        whiten: bool = True,
        image_size: int = 32,
        in_channels: int = 3,
        num_classes: int = 10,
    ) -> None:
        if image_size < 9:
            raise ValueError(f"image_size={image_size}: expected 9 or more, as three blocks halve the image")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation={activation}: expected one of {', '.join(ACTIVATIONS)}")
        patches = nn.Conv2d(in_channels, 8 * in_channels, 2)
        patches.weight.requires_grad_(not whiten)
        channels = [patches.out_channels, width, expansion * width, expansion * width]
        blocks = [
            layer
            for before, after in itertools.pairwise(channels)
            for layer in (*_identity_block(before, after, activation, True), *_identity_block(after, after, activation))
        ]
        head = [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(channels[-1], num_classes, bias=False)]
        super().__init__(patches, ACTIVATIONS[activation](), *blocks, *head, Scale(1 / 9))

    @torch.no_grad()
    def initialize_from_data(self, images: Tensor) -> None:
        """Sets the first layer from normalised images (N, C, H, W), where it is not trained."""
        layer = cast(nn.Conv2d, self[0])
        if layer.weight.requires_grad:
            return
        size = layer.weight.shape[1:]
        patches = nn.functional.unfold(images.double(), 2).permute(0, 2, 1).flatten(0, 1)
        variances, directions = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (directions / (variances + WHITENING_EPS).sqrt()).T.flip(0).view(-1, *size)
        layer.weight.copy_(torch.cat([filters, -filters]))


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "silu": lambda: nn.SiLU(inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
}
WHITENING_EPS = 5e-4
"""Added to the variances, so that directions with hardly any are not blown up."""


def _identity_block(in_channels: int, out_channels: int, activation: str, pool: bool = False) -> list[nn.Module]:
    """Like conv_block, its first filters the identity."""
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    with torch.no_grad():
        nn.init.dirac_(convolution.weight[: min(in_channels, out_channels)])
    pooling = [MaxPool2()] if pool else []
    return [convolution, *pooling, nn.BatchNorm2d(out_channels), ACTIVATIONS[activation]()]


class Scale(nn.Module):
    """x times a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Residual(nn.Module):
    """x + two convolution blocks of x, shapes kept."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(conv_block(channels, channels, norm, pool=False) for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.blocks(x))


def resnet18(num_classes: int = 10, image_size: int = 32, in_channels: int = 3) -> nn.Module:
    """torchvision's ResNet-18 with the stem that small images need: a 3×3 convolution and no pooling (He et al., 2015).

    Takes any `image_size`; with 32×32 images it has 11.2 M parameters and 0.56 G multiply-adds.
    """
    from torchvision.models import resnet18 as imagenet_resnet18  # 1.7 s that other models need not pay

    model: nn.Module = imagenet_resnet18(num_classes=num_classes)
    model.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def conv_block(in_channels: int, out_channels: int, norm: str, pool: bool = True) -> nn.Sequential:
    """Conv2d 3×3, halving by max pooling where `pool`, normalisation, ReLU."""
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=norm == "none")]
    if pool:
        layers.append(MaxPool2())
    if norm == "batch":
        layers.append(nn.BatchNorm2d(out_channels))
    elif norm == "group":  # groups of eight channels, else one group (Wu and He, "Group Normalization", 2018)
        layers.append(nn.GroupNorm(out_channels // 8 if out_channels % 8 == 0 else 1, out_channels))
    elif norm != "none":
        raise ValueError(f"norm={norm}: expected one of {', '.join(NORMS)}")
    return nn.Sequential(*layers, nn.ReLU(inplace=True))


class MaxPool2(nn.MaxPool2d):
    """nn.MaxPool2d(2); where no gradient is wanted, on a CPU, as maxima of slices, in a third of the time.

    PyTorch's pooling writes 64-bit indices beside its values. With gradients it is as fast as slices all the same.
    """

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.device.type != "cpu":
            return cast(Tensor, super().forward(x))
        rows = torch.maximum(x[..., :-1:2], x[..., 1::2])
        return torch.maximum(rows[..., :-1:2, :], rows[..., 1::2, :])


class Flatten(nn.Flatten):
    """nn.Flatten whose gradient is channels_last where the input was.

    ReLU's backward pass takes ten times as long with another order: 2-4 % of a training step on a CPU.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and x.is_contiguous(memory_format=torch.channels_last):
            x.register_hook(_channels_last)  # type: ignore[no-untyped-call]
        return super().forward(x)


def _channels_last(grad: Tensor) -> Tensor:
    return grad.contiguous(memory_format=torch.channels_last)


def num_parameters(model: nn.Module) -> int:
    """Trainable numbers in the model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def num_multiply_adds(model: nn.Module, image_shape: Sequence[int]) -> int:
    """Multiplications with an addition in the forward pass of an image (C, H, W): half of its operations.

    Convolutions and matrix products only, as PyTorch's FlopCounterMode counts them. Leaves the model as it was.
    """
    image = torch.zeros(1, *image_shape, device=next(model.parameters()).device)
    was_training = model.training
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(image)
    model.train(was_training)
    return int(counter.get_total_flops()) // 2


def matched_width(build: Callable[[int], nn.Module], match: str, image_shape: Sequence[int]) -> int:
    """The width at which `build(width)` comes nearest to `match`, params:N or multiply_adds:N, counted on the module.

    ValueError where no width comes within MATCH_TOLERANCE of N. Makes no weights, and draws no random numbers.
    """
    kind, _, number = match.partition(":")
    if kind not in ("params", "multiply_adds") or not re.fullmatch(r"[1-9]\d*", number):
        raise ValueError(f"match={match}: expected params:N or multiply_adds:N with a whole number N, or null")
    budget = int(number)

    @cache
    def count(width: int) -> int:
        with torch.device("meta"):
            model = build(width)
        return num_parameters(model) if kind == "params" else num_multiply_adds(model, image_shape)

    too_many = bisect.bisect_left(range(1, MOST_WIDTH), budget, key=count) + 1
    candidates = [width for width in (too_many - 1, too_many) if 1 <= width < MOST_WIDTH]
    width = min(candidates, key=lambda width: abs(count(width) - budget))
    if abs(count(width) - budget) > MATCH_TOLERANCE * budget:
        near = " and ".join(f"{count(width):,} (width {width})" for width in candidates)
        raise ValueError(f"match={match}: expected a number within {MATCH_TOLERANCE:.0%} of a width's, as {near}")
    return width
