"""Starts commands in forks of a process that has imported the libraries, which is what a start costs: seconds each.

A fork is a process of its own, with its own directory, environment, arguments and exit code, and it imports the
package itself; only what comes from other projects is there already.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LIBRARIES = [
    "hydra.core.override_parser.overrides_parser", "hydra.core.plugins", "hydra.main", "jinja2",
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_svg", "matplotlib.pyplot", "optuna",
    "optuna.storages.journal", "pandas", "PIL.Image", "rich.live", "rich.progress", "rich.table", "torch",
    "torch._dynamo", "torch.utils.flop_counter",
]  # fmt: skip
"""Those of them that are installed are imported."""


class ForkServer:
    """The process that forks, for one command at a time."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """What subprocess.run gives for `python *command`, where that is a script or `-m` and a module."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            outputs = [f"{folder}/stdout", f"{folder}/stderr"]
            request = {"command": list(command), "cwd": str(cwd), "env": dict(env), "outputs": outputs}
            print(json.dumps(request), file=self._server.stdin, flush=True)
            pid = int(self._server.stdout.readline())
            timed_out = not select.select([self._server.stdout], [], [], timeout)[0]
            if timed_out:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
            code = int(self._server.stdout.readline())
            out, err = (Path(output).read_text() for output in outputs)
        if timed_out:
            raise subprocess.TimeoutExpired(list(command), timeout, out, err)
        return subprocess.CompletedProcess(list(command), code, out, err)


@functools.cache
def server() -> ForkServer:
    """This process's own, which ends when this process does."""
    return ForkServer()


def serve() -> dict[str, Any]:
    """Forks for each request of stdin and says the fork's id and its exit code; in a fork, returns the request."""
    for library in LIBRARIES:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    gc.collect()
    gc.freeze()  # so that a fork's collector leaves the pages alone that it shares
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            request = json.loads(line)
            assert isinstance(request, dict)
            return request
        print(pid, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    os._exit(0)


def become(command: list[str], cwd: str, env: dict[str, str], outputs: list[str]) -> None:
    """Runs the command as Python would have started it."""
    os.setsid()
    for number, path in enumerate([os.devnull, *outputs]):
        file = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    by_name = command[0] == "-m"
    sys.argv = command[1:] if by_name else command
    first = cwd if by_name else str(Path(command[0]).parent)
    sys.path[:1] = [first, *filter(None, env.get("PYTHONPATH", "").split(os.pathsep))]
    code: Any = None
    try:
        if by_name:
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as stop:
        code = stop.code
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))  # else what is imported is freed, for 0.5 s


if __name__ == "__main__":
    become(**serve())
