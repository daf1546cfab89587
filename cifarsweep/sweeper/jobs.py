"""Hydra's jobs, composed and run without doing again for each what they share. Knows neither launchers nor studies.

Hydra composes a job in about 70 ms, and copies its own settings five times to run it, 20 ms more.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException


class _Word(NamedTuple):
    """An override, and what it does: it chooses an option of a group, or changes the value of a key; or does more."""

    key: str
    value: Any
    is_option: bool
    is_value: bool


class Composer:
    """Composes jobs from their overrides, to what Hydra's `load_sweep_config` makes of them.

    The options of groups are composed once for each combination of them, values are applied to a copy.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig) -> None:
        self._loader, self._master = loader, master
        self._parser = OverridesParser.create(config_loader=loader)
        self._words: dict[str, _Word] = {}
        self._is_group: dict[str, bool] = {}  # to ask takes 10 ms
        self._pickled: dict[tuple[str, ...], bytes] = {}  # to read them takes a third of the time of a deep copy

    def __call__(self, overrides: Sequence[str]) -> DictConfig:
        """The whole configuration, with Hydra's part. Raises what Hydra raises."""
        words = [self._word(text) for text in overrides]
        if not all(word.is_option or word.is_value for word in words):
            return self._compose(overrides)
        options = tuple(text for text, word in zip(overrides, words, strict=True) if word.is_option)
        if options not in self._pickled:
            self._pickled[options] = pickle.dumps(self._compose(options))
        config: DictConfig = pickle.loads(self._pickled[options])
        try:
            for word in words:
                if word.is_value:
                    OmegaConf.update(config, word.key, word.value)
        except OmegaConfBaseException:
            return self._compose(overrides)  # for Hydra's own error
        name(config, overrides)
        return config

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        config: DictConfig = self._loader.load_sweep_config(self._master, list(overrides))
        return config

    def _word(self, text: str) -> _Word:
        if text not in self._words:
            (override,) = self._parser.parse_overrides([text])
            key, value = override.key_or_group, override.value()
            is_change = override.type == OverrideType.CHANGE and not override.is_hydra_override()
            if key not in self._is_group:
                self._is_group[key] = bool(self._loader.get_group_options(key))
            is_group = self._is_group[key]
            is_plain = isinstance(value, bool | int | float | str | None) and "$" not in str(value)
            self._words[text] = _Word(key, value, is_change and is_group, is_change and is_plain and not is_group)
        return self._words[text]


def name(config: DictConfig, overrides: Sequence[str]) -> None:
    """Writes into Hydra's part which overrides made the job."""
    wanted = config.hydra.job.config.override_dirname
    words = sorted(word for word in overrides if re.split("[@=]", word.lstrip("+~"))[0] not in wanted.exclude_keys)
    with read_write(config.hydra), open_dict(config):
        config.hydra.job.override_dirname = wanted.item_sep.join(words).replace("=", wanted.kv_sep)
        _assign(config.hydra.overrides.task, overrides)


def _assign(texts: ListConfig, new: Sequence[str]) -> None:
    """Only what is new is set: to make a list of nodes takes a millisecond."""
    if len(texts) != len(new):
        texts[:] = list(new)
    for i, (before, now) in enumerate(zip(texts, new, strict=True)):
        if before != now:
            texts[i] = now


def number(config: DictConfig, of_sweep: int) -> None:
    """Writes into Hydra's part which job of the sweep it is."""
    with read_write(config.hydra), open_dict(config):
        config.hydra.job.num = of_sweep
        config.hydra.job.id = str(of_sweep)


def own(config: DictConfig) -> DictConfig:
    """A copy of what the task sees: the configuration without Hydra's part."""
    task_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    OmegaConf.set_struct(task_config, True)
    return task_config


def run(
    task_config: DictConfig, config: DictConfig, task: TaskFunction, context: HydraContext, logging: bool = False
) -> JobReturn:
    """The task's result, or the exception it raised: Hydra's run_job, which is called where more is asked of a job
    than its task.

    `config` has Hydra's part, and may share it with other jobs. `logging`: sets up what it asks for.
    """
    if _needs_hydra(config, context) or (logging and _has_logging(config)):
        whole = OmegaConf.merge(config, task_config)
        assert isinstance(whole, DictConfig)
        return run_job(
            task_function=task,
            config=whole,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
            hydra_context=context,
            configure_logging=logging,
        )
    singleton, result = HydraConfig.instance(), JobReturn()
    before = singleton.cfg
    singleton.cfg = config  # type: ignore[assignment]  # as Hydra's own set_config does
    try:
        result.return_value = task(task_config)
        result.status = JobStatus.COMPLETED
    except Exception as error:
        result.return_value = error
        result.status = JobStatus.FAILED
    finally:
        singleton.cfg = before
    return result


def _needs_hydra(config: DictConfig, context: HydraContext) -> bool:
    job = config.hydra.job
    callbacks = [type(callback) for callback in context.callbacks.callbacks]
    listening = any(
        callback.on_job_start is not Callback.on_job_start or callback.on_job_end is not Callback.on_job_end
        for callback in callbacks
    )
    return bool(job.chdir or job.env_set or config.hydra.output_subdir is not None or listening)


def _has_logging(config: DictConfig) -> bool:
    return bool(config.hydra.verbose or config.hydra.job_logging is None or config.hydra.job_logging.root is not None)
