"""Keys of a search, given values of every kind: usable, or refused in one line that names the key and writes nothing.

Keys and arguments are those of the engine's own configuration files and of the constructors that these name.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import math
import os
import pkgutil
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from conftest import examples
from hydra.errors import HydraException
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from cifarsweep.sweeper import grid, local, storage
from cifarsweep.sweeper import settings as search_settings
from cifarsweep.sweeper.application import Application
from cifarsweep.sweeper.settings import Settings
from cifarsweep.sweeper.space import Space, parse

CONF = Path(search_settings.__file__).parent / "conf" / "hydra"
optuna.logging.set_verbosity(optuna.logging.ERROR)

SECONDS = 2.0
"""Of the processor, for what takes a few milliseconds."""


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """What takes seconds once."""
    for package in ("cmaes", "scipy.stats", "torch"):
        with contextlib.suppress(ImportError):
            importlib.import_module(package)


BASE = OmegaConf.create({"x": 1, "y": 0.1, "seed": 0})
SPACE = {"x": "choice(1, 2, 3)", "y": "tag(log, interval(0.01, 1))"}

FINITE = {"x": "choice(1, 2, 3)", "y": "range(1, 5)"}


def options(group: str) -> dict[str, dict[str, Any]]:
    """The options of a group of the sweeper, by name, each with its arguments."""
    read = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((CONF / "sweeper" / group).glob("*.yaml"))}
    return {name: option for name, option in read.items() if name != "auto"}  # which stands for one of the others


OPTIONS = {"sampler": options("sampler"), "pruner": options("pruner")}
STUDY = yaml.safe_load((CONF / "sweeper" / "study.yaml").read_text())
del STUDY["defaults"]
STUDY |= {"sampler": OPTIONS["sampler"]["random"], "pruner": OPTIONS["pruner"]["none"]}
PLAIN = OmegaConf.create(STUDY)
KEYS = list(STUDY)
ARGUMENTS = [
    (kind, name, argument)
    for kind, known in OPTIONS.items()
    for name, option in known.items()
    for argument in inspect.signature(pkgutil.resolve_name(option["_target_"])).parameters
    if argument not in search_settings._GIVEN.get(option["_target_"].rpartition(".")[2], ())
]

NUMBERS = st.integers(-3, 9) | st.integers() | st.floats(-2, 2) | st.floats() | st.just(10**30)
TEXTS = st.text(max_size=6) | st.sampled_from(["auto", "null", "trials:5", "steps:0", "steps:9", "seconds:1e9", "x"])
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y", "_target_", "a b"]), inner),
    max_leaves=5,
)


class Image(Application):
    """An application that knows all that it may know."""

    unit = "epoch"
    objectives = ("accuracy",)
    directions = ("maximize",)
    known_objectives = ("accuracy", "loss")

    def max_steps(self, config: Any) -> int | None:
        return 8


def answer(key: str, changes: dict[str, Any], application: Application | None = None) -> tuple[Settings, Space] | None:
    """What a search with these changes would be set up with; None where the one line that refuses it names the key.

    A key that is changed to `...` is taken away.
    """
    before, started = sorted(os.listdir()), time.process_time()
    try:
        checked = search_settings.read(a_search(changes), application or Application(), BASE)
        space = parse(FINITE if checked.enumerates else SPACE, [])
        storage.address_of(checked.storage, Path())
        search_settings.try_out(checked, space)
        for trial in checked.enqueue:
            space.place(trial)
    except OmegaConfBaseException:  # a text such as ${x, which Hydra itself answers
        return None
    except ValueError as error:
        if key != "enqueue":
            named = [f"hydra.sweeper.{key}", f"hydra/sweeper/{key}"]
            named += ["hydra.sweeper.direction=null: expected "] * (key == "objectives")  # each must have one
            assert str(error).startswith(tuple(named))  # noqa: PT017
        assert sorted(os.listdir()) == before
        return None
    finally:
        assert time.process_time() - started < SECONDS
    return checked, space


def assert_usable(checked: Settings, space: Space, num_trials: int = 4) -> None:
    """Some trials, so that a model is used and a rule decides."""
    study = optuna.create_study(directions=checked.directions, pruner=search_settings.make_pruner(checked))
    study.stop = lambda: None  # type: ignore[method-assign]
    for number in range(num_trials):
        study.sampler = search_settings.make_sampler(checked, space, number)
        trial = study.ask()
        space.suggest(trial)
        if len(checked.directions) == 1:
            for step in range(1, 4):
                trial.report(1 / step + number, step)
                trial.should_prune()
        study.tell(trial, [float(number)] * len(checked.directions))


def a_search(changes: dict[str, Any]) -> DictConfig:
    node = PLAIN.copy()
    for key, value in changes.items():
        if value is ...:
            del node[key]
        else:
            node[key] = value
    return node


@pytest.mark.parametrize("application", [Application(), Image()], ids=["any", "image"])
@pytest.mark.parametrize("key", KEYS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES)
def test_a_key_of_a_search_is_usable_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, application: Application, value: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    prepared = answer(key, {key: value}, application)
    if prepared is not None:
        assert_usable(*prepared, num_trials=2)


@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_was_taken_away_is_missed(key: str) -> None:
    prepared = answer(key, {key: ...})
    if not key.startswith("_"):  # Hydra's
        assert (prepared is not None) == (key == "max_steps")  # an application may have another name for it


@given(key=st.text(min_size=1, max_size=6).filter(lambda key: key not in KEYS and "${" not in key), value=VALUES)
def test_a_key_that_no_search_has_is_refused(key: str, value: Any) -> None:
    assert answer(key, {key: value}) is None


@pytest.mark.parametrize(("kind", "name", "argument"), ARGUMENTS)
@settings(max_examples=examples(100))
@given(value=VALUES)
def test_an_argument_of_a_sampler_or_pruner_is_usable_or_refused(
    kind: str, name: str, argument: str, value: Any
) -> None:
    option = dict(OPTIONS[kind][name])
    if "n_startup_trials" in option:
        option["n_startup_trials"] = 1
    option[argument] = value
    prepared = answer(kind, {kind: option})
    if prepared is not None:
        assert_usable(*prepared)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, known in OPTIONS.items() for name in known])
@given(argument=st.text(min_size=1, max_size=6), value=VALUES)
def test_an_argument_that_a_sampler_or_pruner_does_not_take_is_refused(
    kind: str, name: str, argument: str, value: Any
) -> None:
    if (kind, name, argument) not in ARGUMENTS:
        assert answer(kind, {kind: {**OPTIONS[kind][name], argument: value}}) is None


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, known in OPTIONS.items() for name in known])
def test_each_sampler_and_pruner_is_usable_as_it_ships(kind: str, name: str) -> None:
    prepared = answer(kind, {kind: OPTIONS[kind][name]})
    if prepared is None:
        pytest.skip(f"a package that {name} needs is not installed")
    assert_usable(*prepared)


@given(keys=st.dictionaries(st.sampled_from(["n_workers", "zzz"]), VALUES))
def test_the_launchers_keys_are_usable_or_refused(keys: dict[str, Any]) -> None:
    try:
        local.check(keys)
    except ValueError as error:
        assert str(error).startswith("hydra.launcher.")  # noqa: PT017
    else:
        assert keys["n_workers"] is None or 1 <= keys["n_workers"] <= local.MOST_WORKERS


@given(keys=st.dictionaries(st.sampled_from(["max_batch_size", "zzz"]), VALUES, min_size=1))
def test_the_keys_of_a_grid_are_usable_or_refused(keys: dict[str, Any]) -> None:
    if set(keys) == {"max_batch_size"} and search_settings.whole(1).or_null().accepts(keys["max_batch_size"]):
        return
    with pytest.raises(ValueError, match=r"^hydra\.sweeper\."):
        grid.sweep([], keys={"params": {}, **keys}, hydra_context=None, task_function=None, config=None)  # type: ignore[arg-type]


# spaces

TERMS = st.one_of(
    st.floats().map(repr), st.integers(-5, 5).map(str), st.integers().map(str), st.sampled_from(["1e308", "-1e308"])
)
ELEMENTS = st.one_of(TERMS, st.sampled_from(["a", "true", "null", "[1]", "{a:1}", "'it is'", "1", "1.0", "nan"]))
SWEEPS = st.one_of(
    st.lists(ELEMENTS, max_size=4).map(lambda elements: f"choice({','.join(elements)})"),
    st.lists(ELEMENTS, min_size=2, max_size=4).map(",".join),
    st.tuples(TERMS, TERMS).map(lambda ends: f"interval({','.join(ends)})"),
    st.lists(TERMS, min_size=1, max_size=3).map(lambda numbers: f"range({','.join(numbers)})"),
    st.just("glob(*)"),
)
WRITTEN = st.one_of(
    SWEEPS,
    st.tuples(
        st.sampled_from(["tag(log,", "tag(int,", "tag(log,int,", "int(", "float(", "shuffle(", "sort("]), SWEEPS
    ).map(lambda parts: f"{parts[0]}{parts[1]})"),
)


@functools.cache
def with_sampler(name: str) -> Settings:
    return search_settings.read(a_search({"sampler": OPTIONS["sampler"][name]}), Application(), BASE)


@pytest.mark.parametrize("sampler", ["random", "tpe", "bruteforce", "grid"])
@given(text=WRITTEN)
@example(text="tag(int, interval(0.0, 9.3e18))")  # more numbers than a length may have
def test_a_space_is_usable_or_refused(sampler: str, text: str) -> None:
    started = time.process_time()
    checked = with_sampler(sampler)
    try:
        space = parse({}, [f"x={text}"])
        search_settings.try_out(checked, space)
    except HydraException:  # what is no sweep at all
        return
    except ValueError as error:
        assert str(error).startswith(("x=", "hydra.sweeper.sampler: x"))  # noqa: PT017
        return
    finally:
        assert time.process_time() - started < SECONDS
    (parameter,) = space.parameters
    study = optuna.create_study()
    study.stop = lambda: None  # type: ignore[method-assign]
    for number in range(3):
        study.sampler = search_settings.make_sampler(checked, space, number)
        value = space.suggest(trial := study.ask())["x"]
        assert parameter.accepts(value)
        assert not (isinstance(value, float) and math.isnan(value))
        assert parse({}, [parameter.overrides({parameter.key: value})[0]]).parameters == ()
        study.tell(trial, 0.5)
    assert time.process_time() - started < SECONDS


@given(value=st.recursive(SCALARS | WRITTEN, lambda inner: st.dictionaries(TEXTS | st.just("x=1"), inner, max_size=3)))
def test_the_space_of_a_key_in_params_is_usable_or_refused(value: Any) -> None:
    try:
        space = parse({"x": "choice(1, 2)", "y": value}, [])
    except ValueError as error:
        assert "y" in str(error)  # noqa: PT017
    else:
        assert {parameter.key for parameter in space.parameters} <= {"x", "y"}


@pytest.mark.slow
@given(text=WRITTEN)
def test_what_a_grid_lists_is_bounded(text: str) -> None:
    started = time.process_time()
    try:
        jobs = grid.list_jobs([f"x={text}", "y=1,2"], {}, None)
        assert len(jobs) <= grid.MOST_JOBS
    except ValueError as error:
        assert str(error).startswith(("x=", "y="))  # noqa: PT017
    except HydraException:  # what is no sweep at all
        pass
    assert time.process_time() - started < SECONDS
