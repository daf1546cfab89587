"""Run ids that were given before: no change of the configuration or of the code may change one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from conftest import REPOSITORY
from omegaconf import OmegaConf

from cifarsweep.results import identity
from cifarsweep.sweeper import hydra_compat

EXAMPLE_RUNS = sorted((REPOSITORY / "outputs" / "example" / "runs").glob("*/"))
FINGERPRINT = "made up for this test"

IDS = {
    "data=cifar10": "76698e19d737",
    "data=cifar100": "76698e19d737",
    "data=fashion_mnist": "76698e19d737",
    "data=image_folder": "ab9760234615",
    "data=shapes": "3b5bcf51938b",
    "experiment=cifar10_90": "47522ca76029",
    "experiment=cifar10_94": "4fe2f82095a6",
    "experiment=cifar10_95": "e072f4b4ad3a",
    "experiment=depth_study": "b8b9a3dd2058",
    "loss=cross_entropy": "c6522cbfd96f",
    "loss=label_smoothing": "76698e19d737",
    "loss=square_error": "0d1acb269f6a",
    "model=airbench": "ced4e44a2512",
    "model=layers1": "fd4ecaf51c5f",
    "model=layers2": "bfcb2374c675",
    "model=layers3": "76698e19d737",
    "model=layers4": "8c100695f883",
    "model=layers5": "c890f475ac87",
    "model=resnet18": "6283a77d153a",
    "model=speednet": "aa20ac4ef637",
    "optimizer=adam": "fa0a13e7dfc9",
    "optimizer=adamw": "75f618a26d33",
    "optimizer=momentum": "76698e19d737",
    "optimizer=muon": "a10b1ab3be8d",
    "optimizer=rmsprop": "8d0d119f72d7",
    "optimizer=sgd": "893250391989",
    "schedule=constant": "938a465dd677",
    "schedule=cosine": "3e56ef2aefaa",
    "schedule=onecycle": "76698e19d737",
    "schedule=step": "4be7a725ef7e",
    "search=default": "76698e19d737",
    "search=depth": "76698e19d737",
    "search=none": "76698e19d737",
    "search=quick": "76698e19d737",
    "search=recipe": "76698e19d737",
    "study=default": "b8b9a3dd2058",
    "study=quick": "8dbb83e3c946",
    **dict.fromkeys(("tracker=none", "tracker=tensorboard", "tracker=mlflow"), "76698e19d737"),
    **dict.fromkeys(("tracker=wandb", "tracker=trackio"), "76698e19d737"),
    "trainer=default": "76698e19d737",
    "trainer=quick": "fbfd25f3c6a9",
}
"""The id of the defaults with each option of conf/ in turn, on data of a fingerprint that no data set has."""


def options() -> Iterator[str]:
    for path in (REPOSITORY / "conf").glob("*/*.yaml"):
        if path.parent.name != "hydra":
            yield f"{path.parent.name}={path.stem}"


@pytest.fixture(scope="module", autouse=True)
def _conf() -> Iterator[None]:
    with hydra.initialize_config_dir(str(REPOSITORY / "conf"), **hydra_compat.VERSION_BASE):
        yield


def composed(*overrides: str) -> dict[str, Any]:
    config = OmegaConf.to_container(hydra.compose("config", [*overrides]), resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def test_every_option_has_a_pinned_id() -> None:
    assert set(options()) == set(IDS)


@pytest.mark.parametrize("option", IDS)
def test_an_option_keeps_its_run_id(option: str) -> None:
    words = {"data=image_folder": ["data.root=/data"], "study": ["experiment=depth_study"]}
    needs = words.get(option) or words.get(option.partition("=")[0], [])
    what = identity.identity(composed(*needs, option), FINGERPRINT)
    assert identity.run_id(what) == IDS[option]


@pytest.mark.parametrize("run_dir", EXAMPLE_RUNS, ids=lambda run_dir: run_dir.name)
def test_the_examples_commands_keep_their_run_ids_and_the_order_of_their_keys(run_dir: Path) -> None:
    recorded = yaml.safe_load((run_dir / "config.yaml").read_text(encoding="utf-8"))
    run = recorded.pop("run")
    words = [f"model={run['model']}", f"seed={run['seed']}", "trainer.epochs=8", "name=first"]
    config = composed(*words, "data.root=data", "data.cache=cache")
    config.pop("tracker", None)  # newer than the example, as is data.url
    assert config["data"].pop("url") is None
    assert [config["trainer"].pop(key) for key in ("checkpoint_seconds", "test_mirrored")] == [60, False]
    assert yaml.safe_dump(config, sort_keys=False) == yaml.safe_dump(recorded, sort_keys=False)
    what = identity.identity(config, run["data_fingerprint"])
    assert (identity.run_id(what), identity.config_id(what)) == (run["run_id"], run["config_id"])
    assert run_dir.name.endswith(f"-{run['run_id']}")


def test_the_example_has_nine_runs() -> None:
    assert len(EXAMPLE_RUNS) == 9
