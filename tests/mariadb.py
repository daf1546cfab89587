"""A MariaDB server of our own, in a temporary folder, for tests: Debian has no MySQL."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from postgresql import PASSWORD, Missing


@contextlib.contextmanager
def running() -> Iterator[str]:
    """A server's address until the end of the block."""
    if importlib.util.find_spec("pymysql") is None:
        raise Missing("pymysql is not installed: pip install pymysql")
    path = f"{os.environ['PATH']}:/usr/sbin"
    if shutil.which("mariadbd", path=path) is None:
        raise Missing("no MariaDB server is installed: apt-get install mariadb-server")
    with tempfile.TemporaryDirectory(prefix="my", dir="/tmp") as name, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        folder, port = Path(name), free.getsockname()[1]
        free.close()
        log, user = folder / "log", []
        if os.geteuid() == 0:
            shutil.chown(folder, "mysql")
            user = ["--user=mysql"]
        options = ["--no-defaults", f"--datadir={folder}/data", f"--socket={folder}/socket", *user]
        setup = folder / "setup.sql"
        setup.write_text(  # a statement a line
            f"CREATE DATABASE study;\nCREATE USER me@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON study.* TO me@'%';\n"
        )
        environment = {**os.environ, "TMPDIR": name}  # that of the tests is not its user's
        with log.open("w") as out:
            install = ["mariadb-install-db", *options, "--skip-test-db"]
            subprocess.run(install, stdout=out, stderr=out, check=True, timeout=120, env=environment)
            words = [f"--port={port}", "--bind-address=127.0.0.1", "--skip-name-resolve", f"--init-file={setup}"]
            server = subprocess.Popen(
                [shutil.which("mariadbd", path=path) or "", *options, *words], stdout=out, stderr=out, env=environment
            )
            try:
                _wait_for(port, server)
                yield f"mysql+pymysql://me:{PASSWORD}@127.0.0.1:{port}/study"
            finally:
                server.terminate()
                server.wait(60)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < until, "the server does not listen"
        time.sleep(0.1)
