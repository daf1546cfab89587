"""Any words for `python -m cifarsweep.describe`: a network and pictures, or one line that names the word."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from pathlib import Path

import pytest
from conftest import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_configuration import KEYS, VALUES

from cifarsweep import describe
from cifarsweep.terminal import domains

TINY = ["data=shapes", "data.num_train=40", "data.num_test=10", "data.val_size=10"]
COSTS = {"width", "hidden", "num_train", "num_test", "size", "match", "depth"}
"""Keys whose largest values are accepted, and take minutes."""


def quoted(text: str) -> str:
    return "'" + text.replace("'", r"\'") + "'"


@st.composite
def overrides(draw: st.DrawFn) -> tuple[str, list[str]]:
    """A key, and the words that choose its option and give it a value, as a person types them."""
    option, key = draw(st.sampled_from(KEYS))
    words = [] if option.startswith("data=") else [option]
    value = draw(VALUES)
    if value is ...:
        return key, [*words, f"~{key}"]
    if key.rpartition(".")[2] in COSTS and not (isinstance(value, int) and value <= 64):
        value = draw(st.integers(-1, 64))
    text = draw(st.sampled_from([domains.as_typed, lambda value: quoted(str(value)), str]))(value)
    return key, [*words, f"{draw(st.sampled_from(['', '', '+', '++']))}{key}={text}"]


HYDRAS = re.compile(
    r"Could not (append to|delete from) config\. |force-add of config groups is not supported: |"
    r"Error (parsing|merging) override |Ambiguous value for argument "
)
"""Lines of Hydra's own, which name the word and say what is wrong with it."""


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take a second, and are drawn from what was accepted by then."""
    monkeypatch.setattr(describe, "_draw", lambda session, folder: None)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")


def answer(words: list[str]) -> tuple[int, str, list[str]]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, of keys that it is about to drop
        code = describe.main(words)
    return code, out.getvalue(), err.getvalue().splitlines()


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(overrides())
def test_a_key_of_any_value_is_described_or_refused_by_its_name(
    data_cache: Path, no_pictures: None, key_and_words: tuple[str, list[str]]
) -> None:
    key, words = key_and_words
    code, out, err = answer([*TINY, f"data.cache={data_cache}", *words])
    if code == 0:
        assert (out.splitlines()[-1].split()[0], err) == ("total", [])
        return
    assert code == 1
    (line,) = err
    group = key.partition(".")[0]
    assert group in line
    said_by_its_class = line.startswith(f"{group}: ")
    says_why = re.search("expected|no such key|accepts|missing|nothing is opened", line)
    assert said_by_its_class or says_why or HYDRAS.match(line), line


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=examples(50))
@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12), max_size=3))
def test_any_words_are_described_or_answered_in_one_line(data_cache: Path, no_pictures: None, words: list[str]) -> None:
    try:
        code, _, err = answer([*TINY, f"data.cache={data_cache}", *words])
    except SystemExit as end:  # of argparse, as for --help
        code, err = int(end.code or 0), ["--help shows what is accepted"]
    assert (code, len(err)) in ((0, 0), (1, 1)), err


@pytest.mark.parametrize("output", ["a_file", "a_file/below", "x" * 300, "/dev/full"])
def test_a_folder_that_cannot_be_written_to_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    for words, key in ((["--output", output], "--output"), ([f"outputs={output}"], "outputs")):
        code, out, err = answer([*TINY, *words])
        assert (code, out, len(err)) == (1, "", 1)
        assert err[0].startswith(f"{key}={output}: ")
        assert err[0].endswith(", expected a folder that can be written to")


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "[1.0,nan]", "{a: inf}"])
def test_a_number_that_no_result_can_be_named_after_is_refused(data_cache: Path, no_pictures: None, value: str) -> None:
    code, _, err = answer([*TINY, f"data.cache={data_cache}", "loss=cross_entropy", f"+loss.size_average={value}"])
    assert code == 1
    assert err[0].startswith("loss.size_average")
    assert "expected finite numbers" in err[0]


def test_a_group_that_is_there_already_is_not_added(data_cache: Path, no_pictures: None) -> None:
    code, _, err = answer([*TINY, f"data.cache={data_cache}", "+model=layers3"])
    assert (code, err) == (1, ["+model: the group model is there already, expected model=… without +"])


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("model=[null]", "model: expected the name of an option"),
        ("model=[1, layers3]", "model: expected the name of an option"),
        ("hydra/sweeper=[1.5]", "hydra/sweeper: expected the name of an option"),
        ("loss=[{a: 1}]", "loss: expected the name of an option"),
        ("loss=[[cross_entropy]]", "loss: expected the name of an option"),
        ("loss=???", "loss=???: expected one of cross_entropy, label_smoothing, square_error"),
    ],
)
def test_an_option_is_a_name(data_cache: Path, no_pictures: None, word: str, line: str) -> None:
    code, _, err = answer([*TINY, f"data.cache={data_cache}", word])
    assert (code, err) == (1, [line])
