"""Conditions on named values, as a person types them: 'model=layers5 & optimizer.lr>0.05'. Knows no name.

A condition is one comparison, or several with & between them, all of which must hold. A comparison is a name, one of =
!= < <= > >=, and a value. Sweeps and lists of runs share this grammar, and the report's page has it in conditions.js.
Nothing in a text is ever evaluated.
"""

import fnmatch
import operator
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, TypeGuard

_COMPARISON = re.compile(r"\s*([\w.@/:-]+)\s*(!=|<=|>=|==?|<|>)(.*)", re.DOTALL)
# A quote opens a text only where a value begins: can't is a word.
_VALUE = re.compile(r"\s*(?:'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\")\s*(?=[,&]|$)|(?P<word>[^,&]*)")
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_NOTHING = ("", "null")


@dataclass(frozen=True)
class Comparison:
    key: str
    sign: str
    values: tuple[str, ...]
    """One, or with = and != several. Each of these may be a pattern for texts, as layers*."""

    def __str__(self) -> str:
        return f"{self.key}{self.sign}{','.join(self.values)}"

    def holds(self, value_of: Callable[[str], Any]) -> bool:
        """`value_of` a name that has no value is None, which equals nothing but an empty value, or null."""
        value = value_of(self.key)
        if self.sign in ("=", "!="):
            return any(_equals(value, wanted) for wanted in self.values) == (self.sign == "=")
        wanted: Any = number(self.values[0]) if is_number(value) else self.values[0]
        if value is None or isinstance(value, str) != isinstance(wanted, str):
            return False
        return bool(_ORDER[self.sign](value, wanted))


@dataclass(frozen=True)
class Condition:
    comparisons: tuple[Comparison, ...]

    def __str__(self) -> str:
        return " & ".join(map(str, self.comparisons))

    def holds(self, value_of: Callable[[str], Any]) -> bool:
        return all(comparison.holds(value_of) for comparison in self.comparisons)


def parse(text: str, check_key: Callable[[str], None], numbers: Collection[str] = ()) -> Condition:
    """ValueError says what is not accepted; `check_key` raises it for a name. Values of `numbers` are numbers."""
    comparisons, rest = [], text
    while True:
        match = _COMPARISON.fullmatch(rest)
        if match is None:
            raise ValueError(f"{text}: expected a name, one of = != < <= > >=, and a value; & before a further name")
        key, sign, rest = match.groups()
        check_key(key)
        values, rest = _values(rest)
        comparisons.append(_checked(Comparison(key, sign.replace("==", "="), values), key in numbers))
        if not rest:
            return Condition(tuple(comparisons))
        rest = rest[1:]


def _values(text: str) -> tuple[tuple[str, ...], str]:
    """The values at its beginning, and the text behind them: nothing, or & and more."""
    values: list[str] = []
    while True:
        match = _VALUE.match(text)
        assert match is not None  # a word may be empty
        found = next(value for value in match.groups() if value is not None)
        values.append(found if match["word"] is None else found.strip())
        text = text[match.end() :]
        if not text.startswith(","):
            return tuple(values), text
        text = text[1:]


def _checked(comparison: Comparison, of_numbers: bool) -> Comparison:
    has_order = comparison.sign in _ORDER
    if has_order and len(comparison.values) > 1:
        raise ValueError(f"{comparison}: expected one value; = takes several")
    given = [value for value in comparison.values if has_order or value not in _NOTHING]
    if of_numbers and any(isinstance(number(value), str) for value in given):
        raise ValueError(f"{comparison}: expected a number")
    return comparison


def _equals(value: Any, wanted: str) -> bool:
    if value is None or wanted == "":
        return value is None and wanted in _NOTHING
    if isinstance(value, bool):
        return wanted == str(value).lower()
    return bool(value == number(wanted)) if is_number(value) else fnmatch.fnmatchcase(str(value), wanted)


def is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(text: str) -> int | float | str:
    """The text itself where it is none. A whole number stays one: a large seed has more digits than a float."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
