"""Damage to any file of a run or a sweep, and values of any kind in any field: noticed, or of no effect."""

from __future__ import annotations

import copy
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY, Command, examples, run_python, small_run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_journal import DAMAGES as DAMAGES_OF_CONTENT

from cifarsweep import classifier, predict, report, rerun, runs, watch
from cifarsweep.report import depth_study, search_results, tables
from cifarsweep.results import files, mosaic, records, sweeps
from cifarsweep.results.records import Description, RunResult
from cifarsweep.results.study_records import (
    FinalRunRecord,
    SeedRunRecord,
    StudiesRecord,
    StudyRecord,
    StudyWithFinalRuns,
    TrialRecord,
)
from cifarsweep.results.sweeps import Command as SweepCommand
from cifarsweep.results.sweeps import JobRecord, SweepRecord
from cifarsweep.results.typed import FileRecord, Record

EXAMPLE = REPOSITORY / "outputs" / "example"
UNCHECKED = {"train.log", "result.json"}
"""No command reads the log, see records.FILES; result.json has its own digest."""

Damage = Callable[[Path, Path], None]


def truncate(path: Path, other: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path, other: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path: Path, other: Path) -> None:
    shutil.copy(other, path)


def delete(path: Path, other: Path) -> None:
    path.unlink()


def empty(path: Path, other: Path) -> None:
    path.write_bytes(b"")


DAMAGES: list[Damage] = [truncate, flip, swap, delete, empty]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data_cache: Path) -> Path:
    """The outputs of a sweep of two runs."""
    folder = tmp_path_factory.mktemp("made")
    words = [*small_run(data_cache, folder / "outputs"), "trainer.epochs=1", "seed=0,1", "hydra/launcher=basic"]
    done = run_python("-m", "cifarsweep", "-m", *words, "name=two", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "outputs"


@pytest.fixture
def outputs(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "outputs")
    return tmp_path / "outputs"


def run_dirs(outputs: Path) -> tuple[Path, Path]:
    first, second = sorted((outputs / "runs").glob("layers2-*"))
    return first, second


def results_in(run_dir: Path) -> dict[str, bytes]:
    """What has to be the same however often the run was damaged; times are not."""
    return {name: (run_dir / name).read_bytes() for name in ("confusion.csv", "confused.png", "layers.csv", "model.pt")}


def outcome(read: Callable[[Path], Any], path: Path) -> tuple[Any, ValueError | None]:
    """What is read, or the error that a user sees."""
    try:
        return read(path), None
    except ValueError as error:
        return None, error


# files of a run


def test_every_file_of_a_run_has_a_digest(made: Path) -> None:
    for run_dir in run_dirs(made):
        result = RunResult.read(run_dir)
        assert result is not None
        assert {path.name for path in run_dir.iterdir()} - UNCHECKED == (result.digests or {}).keys()
        assert not list(result.damaged(run_dir))


def test_to_check_a_run_takes_no_time_to_speak_of(made: Path) -> None:
    run_dir, _ = run_dirs(made)
    start = time.perf_counter()
    for _ in range(10):
        RunResult.read_or_unfinished(run_dir).check(run_dir)
    assert (time.perf_counter() - start) / 10 < 0.05  # 2 ms


@pytest.mark.parametrize("damage", DAMAGES)
def test_any_damage_to_any_file_of_a_run_is_noticed(outputs: Path, damage: Damage) -> None:
    run_dir, other = run_dirs(outputs)
    names = sorted({path.name for path in run_dir.iterdir()} - {"train.log"})
    for name in names:
        whole = (run_dir / name).read_bytes()
        damage(run_dir / name, other / name)
        if (run_dir / name).exists() and (run_dir / name).read_bytes() == whole:  # layers.csv is the same in both
            continue
        result, error = outcome(RunResult.read, run_dir)
        if error:
            assert "result.json" in str(error)
        else:
            noticed = [error.path.name for error in (result.damaged(run_dir) if result else ())]
            if damage is swap and name == "result.json":
                assert noticed
            else:
                assert noticed == ([] if result is None else [name])
        (run_dir / name).write_bytes(whole)


def test_each_bit_of_a_model_counts(outputs: Path) -> None:
    run_dir, _ = run_dirs(outputs)
    whole, dice = (run_dir / "model.pt").read_bytes(), random.Random(0)
    for _ in range(300):
        place, bit = dice.randrange(len(whole)), 1 << dice.randrange(8)
        (run_dir / "model.pt").write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        with pytest.raises(files.Corrupt, match=r"model\.pt: damaged: .*; python -m cifarsweep .* makes it again"):
            classifier.load(run_dir)


@pytest.fixture(scope="module")
def scratch(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that the examples of one test share."""
    folder = tmp_path_factory.mktemp("scratch") / "outputs"
    shutil.copytree(made, folder)
    return folder


@given(data=st.data())
def test_a_flipped_bit_of_a_record_changes_no_value_unnoticed(made: Path, scratch: Path, data: st.DataObject) -> None:
    run_dir, _ = run_dirs(made)
    source, kind = data.draw(st.sampled_from([(run_dir, RunResult), (made / "sweeps" / "two", SweepRecord)]))
    whole = (source / kind.file).read_bytes()
    place, bit = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 7))
    folder = scratch / "record"
    folder.mkdir(exist_ok=True)
    (folder / kind.file).write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
    found, error = outcome(kind.read, folder)
    if error:
        assert kind.file in str(error)
    else:
        expected = kind.read(source)
        assert found is not None
        assert expected is not None
        # Where the key `digests` itself was hit, all other values are what they were.
        known = [item.name for item in fields(kind) if item.name not in ("digests", "further")]
        assert [getattr(found, name) for name in known] == [getattr(expected, name) for name in known]


@pytest.mark.parametrize("name", records.FILES)
def test_the_same_command_makes_a_damaged_file_again(
    cifarsweep: Command, data_cache: Path, outputs: Path, name: str
) -> None:
    run_dir, _ = run_dirs(outputs)
    words = [*small_run(data_cache, outputs), "trainer.epochs=1", "seed=0"]
    if RunResult.read_or_unfinished(run_dir).seed != 0:
        _, run_dir = run_dirs(outputs)
    before = results_in(run_dir)
    flip(run_dir / name, run_dir / name)
    done = cifarsweep(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{name}: damaged: not what its digest in result.json says; kept as {name}.corrupt" in done.stdout
    assert ("trained before" in done.stdout) == (name not in ("model.pt", "metrics.csv"))
    assert results_in(run_dir) == before
    again = cifarsweep(*words)
    assert "trained before" in again.stdout
    assert ".corrupt" not in again.stdout


def test_each_damaged_file_is_kept_though_another_one_is_missing(
    cifarsweep: Command, data_cache: Path, outputs: Path
) -> None:
    run_dir, _ = run_dirs(outputs)
    words = [*small_run(data_cache, outputs), "trainer.epochs=1", f"seed={RunResult.read_or_unfinished(run_dir).seed}"]
    before = results_in(run_dir)
    (run_dir / "metrics.csv").unlink()
    cut = [name for name in records.FILES if name != "metrics.csv"]
    for name in cut:
        truncate(run_dir / name, run_dir / name)
    done = cifarsweep(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert "metrics.csv: missing; the work is done again" in done.stdout
    assert sorted(path.name for path in run_dir.glob("*.corrupt")) == sorted(f"{name}.corrupt" for name in cut)
    assert results_in(run_dir) == before


@pytest.mark.parametrize("damage", [truncate, delete, empty])
@pytest.mark.parametrize("name", records.FILES)
def test_a_listing_shows_a_run_that_lacks_a_file_or_a_part_of_it(
    outputs: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Damage
) -> None:
    run_dir, other = run_dirs(outputs)
    damage(run_dir / name, other / name)
    assert runs.main([str(outputs), "--columns", "run,status,error"]) == 0
    out, err = capsys.readouterr()
    rows = {words[0]: words[1:] for words in map(str.split, out.splitlines()[1:])}
    assert rows[run_dir.name][:2] == ["damaged", f"{name}:"]
    assert rows[other.name] == ["complete"]
    (line,) = err.splitlines()
    assert line.startswith("1 run is damaged")
    assert runs.main([str(outputs), "status=complete", "--columns", "run"]) == 0
    assert capsys.readouterr().out.split() == ["run", other.name]
    assert runs.main([str(outputs), "--sweeps", "--columns", "complete"]) == 0
    assert capsys.readouterr().out.split() == ["complete", "1"]
    assert watch.main([str(outputs / "sweeps" / "two"), "--once"]) == 0
    assert "2/2 done, 1 damaged, 1 complete" in capsys.readouterr().out


def test_what_makes_a_file_again_is_looked_up_where_it_is_said_and_once(
    outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir, _ = run_dirs(outputs)
    asked: list[Path] = []
    monkeypatch.setattr(sweeps, "command_of", lambda folder: asked.append(folder) or ["again"])
    result = RunResult.read_or_unfinished(run_dir)
    for name in records.FILES:
        (run_dir / name).unlink()
    first, *_ = damaged = list(result.damaged(run_dir))
    assert len(damaged) == len(records.FILES)
    assert not asked
    assert str(first) == str(first) == f"{first.path}: missing; again makes it again"
    assert asked == [run_dir]


@pytest.mark.parametrize("name", records.FILES)
def test_commands_that_read_say_what_is_damaged_and_change_nothing(
    outputs: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    for run_dir in run_dirs(outputs):
        flip(run_dir / name, run_dir / name)
    before = {path: path.read_bytes() for path in (outputs / "runs").rglob("*") if path.is_file()}
    report.main([str(outputs)])
    said = {"report": "".join(capsys.readouterr())}
    image = str(run_dir / "confused.png")
    if name == "model.pt":
        assert predict.main([str(run_dir), image]) == 1
        said = {"predict": capsys.readouterr().err}
    if name in ("config.yaml", *rerun.COMPARED):
        assert rerun.main([str(run_dir)]) == 1
        said["rerun"] = capsys.readouterr().err
    for text in said.values():
        (line,) = {line for line in text.splitlines() if f"{name}: damaged" in line and str(run_dir) in line} or {text}
        assert f"{name}: damaged" in line
        assert "python -m cifarsweep" in line
    assert {path: path.read_bytes() for path in (outputs / "runs").rglob("*") if path.is_file()} == before


def test_weights_that_nobody_can_check_are_not_used(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dir, _ = run_dirs(outputs)
    image = str(run_dir / "confused.png")
    (run_dir / "result.json").unlink()
    for also in ("sweep.json", "study.json"):
        assert predict.main([str(run_dir), image]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        expected = "expected the directory of a complete run; the command that trained the run trains it again"
        assert line == f"{run_dir}: no result.json in it, {expected}"
        (outputs / "sweeps" / "two" / also).unlink(missing_ok=True)


@given(data=st.data())
def test_a_damaged_picture_of_a_data_set_is_noticed(made: Path, scratch: Path, data: st.DataObject) -> None:
    source = data.draw(st.sampled_from(sorted((made / "data").glob("*/*.png"))))
    damaged = data.draw(DAMAGES_OF_CONTENT)(source.read_bytes())
    path = scratch / "picture.png"
    path.write_bytes(damaged)
    found, error = outcome(mosaic.read, path)
    if error:
        assert str(error).startswith(f"{path}: not rows of images, or damaged")
    else:
        whole = mosaic.read(source)
        assert found is not None
        assert whole is not None
        assert (found.names, found.images.tobytes()) == (whole.names, whole.images.tobytes())


def test_another_training_leaves_no_file_of_an_earlier_result(
    cifarsweep: Command, data_cache: Path, outputs: Path
) -> None:
    words = [*small_run(data_cache, outputs), "trainer.epochs=1", "optimizer.lr=1e30", "force=true"]
    assert cifarsweep(*words).returncode == 0
    (run_dir,) = (outputs / "runs").glob("layers2-*lr1e+30*")
    (run_dir / "model.pt").write_bytes(b"of another one")
    assert cifarsweep(*words).returncode == 0
    result = RunResult.read_or_unfinished(run_dir)
    assert result.status == "diverged"
    assert {path.name for path in run_dir.iterdir()} - UNCHECKED == (result.digests or {}).keys()


# a newer version


def test_a_result_of_a_newer_format_is_refused_by_every_command(
    cifarsweep: Command, data_cache: Path, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, _ = run_dirs(outputs)
    path = run_dir / "result.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    before = path.read_bytes()
    seed = json.loads(before)["seed"]
    words = [*small_run(data_cache, outputs), "trainer.epochs=1", f"seed={seed}"]
    assert predict.main([str(run_dir), "x.png"]) == rerun.main([str(run_dir)]) == report.main([str(run_dir)]) == 1
    assert runs.main([str(outputs)]) == 0
    done = cifarsweep(*words)
    assert done.returncode == 1
    lines = [*capsys.readouterr().err.splitlines(), *done.stderr.splitlines()]
    assert len([line for line in lines if "format=2: a newer version of cifarsweep wrote it" in line]) == 5
    assert path.read_bytes() == before
    assert cifarsweep(*words, "force=true").returncode == 0


# files of a sweep


@pytest.mark.parametrize("damage", [truncate, flip, empty])
@pytest.mark.parametrize("name", ["sweep.json", "jobs.jsonl"])
def test_a_damaged_record_of_a_sweep_is_set_aside_and_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, damage: Damage
) -> None:
    sweep = tmp_path / "sweeps" / "s"
    sweeps.open_sweep(sweep, ["python"], {"seed": 1})
    for job in (0, 1):
        sweeps.register_job(sweep, job, [f"seed={job}"], run=f"a-{job}")
    damage(sweep / name, sweep / name)
    if name == "jobs.jsonl" and damage is not flip:  # as a full disk leaves it: a line that was cut short is left out
        SweepRecord.read(sweep)
        return
    assert report.main([str(sweep)]) == watch.main([str(sweep)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all("the command of the sweep makes it again" in line for line in lines)
    (line,) = sweeps.open_sweep(sweep, ["python"], {"seed": 1})
    assert f"{name}.corrupt, the record is made again" in line
    known = SweepRecord.read(sweep).jobs
    assert known.keys() <= {"seed=0", "seed=1"}
    assert len(known) == (2 if name == "sweep.json" else 1)


def test_the_runs_of_a_search_are_known_though_its_record_is_damaged(tmp_path: Path) -> None:
    sweeps.open_sweep(tmp_path, ["python"], {})
    StudyRecord.of(EXAMPLES[StudyRecord]).write(tmp_path)
    (tmp_path / "sweep.json").write_text("{")
    sweeps.open_sweep(tmp_path, ["python"], {})
    assert {job.run for job in SweepRecord.read(tmp_path).jobs.values()} == {"a-1"}


# values of any kind

TRIAL = {
    "number": 0, "state": "complete", "values": [0.5], "params": {"lr": 0.1}, "epochs": {"1": 0.5}, "run": "a-1",
    "reason": None, "started": None, "finished": None, "warm_start": False,
    "runs": {"1": {"run": "a-1", "values": [0.5], "figures": {"params": 10}, "steps": 1, "spent": 1.0}},
}  # fmt: skip
FINAL_RUN = {"finalist": 0, "seed": 1, "state": "complete", "run": "a-1", "reason": None}
SEARCH = {
    "values": {"model": "layers2"}, "params": ["lr"], "is_over": True, "epochs": 2, "trials": [TRIAL],
    "finalists": [0], "final_runs": [FINAL_RUN],
}  # fmt: skip
EXAMPLES: dict[type[FileRecord], dict[str, Any]] = {
    RunResult: files.read_json(min((EXAMPLE / "runs").glob("layers2-*")) / "result.json")
    | {"sizes": {"model.pt": 1}, "mirrored_test_accuracy": 0.9},
    SweepRecord: files.read_json(EXAMPLE / "sweeps" / "first" / "sweep.json") | {"submitted": {"7_0": "seed=0"}},
    StudyRecord: {
        "format": 1, "name": "s", "objectives": ["val_accuracy"], "directions": ["maximize"], "n_trials": 1,
        "params": ["lr"], "log": [], "importances": {"lr": 1.0}, "importance_intervals": {"lr": [0.5, 1.0]},
        "best": [0], "best_command": "x", "trials": [TRIAL], "single_run": ["seed=1"],
    },
    StudiesRecord: {
        "format": 1, "name": "s", "study_per": ["model"], "objectives": ["val_accuracy"], "directions": ["maximize"],
        "budget": "9 trials", "max_epochs": 8, "finalists": 1, "repeats": 1, "seeds": [1], "final_on": "train",
        "studies": [SEARCH], "single_run": ["seed=1"],
    },
}  # fmt: skip
"""A file of each kind, which has every record in it that files have."""

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([2**63, -(2**64), "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every value in this one."""
    if place:
        yield place
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*place, key))


def with_value(values: dict[str, Any], place: tuple[Any, ...], new: Any) -> dict[str, Any]:
    changed = copy.deepcopy(values)
    node: Any = changed
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = new
    return changed


def subclasses(kind: type) -> set[type]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


def test_the_examples_hold_every_field_of_every_record() -> None:
    inside = {
        RunResult: EXAMPLES[RunResult], Description: EXAMPLES[RunResult], SweepRecord: EXAMPLES[SweepRecord],
        SweepCommand: EXAMPLES[SweepRecord]["commands"][0],
        JobRecord: {**next(iter(EXAMPLES[SweepRecord]["jobs"].values())), "path": None, "error": None},
        StudyRecord: EXAMPLES[StudyRecord], StudiesRecord: EXAMPLES[StudiesRecord], TrialRecord: TRIAL,
        SeedRunRecord: TRIAL["runs"]["1"],
        FinalRunRecord: FINAL_RUN, StudyWithFinalRuns: SEARCH,
    }  # fmt: skip
    known = {kind for kind in subclasses(Record) if kind.__module__.startswith("cifarsweep.results")}
    assert {kind for kind in known if not kind.__subclasses__() or kind in inside} <= inside.keys()
    for kind, values in inside.items():
        names = {item.name for item in fields(kind)} - {"further", "digests"}  # type: ignore[arg-type]
        assert names <= values.keys(), kind


ANY_KIND = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
"""What is captured is thrown away."""
PLACES = [
    (kind, place)
    for kind, values in EXAMPLES.items()
    for place in places(values)
    if len(place) < 5 and "plan" not in place
]
"""Of every field of every record; what is below `plan` is free."""
CONFIG = files.read_yaml(min((EXAMPLE / "runs").glob("layers2-*")) / "config.yaml")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs with a run and a sweep of it."""
    outputs = tmp_path_factory.mktemp("example") / "outputs"
    run = EXAMPLES[RunResult]
    run_dir = outputs / "runs" / "a-1"
    shutil.copytree(next((EXAMPLE / "runs").glob(f"*-{run['run_id']}")), run_dir)
    (outputs / "sweeps" / "s").mkdir(parents=True)
    return outputs


def written(outputs: Path, kind: type[FileRecord], place: tuple[Any, ...], value: Any) -> None:
    """The files of the example, one of them with this value at this place."""
    sweep = with_value(EXAMPLES[SweepRecord], ("jobs",), {"a": {"job": 0, "overrides": ["a=1"], "run": "a-1"}})
    for each, values in {**EXAMPLES, SweepRecord: sweep}.items():
        folder = outputs / "runs" / "a-1" if each is RunResult else outputs / "sweeps" / "s"
        changed = with_value(EXAMPLES[each] if each is kind else values, place, value) if each is kind else values
        (folder / each.file).write_text(json.dumps(changed))


@ANY_KIND
@given(st.sampled_from(PLACES), ANY)
def test_a_value_of_any_kind_at_any_place_is_read_or_named(
    example: Path, capsys: pytest.CaptureFixture[str], where: tuple[type[FileRecord], tuple[Any, ...]], value: Any
) -> None:
    kind, place = where
    written(example, kind, place, value)
    run_dir, sweep = example / "runs" / "a-1", example / "sweeps" / "s"
    folder = run_dir if kind is RunResult else sweep
    _, error = outcome(kind.read, folder)
    if error:
        assert kind.file in str(error)
        assert isinstance(error, files.Corrupt) or "a newer version" in str(error)
    tables.read([run_dir], [])
    for read in (search_results.read, depth_study.read, tables.jobs_without_run):
        _, error = outcome(read, sweep)
        assert error is None or str(sweep) in str(error)
    assert runs.main([str(example)]) == runs.main(["--sweeps", str(example)]) == 0
    assert watch.main([str(sweep), "--once"]) in (0, 1)
    capsys.readouterr()


@pytest.mark.slow
@pytest.mark.usefixtures("figures_without_pixels")
@settings(ANY_KIND, max_examples=examples(20))
@given(st.sampled_from(PLACES), ANY)
def test_a_report_is_written_or_says_why_not(
    example: Path, capsys: pytest.CaptureFixture[str], where: tuple[type[FileRecord], tuple[Any, ...]], value: Any
) -> None:
    written(example, *where, value)
    assert report.main([str(example / "sweeps" / "s")]) in (0, 1)
    capsys.readouterr()


@ANY_KIND
@given(st.sampled_from([*places(CONFIG)]), ANY)
def test_a_configuration_with_a_value_of_any_kind_is_checked_before_it_is_trained(
    example: Path, capsys: pytest.CaptureFixture[str], place: tuple[Any, ...], value: Any
) -> None:
    written(example, RunResult, ("seed",), EXAMPLES[RunResult]["seed"])
    run_dir = example / "runs" / "a-1"
    (run_dir / "config.yaml").write_text(json.dumps(with_value(CONFIG, place, value)))

    def train(*words: Any) -> None:
        raise ValueError("would train")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cifarsweep.training.run.train", train)
        assert rerun.main([str(run_dir)]) == 1
    tables.read([run_dir], [])
    (run_dir / "result.json").unlink()
    assert runs.main([str(example)]) == 0
    capsys.readouterr()
