"""One line for each mistake of a user: key, value and what is accepted. Knows Hydra's exceptions, raises none."""

import errno
import re
import traceback
from collections.abc import Callable

from cifarsweep.terminal import formatting

OUT_OF_MEMORY = (
    *("out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory", "bad_alloc"),
    *("failed to map segment", "can't start new thread", "cannot create thread"),  # under `ulimit -v`
)
"""How PyTorch, the loader of its libraries and Python say it, on one system or another."""

# fmt: off
FAULTS_OF_A_MACHINE = {
    "ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM", "EMFILE", "ENFILE", "ENOMEM", "ESTALE",
}
# fmt: on
"""Names of errno."""


def is_users(error: BaseException) -> bool:
    """Whether the user can mend it, as a wrong value, file or folder. Anything else is a bug.

    Of what Hydra builds, TypeError is a constructor's, which knows no such key, and every error of a class that is not
    ours is for who named that class.
    """
    if not _is_hydras(error):
        is_accepted_kind = isinstance(error, ValueError | OSError) or is_out_of_memory(error)
        return is_accepted_kind or bool(_missing_package(error)) or _group_without_a_name(error) is not None
    from hydra.errors import InstantiationException

    if not isinstance(error, InstantiationException) or error.__cause__ is None:
        return True
    is_call_of_ours = "in call to target 'cifarsweep." in str(error)
    return not is_call_of_ours or isinstance(error.__cause__, TypeError) or is_users(error.__cause__)


def _missing_package(error: BaseException) -> str | None:
    """Another project's package that is not installed, or damaged."""
    package = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    return None if package in ("", "cifarsweep") else package


def _is_hydras(error: BaseException) -> bool:
    """By name: Hydra takes 0.3 s to import, which commands that do without it need not wait for."""
    return any(kind.__module__.partition(".")[0] in ("hydra", "omegaconf") for kind in type(error).__mro__)


def _group_without_a_name(error: BaseException) -> str | None:
    """The group for which a list of options holds something else than a name: Hydra looks for text in it unasked."""
    traceback_ = error.__traceback__
    while traceback_ is not None and traceback_.tb_next is not None:
        traceback_ = traceback_.tb_next
    if not isinstance(error, TypeError) or traceback_ is None:
        return None
    is_defaults_list = traceback_.tb_frame.f_globals.get("__name__") == "hydra._internal.defaults_list"
    return traceback_.tb_frame.f_locals["d"].get_group_path() if is_defaults_list else None


def is_out_of_memory(error: BaseException) -> bool:
    """PyTorch has a class of its own for this error on GPUs only, and a library that finds no room fails to import."""
    if isinstance(error, RuntimeError | ImportError | SystemError):
        return any(words in str(error).lower() for words in OUT_OF_MEMORY)
    return isinstance(error, MemoryError)


def machines_fault(error: BaseException | None) -> OSError | None:
    """The error of a full or broken disk, a limit or a missing permission that led to this one: anything would fail."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return error if error is not None and errno.errorcode.get(error.errno or 0) in FAULTS_OF_A_MACHINE else None


def plain(error: BaseException) -> Exception:
    """What any process can read of the error: its line, whose fault it is, and of a bug the traceback as a note."""
    if is_users(error):
        return ValueError(one_line(error))
    bug = RuntimeError(one_line(error))
    bug.add_note("".join(traceback.format_exception(error)))
    return bug


def one_line(error: BaseException, known_keys: Callable[[str], list[str]] = lambda parent: []) -> str:
    """The message without line breaks. `known_keys(parent)` lists the keys of a configuration node.

    A node with `_target_` takes any argument of what it builds, so a key may be added there.
    """
    line = formatting.one_line(error) or type(error).__name__
    if is_out_of_memory(error):
        return f"out of memory: {line}; a smaller batch_size or model, or a higher limit (ulimit -v), is needed"
    if package := _missing_package(error):
        return f"{line}; expected the package {package} to be installed, and whole"
    if group := _group_without_a_name(error):
        return f"{group}: expected the name of an option"
    return _hydras_line(error, line, known_keys) if _is_hydras(error) else line


_IN_QUOTES = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|\\.""")
_CLOSING = {"(": ")", "[": "]", "{": "}"}


def reason_of_parser(error: BaseException, value: str) -> str | None:
    """Why Hydra's parser has refused the value, where that can be told: it names what it has read, not what it lacks.

    Nothing can be told of a text that needs quotes.
    """
    if evaluated := re.search(r"(?s) while evaluating '.*?': (.*)", str(error)):
        return " ".join(evaluated[1].partition("\nSee https")[0].replace("\nAvailable: ", ", expected one of ").split())
    text = _IN_QUOTES.sub("x", value)
    if quote := re.search("['\"]", text):
        return f"a closing {quote[0]} is missing, or a backslash before one in a text"
    expected: list[str] = []
    for character in text:
        if character in _CLOSING:
            expected.append(_CLOSING[character])
        elif character in _CLOSING.values():
            if not expected:
                return f"nothing is opened that this {character} would close"
            if (closing := expected.pop()) != character:
                return f"a closing {closing} is missing before {character}"
    if expected:
        return f"a closing {expected.pop()} is missing"
    return "a value is missing beside a comma" if re.search(r"(^|[,(\[{:])\s*,|,\s*($|[)\]}])", text) else None


def _hydras_line(error: BaseException, line: str, known_keys: Callable[[str], list[str]]) -> str:
    from hydra.errors import ConfigCompositionException, InstantiationException, MissingConfigException
    from omegaconf.errors import OmegaConfBaseException

    cause = error.__cause__
    twice = re.fullmatch(r"(\S+) appears more than once in the final defaults list", line)
    missing = re.fullmatch(r"You must specify '(\S+)', e\.g, .* Available options: (.*)", line)
    if missing:
        line = f"{missing[1]}=???: expected one of {', '.join(missing[2].split())}"
    elif twice:
        line = f"+{twice[1]}: the group {twice[1]} is there already, expected {twice[1]}=… without +"
    elif isinstance(error, MissingConfigException):
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
            keys = known_keys(parent)
            named = ", ".join(known for known in keys if not known.startswith("_"))
            accepted = f"{parent} accepts {named}" if parent else f"expected one of {named}"
            adds = f"+{key}=… adds a new one" if "_target_" in keys or not named else ""
            line = "; ".join(filter(None, [f"{key}: no such key", named and accepted, adds]))
        else:
            first_line = str(error).partition("\n")[0]
            line = " ".join(f"{first_line} {cause}".split())
    elif isinstance(error, OmegaConfBaseException) and error.full_key:
        line = f"{error.full_key}: {' '.join(str(error).partition('full_key:')[0].split())}"
    return line
