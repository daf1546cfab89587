"""What the machine says of itself may be unknown or garbage; it describes this checkout, and no work fails by it."""

from __future__ import annotations

import ast
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cifarsweep.results import provenance
from cifarsweep.results.locks import is_held
from cifarsweep.sweeper.heartbeat import Heartbeat
from cifarsweep.terminal import command_line
from cifarsweep.training import process

HERE = Path(provenance.__file__).resolve().parents[2]
SOURCES = {
    (node.func.value.id, node.func.attr)
    for node in ast.walk(ast.parse(Path(provenance.__file__).read_text("utf-8")))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
} & {
    (module, name)
    for module in ("platform", "os", "subprocess", "metadata", "datetime")
    for name in dir(getattr(provenance, module))
}
SOURCES |= {("platform", "processor"), ("platform", "platform"), ("platform", "python_version"), ("os", "cpu_count")}
SOURCES |= {("Path", "read_bytes")}
TYPES = {"platform": str, "cpu": str, "cores": int | None, "git_commit": str | None, "git_dirty": bool | None}
errors = st.sampled_from(
    [
        OSError(5, "Input/output error"),
        FileNotFoundError(2, "No such file"),
        subprocess.TimeoutExpired("git", 1),
        subprocess.CalledProcessError(128, "git"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        metadata.PackageNotFoundError("torch"),
        KeyError("Version"),
        AttributeError("uname"),
        OverflowError("date value out of range"),
        RecursionError(),
    ]
)
garbage = st.none() | st.binary() | st.text() | st.integers() | st.floats() | st.just([]) | st.just(object())
COMMIT = b"0" * 40 + b"\n"
git_output = st.builds(lambda out: subprocess.CompletedProcess([], 0, out), st.binary() | st.just(COMMIT))


class Clock:
    """In place of the class datetime, whose methods cannot be replaced."""


def test_the_sources_are_those_of_the_code() -> None:
    assert {("subprocess", "run"), ("metadata", "version"), ("datetime", "now"), ("os", "cpu_count")} <= SOURCES


@given(st.dictionaries(st.sampled_from(sorted(SOURCES)), errors | garbage | git_output, min_size=1))
def test_what_a_source_raises_or_says_is_unknown_at_worst(answers: dict[tuple[str, str], Any]) -> None:
    git = {("subprocess", "run"): subprocess.CompletedProcess([], 0, COMMIT)}  # the real one takes 20 ms
    with pytest.MonkeyPatch.context() as patch:
        for (module, name), answer in (git | answers).items():

            def say(*args: Any, answer: Any = answer, **kwargs: Any) -> Any:
                if isinstance(answer, Exception):
                    raise answer
                return answer

            if module == "datetime":
                patch.setattr(provenance, "datetime", Clock)
            patch.setattr(getattr(provenance, module), name, say, raising=False)
        made_by = provenance.provenance.__wrapped__()
        time = provenance.now()
    assert {type(text) for text in made_by["versions"].values()} == {str}
    assert made_by.keys() == {"versions", *TYPES}
    assert all(isinstance(made_by[key], kind) for key, kind in TYPES.items())
    assert isinstance(time, str)
    json.dumps(made_by)


@pytest.fixture
def fake_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A program `git` that is this shell script."""

    def make(script: str) -> None:
        (tmp_path / "git").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "git").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    return make


@pytest.mark.skipif(not (HERE / ".git").exists(), reason="an installed package has no commit")
@pytest.mark.parametrize(
    "script", ["exec sleep 60", r"printf '\377\376'", "echo fatal: dubious ownership >&2; exit 128"]
)
def test_a_git_that_does_not_answer_is_no_commit(
    fake_git: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    fake_git(script)
    monkeypatch.setattr(provenance, "GIT_SECONDS", 0.2)
    begun = time.monotonic()
    assert provenance._git() == {"git_commit": None, "git_dirty": None}
    assert time.monotonic() - begun < 5


@pytest.mark.skipif(not (HERE / ".git").exists(), reason="an installed package has no commit")
def test_a_status_that_takes_too_long_leaves_the_commit(
    fake_git: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_git(f'test "$1" = status && exec sleep 60\necho {"0" * 40}')
    monkeypatch.setattr(provenance, "GIT_SECONDS", 0.5)
    assert provenance._git() == {"git_commit": "0" * 40, "git_dirty": None}


@pytest.mark.skipif(not (HERE / ".git").exists(), reason="an installed package has no commit")
def test_the_environment_of_a_git_hook_does_not_name_another_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = provenance._git()
    assert expected["git_commit"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for name, value in {"GIT_DIR": f"{tmp_path}/.git", "GIT_WORK_TREE": str(tmp_path), "GIT_INDEX_FILE": "/x"}.items():
        monkeypatch.setenv(name, value)
    assert provenance._git() == expected


@given(
    st.sampled_from(["", "-c", "-", "a/b\x1b", "/x/cifarsweep/__main__.py", "\udcff"]) | st.text(), st.lists(st.text())
)
def test_whatever_started_the_process_is_words(script: str, words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for argv in ([script, *words], []):
            patch.setattr(sys, "argv", argv)
            assert all(isinstance(word, str) for word in command_line.words())


@pytest.mark.parametrize("name", ["", "a/b", "..", "\udcff\x1b", "ünï cöde", OSError(5, "no name")])
def test_a_worker_is_alive_whatever_its_host_is_called(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hostname() -> str:
        if isinstance(name, OSError):
            raise name
        return str(name)

    monkeypatch.setattr(socket, "gethostname", hostname)
    with Heartbeat(tmp_path, 60) as me:
        assert [path.name for path in tmp_path.iterdir()] == [me.id]
        assert is_held(tmp_path / me.id)
    assert not is_held(tmp_path / me.id)


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_whatever_the_environment_says_of_threads_there_is_one_or_more(threads: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", threads)
        assert process.num_cores() >= 1
