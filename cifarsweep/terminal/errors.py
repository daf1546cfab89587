"""One line for each mistake of a user: key, value and what is accepted. Knows Hydra's exceptions, raises none."""

from __future__ import annotations

from collections.abc import Callable

from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from cifarsweep.terminal import formatting

USER_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException)
"""What a wrong value, file or folder raises. Anything else is a fault of ours and keeps its traceback."""

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
"""How a RuntimeError of PyTorch says it, on one system or another."""


def is_users(error: BaseException) -> bool:
    """Whether the user can mend it. A constructor that knows no such key raises TypeError inside Hydra's error."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return isinstance(error.__cause__, TypeError) or is_users(error.__cause__)
    return isinstance(error, USER_ERRORS) or _is_out_of_memory(error)


def _is_out_of_memory(error: BaseException) -> bool:
    """PyTorch has an error of its own for GPUs only."""
    if isinstance(error, RuntimeError):
        return any(words in str(error).lower() for words in OUT_OF_MEMORY)
    return isinstance(error, MemoryError)


def one_line(error: BaseException, known_keys: Callable[[str], list[str]] = lambda parent: []) -> str:
    """The message without line breaks. `known_keys(parent)` lists what a configuration node accepts."""
    if isinstance(error, MissingConfigException):
        return _missing_option(error)
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return _in_group(str(error).rsplit("full_key: ", 1)[-1].strip(), error.__cause__)
    if _is_out_of_memory(error):
        said = formatting.one_line(error) or type(error).__name__
        return f"out of memory: {said}; a smaller batch_size or model needs less"
    cause = error.__cause__
    if isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        return _key_error(error, cause, known_keys)
    return formatting.one_line(error) or type(error).__name__


def _missing_option(error: MissingConfigException) -> str:
    group, _, option = (error.missing_cfg_file or "").rpartition("/")
    if not group or not error.options:
        return _flat(str(error))
    return f"{group}={option}: no such option, expected one of {', '.join(error.options)}"


def _in_group(key: str, cause: BaseException) -> str:
    """A constructor's complaint, which begins with the name of its argument, put under its group's key."""
    message = one_line(cause)
    argument, equals, _ = message.partition("=")
    return f"{key}.{message}" if equals and argument.isidentifier() else f"{key}: {message}"


def _key_error(
    error: ConfigCompositionException, cause: OmegaConfBaseException, known_keys: Callable[[str], list[str]]
) -> str:
    first = _flat(str(error).partition("\n")[0])
    key = cause.full_key or ""
    if "not in struct" not in str(cause):
        return _flat(f"{first} {cause}")
    parent = key.rpartition(".")[0]
    known = known_keys(parent)
    where = f"{parent} accepts" if parent else "expected one of"
    return f"{key}: no such key; {where} {', '.join(known)}; +{key}=… adds a new one"


def _flat(message: str) -> str:
    return " ".join(message.split())
