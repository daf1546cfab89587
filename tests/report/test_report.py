"""The report, over result files made up here: learning curves that look like the real ones, every status, odd names."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

import cifarsweep
from cifarsweep import report
from cifarsweep.report import depth, printed, report_command, style, tables
from cifarsweep.report.writing import Report
from cifarsweep.results import files, folders, identity, records, sweeps
from cifarsweep.terminal import formatting

DEPTHS = {"layers1": 1, "layers2": 2, "layers3": 3, "layers4": 4, "layers5": 5}
PARAMS = {"layers1": 526_000, "layers2": 269_000, "layers3": 157_000, "layers4": 163_000, "layers5": 530_000}
FINAL = {"layers1": 0.70, "layers2": 0.79, "layers3": 0.82, "layers4": 0.826, "layers5": 0.829, "resnet18": 0.93}
DIVERGED = {"status": "diverged", "diverged_epoch": 3}


# made-up results


def fake_run(
    outputs: Path,
    model: str = "layers3",
    *,
    seed: int = 0,
    epochs: int = 8,
    validation: bool = True,
    weight_decay: float = 5e-4,
    **figures: Any,
) -> Path:
    """A run's directory; `figures` override what result.json holds, first of all `status` and the accuracies."""
    start = {
        "data": "cifar10",
        "model": model,
        "depth": DEPTHS.get(model),
        "params": PARAMS.get(model, 11_173_962),
        "optimizer": "momentum",
        "lr": 0.1,
        "batch_size": 128,
        "schedule": "onecycle",
        "loss": "label_smoothing",
        "epochs": epochs,
    }
    start |= {key: figures.pop(key) for key in list(figures) if key in start}
    what = {**start, "weight_decay": weight_decay, "validation": validation}
    start |= {"config_id": identity.run_id(what), "run_id": identity.run_id({**what, "seed": seed}), "seed": seed}
    run_dir = outputs / "runs" / f"{identity.slug(model, 'momentum', 0.1, 128, seed)}-{start['run_id']}"
    run_dir.mkdir(parents=True)
    config = {"model": {"depth": start["depth"]}, "optimizer": {"_target_": "x", "weight_decay": weight_decay}}
    (run_dir / "config.yaml").write_text(yaml.safe_dump({**config, "run": start}), encoding="utf-8")
    status = figures.get("status", "complete")
    curve = _curve(start, validation, epochs if status == "complete" else 3, status == "diverged")
    files.write_csv(run_dir / "metrics.csv", records.METRICS, [epoch.values() for epoch in curve])
    if status != "unfinished":
        result = {**_result(start, curve, status), **figures}
        (run_dir / "result.json").write_text(json.dumps(result), encoding="utf-8")  # files.write_json syncs: 10 ms
    return run_dir


def _curve(start: dict[str, Any], validation: bool, num_epochs: int, diverges: bool) -> list[dict[str, Any]]:
    chance = random.Random(start["run_id"])
    final = FINAL.get(start["model"], 0.8) - 0.03 * abs(math.log10(start["lr"] / 0.1)) + chance.gauss(0, 0.003)
    final -= 0.01 * abs(math.log2(start["batch_size"] / 128))
    curve = []
    for epoch in range(1, num_epochs + 1):
        progress = 1 - math.exp(-3.2 * epoch / start["epochs"])
        val = 0.35 + (final - 0.35) * progress + chance.gauss(0, 0.012) * (1 - epoch / start["epochs"])
        train = 0.3 + (final + 0.01 - 0.3) * progress
        accuracies = (1 - train) * 2.4 + 0.5, train, (1 - val) * 2.5 + 0.45, val
        lost = diverges and epoch == num_epochs
        figures = (math.nan, 0.1, math.nan, 0.1) if lost else accuracies
        measured = figures if validation else (*figures[:2], None, None)
        curve.append(dict(zip(records.METRICS, (epoch, 0.1, *measured, 12.5), strict=True)))
    return curve


def _result(start: dict[str, Any], curve: list[dict[str, Any]], status: str) -> dict[str, Any]:
    last, complete = curve[-1], status == "complete"
    accuracy = last["val_accuracy"] if last["val_accuracy"] is not None else last["train_accuracy"]
    test_accuracy = accuracy + random.Random(str(start)).gauss(-0.002, 0.002)
    return {
        **{key: start.get(key) for key in records.COLUMNS},
        "config_id": start["config_id"],
        "status": status,
        "train_accuracy": last["train_accuracy"],
        "val_accuracy": last["val_accuracy"],
        "test_accuracy": test_accuracy if complete else None,
        "val_loss": last["val_loss"],
        "test_loss": 0.9 if complete else None,
        "train_seconds": 12.5 * len(curve),
        "images_per_second": 3600.0,
        "epochs_trained": len(curve),
        "diverged_epoch": None,
        "error": None,
        "started": "2025-01-01T10:00:00+00:00",
        "finished": "2025-01-01T10:02:00+00:00",
        "device": "cpu",
        "threads": 1,
        "num_train": 45_000,
        "num_val": 5_000,
        "num_test": 10_000,
        "provenance": {"git_commit": None},
    }


def fake_sweep(outputs: Path, name: str, run_dirs: list[Path], errors: tuple[str, ...] = ()) -> Path:
    sweep_dir = outputs / "sweeps" / name
    sweeps.open_sweep(sweep_dir, ["python", "-m", "cifarsweep", "-m"], {})
    for job, run_dir in enumerate(run_dirs):
        sweeps.register_job(sweep_dir, job, [f"job={job}"], run=run_dir.name)
    for job, error in enumerate(errors, len(run_dirs)):
        sweeps.register_job(sweep_dir, job, [f"job={job}"], error=error)
    return sweep_dir


def read(outputs: Path) -> tables.Tables:
    return tables.read(folders.find(outputs), [])


def cells(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def five_seeds(tmp_path_factory: pytest.TempPathFactory) -> Report:
    outputs = tmp_path_factory.mktemp("five_seeds")
    found = [fake_run(outputs, f"layers{number}", seed=seed) for number in (2, 3, 4) for seed in range(5)]
    found.append(fake_run(outputs, "layers4", seed=5, **DIVERGED))
    return report.write(fake_sweep(outputs, "depth", found))


# statistics


def test_the_interval_is_students_t_over_seeds(tmp_path: Path) -> None:
    for seed, accuracy in enumerate([0.80, 0.81, 0.82]):
        fake_run(tmp_path, seed=seed, test_accuracy=accuracy, val_accuracy=0.5)
    (row,) = read(tmp_path).summary.to_dict("records")
    half = 4.302652729911275 * 0.01 / math.sqrt(3)  # t for 2 degrees of freedom
    assert row["n"] == 3
    assert row["test_accuracy_mean"] == pytest.approx(0.81)
    assert row["test_accuracy_std"] == pytest.approx(0.01)
    assert (row["test_accuracy_low"], row["test_accuracy_high"]) == pytest.approx((0.81 - half, 0.81 + half))
    assert (row["val_accuracy_mean"], row["val_accuracy_std"]) == (0.5, 0)


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    fake_run(tmp_path, test_accuracy=0.8)
    tables.write(read(tmp_path), tmp_path)
    (row,) = cells(tmp_path / "summary.csv")
    assert row["test_accuracy_mean"] == "0.8"
    assert {row[f"test_accuracy_{name}"] for name in ("std", "low", "high")} == {""}


def test_means_are_over_complete_runs_only(tmp_path: Path) -> None:
    for seed, accuracy in enumerate([0.7, 0.8]):
        fake_run(tmp_path, seed=seed, test_accuracy=accuracy)
    for seed, status in enumerate(["diverged", "failed", "pruned", "unfinished"], 2):
        fake_run(tmp_path, seed=seed, status=status)
    found = read(tmp_path)
    (row,) = found.summary.to_dict("records")
    assert (row["n"], row["n_runs"], row["test_accuracy_mean"]) == (2, 6, pytest.approx(0.75))
    assert sorted(found.runs["status"]) == ["complete", "complete", "diverged", "failed", "pruned", "unfinished"]


def test_epochs_have_a_row_each_in_the_order_of_the_runs(tmp_path: Path) -> None:
    for model in ("layers4", "layers2", "layers3"):
        fake_run(tmp_path, model, epochs=3)
    fake_run(tmp_path, "layers2", seed=1, status="unfinished")
    folder = report.write(tmp_path).folder
    with (folder / "epochs.csv").open() as file:
        header, *rows = csv.reader(file)
    with (folder / "runs.csv").open() as file:
        order = [row["run_id"] for row in csv.DictReader(file)]
    assert header == ["run_id", *records.METRICS]
    assert [(row[0], row[1]) for row in rows] == [(id, str(epoch)) for id in order for epoch in (1, 2, 3)]
    (run_dir,) = [path for path in folders.find(tmp_path) if path.name.endswith(order[0])]
    assert float(rows[0][5]) == records.read_metrics(run_dir)[0].val_loss


def test_no_parquet_file_of_an_earlier_report_stays(tmp_path: Path) -> None:
    fake_run(tmp_path)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "runs.parquet").touch()
    report.write(tmp_path)
    assert not list((tmp_path / "report").glob("*.parquet"))


@pytest.mark.parametrize("name", ["metrics.csv", "result.json"])
def test_numbers_that_cannot_be_are_left_out_or_no_value(tmp_path: Path, name: str) -> None:
    fake_run(tmp_path)
    path = fake_run(tmp_path, seed=1) / name
    content = path.read_text(encoding="utf-8")
    odd = {"metrics.csv": ("\n2,", "\n1.5,"), "result.json": ('"val_accuracy": 0', '"val_accuracy": Infinity, "x": 0')}
    assert odd[name][0] in content
    path.write_text(content.replace(*odd[name], 1), encoding="utf-8")
    done = report.write(tmp_path)
    assert len(done.tables.unreadable) == (name == "metrics.csv")
    assert done.tables.runs["val_accuracy"].notna().sum() == 1


def test_final_runs_without_validation_leave_the_choice_to_those_that_have_it(tmp_path: Path) -> None:
    for seed in range(5):
        fake_run(tmp_path, seed=seed, validation=False)
    fake_run(tmp_path, lr=0.1, val_accuracy=0.7)
    fake_run(tmp_path, lr=0.2, val_accuracy=0.8)
    summary = read(tmp_path).summary
    assert summary.loc[summary["chosen"], "lr"].tolist() == [0.2]


def test_parquet_holds_what_the_csv_files_hold(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    fake_run(tmp_path, weight_decay=5e-4)
    fake_run(tmp_path, "layers2", weight_decay=0)
    assert report.main([str(tmp_path), "--format", "parquet"]) == 0
    for name in ("runs", "summary", "epochs"):
        table = pd.read_parquet(tmp_path / "report" / f"{name}.parquet")
        csv_table = pd.read_csv(tmp_path / "report" / f"{name}.csv")
        assert list(table) == list(csv_table)
        assert len(table) == len(csv_table)
    loss = pd.read_parquet(tmp_path / "report" / "epochs.parquet")["val_loss"]
    assert (
        loss.tolist()
        == pd.read_csv(tmp_path / "report" / "epochs.csv", float_precision="round_trip")["val_loss"].tolist()
    )


@pytest.mark.parametrize(
    ("format", "message"),
    [
        ("xml", "--format xml: expected csv or parquet"),
        ("parquet", "--format parquet: needs pyarrow: pip install pyarrow"),
    ],
)
def test_a_format_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, format: str, message: str
) -> None:
    fake_run(tmp_path)
    monkeypatch.setattr(report_command, "find_spec", lambda name: None)
    assert report.main([str(tmp_path), "--format", format]) == 1
    assert capsys.readouterr().err == f"{message}\n"
    assert not (tmp_path / "report").exists()


def test_other_images_under_one_name_are_another_data_set(tmp_path: Path) -> None:
    fake_run(tmp_path, lr=0.1, data_fingerprint="0123456789abcdef")
    fake_run(tmp_path, lr=0.2, data_fingerprint="fedcba9876543210")
    fake_run(tmp_path, lr=0.3, status="unfinished")
    found = read(tmp_path)
    assert sorted(found.runs["data"]) == ["cifar10", "cifar10 012345", "cifar10 fedcba"]
    assert found.summary["chosen"].sum() == 2


def test_a_run_of_another_format_is_left_out_by_name(tmp_path: Path) -> None:
    fake_run(tmp_path)
    other = fake_run(tmp_path, "layers2", format=0)
    found = read(tmp_path)
    assert len(found.runs) == 1
    (line,) = found.unreadable
    assert line.startswith(f"{other / 'result.json'}: not the result of a run (format=0: expected 1)")


def test_means_never_cross_data_sets(tmp_path: Path) -> None:
    fake_run(tmp_path, data="cifar10", test_accuracy=0.8)
    fake_run(tmp_path, data="shapes", test_accuracy=0.4)
    summary = read(tmp_path).summary
    assert list(zip(summary["data"], summary["test_accuracy_mean"], summary["chosen"], strict=True)) == [
        ("cifar10", 0.8, True),
        ("shapes", 0.4, True),
    ]


# the configuration that stands for a model


def chosen_lr(outputs: Path) -> list[float]:
    summary = read(outputs).summary
    return list(summary.loc[summary["chosen"], "lr"])


def test_a_configuration_is_chosen_by_validation_and_never_by_test(tmp_path: Path) -> None:
    fake_run(tmp_path, lr=0.1, val_accuracy=0.80, test_accuracy=0.70)
    fake_run(tmp_path, lr=0.2, val_accuracy=0.79, test_accuracy=0.99)
    assert chosen_lr(tmp_path) == [0.1]


def test_a_lucky_single_run_does_not_outdo_a_repeated_configuration(tmp_path: Path) -> None:
    for seed in range(3):
        fake_run(tmp_path, seed=seed, lr=0.1, val_accuracy=0.80)
    fake_run(tmp_path, lr=0.2, val_accuracy=0.81)
    assert chosen_lr(tmp_path) == [0.1]


def test_without_validation_none_of_several_configurations_is_chosen(tmp_path: Path) -> None:
    fake_run(tmp_path, lr=0.1, validation=False)
    fake_run(tmp_path, lr=0.2, validation=False)
    assert chosen_lr(tmp_path) == []


def test_an_only_configuration_needs_no_choice(tmp_path: Path) -> None:
    fake_run(tmp_path, lr=0.1, validation=False)
    assert chosen_lr(tmp_path) == [0.1]


# tables


def test_runs_csv_begins_with_the_columns_of_the_contract(five_seeds: Report) -> None:
    header = (five_seeds.folder / "runs.csv").read_text(encoding="utf-8").splitlines()[0].split(",")
    assert header[: len(records.COLUMNS)] == records.COLUMNS
    assert "label" not in header


def test_csv_cells_have_full_precision_and_whole_numbers_stay_whole(tmp_path: Path) -> None:
    fake_run(tmp_path, "resnet18", test_accuracy=0.1 + 0.2)
    tables.write(read(tmp_path), tmp_path)
    (row,) = cells(tmp_path / "runs.csv")
    assert row["test_accuracy"] == "0.30000000000000004"
    assert (row["depth"], row["batch_size"], row["params"], row["diverged_epoch"]) == ("", "128", "11173962", "")


def test_rows_are_in_order_of_depth_and_seed_wherever_they_stand(tmp_path: Path) -> None:
    for number, seed in [(3, 1), (2, 10), (3, 0), (2, 2)]:
        fake_run(tmp_path, f"layers{number}", seed=seed)
    found = tables.read(reversed(folders.find(tmp_path)), []).runs
    assert list(zip(found["model"], found["seed"], strict=True)) == [
        ("layers2", 2),
        ("layers2", 10),
        ("layers3", 0),
        ("layers3", 1),
    ]


def test_settings_that_vary_have_a_column(tmp_path: Path) -> None:
    fake_run(tmp_path, weight_decay=0.0)
    fake_run(tmp_path, weight_decay=5e-4)
    found = read(tmp_path)
    assert found.settings == ["optimizer.weight_decay"]
    assert sorted(found.summary["optimizer.weight_decay"]) == [0.0, 5e-4]


def test_depths_swept_under_one_name_are_told_apart(tmp_path: Path) -> None:
    for number in (2, 3):
        fake_run(tmp_path, "layers3", depth=number)
    assert tables.in_order(read(tmp_path).summary) == ["layers3, depth 2", "layers3, depth 3"]


def test_a_run_found_twice_counts_once(tmp_path: Path) -> None:
    sweep_dir = fake_sweep(tmp_path, "one", [fake_run(tmp_path)])
    assert len(tables.read([*folders.find(sweep_dir), *folders.find(tmp_path)], []).runs) == 1


def test_a_sweep_reports_its_own_runs_into_its_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep_dir = fake_sweep(tmp_path, "one", [fake_run(tmp_path)])
    fake_run(tmp_path, "layers2")
    monkeypatch.chdir(sweep_dir)
    written = report.write(Path("."))
    assert list(written.tables.runs["model"]) == ["layers3"]
    assert (sweep_dir / "report" / "runs.csv").exists()


# figures


def test_the_figures_are_those_of_the_contract(five_seeds: Report) -> None:
    models = [f"accuracy_layers{number}.png" for number in (2, 3, 4)]
    further = ["parameters_vs_accuracy.png", "seconds_vs_accuracy.png"]
    names = ["depth_vs_accuracy.png", *further, "learning_curves.png", *models]
    assert [path.name for path in five_seeds.figures] == names
    for path in five_seeds.figures:
        assert path.with_suffix(".svg").read_bytes().startswith(b"<?xml")
        pixels = imread(path)
        assert pixels.shape[1] >= 1280
        assert pixels.std() > 0.05  # not blank


def draw_depths(found: tables.Tables) -> Figure:
    with rc_context(style.RC_PARAMS):
        figure = depth.depth_vs_accuracy(found, style.palette(tables.in_order(found.summary)))
        assert figure is not None
        figure.canvas.draw()
        return figure


def test_the_depth_graph_says_what_the_summary_says(five_seeds: Report) -> None:
    (axes,) = draw_depths(five_seeds.tables).axes
    means = 100 * five_seeds.tables.summary["test_accuracy_mean"]
    assert [text.get_text() for text in axes.texts] == [f"{mean:.1f}" for mean in means]
    (joined,) = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert list(joined.get_ydata()) == pytest.approx(list(means))
    names = [label.get_text() for label in axes.get_xticklabels()]
    assert names == ["2\nlayers2\n269 k parameters", "3\nlayers3\n157 k parameters", "4\nlayers4\n163 k parameters"]
    assert axes.get_xlabel() == "depth"
    runs = [offset for points in axes.collections for offset in points.get_offsets().tolist()]
    assert sorted(x for x, _ in runs) == [2.0] * 5 + [3.0] * 5 + [4.0] * 5  # none beside its mean
    assert axes.get_title(loc="left") == "cifar10 · 45,000 training images · 8 epochs · 5 seeds"


@pytest.mark.parametrize(
    ("depths", "places", "ticks"),
    [
        ([2, 4], [2, 4], ["2", "4", "3"]),
        ([2, 3, 5, None], [2, 3, 5, 6], ["2", "3", "5", "", "4"]),
        ([2, 2, 4], [2, 3, 5], ["2", "2", "4"]),
        ([20, 32, 110], [20, 32, 110], ["20", "32", "110"]),
        ([1, 2, 50], [0, 1, 2], ["1", "2", "50"]),
        ([10**18], [0], [str(10**18)]),
        ([-(10**18)], [0], [str(-(10**18))]),
    ],
)
def test_a_model_stands_at_its_depth(
    tmp_path: Path, depths: list[int | None], places: list[int], ticks: list[str]
) -> None:
    for at, number in enumerate(depths):
        fake_run(tmp_path, f"m{at}", depth=number)
    (axes,) = draw_depths(read(tmp_path)).axes
    assert [float(line.get_xdata()[0]) for line in axes.lines if line.get_markersize() == 8] == places
    assert [label.get_text().split("\n")[0] for label in axes.get_xticklabels()] == ticks
    assert axes.get_xlabel().startswith("depth")


def test_models_without_a_depth_have_their_names_on_the_axis(tmp_path: Path) -> None:
    for model in ("resnet18", "speednet"):
        fake_run(tmp_path, model, depth=None)
    (axes,) = draw_depths(read(tmp_path)).axes
    assert (axes.get_xlabel(), len(axes.get_xticklabels())) == ("model", 2)


def test_the_depth_graph_admits_that_one_seed_has_no_interval(tmp_path: Path) -> None:
    fake_run(tmp_path)
    (axes,) = draw_depths(read(tmp_path)).axes
    assert axes.get_title(loc="left").endswith("1 seed: no interval")


def test_the_depth_graph_says_how_a_configuration_was_chosen_and_what_is_left_out(tmp_path: Path) -> None:
    fake_run(tmp_path, lr=0.1, val_accuracy=0.8, test_accuracy=0.8)
    fake_run(tmp_path, lr=0.2, val_accuracy=0.1, test_accuracy=0.1)
    fake_run(tmp_path, lr=0.4, **DIVERGED)
    caption = draw_depths(read(tmp_path)).texts[-1].get_text().replace("\n", " ")
    assert "was chosen by mean validation accuracy; the others are faint, triangles: below the axis." in caption
    assert "Left out of 3 runs: 1 diverged." in caption


def test_a_long_title_of_a_panel_ends_within_the_figure(tmp_path: Path) -> None:
    for seed, epochs, num_train in [(0, 8, 45_000), (0, 16, 2_000), (1, 16, 2_000)]:
        fake_run(tmp_path, f"layers{epochs // 8 + 1}", data="photographs-of-garden-birds-2026", seed=seed,
                 epochs=epochs, num_train=num_train)  # fmt: skip
    figure = draw_depths(read(tmp_path))
    (title,) = [text for text in figure.axes[0].findobj(Text) if "·" in text.get_text()]
    assert title.get_text().endswith(" · 2,000 to 45,000 training images · 8 to 16 epochs · 1 to 2 seeds")
    assert title.get_window_extent().x1 <= figure.bbox.x1


def test_data_sets_have_a_panel_each(tmp_path: Path) -> None:
    for model, data in itertools.product(["layers2", "layers3"], ["cifar10", "shapes"]):
        fake_run(tmp_path, model, data=data)
    titles = [axes.get_title(loc="left").split(" · ")[0] for axes in draw_depths(read(tmp_path)).axes]
    assert titles == ["cifar10", "shapes"]


@pytest.mark.parametrize("num_models", [1, 5, 7, 12, 30])
def test_names_and_values_in_the_depth_graph_do_not_overlap(tmp_path: Path, num_models: int) -> None:
    for number in range(num_models):
        model = f"a_name_that_is_rather_long_{number}"
        for seed in range(2):
            fake_run(tmp_path, model, depth=number + 1, seed=seed, test_accuracy=0.8 + 0.001 * seed)
    figure = draw_depths(read(tmp_path))
    (axes,) = figure.axes
    for texts in (axes.get_xticklabels(), axes.texts):
        boxes = [text.get_window_extent() for text in texts]
        assert all(not one.overlaps(other) for one, other in itertools.pairwise(boxes))
        assert all(figure.bbox.containsx(box.x0) and figure.bbox.containsy(box.y0) for box in boxes)
        assert all(figure.bbox.containsx(box.x1) and figure.bbox.containsy(box.y1) for box in boxes)


@pytest.mark.parametrize(
    ("models", "families"),
    [
        ({"layers3": 3, "layers2": 2, "resnet18": None}, [["layers2", "layers3"]]),
        ({"layers2": 2, "wide10": 10, "wide4": 4}, [["layers2"], ["wide4", "wide10"]]),
        ({"speednet": 8}, []),
    ],
)
def test_models_of_one_stem_with_a_depth_are_joined(
    tmp_path: Path, models: dict[str, int | None], families: list[list[str]]
) -> None:
    for model, number in models.items():
        fake_run(tmp_path, model, depth=number)
    assert tables.families(read(tmp_path).summary) == families


def test_only_diverged_runs_give_tables_and_no_depth_graph(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir = fake_run(tmp_path, seed=0)
    report.write(tmp_path)
    shutil.rmtree(run_dir)
    fake_run(tmp_path, seed=1, **DIVERGED)
    fake_run(tmp_path, seed=2, **DIVERGED)
    assert report.main([str(tmp_path)]) == 0
    printed_lines = capsys.readouterr().out.splitlines()
    assert "No run is complete." in printed_lines
    assert "  2 diverged in epoch 3" in printed_lines
    assert any(line.startswith("No depth_vs_accuracy.png") for line in printed_lines)
    assert len(cells(tmp_path / "report" / "runs.csv")) == 2
    assert not (tmp_path / "report" / "depth_vs_accuracy.png").exists()  # the one of before


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["layers3"], ["accuracy_layers3.png"]),
        (["../../etc/passwd"], ["accuracy_.._.._etc_passwd.png"]),
        (["a/b", "A_b", "a b"], ["accuracy_a_b.png", "accuracy_A_b-2.png", "accuracy_a_b-3.png"]),
        (["x" * 300], [f"accuracy_{'x' * 80}.png"]),
    ],
)
def test_file_names_are_safe_and_different(labels: list[str], expected: list[str]) -> None:
    assert list(style.file_names(labels, "accuracy").values()) == expected


@pytest.mark.parametrize(
    ("count", "text"),
    [(950, "950"), (156_714, "157 k"), (999_999, "1000 k"), (11_173_962, "11.2 M"), (2 * 10**9, "2 G")],
)
def test_parameters_are_shown_in_three_digits(count: int, text: str) -> None:
    assert style.thousands(count) == text


@pytest.mark.parametrize(
    ("number", "noun", "text"),
    [(1, "epoch", "1 epoch"), (0, "epoch", "0 epochs"), (45_000, "training image", "45,000 training images"),
     (2, "class", "2 classes"), (2, "search", "2 searches"), (1, "class", "1 class")],
)  # fmt: skip
def test_a_number_has_its_noun_in_singular_or_plural(number: int, noun: str, text: str) -> None:
    assert formatting.count(number, noun) == text


# hostile content


NAMES = ["$\\frac{x", "[bold]evil[/bold]", "../../etc/passwd", "网络\x07\x1b[31m", "", "=1+1"]


def test_names_are_data(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        fake_run(tmp_path, name)
    fake_run(tmp_path, "layers3", status="failed", error="half a pair \ud800 [/red]")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "300")
    assert report.main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "[bold]evil[/bold]" in out
    assert "\x1b[31m" not in out
    assert len(list((tmp_path / "report").glob("accuracy_*.png"))) == len([*NAMES, "layers3"])
    assert {row["model"] for row in cells(tmp_path / "report" / "runs.csv")} >= set(NAMES[:3])


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("result.json", b'{"run_id": "12', "not a JSON file"),
        ("result.json", b"[1, 2]", "not the result of a run"),
        ("result.json", b"\xff\xfe", "not text in UTF-8"),
        ("result.json", b"{}", "status: missing"),
        ("config.yaml", b"run: [", "while parsing"),
        ("config.yaml", b"- 1", "not the configuration of a run"),
        ("metrics.csv", b"epoch,lr\n1,2\n", "not the metrics of a run"),
        ("metrics.csv", b"\xff\xfe", "not a CSV file"),
    ],
)
def test_an_unreadable_run_is_left_out_and_listed(tmp_path: Path, file: str, content: bytes, reason: str) -> None:
    fake_run(tmp_path, seed=0)
    broken = fake_run(tmp_path, seed=1)
    (broken / file).write_bytes(content)
    found = read(tmp_path)
    assert list(found.runs["seed"]) == [0]
    (line,) = found.unreadable
    assert line.startswith(str(broken))
    assert reason in line
    assert "\n" not in line


def test_what_is_wrong_with_a_run_is_printed_whole_however_deep_its_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / ("a" * 250) / ("b" * 250)
    fake_run(folder, seed=0)
    broken = fake_run(folder, seed=1)
    (broken / "result.json").write_text("{")
    assert report.main([str(folder)]) == 0
    line = capsys.readouterr().err.splitlines()[0]
    assert f"{broken / 'result.json'}: not a JSON file" in line
    assert line.endswith("the command that trained the run trains it again")


@pytest.mark.parametrize(
    "figures",
    [
        {"test_accuracy": "high"},
        {"test_accuracy": None},
        {"test_accuracy": 82.0},
        {"params": 1.5},
        {"status": "odd"},
        {"lr": [0.1]},
        {"seed": 2**70},
        {"seed": True},
        {"model": None},
        {"error": {}},
    ],
)
def test_a_result_of_the_wrong_kind_is_unreadable(tmp_path: Path, figures: dict[str, Any]) -> None:
    run_dir = fake_run(tmp_path)
    files.write_json(run_dir / "result.json", {**files.read_json(run_dir / "result.json"), **figures})
    (key,) = figures
    (line,) = read(tmp_path).unreadable
    assert line.startswith(str(run_dir))
    assert f"{key}=" in line


# printed


def test_the_table_is_in_order_of_validation_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_run(tmp_path, "layers2", val_accuracy=0.75, test_accuracy=0.99)
    for seed, accuracy in enumerate([0.80, 0.82]):
        fake_run(tmp_path, "layers3", seed=seed, val_accuracy=0.80, test_accuracy=accuracy)
    printed.show(read(tmp_path), [])
    assert capsys.readouterr().out.splitlines() == [
        "model    params  optimizer   lr  batch size  seeds  val accuracy %  test accuracy %  seconds",
        "layers3   157 k  momentum   0.1         128      2    80.00 ± 0.00    81.00 ± 12.71    100.0",
        "layers2   269 k  momentum   0.1         128      1           75.00            99.00    100.0",
        "In order of validation accuracy. ±: 95 % interval over seeds.",
        "3 of 3 runs complete",
    ]


def test_a_long_table_ends_after_twenty_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(100):
        fake_run(tmp_path, lr=0.001 * (number + 1), batch_size=256)
    printed.show(read(tmp_path), [])
    lines = capsys.readouterr().out.splitlines()
    assert lines[21] == "and 80 more in summary.csv"


def test_runs_that_are_not_complete_are_counted_with_their_reason(tmp_path: Path) -> None:
    fake_run(tmp_path, seed=0)
    for seed in (1, 2):
        fake_run(tmp_path, seed=seed, status="failed", error="RuntimeError: out of memory\n  Traceback")
    fake_run(tmp_path, seed=3, **DIVERGED)
    fake_run(tmp_path, seed=4, status="unfinished")
    found = tables.read(folders.find(tmp_path), ["depth=6: expected 1 to 5"])
    assert printed.outcomes(found) == [
        "1 of 6 runs complete",
        "  2 failed: RuntimeError: out of memory",
        "  1 diverged in epoch 3",
        "  1 still running, or interrupted",
        "  1 without a run: depth=6: expected 1 to 5",
    ]


def test_a_narrow_terminal_cuts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, accuracy in enumerate([0.80, 0.82]):
        fake_run(tmp_path, "abcdefghijklmnopqrstuvwxyz", seed=seed, val_accuracy=0.75, test_accuracy=accuracy)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    printed.show(read(tmp_path), [])
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert any("75.00 ± 0.00" in line and "81.00 ± 12.71" in line for line in lines)
    assert "abcdefghijklmnopqrstuvwxyz" in "".join(line.split(" ")[0] for line in lines)
    assert max(map(len, lines)) <= 80


# the command


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    root = Path(cifarsweep.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONIOENCODING": "utf-8"}
    words = [sys.executable, "-m", "cifarsweep.report", *arguments]
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=60)


def test_the_command_reports_on_outputs(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    broken = fake_run(outputs, "layers2")
    (broken / "result.json").write_text("{", encoding="utf-8")
    fake_run(outputs, "a name of sixty letters, which a pipe must not cut anywhere ..1")
    done = command(cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == f"Report: {Path('outputs/report/index.html')}"
    assert "1 of 2 runs complete" in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stderr.count("\n") == 1
    assert broken.name in done.stderr


def test_errors_do_not_wait_for_pandas_and_no_report_for_pytorch(tmp_path: Path) -> None:
    fake_run(tmp_path)
    code = (
        "import sys; from cifarsweep.report import main; [(main([path]), print(*sys.modules)) for path in sys.argv[1:]]"
    )
    root = Path(cifarsweep.__file__).parent.parent
    words = [sys.executable, "-c", code, "absent", str(tmp_path)]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=True, encoding="utf-8")
    after_error, *_, after_report = (set(line.split()) for line in done.stdout.splitlines())
    assert not {"pandas", "matplotlib", "torch", "rich", "hydra"} & after_error
    assert {"pandas", "matplotlib"} < after_report
    assert not {"torch", "hydra", "optuna", "scipy", "matplotlib.pyplot"} & after_report


def absent(folder: Path) -> Path:
    return folder / "absent"


def empty(folder: Path) -> Path:
    return folder


def a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def an_odd_sweep(folder: Path) -> Path:
    files.write_json(folder / "sweep.json", [])
    return folder


def a_blocked_folder(folder: Path) -> Path:
    fake_run(folder)
    (folder / "report").touch()
    return folder


def only_unreadable_runs(folder: Path) -> Path:
    (fake_run(folder) / "result.json").write_text("{", encoding="utf-8")
    return folder


@pytest.mark.parametrize("make", [absent, empty, a_file, an_odd_sweep, a_blocked_folder, only_unreadable_runs])
def test_a_wrong_path_is_refused_in_one_line(tmp_path: Path, make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = make(tmp_path)
    assert report.main([str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert str(path) in captured.err
    assert "expected" in captured.err
    assert captured.out == ""


def test_a_report_of_a_hundred_runs_takes_seconds(tmp_path: Path) -> None:
    for model, lr, seed in itertools.product(
        ["layers2", "layers3", "layers4", "layers5"], [0.03, 0.1, 0.3, 1, 3], range(5)
    ):
        fake_run(tmp_path, model, lr=lr, seed=seed, epochs=16)
    import cifarsweep.report.page  # noqa: F401  # imports are not part of it

    start = time.process_time()  # not the wall clock: other processes share the machine
    report.write(tmp_path)
    assert time.process_time() - start < 4.5  # 2.5 on a quiet machine; tests/bench/report.py holds it to the 3 s
