"""Replays searches over recorded learning curves: the engine's own queue and pruners, and other packages' methods.

    python tests/bench/replay.py [--part judge] [--budgets trials:30 steps:240] [--workers 1 2 8] [--orders 60]
        [--pruners asha promote:reduction_factor=4] [--peers 'optuna*' syne-tune*] [--figure replay.png]
    python tests/bench/replay.py --proposals surrogate [--samplers tpe random] …

`curves/` holds the curves of real trainings. Configurations are split into halves: a method is chosen on `choose` and
judged on `judge`. Time is virtual: a worker trains an epoch in the seconds that were recorded, bookkeeping takes none.

--proposals order: an order is a sequence of configurations, drawn from the half with replacement. All methods see the
same orders; what their samplers propose is ignored, so that what differs is the pruner.
--proposals surrogate: samplers propose freely from the space of the curves, and a model of the half's curves answers
(see surrogate.py; the first row is its error with each configuration left out). With --enqueue the trials that
search=default begins with come first, too. An order is a draw of the model and a seed of the sampler.

A search ends with its budget, trials:N as they begin or steps:N epochs in all. `best` is the validation accuracy in
percent after the last epoch of the best trial that trained all its epochs. The baseline is the first sampler with
--baseline, by default tpe with asha, for long the default. `of baseline` is what a search spent as a part of what the
baseline did, `over baseline` how much better its best is, in points, and `to baseline` after which part of the epochs
that the baseline needed for its best the search was as good. Where it never was (`reached` says in how many percent of
the orders it was), all that it spent counts, so that the figure is too low. Bests after so many epochs are followed by
what they are over the baseline's final best.

Methods of other packages are in peers.py. An order takes 0.01 to 0.3 s a method, MOBSTER 8 s. PASHA is made
to train little to the end: where no trial is complete, there is no `best`.

Intervals are of 95 %, of paired means over orders, geometric ones of ratios. They say how far other orders would lead
elsewhere. Other configurations, of which these are a sample too, might lead further.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # matrices of 100 rows: several threads took 20 times as long

import bench
import numpy as np
import optuna
import pandas as pd
import peers
import yaml
from event_loop import Begun, Curve, Method, Played, Search, play
from surrogate import Surrogate

from cifarsweep.report import style
from cifarsweep.sweeper import space
from cifarsweep.sweeper.promotion import PausingPruner

sys.path.append(str(bench.REPOSITORY / "tests"))
import in_memory

CURVES = Path(__file__).parent / "curves"
SPACE = CURVES / "search" / "curves.yaml"
ENQUEUED = yaml.safe_load((bench.REPOSITORY / "conf" / "search" / "default.yaml").read_text())["hydra"]["sweeper"][
    "enqueue"
]
"""The trials that search=default begins with."""
NOTHING = space.parse({"x": "interval(0.0, 1.0)"}, [])
"""Where proposals are ignored."""
PRUNERS = ["none", "asha", "asha:reduction_factor=3", "asha:reduction_factor=4", "median", "hyperband"]
PRUNERS += [f"promote:reduction_factor={factor}" for factor in (2, 3, 4)]
NO_END = 100_000

Curves = dict[str, dict[int, tuple[dict[str, Any], Curve]]]
"""By configuration and seed: its settings by column, its curve."""
CurveOf = Callable[[int, Mapping[str, Any]], Curve]


def read(file: Path, part: str) -> Curves:
    """The recorded curves of one half. A configuration's half does not change when others are added."""
    table = pd.read_csv(file, dtype={"run": str, "config": str})
    half = {"choose": 0, "judge": 1}.get(part)
    curves: Curves = {}
    for (config, seed), rows in table.groupby(["config", "seed"]):
        if half is None or int(config[:8], 16) % 2 == half:
            curve = Curve(rows["val_accuracy"].fillna(0.1).tolist(), float(rows["seconds"].iloc[0]))
            curves.setdefault(config, {})[seed] = rows.iloc[0].to_dict(), curve
    return curves


def surrogate(curves: Curves, searched: space.Space) -> Surrogate:
    first = [seeds[min(seeds)] for seeds in curves.values()]
    settings = [{key: columns[key.rpartition(".")[2]] for key in searched.keys} for columns, _ in first]
    pairs = [[curve for _, curve in list(seeds.values())[:2]] for seeds in curves.values() if len(seeds) > 1]
    return Surrogate(searched, settings, [curve for _, curve in first], pairs)


class Engine(Method):
    """The engine's own queue, with its sampler and pruner."""

    def __init__(
        self,
        search: Search,
        sampler: Mapping[str, Any],
        pruner: Mapping[str, Any],
        enqueue: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        plan = in_memory.plan(
            Path(), {}, sampler={**sampler, "seed": search.seed}, pruner=dict(pruner),
            n_trials=search.n_trials or NO_END, max_steps=search.num_epochs,
        )  # fmt: skip
        self._study = in_memory.opened(replace(plan, space=search.space, name=str(search.seed)))
        for trial in enqueue:
            searched = {key: value for key, value in trial.items() if key in search.space.keys}
            self._study.study.enqueue_trial(search.space.place(searched))
        self._trials: dict[int, tuple[optuna.Trial, str]] = {}
        self._dropped: set[int] = set()
        self._epoch = 0

    def begin(self, worker: int) -> Begun | None:
        if (trial := self._study.claim(str(worker))) is None:
            return None
        self._trials[trial.number] = trial, str(worker)
        starts_again = trial.number in self._dropped
        self._dropped.discard(trial.number)
        return Begun(trial.number, self._study.values(trial), starts_again)

    def report(self, number: int, epoch: int, value: float) -> bool:
        self._epoch = epoch
        return self._study.queue.report(self._trials[number][0], epoch, value)

    def end(self, number: int, value: float | None) -> None:
        trial, worker = self._trials[number]
        if value is not None:
            assert self._study.queue.finish(trial, worker, in_memory.complete(value))
        elif isinstance(self._study.study.pruner, PausingPruner):
            assert self._study.queue.pause(trial, worker, self._epoch, lambda other: self._dropped.add(other.number))
        else:
            assert self._study.queue.finish(trial, worker, in_memory.PRUNED)


def option(group: str, text: str) -> dict[str, Any]:
    """promote:reduction_factor=3,keep_checkpoints=5 is the option `promote` with these keys changed."""
    name, _, changed = text.partition(":")
    if not (in_memory.KEYS / group / f"{name}.yaml").exists():
        accepted = ", ".join(sorted(file.stem for file in (in_memory.KEYS / group).glob("*.yaml")))
        raise SystemExit(f"--{group}s {text}: expected some of {accepted}")
    keys = (pair.partition("=") for pair in changed.split(",") if pair)
    return in_memory.option(group, name, **{key: yaml.safe_load(value) for key, _, value in keys})


def methods(arguments: argparse.Namespace) -> dict[str, Callable[[Search], Method]]:
    """By name; the baseline is the first."""
    proposes = arguments.proposals == "surrogate"
    samplers = arguments.samplers if proposes else ["random"]
    found: dict[str, Callable[[Search], Method]] = {}
    for sampler in samplers:
        for pruner in [arguments.baseline, *arguments.pruners]:
            keys = option("sampler", sampler), option("pruner", pruner)
            short = pruner.replace(":reduction_factor=", " ")
            found[f"{sampler} {short}" if proposes else short] = lambda search, keys=keys: Engine(search, *keys)
            if proposes and arguments.enqueue:
                found[f"{sampler} {short} enqueue"] = lambda search, keys=keys: Engine(search, *keys, ENQUEUED)
    others = peers.found(proposes)
    chosen = {name for pattern in arguments.peers for name in fnmatch.filter(others, pattern)}
    return found | {name: make for name, make in others.items() if name in chosen}


def budget(text: str) -> tuple[str, int]:
    kind, _, amount = text.partition(":")
    if kind not in ("trials", "steps") or not amount.isdecimal() or int(amount) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected trials:N or steps:N")
    return kind, int(amount)


def searches(
    tried: Mapping[str, Callable[[Search], Method]],
    limit: tuple[str, int],
    num_workers: int,
    orders: Sequence[CurveOf],
    searched: space.Space,
    num_epochs: int,
) -> dict[str, list[Played]]:
    """What each method does in each order."""
    kind, amount = limit
    n_trials, most_epochs = (amount, None) if kind == "trials" else (None, amount)
    played: dict[str, list[Played]] = {name: [] for name in tried}
    for order, curve_of in enumerate(orders):
        for name, make in tried.items():
            with contextlib.closing(make(Search(searched, order, num_epochs, num_workers, n_trials, most_epochs))) as m:
                played[name].append(play(m, curve_of, num_workers, most_epochs))
    return played


def mean(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The mean, and half of its interval of 95 %."""
    array = np.asarray(values, dtype=float)
    return float(array.mean()), float(1.96 * array.std(ddof=1) / np.sqrt(len(array))) if len(array) > 1 else np.nan


def with_interval(values: Sequence[float] | np.ndarray, sign: str = "") -> str:
    middle, half = mean(values)
    return "–" if np.isnan(middle) else f"{middle:{sign}.2f} ± {half:.2f}"


def ratio(values: Sequence[float], others: Sequence[float]) -> str:
    """The geometric mean of paired ratios."""
    middle, half = mean(np.log(np.asarray(values) / np.asarray(others)))
    low, high = np.exp([middle - half, middle + half])
    return f"{np.exp(middle):.2f} ({low:.2f} to {high:.2f})"


def spent(played: Mapping[str, list[Played]], known: bench.Row) -> Iterator[bench.Row]:
    """A row a method: what it spent, what it found, and how soon it found what the baseline does."""
    baseline = next(iter(played.values()))
    for name, mine in played.items():
        reached = [p.epochs_to(d.best) for p, d in zip(mine, baseline, strict=True)]
        until = [p.epochs if np.isinf(e) else e for p, e in zip(mine, reached, strict=True)]
        yield {
            "method": name, **known,
            "trials": float(np.mean([p.num_trials for p in mine])),
            "complete": float(np.mean([len(p.complete) for p in mine])),
            "epochs": float(np.mean([p.epochs for p in mine])),
            "of baseline": ratio([p.epochs for p in mine], [d.epochs for d in baseline]),
            "minutes": float(np.mean([p.seconds for p in mine])) / 60,
            "best": with_interval([100 * p.best for p in mine]),
            "over baseline": with_interval([100 * (p.best - d.best) for p, d in zip(mine, baseline, strict=True)], "+"),
            "to baseline": ratio(until, [d.epochs_to(d.best) for d in baseline]),
            "reached": 100 * float(np.isfinite(reached).mean()),
        }  # fmt: skip


def against(played: Mapping[str, list[Played]], known: bench.Row, at_epochs: Sequence[int]) -> Iterator[bench.Row]:
    """A row a method: its best after so many epochs, and after parts of the minutes that the baseline takes."""
    baseline = next(iter(played.values()))
    minutes = np.mean([p.seconds for p in baseline]) / 60
    most = max(p.epochs for mine in played.values() for p in mine)
    at_epochs = [point for point in at_epochs if point <= most]
    at_minutes = [float(f"{part * minutes:.2g}") for part in (0.25, 0.5, 1)]
    for name, mine in played.items():
        row = {"method": name, **known}
        for unit, points, seconds in (("epochs", at_epochs, False), ("minutes", at_minutes, True)):
            for point in points:
                best = [100 * float(p.best_at(point * 60 if seconds else point, seconds=seconds)) for p in mine]
                over = [value - 100 * b.best for value, b in zip(best, baseline, strict=True)]
                row[f"{point:g} {unit}"] = f"{with_interval(best)} ({with_interval(over, '+')})"
        yield row


def draw(blocks: Mapping[str, Mapping[str, list[Played]]], caption: str, file: Path) -> None:
    """A row of panels a budget and number of workers: the best against epochs and against minutes, a line a method."""
    names = list(next(iter(blocks.values())))
    colours = style.palette(names)
    with style.drawing():
        figure, grid = style.page(
            "Best validation accuracy found",
            caption,
            (9.6, 2.6),
            (len(blocks), 2),
            0.6,
            footer=0.3 * ((len(names) + 1) // 2) + 0.1,
        )
        for (title, played), panels in zip(blocks.items(), grid, strict=True):
            for axes, seconds in zip(panels, (False, True), strict=True):
                end = max(np.mean([p.seconds / 60 if seconds else p.epochs for p in mine]) for mine in played.values())
                points, shown = np.linspace(0, end, 201), []
                for name, mine in played.items():
                    best = 100 * np.stack([p.best_at(points * 60**seconds, seconds=seconds) for p in mine])
                    middle, half = best.mean(axis=0), 1.96 * best.std(axis=0, ddof=1) / np.sqrt(len(mine))
                    axes.plot(points, middle, color=colours[name], lw=1.8, label=name, drawstyle="steps-post")
                    axes.fill_between(
                        points, middle - half, middle + half, color=colours[name], alpha=0.15, lw=0, step="post"
                    )
                    # What came earlier, and its wide intervals, would take all the room.
                    shown += [middle[len(points) // 5 :], (middle + half)[len(points) // 2 :]]
                lowest, highest = np.nanmin(np.hstack(shown)), np.nanmax(np.hstack(shown))
                axes.set(xlim=(0, end), ylim=(lowest, highest + 0.5), title=title, ylabel="percent")
                axes.set_xlabel("minutes" if seconds else "epochs trained")
        style.legend_below(grid[-1][0], grid[-1][0].get_lines(), 0.6 / 2.6, ncols=2)
        figure.savefig(file)


def rows(arguments: argparse.Namespace) -> Iterator[bench.Row]:
    warnings.simplefilter("ignore")
    if not (file := arguments.curves / f"{arguments.world}.csv").exists():
        raise SystemExit(f"--curves {arguments.curves}: expected a folder with {file.name}")
    curves, tried = read(file, arguments.part), methods(arguments)
    first = [seeds[min(seeds)][1] for seeds in curves.values()]
    searched, about = NOTHING, f"{len(first)} configurations ({arguments.part})"
    if arguments.proposals == "surrogate":
        searched = space.parse(yaml.safe_load(SPACE.read_text())["hydra"]["sweeper"]["params"], [])
        model = surrogate(curves, searched)
        points, rank = model.error()
        yield {
            "surrogate": arguments.world, "part": arguments.part, "configurations": len(first),
            "pairs of seeds": model.num_pairs, "error in points": points, "rank correlation": rank,
        }  # fmt: skip
        worlds = [model.world(order) for order in range(arguments.orders)]
        orders: list[CurveOf] = [lambda number, settings, world=world: world.curve(settings) for world in worlds]
    else:
        most = max(amount for _, amount in arguments.budgets) + max(arguments.workers)
        drawn = [random.Random(order).choices(first, k=most) for order in range(arguments.orders)]
        orders = [lambda number, settings, order=order: order[number] for order in drawn]
    blocks = {}
    for limit in arguments.budgets:
        for workers in arguments.workers:
            played = searches(tried, limit, workers, orders, searched, len(first[0].values))
            known = {"budget": ":".join(map(str, limit)), "workers": workers}
            yield from spent(played, known)
            yield from against(played, known, arguments.at_epochs)
            blocks[f"{limit[1]} {limit[0]}, {workers} worker{'s' * (workers > 1)}"] = played
    if arguments.figure:
        caption = f"Replayed over {about}, {arguments.orders} orders, proposals: {arguments.proposals}. "
        draw(blocks, caption + "Lines are means over orders, bands their intervals of 95 %.", arguments.figure)


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--curves", type=Path, default=CURVES, metavar="FOLDER", help="holds WORLD.csv")
    parser.add_argument("--world", default="cifar10")
    parser.add_argument("--part", default="judge", choices=["choose", "judge", "all"])
    parser.add_argument("--proposals", default="order", choices=["order", "surrogate"])
    parser.add_argument("--budgets", type=budget, nargs="+", default=[("trials", 30), ("steps", 240)])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 8])
    parser.add_argument("--orders", type=int, default=60)
    parser.add_argument("--samplers", nargs="+", default=["tpe", "random"])
    parser.add_argument("--baseline", default="asha", metavar="PRUNER")
    parser.add_argument("--pruners", nargs="*", default=PRUNERS)
    parser.add_argument("--enqueue", action="store_true", help="with the first trials of search=default, too")
    parser.add_argument("--peers", nargs="*", default=["*"], metavar="PATTERN", help="of names; no word: none")
    parser.add_argument("--at-epochs", type=int, nargs="+", default=[50, 100, 150, 200])
    parser.add_argument("--figure", type=Path, metavar="FILE", help="for a few methods")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.budgets, arguments.orders, arguments.workers = [("steps", 24)], 2, [2]
    bench.table(rows(arguments), arguments)


if __name__ == "__main__":
    main()
