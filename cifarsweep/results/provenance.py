"""What made a result: the code's version, the machine and the time. Whatever of it is unknown, the work goes on."""

import os
import platform
import re
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

Answer = TypeVar("Answer")

GIT_SECONDS = 10
"""How long git may take for an answer, such as on a network folder."""


def now() -> str:
    """UTC, ISO 8601, to the second; empty where the clock gives no time."""
    return _known(str, lambda: datetime.now(UTC).isoformat(timespec="seconds")) or ""


@cache
def provenance() -> dict[str, Any]:
    """Versions, machine and git commit of the code that runs; the commit is None for an installed wheel."""
    names = ("cifarsweep", "torch", "torchvision", "hydra-core", "omegaconf", "optuna", "numpy")
    versions = {"python": _known(str, platform.python_version) or ""}
    versions |= {name: _known(str, lambda name=name: metadata.version(name)) or "" for name in names}  # type: ignore[misc]
    cpu = _known(str, _cpu) or _known(str, platform.processor) or ""
    system = _known(str, platform.platform) or ""
    return {"versions": versions, "platform": system, "cpu": cpu, "cores": _known(int, os.cpu_count), **_git()}


def _known(kind: type[Answer], ask: Callable[[], Any]) -> Answer | None:
    """The answer; None where there is none, for whatever reason, or it is something else."""
    try:
        answer = ask()
    except Exception:
        return None
    return answer if isinstance(answer, kind) else None


def _cpu() -> str | None:
    name = re.search(rb"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_bytes())
    return name[1].decode("utf-8", "replace") if name else None


def _git() -> dict[str, Any]:
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    # Only this checkout is asked about: not the one that GIT_DIR names, as inside a git hook, nor one around it.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    env |= {"GIT_CEILING_DIRECTORIES": str(here.parent), "GIT_OPTIONAL_LOCKS": "0"}

    def git(*words: str) -> bytes:
        done = subprocess.run(["git", *words], cwd=here, env=env, check=True, capture_output=True, timeout=GIT_SECONDS)
        return done.stdout

    commit = _known(str, lambda: git("rev-parse", "HEAD").decode("ascii").strip())
    if commit is None or not re.fullmatch("[0-9a-f]{40,64}", commit):
        return {"git_commit": None, "git_dirty": None}
    changed = _known(bytes, lambda: git("status", "--porcelain"))
    return {"git_commit": commit, "git_dirty": None if changed is None else bool(changed.strip())}
