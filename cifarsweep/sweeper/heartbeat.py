"""Whether a worker is alive, told by locks that every process of a study can see. Knows nothing of trials."""

import contextlib
import os
import secrets
import time
from pathlib import Path

from cifarsweep.results import files
from cifarsweep.results.locks import Lock, host


class Heartbeat(Lock):
    """This worker is alive from entering the block to leaving it.

    On the same host that ends at once when its process does, and not while it only stalls. Across hosts its silence
    for a grace period decides.
    """

    def __init__(self, folder: Path, grace_period: float) -> None:
        self.id = f"{host()}--{os.getpid()}-{secrets.token_hex(4)}"
        files.make_folder(folder, below=folder.parents[1])
        super().__init__(folder / self.id, lease=grace_period)


def is_check_due(folder: Path, grace_period: float) -> bool:
    """Whether to look for dead workers now: True for one caller in a fifth of the grace period, or a few at once.

    If each worker checked all others before each trial, it would cost the file system the square of their number.
    """
    checked = folder / ".checked"
    with contextlib.suppress(FileNotFoundError):
        if abs(time.time() - checked.stat().st_mtime) < grace_period / 5:
            return False
    checked.touch()
    return True
