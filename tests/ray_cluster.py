"""A Ray cluster of our own on loopback, with a folder of its own, for tests and benchmarks: a head and further raylets.

`ray stop` would end every Ray on this machine; here each raylet and what it started is ended by its process id.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from toy_search import descendants

MEMORY_BYTES = 80_000_000
"""Of a raylet's object store. Ray accepts no less than 75 MB."""
PATIENCE_SECONDS = 240
"""For what takes 7 s on an idle machine."""


class Missing(Exception):
    """Ray or its launcher is not installed; the message says how to install it."""


class Cluster:
    """`environment` is what drivers need to find this cluster and no other. Workers have that of their raylet."""

    def __init__(self, folder: Path, prefix: Sequence[str] = ()) -> None:
        """`prefix` is a command that runs another one elsewhere."""
        self._folder, self._prefix = folder, prefix
        self.environment = {"RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0", "HOME": str(folder)}
        self._hosts = (f"127.0.0.{number}" for number in itertools.count(2))
        # Without it Ray 2.60 asks the metadata services of three clouds where it runs, even with its statistics off.
        (folder / "ray_bootstrap_config.yaml").write_text("provider: {type: local}")

    @property
    def address(self) -> str:
        """Of the head; Ray does not take 127.0.0.1 for a node's address where it finds another."""
        return (self._folder / "ray" / "ray_current_cluster").read_text().strip()

    def start_head(self) -> None:
        ports = ["--port=0", f"--ray-client-server-port={_free_port()}", "--include-dashboard=false"]
        self._finish(self._start("--head", *ports, f"--temp-dir={self._folder}/ray"))

    def add_raylet(self, *, wait: bool = True) -> str:
        """Starts a raylet as if on a host of its own, whose address comes back. Without `wait` it joins later."""
        host = next(self._hosts)
        starting = self._start(f"--address={self.address}", f"--node-ip-address={host}")
        if wait:
            self._finish(starting)
        return host

    def kill(self, host: str = "") -> None:
        """As if the raylet's host lost power: nothing that runs there is told. Without a host, as if all did."""
        for process in self._processes(host):
            for each in [process, *descendants(process)]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)

    def stop(self) -> None:
        while self._processes():
            self.kill()

    def _processes(self, host: str = "") -> list[int]:
        """Those that Ray has started here, but not what they have started."""
        commands = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                commands[int(path.parent.name)] = path.read_text()
        is_raylet = {number: f"--node_ip_address={host}\0" in text for number, text in commands.items()}
        signs = [str(self._folder)]
        with contextlib.suppress(FileNotFoundError):  # the head has not started
            signs.append(f"--address={self.address}")  # all that the server for ray:// is known by
        mine = [number for number, text in commands.items() if any(sign in text for sign in signs)]
        return [number for number in mine if not host or is_raylet[number]]

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        limits = ["--num-cpus=2", f"--object-store-memory={MEMORY_BYTES}", "--metrics-export-port=0"]
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*self._prefix, Path(sys.executable).parent / "ray", "start", *words, *limits, "--disable-usage-stats"],
                cwd=self._folder,
                env={**_without_ray(os.environ), **self.environment},
                stdout=log,
                stderr=log,
            )

    def _finish(self, starting: subprocess.Popen[bytes]) -> None:
        assert starting.wait(PATIENCE_SECONDS) == 0, (self._folder / "log").read_text()


@contextlib.contextmanager
def running(prefix: Sequence[str] = ()) -> Iterator[Cluster]:
    """A cluster of one raylet with two processors until the end of the block; it may be given more."""
    needed = {"ray": "ray", "hydra_plugins.hydra_ray_launcher": "hydra-ray-launcher"}
    if missing := [name for module, name in needed.items() if importlib.util.find_spec(module) is None]:
        raise Missing(f"{', '.join(missing)} is not installed: pip install -e '.[ray]'")
    # Directly in /tmp, as the path of a socket may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    cluster = Cluster(folder, prefix)
    try:
        cluster.start_head()
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
