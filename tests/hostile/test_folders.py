"""A stranger's folder of results: links, FIFOs, folders and huge files in the place of whatever a sweep leaves."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Command, examples, run_python
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_journal import DAMAGES

from cifarsweep import predict, report, rerun, runs, watch
from cifarsweep.results import folders, records, sweeps
from cifarsweep.results.study_records import StudiesRecord, StudyRecord
from cifarsweep.results.sweeps import SweepRecord, command_of
from cifarsweep.results.typed import Record

Kind = Callable[[Path, Path], None]
"""What is done to a path, with a folder outside of the results."""
SECONDS = 60
WORDS = ["data=shapes", "data.num_train=300", "data.num_test=50", "data.val_size=50", "batch_size=50"]
WORDS += ["trainer.epochs=1", "model.width=2", "trainer.device=cpu", "hydra/launcher=basic"]
SEARCH = ["hydra/sweeper=study", "optimizer.lr=interval(0.01,0.1)", "hydra/sweeper/sampler=random"]
SEARCH += ["hydra.sweeper.sampler.seed=0"]
FINALS = ["hydra.sweeper.study_per=[model]", "hydra.sweeper.finalists=1", "hydra.sweeper.repeats=1"]
SWEEPS = {
    "g": ["model=layers1", "seed=0,1"],
    "s": ["model=layers1", *SEARCH, "hydra.sweeper.n_trials=2"],
    "d": ["model=choice(layers1,layers2)", *SEARCH, "hydra.sweeper.n_trials=1", *FINALS],
}
"""A grid, a search and a study of each depth, by name, which leave every file that there is."""
OWN = {"outputs", "outputs/runs", "outputs/sweeps", "outputs/data"}
"""What may be a link of the user's."""


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, data_cache: Path) -> Path:
    """A folder with the outputs/ of all sweeps."""
    folder = tmp_path_factory.mktemp("swept")
    for name in SWEEPS:
        done = sweep(folder, name, data_cache)
        assert (done.returncode, done.stderr) == (0, "")
    return folder


def sweep(folder: Path, name: str, data_cache: Path) -> subprocess.CompletedProcess[str]:
    words = [*WORDS, *SWEEPS[name], f"data.cache={data_cache}", f"name={name}"]
    return run_python("-m", "cifarsweep", "-m", *words, cwd=folder)


@pytest.fixture
def copied(swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the current folder."""
    shutil.copytree(swept / "outputs", tmp_path / "outputs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder: Path) -> dict[str, Any]:
    paths = sorted(folder.rglob("*"))
    return {str(path): (path.lstat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in paths}


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def end(number: int, frame: Any) -> None:
        raise AssertionError(f"did not end within {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def link(path: Path, outside: Path) -> None:
    path.rename(outside / path.name)
    path.symlink_to(outside / path.name)


def link_to_nothing(path: Path, outside: Path) -> None:
    _remove(path)
    path.symlink_to(outside / "not there")


def fifo(path: Path, outside: Path) -> None:
    _remove(path)
    os.mkfifo(path)


def other_kind(path: Path, outside: Path) -> None:
    """A folder for a file, and the reverse."""
    was_folder = path.is_dir()
    _remove(path)
    if was_folder:
        path.write_bytes(b"")
    else:
        path.mkdir()


def huge(path: Path, outside: Path) -> None:
    if path.is_file():
        os.truncate(path, 2**40)


def remove(path: Path, outside: Path) -> None:
    _remove(path)


def damaged(damage: Callable[[bytes], bytes]) -> Kind:
    """Another content."""

    def damaged(path: Path, outside: Path) -> None:
        if path.is_file():
            path.write_bytes(damage(path.read_bytes() or b"\n"))

    return damaged


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


OTHER_CONTENT = DAMAGES.map(damaged) | st.just(remove)
KINDS: st.SearchStrategy[Kind] = st.sampled_from([link, link_to_nothing, fifo, other_kind, huge]) | OTHER_CONTENT


def a_run() -> str:
    """One of g."""
    return str(min(Path("outputs/runs").glob("layers1-*-lr0.1-*"), default=Path("outputs/runs/none")))


def sweep_of(swept: Path, place: str) -> str:
    """The name of a sweep to which this file belongs."""
    parts = Path(place).parts
    if parts[:2] == ("outputs", "sweeps"):
        return parts[2]
    sweeps = (name for name in SWEEPS if parts[2] in folders.runs_of(swept / "outputs" / "sweeps" / name))
    return next(sweeps, "g")


QUICK: dict[str, Callable[[], int]] = {
    "runs": lambda: runs.main([]),
    "sweeps": lambda: runs.main(["--sweeps"]),
    **{f"watch {name}": partial(watch.main, [f"outputs/sweeps/{name}", "--once"]) for name in SWEEPS},
    "predict": lambda: predict.main([a_run(), "image.png"]),
}
SLOW: dict[str, Callable[[], int]] = {
    **{f"report {name}": partial(report.main, [f"outputs/sweeps/{name}"]) for name in SWEEPS},
    "report of outputs": lambda: report.main([]),
    "rerun": lambda: rerun.main([a_run()]),
}


def answers(commands: dict[str, Callable[[], int]], capsys: pytest.CaptureFixture[str]) -> None:
    """Each command ends soon, and says on a line or more what is wrong, without a bug."""
    for name, command in commands.items():
        with within(SECONDS):
            code = command()
        lines = capsys.readouterr().err.splitlines()
        assert code in (0, 1), (name, lines)
        assert not any("Traceback" in line or len(line) > 1000 for line in lines), (name, lines)


def places(swept: Path, with_report: bool) -> list[str]:
    found = sorted(path.relative_to(swept).as_posix() for path in (swept / "outputs").rglob("*"))
    return [name for name in found if name not in OWN and (with_report or "/report/" not in name)]


def _tried(
    swept: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, name: str, kind: Any
) -> Path:
    folder = tmp_path_factory.mktemp("tried")
    shutil.copytree(swept / "outputs", folder / "outputs")
    shutil.copy(next((folder / "outputs").rglob("classes.png")), folder / "image.png")
    (folder / "outside").mkdir()
    kind(folder / name, folder / "outside")
    monkeypatch.chdir(folder)
    return folder


def _assert_nothing_outside_changes(
    folder: Path, commands: dict[str, Callable[[], int]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs the commands there, then removes the folder."""
    before = contents(folder / "outside")
    answers(commands, capsys)
    assert contents(folder / "outside") == before
    shutil.rmtree(folder)


GENERATED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@GENERATED
@given(st.data())
def test_commands_that_read_answer_whatever_stands_in_a_files_place(
    swept: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: st.DataObject,
) -> None:
    name = data.draw(st.sampled_from(places(swept, with_report=False)))
    folder = _tried(swept, tmp_path_factory, monkeypatch, name, data.draw(KINDS))
    _assert_nothing_outside_changes(folder, QUICK, capsys)


@pytest.mark.slow
@pytest.mark.usefixtures("figures_without_pixels")
@settings(GENERATED, max_examples=examples(30))
@given(st.data())
def test_report_and_rerun_answer_whatever_stands_in_a_files_place(
    swept: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    data: st.DataObject,
) -> None:
    name = data.draw(st.sampled_from(places(swept, with_report=True)))
    folder = _tried(swept, tmp_path_factory, monkeypatch, name, data.draw(KINDS))
    of_sweep = [f"report {sweep_of(swept, name)}"]
    commands = {
        key: SLOW[key] for key in (of_sweep if "/report" in name else [*of_sweep, "report of outputs", "rerun"])
    }
    _assert_nothing_outside_changes(folder, commands, capsys)


def results(outputs: Path) -> dict[str, Any]:
    """What has to be the same however often a file was damaged: figures and weights of runs, trials of searches."""
    found: dict[str, Any] = {}
    for run_dir in (outputs / "runs").glob("*-*"):
        epochs = [replace(epoch, seconds=0) for epoch in records.read_metrics(run_dir)]
        written = [
            (run_dir / name).read_bytes() for name in ("model.pt", "confusion.csv", "layers.csv", "confused.png")
        ]
        found[run_dir.name] = (epochs, *written)
    for place in (outputs / "data").rglob("*.png"):
        found[place.name] = place.read_bytes()
    for sweep_dir in (outputs / "sweeps").iterdir():
        jobs = {(job.run, job.error) for job in SweepRecord.read(sweep_dir).jobs.values()}
        found[sweep_dir.name] = (jobs, StudyRecord.read(sweep_dir), StudiesRecord.read(sweep_dir))
    return found


def plain(value: Any) -> Any:
    """Without times."""
    if isinstance(value, Record):
        return plain(vars(value))
    if isinstance(value, dict):
        differ = ("started", "finished", "digests", "sizes")
        return {key: plain(item) for key, item in value.items() if key not in differ}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


@pytest.mark.slow
@settings(GENERATED, max_examples=examples(40))
@given(st.data())
def test_the_same_command_answers_whatever_stands_in_a_files_place(
    swept: Path,
    data_cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    data: st.DataObject,
) -> None:
    """Of all that the three sweeps leave, so that a new file is among them. A damaged one loses no result.

    A file of a trial's run is made again by the command that trains that run alone.
    """
    place = data.draw(st.sampled_from(places(swept, with_report=True)))
    kind = data.draw(KINDS)
    folder = _tried(swept, tmp_path_factory, monkeypatch, place, kind)
    before = contents(folder / "outside")
    done = sweep(folder, sweep_of(swept, place), data_cache)
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr
    assert contents(folder / "outside") == before
    if (swept / place).is_file() and kind.__name__ in (remove.__name__, damaged.__name__):
        if place.startswith("outputs/runs") and sweep_of(swept, place) != "g":  # a trial, to which no search comes back
            alone = command_of(folder / Path(*Path(place).parts[:3]))
            assert alone is not None
            told = [line for line in done.stderr.splitlines() if "cannot be read" in line]
            assert all(line.endswith(f"{shlex.join(alone)} makes it again") for line in told)
            done = run_python(*alone[1:], cwd=folder)
            assert done.returncode == 0, done.stderr
        else:
            assert (done.returncode, done.stderr) == (0, "")
        assert plain(results(folder / "outputs")) == plain(results(swept / "outputs"))
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["result.json", "metrics.csv", "config.yaml"])
def test_what_trains_a_trials_run_alone_is_advised_where_a_file_of_it_is_damaged(
    copied: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run_dir = min(folders.runs_of(Path("outputs/sweeps/s")).values())
    alone = command_of(run_dir)
    assert alone is not None
    assert not {"-m", "name=s"} & {*alone[3:]}
    (run_dir / name).write_bytes(b"\xff")
    assert report.main(["outputs/sweeps/s"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert str(run_dir / name) in line
    assert line.endswith(f"{shlex.join(alone)} makes it again")


def test_a_report_leaves_files_alone_that_none_has_written(copied: Path) -> None:
    folder = copied / "outputs" / "sweeps" / "g" / "report"
    mine = ["mine.parquet", "depth_study_mine.csv", "accuracy_mine.png", "notes.svg"]
    for name in mine:
        (folder / name).write_text("mine")
    earlier = ["trials.csv", "depth_study.csv", "runs.parquet"]
    for name in earlier:
        (folder / name).write_text("an earlier report's")
    assert report.main(["outputs/sweeps/g"]) == 0
    assert [name for name in mine if not (folder / name).exists()] == []
    assert [name for name in earlier if (folder / name).exists()] == []


def test_a_report_into_a_link_changes_nothing_there(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = copied / "outputs" / "sweeps" / "g" / "report"
    link(folder, copied)
    before = contents(copied / "report")
    assert report.main(["outputs/sweeps/g"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "outputs/sweeps/g/report: a symbolic link, expected a folder"
    assert contents(copied / "report") == before


# links of the user's own


@pytest.mark.parametrize("name", sorted(OWN))
def test_outputs_and_its_three_folders_may_be_links(
    copied: Path, name: str, data_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "disk").mkdir()
    link(copied / name, copied / "disk")
    assert report.main(["outputs/sweeps/g"]) == 0
    assert "2 of 2 runs complete" in capsys.readouterr().out
    done = sweep(copied, "g", data_cache)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("trained before") == 2


def test_what_a_command_line_names_may_be_a_link(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("sweep").symlink_to("outputs/sweeps/g")
    Path("run").symlink_to(a_run())
    shutil.copy(next(Path("outputs").rglob("classes.png")), "original.png")
    Path("image.png").symlink_to("original.png")
    assert report.main(["sweep"]) == watch.main(["sweep", "--once"]) == runs.main(["sweep"]) == 0
    assert "2 of 2 runs complete" in capsys.readouterr().out
    assert predict.main(["run", "image.png"]) == 0


def test_what_is_listed_may_be_named_as_it_is_listed(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(next(Path("outputs").rglob("classes.png")), "image.png")
    name = Path(a_run()).name
    run_id = name.rpartition("-")[2]
    for word in (name, run_id, run_id[:8], f"outputs/{run_id[:8]}"):
        assert predict.main([word, "image.png"]) == report.main([word]) == runs.main([word]) == 0
        assert rerun.main([word, "--data-root", "nowhere", "--outputs", "outputs"]) == 1  # as the run is there
        assert "expected a folder without this run" in capsys.readouterr().err
    assert report.main(["g"]) == watch.main(["g", "--once"]) == runs.main(["g"]) == runs.main(["--sweeps", "g"]) == 0


# where runs are


@pytest.mark.parametrize("words", [["hydra.sweep.dir=mine"], ["hydra.job.chdir=true", "name=mine"]])
@pytest.mark.parametrize("launcher", ["basic", pytest.param("local", marks=pytest.mark.slow)])
def test_a_sweep_finds_its_runs_wherever_they_are(
    cifarsweep: Command, data_cache: Path, tmp_path: Path, words: list[str], launcher: str
) -> None:
    words = [*WORDS, *SWEEPS["g"], f"data.cache={data_cache}", f"hydra/launcher={launcher}", *words]
    done = cifarsweep("-m", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 of 2 runs complete" in done.stdout
    (record,) = tmp_path.rglob("sweep.json")
    jobs = sweeps.SweepRecord.read(record.parent).jobs.values()
    assert all((record.parent / str(job.path) / "result.json").exists() for job in jobs)


def test_a_moved_folder_finds_its_runs(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "outputs").rename(copied / "elsewhere")
    assert report.main(["elsewhere/sweeps/g"]) == 0
    assert "2 of 2 runs complete" in capsys.readouterr().out


def test_a_record_leads_only_to_a_folder_of_runs(tmp_path: Path) -> None:
    sweep, run = tmp_path / "outputs" / "sweeps" / "g", tmp_path / "other" / "runs" / "a-1"
    run.mkdir(parents=True)
    (tmp_path / "private" / "a-1").mkdir(parents=True)
    assert folders.run_of(sweep, "a-1", "../../../other/runs/a-1") == run
    for recorded in ("../../../private/a-1", "../../../other/runs", "../../../other/runs/b-2", None):
        assert folders.run_of(sweep, "a-1", recorded) == tmp_path / "outputs" / "runs" / "a-1"


def test_a_missing_run_is_named_and_the_exit_code_is_1(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Path(a_run())
    shutil.rmtree(run)
    assert report.main(["outputs/sweeps/g"]) == 1
    out = capsys.readouterr().out
    assert "1 of 2 runs complete" in out
    assert f"1 without a run: missing, expected {copied / run}" in out.replace("…", run.name)
    assert f"The report before this one had 2 runs; not found now: {run.name.rpartition('-')[2]}." in out
    assert run.name in Path("outputs/sweeps/g/report/index.html").read_text()
    assert watch.main(["outputs/sweeps/g", "--once"]) == 0
    assert "missing" in capsys.readouterr().out
