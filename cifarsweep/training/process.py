"""What a run sets in its process and asks of the machine: threads, determinism, memory, generators, devices."""

import contextlib
import ctypes
import os
import platform
import random
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def prepare(trainer: Mapping[str, Any]) -> None:
    """Does what the keys of the group `trainer` ask for."""
    keep_freed_memory()
    torch.set_num_threads(trainer["threads"] or num_cores())
    set_determinism(trainer["deterministic"])


def num_cores() -> int:
    """How many cores this process may use: what a launcher gave it by OMP_NUM_THREADS or affinity."""
    if given := re.fullmatch("[1-9][0-9]{0,3}", os.environ.get("OMP_NUM_THREADS", "")):
        return int(given[0])
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
