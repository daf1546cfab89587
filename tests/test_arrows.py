"""The dependency arrows of the package: who may import whom, read from the syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "cifarsweep"

KNOWS = {
    "__init__": {"classifier", "report", "results", "sweeper", "terminal", "training"},
    "__main__": {"training", "report", "results", "terminal", "sweeper"},
    "classifier": {"data", "models", "results"},
    "data": {"results"},
    "describe": {"training", "data", "report", "results", "terminal"},
    "export": {"classifier", "data", "report", "results", "terminal"},
    "models": set(),
    "optim": set(),
    "predict": {"classifier", "data", "results", "terminal"},
    "report": {"results", "terminal"},
    "rerun": {"training", "results", "terminal"},
    "results": set(),
    "runs": {"results", "terminal"},
    "sweeper": {"results", "terminal", "trial"},
    "terminal": set(),
    "trackers": {"results", "terminal"},
    "training": {"data", "models", "optim", "results", "sweeper", "terminal", "trackers", "trial"},
    "trial": set(),
    "watch": {"report", "results", "sweeper", "terminal"},
}
"""Folders and files at the root of the package, and which others each may import."""

LIBRARIES = {
    "hydra": {"__init__", "describe", "sweeper", "terminal", "training"},
    "omegaconf": {"rerun", "sweeper", "terminal", "training"},
    "optuna": {"__init__", "sweeper"},
    "pandas": {"__init__", "report"},
    "matplotlib": {"describe", "report"},
    "jinja2": {"report"},
    "torch": {"classifier", "data", "export", "models", "optim", "predict", "trackers", "training"},
    "torchvision": {"data", "models"},
}
HEAVY = {"torch", "torchvision", "pandas", "matplotlib", "optuna", "jinja2"}
LIGHT = {
    "__init__",
    "__main__",
    "describe",
    "runs",
    "trackers",
    "trial",
    "watch",
    "results",
    "terminal",
    "training.command",
    "training.groups",
}
LIGHT |= {
    "training.application",
    "training.configuration",
    "training.schema",
    "training.signatures",
    "training.sweep",
    "sweeper.application",
}
LIGHT |= {
    "sweeper.cluster",
    "sweeper.exclusions",
    "sweeper.grid",
    "sweeper.hydra_compat",
    "sweeper.hydra_plugins",
    "sweeper.jobs",
    "sweeper.local",
    "sweeper.overrides",
    "sweeper.pickling",
}
"""Modules that a command's first answer needs: they import nothing heavy at their top."""


def names_of(path: Path) -> list[str]:
    """training, training.cli for training/cli.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return [".".join(parts[:n]) for n in range(1, len(parts) + 1)]


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def assert_modules_know_only(folder: str, knows: dict[str, str]) -> None:
    """Each module of a folder imports only those of it that `knows` lists for it, separated by blanks."""
    modules = {path.stem: path for path in (PACKAGE / folder).glob("[!_]*.py")}
    assert modules.keys() == knows.keys()
    for name, path in modules.items():
        names = imported(ast.parse(path.read_text(encoding="utf-8")))
        ours = {name.split(".")[2] for name in names if name.startswith(f"cifarsweep.{folder}.")}
        assert ours <= set(knows[name].split()), name


def is_light(name: str) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:n]) in LIGHT for n in range(1, len(parts) + 1))


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_what_it_may_know(path: Path) -> None:
    module = names_of(path)[0]
    names = imported(ast.parse(path.read_text(encoding="utf-8")))
    ours = {name.split(".")[1] for name in names if name.startswith("cifarsweep.")} - {module}
    assert ours <= KNOWS[module]
    for library, allowed in LIBRARIES.items():
        if any(name.split(".")[0] == library for name in names):
            assert module in allowed, library


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_first_answer_pays_no_heavy_import(path: Path) -> None:
    if not is_light(names_of(path)[-1]):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_the_top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    names = imported(at_the_top)
    assert not {name.split(".")[0] for name in names} & HEAVY
    ours = {name.removeprefix("cifarsweep.") for name in names if name.startswith("cifarsweep.")}
    assert not {name for name in ours if not is_light(name)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_says_first_what_it_knows(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
