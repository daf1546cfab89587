"""What a sweep of several studies will do and roughly what it will cost. It is printed before the sweep starts.

Knows plans and measured costs, not how a cost is measured.
"""

from collections.abc import Sequence

from cifarsweep.sweeper.application import Application, Cost
from cifarsweep.sweeper.jobs import Composer
from cifarsweep.sweeper.studies import StudyPlan
from cifarsweep.terminal import progress
from cifarsweep.terminal.domains import as_typed
from cifarsweep.terminal.formatting import duration, plain_lines


def show(
    plans: Sequence[StudyPlan], compose: Composer, application: Application, num_workers: int, num_cores: int
) -> None:
    """Prints the protocol; a row for each study and the cost of the whole where the application can measure a step."""
    costs: list[Cost] = []
    for plan in plans:
        config = compose(plan.space.overrides(plan.space.filled(lambda parameter: parameter.extremes[-1])))
        choices = {str(group): str(option) for group, option in config.hydra.runtime.choices.items()}
        if (cost := application.cost(config, choices, max(1, num_cores // num_workers))) is not None:
            costs.append(cost)
    progress.line(_protocol(plans, application))
    settings, unit = plans[0].settings, application.unit
    if len(costs) < len(plans) or settings.max_steps is None:
        return
    seconds = [_seconds(plan, cost) for plan, cost in zip(plans, costs, strict=True)]
    kinds = [(cost.name, dict(cost.figures)) for cost in costs]
    is_repeated = [kind in kinds[:i] for i, kind in enumerate(kinds)]
    total = sum(sum(pair) for pair, repeated in zip(seconds, is_repeated, strict=True) if not repeated) / num_workers
    per, names = list(settings.study_per), list(costs[0].figures)
    step = f"{'an' if unit[0] in 'aeiou' else 'a'} {unit}"
    header = [*per, *(name.replace("_", "-") for name in names), step, "search", "final runs", ""]
    rows = [
        [
            *(as_typed(plan.per[key]) for key in per),
            *("" if cost.figures[name] is None else f"{cost.figures[name]:,}" for name in names),
            *(duration(part) for part in (cost.step_seconds, *pair)),
            "runs of an earlier one" if repeated else "",
        ]
        for plan, cost, pair, repeated in zip(plans, costs, seconds, is_repeated, strict=True)
    ]
    for line in plain_lines(header, rows, left=[*per, ""]):
        progress.line(f"  {line}")
    most = "" if settings.budget else " at most, as many trials end earlier"
    workers = f"{num_workers} worker{'s' if num_workers > 1 else ''}"
    by = "by the speed just measured; what was trained before costs nothing"
    progress.line(f"about {duration(total)} with {workers}{most}, {by}")


def _protocol(plans: Sequence[StudyPlan], application: Application) -> str:
    plan, settings = plans[0], plans[0].settings
    budget = f"{settings.budget} of training" if settings.budget else f"{settings.n_trials} trials"
    studies = "1 study" if len(plans) == 1 else f"{len(plans)} studies"
    steps = "" if settings.max_steps is None else f"{settings.max_steps} {application.unit}s"
    runs = f"{len(settings.seeds)} runs" if settings.seeds else ""
    each = ", of " + " of ".join(part for part in (runs, steps) if part) + " a trial" if runs or steps else ""
    text = f"plan of {plan.folder.name}: {studies} of {budget} each{each}"
    if plan.finals is None:
        return text
    best = "the best configuration" if settings.finalists == 1 else f"the {settings.finalists} best configurations"
    seeds = ", ".join(map(str, plan.finals.seeds))
    changes = "".join(f", {key}={as_typed(value)}" for key, value in plan.finals.values.items())
    return f"{text}; then {best} of each, by {settings.objectives[0]}, with seeds {seeds}{changes}"


def _seconds(plan: StudyPlan, cost: Cost) -> tuple[float, float]:
    """How long one worker takes, for the search and for the final runs."""
    settings, step = plan.settings, cost.step_seconds
    trial = (settings.max_steps or 1) * step
    search = settings.n_trials * trial * max(1, len(settings.seeds))
    if settings.budget is not None:
        search = settings.budget.amount * (step if settings.budget.step else 1)
    return search, settings.finalists * settings.repeats * trial
