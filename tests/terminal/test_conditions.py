"""The grammar of conditions: what holds of which values, and what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifarsweep.terminal import conditions

VALUES: dict[str, Any] = {"model": "layers3", "lr": 0.1, "batch_size": 128, "nesterov": True, "error": None}
VALUES |= {"optimizer.lr": 1e-3, "name": "a, b & c", "milestones": "[1,2]", "seed": 2**60 + 1}


def holds(text: str, values: dict[str, Any] = VALUES) -> bool:
    return conditions.parse(text, lambda key: None).holds(values.get)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model=layers3", True),
        ("model==layers3", True),
        (" model = layers3 ", True),
        ("model=layers2,layers3", True),
        ("model=layers*", True),
        ("model=layers[12]", False),
        ("model!=layers[12]", True),
        ("model>layers2", True),
        ("model='layers3'", True),
        ('model="layers3"', True),
        ("lr=0.1", True),
        ("lr=1e-1", True),
        ("lr=0.10", True),
        ("lr>0.05", True),
        ("lr>0.1", False),
        ("lr>=0.1", True),
        ("lr<fast", False),
        ("lr=fast", False),
        ("lr!=fast", True),
        ("batch_size=128", True),
        ("batch_size=128.0", True),
        ("batch_size<=64", False),
        (f"seed={2**60 + 1}", True),
        (f"seed={2**60}", False),
        ("nesterov=true", True),
        ("nesterov=1", False),
        ("nesterov<2", False),
        ("error=", True),
        ("error=null", True),
        ("error=x", False),
        ("error!=", False),
        ("error<1", False),
        ("error!=x", True),
        ("nowhere=", True),
        ("model=", False),
        ("model=,layers3", True),
        ("model!=", True),
        ("name='a, b & c'", True),
        ('name="a, b & c"', True),
        ("name=a*", True),
        ("milestones='[1,2]'", False),  # a pattern: one of 1 , 2
        ("milestones='[[]1,2]'", True),
        ("model=layers3 & lr>0.05", True),
        ("model=layers3&lr>0.05", True),
        ("model=layers3 & lr>0.5", False),
        ("model=layers2,layers3 & lr=0.1,0.3 & optimizer.lr<1", True),
    ],
)
def test_a_condition_holds_of_the_values_that_it_says(text: str, expected: bool) -> None:
    assert holds(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a name, one of = != < <= > >=, and a value"),
        ("model", "model: expected a name, one of"),
        ("=1", "=1: expected a name"),
        ("a b=1", "a b=1: expected a name"),
        ("lr>0.1 &", "lr>0.1 &: expected a name"),
        ("lr>0.1 & & lr<1", "expected a name"),
        ("lr>0.1 and lr<1", "lr>0.1 and lr<1: expected a number"),
        ("lr>0.1,0.2", "lr>0.1,0.2: expected one value; = takes several"),
        ("lr>", "lr>: expected a number"),
        ("lr=0.1,fast", "lr=0.1,fast: expected a number"),
        ("__import__('os').system('x')", "expected a name"),
        ("other=1", "other: no such name"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, message: str) -> None:
    def check(key: str) -> None:
        if key == "other":
            raise ValueError("other: no such name")

    with pytest.raises(ValueError, match=re.escape(message)):
        conditions.parse(text, check, numbers={"lr"})


@given(st.text(alphabet="ab1.=!<>&,'\" \n", max_size=30))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        answer = str(holds(text, {"a": 1}))
    except ValueError as error:
        answer = str(error)
    assert answer in ("True", "False") or ": expected " in answer


KEYS = st.sampled_from(["a", "b.c", "d/e"])
NUMBERS = st.one_of(st.integers(-5, 5), st.sampled_from([0.5, 1.0, 1e-3]))
SIGNS = {"=": "==", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


@given(
    st.lists(st.tuples(KEYS, st.sampled_from(list(SIGNS)), NUMBERS), min_size=1, max_size=4),
    st.fixed_dictionaries(dict.fromkeys(("a", "b.c", "d/e"), NUMBERS)),
)
def test_comparisons_of_numbers_are_those_of_python(terms: list[tuple[str, str, Any]], values: dict[str, Any]) -> None:
    text = " & ".join(f"{key}{sign}{number}" for key, sign, number in terms)
    assert holds(text, values) == all(eval(f"{values[key]} {SIGNS[sign]} {number}") for key, sign, number in terms)
