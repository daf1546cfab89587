"""A study of its own for each value of study_per, then final runs: budgets, seeds, resume, plan, refusals."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from conftest import Command
from matplotlib.text import Text
from optuna.trial import TrialState
from test_search import kill_all, logged, run_toy, start_toy, wait_for_starts

from cifarsweep.report import answer, depth_study, depth_study_figures, depth_study_findings, style
from cifarsweep.report.depth_study import DepthStudy, FinalRun, Searched
from cifarsweep.report.search_results import Trial
from cifarsweep.results import identity, sweeps
from cifarsweep.results.records import RunResult
from cifarsweep.results.study_records import StudyWithFinalRuns
from cifarsweep.sweeper.queue import Outcome, Queue
from cifarsweep.sweeper.settings import Budget
from cifarsweep.sweeper.storage import open_storage
from cifarsweep.training import configuration

PER_MODEL = ["hydra.sweeper.study_per=[model]"]
TWO_WORKERS = ["hydra.sweeper.n_workers=2"]
FINALS = ["hydra.sweeper.finalists=2", "hydra.sweeper.repeats=3"]


def read_studies(folder: Path, name: str = "toy") -> dict[str, Any]:
    found = json.loads((folder / "outputs" / "sweeps" / name / "studies.json").read_text())
    assert isinstance(found, dict)
    return found


def num_finished(study: dict[str, Any]) -> int:
    return sum(trial["state"] in ("complete", "pruned", "failed") for trial in study["trials"])


# searches of their own


def test_each_model_has_a_search_of_its_own_with_the_same_total(tmp_path: Path) -> None:
    done = run_toy(tmp_path, *PER_MODEL, *TWO_WORKERS, "hydra.sweeper.n_trials=6")
    assert (done.returncode, done.stderr) == (0, "")
    studies = read_studies(tmp_path)["studies"]
    assert [study["values"] for study in studies] == [{"model": "layers2"}, {"model": "layers3"}]
    assert [num_finished(study) for study in studies] == [6, 6]
    assert all("model" not in trial["params"] for study in studies for trial in study["trials"])
    random = [[trial["params"] for trial in study["trials"][:4]] for study in studies]
    assert random[0] == random[1], "the same random trials come first at each depth"


def test_several_keys_make_a_study_of_each_combination_and_conditions_on_them_hold(tmp_path: Path) -> None:
    done = run_toy(tmp_path, "hydra.sweeper.study_per=[optimizer,model]", "hydra.sweeper.n_trials=3")
    assert done.returncode == 0, done.stderr
    for study in read_studies(tmp_path)["studies"]:
        low, high = (0.01, 0.5) if study["values"]["optimizer"] == "momentum" else (5e-4, 2e-2)
        assert [list(trial["params"]) for trial in study["trials"]] == [["optimizer.lr"]] * 3
        assert all(low <= trial["params"]["optimizer.lr"] <= high for trial in study["trials"])


def test_a_budget_of_epochs_is_spent_to_the_epoch_by_each_study(tmp_path: Path) -> None:
    words = [*PER_MODEL, "hydra.sweeper.n_workers=3", "hydra.sweeper.budget=epochs:37", "trainer.epochs=5"]
    done = run_toy(tmp_path, *words, "hydra/sweeper/sampler=random", TOY_SECONDS="0.01")
    assert (done.returncode, done.stderr) == (0, "")
    studies = read_studies(tmp_path)["studies"]
    assert [study["epochs"] for study in studies] == [37, 37]
    assert all(trial["state"] in ("complete", "pruned") for study in studies for trial in study["trials"])
    assert all(len(t["epochs"]) == 5 for study in studies for t in study["trials"] if t["state"] == "complete")


@pytest.mark.slow
def test_a_budget_of_epochs_survives_kills(tmp_path: Path) -> None:
    words = [*PER_MODEL, *TWO_WORKERS, "hydra.sweeper.budget=epochs:30", "trainer.epochs=5"]
    for starts in (2, 6):
        started = start_toy(tmp_path, *words, TOY_SECONDS="0.05")
        wait_for_starts(tmp_path, starts)
        time.sleep(0.12)
        kill_all(started)
    done = run_toy(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert [study["epochs"] for study in read_studies(tmp_path)["studies"]] == [30, 30]


def test_a_budget_of_seconds_stops_each_study_after_the_epoch_that_exceeds_it(tmp_path: Path) -> None:
    """An epoch of the toy says that it took a second; the fourth trial is ends in its middle."""
    words = [*PER_MODEL, "hydra.sweeper.budget=seconds:18", "trainer.epochs=5"]
    assert run_toy(tmp_path, *words, "hydra/sweeper/pruner=none").returncode == 0
    studies = read_studies(tmp_path)["studies"]
    assert [[len(trial["epochs"]) for trial in study["trials"]] for study in studies] == [[5, 5, 5, 3]] * 2


# final runs


def test_the_finalists_are_the_best_by_validation_and_have_seeds_that_no_trial_used(tmp_path: Path) -> None:
    done = run_toy(tmp_path, *PER_MODEL, *FINALS, "hydra.sweeper.n_trials=6", "seed=7")
    assert (done.returncode, done.stderr) == (0, "")
    found = read_studies(tmp_path)
    assert found["seeds"] == [8, 9, 10]
    for study in found["studies"]:
        complete = [trial for trial in study["trials"] if trial["state"] == "complete"]
        best = sorted(complete, key=lambda trial: trial["values"], reverse=True)[:2]
        assert study["finalists"] == [trial["number"] for trial in best]
        runs = Counter((run["finalist"], run["seed"]) for run in study["final_runs"])
        assert runs == {(number, seed): 1 for number in study["finalists"] for seed in (8, 9, 10)}
        assert {run["state"] for run in study["final_runs"]} == {"complete"}


def test_seeds_that_are_searched_are_not_among_those_of_the_final_runs(tmp_path: Path) -> None:
    run_toy(tmp_path, *PER_MODEL, *FINALS, "seed=range(4)", "hydra.sweeper.n_trials=3")
    assert read_studies(tmp_path)["seeds"] == [4, 5, 6]


def test_the_same_command_again_runs_nothing_and_more_repeats_only_the_rest(tmp_path: Path) -> None:
    words = [*PER_MODEL, "hydra.sweeper.finalists=1", "hydra.sweeper.n_trials=4"]
    run_toy(tmp_path, *words, "hydra.sweeper.repeats=2")
    assert len(logged(tmp_path, "start")) == 2 * (4 + 2)
    before = read_studies(tmp_path)
    assert run_toy(tmp_path, *words, "hydra.sweeper.repeats=2").returncode == 0
    assert read_studies(tmp_path) == before
    run_toy(tmp_path, *words, "hydra.sweeper.repeats=3")
    assert len(logged(tmp_path, "start")) == 2 * (4 + 3)
    assert [len(study["final_runs"]) for study in read_studies(tmp_path)["studies"]] == [3, 3]


@pytest.mark.slow
def test_a_study_killed_in_either_stage_goes_on_and_repeats_nothing_that_was_finished(tmp_path: Path) -> None:
    words = [*PER_MODEL, *TWO_WORKERS, *FINALS, "hydra.sweeper.n_trials=5", "hydra/sweeper/pruner=none"]
    for starts in (4, 13):  # of 10 trials, then 12 final runs
        started = start_toy(tmp_path, *words, TOY_SECONDS="0.05")
        wait_for_starts(tmp_path, starts)
        kill_all(started)
    done = run_toy(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    studies = read_studies(tmp_path)["studies"]
    assert [num_finished(study) for study in studies] == [5, 5]
    assert [len([run for run in study["final_runs"] if run["state"] == "complete"]) for study in studies] == [6, 6]
    assert 22 <= len(logged(tmp_path, "end")) <= 22 + 4, "only what ended at the very moment of a kill ends again"


@pytest.mark.slow
def test_a_worker_that_dies_in_a_final_run_costs_one_retry(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    first_time = f"not __import__('os').path.exists('{flag}') and not open('{flag}', 'w').close()"
    starts = f"open('{tmp_path}/log').read().count('start')"
    done = run_toy(
        tmp_path, *PER_MODEL, *TWO_WORKERS, *FINALS, "hydra.sweeper.n_trials=3", "hydra/sweeper/pruner=none",
        TOY_FAULT=f"'kill' if {starts} > 8 and {first_time} else None",
    )  # fmt: skip
    assert done.returncode == 0
    assert "lost its process: SIGKILL" in done.stderr
    assert [len(study["final_runs"]) for study in read_studies(tmp_path)["studies"]] == [6, 6]
    assert {run["state"] for study in read_studies(tmp_path)["studies"] for run in study["final_runs"]} == {"complete"}


def test_what_a_deleted_journal_had_of_searches_and_final_runs_is_named_and_drawn_again(tmp_path: Path) -> None:
    words = [*PER_MODEL, *FINALS, "hydra.sweeper.n_trials=2", "hydra/sweeper/pruner=none"]
    assert run_toy(tmp_path, *words).returncode == 0
    before = read_studies(tmp_path)["studies"]
    again = run_toy(tmp_path, *words)
    assert "studies.json" not in again.stdout
    journal = tmp_path / "outputs" / "sweeps" / "toy" / "study.journal"
    journal.unlink()

    done = run_toy(tmp_path, *words)

    assert (done.returncode, done.stderr) == (0, "")
    lost = 2 * 2 + 2 * (2 * 3)  # trials of two searches, and final runs of two finalists each
    said = f"{journal}: lacks {lost} trials of studies.json, which is kept as studies.json.corrupt"
    assert said in done.stdout.splitlines()
    after = read_studies(tmp_path)["studies"]
    assert [[trial["values"] for trial in study["trials"]] for study in after] == [
        [trial["values"] for trial in study["trials"]] for study in before
    ]
    assert [study["final_runs"] for study in after] == [study["final_runs"] for study in before]


@pytest.mark.slow
def test_ctrl_c_names_the_command_that_goes_on(tmp_path: Path) -> None:
    started = start_toy(tmp_path, *PER_MODEL, *TWO_WORKERS, *FINALS, "hydra.sweeper.n_trials=6", TOY_SECONDS="0.5")
    wait_for_starts(tmp_path, 2)
    os.killpg(started.pid, signal.SIGINT)
    _, err = started.communicate(timeout=30)
    assert started.returncode == 130
    assert err.startswith("interrupted; this goes on: toy.py -m data=shapes name=toy search=quick ")


def test_a_search_without_study_per_has_final_runs_too(tmp_path: Path) -> None:
    done = run_toy(tmp_path, *FINALS, "hydra.sweeper.n_trials=5")
    assert done.returncode == 0, done.stderr
    (study,) = read_studies(tmp_path)["studies"]
    assert len(study["final_runs"]) == 6
    assert done.stdout.count("\nfinal run of trial ") == 6
    assert (tmp_path / "outputs" / "sweeps" / "toy" / "study.json").exists()


@pytest.mark.slow
def test_final_runs_that_failed_are_tried_again(tmp_path: Path) -> None:
    words = [*PER_MODEL, "hydra.sweeper.n_trials=3", "hydra/sweeper/pruner=none"]
    assert run_toy(tmp_path, *words).returncode == 0
    words += ["hydra.sweeper.finalists=1", "hydra.sweeper.repeats=3"]
    done = run_toy(tmp_path, *words, TOY_FAULT="'raise' if lr else None")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("final runs that failed: 6, which the same command tries again; ")
    done = run_toy(tmp_path, *words)
    assert (done.returncode, done.stderr) == (0, "")
    runs = [run for study in read_studies(tmp_path)["studies"] for run in study["final_runs"]]
    assert [run["state"] for run in runs] == ["complete"] * 6


@pytest.mark.slow
def test_final_runs_that_are_wanted_no_more_are_left_out(tmp_path: Path) -> None:
    words = [*PER_MODEL, *TWO_WORKERS, "hydra.sweeper.n_trials=3", "hydra.sweeper.finalists=1"]
    started = start_toy(tmp_path, *words, "hydra.sweeper.repeats=5", TOY_SECONDS="0.3")
    wait_for_starts(tmp_path, 2 * 3 + 1)
    kill_all(started)
    assert run_toy(tmp_path, *words, "hydra.sweeper.repeats=2").returncode == 0
    for study in read_studies(tmp_path)["studies"]:
        assert [(run["seed"], run["state"]) for run in study["final_runs"]] == [(1, "complete"), (2, "complete")]


@pytest.mark.slow
def test_a_budget_is_neither_lowered_below_what_was_spent_nor_counted_in_another_unit(tmp_path: Path) -> None:
    words = [*PER_MODEL, "trainer.epochs=5"]
    assert run_toy(tmp_path, *words, "hydra.sweeper.budget=epochs:12").returncode == 0
    before = read_studies(tmp_path)
    for budget, message in (
        ("epochs:9", "hydra.sweeper.budget=9 epochs: expected 12 or more, which toy, model=layers2 has spent"),
        ("seconds:90", "hydra.sweeper.budget: was counted in epochs, is in seconds; another name= begins a new one"),
        ("trials:9", "hydra.sweeper.budget: was counted in epochs, is in trials; another name= begins a new one"),
    ):
        done = run_toy(tmp_path, *words, f"hydra.sweeper.budget={budget}")
        assert (done.returncode, done.stderr) == (1, f"{message}\n")
    assert read_studies(tmp_path) == before


def test_a_trial_interrupted_after_the_last_epoch_of_the_budget_still_ends(tmp_path: Path) -> None:
    store = open_storage(str(tmp_path / "study.journal"))
    study = optuna.create_study(direction="maximize", storage=store)
    limits: Any = SimpleNamespace(max_retries=1, max_failures=5, grace_period=120, budget=Budget("epochs", 5))
    queue = Queue(study, tmp_path, limits)
    trial = queue.claim("one")
    assert trial is not None
    assert not queue.spend(trial, 5, ends=True)
    assert queue.claim("two") is None
    queue.give_back("one")  # while its last figures were measured
    assert (queue.num_waiting, queue.is_over) == (1, False)
    again = queue.claim("two")
    assert again is not None
    assert (again.number, queue.claim("one")) == (trial.number, None)
    assert queue.finish(again, "two", Outcome(TrialState.COMPLETE, [0.5]))
    assert queue.is_over


def test_a_study_that_fails_stops_alone(tmp_path: Path) -> None:
    words = [*PER_MODEL, *FINALS, "hydra.sweeper.n_trials=8", "hydra.sweeper.max_failures=2"]
    done = run_toy(tmp_path, *words, TOY_FAULT="'raise' if depth == 2 else None")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("study toy, model=layers2 stopped, as more than 2 trials failed")
    failed, other = read_studies(tmp_path)["studies"]
    assert (num_finished(other), len(other["final_runs"])) == (8, 6)
    assert failed["final_runs"] == []


# the plan


def test_the_plan_and_its_cost_are_printed_before_anything_starts(tmp_path: Path) -> None:
    words = [
        *PER_MODEL, *TWO_WORKERS, "hydra.sweeper.finalists=1", "hydra.sweeper.repeats=5",
        "hydra.sweeper.budget=epochs:60",
    ]  # fmt: skip
    done = run_toy(tmp_path, *words, "hydra.sweeper.dry_run=true", "trainer.epochs=6")
    assert (done.returncode, done.stderr) == (0, "")
    plan = done.stdout.splitlines()
    assert plan[0] == (
        "plan of toy: 2 studies of 60 epochs of training each, of 6 epochs a trial; then the best configuration of "
        "each, by val_accuracy, with seeds 1, 2, 3, 4, 5"
    )
    assert plan[2].split() == ["layers2", "16", "100", "10", "1", "s", "60", "s", "30", "s"]
    assert plan[4].startswith("about 90 s with 2 workers, by the speed just measured")
    assert not (tmp_path / "outputs").exists()


# the report


def study_of(
    comparison: str, accuracies: list[float], about: dict[str, Any], values: dict[str, Any] | None = None
) -> Searched:
    """A search with a final run for each of the accuracies."""
    runs = [
        FinalRun(finalist=0, seed=seed, state="complete", run=None, reason=None, result={"test_accuracy": accuracy})
        for seed, accuracy in enumerate(accuracies)
    ]
    return Searched(
        comparison=comparison, values=values or {}, params=[], is_over=True, epochs=0, trials=[], finalists=[0],
        final_runs=runs, about=about,
    )  # fmt: skip


def depth_study_of(studies: list[Searched]) -> DepthStudy:
    return DepthStudy(
        format=1, name="d", study_per=["model"], objectives=["val_accuracy"], directions=["maximize"],
        budget="9 trials", max_epochs=8, finalists=1, repeats=3, seeds=[1], final_on="train", studies=studies,
        unreadable=[],
    )  # fmt: skip


def test_searches_that_compare_no_depths_have_no_answer_about_depth() -> None:
    def searched(depth: int, **values: Any) -> Searched:
        about = {"model": f"layers{depth}", "depth": depth}
        return study_of(depth_study._comparison(values), [0.7, 0.71, 0.72], about, values)

    alone = depth_study_of([searched(4)])
    assert not alone.compares_depths
    assert depth_study_findings.answer(alone) == ["Test accuracy with layers4 is 71.0 ± 2.5 % in the final runs."]
    per_optimizer = [searched(4, optimizer=name) for name in ("adamw", "muon")]
    assert not depth_study_of(per_optimizer).compares_depths
    per_model = [searched(2, model="layers2"), searched(4, model="layers4")]
    study = depth_study_of(per_model)
    assert study.compares_depths
    assert depth_study_findings.answer(study)[0] == "Of layers2 and layers4 there are not enough runs to say."
    assert depth_study_findings.sentences(study)["depth_study_cost"] == "layers2 has the highest mean, 71.0 ± 2.5 %."


def test_the_answer_of_a_study_says_in_words_which_depths_differ() -> None:
    def searched(depth: int, accuracy: float) -> Searched:
        accuracies = [accuracy, accuracy + 0.001, accuracy - 0.001]
        found = study_of("equal width", accuracies, {"model": f"layers{depth}", "depth": depth})
        of_trial: dict[str, Any] = {"state": "complete", "params": {}, "run": None, "reason": None, "epochs": {}}
        of_trial |= {"started": None, "finished": None, "warm_start": False}
        return replace(found, trials=[Trial(number=at, values=[accuracy], **of_trial) for at in range(4)])

    def said(*accuracies: float) -> str:
        study = depth_study_of([searched(depth, accuracy) for depth, accuracy in enumerate(accuracies, 1)])
        return depth_study_findings.answer(study)[0]

    assert said(0.7, 0.8, 0.8) == (
        "At equal width, accuracy grows up to layers2; no difference after that is beyond chance."
    )
    assert said(0.7, 0.8, 0.9) == "At equal width, accuracy grows up to layers3."
    assert said(0.8, 0.8, 0.8) == "At equal width, no difference between neighbouring depths is beyond chance."
    assert said(0.7, 0.8, 0.8, 0.6) == (
        "At equal width, accuracy grows up to layers2; the difference between layers2 and layers3 may be chance; "
        "accuracy is lower with layers4 than with layers3."
    )


def test_the_numbers_of_the_answer_are_a_row_for_each_network() -> None:
    at_width = [study_of("equal width", [0.7, 0.7], {"model": f"layers{n}", "depth": n}) for n in (2, 3)]
    at_params = study_of("equal parameters (9)", [0.6, 0.6], {"model": "layers3", "depth": 3})
    assert depth_study_findings.means(depth_study_of([*at_width, at_params])) == [
        {"model": "layers2", "equal width": "70.0 ± 0.0 %", "equal parameters (9)": ""},
        {"model": "layers3", "equal width": "70.0 ± 0.0 %", "equal parameters (9)": "60.0 ± 0.0 %"},
    ]


def test_a_study_that_is_open_wants_more_seeds_or_a_longer_search() -> None:
    """Seeds tell configurations apart. Where they do and the depths are still open, the search's luck decides."""

    def searched(depth: int, accuracies: list[float], values: list[float]) -> Searched:
        found = study_of("equal width", accuracies, {"model": f"layers{depth}", "depth": depth})
        of_trial: dict[str, Any] = {"state": "complete", "params": {}, "run": None, "reason": None, "epochs": {}}
        of_trial |= {"started": None, "finished": None, "warm_start": False}
        return replace(found, trials=[Trial(number=at, values=[value], **of_trial) for at, value in enumerate(values)])

    sure = [0.7, 0.701, 0.702, 0.703]
    seeds = depth_study_of([searched(2, [0.70, 0.73, 0.71], sure), searched(3, [0.72, 0.71, 0.71], sure)])
    assert answer._open_depths(seeds) == (
        "Next: 6 seeds would tell more about the depths that do not differ yet.",
        {"hydra.sweeper.repeats": "6"},
    )
    by_luck = [0.5, 0.6, 0.7, 0.9]
    search = depth_study_of([searched(2, [0.7, 0.701, 0.702], by_luck), searched(3, [0.71, 0.711, 0.712], by_luck)])
    what, changes = answer._open_depths(search)
    assert what.startswith("Next: a longer search")
    assert changes == {"hydra.sweeper.budget": "trials:18"}


def test_what_the_searches_trained_is_said_not_what_their_last_budget_was() -> None:
    """Stopped, gone on with another budget: the record has the last one only."""
    of_trial: dict[str, Any] = {"state": "complete", "values": [0.7], "params": {}, "run": None, "reason": None}
    of_trial |= {"started": None, "finished": None, "warm_start": False}

    def searched(depth: int, lengths: list[int], is_over: bool) -> Searched:
        found = study_of("equal width", [0.7, 0.71], {"model": f"layers{depth}", "depth": depth})
        trials = [
            Trial(number=number, epochs={str(epoch + 1): 0.7 for epoch in range(length)}, **of_trial)
            for number, length in enumerate(lengths)
        ]
        return replace(found, trials=trials, is_over=is_over)

    study = replace(depth_study_of([searched(2, [8, 8], True), searched(3, [8, 1], False)]), budget="64 epochs")
    figure = depth_study_figures.draw("depth_study", study)
    assert figure is not None
    caption = " ".join(figure.texts[-1].get_text().split())
    assert caption.endswith("The trials of each search trained 9 to 16 epochs in all.")
    protocol = depth_study_findings.protocol(study)
    assert protocol.startswith("Each of 2 searches made 2 trials of at most 8 epochs, 9 to 16 epochs in all, and saw ")
    assert protocol.endswith(" Not over yet, of 64 epochs each: 1 search.")


def test_how_far_the_best_trials_lie_apart_is_said_of_the_searches_that_have_so_many() -> None:
    of_trial: dict[str, Any] = {"state": "complete", "params": {}, "run": None, "reason": None, "epochs": {}}
    of_trial |= {"started": None, "finished": None, "warm_start": False}
    trials = [Trial(number=number, values=[0.7 + 0.01 * number], **of_trial) for number in range(5)]
    two, three = (study_of("equal width", [0.7], {"model": f"layers{depth}", "depth": depth}) for depth in (2, 3))
    some = depth_study_of([replace(two, trials=trials), replace(three, trials=trials[:4])])
    assert depth_study_findings.sentences(some)["depth_study_flatness"] == (
        "The best 5 trials of a search lie within 4.0 points (1 of 2 searches has so many complete ones)."
    )
    both = depth_study_of([replace(two, trials=trials), replace(three, trials=trials)])
    sentence = depth_study_findings.sentences(both)["depth_study_flatness"]
    assert sentence == "The best 5 trials of a search lie within 4.0 points."


def test_no_interval_of_an_accuracy_reaches_beyond_0_or_100_percent() -> None:
    """Of two seeds Student's t has an interval 13 standard errors wide."""
    searched = study_of("equal width", [0.9, 0.98], {"model": "layers2", "depth": 2})
    assert depth_study_findings.mean_text(searched) == "94.0 (43.2 to 100.0) %"
    assert searched.interval[3] == 1.0


def test_what_a_study_is_about_is_the_finalist_that_stands_for_it() -> None:
    results = {
        "a": {"model": "layers3", "val_accuracy": 0.7, "test_accuracy": 0.7},
        "b": {"model": "layers4", "val_accuracy": 0.8, "test_accuracy": 0.8},
    }
    final = [{"finalist": at, "seed": 1, "state": "complete", "run": run} for at, run in enumerate("ab")]
    found = {
        "values": {},
        "params": [],
        "trials": [],
        "is_over": True,
        "epochs": 8,
        "finalists": [0, 1],
        "final_runs": final,
    }
    assert depth_study._searched(StudyWithFinalRuns.of(found), results, 1).label == "layers4"


# figures


@pytest.mark.parametrize("params", [[170_000] * 5, [500_000, 270_000, 160_000, 165_000, 430_000]])
@pytest.mark.parametrize("accuracies", [[0.8] * 5, [0.7, 0.8, 0.801, 0.802, 0.803]])
def test_depths_beside_their_points_never_cover_each_other(params: list[int], accuracies: list[float]) -> None:
    """The depth of a point that the comparisons have in common stands there once."""
    groups = [
        study_of(comparison, [accuracy], {"depth": depth, "params": size + more, "flops": size + more})
        for comparison, more in (("equal width", 0), ("equal parameters (170,000)", 0), ("equal work", 5_000))
        for depth, (size, accuracy) in enumerate(zip(params, accuracies, strict=True), 1)
    ]
    with style.drawing():
        figure = depth_study_figures.draw("depth_study_cost", depth_study_of(groups))
        assert figure is not None
        figure.draw_without_rendering()
    for axes in figure.axes[1:]:  # parameters, multiply-adds
        boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the line to the point
        assert sorted(text.get_text() for text in axes.texts if text.get_color() == "black") == list("12345")
        assert len(boxes) == 2 * 5
        assert not any(one.padded(-1).overlaps(other) for one, other in itertools.combinations(boxes, 2))


# real runs


@pytest.mark.slow
def test_a_small_depth_study_ends_in_a_report_that_is_the_same_when_made_again(
    cifarsweep: Command, small: list[str], tmp_path: Path
) -> None:
    kept = [word for word in small if not word.startswith(("model", "batch_size"))]
    done = cifarsweep(
        "-m", "experiment=depth_study", "study=quick", *kept, "name=d", "hydra/launcher=basic",
        "data.subset=200", "trainer.epochs=1",
        "hydra.sweeper.budget=epochs:3", "hydra.sweeper.repeats=2", "model.width=3",
        "model=choice(layers2,layers3)", "model.match=choice(params:50000,multiply_adds:900000)",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = tmp_path / "outputs" / "sweeps" / "d" / "report"
    rows = (report / "depth_study.csv").read_text().splitlines()
    assert len(rows) == 1 + 4
    assert rows[1].startswith('"equal parameters (50,000)",layers2,2,3,')
    figures = ("depth_study", "depth_study_gap", "depth_study_flatness", "depth_study_settings", "depth_study_cost")
    assert all((report / f"{stem}{suffix}").exists() for stem in figures for suffix in (".png", ".svg"))
    page = (report / "index.html").read_text()
    assert "The depth study" in page
    assert (
        '<p class="answer">At equal parameters (50,000), of layers2 and layers3 there are not enough runs to say. '
        in page
    )
    assert '<th class="n" scope="col">equal multiply-adds (900,000)</th>' in page
    before = {path.name: path.read_bytes() for path in report.glob("*.csv")}
    assert cifarsweep("outputs/sweeps/d", module="cifarsweep.report").returncode == 0
    assert {path.name: path.read_bytes() for path in report.glob("*.csv")} == before
    assert re.search(r"python -m cifarsweep data=shapes [^<]*model=layers[23] optimizer=", page)
    for run_dir in (tmp_path / "outputs" / "runs").glob("layers*"):
        alone = sweeps.command_of(run_dir)
        assert alone is not None
        composed, result = configuration.compose(alone[3:]).values, RunResult.read_or_unfinished(run_dir)
        matched = {**composed["model"], "width": result.width, "match": None}
        what = identity.identity({**composed, "model": matched}, result.data_fingerprint)
        assert identity.run_id(what) == result.run_id, alone


def test_final_runs_on_train_val_keep_no_image_back_and_the_report_says_so(
    cifarsweep: Command, small: list[str], tmp_path: Path
) -> None:
    kept = [word for word in small if not word.startswith("model=")]
    done = cifarsweep(
        "-m", "search=quick", *kept, "name=t", "hydra/launcher=basic", "hydra.sweeper.study_per=[model]",
        "hydra.sweeper.budget=trials:2",
        "hydra.sweeper.finalists=1", "hydra.sweeper.repeats=1", "hydra.sweeper.final_on=train_val",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    studies = read_studies(tmp_path, "t")["studies"]
    runs = [tmp_path / "outputs" / "runs" / run["run"] for study in studies for run in study["final_runs"]]
    results = [json.loads((run / "result.json").read_text()) for run in runs]
    assert [(result["num_train"], result["num_val"], result["seed"]) for result in results] == [(600, 0, 1)] * 2
    report = tmp_path / "outputs" / "sweeps" / "t" / "report"
    assert (report / "depth_study.png").exists()
    assert not list(report.glob("*_vs_accuracy.*")), "a graph that counts the chosen trial as one more seed"
    page = (report / "index.html").read_text()
    assert "trained on the training and the validation images with 1 seed that no trial had (1)" in page
    assert "not enough" in page
