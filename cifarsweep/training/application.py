"""The application: the task that trains one configuration, and what the search engine needs to know of it."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from cifarsweep import trial
from cifarsweep.results import folders, identity, records, sweeps
from cifarsweep.results.records import Description, RunResult, Status
from cifarsweep.results.study_records import EARLY
from cifarsweep.sweeper import local
from cifarsweep.sweeper.application import Application, Cost, KnownRun
from cifarsweep.terminal import errors, progress
from cifarsweep.terminal.command_line import without_credentials
from cifarsweep.training import schema, sweep
from cifarsweep.training.configuration import Configuration, check_choices, chosen_options, plain

if TYPE_CHECKING:  # Optuna, which a single run need not wait for
    from cifarsweep.sweeper.settings import Settings
    from cifarsweep.sweeper.space import Space

OF_A_SWEEP = re.compile(r"[+~]*hydra[./](sweep|sweeper|launcher)\b")
"""An override of what a single run does not use."""


class ImageTraining(Application):
    """What the engine is told of runs that train an image classifier."""

    unit = "epoch"
    objectives = ("val_accuracy",)
    directions = ("maximize",)
    known_objectives = ("val_accuracy", "val_loss", "train_seconds", "params", "flops")
    """The test set is not among them: it is for the end."""
    final_objective = "test_accuracy"
    final_on: ClassVar[Mapping[str, Mapping[str, Any]]] = {"train": {}, "train_val": {"data.val_size": 0}}
    seconds_figure = "train_seconds"
    name_key = "name"
    keeps_state = True
    sweep_keys = ("name", "search", "experiment", "study")

    def check(self, config: DictConfig, *, is_trial: bool = False) -> None:
        values = plain(config)
        schema.check(values)
        if "hydra" in config:
            check_choices(chosen_options(config.hydra))
        if is_trial and values["data"].get("val_size") == 0:
            raise ValueError("data.val_size=0: expected validation images, as a search never sees the test set")

    def check_search(self, config: DictConfig, settings: "Settings", space: "Space") -> None:
        epochs = self.max_steps(config)
        if settings.max_steps != epochs:
            expected = f"expected trainer.epochs, which is {epochs}"
            raise ValueError(f"hydra.sweeper.max_steps={settings.max_steps}: {expected}")
        if config.force and settings.pauses:
            raise ValueError("force=true: expected false with trials that pause, as none would go on where it stopped")
        if settings.budget and "trainer.epochs" in space.keys:
            expected = "expected trials:N where trainer.epochs is searched"
            raise ValueError(f"hydra.sweeper.budget={settings.budget}: {expected}")
        if settings.finalists and (settings.objectives, settings.directions) != (self.objectives, self.directions):
            expected = "expected 0, or objectives=val_accuracy and direction=maximize"
            raise ValueError(f"hydra.sweeper.finalists={settings.finalists}: {expected}")

    def determines(self, config: DictConfig) -> dict[str, Any]:
        return identity.identity(plain(config), data_fingerprint="")

    def max_steps(self, config: DictConfig) -> int | None:
        return OmegaConf.select(config, "trainer.epochs")  # type: ignore[no-any-return]

    def cost(self, config: DictConfig, choices: Mapping[str, str], threads: int) -> Cost:
        from cifarsweep.training import cost

        return cost.measure(Configuration.of(config, choices), threads)

    def known_runs(self, config: DictConfig, figures: Sequence[str]) -> Iterator[KnownRun]:
        """The complete runs in outputs/runs. What cannot be read is named and passed over, as by the report."""
        for run_dir in sorted((Path(config.outputs) / "runs").glob("*/")):
            try:
                result = RunResult.read(run_dir)
                if result is None or result.status != "complete":
                    continue
                result.check(run_dir)
                recorded = records.read_config(run_dir)
                values, choices = [result.as_dict()[name] for name in figures], recorded["run"]["choices"]
            except (ValueError, OSError, KeyError) as error:
                progress.line(f"not counted as a trial, cannot be read: {errors.one_line(error)}")
            else:
                if None not in values:
                    yield KnownRun(run_dir.name, recorded, choices, values, partial(_is_of, result))

    def device(self, config: DictConfig) -> str:
        return str(config.trainer.device)

    def start_sweep(self, config: DictConfig, num_jobs: int | None = None) -> None:
        sweep.start(config, num_jobs)

    def lost(self, config: DictConfig, reason: str) -> None:
        folder = Path(config.hydra.sweep.dir)
        told = sweeps.register_job(folder, config.hydra.job.num, _words(config.hydra.overrides.task), error=reason)
        job = sweeps.SweepRecord.read(folder).jobs[told.key]
        if job.run:
            records.mark_failed(folders.run_of(folder, job.run, job.path), reason)

    def note(self, config: DictConfig) -> str:
        runs = Path(config.outputs, "runs").absolute()
        return f"A trial's user attribute `run` is the name of its run's folder in `{runs}`. "

    def drop_state(self, folder: Path, facts: Mapping[str, Any]) -> None:
        if run_dir := folders.runs_of(folder).get(str(facts.get("run"))):
            records.drop_checkpoint(run_dir)

    def command(self, overrides: Iterable[str]) -> list[str]:
        return ["python", "-m", "cifarsweep", *overrides]


def _is_of(result: RunResult, config: DictConfig) -> bool:
    """Whether this configuration, on the images of that run, would train it again."""
    return identity.run_id(identity.identity(plain(config), result.data_fingerprint)) == result.run_id


def task(cfg: DictConfig) -> Any:
    """One job of Hydra: trains the configuration or finds it trained, and returns what a sweeper expects.

    That is its validation accuracy, or in a search a list of the objectives. A single run ends by SystemExit with the
    error as its cause, as Hydra prints a line of its own for an Exception.
    """
    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN:
        return _sweep_job(cfg, job)
    try:
        _check_is_no_sweep(job)
        return _train(cfg, job, announce=lambda run: None).val_accuracy
    except Exception as error:
        raise SystemExit(1) from error


def _check_is_no_sweep(job: Any) -> None:
    """ValueError where a single run was told how to sweep, which it would not do."""
    told = [word for word in job.overrides.hydra if OF_A_SWEEP.match(word)]
    if job.sweeper.get("params") or "join" in job.sweeper:
        options = chosen_options(job)
        chosen = ((group, options.get(group)) for group in ("search", "experiment"))
        told = [f"{group}={option}" for group, option in chosen if option not in (None, "none")] + told
    if told:
        raise ValueError(f"{told[0]}: is for a sweep, expected -m before it, or a single run's keys only")


task.application = ImageTraining()  # type: ignore[attr-defined]


def _words(overrides: Iterable[str]) -> list[str]:
    """As they are recorded: the address of a tracker may hold a password."""
    return [*map(without_credentials, overrides)]


def _sweep_job(cfg: DictConfig, job: Any) -> Any:
    if sweep.opened() is None:  # not the process that sweeps
        local.end_with_launcher()
    folder = Path(job.runtime.cwd, job.sweep.dir)  # hydra.job.chdir has changed the current one
    register = partial(sweeps.register_job, folder, job.job.num, _words(job.overrides.task))

    def announce(run_dir: Path) -> None:
        register(run=run_dir.absolute())
        trial.record(run=run_dir.name)

    def describe(about: Description) -> None:
        trial.record(params=about.params, flops=about.flops)

    try:
        result = _train(cfg, job, announce, describe)
    except trial.Pruned:  # by what is known before training
        raise
    except Exception as error:
        register(error=errors.one_line(error))
        raise
    searched = trial.current()
    if searched is None:
        return result.val_accuracy
    if result.status in EARLY:
        raise trial.Pruned
    if result.status == "diverged":
        raise ValueError(str(result))
    return [result.as_dict()[name] for name in searched.objectives]


def _train(
    cfg: DictConfig,
    job: Any,
    announce: Callable[[Path], None],
    describe: Callable[[Description], None] = lambda about: None,
) -> RunResult:
    configuration = Configuration.of(cfg, chosen_options(job))
    folders.check_writable(Path(configuration.values["outputs"]), "outputs")
    from cifarsweep.training import run  # PyTorch, 1.8 s, which an argument error need not wait for

    answers: dict[int, Status | None] = {}

    def report(epoch: int, figures: Mapping[str, Any]) -> Status | None:
        """Reports each epoch once: of a recorded run that is trained further, the first epochs come twice."""
        if epoch not in answers:
            stops = trial.report(epoch, figures)
            answers[epoch] = ("paused" if trial.pauses() else "pruned") if stops else None
        return answers[epoch]

    swept = Path(job.runtime.cwd, job.sweep.dir) if job.mode == RunMode.MULTIRUN else None
    return run.train(configuration, report, announce, describe, swept)
