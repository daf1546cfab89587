"""Workarounds for cloudpickle: tasks and results between processes, with the file names of their code."""

import io
from collections import ChainMap
from types import CodeType
from typing import Any, ClassVar

import cloudpickle


def dumps(value: object) -> bytes:
    """Pickled, also a task that is found by no name: `hydra.main` has put its own function in the place of a script's.

    cloudpickle 3.1 leaves out where code came from, so that tracebacks have neither file nor line. Delete the
    pickler once it keeps them.
    """
    file = io.BytesIO()
    _Pickler(file).dump(value)
    return file.getvalue()


def _with_file_name(code: CodeType) -> Any:
    make, arguments = cloudpickle.Pickler.dispatch_table[CodeType](code)
    return make, tuple(code.co_filename if argument == "<dynamic-code>" else argument for argument in arguments)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    dispatch_table: ClassVar[Any] = ChainMap({CodeType: _with_file_name}, cloudpickle.Pickler.dispatch_table)
