"""Files that are written whole or not at all. Reading one names its damage. Knows no file by its name.

A folder of results may come from a stranger. So nothing is read, written or deleted through a symbolic link: neither
a file nor the folder that holds it may be one. Links further up are the user's own, such as `outputs` or `outputs/runs`
on another disk, and so is what a command line names, which folders.named resolves. What is read is a regular file of a
bounded size, of plain values that are nested a bounded number of times.
"""

import csv
import hashlib
import io
import json
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import IO, Any, TypeVar

import yaml

Row = TypeVar("Row")

MOST_BYTES = 2**30
"""Of a file that is read, unless its reader knows better. The record of a million jobs has 300 MB."""
MOST_YAML = 2**16
"""Bytes. A configuration has 2 kB. A number in base 60, which YAML knows, takes the square of its length to read."""
MOST_WEIGHTS = 2**32
"""Bytes of a network, and of the state of its training."""
MOST_LEVELS = 64
"""Of values in each other. A thousand would end in a RecursionError here or there."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there
AT_ONCE = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # Windows has neither
_FORMULA = re.compile("'*[=+\\-@\t\r\n＝＋－＠]")
"""How a text begins that a spreadsheet would compute (OWASP, "CSV Injection"), or that is quoted against it."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")


class Corrupt(ValueError):
    """A file or folder of results that cannot be what it should be. The message names it, and what to do if known.

    What to do may have to be looked up, so `advice` is called where the message is first needed.
    """

    def __init__(self, path: Path, reason: str, advice: Callable[[], str] = str) -> None:
        super().__init__(path, reason)
        self.path, self.reason, self._advice = path, reason, advice

    @cached_property
    def _message(self) -> str:
        return "; ".join(filter(None, [f"{self.path}: {self.reason}", self._advice()]))

    def __str__(self) -> str:
        return self._message


def check_folder(folder: Path) -> None:
    """Corrupt where the folder is a symbolic link."""
    if folder.is_symlink():
        raise Corrupt(folder, "a symbolic link, expected a folder")


def make_folder(folder: Path, below: Path | None = None) -> Path:
    """The folder, made with its parents. Corrupt where it is a symbolic link, or any folder on the way from `below`."""
    for part in (folder, *folder.parents):
        if part == (below or folder.parent):
            break
        check_folder(part)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def check_file(path: Path) -> int | None:
    """The bytes of a file, None where there is none. Corrupt for anything but a regular file in a folder of its own."""
    check_folder(path.parent)
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    _check_regular(path, status)
    return status.st_size


def _check_regular(path: Path, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise Corrupt(path, "a symbolic link, expected a file")
    if not stat.S_ISREG(status.st_mode):
        raise Corrupt(path, "a folder, expected a file" if stat.S_ISDIR(status.st_mode) else "not a regular file")


def opener(path: str, flags: int) -> int:
    """For `open`, which then takes a regular file only, and neither waits for a FIFO nor changes what it refuses."""
    check_file(Path(path))
    descriptor = os.open(path, flags | AT_ONCE, 0o666)
    try:
        _check_regular(Path(path), os.fstat(descriptor))
    except Corrupt:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def opened(path: Path, most: int = MOST_BYTES) -> Iterator[io.BufferedReader]:
    """The file, to be read. OSError where there is none; Corrupt where it has more than `most` bytes or is no file."""
    with open(path, "rb", opener=opener) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise Corrupt(path, f"{size:,} bytes, expected {most:,} or fewer")
        yield file


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """What `opened` gives."""
    with opened(path, most) as file:
        return file.read()


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """What `opened` gives; Corrupt where it is no text."""
    try:
        return read_bytes(path, most).decode()
    except UnicodeDecodeError as error:
        raise Corrupt(path, f"not text in UTF-8 ({error.reason} at byte {error.start})") from error


def remove(path: Path) -> None:
    """Deletes the file where there is one; of a symbolic link only the link."""
    check_folder(path.parent)
    path.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Renames a corrupt file or folder to *.corrupt, or *.2.corrupt and so on; its new name."""
    check_folder(path.parent)
    aside = path.with_name(f"{path.name}.corrupt")
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = path.with_name(f"{path.name}.{number}.corrupt")
    path.rename(aside)
    return aside


@contextmanager
def atomic(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file that appears under its name whole and synced to disk, or not at all. An OSError names it.

    Half a surrogate pair, which JSON can hold and UTF-8 cannot, is written as an escape.
    """
    check_folder(path.parent)
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
        json.dump(value, file, indent=1, ensure_ascii=False, default=lambda record: record.as_dict())
        file.write("\n")


def read_json(path: Path) -> Any:
    """The file's value; Corrupt where it is no JSON."""
    text = read_text(path)
    try:
        value = json.loads(text)
        if text.count("{") + text.count("[") > MOST_LEVELS:  # to look at all values takes as long as to read them
            _check_plain(value)
        return value
    except (ValueError, RecursionError) as error:
        raise Corrupt(path, f"not a JSON file ({error})") from error


def write_yaml(path: Path, value: Any) -> None:
    with atomic(path) as file:
        yaml.dump(value, file, _Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path, before: str | None = None) -> Any:
    """The plain values in the file, or in the part of it before a line; Corrupt where it is something else.

    A value that repeats is written again. Aliases, of which a few lines can stand for billions of values, are refused.
    """
    text = read_text(path, MOST_YAML)
    if before:
        text = text.partition(f"\n{before}\n")[0]
    try:
        if "&" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, _LOADER)):
            raise ValueError("expected no aliases")
        value = yaml.load(text, _LOADER)
        _check_plain(value)
        return value
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Corrupt(path, f"not plain values in YAML ({' '.join(str(error).split())})") from error


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, text: str) -> yaml.ScalarNode:
        """In double quotes where PyYAML 6 would end a line at a separator that it reads back as another one."""
        return self.represent_scalar("tag:yaml.org,2002:str", text, '"' if set(text) & {*"\x85\u2028\u2029"} else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def _check_plain(value: Any) -> None:
    """ValueError where values are not of JSON's types, too large for 64 bits, or in each other too many times."""
    level = [value]
    for _ in range(MOST_LEVELS):
        nodes = [node for node in level if isinstance(node, dict | list)]
        for leaf in level:
            if not isinstance(leaf, dict | list | str | int | float | None):
                raise ValueError(f"a value of type {type(leaf).__name__}")
            if isinstance(leaf, int) and leaf.bit_length() > 64:
                raise ValueError(f"a number of {leaf.bit_length():,} bits")
        level = [child for node in nodes for child in (node.values() if isinstance(node, dict) else node)]
        if not level:
            return
    raise ValueError(f"more than {MOST_LEVELS} levels")


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    """Comma-separated, floats at full precision, None as an empty cell, texts as `cell` makes them."""
    with atomic(path) as file:
        write_rows(file, [columns])
        write_rows(file, rows)


def write_rows(file: IO[str], rows: Iterable[Iterable[Any]]) -> None:
    csv.writer(_Lines(file), lineterminator="\r\n").writerows(map(cell, row) for row in rows)


class _Lines:
    """Ends lines by a line feed. A csv.writer that does so itself leaves texts unquoted that have a carriage return."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.removesuffix("\r\n") + "\n")


def cell(value: Any) -> Any:
    """The value as a cell of a CSV file has it: with a quote before a text that a spreadsheet would compute."""
    is_formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value)
    return f"'{value}" if is_formula else value


def read_rows(path: Path, most: int = 2**26) -> Iterator[list[str]]:
    """The rows that `write_csv` wrote, with their header, one by one. Corrupt where it is something else."""
    with opened(path, most) as file:
        try:
            for row in csv.reader(io.TextIOWrapper(file, encoding="utf-8", newline="")):
                yield [text[1:] if text.startswith("'") and _FORMULA.match(text) else text for text in row]
        except (csv.Error, UnicodeDecodeError) as error:
            raise Corrupt(path, f"not a CSV file ({error})") from error


def read_csv(path: Path, columns: list[str], read: Callable[[dict[str, str]], Row], holds: str) -> list[Row]:
    """What `read` makes of each row below the header; nothing without a file. Corrupt where that is not what it holds.

    `read` raises ValueError for a row that cannot be one.
    """
    if not path.exists():
        return []
    rows = read_rows(path)
    try:
        if next(rows, None) != columns:
            raise ValueError(f"expected the columns {', '.join(columns)}")
        return [read(dict(zip(columns, row, strict=True))) for row in rows if row]
    except Corrupt:
        raise
    except ValueError as error:
        raise Corrupt(path, f"not {holds}") from error


def digest(path: Path) -> str | None:
    """The SHA-256 of a file in hexadecimal digits; None where there is none."""
    try:
        with opened(path, MOST_WEIGHTS) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None
