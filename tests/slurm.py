"""A Slurm of our own for tests: a controller and two nodes of eight CPUs each, on loopback and in one folder."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
PATIENCE_SECONDS = 240
"""For what takes some seconds on an idle machine."""
KILL_WAIT = 30
"""Seconds from SIGTERM to SIGKILL."""

# No cgroups, as a container has none to give, and no accounting, which needs a database: squeue is all there is.
# A job that is requeued waits until its credential has expired, two minutes by default.
# The nodes have more CPUs than the machine (config_overrides), so that jobs do not wait for each other.
CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,requeue_delay=1,bf_interval=1
KillWait={kill_wait}
JobRequeue=1
ReturnToService=2
MailProg=/bin/true
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 State=UNKNOWN
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 State=UNKNOWN
PartitionName=main Nodes=one,two Default=YES MaxTime=INFINITE State=UP
"""


class Missing(Exception):
    """Slurm is not installed; the message says how to install it."""


class Cluster:
    """Slurm's commands, which find this cluster where the environment has `environment`."""

    def __init__(self, folder: Path) -> None:
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *words: str) -> str:
        environment = {**os.environ, **self.environment}
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout

    def jobs(self, *states: str) -> list[str]:
        """The ids of the jobs in these states, by default of those that wait or run."""
        listed = self.run("squeue", "--noheader", "--array", "--format=%i", f"--states={','.join(states) or 'PD,R,CG'}")
        return listed.split()

    def cancel(self, *ids: str) -> None:
        """These jobs, or every one where none is named; waits until they are gone."""
        cancelled = set(ids or self.jobs())
        if cancelled:
            self.run("scancel", "--quiet", *cancelled)
        wait_until(lambda: not cancelled & set(self.jobs()), "jobs that were cancelled to end")


def wait_until(is_so: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"waited {seconds:g} s for {what}"
        time.sleep(0.2)


@contextlib.contextmanager
def running() -> Iterator[Cluster]:
    """A cluster until the end of the block."""
    if missing := [program for program in PROGRAMS if _found(program) is None]:
        raise Missing(f"no {', '.join(missing)}: apt-get install slurm-wlm munge")
    if os.geteuid() != 0:
        raise Missing("slurmd starts jobs as root only")
    # Short, as the path of a socket may have 107 characters.
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
    folder.chmod(0o755)
    started: list[subprocess.Popen[bytes]] = []
    try:
        _configure(folder)
        started.append(_start(folder, "munged", "--foreground", *_files_of_munge(folder)))
        wait_until((folder / "munge.socket").exists, "munged")
        started.append(_start(folder, "slurmctld", "-D", "-f", f"{folder}/slurm.conf"))
        started += [_start(folder, "slurmd", "-D", "-f", f"{folder}/slurm.conf", "-N", node) for node in ("one", "two")]
        cluster = Cluster(folder)
        wait_until(lambda: _is_up(cluster), f"slurmctld and slurmd; their logs are in {folder}")
        yield cluster
        cluster.cancel()
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _is_up(cluster: Cluster) -> bool:
    try:
        return cluster.run("sinfo", "--noheader", "--format=%D %t").split() == ["2", "idle"]
    except subprocess.SubprocessError:
        return False


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _configure(folder: Path) -> None:
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        ports = [taken.getsockname()[1] for taken in free]
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(CONFIGURATION.format(kill_wait=KILL_WAIT, folder=folder, host=host, ports=ports))
    (folder / "state").mkdir()
    (folder / "key").write_bytes(secrets.token_bytes(256))
    (folder / "key").chmod(0o600)


def _files_of_munge(folder: Path) -> list[str]:
    names = {"key-file": "key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    return [f"--{option}={folder}/{name}" for option, name in {**names, "seed-file": "seed"}.items()]


def _start(folder: Path, program: str, *words: str) -> subprocess.Popen[bytes]:
    """A daemon of its own session, which Ctrl-C at the tests does not reach before they have ended its jobs."""
    path = _found(program)
    assert path is not None
    with open(folder / f"{program}.out", "ab") as out:
        return subprocess.Popen([path, *words], stdout=out, stderr=out, cwd=folder, start_new_session=True)
