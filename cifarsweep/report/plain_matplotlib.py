"""The import of matplotlib without settings of the user's. Knows no figure."""

import contextlib
import os
import sys
from pathlib import Path


def load() -> None:
    """Imports matplotlib as it comes, before the modules that draw do.

    It reads ./matplotlibrc, $MATPLOTLIBRC, the user's own file and $MPLBACKEND when it is imported, and cannot be
    imported where one of them is broken. The first of these is read from the current folder whatever else is said.
    Where matplotlib was imported before, style.drawing is enough.
    """
    if "matplotlib" in sys.modules:
        return
    before = {name: os.environ.get(name) for name in ("MATPLOTLIBRC", "MPLBACKEND")}
    os.environ.update(MATPLOTLIBRC=os.devnull, MPLBACKEND="agg")
    try:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(FileNotFoundError):  # the current folder was removed, and with it such a file
                stack.enter_context(contextlib.chdir(Path(__file__).parent))
            import matplotlib  # noqa: F401
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
