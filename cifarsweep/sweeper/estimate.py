"""What a sweep of several studies is going to do and about what that costs, printed before it starts.

Knows plans and measured costs, not how a cost is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from omegaconf import DictConfig

from cifarsweep.sweeper.composition import Composed, Composer
from cifarsweep.sweeper.studies import Plan
from cifarsweep.terminal import progress
from cifarsweep.terminal.domains import as_typed
from cifarsweep.terminal.formatting import duration, plain_lines

Cost = Callable[[DictConfig, dict[str, str], int], dict[str, Any]]
FIGURES = ("width", "params", "multiply_adds")


def show(plans: Sequence[Plan], compose: Composer, cost: Cost, num_workers: int, num_cores: int) -> None:
    """Measures an epoch of each study's first configuration, a second each, and prints the plan."""
    threads = max(1, num_cores // num_workers)
    measured = []
    for plan in plans:
        task, hydra = _first(plan, compose)
        choices = {str(group): str(option) for group, option in hydra.hydra.runtime.choices.items()}
        measured.append(cost(task, choices, threads))
    for line in lines(plans, measured, num_workers):
        progress.line(line)


def _first(plan: Plan, compose: Composer) -> Composed:
    values: dict[str, Any] = {}
    for parameter in plan.space.active(values):
        values[parameter.key] = parameter.extremes[0]
    return compose.of(plan.space)(values)


def lines(plans: Sequence[Plan], measured: Sequence[dict[str, Any]], num_workers: int) -> list[str]:
    chosen = plans[0].settings
    seconds = [_seconds(plan, cost) for plan, cost in zip(plans, measured, strict=True)]
    seen: set[tuple[Any, ...]] = set()
    twins = [_is_in(seen, cost) for cost in measured]
    total = sum(sum(pair) for pair, twin in zip(seconds, twins, strict=True) if not twin) / num_workers
    per = list(chosen.study_per)
    header = [*per, *(name.replace("_", "-") for name in FIGURES), "an epoch", "search", "final runs"]
    rows = [
        [*(as_typed(plan.per[key]) for key in per), *(_number(cost[name]) for name in FIGURES),
         *(duration(part) for part in (_epoch(cost), *pair)), "runs of an earlier one" if twin else ""]
        for plan, cost, pair, twin in zip(plans, measured, seconds, twins, strict=True)
    ]  # fmt: skip
    most = "" if chosen.budget else " at most, as pruned trials end earlier"
    return [
        _protocol(plans),
        *(f"  {line}" for line in plain_lines([*header, ""], rows, left=[*per, ""])),
        f"about {duration(total)} with {num_workers} worker{'s' if num_workers > 1 else ''}{most}, by the speed just "
        "measured; what was trained before costs nothing",
    ]


def _protocol(plans: Sequence[Plan]) -> str:
    chosen = plans[0].settings
    budget = f"{chosen.budget} of training" if chosen.budget else f"{chosen.n_trials} trials"
    studies = "1 study" if len(plans) == 1 else f"{len(plans)} studies"
    text = f"plan of {plans[0].folder.name}: {studies} of {budget} each, of {chosen.max_epochs} epochs a trial"
    if not chosen.finalists:
        return text
    best = "the best configuration" if chosen.finalists == 1 else f"the {chosen.finalists} best configurations"
    images = {"train": "the training images", "train_val": "training and validation images"}[chosen.final_on]
    seeds = ", ".join(map(str, plans[0].seeds))
    return f"{text}; then {best} of each, by validation accuracy, with seeds {seeds} on {images}"


def _seconds(plan: Plan, cost: dict[str, Any]) -> tuple[float, float]:
    """Of one worker: for the search and for the final runs."""
    chosen, epoch = plan.settings, _epoch(cost)
    of_trials = chosen.n_trials * chosen.max_epochs * epoch
    if chosen.budget is not None:
        of_trials = chosen.budget.amount * (epoch if chosen.budget.kind == "epochs" else 1)
    return of_trials, chosen.finalists * chosen.repeats * chosen.max_epochs * epoch


def _epoch(cost: dict[str, Any]) -> float:
    """With its validation, whose images go forward only, about a third of the work."""
    return float((cost["num_train"] + cost["num_val"] / 3) / cost["images_per_second"])


def _is_in(seen: set[tuple[Any, ...]], cost: dict[str, Any]) -> bool:
    """Whether a network like this was there before: its runs are the same ones where the searches agree."""
    network = tuple(cost[name] for name in ("model", *FIGURES))
    before = network in seen
    seen.add(network)
    return before


def _number(value: Any) -> str:
    return "" if value is None else f"{value:,}"
