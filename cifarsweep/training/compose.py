"""Configurations by Hydra outside of a job: what overrides compose to, and which keys and options there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from cifarsweep.sweeper import hydra_compat, jobs
from cifarsweep.training import groups


def choices(job: Any) -> dict[str, str]:
    """The option that was chosen in each group, from Hydra's part of a configuration."""
    return {group: option for group, option in job.runtime.choices.items() if not group.startswith("hydra/")}


def compose(conf: Path, overrides: list[str]) -> tuple[DictConfig, dict[str, str]]:
    """What these overrides compose to outside of a job, and the option that was chosen in each group."""
    with hydra.initialize_config_dir(str(conf), **hydra_compat.VERSION_BASE):
        cfg = hydra.compose("config", overrides, return_hydra_config=True)
    return jobs.without_hydra(cfg), choices(cfg.hydra)


def known_keys(conf: Path, words: list[str], parent: str) -> list[str]:
    """The keys below `parent`, with those options of the groups that the words of the command line choose."""
    known = groups.options_by_group([conf])
    options = [word for word in words if re.fullmatch(r"\w+=\w+", word) and word.split("=")[0] in known]
    with hydra.initialize_config_dir(str(conf), **hydra_compat.VERSION_BASE):
        node = hydra.compose("config", options, return_hydra_config=parent.startswith("hydra"))
    for part in parent.split(".") if parent else ():
        node = node.get(part, {})
    return [str(key) for key in node if not str(key).startswith("_")]


def unknown_option(conf: Path, words: list[str]) -> str | None:
    """A line on the first word that chooses none of its group's options: Hydra does not name the word."""
    known = groups.options_by_group([conf])
    for word in words:
        group, _, value = word.partition("=")
        for option in value.split(",") if group in known else ():
            if option not in known[group]:
                return f"{group}={option}: no such option, expected one of {', '.join(known[group])}"
    return None
