"""Files of a stranger's folder, read and written one by one: links, FIFOs, sizes, depths, aliases and formulas."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cifarsweep.results import files, mosaic, records

ANY_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXTS = st.text() | st.builds(
    str.__add__, st.sampled_from(["=", "+", "-", "@", "\t", "\r", "\n", "'", "'="]), st.text()
)
CELLS = TEXTS | st.integers() | st.floats(allow_nan=False) | st.booleans()


# what is in a file's place


def link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, outside: Path) -> None:
    path.mkdir()


READERS: dict[str, Callable[[Path], Any]] = {
    "json": files.read_json,
    "yaml": files.read_yaml,
    "csv": lambda path: list(files.read_rows(path)),
    "bytes": files.read_bytes,
    "mosaic": mosaic.read,
    "metrics.csv": lambda path: records.read_metrics(path.parent),
    "layers.csv": lambda path: records.read_layers(path.parent),
    "result.json": lambda path: records.RunResult.read(path.parent),
    "config.yaml": lambda path: records.read_config(path.parent),
}
APPENDERS: dict[str, Callable[[Path], Any]] = {
    "append": lambda path: files.opener(str(path), os.O_APPEND | os.O_CREAT | os.O_RDWR),
    "write": lambda path: files.opener(str(path), os.O_TRUNC | os.O_CREAT | os.O_WRONLY),
}


@pytest.mark.parametrize("what", [link, fifo, folder])
@pytest.mark.parametrize("name", [*READERS, *APPENDERS])
def test_what_is_no_file_is_named_and_neither_read_nor_written(
    tmp_path: Path, name: str, what: Callable[[Path, Path], None]
) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.write_text("secret")
    inside.mkdir()
    what(inside / name, outside)
    with pytest.raises(files.Corrupt, match=name):
        {**READERS, **APPENDERS}[name](inside / name)
    assert outside.read_text() == "secret"


@pytest.mark.parametrize("name", [*READERS, *APPENDERS])
def test_nothing_is_reached_through_a_folder_that_is_a_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / name).write_text("secret")
    (tmp_path / "inside").symlink_to(tmp_path / "outside")
    with pytest.raises(files.Corrupt, match="inside: a symbolic link, expected a folder"):
        {**READERS, **APPENDERS}[name](tmp_path / "inside" / name)
    for write in (files.write_json, files.write_yaml, lambda path, value: files.write_csv(path, value, [])):
        with pytest.raises(files.Corrupt, match="expected a folder"):
            write(tmp_path / "inside" / name, [])
    for change in (files.remove, files.set_aside):
        with pytest.raises(files.Corrupt, match="expected a folder"):
            change(tmp_path / "inside" / name)
    assert {path.name: path.read_text() for path in (tmp_path / "outside").iterdir()} == {name: "secret"}


def test_writing_takes_the_place_of_a_link_and_leaves_alone_where_it_leads(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.write_text("secret")
    inside.mkdir()
    (inside / "a.json").symlink_to(outside)
    files.write_json(inside / "a.json", 1)
    assert not (inside / "a.json").is_symlink()
    (inside / "b.json").symlink_to(outside)
    files.set_aside(inside / "b.json")
    files.remove(inside / "b.json.corrupt")
    assert [path.name for path in inside.iterdir()] == ["a.json"]
    assert outside.read_text() == "secret"


def test_a_folder_is_made_only_where_no_link_is_on_the_way(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "trials").symlink_to(tmp_path / "outside")
    with pytest.raises(files.Corrupt, match="trials: a symbolic link"):
        files.make_folder(tmp_path / "sweep" / "trials" / "a" / "1", below=tmp_path / "sweep")
    assert not list((tmp_path / "outside").iterdir())
    assert files.make_folder(tmp_path / "sweep" / "others" / "1", below=tmp_path / "sweep").is_dir()


# sizes


@pytest.mark.parametrize("name", [name for name in READERS if "." in name or name in ("json", "yaml", "csv", "mosaic")])
def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    os.truncate(tmp_path / name, 2**40)
    with pytest.raises(files.Corrupt, match=f"{name}: 1,099,511,627,776 bytes, expected"):
        READERS[name](tmp_path / name)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB, "expected no aliases"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n", "expected no aliases"),
        ("[" * 60_000, ""),
        ("{a: " * 500 + "}" * 500, "more than 64 levels"),
        ("a: 2020-01-01", "a value of type date"),
        ("a: !!binary aaaa", "a value of type bytes"),
        ("a: !!set {b}", "a value of type set"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: 0x" + "f" * 10_000, "a number of 40,000 bits"),
        ("a: " + "9" * 10_000, "4300 digits"),
        ("a: " + ":".join(["59"] * 20_000), "bits"),
        ("a: \0b", ""),
    ],
    ids=range(12),
)
def test_yaml_that_is_no_plain_configuration_is_refused_at_once(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(files.Corrupt, match=f"config.yaml: not plain values in YAML.*{reason}"):
        files.read_yaml(tmp_path / "config.yaml")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@ANY_FOLDER
@given(PLAIN)
def test_yaml_comes_back_and_has_no_aliases(tmp_path: Path, value: Any) -> None:
    twice = {"a": value, "b": value, "run": {"c": value}}
    files.write_yaml(tmp_path / "a.yaml", twice)
    assert files.read_yaml(tmp_path / "a.yaml") == twice
    assert files.read_yaml(tmp_path / "a.yaml", before="run:") == {"a": value, "b": value}


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_nested_a_thousand_times_is_refused(tmp_path: Path, opening: str) -> None:
    for levels in (65, 900, 100_000):
        (tmp_path / "a.json").write_text(opening * levels + "1" + {"[": "]"}.get(opening, "}") * levels)
        with pytest.raises(files.Corrupt, match=r"a\.json: not a JSON file"):
            files.read_json(tmp_path / "a.json")


def test_a_picture_of_billions_of_pixels_is_refused(tmp_path: Path) -> None:
    about = PngInfo()
    about.add_itxt("cifarsweep", '{"names": ["a"], "columns": 1}')
    Image.new("1", (9_000, 9_000)).save(tmp_path / "classes.png", pnginfo=about)
    with pytest.raises(files.Corrupt, match="9000×9000 pixels, expected 67,108,864 or fewer"):
        mosaic.read(tmp_path / "classes.png")


def test_rows_of_more_classes_than_a_picture_may_have_are_left_out(tmp_path: Path) -> None:
    images = np.broadcast_to(np.uint8(0), (2000, 10, 64, 64, 3))
    mosaic.Mosaic([str(number) for number in range(2000)], images).write(tmp_path / "classes.png")
    read = mosaic.read(tmp_path / "classes.png")
    assert read is not None
    assert len(read.names) == len(read.images) == 1638


# formulas


@ANY_FOLDER
@given(st.lists(CELLS, min_size=2, max_size=2))
def test_no_text_in_a_csv_file_is_a_formula_and_every_text_comes_back(tmp_path: Path, row: list[Any]) -> None:
    files.write_csv(tmp_path / "a.csv", ["=1+1", "b"], [row])
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    for cell in cells:
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) or float(cell) is not None
    header, *back = files.read_rows(tmp_path / "a.csv")
    assert header == ["=1+1", "b"]
    texts = [value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value for value in row]
    assert back == [[str(value) for value in texts]]


@pytest.mark.parametrize("number", ["-1", "+5", "-0.5e-3", "-.5", "-inf", -1, -0.5])
def test_a_number_is_written_as_it_is(number: object) -> None:
    assert files.cell(number) is number
