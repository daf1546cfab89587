"""Plays searches of several runs a trial, with the noise of real trainings: what the early end of trials saves.

    python tests/bench/seeds.py [--part judge] [--studies 200] [--trials 30] [--seeds 3]
        [--pruners racing racing:standard_errors=3 wilcoxon:p_threshold=0.26]

A configuration's mean is the accuracy that curves/cifar10.csv has of it. A run of it differs from that mean by as
much as a run of the depth study (outputs/depth_study) with the same seed differs from the mean of its own
configuration, which is one of 13, drawn for each trial. All trials of a study have the same seeds. Curves and
deviations are split into halves: the pruner's keys were chosen on `choose` and are judged on `judge`.

`random` draws the trials' configurations from all of a half, `best third` from the best ones: so a search ends. `noise`
is what the deviations are multiplied by. `of all runs` is the part of the runs that trials without a pruner take, `same
winner` how often the best trial is the same as without, and `lost` by how many points its mean is worse. Intervals are
of 95 %: of means, and Wilson's of parts.

Queue and pruner are the engine's own. wilcoxon is Optuna's WilcoxonPruner, which is told of single runs.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import bench
import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from replay import CURVES, option, read, with_interval

from cifarsweep.sweeper.studies import StudyPlan, best_trials

sys.path.append(str(bench.REPOSITORY / "tests"))
import in_memory

DEPTH_STUDY = bench.REPOSITORY / "outputs" / "depth_study" / "depth_study_runs.csv"
PRUNERS = ["racing", "wilcoxon:p_threshold=0.1", "wilcoxon:p_threshold=0.26"]
WORLDS = [("random", 1.0), ("best third", 1.0), ("random", 2.0), ("best third", 2.0)]
Array = NDArray[np.float64]


def deviations(part: str) -> Array:
    """Of runs from the mean of their configuration: a row for each of a half's configurations, a column a seed."""
    table = pd.read_csv(DEPTH_STUDY).query("state == 'complete'").drop_duplicates("run")
    runs = table.pivot(index=["comparison", "model", "trial"], columns="seed", values="val_accuracy").to_numpy()
    runs = runs[{"choose": slice(0, None, 2), "judge": slice(1, None, 2)}.get(part, slice(None))]
    num_seeds = runs.shape[1]
    return (runs - runs.mean(axis=1, keepdims=True)) * np.sqrt(num_seeds / (num_seeds - 1))  # the mean is theirs


def study(means: Array, noise: Array, num_trials: int, num_seeds: int, number: int) -> Array:
    """What a study's runs come to: a row a trial, a column a seed."""
    draw = np.random.default_rng(number)
    of_trials = draw.choice(means, num_trials, replace=num_trials > len(means))
    seeds = draw.choice(noise.shape[1], num_seeds, replace=False)
    return of_trials[:, None] + noise[draw.integers(len(noise), size=num_trials)][:, seeds]


def play(values: Array, plan: StudyPlan, wilcoxon: float | None) -> tuple[int, float]:
    """The runs that were trained, and the mean of the best trial."""
    opened, num_runs, num_seeds = in_memory.opened(plan), 0, values.shape[1]
    if wilcoxon is not None:
        opened.study.pruner = optuna.pruners.WilcoxonPruner(p_threshold=wilcoxon)
    while (trial := opened.claim("worker")) is not None:
        runs, outcome = values[trial.number], in_memory.PRUNED
        for k in range(1, num_seeds + 1):
            num_runs += 1
            told = runs[:k].mean() if wilcoxon is None else runs[k - 1]
            if opened.queue.report(trial, k, float(told)) and k < num_seeds:
                break
        else:
            outcome = in_memory.complete(float(runs.mean()))
        assert opened.queue.finish(trial, "worker", outcome)
    return num_runs, best_trials(opened.plan, opened.trials)[0].values[0]


def part_with_interval(hits: NDArray[np.bool_]) -> str:
    """In percent."""
    n, p, z = len(hits), hits.mean(), 1.96
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low, high = (100 * end / (1 + z**2 / n) for end in (middle - half, middle + half))
    return f"{100 * p:.1f} ({low:.1f} to {high:.1f})"


def rows(arguments: argparse.Namespace) -> Iterator[bench.Row]:
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    curves = read(arguments.curves / "cifar10.csv", arguments.part).values()
    means = np.sort([seeds[min(seeds)][1].values[-1] for seeds in curves])
    noise = deviations(arguments.part)
    if arguments.seeds > noise.shape[1]:
        raise SystemExit(f"--seeds {arguments.seeds}: expected at most {noise.shape[1]}, which were recorded")
    for drawn, factor in WORLDS:
        of_world = means[-len(means) // 3 :] if drawn == "best third" else means
        size = arguments.trials, arguments.seeds
        studies = [study(of_world, factor * noise, *size, number) for number in range(arguments.studies)]
        best = np.array([values.mean(axis=1).max() for values in studies])
        for pruner in arguments.pruners:
            name, _, threshold = pruner.partition(":p_threshold=")
            wilcoxon = float(threshold) if name == "wilcoxon" else None
            own = {"pruner": option("pruner", pruner)} if wilcoxon is None else {}
            seeds = [*range(arguments.seeds)]
            plan = in_memory.plan(Path(), {"x": "interval(0, 1)"}, n_trials=arguments.trials, seeds=seeds, **own)
            num_runs, found = map(np.array, zip(*(play(values, plan, wilcoxon) for values in studies), strict=True))
            yield {
                "pruner": pruner, "configurations": drawn, "noise": factor,
                "of all runs": with_interval(num_runs / studies[0].size),
                "same winner %": part_with_interval(found >= best - 1e-12),
                "lost": with_interval(100 * (best - found)),
            }  # fmt: skip


def main() -> None:
    parser = bench.parser(__doc__)
    parser.add_argument("--curves", type=Path, default=CURVES, metavar="FOLDER", help="holds cifar10.csv")
    parser.add_argument("--part", default="judge", choices=["choose", "judge", "all"])
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pruners", nargs="+", default=PRUNERS)
    arguments = parser.parse_args()
    if arguments.small:
        arguments.studies, arguments.trials = 2, 8
    bench.table(rows(arguments), arguments)


if __name__ == "__main__":
    main()
