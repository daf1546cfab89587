"""Every YAML file of conf/ composes and builds what its name says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import hydra
import pytest
import torch
from conftest import REPOSITORY
from hydra.utils import instantiate
from omegaconf import OmegaConf

from cifarsweep import models, optim
from cifarsweep.sweeper import hydra_compat
from cifarsweep.training import schema

CONF = REPOSITORY / "conf"
OPTIONS = sorted(
    (path.parent.name, path.stem)
    for path in CONF.glob("*/*.yaml")
    if path.parent.name not in ("hydra", "experiment", "study")
)
TABLE = {
    "model": {"airbench", "layers1", "layers2", "layers3", "layers4", "layers5", "resnet18", "speednet"},
    "optimizer": {"sgd", "momentum", "adam", "adamw", "rmsprop", "muon"},
    "schedule": {"onecycle", "cosine", "step", "constant"},
    "loss": {"cross_entropy", "label_smoothing", "square_error"},
    "data": {"cifar10", "cifar100", "fashion_mnist", "image_folder", "shapes"},
    "trainer": {"default", "quick"},
    "tracker": {"none", "tensorboard", "mlflow", "wandb", "trackio"},
}


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with hydra.initialize_config_dir(str(CONF), **hydra_compat.VERSION_BASE):
        yield


def compose(*overrides: str) -> Any:
    return hydra.compose("config", [*overrides, "data.root=/data"] if "data=shapes" not in overrides else [*overrides])


def test_every_option_of_the_design_is_there() -> None:
    assert {group: {option for g, option in OPTIONS if g == group} for group in TABLE} == TABLE


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_an_option_composes_and_its_values_are_in_their_domains(group: str, option: str) -> None:
    config = OmegaConf.to_container(compose(f"{group}={option}"), resolve=True)
    assert isinstance(config, dict)
    schema.check({str(key): value for key, value in config.items()})


@pytest.mark.parametrize("option", sorted(TABLE["model"]))
def test_a_model_is_built(option: str) -> None:
    cfg = compose(f"model={option}").model
    net = instantiate(cfg, image_size=32, num_classes=10)
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    if option.startswith("layers"):
        assert cfg.depth == int(option[-1])
        assert isinstance(net, models.LayersNet)


@pytest.mark.parametrize("option", sorted(TABLE["optimizer"]))
def test_an_optimizer_lowers_the_loss(option: str) -> None:
    torch.manual_seed(0)
    net = models.LayersNet(2, width=4)
    optimizer = instantiate(compose(f"optimizer={option}").optimizer)(optim.parameter_groups(net))
    images, labels = torch.randn(20, 3, 32, 32), torch.arange(20) % 10
    losses = []
    for _ in range(15):
        loss = torch.nn.functional.cross_entropy(net(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("option", sorted(TABLE["schedule"]))
def test_a_schedule_gives_a_factor_for_every_step(option: str) -> None:
    schedule = instantiate(compose(f"schedule={option}").schedule)
    assert all(0 < schedule(step, 20) <= 1 for step in range(20))


@pytest.mark.parametrize("option", sorted(TABLE["loss"]))
def test_a_loss_is_least_where_the_scores_are_right(option: str) -> None:
    loss = instantiate(compose(f"loss={option}").loss)
    labels = torch.arange(3)
    assert loss(4 * torch.eye(3), labels) < loss(torch.zeros(3, 3), labels) < loss(-4 * torch.eye(3), labels)


@pytest.mark.parametrize("option", sorted(TABLE["data"]))
def test_a_data_option_names_arguments_that_its_loader_takes(option: str) -> None:
    import inspect

    cfg = compose(f"data={option}").data
    loader = hydra.utils.get_method(cfg._target_)
    inspect.signature(loader).bind(**{str(key): value for key, value in cfg.items() if key != "_target_"})


def test_every_value_that_has_a_domain_stands_in_some_file() -> None:
    text = "\n".join(path.read_text() for path in CONF.rglob("*.yaml"))
    constructor_defaults = {"model.hidden", "model.in_channels"}
    for key in schema.DOMAINS.keys() - constructor_defaults:
        assert f"{key.rsplit('.', 1)[-1]}:" in text, key


@pytest.mark.parametrize("size", sorted(path.stem for path in (CONF / "study").glob("*.yaml")))
def test_a_study_of_each_size_searches_every_depth_at_equal_width_parameters_and_multiply_adds(size: str) -> None:
    words = ["experiment=depth_study", f"study={size}"]
    sweeper = hydra.compose("config", words, return_hydra_config=True).hydra.sweeper
    assert sweeper.study_per == ["model.match", "model"]
    assert sweeper.params.model == "choice(layers1, layers2, layers3, layers4, layers5)"
    assert sweeper.params["model.match"].startswith("null, params:170000, multiply_adds:")
    assert sweeper.finalists >= 1
    assert sweeper.budget.startswith("epochs:")
    assert (size == "quick") == ("32" in sweeper.params.batch_size)
