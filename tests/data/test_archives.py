"""Official archives that the user has put into data.root: used with no network, or named with what is wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import socket
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from cifarsweep import data


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.fixture
def cifar100(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """root/cifar-100-python.tar.gz with eight images, whose checksums torchvision is told to be the official ones."""
    from torchvision import datasets

    random, files = np.random.default_rng(0), {}
    for name, num in (("train", 6), ("test", 2)):
        pixels = random.integers(0, 256, (num, 3072), dtype=np.uint8)
        files[name] = pickle.dumps({"data": pixels, "fine_labels": list(range(num))})
    files["meta"] = pickle.dumps({"fine_label_names": [f"class {i}" for i in range(100)]})
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(datasets.CIFAR100, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(datasets.CIFAR100, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(datasets.CIFAR100, "meta", {**datasets.CIFAR100.meta, "md5": sums["meta"]})
    root = tmp_path / "root"
    root.mkdir()
    write_tar(root / "cifar-100-python.tar.gz", {f"cifar-100-python/{name}": files[name] for name in files})
    return root


def write_tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def load(name: str, root: Path) -> data.DataSet:
    return data.load_torchvision(name, str(root), str(root.parent / "cache"), val_size=0)


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], None]]:
    """Nothing can be written into the folder; as for root no folder is read-only, what is in it is compared instead."""
    before: dict[Path, list[str]] = {}

    def protect(folder: Path) -> None:
        before[folder] = sorted(os.listdir(folder))
        folder.chmod(0o555)

    yield protect
    for folder, names in before.items():
        folder.chmod(0o755)
        assert sorted(os.listdir(folder)) == names


def test_an_archive_of_cifar_is_used_without_writing_beside_it(
    cifar100: Path, read_only: Callable[[Path], None], tmp_path: Path
) -> None:
    read_only(cifar100)
    from_archive = load("cifar100", cifar100)
    with tarfile.open(cifar100 / "cifar-100-python.tar.gz") as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    unpacked = load("cifar100", tmp_path / "unpacked")
    assert from_archive.fingerprint == unpacked.fingerprint
    assert torch.equal(from_archive.train_images, unpacked.train_images)
    assert not list((tmp_path / "cache").rglob("unpacked"))
    (cifar100 / "cifar-100-python.tar.gz").chmod(0)
    assert load("cifar100", cifar100).fingerprint == unpacked.fingerprint  # from the cache


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("cut", r"damaged \(Compressed file ended before the end-of-stream marker was reached\)"),
        ("bit", r"damaged"),
        ("text", r"damaged \(not a gzip file\)"),
        ("another file", r"damaged or incomplete \(Dataset not found or corrupted\.\); expected the official ones"),
        ("member missing", r"damaged or incomplete \(Dataset not found or corrupted\.\); expected the official ones"),
    ],
)
def test_a_damaged_archive_is_named_with_its_reason_and_kept(cifar100: Path, damage: str, reason: str) -> None:
    archive = cifar100 / "cifar-100-python.tar.gz"
    content = archive.read_bytes()
    if damage == "cut":
        archive.write_bytes(content[: len(content) // 2])
    elif damage == "bit":
        archive.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    elif damage == "text":
        archive.write_text("<html>not found</html>")
    elif damage == "another file":
        write_tar(archive, {f"cifar-100-python/{name}": b"x" for name in ("train", "test", "meta")})
    else:
        write_tar(archive, {"cifar-100-python/train": b"x"})
    before = archive.read_bytes()
    with pytest.raises(ValueError, match=rf"^root=.*cifar-100-python\.tar\.gz (is|are) {reason}"):
        load("cifar100", cifar100)
    assert archive.read_bytes() == before
    assert not [path for path in (cifar100.parent / "cache" / "decoded").iterdir() if path.is_dir()]


def test_of_an_archive_only_the_official_files_are_unpacked(cifar100: Path, tmp_path: Path) -> None:
    archive = cifar100 / "cifar-100-python.tar.gz"
    with tarfile.open(archive) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    write_tar(archive, {"../../owned": b"x", "/tmp/cifarsweep-owned": b"x", **files, "more": b"x"})
    assert len(load("cifar100", cifar100).train_labels) == 6
    assert not (tmp_path / "owned").exists()
    assert not Path("/tmp/cifarsweep-owned").exists()


@pytest.mark.parametrize("place", ["", "FashionMNIST/raw"])
def test_the_archives_of_fashion_mnist_are_used_where_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, read_only: Callable[[Path], None]
) -> None:
    from torchvision import datasets

    folder, sums = tmp_path / "root" / place, []
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 256, (10, 28, 28), dtype=np.uint8)
    for name in ("train", "t10k"):
        images = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in pixels.shape) + pixels.tobytes()
        for kind, content in (("images-idx3", images), ("labels-idx1", b"\0\0\x08\x01\0\0\0\x0a" + bytes(range(10)))):
            path = folder / f"{name}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(content))
            sums.append((path.name, hashlib.md5(path.read_bytes()).hexdigest()))
    monkeypatch.setattr(datasets.FashionMNIST, "resources", sums)
    read_only(folder)
    dataset = load("fashion_mnist", tmp_path / "root")
    assert torch.equal(dataset.test_images[3, 0], torch.from_numpy(pixels[3]))
    archive = folder / "t10k-labels-idx1-ubyte.gz"
    archive.write_bytes(archive.read_bytes() + b"more")
    message = r"t10k-labels-idx1-ubyte\.gz is damaged \(its MD5 sum is \w{32}, expected \w{32}\); expected the official"
    with pytest.raises(ValueError, match=message):
        load("fashion_mnist", tmp_path / "root")


def test_without_files_and_network_the_archive_is_named_that_would_do(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"cifar-10-batches-py is not there and its .* expected cifar-10-python\.tar\.gz"
    ):
        load("cifar10", tmp_path / "root")


def test_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^name=cifar1000: expected one of cifar10, cifar100, fashion_mnist$"):
        load("cifar1000", tmp_path)


def test_labels_that_no_checksum_covers_are_compared_with_the_classes(tmp_path: Path) -> None:
    raw = tmp_path / "root" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train", "t10k"):
        images = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in (3, 28, 28)) + bytes(3 * 28 * 28)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(images)
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\0\x03" + bytes([0, 99, 1]))
    with pytest.raises(
        ValueError, match=r"raw are damaged or incomplete \(labels that are not one of a class for each"
    ):
        load("fashion_mnist", tmp_path / "root")
