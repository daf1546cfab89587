"""One line for each mistake of a user: key, value and what is accepted. Knows Hydra's exceptions, raises none."""

from collections.abc import Callable

from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, MissingConfigException
from omegaconf.errors import OmegaConfBaseException

from cifarsweep.terminal import formatting

USER_ERRORS = (ValueError, OSError, HydraException, OmegaConfBaseException)
"""What a wrong value, file or folder raises. Anything else is a bug of cifarsweep and keeps its traceback."""

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory")
"""How a RuntimeError of PyTorch says it, on one system or another."""


def is_users(error: BaseException) -> bool:
    """Whether the user can mend it. TypeError inside Hydra's error is a constructor's, which knows no such key."""
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return isinstance(error.__cause__, TypeError) or is_users(error.__cause__)
    return isinstance(error, USER_ERRORS) or _is_out_of_memory(error)


def _is_out_of_memory(error: BaseException) -> bool:
    """PyTorch has a class of its own for this error on GPUs only."""
    if isinstance(error, RuntimeError):
        return any(words in str(error).lower() for words in OUT_OF_MEMORY)
    return isinstance(error, MemoryError)


def one_line(error: BaseException, known_keys: Callable[[str], list[str]] = lambda parent: []) -> str:
    """The message without line breaks. `known_keys(parent)` lists what a configuration node accepts."""
    line, cause = formatting.one_line(error) or type(error).__name__, error.__cause__
    if isinstance(error, MissingConfigException):
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        if group and error.options:
            line = f"{group}={option}: no such option, expected one of {', '.join(error.options)}"
    elif isinstance(error, InstantiationException) and cause is not None:
        key, message = str(error).rsplit("full_key: ", 1)[-1].strip(), one_line(cause)
        argument, equals, _ = message.partition("=")  # what a constructor refuses begins with its argument's name
        line = f"{key}.{message}" if equals and argument.isidentifier() else f"{key}: {message}"
    elif isinstance(error, ConfigCompositionException) and isinstance(cause, OmegaConfBaseException):
        if "not in struct" in str(cause):
            key = cause.full_key or ""
            parent = key.rpartition(".")[0]
            where = f"{parent} accepts" if parent else "expected one of"
            line = f"{key}: no such key; {where} {', '.join(known_keys(parent))}; +{key}=… adds a new one"
        else:
            first_line = str(error).partition("\n")[0]
            line = " ".join(f"{first_line} {cause}".split())
    elif _is_out_of_memory(error):
        line = f"out of memory: {line}; a smaller batch_size or model needs less"
    return line
