"""Workarounds for Hydra, each with its reason, its versions and the condition for deleting it."""

import contextlib
import copy
import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import hydra
from hydra._internal.callbacks import Callbacks
from hydra.core import utils
from hydra.core.config_loader import ConfigLoader
from hydra.core.plugins import Plugins
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from cifarsweep.terminal import formatting
from cifarsweep.terminal.domains import as_typed

IS_1_3 = hydra.__version__.startswith("1.3")
VERSION_BASE: dict[str, Any] = {"version_base": "1.3"} if IS_1_3 else {}
"""For `hydra.main` and `initialize`: 1.3 warns where it is not given, 1.4 where it is. Delete it with 1.3."""

_OF_A_SWEEP = re.compile(r"[+~]*hydra[./](sweeper|launcher|sweep|mode)\b")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Has Hydra print a person's mistake as one line. By itself it does so only for its own errors (1.3 and 1.4)."""
    try:
        yield
    except ValueError as error:
        raise CompactHydraException(formatting.one_line(error)) from error


def check_plugins(config: DictConfig) -> None:
    """ValueError where Hydra would end in a traceback: hydra.sweeper or hydra.launcher is none (1.3 and 1.4)."""
    for part, kind in (("sweeper", Sweeper), ("launcher", Launcher)):
        given = OmegaConf.select(config, f"hydra.{part}")
        key, value = (f"{part}._target_", given.get("_target_")) if isinstance(given, DictConfig) else (part, given)
        known = Plugins.instance().discover(kind)
        if value not in [f"{plugin.__module__}.{plugin.__qualname__}" for plugin in known]:
            raise ValueError(f"hydra.{key}={as_typed(value)}: expected an option of its group, as in hydra/{part}=…")


def load_single_run(loader: ConfigLoader, master: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """What the overrides compose to in a single run of the application, with Hydra's part.

    Not by `load_sweep_config`: from 1.4 on it refuses a job whose sweeper is not the sweep's, and a run has none.
    """
    given: Any = OmegaConf.to_container(master.hydra.overrides)  # unresolved: ${hydra.job.num} has no value yet
    words = [word for word in given["hydra"] if not _OF_A_SWEEP.match(word)]
    return loader.load_configuration(master.hydra.job.config_name, [*words, *overrides], run_mode=RunMode.RUN)


def context_of_workers(context: HydraContext, job: DictConfig) -> HydraContext:
    """For a launcher whose jobs are workers: each gets the configuration `job`, and no callback hears of them.

    A launcher would run a worker like any job, with a folder, logging and an environment; those are for the trials.
    Needed as long as launchers offer nothing but jobs (1.3 and 1.4).
    """
    with read_write(job.hydra), open_dict(job):
        job.hydra.output_subdir = None
        job.hydra.sweep.subdir = ".study"
        job.hydra.job_logging = {"version": 1, "root": None, "disable_existing_loggers": False}
        job.hydra.job.chdir = False
        job.hydra.job.env_set = {}
    loader: Any = copy.copy(context.config_loader)
    loader.load_sweep_config = partial(_copy, job)
    return replace(context, config_loader=loader, callbacks=Callbacks())


def _copy(job: DictConfig, master: DictConfig, overrides: list[str]) -> DictConfig:
    return copy.deepcopy(job)


def instantiate_launcher(context: HydraContext, task: TaskFunction, config: DictConfig, *, quiet: bool) -> Launcher:
    """The launcher of a configuration. `quiet`: what its jobs print need not be seen, as that of a search's workers.

    hydra-ray-launcher (1.2.2, 1.4.0rc3) sets object_store_memory, which Ray refuses where it joins a cluster. None is
    Ray's own default. log_to_driver, which Ray's client for ray:// does not know, says nothing of a raylet that died,
    whose last 20 lines of log Ray 2.60 prints.
    """
    launcher = Plugins.instance().instantiate_launcher(context, task, config)
    if type(launcher).__name__ == "RayLauncher":
        init: Any = launcher.ray_cfg.init  # type: ignore[attr-defined]
        init.setdefault("object_store_memory", None)
        if quiet and "log_to_driver" not in init and not str(init.get("address")).startswith("ray://"):
            prints: Any = importlib.import_module("ray._private.worker")
            init["log_to_driver"] = prints._worker_logs_enabled = False
    return launcher


def trusting() -> contextlib.AbstractContextManager[Any]:
    """Inside, `instantiate` builds whatever a configuration names. 1.4 warns of what no list allows; 1.3 has no list.

    For configurations that are written by whoever runs the command.
    """
    if IS_1_3:
        return contextlib.nullcontext()
    public: Any = importlib.import_module("hydra.utils")
    return public.execution_whitelist(public.UNSAFE_DISABLE_EXECUTION_CHECKS)  # type: ignore[no-any-return]


def configure_log(config: DictConfig, context: HydraContext) -> None:
    """A job's logging, which 1.4 builds only of what the application allows."""
    allowed = {} if IS_1_3 else {"execution_whitelist": getattr(context, "execution_whitelist", None)}
    utils.configure_log(config.hydra.job_logging, config.hydra.verbose, **allowed)


def allowing_what_the_application_allows(context: HydraContext) -> contextlib.AbstractContextManager[Any]:
    """Inside, `instantiate` builds what `hydra.main(execution_whitelist=…)` names, as `run_job` of 1.4 has it.

    For jobs that are run without Hydra's `run_job`; 1.3 has no such list.
    """
    if not hasattr(context, "execution_whitelist"):
        return contextlib.nullcontext()
    policy: Any = importlib.import_module("hydra._internal.execution_policy")
    return policy.execution_whitelist(context.execution_whitelist, reset=True)  # type: ignore[no-any-return]
