"""Work on a list by two processes, one half each. Knows nothing of what the work is."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_two_processes(work: Callable[[Sequence[Item]], list[Answer]], items: Sequence[Item]) -> list[Answer]:
    """What `work` answers to both halves of `items`, one of them done in a fork of this process.

    All is done here where a fork is not safe or does not pay: beside other threads, whose locks a fork would inherit,
    outside Linux, on one core. So is a half whose process failed or was killed; what `work` raises comes from here.
    """
    if sys.platform != "linux" or threading.active_count() > 1 or len(os.sched_getaffinity(0)) == 1:
        return work(items)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    other = context.Process(target=_answer, args=(sender, work, items[1::2]), daemon=True)
    other.start()
    sender.close()
    try:
        answers = work(items[::2])
        try:
            others: list[Answer] = receiver.recv()
        except (EOFError, OSError):
            others = work(items[1::2])
        return answers + others
    finally:
        other.kill()
        other.join()
        receiver.close()


def _answer(sender: Connection, work: Callable[[Sequence[Item]], list[Answer]], items: Sequence[Item]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both; the first process ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(Exception):  # the first process does this half again, and says what is wrong with it
        sender.send(work(items))
