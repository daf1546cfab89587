"""The one boundary of all commands: whatever is raised inside is one line, with an exit code that says whose fault."""

from __future__ import annotations

import ast
import contextlib
import errno
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra.errors
import omegaconf.errors
import pytest
from conftest import REPOSITORY, TIMEOUT_SECONDS, Command, run_python
from hypothesis import given
from hypothesis import strategies as st

from cifarsweep import __main__, describe, export, predict, report, rerun, runs, watch
from cifarsweep.results import folders, sweeps
from cifarsweep.terminal import command_line, formatting, streams
from cifarsweep.training import command

PACKAGE = REPOSITORY / "cifarsweep"

COMMANDS: dict[str, tuple[Callable[..., int], Any, str, list[str]]] = {
    "train": (__main__.main, command, "_run_hydra", ["batch_size=1"]),
    "report": (report.main, folders, "find", ["."]),
    "watch": (watch.main, sweeps, "is_running", ["."]),
    "runs": (runs.main, folders, "find", ["."]),
    "describe": (describe.main, describe, "compose", []),
    "export": (export.main, export.classifier, "load", [".", "--format", "torch"]),
    "predict": (predict.main, predict, "load", [".", "image.png"]),
    "rerun": (rerun.main, rerun.RunResult, "read_or_unfinished", ["."]),
}
"""What is started, a function that it calls, and the words of a command line that leads there."""


def test_every_command_is_tried() -> None:
    started = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if '__name__ == "__main__"' in path.read_text("utf-8")
    }
    assert started == {
        "__main__.py",
        "report/__main__.py",
        *(f"{name}.py" for name in COMMANDS.keys() - {"train", "report"}),
    }


@contextlib.contextmanager
def raising(name: str, error: BaseException) -> Iterator[Callable[[], tuple[int, list[str]]]]:
    """Inside, that command raises the error in its work. Calling it gives the exit code and the lines of stderr."""
    main, where, function, words = COMMANDS[name]

    def raise_it(*args: Any, **kwargs: Any) -> Any:
        raise error

    def call() -> tuple[int, list[str]]:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = main() if name == "train" else main(words)
        return code, said.getvalue().splitlines()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(where, function, raise_it)
        patch.setattr(sys, "argv", ["cifarsweep", *words])
        patch.setattr(command, "_unwind_on_signals", lambda: None)
        yield call


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words for it")


def exceptions(base: type) -> list[type[BaseException]]:
    """All built-in and library exceptions that can be made of a text and have a cause."""
    found: list[type[BaseException]] = []
    for kind in base.__subclasses__():
        with contextlib.suppress(Exception):
            kind("text").__cause__ = ValueError("another")
            found.append(kind)
        found += exceptions(kind)
    return found


KINDS = sorted(
    {
        kind
        for kind in exceptions(BaseException)
        if kind.__module__.partition(".")[0] in ("builtins", "hydra", "omegaconf", "optuna", "yaml", "torch")
        and not issubclass(kind, KeyboardInterrupt | SystemExit | GeneratorExit | Warning)
        and "out of memory" not in str(kind.__doc__)
    }
    | {Unspeakable},
    key=lambda kind: (kind.__module__, kind.__qualname__),
)
THE_USERS = (ValueError, OSError, MemoryError, hydra.errors.HydraException, omegaconf.errors.OmegaConfBaseException)
errors_of_all_kinds = st.builds(lambda kind, text: kind(text), st.sampled_from(KINDS), st.text())


@given(name=st.sampled_from(sorted(COMMANDS)), error=errors_of_all_kinds, cause=st.none() | errors_of_all_kinds)
def test_whatever_a_command_raises_is_one_line(name: str, error: BaseException, cause: BaseException | None) -> None:
    error.__cause__ = cause
    with raising(name, error) as call, tempfile.TemporaryDirectory() as folder:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tempfile, "tempdir", folder)
            code, lines = call()
        assert len(lines) == 1
        assert lines[0].isprintable()
        assert "Traceback" not in lines[0]
        if code == 1:
            assert isinstance(error, THE_USERS) or "memory" in str(error)
            assert not os.listdir(folder)
        else:
            assert code == 70
            assert "this is a bug of cifarsweep" in lines[0]
            (file,) = Path(folder).iterdir()
            assert lines[0].endswith(f"its full traceback is in {file}")
            written = file.read_text("utf-8")
            assert written.startswith(("Traceback", "  +")) or "Traceback" in written
            assert "raise_it" in written


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unexpected_error_where_no_file_can_be_written_shows_its_traceback(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(**names: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "mkstemp", full)
    with raising(name, KeyError("surprise")) as call:
        code, lines = call()
    assert code == 70
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("KeyError: 'surprise'; this is a bug of cifarsweep")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_traceback_of_a_mistake_is_shown_on_request(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with raising(name, ValueError("batch_size=0")) as call:
        code, lines = call()
    assert (code, lines[-1]) == (1, "batch_size=0")
    assert lines[0].startswith("Traceback")


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_is_130(name: str) -> None:
    with raising(name, KeyboardInterrupt()) as call:
        code, lines = call()
    assert code == 130
    assert not [line for line in lines if not line.startswith("interrupted; this goes on: ")]


# imports

RUN = min((REPOSITORY / "outputs" / "example" / "runs").glob("layers2-*")).name
TINY = ["data=shapes", "data.num_train=40", "data.num_test=10", "data.val_size=10", "batch_size=8", "trainer.epochs=1"]
AT_WORK: dict[str, list[str]] = {
    "cifarsweep": TINY,
    "cifarsweep.report": ["example/sweeps/first"],
    "cifarsweep.watch": ["example/sweeps/first", "--once"],
    "cifarsweep.runs": ["example"],
    "cifarsweep.describe": TINY,
    "cifarsweep.predict": [f"example/runs/{RUN}", "image.png"],
    "cifarsweep.rerun": [f"example/runs/{RUN}"],
}
"""Words with which each command imports all that it needs, below a folder with the example."""

IN_AN_IMPORT = """
import importlib.abc, os, runpy, signal, sys

package, ctrl_c, module, *words = sys.argv[1:]


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == package:
            if ctrl_c:
                os.kill(os.getpid(), signal.SIGINT)
            raise ImportError(f"{name} is broken", name=name)


sys.meta_path.insert(0, Finder())
sys.argv[:] = [module, *words]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
"""A process in which a package cannot be imported, or in which Ctrl-C comes meanwhile."""


@pytest.mark.parametrize("ctrl_c", [False, True], ids=["broken", "Ctrl-C"])
@pytest.mark.parametrize("package", ["yaml", "torch"])
@pytest.mark.parametrize("module", AT_WORK)
def test_a_fault_in_an_import_is_one_line(
    tmp_path: Path, example: Path, module: str, package: str, ctrl_c: bool
) -> None:
    command = [sys.executable, "-c", IN_AN_IMPORT, package, "x" * ctrl_c, module, *AT_WORK[module]]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, cwd=example, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )
    if package == "torch" and module.rpartition(".")[2] in ("report", "watch", "runs"):
        assert (done.returncode, done.stderr) == (0, "")  # as they do without
    elif ctrl_c:
        assert done.returncode == 130
        assert done.stderr in ("", f"interrupted; this goes on: python -m {module} {' '.join(TINY)}\n")
    else:
        expected = f"expected the package {package} to be installed, and whole"
        assert (done.returncode, done.stderr) == (1, f"{package} is broken; {expected}\n")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imports")
    shutil.copytree(REPOSITORY / "outputs" / "example", folder / "example")
    return folder


# what is printed


def test_only_two_modules_print() -> None:
    """So that whatever is printed went through `formatting.line`."""
    printing = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                printing.add(path.relative_to(PACKAGE).as_posix())
            if isinstance(node, ast.Attribute) and node.attr == "write" and "std" in ast.unparse(node.value):
                printing.add(f"{path.relative_to(PACKAGE).as_posix()} {ast.unparse(node)}")
    # The last gives the cursor back before a process ends at once.
    assert printing == {"terminal/streams.py", "terminal/formatting.py", "terminal/progress.py sys.stdout.write"}


@given(st.text(st.characters() | st.sampled_from("\x1b\x07\x9b\r\n\u202e\u2028\x00")))
def test_a_line_moves_no_cursor(text: str) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        streams.print_line(text)
        streams.print_error(text)
        formatting.show(["name"], [[text]])
    for printed in (*out.getvalue().split("\n"), *err.getvalue().split("\n")):
        assert printed.isprintable()
    assert (out.getvalue().count("\n"), err.getvalue().count("\n")) == (3, 1)


@pytest.mark.parametrize("name", sorted(COMMANDS.keys() - {"train"}))
@given(odd=st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1, max_size=60))
def test_words_of_a_command_line_are_answered_in_printable_lines(name: str, odd: str) -> None:
    main, _, _, words = COMMANDS[name]
    said = io.StringIO()
    given_words = [f"x{odd}"] if name == "describe" else [f"/nowhere/x{odd}", *words[1:]]
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(given_words)
    (line,) = said.getvalue().split("\n")[:-1]
    assert (code, line.isprintable()) == (1, True)


# credentials

SECRET = "open-sesame"
secrets = st.text(
    st.characters(codec="ascii", exclude_categories=["C", "Z"], exclude_characters="@&;'\"#"), min_size=1
).map(lambda text: f"{SECRET}{text}{SECRET}")
PARAMETERS = "password passwd pass pwd sslpassword sslkey token access_token authToken secret client_secret api_key key"


@given(
    dialect=st.sampled_from(["postgresql", "mysql+pymysql", "https", "redis"]),
    user=st.sampled_from(["", "me", "a.b-c"]),
    secret=secrets,
    parameter=st.sampled_from([*PARAMETERS.split(), "PASSWORD"]),
    as_parameter=st.booleans(),
    around=st.sampled_from(["{}", "could not reach {}, try again", "{{'storage': '{}', 'n': 1}}"]),
)
def test_a_credential_is_hidden(
    dialect: str, user: str, secret: str, parameter: str, as_parameter: bool, around: str
) -> None:
    address = f"{dialect}://{user}:{secret}@here/study"
    if as_parameter:
        address = f"{dialect}://here/study?user={user}&{parameter}={secret}&a=1"
    text = around.format(address)
    nested = {"hydra": {"storage": [text, 1, None]}}
    for shown in (command_line.without_credentials(text), formatting.line(text), str(command_line.hidden(nested))):
        assert SECRET not in shown
        assert "here/study" in shown
    with raising("runs", ValueError(text)) as call:
        assert SECRET not in str(call())


@given(st.text(st.characters(exclude_characters="@?&;")))
def test_nothing_else_is_hidden(text: str) -> None:
    assert command_line.without_credentials(text) == text


# paths


@pytest.mark.parametrize("name", ["report", "watch", "runs", "predict", "rerun"])
@pytest.mark.parametrize(("path", "reason"), [("nope", "no such folder"), ("a_file", "not a folder")])
def test_a_path_that_is_no_folder_is_named(
    name: str,
    path: str,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    main, _, _, words = COMMANDS[name]
    assert main([path, *words[1:]]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: {reason}, expected ")


# start


@pytest.mark.parametrize("module", ["runs", "watch"])
def test_a_listing_and_its_mistakes_load_no_hydra(cifarsweep: Command, module: str) -> None:
    done = cifarsweep("nope", module=f"cifarsweep.{module}", PYTHONPROFILEIMPORTTIME="1")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == 1
    assert not {name.partition(".")[0] for name in loaded} & {"hydra", "omegaconf", "torch", "numpy"}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_a_bug_in_a_job_of_a_sweep_is_said_to_be_one_with_its_traceback(tmp_path: Path, launcher: str) -> None:
    words = ["-m", "data=shapes", "model=layers2,layers3", "trainer.epochs=1", "name=x", f"hydra/launcher={launcher}"]
    toy = str(REPOSITORY / "tests" / "toy.py")
    done = run_python(toy, *words, cwd=tmp_path, TOY_FAULT="'raise' if depth == 2 else ''")
    assert done.returncode == 70, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("RuntimeError: 1 of 2 jobs failed; the same command tries them again; this is a bug of ")
    file = Path(last.rpartition("its full traceback is in ")[2])
    written = file.read_text("utf-8")
    file.unlink()
    assert re.search(r'toy\.py", line \d+, in task', written)
