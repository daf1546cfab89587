"""Standard output and error of a command that may be missing, narrow, full or read by nobody. Knows no command."""

import contextlib
import io
import os
import sys
from typing import Any, TextIO


def prepare(work_goes_on: bool = False) -> None:
    """Makes both streams take any text: what their encoding lacks is escaped, and a closed one leads nowhere.

    With `work_goes_on`, what is written once nobody can read it any more, or once the disk is full, is dropped. It
    raises nothing then, as by `python -m cifarsweep | head -1`.
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
            if work_goes_on:
                stream.flush()
                setattr(sys, name, _lasting(stream))


def discard(stream: TextIO | io.FileIO) -> None:
    """From now on whatever is written there goes nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)


def write_line(text: str, stream: TextIO | None) -> None:
    """The line, as far as the stream takes it. That nobody can read it is no reason for work to stop."""
    if stream is not None:
        encoding = stream.encoding or "utf-8"
        with contextlib.suppress(OSError, ValueError):  # ValueError: it is closed
            print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


class _Lasting(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            discard(self)
            return len(data)


def _lasting(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    raw = _Lasting(stream.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )
