"""The boundary around everything that a command does: an error becomes a line on stderr and an exit code."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from cifarsweep.terminal import errors, formatting, streams
from cifarsweep.terminal.command_line import without_credentials

Arguments = ParamSpec("Arguments")

MISTAKE, BUG, INTERRUPTED = 1, 70, 130
"""Exit codes: for what the user can mend, for any other error (EX_SOFTWARE of sysexits.h), and after Ctrl-C."""


def command(main: Callable[Arguments, int], work_goes_on: bool = False) -> Callable[Arguments, int]:
    """The command, which returns an exit code whatever happens in it.

    With `work_goes_on` it does all its work though nobody can read what it prints. Otherwise a closed pipe, as
    `| head` leaves it, ends it well, and a full disk behind stdout ends it as an error.
    """

    @wraps(main)
    def answering(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        streams.prepare(work_goes_on)
        code = 0
        try:
            code = answered(lambda: main(*args, **kwargs))
            sys.stdout.flush()
            return code
        except KeyboardInterrupt:
            return INTERRUPTED
        except streams.OutputLost as lost:
            streams.discard(sys.stdout)  # Python would complain of it again at its end
            if isinstance(lost.__cause__, BrokenPipeError):
                return code
            streams.print_error(formatting.one_line(lost.__cause__ or lost))
            return MISTAKE

    return answering


def run(module: str) -> int:
    """Calls the command of this module. What is raised by its imports is answered like what the command raises."""
    error: BaseException

    @command
    def not_imported() -> int:
        raise error

    try:
        main: Callable[[], int] = importlib.import_module(module).main
    except BaseException as raised:
        error, main = raised, not_imported
    return main()


def answered(work: Callable[[], int], explain: Callable[[BaseException], str] = errors.one_line) -> int:
    """The work's exit code, or that of its error, which is one line on stderr.

    `explain` words what the user can mend; HYDRA_FULL_ERROR=1 shows its traceback. KeyboardInterrupt passes, and so
    does SystemExit, unless an error is its cause: Hydra has words of its own for an Exception of a task or a callback.
    """
    try:
        return work()
    except (KeyboardInterrupt, streams.OutputLost):
        raise
    except BaseException as raised:
        error = raised.__cause__ if isinstance(raised, SystemExit) and raised.__cause__ else raised
        if isinstance(error, SystemExit):
            raise
    if os.environ.get("HYDRA_FULL_ERROR") == "1":
        _print_traceback(error)
    line, code = _answer(error, explain)
    streams.print_error(line)
    return code


def _answer(error: BaseException, explain: Callable[[BaseException], str]) -> tuple[str, int]:
    try:
        if errors.is_users(error):
            return explain(error), MISTAKE
    except Exception as another:
        error = another
    message = " ".join("".join(traceback.format_exception_only(error)).split())
    place = _keep_traceback(error)
    return f"{message}; this is a bug of cifarsweep, or of a class that you gave it; {place}", BUG


def _keep_traceback(error: BaseException) -> str:
    """Where the traceback is: in a file, or on stderr where no file can be written."""
    text = without_credentials("".join(traceback.format_exception(error)))
    import tempfile  # 5 ms, in which nobody answers Ctrl-C yet where a command starts

    try:
        descriptor, path = tempfile.mkstemp(prefix="cifarsweep-", suffix=".txt")
        with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        _print_traceback(error)
        return "its traceback is above"
    return f"its full traceback is in {path}"


def _print_traceback(error: BaseException) -> None:
    for line in "".join(traceback.format_exception(error)).splitlines():
        streams.print_error(line)
