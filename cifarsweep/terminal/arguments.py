"""Command lines that answer a mistake in one line, with exit code 1. Knows no command."""

import argparse
import sys
from typing import NoReturn

from cifarsweep.terminal import streams


def refuse(message: str) -> NoReturn:
    """Ends the process without argparse's usage, which is often longer than what is wrong; `--help` has it."""
    streams.print_error(f"{message}; --help shows what is accepted")
    sys.exit(1)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        refuse(message)
