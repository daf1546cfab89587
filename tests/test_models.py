"""The networks: shapes, what a block computes, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cifarsweep import models


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
