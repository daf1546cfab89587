"""The configuration of a stranger's run: whatever it names, rerun trains it or answers in one line."""

from __future__ import annotations

import contextlib
import copy
import io
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import run_python, small_run
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st

from cifarsweep import models, optim, rerun
from cifarsweep.training import run
from cifarsweep.training.configuration import Configuration
from cifarsweep.training.session import Session

TARGETS = [
    f"{module.__name__}.{name}"
    for module in (torch.nn, torch.optim, models, optim)
    for name in [*dir(module), "Nope"]
    if not name.startswith("_")
]
GROUPS = ("model", "optimizer", "schedule", "loss", "data")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    done = run_python("-m", "cifarsweep", *small_run(data_cache, folder / "outputs"), "trainer.epochs=1", cwd=folder)
    assert done.returncode == 0, done.stderr
    (run_dir,) = (folder / "outputs" / "runs").glob("layers2-*")
    shutil.move(run_dir, folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def recorded(trained: Path) -> dict[str, Any]:
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert isinstance(config, dict)
    return config


values = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text() | st.sampled_from(TARGETS)
anything = st.recursive(
    values, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2)
)


def build(configuration: Configuration, *others: Any) -> Any:
    """What comes before the training."""
    dataset = instantiate(configuration.node.data)
    Session(configuration, dataset)
    raise ValueError("built")


@given(data=st.data())
def test_whatever_a_configuration_names_is_one_line(
    trained: Path, recorded: dict[str, Any], data_cache: Path, data: st.DataObject
) -> None:
    config = copy.deepcopy(recorded)
    group = data.draw(st.sampled_from(GROUPS))
    key = data.draw(st.sampled_from([*config[group], "added"]) | st.text())
    config[group][key] = data.draw(st.sampled_from(TARGETS) if key == "_target_" else anything)
    (trained / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr(run, "train", build)
        patch.setenv("CIFARSWEEP_CACHE", str(data_cache))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = rerun.main([str(trained)])
    (line,) = err.getvalue().split("\n")[:-1]
    assert line.isprintable()
    assert code == 1, line
