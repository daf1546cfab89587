"""Hosts as network namespaces, each with a name and a link of its own to this machine, whose cable can be pulled.

They share the machine's files, as hosts share a file system that no network cut can take away: what a cut does to NFS
is not seen here.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator

NETWORK = os.getpid() % 250
"""Of this process, as other tests may have hosts at the same time."""
SERVER = f"10.213.{NETWORK}.1"
"""Under which every host reaches this machine."""


class Missing(Exception):
    """Namespaces cannot be made here; the message says why."""


class Host:
    """`prefix` is the command that runs another one on this host."""

    def __init__(self, name: str, number: int) -> None:
        self.name, self.address = name, f"10.{213 + number}.{NETWORK}.2"
        self._namespace, self._cable = f"{name}-{secrets.token_hex(3)}", f"{name}-{secrets.token_hex(3)}"
        self._gateway = f"10.{213 + number}.{NETWORK}.1"
        self.prefix = ["unshare", "--uts", "sh", "-c", 'hostname "$0"; exec "$@"', name]
        self.prefix += ["ip", "netns", "exec", self._namespace]

    def create(self) -> None:
        _ip("netns", "add", self._namespace)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self._namespace)
        _ip("address", "add", f"{self._gateway}/30", "dev", self._cable)
        _ip("link", "set", self._cable, "up")
        inside = ["-n", self._namespace]
        _ip(*inside, "address", "add", f"{self.address}/30", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip(*inside, "link", "set", device, "up")
        _ip(*inside, "route", "add", "default", "via", self._gateway)

    def cut(self) -> None:
        """Nothing arrives in either direction any more, and nobody is told."""
        _ip("link", "set", self._cable, "down")

    def mend(self) -> None:
        _ip("link", "set", self._cable, "up")

    def remove(self) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("link", "delete", self._cable)
            _ip("netns", "delete", self._namespace)


@contextlib.contextmanager
def running(*names: str) -> Iterator[list[Host]]:
    """A host of each name until the end of the block; this machine has the address SERVER for them."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        raise Missing("network namespaces need root, and ip and unshare: apt-get install iproute2 util-linux")
    hosts = [Host(name, number) for number, name in enumerate(names, start=1)]
    try:
        try:
            _ip("address", "replace", f"{SERVER}/32", "dev", "lo")
            for host in hosts:
                host.create()
        except subprocess.CalledProcessError as error:
            raise Missing(f"network namespaces cannot be made here: {error.stderr.strip()}") from error
        yield hosts
    finally:
        for host in hosts:
            host.remove()
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("address", "delete", f"{SERVER}/32", "dev", "lo")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20)
