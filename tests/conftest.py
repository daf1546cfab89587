"""What several test modules need: one drawing of a small data set, the command line in a process and in this one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forkserver
import hypothesis
import postgresql
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
REAL_CIFAR10 = Path(os.environ.get("CIFARSWEEP_TEST_CIFAR10", REPOSITORY.parent / "shared" / "cifar10"))

Command = Callable[..., "subprocess.CompletedProcess[str]"]

TIMEOUT_SECONDS = 240
"""For what takes up to 20 s on an idle machine."""


hypothesis.settings.register_profile("default", max_examples=200, derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("thorough", max_examples=10_000, deadline=None, print_blob=True)
hypothesis.settings.load_profile("default")
"""Generated tests are the same in every run; `pytest --hypothesis-profile=thorough` looks for what they missed."""


def examples(by_default: int) -> int:
    """For a test whose examples take long: so many by default, and fifty times as many when thorough, as for others."""
    return by_default * hypothesis.settings().max_examples // 200


def pytest_configure() -> None:
    """A shell starts what is in the background with SIGINT ignored, which all processes of the tests would inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def run_python(*words: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python *words`, in a fork that has the libraries imported, or in a fresh interpreter.

    A fresh one where `environment` has a variable that Python reads at its start, or the system is not made for forks.
    """
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    read_at_start = any(name.startswith("PYTHON") for name in environment.keys() - {"PYTHONPATH"}) or any(
        Path(folder, "sitecustomize.py").exists() for folder in env["PYTHONPATH"].split(os.pathsep)
    )
    if sys.platform == "linux" and not read_at_start:
        return forkserver.server().run(words, cwd, env, TIMEOUT_SECONDS)
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)


def start_python(
    *words: str,
    cwd: Path,
    stdin: int | None = None,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    **environment: str,
) -> subprocess.Popen[str]:
    """`python *words` in a fresh interpreter and a process group of its own, to be killed or interrupted."""
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY), **environment}
    command, streams = [sys.executable, *words], {"stdin": stdin, "stdout": stdout, "stderr": stderr}
    return subprocess.Popen(command, cwd=cwd, env=env, text=True, start_new_session=True, **streams)


@pytest.fixture(scope="session", autouse=True)
def _temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The tests' own. A test that provokes a bug removes its traceback, so that others are noticed."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)  # which is asked for again
        yield
    assert [path.read_text() for path in folder.glob("cifarsweep-*")] == []


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Figures do not depend on the machine's cores, and parallel tests do not fight over them."""
    import torch

    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    yield
    os.environ.pop("OMP_NUM_THREADS")
    if before is not None:
        os.environ["OMP_NUM_THREADS"] = before


@pytest.fixture(scope="session")
def data_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for decoded data sets that the session's tests share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small(data_cache: Path, tmp_path: Path) -> list[str]:
    """Overrides for a run of a second or two, whose results go to tmp_path/outputs."""
    return small_run(data_cache, tmp_path / "outputs")


def small_run(data_cache: Path, outputs: Path) -> list[str]:
    return [
        "data=shapes",
        "data.num_train=600",
        "data.num_test=200",
        "data.val_size=100",
        f"data.cache={data_cache}",
        f"outputs={outputs}",
        "batch_size=50",
        "trainer.epochs=2",
        "model=layers2",
        "model.width=4",
    ]


@pytest.fixture
def figures_without_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are laid out, which fails for what cannot be drawn, but their files stay empty: a third of the time."""
    from matplotlib.figure import Figure

    def lay_out(figure: Figure, file: Any, format: str, **others: Any) -> None:
        if format == "png":
            figure.draw_without_rendering()

    monkeypatch.setattr(Figure, "savefig", lay_out)


def without_digests(folder: Path, name: str = "result.json") -> dict[str, Any]:
    """The record, which is written again without digests, as an older version has it: tests may then change it."""
    path = folder / name
    values: dict[str, Any] = json.loads(path.read_text())
    del values["digests"]
    path.write_text(json.dumps(values))
    return values


@pytest.fixture
def cifarsweep(tmp_path: Path) -> Command:
    """`python -m cifarsweep[.module] …` in a process of its own, in tmp_path, with its output as text."""

    def run(*words: str, module: str = "cifarsweep", **environment: str) -> subprocess.CompletedProcess[str]:
        return run_python("-m", module, *words, cwd=tmp_path, **environment)

    return run


@pytest.fixture(scope="module")
def server() -> Iterator[postgresql.Server]:
    """A PostgreSQL server of the module's own."""
    try:
        with postgresql.running(settings="-c fsync=off") as server:
            yield server
    except postgresql.Missing as missing:
        pytest.skip(str(missing))
