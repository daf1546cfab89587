"""Warm start: complete runs that were trained before, as finished trials of a study."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from cifarsweep.results import identity, records
from cifarsweep.sweeper.composition import Composer
from cifarsweep.sweeper.queue import WARM
from cifarsweep.sweeper.space import Space
from cifarsweep.sweeper.studies import Plan
from cifarsweep.terminal import progress


def add_runs(
    plan: Plan, study: optuna.Study, compose: Composer, determines: Callable[[DictConfig], dict[str, Any]]
) -> None:
    """Each run once that a trial of this study could have made: composed from the trial's overrides, it has the same
    identity. What cannot be read is passed over, as the report does."""
    known = {trial.user_attrs.get("run") for trial in study.get_trials(deepcopy=False)}
    added = 0
    for run_dir in sorted((plan.folder.parent.parent / "runs").glob("*/")):
        if run_dir.name in known:
            continue
        try:
            trial = _as_trial(plan, run_dir, compose, determines)
        except (ValueError, OSError, KeyError, TypeError):
            continue
        if trial is not None:
            study.add_trial(trial)
            added += 1
    progress.line(f"study {plan.name}: {added} complete runs fit the space and count as finished trials")


def _as_trial(
    plan: Plan, run_dir: Path, compose: Composer, determines: Callable[[DictConfig], dict[str, Any]]
) -> optuna.trial.FrozenTrial | None:
    result = records.RunResult.read(run_dir)
    if result is None or result.status != "complete":
        return None
    objectives = [result.as_dict()[name] for name in plan.settings.objectives]
    values = _values(plan.space, records.read_config(run_dir))
    if values is None or None in objectives:
        return None
    what = {**determines(compose(values).task)}
    what["data"] = {**what["data"], "fingerprint": result.data_fingerprint}
    if identity.run_id(what) != result.run_id:
        return None
    active = list(plan.space.active(values))
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE,
        params={parameter.name: values[parameter.key] for parameter in active},
        distributions={parameter.name: parameter.distribution for parameter in active},
        values=objectives,
        user_attrs={"run": run_dir.name, WARM: True},
    )


def _values(space: Space, config: dict[str, Any]) -> dict[str, Any] | None:
    """What a run's configuration has for each key that is active in it; None where the space has no such value."""
    tree, options = OmegaConf.create(config), config["run"]["choices"]
    values: dict[str, Any] = {}
    for parameter in space.active(values):
        key = parameter.key.lstrip("+")
        value = options[key] if key in options else OmegaConf.select(tree, key)
        if not parameter.accepts(value):
            return None
        values[parameter.key] = value
    return values
