"""The name under which Hydra finds the launcher `local`. Thin: Hydra executes plugin modules again while it scans."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher


class LocalLauncher(Launcher):
    def __init__(self, n_workers: int | None = None) -> None:
        self._n_workers = n_workers

    def setup(self, **given: Any) -> None:
        self._given = given

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from cifarsweep.sweeper import hydra_compat, local

        with hydra_compat.one_line_errors():
            return local.launch(job_overrides, initial_job_idx, n_workers=self._n_workers, **self._given)
