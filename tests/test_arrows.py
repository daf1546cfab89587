"""The dependency arrows of the package: who may import whom, read from the syntax trees."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "cifarsweep"

KNOWS = {
    "__init__": set(),
    "arguments": set(),
    "__main__": {"cli", "groups"},
    "cli": {"arguments", "app", "groups", "domains", "errors", "jobs", "local", "progress", "report", "runs", "trial"},
    "app": {"checkpoint", "data", "errors", "layers", "models", "mosaic", "optim", "progress", "runs", "train"},
    "checkpoint": {"runs"},
    "describe": {"arguments", "app", "groups", "cli", "data", "domains", "errors", "report", "text"},
    "layers": {"runs"},
    "mosaic": set(),
    "jobs": set(),
    "local": {"errors", "jobs", "progress"},
    "plugins": {"cli", "jobs", "local", "study"},
    "study": {"domains", "errors", "jobs", "local", "progress", "runs", "search_space", "text", "trial"},
    "search_space": set(),
    "trial": set(),
    "report": {"arguments", "mosaic", "runs", "text"},
    "predict": {"arguments", "data", "models", "text"},
    "rerun": {"arguments", "app", "domains", "runs", "text"},
    "data": {"mosaic"},
    "domains": set(),
    "errors": {"text"},
    "groups": set(),
    "models": set(),
    "optim": set(),
    "progress": {"text"},
    "runs": {"arguments", "text"},
    "text": set(),
    "watch": {"arguments", "runs", "text"},
    "train": set(),
}
LIBRARIES = {
    "hydra": {"app", "cli", "describe", "errors", "jobs", "local", "plugins", "search_space", "study"},
    "omegaconf": {"app", "cli", "errors", "jobs", "local", "plugins", "rerun", "study"},
    "optuna": {"search_space", "study"},
    "pandas": {"report"},
    "matplotlib": {"describe", "report"},
    "jinja2": {"report"},
    "torch": {"app", "checkpoint", "data", "layers", "local", "models", "optim", "predict", "train"},
}
HEAVY = {"torch", "torchvision", "pandas", "matplotlib", "optuna", "jinja2"}
LIGHT = {
    "__main__",
    "arguments",
    "cli",
    "describe",
    "domains",
    "errors",
    "groups",
    "jobs",
    "local",
    "plugins",
    "progress",
    "runs",
    "text",
    "trial",
    "watch",
}
"""Modules that a command's first answer needs: they import nothing heavy at their top."""


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "absolute imports only"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_only_what_it_may_know(path: Path) -> None:
    module = module_of(path)
    names = imported(ast.parse(path.read_text(encoding="utf-8")))
    ours = {name.split(".")[1] for name in names if name.startswith("cifarsweep.")} - {module}
    assert ours <= KNOWS[module]
    for library, allowed in LIBRARIES.items():
        if any(name.split(".")[0] == library for name in names):
            assert module in allowed, library


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_first_answer_pays_no_heavy_import(path: Path) -> None:
    if module_of(path) not in LIGHT:
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_the_top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    names = imported(at_the_top)
    assert not {name.split(".")[0] for name in names} & HEAVY
    assert not {name.split(".")[1] for name in names if name.startswith("cifarsweep.")} - LIGHT


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_says_first_what_it_knows(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
