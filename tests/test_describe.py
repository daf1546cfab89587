"""`python -m cifarsweep.describe`: what it prints and draws, and its answer to mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Command

from cifarsweep import describe


def test_it_prints_the_layers_and_draws_network_and_images(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert describe.main(small) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "shapes: 500 training, 100 validation and 200 test images of 32×32 pixels, 10 classes"
    assert lines[1].split() == ["layer", "output", "parameters", "multiply-adds"]
    assert lines[2].split() == ["Conv2d", "3×3", "4×32×32", "108", "110,592"]
    assert lines[15].split() == ["total", "67,374", "251,136"]
    folder = tmp_path / "outputs" / "describe" / "layers2-shapes"
    assert lines[16:] == [str(folder / f"{name}.png") for name in ("network", "classes", "augmentation")]
    assert {path.suffix for path in folder.iterdir()} == {".png", ".svg"}
    assert not (tmp_path / "outputs" / "runs").exists()


def test_without_augmentation_there_is_no_picture_of_it(small: list[str], tmp_path: Path) -> None:
    assert describe.main([*small, "data.augment=null", "--output", str(tmp_path / "here")]) == 0
    assert {path.name for path in (tmp_path / "here").glob("*.png")} == {"network.png", "classes.png"}


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("model=layers9", "model=layers9: no such option, expected one of airbench, layers1, "),
        ("model=3", "model=3: no such option, expected one of airbench, layers1, "),
        ("model.depht=2", "model.depht: no such key; model accepts depth, width, norm, dropout, match; "),
        ("model.width=0", "model.width=0: expected a whole number from 1 to 65536"),
        ("model.depth=9", "model.depth=9: expected 1 to 5"),
    ],
)
def test_a_wrong_value_is_answered_in_one_line(
    small: list[str], capsys: pytest.CaptureFixture[str], word: str, message: str
) -> None:
    assert describe.main([*small, word]) == 1
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith(message)
    assert streams.err.count("\n") == 1


def test_a_mistyped_option_is_answered_in_one_line(cifarsweep: Command) -> None:
    done = cifarsweep("--outptu", "x", module="cifarsweep.describe")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "unrecognized arguments: --outptu; --help shows what is accepted\n"


def test_it_takes_options_of_ones_own_folder(
    small: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "it's mine, \\ yes"
    (mine / "model").mkdir(parents=True)
    (mine / "model" / "tiny.yaml").write_text("defaults: [layers1, _self_]\nhidden: 3\n")
    words = [word for word in small if word != "model=layers2"]
    assert describe.main([*words, "model=tiny", f"--config-dir={mine}", "--output", str(tmp_path / "drawn")]) == 0
    assert ["Linear", "3"] in [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert describe.main(["-cd", "nowhere"]) == 1
    assert capsys.readouterr().err.startswith("nowhere: no such folder, expected as --config-dir a folder that")
