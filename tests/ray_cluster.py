"""A Ray cluster of our own on loopback, with a folder of its own, for tests and benchmarks: a head and further raylets.

`ray stop` would end every Ray on this machine; here each raylet and what it started is ended by its process id.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from toy_search import descendants

MEMORY_BYTES = 80_000_000
"""Of a raylet's object store. Ray accepts no less than 75 MB."""
PATIENCE_SECONDS = 60
"""For what takes 7 s on an idle machine."""


class Missing(Exception):
    """Ray or its launcher is not installed; the message says how to install it."""


class Cluster:
    """`environment` is what drivers need to find this cluster and no other. Workers have that of their raylet."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.environment = {"RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0", "HOME": str(folder)}
        self._raylets: list[subprocess.Popen[bytes]] = []
        # Without it Ray 2.60 asks the metadata services of three clouds where it runs, even with its statistics off.
        (folder / "ray_bootstrap_config.yaml").write_text("provider: {type: local}")

    @property
    def address(self) -> str:
        """Of the head; Ray does not take 127.0.0.1 for a node's address where it finds another."""
        return (self._folder / "ray_current_cluster").read_text().strip()

    def start_head(self) -> None:
        ports = ["--port=0", f"--ray-client-server-port={_free_port()}", "--include-dashboard=false"]
        self._start("--head", *ports, f"--temp-dir={self._folder}")

    def add_raylet(self) -> subprocess.Popen[bytes]:
        """As on a host of its own."""
        return self._start(f"--address={self.address}", f"--node-ip-address=127.0.0.{len(self._raylets) + 2}")

    def kill(self, raylet: subprocess.Popen[bytes]) -> None:
        """As if its host lost power: nothing that runs there is told."""
        processes = descendants(raylet.pid)
        for process in [raylet.pid, *processes]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        raylet.wait(PATIENCE_SECONDS)
        self._raylets.remove(raylet)

    def stop(self) -> None:
        for raylet in reversed(list(self._raylets)):
            self.kill(raylet)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        limits = ["--num-cpus=2", f"--object-store-memory={MEMORY_BYTES}", "--metrics-export-port=0"]
        ray = Path(sys.executable).parent / "ray"
        log = self._folder / f"start{len(self._raylets)}"
        with log.open("wb") as file:
            raylet = subprocess.Popen(
                [ray, "start", *words, *limits, "--disable-usage-stats", "--block"],
                cwd=self._folder,
                env={**_without_ray(os.environ), **self.environment},
                stdout=file,
                stderr=file,
            )
        self._raylets.append(raylet)
        until = time.monotonic() + PATIENCE_SECONDS
        while "Ray runtime started" not in log.read_text():
            assert raylet.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        return raylet


@contextlib.contextmanager
def running(num_raylets: int = 2) -> Iterator[Cluster]:
    """A cluster of so many raylets, the head's included, with two processors each, until the end of the block."""
    needed = {"ray": "ray", "hydra_plugins.hydra_ray_launcher": "hydra-ray-launcher"}
    if missing := [name for module, name in needed.items() if importlib.util.find_spec(module) is None]:
        raise Missing(f"{', '.join(missing)} is not installed: pip install -e '.[ray]'")
    # Directly in /tmp, as the path of a socket may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    cluster = Cluster(folder)
    try:
        cluster.start_head()
        for _ in range(num_raylets - 1):
            cluster.add_raylet()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _without_ray(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if not key.startswith("RAY_")}


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
