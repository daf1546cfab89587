"""The configuration of a run, checked. Knows OmegaConf, not what is built from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from cifarsweep.sweeper import jobs
from cifarsweep.training import schema


@dataclass(frozen=True)
class Configuration:
    node: DictConfig
    """What Hydra instantiates."""
    values: dict[str, Any]
    """The same as plain values, interpolations resolved."""
    choices: dict[str, str]
    """The option that was chosen in each group; they name the run."""

    @classmethod
    def of(cls, cfg: DictConfig, choices: Mapping[str, str]) -> Configuration:
        """Leaves Hydra's own part out. ValueError where a value is outside its domain."""
        values = plain(cfg)
        schema.check(values)
        return cls(cfg, values, dict(choices))


def plain(cfg: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """The configuration as plain values, without Hydra's own."""
    values = OmegaConf.to_container(jobs.without_hydra(cfg), resolve=resolve)  # to resolve Hydra's part takes 10 ms
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
