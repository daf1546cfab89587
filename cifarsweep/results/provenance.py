"""What made a result: the command, the code's version, the machine and the time."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def provenance() -> dict[str, Any]:
    """Versions, machine and git commit of the code that runs; the commit is None for an installed wheel."""
    names = ("cifarsweep", "torch", "torchvision", "hydra-core", "omegaconf", "optuna", "numpy")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = ""
    return {"versions": versions, "platform": platform.platform(), "cpu": _cpu(), "cores": os.cpu_count(), **_git()}


def _cpu() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    name = re.search(r"model name\s*:\s*(.*)", info)
    return name[1] if name else platform.processor()


def _git() -> dict[str, Any]:
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return {"git_commit": None, "git_dirty": None}
    try:
        commit = _output("git", "-C", str(here), "rev-parse", "HEAD")
        changed = _output("git", "-C", str(here), "status", "--porcelain")
    except (OSError, subprocess.CalledProcessError):
        return {"git_commit": None, "git_dirty": None}
    return {"git_commit": commit, "git_dirty": bool(changed)}


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout.strip()


def command_line() -> list[str]:
    """The words this process was started with, `python -m cifarsweep` shown as a person typed it."""
    script = Path(sys.argv[0])
    started = ["python", "-m", script.parent.name] if script.name == "__main__.py" else [script.name]
    return [*started, *map(hide_password, sys.argv[1:])]


def hide_password(text: str) -> str:
    """Leaves out the password of a database's address: user:password@host, or ?password=…"""
    text = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"([?&]password=)[^&'\"\s]*", r"\1***", text)
