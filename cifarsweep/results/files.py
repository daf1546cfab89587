"""Files that are written whole or not at all. Reading one names its damage. Knows no file by its name."""

import csv
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import IO, Any, Self

import yaml

YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there


class Corrupt(ValueError):
    """A file of a run that cannot be what it should be. The message names it."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path


def set_aside(path: Path) -> Path:
    """Renames a corrupt file or folder to *.corrupt, or *.2.corrupt and so on; its new name."""
    aside = path.with_name(f"{path.name}.corrupt")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.{number}.corrupt")
    path.rename(aside)
    return aside


@contextmanager
def atomic(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file that appears under its name whole and synced to disk, or not at all. An OSError names it.

    Half a surrogate pair, which JSON can hold and UTF-8 cannot, is written as an escape.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        text: Any = {} if "b" in mode else {"encoding": "utf-8", "newline": "", "errors": "backslashreplace"}
        with os.fdopen(descriptor, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's 0600 would hide results from a group
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@cache
def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: Any) -> None:
    """Records in `value` become objects."""
    with atomic(path) as file:
        json.dump(value, file, indent=1, ensure_ascii=False, default=Record.as_dict)
        file.write("\n")


def read_json(path: Path) -> Any:
    """The file's value; Corrupt where it is no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise Corrupt(path, f"not a JSON file ({error})") from error


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Comma-separated, floats at full precision, None as an empty cell."""
    with atomic(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def read_csv(path: Path, columns: list[str]) -> Iterator[dict[str, str]]:
    """The rows that `write_csv` wrote, one by one. ValueError where the columns are others."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != columns:
            raise ValueError(f"columns {reader.fieldnames}")
        yield from reader


@dataclass(frozen=True, kw_only=True)
class Record:
    """An object in a JSON file. Keys that are not among the fields stay in `further` and are written again.

    A value that the file does not have is None. A field with a default is left out of the file where it is None.
    """

    further: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        names = {item.name for item in fields(cls)} - {"further"}
        further = {key: value for key, value in values.items() if key not in names}
        return cls(**{name: values.get(name) for name in names}, further=further)

    def as_dict(self) -> dict[str, Any]:
        """The object of the file; records in it stay records, which `write_json` writes."""
        present = ((item, getattr(self, item.name)) for item in fields(self) if item.name != "further")
        values = {item.name: value for item, value in present if value is not None or item.default is MISSING}
        return values | self.further
