"""Texts for a terminal: tables, shortened names, durations. Knows nothing of what they are about."""

import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cifarsweep.terminal.command_line import without_credentials

if TYPE_CHECKING:
    from rich.table import Table


def shortened(text: str, most: int = 32) -> str:
    """At most `most` characters, all printable. Leaves out the middle, as the ends of names tell runs apart."""
    text = printable(text)
    kept = most - 1
    return text if len(text) <= most else f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def line(text: str) -> str:
    """The text as it may be printed: one line, without escape sequences and credentials."""
    return printable(without_credentials(text))


def printable(text: str) -> str:
    """Replaces characters that would move a cursor or change a colour."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def one_line(error: BaseException) -> str:
    """The message on one line; of a file's error its name and the reason."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return " ".join(str(error).split())


def count(number: int, noun: str) -> str:
    """1 seed, 45,000 training images, 10 classes, 2 searches."""
    plural = f"{noun}es" if noun.endswith(("s", "rch")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def listed(names: Sequence[str], most: int | None = None, others: str = "others") -> str:
    """a, b and c; of more than `most` their number: 5 others."""
    if most is not None and len(names) > most:
        return f"{len(names)} {others}"
    *first, last = names or [""]
    return f"{', '.join(first)} and {last}" if first else last


def duration(seconds: float) -> str:
    """42 s, 5 min or 1.5 h."""
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 1 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"


def show(header: Sequence[str], rows: Iterable[Sequence[str]], left: Iterable[str] = ()) -> None:
    """Prints a table; columns that are not among `left` are flush right."""
    if sys.stdout.isatty():
        from rich.console import Console

        Console(highlight=False).print(rich_table(header, rows, left))
    else:
        print(*map(line, plain_lines(header, rows, left)), sep="\n")


def plain_lines(header: Sequence[str], rows: Iterable[Sequence[str]], left: Iterable[str] = ()) -> list[str]:
    """Aligned columns, two spaces between them, however long that makes a line."""
    cells = [list(header), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    sides = ["<" if name in set(left) else ">" for name in header]
    aligned = [f"{side}{width}" for side, width in zip(sides, widths, strict=True)]
    return ["  ".join(map(format, row, aligned)).rstrip() for row in cells]


def rich_table(header: Sequence[str], rows: Iterable[Sequence[str]], left: Iterable[str] = ()) -> "Table":
    """Headers of several words on two lines, so that columns are narrow; texts fold where the terminal is narrow."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0))
    for name in header:
        is_left = name in set(left)
        heading = re.sub("[ _]", lambda match: f"{match[0].strip()}\n", name, count=1)
        table.add_column(heading, justify="left" if is_left else "right", overflow="fold", no_wrap=not is_left)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # Text: a name is no markup
    return table
