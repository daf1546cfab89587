"""The grammar of conditions: what holds of which values, and what is refused."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifarsweep import report
from cifarsweep.terminal import conditions

VALUES: dict[str, Any] = {"model": "layers3", "lr": 0.1, "batch_size": 128, "nesterov": True, "error": None}
VALUES |= {"optimizer.lr": 1e-3, "name": "a, b & c", "milestones": "[1,2]", "seed": 2**60 + 1}


def holds(text: str, values: dict[str, Any] = VALUES) -> bool:
    return conditions.parse(text, lambda key: None).holds(values.get)


CASES = [
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
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_a_condition_holds_of_the_values_that_it_says(text: str, expected: bool) -> None:
    assert holds(text) == expected


REFUSED = [
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
]


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_what_is_no_condition_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        conditions.parse(text, check_key, numbers={"lr"})


def check_key(key: str) -> None:
    if key == "other":
        raise ValueError("other: no such name")


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


# the page's script

SCRIPT = Path(report.__file__).parent / "templates" / "conditions.js"
ANSWERS = """
const {values, texts} = JSON.parse(require("fs").readFileSync(0, "utf8"));
const known = new Map(Object.entries(values).map(([key, value]) =>
  [key, value !== null && typeof value === "object" ? conditions.number(value.number) : value]));
const check = (key) => { if (key === "other") throw new Error("other: no such name"); };
const answer = (text) => {
  try {
    return String(conditions.parse(text, check, (key) => key === "lr").holds((key) => known.get(key) ?? null));
  } catch (error) {
    return error.message;
  }
};
console.log(JSON.stringify(texts.map(answer)));
"""
WRITTEN = """
const texts = JSON.parse(require("fs").readFileSync(0, "utf8"));
const again = (text) => conditions.written(conditions.parse(text, () => {}, () => false).comparisons);
const exact = (text) => conditions.written([{key: "a", sign: "=", values: [conditions.exactly(text)]}]);
console.log(JSON.stringify([texts[0].map(again), texts[1].map(exact)]));
"""
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js (Debian: apt-get install nodejs)")


@needs_node
def test_what_the_pages_script_writes_means_the_same() -> None:
    """A condition that it has read, and one that only a text equals, whatever is in it."""
    texts = [text for text, _ in CASES]
    names = ["layers3", "a b", "[x]", "w*?", "can't", 'the "best"', 'it\'s "both"', "x,y & z", " ", "ä", "]["]
    command = ["node", "-e", SCRIPT.read_text(encoding="utf-8") + WRITTEN]
    done = subprocess.run(command, input=json.dumps([texts, names]), capture_output=True, encoding="utf-8", check=True)
    again, exact = json.loads(done.stdout)
    assert [holds(text) for text in again] == [expected for _, expected in CASES]
    for name, condition in zip(names, exact, strict=True):
        assert [other for other in names if holds(condition, {"a": other})] == [name], condition


@needs_node
def test_the_pages_script_answers_each_text_alike() -> None:
    rng, parts = random.Random(0), ["a", "lr", "name", "seed", "nesterov", "error", "=", "!=", "<", ">=", ",", "&", "'"]
    parts += [
        '"',
        " ",
        "1",
        "0.5",
        "-1",
        "1e3",
        "1_0",
        ".5",
        "inf",
        "nan",
        "null",
        "true",
        "*",
        "?",
        "[a-z]",
        "[!l]",
        "[",
        "]",
    ]
    texts = [text for text, _ in [*CASES, *REFUSED]]
    texts += ["".join(rng.choices(parts, k=rng.randint(2, 8))) for _ in range(3000)]
    texts += [f"{rng.choice(list(VALUES))}{rng.choice('=<>')}{''.join(rng.choices(parts, k=2))}" for _ in range(3000)]

    def answer(text: str) -> str:
        try:
            return str(conditions.parse(text, check_key, {"lr"}).holds(VALUES.get)).lower()
        except ValueError as error:
            return str(error)

    values = {key: {"number": repr(value)} if conditions.is_number(value) else value for key, value in VALUES.items()}
    command = ["node", "-e", SCRIPT.read_text(encoding="utf-8") + ANSWERS]
    given = json.dumps({"values": values, "texts": texts})
    done = subprocess.run(command, input=given, capture_output=True, text=True, encoding="utf-8", check=True)
    answers = dict(zip(texts, json.loads(done.stdout), strict=True))
    assert answers == {text: answer(text) for text in texts}
