"""What a run sets in its process and asks of the machine: threads, determinism, memory, generators, devices."""

import contextlib
import ctypes
import os
import platform
import random
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cifarsweep.training.schema import MOST_THREADS

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def prepare(trainer: Mapping[str, Any]) -> None:
    """Does what the keys of the group `trainer` ask for."""
    keep_freed_memory()
    torch.set_num_threads(trainer["threads"] or num_cores())
    set_determinism(trainer["deterministic"])


def num_cores() -> int:
    """How many cores this process may use: what a launcher gave it by OMP_NUM_THREADS or affinity."""
    if given := re.fullmatch("[1-9][0-9]{0,3}", os.environ.get("OMP_NUM_THREADS", "")):
        return min(int(given[0]), MOST_THREADS)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def keep_freed_memory() -> None:
    """Once a process: has glibc keep what is freed, as each step needs it again.

    Without this it gives blocks of 128 KiB and more back to the system, which then clears every page anew. That takes
    a fifth of the time of a step of 512 images.
    """
    with contextlib.suppress(OSError):  # nobody knows which library it is
        if platform.libc_ver()[0] == "glibc":
            libc = ctypes.CDLL(None)
            libc.mallopt(M_MMAP_MAX, 0)  # no blocks of their own, which would go back at once
            libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def set_determinism(deterministic: bool) -> None:
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may sum in another order
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs a pass a tensor
    torch.backends.cudnn.benchmark = not deterministic


def seed(number: int) -> None:
    """Seeds every generator that a model may draw from."""
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)


def choose_device(name: str) -> torch.device:
    """auto: CUDA where there is one, else Apple's GPU, else the CPU. ValueError where a named one is missing."""
    there = ["cpu"]
    if torch.backends.mps.is_available():
        there.insert(0, "mps")
    if torch.cuda.is_available():
        there[:0] = ["cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name != "auto" and name not in there:
        raise ValueError(f"trainer.device={name}: not on this machine, expected one of auto, {', '.join(there)}")
    return torch.device(there[0] if name == "auto" else name)


def check_memory(device: torch.device, num_parameters: int) -> None:
    """ValueError where training so many parameters takes more memory than the device has to give."""
    there = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else _available_memory()
    needed = 4 * 4 * num_parameters  # float32 weights, gradients, momentum, and the copy that a checkpoint is made of
    if there is not None and needed > there:
        takes = f"{num_parameters:,} parameters take {needed / 1e9:,.0f} GB"
        raise ValueError(f"out of memory: {takes}, expected a network for {there / 1e9:,.1f} GB")


def _available_memory() -> int | None:
    """Bytes that Linux could give to this process now. None on other systems."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
