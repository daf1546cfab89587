"""The wheel: built, unpacked away from the checkout, and run from a foreign working directory."""

from __future__ import annotations

import email
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from test_readme import BLOCKED, ENGINE, commands, read_trials, run, write_files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git would keep, so that nothing is written into the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((REPOSITORY / name).read_bytes())
    for folder in ("cifarsweep", "conf"):
        for file in (REPOSITORY / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                target = source / file.relative_to(REPOSITORY)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_configuration_and_nothing_else_at_its_top(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    inside = {name.removeprefix("cifarsweep/conf/") for name in names if name.startswith("cifarsweep/conf/")}
    assert inside == {str(path.relative_to(REPOSITORY / "conf")) for path in (REPOSITORY / "conf").rglob("*.yaml")}
    assert {name.split("/")[0].split("-")[0] for name in names} == {"cifarsweep", "hydra_plugins"}
    assert "hydra_plugins/cifarsweep_engine.py" in names
    assert not any(name.endswith("hydra_plugins/__init__.py") for name in names)


def test_the_wheel_says_whose_it_is_and_under_which_licence(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (folder,) = {name.split("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    metadata = email.message_from_bytes(archive.read(f"{folder}/METADATA"))
    assert (metadata["Name"], metadata["License-Expression"]) == ("cifarsweep", "MIT")
    assert metadata["Author"] == "cifarsweep maintainers"
    assert archive.read(f"{folder}/licenses/LICENSE") == (REPOSITORY / "LICENSE").read_bytes()
    assert f"version = {{{metadata['Version']}}}" in (REPOSITORY / "README.md").read_text()


@pytest.mark.parametrize(("package", "words"), [("twine", ["check", "--strict"]), ("check_wheel_contents", [])])
def test_the_wheel_passes_its_checks(wheel: Path, package: str, words: list[str]) -> None:
    pytest.importorskip(package)
    command = [sys.executable, "-m", package, *words, str(wheel)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_git_hooks_run_what_ci_lints() -> None:
    (repository,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook["entry"] for hook in repository["hooks"]]
    assert "\n" + "\n".join(hooks) + "\n" in (REPOSITORY / ".ci" / "run").read_text()


@pytest.mark.slow
def test_the_wheel_sweeps_from_a_foreign_directory(wheel: Path, small: list[str], tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "else where"
    zipfile.ZipFile(wheel).extractall(site)
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "cifarsweep", "-m", *small, "trainer.epochs=1", "seed=0,1", "outputs=results", "name=w"],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    for name in ("depth_vs_accuracy.png", "index.html"):
        assert (elsewhere / "results" / "sweeps" / "w" / "report" / name).exists()


@pytest.mark.slow
def test_the_engine_alone_searches_in_a_fresh_environment_without_torch(wheel: Path, tmp_path: Path) -> None:
    """As the engine's README installs it. Takes half a minute, most of it pip's."""
    python = str(tmp_path / "venv" / "bin" / "python")
    engine = re.search(r"pip install (hydra-core .*?) &&", ENGINE)
    assert engine is not None
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    subprocess.run([python, "-m", "pip", "-q", "install", *shlex.split(engine[1])], check=True)
    subprocess.run([python, "-m", "pip", "-q", "install", "--no-deps", str(wheel)], check=True)
    write_files(tmp_path)
    print(run(tmp_path, commands()[0], python))

    assert [trial["state"] for trial in read_trials(tmp_path / "multirun" / "plain")] == ["complete"] * 6
    installed = subprocess.run([python, "-m", "pip", "list"], check=True, capture_output=True, text=True).stdout
    assert not {line.split()[0] for line in installed.splitlines()} & set(BLOCKED)


def test_each_module_of_the_engine_is_imported_without_the_packages_of_the_cifar_application() -> None:
    code = f"""
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED}:
            raise ImportError(f"blocked: {{name}}")

sys.meta_path.insert(0, Blocked())
import cifarsweep.trial, cifarsweep.sweeper, hydra_plugins
for module in pkgutil.iter_modules(cifarsweep.sweeper.__path__, "cifarsweep.sweeper."):
    if module.name != "cifarsweep.sweeper.hydra_plugins":
        importlib.import_module(module.name)
importlib.import_module("hydra_plugins.cifarsweep_engine")
print(sorted(set(sys.modules) & set({BLOCKED})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
