"""The name under which Hydra finds the sweeper `study`. Thin: Hydra executes plugin modules again while it scans."""

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class StudySweeper(Sweeper):
    def __init__(self, **settings: Any) -> None:
        """The settings are read from the configuration of the sweep, where they are checked."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self._given = {"hydra_context": hydra_context, "task_function": task_function, "config": config}

    def sweep(self, arguments: list[str]) -> Any:
        from cifarsweep.sweeper import hydra_compat, search

        with hydra_compat.one_line_errors():
            return search.sweep(arguments, **self._given)
