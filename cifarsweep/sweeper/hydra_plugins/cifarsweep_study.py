"""The name under which Hydra finds the sweeper `study`. Thin: Hydra executes plugin modules again while it scans."""

from __future__ import annotations

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StudySweeper(Sweeper):
    def __init__(self, **settings: Any) -> None:
        """The settings are read from the configuration of the sweep, where they are checked."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        from cifarsweep.sweeper import search
        from cifarsweep.training import cli

        return search.sweep(
            arguments,
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=self.config,
            check=cli.check_search,
            determines=cli.determines,
            cost=cli.cost,
        )
