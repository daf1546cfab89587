"""Image files, class folders and cache files as anybody may leave them, generated, against slow models of the right."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageSequence

from cifarsweep.data import cache, read_image
from cifarsweep.data.class_folders import IMAGE_ENDINGS, SYSTEM_FOLDERS, class_files

ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
Pixels = NDArray[np.float64]
SIDES = st.integers(1, 9)


def on_white(rgb: Any, alpha: Any) -> Pixels:
    """Both from 0 to 1."""
    return np.asarray(rgb * alpha + (1 - alpha))


def assert_pixels(file: Path, expected: Pixels, off: float) -> None:
    """`expected` (side, side, 3) has values from 0 to 1; `off` of 255 may be lost by rounding or by a cut to 8 bits."""
    read = read_image(file, expected.shape[0]).astype(float)
    assert np.abs(read - 255 * expected).max() <= off


# PNG, written here by its specification


@st.composite
def pngs(draw: st.DrawFn) -> tuple[bytes, Pixels]:
    """A file of any colour type and depth, with a transparent colour or without, and what it shows."""
    kind, bits = draw(
        st.sampled_from([(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (4, 8), (4, 16), (6, 8), (6, 16)])
    )
    side, most = draw(SIDES), 2**bits - 1
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    samples = random.integers(0, most + 1, (side, side, channels))
    shown = samples / most
    alpha: Any = shown[..., -1:] if kind in (4, 6) else np.ones((side, side, 1))
    colour = shown[..., : 1 if kind in (0, 4) else 3]
    transparent = b""
    if kind in (0, 2) and draw(st.booleans()):
        key = samples[0, 0]
        transparent = chunk(b"tRNS", struct.pack(f">{channels}H", *key))
        alpha = (samples != key).any(axis=2, keepdims=True).astype(float)
    header = struct.pack(">IIBBBBB", side, side, bits, kind, 0, 0, 0)
    rows = b"".join(b"\0" + packed(row.ravel(), bits) for row in samples)
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + transparent + end, on_white(colour, alpha).repeat(
        3 // colour.shape[2], axis=2
    )


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def packed(row: NDArray[np.int64], bits: int) -> bytes:
    if bits == 16:
        return row.astype(">u2").tobytes()
    text = "".join(f"{value:0{bits}b}" for value in row)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


@ONE_FOLDER
@given(pngs())
def test_a_png_of_any_depth_and_transparency_shows_what_its_specification_says(
    tmp_path: Path, png: tuple[bytes, Pixels]
) -> None:
    content, expected = png
    (tmp_path / "x.png").write_bytes(content)
    bits, kind = content[24], content[25]
    if kind == 2 and bits == 16 and b"tRNS" in content:
        with pytest.raises(ValueError, match="a transparent colour of 16 bits a channel; expected"):
            read_image(tmp_path / "x.png", 8)
        return
    assert_pixels(tmp_path / "x.png", expected, off=2.5 if bits == 16 and kind in (4, 6) else 1)


# TIFF, written here


@st.composite
def tiffs(draw: st.DrawFn) -> tuple[bytes, Pixels, int, int]:
    """A grey file of any depth, of whole numbers (1), numbers with a sign (2) or floats (3)."""
    sample_format = draw(st.sampled_from([1, 1, 1, 2, 3]))
    bits = draw(st.sampled_from({1: [1, 2, 4, 8, 12, 16, 32], 2: [8, 16, 32], 3: [32, 64]}[sample_format]))
    order = draw(st.sampled_from("<>" if bits != 12 else "<"))
    white_is_zero = bits < 32 and bits != 12 and sample_format == 1 and draw(st.booleans())
    side = draw(SIDES.map(lambda n: 2 * n))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    samples = random.integers(0, 2**bits, (side, side), dtype=np.uint64)
    if bits < 16:
        pixels = b"".join(packed(row.astype(np.int64), bits) for row in samples)
    else:
        pixels = samples.astype(f"{order}u{bits // 8}").tobytes()
    numbers = {
        256: side,
        257: side,
        258: bits,
        259: 1,
        262: int(not white_is_zero),
        277: 1,
        278: side,
        279: len(pixels),
    }
    entries = sorted({**numbers, 273: 8 + 2 + 10 * 12 + 4, 339: sample_format}.items())
    directory = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in entries)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}IH", 8, len(entries))
    shown = samples / (2**bits - 1)
    expected = (1 - shown if white_is_zero else shown)[..., None].repeat(3, axis=2)
    return head + directory + struct.pack(f"{order}I", 0) + pixels, expected, bits, sample_format


@ONE_FOLDER
@given(tiffs())
def test_a_grey_tiff_of_any_depth_is_scaled_by_its_range_or_refused_by_name(
    tmp_path: Path, tiff: tuple[bytes, Pixels, int, int]
) -> None:
    content, expected, bits, sample_format = tiff
    (tmp_path / "x.tif").write_bytes(content)
    if sample_format == 1 and bits <= 16:
        try:
            assert_pixels(tmp_path / "x.tif", expected, off=1)
        except Image.UnidentifiedImageError:  # a combination that Pillow does not read
            assert content.startswith(b"MM")
            assert bits == 16
        return
    with pytest.raises(
        (ValueError, Image.UnidentifiedImageError), match=r"mode (F|I|L), .* expected 8 or 16|cannot id"
    ):
        read_image(tmp_path / "x.tif", 8)


# whatever Pillow writes

Image.init()
MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I", "F"]
MODES += ["I;16", "I;16L", "I;16B"]
NO_PIXELS = {"PDF", "EPS", "PALM", "GRIB", "HDF5", "BUFR", "WMF"}
"""Formats that Pillow writes and does not read, or that a stub or a program stands behind."""


def random_image(mode: str, side: int, random: np.random.Generator) -> Image.Image:
    num_bytes = len(Image.new(mode, (side, side)).tobytes())
    image = Image.frombytes(mode, (side, side), random.bytes(num_bytes))
    if mode in ("P", "PA"):
        image.putpalette(random.bytes(768))
    return image


def truth(file: Path) -> Pixels | str:
    """What the file shows, by arithmetic of its own on the numbers in it; or how it is refused."""
    with Image.open(file) as image:
        image.load()
        mode, of_format = image.mode, image.format
        raw = np.asarray(image).astype(float)
        palette = np.array(image.getpalette("RGB") or [0] * 768).reshape(-1, 3) if mode in ("P", "PA") else None
        transparent = image.info.get("transparency")
    grey = raw[..., None] if raw.ndim == 2 else raw
    if mode in ("F", "LAB") or (mode == "I" and of_format != "PPM"):
        return f"mode {mode}, "
    if palette is not None:
        index = grey[..., 0].astype(int)
        alpha = grey[..., 1:] / 255 if mode == "PA" else np.ones((*index.shape, 1))
        if isinstance(transparent, int):
            alpha = (index != transparent).astype(float)[..., None]
        elif transparent is not None:
            table = np.array(list(transparent) + [255] * (256 - len(transparent)))
            alpha = table[index][..., None] / 255
        return on_white(np.vstack([palette, np.zeros((256, 3))])[index] / 255, alpha)
    ranges = {"1": 1, "I": 65535, "I;16": 65535, "I;16L": 65535, "I;16B": 65535}
    shown = grey / ranges.get(mode, 255)
    if mode == "CMYK":
        return np.asarray((1 - shown[..., :3]) * (1 - shown[..., 3:]))
    if mode == "YCbCr":  # ITU-R BT.601, as JPEG has it
        y, cb, cr = shown[..., 0], shown[..., 1] - 128 / 255, shown[..., 2] - 128 / 255
        return np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], axis=2).clip(0, 1)
    if mode == "RGBa":
        return np.asarray((shown[..., :3] + 1 - shown[..., 3:]).clip(0, 1))
    if mode in ("LA", "RGBA"):
        shown = on_white(shown[..., :-1], shown[..., -1:])
    elif transparent is not None:
        key = np.atleast_1d(transparent) / (255 if mode != "I;16" else 65535)
        shown = on_white(shown, (np.abs(shown - key) > 1e-9).any(axis=2, keepdims=True).astype(float))
    return shown[..., :3] if shown.shape[2] >= 3 else shown.repeat(3, axis=2)


@functools.cache
def written_formats() -> list[tuple[str, str]]:
    """The formats and modes in which Pillow writes here what it reads."""
    found = []
    for of_format, mode in itertools.product(sorted(set(Image.SAVE) & set(Image.OPEN) - NO_PIXELS), MODES):
        with contextlib.suppress(Exception), io.BytesIO() as file:
            Image.new(mode, (16, 16)).save(file, of_format)
            with Image.open(file) as image:
                image.load()
                found.append((of_format, mode))
    return found


@ONE_FOLDER
@given(
    st.deferred(lambda: st.sampled_from(written_formats())), st.integers(1, 20), st.integers(0, 2**32), st.booleans()
)
def test_what_pillow_writes_of_any_mode_in_any_format_is_shown_or_refused_by_name(
    tmp_path: Path, form: tuple[str, str], side: int, seed: int, transparent: bool
) -> None:
    (of_format, mode), random = form, np.random.default_rng(seed)
    options = {"transparency": int(random.integers(256))} if transparent and mode in ("P", "L") else {}
    file = tmp_path / "x.image"
    try:
        random_image(mode, side, random).save(file, of_format, **options)
        expected = truth(file)
    except Exception:  # of this size Pillow does not read what it wrote
        assume(False)
        return
    if isinstance(expected, str):
        with pytest.raises(ValueError, match=f"^{expected}"):
            read_image(file, side)
    else:
        assume(expected.shape[0] == expected.shape[1])
        assert_pixels(file, expected, off=2)


@pytest.mark.parametrize("of_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_shown(tmp_path: Path, of_format: str) -> None:
    first, second = Image.new("RGB", (8, 8), (200, 30, 10)), Image.new("RGB", (8, 8), (0, 0, 255))
    lossless = {"lossless": True} if of_format == "WEBP" else {}
    first.save(tmp_path / "x", of_format, save_all=True, append_images=[second], **lossless)
    with Image.open(tmp_path / "x") as image:
        assert len(list(ImageSequence.Iterator(image))) == 2
    assert_pixels(tmp_path / "x", np.full((8, 8, 3), [200, 30, 10]) / 255, off=0)


def test_what_is_no_image_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    (tmp_path / "program.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{} loop\n")
    with pytest.raises(ValueError, match="not a file"):
        read_image(tmp_path / "fifo.png", 8)
    with pytest.raises(ValueError, match="EPS is a program"):
        read_image(tmp_path / "program.png", 8)
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path, 8)


# which files belong to a class

SHOWN = ["a.png", "b.JPG", "c.tiff", "猫.png", "x.png", "inner", "more.png", "~", "caf\u00e9"]
HIDDEN = [".a.png", "._b.png", ".ipynb_checkpoints", "a.png~", "~b.png", "old~", "Thumbs.db", "@eaDir", "__MACOSX"]
OTHER = ["notes.txt", "desktop.ini", "a.png.part", "png"]
Tree = dict[str, Any]
"""Names and what they are: a tree, "file", "fifo", or the place that a link leads to."""

LEAVES = st.sampled_from(
    ["file", "file", "file", "fifo", "->.", "->..", "->../..", "->inner", "->a.png", "->/elsewhere"]
)
NAMES = st.sampled_from([*SHOWN, *HIDDEN, *OTHER, *sorted(SYSTEM_FOLDERS)])
TREES = st.recursive(
    st.dictionaries(NAMES, LEAVES, max_size=5),
    lambda inner: st.dictionaries(NAMES, inner | LEAVES, max_size=5),
    max_leaves=25,
)


def make(folder: Path, tree: Tree, elsewhere: Path) -> None:
    folder.mkdir(parents=True)
    for name, what in tree.items():
        path = folder / name
        if isinstance(what, dict):
            make(path, what, elsewhere)
        elif what == "fifo":
            os.mkfifo(path)
        elif what == "file":
            path.write_text(str(path))
        else:
            path.symlink_to(elsewhere if what == "->/elsewhere" else what[2:])


def hidden(name: str) -> bool:
    return name[0] in ".~" or name[-1] == "~" or name.lower() in SYSTEM_FOLDERS


def belongs(folder: Path) -> set[Path]:
    """The real paths of a class's images: all that some path without a hidden part leads to."""
    real: set[Path] = set()

    def look(path: Path, above: set[str]) -> None:
        if path.is_dir() and os.path.realpath(path) not in above:
            for entry in path.iterdir():
                if not hidden(entry.name):
                    look(entry, above | {os.path.realpath(path)})
        elif path.suffix.lower() in IMAGE_ENDINGS and (path.is_file() or (path.is_symlink() and not path.exists())):
            real.add(Path(os.path.realpath(path)))

    look(folder, set(map(str, Path(os.path.realpath(folder)).parents)))
    return real


@ONE_FOLDER
@given(TREES, TREES)
def test_each_image_that_is_no_hidden_or_system_entry_belongs_to_its_class_once(
    tmp_path: Path, tree: Tree, linked: Tree
) -> None:
    shutil.rmtree(tmp_path)
    make(tmp_path / "elsewhere" / "linked", linked, tmp_path / "elsewhere" / "linked")
    make(tmp_path / "train" / "class", tree, tmp_path / "elsewhere" / "linked")
    expected = belongs(tmp_path / "train" / "class")
    if not expected:
        with pytest.raises(ValueError, match=r"no image in .*class, expected files ending in \.bmp"):
            class_files(tmp_path / "train")
        return
    (found,) = class_files(tmp_path / "train").values()
    assert len(found) == len(expected)
    assert {Path(os.path.realpath(path)) for path in found} == expected
    assert found == sorted(found)
    inside = tmp_path / "train" / "class"
    for path in expected:  # an image keeps its own name, if that is an image's, whatever links to it
        if path.is_file() and path.is_relative_to(inside) and path.suffix.lower() in IMAGE_ENDINGS:
            assert path in found or any(map(hidden, path.relative_to(inside).parts))


# cache files


def entry(folder: Path) -> Path:
    """A decoded data set of two classes; the folder of its files."""

    def decode(writer: cache.Writer) -> None:
        writer.class_names = ["ant", "bee"]
        random = np.random.default_rng(0)
        for part, num in (("train", 6), ("test", 4)):
            images, labels = writer.split(part, num, 8)
            images[:], labels[:] = random.integers(0, 256, images.shape), np.arange(num) % 2

    cache.cached(folder, "made", (), decode)
    (made,) = (path for path in (folder / "decoded").iterdir() if path.is_dir() and path.suffix != ".corrupt")
    return made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return entry(tmp_path_factory.mktemp("made"))


@contextlib.contextmanager
def restored(folder: Path) -> Iterator[Path]:
    """The folder, whose files are at the end what they were before."""
    before = {path: path.read_bytes() for path in folder.iterdir()}
    try:
        yield folder
    finally:
        for path, content in before.items():
            path.write_bytes(content)


@functools.cache
def as_written(made: Path) -> cache.Decoded:
    """A copy in memory, as the entry's tensors are maps of its files, which change."""
    written = cache._open(made)
    assert written is not None
    tensors = {key: value.clone() for key, value in vars(written).items() if isinstance(value, torch.Tensor)}
    return dataclasses.replace(written, **tensors)


def assert_unchanged_or_not_believed(made: Path, written: cache.Decoded) -> None:
    read = cache._open(made)
    if read is not None:
        for field in dataclasses.fields(written):
            before, now = getattr(written, field.name), getattr(read, field.name)
            same = torch.equal(before, now) if isinstance(before, torch.Tensor) else repr(before) == repr(now)
            assert same, field.name


FILES = st.sampled_from(["meta.json", *(f"{name}.npy" for name in cache.ARRAYS)])


@given(FILES, st.integers(0, 127) | st.integers(0, 2**20), st.integers(0, 255))
def test_a_damaged_byte_of_any_cache_file_is_noticed_or_changes_nothing(
    made: Path, name: str, offset: int, byte: int
) -> None:
    written = as_written(made)
    with restored(made):
        content = bytearray((made / name).read_bytes())
        content[offset % len(content)] = byte
        (made / name).write_bytes(content)
        assert_unchanged_or_not_believed(made, written)


@given(FILES, st.binary(max_size=200), st.integers(0, 2**20))
def test_a_cut_or_longer_cache_file_is_noticed_or_changes_nothing(
    made: Path, name: str, added: bytes, cut: int
) -> None:
    written = as_written(made)
    with restored(made):
        content = (made / name).read_bytes()
        (made / name).write_bytes(content[: cut % len(content)] + added)
        assert_unchanged_or_not_believed(made, written)


def forge(folder: Path, arrays: dict[str, Any], **changed: Any) -> None:
    """Writes these arrays and values with digests that agree, as somebody could who knows how they are made."""
    meta = json.loads((folder / "meta.json").read_text())
    meta.pop("sha256")
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    all_arrays = {name: np.load(folder / f"{name}.npy") for name in cache.ARRAYS}
    meta |= {"fingerprint": cache._fingerprint(meta["class_names"], all_arrays), **changed}
    meta["sha256"] = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
    (folder / "meta.json").write_text(json.dumps(meta))


ODD_LABELS = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 3), min_size=6, max_size=6)


@given(ODD_LABELS, st.sampled_from(["i1", "u1", "i4", "<i8", ">i8", "u8", "f8", "c16", "?"]))
def test_labels_out_of_range_or_of_another_type_are_not_believed(made: Path, labels: list[int], dtype: str) -> None:
    with restored(made):
        forge(made, {"train_labels": np.array(labels, np.int64).astype(dtype)})
        read = cache._open(made)
        if dtype == "<i8" and {0, 1} >= set(labels):
            assert read is not None
            assert read.train_labels.tolist() == labels
        else:
            assert read is None


KEYS = st.sampled_from(["class_names", "fingerprint", "warning", "further"])
VALUES = st.lists(st.floats() | st.integers(-1, 2) | st.none() | st.booleans() | st.text(max_size=3), max_size=4)


@given(KEYS, VALUES | st.text())
def test_no_value_of_meta_json_is_believed_that_the_arrays_do_not_tell(made: Path, key: str, value: Any) -> None:
    written = as_written(made)
    with restored(made):
        forge(made, {}, **{key: value})
        assert_unchanged_or_not_believed(made, written)


@pytest.mark.parametrize("key", ["mean", "std"])
@pytest.mark.parametrize("figures", [[0.5, 0.5], [0.5] * 4, [0, 1, 2], ["a"] * 3, None])
def test_a_mean_or_deviation_that_is_none_is_not_believed(made: Path, key: str, figures: Any) -> None:
    with restored(made):
        forge(made, {}, **{key: figures})
        assert cache._open(made) is None


@pytest.mark.parametrize("name", ["meta.json", *(f"{name}.npy" for name in cache.ARRAYS)])
@pytest.mark.parametrize("damage", ["fifo", "folder", "missing", "pickle", "huge", "deep", "objects"])
def test_a_hostile_cache_file_is_set_aside_and_decoded_anew(tmp_path: Path, name: str, damage: str) -> None:
    made = entry(tmp_path)
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    path = made / name
    path.unlink()
    if damage == "fifo":
        os.mkfifo(path)
    elif damage == "folder":
        path.mkdir()
    elif damage == "pickle":
        path.write_bytes(b"cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    elif damage == "huge":
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (2**50,)})
        path.write_bytes(header.getvalue())
    elif damage == "deep":
        path.write_bytes(b"[" * 100_000)
    elif damage == "objects":
        with path.open("wb") as file:
            np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    assert entry(tmp_path) is not None
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    assert made.with_name(f"{made.name}.corrupt").exists()
