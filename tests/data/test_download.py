"""A file from a local server that is slow, breaks off, lies about lengths or sends something else."""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import tarfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import cifarsweep
from cifarsweep import data
from cifarsweep.data import download

CONTENT = bytes(range(256)) * 1200
MD5 = hashlib.md5(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers the first request as the first of `behaviours` says, and so on; well after the last."""

    daemon_threads = True
    content = CONTENT
    behaviours: list[str]
    ranges: list[str | None]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        behaviour = self.server.behaviours.pop(0) if self.server.behaviours else ""
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        content, begin = self.server.content, 0
        if behaviour == "missing":
            self.send_error(404)
            return
        if behaviour == "another file":
            content = content[::-1]
        if asked and behaviour != "no ranges":
            begin = int(asked.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", "text/html" if behaviour == "a web page" else "application/x-gzip")
        lie = {"says more": 10, "says less": -10}.get(behaviour, 0)
        if behaviour != "says nothing":
            self.send_header("Content-Length", str(len(content) - begin + lie))
        self.end_headers()
        sent = content[begin:]
        if behaviour in ("breaks off", "stalls"):
            sent = sent[: len(sent) // 2]
        for place in range(0, len(sent), 2**15):
            self.wfile.write(sent[place : place + 2**15])
            time.sleep(0.02 if behaviour == "is slow" else 0)
        time.sleep(1 if behaviour == "stalls" else 0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = Server(("127.0.0.1", 0), Handler)
    server.behaviours, server.ranges = [], []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("behaviours", "num_requests"),
    [
        ([], 1),
        (["breaks off"], 2),
        (["breaks off", "breaks off", "no ranges"], 3),
        (["stalls", "missing", "breaks off"], 4),
        (["says nothing"], 1),
        (["says more"], 2),
    ],
)
def test_the_file_arrives_whole_whatever_happens_on_the_way(
    server: Server, tmp_path: Path, behaviours: list[str], num_requests: int
) -> None:
    server.behaviours = behaviours.copy()
    download.download(f"{server.address}/a.tar.gz", tmp_path / "a.tar.gz", MD5)
    assert files_in(tmp_path) == {"a.tar.gz": CONTENT}
    assert len(server.ranges) == num_requests


def test_an_attempt_goes_on_where_the_one_before_has_ended_in_another_process(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".a.tar.gz.part").write_bytes(CONTENT[:1000])
    download.download(f"{server.address}/a.tar.gz", tmp_path / "a.tar.gz", MD5)
    assert server.ranges == ["bytes=1000-"]
    assert files_in(tmp_path) == {"a.tar.gz": CONTENT}


@pytest.mark.parametrize("behaviour", ["another file", "says less"])
def test_another_file_is_named_and_kept_aside(server: Server, tmp_path: Path, behaviour: str) -> None:
    server.behaviours = [behaviour]
    with pytest.raises(
        ValueError, match=rf"has the MD5 sum \w{{32}}, expected {MD5}; it is kept as .*a\.tar\.gz\.corrupt"
    ):
        download.download(f"{server.address}/a.tar.gz", tmp_path / "a.tar.gz", MD5)
    assert files_in(tmp_path).keys() == {"a.tar.gz.corrupt"}
    download.download(f"{server.address}/a.tar.gz", tmp_path / "a.tar.gz", MD5)
    assert files_in(tmp_path).keys() == {"a.tar.gz.corrupt", "a.tar.gz"}


def test_a_web_page_is_no_file(server: Server, tmp_path: Path) -> None:
    server.behaviours = ["a web page"]
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:\d+/a\.tar\.gz is a web page, expected a file"):
        download.download(f"{server.address}/a.tar.gz", tmp_path / "a.tar.gz", MD5)
    assert files_in(tmp_path) == {}


def test_a_server_that_has_nothing_is_not_asked_again(server: Server, tmp_path: Path) -> None:
    server.behaviours = 2 * ["missing"]
    with pytest.raises(OSError, match="404"):
        download.download(f"{server.address}/a.tar.gz", tmp_path / "a.tar.gz", MD5)
    assert server.behaviours == ["missing"]


def test_a_server_that_is_gone_for_good_is_asked_five_times(server: Server, tmp_path: Path) -> None:
    server.behaviours = ["breaks off", *10 * ["missing"]]
    with pytest.raises(OSError, match="404"):
        download.download(f"{server.address}/a.tar.gz", tmp_path / "a.tar.gz", MD5)
    assert len(server.behaviours) == 5
    assert files_in(tmp_path) == {".a.tar.gz.part": CONTENT[: len(CONTENT) // 2]}


def test_a_slow_file_says_how_far_it_is(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(download, "EVERY", 0.05)
    monkeypatch.setattr(logging.getLogger("cifarsweep.data"), "propagate", True)
    caplog.set_level(logging.INFO, "cifarsweep.data")
    server.behaviours = ["is slow"]
    download.download(f"{server.address}/a.tar.gz", tmp_path / "a.tar.gz", MD5)
    assert caplog.messages
    assert caplog.messages[0].startswith("a.tar.gz: 0.")
    assert caplog.messages[0].endswith("s left")
    assert " of 0.3 MB, " in caplog.messages[0]


def test_a_data_set_arrives_from_another_address(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision import datasets

    random, content = np.random.default_rng(0), {}
    for name, num in (("train", 6), ("test", 2)):
        pixels = random.integers(0, 256, (num, 3072), dtype=np.uint8)
        content[name] = pickle.dumps({"data": pixels, "fine_labels": list(range(num))})
    content["meta"] = pickle.dumps({"fine_label_names": [f"class {i}" for i in range(100)]})
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, each in content.items():
            member = tarfile.TarInfo(f"cifar-100-python/{name}")
            member.size = len(each)
            tar.addfile(member, io.BytesIO(each))
    sums = {name: hashlib.md5(each).hexdigest() for name, each in content.items()}
    kind = datasets.CIFAR100
    monkeypatch.setattr(kind, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(kind, "test_list", [["test", sums["test"]]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums["meta"]})
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(archive.getvalue()).hexdigest())
    server.content, server.behaviours = archive.getvalue(), ["missing", "breaks off"]

    def load() -> data.DataSet:
        root, cache = str(tmp_path / "root"), str(tmp_path / "cache")
        return data.load_torchvision("cifar100", root, cache, val_size=0, url=f"{server.address}/mirror/")

    with pytest.raises(
        ValueError, match=r"^root=.*: cifar-100-python is not .* download from http:.*/mirror failed \(HTTP Error"
    ):
        load()
    assert len(load().train_labels) == 6
    assert {path.name for path in (tmp_path / "root").glob("[!.]*")} == {"cifar-100-python.tar.gz"}
    num_requests = len(server.ranges)
    assert len(load().train_labels) == 6
    assert len(server.ranges) == num_requests

    where = [f"data.root={tmp_path}/root", f"data.cache={tmp_path}/cache", f"outputs={tmp_path}/outputs"]
    small = ["data.val_size=0", "model=layers1", "batch_size=2", "trainer=quick", "trainer.epochs=1"]
    cifarsweep.train("data=cifar100", "data.url=http://me:sesame@host", *where, *small)
    written = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    assert [path for path in written if b"sesame" in path.read_bytes()] == []
