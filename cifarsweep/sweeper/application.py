"""What the engine needs to know of an application, in one object. The answers here fit any Hydra application.

An application that knows more derives a class and puts an object of it on its task function: `task.application = …`.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from cifarsweep.sweeper.settings import Settings
    from cifarsweep.sweeper.space import Space


@dataclass(frozen=True)
class Cost:
    """What one configuration costs, measured on this machine."""

    name: str
    step_seconds: float
    figures: Mapping[str, Any] = field(default_factory=dict)
    """What else is shown of it, by column. Configurations of equal name and figures may share their runs."""


@dataclass(frozen=True)
class KnownRun:
    """A finished run that a search may count as a trial of its own."""

    name: str
    config: Mapping[str, Any]
    choices: Mapping[str, str]
    """The option that was chosen in each configuration group."""
    values: Sequence[float]
    """One for each figure that was asked for."""
    is_of: Callable[[DictConfig], bool]
    """Whether it is what this configuration would train."""


class Application:
    """Derive a class from it for what an application knows better. Configurations are what Hydra composed for a job."""

    unit: ClassVar[str] = "step"
    """What `trial.report` counts. `hydra.sweeper.budget` takes its plural, too: epochs:64."""
    objectives: ClassVar[tuple[str, ...]] = ("value",)
    directions: ClassVar[tuple[str, ...]] = ("minimize",)
    """One for each objective. A search that names neither has these."""
    known_objectives: ClassVar[tuple[str, ...] | None] = None
    """The only names that a search may use. None: the task gives its figures any names it likes."""
    final_objective: ClassVar[str | None] = None
    """What final runs are judged by; larger is better. None: the objective of the search."""
    final_on: ClassVar[Mapping[str, Mapping[str, Any]]] = {"train": {}}
    """The choices of `hydra.sweeper.final_on`, the default first: values that change in a final run, by key."""
    seed_key: ClassVar[str] = "seed"
    """Final runs differ in the value of this key."""
    seconds_figure: ClassVar[str | None] = None
    """The figure that says how many seconds a trial has trained so far. None: the time since its start counts."""
    name_key: ClassVar[str] = "hydra.sweep.dir"
    """The key that tells one sweep from another."""
    keeps_state: ClassVar[bool] = False
    """Whether a task keeps what it goes on from elsewhere than in `trial.directory()`; `drop_state` removes it."""
    sweep_keys: ClassVar[tuple[str, ...]] = ()
    """Keys and groups of a sweep: the command for the best trial has what they change, in their place."""

    @staticmethod
    def of(task: Any) -> "Application":
        """The application that a task function belongs to."""
        application = getattr(task, "application", None)
        return application if isinstance(application, Application) else Application()

    def check(self, config: DictConfig, *, is_trial: bool = False) -> None:
        """ValueError where no job can run this configuration, which includes Hydra's own part."""

    def check_search(self, config: DictConfig, settings: "Settings", space: "Space") -> None:
        """ValueError where a search cannot be done as it is set up. `config` has the values that are not searched."""

    def determines(self, config: DictConfig) -> dict[str, Any]:
        """The part of a configuration that its result depends on. A study goes on only where this stayed the same."""
        values = OmegaConf.to_container(config, throw_on_missing=False)
        assert isinstance(values, dict)
        return {str(key): value for key, value in values.items() if key != "hydra"}

    def max_steps(self, config: DictConfig) -> int | None:
        """After how many steps a trial ends by itself. None where nobody knows."""
        return None

    def cost(self, config: DictConfig, choices: Mapping[str, str], threads: int) -> Cost | None:
        """What a step costs with so many threads. None where it cannot be measured beforehand."""
        return None

    def known_runs(self, config: DictConfig, figures: Sequence[str]) -> Iterable[KnownRun]:
        """Finished runs that `hydra.sweeper.warm_start` may count as trials of a search with this configuration.

        `figures` are the names of the objectives, and of what constraints are about.
        """
        return ()

    def device(self, config: DictConfig) -> str:
        """What a job runs on: auto (a GPU of its own where there is one), cpu, or a device that it names itself."""
        return "auto"

    def start_sweep(self, config: DictConfig, num_jobs: int | None = None) -> None:
        """Called once a sweep is checked, before anything of it is written. A search does not count its jobs."""

    def lost(self, config: DictConfig, reason: str) -> None:
        """Called where the process of a job has died for good."""

    def note(self, config: DictConfig) -> str:
        """What a note on the study says of its trials' facts: sentences of Markdown, each with a space after it."""
        return ""

    def drop_state(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Removes what a paused trial would go on from, elsewhere than in its directory.

        `folder` is the sweep's, `facts` are what the task has recorded of the trial.
        """

    def command(self, overrides: Iterable[str]) -> list[str]:
        """The words of the command that runs the task once with these overrides."""
        started = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
        # Hydra's flags that say where the configuration is
        parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        for short, long in (("-cp", "--config-path"), ("-cn", "--config-name"), ("-cd", "--config-dir")):
            parser.add_argument(short, long)
        given = vars(parser.parse_known_args(sys.argv[1:])[0])
        flags = (f"--{key.replace('_', '-')}={value}" for key, value in given.items() if value is not None)
        return ["python", *started[1:], *flags, *overrides]
