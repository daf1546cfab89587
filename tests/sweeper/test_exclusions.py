"""hydra.sweeper.exclude: what a grid and a search leave out, against an enumeration in plain Python."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import in_memory
import pytest
from conftest import examples
from foreign import SEARCH, read_overrides, read_trials
from foreign import run as run_in
from hypothesis import given
from hypothesis import settings as with_settings
from hypothesis import strategies as st

from cifarsweep.sweeper import exclusions, grid, search
from cifarsweep.sweeper.space import parse

VALUES = {"a": [1, 2, 3, 4], "b.c": [0.5, 1.0, 2.0], "d": ["x", "y", "xy"], "e": [True, False]}
TERMS = st.one_of(
    st.tuples(st.just("a"), st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), st.integers(0, 5)),
    st.tuples(st.just("b.c"), st.sampled_from(["=", "!=", "<", ">="]), st.sampled_from([0.5, 1.0, 3])),
    st.tuples(st.just("d"), st.sampled_from(["=", "!="]), st.sampled_from(["x", "y", "z"])),
    st.tuples(st.just("e"), st.sampled_from(["=", "!="]), st.sampled_from([True, False])),
)
EXCLUDED = st.lists(st.lists(TERMS, min_size=1, max_size=3), min_size=1, max_size=3)
COMPARE: dict[str, Any] = {
    "=": lambda x, y: x == y,
    "!=": lambda x, y: x != y,
    "<": lambda x, y: x < y,
    "<=": lambda x, y: x <= y,
    ">": lambda x, y: x > y,
    ">=": lambda x, y: x >= y,
}
Terms = list[list[tuple[str, str, Any]]]


def text_of(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def texts_of(excluded: Terms) -> list[str]:
    return [" & ".join(f"{key}{sign}{text_of(value)}" for key, sign, value in terms) for terms in excluded]


def left(excluded: Terms) -> list[dict[str, Any]]:
    """By plain Python."""
    every = [dict(zip(VALUES, chosen, strict=True)) for chosen in itertools.product(*VALUES.values())]
    return [
        job
        for job in every
        if not any(all(COMPARE[sign](job[key], value) for key, sign, value in terms) for terms in excluded)
    ]


WORDS = [f"{key}={','.join(map(text_of, values))}" for key, values in VALUES.items()]


@with_settings(max_examples=examples(20))
@given(EXCLUDED)
def test_a_grid_has_the_jobs_of_a_plain_enumeration(excluded: Terms) -> None:
    combinations = grid.list_jobs(WORDS, {}, None)
    jobs = [[f"{key}={value}" for key, value in job.items()] for job in left(excluded)]
    if jobs:
        assert grid.not_excluded(combinations, texts_of(excluded)) == jobs


@with_settings(max_examples=examples(20))
@given(EXCLUDED)
def test_a_space_has_the_trials_of_a_plain_enumeration(excluded: Terms) -> None:
    space = parse({}, WORDS).excluding(texts_of(excluded))
    assert space.combinations is not None
    assert [values for values in space.combinations if not space.excludes(values)] == left(excluded)
    assert space.size(10**6) == len(left(excluded))


@with_settings(max_examples=examples(20))
@given(EXCLUDED)
def test_the_studies_of_each_value_leave_out_the_same(excluded: Terms) -> None:
    studies = parse({}, WORDS).excluding(texts_of(excluded)).divided(["a", "d"])
    jobs = [
        {**per, **values} for per, space in studies for values in space.combinations or () if not space.excludes(values)
    ]
    assert sorted(map(repr, jobs)) == sorted(
        repr({key: job[key] for key in ("a", "d", "b.c", "e")}) for job in left(excluded)
    )


@pytest.mark.parametrize("sampler", ["grid", "bruteforce", "random", "tpe"])
@with_settings(max_examples=examples(3))
@given(excluded=EXCLUDED)
def test_a_search_has_exactly_its_trials_and_none_that_is_excluded(
    tmp_path_factory: pytest.TempPathFactory, sampler: str, excluded: Terms
) -> None:
    if not (expected := left(excluded)):
        return
    keys = in_memory.option("sampler", sampler)
    plan = in_memory.plan(
        tmp_path_factory.mktemp("study"),
        {key: f"choice({word.partition('=')[2]})" for key, word in zip(VALUES, WORDS, strict=True)},
        sampler=keys,
        n_trials=12,
        exclude=texts_of(excluded),
    )
    study = in_memory.opened(replace(plan, space=plan.space.excluding(plan.settings.exclude)))
    num_trials = min(12, len(expected)) if sampler in ("grid", "bruteforce") else 12
    study.queue.top_up(num_trials)
    seen = []
    while (trial := study.claim("me")) is not None:
        seen.append(study.values(trial))
        study.queue.finish(trial, "me", in_memory.complete(float(seen[-1]["a"])))
    assert len(seen) == num_trials
    assert all(values in expected for values in seen)
    assert len(study.trials) == num_trials
    if sampler in ("grid", "bruteforce"):
        assert len({repr(values) for values in seen}) == num_trials


def test_what_a_user_gave_of_an_excluded_proposal_is_tried_with_other_values(tmp_path: Path) -> None:
    searched = {"a": "choice(1,2)", "b": "range(0,40)"}
    plan = in_memory.plan(tmp_path, searched, n_trials=1)
    study = in_memory.opened(replace(plan, space=plan.space.excluding(["a=2 & b>2"])))
    study.study.enqueue_trial(plan.space.place({"a": 2}), user_attrs={"enqueued": True})
    trial = study.claim("me")
    assert trial is not None
    assert study.values(trial)["a"] == 2
    assert study.values(trial)["b"] <= 2
    assert study.num_excluded > 0


MISTAKES = [
    ("c=1", "hydra.sweeper.exclude: c: no override of a job, expected some of"),
    ("a", "hydra.sweeper.exclude: a: expected a name, one of"),
    ("a>x", "hydra.sweeper.exclude: a>x: expected a number"),
    ("a<1,2", "hydra.sweeper.exclude: a<1,2: expected one value"),
    ("a>0", "hydra.sweeper.exclude: leaves out all 4 "),
    ("f=7", "hydra.sweeper.exclude: leaves out all 4 "),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
@pytest.mark.parametrize("is_search", [False, True])
def test_a_mistake_names_itself(is_search: bool, text: str, message: str) -> None:
    words = ["+a=1,2", "b=x,y", "+f=7"]
    space, combinations = parse({}, words), grid.list_jobs(words, {}, None)
    leave_out = partial(search.not_excluded, space) if is_search else partial(grid.not_excluded, combinations)
    with pytest.raises(ValueError, match=re.escape(message)):
        leave_out([text])


def test_a_space_without_an_end_can_be_left_out_as_a_whole() -> None:
    with pytest.raises(ValueError, match="leaves out every trial"):
        search.not_excluded(parse({}, ["a=interval(0,1)", "b=3"]), "b>2")


@pytest.mark.parametrize("given", [{"x": 1}, [1], None, 3, [["a=1"]]])
def test_only_conditions_are_accepted(given: Any) -> None:
    assert not exclusions.ACCEPTED.accepts(given)


def test_a_grid_of_any_application_says_what_it_leaves_out(tmp_path: Path) -> None:
    run = partial(run_in, tmp_path, "plain", "-m", "hydra/sweeper=grid", "hydra.sweep.dir=sweep")
    done = run("x=1,2,3", "+y=1,2", "hydra.sweeper.exclude=['x=1 & y=2', 'x>2']")
    assert done.returncode == 0, done.stderr
    assert "hydra.sweeper.exclude leaves out 3 of 6 jobs" in done.stdout
    mistake = run("x=1,2", "hydra.sweeper.exclude='y=1'", "hydra.sweep.dir=other")
    assert mistake.returncode == 1
    assert mistake.stderr.splitlines()[0] == "hydra.sweeper.exclude: y: no override of a job, expected some of x"
    assert not (tmp_path / "other").exists()
    jobs = [read_overrides(tmp_path / "sweep" / str(number)) for number in range(3)]
    assert jobs == [["x=1", "+y=1"], ["x=2", "+y=1"], ["x=2", "+y=2"]]


def test_a_search_of_any_application_draws_again(tmp_path: Path) -> None:
    done = run_in(
        tmp_path, "plain", "-m", *SEARCH, "x=interval(0, 4)", "hydra.sweeper.n_trials=6", "hydra.sweeper.exclude='x<3'"
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"hydra.sweeper.exclude left out \d+ proposals?", done.stdout)
    trials = read_trials(tmp_path)
    assert [trial["state"] for trial in trials] == ["complete"] * 6
    assert all(trial["params"]["x"] >= 3 for trial in trials)
