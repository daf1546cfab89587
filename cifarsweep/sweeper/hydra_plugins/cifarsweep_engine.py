"""The names under which Hydra finds the engine. Thin: Hydra executes plugin modules again while it scans."""

from collections.abc import Sequence
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.plugins.sweeper import Sweeper


class EngineSearchPath(SearchPathPlugin):
    """Puts the engine's configuration groups into the search path of any Hydra application."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        search_path.append(provider="cifarsweep", path="pkg://cifarsweep.sweeper.conf")


class _WithKeys:
    def __init__(self, **keys: Any) -> None:
        """They are checked where they are used, as Hydra wraps what a constructor raises."""
        self._keys = keys

    def setup(self, **given: Any) -> None:
        self._given = given


class StudySweeper(_WithKeys, Sweeper):
    def sweep(self, arguments: list[str]) -> Any:
        from cifarsweep.sweeper import hydra_compat, search

        with hydra_compat.one_line_errors():
            return search.sweep(arguments, **self._given)


class GridSweeper(_WithKeys, Sweeper):
    def sweep(self, arguments: list[str]) -> Any:
        from cifarsweep.sweeper import grid, hydra_compat

        with hydra_compat.one_line_errors():
            return grid.sweep(arguments, keys=self._keys, **self._given)


class LocalLauncher(_WithKeys, Launcher):
    def setup(self, **given: Any) -> None:
        from cifarsweep.sweeper import hydra_compat, local

        super().setup(**given)
        with hydra_compat.one_line_errors():
            local.check(self._keys)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from cifarsweep.sweeper import hydra_compat, local

        with hydra_compat.one_line_errors():
            return local.launch(job_overrides, initial_job_idx, **self._keys, **self._given)
