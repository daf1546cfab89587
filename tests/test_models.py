"""The networks: shapes, what a block computes, what is refused."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from torch import nn

from cifarsweep import models, optim


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_layers_net_has_depth_convolutions_and_two_fully_connected_layers(depth: int) -> None:
    net = models.LayersNet(depth)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convolutions] == [
        (3, 16),
        (16, 32),
        (32, 64),
        (64, 128),
        (128, 256),
    ][:depth]
    assert [m.out_features for m in net.modules() if isinstance(m, nn.Linear)] == [128, 10]
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_a_block_halves_the_image_and_the_tutorial_counts_are_right() -> None:
    net = models.LayersNet(2, norm="none")
    assert net[0](torch.zeros(1, 3, 32, 32)).shape == (1, 16, 16, 16)
    by_hand = (3 * 9 * 16 + 16) + (16 * 9 * 32 + 32) + (32 * 8 * 8 * 128 + 128) + (128 * 10 + 10)
    assert models.num_parameters(net) == by_hand


def test_pooling_before_relu_computes_what_the_textbook_order_computes() -> None:
    torch.manual_seed(0)
    block = models.conv_block(3, 4, "none")
    images = torch.randn(5, 3, 8, 8)
    convolution = block[0]
    textbook = nn.functional.max_pool2d(convolution(images).relu(), 2)
    torch.testing.assert_close(block(images), textbook)


@pytest.mark.parametrize(
    ("make", "image_size"),
    [
        (models.SpeedNet, 32),
        (models.SpeedNet, 28),
        (models.resnet18, 32),
        (lambda **k: models.Airbench(8, whiten=False, **k), 28),
        (lambda **k: models.LayersNet(3, norm="group", dropout=0.5, **k), 28),
        (lambda **k: models.LayersNet(6, width=8, **k), 64),
    ],
)
def test_every_network_gives_a_score_a_class_and_a_gradient_to_each_parameter(make: object, image_size: int) -> None:
    assert callable(make)
    net = make(num_classes=7, image_size=image_size)
    scores = net(torch.randn(4, 3, image_size, image_size))
    assert scores.shape == (4, 7)
    scores.logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_whitened_patches_are_uncorrelated_and_of_variance_1() -> None:
    torch.manual_seed(0)
    images = torch.randn(100, 3, 32, 32).cumsum(2).cumsum(3) / 20  # neighbours are alike, as in photographs
    images = images + 0.5 * torch.randn_like(images)
    net = models.Airbench(8)
    net.initialize_from_data(images)
    net[0].bias.data.zero_()
    outputs = net[0](images).permute(1, 0, 2, 3).flatten(1)
    covariance = outputs @ outputs.T / outputs.shape[1]
    torch.testing.assert_close(covariance[:12, :12], torch.eye(12), atol=0.01, rtol=0)
    torch.testing.assert_close(outputs[12:], -outputs[:12])


def test_whitening_filters_are_not_trained_and_those_that_are_trained_are_not_whitened() -> None:
    images = torch.randn(10, 3, 32, 32)
    for whiten in (True, False):
        net = models.Airbench(8, whiten=whiten)
        before = net[0].weight.clone()
        net.initialize_from_data(images)
        assert torch.equal(net[0].weight, before) != whiten
        trained = {id(p) for group in optim.parameter_groups(net) for p in group["params"]}
        assert (id(net[0].weight) in trained) != whiten
        assert models.num_parameters(net) == sum(p.numel() for p in net.parameters() if id(p) in trained)


def test_the_first_filters_of_a_block_pass_the_image_on() -> None:
    net = models.Airbench(8)
    first, second = [layer for layer in net if isinstance(layer, nn.Conv2d)][1:3]
    image = torch.randn(1, 24, 9, 9)
    torch.testing.assert_close(first(image)[:, :8], image[:, :8])
    torch.testing.assert_close(second(image[:, :8]), image[:, :8])


@pytest.mark.parametrize(("depth", "image_size", "most"), [(6, 32, 5), (5, 28, 4), (0, 32, 5)])
def test_more_layers_than_the_image_can_be_halved_are_refused(depth: int, image_size: int, most: int) -> None:
    with pytest.raises(ValueError, match=f"depth={depth}: expected 1 to {most}"):
        models.LayersNet(depth, image_size=image_size)


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (3, 2)])
def test_pooling_without_gradients_computes_what_pytorch_computes(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        pooled = models.MaxPool2()(x)
    assert torch.equal(pooled, nn.functional.max_pool2d(x, 2))
    assert pooled.is_contiguous(memory_format=torch.channels_last)


def test_the_gradient_comes_out_of_flattening_in_the_order_of_its_input() -> None:
    x = torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(48)
    (models.Flatten()(x) * weight).sum().backward()
    assert x.grad is not None
    assert x.grad.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(x.grad, weight.view(1, 3, 4, 4).expand(2, 3, 4, 4))


def test_an_unknown_normalisation_is_refused() -> None:
    with pytest.raises(ValueError, match="norm=layer: expected one of batch, group, none"):
        models.LayersNet(2, norm="layer")


# matched budgets


def params_by_hand(depth: int, width: int, image_size: int) -> int:
    """Of LayersNet with batch norm: 9·in·out + 2·out a block, then the two fully connected layers."""
    channels = [3, *(width * 2**block for block in range(depth))]
    blocks = sum(9 * a * b + 2 * b for a, b in itertools.pairwise(channels))
    side = image_size // 2**depth
    return blocks + (channels[-1] * side * side * 128 + 128) + (128 * 10 + 10)


def multiply_adds_by_hand(depth: int, width: int, image_size: int) -> int:
    """Each convolution works on the side that the blocks before it have left; pooling comes after it."""
    channels = [3, *(width * 2**block for block in range(depth))]
    sides = [image_size // 2**block for block in range(depth + 1)]
    blocks = sum(9 * a * b * side**2 for a, b, side in zip(channels, channels[1:], sides, strict=False))
    return blocks + channels[-1] * sides[-1] ** 2 * 128 + 128 * 10


BY_HAND = {"params": params_by_hand, "multiply_adds": multiply_adds_by_hand}


@pytest.mark.parametrize("kind", BY_HAND)
@pytest.mark.parametrize(
    ("budget", "image_size"), [(200_000, 32), (3_000_000, 28), (4_000_000, 32), (9_000_000, 64), (30_000_000, 96)]
)
def test_the_matched_width_is_the_nearest_by_counting_by_hand(kind: str, budget: int, image_size: int) -> None:
    for depth in range(1, min(5, image_size.bit_length() - 1) + 1):
        counts = {width: BY_HAND[kind](depth, width, image_size) for width in range(1, 1500)}
        nearest = min(counts, key=lambda width: abs(counts[width] - budget))
        if abs(counts[nearest] - budget) > 0.1 * budget:
            with pytest.raises(ValueError, match=f"match={kind}:{budget}: expected a number within 10% of a width's"):
                models.LayersNet(depth, match=f"{kind}:{budget}", image_size=image_size)
            continue
        net = models.LayersNet(depth, match=f"{kind}:{budget}", image_size=image_size)
        assert net.width == nearest
        assert models.num_parameters(net) == params_by_hand(depth, nearest, image_size)
        shape = (3, image_size, image_size)
        assert models.num_multiply_adds(net, shape) == multiply_adds_by_hand(depth, nearest, image_size)


def test_a_matched_network_has_the_weights_that_its_width_given_as_such_has() -> None:
    torch.manual_seed(3)
    matched = models.LayersNet(3, match="params:200000")
    torch.manual_seed(3)
    given = models.LayersNet(3, width=matched.width)
    assert all(torch.equal(a, b) for a, b in zip(matched.parameters(), given.parameters(), strict=True))


@pytest.mark.parametrize(
    ("match", "message"),
    [
        ("params:100", "as 34,215 (width 1)"),
        ("params:50000", "as 34,215 (width 1) and 67,012 (width 2)"),
        ("flops:2000000", "params:N or multiply_adds:N"),
        ("params:2e5", "params:N or multiply_adds:N"),
    ],
)
def test_a_budget_that_no_width_meets_is_refused_with_the_nearest(match: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"match={match}: expected ") + ".*" + re.escape(message)):
        models.LayersNet(1, match=match)
