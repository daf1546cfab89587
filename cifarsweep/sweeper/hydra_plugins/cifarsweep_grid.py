"""The name under which Hydra finds the sweeper `grid`. Thin: Hydra executes plugin modules again while it scans."""

from typing import Any

from hydra.plugins.sweeper import Sweeper


class GridSweeper(Sweeper):
    def __init__(self, **keys: Any) -> None:
        """They are checked where they are used, as Hydra wraps what a constructor raises."""
        self._keys = keys

    def setup(self, **given: Any) -> None:
        self._given = given

    def sweep(self, arguments: list[str]) -> Any:
        from cifarsweep.sweeper import grid, hydra_compat

        with hydra_compat.one_line_errors():
            return grid.sweep(arguments, keys=self._keys, **self._given)
