"""Other search methods behind the protocol of event_loop.py, each from its own package, with its own defaults.

Two differ from their defaults, where they are made: PASHA's factor, and how often MOBSTER's model is fitted. A method
whose package is missing is left out, with a line on stderr.

What a search proposes comes from the space. Plain Optuna has a parameter for each branch of a condition, as the engine
does. hydra-optuna-sweeper's language knows no conditions; its `custom_search_space` suggests what depends on a choice.
Syne Tune knows neither: what depends on a choice is the place in that choice's interval, from 0 to 1 on its scale.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import io
import itertools
import logging
import queue
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optuna
from event_loop import Begun, Method, Search
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution
from optuna.trial import Trial, TrialState

from cifarsweep.sweeper.curve_gp import value_at
from cifarsweep.sweeper.space import Parameter, Space

Make = Callable[[Search], Method]


def found(proposes: bool) -> dict[str, Make]:
    """Each method by name. Where the trials are given and nothing is proposed, samplers do not matter, nor methods
    whose pruner asks its model of what it has proposed."""
    pruners = {"median": optuna.pruners.MedianPruner, "asha": optuna.pruners.SuccessiveHalvingPruner}
    pruners["hyperband"] = optuna.pruners.HyperbandPruner
    sampler = optuna.samplers.TPESampler if proposes else optuna.samplers.RandomSampler
    methods: dict[str, Make] = {"random search": _plain(optuna.samplers.RandomSampler, optuna.pruners.NopPruner)}
    named = "optuna tpe" if proposes else "optuna"
    if proposes:
        methods[named] = _plain(sampler, optuna.pruners.NopPruner)
    methods |= {f"{named} {name}": _plain(sampler, pruner) for name, pruner in pruners.items()}
    if _is_there("hydra_plugins.hydra_optuna_sweeper", "hydra-optuna-sweeper"):
        methods["hydra-optuna-sweeper"] = HydraSweeper
    if _is_there("syne_tune", "syne-tune"):
        methods |= _syne_tune(proposes)
    return methods


def _is_there(module: str, package: str) -> bool:
    try:
        there = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        print(f"{package} is not installed; its methods are left out", file=sys.stderr)
    return there


# plain Optuna


def _plain(
    sampler: Callable[..., optuna.samplers.BaseSampler], pruner: Callable[[], optuna.pruners.BasePruner]
) -> Make:
    return lambda search: PlainOptuna(search, sampler(seed=search.seed), pruner())


class PlainOptuna(Method):
    def __init__(self, search: Search, sampler: optuna.samplers.BaseSampler, pruner: optuna.pruners.BasePruner) -> None:
        self._search = search
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # Hyperband's bracket of a trial depends on the study's name.
        self._study = optuna.create_study(
            study_name=str(search.seed), direction="maximize", sampler=sampler, pruner=pruner
        )
        self._trials: dict[int, Trial] = {}

    def begin(self, worker: int) -> Begun | None:
        if not self._search.may_begin(len(self._trials)):
            return None
        trial = self._study.ask()
        self._trials[trial.number] = trial
        return Begun(trial.number, self._search.space.suggest(trial))

    def report(self, number: int, epoch: int, value: float) -> bool:
        self._trials[number].report(value, epoch)
        return self._trials[number].should_prune()

    def end(self, number: int, value: float | None) -> None:
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        self._study.tell(self._trials[number], value, state)


# hydra-optuna-sweeper


class _Closed(BaseException):
    """The search is over before the sweeper is."""


class HydraSweeper(Method):
    """Its sweeper runs in a thread of its own and launches batches of as many jobs as there are workers; it is its
    launcher. A batch is over when its last job is; nothing is pruned."""

    def __init__(self, search: Search) -> None:
        from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

        self._space, self._folder = search.space, tempfile.TemporaryDirectory()
        n_trials = search.n_trials
        if n_trials is None:
            assert search.most_epochs is not None
            n_trials = search.most_epochs // search.num_epochs + search.num_workers
        self._sweeper = OptunaSweeperImpl(
            sampler=optuna.samplers.TPESampler(seed=search.seed),  # the fields of its option tpe are Optuna's defaults
            direction="maximize",
            storage=None,
            study_name=None,
            n_trials=n_trials,
            n_jobs=search.num_workers,
            max_failure_rate=0.0,
            custom_search_space=None,
            params=OmegaConf.create({p.key: p.text for p in search.space.parameters if not p.conditions}),
        )
        # As setup would, which asks Hydra for a launcher and a function by its dotted path.
        self._sweeper.launcher, self._sweeper.hydra_context = self, object()
        self._sweeper.config = OmegaConf.create({"hydra": {"sweep": {"dir": self._folder.name}}})
        self._sweeper.custom_search_space_extender = self._suggest_conditional
        self._given: queue.Queue[list[tuple[int, Sequence[str]]] | None] = queue.Queue()
        self._returned: queue.Queue[Mapping[int, float] | None] = queue.Queue()
        self._waiting: list[tuple[int, Sequence[str]]] = []
        self._values: dict[int, float] = {}
        self._num_running, self._is_over = 0, False
        self._thread = threading.Thread(target=self._sweep, daemon=True)
        self._thread.start()

    def _suggest_conditional(self, config: Any, trial: Trial) -> None:
        values = dict(trial.params)
        for parameter in self._space.active(values):
            if parameter.conditions:
                d = parameter.distribution
                assert not isinstance(d, CategoricalDistribution)
                values[parameter.key] = trial.suggest_float(parameter.key, d.low, d.high, log=d.log)

    def _sweep(self) -> None:
        try:
            self._sweeper.sweep([])
        except _Closed:
            pass
        finally:
            self._given.put(None)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        self._given.put(list(zip(numbers, job_overrides, strict=True)))
        if (values := self._returned.get()) is None:
            raise _Closed
        return [JobReturn(status=JobStatus.COMPLETED, _return_value=values[number]) for number in numbers]

    def begin(self, worker: int) -> Begun | None:
        if not self._waiting and not self._num_running and not self._is_over:
            if self._values:
                self._returned.put(self._values)
            self._values, batch = {}, self._given.get()
            self._waiting, self._is_over = batch or [], batch is None
        if not self._waiting:
            return None
        number, overrides = self._waiting.pop(0)
        self._num_running += 1
        texts = dict(override.split("=", 1) for override in overrides)
        return Begun(number, self._space.filled(lambda parameter: _read(parameter, texts[parameter.key])))

    def report(self, number: int, epoch: int, value: float) -> bool:
        return False

    def end(self, number: int, value: float | None) -> None:
        assert value is not None
        self._num_running -= 1
        self._values[number] = value

    def close(self) -> None:
        self._returned.put(None)
        self._thread.join()
        self._folder.cleanup()


def _read(parameter: Parameter, text: str) -> Any:
    """The value of an override."""
    if not isinstance(parameter.distribution, CategoricalDistribution):
        return float(text)
    return next(choice for choice in parameter.distribution.choices if str(choice) == text)


# Syne Tune


def _syne_tune(proposes: bool) -> dict[str, Make]:
    logging.disable(logging.WARNING)  # a line a trial
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # how to install what is optional
        warnings.simplefilter("ignore")
        from syne_tune.optimizer import baselines

    def make(scheduler: Callable[..., Any], search_options: Mapping[str, Any] | None = None, **options: Any) -> Make:
        return lambda search: SyneTune(search, scheduler, search_options or {}, options)

    methods = {
        "syne-tune asha stopping": make(baselines.ASHA, type="stopping"),
        "syne-tune asha promotion": make(baselines.ASHA, type="promotion"),
        # With its default of 3 there are two rungs below 8 epochs, of which PASHA never leaves the first.
        "syne-tune pasha": make(baselines.PASHA, reduction_factor=2),
    }
    if proposes:
        # A third of the time, as its model fits its hyperparameters again at every third proposal only.
        sparing = {"opt_nstarts": 1, "opt_maxiter": 20, "opt_skip_init_length": 20, "opt_skip_period": 3}
        methods["syne-tune mobster"] = make(baselines.MOBSTER, type="promotion", search_options=sparing)
    return methods


class SyneTune(Method):
    """One of its schedulers, told of everything as its Tuner does it. A paused trial goes on from its checkpoint."""

    def __init__(
        self,
        search: Search,
        scheduler: Callable[..., Any],
        search_options: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> None:
        self._search = search
        self._scheduler = scheduler(
            {**_config_space(search.space), "epochs": search.num_epochs},
            metric="accuracy",
            mode="max",
            resource_attr="epoch",
            max_resource_attr="epochs",
            random_seed=search.seed,
            search_options={"debug_log": False, **search_options},
            **options,
        )
        self._trials: dict[int, Any] = {}
        self._ids = itertools.count()
        self._decisions: dict[int, str] = {}

    def begin(self, worker: int) -> Begun | None:
        from syne_tune.backend.trial_status import Trial as SyneTrial

        may_begin = self._search.may_begin(len(self._trials))
        if not may_begin and not self._scheduler.does_pause_resume():
            return None
        number = next(self._ids)
        suggestion = self._scheduler.suggest(trial_id=number)
        if suggestion is None:
            return None
        if not suggestion.spawn_new_trial_id:
            number = suggestion.checkpoint_trial_id
            if suggestion.config is not None:
                self._trials[number].config = suggestion.config
        else:
            trial = SyneTrial(number, dict(suggestion.config), datetime.datetime.now())
            self._scheduler.on_trial_add(trial=trial)
            if not may_begin:  # it has no way to ask for promoted trials only
                self._scheduler.on_trial_error(trial)
                return None
            self._trials[number] = trial
        config = self._trials[number].config
        return Begun(number, self._search.space.filled(lambda parameter: _value(parameter, config[parameter.key])))

    def report(self, number: int, epoch: int, value: float) -> bool:
        self._result = {"accuracy": value, "epoch": epoch}
        self._decisions[number] = self._scheduler.on_trial_result(trial=self._trials[number], result=self._result)
        return self._decisions[number] != "CONTINUE"

    def end(self, number: int, value: float | None) -> None:
        if self._decisions[number] == "CONTINUE":
            self._scheduler.on_trial_complete(self._trials[number], self._result)
        else:
            self._scheduler.on_trial_remove(trial=self._trials[number])


def _config_space(space: Space) -> dict[str, Any]:
    from syne_tune.config_space import choice, uniform

    return {
        parameter.key: choice(list(parameter.distribution.choices))
        if isinstance(parameter.distribution, CategoricalDistribution)
        else uniform(0.0, 1.0)
        for parameter in space.parameters
    }


def _value(parameter: Parameter, given: Any) -> Any:
    is_choice = isinstance(parameter.distribution, CategoricalDistribution)
    return given if is_choice else value_at(parameter, given)
