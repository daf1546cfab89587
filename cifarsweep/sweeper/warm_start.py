"""Warm start: finished runs that the application knows, as finished trials of a study."""

from typing import Any

import optuna
from omegaconf import OmegaConf
from optuna.trial import TrialState

from cifarsweep.sweeper import constraints
from cifarsweep.sweeper.application import Application, KnownRun
from cifarsweep.sweeper.jobs import Composer
from cifarsweep.sweeper.queue import WARM
from cifarsweep.sweeper.space import Space
from cifarsweep.sweeper.studies import StudyPlan
from cifarsweep.terminal import progress


def add_runs(plan: StudyPlan, study: optuna.Study, compose: Composer, application: Application) -> None:
    """Adds each run that a trial of this study could have made, once."""
    known = {trial.user_attrs.get("run") for trial in study.get_trials(deepcopy=False)}
    added = 0
    objectives, constrained = plan.settings.objectives, plan.settings.constraints
    names = dict.fromkeys([*objectives, *(constraint.figure for constraint in constrained)])
    for run in application.known_runs(compose(plan.space.fixed), [*names]):
        figures = dict(zip(names, run.values, strict=True))
        values = None if run.name in known else _values(plan.space, run)
        if values is None or not run.is_of(compose(plan.space.overrides(values))):
            continue
        active = list(plan.space.active(values))
        study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE,
                params={parameter.name: parameter.chosen(values) for parameter in active},
                distributions={parameter.name: parameter.distribution for parameter in active},
                values=[figures[name] for name in objectives],
                constraints=constraints.violations(constrained, figures),
                user_attrs={"run": run.name, WARM: True},
            )
        )
        added += 1
    progress.line(f"study {plan.name}: {added} complete runs fit the space and count as finished trials")


def _values(space: Space, run: KnownRun) -> dict[str, Any] | None:
    """What a run's configuration has for each key that is active in it; None where the space has no such values."""
    tree = OmegaConf.create(dict(run.config))
    values: dict[str, Any] = {}
    for parameter in space.active(values):
        for key in parameter.keys:
            name = key.lstrip("+")
            values[key] = run.choices[name] if name in run.choices else OmegaConf.select(tree, name)
        if not parameter.accepts(parameter.chosen(values)):
            return None
    return None if space.excludes(values) else values
