"""The name under which Hydra finds the sweeper `grid`. Thin: Hydra executes plugin modules again while it scans."""

from typing import Any

from hydra.plugins.sweeper import Sweeper


class GridSweeper(Sweeper):
    def __init__(self, max_batch_size: int | None = None, params: dict[str, Any] | None = None) -> None:
        self._keys = {"max_batch_size": max_batch_size, "params": params}

    def setup(self, **given: Any) -> None:
        self._given = given

    def sweep(self, arguments: list[str]) -> Any:
        from cifarsweep.sweeper import grid, hydra_compat

        with hydra_compat.one_line_errors():
            return grid.sweep(arguments, **self._keys, **self._given)
