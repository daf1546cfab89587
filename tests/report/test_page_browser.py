"""The page in Chromium: what the mouse and the keyboard do, and that no request leaves it."""

from __future__ import annotations

import base64
import fnmatch
import itertools
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from conftest import Command
from test_report import fake_run, fake_sweep
from test_report_page import hostile_sweep
from test_report_search import study_of, trial, written

from cifarsweep import report

pytest.importorskip("selenium")
from chromium import Browser, needs_chromium
from selenium.webdriver import ActionChains, Keys

AXE = Path(os.environ.get("AXE_CORE", "node_modules/axe-core/axe.min.js"))
pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture(scope="module")
def open_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("downloads"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(open_browser: Browser) -> Iterator[Browser]:
    yield open_browser
    open_browser.check()


# reports


def grid_sweep(outputs: Path) -> Path:
    """Three models, learning rates and seeds; one run failed."""
    product = itertools.product(("layers2", "layers3", "layers10"), (0.01, 0.1, 0.5), range(3))
    found = [fake_run(outputs, model, lr=lr, seed=seed, epochs=6) for model, lr, seed in product]
    found.append(fake_run(outputs, "layers2", lr=0.9, epochs=6, status="failed", error='RuntimeError: "a, b"\nmore'))
    for run_dir in found:
        (run_dir / "train.log").write_text("epoch 1\n", encoding="utf-8")
    return fake_sweep(outputs, "grid", found)


def search_sweep(outputs: Path) -> Path:
    chance, found, trials = random.Random(0), [], []
    for number in range(60):
        lr, size = round(10 ** chance.uniform(-4, 0), 6), chance.choice([32, 64, 128, 256])
        status = chance.choice(["complete", "complete", "pruned"])
        kinds = {"optimizer": chance.choice(["adam", 'it\'s, "sgd" [x]']), "status": status}
        found.append(fake_run(outputs, lr=lr, batch_size=size, seed=number, epochs=6, **kinds))
        params = {"optimizer.lr": lr, "batch_size": size}
        trials.append(trial(number, [0.7], params=params, run=found[-1].name, state=status))
    return written(fake_sweep(outputs, "search", found), study_of(trials, log=["optimizer.lr"]))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.write(grid_sweep(tmp_path_factory.mktemp("grid"))).folder


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return report.write(search_sweep(tmp_path_factory.mktemp("search"))).folder


def runs_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "runs.csv")


# a brush


def kept_by_pandas(runs: pd.DataFrame, condition: str) -> set[str]:
    """The run_ids for which a condition holds, as a person would ask pandas for them."""
    kept = pd.Series(True, runs.index)
    for comparison in re.split(r" & (?=[\w.]+[<>=])", condition):
        key, sign, value = re.fullmatch(r"([\w.]+)(<=|>=|=)(.*)", comparison, re.DOTALL).groups()  # type: ignore[union-attr]
        if sign == "=" and not pd.api.types.is_numeric_dtype(runs[key]):
            patterns = ["".join(found) for found in re.findall(r"\"([^\"]*)\"|'([^']*)'|([^,]+)", value)]
            kept &= runs[key].isin([x for x in runs[key] for one in patterns if fnmatch.fnmatchcase(str(x), one)])
        else:
            number = float(value)
            kept &= {"<=": runs[key] <= number, ">=": runs[key] >= number, "=": runs[key] == number}[sign]
    return set(runs.loc[kept, "run_id"])


def check_brushes(browser: Browser, folder: Path, cifarsweep: Command) -> None:
    browser.open(folder / "index.html")
    runs, chance = runs_of(folder), random.Random(str(len(runs_of(folder))))
    num_axes = browser.run("return Bokeh.documents[0].roots()[0].x_range.end - 0.6") + 1
    numbers = set()
    for _ in range(5):
        browser.run("document.getElementById('clear').click()")
        axis, low, high = chance.randrange(round(num_axes)), chance.uniform(0.05, 0.45), chance.uniform(0.5, 0.95)
        browser.drag(0, (axis - 0.1, low), (axis + 0.1, high))
        condition = browser.until("return document.getElementById('filter').value")
        expected = kept_by_pandas(runs, condition)
        numbers.add(len(expected))
        assert browser.text("#shown") == f"{len(expected)} of {len(runs)} runs", condition
        assert set(browser.rows()) <= expected
        assert set(browser.saved()["run_id"]) == expected if expected else browser.rows() == []
        if not browser.run("return document.getElementById('command').hidden"):
            listed = cifarsweep(str(folder.parent), condition, "--columns", "run_id", module="cifarsweep.runs")
            assert set(listed.stdout.split()[1:]) == expected, listed.stderr
    assert len(numbers - {0, len(runs)}) > 1


def test_a_brush_leaves_the_rows_that_pandas_gives_in_a_grid(browser: Browser, grid: Path, cifarsweep: Command) -> None:
    check_brushes(browser, grid, cifarsweep)


def test_a_brush_leaves_the_rows_that_pandas_gives_in_a_search(
    browser: Browser, search: Path, cifarsweep: Command
) -> None:
    check_brushes(browser, search, cifarsweep)


def test_a_brush_leaves_the_rows_that_pandas_gives_in_a_depth_study(
    browser: Browser, cifarsweep: Command, small: list[str], tmp_path: Path
) -> None:
    kept = [word for word in small if not word.startswith(("model", "batch_size"))]
    done = cifarsweep(
        "-m", "experiment=depth_study", "study=quick", *kept, "name=d", "hydra/launcher=basic", "data.subset=200",
        "trainer.epochs=2", "hydra.sweeper.budget=epochs:4", "hydra.sweeper.repeats=2", "model.width=3",
        "model=choice(layers2,layers3)", "model.match=choice(params:50000)",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check_brushes(browser, tmp_path / "outputs" / "sweeps" / "d" / "report", cifarsweep)


def test_brushes_join_and_a_second_one_on_an_axis_replaces_the_first(browser: Browser, grid: Path) -> None:
    browser.open(grid / "index.html")
    browser.type("layers2 complete")
    browser.drag(0, (0.9, 0.4), (1.1, 0.99))  # learning rates from 0.1
    browser.drag(0, (-0.1, 0.6), (0.1, 0.99))  # the third model
    value = "return document.getElementById('filter').value"
    assert browser.run(value) == "lr>=0.1 & lr<=0.9 & model=layers10"
    browser.drag(0, (0.9, 0.7), (1.1, 0.99))
    assert browser.run(value) == "model=layers10 & lr>=0.5 & lr<=0.9"
    assert browser.text("#shown") == "3 of 28 runs"
    assert browser.text("#command code").endswith("grid 'model=layers10 & lr>=0.5 & lr<=0.9'")


def test_a_brush_over_points_filters_by_both_of_their_axes(browser: Browser, search: Path) -> None:
    browser.open(search / "index.html")
    browser.drag(1, (0.3, 0.2), (0.8, 0.9))
    condition = browser.run("return document.getElementById('filter').value")
    assert re.fullmatch(r"lr>=[\d.e-]+ & lr<=[\d.e-]+ & val_accuracy>=[\d.]+ & val_accuracy<=[\d.]+", condition)
    expected = kept_by_pandas(runs_of(search), condition)
    assert set(browser.saved()["run_id"]) == expected
    points = browser.run("return Bokeh.documents[0].roots()[1].renderers[2].data_source.data.x.length")
    assert points == len(expected)


# pointing and clicking


def point_of(browser: Browser, number: int, at: int) -> tuple[float, float]:
    """The place of a point of a scatter."""
    browser.see(number)
    script = "const {x, y} = Bokeh.documents[0].roots()[arguments[0]].renderers[2].data_source.data;"
    x, y = browser.run(f"{script} return [x[arguments[1]], y[arguments[1]]]", number, at)
    return float(x), float(y)


def test_the_mouse_shows_a_runs_settings_and_a_click_leads_to_its_row(browser: Browser, search: Path) -> None:
    browser.open(search / "index.html")
    runs = runs_of(search).set_index("run_id")
    browser.move(1, *point_of(browser, 1, 40))
    tip = browser.until("const tip = document.getElementById('tip'); return !tip.hidden && tip.innerText")
    facts = dict(line.split("\n") for line in re.findall(r"[^\n]+\n[^\n]+", tip))
    run = runs.loc[facts["run id"]]
    assert float(facts["lr"]) == pytest.approx(run["lr"], rel=1e-3)
    assert facts["batch size"] == str(run["batch_size"])
    assert facts["val %"] == f"{100 * run['val_accuracy']:.2f}"
    ActionChains(browser.driver, duration=0).click().perform()
    row = browser.until("return document.querySelector('#table tr[aria-current]')")
    assert row.text.startswith(facts["run id"])
    browser.until("const {top, bottom} = document.querySelector('tr[aria-current]').getBoundingClientRect();"
                  "return top > 0 && bottom < innerHeight")  # fmt: skip
    assert facts["run id"] in browser.text("#chosen")
    browser.run("scrollTo(0, 0)")
    browser.move(1, 0.999, 0.001)
    browser.until("return document.getElementById('tip').hidden")


def test_the_chosen_run_stands_out_in_each_figure(browser: Browser, grid: Path) -> None:
    browser.open(grid / "index.html")
    browser.run("document.querySelector('#table tbody button').click()")
    for number in range(4):
        browser.see(number)
        overlays = f"Bokeh.documents[0].roots()[{number}].renderers.filter((one) => one.level === 'overlay')"
        assert browser.run(f"return {overlays}.map((one) => one.data_source.get_length())") == [1]


# learning curves

VALUES = """
const plot = Bokeh.documents[0].roots()[3];
const ticks = [...plot.left[0].major_label_overrides].map(([at, {text}]) => [at, Number(text)]);
const [[low, lowText], [high, highText]] = ticks;
const value = (y) => lowText + (y - low) * (highText - lowText) / (high - low);
return plot.renderers.filter(({glyph}) => ["MultiLine", "Patches"].includes(glyph.type))
  .map(({data_source: {data}}) => [...data.ys].map((ys) => [...ys].map(value)));
"""


def test_curves_are_drawn_of_each_run_or_as_mean_and_spread_of_a_colour(browser: Browser, grid: Path) -> None:
    browser.open(grid / "index.html")
    browser.type("status=complete")
    browser.see(3)
    epochs, runs = pd.read_csv(grid / "epochs.csv"), runs_of(grid)
    epochs = epochs.drop(columns="lr").merge(runs.loc[runs["status"] == "complete", ["run_id", "model", "lr"]])
    _, lines, _, bands = browser.run(VALUES)
    assert (len(lines), bands) == (27, [])
    assert sorted(line[-1] for line in lines) == pytest.approx(
        sorted(100 * epochs.groupby("run_id")["val_accuracy"].last()), abs=0.02
    )
    browser.run("document.getElementById('curves-means').click()")
    for key in ("model", "lr"):
        browser.choose("#colour", key)
        grouped = epochs.groupby([key, "epoch"])["val_accuracy"].agg(["mean", "std"]) * 100
        _, lines, _, bands = browser.run(VALUES)
        ends = grouped.groupby(key).last()
        assert sorted(line[-1] for line in lines) == pytest.approx(sorted(ends["mean"]), abs=0.02)
        assert sorted(band[5] for band in bands) == pytest.approx(sorted(ends["mean"] + ends["std"]), abs=0.02)
        assert sorted(band[6] for band in bands) == pytest.approx(sorted(ends["mean"] - ends["std"]), abs=0.02)


def test_an_axis_is_linear_or_logarithmic(browser: Browser, search: Path) -> None:
    browser.open(search / "index.html")
    browser.see(1)
    ticks = "return [...Bokeh.documents[0].roots()[1].below[0].major_label_overrides.values()].map(({text}) => text)"
    assert browser.run(ticks) == ["0.0001", "0.001", "0.01", "0.1", "1"][: len(browser.run(ticks))]
    browser.run("document.getElementById('log-lr').click()")
    assert [float(text) for text in browser.run(ticks)] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])


# the table


def test_the_table_sorts_by_several_columns(browser: Browser, grid: Path) -> None:
    browser.open(grid / "index.html")
    press = (
        "document.querySelector(`th[data-key=${arguments[0]}] button`)"
        ".dispatchEvent(new MouseEvent('click', {shiftKey: arguments[1]}))"
    )
    browser.run(press, "model", False)
    browser.run(press, "lr", True)
    browser.run(press, "val_accuracy", True)
    runs = runs_of(grid)
    runs["place"] = runs["model"].str.removeprefix("layers").astype(int)  # as a person sorts them
    expected = runs.sort_values(["place", "lr", "val_accuracy"], ascending=[True, False, False])
    assert browser.rows() == list(expected["run_id"])
    heading = "return document.querySelector('th[aria-sort]')"
    assert browser.run(f"{heading}.getAttribute('aria-sort')") == "ascending"
    browser.run(press, "test_accuracy", False)
    assert browser.run(f"{heading}.dataset.key") == "test_accuracy"
    assert browser.rows()[-1] == runs.loc[runs["test_accuracy"].isna(), "run_id"].item()  # not measured: last
    browser.run(press, "test_accuracy", False)
    assert browser.rows()[0] == runs.loc[runs["test_accuracy"].idxmin(), "run_id"]


def test_columns_can_be_chosen_and_pages_turned(browser: Browser, search: Path) -> None:
    browser.open(search / "index.html")
    assert browser.text("#rows") == "rows 1 to 50 of 60"
    first = browser.rows()
    browser.run("document.getElementById('next').click()")
    assert len(browser.rows()) == 10
    assert not set(browser.rows()) & set(first)
    browser.run("document.getElementById('column-threads').click()")
    headings = browser.run("return [...document.querySelectorAll('#table th')].map((one) => one.dataset.key)")
    assert "threads" in headings


def test_what_is_saved_is_what_runs_csv_has(browser: Browser, grid: Path) -> None:
    browser.open(grid / "index.html")
    saved, runs = browser.saved(), runs_of(grid)
    assert list(saved) == list(runs)
    pd.testing.assert_frame_equal(
        saved.sort_values("run_id", ignore_index=True), runs.sort_values("run_id", ignore_index=True), check_dtype=False
    )


def test_a_condition_that_is_refused_says_why_and_hides_nothing(browser: Browser, grid: Path) -> None:
    browser.open(grid / "index.html")
    for text, said in [("lr<fast", "lr<fast: expected a number"), ("colour=red", "colour: no such column here")]:
        browser.type(text)
        assert browser.text("#shown").startswith(said)
        assert len(browser.rows()) == 28
    browser.type("  ")
    assert browser.text("#shown") == "28 of 28 runs"


def test_the_field_takes_words_and_the_conditions_that_lists_of_runs_take(browser: Browser, grid: Path) -> None:
    browser.open(grid / "index.html")
    runs = runs_of(grid)
    for text, kept in [
        ("LAYERS10 complete", (runs["model"] == "layers10") & (runs["status"] == "complete")),
        ("nothing like it", runs["seed"] < 0),
        ("lr<0.1", runs["lr"] < 0.1),
        ("lr=1e-2,0.9 & status=complete", (runs["lr"] == 0.01) & (runs["status"] == "complete")),
        ("model=layers[!2]*", runs["model"] != "layers2"),
        ("test_accuracy=", runs["test_accuracy"].isna()),
        ("optimizer=momentum & model!=layers3", runs["model"] != "layers3"),
        ("optimizer=sgd", runs["seed"] < 0),
        ("error='*a, b*'", runs["error"].notna()),
    ]:
        browser.type(text)
        assert browser.text("#shown") == f"{kept.sum()} of 28 runs", text


# for everybody


def test_the_keyboard_reaches_all(browser: Browser, grid: Path) -> None:
    browser.open(grid / "index.html")
    browser.run("document.getElementById('filter').focus()")
    ActionChains(browser.driver).send_keys("lr>0.2 & lr<0.6", Keys.ENTER).perform()
    assert browser.text("#shown") == "9 of 28 runs"
    browser.run("document.querySelector('th[data-key=lr] button').focus()")
    ActionChains(browser.driver).send_keys(Keys.ENTER).perform()
    assert browser.run("return document.activeElement.closest('th').dataset.key") == "lr"
    browser.run("document.querySelector('#table tbody button').focus()")
    ActionChains(browser.driver).send_keys(Keys.ENTER).perform()
    assert browser.rows()[0] in browser.text("#chosen")
    for _ in range(3):
        ActionChains(browser.driver).send_keys(Keys.TAB).perform()
    assert browser.run("return document.activeElement.closest('#table') !== null")


@pytest.mark.parametrize("width", [390, 1280, 2560])
def test_nothing_is_wider_than_the_window(browser: Browser, search: Path, width: int) -> None:
    browser.open(search / "index.html", width=width)
    assert browser.run("return document.documentElement.scrollWidth") == width


needs_axe = pytest.mark.skipif(
    not AXE.exists(), reason="needs axe-core (npm install axe-core; AXE_CORE names its axe.min.js)"
)


def found_by_axe(browser: Browser) -> list[tuple[str, list[str]]]:
    browser.run(AXE.read_text(encoding="utf-8"))
    found = browser.driver.execute_async_script("const done = arguments[0]; axe.run().then(done)")
    return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found["violations"]]


@needs_axe
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing(browser: Browser, search: Path, scheme: str, width: int) -> None:
    browser.open(search / "index.html", width=width)
    browser.media(scheme)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    browser.run("document.querySelector('#table tbody button').click()")
    assert found_by_axe(browser) == []


@needs_axe
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_on_a_comparison(browser: Browser, tmp_path: Path, width: int) -> None:
    first, second = (
        fake_sweep(tmp_path, name, [fake_run(tmp_path, lr=lr, seed=seed) for seed in range(3)])
        for name, lr in (("before", 0.1), ("after", 0.05))
    )
    browser.show((report.compare(first, second).folder / "index.html").as_uri(), width)
    assert found_by_axe(browser) == []
    assert browser.run("return document.documentElement.scrollWidth") == width


def test_figures_follow_the_colours_of_the_system(browser: Browser, grid: Path) -> None:
    browser.open(grid / "index.html")
    browser.see(1)
    axis = "Bokeh.documents[0].roots()[1].left[0]"
    colours = f"return [getComputedStyle(document.body).backgroundColor, {axis}.axis_label_text_color]"
    assert browser.run(colours) == ["rgb(255, 255, 255)", "#1c1f23"]
    browser.media("dark")
    browser.until(f"return {axis}.axis_label_text_color === '#e6e8ea'")
    assert browser.run(colours) == ["rgb(20, 23, 26)", "#e6e8ea"]


VISIBLE = "return [...document.querySelectorAll(arguments[0])].some((one) => one.checkVisibility())"


def test_paper_has_the_still_figures_and_the_rows(browser: Browser, grid: Path) -> None:
    browser.open(grid / "index.html")
    browser.media(media="print")
    assert [browser.run(VISIBLE, one) for one in (".plot", ".bar", "nav")] == [False] * 3
    assert browser.run(VISIBLE, "img[alt='learning curves']")
    assert browser.run(VISIBLE, "#table tbody tr")
    assert len(base64.b64decode(browser.command("Page.printToPDF")["data"])) > 50_000


def test_without_its_script_the_page_shows_the_still_figures_and_the_rows(browser: Browser, grid: Path) -> None:
    browser.command("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.driver.get((grid / "index.html").as_uri())
        source = browser.command("DOM.getDocument", depth=1)["root"]["nodeId"]
        explore = browser.command("DOM.querySelector", nodeId=source, selector="#explore[hidden]")["nodeId"]
        rows = browser.command("DOM.querySelectorAll", nodeId=source, selector="#table tbody tr")["nodeIds"]
        (image,) = browser.command("DOM.querySelectorAll", nodeId=source, selector="img[alt='learning curves']")[
            "nodeIds"
        ]
        assert explore
        assert len(rows) == 28
        assert browser.command("DOM.getBoxModel", nodeId=image)["model"]["height"] > 100
    finally:
        browser.command("Emulation.setScriptExecutionDisabled", value=False)
    browser.open(grid / "index.html")


def test_hostile_names_do_nothing(browser: Browser, tmp_path: Path) -> None:
    browser.open(report.write(hostile_sweep(tmp_path)).folder / "index.html")
    assert browser.run("return document.querySelectorAll('#explore img, #table img, main iframe').length") == 0


def test_names_of_runs_are_no_formulas_and_no_elements(browser: Browser, tmp_path: Path) -> None:
    names = ["$$x^2$$", "<img src=x onerror=alert(1)>", "\\(y\\)", 'it\'s "quoted" & <b>']
    found = [fake_run(tmp_path, name, optimizer=name, seed=seed) for name in names for seed in range(2)]
    page = report.write(fake_sweep(tmp_path, "$$sweep$$", found)).folder / "index.html"
    browser.open(page)
    for at in range(4):
        browser.run("document.getElementById('clear').click()")
        browser.drag(0, (-0.1, at / 4 + 0.03), (0.1, at / 4 + 0.22))
        assert browser.text("#shown") == "2 of 8 runs", browser.run("return document.getElementById('filter').value")
