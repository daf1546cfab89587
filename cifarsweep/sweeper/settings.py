"""The keys of the sweeper `study` as checked values, and the sampler and pruner that they name. Knows no trial."""

import hashlib
import importlib.util
import inspect
import pkgutil
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.exceptions import ExperimentalWarning

from cifarsweep.results.study_records import DIRECTIONS, Direction
from cifarsweep.sweeper import constraints, exclusions, local
from cifarsweep.sweeper.application import Application
from cifarsweep.sweeper.constraints import Constraint
from cifarsweep.sweeper.promotion import PausingPruner
from cifarsweep.sweeper.space import Space
from cifarsweep.terminal import formatting
from cifarsweep.terminal.domains import (
    ANYTHING,
    BOOLEAN,
    OF_TYPE,
    Domain,
    any_of,
    as_typed,
    check,
    list_of,
    number,
    whole,
)

_ENUMERATING = ("GridSampler", "BruteForceSampler")
_OF_ONE_SEQUENCE = ("GridSampler", "QMCSampler", "CurveGPSampler")
"""All trials of these come from one sequence, made by the study's seed."""
_NEEDS = {"CmaEsSampler": ["cmaes"], "GPSampler": ["scipy", "torch"], "QMCSampler": ["scipy"]}
"""Packages that Optuna imports only once a trial asks for them."""

_OPTIONS = Path(__file__).parent / "conf" / "hydra" / "sweeper"

_GIVEN = {
    "GridSampler": ["search_space"],
    "CurveGPSampler": ["space", "max_resource"],
}
"""Arguments that are no keys: the space gives them."""

MOST_TRIALS = 100_000
"""Whoever claims a trial reads them all."""

_SEEDS = list_of(whole(0, 2**32 - 1), 2)

_KINDS = {**OF_TYPE, "dict": Domain(lambda value: isinstance(value, dict), "a mapping")}
"""What the type of a constructor's argument accepts, by its name in the signature."""
_NUMBERS = ("int", "float")
_OBJECT = Domain(lambda value: False, "an object, as {_target_: …}")

_ARGUMENTS = {
    "seed": whole(0, 2**32 - 1),
    "n_startup_trials": whole(0, MOST_TRIALS),
    "n_ei_candidates": whole(1, 10_000),
    "prior_weight": number("a number above 0, up to 1000000", lambda value: 0 < value <= 1e6),
    "sigma0": number("a number above 0, up to 1000000", lambda value: 0 < value <= 1e6),
    "popsize": whole(2, 10_000),
    "population_size": whole(2, 10_000),
    "dividing_parameter": whole(1, 100),
    "min_resource": whole(1, 10**9),
    "max_resource": whole(1, 10**9),
    "reduction_factor": whole(2, 10**6),
    "keep_checkpoints": whole(1, MOST_TRIALS),
    "min_early_stopping_rate": whole(0, 100),
    "bootstrap_count": whole(0, MOST_TRIALS),
    "n_warmup_steps": whole(0, 10**9),
    "interval_steps": whole(1, 10**9),
    "n_min_trials": whole(1, MOST_TRIALS),
    "patience": whole(0, 10**9),
    "min_delta": number("a number, 0 or more", lambda value: value >= 0),
    "percentile": number("a number from 0 to 100", lambda value: 0 <= value <= 100),
    "standard_errors": number("a number from 0 to 100", lambda value: 0 <= value <= 100),
    "p_threshold": number("a number from 0 to 1", lambda value: 0 <= value <= 1),
    "n_startup_steps": whole(0, 10**9),
}
"""The numbers that arguments of Optuna's samplers and pruners accept. A class takes others without a word, and fails
or means something else once its model or rule is first used."""


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
    exclude: tuple[str, ...]
    constraints: tuple[Constraint, ...]
    seeds: tuple[int, ...]
    """Each trial is the mean over a run with each of them; none: a trial is one run."""
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
    detach: bool
    max_failures: int
    max_retries: int
    storage_timeout: float
    grace_period: float

    @property
    def enumerates(self) -> bool:
        """Whether the sampler visits each point of a finite space once."""
        return _name(self.sampler) in _ENUMERATING

    @property
    def pauses(self) -> bool:
        """Whether trials may pause and go on."""
        return _pauses(self.pruner)

    @property
    def samples_in_turn(self) -> bool:
        """Whether workers sample one after another: each must see what the others took, or it takes no time at all."""
        return self.enumerates or _name(self.sampler) in ("QMCSampler", "RandomSampler")


def read(sweeper: DictConfig, application: Application, base: DictConfig) -> Settings:
    """The settings of a search in an application, whose configuration without what is searched is `base`.

    ValueError names the key under hydra.sweeper, its value and what is accepted.
    """
    plain = OmegaConf.to_container(sweeper, resolve=True)
    assert isinstance(plain, dict)
    values: dict[str, Any] = {str(key): value for key, value in plain.items()}
    epochs = values.pop(f"max_{application.unit}s", None)
    values["max_steps"] = values.get("max_steps", epochs)
    check("hydra.sweeper.", values, _accepted(application))
    objectives = _listed(values["objectives"] or list(application.objectives))
    max_steps = values["max_steps"] or application.max_steps(base)
    _choose(values, len(objectives), max_steps)
    _check_arguments("hydra.sweeper.sampler", values["sampler"], optuna.samplers.BaseSampler)
    _check_arguments("hydra.sweeper.pruner", values["pruner"], optuna.pruners.BasePruner)
    directions = _listed(values["direction"] or list(application.directions))
    known = application.known_objectives
    for name in objectives:
        if known is not None and name not in known:
            raise ValueError(f"hydra.sweeper.objectives={name}: expected some of {', '.join(known)}")
    if len(objectives) != len(directions):
        count = f"{len(objectives)}, one for each of {', '.join(objectives)}"
        raise ValueError(f"hydra.sweeper.direction={as_typed(values['direction'])}: expected {count}")

    def check_figure(name: str) -> None:
        if known is not None and name not in known:
            raise ValueError(f"{name}: expected some of {', '.join(known)}")

    budget = None
    kind, _, amount = str(values["budget"] or "").partition(":")
    if kind == "trials":
        values["n_trials"] = int(amount)
    elif kind:
        if (sampler := _name(values["sampler"])) in _ENUMERATING:
            raise ValueError(f"hydra.sweeper.budget={values['budget']}: expected trials:N with {sampler}")
        budget = Budget(f"{application.unit}s" if kind == "steps" else kind, float(amount))
    if values["pruner"].get("max_resource") == "auto" and max_steps:
        values["pruner"]["max_resource"] = max_steps
    if _name(values["sampler"]) == "CurveGPSampler" and len(objectives) > 1:
        raise ValueError(f"hydra/sweeper/sampler=curve_gp: expected one objective, here {', '.join(objectives)}")
    _check_pauses(values, objectives, max_steps)
    _check_seeds(values, objectives, base, application)
    study_per, finalists = _listed(values["study_per"]), values["finalists"]
    if finalists and len(objectives) > 1:
        raise ValueError(f"hydra.sweeper.finalists={finalists}: expected 0 with several objectives")
    if finalists and OmegaConf.select(base, application.seed_key) is None:
        has_no_seed = f"a configuration with the key {application.seed_key}, in which final runs differ"
        raise ValueError(f"hydra.sweeper.finalists={finalists}: expected 0, or {has_no_seed}")
    if study_per and len(objectives) > 1:
        raise ValueError(f"hydra.sweeper.study_per=[{', '.join(study_per)}]: expected [] with several objectives")
    values |= {
        "exclude": tuple(_listed(values["exclude"])),
        "constraints": constraints.parse(values["constraints"], check_figure),
        "seeds": tuple(values["seeds"]),
        "study_per": tuple(study_per),
        "budget": budget,
        "max_steps": max_steps,
        "final_on": values["final_on"] or next(iter(application.final_on)),
        "objectives": tuple(objectives),
        "directions": tuple(directions),
        "enqueue": tuple(values["enqueue"]),
    }
    return Settings(**{key: values[key] for key in Settings.__annotations__})


def _choose(values: dict[str, Any], num_objectives: int, max_steps: int | None) -> None:
    """Puts the option that serves this search in the place of sampler=auto and of pruner=auto."""
    is_single, has_seeds = num_objectives == 1, bool(values["seeds"])
    for group in ("sampler", "pruner"):
        if values[group]["_target_"] == "auto":
            if group == "sampler":
                name = "curve_gp" if is_single and not has_seeds else "tpe"
            elif has_seeds:
                name = "racing" if is_single else "none"
            elif max_steps == 1:  # there is nothing to stop
                name = "none"
            else:
                name = "promote" if is_single and _name(values["sampler"]) not in _ENUMERATING else "asha"
            auto, option = (OmegaConf.load(_OPTIONS / group / f"{each}.yaml") for each in ("auto", name))
            given = {key: value for key, value in values[group].items() if value != auto.get(key)}
            values[group] = OmegaConf.to_container(OmegaConf.merge(option, given))


def _pauses(pruner: Mapping[str, Any]) -> bool:
    return issubclass(pkgutil.resolve_name(pruner["_target_"]), PausingPruner)


def _check_pauses(values: Mapping[str, Any], objectives: list[str], max_steps: int | None) -> None:
    """ValueError where trials cannot pause and go on."""
    if not _pauses(values["pruner"]):
        return
    pruner, first = f"hydra/sweeper/pruner={_name(values['pruner'])}", values["pruner"].get("min_resource")
    if (sampler := _name(values["sampler"])) in _ENUMERATING:
        raise ValueError(f"{pruner}: expected another sampler than {sampler}, whose points are all to be complete")
    if len(objectives) > 1:
        raise ValueError(f"{pruner}: expected one objective, here {', '.join(objectives)}")
    if max_steps and isinstance(first, int) and first >= max_steps:
        expected = f"expected a step below the last one, which is {max_steps}"
        raise ValueError(f"hydra.sweeper.pruner.min_resource={first}: {expected}")


def _check_seeds(values: Mapping[str, Any], objectives: list[str], base: DictConfig, application: Application) -> None:
    """ValueError where a trial cannot be the mean over several runs."""
    pruner, sampler = _name(values["pruner"]), _name(values["sampler"])
    if pruner == "RacingPruner" and (not values["seeds"] or len(objectives) > 1):
        expected = "expected one objective and hydra.sweeper.seeds, such as [0,1,2]"
        raise ValueError(f"hydra/sweeper/pruner=racing: {expected}")
    if not values["seeds"]:
        return
    given = f"hydra.sweeper.seeds={as_typed(values['seeds'])}"
    if OmegaConf.select(base, application.seed_key, default=...) is ...:
        raise ValueError(f"{given}: expected [], or a configuration with the key {application.seed_key}")
    if pruner not in ("RacingPruner", "NopPruner"):
        raise ValueError(
            f"{given}: expected hydra/sweeper/pruner=auto, racing or none, which compare runs; here {pruner}"
        )
    if sampler == "CurveGPSampler":
        raise ValueError(f"{given}: expected [] with hydra/sweeper/sampler=curve_gp, which learns from single runs")
    if values["warm_start"]:
        raise ValueError(f"{given}: expected [] with hydra.sweeper.warm_start, whose trials are single runs")


def _accepted(application: Application) -> dict[str, Domain]:
    """What each key accepts."""
    kinds = list(dict.fromkeys(["trials", "steps", f"{application.unit}s", "seconds"]))
    budget = re.compile(rf"trials:({MOST_TRIALS}|[1-9]\d{{0,4}})|({'|'.join(kinds[1:])}):[1-9]\d{{0,8}}")
    known = application.known_objectives
    names = "a name, or a list of different ones" if known is None else f"some of {', '.join(known)}, each once"
    built = Domain(
        lambda value: isinstance(value, dict) and isinstance(value.get("_target_"), str), "an option of its group"
    )
    return {
        "sampler": built,
        "pruner": built,
        "exclude": exclusions.ACCEPTED,
        "constraints": exclusions.ACCEPTED._replace(text="a list of conditions, such as ['params<=200000']"),
        "seeds": Domain(
            lambda value: value == [] or (_SEEDS.accepts(value) and len(set(value)) == len(value)),
            "[], or a list of 2 to 100 different whole numbers",
        ),
        "n_trials": whole(1, MOST_TRIALS),
        "study_per": Domain(
            lambda value: value == [] or _names(value), "a list of keys that are searched, such as [model]"
        ),
        "budget": Domain(
            lambda value: budget.fullmatch(str(value)) is not None,
            f"{', '.join(f'{kind}:N' for kind in kinds[:-1])} or {kinds[-1]}:N with a whole number N, "
            f"up to {MOST_TRIALS} trials",
        ).or_null(),
        "max_steps": whole(1, 10**9).or_null(),
        "finalists": whole(0, 1000),
        "repeats": whole(1, 1000),
        "final_on": Domain(lambda value: value in (None, *application.final_on), " or ".join(application.final_on)),
        "dry_run": BOOLEAN,
        "n_workers": whole(1, local.MOST_WORKERS).or_null(),
        "timeout": _seconds(10**9).or_null(),
        "storage": Domain(lambda value: isinstance(value, str), "an address").or_null(),
        "objectives": Domain(lambda value: value is None or _names(value), names),
        "direction": Domain(
            lambda value: value is None or (all(text in DIRECTIONS for text in _listed(value)) and value != []),
            f"{' or '.join(DIRECTIONS)}, or a list of them",
        ),
        "enqueue": Domain(
            lambda value: isinstance(value, list) and all(isinstance(values, dict) for values in value),
            "a list of mappings, such as [{model: layers3, optimizer.lr: 0.1}]",
        ),
        "warm_start": BOOLEAN,
        "join": BOOLEAN,
        "detach": BOOLEAN,
        "max_failures": whole(0, MOST_TRIALS),
        "max_retries": whole(0, 1000),
        "storage_timeout": _seconds(10**6),
        "grace_period": _seconds(10**6),
        # Hydra's own
        "_target_": Domain(lambda value: isinstance(value, str), "hydra/sweeper=study"),
        "_recursive_": Domain(lambda value: value is False, "false"),
        "params": Domain(lambda value: isinstance(value, dict), "a space for each key, such as {lr: 'interval(0,1)'}"),
    }


def _seconds(most: float) -> Domain:
    return number(f"seconds above 0, up to {most}", lambda value: 0 < value <= most)


def _names(value: Any) -> bool:
    """Whether it is a name, or a list of different ones."""
    names = _listed(value)
    are_names = all(isinstance(name, str) and name.strip() and name.isprintable() for name in names)
    return bool(names) and are_names and len(set(names)) == len(names)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# sampler and pruner


def make_sampler(settings: Settings, space: Space, trial: int) -> optuna.samplers.BaseSampler:
    """The sampler for one trial.

    Its seed is made of the study's seed and the trial's number: random draws are the same whichever worker takes a
    trial and however often the study was interrupted, and no two workers draw alike. ValueError names what is missing
    or not accepted.
    """
    arguments = dict(settings.sampler)
    seed = arguments.get("seed")
    if seed is not None and _name(settings.sampler) not in _OF_ONE_SEQUENCE:
        digest = hashlib.sha256(f"{seed} {trial}".encode()).digest()
        arguments["seed"] = int.from_bytes(digest[:4], "big")
    if _name(settings.sampler) == "GridSampler":
        arguments["search_space"] = space.grid()
    elif _name(settings.sampler) == "CurveGPSampler":
        arguments |= {"space": space, "max_resource": settings.max_steps}
    elif settings.enumerates:
        space.check_finite(_name(settings.sampler))
    return _make("sampler", arguments)  # type: ignore[no-any-return]


def make_pruner(settings: Settings) -> optuna.pruners.BasePruner:
    return _make("pruner", settings.pruner)  # type: ignore[no-any-return]


def try_out(settings: Settings, space: Space) -> None:
    """Makes two trials in memory: some mistakes in a sampler's or a pruner's arguments show only when it is used.

    ValueError names the argument, or what of the space the sampler cannot use.
    """
    kind = "sampler"
    try:
        study = optuna.create_study(directions=settings.directions)
        study.stop = lambda: None  # type: ignore[method-assign]
        for number in range(2):
            kind, study.sampler = "sampler", make_sampler(settings, space, number)
            trial = study.ask()
            space.suggest(trial)
            kind, study.pruner = "pruner", make_pruner(settings)
            if len(settings.directions) == 1:
                trial.report(0.0, 1)
                trial.should_prune()
            study.tell(trial, [0.0] * len(settings.directions))
    except Exception as error:  # whatever the class raises: all that it was given is the user's
        if str(error).startswith("hydra"):
            raise
        raise ValueError(f"hydra.sweeper.{kind}: {formatting.one_line(error)}") from error


def _check_arguments(key: str, given: Mapping[str, Any], base: type = object) -> None:
    """ValueError names an argument that the class of `given` does not take, or whose value it cannot use."""
    try:
        built = pkgutil.resolve_name(given["_target_"])
        if not (isinstance(built, type) and issubclass(built, base)):
            raise ValueError(f"expected a class derived from {base.__name__}")
        parameters = dict(inspect.signature(built).parameters)
    except Exception as error:  # an import runs whatever code stands there
        raise ValueError(f"{key}._target_={given['_target_']}: {formatting.one_line(error)}") from error
    for name in _GIVEN.get(built.__name__, ()):
        parameters.pop(name, None)
    takes_any = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values())
    for name, value in given.items():
        if name in parameters:
            domain = _argument(name, parameters[name].annotation)
            if isinstance(value, Mapping) and "_target_" in value:
                _check_arguments(f"{key}.{name}", value)
            elif not domain.accepts(value):
                raise ValueError(f"{key}.{name}={as_typed(value)}: expected {domain.text}")
        elif name != "_target_" and not takes_any:
            raise ValueError(f"{key}.{name}: no such key; {built.__name__} takes {', '.join(parameters) or 'none'}")


def _argument(name: str, annotation: Any) -> Domain:
    """What an argument of a constructor accepts, by its type and by what is known of its name."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    types = [part.strip() for part in text.split("|")]
    if annotation is inspect.Parameter.empty or "Any" in types or text.startswith(("typing.", "Optional", "Union")):
        return ANYTHING
    return any_of(
        _ARGUMENTS[name] if name in _ARGUMENTS and kind in _NUMBERS else _KINDS.get(kind.partition("[")[0], _OBJECT)
        for kind in types
    )


def _make(kind: str, arguments: Mapping[str, Any]) -> Any:
    missing = [package for package in _NEEDS.get(_name(arguments), []) if importlib.util.find_spec(package) is None]
    if missing:
        names = " ".join(missing)
        raise ValueError(f"hydra/sweeper/{kind}: {_name(arguments)} needs {names}: pip install {names}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        given = {
            key: _make(kind, value) if isinstance(value, dict) and "_target_" in value else value
            for key, value in arguments.items()
            if key != "_target_"
        }
        try:
            return pkgutil.resolve_name(arguments["_target_"])(**given)
        except (TypeError, ValueError) as error:
            raise ValueError(f"hydra.sweeper.{kind}: {formatting.one_line(error)}") from error


def _name(arguments: Mapping[str, Any]) -> str:
    return str(arguments["_target_"]).rpartition(".")[2]
