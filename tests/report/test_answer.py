"""What a report says first: in words, with the numbers in a table, and the command that would settle what is open."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from test_report import DIVERGED, fake_run, read
from test_report_page import Page, depth_sweep, models, page_of
from test_report_search import study_of, trial, written

from cifarsweep import report
from cifarsweep.report import answer, findings, printed, search_results
from cifarsweep.report.statistics import compare
from cifarsweep.report.tables import Tables
from cifarsweep.results import sweeps

NOT_ENOUGH = "not enough runs to say"


def said(tables: Tables) -> str:
    return "\n".join(answer.of(tables, None, None, ()).lines)


def captions(folder: Path) -> str:
    """The words of the graph of depths."""
    texts = re.findall(r">([^<>]+)</text>", (folder / "depth_vs_accuracy.svg").read_text(encoding="utf-8"))
    return " ".join(" ".join(texts).split())


# models against each other


def test_accuracy_that_grows_with_depth_beyond_chance(tmp_path: Path) -> None:
    sweep_dir = depth_sweep(tmp_path)
    assert said(read(tmp_path)) == (
        "On cifar10, test accuracy grows with depth, from 77.9 % with layers2 to 82.0 % with layers4. "
        "layers4 is better than each other model by more than chance."
    )
    page = page_of(sweep_dir)
    assert "How does accuracy grow with depth?" in page.text
    assert "82.0 ± 0.3 % the best" in page.text
    assert "4.1 points lower, beyond chance" in page.text
    assert "3 of 3 pairs of models differ by more than chance." in page.text


def test_the_figure_of_the_answer_is_beside_it_and_nowhere_else(tmp_path: Path) -> None:
    source = page_of(depth_sweep(tmp_path)).source
    assert source.count('alt="depth vs accuracy"') == 1
    assert source.index('alt="depth vs accuracy"') < source.index("<nav")


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        (
            {"layers2": [0.51, 0.49, 0.5], "layers3": [0.5, 0.5, 0.49], "layers4": [0.5, 0.5, 0.5]},
            "On cifar10, no difference between the models is beyond chance.\n"
            "Even 30 seeds would hardly tell the best from the next one: they are about as good.",
        ),
        (
            {"layers2": [0.7], "layers3": [0.8]},
            "On cifar10, layers3 has the highest mean test accuracy, 80.0 %. The models share one seed only: "
            f"{NOT_ENOUGH} whether that is more than chance.\n"
            "Next: 5 seeds for each would tell which differences are more than chance.",
        ),
        (
            {"layers2": [0.7, 0.702], "layers3": [0.9, 0.902], "layers4": [0.8, 0.802]},
            "On cifar10, layers3 has the highest mean test accuracy, 90.1 %. "
            "It is better than each other model by more than chance.",
        ),
        (
            {"layers2": [0.5, 0.51, 0.5], "layers3": [0.8, 0.81, 0.80], "layers4": [0.81, 0.81, 0.82]},
            "On cifar10, test accuracy grows with depth, from 50.3 % with layers2 to 81.3 % with layers4. layers4 is "
            "better than layers2 by more than chance; its lead over layers3 may be chance.\n"
            "Next: 14 seeds would probably tell the best from the next one, if they differ as much as it seems.",
        ),
        (
            {"layers2": [0.51, 0.49], "layers3": [0.5, 0.5], "layers4": [0.45]},
            f"On cifar10, no difference between the models is beyond chance. For some there are {NOT_ENOUGH}.\n"
            "Next: 5 seeds for each would tell which differences are more than chance.",
        ),
    ],
    ids=["none differs", "one seed", "not in order", "the best two are close", "a seed is missing"],
)
def test_what_is_beyond_chance_is_said_in_words(
    tmp_path: Path, accuracies: dict[str, list[float]], expected: str
) -> None:
    assert said(models(tmp_path, accuracies)) == expected


def test_of_many_models_their_number_is_said(tmp_path: Path) -> None:
    tables = models(tmp_path, {f"m{number}": [0.5 + number / 100, 0.501 + number / 100] for number in range(14)})
    assert "It is better than each other model by more than chance." in said(tables)
    (of_data,) = answer.of(tables, None, None, ()).of_data
    assert [row["model"] for row in of_data.rows][-1] == "m9"
    assert len(of_data.rows) == answer.MOST_ROWS


def test_no_answer_has_a_list_of_numbers(tmp_path: Path) -> None:
    for seeds in (1, 3):
        tables = models(tmp_path / str(seeds), {f"layers{n}": [0.5 + 0.05 * n] * seeds for n in range(1, 6)})
        for line in said(tables).splitlines():
            assert line.count(" %") <= 2, line


def test_a_pair_that_shares_no_seeds_is_counted_apart(tmp_path: Path) -> None:
    tables = models(tmp_path, {"layers2": [0.51, 0.49], "layers3": [0.5, 0.5], "layers4": [0.5]})
    assert findings.depth_sentence(tables) == (
        f"No difference between models is beyond chance; for 2 pairs there are {NOT_ENOUGH}."
    )


def test_two_models_that_differ_are_no_pair_of_one(tmp_path: Path) -> None:
    tables = models(tmp_path, {"layers2": [0.5, 0.501, 0.499], "layers3": [0.6, 0.602, 0.599]})
    assert findings.depth_sentence(tables) == "The two models differ by more than chance."


# one model


def test_of_one_model_the_best_configuration_is_named_with_what_it_has(tmp_path: Path) -> None:
    for lr in (0.1, 0.2, 0.4):
        for seed in range(3):
            accuracy = round(0.7 + lr / 10 + seed / 1000, 4)
            fake_run(tmp_path, lr=lr, seed=seed, test_accuracy=accuracy, val_accuracy=accuracy)
    answers = answer.of(read(tmp_path), None, None, ())
    assert answers.question == "Which settings are best?"
    assert answers.lines == [
        "On cifar10, the best of 3 configurations by validation accuracy reaches 74.1 % test accuracy, with lr 0.4. "
        "It is better than the others by more than chance."
    ]
    assert [row["lr"] for row in answers.of_data[0].rows] == ["0.4", "0.2", "0.1"]


def test_without_validation_the_next_step_is_to_have_one(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        fake_run(tmp_path, lr=lr, validation=False)
    assert said(read(tmp_path)).endswith("\nNext: keep training images for validation (data.val_size), to choose by.")


# what became of the runs


def test_runs_that_a_search_stopped_are_no_failures(tmp_path: Path) -> None:
    fake_run(tmp_path)
    for number, status in enumerate(("pruned", "pruned", "paused")):
        fake_run(tmp_path, lr=0.2 + number / 10, status=status)
    assert printed.outcomes(read(tmp_path)) == ["4 runs: 1 complete, 3 stopped early by the search, none failed"]
    page = page_of(tmp_path)
    assert "· 4 runs: 1 complete, 3 stopped early by the search, none failed" in page.text
    assert "None failed: the search stopped them early." in page.text
    assert "Left out of 4 runs: 3 stopped early by the search." in captions(tmp_path / "report")
    fake_run(tmp_path, lr=1.0, status="failed", error="RuntimeError: out of memory")
    fake_run(tmp_path, lr=1.1, **DIVERGED)
    assert printed.outcomes(read(tmp_path)) == [
        "6 runs: 1 complete, 3 stopped early by the search, 1 failed, 1 diverged",
        "  1 failed: RuntimeError: out of memory",
        "  1 diverged in epoch 3",
    ]


# what would settle what is open


def begin_sweep(outputs: Path, *words: str, num_seeds: int = 1) -> Path:
    sweep_dir = depth_sweep(outputs, num_seeds=num_seeds)
    (sweep_dir / "sweep.json").unlink()
    sweeps.open_sweep(sweep_dir, ["python", "-m", "cifarsweep", *words], {})
    return sweep_dir


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (
            ["-m", "model=layers2,layers3", "name=depth"],
            "python -m cifarsweep -m model=layers2,layers3 name=depth 'seed=range(5)'",
        ),
        (
            ["-m", "seed=1,2", "data.root=my images"],
            "python -m cifarsweep -m 'data.root=my images' name=depth 'seed=range(5)'",
        ),
        (["model=layers2"], None),
    ],
)
def test_the_command_of_the_next_step_adds_to_the_sweep(tmp_path: Path, words: list[str], command: str | None) -> None:
    sweep_dir = begin_sweep(tmp_path, *words)
    found = answer.of(read(tmp_path), None, None, [sweep_dir])
    assert found.command == command
    assert found.next == "Next: 5 seeds for each would tell which differences are more than chance."


def test_where_a_sweep_has_not_recorded_its_command_none_is_shown(tmp_path: Path) -> None:
    sweep_dir = begin_sweep(tmp_path, "-m", "model=layers2,layers3")
    content = json.loads((sweep_dir / "sweep.json").read_text(encoding="utf-8"))
    before_digests = {key: content[key] for key in ("format", "jobs")} | {"commands": [{}]}
    (sweep_dir / "sweep.json").write_text(json.dumps(before_digests), encoding="utf-8")
    assert answer.of(read(tmp_path), None, None, [sweep_dir]).command is None


def test_the_page_and_the_terminal_show_the_next_step(tmp_path: Path) -> None:
    done = report.write(begin_sweep(tmp_path, "-m", "name=depth"))
    command = "python -m cifarsweep -m name=depth 'seed=range(5)'"
    assert f"    {command}" in done.notes
    page = Page((done.folder / "index.html").read_text(encoding="utf-8"))
    assert command in page.text


def test_a_sweep_that_was_interrupted_is_to_be_gone_on_with_first(tmp_path: Path) -> None:
    sweep_dir = begin_sweep(tmp_path, "-m", "name=depth")
    fake_run(tmp_path, seed=7, status="unfinished")
    found = answer.of(read(tmp_path), None, None, [sweep_dir])
    assert (found.next, found.command) == (
        "Next: the same command goes on with 1 unfinished run.",
        "python -m cifarsweep -m name=depth",
    )


def test_a_sweep_that_runs_has_no_next_step_before_its_runs_have_ended(tmp_path: Path) -> None:
    """At its end the process that reports still owns the sweep."""
    sweep_dir = begin_sweep(tmp_path, "-m", "name=depth")
    lock = sweeps.own_sweep(sweep_dir)
    assert lock is not None
    try:
        assert answer.of(read(tmp_path), None, None, [sweep_dir]).command is not None
        fake_run(tmp_path, seed=7, status="unfinished")
        found = answer.of(read(tmp_path), None, None, [sweep_dir])
    finally:
        lock.release()
    assert (found.next, found.command) == ("", None)


@pytest.mark.parametrize(
    ("best", "what", "change"),
    [
        (9, "Next: the best trial was among the last of 10, so a longer search", "hydra.sweeper.n_trials=20"),
        (2, "Next: 5 fresh seeds for the best trials", "hydra.sweeper.finalists=3 hydra.sweeper.repeats=5"),
    ],
)
def test_a_search_is_to_be_longer_or_its_best_trials_repeated(
    tmp_path: Path, best: int, what: str, change: str
) -> None:
    sweep_dir = begin_sweep(tmp_path, "-m", "search=default", "hydra.sweeper.n_trials=10", "name=depth")
    written(sweep_dir, study_of([trial(number, [0.5]) for number in range(10)], best=[best]))
    found = answer.of(read(tmp_path), search_results.read(sweep_dir), None, [sweep_dir])
    assert found.next.startswith(what)
    assert found.command is not None
    assert found.command.endswith(change)
    assert found.command.count("n_trials") == 1


@pytest.mark.parametrize("effect_size", [0.5, 1.0, 3.0])
def test_so_many_seeds_show_a_difference_in_four_of_five_cases(effect_size: float) -> None:
    needed = answer._seeds_for(effect_size, 1)
    if needed is None:
        assert effect_size < 0.6
        return
    chance, shown = np.random.default_rng(0), 0
    for _ in range(1000):
        values = {"a": dict.fromkeys(range(needed), 0.0), "b": dict(enumerate(chance.normal(effect_size, 1, needed)))}
        shown += compare(values, [("a", "b")])[0].verdict == "higher"
    assert 0.72 <= shown / 1000 <= 0.95
