"""Configurations of trials, of a search space's values. Knows Hydra's jobs, not studies.

As in `jobs`, groups are composed once per combination of options; Hydra's settings are shared by the trials, too.
"""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.config_loader import ConfigLoader
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from cifarsweep.sweeper import jobs
from cifarsweep.sweeper.space import Parameter, Space


class Composed(NamedTuple):
    """A job's own configuration, and Hydra's beside it."""

    task: DictConfig
    hydra: DictConfig


class Composer:
    def __init__(self, loader: ConfigLoader, master: DictConfig, space: Space, sweep_dir: Path) -> None:
        self._loader, self._master, self._space, self._sweep_dir = loader, master, space, sweep_dir
        self._composed: dict[tuple[str, ...], Composed] = {}
        self._pickled: dict[tuple[str, ...], bytes] = {}  # to read them takes a third of the time of a deep copy
        self._is_group: dict[str, bool] = {}

    def of(self, space: Space) -> Composer:
        """For a part of this space, with what was composed so far."""
        part = copy.copy(self)
        part._space = space
        return part

    def __call__(
        self, values: Mapping[str, Any], number: int = 0, instead: Mapping[str, Any] | None = None
    ) -> Composed:
        """What Hydra would compose for trial `number` from the overrides. ValueError names a key that is not there.

        `instead` has values of plain keys that take the place of whatever these would have. The part `hydra` is shared:
        it says what it should until the next call.
        """
        instead = instead or {}
        plain, composed = {}, list(self._space.fixed)
        for parameter in self._space.active(values):
            value = values[parameter.key]
            if self._is_plain(parameter, value):
                plain[parameter.key] = value
            else:
                composed.append(parameter.override(value))
        plain.update(instead)
        template = self.composed(composed)
        task: DictConfig = pickle.loads(self._pickled[tuple(composed)])
        for key, value in plain.items():
            try:
                OmegaConf.update(task, key, value)
            except (ConfigAttributeError, ConfigKeyError) as error:
                raise ValueError(f"{key}: no such key in the configuration; +{key}=… adds a new one") from error
            except OmegaConfBaseException as error:
                raise ValueError(f"{key}={value}: {' '.join(str(error).split())}") from error
        overrides = [word for word in self._space.overrides(values) if word.partition("=")[0] not in instead]
        overrides += [f"{key}={value}" for key, value in instead.items()]
        jobs.name(template.hydra, overrides)
        jobs.number(template.hydra, number)
        return Composed(task, template.hydra)

    def composed(self, overrides: Sequence[str]) -> Composed:
        key = tuple(overrides)
        if key not in self._composed:
            config = self._loader.load_sweep_config(self._master, list(overrides))
            with open_dict(config):
                # Absolute: ${now:} in it would give another name in each process.
                config.hydra.sweep.dir = config.hydra.runtime.output_dir = str(self._sweep_dir)
                hydra = OmegaConf.masked_copy(config, ["hydra"])
                # Interpolations from Hydra's part into the other end with the separation.
                hydra.hydra.sweeper = OmegaConf.create(OmegaConf.to_container(config.hydra.sweeper, resolve=True))
                hydra.hydra.launcher = OmegaConf.create(OmegaConf.to_container(config.hydra.launcher, resolve=True))
                del config["hydra"]
            OmegaConf.set_readonly(hydra.hydra, True)
            self._composed[key] = Composed(config, hydra)
            self._pickled[key] = pickle.dumps(config)
        return self._composed[key]

    def unsearched(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A copy without what is searched: the values of its keys, and all that its groups' options bring."""
        left = copy.deepcopy(dict(config))
        for key in self._space.keys:
            *parents, last = re.split(r"[./]", key.rpartition("@")[2].lstrip("+~"))
            node: Any = left
            for parent in parents:
                node = node.get(parent, {}) if isinstance(node, dict) else {}
            if isinstance(node, dict):
                node.pop(last, None)
        return left

    def _is_plain(self, parameter: Parameter, value: Any) -> bool:
        """Whether the value of an existing key, and no more than that, is changed."""
        key = parameter.key
        if key not in self._is_group:
            self._is_group[key] = bool(self._loader.get_group_options(key.partition("@")[0].lstrip("+~")))
        is_path = not self._is_group[key] and key.replace(".", "").replace("_", "").isalnum()
        return is_path and (not parameter.texts or not isinstance(value, str))
