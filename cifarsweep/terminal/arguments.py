"""Command lines that answer a mistake in one line, with exit code 1. Knows no command."""

import argparse
import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec

from cifarsweep.terminal import formatting, streams

Arguments = ParamSpec("Arguments")


def refuse(message: str) -> NoReturn:
    """Ends the process without argparse's usage, which is often longer than what is wrong; `--help` has it."""
    print(f"{message}; --help shows what is accepted", file=sys.stderr)
    sys.exit(1)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        refuse(message)


def one_line_errors(main: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """The command, which answers a wrong value or file in one line on stderr and with exit code 1."""

    @wraps(main)
    def answering(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except BrokenPipeError:
            raise
        except (OSError, ValueError) as error:
            print(formatting.one_line(error), file=sys.stderr)
            return 1

    return answering


def exit_code(main: Callable[[], int]) -> int:
    """The exit code of a command. It shows no traceback where Ctrl-C, a closed pipe or a full disk ends it."""
    streams.prepare()
    try:
        code = main()
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.filename is not None:
            raise
        streams.discard(sys.stdout)  # Python would complain of it again at its end
        if isinstance(error, BrokenPipeError):  # as `| head` leaves it
            return 0
        streams.write_line(formatting.one_line(error), sys.stderr)
        return 1
