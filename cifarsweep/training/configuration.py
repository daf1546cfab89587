"""The configuration of a run, checked, and what Hydra tells of one outside of a job. Builds nothing from it."""

import contextlib
import itertools
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import hydra
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf

from cifarsweep import trackers
from cifarsweep.results import folders
from cifarsweep.sweeper import hydra_compat, jobs
from cifarsweep.terminal import errors
from cifarsweep.training import groups, schema

SEVERAL_VALUES = re.compile(r"(?s)(?:Ambiguous value for argument|Sweep parameters) '(.*?)'(?:\n| requires)")
"""Hydra's lines about a word that only a sweep can take."""
NO_OPTION = "Config group override must be"
"""How Hydra's line about an option that is no text, such as model=3, begins. It does not name the option."""


@dataclass(frozen=True)
class Configuration:
    node: DictConfig
    """What Hydra instantiates."""
    values: dict[str, Any]
    """The same as plain values, interpolations resolved."""
    choices: dict[str, str]
    """The option that was chosen in each group; they name the run."""

    @classmethod
    def of(cls, cfg: DictConfig, choices: Mapping[str, str]) -> Self:
        """ValueError where a value is outside its domain. The folder of the results is expanded."""
        values = plain(cfg)
        schema.check(values)
        check_choices(choices)
        if name := trackers.missing(values.get("tracker") or {}):
            raise ValueError(f"tracker={name}: not installed, expected its package, by pip install -e '.[{name}]'")
        values["outputs"] = str(folders.expanded(values["outputs"], "outputs"))
        return cls(cfg, values, dict(choices))


def plain(cfg: DictConfig, resolve: bool = True) -> dict[str, Any]:
    """The configuration as plain values, without Hydra's own."""
    values = OmegaConf.to_container(jobs.without_hydra(cfg), resolve=resolve)  # to resolve Hydra's part takes 10 ms
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def chosen_options(job: Any) -> dict[str, str]:
    """The option that was chosen in each group, from Hydra's part of a configuration. Of trackers there are several."""
    choices = job.runtime.choices.items()
    return {group: option for group, option in choices if not group.startswith("hydra/") and group != "tracker"}


def check_choices(choices: Mapping[str, Any]) -> None:
    """ValueError where several options were given for a group. Hydra lays one over the other, and counts it as none."""
    for group in (*schema.CALLS, "trainer"):
        if not isinstance(choices.get(group), str):
            raise ValueError(f"{group}: expected one option; -m {group}=OPTION,OPTION trains with each of several")


def compose(overrides: list[str], config_dir: Path | None = None) -> Configuration:
    """What these overrides compose to outside of a job, with the options in a --config-dir."""
    if config_dir is not None:
        folders.check(config_dir, "as --config-dir a folder that has one for each group, such as model")
        quoted = str(config_dir.absolute()).replace("'", r"\'")
        overrides = [*overrides, f"hydra.searchpath=['file://{quoted}']"]
    with hydra.initialize_config_dir(str(groups.folder()), **hydra_compat.VERSION_BASE):
        cfg = hydra.compose("config", overrides, return_hydra_config=True)
    return Configuration.of(jobs.without_hydra(cfg), chosen_options(cfg.hydra))


def error_line(error: BaseException, words: list[str], sweeps: Sequence[str] = ()) -> str:
    """One line on a mistake in the words of a command line, with what is accepted instead.

    `sweeps` are the first words of the command that takes several values for a key, where there is one.
    """
    line = _error_line(error, words, sweeps)
    key, _, rest = line.partition("=")
    if re.fullmatch(r"[\w.]+", key) and (option := _option_that_sets(key, words)):
        return f"{key}={rest.replace(':', f', which {option} sets:', 1)}"
    return f"{line}{_with_decimal_point(key, words)}"


def _option_that_sets(key: str, words: Sequence[str]) -> str | None:
    """The option among the words that sets a key beyond its own group, as study=quick does data.subset."""
    if any(word.startswith(f"{key}=") for word in words):
        return None
    known = groups.options_by_group()
    for word in words:
        group, _, option = word.partition("=")
        file = groups.folder() / group / f"{option}.yaml"
        is_global = option in known.get(group, ()) and file.read_text().startswith("# @package _global_")
        if is_global and _sets(file, key):
            return word
    return None


def _sets(file: Path, key: str) -> bool:
    """Whether an option sets the key, or another of its group that it builds on, as cifar10_94 does on cifar10_90."""
    node = OmegaConf.load(file)
    built_on = (file.parent / f"{other}.yaml" for other in OmegaConf.select(node, "defaults") or ())
    return OmegaConf.select(node, key) is not None or any(_sets(other, key) for other in built_on if other.exists())


def _with_decimal_point(key: str, words: Sequence[str]) -> str:
    """What to write instead of optimizer.lr=0,1, which are two values."""
    for word in words:
        if fraction := re.fullmatch(rf"{re.escape(key)}=0,(\d+)", word):
            number = f"0.{fraction[1]}"
            if key in schema.DOMAINS and schema.DOMAINS[key].accepts(float(number)):
                return f"; or with a decimal point: {key}={number}"
    return ""


def _error_line(error: BaseException, words: list[str], sweeps: Sequence[str]) -> str:
    if isinstance(error, OverrideParseException):
        return _not_parsed(error, words)
    if several := SEVERAL_VALUES.match(str(error)):
        each = f", or -m before the keys for each of several: {shlex.join([*sweeps, '-m', *words])}" if sweeps else ""
        return f"{several[1]}: expected one value{each}; a list stands in [ ], a text in quotes"
    file = error.missing_cfg_file if isinstance(error, MissingConfigException) else None
    if isinstance(error, MissingConfigException) and (extra := _extra_with(str(file), error.options or ())):
        group, _, option = str(file).rpartition("/")
        package = f"expected its package, by pip install -e '.[{extra}]'"
        return f"{group}={option}: not installed, {package}, or one of {', '.join(error.options or ())}"
    unknown = _unknown_option(words, file) if file or str(error).startswith(NO_OPTION) else None
    return unknown or errors.one_line(error, partial(_known_keys, words))


def _extra_with(file: str, installed: Sequence[str]) -> str | None:
    """The extra of this package that brings a launcher of Hydra's: hydra-submitit-launcher has submitit_slurm."""
    launcher = re.fullmatch(r"hydra/launcher/([^_]+).*", file)
    if launcher is None or any(option.startswith(launcher[1]) for option in installed):
        return None
    with contextlib.suppress(metadata.PackageNotFoundError):  # a checkout that was never installed
        for requirement in metadata.requires("cifarsweep") or ():
            if extra := re.match(rf"hydra-{re.escape(launcher[1])}-launcher\b.*extra == .(\w+)", requirement):
                return extra[1]
    return None


def _not_parsed(error: OverrideParseException, words: Sequence[str]) -> str:
    key, equals, value = (error.override or "").partition("=")
    if not equals:
        return f"{key}: expected key=value"
    reason = errors.reason_of_parser(error, value)
    if reason and re.match(r"""['"\[{]|\w+\(""", value):  # it is no text by itself
        return f"{error.override}: {reason}"
    if re.fullmatch(r"[^,]+(,[^,]+)*,", value) and error.override in words:  # a space ended the word
        following = itertools.takewhile(lambda word: "=" not in word, words[words.index(error.override) + 1 :])
        return (
            f"{error.override}: {reason}; without a space after it: {''.join([error.override, *following]).rstrip(',')}"
        )
    quoted = re.sub(r"\\?'", r"\\'", value)
    quote = f"quote a text with special characters: \"{key}='{quoted}'\""
    return f"{error.override}: {reason or 'expected a value that Hydra can read'}; {quote}"


def _known_keys(words: list[str], parent: str) -> list[str]:
    """The keys below `parent`, with those options of the groups that the words of the command line choose."""
    known = groups.options_by_group()
    options = [word for word in words if re.fullmatch(r"\w+=\w+", word) and word.split("=")[0] in known]
    with hydra.initialize_config_dir(str(groups.folder()), **hydra_compat.VERSION_BASE):
        node = hydra.compose("config", options, return_hydra_config=parent.startswith("hydra"))
    for part in parent.split(".") if parent else ():
        node = node.get(part) if isinstance(node, DictConfig) else None
    keys = [str(key) for key in node] if isinstance(node, DictConfig) else []
    return [key for key in keys if parent != "hydra.sweeper" or key != "_target_"]  # a sweeper refuses any other key


def _unknown_option(words: list[str], file: str | None) -> str | None:
    """A line on the first word that chooses none of its group's options, or this file: Hydra does not name the word."""
    known = groups.options_by_group()
    for word in words:
        group, _, value = word.lstrip("+").partition("=")
        if not group:
            return f"{word}: expected key=value"
        for option in re.split(r",\s*", value.strip("[]")) if group in known else ():
            if f"{group}/{option}" == file or (file is None and option not in known[group]):
                return f"{group}={option}: no such option, expected one of {', '.join(known[group])}"
    return None
