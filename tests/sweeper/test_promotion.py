"""Trials that pause and go on: the rule, exact totals, checkpoints and budgets, kills, and what is refused."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import in_memory
import optuna
import pytest
from conftest import Command
from foreign import SEARCH, read_trials, run, start
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from test_foreign_kills import kill_at_random_moments
from test_search import Toy, logged, read_study, states, toy  # noqa: F401

from cifarsweep.sweeper.promotion import PAUSED, PromotionPruner, is_paused
from cifarsweep.sweeper.queue import DROPPED, Outcome
from cifarsweep.sweeper.studies import OpenStudy

PROMOTE = "hydra/sweeper/pruner=promote"
LAST_STEP = 10


# the rule


class Simulated:
    """A search by `num_workers` whose trials report what `values` has for each, in the order that `draw` likes."""

    def __init__(
        self, study: OpenStudy, values: dict[int, list[float]], num_workers: int, draw: random.Random, deaths: float = 0
    ) -> None:
        """`deaths`: how likely a worker dies before a step. Its trial begins again with its first step."""
        self.study, self._values, self._draw, self._deaths = study, values, draw, deaths
        self.steps: dict[int, list[int]] = defaultdict(list)
        self._slots: dict[str, Iterator[None] | None] = {str(worker): None for worker in range(num_workers)}

    def play(self) -> None:
        for _ in range(20_000):
            if not self._slots:
                return
            worker = self._draw.choice(sorted(self._slots))
            if (slot := self._slots[worker]) is None:
                if (trial := self.study.claim(worker)) is None:
                    if any(self._slots.values()):
                        continue  # as a worker of the engine waits where a trial runs elsewhere
                    del self._slots[worker]
                else:
                    self._slots[worker] = self._work(worker, trial)
            elif self._draw.random() < self._deaths:
                self._slots[worker] = None
                self.study.queue.give_back(worker)
            elif next(slot, "over") == "over":
                self._slots[worker] = None

        raise AssertionError("the search never ends")

    def _work(self, worker: str, trial: optuna.Trial) -> Iterator[None]:
        queue, number = self.study.queue, trial.number
        for step in range(1, LAST_STEP + 1):
            if step > max(self.steps[number], default=0):
                self.steps[number].append(step)
            stops = queue.report(trial, step, self._values[number][step - 1])
            yield  # a worker may die between the two
            if stops:
                assert queue.pause(trial, worker, step, lambda other: None)
                return
        assert queue.finish(trial, worker, in_memory.complete(self._values[number][-1]))


def best_part(values: dict[int, list[float]], trials: list[FrozenTrial], rung: int, factor: int) -> set[int]:
    """By the words of the rule: the best 1/factor of those that came as far as the rung."""
    came = [trial.number for trial in trials if max(trial.intermediate_values, default=0) >= rung]
    came.sort(key=lambda number: (-values[number][rung - 1], number))
    return set(came[: len(came) // factor])


@settings(max_examples=60)
@given(
    n_trials=st.integers(1, 24),
    num_workers=st.integers(1, 4),
    first=st.integers(1, 4),
    factor=st.integers(2, 4),
    deaths=st.sampled_from([0.0, 0.05, 0.3]),
    seed=st.integers(0, 2**32),
)
def test_trials_are_exact_none_repeats_a_step_and_who_is_among_the_best_goes_on(
    tmp_path_factory: pytest.TempPathFactory,
    n_trials: int,
    num_workers: int,
    first: int,
    factor: int,
    deaths: float,
    seed: int,
) -> None:
    draw = random.Random(seed)
    values = {number: [draw.choice([0.1, 0.2, draw.random()]) for _ in range(LAST_STEP)] for number in range(n_trials)}
    pruner = {"min_resource": first, "reduction_factor": factor, "max_resource": LAST_STEP}
    study = in_memory.study(tmp_path_factory.mktemp("study"), n_trials, pruner)
    Simulated(study, values, num_workers, draw, deaths).play()
    trials = study.study.get_trials()
    assert len(trials) == n_trials
    assert study.queue.is_over
    assert all(trial.state == TrialState.COMPLETE or is_paused(trial) for trial in trials)
    num_complete = sum(trial.state == TrialState.COMPLETE for trial in trials)
    assert num_complete >= 1
    rungs = [first * factor**i for i in range(9) if first * factor**i < LAST_STEP]
    for rung in rungs:
        best = best_part(values, trials, rung, factor)
        for trial in trials:
            is_behind = max(trial.intermediate_values) == rung
            assert not (is_behind and trial.number in best), "a trial among the best was left behind"
    for trial in trials:
        assert list(trial.intermediate_values) == list(range(1, max(trial.intermediate_values) + 1))
        assert not is_paused(trial) or trial.user_attrs[PAUSED] in rungs
    if num_complete > 1:  # nobody had to be taken because there was none
        assert num_complete <= max(1, num_workers * n_trials // factor ** len(rungs) + num_workers * len(rungs))


def test_a_sampler_learns_from_paused_trials(tmp_path: Path) -> None:
    study = in_memory.study(tmp_path, 9, {"min_resource": 1, "reduction_factor": 3})
    for value in (0.2, 0.1, 0.0):
        trial = study.claim("w")
        assert trial is not None
        assert study.queue.report(trial, 1, value)
        assert study.queue.pause(trial, "w", 1, lambda other: None)
    seen = study._sampled._get_trials(deepcopy=False, states=(TrialState.PRUNED,), use_cache=True)
    assert [trial.intermediate_values for trial in seen] == [{1: 0.2}, {1: 0.1}, {1: 0.0}]
    assert [trial.state for trial in study.trials] == [TrialState.WAITING] * 3


def test_a_plain_optuna_study_prunes_by_it() -> None:
    study = optuna.create_study(pruner=PromotionPruner(), direction="maximize")

    def objective(trial: optuna.Trial) -> float:
        trial.report(float(trial.number), 1)
        if trial.should_prune():
            raise optuna.TrialPruned
        return float(trial.number)

    study.optimize(objective, n_trials=6)
    assert [trial.state.name for trial in study.trials] == ["PRUNED", "PRUNED", *["COMPLETE"] * 4]


def test_pauses_break_a_row_of_failures(tmp_path: Path) -> None:
    study = in_memory.study(tmp_path, 30, {}, max_failures=2)
    for number in range(20):
        trial = study.claim("w")
        assert trial is not None, "the search has stopped"
        if number % 3:
            study.queue.finish(trial, "w", Outcome(TrialState.FAIL, reason="bad luck"))
        elif study.queue.report(trial, 1, -number):
            study.queue.pause(trial, "w", 1, lambda other: None)
        time.sleep(0.001)


def test_as_many_trials_are_complete_as_there_are_to_be_finalists(tmp_path: Path) -> None:
    study = in_memory.study(tmp_path, 4, {"max_resource": LAST_STEP}, finalists=3, max_steps=LAST_STEP)
    values = {number: [number / 10] * LAST_STEP for number in range(4)}
    Simulated(study, values, 1, random.Random(0)).play()
    assert sum(trial.state == TrialState.COMPLETE for trial in study.study.trials) == 3


def test_without_promotion_paused_trials_go_on(tmp_path: Path) -> None:
    study = in_memory.study(tmp_path, 9, {"max_resource": LAST_STEP})
    values = {number: [number / 10] * LAST_STEP for number in range(9)}
    Simulated(study, values, 2, random.Random(0)).play()
    assert any(map(is_paused, study.study.trials))
    study.study.pruner = optuna.pruners.NopPruner()
    assert not study.queue.is_over
    Simulated(study, values, 2, random.Random(0)).play()
    assert [trial.state for trial in study.study.trials] == [TrialState.COMPLETE] * 9


# checkpoints


def test_what_another_trial_of_the_same_parameters_needs_is_not_dropped(tmp_path: Path) -> None:
    study = in_memory.opened(
        in_memory.plan(
            tmp_path,
            {"x": "choice(1)"},
            n_trials=9,
            pruner=in_memory.option("pruner", "promote", keep_checkpoints=1, reduction_factor=9),
        )
    )
    dropped: list[int] = []
    for value in (0.3, 0.2, 0.1):
        trial = study.claim("w")
        assert trial is not None
        assert study.queue.report(trial, 1, value)
        study.queue.pause(trial, "w", 1, lambda other: dropped.append(other.number))
    assert dropped == []


def test_only_what_a_trial_has_made_is_removed(toy: Toy, tmp_path: Path) -> None:  # noqa: F811
    mine = [tmp_path / "outputs" / "sweeps" / "toy" / "trials" / str(number) / "mine" for number in range(9)]
    for file in mine:
        file.parent.mkdir(parents=True)
        file.touch()
    done = toy(PROMOTE, "hydra.sweeper.pruner.keep_checkpoints=1", "hydra.sweeper.n_trials=9")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(file.exists() for file in mine)


def test_a_checkpoint_that_cannot_be_removed_is_named_and_ends_nothing(tmp_path: Path) -> None:
    words = ["-m", *SEARCH, "hydra/launcher=basic", PROMOTE, "x=interval(0, 1)", "steps=6", "seconds=0"]
    words += [f"log={tmp_path}/log", "hydra/sweeper/sampler=random"]
    assert run(tmp_path, "checkpointed", *words, "hydra.sweeper.n_trials=2").returncode == 0
    worst = max(read_trials(tmp_path), key=lambda trial: trial["params"]["x"])["number"]
    kept, elsewhere = tmp_path / "sweep" / "trials" / str(worst), tmp_path / "elsewhere"
    kept.rename(elsewhere)
    kept.symlink_to(elsewhere)
    done = run(tmp_path, "checkpointed", *words, "hydra.sweeper.n_trials=6", "hydra.sweeper.pruner.keep_checkpoints=1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(f"trial {worst}: its checkpoint stays: ") == 1
    assert (elsewhere / "checkpoint.json").exists()


def test_a_run_loses_its_checkpoint_where_too_many_pause(cifarsweep: Command, tmp_path: Path) -> None:
    words = [*SMALL, f"outputs={tmp_path}/outputs", "name=s", "hydra/sweeper=study", PROMOTE, "hydra/launcher=basic"]
    kept = ["hydra.sweeper.pruner.keep_checkpoints=1", "hydra.sweeper.n_trials=4"]
    done = cifarsweep(
        "-m", *words, *kept, "optimizer.lr=tag(log,interval(0.0001, 0.1))", "hydra/sweeper/sampler=random"
    )
    assert (done.returncode, done.stderr) == (0, "")
    study = json.loads((tmp_path / "outputs" / "sweeps" / "s" / "study.json").read_text())
    paused = [trial for trial in study["trials"] if trial["state"] == "paused"]
    assert len(paused) == 3
    backend = JournalFileBackend(str(tmp_path / "outputs" / "sweeps" / "s" / "study.journal"))
    dropped = optuna.load_study(study_name="s", storage=JournalStorage(backend)).user_attrs[DROPPED]
    assert len(dropped) >= 2
    for trial in paused:
        kept = (tmp_path / "outputs" / "runs" / trial["run"] / "checkpoint.pt").exists()
        assert kept == (trial["number"] not in dropped)


def test_the_least_promising_lose_their_checkpoints_and_start_again(tmp_path: Path) -> None:
    study = in_memory.study(tmp_path, 7, {"reduction_factor": 3, "keep_checkpoints": 2})
    dropped: list[int] = []
    for value in (0.5, 0.4, 0.6, 0.1, 0.2):
        trial = study.claim("w")
        assert trial is not None
        if study.queue.report(trial, 1, value):
            study.queue.pause(trial, "w", 1, lambda other: dropped.append(other.number))
        else:
            study.queue.finish(trial, "w", in_memory.complete(value))
    assert dropped == [3, 4]
    assert study.study.user_attrs[DROPPED] == [3, 4]


def test_a_trial_that_starts_again_counts_its_steps_again(tmp_path: Path) -> None:
    study = in_memory.study(tmp_path, 9, {"reduction_factor": 2, "keep_checkpoints": 1}, budget="steps:8")
    for value in (0.1, 0.2):  # the second is the better one and goes on
        trial = study.claim("w")
        assert trial is not None
        goes_on = not study.queue.report(trial, 1, value)
        assert study.queue.spend(trial, 1, not goes_on) == goes_on
        if not goes_on:
            study.queue.pause(trial, "w", 1, lambda other: None)
    study.study.set_user_attr(DROPPED, [0])
    study.queue.finish(trial, "w", in_memory.complete(0.2))
    for value in (0.0, 0.05):
        trial = study.claim("w")
        assert trial is not None
        assert study.queue.report(trial, 1, value)
        study.queue.spend(trial, 1, True)
        study.queue.pause(trial, "w", 1, lambda other: None)
    again = study.claim("w")
    assert again is not None
    assert again.number == 0
    assert study.queue.spend(again, 1, False)
    assert study.trials[0].user_attrs["spent"] == 2
    assert study.study.user_attrs[DROPPED] == [2]  # the worst now, with room for one


# the real thing


SMALL = [
    *("data=shapes", "data.num_train=300", "data.num_test=50", "data.val_size=50", "batch_size=32", "trainer.epochs=9"),
    *("trainer.threads=1", "seed=3"),
]


def test_a_trial_that_was_paused_ends_byte_for_byte_as_one_that_never_stopped(
    cifarsweep: Command, tmp_path: Path
) -> None:
    words = [*SMALL, f"outputs={tmp_path}/paused", "name=s", "hydra/sweeper=study", PROMOTE, "hydra/launcher=basic"]
    space = ["optimizer.lr=choice(0.0003, 0.003, 0.03, 0.3)"]
    rungs = ["hydra.sweeper.pruner.reduction_factor=2", "hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=2"]
    # By one more trial at a time, so that the best of the first ones pauses at each rung before others come.
    for n_trials in range(1, 9):
        done = cifarsweep("-m", *words, *space, *rungs, f"hydra.sweeper.n_trials={n_trials}")
        assert (done.returncode, done.stderr) == (0, "")
    study = json.loads((tmp_path / "paused" / "sweeps" / "s" / "study.json").read_text())
    complete = [trial for trial in study["trials"] if trial["state"] == "complete"]
    assert complete
    pauses = []
    for trial in complete:
        (mine,) = (tmp_path / "paused" / "runs").glob(trial["run"])
        pauses.append((mine / "train.log").read_text().count("goes on after epoch"))
        assert not (mine / "checkpoint.pt").exists()
        done = cifarsweep(*SMALL, f"outputs={tmp_path}/whole", f"optimizer.lr={trial['params']['optimizer.lr']}")
        assert done.returncode == 0, done.stderr
        (whole,) = (tmp_path / "whole" / "runs").glob(trial["run"])
        assert (mine / "model.pt").read_bytes() == (whole / "model.pt").read_bytes()
        one, other = (_without_times((run / "metrics.csv").read_text()) for run in (mine, whole))
        assert one == other
    assert max(pauses) >= 3


def _without_times(text: str) -> list[list[str]]:
    header, *rows = (line.split(",") for line in text.splitlines())
    kept = [column for column, name in enumerate(header) if "seconds" not in name]
    return [[row[column] for column in kept] for row in (header, *rows)]


@pytest.mark.parametrize(
    ("num_kills", "n_trials"), [(4, 16), pytest.param(20, 60, marks=pytest.mark.slow)], ids=["a few", "twenty"]
)
def test_killed_searches_go_on_with_their_paused_trials(tmp_path: Path, num_kills: int, n_trials: int) -> None:
    words = ["-m", *SEARCH, "hydra.sweeper.n_workers=2", f"hydra.sweeper.n_trials={n_trials}", "x=interval(0, 1)"]
    words += [PROMOTE, "hydra.sweeper.pruner.reduction_factor=2", "hydra.sweeper.max_steps=12", "steps=12"]
    words += ["hydra.sweeper.max_retries=99", "hydra/sweeper/sampler=random", f"log={tmp_path}/log", "seconds=0.1"]
    words += [f"hydra.sweeper.pruner.keep_checkpoints={n_trials}"]
    assert kill_at_random_moments(tmp_path, words, num_kills, random.Random(num_kills)) == num_kills
    last = start(tmp_path, "checkpointed", *words)
    _, stderr = last.communicate(timeout=240)
    assert last.returncode == 0, stderr
    trials = read_trials(tmp_path)
    assert [trial["number"] for trial in trials] == list(range(n_trials))
    assert {trial["state"] for trial in trials} <= {"complete", "paused"}
    best = min(trials, key=lambda trial: trial["params"]["x"])
    assert best["state"] == "complete", "what is best at every step was left behind"
    told = defaultdict(list)
    for line in (tmp_path / "log").read_text().splitlines():
        number, what, step, x = line.split()
        told[int(number)].append((what, int(step)))
        assert float(x) == pytest.approx(trials[int(number)]["params"]["x"]), "a trial went on with other values"
    for trial in trials:
        ended = 0
        for what, step in told[trial["number"]]:
            if what == "starts":
                assert step in (ended, ended - 1), "a trial did not go on from its last checkpoint"
            else:
                ended = step
        if trial["state"] == "paused":
            assert ended == max(map(int, trial["epochs"]))
            # A trial killed between its checkpoint and its report of a rung pauses after the next step.
            assert ended in (1, 2, 4, 8) or (ended - 1 in (1, 2, 4, 8) and str(ended - 1) not in trial["epochs"])
            kept = json.loads((tmp_path / "sweep" / "trials" / str(trial["number"]) / "checkpoint.json").read_text())
            assert kept["step"] == ended
        else:
            assert ended == 12


@pytest.mark.parametrize(
    ("when", "starts"),
    [pytest.param("before", [0, 4, 5, 8], id="before its report"), pytest.param("after", [0, 4, 8], id="after it")],
)
def test_a_trial_killed_at_a_rung_pauses_at_the_next_chance(tmp_path: Path, when: str, starts: list[int]) -> None:
    words = ["-m", *SEARCH, "hydra.sweeper.n_trials=1", "x=interval(0, 1)", f"log={tmp_path}/log", "seconds=0"]
    words += [PROMOTE, "hydra.sweeper.pruner.reduction_factor=2", "hydra.sweeper.pruner.min_resource=4"]
    words += ["hydra.sweeper.max_steps=12", "steps=12", "hydra.sweeper.max_retries=1", f"dies_{when}_report=4"]
    done = run(tmp_path, "checkpointed", *words)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert [int(step) for _, what, step, _ in lines if what == "starts"] == starts
    (trial,) = read_trials(tmp_path)
    assert trial["state"] == "complete"
    assert [*map(int, trial["epochs"])] == [step for step in range(1, 13) if (step, when) != (4, "before")]


def test_another_application_pauses_and_promotes(tmp_path: Path) -> None:
    words = ["-m", *SEARCH, "hydra/launcher=basic", "x=interval(0, 1)", "steps=4", "seconds=0.7", f"log={tmp_path}/log"]
    words += [PROMOTE, "hydra.sweeper.max_steps=4", "hydra.sweeper.n_trials=2"]
    done = run(tmp_path, "checkpointed", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 trial finished (1 complete, 1 paused)" in done.stdout
    assert "keeps nothing" not in done.stdout
    best, other = sorted(read_trials(tmp_path), key=lambda trial: trial["params"]["x"])
    assert [best["state"], other["state"]] == ["complete", "paused"]
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert [step for number, what, step, _ in lines if (int(number), what) == (best["number"], "starts")] == [
        "0",
        "1",
        "3",
    ]
    assert [step for number, what, step, _ in lines if (int(number), what) == (best["number"], "ends")] == [*"1234"]
    started, finished = (datetime.fromisoformat(best[key]) for key in ("started", "finished"))
    assert finished - started >= timedelta(seconds=2), "it started when its first of four steps did"


def test_a_task_that_keeps_nothing_is_told_so_once_and_counts_right(tmp_path: Path) -> None:
    words = ["-m", *SEARCH, "hydra/launcher=basic", PROMOTE, "hydra.sweeper.n_trials=6", "x=interval(0, 1)"]
    words += ["hydra.sweeper.pruner.reduction_factor=2", "steps=6", "hydra.sweeper.max_steps=6"]
    done = run(tmp_path, "pruned", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("keeps nothing in trial.directory()") == 1
    again = run(tmp_path, "pruned", *words, "hydra.sweeper.n_trials=9")
    assert "keeps nothing" not in again.stdout
    trials = read_trials(tmp_path)
    assert len(trials) == 9
    assert all(list(trial["epochs"]) == [str(n) for n in range(1, len(trial["epochs"]) + 1)] for trial in trials)


# what is shown, and refused


def test_a_paused_trial_is_shown_as_such(toy: Toy, tmp_path: Path) -> None:  # noqa: F811
    done = toy(PROMOTE, "hydra.sweeper.n_trials=9", "trainer.epochs=4")
    assert (done.returncode, done.stderr) == (0, "")
    counts = states(tmp_path)
    assert set(counts) == {"complete", "paused"}
    assert f"({counts['complete']} complete, {counts['paused']} paused)" in done.stdout
    assert done.stdout.count(" paused after epoch 1 ") >= 6
    again = toy(PROMOTE, "hydra.sweeper.n_trials=12", "trainer.epochs=4")
    assert f"goes on after {counts['complete']} finished trials and {counts['paused']} that pause" in again.stdout
    assert len(set(logged(tmp_path, "start"))) == 12


def test_a_larger_budget_goes_on_with_what_the_smaller_one_cut(toy: Toy, tmp_path: Path) -> None:  # noqa: F811
    words = [PROMOTE, "hydra/sweeper/sampler=random", "trainer.epochs=9"]
    done = toy(*words, "hydra.sweeper.budget=epochs:17")
    assert "no trial is complete yet; a larger budget goes on with those that pause" in done.stdout
    assert set(states(tmp_path)) == {"paused"}
    done = toy(*words, "hydra.sweeper.budget=epochs:60")
    assert (done.returncode, done.stderr) == (0, "")
    assert set(states(tmp_path)) == {"complete", "paused"}
    assert sum(len(trial["epochs"]) for trial in read_study(tmp_path)["trials"]) == 60


def test_a_budget_of_epochs_is_spent_to_the_epoch(toy: Toy, tmp_path: Path) -> None:  # noqa: F811
    for budget in (20, 33):
        done = toy(PROMOTE, f"hydra.sweeper.budget=epochs:{budget}", "trainer.epochs=9", "hydra.sweeper.n_workers=2")
        assert (done.returncode, done.stderr) == (0, "")
        assert sum(len(trial["epochs"]) for trial in read_study(tmp_path)["trials"]) == budget


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["hydra.sweeper.pruner.keep_checkpoints=0"], "hydra.sweeper.pruner.keep_checkpoints=0: expected "),
        (["force=true"], "force=true: expected false with trials that pause"),
        (["hydra.sweeper.pruner.min_resource=0"], "hydra.sweeper.pruner.min_resource=0: expected "),
        (["hydra.sweeper.pruner.min_resource=1.5"], "hydra.sweeper.pruner.min_resource=1.5: expected "),
        (["hydra.sweeper.pruner.min_resource=3"], "hydra.sweeper.pruner.min_resource=3: expected a step below "),
        (["hydra.sweeper.pruner.reduction_factor=1"], "hydra.sweeper.pruner.reduction_factor=1: expected "),
        (["hydra/sweeper/sampler=bruteforce"], "hydra/sweeper/pruner=PromotionPruner: expected another sampler than "),
        (["hydra/sweeper/sampler=grid"], "hydra/sweeper/pruner=PromotionPruner: expected another sampler than "),
        (
            ["hydra.sweeper.objectives=[val_accuracy,params]", "hydra.sweeper.direction=[maximize,minimize]"],
            "hydra/sweeper/pruner=PromotionPruner: expected one objective, here val_accuracy, params",
        ),
    ],
)
def test_what_cannot_pause_is_refused_in_one_line(
    toy: Toy,  # noqa: F811
    tmp_path: Path,
    words: list[str],
    line: str,
) -> None:
    done = toy(PROMOTE, *words)
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith(line)
    assert not (tmp_path / "outputs").exists()
