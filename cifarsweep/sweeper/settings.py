"""The keys of the sweeper `study` as checked values, and the sampler and pruner that they name. Knows no trial."""

import hashlib
import importlib.util
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from hydra.utils import get_class
from omegaconf import DictConfig, OmegaConf
from optuna.exceptions import ExperimentalWarning

from cifarsweep.results.study_records import DIRECTIONS, Direction
from cifarsweep.sweeper.application import Application
from cifarsweep.sweeper.space import Space
from cifarsweep.terminal.domains import BOOLEAN, Domain, as_typed, number, whole

_ENUMERATING = ("GridSampler", "BruteForceSampler")
_NEEDS = {"CmaEsSampler": ["cmaes"], "GPSampler": ["scipy", "torch"], "QMCSampler": ["scipy"]}
"""Packages that Optuna imports only once a trial asks for them."""


@dataclass(frozen=True)
class Budget:
    """What one study may spend on its search: steps of trials, or seconds of training that trials report."""

    kind: str
    """seconds, or the plural of the application's unit of a step."""
    amount: float

    @property
    def step(self) -> int:
        """What a step that runs is sure to take. Nobody knows how many seconds that is."""
        return 0 if self.kind == "seconds" else 1

    def __str__(self) -> str:
        return f"{self.amount:g} {self.kind}"


@dataclass(frozen=True)
class Settings:
    n_trials: int
    study_per: tuple[str, ...]
    budget: Budget | None
    """None: n_trials trials."""
    max_steps: int | None
    """After which a trial has ended by itself; None where nobody knows."""
    finalists: int
    repeats: int
    final_on: str
    dry_run: bool
    n_workers: int | None
    timeout: float | None
    storage: str | None
    objectives: tuple[str, ...]
    directions: tuple[Direction, ...]
    sampler: dict[str, Any]
    pruner: dict[str, Any]
    enqueue: tuple[dict[str, Any], ...]
    warm_start: bool
    join: bool
    max_failures: int
    max_retries: int
    grace_period: float

    @property
    def enumerates(self) -> bool:
        """Whether the sampler visits each point of a finite space once."""
        return _name(self.sampler) in _ENUMERATING

    @property
    def has_plan(self) -> bool:
        """Whether there is more than one search, so that a person wants to see the cost first."""
        return bool(self.study_per or self.finalists or self.dry_run)


def read(sweeper: DictConfig, application: Application, base: DictConfig) -> Settings:
    """The settings of a search in an application, whose configuration without what is searched is `base`.

    ValueError names the key under hydra.sweeper, its value and what is accepted.
    """
    plain = OmegaConf.to_container(sweeper, resolve=True)
    assert isinstance(plain, dict)
    values: dict[str, Any] = {str(key): value for key, value in plain.items()}
    values.setdefault("max_steps", values.pop(f"max_{application.unit}s", None))
    for key, domain in _accepted(application).items():
        if not domain.accepts(values[key]):
            raise ValueError(f"hydra.sweeper.{key}={as_typed(values[key])}: expected {domain.text}")
    objectives = _listed(values["objectives"] or list(application.objectives))
    directions = _listed(values["direction"] or list(application.directions))
    known = application.known_objectives
    for key, options, names in (("objectives", known, objectives), ("direction", DIRECTIONS, directions)):
        for name in names:
            if options is not None and name not in options:
                raise ValueError(f"hydra.sweeper.{key}={as_typed(name)}: expected some of {', '.join(options)}")
    if len(objectives) != len(directions):
        count = f"{len(objectives)}, one for each of {', '.join(objectives)}"
        raise ValueError(f"hydra.sweeper.direction={as_typed(values['direction'])}: expected {count}")
    budget = None
    kind, _, amount = str(values["budget"] or "").partition(":")
    if kind == "trials":
        values["n_trials"] = int(amount)
    elif kind:
        if (sampler := _name(values["sampler"])) in _ENUMERATING:
            raise ValueError(f"hydra.sweeper.budget={values['budget']}: expected trials:N with {sampler}")
        budget = Budget(f"{application.unit}s" if kind == "steps" else kind, float(amount))
    max_steps = values["max_steps"] or application.max_steps(base)
    if values["pruner"].get("max_resource") == "auto" and max_steps:
        values["pruner"]["max_resource"] = max_steps
    study_per, finalists = _listed(values["study_per"]), values["finalists"]
    if finalists and len(objectives) > 1:
        raise ValueError(f"hydra.sweeper.finalists={finalists}: expected 0 with several objectives")
    if finalists and OmegaConf.select(base, application.seed_key) is None:
        has_no_seed = f"a configuration with the key {application.seed_key}, in which final runs differ"
        raise ValueError(f"hydra.sweeper.finalists={finalists}: expected 0, or {has_no_seed}")
    if study_per and len(objectives) > 1:
        raise ValueError(f"hydra.sweeper.study_per=[{', '.join(study_per)}]: expected [] with several objectives")
    values |= {
        "study_per": tuple(study_per),
        "budget": budget,
        "max_steps": max_steps,
        "final_on": values["final_on"] or next(iter(application.final_on)),
        "objectives": tuple(objectives),
        "directions": tuple(directions),
        "enqueue": tuple(values["enqueue"]),
    }
    return Settings(**{key: values[key] for key in Settings.__annotations__})


def _accepted(application: Application) -> dict[str, Domain]:
    """What each key accepts."""
    kinds = list(dict.fromkeys(["trials", "steps", f"{application.unit}s", "seconds"]))
    budget = re.compile(rf"({'|'.join(kinds)}):[1-9]\d*")
    names = "a name" if application.known_objectives is None else f"some of {', '.join(application.known_objectives)}"
    built = Domain(
        lambda value: isinstance(value, dict) and isinstance(value.get("_target_"), str), "an option of its group"
    )
    seconds = number("seconds above 0", lambda value: value > 0)
    return {
        "n_trials": whole(1),
        "study_per": Domain(
            lambda value: value == [] or _strings(value), "a list of keys that are searched, such as [model]"
        ),
        "budget": Domain(
            lambda value: budget.fullmatch(str(value)) is not None,
            f"{', '.join(f'{kind}:N' for kind in kinds[:-1])} or {kinds[-1]}:N with a whole number N",
        ).or_null(),
        "max_steps": whole(1).or_null(),
        "finalists": whole(0),
        "repeats": whole(1),
        "final_on": Domain(lambda value: value in (None, *application.final_on), " or ".join(application.final_on)),
        "dry_run": BOOLEAN,
        "n_workers": whole(1).or_null(),
        "timeout": seconds.or_null(),
        "storage": Domain(lambda value: isinstance(value, str), "an address").or_null(),
        "objectives": Domain(lambda value: value is None or _strings(value), names),
        "direction": Domain(
            lambda value: value is None or _strings(value), f"{' or '.join(DIRECTIONS)}, or a list of them"
        ),
        "sampler": built,
        "pruner": built,
        "enqueue": Domain(
            lambda value: isinstance(value, list) and all(isinstance(values, dict) for values in value),
            "a list of mappings, such as [{model: layers3, optimizer.lr: 0.1}]",
        ),
        "warm_start": BOOLEAN,
        "join": BOOLEAN,
        "max_failures": whole(0),
        "max_retries": whole(0),
        "grace_period": seconds,
    }


def _strings(value: Any) -> bool:
    """Whether it is a text that is not empty, or a list of texts."""
    return value not in ("", []) and all(isinstance(text, str) for text in _listed(value))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# sampler and pruner


def make_sampler(settings: Settings, space: Space, trial: int) -> optuna.samplers.BaseSampler:
    """The sampler for one trial.

    Its seed is made of the study's seed and the trial's number: random draws are the same whichever worker takes a
    trial and however often the study was interrupted, and no two workers draw alike. Grid and quasi-random samplers
    keep the study's seed, as all their trials come from one sequence. ValueError names what is missing or not accepted.
    """
    arguments = dict(settings.sampler)
    seed = arguments.get("seed")
    if seed is not None and _name(settings.sampler) not in ("GridSampler", "QMCSampler"):
        digest = hashlib.sha256(f"{seed} {trial}".encode()).digest()
        arguments["seed"] = int.from_bytes(digest[:4], "big")
    if _name(settings.sampler) == "GridSampler":
        arguments["search_space"] = space.grid()
    return _make("sampler", arguments)  # type: ignore[no-any-return]


def make_pruner(settings: Settings) -> optuna.pruners.BasePruner:
    return _make("pruner", settings.pruner)  # type: ignore[no-any-return]


def try_out(settings: Settings, space: Space) -> None:
    """Makes a trial in memory: some mistakes in a sampler's or a pruner's arguments show only when it is used."""
    kind = "sampler"
    try:
        study = optuna.create_study(directions=settings.directions, sampler=make_sampler(settings, space, 0))
        study.stop = lambda: None  # type: ignore[method-assign]
        trial = study.ask()
        space.suggest(trial)
        kind, study.pruner = "pruner", make_pruner(settings)
        if len(settings.directions) == 1:
            trial.report(0.0, 1)
            trial.should_prune()
        study.tell(trial, [0.0] * len(settings.directions))
    except TypeError as error:
        raise ValueError(f"hydra.sweeper.{kind}: {' '.join(str(error).split())}") from error


def _make(kind: str, arguments: Mapping[str, Any]) -> Any:
    missing = [package for package in _NEEDS.get(_name(arguments), []) if importlib.util.find_spec(package) is None]
    if missing:
        names = " ".join(missing)
        raise ValueError(f"hydra/sweeper/{kind}: {_name(arguments)} needs {names}: pip install {names}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            target = get_class(arguments["_target_"])
            given = {
                key: _make(kind, value) if isinstance(value, dict) and "_target_" in value else value
                for key, value in arguments.items()
                if key != "_target_"
            }
            return target(**given)
        except ImportError as error:
            raise ValueError(f"hydra.sweeper.{kind}: {error}") from error
        except (TypeError, ValueError) as error:
            raise ValueError(f"hydra.sweeper.{kind}: {' '.join(str(error).split())}") from error


def _name(arguments: Mapping[str, Any]) -> str:
    return str(arguments["_target_"]).rpartition(".")[2]
