"""Configurations by Hydra: composed outside of a job, as plain values, and which keys they know."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from cifarsweep.sweeper import jobs
from cifarsweep.training import groups


def plain(cfg: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """The configuration as plain values, without Hydra's own."""
    values = OmegaConf.to_container(jobs.without_hydra(cfg), resolve=resolve)  # to resolve Hydra's part takes 10 ms
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def choices(job: Any) -> dict[str, str]:
    """The option that was chosen in each group, by Hydra's part of a configuration."""
    return {group: option for group, option in job.runtime.choices.items() if not group.startswith("hydra/")}


def compose(conf: Path, overrides: list[str]) -> tuple[DictConfig, dict[str, str]]:
    """What these overrides stand for outside of a job, and the option that was chosen in each group."""
    with hydra.initialize_config_dir(str(conf), version_base="1.3"):
        cfg = hydra.compose("config", overrides, return_hydra_config=True)
    return jobs.without_hydra(cfg), choices(cfg.hydra)


def known_keys(conf: Path, words: list[str], parent: str) -> list[str]:
    """The keys below `parent` in the configuration of the groups' options that the command line's words choose."""
    known = groups.found([conf])
    options = [word for word in words if re.fullmatch(r"\w+=\w+", word) and word.split("=")[0] in known]
    with hydra.initialize_config_dir(str(conf), version_base="1.3"):
        node = hydra.compose("config", options, return_hydra_config=parent.startswith("hydra"))
    for part in parent.split(".") if parent else ():
        node = node.get(part, {})
    return [str(key) for key in node if not str(key).startswith("_")]


def unknown_option(conf: Path, words: list[str]) -> str | None:
    """A line on the first word that chooses none of a group's options, of which Hydra does not say which it is."""
    known = groups.found([conf])
    for word in words:
        group, _, value = word.partition("=")
        for option in value.split(",") if group in known else ():
            if option not in known[group]:
                return f"{group}={option}: no such option, expected one of {', '.join(known[group])}"
    return None
