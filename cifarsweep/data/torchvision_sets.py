"""CIFAR-10, CIFAR-100 and Fashion-MNIST from their official files, which are downloaded where they are not there."""

import gzip
import hashlib
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from cifarsweep.data.cache import Writer, cached, file_key
from cifarsweep.data.dataset import DataSet, split
from cifarsweep.data.download import download
from cifarsweep.data.image_file import first_line
from cifarsweep.results import folders
from cifarsweep.results.locks import Lock

FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python", "fashion_mnist": "FashionMNIST/raw"}
"""Where torchvision has the unpacked files, below its root."""

ARCHIVES = {
    "cifar10": ["cifar-10-python.tar.gz"],
    "cifar100": ["cifar-100-python.tar.gz"],
    "fashion_mnist": [f"{part}-ubyte.gz" for part in ("train-images-idx3", "train-labels-idx1")]
    + [f"{part}-ubyte.gz" for part in ("t10k-images-idx3", "t10k-labels-idx1")],
}
"""What the official sites offer, under these names."""

MOST_FILE_BYTES = 2**28
"""The largest official file, CIFAR-100's training images, has 155 MB."""


def load_torchvision(
    name: str,
    root: str,
    cache: str,
    val_size: float,
    subset: int | None = None,
    augment: Mapping[str, Any] | None = None,
    split_seed: int = 0,
    url: str | None = None,
) -> DataSet:
    """cifar10, cifar100 or fashion_mnist from the official files in `root`, whose checksums torchvision compares.

    Archives that are there are used as they are, with no network and without writing there; what is missing is
    downloaded, from the official site or the folder at `url`, which has the archives under their names.
    """
    if name not in FOLDERS:
        raise ValueError(f"name={name}: expected one of {', '.join(FOLDERS)}")
    folder = folders.expanded(root, "root")
    raw = folder / FOLDERS[name]
    archives = [] if _is_unpacked(raw) else _archives(name, folder, raw)
    if not archives and not _is_unpacked(raw):
        _download(name, folder, raw, url)
        archives = _archives(name, folder, raw)
    key = file_key(folder, archives) if archives else file_key(raw, raw.iterdir())
    decode = partial(_decode_archives, archives=archives) if archives else _decode
    decoded = cached(folders.expanded(cache, "cache"), name, key, partial(decode, name, folder, raw))
    return split(name, decoded, val_size, subset, augment, split_seed)


def _is_unpacked(raw: Path) -> bool:
    """torchvision keeps the archives of Fashion-MNIST beside what it unpacks."""
    files = raw.iterdir() if raw.is_dir() else ()
    return any(file.suffix != ".gz" and not file.name.startswith(".") for file in files)


def _archives(name: str, root: Path, raw: Path) -> list[Path]:
    """All archives of the set, in `root` or where torchvision puts them; none where one is missing."""
    places = [[folder / archive for folder in (root, raw)] for archive in ARCHIVES[name]]
    found = [next(filter(Path.is_file, paths), None) for paths in places]
    return [path for path in found if path] if all(found) else []


def _torchvision_set(name: str) -> Any:
    from torchvision import datasets  # 1.7 s that a warm cache saves

    return {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "fashion_mnist": datasets.FashionMNIST}[name]


def _download(name: str, root: Path, raw: Path, url: str | None) -> None:
    """One process downloads the archives into `root`, which others find there."""
    kind = _torchvision_set(name)
    official = kind.mirrors[0] if name == "fashion_mnist" else kind.url.rpartition("/")[0]
    place = (url or official).rstrip("/")
    try:
        sums = dict(kind.resources) if name == "fashion_mnist" else {kind.filename: kind.tgz_md5}
        root.mkdir(parents=True, exist_ok=True)
        with Lock(root / f".{name}.lock"):
            for archive in ARCHIVES[name]:
                if not (root / archive).exists() and not (raw / archive).exists():
                    download(f"{place}/{archive}", root / archive, sums[archive])
    except Exception as error:  # urllib, HTTP, socket, checksum and file errors all mean the same to the user
        raise ValueError(
            f"root={root}: {raw.name} is not there and its download from {place} failed ({first_line(error)}); "
            f"expected {', '.join(ARCHIVES[name])} in {root}, or the official files in {raw}, or data=shapes, "
            "which needs none"
        ) from error


def _decode_archives(name: str, root: Path, raw: Path, writer: Writer, archives: list[Path]) -> None:
    kind = _torchvision_set(name)
    unpacked = writer.folder / "unpacked"  # goes with the entry's folder where something fails
    target = unpacked / raw.relative_to(root)
    target.mkdir(parents=True)
    for archive in archives:
        try:
            _unpack(kind, archive, target)
        except (EOFError, ValueError, tarfile.TarError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(
                f"root={root}: {archive} is damaged ({first_line(error)}); expected the official file, or none, "
                "which has it downloaded"
            ) from error
    _decode(name, unpacked, target, writer, shown=", ".join(map(str, archives)))
    shutil.rmtree(unpacked)


def _unpack(kind: Any, archive: Path, target: Path) -> None:
    """The official files of this archive, and no others. ValueError for a wrong checksum or size.

    torchvision compares the checksums of what comes out of CIFAR's archives, so one that was packed again will do.
    """
    if archive.name.endswith(".tar.gz"):
        official = {name for name, _ in (*kind.train_list, *kind.test_list)} | {kind.meta["filename"]}
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                file_name = member.name.rpartition("/")[2]
                content = tar.extractfile(member) if member.isfile() and file_name in official else None
                if content:
                    _copy(content, target / file_name)
        return
    with archive.open("rb") as file:
        found, expected = hashlib.file_digest(file, "md5").hexdigest(), dict(kind.resources)[archive.name]
    if found != expected:
        raise ValueError(f"its MD5 sum is {found}, expected {expected}")
    with gzip.open(archive) as unzipped:
        _copy(unzipped, target / archive.stem)


def _copy(content: IO[bytes] | gzip.GzipFile, to: Path) -> None:
    with to.open("wb") as file:
        while block := content.read(2**20):
            if file.tell() > MOST_FILE_BYTES:
                raise ValueError(f"{to.name} has more than {MOST_FILE_BYTES:,} bytes")
            file.write(block)


def _decode(name: str, root: Path, raw: Path, writer: Writer, shown: str | None = None) -> None:
    kind = _torchvision_set(name)
    try:
        sets = {"train": kind(root, train=True), "test": kind(root, train=False)}
        for source in sets.values():  # no checksum covers the unpacked files of Fashion-MNIST
            if len(source.data) != len(source.targets) or not {*np.unique(source.targets)} <= {
                *range(len(source.classes))
            }:
                raise ValueError("labels that are not one of a class for each image")
    except Exception as error:  # pickle, gzip and EOF errors, and torchvision's RuntimeError for a wrong checksum
        reason = first_line(error).removesuffix(" You can use download=True to download it")
        raise ValueError(
            f"root={root}: the files in {shown or raw} are damaged or incomplete ({reason}); expected the official ones"
        ) from error
    writer.class_names = list(sets["train"].classes)
    for name, source in sets.items():
        pixels = np.asarray(source.data)
        images, labels = writer.split(name, len(pixels), pixels.shape[1])
        images[:] = pixels if pixels.ndim == 4 else pixels[..., None]  # gray to three equal channels
        labels[:] = np.asarray(source.targets)
