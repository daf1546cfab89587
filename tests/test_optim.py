"""Schedules at their turning points, optimizers against their definition, the square error by hand."""

from __future__ import annotations

import itertools
from typing import cast

import pytest
import torch
from torch import nn

from cifarsweep import models, optim


def test_onecycle_rises_to_one_and_falls_towards_zero() -> None:
    factors = [optim.onecycle(step, 100, warmup=0.25) for step in range(100)]
    assert factors[0] == pytest.approx(1 / 25)
    assert factors.index(max(factors)) == 24
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] == pytest.approx(1 / 76)
    rises = [b > a for a, b in itertools.pairwise(factors)]
    assert all(rises[:24])
    assert not any(rises[24:])


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("schedule", [optim.onecycle, optim.cosine, optim.constant])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
def test_a_schedule_with_warmup_stays_between_zero_and_one(schedule: object, warmup: float, num_steps: int) -> None:
    assert callable(schedule)
    factors = [schedule(step, num_steps, warmup=warmup) for step in range(num_steps)]
    assert all(0 < factor <= 1 for factor in factors)


def test_cosine_is_halfway_at_half_time() -> None:
    assert optim.cosine(0, 100) == 1
    assert optim.cosine(50, 100) == pytest.approx(0.5)


def test_step_falls_by_gamma_at_each_milestone() -> None:
    factors = [optim.step(step, 8, milestones=[0.5, 0.75], gamma=0.1) for step in range(8)]
    assert factors == pytest.approx([1, 1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_vectors_are_not_decayed() -> None:
    net = models.LayersNet(2)
    weights, vectors = optim.parameter_groups(net)
    assert all(p.ndim >= 2 for p in weights["params"])
    assert all(p.ndim == 1 for p in vectors["params"])
    assert vectors["weight_decay"] == 0
    assert len(weights["params"]) + len(vectors["params"]) == len(list(net.parameters()))


def test_the_square_error_is_the_squared_distance_to_the_one_hot_target() -> None:
    scores = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    labels = torch.tensor([0, 0])
    p = scores.softmax(1)
    by_hand = ((p[0, 0] - 1) ** 2 + p[0, 1] ** 2 + (p[1, 0] - 1) ** 2 + p[1, 1] ** 2) / 2
    assert optim.SquareError()(scores, labels).item() == pytest.approx(by_hand.item())


# Muon


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_muon_makes_the_update_of_a_filter_orthogonal_and_reaches_every_parameter(memory_format: object) -> None:
    torch.manual_seed(0)
    net = models.LayersNet(2).to(memory_format=memory_format)  # type: ignore[call-overload]
    optimizer = optim.Muon(optim.parameter_groups(net), lr=0.01)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    nn.functional.cross_entropy(net(torch.randn(8, 3, 32, 32)), torch.arange(8)).backward()
    optimizer.step()
    for name, p in net.named_parameters():
        assert not torch.equal(before[name], p), name
    update = (net[1][0].weight.detach() - before["1.0.weight"]).reshape(32, -1)
    singular = torch.linalg.svdvals(update)
    # Newton-Schulz leaves singular values within about 0.5 to 1.5 of one another; a gradient's spread is far wider.
    assert singular.max() / singular.min() < 3


def test_muon_follows_the_schedule() -> None:
    net = models.LayersNet(1)
    optimizer = optim.Muon(optim.parameter_groups(net), lr=0.01)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [p.detach().clone() for p in net.parameters()]
    nn.functional.cross_entropy(net(torch.randn(4, 3, 32, 32)), torch.arange(4)).backward()
    optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_muon_with_relative_lr_changes_a_matrix_by_that_part_of_itself(memory_format: object) -> None:
    def after_a_step(scale: float, weight_decay: float) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(0)
        net = models.Airbench(width=8).to(memory_format=memory_format)  # type: ignore[call-overload]
        block, last = cast(nn.Conv2d, net[6]), cast(nn.Linear, net[-2])
        with torch.no_grad():
            block.weight.mul_(scale)
        groups = optim.parameter_groups(net)
        optimizer = optim.Muon(groups, lr=1e-3, weight_decay=weight_decay, relative_lr=0.2)
        nn.functional.cross_entropy(net(torch.randn(8, 3, 32, 32)), torch.arange(8)).backward()
        matrix, before = block.weight.detach().clone().reshape(8, -1), last.weight.detach().clone()
        optimizer.step()
        return block.weight.detach().reshape(8, -1) - matrix * (8**0.5 / matrix.norm()), last.weight.detach() - before

    change, of_last = after_a_step(scale=1.0, weight_decay=0.0)
    singular = torch.linalg.svdvals(change) / 0.2
    assert 0.5 < singular.min() < singular.max() < 1.5
    assert of_last.abs().max().item() == pytest.approx(1e-3, rel=0.01)  # lr, as Adam's first step has it
    for scale, weight_decay in ((10.0, 0.0), (1.0, 0.5)):
        same, _ = after_a_step(scale, weight_decay)
        assert torch.allclose(change, same, atol=3e-3)  # Newton-Schulz is in bf16


@pytest.mark.parametrize("relative_lr", [None, 0.2])
def test_muon_goes_on_from_its_state_as_if_it_had_not_stopped(relative_lr: float | None) -> None:
    def steps(net: nn.Module, optimizer: optim.Muon, seeds: list[int]) -> None:
        for seed in seeds:
            images = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(images), torch.arange(8)).backward()
            optimizer.step()

    def fresh() -> tuple[models.LayersNet, optim.Muon]:
        torch.manual_seed(0)
        net = models.LayersNet(2)
        return net, optim.Muon(optim.parameter_groups(net), lr=0.01, weight_decay=0.1, relative_lr=relative_lr)

    straight, straight_optimizer = fresh()
    steps(straight, straight_optimizer, [1, 2, 3, 4])
    first, first_optimizer = fresh()
    steps(first, first_optimizer, [1, 2])
    second, second_optimizer = fresh()
    second.load_state_dict(first.state_dict())
    second_optimizer.load_state_dict(first_optimizer.state_dict())
    steps(second, second_optimizer, [3, 4])
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), second.parameters(), strict=True))
