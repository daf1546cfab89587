"""The sweeper of grids: every combination of the values that overrides list. Knows Hydra's jobs, not what they do."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from cifarsweep.results import files
from cifarsweep.sweeper import jobs


def sweep(
    arguments: Sequence[str],
    *,
    params: Mapping[str, Any] | None,
    max_batch_size: int | None,
    hydra_context: HydraContext,
    task_function: TaskFunction,
    config: DictConfig,
) -> list[Sequence[JobReturn]]:
    """Launches the jobs, all at once or in batches; a list of their results for each batch.

    Every job is composed before any starts. Where jobs failed, the others run all the same, and ValueError follows.
    """
    if max_batch_size is not None and (type(max_batch_size) is not int or max_batch_size < 1):
        raise ValueError(f"hydra.sweeper.max_batch_size={max_batch_size}: expected a whole number, 1 or more, or null")
    words = [*(f"{key}={value}" for key, value in (params or {}).items()), *arguments]
    parser = OverridesParser.create(config_loader=hydra_context.config_loader)
    by_key: dict[str, list[str]] = {}
    for override in parser.parse_overrides(words):
        key = override.get_key_element()
        if not override.is_sweep_override():
            by_key[key] = [override.input_line or f"{key}={override.get_value_element_as_str()}"]
        elif override.is_discrete_sweep():
            by_key[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
            if not by_key[key]:
                raise ValueError(f"{override.input_line}: stands for no value, expected one or more")
        else:
            space = override.get_value_string()
            raise ValueError(f"{key}={space}: a grid needs a list of values; hydra/sweeper=study searches an interval")
    combinations = [list(combination) for combination in itertools.product(*by_key.values())]
    compose = jobs.Composer(hydra_context.config_loader, config)
    for overrides in combinations:
        compose(overrides)
    folder = Path(config.hydra.sweep.dir)
    with files.atomic(files.make_folder(folder) / "multirun.yaml") as file:  # as Hydra's own sweeper
        OmegaConf.save(config, file)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=hydra_context, task_function=task_function, config=config
    )
    size = max_batch_size or len(combinations)
    batches = [
        launcher.launch(combinations[start : start + size], initial_job_idx=start)
        for start in range(0, len(combinations), size)
    ]
    num_failed = sum(result.status == JobStatus.FAILED for batch in batches for result in batch)
    if num_failed:
        raise ValueError(f"{num_failed} of {len(combinations)} jobs failed; the same command tries them again")
    return batches
