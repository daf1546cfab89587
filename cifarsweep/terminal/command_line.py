"""The words that a process was started with, and what of them nobody else may read. Knows no key."""

import contextlib
import re
import sys
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_SECRET = r"[\w.-]*(?:pass|pwd|secret|token|credential|key)[\w.-]*"
"""Parameters of an address that hold a credential, or name the file of one: password, sslpassword, access_token, …"""

_stands_for: ContextVar[Sequence[str] | None] = ContextVar("stands_for", default=None)


@contextlib.contextmanager
def standing_for(words: Sequence[str]) -> Iterator[None]:
    """What is done within it is recorded as done by the command of these words: a call from Python has none."""
    token = _stands_for.set(words)
    try:
        yield
    finally:
        _stands_for.reset(token)


def program() -> list[str]:
    """`python -m cifarsweep` as a person types it."""
    script = Path(sys.argv[0] if sys.argv else "")
    return ["python", "-m", script.parent.name] if script.name == "__main__.py" else [script.name]


def words() -> list[str]:
    """With its arguments, without credentials."""
    command = _stands_for.get()
    begin, arguments = (program(), sys.argv[1:]) if command is None else ([], command)
    return [*begin, *map(without_credentials, arguments)]


def without_credentials(text: str) -> str:
    """Hides those of addresses in the text: user:password@host, and parameters such as ?password=…"""
    text = re.sub(r"(://[^:/@\s]*):[^\n]*@", r"\1:***@", text)
    return re.sub(rf"(?i)([?&;]{_SECRET}=)[^&;'\"\s]*", r"\1***", text)


def hidden(value: Any) -> Any:
    """The value of a configuration without the credentials in any of its texts."""
    if isinstance(value, dict):
        return {key: hidden(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hidden(inner) for inner in value]
    return without_credentials(value) if isinstance(value, str) else value
