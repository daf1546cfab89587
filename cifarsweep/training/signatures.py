"""What a class or function takes, read from its source: to import PyTorch takes 1.8 s, to parse such a file 5 ms.

Knows packages and syntax trees, neither configurations nor what a class is for.
"""

import ast
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cifarsweep.terminal.domains import ANYTHING, NULL, OF_TYPE, Domain, any_of, list_of

READ = ("cifarsweep", "torch")
"""Packages whose source is read. A stranger's class may do anything with its arguments."""

_TENSOR = Domain(
    lambda value: isinstance(value, Mapping) and isinstance(value.get("_target_"), str),
    "a _target_ that makes a tensor",
)


class Parameter(NamedTuple):
    domain: Domain
    """By its annotation."""
    is_required: bool


def is_installed(target: str) -> bool:
    """Whether there is the package that this dotted name begins with. Imports nothing."""
    try:
        return importlib.util.find_spec(target.partition(".")[0]) is not None
    except ValueError:  # a module without a spec, such as __main__
        return True


@cache
def parameters(target: str) -> Mapping[str, Parameter] | None:
    """Each parameter that may be given by name; None where it takes any name, or its source does not say."""
    module, _, name = target.rpartition(".")
    found = _definition(module, name) if target.partition(".")[0] in READ else None
    arguments = _arguments(*found) if found else None
    if arguments is None or arguments.kwarg:
        return None
    named = [*arguments.args, *arguments.kwonlyargs]
    defaults = [*[None] * (len(arguments.args) - len(arguments.defaults)), *arguments.defaults, *arguments.kw_defaults]
    return {
        arg.arg: Parameter(_domain(arg.annotation), default is None)
        for arg, default in zip(named, defaults, strict=True)
        if arg.arg != "self"
    }


@cache
def _definition(module: str, name: str) -> tuple[str, ast.ClassDef | ast.FunctionDef] | None:
    """The class or function of this name, and the module where it stands. Follows imports."""
    path = _source(module)
    if path is None:
        return None
    for node in reversed(ast.parse(path.read_bytes()).body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return module, node
        if isinstance(node, ast.ImportFrom):
            package = module if path.name == "__init__.py" else module.rpartition(".")[0]
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names = [alias.name for alias in node.names if (alias.asname or alias.name) in (name, "*")]
            found = (_definition(source, name if original == "*" else original) for original in names)
            if there := next(filter(None, found), None):
                return there
    return None


def _source(module: str) -> Path | None:
    package, *parts = module.split(".")
    spec = importlib.util.find_spec(package)  # of a package's own module it would import the package
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0], *parts)
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _arguments(module: str, node: ast.ClassDef | ast.FunctionDef) -> ast.arguments | None:
    if isinstance(node, ast.FunctionDef):
        return node.args
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            return statement.args
    for base in map(ast.unparse, node.bases):
        if base in ("Module", "nn.Module"):  # it takes nothing, though it is written with **kwargs
            return ast.arguments([], [], None, [], [], None, [])
        if found := _definition(module, base):
            return _arguments(*found)
    return None


def _domain(annotation: ast.expr | None) -> Domain:
    """What a configuration can give for it."""
    match annotation:
        case ast.Name(name) if name in OF_TYPE:
            return OF_TYPE[name]
        case ast.Name("Tensor"):
            return _TENSOR
        case ast.Constant(None):
            return NULL
        case ast.BinOp(left, ast.BitOr(), right):
            return _union([left, right])
        case ast.Subscript(ast.Name("Union"), ast.Tuple(options)):
            return _union(options)
        case ast.Subscript(ast.Name("Optional"), option):
            return _union([option, ast.Constant(None)])
        case ast.Subscript(ast.Name("tuple"), ast.Tuple(items)):
            return list_of(_domain(items[0]), len(items), len(items))
        case ast.Subscript(ast.Name("list" | "Iterable" | "Sequence"), item):
            return list_of(_domain(item))
    return ANYTHING


def _union(options: list[ast.expr]) -> Domain:
    united = [_domain(option) for option in options]
    return ANYTHING if ANYTHING in united else any_of(united)
