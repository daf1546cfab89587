"""The layers of a network: what is counted, what takes what, and the table that a run leaves of it."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest
import torch
from torch import Tensor, nn

from cifarsweep import models
from cifarsweep.report import network
from cifarsweep.report.style import RC_PARAMS
from cifarsweep.results import files, records
from cifarsweep.results.records import Layer
from cifarsweep.training import layers

IMAGE = (3, 32, 32)


@pytest.mark.parametrize(
    "net",
    [models.LayersNet(1), models.LayersNet(5, norm="group", dropout=0.5), models.SpeedNet(width=4), models.resnet18()],
    ids=["layers1", "layers5", "speednet", "resnet18"],
)
def test_the_rows_add_up_to_the_whole_network(net: nn.Module) -> None:
    traced = layers.trace(net, IMAGE)
    assert sum(layer.params for layer in traced) == models.num_parameters(net)
    assert sum(layer.multiply_adds for layer in traced) == models.num_multiply_adds(net, IMAGE)
    assert traced[-1].shape == (10,)
    assert all(0 <= source < at for at, layer in enumerate(traced, 1) for source in layer.inputs)


def test_the_tutorials_network_is_what_one_counts_by_hand() -> None:
    traced = layers.trace(models.LayersNet(2, norm="none"), IMAGE)
    first, second = 3 * 9 * 16, 16 * 9 * 32
    assert traced == [
        Layer("0.0", "Conv2d 3×3", (0,), (16, 32, 32), first + 16, first * 32 * 32),
        Layer("0.1", "MaxPool2d 2×2", (1,), (16, 16, 16), 0, 0),
        Layer("0.2", "ReLU", (2,), (16, 16, 16), 0, 0),
        Layer("1.0", "Conv2d 3×3", (3,), (32, 16, 16), second + 32, second * 16 * 16),
        Layer("1.1", "MaxPool2d 2×2", (4,), (32, 8, 8), 0, 0),
        Layer("1.2", "ReLU", (5,), (32, 8, 8), 0, 0),
        Layer("2", "Flatten", (6,), (2048,), 0, 0),
        Layer("3", "Linear", (7,), (128,), 2048 * 128 + 128, 2048 * 128),
        Layer("4", "ReLU", (8,), (128,), 0, 0),
        Layer("5", "Dropout 0", (9,), (128,), 0, 0),
        Layer("6", "Linear", (10,), (10,), 1290, 1280),
    ]


def test_a_residual_takes_both_of_its_inputs() -> None:
    traced = layers.trace(models.SpeedNet(width=4), IMAGE)
    (addition, _) = [layer for layer in traced if layer.kind == "add"]
    assert [traced[source - 1].name for source in addition.inputs] == ["1.3", "2.blocks.1.2"]


class Odd(nn.Module):
    """A parameter of its own, a layer used twice, functions between layers, a parameter that is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 1, 1))
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.twice = nn.Linear(3, 3)
        self.unused = nn.Parameter(torch.ones(7))

    def forward(self, x: Tensor) -> Tensor:
        features = self.frozen((x * self.scale).mean((2, 3)))
        return self.twice(self.twice(features)) + features.size(0)


def test_parameters_count_once_where_they_are_used_and_only_if_they_are_trained() -> None:
    traced = layers.trace(Odd(), IMAGE)
    assert [(layer.kind, layer.params) for layer in traced] == [
        ("mul", 3),
        ("mean", 0),
        ("Linear", 0),
        ("Linear", 12),
        ("Linear", 0),
        ("add", 0),
    ]
    assert [layer.multiply_adds for layer in traced] == [0, 0, 9, 9, 9, 0]


def test_the_network_is_left_as_it_was() -> None:
    net = models.LayersNet(2, dropout=0.5).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    layers.trace(net, IMAGE)
    assert net.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_hooks_are_gone_where_the_forward_pass_fails() -> None:
    net = models.LayersNet(2)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        layers.trace(net, (3, 16, 16))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


# the table on disk


def test_what_was_written_is_read(tmp_path: Path) -> None:
    traced = layers.trace(models.SpeedNet(width=4), IMAGE)
    records.write_layers(tmp_path, traced)
    assert records.read_layers(tmp_path) == traced


def test_a_run_without_the_table_has_no_layers(tmp_path: Path) -> None:
    assert records.read_layers(tmp_path) == []


@pytest.mark.parametrize(
    "content",
    ["layer,name\n1,x\n", "{header}\n1,a,Conv2d,0,16×a,1,1\n", "{header}\n1,a,Conv2d,1,16,1,1\n", "{header}\n1,a\n"],
)
def test_a_table_that_cannot_be_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "layers.csv").write_text(content.format(header=",".join(records.LAYERS)), encoding="utf-8")
    with pytest.raises(files.Corrupt, match=r"layers\.csv: "):
        records.read_layers(tmp_path)


# the diagram


def test_many_layers_are_folded_without_losing_parameters_or_connections() -> None:
    traced = layers.trace(models.resnet18(), IMAGE)
    rows = network.folded(traced)
    assert len(rows) < len(traced) / 2
    assert sum(row.params for row in rows) == sum(layer.params for layer in traced)
    assert sum(row.multiply_adds for row in rows) == sum(layer.multiply_adds for layer in traced)
    assert rows[0].kind == "Conv2d 3×3 → BatchNorm2d → ReLU"  # and Identity, which is left out
    additions = [row for row in rows if row.kind.startswith("add")]
    assert len(additions) == 8
    assert all(len(row.inputs) == 2 for row in additions)


def test_a_layer_whose_input_is_taken_elsewhere_too_stays_a_row() -> None:
    chain = [Layer("", "Conv2d", (0,), (4, 8, 8), 1, 1), Layer("", "ReLU", (1,), (4, 8, 8), 0, 0)]
    assert len(network.folded(chain)) == 1
    assert len(network.folded([*chain, Layer("", "add", (1, 2), (4, 8, 8), 0, 0)])) == 3


@pytest.mark.parametrize("count", [1, 36, 37, 200])
def test_networks_of_any_length_are_drawn(count: int) -> None:
    chain = [Layer(str(at), "Conv2d " + "x" * at, (at,), (2, 4, 4), 10**at, 1) for at in range(count)]
    with matplotlib.rc_context(RC_PARAMS):
        figure = network.diagram("$a^{b}$" * 20, chain)
        assert figure is not None
        figure.draw_without_rendering()
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert f"total of {count} layer{'' if count == 1 else 's'}" in texts


def test_without_layers_there_is_no_diagram() -> None:
    assert network.diagram("net", []) is None
