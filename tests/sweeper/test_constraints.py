"""hydra.sweeper.constraints: infeasible trials teach the sampler, and are never the best."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import in_memory
import pytest
from conftest import Command
from foreign import SEARCH, read_results, read_trials
from foreign import run as run_in
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from cifarsweep.sweeper import constraints, summary, warm_start
from cifarsweep.sweeper.application import Application, KnownRun
from cifarsweep.sweeper.queue import Outcome
from cifarsweep.sweeper.studies import best_trials


@pytest.mark.parametrize(
    ("text", "value", "is_feasible"),
    [
        ("params<=200000", 200_000, True),
        ("params<=200000", 200_001, False),
        ("params<200000", 199_999, True),
        ("params<200000", 200_000, False),
        ("accuracy>=0.5", 0.5, True),
        ("accuracy>=0.5", 0.49, False),
        ("accuracy>0.5", 0.5, False),
        ("accuracy>0", 0, False),
        ("loss<=1", math.nan, False),
        ("loss<=1", math.inf, False),
        ("loss>=1", math.inf, True),
    ],
)
def test_a_violation_is_above_zero_where_the_condition_does_not_hold(
    text: str, value: float, is_feasible: bool
) -> None:
    (constraint,) = constraints.parse(text, lambda name: None)
    assert (constraint.violation(value) <= 0) == is_feasible
    assert str(constraint) == text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["params=3"], "hydra.sweeper.constraints: params=3: expected one of < <= > >= and a number"),
        (["params!=3"], "params!=3: expected one of < <= > >= and a number"),
        (["params<few"], "params<few: expected one of < <= > >= and a number"),
        (["params<inf"], "params<inf: expected one of < <= > >= and a number"),
        (["params<1,2"], "params<1,2: expected one value"),
        (["params"], "params: expected a name, one of"),
        (["test_accuracy>0.5"], "test_accuracy: expected some of val_accuracy"),
        ({"params": 3}, "hydra.sweeper.constraints={params: 3}: expected a list of conditions, such as"),
    ],
)
def test_a_mistake_is_refused_by_name(
    tmp_path: Path, given: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = ("value", "val_accuracy", "params") if "test_accuracy>0.5" not in given else ("val_accuracy", "value")
    monkeypatch.setattr(Application, "known_objectives", known)
    with pytest.raises(ValueError, match=re.escape(message)):
        in_memory.plan(tmp_path, {"x": "interval(0,1)"}, constraints=given)


WIDTHS = (4, 8, 16, 32, 64)
BEST = 4.0
"""At width 16, the widest that is feasible, and lr 0.1."""


def value_of(width: int, lr: float) -> float:
    return math.log2(width) * (1 - (math.log10(lr) + 1) ** 2 / 10)


@pytest.mark.parametrize("seed", range(20))
def test_a_constrained_search_finds_the_feasible_optimum(tmp_path: Path, seed: int) -> None:
    space = {"width": f"choice({','.join(map(str, WIDTHS))})", "lr": "tag(log, interval(1e-3, 10))"}
    sampler = in_memory.option("sampler", "tpe", seed=seed)
    plan = in_memory.plan(tmp_path, space, n_trials=40, sampler=sampler, constraints=["width<=16"])
    study, num_infeasible = in_memory.opened(plan), 0
    while (trial := study.claim("me")) is not None:
        values = study.values(trial)
        violations = constraints.violations(plan.settings.constraints, values)
        outcome = Outcome(TrialState.COMPLETE, [value_of(**values)], violations=violations)
        assert study.queue.finish(trial, "me", outcome)
        for best in best_trials(plan, study.trials):
            assert study.values(best)["width"] <= 16
        num_infeasible += values["width"] > 16
    (best,) = best_trials(plan, study.trials)
    assert best.value is not None
    assert best.value >= 0.95 * BEST
    assert num_infeasible <= 16  # two of the five widths: by chance, 16 of 40
    assert sum(summary.state(trial) == "infeasible" for trial in study.trials) == num_infeasible


def test_what_is_known_before_the_work_saves_it_and_the_best_is_feasible(tmp_path: Path) -> None:
    words = [*SEARCH, "hydra/sweeper/sampler=grid", "width=range(1,7)", "hydra.sweeper.n_workers=1"]
    done = run_in(tmp_path, "constrained", "-m", *words, "hydra.sweeper.constraints=['size<=16', 'seconds<2']")

    assert done.returncode == 0, done.stderr
    states = {trial["params"]["width"]: (trial["state"], trial["reason"]) for trial in read_trials(tmp_path)}
    assert {width: state for width, (state, _) in states.items() if width < 4} == dict.fromkeys((1, 2, 3), "complete")
    assert states[4] == ("infeasible", "seconds<2")
    assert states[5] == states[6] == ("infeasible", "size<=16")
    assert read_results(tmp_path)["best_params"] == {"width": 3}
    assert json.loads((tmp_path / "sweep" / "study.json").read_text())["best"] != []
    worked = {
        int(found) for path in tmp_path.glob("sweep/*/*.log") for found in re.findall(r"width (\d)", path.read_text())
    }
    assert not worked & {5, 6}
    assert "infeasible (size<=16)" in done.stdout


def test_a_complete_trial_without_the_figure_of_a_constraint_has_failed(tmp_path: Path) -> None:
    words = [*SEARCH, "hydra/sweeper/sampler=grid", "width=choice(1)", "tells_seconds=false"]
    done = run_in(tmp_path, "constrained", "-m", *words, "hydra.sweeper.constraints='seconds<2'")
    assert done.returncode == 1
    assert "hydra.sweeper.constraints=seconds<2: the trial has no seconds, expected it as a number in" in done.stderr


def test_a_known_run_that_breaks_a_constraint_is_not_the_best(tmp_path: Path) -> None:
    class Known(Application):
        def known_runs(self, config: DictConfig, figures: Sequence[str]) -> Iterator[KnownRun]:
            assert list(figures) == ["value", "size"]
            for x, size in ((0.25, 10), (0.75, 1000)):
                yield KnownRun(f"run{size}", {"x": x}, {}, [x, size], is_of=lambda config: True)

    plan = in_memory.plan(tmp_path, {"x": "interval(0,1)"}, n_trials=1, constraints=["size<=100"])
    study = in_memory.opened(plan)
    warm_start.add_runs(plan, study.study, lambda texts: OmegaConf.create({}), Known())  # type: ignore[arg-type,return-value]
    assert [(trial.user_attrs["run"], summary.state(trial)) for trial in study.trials] == [
        ("run10", "complete"),
        ("run1000", "infeasible"),
    ]
    (best,) = best_trials(plan, study.trials)
    assert best.values == [0.25]


def test_a_network_with_too_many_parameters_is_not_trained(
    cifarsweep: Command, small: list[str], tmp_path: Path
) -> None:
    words = [word for word in small if not word.startswith("model.width")]
    search = ["hydra/sweeper=study", "hydra/launcher=basic", "hydra/sweeper/sampler=grid", "model.width=choice(4,32)"]
    done = cifarsweep("-m", *search, *words, "name=s", "trainer.epochs=1", "hydra.sweeper.constraints='params<=200000'")

    assert done.returncode == 0, done.stderr
    study = json.loads((tmp_path / "outputs" / "sweeps" / "s" / "study.json").read_text())
    states = {trial["params"]["model.width"]: trial["state"] for trial in study["trials"]}
    assert states == {4: "complete", 32: "infeasible"}
    assert len(list((tmp_path / "outputs" / "runs").glob("layers2-*"))) == 1
