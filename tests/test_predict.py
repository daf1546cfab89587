"""Prediction with a trained run, and files that are none."""

from __future__ import annotations

import csv
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Command
from PIL import Image

from cifarsweep import classifier, models, predict


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A network that looks at the mean colour: red images are "rose", blue ones "sky"."""
    arguments = {"depth": 1, "width": 2, "norm": "none", "hidden": 4, "image_size": 8, "num_classes": 2}
    net = models.LayersNet(**arguments)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        convolution, first, last = net[0][0], net[2], net[5]
        convolution.weight[0, 0, 1, 1] = convolution.weight[1, 2, 1, 1] = 1
        first.weight[0, :16], first.weight[1, 16:] = 1, 1
        last.weight[0, 0] = last.weight[1, 1] = 1
    content = {
        "target": "cifarsweep.models.LayersNet",
        "arguments": arguments,
        "state_dict": net.state_dict(),
        "class_names": ["rose", "sky"],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
    }
    run = tmp_path / "run"
    run.mkdir()
    torch.save(content, run / "model.pt")
    (run / "result.json").write_text('{"status": "complete"}')  # without digests, as an earlier version wrote it
    Image.new("RGB", (40, 20), (250, 0, 20)).save(tmp_path / "red.png")
    Image.new("RGB", (20, 40), (0, 0, 250)).save(tmp_path / "blue.jpg")
    return run


def test_the_probabilities_are_the_softmax_of_the_scores(run_dir: Path) -> None:
    model = classifier.load(run_dir)
    images = [run_dir.parent / name for name in ("red.png", "blue.jpg")]
    (_, of_red), (_, of_blue) = predict.classify(model, images)
    assert isinstance(of_red, list)
    assert isinstance(of_blue, list)
    red, blue = dict(of_red), dict(of_blue)
    assert red["rose"] > 0.99
    assert sum(red.values()) == pytest.approx(1)
    assert blue["sky"] > 0.99


def test_the_command_names_the_class_of_each_image(run_dir: Path, cifarsweep: Command) -> None:
    done = cifarsweep("run", "red.png", "blue.jpg", module="cifarsweep.predict")
    assert done.stdout.splitlines() == ["red.png: rose 100.0%, sky 0.0%", "blue.jpg: sky 100.0%, rose 0.0%"]
    assert done.returncode == 0


def test_folders_and_patterns_stand_for_their_images(run_dir: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "album" / "old").mkdir(parents=True)
    for number in range(5):
        Image.new("RGB", (9, 9), (0, 0, 250)).save(tmp_path / "album" / "old" / f"{number}.png")
    words = [str(run_dir), str(tmp_path / "album"), str(tmp_path / "*.png"), "--batch-size", "2", "--top", "1"]
    assert predict.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        *(f"{tmp_path}/album/old/{number}.png: sky 100.0%" for number in range(5)),
        f"{tmp_path}/red.png: rose 100.0%",
    ]


def test_a_table_has_a_row_for_each_class_that_is_shown(run_dir: Path, tmp_path: Path, capsys: Any) -> None:
    assert predict.main([str(run_dir), str(tmp_path / "red.png"), "--csv", "--top", "5"]) == 0
    header, *rows = csv.reader(capsys.readouterr().out.splitlines())
    assert header == ["image", "rank", "class", "probability"]
    assert [row[:3] for row in rows] == [
        [str(tmp_path / "red.png"), "1", "rose"],
        [str(tmp_path / "red.png"), "2", "sky"],
    ]
    assert sum(float(row[3]) for row in rows) == pytest.approx(1)


def test_an_image_that_cannot_be_read_does_not_keep_others_waiting(run_dir: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "broken.png").write_bytes(b"none")
    names = [str(tmp_path / name) for name in ("broken.png", "missing.png", "red.png", "red.png")]
    assert predict.main([str(run_dir), *names]) == 1
    said = capsys.readouterr()
    assert said.out == 2 * f"{tmp_path}/red.png: rose 100.0%, sky 0.0%\n"
    assert len(said.err.splitlines()) == 2


def test_a_class_name_does_not_speak_to_the_terminal(run_dir: Path, cifarsweep: Command) -> None:
    content = torch.load(run_dir / "model.pt", weights_only=True)
    torch.save({**content, "class_names": ["\x1b[2Jrose\n", "../sky 🌤"]}, run_dir / "model.pt")
    done = cifarsweep("run", "red.png", module="cifarsweep.predict")
    assert done.stdout == "red.png: �[2Jrose� 100.0%, ../sky 🌤 0.0%\n"


def test_a_target_outside_our_models_is_refused(run_dir: Path) -> None:
    content = torch.load(run_dir / "model.pt", weights_only=True)
    for target in ("os.system", "cifarsweep.models.nn", "cifarsweep.models._channels_last", "print"):
        torch.save({**content, "target": target}, run_dir / "model.pt")
        with pytest.raises(ValueError, match="expected one of cifarsweep"):
            classifier.load(run_dir)


def test_a_pickle_is_never_run(run_dir: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return Path.touch, (tmp_path / "owned",)  # type: ignore[return-value]

    (run_dir / "model.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(ValueError, match="not a model file"):
        classifier.load(run_dir)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "missing.png"], "missing.png"),
        (["run", "no*.png"], "no*.png: no file has such a name"),
        (["run", "run"], "run: no image in it, expected files ending in .bmp .gif"),
        (["run", "red.png", "--top", "0"], "--top 0: expected 1 or more"),
        (["run", "run/model.pt"], "run/model.pt: not an image that can be read"),
        ([".", "red.png"], "no result.json in it, expected the directory of a complete run; the command that trained"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_line(
    run_dir: Path, cifarsweep: Command, words: list[str], message: str
) -> None:
    done = cifarsweep(*words, module="cifarsweep.predict")
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
