"""What a value may be, and how a command line writes it. Plain values in; knows no key."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple


class Domain(NamedTuple):
    accepts: Callable[[Any], bool]
    text: str

    def or_null(self) -> "Domain":
        return Domain(lambda value: value is None or self.accepts(value), f"{self.text}, or null")


def whole(low: int, high: int | None = None) -> Domain:
    text = f"a whole number, {low} or more" if high is None else f"a whole number from {low} to {high}"
    most = 2**63 - 1 if high is None else high
    return Domain(lambda value: type(value) is int and low <= value <= most, text)


def number(text: str, inside: Callable[[float], bool]) -> Domain:
    largest = sys.float_info.max  # math.isfinite raises for an integer beyond it
    return Domain(lambda value: type(value) in (int, float) and abs(value) <= largest and inside(value), text)


def one_of(*options: str) -> Domain:
    return Domain(lambda value: value in options, f"one of {', '.join(options)}")


def list_of(item: Domain, least: int = 0, most: int = 100) -> Domain:
    count = f"{least} to {most}" if least < most else f"{most}"
    return Domain(
        lambda value: isinstance(value, list) and least <= len(value) <= most and all(map(item.accepts, value)),
        f"a list of {count} values, each {item.text}",
    )


ANYTHING = Domain(lambda value: True, "any value")
BOOLEAN = Domain(lambda value: type(value) is bool, "true or false")
NULL = Domain(lambda value: value is None, "null")
NUMBER = number("a number", lambda value: True)
TEXT = Domain(lambda value: isinstance(value, str), "a text")
WHOLE = whole(-(2**63))._replace(text="a whole number")
OF_TYPE = {"None": NULL, "bool": BOOLEAN, "int": WHOLE, "float": NUMBER, "str": TEXT}
"""By the name of a type in a signature."""


def any_of(options: Iterable[Domain]) -> Domain:
    united = list(options)
    text = " or ".join(dict.fromkeys(domain.text for domain in united))
    return Domain(lambda value: any(domain.accepts(value) for domain in united), text)


def as_typed(value: Any) -> str:
    """A value as a command line has it."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {as_typed(item)}' for key, item in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(as_typed, value))}]"
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def check(prefix: str, values: Mapping[str, Any], accepted: Mapping[str, Domain]) -> None:
    """ValueError names the first key below `prefix` that is unknown or missing, or whose value is not accepted."""
    check_keys(prefix, values, accepted)
    check_values(prefix, values, accepted)


def check_keys(prefix: str, values: Mapping[str, Any], accepted: Iterable[str]) -> None:
    for key in values:
        if key not in accepted:
            where = f"{prefix[:-1]} accepts" if prefix else "expected one of"
            raise ValueError(f"{prefix}{key}: no such key; {where} {', '.join(accepted)}")


def check_values(prefix: str, values: Mapping[str, Any], accepted: Mapping[str, Domain]) -> None:
    for key, domain in accepted.items():
        if key not in values:
            raise ValueError(f"{prefix}{key}: missing, expected {domain.text}")
        if not domain.accepts(values[key]):
            raise ValueError(f"{prefix}{key}={as_typed(values[key])}: expected {domain.text}")


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a configuration, each under its full key: optimizer.lr."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
