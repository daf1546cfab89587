"""The command line's part in Hydra: what its parser leaves out, error lines, signals and exit codes. Trains nothing."""

import os
import shlex
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import env_override
from hydra.types import TaskFunction

from cifarsweep.results import sweeps
from cifarsweep.sweeper import hydra_compat, overrides
from cifarsweep.terminal import arguments, boundary, command_line, progress, streams
from cifarsweep.training import groups, sweep
from cifarsweep.training.application import task
from cifarsweep.training.configuration import error_line

TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM, which a cluster sends before it takes the machine away."""


def run(task: TaskFunction = task, report: Callable[[Path], int] = lambda sweep_dir: 0) -> int:
    """Has Hydra do with the task what sys.argv says, then reports on a sweep. Returns the larger exit code of both.

    A line on stderr names the command that goes on after Ctrl-C or SIGTERM.
    """
    _prepare_arguments()
    _unwind_on_signals()
    try:
        code = boundary.answered(
            partial(_run_hydra, task), partial(error_line, words=sys.argv[1:], sweeps=command_line.program())
        )
        sweep_dir = sweep.opened()
        if not sweep_dir:
            return code
        if sweeps.submitted(sweep_dir):  # to a cluster, and left there
            streams.print_line(_resuming())
            return code
        return max(code, boundary.answered(partial(report, sweep_dir)))
    except KeyboardInterrupt:
        streams.print_error(f"interrupted; {_resuming()}")
        return boundary.INTERRUPTED
    except SystemExit as end:
        if end.code == TERMINATED:
            streams.print_error(f"terminated; {_resuming()}")
        raise


def _run_hydra(task: TaskFunction) -> int:
    # Hydra then raises its errors instead of printing them over several lines
    with env_override({"HYDRA_FULL_ERROR": "1"}), hydra_compat.trusting():
        hydra.main(**hydra_compat.VERSION_BASE, config_path=str(groups.folder()), config_name="config")(task)()
    return 0


def _prepare_arguments() -> None:
    """Parses the arguments once before Hydra does, so that a mistake is one line; puts -m before the overrides.

    Where -m stands between overrides, argparse does not accept those after it. A key of the engine that had another
    name is translated, and so is name=zip(…), which Hydra's parser refuses.
    """
    words = [word.replace("hydra.sweeper.max_epochs=", "hydra.sweeper.max_steps=", 1) for word in sys.argv[1:]]
    flags = {"-m", "--multirun"}
    is_sweep = not flags.isdisjoint(words)
    sys.argv[1:] = sorted((_zip_for_hydra(word, is_sweep) for word in words), key=lambda word: word not in flags)
    parser = get_args_parser()
    parser.error = arguments.refuse  # type: ignore[method-assign]
    parser.parse_args()


def _zip_for_hydra(word: str, is_sweep: bool) -> str:
    """name=zip(…) where the sweeper looks for it, and any other word as it is. ValueError without a sweep."""
    name, _, value = word.partition("=")
    if not overrides.is_zip(value):
        return word
    if not is_sweep:
        raise ValueError(f"{word}: is for a sweep, expected -m before it")
    overrides.check_name(name)
    return f"++hydra.sweeper.params.{name}={QuotedString(value, Quote.single).with_quotes()}"


def _unwind_on_signals() -> None:
    """Ctrl-C and SIGTERM unwind the stack, so that everything is left in order; a second Ctrl-C ends it at once."""

    def unwind(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, end_at_once)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(TERMINATED)

    def end_at_once(number: int, frame: Any) -> None:
        progress.display.abandon()
        os._exit(boundary.INTERRUPTED)  # worker processes end with this one

    signal.signal(signal.SIGINT, unwind)
    signal.signal(signal.SIGTERM, unwind)


def _resuming() -> str:
    """The command that goes on where this one stopped, or that starts again where it would train runs anew."""
    words, folder = command_line.words(), sweep.opened()
    if folder and not any(word.startswith("name=") for word in words):
        words.append(f"name={folder.name}")
    if not folder and "force=true" in words:  # its only run has a checkpoint and no longer a result
        words.remove("force=true")
    does = "starts again" if "force=true" in words else "goes on"
    return f"this {does}: {shlex.join(words)}"
