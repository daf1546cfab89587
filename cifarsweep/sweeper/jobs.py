"""Hydra's jobs, composed and run, with the work that they share done only once. Knows neither launchers nor studies.

Hydra composes a job in about 70 ms, and copies its own settings five times to run it, 20 ms more.
"""

import contextlib
import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
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

_INTO_THE_TASK = re.compile(r"\$\{\s*(?!hydra[._:]|now:|oc\.env:|python_version:)")
"""An interpolation that may need the task's part of a configuration."""


class Job(NamedTuple):
    """The configuration that a task sees, and Hydra's own beside it, under the key `hydra`."""

    task: DictConfig
    hydra: DictConfig
    """Shared by jobs of the same options: it says what it should until the next one is composed."""


class _Override(NamedTuple):
    """An override of a command line. It chooses an option of a group, changes the value of a key, or does more."""

    key: str
    value: Any
    is_option: bool
    is_value: bool


class _Template:
    """What the options of some groups compose to. Unpickling a configuration takes a third of a deep copy's time."""

    def __init__(self, config: DictConfig) -> None:
        self._config = config
        self.whole = pickle.dumps(config)

    @cached_property
    def is_linked(self) -> bool:
        """Whether Hydra's part has interpolations into the task's, so that the two cannot be separated."""
        hydra = OmegaConf.to_container(self._config.hydra, resolve=False)
        assert isinstance(hydra, dict)
        texts = repr({key: hydra[key] for key in hydra if key not in ("help", "hydra_help")})
        return _INTO_THE_TASK.search(texts) is not None

    @cached_property
    def task(self) -> bytes:
        return pickle.dumps(without_hydra(self._config))

    @cached_property
    def hydra(self) -> DictConfig:
        return OmegaConf.masked_copy(self._config, ["hydra"])


class Composer:
    """Composes jobs from their overrides. They are what Hydra's `load_sweep_config` makes of them.

    The options of groups are composed once for each combination, and values are then set in a copy. With `sweep_dir`,
    an absolute folder, jobs are told that it is the sweep's: ${now:} in it gives another name in each process. What
    Hydra's part says of sweeper and launcher is then plain values.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig, sweep_dir: Path | None = None) -> None:
        self._loader, self._master, self._sweep_dir = loader, master, sweep_dir
        self._parser = OverridesParser.create(config_loader=loader)
        self._overrides: dict[str, _Override] = {}
        self._is_group: dict[str, bool] = {}  # to ask takes 10 ms
        self._templates: dict[tuple[str, ...], _Template] = {}

    def __call__(self, texts: Sequence[str]) -> DictConfig:
        """The whole configuration, with Hydra's part. Raises what Hydra raises."""
        overrides = [self._parsed(text) for text in texts]
        if all(override.is_option or override.is_value for override in overrides):
            options = [text for text, override in zip(texts, overrides, strict=True) if override.is_option]
            config: DictConfig = pickle.loads(self._template(options).whole)
            with contextlib.suppress(OmegaConfBaseException):  # composed by Hydra, it ends in Hydra's own error
                for override in overrides:
                    if override.is_value:
                        OmegaConf.update(config, override.key, override.value)
                name(config, texts)
                return config
        return self._loader.load_sweep_config(self._master, list(texts))

    def trial(
        self, space: "Space", values: Mapping[str, Any], number: int = 0, instead: Mapping[str, Any] | None = None
    ) -> Job:
        """The job of trial `number`. `values` has a value for each key that is active in it.

        The values of plain keys in `instead` take the place of whatever they would be. ValueError names a key that is
        not there.
        """
        instead = instead or {}
        plain, composed = {}, list(space.fixed)
        for parameter in space.active(values):
            key, value = parameter.key, values[parameter.key]
            is_plain_key = key.replace(".", "").replace("_", "").isalnum() and not self._names_group(key)
            if is_plain_key and not (parameter.texts and isinstance(value, str)):
                plain[key] = value
            else:
                composed.append(parameter.override(value))
        template = self._template(composed)
        config: DictConfig = pickle.loads(template.whole if template.is_linked else template.task)
        for key, value in {**plain, **instead}.items():
            try:
                OmegaConf.update(config, key, value)
            except (ConfigAttributeError, ConfigKeyError) as error:
                raise ValueError(f"{key}: no such key in the configuration; +{key}=… adds a new one") from error
            except OmegaConfBaseException as error:
                raise ValueError(f"{key}={value}: {' '.join(str(error).split())}") from error
        hydra = config if template.is_linked else template.hydra
        overrides = [text for text in space.overrides(values) if text.partition("=")[0] not in instead]
        name(hydra, [*overrides, *(f"{key}={value}" for key, value in instead.items())])
        set_number(hydra, number)
        return Job(without_hydra(config) if template.is_linked else config, hydra)

    def fixed(self, overrides: Sequence[str]) -> Job:
        """What these overrides compose to. All who ask share it: it is not to be changed."""
        template = self._template(overrides)
        return Job(pickle.loads(template.task), template.hydra)

    def _template(self, overrides: Sequence[str]) -> _Template:
        key = tuple(overrides)
        if key not in self._templates:
            config = self._loader.load_sweep_config(self._master, list(overrides))
            if self._sweep_dir is not None:
                with read_write(config), read_write(config.hydra), open_dict(config):
                    config.hydra.sweep.dir = str(self._sweep_dir)
                    config.hydra.runtime.output_dir = str(self._sweep_dir)
                    for part in ("sweeper", "launcher"):
                        config.hydra[part] = OmegaConf.create(OmegaConf.to_container(config.hydra[part], resolve=True))
            self._templates[key] = _Template(config)
        return self._templates[key]

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


def name(config: DictConfig, overrides: Sequence[str]) -> None:
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


def set_number(config: DictConfig, of_sweep: int, sweep_dir: Path | None = None) -> None:
    """Writes into Hydra's part which job of the sweep it is, and the sweep's absolute folder where one is given."""
    with read_write(config.hydra), open_dict(config):
        config.hydra.job.num = of_sweep
        config.hydra.job.id = str(of_sweep)
        if sweep_dir is not None:
            config.hydra.sweep.dir = str(sweep_dir)


def run(job: Job, task: TaskFunction, context: HydraContext) -> JobReturn:
    """The task's result, or the exception that it raised.

    Hydra's own run_job runs a job that has a folder, an environment, logging or listeners.
    """
    hydra = job.hydra.hydra
    has_folder = hydra.output_subdir is not None or hydra.sweep.subdir != "."
    if hydra.job.chdir or hydra.job.env_set or has_folder or _has_logging(job) or _is_listened_to(context):
        whole = OmegaConf.merge(job.hydra, job.task)
        assert isinstance(whole, DictConfig)
        return run_job(
            task, whole, job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir", hydra_context=context
        )
    with _as_current(job, context):
        return _call(task, job)


def run_trial(job: Job, task: TaskFunction, context: HydraContext) -> JobReturn:
    """The same as `run`, but the result has nothing beside what the task returned or raised.

    For a job with a folder and a log, Hydra's `run_job` copies its settings five times. A trial then takes 96 ms of
    processor time, and 21 ms here (tests/sweeper/apps/timed.py, basic launcher). Where a callback listens to jobs,
    Hydra runs them.
    """
    if _is_listened_to(context):
        return run(job, task, context)
    hydra = job.hydra.hydra
    with contextlib.ExitStack() as stack:
        stack.enter_context(_as_current(job, context))
        folder = Path(hydra.sweep.dir, hydra.sweep.subdir).absolute()
        with read_write(job.hydra), open_dict(job.hydra):
            hydra.runtime.output_dir = str(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if hydra.job.chdir:
            stack.enter_context(contextlib.chdir(folder))
        if _has_logging(job):
            hydra_compat.configure_log(job.hydra, context)
        if hydra.output_subdir is not None:  # what Hydra leaves of a job's configuration
            only_hydra = job.hydra if list(job.hydra) == ["hydra"] else OmegaConf.masked_copy(job.hydra, "hydra")
            (folder / hydra.output_subdir).mkdir(parents=True, exist_ok=True)
            for part, config in (("config", job.task), ("hydra", only_hydra), ("overrides", hydra.overrides.task)):
                text = without_credentials(OmegaConf.to_yaml(config))
                (folder / hydra.output_subdir / f"{part}.yaml").write_text(text, encoding="utf-8")
        stack.enter_context(env_override({key: str(value) for key, value in hydra.job.env_set.items()}))
        return _call(task, job)


@contextlib.contextmanager
def _as_current(job: Job, context: HydraContext) -> Iterator[None]:
    """Inside, HydraConfig gives the job's settings, and `instantiate` builds what the application allows."""
    singleton = HydraConfig.instance()
    before = singleton.cfg
    singleton.cfg = job.hydra  # type: ignore[assignment]  # as Hydra's own set_config does
    try:
        with hydra_compat.allowing_what_the_application_allows(context):
            yield
    finally:
        singleton.cfg = before


def _call(task: TaskFunction, job: Job) -> JobReturn:
    result = JobReturn()
    try:
        result.return_value = task(job.task)
        result.status = JobStatus.COMPLETED
    except Exception as error:
        result.return_value = error
        result.status = JobStatus.FAILED
    return result


def _is_listened_to(context: HydraContext) -> bool:
    return any(
        type(callback).on_job_start is not Callback.on_job_start or type(callback).on_job_end is not Callback.on_job_end
        for callback in context.callbacks.callbacks
    )


def _has_logging(job: Job) -> bool:
    hydra = job.hydra.hydra
    return bool(hydra.verbose or hydra.job_logging is None or hydra.job_logging.root is not None)
