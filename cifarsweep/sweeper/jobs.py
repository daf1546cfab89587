"""Hydra's jobs, composed and run, with the work that they share done only once. Knows neither launchers nor studies.

Hydra composes a job in about 70 ms, and copies its own settings five times to run it, 20 ms more.
"""

import contextlib
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import OverrideType
from hydra.core.utils import JobReturn, JobStatus, env_override, run_job
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from cifarsweep.sweeper import hydra_compat
from cifarsweep.terminal.command_line import without_credentials

if TYPE_CHECKING:  # Optuna, which a grid need not wait for
    from cifarsweep.sweeper.space import Space


class _Override(NamedTuple):
    """An override of a command line. It chooses an option of a group, changes the value of a key, or does more."""

    key: str
    value: Any
    is_option: bool
    is_value: bool


class Composer:
    """Composes jobs from their overrides. They are what Hydra's `load_sweep_config` makes of them.

    The options of groups are composed once for each combination, and values are then set in a copy. To unpickle one
    takes a third of a deep copy's time. With `sweep_dir`, an absolute folder, jobs are told that it is the sweep's:
    ${now:} in it gives another name in each process.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig, sweep_dir: Path | None = None) -> None:
        self._loader, self._master, self._sweep_dir = loader, master, sweep_dir
        self._parser = OverridesParser.create(config_loader=loader)
        self._overrides: dict[str, _Override] = {}
        self._is_group: dict[str, bool] = {}  # to ask takes 10 ms
        self._composed: dict[tuple[str, ...], bytes] = {}

    def __call__(self, texts: Sequence[str], number: int | None = None) -> DictConfig:
        """The whole configuration, with Hydra's part, of this number's job. Raises what Hydra raises."""
        overrides = [self._parsed(text) for text in texts]
        config = None
        if all(override.is_option or override.is_value for override in overrides):
            options = [text for text, override in zip(texts, overrides, strict=True) if override.is_option]
            values = {override.key: override.value for override in overrides if override.is_value}
            with contextlib.suppress(ValueError):  # composed by Hydra, it ends in Hydra's own error
                config = self._with_values(options, values, texts)
        if config is None:
            config = self._load(texts)
        if number is not None:
            _set_number(config, number)
        return config

    def trial(
        self, space: "Space", values: Mapping[str, Any], number: int = 0, instead: Mapping[str, Any] | None = None
    ) -> DictConfig:
        """The job of trial `number`. `values` has a value for each key that is active in it.

        The values of plain keys in `instead` take the place of whatever they would be. ValueError names a key that is
        not there.
        """
        instead = instead or {}
        plain, options = {}, list(space.fixed)
        for parameter in space.active(values):
            key, value = parameter.key, values[parameter.key]
            is_plain_key = key.replace(".", "").replace("_", "").isalnum() and not self._names_group(key)
            if is_plain_key and not (parameter.texts and isinstance(value, str)):
                plain[key] = value
            else:
                options.append(parameter.override(value))
        texts = [text for text in space.overrides(values) if text.partition("=")[0] not in instead]
        texts += [f"{key}={value}" for key, value in instead.items()]
        config = self._with_values(options, {**plain, **instead}, texts)
        _set_number(config, number)
        return config

    def _with_values(self, overrides: Sequence[str], values: Mapping[str, Any], texts: Sequence[str]) -> DictConfig:
        """What the overrides compose to, with these values, named by `texts`. ValueError names what cannot be set."""
        if tuple(overrides) not in self._composed:
            self._composed[tuple(overrides)] = pickle.dumps(self._load(overrides))
        config: DictConfig = pickle.loads(self._composed[tuple(overrides)])
        for key, value in values.items():
            try:
                OmegaConf.update(config, key, value)
            except (ConfigAttributeError, ConfigKeyError) as error:
                raise ValueError(f"{key}: no such key in the configuration; +{key}=… adds a new one") from error
            except OmegaConfBaseException as error:
                raise ValueError(f"{key}={value}: {' '.join(str(error).split())}") from error
        _name(config, texts)
        return config

    def _load(self, overrides: Sequence[str]) -> DictConfig:
        config = self._loader.load_sweep_config(self._master, list(overrides))
        with read_write(config), read_write(config.hydra), open_dict(config):
            if self._sweep_dir is not None:
                config.hydra.sweep.dir = config.hydra.runtime.output_dir = str(self._sweep_dir)
            for part in ("sweeper", "launcher"):  # their classes cannot be pickled: Hydra executes plugins again
                config.hydra[part] = OmegaConf.create(OmegaConf.to_container(config.hydra[part]))
        return config

    def _parsed(self, text: str) -> _Override:
        if text not in self._overrides:
            (override,) = self._parser.parse_overrides([text])
            key, value = override.key_or_group, override.value()
            is_change = override.type == OverrideType.CHANGE and not override.is_hydra_override()
            is_group = self._names_group(key)
            is_plain = isinstance(value, bool | int | float | str | None) and "$" not in str(value)
            self._overrides[text] = _Override(
                key, value, is_change and is_group, is_change and is_plain and not is_group
            )
        return self._overrides[text]

    def _names_group(self, key: str) -> bool:
        if key not in self._is_group:
            self._is_group[key] = bool(self._loader.get_group_options(key))
        return self._is_group[key]


def without_hydra(config: DictConfig) -> DictConfig:
    """A copy of what the task sees: the configuration without Hydra's part."""
    task_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    OmegaConf.set_struct(task_config, True)
    return task_config


def _name(config: DictConfig, overrides: Sequence[str]) -> None:
    """Writes into Hydra's part which overrides made the job."""
    with read_write(config.hydra), open_dict(config):
        texts = config.hydra.overrides.task
        if len(texts) != len(overrides):
            texts[:] = list(overrides)
        for i, (before, now) in enumerate(zip(texts, overrides, strict=True)):
            if before != now:  # to make a list of nodes anew takes a millisecond
                texts[i] = now
        if OmegaConf.is_interpolation(config.hydra.job, "override_dirname"):  # from 1.4 on it is made of the overrides
            return
        wanted = config.hydra.job.config.override_dirname
        words = sorted(word for word in overrides if re.split("[@=]", word.lstrip("+~"))[0] not in wanted.exclude_keys)
        config.hydra.job.override_dirname = wanted.item_sep.join(words).replace("=", wanted.kv_sep)


def _set_number(config: DictConfig, of_sweep: int) -> None:
    """Writes into Hydra's part which job of the sweep it is."""
    with read_write(config.hydra), open_dict(config):
        config.hydra.job.num, config.hydra.job.id = of_sweep, str(of_sweep)


def run(config: DictConfig, task: TaskFunction, context: HydraContext, *, is_trial: bool = False) -> JobReturn:
    """The task's result, or the exception that it raised. Of a trial it has nothing beside them.

    Hydra's own `run_job` runs a job that callbacks listen to, and one that has a folder, a log or an environment but is
    no trial. It copies a job's settings five times: a trial takes 96 ms of processor time with it, and 21 ms here
    (tests/sweeper/apps/timed.py, basic launcher).
    """
    hydra = config.hydra
    has_log = bool(hydra.verbose or hydra.job_logging is None or hydra.job_logging.root is not None)
    has_more = hydra.output_subdir is not None or hydra.sweep.subdir != "." or hydra.job.chdir or hydra.job.env_set
    has_listener = any(
        type(callback).on_job_start is not Callback.on_job_start or type(callback).on_job_end is not Callback.on_job_end
        for callback in context.callbacks.callbacks
    )
    if has_listener or (not is_trial and (has_log or has_more)):
        return run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", context)
    of_the_task, current, result = without_hydra(config), HydraConfig.instance(), JobReturn()
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, current, "cfg", current.cfg)
        current.cfg = config  # type: ignore[assignment]  # as Hydra's own set_config does
        stack.enter_context(hydra_compat.allowing_what_the_application_allows(context))
        folder = Path(hydra.sweep.dir, hydra.sweep.subdir).absolute()
        with read_write(config), open_dict(config):
            hydra.runtime.output_dir = str(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if hydra.job.chdir:
            stack.enter_context(contextlib.chdir(folder))
        if has_log:
            hydra_compat.configure_log(config, context)
        if hydra.output_subdir is not None:  # what Hydra leaves of a job's configuration
            parts = {"config": of_the_task, "hydra": OmegaConf.masked_copy(config, "hydra")}
            (folder / hydra.output_subdir).mkdir(parents=True, exist_ok=True)
            for part, values in {**parts, "overrides": hydra.overrides.task}.items():
                text = without_credentials(OmegaConf.to_yaml(values))
                (folder / hydra.output_subdir / f"{part}.yaml").write_text(text, encoding="utf-8")
        stack.enter_context(env_override({key: str(value) for key, value in hydra.job.env_set.items()}))
        try:
            result.return_value, result.status = task(of_the_task), JobStatus.COMPLETED
        except Exception as error:
            result.return_value, result.status = error, JobStatus.FAILED
    return result
