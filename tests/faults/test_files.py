"""Files that are torn, lost or cannot be written: named in one line, kept, and the work is done again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY, Command, run_python, small_run, without_digests
from torch import nn

from cifarsweep.results import files, records
from cifarsweep.training import checkpoint
from cifarsweep.training.loop import NOTHING

# checkpoints


EPOCH = records.Epoch(1, 0.1, 2.0, 0.2, None, None, 1.5)


def network() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.pt"
    checkpoint.save(path, "abc", [EPOCH], *network())
    return path


def test_a_checkpoint_puts_everything_back(saved: Path) -> None:
    states = torch.get_rng_state(), random.getstate()
    expected, _ = network()
    model, optimizer = nn.Linear(3, 2), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.25, momentum=0.9)
    torch.rand(5)
    random.random()
    assert checkpoint.restore(saved, "abc", model, optimizer) == ([EPOCH], NOTHING)
    assert torch.equal(model.weight, expected.weight)  # type: ignore[arg-type]
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert torch.equal(optimizer.state[model.weight]["momentum_buffer"], torch.ones(2, 3))
    assert random.getstate() == states[1]


def test_a_checkpoint_torn_at_any_byte_is_refused_and_nothing_changes(saved: Path) -> None:
    whole = saved.read_bytes()
    model, optimizer = network()
    before = model.weight.clone()  # type: ignore[operator]
    for length in reversed(range(len(whole))):
        os.truncate(saved, length)
        with pytest.raises(files.Corrupt, match=r"checkpoint\.pt: "):
            checkpoint.restore(saved, "abc", model, optimizer)
    assert torch.equal(model.weight, before)  # type: ignore[arg-type]


def test_a_checkpoint_with_a_flipped_bit_is_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    dice = random.Random(0)
    for _ in range(300):
        place, bit = dice.randrange(len(whole)), 1 << dice.randrange(8)
        saved.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        with pytest.raises(files.Corrupt, match="damaged or incomplete"):
            checkpoint.restore(saved, "abc", *network())


def test_a_checkpoint_of_another_run_network_or_format_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = network()
    with pytest.raises(files.Corrupt, match="of run abc, expected 1 of def"):
        checkpoint.restore(saved, "def", model, optimizer)
    other = nn.Linear(3, 3)
    with pytest.raises(files.Corrupt, match="of another network"):
        checkpoint.restore(saved, "abc", other, torch.optim.SGD(other.parameters(), lr=1))
    monkeypatch.setattr(checkpoint, "FORMATS", {False: 3, True: 4})
    with pytest.raises(files.Corrupt, match="format 1 of run abc, expected 3"):
        checkpoint.restore(saved, "abc", model, optimizer)


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("code-was-run",)


def test_a_checkpoint_that_holds_code_runs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    buffer = io.BytesIO()
    torch.save({"format": 1, "run_id": "abc", "epochs": Evil()}, buffer)
    Path("checkpoint.pt").write_bytes(hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())
    with pytest.raises(files.Corrupt):
        checkpoint.restore(Path("checkpoint.pt"), "abc", *network())
    assert not Path("code-was-run").exists()


# results

METRICS = (",".join(records.METRICS) + "\n").encode()


def test_a_result_torn_at_any_byte_is_told(tmp_path: Path) -> None:
    files.write_json(tmp_path / "result.json", dict.fromkeys(records.COLUMNS))
    whole = (tmp_path / "result.json").read_bytes()
    for length in range(len(whole) - 1):  # the last byte is the newline
        (tmp_path / "result.json").write_bytes(whole[:length])
        with pytest.raises(files.Corrupt, match=r"result\.json: "):
            records.RunResult.read(tmp_path)


def test_aside_keeps_what_was_set_aside_before(tmp_path: Path) -> None:
    for content in ("first", "second", "third"):
        (tmp_path / "result.json").write_text(content)
        files.set_aside(tmp_path / "result.json")
    assert sorted(path.read_text() for path in tmp_path.glob("*.corrupt")) == ["first", "second", "third"]


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory, data_cache: Path) -> Path:
    """The outputs of a run of one epoch, to be copied."""
    folder = tmp_path_factory.mktemp("trained")
    words = small_run(data_cache, folder / "outputs")
    assert run_python("-m", "cifarsweep", *words, "trainer.epochs=1", cwd=folder).returncode == 0
    return folder / "outputs"


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """The folder of a run of one epoch, in tmp_path/outputs, as `small` and trainer.epochs=1 leave it."""
    shutil.copytree(trained_once, tmp_path / "outputs")
    (run,) = (tmp_path / "outputs" / "runs").glob("layers2-*")
    return run


@pytest.mark.parametrize("name", ["result.json", "metrics.csv"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe\x00", METRICS + b"1,x\n", METRICS, b"[" * 100_000])
def test_a_corrupt_file_of_a_run_is_kept_and_the_run_trained_again(
    cifarsweep: Command, small: list[str], trained: Path, name: str, content: bytes
) -> None:
    run, whole = trained, (trained / "model.pt").read_bytes()
    (run / name).write_bytes(content)
    again = cifarsweep(*small, "trainer.epochs=1")
    assert (again.returncode, again.stderr) == (0, "")
    assert f"{name}.corrupt, the work is done again" in again.stdout
    assert (run / f"{name}.corrupt").read_bytes() == content
    assert records.RunResult.read(run)
    assert (run / "model.pt").read_bytes() == whole


def test_a_corrupt_checkpoint_is_kept_and_the_run_begins_again(
    cifarsweep: Command, small: list[str], tmp_path: Path
) -> None:
    assert cifarsweep(*small).returncode == 0
    (run,) = (tmp_path / "outputs" / "runs").glob("layers2-*")
    (run / "result.json").unlink()
    (run / "checkpoint.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    again = cifarsweep(*small)
    assert (again.returncode, again.stderr) == (0, "")
    assert "checkpoint.pt.corrupt, the work is done again" in again.stdout
    assert "epoch 1/2" in again.stdout
    assert (run / "checkpoint.pt.corrupt").exists()


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "meta", "mean"])
def test_a_damaged_data_cache_is_kept_and_made_again(
    cifarsweep: Command, small: list[str], tmp_path: Path, data_cache: Path, damage: str
) -> None:
    shutil.copytree(data_cache, tmp_path / "cache")
    words = [*small, f"data.cache={tmp_path}/cache"]
    assert cifarsweep(*words).returncode == 0
    (entry,) = [path for path in (tmp_path / "cache" / "decoded").glob("shapes-*") if is_small(path)]
    (run,) = (tmp_path / "outputs" / "runs").glob("layers2-*")
    whole = (run / "model.pt").read_bytes()
    images, meta = entry / "train_images.npy", entry / "meta.json"
    if damage == "flip":
        content = bytearray(images.read_bytes())
        content[-1000] ^= 1
        images.write_bytes(content)
    elif damage == "truncate":
        os.truncate(images, images.stat().st_size // 2)
    elif damage == "remove":
        images.unlink()
    elif damage == "meta":
        meta.write_text("{")
    else:
        meta.write_text(meta.read_text().replace("0.", "1.", 1))
    again = cifarsweep(*words, "force=true")
    assert (again.returncode, again.stderr) == (0, "")
    assert "damaged, kept as " in again.stdout
    assert len(list((tmp_path / "cache" / "decoded").glob("*.corrupt"))) == 1
    assert (run / "model.pt").read_bytes() == whole
    assert ", kept as " not in cifarsweep(*words, "force=true").stdout


def is_small(entry: Path) -> bool:
    return entry.is_dir() and 600 * 32 * 32 * 3 < (entry / "train_images.npy").stat().st_size < 601 * 32 * 32 * 3


@pytest.mark.slow
def test_the_report_lists_what_it_cannot_read(cifarsweep: Command, small: list[str], tmp_path: Path) -> None:
    words = ["hydra/launcher=basic", "trainer.epochs=1", "seed=0,1,2", "name=some"]
    assert cifarsweep("-m", *small, *words).returncode == 0
    first, second, third = sorted((tmp_path / "outputs" / "runs").glob("layers2-*"))
    (first / "result.json").write_text("{")
    (second / "metrics.csv").write_bytes(b"\xff")
    done = cifarsweep("outputs/sweeps/some", module="cifarsweep.report")
    assert done.returncode == 0
    left_out = done.stderr.splitlines()
    assert left_out[0].startswith(f"left out, cannot be read: {first / 'result.json'}: not a JSON file")
    (line,) = left_out[1:]
    assert line.startswith(f"left out, cannot be read: {second / 'metrics.csv'}: damaged: not what")
    assert (first / "result.json").read_text() == "{"
    table = (tmp_path / "outputs" / "sweeps" / "some" / "report" / "runs.csv").read_text()
    assert [line.split(",")[0] for line in table.splitlines()[1:]] == [third.name.rpartition("-")[2]]


# disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A file system of so many bytes, or as large from now on."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ["mount", "-t", "tmpfs", "tmpfs", str(folder), "-o"]
    if shutil.which("mount") is None or subprocess.run([*options, "size=1m"], capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")

    def resize(options: str) -> Path:
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)
        return folder

    yield resize
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_named_and_with_more_room_the_run_goes_on(
    cifarsweep: Command, small: list[str], tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    words = [*small, "model.width=32", "trainer.epochs=6"]
    assert cifarsweep(*words).returncode == 0
    (expected,) = (tmp_path / "outputs" / "runs").glob("layers2-*")
    outputs = small_disk("size=20m") / "outputs"
    ballast = outputs.parent / "ballast"
    size = (expected / "model.pt").stat().st_size
    ballast.write_bytes(bytes(20 * 2**20 - 3 * size))  # room for a checkpoint and the half of the next
    full = cifarsweep(*words, f"outputs={outputs}")
    assert full.returncode == 1
    (line,) = full.stderr.splitlines()
    assert "No space left on device" in line
    assert str(outputs / "runs") in line
    ballast.unlink()
    done = cifarsweep(*words, f"outputs={outputs}")
    assert (done.returncode, done.stderr) == (0, "")
    assert (outputs / "runs" / expected.name / "model.pt").read_bytes() == (expected / "model.pt").read_bytes()
    assert not list((outputs / "runs" / expected.name).glob(".*.part"))


def test_a_disk_too_small_for_the_data_cache_is_named(
    cifarsweep: Command, small: list[str], small_disk: Callable[[str], Path]
) -> None:
    cache = small_disk("size=1m") / "cache"
    full = cifarsweep(*small, f"data.cache={cache}")
    assert full.returncode == 1
    (line,) = full.stderr.splitlines()
    assert "No space left on device" in line
    assert str(cache) in line
    assert not list(cache.rglob("*.npy"))


def test_what_a_killed_process_left_in_a_runs_folder_is_removed(
    cifarsweep: Command, small: list[str], tmp_path: Path
) -> None:
    assert cifarsweep(*small).returncode == 0
    (run,) = (tmp_path / "outputs" / "runs").glob("layers*")
    (run / "checkpoint.pt").touch()
    assert cifarsweep(*small).returncode == 0
    assert not (run / "checkpoint.pt").exists()
    (run / ".model.pt.x.part").touch()
    (run / "result.json").unlink()
    assert cifarsweep(*small).returncode == 0
    assert not list(run.glob(".*.part"))


@pytest.mark.slow
def test_a_full_disk_of_a_sweep_costs_nothing_that_is_done(
    cifarsweep: Command, small: list[str], small_disk: Callable[[str], Path]
) -> None:
    outputs = small_disk("size=20m") / "outputs"
    words = ["-m", *small, "hydra/launcher=basic", "name=full", f"outputs={outputs}"]
    assert cifarsweep(*words, "seed=0").returncode == 0
    before = {path: path.read_bytes() for path in (outputs / "runs").glob("*/*") if path.is_file()}
    ballast = outputs.parent / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    full = cifarsweep(*words, "seed=0,1")
    assert full.returncode == 1
    assert "No space left on device" in full.stderr
    assert "Traceback" not in full.stderr
    ballast.unlink()
    assert {path: path.read_bytes() for path in before} == before
    done = cifarsweep(*words, "seed=0,1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "trained before" in done.stdout


def test_outputs_that_are_read_only_are_named(
    cifarsweep: Command, small: list[str], small_disk: Callable[[str], Path]
) -> None:
    disk = small_disk("ro")
    for words in ([], ["-m", "seed=0,1"]):
        done = cifarsweep(*words, *small, f"outputs={disk}/outputs")
        assert done.returncode == 1
        refused = f"outputs={disk}/outputs: {disk} cannot be written to, expected a folder that can be written to"
        assert done.stderr == f"{refused}\n"


def deleting_network(folder: Path, *lines: str) -> dict[str, str]:
    """The environment in which model._target_=deleting.Net is a network that runs these lines in each `train()`."""
    code = ["import pathlib, shutil", "from cifarsweep.models import LayersNet", "class Net(LayersNet):"]
    code += [
        "    def train(self, mode=True):",
        *(f"        {line}" for line in lines),
        "        return super().train(mode)",
    ]
    (folder / "deleting.py").write_text("\n".join(code))
    return {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{folder}"}


def test_a_run_whose_directory_is_deleted_meanwhile_fails_by_its_name(
    small: list[str], tmp_path: Path, cifarsweep: Command
) -> None:
    environment = deleting_network(
        tmp_path,
        "for run in pathlib.Path('outputs/runs').glob('layers2-*'):",
        "    if (run / 'checkpoint.pt').exists(): shutil.rmtree(run)",
    )
    done = cifarsweep(*small, "model._target_=deleting.Net", **environment)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "checkpoint.pt: No such file or directory" in line
    again = cifarsweep(*small)
    assert again.returncode == 0


def test_a_sweep_whose_folder_is_deleted_meanwhile_keeps_its_runs_and_is_recorded_anew(
    small: list[str], tmp_path: Path, cifarsweep: Command
) -> None:
    words = ["-m", *small, "model._target_=deleting.Net", "name=x", "hydra/launcher=basic", "seed=0,1"]
    done = cifarsweep(*words, **deleting_network(tmp_path, "shutil.rmtree('outputs/sweeps', ignore_errors=True)"))
    assert done.returncode == 1
    assert done.stderr == f"{tmp_path}/outputs/sweeps/x/sweep.json: No such file or directory\n"
    again = cifarsweep(*words, **deleting_network(tmp_path))
    assert again.returncode == 0, again.stderr
    assert "2 of 2 runs complete" in again.stdout


# folders that a stranger made


@pytest.mark.slow
def test_report_and_rerun_run_no_code_of_a_results_folder(
    cifarsweep: Command, small: list[str], tmp_path: Path, trained: Path
) -> None:
    run, whole = trained, (trained / "config.yaml").read_text()
    without_digests(run)
    for target in ("os.system", "cifarsweep.data.os.system", "cifarsweep.models.torch.os.mkdir", "torch.hub.load"):
        (run / "config.yaml").write_text(whole.replace("cifarsweep.models.LayersNet", target))
        done = cifarsweep(str(run), module="cifarsweep.rerun")
        assert done.returncode == 1
        assert f"_target_={target}: not of this project or PyTorch; see --trust" in done.stderr
        assert cifarsweep(str(run), module="cifarsweep.report").returncode == 0
    (run / "config.yaml").write_text("!!python/object/apply:os.mkdir [code-was-run]\n")
    for module in ("cifarsweep.rerun", "cifarsweep.report"):
        done = cifarsweep(str(run), module=module)
        assert "Traceback" not in done.stderr
    assert cifarsweep(*small, "trainer.epochs=1").returncode == 0
    assert not (tmp_path / "code-was-run").exists()


def test_a_sweep_cannot_point_out_of_its_outputs(cifarsweep: Command, small: list[str], tmp_path: Path) -> None:
    words = ["hydra/launcher=basic", "trainer.epochs=1", "seed=0", "name=mine"]
    assert cifarsweep("-m", *small, *words).returncode == 0
    (run,) = (tmp_path / "outputs" / "runs").glob("layers2-*")
    outside = tmp_path / "outside" / "layers2-x"
    shutil.copytree(run, outside)
    sweep = tmp_path / "outputs" / "sweeps" / "mine" / "sweep.json"
    without_digests(sweep.parent, sweep.name)
    sweep.write_text(sweep.read_text().replace(run.name, "../../outside/layers2-x"))
    done = cifarsweep("outputs/sweeps/mine", module="cifarsweep.report")
    assert "Traceback" not in done.stderr
    assert "0 of 1 run complete" in done.stdout
    assert (sweep.parent / "report" / "runs.csv").read_text().count("\n") == 1


@pytest.mark.parametrize("name", ["../up", "a/b", "x" * 300, "nul\\0", "..", "", "-rf", "emoji 🙂 and 'quotes'"])
def test_a_name_stays_one_folder_below_sweeps(cifarsweep: Command, small: list[str], tmp_path: Path, name: str) -> None:
    quoted = name.replace("\\", "\\\\").replace("'", "\\'")
    done = cifarsweep("-m", *small, "hydra/launcher=basic", "trainer.epochs=1", "seed=0", f"name='{quoted}'")
    made = {path.name for path in tmp_path.iterdir()} - {"outputs"}
    assert not made
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("name=")
    else:
        assert {path.name for path in (tmp_path / "outputs" / "sweeps").iterdir()} == {name}
