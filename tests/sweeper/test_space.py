"""Hydra's grammar to distributions and back, conditions, and every mistake that is refused by name."""

from __future__ import annotations

import itertools
import re
from typing import Any

import optuna
import pytest
from conftest import REPOSITORY
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution as Choice
from optuna.distributions import FloatDistribution as Float
from optuna.distributions import IntDistribution as Int

from cifarsweep.sweeper import hydra_compat
from cifarsweep.sweeper.space import Space, parse

SPACE: dict[str, Any] = {
    "optimizer.lr": {
        "optimizer=sgd": {"model=layers2": "interval(0.1, 1)", "model=layers3": "interval(0.1, 2)"},
        "optimizer=adam,adamw": "tag(log, interval(1e-4, 1e-2))",
    },
    "model": "choice(layers2, layers3, layers4)",
    "optimizer": "choice(sgd, adam, adamw)",
}


@pytest.mark.parametrize(
    ("override", "distribution"),
    [
        ("a=1,2,3", Choice([1, 2, 3])),
        ("a=choice(0.1,1e-7,-3)", Choice([0.1, 1e-7, -3])),
        ("a=choice(true,false)", Choice([True, False])),
        ("a=null,1", Choice([None, 1])),
        ("a=choice('x,y',\"it's\",'a=b c',plain)", Choice(["x,y", "it's", "a=b c", "plain"])),
        ("a=choice([1,2],{b:1})", Choice(["[1,2]", "{b:1}"])),
        ("a=shuffle(3,1,2)", Choice([3, 1, 2])),
        ("a=sort(3,1,2)", Choice([1, 2, 3])),
        ("a=choice(only)", Choice(["only"])),
        ("a=range(1,4)", Int(1, 3)),
        ("a=range(4)", Int(0, 3)),
        ("a=range(1,10,4)", Int(1, 9, step=4)),
        ("a=range(10,0,-3)", Int(1, 10, step=3)),
        ("a=range(7,8)", Int(7, 7)),
        ("a=shuffle(range(1,4))", Int(1, 3)),
        ("a=tag(log,range(1,100))", Int(1, 99, log=True)),
        ("a=range(0.5,2.5,0.5)", Float(0.5, 2.0, step=0.5)),
        ("a=range(-1,1,0.5)", Float(-1.0, 0.5, step=0.5)),
        ("a=interval(0,1)", Float(0.0, 1.0)),
        ("a=interval(-1e-9,1e-9)", Float(-1e-9, 1e-9)),
        ("a=tag(log,interval(0.001,1))", Float(0.001, 1.0, log=True)),
        ("a=int(interval(1,9))", Int(1, 9)),
        ("a=tag(int,interval(1,9))", Int(1, 9)),
        ("a=tag(log,int(interval(1,100)))", Int(1, 100, log=True)),
    ],
)
def test_each_form_of_the_grammar_has_its_distribution(override: str, distribution: Any) -> None:
    (parameter,) = parse({}, [override]).parameters
    assert parameter.distribution == distribution
    assert parameter.name == parameter.key == "a"


@pytest.mark.parametrize("key", ["a.b", "+a", "++a.b", "db@x.y", "a/b"])
def test_the_key_stays_as_it_was_written(key: str) -> None:
    space = parse({}, [f"{key}=choice(1,2)"])
    assert space.overrides({key: 2}) == [f"{key}=2"]


@pytest.mark.parametrize(
    "override",
    [
        "a=choice('x,y',\"it's\",'a=b c',plain,'','null','true','1','$x','ü{}','back\\\\slash\\'')",
        "a=null,true,1.5,-3,1e-7",
        "a=choice([1,'b c'],{b:'x,y'})",
        "a=range(0.1,0.7,0.1)",
        "a=range(10,0,-3)",
    ],
)
def test_every_value_goes_back_to_an_override_that_hydra_reads_as_the_same_value(override: str) -> None:
    """To the last digit, and of the same type: a run's identity depends on it."""
    (parameter,) = parse({}, [override]).parameters
    assert parameter.options is not None
    for value in parameter.options:
        read = OverridesParser.create().parse_override(parameter.overrides({parameter.key: value})[0]).value()
        labelled = value if not isinstance(read, list | dict) else read
        assert (read, type(read)) == (labelled, type(labelled))


@pytest.mark.parametrize("override", ["a=range(0.1,0.7,0.1)", "a=range(10,0,-3)", "a=3,1,2", "a=x,'y z',null"])
def test_the_values_are_those_of_hydras_own_sweep(override: str) -> None:
    swept = [f"a={text}" for text in OverridesParser.create().parse_override(override).sweep_string_iterator()]
    (parameter,) = parse({}, [override]).parameters
    assert parameter.options is not None
    ours = [
        OverridesParser.create().parse_override(parameter.overrides({parameter.key: value})[0]).value()
        for value in parameter.options
    ]
    hydras = [OverridesParser.create().parse_override(text).value() for text in swept]
    assert sorted(ours, key=str) == sorted(hydras, key=str)


@given(st.floats(min_value=1e-300, max_value=1e99))
def test_a_sampled_float_is_read_back_exactly(value: float) -> None:
    (parameter,) = parse({}, ["a=interval(0,1e100)"]).parameters
    assert OverridesParser.create().parse_override(parameter.overrides({parameter.key: value})[0]).value() == value


def test_a_float_step_from_optuna_becomes_the_number_of_hydras_range() -> None:
    space = parse({}, ["a=range(0.1,0.7,0.1)"])
    hydras = list(OverridesParser.create().parse_override("a=range(0.1,0.7,0.1)").sweep_iterator())
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    assert {space.suggest(study.ask())["a"] for _ in range(60)} == set(hydras)


def test_glob_chooses_among_a_groups_options() -> None:
    with initialize_config_dir(str(REPOSITORY / "conf"), **hydra_compat.VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        (parameter,) = parse({}, ["model=glob(layers*,exclude=layers1)"], loader).parameters
    assert parameter.distribution == Choice(["layers2", "layers3", "layers4", "layers5"])
    assert parameter.overrides({"model": "layers5"})[0] == "model=layers5"


# conditions


def suggested(space: Space, **fixed: Any) -> dict[str, Any]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.enqueue_trial(fixed)
    return space.suggest(study.ask())


@pytest.mark.parametrize(
    ("optimizer", "model", "low", "high"),
    [
        ("sgd", "layers2", 0.1, 1),
        ("sgd", "layers3", 0.1, 2),
        ("adam", "layers2", 1e-4, 1e-2),
        ("adamw", "layers4", 1e-4, 1e-2),
    ],
)
def test_a_value_depends_on_what_was_chosen_before(optimizer: str, model: str, low: float, high: float) -> None:
    values = suggested(parse(SPACE, []), optimizer=optimizer, model=model)
    assert low <= values["optimizer.lr"] <= high


def test_where_no_condition_holds_the_key_is_left_alone() -> None:
    values = suggested(parse(SPACE, []), optimizer="sgd", model="layers4")
    assert values == {"optimizer": "sgd", "model": "layers4"}


def test_each_branch_is_a_parameter_of_its_own_and_comes_after_its_parents() -> None:
    names = [parameter.name for parameter in parse(SPACE, []).parameters]
    assert names == [
        "model",
        "optimizer",
        "optimizer.lr | optimizer=sgd | model=layers2",
        "optimizer.lr | optimizer=sgd | model=layers3",
        "optimizer.lr | optimizer=adam,adamw",
    ]


def test_conditions_may_depend_on_conditional_values() -> None:
    space = parse(
        {
            "c": {"b=2": "choice(5,6)"},
            "b": {"a=x": "choice(1,2)"},
            "a": "choice(x,y)",
        },
        [],
    )
    assert [parameter.key for parameter in space.parameters] == ["a", "b", "c"]
    assert suggested(space, a="y") == {"a": "y"}
    assert set(suggested(space, **{"a": "x", "b | a=x": 2})) == {"a", "b", "c"}


def test_a_narrower_choice_on_the_command_line_drops_the_branches_it_cannot_reach() -> None:
    space = parse(SPACE, ["optimizer=choice(adamw)", "data=shapes"])
    assert space.fixed == ("data=shapes",)
    assert space.keys == ["model", "optimizer", "optimizer.lr"]
    assert len(space.parameters) == 3


@pytest.mark.parametrize(
    ("params", "arguments", "message"),
    [
        ({"a": "choice(1,"}, [], "hydra.sweeper.params.a=choice(1,"),
        ({}, ["a=range(1,1)"], "a=range(1,1): no number in it"),
        ({}, ["a=range(0.5,0.1,0.1)"], "a=range(0.5,0.1,0.1): no number in it"),
        ({}, ["a=range(0,1,1e-9)"], "more than 100,000 values, expected interval"),
        ({}, ["a=tag(log,range(1,9,2))"], "needs a step of 1"),
        ({}, ["a=tag(log,range(0.1,0.9,0.1))"], "expected tag(log, interval(…))"),
        ({}, ["a=interval(1,0.1)"], "expected the first number below the second"),
        ({}, ["a=tag(log,interval(0,1))"], "a logarithmic interval begins above 0"),
        ({}, ["a=tag(fog,interval(0,1))"], "tag fog: expected log or int"),
        ({}, ["a=tag(log,choice(1,2))"], "a choice takes no tag, here log"),
        ({}, ["a=choice(1,true)"], "True stands twice, or equals another choice"),
        ({}, ["a=choice(x,x)"], "x stands twice"),
        ({"a": {"b=1": "choice(1,2)"}}, [], "a: the condition b=1 names b, which is not searched"),
        ({"a": {"b=3": "choice(1,2)"}, "b": "choice(1,2)"}, [], "the condition b=3 never holds, b=choice(1,2)"),
        ({"a": {"b": "choice(1,2)"}, "b": "choice(1,2)"}, [], "a: b: expected a condition such as"),
        (
            {"a": {"b=1": "choice(1,2)", "c=1": "choice(1,2)"}, "b": "choice(1,2)", "c": "choice(1,2)"},
            [],
            "a: c=1 stands beside b=1, expected conditions of one key",
        ),
        ({"a": {"b=1,2": "choice(1,2)", "b=2": "choice(3,4)"}, "b": "choice(1,2)"}, [], "can hold at once"),
        ({"a": {"b=1": "choice(1,2)"}, "b": {"a=1": "choice(1,2)"}}, [], "a, b: the conditions depend on each other"),
        ({"a": "choice(1,2)"}, ["a=1"], "a=1: a is searched, by choice(1,2); 'a=choice(1)' fixes it"),
        (SPACE, ["~optimizer"], "~optimizer: optimizer is searched"),
    ],
)
def test_a_mistake_in_the_space_is_refused_by_name(params: dict[str, Any], arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        parse(params, arguments)
    assert "\n" not in str(raised.value)


def test_what_is_no_sweep_is_fixed_and_null_takes_a_key_out() -> None:
    space = parse({"a": "choice(1,2)", "b": 3, "c": None}, ["d=x"])
    assert space.overrides({"a": 2}) == ["b=3", "d=x", "a=2"]


# trials that are given


def test_given_values_are_placed_in_every_branch_that_may_become_active() -> None:
    space = parse(SPACE, [])
    assert space.place({"optimizer": "sgd", "optimizer.lr": 0.5}) == {
        "optimizer": "sgd",
        "optimizer.lr | optimizer=sgd | model=layers2": 0.5,
        "optimizer.lr | optimizer=sgd | model=layers3": 0.5,
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimizer.lr": 5}, "optimizer.lr=5: expected interval(0.1, 1) or interval(0.1, 2) or tag(log"),
        ({"optimizer": "adam", "optimizer.lr": 0.5}, "optimizer.lr=0.5: expected tag(log, interval(1e-4, 1e-2))"),
        ({"model": "layers9"}, "model=layers9: expected choice(layers2, layers3, layers4)"),
        ({"batch_size": 64}, "batch_size: not searched, expected some of model, optimizer, optimizer.lr"),
    ],
)
def test_a_given_value_outside_the_space_is_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(SPACE, []).place(given)


@pytest.mark.parametrize(
    ("params", "size"),
    [
        ({"a": "choice(1,2,3)", "b": "range(0,4)"}, 12),
        ({"a": "choice(1,2)", "b": {"a=1": "choice(1,2,3)"}}, 4),
        ({"a": "choice(1,2)", "b": "interval(0,1)"}, None),
        ({"a": "range(0,1000)", "b": "range(0,1000)"}, 50),
    ],
)
def test_the_size_counts_different_trials_up_to_a_limit(params: dict[str, Any], size: int | None) -> None:
    assert parse(params, []).size(50) == size


def test_a_grid_needs_a_finite_space_without_conditions() -> None:
    assert parse({}, ["a=range(1,4)", "b=x,y"]).grid() == {"a": [1, 2, 3], "b": ["x", "y"]}
    with pytest.raises(ValueError, match="bruteforce"):
        parse(SPACE, []).grid()
    with pytest.raises(ValueError, match=r"a=interval\(0,1\): GridSampler needs choice"):
        parse({}, ["a=interval(0,1)"]).grid()


# the same study again


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        ("a=choice(1,2)", "a=choice(1,2,3)", "a: was choice(1, 2), is choice(1, 2, 3)"),
        ("a=interval(0,1)", "a=tag(log,interval(0.1,1))", "a: was 0 to 1, is 0.1 to 1 (log)"),
        ("a=interval(0,1)", "a=range(0,2)", "a: was 0 to 1, is 0 to 1"),
        ("a=interval(0,1)", "b=interval(0,1)", "a: was searched, and is not any more"),
    ],
)
def test_an_incompatible_change_of_the_space_is_named(before: str, now: str, message: str) -> None:
    was = {parameter.name: parameter.distribution for parameter in parse({}, [before]).parameters}
    with pytest.raises(ValueError, match=re.escape(message)):
        parse({}, [now]).check_same(was)


def test_a_wider_interval_is_no_other_space() -> None:
    was = {parameter.name: parameter.distribution for parameter in parse({}, ["a=interval(0,1)"]).parameters}
    parse({}, ["a=interval(0,5)"]).check_same(was)


@pytest.mark.parametrize("name", ["default", "depth", "quick"])
def test_every_trial_of_the_spaces_that_ship_can_be_composed(name: str) -> None:
    from hydra import compose
    from omegaconf import OmegaConf

    from cifarsweep.training import schema

    with initialize_config_dir(str(REPOSITORY / "conf"), **hydra_compat.VERSION_BASE):
        hydra = compose("config", [f"search={name}", "data=shapes"], return_hydra_config=True).hydra
        space = parse(OmegaConf.to_container(hydra.sweeper.params), ["data=shapes"])  # type: ignore[arg-type]
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        for values in itertools.islice((space.suggest(study.ask()) for _ in itertools.count()), 12):
            schema.check(OmegaConf.to_container(compose("config", space.overrides(values)), resolve=True))  # type: ignore[arg-type]
