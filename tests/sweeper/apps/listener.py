"""A callback of Hydra's that writes down which jobs start and end."""

from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig


class Listener(Callback):
    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        _write(config, f"start {config.hydra.job.num}")

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        _write(config, f"end {config.hydra.job.num} {job_return.status.name} {job_return._return_value}")


def _write(config: DictConfig, line: str) -> None:
    with (Path(config.hydra.runtime.cwd) / "heard").open("a") as file:
        file.write(f"{line}\n")
