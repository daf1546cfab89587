"""Runs the applications in apps/, each a process of its own as a user starts it, and reads what the engine wrote."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import yaml
from conftest import start_python

APPS = Path(__file__).parent / "apps"
IS_HYDRA_1_3 = hydra.__version__.startswith("1.3.")

SEARCH = ("hydra/sweeper=study", "hydra/launcher=local", "hydra.sweep.dir=sweep")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def start(folder: Path, app: str, *words: str, **environment: str) -> subprocess.Popen[str]:
    """`python app.py …` in this folder. A deprecation that Hydra 1.4 warns of is an error there."""
    as_errors = {"HYDRA_DEPRECATION_WARNINGS_AS_ERRORS": "" if IS_HYDRA_1_3 else "1"}
    found_as_installed = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    script = str(APPS / f"{app}.py")
    return start_python(script, *words, cwd=folder, **{**as_errors, **found_as_installed, **environment})


def run(folder: Path, app: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    process = start(folder, app, *words, **environment)
    try:
        out, err = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def read_results(folder: Path) -> dict[str, Any]:
    results = yaml.safe_load((folder / "sweep" / "optimization_results.yaml").read_text())
    assert isinstance(results, dict)
    return results


def read_trials(folder: Path) -> list[dict[str, Any]]:
    """In the order of their numbers."""
    study = json.loads((folder / "sweep" / "study.json").read_text())
    return sorted(study["trials"], key=lambda trial: int(trial["number"]))


def read_overrides(job_dir: Path) -> list[str]:
    overrides = yaml.safe_load((job_dir / ".hydra" / "overrides.yaml").read_text())
    assert isinstance(overrides, list)
    return overrides
