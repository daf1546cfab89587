"""The name under which Hydra finds the sweeper `study`. Thin: Hydra executes plugin modules again while it scans."""

from typing import Any

from hydra.plugins.sweeper import Sweeper


class StudySweeper(Sweeper):
    def __init__(self, **settings: Any) -> None:
        """The settings are read from the configuration of the sweep, where they are checked."""

    def setup(self, **given: Any) -> None:
        self._given = given

    def sweep(self, arguments: list[str]) -> Any:
        from cifarsweep.sweeper import hydra_compat, search

        with hydra_compat.one_line_errors():
            return search.sweep(arguments, **self._given)
