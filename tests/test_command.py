"""The command line as a user has it: processes, exit codes, one line for each mistake, nothing lost."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, TIMEOUT_SECONDS, Command
from PIL import Image

from cifarsweep.results.folders import find
from cifarsweep.training.configuration import error_line

MISTAKES = [
    # words, and what the line names
    (["model=layers9"], "model=layers9: no such option, expected one of airbench, layers1, layers2, layers3"),
    (["model=3"], "model=3: no such option, expected one of airbench, layers1, layers2, layers3"),
    (["-m", "seed=range(0)"], "seed=range(0): stands for no value, expected one or more"),
    (["-m", "model=glob(zzz*)"], "model=glob(zzz*): stands for no value, expected one or more"),
    (["-m", "model=layers2,3"], "model=3: no such option, expected one of airbench, layers1, layers2, layers3"),
    (["tracker=[mlflow, nosuch]"], "tracker=nosuch: no such option, expected one of mlflow, none, tensorboard"),
    (["optimizer=null"], "optimizer=null: no such option, expected one of adam"),
    (["~seed"], "seed: missing, expected a whole number, 0 or more"),
    (["hydra.sweeper.foo=1"], "hydra.sweeper.foo: no such key; hydra.sweeper accepts max_batch_size, params"),
    (["modle=layers2"], "modle: no such key; expected one of model, optimizer"),
    (["model.foo=3"], "model.foo: no such key; model accepts depth, width, norm, dropout"),
    (["model=speednet", "model.depth=3"], "model.depth: no such key; model accepts width, norm, dropout"),
    (["+model.foo=3"], "model.foo: no such key; model accepts depth, width, norm, dropout, hidden, in_channels, match"),
    (["+optimizer.foo=3"], "optimizer.foo: no such key; optimizer accepts lr, momentum, dampening"),
    (["+schedule.foo=3"], "schedule.foo: no such key; schedule accepts warmup"),
    (["--bogus"], "unrecognized arguments: --bogus"),
    (["optimizer.lr=["], "optimizer.lr=[: a closing ] is missing\n"),
    (["optimizer.lr=choice(0.1"], "optimizer.lr=choice(0.1: a closing ) is missing\n"),
    (["-m", "optimizer.lr=tag(log,interval(0.1,1)"], "optimizer.lr=tag(log,interval(0.1,1): a closing ) is missing\n"),
    (["schedule.milestones=[0.1,0.2)"], "a closing ] is missing before )\n"),
    (["optimizer.lr=0.1)"], "optimizer.lr=0.1): nothing is opened that this ) would close; quote a text"),
    (["name='abc"], "name='abc: a closing ' is missing, or a backslash before one in a text\n"),
    (['name="abc'], 'name="abc: a closing " is missing, or a backslash before one in a text\n'),
    (["name=it's"], """quote a text with special characters: "name='it\\'s'"\n"""),
    (["name='it's'"], "name='it's': a closing ' is missing, or a backslash before one in a text\n"),
    (["-m", "seed=1,,2"], "seed=1,,2: a value is missing beside a comma; quote a text"),
    (
        ["-m", "model=layers2,", "layers3"],
        "model=layers2,: a value is missing beside a comma; without a space after it: ",
    ),
    (
        ["-m", "model=layers2,", "layers3,", "layers4", "seed=1"],
        " without a space after it: model=layers2,layers3,layers4\n",
    ),
    (["-m", "seed=1,2,"], "seed=1,2,: a value is missing beside a comma; without a space after it: seed=1,2\n"),
    (["-m", "optimizer.lr=0,1"], "above 0, up to 1e38; or with a decimal point: optimizer.lr=0.1\n"),
    (["optimizer.lr=0,01"], "in quotes; or with a decimal point: optimizer.lr=0.01\n"),
    (["-m", "seed=choise(1,2)"], "seed=choise(1,2): Unknown function 'choise', expected one of bool,choice,"),
    (["-m", "seed=choice()"], "seed=choice(): empty choice is not legal\n"),
    (["-m", "seed=interval(1)"], "seed=interval(1): missing a required argument: 'end'\n"),
    (["seed"], "seed: expected key=value\n"),
    (
        ["model=layers2,layers3"],
        "model=layers2,layers3: expected one value, or -m before the keys for each of",
    ),
    (["optimizer.lr=choice(0.1,0.2)"], "optimizer.lr=choice(0.1,0.2): expected one value, or -m before the keys"),
    (["-m", "hydra/launcher=nosuch"], "hydra/launcher=nosuch: no such option, expected one of basic"),
    (["batch_size=0"], "batch_size=0: expected a whole number from 1 to 10000000"),
    (["batch_size=501"], "batch_size=501: expected 1 to 500, the number of training images"),
    (["optimizer.lr=-1"], "optimizer.lr=-1: expected a number above 0"),
    (["optimizer.lr=abc"], "optimizer.lr=abc: expected a number above 0"),
    (["trainer.epochs=0"], "trainer.epochs=0: expected a whole number from 1 to 1000000"),
    (["model.depth=6"], "model.depth=6: expected 1 to 5, as each layer halves the side of images of 32×32"),
    (["data.val_size=600"], "data.val_size=600: expected 0 to 599 images"),
    (["data=image_folder"], "data.root=???: expected a folder"),
    (["data=image_folder", "data.root=nowhere"], "data.root=nowhere: expected a folder that holds train/<class>"),
    (["data=image_folder", "data.root=empty"], "data.root=empty: expected a folder that holds train/<class>"),
    (
        ["data=image_folder", "data.val_size=1", "data.root=no_image"],
        "no image in no_image/train/bee, expected files ending in",
    ),
    (
        ["data=image_folder", "data.val_size=1", "data.root=truncated"],
        "1 image file(s) cannot be read: truncated/train/bee/0.png",
    ),
    (
        ["data=image_folder", "data.val_size=1", "data.root=text"],
        "1 image file(s) cannot be read: text/train/bee/0.png",
    ),
    (["data=image_folder", "data.val_size=1", "data.root=one_class"], "1 class folder(s), expected two or more"),
    (["outputs=a_file/outputs"], "a_file is no folder, expected a folder that can be written to"),
    (["data=cifar10", "data.root=empty"], "or data=shapes, which needs none"),
    (["model.width=1000000"], "model.width=1000000: expected a whole number from 1 to 65536"),
    (["search=default"], "search=default: is for a sweep, expected -m before it"),
    (["experiment=depth_study"], "experiment=depth_study: is for a sweep, expected -m before it"),
    (["hydra.sweeper.n_trials=5"], "hydra.sweeper.n_trials: no such key"),
    (["+hydra.sweeper.n_trials=5"], "+hydra.sweeper.n_trials=5: is for a sweep, expected -m before it"),
    (["hydra/launcher=basic"], "hydra/launcher=basic: is for a sweep, expected -m before it"),
    (["-m", "search=default", "hydra.sweeper.ntrials=1"], "max_failures, max_retries, storage_timeout, grace_period\n"),
    (["hydra.sweep.dir=mine"], "hydra.sweep.dir=mine: is for a sweep, expected -m before it"),
    (["trainer.nope=1"], "trainer.nope: no such key; trainer accepts epochs, device, precision, threads, "),
    (["hydra.sweeper.params.seed=1"], "hydra.sweeper.params.seed: no such key; +hydra.sweeper.params.seed=… adds"),
    (["-m", "name=a,b"], "name=a,b: expected one value, as name is the whole sweep's"),
    (["-m", "outputs=a,b"], "outputs=a,b: expected one value, as outputs is the whole sweep's"),
    (["-m", "force=true,false"], "force=true,false: expected one value, as force is the whole sweep's"),
    (["-m", "batch_size=0,50"], "batch_size=0: expected a whole number from 1 to"),
    (["-m", "batch_size=50,0", "hydra/launcher=basic"], "batch_size=0: expected a whole number from 1 to"),
    (
        ["-m", "search=quick", "model=choice(layers2)", "batch_size=0"],
        "batch_size=0: expected a whole number from 1 to",
    ),
    (["model=[layers1,layers2]"], "model: expected one option; -m model=OPTION,OPTION trains with each of several"),
    (["model=../../etc/passwd"], "model=../../etc/passwd: no such option, expected one of airbench, layers1"),
    (["model.depth.x=3"], "model.depth.x: no such key"),
    (["optimizer.lr=ünï"], "optimizer.lr=ünï: expected a value that Hydra can read; quote a text"),
    (["data.root=~/x"], """quote a text with special characters: "data.root='~/x'\""""),
    (["batch_size=${nope}"], "batch_size: Interpolation key 'nope' not found"),
    (["outputs=/dev/null"], "outputs=/dev/null: /dev/null is no folder, expected a folder that can be written to"),
    (["trainer.device=cuda:77"], "trainer.device=cuda:77: not on this machine, expected one of auto"),
]


@pytest.fixture
def folders(tmp_path: Path) -> None:
    """Image folders with one fault each, in the working directory."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "a_file").write_text("")
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    for name in ("no_image", "truncated", "text", "one_class"):
        for kind in ("ant", "bee"):
            (tmp_path / name / "train" / kind).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(noise).save(tmp_path / name / "train" / kind / f"{i}.png")
    for file in (tmp_path / "no_image" / "train" / "bee").iterdir():
        file.unlink()
    bad = tmp_path / "truncated" / "train" / "bee" / "0.png"
    bad.write_bytes(bad.read_bytes()[:200])
    (tmp_path / "text" / "train" / "bee" / "0.png").write_text("hello")
    shutil.rmtree(tmp_path / "one_class" / "train" / "bee")


@pytest.mark.parametrize(("words", "names"), MISTAKES, ids=lambda value: " ".join(value) if value else "")
@pytest.mark.usefixtures("folders")
def test_a_mistake_is_answered_in_one_line(
    cifarsweep: Command, small: list[str], tmp_path: Path, words: list[str], names: str
) -> None:
    """On stderr, with exit code 1, no traceback and no half-written run."""
    mine = [word for word in small if not any(w.split("=")[0] == word.split("=")[0] for w in words)]
    if any(word.startswith("data=") for word in words):
        mine = [word for word in mine if not word.startswith("data.num_")]
    if "model=speednet" in words:
        mine = [word for word in mine if not word.startswith("model.")]
    # No proxy at this port: a download fails at once, on any machine.
    done = cifarsweep(*mine, *words, https_proxy="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9")
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert names in done.stderr
    assert not list(tmp_path.glob("**/runs/*-*"))
    assert not list(tmp_path.glob("**/sweeps"))


def test_a_value_that_an_option_brought_is_said_to_be_the_options() -> None:
    error = ValueError("data.subset=5000: expected 1 to 2000")
    words = ["-m", "experiment=depth_study", "study=quick", "data.num_train=4000"]
    assert error_line(error, words) == "data.subset=5000, which study=quick sets: expected 1 to 2000"
    assert error_line(error, [*words, "data.subset=5000"]) == str(error)
    error, words = ValueError("data.val_size=0: expected validation images"), ["-m", "experiment=cifar10_94"]
    assert error_line(error, words) == "data.val_size=0, which experiment=cifar10_94 sets: expected validation images"


def test_values_of_a_sweep_are_answered_with_the_command_that_sweeps(cifarsweep: Command) -> None:
    words = ["model=layers2,layers3", "optimizer.lr=choice(0.1,0.2)", "name=a b"]
    line = cifarsweep(*words).stderr
    expected = "python -m cifarsweep -m model=layers2,layers3 'optimizer.lr=choice(0.1,0.2)' 'name=a b'"
    assert f": {expected}; a list stands in [ ], a text in quotes\n" in line
    line = cifarsweep("model=layers2,layers3", module="cifarsweep.describe").stderr
    assert line == "model=layers2,layers3: expected one value; a list stands in [ ], a text in quotes\n"


@pytest.mark.parametrize(
    ("option", "package", "extra"),
    [("joblib", "joblib", "joblib"), ("ray", "ray", "ray"), ("submitit_slurm", "submitit", "slurm"),
     ("submitit_local", "submitit", "slurm")],
)  # fmt: skip
def test_a_launcher_that_is_not_installed_is_named_with_its_extra(
    cifarsweep: Command, option: str, package: str, extra: str
) -> None:
    if importlib.util.find_spec(f"hydra_plugins.hydra_{package}_launcher"):
        pytest.skip("it is installed")
    done = cifarsweep("-m", f"hydra/launcher={option}", "hydra.launcher.timeout_min=5")
    assert done.returncode == 1
    line = f"hydra/launcher={option}: not installed, expected its package, by pip install -e '.[{extra}]', or one of"
    assert done.stderr.startswith(line)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert any(package in requirement for requirement in project["optional-dependencies"][extra])


def test_a_traceback_is_shown_on_request(cifarsweep: Command) -> None:
    done = cifarsweep("batch_size=0", HYDRA_FULL_ERROR="1")
    assert "Traceback" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize("words", [["--help"], ["--cfg", "job"], ["model=layers9"], ["optimizer.lr=-1"]])
def test_a_first_answer_loads_no_heavy_library(cifarsweep: Command, words: list[str]) -> None:
    """Their imports take seconds; the answer is to take less than one."""
    done = cifarsweep(*words, PYTHONPROFILEIMPORTTIME="1")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert ("hydra" in loaded) == (words != ["--help"])
    assert not loaded & {"torch", "torchvision", "pandas", "matplotlib", "optuna", "numpy"}


def test_help_shows_the_groups_and_their_options(cifarsweep: Command) -> None:
    shown = cifarsweep("--help").stdout
    assert "model: airbench, layers1, layers2, layers3, layers4, layers5, resnet18, speednet" in shown
    assert "python -m cifarsweep -m model=layers2,layers3,layers4" in shown


def test_help_shows_the_options_of_ones_own_folder(cifarsweep: Command, tmp_path: Path) -> None:
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "net.yaml").touch()
    shown = cifarsweep("--config-dir=mine", "--help").stdout
    assert "model: airbench, layers1, layers2, layers3, layers4, layers5, net, resnet18, speednet" in shown


def test_the_second_identical_command_trains_nothing(cifarsweep: Command, small: list[str], tmp_path: Path) -> None:
    first = cifarsweep(*small)
    assert first.returncode == 0, first.stderr
    epochs = [line for line in first.stdout.splitlines() if "epoch" in line and "images/s" in line]
    assert len(epochs) == 2
    (run,) = find(tmp_path / "outputs")
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
    second = cifarsweep(*small)
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before
    assert "trained before, test accuracy" in second.stdout
    assert "images/s" not in second.stdout
    assert second.stderr == ""
    assert sorted(os.listdir(tmp_path)) == ["outputs"]  # nothing of Hydra's own beside the results


def test_a_sweep_ends_with_a_report_and_best_first(cifarsweep: Command, small: list[str], tmp_path: Path) -> None:
    done = cifarsweep("-m", *small, "model=layers1,layers2", "seed=0,1", "name=depth")
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "outputs" / "sweeps" / "depth"
    names = {path.name for path in (sweep / "report").iterdir()}
    assert names >= {"runs.csv", "summary.csv", "depth_vs_accuracy.png", "learning_curves.png"}
    assert names >= {"accuracy_layers1.png", "accuracy_layers2.png"}
    assert len((sweep / "report" / "runs.csv").read_text().splitlines()) == 5
    assert len((sweep / "report" / "summary.csv").read_text().splitlines()) == 3
    plan = json.loads((sweep / "sweep.json").read_text())
    assert len(plan["jobs"]) == 4
    assert {job["run"] for job in plan["jobs"].values()} == {run.name for run in find(tmp_path / "outputs")}
    assert "report" in done.stdout.splitlines()[-1]


def test_the_basic_launcher_and_a_relative_outputs_folder_work(cifarsweep: Command, small: list[str]) -> None:
    words = [word for word in small if not word.startswith("outputs=")]
    done = cifarsweep("-m", *words, "hydra/launcher=basic", "seed=0,1", "name=plain", "outputs=results")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("after 2 epochs") == 2


@pytest.mark.parametrize("launcher", ["basic", "local"])
def test_hydras_own_sweeper_records_how_many_jobs_there_are(
    cifarsweep: Command, small: list[str], tmp_path: Path, launcher: str
) -> None:
    words = ["hydra/sweeper=basic", f"hydra/launcher={launcher}", "trainer.epochs=1", "seed=0,1", "name=plain"]
    done = cifarsweep("-m", *small, *words, "schedule=glob(one*)")
    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "outputs" / "sweeps" / "plain"
    assert cifarsweep("--once", str(sweep), module="cifarsweep.watch").stdout.splitlines()[-1].startswith("plain: 2/2")


@pytest.mark.slow
def test_a_failed_job_is_shown_and_the_others_go_on(cifarsweep: Command, small: list[str], tmp_path: Path) -> None:
    done = cifarsweep("-m", *small, "batch_size=50,501", "name=half")
    assert done.returncode == 1
    assert "batch_size=501: expected 1 to 500" in done.stderr
    assert "1 of 2 jobs failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "outputs" / "sweeps" / "half" / "report" / "runs.csv").exists()


@pytest.mark.slow
def test_a_sweep_without_any_run_has_a_report_that_says_why(cifarsweep: Command, tmp_path: Path) -> None:
    done = cifarsweep("-m", "model=layers2,layers3", "data=image_folder", "data.root=nowhere", "name=none")
    assert done.returncode == 1
    assert "2 without a run: data.root=nowhere: expected a folder" in done.stdout
    page = tmp_path / "outputs" / "sweeps" / "none" / "report" / "index.html"
    assert done.stdout.splitlines()[-1] == f"Report: {page}"
    assert "Jobs that ended before they had a run" in page.read_text(encoding="utf-8")


def test_a_sweep_that_never_began_has_no_report(cifarsweep: Command, tmp_path: Path) -> None:
    done = cifarsweep("-m", "model=layers2,layers3", "batch_size=0", "name=none")
    assert (done.returncode, done.stdout) == (1, "")
    assert not (tmp_path / "outputs" / "sweeps" / "none" / "report").exists()


def test_a_diverged_job_does_not_fail_the_sweep(cifarsweep: Command, small: list[str]) -> None:
    done = cifarsweep(
        "-m", *small, "optimizer=sgd", "model.norm=none", "optimizer.lr=0.01,1e30", "name=div", "hydra/launcher=basic"
    )
    assert done.returncode == 0, done.stderr
    assert "diverged in epoch 1" in done.stdout


def test_a_sweep_with_a_bad_value_is_refused_before_it_trains(
    cifarsweep: Command, small: list[str], tmp_path: Path
) -> None:
    done = cifarsweep("-m", *small, "optimizer.lr=0.1,-1")
    assert done.returncode == 1
    assert done.stderr == "optimizer.lr=-1: expected a number above 0, up to 1e38\n"
    assert not (tmp_path / "outputs" / "runs").exists()


@pytest.mark.slow
def test_the_console_script_finds_a_model_in_the_current_folder(tmp_path: Path, small: list[str]) -> None:
    """As `python -m cifarsweep` does, in a sweep's workers as well."""
    (tmp_path / "mine.py").write_text("from cifarsweep.models import LayersNet\n\nclass Net(LayersNet):\n    pass\n")
    script = "import sys; from cifarsweep.__main__ import main; sys.path.remove(''); sys.exit(main())"  # as pip's does
    words = [*small, "model._target_=mine.Net", "trainer.epochs=1", "-m", "seed=0,1", "name=own"]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", script, *words], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_shown_with_those_of_the_libraries(cifarsweep: Command) -> None:
    done = cifarsweep("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("cifarsweep ")
    assert f", torch {importlib.metadata.version('torch')}, " in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cifarsweep model=layers", {f"model=layers{depth}" for depth in range(1, 6)}),
        ("cifarsweep optimizer.l", {"optimizer.lr="}),
    ],
)
def test_bash_completes_options_and_keys(tmp_path: Path, line: str, expected: set[str]) -> None:
    """As README installs it, of the command that pip makes."""
    (install,) = re.findall(r"`(eval \S+ -sc install=bash\)\")`", (REPOSITORY / "README.md").read_text())
    program = tmp_path / "cifarsweep"
    program.write_text(f"#!{sys.executable}\nimport sys\nfrom cifarsweep.__main__ import main\nsys.exit(main())\n")
    program.chmod(0o755)
    code = f"""{install}; COMP_LINE='{line}' COMP_POINT={len(line)} COMP_CWORD=1; export COMP_LINE COMP_POINT
hydra_bash_completion; printf '%s\\n' "${{COMPREPLY[@]}}" """
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(["bash", "-c", code], env=env, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    assert {*done.stdout.split()} == expected, done.stderr
