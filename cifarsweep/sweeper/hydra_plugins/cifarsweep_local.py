"""The name under which Hydra finds the launcher `local`. Thin: Hydra executes plugin modules again while it scans."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher


class LocalLauncher(Launcher):
    def __init__(self, **keys: Any) -> None:
        """They are checked by `setup`, as Hydra wraps what a constructor raises."""
        self._keys = keys

    def setup(self, **given: Any) -> None:
        from cifarsweep.sweeper import hydra_compat, local

        with hydra_compat.one_line_errors():
            local.check(self._keys)
        self._given = given

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from cifarsweep.sweeper import hydra_compat, local

        with hydra_compat.one_line_errors():
            return local.launch(job_overrides, initial_job_idx, **self._keys, **self._given)
