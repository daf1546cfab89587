"""A PostgreSQL server of our own, in a temporary folder, for tests and benchmarks."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PASSWORD = "open-sesame"


class Missing(Exception):
    """The server or its driver is not installed; the message says how to install it."""


class Server:
    """A PostgreSQL of our own. Its programs refuse to run as root, so that root hands them to the user `postgres`."""

    def __init__(self, folder: Path, *, host: str = "127.0.0.1", settings: str = "") -> None:
        """`settings` are further words of postgres's command line."""
        self._programs, self._folder, self._host, self._settings = programs(), folder, host, settings
        self._user = "postgres" if os.geteuid() == 0 else None
        with socket.socket() as free:
            free.bind((host, 0))
            self._port = free.getsockname()[1]
        self.address = f"postgresql+psycopg://me:{PASSWORD}@{host}:{self._port}/postgres"

    def create(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._user is not None:
            for path in (self._folder, password):
                shutil.chown(path, self._user)
        login = ["--username=me", "--auth=scram-sha-256", f"--pwfile={password}"]
        self._run("initdb", *login, "--no-sync", "--no-locale", "--encoding=UTF8")
        with (self._folder / "data" / "pg_hba.conf").open("a") as file:
            file.write("host all all all scram-sha-256\n")  # it listens at one address only

    def start(self) -> None:
        options = f"-p {self._port} -c listen_addresses={self._host} -k {self._folder} {self._settings}"
        self._run("pg_ctl", "start", "--wait", f"--log={self._folder}/log", f"--options={options}")

    def stop(self, mode: str = "immediate") -> None:
        """By default as if its machine lost power."""
        self._run("pg_ctl", "stop", f"--mode={mode}")

    def _run(self, program: str, *words: str) -> None:
        subprocess.run(
            [self._programs / program, f"--pgdata={self._folder}/data", *words],
            cwd=self._folder,
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
            stdout=subprocess.DEVNULL,  # the server inherits it, and a pipe would stay open
            check=True,
            timeout=60,
        )


@contextlib.contextmanager
def running(**given: Any) -> Iterator[Server]:
    """A server until the end of the block."""
    # Not in pytest's folder, which other users cannot enter; short, as the path of a socket may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    try:
        server = Server(folder, **given)
        server.create()
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def programs() -> Path:
    """The folder of PostgreSQL's programs; Missing says what is not installed."""
    if importlib.util.find_spec("psycopg") is None:
        raise Missing("psycopg is not installed: pip install -e '.[postgres]'")
    on_path = shutil.which("initdb")
    found = [Path(on_path)] if on_path else sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        raise Missing("no PostgreSQL server is installed: apt-get install postgresql")
    if os.geteuid() == 0 and not any(user.pw_name == "postgres" for user in pwd.getpwall()):
        raise Missing("PostgreSQL does not run as root, and there is no user postgres")
    return found[-1].resolve().parent
