"""The command line: Hydra's jobs, error lines, exit codes and the report after a sweep. Trains nothing itself."""

from __future__ import annotations

import argparse
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from cifarsweep import trial
from cifarsweep.results import identity, provenance, records, sweeps
from cifarsweep.results.records import RunResult
from cifarsweep.sweeper import local
from cifarsweep.terminal import errors, progress
from cifarsweep.terminal.arguments import Parser
from cifarsweep.training import groups, schema
from cifarsweep.training.configuration import Configuration, plain

TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM, as of a cluster that takes the machine away."""

NO_OPTION = "Config group override must be"
"""What Hydra says of an option that is no text, as model=3, without its name."""


class SweepCallback(Callback):
    """Opens the sweep's folder at the start of a multirun, under any launcher."""

    opened: ClassVar[Path | None] = None
    owned: ClassVar[Any] = None
    """The lock on the sweep's name, to the end of this process; a sweeper that lets others join has its own rules."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            schema.check_values({"name": config.name, "outputs": config.outputs})
            folder = Path(config.hydra.sweep.dir).absolute()
            if OmegaConf.select(config, "hydra.sweeper.dry_run"):  # which leaves nothing
                return
            if not _can_be_joined(config):
                SweepCallback.owned = sweeps.own_sweep(folder)
                if SweepCallback.owned is None:
                    raise ValueError(
                        f"name={folder.name}: another process runs this sweep; wait, or give another name="
                    )
            sweeps.open_sweep(folder, provenance.command_line(), plain(config, resolve=False))
        except Exception as error:
            raise _Failed from error
        SweepCallback.opened = folder


class _Failed(BaseException):
    """Carries an error past Hydra, which catches Exceptions of callbacks and jobs and prints lines of its own."""


def main() -> int:
    """Does what sys.argv says; the exit code."""
    conf = groups.folder()
    show_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing them over several lines
    argparse.ArgumentParser.error = Parser.error  # type: ignore[assignment, method-assign]  # as Hydra makes its own
    # It may stand between overrides, where argparse would take what follows for no argument of its own.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word not in ("-m", "--multirun"))
    _unwind_on_signals()
    try:
        code = _run(conf, show_traceback)
        return code if not SweepCallback.opened else max(code, _report(SweepCallback.opened))
    except KeyboardInterrupt:
        print(f"interrupted; {_resuming()}", file=sys.stderr)
        return 130
    except SystemExit as stop:
        if stop.code == TERMINATED:
            print(f"terminated; {_resuming()}", file=sys.stderr)
        raise


def _run(conf: Path, show_traceback: bool) -> int:
    """Has Hydra run the task; the exit code, after a line on what a user can mend."""
    try:
        hydra.main(version_base="1.3", config_path=str(conf), config_name="config")(task)()
    except (_Failed, Exception) as raised:
        error = raised.__cause__ if isinstance(raised, _Failed) else raised
        assert error is not None
        if show_traceback or not errors.is_users(error):
            raise error from error.__cause__
        line = _no_option(conf, sys.argv[1:]) if str(error).startswith(NO_OPTION) else None
        print(line or errors.one_line(error, partial(known_keys, conf, sys.argv[1:])), file=sys.stderr)
        return 1
    return 0


def _no_option(conf: Path, words: list[str]) -> str | None:
    """Of the first word that chooses none of a group's options."""
    known = groups.found([conf])
    for word in words:
        group, _, value = word.partition("=")
        for option in value.split(",") if group in known else ():
            if option not in known[group]:
                return f"{group}={option}: no such option, expected one of {', '.join(known[group])}"
    return None


def _unwind_on_signals() -> None:
    """Ctrl-C and SIGTERM unwind the stack, so that everything is left in order; a second Ctrl-C ends it at once."""

    def unwind(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, end_at_once)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(TERMINATED)

    def end_at_once(number: int, frame: Any) -> None:
        progress.display.abandon()
        os._exit(130)  # worker processes end with this one

    signal.signal(signal.SIGINT, unwind)
    signal.signal(signal.SIGTERM, unwind)


def _resuming() -> str:
    """The command that goes on where this one stopped; or starts again, where runs of it would be trained anew."""
    words, sweep = provenance.command_line(), SweepCallback.opened
    if sweep and not any(word.startswith("name=") for word in words):
        words.append(f"name={sweep.name}")
    if not sweep and "force=true" in words:  # the one run that it was about has a checkpoint, no longer a result
        words.remove("force=true")
    does = "starts again" if "force=true" in words else "goes on"
    return f"this {does}: {shlex.join(words)}"


def _report(sweep: Path) -> int:
    """Writes and shows the report of a sweep that had jobs; an exit code, as a missing graph is a failure."""
    sweeps.close_sweep(sweep)
    if not sweeps.SweepRecord.read(sweep).jobs:
        return 0
    from cifarsweep import report

    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # Hydra's console handler would show its font cache
    return report.main([str(sweep)])


def task(cfg: DictConfig) -> Any:
    """One job of Hydra: trains the configuration, or finds it trained; its validation accuracy, as sweepers expect."""
    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN:
        return _sweep_job(cfg, job)
    try:
        return _train(cfg, job, announce=lambda run: None).val_accuracy
    except Exception as error:
        raise _Failed from error


def expect(config: DictConfig, num_jobs: int) -> None:
    """Records how many jobs a sweep has, for whoever watches it; a search counts its trials itself."""
    if not _can_be_joined(config):
        sweeps.expect_jobs(Path(config.hydra.sweep.dir).absolute(), num_jobs)


def _can_be_joined(config: DictConfig) -> bool:
    """Whether other processes may work on the same sweep: whether it is a search."""
    return OmegaConf.select(config, "hydra.sweeper.join") is not None


def check(cfg: DictConfig) -> None:
    """ValueError where a value is outside its domain."""
    schema.check(plain(cfg))


def lost(cfg: DictConfig, reason: str) -> None:
    """Records that the process of a sweep's job died, once no further start is due."""
    job = cfg.hydra.job
    overrides = list(cfg.hydra.overrides.task)
    sweep = Path(cfg.hydra.sweep.dir)
    sweeps.register_job(sweep, job.num, overrides, error=reason)
    run = sweeps.job_of_sweep(sweep, job.num, overrides).run
    if run:
        records.mark_failed(Path(cfg.outputs) / "runs" / run, reason)


def check_search(cfg: DictConfig) -> None:
    """ValueError where a configuration cannot be a trial of a search."""
    config = plain(cfg)
    schema.check(config)
    if config["data"]["val_size"] == 0:
        raise ValueError("data.val_size=0: expected validation images, as a search never sees the test set")


def determines(cfg: DictConfig) -> dict[str, Any]:
    """What the result of a run depends on, the content of its data left out."""
    return identity.identity(plain(cfg), data_fingerprint="")


def cost(cfg: DictConfig, choices: dict[str, str], threads: int) -> dict[str, Any]:
    """What a configuration would train, and how fast with so many threads."""
    from cifarsweep.training import cost

    return cost.measure(Configuration.of(cfg, choices), threads)


def _sweep_job(cfg: DictConfig, job: Any) -> Any:
    if SweepCallback.opened is None:  # not the process that sweeps
        local.end_with_launcher()
    register = partial(sweeps.register_job, Path(job.sweep.dir), job.job.num, list(job.overrides.task))

    def announce(run: str) -> None:
        register(run=run)
        trial.record(run=run)

    try:
        result = _train(cfg, job, announce)
    except Exception as error:
        register(error=errors.one_line(error))
        raise
    working_on = trial.current()
    return _objectives(result, working_on.objectives) if working_on else result.val_accuracy


def _objectives(result: RunResult, names: tuple[str, ...]) -> list[float]:
    """What a study asked for."""
    if result.status == "pruned":
        raise trial.Pruned
    if result.status == "diverged":
        raise ValueError(str(result))
    return [result.as_dict()[name] for name in names]


def _train(cfg: DictConfig, job: Any, announce: Callable[[str], None]) -> RunResult:
    configuration = Configuration.of(cfg, _choices(job))
    from cifarsweep.training import run  # PyTorch, 1.8 s, which an argument error need not wait for

    return run.train(configuration, trial.report, announce)


def compose(conf: Path, overrides: list[str]) -> tuple[DictConfig, dict[str, str]]:
    """What these overrides stand for outside of a job, and the option that was chosen in each group."""
    with hydra.initialize_config_dir(str(conf), version_base="1.3"):
        cfg = hydra.compose("config", overrides, return_hydra_config=True)
    choices = _choices(cfg.hydra)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, choices


def _choices(job: Any) -> dict[str, str]:
    return {group: option for group, option in job.runtime.choices.items() if not group.startswith("hydra/")}


def known_keys(conf: Path, words: list[str], parent: str) -> list[str]:
    """The keys below `parent` in the configuration of the groups' options that the command line's words choose."""
    known = groups.found([conf])
    chosen = [word for word in words if re.fullmatch(r"\w+=\w+", word) and word.split("=")[0] in known]
    with hydra.initialize_config_dir(str(conf), version_base="1.3"):
        node = hydra.compose("config", chosen, return_hydra_config=parent.startswith("hydra"))
    for part in parent.split(".") if parent else ():
        node = node.get(part, {})
    return [str(key) for key in node if not str(key).startswith("_")]
