"""The sweeper of grids: every combination of the values that overrides list. Knows Hydra's jobs, not what they do."""

import itertools
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import RangeSweep
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from cifarsweep.results import files
from cifarsweep.sweeper import cluster, exclusions, hydra_compat, jobs, overrides
from cifarsweep.sweeper.application import Application
from cifarsweep.terminal import domains, errors, progress
from cifarsweep.terminal.command_line import without_credentials
from cifarsweep.terminal.domains import Domain

MOST_JOBS = 100_000
POLL_SECONDS = 0.5

_ACCEPTED = {
    "detach": domains.BOOLEAN,
    "exclude": exclusions.ACCEPTED,
    "max_batch_size": domains.whole(1).or_null(),
    "params": Domain(lambda value: isinstance(value, dict | DictConfig), "values for each key").or_null(),
}


def sweep(
    arguments: Sequence[str],
    *,
    keys: Mapping[str, Any],
    hydra_context: HydraContext,
    task_function: TaskFunction,
    config: DictConfig,
) -> list[Sequence[JobReturn]]:
    """Launches the jobs, all at once or in batches; a list of their results for each batch.

    Every job is composed and checked before any starts and anything is written. Where jobs failed, the others run all
    the same, and an error follows: RuntimeError for a bug, else ValueError.
    """
    domains.check("hydra.sweeper.", keys, _ACCEPTED)
    loader = hydra_context.config_loader
    combinations = list_jobs(arguments, keys["params"] or {}, loader, overrides.taken_names(loader, config))
    if keys["exclude"]:
        combinations = not_excluded(combinations, keys["exclude"])
    folder, how = Path(config.hydra.sweep.dir).absolute(), config.hydra.launcher
    compose, application = jobs.Composer(loader, config, folder), Application.of(task_function)
    for texts in combinations:
        application.check(compose(texts))
    cluster.check_detach(keys["detach"], config.hydra)
    if keys["detach"] and keys["max_batch_size"]:
        raise ValueError(f"hydra.sweeper.max_batch_size={keys['max_batch_size']}: expected null with detach=true")
    task = cluster.InJob(task_function, folder) if cluster.is_submitit(how) else task_function
    launcher = hydra_compat.instantiate_launcher(hydra_context, task, config, quiet=False)
    application.start_sweep(config, len(combinations))
    files.make_folder(folder)
    with files.atomic(folder / "multirun.yaml") as file:  # as Hydra's own sweeper
        file.write(without_credentials(OmegaConf.to_yaml(config)))
    size = keys["max_batch_size"] or len(combinations)
    launch: Callable[[Sequence[list[str]], int], Sequence[JobReturn]] = launcher.launch
    if cluster.is_slurm(how):
        launch = partial(_launch_on_slurm, launcher, compose, application, folder, keys["detach"])
    batches = [launch(combinations[start : start + size], start) for start in range(0, len(combinations), size)]
    failed = [result._return_value for batch in batches for result in batch if result.status == JobStatus.FAILED]
    if failed:
        message = f"{len(failed)} of {len(combinations)} jobs failed; the same command tries them again"
        if bug := next((error for error in failed if not errors.is_users(error)), None):
            raise RuntimeError(message) from bug
        raise ValueError(message)
    return batches


def _launch_on_slurm(
    launcher: Launcher,
    compose: jobs.Composer,
    application: Application,
    folder: Path,
    detach: bool,
    combinations: Sequence[list[str]],
    first: int,
) -> list[JobReturn]:
    """The results in order, also of jobs that an earlier command has left. A job that fails is shown at once.

    None with `detach`, unless there were such jobs.
    """
    ours, results = cluster.Jobs.of_earlier_commands(folder), dict[str, JobReturn]()
    numbers = {cluster.shown(texts): number for number, texts in enumerate(combinations, start=first)}
    left = set(ours.live.values())
    missing = {number: combinations[number - first] for text, number in numbers.items() if text not in left}
    if len(missing) < len(numbers):
        progress.line(f"comes back to {ours}")
    try:
        if missing:
            ours.submit(launcher, missing)
            if detach and not left:
                progress.line(ours.left)
                return []
        while len(results) < len(numbers):
            texts = dict(ours.live)
            for job, result in ours.ended().items():
                if (number := numbers.get(texts[job])) is None:  # of another command's grid
                    continue
                results[texts[job]], result.overrides = result, combinations[number - first]
                if result.status == JobStatus.FAILED:
                    line = f"job {number} ({texts[job]}) failed: {errors.one_line(result._return_value)}"
                    progress.display.line(line, error=True)
                if isinstance(result._return_value, ChildProcessError):
                    application.lost(compose(result.overrides, number), str(result._return_value))
            time.sleep(POLL_SECONDS)
    except BaseException:
        if ours.live:
            progress.display.line(ours.left, error=True)
        raise
    return [results[cluster.shown(texts)] for texts in combinations]


def list_jobs(
    arguments: Sequence[str],
    params: Mapping[str, Any],
    loader: ConfigLoader | None,
    is_taken: Callable[[str], bool] = lambda name: False,
) -> list[list[str]]:
    """The overrides of each job. ValueError where a key has no list of values, none, or all are too many jobs.

    `is_taken` says which names no zip may have.
    """
    parser = OverridesParser.create(config_loader=loader)
    by_key: dict[str, list[tuple[str, ...]]] = {}
    zips: dict[str, str] = {}
    """Of each key of a zip the zip's name."""

    def add(name: str, choices: list[tuple[str, ...]], text: str | None) -> None:
        by_key[name] = choices
        if math.prod(map(len, by_key.values())) > MOST_JOBS:
            fewer = f"expected up to {MOST_JOBS} jobs; hydra/sweeper=study searches among more"
            raise ValueError(f"{text}: {fewer}")

    def check_once(key: str, now_in: str) -> None:
        if (name := zips.get(key.lstrip("+~"))) is not None:
            raise ValueError(f"{key}: stands in {name}=zip(…) and in {now_in}, expected it once")

    for name, value in params.items():
        if overrides.is_zip(value):
            pairs = overrides.parse_zip(name, value, parser, is_taken)
            for key in pairs.keys:
                check_once(key, name)
                zips[key.lstrip("+")] = name
            rows = [row.texts for row in pairs.rows]
            if pairs.is_shuffled:
                random.shuffle(rows)
            add(name, rows, f"{name}={' '.join(value.split())}")
    words = [*(f"{key}={value}" for key, value in params.items() if key not in by_key), *arguments]
    for override in parser.parse_overrides(words):
        key = override.get_key_element()
        check_once(key, "an override of its own")
        if not override.is_sweep_override():
            add(key, [(override.input_line or f"{key}={override.get_value_element_as_str()}",)], override.input_line)
        elif override.is_discrete_sweep():
            sweep: Any = override._value
            if isinstance(sweep, RangeSweep) and any(True for _ in itertools.islice(sweep.range(), MOST_JOBS, None)):
                sweep.shuffle = False  # Hydra would make a list of it
            values = itertools.islice(override.sweep_string_iterator(), MOST_JOBS + 1)
            add(key, [(f"{key}={value}",) for value in values], override.input_line)
            if not by_key[key]:
                raise ValueError(f"{override.input_line}: stands for no value, expected one or more")
        else:
            space = override.get_value_string()
            raise ValueError(f"{key}={space}: a grid needs a list of values; hydra/sweeper=study searches an interval")
    return [list(itertools.chain(*combination)) for combination in itertools.product(*by_key.values())]


def not_excluded(combinations: Sequence[list[str]], given: str | Sequence[str]) -> list[list[str]]:
    """The jobs that hydra.sweeper.exclude leaves. Says how many it leaves out."""

    def value(text: str) -> tuple[str, Any]:
        override = jobs.parsed(text)
        is_deleted = override.is_delete()
        return exclusions.name_of(override.get_key_element()), None if is_deleted else override.value()

    by_job = [dict(map(value, texts)) for texts in combinations]
    values: dict[str, list[Any]] = {}
    for job in by_job:
        for key, given_value in job.items():
            values.setdefault(key, []).append(given_value)
    excluded = exclusions.parse(given, values)
    is_left = [not any(condition.holds(job.get) for condition in excluded) for job in by_job]
    progress.line(exclusions.told(is_left.count(False), len(is_left), "job"))
    return [*itertools.compress(combinations, is_left)]
