"""Command lines that answer a mistake in one line, with exit code 1. Knows no command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Without argparse's usage, which is often longer than what is wrong; `--help` has it."""
        print(f"{message}; --help shows what is accepted", file=sys.stderr)
        sys.exit(1)


def exit_code(main: Callable[[], int]) -> int:
    """Of a command that Ctrl-C or the reader of a pipe may end, which needs no traceback."""
    try:
        code = main()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # as `| head` leaves it; Python would complain again at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
