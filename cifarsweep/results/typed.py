"""Records in JSON files: fields of the kinds that their annotations say, sealed with a digest. Knows none of them."""

import hashlib
import json
import reprlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import cache, partial
from itertools import repeat
from pathlib import Path
from types import MappingProxyType, NoneType, UnionType
from typing import Any, ClassVar, Literal, Self, Union, cast, get_args, get_origin

from cifarsweep.results.files import Corrupt, read_json, write_json
from cifarsweep.results.identity import FORMAT


class Unexpected(ValueError):
    """A value that is not of its kind. `where` is its place in the record, such as trials[3].number."""

    def __init__(self, value: Any, expected: str) -> None:
        super().__init__()
        self.value, self.expected, self.where = value, expected, ""

    def inside(self, place: str) -> Self:
        self.where = place + self.where
        return self

    def __str__(self) -> str:
        return f"{self.where.removeprefix('.') or 'it'}={reprlib.repr(self.value)}: expected {self.expected}"


Read = Callable[[Any], Any]
"""Returns a value of its kind as a record holds it, and raises Unexpected for any other."""


@cache
def _reader(kind: Any) -> Read:  # of a field's annotation
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value: value
    if origin in (UnionType, Union):
        (kind_if_given,) = (option for option in inner if option is not NoneType)
        return partial(_read_optional, _reader(kind_if_given))
    if origin is Literal:
        return partial(_read_plain, inner.__contains__, f"one of {', '.join(inner)}")
    if origin is list:
        return partial(_read_list, _reader(inner[0]))
    if origin in (dict, Mapping):
        return partial(_read_object, _reader(inner[1]))
    if issubclass(kind, Record):
        return cast(type[Record], kind).of
    return _PLAIN[kind]


def _read_plain(accepts: Callable[[Any], bool], expected: str, value: Any) -> Any:
    if accepts(value):
        return value
    raise Unexpected(value, expected)


def _read_each(places: Iterable[str], reads: Iterable[Read], values: Iterable[Any]) -> list[Any]:
    checked = []
    for place, read, value in zip(places, reads, values, strict=False):
        try:
            checked.append(read(value))
        except Unexpected as error:
            raise error.inside(place) from None
    return checked


def _read_optional(read: Read, value: Any) -> Any:
    if value is None:
        return None
    try:
        return read(value)
    except Unexpected as error:
        if not error.where:
            error.expected += " or null"
        raise


def _read_list(read: Read, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise Unexpected(value, "a list")
    return _read_each((f"[{i}]" for i in range(len(value))), repeat(read), value)


def _read_object(read: Read, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Unexpected(value, "an object")
    places, keys = (f".{key}" for key in value), map(_read_text, value)
    return dict(zip(keys, _read_each(places, repeat(read), value.values()), strict=True))


def _read_text(value: Any) -> str:
    if isinstance(value, str):
        # JSON can hold half a surrogate pair, which no other file can.
        return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()
    raise Unexpected(value, "text")


def _is_whole(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63


def whole(text: str) -> int:
    """The whole number that a cell holds. ValueError where it is none, or none that 64 bits hold."""
    return cast(int, _PLAIN[int](int(text)))


_PLAIN: dict[type, Read] = {
    int: partial(_read_plain, _is_whole, "a whole number"),
    float: partial(_read_plain, lambda value: type(value) is float or _is_whole(value), "a number"),
    bool: partial(_read_plain, lambda value: isinstance(value, bool), "true or false"),
    str: _read_text,
}


@cache
def _readers(record: "type[Record]") -> dict[str, Callable[[Any], Any]]:
    kinds = {item.name: cast(Any, item.type) for item in fields(record) if item.name != "further"}
    return {name: _reader(kind | None if record.may_lack_values else kind) for name, kind in kinds.items()}


@dataclass(frozen=True, kw_only=True)
class Record:
    """An object in a JSON file. Keys that are not among the fields stay in `further` and are written again.

    A value that the file does not have is None. A field with a default is left out of the file where it is None.
    """

    may_lack_values: ClassVar[bool] = False
    """Whether any value may be None, whatever its field says, as an older version did not write it."""
    further: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Unexpected where a value is of another kind than its field says."""
        if not isinstance(values, Mapping):
            raise Unexpected(values, "an object")
        readers = _readers(cast(Any, cls))  # which mypy takes for no hashable object
        known = _read_each((f".{name}" for name in readers), readers.values(), map(values.get, readers))
        further = {key: value for key, value in values.items() if key not in readers}
        return cls(**dict(zip(readers, known, strict=True)), further=further)

    def as_dict(self) -> dict[str, Any]:
        """The object of the file; records in it stay records, which `write_json` writes."""
        present = ((item, getattr(self, item.name)) for item in fields(self) if item.name != "further")
        values = {item.name: value for item, value in present if value is not None or item.default is MISSING}
        return values | self.further


@dataclass(frozen=True, kw_only=True)
class FileRecord(Record):
    """A record that is a file of its own, named `file`, with a digest of its content in it."""

    file: ClassVar[str]
    holds: ClassVar[str]
    made_again_by: ClassVar[str]
    """What to do where the file is damaged, if no more is known."""
    instead: ClassVar[str]
    """What to do where it is of a newer version."""
    digests: dict[str, str] | None = field(default_factory=dict)
    """SHA-256 of other files, by name. None where an older version wrote the record, which stays without."""

    @classmethod
    def advice(cls, folder: Path) -> str:
        """What to do where the file in this folder is damaged."""
        return cls.made_again_by

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """None where there is no such file. Corrupt where it is damaged; ValueError where a newer version wrote it."""
        path = folder / cls.file
        return cls.of_file(path) if path.exists() else None

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """OSError where there is no such file; else as `read`."""
        try:
            values = read_json(path)
        except Corrupt as error:
            raise Corrupt(error.path, error.reason, partial(cls.advice, path.parent)) from error
        version = values.get("format") if isinstance(values, dict) else None
        if type(version) is int and version > FORMAT:
            newer = f"format={version}: a newer version of cifarsweep wrote it, this one reads format {FORMAT}"
            raise ValueError(f"{path}: {newer}; {cls.instead}")
        try:
            if version is not None and version != FORMAT:
                raise ValueError(f"format={reprlib.repr(version)}: expected {FORMAT}")
            return cls.of(unsealed(values, cls.file))
        except (ValueError, RecursionError) as error:
            raise Corrupt(path, f"not {cls.holds} ({error})", partial(cls.advice, path.parent)) from error

    def write(self, folder: Path) -> Self:
        """Writes it, and returns what it has written."""
        values = self.as_dict()
        digests = values.pop("digests")
        write_json(folder / self.file, values if digests is None else sealed(values, self.file, digests))
        return self


# digests


def sealed(values: Mapping[str, Any], name: str, others: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """The values with their digest under `digests`, by the name of their file, beside those of `others`."""
    content: dict[str, Any] = json.loads(json.dumps({**values, "digests": dict(others)}, default=Record.as_dict))
    content["digests"][name] = _digest_of_values(content)
    return content


def unsealed(values: Any, name: str) -> Any:
    """What `sealed` was given as values and others. ValueError where the digest is of other values.

    Values without digests, as an older version wrote them, stay as they are.
    """
    if not isinstance(values, dict) or not isinstance(values.get("digests"), dict):
        return values
    others = {key: value for key, value in values["digests"].items() if key != name}
    content = {**values, "digests": others}
    if _digest_of_values(content) != values["digests"].get(name):
        raise ValueError("damaged: its content is not what its digest says")
    return content


def _digest_of_values(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
