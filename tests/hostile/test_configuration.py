"""Any value for any key of any option in conf/: a run can take its first step, or one line names the key."""

from __future__ import annotations

import copy
import functools
import time
from pathlib import Path
from typing import Any

import hydra
from conftest import REPOSITORY, examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from cifarsweep.sweeper import hydra_compat
from cifarsweep.terminal import domains, errors
from cifarsweep.training import dry_step, schema, signatures
from cifarsweep.training.configuration import Configuration
from cifarsweep.training.session import Session, load_data

CONF = REPOSITORY / "conf"
OPTIONS = sorted(
    f"{path.parent.name}={path.stem}" for group in (*schema.CALLS, "trainer") for path in (CONF / group).glob("*.yaml")
)
TOP = ["batch_size", "seed", "name", "force", "outputs"]


@functools.cache
def composed(*words: str) -> dict[str, Any]:
    """The defaults with these overrides, as plain values."""
    with hydra.initialize_config_dir(str(CONF), **hydra_compat.VERSION_BASE):
        cfg = hydra.compose("config", list(words))
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


COMPOSED = {
    option: composed(option, *(["data.root=/data"] if option == "data=image_folder" else [])) for option in OPTIONS
}


def keys_of(option: str) -> list[str]:
    """The keys of the option's group in full, those that its class takes besides, and one that nobody knows."""
    group = option.partition("=")[0]
    values = COMPOSED[option][group]
    known = signatures.parameters(values["_target_"]) if "_target_" in values else {}
    names = [*(key for key, _ in domains.flat(values)), *(known or {}), "nope", "_args_", "_partial_", "_convert_"]
    return list(dict.fromkeys(f"{group}.{name}" for name in names))


KEYS = [(option, key) for option in OPTIONS for key in keys_of(option)]
KEYS += [("model=layers3", key) for key in (*TOP, "nope", *schema.CALLS, "trainer")]


def with_value(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy in which the key has the value, or is not there where the value is `...`."""
    copied = copy.deepcopy(config)
    *parents, last = key.split(".")
    node: Any = copied
    for parent in parents:
        node = node[parent]
    node.pop(last, None)
    if value is not ...:
        node[last] = value
    return copied


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, 2, 7, 8, 31, 32, 33, 2**16, 2**63 - 1, 2**63, 10**400])
    | st.floats()
    | st.sampled_from([0.0, 1.0, 1.5, 1e-300, 1e38, 1e39, -0.0])
    | st.text(max_size=12)
    | st.sampled_from(
        ["", "???", "a\x1bb", "a\nb", "a\0b", "~", "../up", "猫" * 100, "x" * 300, "torch.nn.Nope", "none"]
    )
)
VALUES = (
    PLAIN
    | st.lists(PLAIN, max_size=3)
    | st.dictionaries(st.sampled_from(["a", "crop", "_target_"]), PLAIN, max_size=2)
    | st.just(...)
)


def assert_names(error: BaseException, key: str) -> None:
    """One line that begins with the key, or its group, and says what is accepted."""
    line = errors.one_line(error)
    assert len(line.splitlines()) == 1, line
    group = key.partition(".")[0]
    related = ("model.depth", "batch_size", "data.augment", "data.name", group)  # what a value may not go with
    assert line.startswith(related), line
    assert "expected" in line or "no such key; " in line, line


def refusal(config: dict[str, Any]) -> ValueError | None:
    try:
        schema.check(config)
    except ValueError as error:
        return error
    return None


def test_every_option_is_accepted_as_it_is() -> None:
    assert len(OPTIONS) > 25
    assert {option: str(refusal(config)) for option, config in COMPOSED.items()} == dict.fromkeys(OPTIONS, "None")


def test_every_key_of_a_file_has_a_domain_or_is_in_the_signature_of_its_class() -> None:
    """So that a new key is checked, or this test says that it is not."""
    for option, key in KEYS:
        name = key.rpartition(".")[2]
        group = option.partition("=")[0]
        values = dict(domains.flat(COMPOSED[option]))
        if key in values and not name.startswith("_"):
            parameters = signatures.parameters(values.get(f"{group}._target_", ""))
            assert key in schema.DOMAINS or name in (parameters or {}), key


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KEYS), VALUES)
def test_a_value_is_accepted_or_refused_by_the_name_of_its_key(option_and_key: tuple[str, str], value: Any) -> None:
    option, key = option_and_key
    error = refusal(with_value(COMPOSED[option], key, value))
    if error is not None:
        assert_names(error, key)


@given(st.sampled_from(KEYS), VALUES)
def test_two_values_that_meet_are_accepted_or_refused(option_and_key: tuple[str, str], value: Any) -> None:
    """Such as a depth and a size of images, which are checked against each other."""
    option, key = option_and_key
    config = COMPOSED[option]
    for other in ("data.augment", "model.depth", "batch_size", "data.name"):
        if other != key and not key.startswith(other.partition(".")[0]):
            refusal(with_value(with_value(config, other, value), key, value))  # raises nothing but ValueError


def test_a_check_takes_a_thousandth_of_a_second() -> None:
    started = time.perf_counter()
    for config in COMPOSED.values():
        refusal(config)
    assert (time.perf_counter() - started) / len(COMPOSED) < 0.02  # 0.3 ms on an idle machine


TINY = ["data=shapes", "data.num_train=40", "data.num_test=10", "data.val_size=10", "batch_size=8"]
LARGE = {"model.width", "model.hidden"}
"""Whose largest values a machine may have the memory for, and then takes a minute."""


@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([pair for pair in KEYS if pair[0].partition("=")[0] not in ("data", "trainer")]), VALUES)
def test_what_is_accepted_takes_its_first_step_or_is_refused_by_its_group(
    data_cache: Path, option_and_key: tuple[str, str], value: Any
) -> None:
    option, key = option_and_key
    group, name = option.split("=")
    config = with_value(composed(*TINY, f"data.cache={data_cache}", option), key, value)
    if refusal(config) is not None or (key in LARGE and config[group].get(key.rpartition(".")[2], 0) > 64):
        return
    choices = {"model": "layers3", "optimizer": "momentum", "schedule": "onecycle", "loss": "label_smoothing"}
    choices |= {"data": "shapes", "trainer": "default"} | {group: name}
    checked = Configuration.of(OmegaConf.create(config), choices)
    try:
        dry_step.check(Session(checked, load_data(checked)))
    except ValueError as error:
        line = errors.one_line(error)
        assert len(line.splitlines()) == 1
        assert line.startswith(("model", "loss", "optimizer", "schedule")), line
