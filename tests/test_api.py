"""The functions that notebooks call, and README's section on them, run as it stands."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import optuna
import pandas as pd
import pytest
import torch
from conftest import REPOSITORY, small_run
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from PIL import Image

import cifarsweep
from cifarsweep import report
from cifarsweep.results import records

SECTION = (REPOSITORY / "README.md").read_text().partition("\n## In Python and notebooks\n")[2].partition("\n## ")[0]
CODE = SECTION.partition("```python\n")[2].partition("```")[0]


@pytest.fixture(scope="module")
def swept(data_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    """A sweep's folder, and the rows that `sweep` gave."""
    outputs = tmp_path_factory.mktemp("api") / "out puts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        words = [word for word in small_run(data_cache, outputs) if not word.startswith("outputs=")]
        rows = cifarsweep.sweep(*words, f"outputs='{outputs}'", "seed=0,1", "model.depth=1,2", "name=a")
    return outputs / "sweeps" / "a", rows


def test_the_package_is_imported_in_less_than_50_ms_and_imports_nothing_heavy() -> None:
    code = "import time; start = time.process_time(); import cifarsweep; print(time.process_time() - start)"
    code += "; import sys; print({'torch', 'pandas', 'hydra', 'optuna', 'numpy'} & {*sys.modules})"
    done = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(3)]
    assert min(float(out.split()[0]) for out in done) < 0.05
    assert {out.splitlines()[1] for out in done} == {"set()"}


@pytest.mark.parametrize("name", ["runs", "epochs", "summary"])
def test_the_tables_are_those_of_the_files(swept: tuple[Path, pd.DataFrame], name: str) -> None:
    sweep_dir, _ = swept
    report.write(sweep_dir)
    table = getattr(cifarsweep, f"load_{name}")(sweep_dir)
    with (sweep_dir / "report" / f"{name}.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert list(table.columns) == header
    cells = [["" if pd.isna(value) else str(value) for value in row] for row in table.astype(object).to_numpy()]
    assert cells == rows
    assert len(rows) == {"runs": 4, "epochs": 8, "summary": 2}[name]


def test_a_sweep_gives_its_runs(swept: tuple[Path, pd.DataFrame]) -> None:
    sweep_dir, rows = swept
    pd.testing.assert_frame_equal(rows, cifarsweep.load_runs(sweep_dir))
    assert [*rows["depth"]] == [1, 1, 2, 2]
    assert {*rows["status"]} == {"complete"}
    pd.testing.assert_frame_equal(cifarsweep.load_runs(sweep_dir.parent.parent), rows)


def test_a_run_that_cannot_be_read_is_left_out_with_a_warning(small: list[str], tmp_path: Path) -> None:
    cifarsweep.train(*small, "trainer.epochs=1")
    (run_dir,) = (tmp_path / "outputs" / "runs").glob("*-*")
    (run_dir / "metrics.csv").write_text("nonsense")
    with pytest.warns(UserWarning, match="left out, cannot be read: .*metrics.csv"):
        assert cifarsweep.load_runs(tmp_path / "outputs").empty


def test_training_gives_the_result_that_the_command_finds_again(small: list[str], tmp_path: Path) -> None:
    result = cifarsweep.train(*small, "trainer.epochs=1")
    assert result.status == "complete"
    assert result.command_line == ["python", "-m", "cifarsweep", *small, "trainer.epochs=1"]
    assert cifarsweep.train(*small, "trainer.epochs=1") == result
    assert [*cifarsweep.load_runs(tmp_path / "outputs")["run_id"]] == [result.run_id]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["batch_size=0"], "batch_size=0: expected a whole number from 1"),
        (["model=layers9"], "model=layers9: no such option, expected one of airbench, layers1"),
        (["model=layers2,layers3"], "model=layers2,layers3: expected one value"),
    ],
)
def test_a_mistake_is_a_value_error_of_one_line(small: list[str], words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        cifarsweep.train(*small, *words)
    assert "\n" not in str(raised.value)


def test_a_sweep_that_fails_raises_its_last_line(small: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    with pytest.raises(ValueError, match=r"^batch_size=0: expected a whole number from 1"):
        cifarsweep.sweep(*small, "batch_size=0,50")


def test_the_model_of_a_run_gives_the_probabilities_of_its_test_images(swept: tuple[Path, pd.DataFrame]) -> None:
    sweep_dir, rows = swept
    outputs, run = sweep_dir.parent.parent, rows.iloc[0]
    model = cifarsweep.load_model(outputs / run["run_id"])
    assert not model.training
    from cifarsweep.data import load_shapes

    config = records.read_config(outputs / "runs" / run["directory"])["data"]
    dataset = load_shapes(**{key: value for key, value in config.items() if key != "_target_"})
    with torch.inference_mode():
        probabilities = model(dataset.test_images)
    assert probabilities.shape == (200, 10)
    assert torch.allclose(probabilities.sum(1), torch.ones(200))
    is_right = probabilities.argmax(1) == dataset.test_labels
    assert is_right.sum() == pytest.approx(run["test_accuracy"] * 200, abs=1)
    assert model.class_names == dataset.class_names


def studies(file: Path, *names: str) -> None:
    file.parent.mkdir(parents=True)
    storage = JournalStorage(JournalFileBackend(str(file)))
    for name in names:
        study = optuna.create_study(study_name=name, storage=storage)
        study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)


def test_a_study_is_loaded_from_its_search(tmp_path: Path) -> None:
    studies(tmp_path / "a" / "study.journal", "a")
    assert len(cifarsweep.load_study(tmp_path / "a").trials) == 2
    studies(tmp_path / "b" / "study.journal", "b, model=layers1", "b, model=layers2")
    assert cifarsweep.load_study(tmp_path / "b", "b, model=layers2").study_name == "b, model=layers2"
    with pytest.raises(ValueError, match="name=None: expected one of b, model=layers1; b, model=layers2"):
        cifarsweep.load_study(tmp_path / "b")


def test_a_study_is_loaded_from_the_storage_that_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match=r"a: expected a search with its study\.journal, or the storage that it"):
        cifarsweep.load_study(tmp_path / "a")
    assert not (tmp_path / "a" / "study.journal").exists()
    address = f"sqlite:///{tmp_path}/trials.db"
    optuna.create_study(study_name="a", storage=address)
    assert cifarsweep.load_study(tmp_path / "a", storage=address).study_name == "a"


@pytest.fixture
def folder(tmp_path: Path, data_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where README's code is run: with an image of the user's."""
    for name, value in (("PYTHONPATH", REPOSITORY), ("CIFARSWEEP_CACHE", data_cache), ("MPLBACKEND", "agg")):
        monkeypatch.setenv(name, str(value))
    Image.new("RGB", (40, 30), (250, 0, 20)).save(tmp_path / "photo.png")
    return tmp_path


def test_readmes_code_runs(folder: Path) -> None:
    assert 8 <= len(CODE.splitlines()) <= 16
    done = subprocess.run([sys.executable, "-c", CODE], cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "test_accuracy" in done.stdout


def test_readmes_code_runs_in_a_notebook(folder: Path) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    cells = [nbformat.v4.new_code_cell(cell) for cell in CODE.split("\n\n")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}}).execute()
    shown = "".join(output.get("text", "") for cell in notebook.cells for output in cell.outputs)
    assert "test_accuracy" in shown
    assert "2 of 2 runs complete\n" in shown  # the lines of the sweep's own process, too
    assert "\x1b" not in shown
