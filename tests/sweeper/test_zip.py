"""name=zip(…): what grids and searches make of it, against plain Python, and what is refused."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import in_memory
import pytest
from conftest import REPOSITORY, examples, run_python
from foreign import SEARCH, read_overrides, read_trials
from foreign import run as run_in
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from cifarsweep.results.sweeps import SweepRecord
from cifarsweep.sweeper import grid
from cifarsweep.sweeper.space import parse
from cifarsweep.training import command

ML = "zip(model=choice(layers2,layers3,layers4), optimizer.lr=choice(0.1,0.05,0.02))"
KEYS = ["a", "b.c", "group/d", "+e", "f@g"]
ELEMENTS = st.one_of(
    st.integers(-9, 9), st.sampled_from([0.5, 1e-3, True, False]), st.text(alphabet="ab ,()'\"\\=:[]$", max_size=5)
)


def quoted(value: Any) -> str:
    """As Hydra reads it inside choice(…)."""
    if not isinstance(value, str):
        return str(value).lower() if isinstance(value, bool) else str(value)
    escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + "\\'", value)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{chr(92) * trailing}'"


@st.composite
def zips(draw: st.DrawFn) -> dict[str, list[Any]]:
    """The values of each key, as many of each."""
    keys = draw(st.lists(st.sampled_from(KEYS), min_size=2, max_size=4, unique=True))
    length = draw(st.integers(1, 4))
    return {key: draw(st.lists(ELEMENTS, min_size=length, max_size=length)) for key in keys}


def text_of(members: dict[str, list[Any]], how: str = "choice") -> str:
    brackets = {"choice": "choice({})", "list": "[{}]"}[how]
    return f"zip({', '.join(f'{key}={brackets.format(chr(44).join(map(quoted, v)))}' for key, v in members.items())})"


def value_of(text: str) -> tuple[str, Any]:
    override = OverridesParser.create().parse_override(text)
    return override.get_key_element(), override.value()


@with_settings(max_examples=examples(25))
@given(zips(), st.sampled_from(["choice", "list"]), st.integers(1, 3))
def test_a_grid_has_the_jobs_of_a_plain_enumeration(members: dict[str, list[Any]], how: str, num_seeds: int) -> None:
    params = {"pairs": text_of(members, how), "seed": ",".join(map(str, range(num_seeds)))}
    found = [dict(map(value_of, texts)) for texts in grid.list_jobs([], params, None)]
    rows = [dict(zip(members, row, strict=True)) for row in zip(*members.values(), strict=True)]
    expected = [{**row, "seed": seed} for row, seed in itertools.product(rows, range(num_seeds))]
    assert list(map(repr, found)) == list(map(repr, expected))


@with_settings(max_examples=examples(25))
@given(zips())
def test_a_search_has_the_rows_as_its_choices(members: dict[str, list[Any]]) -> None:
    rows = [dict(zip(members, row, strict=True)) for row in zip(*members.values(), strict=True)]
    if len({repr(row) for row in rows}) < len(rows):
        with pytest.raises(ValueError, match="stands twice"):
            parse({"pairs": text_of(members)}, [])
        return
    space = parse({"pairs": text_of(members)}, [])
    assert space.keys == list(members)
    assert list(map(repr, space.combinations or ())) == list(map(repr, rows))
    assert [dict(map(value_of, space.overrides(row))) for row in rows] == rows


WORDS = st.lists(
    st.tuples(st.sampled_from(KEYS[:4]), st.lists(st.integers(0, 9), min_size=1, max_size=3)), unique_by=lambda w: w[0]
)


@with_settings(max_examples=examples(15))
@given(WORDS)
def test_without_a_zip_the_jobs_are_those_of_hydra(given_words: list[tuple[str, list[int]]]) -> None:
    words = [f"{key}={','.join(map(str, values))}" for key, values in given_words]
    hydras = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(words), max_batch_size=None)
    assert grid.list_jobs(words, {}, None) == [list(job) for job in hydras[0]]


def test_several_zips_and_other_keys_are_crossed() -> None:
    params = {"ab": "zip(a=[1,2], b=[x,y])", "cd": "zip(c=range(3), d=choice(p,q,r))", "e": "1,2"}
    assert len(grid.list_jobs([], params, None)) == len({*map(tuple, grid.list_jobs([], params, None))}) == 12
    assert parse(params | {"e": "choice(1,2)"}, []).size(100) == 12


def test_zips_whose_rows_make_too_many_jobs_are_refused_before_they_are_listed() -> None:
    params = {name: f"zip({name}1=range(5000), {name}2=range(5000))" for name in ("a", "b")}
    with pytest.raises(ValueError, match=r"^b=zip\(b1=range\(5000\), b2=range\(5000\)\): expected up to \d+ jobs; "):
        grid.list_jobs([], params, None)


def test_a_shuffled_zip_keeps_its_pairs() -> None:
    params = {"ab": f"shuffle(zip(a=range(20), b={list(range(20))}))"}
    orders = []
    for _ in range(3):
        jobs = [dict(map(value_of, texts)) for texts in grid.list_jobs([], params, None)]
        assert all(job["a"] == job["b"] for job in jobs)
        orders.append([job["a"] for job in jobs])
        assert sorted(orders[-1]) == list(range(20))
    assert orders[0] != orders[1] or orders[0] != orders[2]


def test_a_list_as_a_value_stands_in_a_choice() -> None:
    assert grid.list_jobs([], {"p": "zip(a=choice([1,2],[3,4]), b=[x,y])"}, None) == [
        ["a=[1,2]", "b=x"],
        ["a=[3,4]", "b=y"],
    ]


def test_a_list_may_hold_what_hydras_choice_does_not() -> None:
    assert grid.list_jobs([], {"p": "zip(a=[null,1], b=[x,y])"}, None) == [["a=null", "b=x"], ["a=1", "b=y"]]


REFUSED = [
    ("zip(a=choice(1,2), b=choice(1,2,3))", "a has 2 values and b 3, expected as many"),
    ("zip(a=choice(1,2))", "expected two keys or more"),
    ("zip()", "expected key=choice(…)"),
    ("zip(a=choice(1,2), a=choice(3,4))", "a stands twice"),
    ("zip(a=choice(1,2), +a=choice(3,4))", "a stands twice"),
    ("zip(a=choice(1,2), b=interval(0,1))", "b=interval(0,1): expected values that can be listed"),
    ("zip(a=choice(1,2), b=shuffle(choice(1,2)))", "shuffled by itself it would pair at random"),
    ("zip(a=choice(1,2), b=shuffle(1,2))", "shuffled by itself it would pair at random"),
    ("zip(a=choice(1,2), b=3)", "b=3: expected values that can be listed"),
    ("zip(a=1,2, b=choice(1,2))", "a=1: expected values that can be listed"),
    ("zip(choice(1,2), b=choice(1,2))", "expected key=choice(…)"),
    ("zip(a=[], b=[])", "a=[]: expected 1 to 10000 values"),
    ("zip(a=range(0,100000), b=range(0,100000))", "expected 1 to 10000 values"),
    ("zip(a=choice(1,2), b=zip(c=[1,2], d=[1,2]))", "expected no zip inside a zip"),
    ("zip(a=choice(1,2), hydra.job.num=choice(1,2))", "expected a key of the application"),
    ("zip(a=choice(1,2), ~b=choice(1,2))", "expected a key that is given values"),
    ("zip(a=choice(1,2), b=choice(1,2)", "a closing ) is missing"),
    ("zip(a=choice(1,2), b=choice(1,'2))", "a closing ' is missing"),
    ("zip(a=choice(1,2), b=choice(1,2)) x", "expected zip(…) or shuffle(zip(…)), and nothing beside it"),
    ("zip(a=choice(1,2), b=choice(1,2)),3", "and nothing beside it"),
    ("zip(a=choice(1,2), b=choice(1,))", "b=choice(1,)"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
@pytest.mark.parametrize("is_search", [False, True])
def test_what_cannot_be_zipped_is_refused_in_one_line(is_search: bool, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as raised:
        parse({"p": text}, []) if is_search else grid.list_jobs([], {"p": text}, None)
    assert str(raised.value).startswith(f"p={text}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("params", "words", "message"),
    [
        ({"a.b": "zip(c=[1,2], d=[1,2])"}, [], "a.b=zip(…): expected a name"),
        ({"taken": "zip(c=[1,2], d=[1,2])"}, [], "taken=zip(…): taken is a key or a group"),
        ({"p": "zip(c=[1,2], d=[1,2])"}, ["c=3"], "c: stands in p=zip("),
        ({"p": "zip(c=[1,2], d=[1,2])"}, ["+c=3,4"], "c: stands in p=zip("),
        ({"p": "zip(c=[1,2], d=[1,2])", "c": "1,2"}, [], "c: stands in p=zip("),
        ({"p": "zip(c=[1,2], d=[1,2])", "q": "zip(d=[1,2], e=[1,2])"}, [], "d: stands in p=zip("),
    ],
)
@pytest.mark.parametrize("is_search", [False, True])
def test_a_key_and_a_name_stand_once(is_search: bool, params: dict[str, Any], words: list[str], message: str) -> None:
    taken = {"taken"}.__contains__
    with pytest.raises(ValueError, match=re.escape(message)):
        parse(params, words, None, taken) if is_search else grid.list_jobs(words, params, None, taken)


# searches


def test_a_trial_has_the_values_of_a_row_and_conditions_on_its_keys_hold(tmp_path: Path) -> None:
    searched = {
        "ml": ML,
        "width": {"model=layers2": "choice(8,16)", "model=layers3,layers4": "choice(32)"},
    }
    plan = in_memory.plan(tmp_path, searched, n_trials=12, sampler=in_memory.option("sampler", "bruteforce"))
    study = in_memory.opened(plan)
    assert plan.space.size(100) == 4
    study.queue.top_up(4)
    seen = []
    while (trial := study.claim("me")) is not None:
        values = study.values(trial)
        seen.append((values["model"], values["optimizer.lr"], values["width"]))
        assert study.overrides(trial)[0] == f"model={values['model']}"
        study.queue.finish(trial, "me", in_memory.complete(1.0))
    assert sorted(seen) == [("layers2", 0.1, 8), ("layers2", 0.1, 16), ("layers3", 0.05, 32), ("layers4", 0.02, 32)]


@pytest.mark.parametrize("sampler", ["tpe", "curve_gp"])
def test_samplers_learn_which_row_is_best(tmp_path: Path, sampler: str) -> None:
    searched = {"ml": ML, "x": "interval(0,1)"}
    plan = in_memory.plan(tmp_path, searched, n_trials=25, sampler=in_memory.option("sampler", sampler, seed=1))
    plan = replace(plan, space=plan.space.excluding(["model=layers4 & x>0.5"]))
    study, rows = in_memory.opened(plan), []
    while (trial := study.claim("me")) is not None:
        values = study.values(trial)
        assert not plan.space.excludes(values)
        rows.append(values["model"])
        study.queue.finish(trial, "me", in_memory.complete(values["x"] + (values["model"] == "layers3")))
    assert len(rows) == 25
    assert rows[10:].count("layers3") >= 8  # by chance, 5 of 15


def test_the_trial_of_a_worker_that_died_keeps_its_row(tmp_path: Path) -> None:
    study = in_memory.opened(in_memory.plan(tmp_path, {"ml": ML, "seed": "choice(1,2)"}, n_trials=3))
    first = study.claim("one")
    assert first is not None
    assert study.queue.recover(counted=True) == 0
    again = study.claim("another")
    assert again is not None
    assert (again.number, study.overrides(again)) == (first.number, study.overrides(first))
    assert study.overrides(again) in [[*job[:2], job[2]] for job in grid.list_jobs([], {"ml": ML, "seed": "1,2"}, None)]


def test_a_killed_search_goes_on_with_the_rows_that_are_left(tmp_path: Path) -> None:
    params = "+hydra.sweeper.params.pairs='zip(x=choice(2,3,4), steps=choice(1,2,3))'"
    words = ["-m", *SEARCH, "hydra.sweeper.n_workers=1", "hydra/sweeper/sampler=grid", params]
    killed = run_in(tmp_path, "seeded", *words, SEEDED_KILL="all 3 None 2")
    assert killed.returncode == -9
    done = run_in(tmp_path, "seeded", *words)

    assert done.returncode == 0, done.stderr
    trials = read_trials(tmp_path)
    assert sorted((t["state"], t["params"]["x"], t["params"]["steps"]) for t in trials) == [
        ("complete", 2, 1),
        ("complete", 3, 2),
        ("complete", 4, 3),
    ]
    counts = Counter(line.split()[0] for line in (tmp_path / "steps.txt").read_text().splitlines())
    assert counts == {"2": 1, "3": 2 + 2, "4": 3}


def test_a_given_trial_names_one_row() -> None:
    space = parse({"ml": ML}, [])
    label = "model=layers3 optimizer.lr=0.05"
    assert space.place({"model": "layers3"}) == space.place({"optimizer.lr": 0.05}) == {"ml": label}
    with pytest.raises(ValueError, match="expected values of one row of ml=zip"):
        space.place({"model": "layers3", "optimizer.lr": 0.1})
    with pytest.raises(ValueError, match="model: stands in ml=zip"):
        next(space.divided(["model"]))


def test_exclusions_know_the_keys_of_a_zip() -> None:
    space = parse({"ml": ML, "seed": "choice(1,2)"}, []).excluding(["model=layers4 & seed=2", "optimizer.lr=0.1"])
    assert space.size(100) == 3


# commands


def test_the_entry_translates_a_zip_before_hydras_parser_refuses_it() -> None:
    translated = command._zip_for_hydra(f"ml={ML}", is_sweep=True)
    assert value_of(translated) == ("++hydra.sweeper.params.ml", ML)
    assert command._zip_for_hydra("model=layers2,layers3", is_sweep=True) == "model=layers2,layers3"
    with pytest.raises(ValueError, match="is for a sweep, expected -m before it"):
        command._zip_for_hydra(f"ml={ML}", is_sweep=False)


def test_a_grid_of_any_application_takes_a_zip_from_its_parameters(tmp_path: Path) -> None:
    words = ["hydra/sweeper=grid", "hydra.sweep.dir=sweep", "+z=1,2"]
    params = "+hydra.sweeper.params.xy='zip(x=choice(1,2), +y=choice(a,b))'"
    done = run_in(tmp_path, "plain", "-m", *words, params)
    assert done.returncode == 0, done.stderr
    jobs = [read_overrides(tmp_path / "sweep" / str(number)) for number in range(4)]
    assert jobs == [["x=1", "+y=a", "+z=1"], ["x=1", "+y=a", "+z=2"], ["x=2", "+y=b", "+z=1"], ["x=2", "+y=b", "+z=2"]]


def test_a_search_of_any_application_records_the_keys_of_a_zip(tmp_path: Path) -> None:
    params = "+hydra.sweeper.params.pairs='zip(x=choice(1,3), +y=choice(a,b))'"
    done = run_in(tmp_path, "plain", "-m", *SEARCH, "hydra/sweeper/sampler=grid", params)
    assert done.returncode == 0, done.stderr
    trials = [trial["params"] for trial in read_trials(tmp_path)]
    assert sorted(trials, key=lambda values: values["x"]) == [{"x": 1, "+y": "a"}, {"x": 3, "+y": "b"}]


@pytest.mark.parametrize("how", ["command line", "YAML"])
def test_the_entry_takes_a_zip_from_the_command_line_as_from_yaml(tmp_path: Path, how: str) -> None:
    words = [f"ml={ML}"] if how == "command line" else [f"--config-dir={tmp_path}", "+pairs=ml"]
    (tmp_path / "pairs").mkdir()
    params = f"# @package _global_\nhydra:\n  sweeper:\n    params:\n      ml: {ML}\n"
    (tmp_path / "pairs" / "ml.yaml").write_text(params)
    toy, log = str(REPOSITORY / "tests" / "toy.py"), tmp_path / "log"
    done = run_python(
        toy,
        "-m",
        *words,
        "seed=1,2",
        "data=shapes",
        "name=x",
        "hydra/launcher=basic",
        cwd=tmp_path,
        TOY_LOG=str(log),
        TOY_REGISTER="1",
    )
    assert done.returncode == 0, done.stderr
    jobs = SweepRecord.read(tmp_path / "outputs" / "sweeps" / "x").jobs.values()
    rows = [("layers2", "0.1"), ("layers3", "0.05"), ("layers4", "0.02")]
    expected = [[f"model={model}", f"optimizer.lr={lr}", f"seed={seed}"] for model, lr in rows for seed in (1, 2)]
    assert sorted([word for word in job.overrides if not word.startswith("+")][:3] for job in jobs) == sorted(expected)
