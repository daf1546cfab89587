"""The report of a search, over study.json files made up here: every state, conditional keys, odd values, torn files."""

from __future__ import annotations

import csv
import json
import math
import re
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread
from test_report import fake_run, fake_sweep

from cifarsweep import report
from cifarsweep.report import curves, figures, search_figures, search_results, style, tables
from cifarsweep.results import files
from cifarsweep.results.study_records import StudiesRecord, StudyRecord

# made-up studies


def trial(number: int, values: list[Any] | None = None, state: str = "complete", **further: Any) -> dict[str, Any]:
    defaults = {"params": {}, "epochs": {}, "run": None, "reason": None, "started": None, "finished": None}
    return {"number": number, "state": state, "values": values, "warm_start": False, **defaults, **further}


def study_of(trials: list[dict[str, Any]], **further: Any) -> dict[str, Any]:
    return {
        "format": 1,
        "name": "search",
        "objectives": ["val_accuracy"],
        "directions": ["maximize"],
        "n_trials": len(trials),
        "params": list(dict.fromkeys(key for trial in trials for key in trial["params"])),
        "log": [],
        "importances": {},
        "best": [],
        "best_command": None,
        "trials": trials,
        **further,
    }


def two_objectives(values: list[list[float]], **further: Any) -> dict[str, Any]:
    trials = [trial(number, value) for number, value in enumerate(values)]
    of_two = {"objectives": ["val_accuracy", "params"], "directions": ["maximize", "minimize"]}
    return study_of(trials, **{**of_two, **further})


def ordinary() -> dict[str, Any]:
    """Twenty trials of every state, with a conditional key."""
    trials = []
    for number in range(20):
        params = {"model": f"layers{number % 3}", "optimizer.lr": 10 ** (-3 + number % 7 / 2), "batch_size": 128}
        if number % 2:
            params["optimizer.nesterov"] = number % 4 == 1
        trials.append(trial(number, [0.7 + 0.01 * (number % 10)], params=params, epochs={"1": 0.5, "2": 0.7}))
    trials[3] |= {"state": "pruned", "values": [0.68], "epochs": {"1": 0.68}}
    trials[4] |= {"state": "failed", "values": None, "epochs": {}, "reason": "out of memory\nin line 1"}
    trials[19] |= {"state": "running", "values": None}
    return study_of(trials, log=["optimizer.lr"], importances={"optimizer.lr": 0.6, "model": 0.3}, best=[9])


def written(sweep_dir: Path, study: Any) -> Path:
    sweep_dir.mkdir(parents=True, exist_ok=True)
    (sweep_dir / "study.json").write_text(json.dumps(study), encoding="utf-8")
    return sweep_dir


def read(folder: Path, study: Any) -> search_results.Study:
    found = search_results.read(written(folder, study))
    assert found is not None
    return found


def searched(outputs: Path, study: Any, name: str = "search") -> Path:
    return written(fake_sweep(outputs, name, [fake_run(outputs)]), study)


def cells(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def drawn(draw: Any, study: search_results.Study) -> Figure:
    with rc_context(style.RC_PARAMS):
        figure = draw(study)
        assert isinstance(figure, Figure)
        figure.canvas.draw()
    return figure


def points(axes: Axes, marker: str, hollow: bool = False) -> list[tuple[float, float]]:
    """The trials that are drawn with this marker, circle or triangle, sorted."""
    num_vertices = {"circle": 26, "triangle": 4}[marker]
    found = [
        tuple(map(float, point))
        for drawn in axes.collections
        if len(drawn.get_paths()[0].vertices) == num_vertices and (len(drawn.get_facecolor()) == 0) == hollow
        for point in drawn.get_offsets()
    ]
    return sorted(found)


def caption(figure: Figure) -> str:
    return figure.texts[-1].get_text().replace("\n", " ")


def caption_of(sweep_dir: Path, stem: str) -> str:
    """The texts of a figure as it was written."""
    svg = (sweep_dir / "report" / f"{stem}.svg").read_text(encoding="utf-8")
    return " ".join(re.findall(r">([^<>]+)</text>", svg))


# what is written


def test_a_search_has_its_table_and_its_figures_beside_those_of_its_runs(tmp_path: Path) -> None:
    done = report.write(searched(tmp_path, ordinary()))
    names = [path.name for path in done.figures]
    assert {"depth_vs_accuracy.png", "learning_curves.png"} <= set(names)
    assert names[-3:] == ["optimization_history.png", "parameter_importance.png", "slices.png"]
    for path in done.figures:
        assert imread(path).std() > 0.05  # not blank
    assert len(cells(done.folder / "trials.csv")) == 20


def test_two_objectives_have_a_pareto_figure(tmp_path: Path) -> None:
    done = report.write(searched(tmp_path, two_objectives([[0.8, 1e5], [0.7, 1e4]], best=[0, 1])))
    assert done.figures[-1].name == "pareto.png"


def test_a_sweep_without_a_search_has_nothing_of_one(tmp_path: Path) -> None:
    done = report.write(fake_sweep(tmp_path, "plain", [fake_run(tmp_path)]))
    assert not {path.name for path in done.folder.iterdir()} & {"trials.csv", "slices.png", "optimization_history.png"}


def test_several_sweeps_together_have_no_figures_of_a_search(tmp_path: Path) -> None:
    first, second = searched(tmp_path, ordinary()), fake_sweep(tmp_path, "plain", [fake_run(tmp_path, "layers2")])
    done = report.write(first, second)
    assert not {path.name for path in done.folder.iterdir()} & {"trials.csv", "slices.png", "optimization_history.png"}


def test_a_search_without_a_run_is_still_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep_dir = fake_sweep(tmp_path, "search", [], errors=("out of memory",))
    written(sweep_dir, study_of([trial(0, state="failed", params={"lr": 0.1}, reason="out of memory")]))
    assert report.main([str(sweep_dir)]) == 0
    assert "1 without a run: out of memory" in capsys.readouterr().out
    assert (sweep_dir / "report" / "optimization_history.png").exists()
    assert cells(sweep_dir / "report" / "trials.csv")[0]["reason"] == "out of memory"


@pytest.mark.parametrize(
    ("study", "reason"),
    [
        ('{"format": 1, "na', "not a JSON file"),
        ("[1]", "not the record of a search"),
        ("{}", "format=None: expected a whole number"),
        ({"format": 2}, "format=2: a newer version of cifarsweep wrote it"),
        ({"directions": ["up"]}, "directions[0]='up': expected one of maximize, minimize"),
        ({"objectives": []}, "directions="),
        ({"params": "lr"}, "params='lr': expected a list"),
        ({"trials": [trial(0, state="odd")]}, "state='odd': expected one of complete"),
        ({"trials": [trial(0, [0.1, 0.2])]}, "values=[0.1, 0.2] of trial 0: expected 1"),
        ({"trials": [trial(0, [0.1], run=3)]}, "trials[0].run=3: expected text or null"),
        ({"trials": [trial(0, [0.1], params=None)]}, "trials[0].params=None: expected an object"),
    ],
)
def test_a_study_of_the_wrong_kind_is_refused_with_the_reason(tmp_path: Path, study: Any, reason: str) -> None:
    content = study if isinstance(study, str) else json.dumps({**ordinary(), **study})
    (tmp_path / "study.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        search_results.read(tmp_path)
    assert str(tmp_path / "study.json") in str(caught.value)


def test_a_study_that_cannot_be_read_is_left_out_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep_dir = searched(tmp_path, ordinary())
    report.write(sweep_dir)
    (sweep_dir / "study.json").write_text('{"format": 1, "na', encoding="utf-8")
    assert report.main([str(sweep_dir)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "study.json" in line]
    assert line.startswith(f"Left out, cannot be read: {sweep_dir / 'study.json'}: not a JSON file")
    left = {path.name for path in (sweep_dir / "report").iterdir()}
    assert "runs.csv" in left
    assert not left & {"trials.csv", "slices.png", "parameter_importance.png", "optimization_history.png"}  # of before


def four_trials(outputs: Path, values: list[float]) -> tuple[Path, list[Path]]:
    """A search of four trials with these validation accuracies, and their runs."""
    found = [fake_run(outputs, lr=0.1 * (at + 1), val_accuracy=value) for at, value in enumerate(values)]
    trials = [
        trial(at, [value], params={"optimizer.lr": 0.1 * (at + 1)}, run=run_dir.name)
        for at, (value, run_dir) in enumerate(zip(values, found, strict=True))
    ]
    best = [values.index(max(values))]
    return written(fake_sweep(outputs, "search", found), study_of(trials, best=best)), found


def test_a_run_that_cannot_be_read_is_one_of_all_that_the_search_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep_dir, found = four_trials(tmp_path, [0.5, 0.6, 0.9, 0.7])
    (found[2] / "result.json").write_text("{", encoding="utf-8")
    assert report.main([str(sweep_dir)]) == 0
    page = (sweep_dir / "report" / "index.html").read_text(encoding="utf-8")
    why = "Trial 2, the best of the search, is left out here, as its run cannot be read."
    for text in (capsys.readouterr().out, page):
        assert "3 of 4 runs complete" in text
        assert why in text
    assert "Left out of 4 runs: 1 that cannot be read." in caption_of(sweep_dir, "depth_vs_accuracy")


@pytest.mark.parametrize(
    ("values", "further", "note"),
    [
        ([0.5, 0.6, 0.9, 0.7], {}, ""),
        ([0.5, 0.9, 0.9, 0.7], {"best": [2]}, "Trial 2, the best of the search, has the same validation accuracy."),
        ([0.5, 0.9, 0.7, 0.7], {"objectives": ["val_loss"], "directions": ["minimize"], "best": [3]},
         "Trial 3, the best of the search, has another configuration, as the search goes by val_loss of a single run."),
        ([0.5, 0.9, 0.7, 0.7], {"best": [0, 2]}, ""),
    ],
)  # fmt: skip
def test_the_best_configuration_says_where_the_search_names_another(
    tmp_path: Path, values: list[float], further: dict[str, Any], note: str
) -> None:
    sweep_dir, _ = four_trials(tmp_path, values)
    study = json.loads((sweep_dir / "study.json").read_bytes())
    done = report.write(written(sweep_dir, study | further))
    assert [line for line in done.notes if line.startswith("Trial ")] == [note] * bool(note)


@pytest.mark.parametrize("study", [study_of([]), ordinary()])
def test_a_record_is_written_as_it_was_read(tmp_path: Path, study: dict[str, Any]) -> None:
    files.write_json(tmp_path / "study.json", {**study, "of_a_later_version": [1]})
    content = (tmp_path / "study.json").read_bytes()
    record = StudyRecord.read(tmp_path)
    assert record is not None
    record.write(tmp_path)
    assert json.loads((tmp_path / "study.json").read_bytes()) == json.loads(content)


def test_the_record_of_several_studies_is_written_as_it_was_read(tmp_path: Path) -> None:
    final_run = {"finalist": 0, "seed": 1, "state": "complete", "run": "a-1", "reason": None}
    study = {"values": {"model": "layers2"}, "params": ["lr"], "is_over": True, "epochs": 2}
    study |= {"trials": [trial(0, [0.5])], "finalists": [0], "final_runs": [final_run]}
    values = {
        "format": 1, "name": "a", "study_per": ["model"], "objectives": ["val_accuracy"], "directions": ["maximize"],
        "budget": "9 trials", "max_epochs": 8, "finalists": 1, "repeats": 1, "seeds": [1], "final_on": "train",
        "studies": [study], "of_a_later_version": 3,
    }  # fmt: skip
    files.write_json(tmp_path / "studies.json", values)
    record = StudiesRecord.read(tmp_path)
    assert record is not None
    assert record.studies[0].final_runs[0].run == "a-1"
    record.write(tmp_path)
    assert files.read_json(tmp_path / "studies.json") == values
    files.write_json(tmp_path / "studies.json", {**values, "studies": [{**study, "final_runs": [3]}]})
    with pytest.raises(files.Corrupt, match=r"studies\.json: not the record of several searches"):
        StudiesRecord.read(tmp_path)
    files.write_json(tmp_path / "studies.json", {**values, "directions": []})
    with pytest.raises(files.Corrupt, match=r"directions=\[\]: expected one for each of \['val_accuracy'\]"):
        StudiesRecord.read(tmp_path)


# trials.csv


def test_trials_csv_has_a_row_a_trial_and_empty_cells_where_there_is_no_value(tmp_path: Path) -> None:
    search_results.write(read(tmp_path, ordinary()), tmp_path)
    rows = cells(tmp_path / "trials.csv")
    keys = ["model", "optimizer.lr", "batch_size", "optimizer.nesterov"]
    ends = ["epochs", "run", "reason", "started", "finished"]
    assert list(rows[0]) == ["number", "state", "val_accuracy", *keys, *ends]
    assert (rows[0]["optimizer.nesterov"], rows[1]["optimizer.nesterov"]) == ("", "true")
    assert (rows[4]["state"], rows[4]["val_accuracy"], rows[4]["epochs"]) == ("failed", "", "0")
    assert rows[4]["reason"] == "out of memory\nin line 1"
    assert (rows[3]["val_accuracy"], rows[3]["epochs"], rows[3]["run"]) == ("0.68", "1", "")


def test_values_are_written_as_a_command_line_has_them(tmp_path: Path) -> None:
    values = {"a": None, "b": [32, 64], "c": False, "d": 0.1 + 0.2, "e": "half \ud800", "f": 10**30}
    search_results.write(read(tmp_path, study_of([trial(0, [0.5], params=values)])), tmp_path)
    (row,) = cells(tmp_path / "trials.csv")
    found = [row[key] for key in values]
    assert found == ["null", "[32, 64]", "false", "0.30000000000000004", "half \\ud800", str(10**30)]


def test_a_pruned_trial_without_a_value_has_its_last_reported(tmp_path: Path) -> None:
    epochs = {"9": 0.4, "10": 0.5, "2": 0.3}
    (found,) = read(tmp_path, study_of([trial(0, None, "pruned", epochs=epochs)])).trials
    assert found.values == [0.5]


# history


def test_the_history_shows_each_state_and_the_best_so_far(tmp_path: Path) -> None:
    values = {0: 0.5, 1: 0.4, 4: 0.7, 5: 0.6}
    trials = [trial(number, [value]) for number, value in values.items()]
    trials += [trial(2, [0.65], "pruned"), trial(3, state="failed"), trial(6, state="running")]
    figure = drawn(search_figures.optimization_history, read(tmp_path, study_of(trials)))
    (axes,) = figure.axes
    assert points(axes, "circle") == [(0, 50), (1, 40), (4, 70), (5, 60)]
    assert points(axes, "circle", hollow=True) == [(2, 65)]
    best_so_far, ring, failed = axes.lines
    assert list(best_so_far.get_xdata()) == [0, 1, 4, 5, 6]
    assert list(best_so_far.get_ydata()) == [50, 50, 70, 70, 70]  # no pruned trial is the best
    assert list(ring.get_xdata()) == [4]
    assert list(failed.get_xdata()) == [3]
    assert [text.get_text() for text in axes.texts] == ["trial 4: 70.00"]
    assert axes.get_ylabel() == "validation accuracy (%)"
    assert caption(figure).startswith("7 trials: 4 complete, 1 pruned, 1 failed, 1 running.")


def test_trials_that_wait_take_no_room_in_the_history(tmp_path: Path) -> None:
    trials = [trial(number, [0.5], params={"lr": 0.1}) for number in range(10)]
    trials += [trial(number, state="waiting") for number in range(10, 1000)]
    study = read(tmp_path, study_of(trials))
    assert drawn(search_figures.optimization_history, study).axes[0].get_xlim()[1] < 11
    assert drawn(search_figures.slices, study).axes[-1].get_ylim()[1] == 9  # the colour bar


def test_the_history_of_what_is_minimised_falls(tmp_path: Path) -> None:
    trials = [trial(number, [value]) for number, value in enumerate([3.0, 2.0, 2.5])]
    study = study_of(trials, objectives=["val_loss"], directions=["minimize"])
    (axes,) = drawn(search_figures.optimization_history, read(tmp_path, study)).axes
    assert list(axes.lines[0].get_ydata()) == [3, 2, 2, 2]
    assert axes.texts[0].get_text() == "trial 1: 2"


def test_each_objective_has_a_panel_of_history(tmp_path: Path) -> None:
    study = two_objectives([[0.8, 1_000_000], [0.7, 10_000]], best=[0, 1])
    first, second = drawn(search_figures.optimization_history, read(tmp_path, study)).axes
    assert (first.get_ylabel(), second.get_ylabel()) == ("validation accuracy (%)", "parameters")
    assert (first.get_yscale(), second.get_yscale()) == ("linear", "log")
    assert [axes.texts[0].get_text() for axes in (first, second)] == ["trial 0: 80.00", "trial 1: 10 k"]


@pytest.mark.parametrize(("direction", "sign"), [("maximize", 1), ("minimize", -1)])
def test_one_bad_trial_does_not_flatten_the_rest(tmp_path: Path, direction: str, sign: int) -> None:
    values = [sign * (10 + 0.01 * number) for number in range(20)]
    values[7] = -sign * 1000
    trials = [trial(number, [value], params={"lr": 0.1 * number}) for number, value in enumerate(values)]
    study = read(tmp_path, study_of(trials, objectives=["score"], directions=[direction]))
    for draw in (search_figures.optimization_history, search_figures.slices):
        figure = drawn(draw, study)
        low, high = figure.axes[0].get_ylim()
        assert high - low < 1
        ((x, y),) = points(figure.axes[0], "triangle")
        assert x == pytest.approx(7 if draw is search_figures.optimization_history else 0.7)
        assert y == (low if direction == "maximize" else high)
        assert "Triangles: 1 value beyond the axis" in caption(figure)


def test_the_best_is_never_beyond_the_axis(tmp_path: Path) -> None:
    values = [0.10 + 0.001 * number for number in range(20)] + [0.9]
    study = study_of([trial(number, [value]) for number, value in enumerate(values)])
    (axes,) = drawn(search_figures.optimization_history, read(tmp_path, study)).axes
    assert axes.get_ylim()[1] > 90
    assert points(axes, "triangle") == []


def test_where_most_values_are_equal_none_is_beyond_the_axis(tmp_path: Path) -> None:
    study = study_of([trial(number, [value]) for number, value in enumerate([0.5] * 10 + [0.4, 0.3])])
    (axes,) = drawn(search_figures.optimization_history, read(tmp_path, study)).axes
    assert len(points(axes, "circle")) == 12


def test_trials_that_wait_take_no_room(tmp_path: Path) -> None:
    begun = [trial(number, [0.5 + number / 100], params={"lr": 0.1}) for number in range(5)]
    waiting = [trial(number, state="waiting") for number in range(5, 1000)]
    study = read(tmp_path, study_of([*begun, *waiting]))
    assert drawn(search_figures.optimization_history, study).axes[0].get_xlim()[1] < 6
    assert drawn(search_figures.slices, study).axes[-1].get_ylim()[1] == 4  # the colour bar


# importance


def test_importances_are_bars_with_the_most_important_on_top(tmp_path: Path) -> None:
    importances = {f"key{number}": number / 100 for number in range(20)}
    figure = drawn(search_figures.parameter_importance, read(tmp_path, study_of([], importances=importances)))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == [f"key{number}" for number in range(5, 20)]
    assert "Not shown: 5 less important keys." in caption(figure)


@pytest.mark.parametrize("importances", [{}, {"lr": math.nan}])
def test_without_importances_there_is_no_figure_of_them(tmp_path: Path, importances: dict[str, float]) -> None:
    study = read(tmp_path, study_of([trial(0, [0.5])], importances=importances))
    assert search_figures.parameter_importance(study) is None


# slices


def names(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


def slices(folder: Path, values: list[Any], log: bool = False) -> Axes:
    """The panel of one key that has these values."""
    trials = [trial(number, [0.5 + 0.01 * number], params={"key": value}) for number, value in enumerate(values)]
    return drawn(search_figures.slices, read(folder, study_of(trials, log=["key"] * log))).axes[0]


def test_each_searched_key_has_a_panel_of_the_trials_that_have_it(tmp_path: Path) -> None:
    figure = drawn(search_figures.slices, read(tmp_path, ordinary()))
    *panels, colour_bar = figure.axes
    assert [axes.get_xlabel() for axes in panels] == ["model", "optimizer.lr", "batch_size", "optimizer.nesterov"]
    assert [len(points(axes, "circle")) for axes in panels] == [17, 17, 17, 8]
    assert [len(points(axes, "circle", hollow=True)) for axes in panels] == [1, 1, 1, 1]
    assert [axes.get_xscale() for axes in panels] == ["linear", "log", "linear", "linear"]
    assert colour_bar.get_ylabel() == "trial"
    assert "A panel shows the trials that had its parameter." in caption(figure)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["muon", "adamw", "muon"], ["adamw", "muon"]),
        ([True, False, True], ["false", "true"]),
        ([[1, 2], None, "x"], ["[1, 2]", "null", "x"]),
        ([128, 64, 1024, 64, 128, 1024], ["64", "128", "1024"]),
        ([0.1], ["0.1"]),
        ([0.1, "auto"], ["0.1", "auto"]),
        (["a_name_that_is_far_too_long_for_it", "b"], ["a_name_t…_for_it", "b"]),
        (["$\\frac{x"], ["$\\frac{x"]),
    ],
)
def test_choices_are_named_on_the_axis(tmp_path: Path, values: list[Any], expected: list[str]) -> None:
    assert names(slices(tmp_path, values)) == expected


def test_trials_of_a_choice_stay_at_it_and_apart_from_each_other(tmp_path: Path) -> None:
    axes = slices(tmp_path, ["a", "b"] * 20)
    found = [x for x, _ in points(axes, "circle")]
    assert [round(x) for x in found] == [0] * 20 + [1] * 20
    assert min(after - x for x, after in pairwise(found)) > 0.005
    assert found == [x for x, _ in points(slices(tmp_path, ["a", "b"] * 20), "circle")]  # the same each time


def test_the_rarest_of_many_choices_are_one(tmp_path: Path) -> None:
    axes = slices(tmp_path, [f"often{number}" for number in range(10)] * 2 + [f"rare{number}" for number in range(5)])
    assert names(axes) == [*(f"often{number}" for number in range(10)), "5 others"]
    assert sum(round(x) == 10 for x, _ in points(axes, "circle")) == 5


def test_numbers_are_where_they_are_on_the_axis(tmp_path: Path) -> None:
    assert [x for x, _ in points(slices(tmp_path, [0.1, 0.2, 0.7]), "circle")] == pytest.approx([0.1, 0.2, 0.7])
    axes = slices(tmp_path, [1e-4, 1e-2, 1.0], log=True)
    assert axes.get_xscale() == "log"
    assert {"0.01", "1"} <= set(names(axes))  # no formulas, which texts are not parsed for


def test_ticks_of_a_wide_log_axis_do_not_overlap(tmp_path: Path) -> None:
    trials = [trial(n, [0.5], params=dict.fromkeys(("a", "b", "c"), 10.0 ** (n % 7 - 6))) for n in range(14)]
    figure = drawn(search_figures.slices, read(tmp_path, study_of(trials, log=["a", "b", "c"])))
    for axes in figure.axes[:3]:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert all(not one.overlaps(other) for one, other in pairwise(boxes))


def test_a_key_that_was_not_searched_on_a_log_scale_has_none(tmp_path: Path) -> None:
    assert slices(tmp_path, [0.001, 0.1, 10.0]).get_xscale() == "linear"


def test_a_log_axis_is_linear_where_a_value_has_no_logarithm(tmp_path: Path) -> None:
    axes = slices(tmp_path, [0.0, 0.01, 1.0], log=True)
    assert axes.get_xscale() == "linear"
    assert len(points(axes, "circle")) == 3


def test_ticks_over_many_decades_do_not_overlap(tmp_path: Path) -> None:
    decades = range(-7, 0)
    trials = [trial(n, [0.5], params=dict.fromkeys("abc", 10.0**power)) for n, power in enumerate(decades)]
    figure = drawn(search_figures.slices, read(tmp_path, study_of(trials, log=["a", "b", "c"])))
    for axes in figure.axes[:3]:
        low, high = axes.get_xlim()
        ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        boxes = [label.get_window_extent() for at, label in ticks if low <= at <= high]
        assert len(boxes) >= 2
        assert all(not one.overlaps(other) for one, other in pairwise(boxes))


@pytest.mark.parametrize(("num_keys", "num_choices"), [(1, 11), (2, 4), (4, 2), (4, 7), (7, 4)])
def test_names_of_choices_do_not_overlap(tmp_path: Path, num_keys: int, num_choices: int) -> None:
    choices = [f"{'momentum' * (number % 3 + 1)}{number}" for number in range(num_choices)]
    trials = [
        trial(number, [0.5], params={f"key{key}": choices[number % num_choices] for key in range(num_keys)})
        for number in range(2 * num_choices)
    ]
    figure = drawn(search_figures.slices, read(tmp_path, study_of(trials)))
    for axes in figure.axes[:num_keys]:
        boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
        assert all(not one.overlaps(other) for one, other in pairwise(boxes))
    panels = [axes.get_tightbbox() for axes in figure.axes]  # with their labels; the last is the colour bar
    texts = [text.get_window_extent() for text in figure.texts if text.get_text()]
    whole = [box for box in [*panels, *texts] if box]
    assert not any(one.overlaps(other) for at, one in enumerate(whole) for other in whole[:at])


# Pareto set


def test_the_pareto_set_is_joined_by_steps_and_numbered(tmp_path: Path) -> None:
    values = [[0.80, 3e5], [0.70, 1e4], [0.60, 2e5], [0.90, 1e6]]
    (axes,) = drawn(search_figures.pareto, read(tmp_path, two_objectives(values, best=[3, 1, 0]))).axes
    (steps,) = axes.lines
    assert list(steps.get_xdata()) == [1e4, 3e5, 1e6]
    assert list(steps.get_ydata()) == pytest.approx([70, 80, 90])
    assert steps.get_drawstyle() == "steps-post"  # with more parameters allowed, no less accuracy
    assert [text.get_text() for text in axes.texts] == ["1", "0", "3"]
    assert (axes.get_xscale(), axes.get_xlabel()) == ("log", "parameters")
    assert axes.get_ylabel() == "validation accuracy (%)"
    assert len(points(axes, "circle")) == 4


def test_costs_are_on_the_x_axis_whichever_comes_first(tmp_path: Path) -> None:
    swapped = {"objectives": ["params", "val_accuracy"], "directions": ["minimize", "maximize"]}
    study = two_objectives([[1e4, 0.7], [1e6, 0.9]], best=[0, 1], **swapped)
    (axes,) = drawn(search_figures.pareto, read(tmp_path, study)).axes
    assert axes.get_xlabel() == "parameters"


def test_of_three_objectives_the_line_joins_the_best_in_the_first_two(tmp_path: Path) -> None:
    three = {"objectives": ["val_accuracy", "speed", "memory"], "directions": ["maximize", "maximize", "minimize"]}
    study = two_objectives([[0.9, 1, 9], [0.5, 5, 9], [0.6, 0.5, 1]], best=[0, 1, 2], **three)
    figure = drawn(search_figures.pareto, read(tmp_path, study))
    (steps,) = figure.axes[0].lines
    assert list(steps.get_xdata()) == [1, 5]
    assert steps.get_drawstyle() == "steps-pre"
    assert figure.texts[0].get_text() == "Pareto set in the first two of 3 objectives"


def test_the_pareto_figure_cuts_nothing_off_its_x_axis(tmp_path: Path) -> None:
    of_two = {"objectives": ["val_accuracy", "memory"]}
    values = [[0.5 + 0.01 * number, 10 + 0.1 * number] for number in range(19)] + [[0.9, 1000.0]]
    (axes,) = drawn(search_figures.pareto, read(tmp_path, two_objectives(values, best=[19], **of_two))).axes
    assert axes.get_xlim()[1] > 1000


def test_numbers_of_a_crowded_pareto_set_do_not_overlap(tmp_path: Path) -> None:
    values = [[0.5 + 0.001 * number, 1e5 + 1000 * number] for number in range(200)]
    (axes,) = drawn(search_figures.pareto, read(tmp_path, two_objectives(values, best=list(range(200))))).axes
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) > 5
    assert all(not one.overlaps(other) for at, one in enumerate(boxes) for other in boxes[:at])


# little, odd and much


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([], set()),
        ([trial(0, state="waiting")], set()),
        ([trial(0, state="failed", params={"lr": 0.1})], {"optimization_history.png"}),
        ([trial(0, [math.nan], params={"lr": 0.1})], set()),
        ([trial(0, None, "pruned", params={"lr": 0.1})], set()),
        ([trial(0, [0.5], "pruned", params={"lr": 0.1})], {"optimization_history.png", "slices.png"}),
        ([trial(0, [0.5], params={"lr": 0.1})], {"optimization_history.png", "slices.png"}),
        ([trial(0, [0.0]), trial(1, [0.0])], {"optimization_history.png"}),
        ([trial(0, [10**400]), trial(1, [0.5], params={"lr": 10**400})], {"optimization_history.png", "slices.png"}),
    ],
)
@pytest.mark.filterwarnings("error")
def test_figures_without_data_are_left_out(tmp_path: Path, trials: list[Any], expected: set[str]) -> None:
    study = read(tmp_path, study_of(trials))
    drawn = set()
    with rc_context(style.RC_PARAMS):
        for name, draw, _ in figures.of_search(study):
            figure = draw()
            if figure:
                figure.canvas.draw()
                drawn.add(name)
    assert drawn == expected


@pytest.mark.filterwarnings("error")
def test_equal_values_in_both_objectives_can_be_drawn(tmp_path: Path) -> None:
    study = read(tmp_path, two_objectives([[0.8, 1e5], [0.8, 1e5]], best=[0, 1]))
    (axes,) = drawn(search_figures.pareto, study).axes
    assert axes.get_xscale() == "linear"


def test_five_hundred_trials_are_drawn_in_three_seconds(tmp_path: Path) -> None:
    trials = [
        trial(number, [0.5 + number % 97 / 200], params={f"key{key}": (number * key) % 89 / 89 for key in range(6)})
        for number in range(500)
    ]
    study = read(tmp_path, study_of(trials))
    start = time.process_time()
    for _, draw, _ in figures.of_search(study):
        with rc_context(style.RC_PARAMS):
            figure = draw()
            if figure:
                figure.canvas.draw()
    assert time.process_time() - start < 3


# learning curves of many models


def test_of_many_models_the_ten_best_by_validation_keep_a_colour(tmp_path: Path) -> None:
    for number in range(15):
        fake_run(tmp_path, f"m{number}", val_accuracy=0.5 + 0.01 * number, test_accuracy=0.9 - 0.01 * number)
    found = tables.read(sorted((tmp_path / "runs").iterdir()), [])
    figure = drawn(lambda _: curves.learning_curves(found, style.palette(tables.in_order(found.summary))), None)
    legend = [text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()]
    assert sorted(legend) == sorted(f"m{number}" for number in range(5, 15))
    assert "Coloured: the 10 of 15 models with the best validation accuracy; grey: the others." in caption(figure)
    assert sum(len(line.get_xdata()) > 0 for line in figure.axes[0].lines) == 10  # thick ones
