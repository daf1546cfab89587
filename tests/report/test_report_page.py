"""The report's page: what it says of every kind of sweep, and that texts stay texts."""

from __future__ import annotations

import base64
import csv
import gzip
import itertools
import json
import os
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from matplotlib.axes import Axes
from test_report import DIVERGED, fake_run, fake_sweep, read
from test_report_search import ordinary, study_of, trial, written

from cifarsweep import report
from cifarsweep.report import effects, figures, findings, printed, style
from cifarsweep.report.tables import Tables
from cifarsweep.results import files, folders, records, sweeps
from cifarsweep.results.mosaic import Mosaic
from cifarsweep.results.records import Layer
from cifarsweep.results.study_records import StudiesRecord, StudyRecord

NOT_ENOUGH = "not enough runs to say"
HOSTILE = ["<script>alert(1)</script>", "\"><img src=x onerror='alert(2)'>", "&amp;{{ 7*7 }}", "🦊 'quoted'", "../../x"]
CLASSES = ["cat", "dog", "<b>ship</b>"]


# reading a page


class Page(HTMLParser):
    """Tags with their attributes, and the text of the body without scripts and styles."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source, self.tags, self.texts, self._inside = source, [], [], ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).replace("\N{NO-BREAK SPACE}", " ").split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page_of(path: Path) -> Page:
    done = report.write(path)
    return Page((done.folder / "index.html").read_text(encoding="utf-8"))


def decoded(address: str) -> str:
    """The SVG of a data: address, which holds it as text or in base64, whichever is shorter."""
    kind, _, content = address.partition(",")
    return base64.b64decode(content).decode() if kind.endswith(";base64") else unquote(content)


def depth_sweep(outputs: Path, num_seeds: int = 5, step: float = 0.02) -> Path:
    """layers2 to layers4, each `step` better than the one before, with seeds that vary by 0.2 points."""
    chance = random.Random(0)
    found = []
    for number in (2, 3, 4):
        for seed in range(num_seeds):
            accuracy = round(0.78 + step * (number - 2) + chance.gauss(0, 0.002), 4)
            found.append(fake_run(outputs, f"layers{number}", seed=seed, test_accuracy=accuracy, val_accuracy=accuracy))
    return fake_sweep(outputs, "depth", found)


def write_confusion(run_dir: Path, counts: list[list[int]], names: list[str] = CLASSES) -> None:
    rows = [[name, *row] for name, row in zip(names, counts, strict=True)]
    files.write_csv(run_dir / "confusion.csv", ["true", *names], rows)


# the answer


def models(outputs: Path, accuracies: dict[str, list[float]], **figures: Any) -> Tables:
    """Models whose runs have these test accuracies, a seed each."""
    for model, values in accuracies.items():
        for seed, accuracy in enumerate(values):
            fake_run(outputs, model, seed=seed, test_accuracy=accuracy, val_accuracy=accuracy, **figures)
    return read(outputs)


@pytest.mark.parametrize(
    ("accuracies", "params", "seconds"),
    [
        (
            {"layers2": [0.7], "layers3": [0.6]},
            "layers2 has the highest mean accuracy, with 269 k parameters; layers3 has only 157 k, and its mean is "
            f"10.0 points lower; whether by more than chance: {NOT_ENOUGH}.",
            "layers2 has the highest mean accuracy, with 50 s of training; no model trains faster.",
        ),
        (
            {"layers2": [0.6, 0.601], "layers3": [0.7, 0.701]},
            "layers3 has the highest mean accuracy, with 157 k parameters; no model has fewer.",
            "layers3 has the highest mean accuracy, with 75 s of training; layers2 takes only 50 s, and its mean is "
            "10.0 points lower.",
        ),
        (
            {"layers2": [0.9, 0.5], "layers3": [0.5, 0.6]},
            "layers2 has the highest mean accuracy, with 269 k parameters; layers3 has only 157 k, and its mean is "
            "15.0 points lower, which chance could explain (paired t-test over 2 shared seeds, p = 0.66).",
            "layers2 has the highest mean accuracy, with 50 s of training; no model trains faster.",
        ),
        (
            {"layers2": [0.7], "layers3": [0.7]},
            "layers2 has the highest mean accuracy, with 269 k parameters; layers3 has only 157 k, and the same mean.",
            "layers2 has the highest mean accuracy, with 50 s of training; no model trains faster.",
        ),
    ],
)
def test_the_most_accurate_model_stands_beside_the_cheapest(
    tmp_path: Path, accuracies: dict[str, list[float]], params: str, seconds: str
) -> None:
    for model, values in accuracies.items():
        models(tmp_path, {model: values}, train_seconds=25.0 * int(model[-1]))
    tables = read(tmp_path)
    assert findings.cost_sentence(tables, "params") == params
    assert findings.cost_sentence(tables, "train_seconds_mean") == seconds


def test_equal_accuracies_are_no_difference_of_0_points(tmp_path: Path) -> None:
    found = [fake_run(tmp_path, f"layers{n}", seed=s, test_accuracy=0.8) for n in (2, 3) for s in range(3)]
    better = [fake_run(tmp_path, "layers1", seed=seed, test_accuracy=0.7) for seed in range(3)]
    page = page_of(fake_sweep(tmp_path, "equal", [*found, *better]))
    assert "; layers3 has the same mean." in page.text
    assert not re.search(r"(?<!\d)[+−]?0\.0 points", page.text)


@pytest.mark.parametrize(
    ("accuracies", "end"),
    [
        ([0.5, 0.75], "; the last epoch brought 25.0 points."),
        ([0.5, 0.25], "; the last epoch cost 25.0 points."),
        ([0.5, 0.5], "; the last epoch changed nothing."),
        ([0.5], ": no sign of overfitting."),
    ],
)
def test_what_the_last_epoch_did(tmp_path: Path, accuracies: list[float], end: str) -> None:
    run_dir = fake_run(tmp_path, epochs=len(accuracies))
    rows = [(epoch, 0.1, 1.0, 0.1, 1.0, accuracy, 1.0) for epoch, accuracy in enumerate(accuracies, 1)]
    files.write_csv(run_dir / "metrics.csv", records.METRICS, rows)
    assert findings.curve_sentence(read(tmp_path)).endswith(end)


def test_one_thing_is_said_in_the_singular(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run, an epoch, an error, a class, a trial, a core of each: no sentence of the report has `1 epochs`."""
    for module, name in (("page", "MOST_RUNS"), ("page", "MOST_COMPARISONS"), ("page", "MOST_LOST")):
        monkeypatch.setattr(f"cifarsweep.report.{module}.{name}", 1)
    provenance = {"cores": 1}
    found = [fake_run(tmp_path, f"layers{n}", epochs=1, provenance=provenance, num_train=1) for n in (2, 3)]
    write_confusion(found[1], [[1, 1], [0, 1]], ["cat", "dog"])
    found += [fake_run(tmp_path, status="failed", error=reason, lr=lr) for reason, lr in (("a", 1), ("b", 2))]
    one = trial(0, [0.5], params={"lr": 0.1}, epochs={"1": 0.5}, run=found[1].name)
    sweep_dir = written(fake_sweep(tmp_path, "one", found), study_of([one], best=[0], importances={"lr": 1.0}))
    (found[-1] / "result.json").write_text("{", encoding="utf-8")
    done = report.write(sweep_dir)
    page = Page((done.folder / "index.html").read_text(encoding="utf-8"))
    drawn = [" ".join(re.findall(r">([^<>]+)</text>", decoded(image["src"] or ""))) for image in page.all("img")]
    sentences = [page.text, *drawn, *printed.outcomes(done.tables), *done.notes]
    assert [
        wrong
        for sentence in sentences
        for wrong in re.findall(
            r"(?<![\d.,] )(?<![\w.,−+-])[01] (?:more |later )?(?!is|has|was|loss)[a-z]+s\b", sentence
        )
    ] == []


def test_many_models_are_each_compared_with_the_best_one_only(tmp_path: Path) -> None:
    for number in range(12):
        for seed in range(2):
            fake_run(tmp_path, f"m{number}", depth=number, seed=seed, test_accuracy=0.5 + 0.01 * number)
    found = findings.comparisons(read(tmp_path), "cifar10")
    assert len(found) == 11
    assert all("m11" in (one.first, one.second) for one in found)


# every kind of sweep


def test_a_sweep_that_has_no_run_yet_has_a_page(tmp_path: Path) -> None:
    page = page_of(fake_sweep(tmp_path, "none", [], errors=("depth=9: expected 1 to 5",)))
    assert f"No run is complete, so there is no answer yet: {NOT_ENOUGH}." in page.text
    assert "There are no runs yet." in page.text
    assert "1 × depth=9: expected 1 to 5" in page.text
    assert page.all("img") == []


def test_one_run_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    page = page_of(fake_sweep(tmp_path, "one", [fake_run(tmp_path, test_accuracy=0.8)]))
    assert (
        "On cifar10, layers3 reaches 80.0 % test accuracy with 1 seed; there is no other model to compare it with."
        in page.text
    )
    assert "Every run is complete." in page.text
    assert "Nothing but the model and the seed varies" in page.text
    assert "Models against each other" not in page.text


def test_only_failed_runs_are_listed_with_their_reasons(tmp_path: Path) -> None:
    found = [fake_run(tmp_path, seed=seed, status="failed", error="RuntimeError: no memory\ntrace") for seed in (0, 1)]
    found.append(fake_run(tmp_path, seed=2, **DIVERGED))
    page = page_of(fake_sweep(tmp_path, "failed", found))
    assert NOT_ENOUGH in page.text
    assert re.search(r"failed\s*2\s*RuntimeError: no memory", page.text)
    assert "the loss stopped being finite in epoch 3" in page.text
    assert "trace" not in page.text


def test_data_sets_have_an_answer_and_a_best_configuration_each(tmp_path: Path) -> None:
    found = [fake_run(tmp_path, f"layers{n}", data=data) for n in (2, 3) for data in ("cifar10", "shapes")]
    page = page_of(fake_sweep(tmp_path, "mixed", found))
    for data in ("cifar10", "shapes"):
        assert f"On {data}, layers3 has the highest mean test accuracy" in page.text
        assert f"layers3 on {data}: " in page.text


def test_a_sweep_that_is_running_says_so(tmp_path: Path) -> None:
    found = [fake_run(tmp_path, seed=0), fake_run(tmp_path, seed=1, status="unfinished")]
    page = page_of(fake_sweep(tmp_path, "running", found))
    assert "1 of 2 runs complete" in page.text
    assert "Still running, or interrupted: 1 run." in page.text


def test_without_validation_the_choice_is_called_optimistic(tmp_path: Path) -> None:
    found = [fake_run(tmp_path, lr=lr, validation=False) for lr in (0.1, 0.2)]
    page = page_of(fake_sweep(tmp_path, "blind", found))
    assert "no configuration can be chosen for a model" in page.text
    assert "chosen by the test set: its accuracy is optimistic" in page.text


def test_a_search_shows_its_figures_with_a_sentence_each(tmp_path: Path) -> None:
    page = page_of(written(fake_sweep(tmp_path, "search", [fake_run(tmp_path)]), ordinary()))
    assert "Trial 9 is the best of 17 complete trials; 9 later trials did no better." in page.text
    assert "optimizer.lr mattered most (0.60 of 1), then model (0.30)" in page.text
    assert {image["alt"] for image in page.all("img")} >= {"slices", "optimization history", "parameter importance"}


def test_a_search_whose_trials_all_failed_has_a_page(tmp_path: Path) -> None:
    study = study_of([trial(0, state="failed", params={"lr": 0.1}, reason="out of memory")])
    page = page_of(written(fake_sweep(tmp_path, "search", [], errors=("out of memory",)), study))
    assert f"No trial is complete: {NOT_ENOUGH}." in page.text


# the best configuration


def test_the_best_configuration_has_the_command_of_its_job(tmp_path: Path) -> None:
    run_dir = fake_run(tmp_path, lr=0.2)
    sweep_dir = tmp_path / "sweeps" / "one"
    sweeps.open_sweep(sweep_dir, ["python"], {})
    overrides = ["search=default", "name=one", "model=layers3", "optimizer.lr=0.2", "data.root=my images"]
    sweeps.register_job(sweep_dir, 0, overrides, run=run_dir.name)
    expected = "python -m cifarsweep model=layers3 optimizer.lr=0.2 'data.root=my images'"
    for path in (sweep_dir, tmp_path, run_dir):
        assert expected in page_of(path).text


def test_a_trial_of_a_depth_study_is_shown_with_no_command_that_a_single_run_would_refuse(tmp_path: Path) -> None:
    run_dir = fake_run(tmp_path)
    sweep_dir = tmp_path / "sweeps" / "one"
    sweeps.open_sweep(sweep_dir, ["python"], {})
    sweeps.register_job(sweep_dir, 0, ["experiment=depth_study", "study=quick", "model=layers3"], run=run_dir.name)
    text = page_of(sweep_dir).text
    assert "python -m cifarsweep experiment=" not in text
    assert "The command that trains it is not recorded" in text


@pytest.mark.parametrize("kind", [StudyRecord, StudiesRecord])
def test_a_run_of_an_experiments_search_has_the_command_with_what_the_experiment_set_by_value(
    tmp_path: Path, kind: type[StudyRecord | StudiesRecord]
) -> None:
    run_dir = fake_run(tmp_path)
    sweep_dir = tmp_path / "sweeps" / "one"
    sweeps.open_sweep(sweep_dir, ["python"], {})
    of_trial = ["experiment=depth_study", "study=quick", "data=shapes", "name=one", "model=layers3", "seed=7"]
    sweeps.register_job(sweep_dir, 0, of_trial, run=run_dir.name)
    known = {"format": 1, "name": "one", "objectives": ["val_accuracy"], "directions": ["maximize"], "params": []}
    known |= {"log": [], "importances": {}, "best": [], "trials": [], "study_per": [], "budget": "1 trials"}
    known |= {"finalists": 1, "repeats": 1, "seeds": [], "final_on": "train", "studies": [], "max_epochs": 1}
    kind.of({**known, "single_run": ["data=shapes", "trainer.epochs=3"]}).write(sweep_dir)
    assert "python -m cifarsweep data=shapes trainer.epochs=3 model=layers3 seed=7" in page_of(sweep_dir).text


def test_a_single_run_has_the_command_it_was_started_with(tmp_path: Path) -> None:
    fake_run(tmp_path, command_line=["python", "-m", "cifarsweep", "model=layers3"])
    assert "This command trains it, seed 0: python -m cifarsweep model=layers3" in page_of(tmp_path).text


@pytest.mark.parametrize("words", [None, [], ["python", "-m", "cifarsweep", "-m", "model=a,b"]])
def test_without_a_command_of_its_own_the_configuration_is_shown(tmp_path: Path, words: Any) -> None:
    fake_run(tmp_path, command_line=words)
    text = page_of(tmp_path).text
    assert "The command that trains it is not recorded" in text
    assert "weight_decay: 0.0005" in text


def test_links_lead_to_the_runs_logs(tmp_path: Path) -> None:
    run_dir = fake_run(tmp_path)
    (run_dir / "train.log").write_text("epoch 1\n", encoding="utf-8")
    sweep_dir = fake_sweep(tmp_path, "one", [run_dir])
    links = [link["href"] or "" for link in page_of(sweep_dir).all("a")]
    (log,) = {link for link in links if link.endswith("train.log")}
    assert (sweep_dir / "report" / log).read_text(encoding="utf-8") == "epoch 1\n"
    for link in links:
        if not link.startswith(("#", "..")):
            assert (sweep_dir / "report" / link).exists()


def test_a_run_in_a_folder_of_any_name_has_a_link(tmp_path: Path) -> None:
    run_dir = fake_run(tmp_path)
    (run_dir / "train.log").touch()
    odd = os.fsencode(run_dir.parent) + b"/odd-\xff-000000000000"
    os.rename(run_dir, odd)
    assert "odd-%FF-000000000000/train.log" in page_of(tmp_path).source


def test_runs_whose_logs_are_not_kept_have_no_links(tmp_path: Path) -> None:
    fake_run(tmp_path)
    fake_run(tmp_path, seed=1, status="failed", error="disk full")
    page = page_of(tmp_path)
    assert not [link for link in page.all("a") if (link["href"] or "").endswith("train.log")]
    assert "disk full" in page.text


# settings and classes


def settings_sweep(outputs: Path) -> None:
    """Learning rate and batch size crossed, three seeds: 0.1 is 5 points above 0.2, batch sizes do nothing."""
    for lr, size, seed in [(lr, size, seed) for lr in (0.1, 0.2) for size in (64, 128) for seed in range(3)]:
        accuracy = {0.1: 0.8, 0.2: 0.75}[lr] + 0.001 * seed + (0.0004 if (seed, size) in ((0, 64), (1, 128)) else 0)
        fake_run(outputs, lr=lr, batch_size=size, seed=seed, val_accuracy=accuracy)


def test_a_setting_is_judged_by_runs_that_differ_in_nothing_else(tmp_path: Path) -> None:
    settings_sweep(tmp_path)
    found = effects.Effects(read(tmp_path))
    lr, batch_size = (findings.effect_sentence(effect, found) for effect in found.effects)
    assert lr.startswith("lr: 0.1 has the highest mean validation accuracy, 5.0 points above 0.2 in 6 runs that differ")
    assert batch_size.endswith(" may be as good.")
    interaction = effects.interaction(found)
    assert interaction is not None
    assert "The learning rate 0.1 has the highest mean at each batch size." in findings.interaction_sentence(
        interaction
    )


def test_runs_that_differ_in_nothing_else_may_contradict_the_means(tmp_path: Path) -> None:
    """0.2 also ran with settings that spoil it, so that its mean is lower; beside 0.1 it is a point higher."""
    for seed in range(5):
        noise = 0.001 * (seed % 3)
        fake_run(tmp_path, lr=0.1, seed=seed, val_accuracy=0.8)
        fake_run(tmp_path, lr=0.2, seed=seed, val_accuracy=0.81 + noise)
        fake_run(tmp_path, lr=0.2, seed=seed, batch_size=512, val_accuracy=0.5 + noise)
    found = effects.Effects(read(tmp_path))
    sentence = next(findings.effect_sentence(one, found) for one in found.effects if one.key == "lr")
    assert sentence.startswith("lr: 0.1 has the highest mean validation accuracy; but 0.2 is 1.1 points above it in 5 ")
    assert "as good" not in sentence


@pytest.mark.parametrize(
    "names", [["sgd", "momentum", "adam", "adamw"], ["momentum", "adamw"], [f"optimizer-{n}" for n in range(8)]]
)
def test_the_values_of_a_setting_reach_no_legend(tmp_path: Path, names: list[str]) -> None:
    for at, (model, name) in enumerate([(model, name) for model in ("layers2", "layers3") for name in names]):
        fake_run(tmp_path, model, optimizer=name, val_accuracy=0.7 + 0.01 * at)
    found = effects.Effects(read(tmp_path))
    with style.drawing():
        figure = effects.settings(found, style.palette(found.labels))
        assert figure is not None
        figure.draw_without_rendering()
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    ticks = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert min(box.y0 for box in ticks) > legend.get_window_extent().y1
    assert not any(one.overlaps(other) for one, other in itertools.pairwise(ticks))


def settings_of(outputs: Path, linear: tuple[str, ...] = ()) -> tuple[Axes, str]:
    """The panel of the first setting that varies, and the caption."""
    found = effects.Effects(read(outputs), linear)
    with style.drawing():
        figure = effects.settings(found, style.palette(found.labels))
        assert figure is not None
        figure.draw_without_rendering()
    return figure.axes[0], " ".join(figure.texts[-1].get_text().split())


@pytest.mark.parametrize(("linear", "scale"), [((), "log"), (("optimizer.lr",), "linear")])
def test_a_numeric_setting_is_where_it_is_on_the_axis(tmp_path: Path, linear: tuple[str, ...], scale: str) -> None:
    rates = [0.01468, 0.1881, 0.4757, 0.4928]
    for rate in rates:
        fake_run(tmp_path, lr=rate)
    axes, caption = settings_of(tmp_path, linear)
    assert axes.get_xscale() == scale
    assert [list(line.get_xdata()) for line in axes.lines] == [rates, rates]  # the line and the points
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert "0.1" in ticks
    assert "0.4928" not in ticks  # it would cover 0.4757
    assert caption == "Each point is one run, whatever the other settings."


def test_the_caption_says_of_how_many_runs_a_point_is_the_mean(tmp_path: Path) -> None:
    for model, size, seed in [("layers2", 64, 0), ("layers2", 256, 0), ("layers2", 256, 1), ("layers3", 64, 0)]:
        fake_run(tmp_path, model, batch_size=size, seed=seed)
    axes, caption = settings_of(tmp_path)
    assert [label.get_text() for label in axes.get_xticklabels()] == ["64", "256"]
    assert caption.startswith(
        "Each point is the mean over 1 to 2 runs with that value, whatever the other settings; bars"
    )
    beside = sorted(float(x) for line in axes.lines if line.get_marker() == "o" for x in line.get_xdata())
    assert beside == pytest.approx([64, 64, 256], rel=0.05)
    assert beside[0] < 64 < beside[1]  # two models at one value do not cover each other


def test_an_interval_that_goes_on_beyond_the_axis_has_an_arrow(tmp_path: Path) -> None:
    """That of two runs is 13 standard errors wide."""
    for size, seed, accuracy in [(64, 0, 0.7), (64, 1, 0.72), (256, 0, 0.71)]:
        fake_run(tmp_path, batch_size=size, seed=seed, val_accuracy=accuracy)
    axes, caption = settings_of(tmp_path)
    arrows = {line.get_marker(): line.get_ydata()[0] for line in axes.lines if line.get_marker() in ("v", "^")}
    assert arrows == dict(zip("v^", axes.get_ylim(), strict=True))
    assert caption.endswith("an arrow where one goes on.")


def test_the_axis_has_room_for_models_that_lack_the_first_setting(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        fake_run(tmp_path, "layers2", lr=lr, val_accuracy=0.8)
    for size in (64, 256):
        result = fake_run(tmp_path, "layers3", batch_size=size, val_accuracy=0.3) / "result.json"
        result.write_text(json.dumps(json.loads(result.read_text()) | {"lr": None}))
    axes, _ = settings_of(tmp_path)
    assert axes.get_title("left") == "lr"
    assert axes.get_ylim()[0] < 30


def test_a_setting_without_matching_runs_is_not_judged(tmp_path: Path) -> None:
    fake_run(tmp_path, lr=0.1, batch_size=64)
    fake_run(tmp_path, lr=0.2, batch_size=128)
    found = effects.Effects(read(tmp_path))
    assert all(NOT_ENOUGH in findings.effect_sentence(effect, found) for effect in found.effects)


def test_odd_values_of_a_setting_are_choices(tmp_path: Path) -> None:
    for seed, value in enumerate([10**400, ".inf", "true", "null", "[1, 2]", "<b>", *range(10)]):
        run_dir = fake_run(tmp_path, seed=seed)
        config = (run_dir / "config.yaml").read_text(encoding="utf-8")
        changed = config.replace("weight_decay: 0.0005", f"weight_decay: {value}")
        (run_dir / "config.yaml").write_text(changed, encoding="utf-8")
    assert "optimizer.weight_decay: " in page_of(tmp_path).text


def test_a_setting_that_follows_from_another_has_no_effect_of_its_own(tmp_path: Path) -> None:
    for seed in range(2):
        fake_run(tmp_path, optimizer="adam", weight_decay=0.0, seed=seed)
        fake_run(tmp_path, optimizer="momentum", weight_decay=5e-4, seed=seed)
    assert [effect.key for effect in effects.Effects(read(tmp_path)).effects] == ["optimizer"]


def test_batch_sizes_are_in_order_and_many_learning_rates_are_grouped(tmp_path: Path) -> None:
    for number in range(24):
        fake_run(tmp_path, lr=0.01 * (number + 1), batch_size=(64, 128, 256)[number % 3])
    lr, batch_size = effects.Effects(read(tmp_path)).effects
    assert lr.levels == ["0.01–0.02", "0.03–0.04", "0.05–0.1", "0.11–0.24"]
    (lr, _) = effects.Effects(read(tmp_path), linear=["optimizer.lr"]).effects
    assert lr.levels == ["0.01–0.06", "0.07–0.12", "0.13–0.18", "0.19–0.24"]
    assert batch_size.levels == ["64", "128", "256"]


def test_classes_and_their_most_confused_pairs_are_those_of_the_best_run(tmp_path: Path) -> None:
    best, other = fake_run(tmp_path, seed=0, val_accuracy=0.9), fake_run(tmp_path, seed=1, val_accuracy=0.8)
    write_confusion(best, [[60, 30, 10], [5, 90, 5], [0, 0, 100]])
    write_confusion(other, [[100, 0, 0], [0, 100, 0], [0, 0, 100]])
    page = page_of(tmp_path)
    assert "The most frequent error: cat taken for dog, 30 images, 30.0 % of that class." in page.text
    assert "Recognised best: <b>ship</b>, 100.0 %; worst: cat, 60.0 %." in page.text
    assert {image["alt"] for image in page.all("img")} >= {"confusion", "class accuracy"}


@pytest.mark.parametrize("content", ["", "true,a,b\na,1,2\n", "true,a\na,many\n", "true,a\na,-1\n"])
def test_an_odd_confusion_matrix_is_left_out_with_a_note(tmp_path: Path, content: str) -> None:
    run_dir = fake_run(tmp_path)
    (run_dir / "confusion.csv").write_text(content, encoding="utf-8")
    done = report.write(tmp_path)
    assert any("confusion.csv: not a confusion matrix" in note for note in done.notes)
    assert not (done.folder / "confusion.png").exists()


def leave_pictures(run_dir: Path, names: list[str] = CLASSES) -> None:
    """What a run leaves of its network and its images, and what the runs on its data set share."""
    records.write_layers(
        run_dir, [Layer("0", "Conv2d 3×3", (0,), (4, 8, 8), 108, 6912), Layer("1", "<b>", (1,), (3,), 771, 768)]
    )
    folder = folders.pictures(run_dir.parent.parent, "cifar10", "f" * 16)
    folder.mkdir(parents=True, exist_ok=True)
    rows = Mosaic(names, np.full((len(names), 10, 8, 8, 3), 128, np.uint8))
    for path in (folder / "classes.png", folder / folders.augmentation_picture(2, True), run_dir / "confused.png"):
        rows.write(path)


def test_networks_and_images_that_the_runs_left_are_shown(tmp_path: Path) -> None:
    run_dir = fake_run(tmp_path, data_fingerprint="f" * 16)
    with (run_dir / "config.yaml").open("a", encoding="utf-8") as file:
        file.write("data: {augment: {crop: 2, flip: true}}\n")
    write_confusion(run_dir, [[90, 10, 0], [5, 90, 5], [0, 1, 99]])
    assert not {"classes", "network layers3"} & {image["alt"] for image in page_of(tmp_path).all("img")}
    leave_pictures(run_dir)
    page = page_of(tmp_path)
    assert {"classes", "augmentation", "confused", "network layers3"} <= {image["alt"] for image in page.all("img")}
    assert "3 classes of cifar10: training images, drawn at random." in page.text
    assert "Test images of the most confused pairs, which make up 21 of 21 errors." in page.text
    assert "layers3: 879 parameters, 7.68 k multiply-adds an image." in page.text
    assert "<b> 1 of 1 has 88 % of the parameters, Conv2d 1 of 1 90 % of the multiply-adds." in page.text


def test_images_are_found_where_two_data_sets_have_one_name(tmp_path: Path) -> None:
    fake_run(tmp_path, lr=0.2, data_fingerprint="0" * 16, val_accuracy=0.5)
    for seed in range(2):
        leave_pictures(fake_run(tmp_path, seed=seed, data_fingerprint="f" * 16, val_accuracy=0.9))
    done = report.write(tmp_path)
    assert set(done.tables.runs["data"]) == {"cifar10 000000", "cifar10 ffffff"}
    assert "classes.png" in {path.name for path in done.figures}


def test_damaged_pictures_and_layers_are_left_out_by_name(tmp_path: Path) -> None:
    run_dir = fake_run(tmp_path, data_fingerprint="f" * 16)
    leave_pictures(run_dir)
    (run_dir / "confused.png").write_bytes(b"no image")
    (run_dir / "layers.csv").write_text("layer\n", encoding="utf-8")
    done = report.write(tmp_path)
    assert [note for note in done.notes if "cannot be read" in note] == [
        f"Left out, cannot be read: {run_dir / 'confused.png'}: not rows of images, or damaged; "
        "the command of a run makes it again",
        f"Left out, cannot be read: {run_dir / 'layers.csv'}: not the layers of a network",
    ]
    assert not {"confused.png", "network_layers3.png"} & {path.name for path in done.figures}
    assert "classes.png" in {path.name for path in done.figures}


def test_names_of_a_strangers_data_set_lead_to_no_other_folder(tmp_path: Path) -> None:
    assert folders.pictures(tmp_path, "../../x", "../y/../z").parent == tmp_path / "data"
    with pytest.raises(ValueError, match="format"):
        folders.augmentation_picture("../x")  # type: ignore[arg-type]


# figures


@pytest.mark.slow
def test_of_many_models_the_best_have_a_figure_of_their_own_and_a_note_counts_the_others(tmp_path: Path) -> None:
    for number in range(15):
        fake_run(tmp_path, f"m{number}", val_accuracy=0.5 + 0.01 * number)
    models = figures.of_models(read(tmp_path))
    assert sorted(models) == sorted(f"m{number}" for number in range(5, 15))
    done = report.write(tmp_path)
    assert len(list(done.folder.glob("accuracy_*.png"))) == 10
    assert "accuracy_<model>.png: only for the 10 best of 15 models." in done.notes


def test_figures_of_before_are_removed_with_their_svg(tmp_path: Path) -> None:
    run_dir = fake_run(tmp_path)
    write_confusion(run_dir, [[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    report.write(tmp_path)
    assert (tmp_path / "report" / "confusion.svg").exists()
    (run_dir / "confusion.csv").unlink()
    report.write(tmp_path)
    assert not list((tmp_path / "report").glob("confusion.*"))


def test_the_same_runs_make_the_same_page(tmp_path: Path) -> None:
    fake_run(tmp_path)
    first = page_of(tmp_path).source
    assert page_of(tmp_path).source == first


# texts and requests


def hostile_sweep(outputs: Path) -> Path:
    """Names in every field that a result file has, and in the classes."""
    found = [fake_run(outputs, name, optimizer=name, data="<i>data</i>", val_accuracy=0.9) for name in HOSTILE]
    for run_dir in found:
        write_confusion(run_dir, [[60, 30, 10], [5, 90, 5], [0, 0, 100]])
    found.append(
        fake_run(outputs, "layers3", data="<i>data</i>", status="failed", error="</td><script>alert(3)</script> \ud800")
    )
    found.append(fake_run(outputs, "layers2", data="<i>data</i>", device="<u>cpu</u>", provenance={"cpu": "<s>x</s>"}))
    return fake_sweep(outputs, "<h6>sweep", found, errors=("<iframe src=x>",))


def test_hostile_names_are_texts(tmp_path: Path) -> None:
    page = page_of(hostile_sweep(tmp_path))
    assert [script.get("type") for script in page.all("script")] == ["application/gzip", "application/gzip", None]
    assert not {tag for tag, _ in page.tags} & {"iframe", "u", "s", "b", "i", "h6"}
    assert all((image["src"] or "").startswith("data:image/") for image in page.all("img"))
    assert not any(attribute.startswith("on") for _, attributes in page.tags for attribute in attributes)
    for text in [*HOSTILE, "<b>ship</b>", "<i>data</i>", "</td><script>alert(3)</script>", "<iframe src=x>"]:
        assert text in page.text


def test_the_page_asks_for_nothing_outside_itself(tmp_path: Path) -> None:
    page = page_of(depth_sweep(tmp_path, num_seeds=2))
    embedded = [decoded(image["src"] or "") for image in page.all("img")]
    assert all(source.startswith("<?xml") for source in embedded)
    for source in [re.sub(r"data:[^\"]*", "", page.source), *embedded]:
        addresses = re.findall(r"https?://[\w.-]+", source)
        assert set(addresses) <= {"http://www.w3.org"}  # the names of SVG's own elements
        assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?//""", source)
        assert "@import" not in source
    for attributes in page.all("a"):
        assert not re.match(r"[a-z]+:|//", attributes["href"] or "")
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert (policy or "").startswith("default-src 'none'; img-src data:;")


def test_the_page_of_many_runs_holds_the_best_and_says_where_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cifarsweep.report.page.MOST_RUNS", 2)
    for seed in range(5):
        (fake_run(tmp_path, seed=seed) / "train.log").touch()
    page = page_of(tmp_path)
    assert "In runs.csv only: 3 more runs." in page.text
    assert len([link for link in page.all("a") if (link["href"] or "").endswith("train.log")]) == 2


def test_the_table_without_a_script_holds_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifarsweep.report.page.STILL_ROWS", 2)
    for seed in range(5):
        (fake_run(tmp_path, seed=seed) / "train.log").touch()
    page = page_of(tmp_path)
    assert "The 2 best are listed; runs.csv has all." in page.text
    assert len([link for link in page.all("a") if (link["href"] or "").endswith("train.log")]) == 2


def data_of(page: Page) -> dict[str, Any]:
    """What the page's script is given."""
    (packed,) = re.findall(r'id="runs-data">([^<]*)<', page.source)
    found = json.loads(gzip.decompress(base64.b64decode(packed)))
    assert isinstance(found, dict)
    return found


def test_the_script_is_given_each_value_of_runs_csv_to_its_last_digit(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.1 + 0.2, 1 / 3, 0.9)):
        fake_run(tmp_path, seed=2**60 + seed, test_accuracy=accuracy, val_accuracy=accuracy)
    fake_run(tmp_path, "layers2", status="failed", error="no memory")
    data = data_of(page_of(tmp_path))
    columns = {column["key"]: column.get("values", column.get("same")) for column in data["columns"]}
    with (tmp_path / "report" / "runs.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert list(columns) == header
    assert columns["test_accuracy"] == [0.9, 1 / 3, 0.1 + 0.2, None]
    assert columns["seed"] == [str(2**60 + 2), str(2**60 + 1), str(2**60), 0]  # JSON's numbers would lose digits
    assert columns["data"] == "cifar10"
    assert sorted(columns["run_id"]) == sorted(row[0] for row in rows)


def test_of_very_many_epochs_each_curve_keeps_its_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cifarsweep.report.page_data.MOST_EPOCHS", 8)
    for seed in range(3):
        fake_run(tmp_path, seed=seed, epochs=7)
    curves = data_of(page_of(tmp_path))["curves"]
    assert curves["lengths"] == [3] * 3
    assert curves["epoch"] == [3, 6, 7] * 3
    assert len(curves["figures"]["val_accuracy"]) == 9


def test_without_validation_nothing_is_said_to_be_chosen_by_it(tmp_path: Path) -> None:
    fake_run(tmp_path, "layers2", validation=False)
    for lr in (0.1, 0.2):
        fake_run(tmp_path, "layers3", validation=False, lr=lr)
    text = page_of(tmp_path).text
    assert "chosen by validation accuracy" not in text.partition("How it was measured")[0]
    assert "Best test accuracy first" in text
    assert "Of layers3 no configuration can be chosen, as there is no validation accuracy to choose by" in text


def test_what_was_left_out_is_not_said_to_be_complete(tmp_path: Path) -> None:
    fake_run(tmp_path)
    (fake_run(tmp_path, seed=1) / "result.json").write_text("{", encoding="utf-8")
    text = page_of(tmp_path).text
    assert "Left out, as their files cannot be read" in text
    assert "Every run is complete" not in text


@pytest.mark.parametrize("words", [["cifarsweep", "-m", "model=a,b"], ["rm", "-r", "outputs"], ["python", "x.py"]])
def test_a_command_that_does_not_train_this_run_is_not_shown(tmp_path: Path, words: list[str]) -> None:
    fake_run(tmp_path, command_line=words)
    assert "The command that trains it is not recorded" in page_of(tmp_path).text


def test_learning_rates_are_grouped_by_factors_however_many_runs_each_has(tmp_path: Path) -> None:
    for number in range(6):
        fake_run(tmp_path, lr=0.001 * (number + 1))
    for seed in range(18):  # as the first trial of many searches, which all of them have
        fake_run(tmp_path, lr=0.1, seed=seed)
    for number in range(24):
        fake_run(tmp_path, lr=0.2 + 0.01 * number)
    (lr,) = effects.Effects(read(tmp_path)).effects
    assert lr.levels == ["0.001–0.002", "0.003–0.004", "0.005–0.006", "0.1–0.2", "0.21–0.43"]
