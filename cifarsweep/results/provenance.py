"""What made a result: the code's version, the machine and the time."""

import os
import platform
import re
import subprocess
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
    here, unknown = Path(__file__).resolve().parents[2], {"git_commit": None, "git_dirty": None}
    if not (here / ".git").exists():
        return unknown
    try:
        commit, changed = (
            subprocess.run(["git", *words], cwd=here, check=True, capture_output=True, text=True, timeout=20).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.SubprocessError):
        return unknown
    return {"git_commit": commit.strip(), "git_dirty": bool(changed.strip())}
