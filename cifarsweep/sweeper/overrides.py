"""Values of Hydra's overrides, and the one form of them that Hydra's parser lacks: name=zip(key=values, key=values).

It is spelled as Hydra's proposal has it (docs/design/zipped_sweeps.md in hydra-ecosystem/hydra). Once Hydra's parser
takes it (1.3 and 1.4 do not), the parsing here can go. Pure: knows no study, job or file.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, Sweep
from hydra.errors import HydraException

from cifarsweep.terminal import errors

MOST_ROWS = 10_000


def label(element: Any) -> Any:
    """A plain value, or the text of a list or mapping."""
    if isinstance(element, QuotedString):
        return element.text
    if element is None or isinstance(element, str | bool | int | float):
        return element
    return Override._get_value_element_as_str(element)


def as_written(element: Any) -> str:
    """As it stands after `=`, in quotes where it needs them.

    Hydra drops the quotes inside choice(…). Without them 'null' or "it's" is another value or none.
    """
    text = Override._get_value_element_as_str(element)
    if not isinstance(element, str):
        return text
    try:
        if OverridesParser.create().parse_override(f"key={text}").value() == element:
            return text
    except HydraException:
        pass
    return QuotedString(element, Quote.single).with_quotes()


# zip


class Row(NamedTuple):
    """One of the combinations that a zip lists."""

    values: Mapping[str, Any]
    texts: tuple[str, ...]
    """The overrides that give these values."""


class Zip(NamedTuple):
    rows: tuple[Row, ...]
    is_shuffled: bool

    @property
    def keys(self) -> list[str]:
        return list(self.rows[0].values)


def is_zip(value: Any) -> bool:
    return isinstance(value, str) and re.match(r"\s*(shuffle\s*\(\s*)?zip\s*\(", value) is not None


def taken_names(loader: ConfigLoader | None, config: Mapping[str, Any]) -> Callable[[str], bool]:
    """Whether a name is one of the application's keys or groups."""
    return lambda name: name in config or (loader is not None and bool(loader.get_group_options(name)))


def check_name(name: str, is_taken: Callable[[str], bool] = lambda name: False) -> None:
    """ValueError where a zip cannot have this name."""
    if not re.fullmatch(r"[A-Za-z_][\w-]*", name):
        raise ValueError(f"{name}=zip(…): expected a name for the pairs, of letters, digits, _ and -")
    if is_taken(name):
        raise ValueError(f"{name}=zip(…): {name} is a key or a group, expected a name that is none")


def parse_zip(
    name: str, text: str, parser: OverridesParser, is_taken: Callable[[str], bool] = lambda name: False
) -> Zip:
    """ValueError says in one line what a zip cannot have."""
    check_name(name, is_taken)
    text = text.replace("\n", " ")  # a block of YAML
    try:
        if reason := errors.reason_of_parser(ValueError(), text):
            raise ValueError(reason)
        match = re.fullmatch(r"\s*(?:shuffle\s*\(\s*zip\s*\((.*)\)\s*\)|zip\s*\((.*)\))\s*", text, re.DOTALL)
        if match is None:
            raise ValueError("expected zip(…) or shuffle(zip(…)), and nothing beside it")
        inside = match[1] if match[2] is None else match[2]
        members: dict[str, tuple[str, list[Any]]] = {}
        for key, elements in (_member(member, parser) for member in _split(inside)):
            if key.lstrip("+") in members:
                raise ValueError(f"{key.lstrip('+')} stands twice")
            members[key.lstrip("+")] = key, elements
        if len(members) < 2:
            raise ValueError("expected two keys or more, such as zip(a=choice(1,2), b=choice(x,y))")
        (first, (_, values)), *others = members.items()
        for other, (_, elements) in others:
            if len(elements) != len(values):
                raise ValueError(f"{first} has {len(values)} values and {other} {len(elements)}, expected as many")
    except ValueError as error:
        raise ValueError(f"{name}={' '.join(text.split())}: {error}") from error
    keys, columns = zip(*members.values(), strict=True)
    rows = [
        Row(
            {key: label(element) for key, element in zip(keys, row, strict=True)},
            tuple(f"{key}={as_written(element)}" for key, element in zip(keys, row, strict=True)),
        )
        for row in zip(*columns, strict=True)
    ]
    return Zip(tuple(rows), is_shuffled=match[2] is None)


def _member(text: str, parser: OverridesParser) -> tuple[str, list[Any]]:
    """The key and the values of one member."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise ValueError(f"{text.strip()!r}: expected key=choice(…), also around several values of one key")
    if is_zip(value):
        raise ValueError(f"{key}: expected no zip inside a zip")
    try:
        override = parser.parse_override(f"{key}={value}")
    except HydraException as error:
        reason = errors.reason_of_parser(error, value)
        raise ValueError(f"{key}={value}: {reason or 'expected choice(…), range(…) or a list'}") from error
    sweep: Any = override._value
    if override.is_hydra_override():
        raise ValueError(f"{key}: expected a key of the application, not one of Hydra's own")
    if override.is_delete():
        raise ValueError(f"{key}: expected a key that is given values")
    if isinstance(sweep, list):
        elements = sweep
    elif not isinstance(sweep, Sweep) or not override.is_discrete_sweep():
        raise ValueError(f"{key}={value}: expected values that can be listed: choice(…), range(…) or a list")
    elif getattr(sweep, "shuffle", False):
        raise ValueError(f"{key}={value}: shuffled by itself it would pair at random; shuffle(zip(…)) keeps the pairs")
    else:
        elements = list(itertools.islice(override.sweep_iterator(), MOST_ROWS + 1))
    if not 0 < len(elements) <= MOST_ROWS:
        raise ValueError(f"{key}={value}: expected 1 to {MOST_ROWS} values")
    return key, elements


_PARTS = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|\\.|.""", re.DOTALL)


def _split(text: str) -> Iterator[str]:
    """At its commas, except within brackets and quotes."""
    depth, member = 0, ""
    for part in _PARTS.findall(text):
        depth += (part in "([{") - (part in ")]}")
        if part == "," and depth == 0:
            yield member
            member = ""
        else:
            member += part
    yield member
