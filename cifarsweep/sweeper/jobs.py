"""Hydra's jobs, composed and run, with the work that they share done only once. Knows neither launchers nor studies.

Hydra composes a job in about 70 ms, and copies its own settings five times to run it, 20 ms more.
"""

import contextlib
import itertools
import pickle
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import JobReturn, JobStatus, env_override, run_job
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from cifarsweep.sweeper import hydra_compat, pickling
from cifarsweep.terminal.command_line import without_credentials

MOST_KEPT = 1000
"""Compositions, of 15 kB each."""


class Composer:
    """Composes jobs from their overrides. They are what Hydra's `load_sweep_config` makes of them.

    Overrides that do more than change a value, such as to choose an option of a group, are composed once for each
    combination, and values are then set in a copy. To unpickle one takes a third of a deep copy's time. With
    `sweep_dir`, an absolute folder, jobs are told that it is the sweep's: ${now:} in it gives another name in each
    process.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig, sweep_dir: Path | None = None) -> None:
        self._loader, self._master, self._sweep_dir = loader, master, sweep_dir
        self._is_group: dict[str, bool] = {}  # to ask takes 10 ms
        self._composed: dict[tuple[str, ...], bytes] = {}

    def __call__(self, texts: Sequence[str], number: int | None = None) -> DictConfig:
        """The whole configuration, with Hydra's part, of this number's job. Raises what Hydra raises."""
        overrides = [parsed(text) for text in texts]
        options = [o.type == OverrideType.CHANGE and self._names_group(o.key_or_group) for o in overrides]
        values = [not option and _is_value(o) for o, option in zip(overrides, options, strict=True)]
        # What is neither may change what values before it have changed.
        end = max((i + 1 for i in range(len(texts)) if not (options[i] or values[i])), default=0)
        composed = tuple(text for i, text in enumerate(texts) if i < end or options[i])
        if composed not in self._composed:
            if len(self._composed) >= MOST_KEPT:
                self._composed.clear()
            self._composed[composed] = pickling.dumps(self._load(composed))
        config: DictConfig = pickle.loads(self._composed[composed])
        try:
            for override in itertools.compress(overrides[end:], values[end:]):
                OmegaConf.update(config, override.key_or_group, override.value())
        except OmegaConfBaseException:  # composed by Hydra, it ends in Hydra's own error
            config = self._load(texts)
        _name(config, [text for text, o in zip(texts, overrides, strict=True) if not o.is_hydra_override()])
        if number is not None:
            with read_write(config.hydra), open_dict(config):
                config.hydra.job.num, config.hydra.job.id = number, str(number)
        return config

    def _load(self, overrides: Sequence[str]) -> DictConfig:
        config = self._loader.load_sweep_config(self._master, list(overrides))
        with read_write(config), read_write(config.hydra), open_dict(config):
            if self._sweep_dir is not None:
                config.hydra.sweep.dir = config.hydra.runtime.output_dir = str(self._sweep_dir)
            for part in ("sweeper", "launcher"):  # their classes cannot be pickled: Hydra executes plugins again
                config.hydra[part] = OmegaConf.create(OmegaConf.to_container(config.hydra[part]))
        return config

    def _names_group(self, key: str) -> bool:
        if key not in self._is_group:
            self._is_group[key] = bool(self._loader.get_group_options(key))
        return self._is_group[key]


@lru_cache(10 * MOST_KEPT)
def parsed(text: str) -> Override:
    return OverridesParser.create().parse_overrides([text])[0]


def _is_value(override: Override) -> bool:
    """Whether it gives a key of the task's configuration a plain value."""
    if override.type != OverrideType.CHANGE or override.is_hydra_override():
        return False
    value = override.value()
    return isinstance(value, bool | int | float | str | None) and "$" not in str(value)


def without_hydra(config: DictConfig) -> DictConfig:
    """A copy of what the task sees: the configuration without Hydra's part."""
    task_config = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    OmegaConf.set_struct(task_config, True)
    return task_config


def _name(config: DictConfig, overrides: Sequence[str]) -> None:
    """Writes into Hydra's part which overrides made the job."""
    with read_write(config.hydra), open_dict(config):
        config.hydra.overrides.task = list(overrides)
        if OmegaConf.is_interpolation(config.hydra.job, "override_dirname"):  # from 1.4 on it is made of the overrides
            return
        wanted = config.hydra.job.config.override_dirname
        words = sorted(word for word in overrides if re.split("[@=]", word.lstrip("+~"))[0] not in wanted.exclude_keys)
        config.hydra.job.override_dirname = wanted.item_sep.join(words).replace("=", wanted.kv_sep)


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
