"""Standard output and error of a command that may be missing, narrow, full or read by nobody. Knows no command."""

import contextlib
import io
import os
import sys
from typing import Any, TextIO

from cifarsweep.terminal import formatting

LONGEST_ERROR = 2000
"""Characters. An error may end with a whole command to type, which two long paths make longer than 500."""


class OutputLost(Exception):
    """Standard output takes no more: nobody reads it, or the disk is full. Its cause is the OSError that says so."""


def prepare(work_goes_on: bool = False) -> None:
    """Makes both streams take any text: what their encoding lacks is escaped, and a closed one leads nowhere.

    What is written to stderr once nobody can read it any more, or once the disk is full, is dropped. What is written to
    stdout is dropped then, too, with `work_goes_on`, as by `python -m cifarsweep | head -1`; OutputLost without it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.TextIOWrapper(io.FileIO(descriptor, "w", closefd=False), encoding="utf-8"))
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            if stream is getattr(sys, f"__{name}__"):  # not where a test or an application has put another one
                stream.flush()
                setattr(sys, name, _wrapped(stream, work_goes_on or name == "stderr"))


def discard(stream: TextIO | io.FileIO) -> None:
    """From now on whatever is written there goes nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def print_line(text: str) -> None:
    """A line on stdout."""
    print(formatting.line(text))


def print_error(text: str) -> None:
    """A line on stderr, as far as that takes it. The middle of one that nobody would read to its end is left out."""
    write_line(formatting.shortened(formatting.line(text), LONGEST_ERROR), sys.stderr)


def write_line(text: str, stream: TextIO | None) -> None:
    """The line, as far as the stream takes it. That nobody can read it is no reason for work to stop."""
    if stream is not None:
        encoding = stream.encoding or "utf-8"
        with contextlib.suppress(OSError, ValueError, OutputLost):  # ValueError: it is closed
            line = formatting.line(text).encode(encoding, "backslashreplace").decode(encoding)
            print(line, file=stream, flush=True)


class _Output(io.FileIO):
    """A stream's file, which drops what it cannot take, or raises OutputLost."""

    drops = False

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if not self.drops:
                raise OutputLost from error
            discard(self)
            return len(data)


def _wrapped(stream: io.TextIOWrapper, drops: bool) -> io.TextIOWrapper:
    raw = _Output(stream.fileno(), "wb", closefd=False)
    raw.drops = drops
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
