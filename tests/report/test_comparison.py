"""`python -m cifarsweep.report --compare`: what changed between two sweeps, and whether it helped."""

from __future__ import annotations

import random
import re
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
from scipy import stats
from test_report import cells, fake_run, fake_sweep
from test_report_page import Page

from cifarsweep import report
from cifarsweep.report import comparison_report
from cifarsweep.report.comparison_report import ComparisonReport
from cifarsweep.report.statistics import compare_unpaired

MODELS = ("layers2", "layers3")


def sweep(
    outputs: Path,
    name: str,
    *,
    gain: float = 0.0,
    seeds: int = 4,
    models: tuple[str, ...] = MODELS,
    noise: float = 0.002,
    **figures: Any,
) -> Path:
    """A run of each model and seed. Seeds matter less than models, and `gain` is what the sweep's change did."""
    found = []
    for model in models:
        for seed in range(seeds):
            base = 0.7 + 0.03 * MODELS.index(model) + random.Random(f"{model} {seed}").gauss(0, 0.01)
            accuracy = round(base + gain + random.Random(f"{name} {model} {seed}").gauss(0, noise), 4)
            measured = {"test_accuracy": accuracy, "val_accuracy": accuracy}
            found.append(fake_run(outputs, model, seed=seed, **(measured | figures)))
    return fake_sweep(outputs, name, found)


def compared(first: Path, second: Path) -> ComparisonReport:
    return report.compare(first, second)


def changes(done: ComparisonReport) -> dict[str, tuple[list[str], list[str]]]:
    return {change.key: (change.first, change.second) for change in done.found.changes}


def test_a_change_that_helps_is_shown_by_pairs_with_the_same_model_and_seed(tmp_path: Path) -> None:
    first, second = sweep(tmp_path, "before"), sweep(tmp_path, "after", gain=0.02, batch_size=256)
    done = compared(first, second)
    assert changes(done) == {"batch_size": (["128"], ["256"])}
    (whole,) = done.found.whole
    differences = done.found.pairs["test_accuracy_second"] - done.found.pairs["test_accuracy_first"]
    assert whole.accuracy.n == 8
    low, high = stats.t.interval(0.95, 7, fmean(differences), stats.sem(differences))
    assert (whole.accuracy.low, whole.accuracy.high) == pytest.approx((low, high))
    assert [row.setting for row in done.found.settings] == ["model=layers2", "model=layers3"]
    assert re.fullmatch(
        r"Yes: with batch_size 128 → 256, test accuracy is 2\.\d points higher"
        r" \(95 % interval 1\.\d to 2\.\d, 8 pairs of runs\)\.",
        done.sentences[0],
    )


@pytest.mark.parametrize(
    ("gain", "beginning"),
    [
        (-0.02, "No: with lr 0.1 → 0.05, test accuracy is 2.0 points lower (95 % interval 1."),
        (0.0, "Not shown to help: with lr 0.1 → 0.05, test accuracy differs by −0.05 points, which may be chance"),
    ],
)
def test_what_harms_or_may_be_chance_is_not_said_to_help(tmp_path: Path, gain: float, beginning: str) -> None:
    done = compared(sweep(tmp_path, "before"), sweep(tmp_path, "after", gain=gain, lr=0.05))
    assert done.sentences[0].startswith(beginning)


def test_one_pair_is_not_enough(tmp_path: Path) -> None:
    one = {"seeds": 1, "models": ("layers2",)}
    done = compared(sweep(tmp_path, "before", **one), sweep(tmp_path, "after", gain=0.1, lr=0.05, **one))
    assert done.sentences[0].startswith("Not enough runs to say whether it helped: with lr 0.1 → 0.05, +9.8 points")
    assert comparison_report.MORE_SEEDS in done.sentences


def test_values_that_only_one_sweep_has_are_each_compared_with_the_other(tmp_path: Path) -> None:
    first = sweep(tmp_path, "before")
    slow, fast = (sweep(tmp_path, f"lr{lr}", gain=gain, lr=lr) for lr, gain in ((0.05, 0.02), (0.3, -0.02)))
    runs = [run for folder in (slow, fast, first) for run in report_runs(folder)]
    done = compared(first, fake_sweep(tmp_path, "rates", runs))
    assert changes(done) == {"lr": (["0.1"], ["0.05", "0.1", "0.3"])}
    assert [(row.variant, row.accuracy.n, row.accuracy.verdict) for row in done.found.whole] == [
        ("lr 0.1 → 0.05", 8, "higher"),
        ("lr 0.1 → 0.3", 8, "lower"),
    ]
    assert done.found.num_shared == 8  # which would all have a difference of 0
    assert done.found.num_alone == (0, 0)
    assert not any(sentence.startswith("It depends") for sentence in done.sentences)
    assert re.fullmatch(
        r"Yes, test accuracy is higher with lr 0\.1 → 0\.05 \(\+\d\.\d points\);"
        r" no, it is lower with lr 0\.1 → 0\.3 \(−\d\.\d points\)\.",
        done.sentences[0],
    )


def report_runs(folder: Path) -> list[Path]:
    from cifarsweep.results import folders

    return folders.find(folder)


def test_a_change_that_helps_some_models_and_harms_others_is_said_to(tmp_path: Path) -> None:
    first = sweep(tmp_path, "before")
    found = [
        run
        for model, gain in zip(MODELS, (0.05, -0.05), strict=True)
        for run in report_runs(sweep(tmp_path, model, gain=gain, models=(model,), lr=0.05))
    ]
    done = compared(first, fake_sweep(tmp_path, "after", found))
    assert [row.accuracy.verdict for row in done.found.settings] == ["higher", "lower"]
    assert any(sentence.startswith("It depends on the setting") for sentence in done.sentences)


def test_runs_without_a_partner_are_counted(tmp_path: Path) -> None:
    done = compared(sweep(tmp_path, "before", seeds=5), sweep(tmp_path, "after", seeds=3, lr=0.05))
    assert done.found.whole[0].accuracy.n == 6
    assert done.found.num_alone == (4, 0)
    assert "4 runs of before have no partner." in done.sentences


def test_where_nothing_pairs_the_best_configurations_are_compared_and_it_is_said(tmp_path: Path) -> None:
    first = sweep(tmp_path, "before", models=("layers2",))
    second = sweep(tmp_path, "after", gain=0.05, seeds=9, models=("layers2",), lr=0.05)
    later = [run for run in report_runs(second) if int(re.findall(r"-s(\d+)-", run.name)[0]) >= 4]
    done = compared(first, fake_sweep(tmp_path, "later", later))
    assert done.found.whole == []
    assert done.found.unpaired is not None
    assert done.found.unpaired.accuracy.n == 4
    assert done.sentences[0].startswith(
        "Yes: the best configuration of later against that of before, test accuracy is "
    )
    assert done.sentences[0].endswith("4 runs each, as no two runs agree in all but what changed).")


def test_the_same_configuration_with_other_code_is_compared_by_commit(tmp_path: Path) -> None:
    first = sweep(tmp_path / "old", "sweep", provenance={"git_commit": "a" * 40})
    second = sweep(tmp_path / "new", "sweep", gain=0.02, provenance={"git_commit": "b" * 40})
    done = compared(first, second)
    assert done.found.changes == []
    assert [(change.key, change.first, change.second) for change in done.found.made_with] == [
        ("commit", ["a" * 12], ["b" * 12])
    ]
    assert done.sentences[0].startswith("Yes: with the same settings, made differently, test accuracy is ")


def test_what_comes_with_another_change_is_told_apart(tmp_path: Path) -> None:
    first, second = sweep(tmp_path, "before", models=("layers2",)), sweep(tmp_path, "after", models=("layers3",))
    done = compared(first, second)
    assert {change.key: change.follows for change in done.found.changes} == {"model": False, "depth": True}
    assert done.sentences[0].startswith("Yes: with model layers2 → layers3, test accuracy is ")


def test_seconds_are_compared_too(tmp_path: Path) -> None:
    first, second = sweep(tmp_path, "before"), sweep(tmp_path, "after", lr=0.05, train_seconds=160.0)
    assert "A run trains 60 s longer (100 s → 160 s; 95 % interval 60 to 60 s)." in compared(first, second).sentences


def test_the_report_is_tables_a_figure_and_a_page(tmp_path: Path) -> None:
    first, second = sweep(tmp_path, "before"), sweep(tmp_path, "after", gain=0.02, batch_size=256)
    folder = compared(first, second).folder
    assert folder == second / "report" / "compared_with_before"
    assert sorted(path.name for path in folder.iterdir()) == [
        "changes.csv",
        "comparison.csv",
        "comparison.png",
        "comparison.svg",
        "index.html",
        "pairs.csv",
    ]
    assert cells(folder / "changes.csv") == [{"key": "batch_size", "first": "128", "second": "256"}]
    rows = cells(folder / "comparison.csv")
    assert [(row["setting"], row["n"], row["verdict"]) for row in rows] == [
        ("", "8", "higher"),
        ("model=layers2", "4", "higher"),
        ("model=layers3", "4", "higher"),
    ]
    pairs = cells(folder / "pairs.csv")
    differences = [float(pair["test_accuracy_second"]) - float(pair["test_accuracy_first"]) for pair in pairs]
    assert float(rows[0]["difference"]) == pytest.approx(fmean(differences))
    page = Page((folder / "index.html").read_text(encoding="utf-8"))
    assert "Did the change help? Yes: with batch_size 128 → 256, test accuracy is 2." in page.text
    assert "batch_size 128 256" in page.text
    assert {link["href"] for link in page.all("a")} == {path.name for path in folder.iterdir()} - {"index.html"}


def test_names_of_a_stranger_are_texts(tmp_path: Path) -> None:
    first = sweep(tmp_path, "before", optimizer="<img src=x onerror=alert(1)>")
    second = sweep(tmp_path, "after", optimizer="<script>alert(2)</script>")
    source = (compared(first, second).folder / "index.html").read_text(encoding="utf-8")
    assert "<script" not in source
    assert "<img src=x" not in source


def test_the_command_prints_what_changed_the_differences_and_the_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sweep(tmp_path, "before"), sweep(tmp_path, "after", gain=0.02, batch_size=256)
    assert report.main(["--compare", str(first), str(second)]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == ["changed before after", "batch_size 128 256"]
    assert any(line.startswith("all pairs 8 ") and " better " in line for line in lines)
    assert any(line.startswith("Yes: with batch_size 128 → 256, ") for line in lines)
    assert lines[-1] == f"Comparison: {second / 'report' / 'compared_with_before' / 'index.html'}"


def one(tmp_path: Path) -> list[Path]:
    return [sweep(tmp_path, "a")]


def twice_the_same(tmp_path: Path) -> list[Path]:
    return one(tmp_path) * 2


def no_complete_run(tmp_path: Path) -> list[Path]:
    return [sweep(tmp_path, "a"), sweep(tmp_path, "b", status="failed", lr=0.05)]


def other_images(tmp_path: Path) -> list[Path]:
    return [sweep(tmp_path, "a"), sweep(tmp_path, "b", data="shapes")]


def the_same_runs(tmp_path: Path) -> list[Path]:
    first = sweep(tmp_path, "a")
    return [first, fake_sweep(tmp_path, "b", report_runs(first))]


def no_such_sweep(tmp_path: Path) -> list[Path]:
    return [sweep(tmp_path, "a"), tmp_path / "nowhere"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (one, "expected two sweeps"),
        (twice_the_same, "expected two sweeps"),
        (no_complete_run, "no run is complete"),
        (other_images, "trained on other images (cifar10; shapes): expected the same data set"),
        (the_same_runs, "have the same best runs"),
        (no_such_sweep, "no such folder"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    tmp_path: Path, make: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["--compare", *map(str, make(tmp_path))]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not list(tmp_path.rglob("compared_with_*"))


@pytest.mark.parametrize("sizes", [(2, 2), (3, 9), (12, 5)])
def test_unpaired_samples_are_compared_by_welchs_test(sizes: tuple[int, int]) -> None:
    draw = random.Random(str(sizes))
    first, second = ([draw.gauss(0.7 + at / 100, 0.01 + at / 50) for _ in range(size)] for at, size in enumerate(sizes))
    found = compare_unpaired(first, second)
    parts = [stdev(sample) ** 2 / len(sample) for sample in (first, second)]
    degrees = int(sum(parts) ** 2 / sum(part**2 / (size - 1) for part, size in zip(parts, sizes, strict=True)))
    low, high = stats.t.interval(0.95, degrees, fmean(second) - fmean(first), sum(parts) ** 0.5)
    assert (found.low, found.high) == pytest.approx((low, high))
    exact = stats.ttest_ind(second, first, equal_var=False).pvalue
    assert exact <= found.p <= 1.6 * exact + 0.01  # as the degrees are rounded down


def test_unpaired_samples_without_any_variance_differ_or_not() -> None:
    assert compare_unpaired([0.5, 0.5], [0.5, 0.5]).verdict == "tie"
    assert compare_unpaired([0.5, 0.5], [0.6, 0.6]).verdict == "higher"
    assert compare_unpaired([0.5], [0.6, 0.7]).verdict == "unknown"
