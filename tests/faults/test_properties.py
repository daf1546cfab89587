"""What holds for any value: identities, names, overrides and files."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from dataclasses import astuple
from pathlib import Path
from typing import Any

import hydra
import pytest
from conftest import REPOSITORY
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from cifarsweep.results import files, identity, records, sweeps
from cifarsweep.results.records import Epoch
from cifarsweep.sweeper import hydra_compat
from cifarsweep.sweeper.space import parse
from cifarsweep.terminal import domains

ANY_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
FINITE = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def composed(*overrides: str) -> dict[str, Any]:
    with hydra.initialize_config_dir(str(REPOSITORY / "conf"), **hydra_compat.VERSION_BASE):
        config = OmegaConf.to_container(hydra.compose("config", list(overrides)), resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def run_id(config: dict[str, Any]) -> str:
    return identity.run_id(identity.identity(config, "f"))


# identity


@given(st.floats(1e-12, 1e12))
def test_a_number_is_one_run_however_it_is_written(lr: float) -> None:
    base = {key: {} for key in ("data", "model", "optimizer", "schedule", "loss", "trainer")}
    texts = [repr(lr), f"{lr:.17e}", f"{lr:.17E}", f"+{lr!r}"]
    if lr.is_integer() and lr < 1e15:
        texts.append(str(int(lr)))
    read = [OverridesParser.create().parse_override(f"lr={text}").value() for text in texts]
    assert len({run_id({**base, "optimizer": {"lr": value}, "batch_size": 1, "seed": 0}) for value in read}) == 1


def test_0_1_and_1e_1_are_one_run() -> None:
    spellings = ("optimizer.lr=0.1", "optimizer.lr=1e-1", "optimizer.lr=0.10", "optimizer.lr=1.0e-1")
    assert len({run_id(composed(word)) for word in spellings}) == 1


@pytest.mark.parametrize(
    "overrides",
    [
        ["model=layers2", "optimizer=momentum", "schedule=onecycle", "data=cifar10"],
        ["model=layers5", "optimizer=adamw", "schedule=step", "loss=label_smoothing", "data=shapes"],
        ["model=resnet18", "optimizer=muon", "schedule=cosine", "data=image_folder", "data.root=photos"],
        ["model=speednet", "optimizer=rmsprop", "loss=square_error", "data=fashion_mnist"],
    ],
    ids=lambda overrides: overrides[0],
)
def test_every_key_makes_another_run_but_those_that_do_not_matter(overrides: list[str]) -> None:
    config = composed(*overrides)
    before = run_id(config)
    not_ours = {"name", "force", "outputs", "search"}
    for key, value in domains.flat(config):
        group, _, inner = key.partition(".")
        changed = deepcopy(config)
        node = changed
        for part in key.split(".")[:-1]:
            node = node[part]
        node[key.rpartition(".")[2]] = other(value)
        free = (
            group in not_ours or inner in identity.DOES_NOT_DETERMINE.get(group, set()) or inner.endswith("_partial_")
        )
        assert (run_id(changed) == before) == free, key


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return [*value, 0.9] if isinstance(value, list) else f"{value}x"


# overrides


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_any_text_of_a_choice_comes_back(text: str) -> None:
    quoted = "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
    try:
        expected = OverridesParser.create().parse_override(f"a={quoted}").value()
    except Exception:  # Hydra's own grammar has texts that it cannot quote
        return
    (parameter,) = parse({}, [f"a=choice({quoted},1)"]).parameters
    assert parameter.options is not None
    back = (
        OverridesParser.create().parse_override(parameter.overrides({parameter.key: parameter.options[0]})[0]).value()
    )
    assert back == expected


@given(st.integers(-(2**53), 2**53), st.integers(1, 1000), st.integers(1, 50))
def test_a_range_has_the_numbers_of_hydras(start: int, size: int, step: int) -> None:
    override = f"a=range({start},{start + size},{step})"
    (parameter,) = parse({}, [override]).parameters
    numbers = list(OverridesParser.create().parse_override(override).sweep_iterator())
    distribution: Any = parameter.distribution
    assert [distribution.low, distribution.high] == [numbers[0], numbers[-1]]
    assert len(numbers) == 1 or distribution.step == step


# files


@ANY_FOLDER
@given(JSON)
def test_json_comes_back(tmp_path: Path, value: Any) -> None:
    files.write_json(tmp_path / "any.json", value)
    assert files.read_json(tmp_path / "any.json") == json.loads(json.dumps(value))


@ANY_FOLDER
@given(st.lists(st.builds(Epoch, st.integers(), *[FINITE] * 3, *[st.none() | FINITE] * 2, FINITE), max_size=5))
def test_metrics_come_back_to_the_last_bit(tmp_path: Path, epochs: list[Epoch]) -> None:
    records.write_metrics(tmp_path, epochs)
    back = records.read_metrics(tmp_path)
    assert back == epochs
    rows, rows_back = (map(astuple, table) for table in (epochs, back))
    signs = [math.copysign(1, x) for row in rows for x in row if x is not None]
    assert [math.copysign(1, x) for row in rows_back for x in row if x is not None] == signs


@ANY_FOLDER
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_named(tmp_path: Path, content: bytes) -> None:
    for name, read in (
        ("result.json", records.RunResult.read),
        ("metrics.csv", records.read_metrics),
        ("config.yaml", records.read_config),
        ("sweep.json", sweeps.SweepRecord.read),
    ):
        (tmp_path / name).write_bytes(content)
        try:
            read(tmp_path)
        except ValueError as error:
            assert str(error).startswith(str(tmp_path / name))  # noqa: PT017


@ANY_FOLDER
@given(st.binary(max_size=300) | st.builds(lambda value: json.dumps(value).encode() + b"\n", JSON))
def test_any_bytes_that_jobs_told_are_read_or_named(tmp_path: Path, content: bytes) -> None:
    if not (tmp_path / "sweep.json").exists():
        sweeps.open_sweep(tmp_path, ["x"], {})
    (tmp_path / "jobs.jsonl").write_bytes(content)
    try:
        sweeps.SweepRecord.read(tmp_path)
    except ValueError as error:
        assert str(error).startswith(str(tmp_path))  # noqa: PT017
