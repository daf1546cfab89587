"""A sampler that learns from whole learning curves: trials that pause or end early count by what they have shown.

Its model is a Gaussian process over settings and steps, as of freeze-thaw Bayesian optimization (Swersky et al.) and
MOBSTER (Klein et al., Model-based Asynchronous Hyperparameter and Neural Architecture Search). Optuna's own Gaussian
process knows complete trials only, its TPE takes a trial that was stopped for a bad one.
"""

import copy
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from cifarsweep.sweeper.constraints import is_infeasible
from cifarsweep.sweeper.exclusions import EXCLUDED
from cifarsweep.sweeper.promotion import PausingPruner
from cifarsweep.sweeper.space import Parameter, Space
from cifarsweep.terminal.conditions import is_number

Array = NDArray[np.float64]

NUM_ANYWHERE, NUM_NEAR, NUM_BEST = 120, 20, 6
"""Proposals that are drawn from the whole space, and around each of so many trials that are expected to end best."""
MOST_FITTED, MOST_OBSERVED = 100, 400
"""Observations that the model's scales are fitted to, and that it knows. It takes 0.1 s with so many."""
POWERS_OF_TWO = [2**i for i in range(31)]
GAIN = 0.05
"""What exceeds the best value by less than this, in standard deviations of all values, is no gain: without it trials
crowd around the best one, and searches get stuck."""


class Observation(NamedTuple):
    place: tuple[float, ...]
    trial: int
    step: int
    value: float
    """Higher is better."""


class Encoding:
    """The settings of a space as numbers."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._orders = {parameter.name: _order(parameter) for parameter in space.parameters}
        self._is_ordered = dict.fromkeys(space.dimensions, True)
        for parameter in space.parameters:
            self._is_ordered[parameter.key] &= self._orders[parameter.name] is not None
        self.ordered = tuple(self._is_ordered.values())

    def is_whole(self, trial: FrozenTrial) -> bool:
        """Whether it has all its parameters: another worker that has just claimed it stores them one by one."""
        values = self.space.values(trial.params)
        return all(parameter.name in trial.params for parameter in self.space.active(values))

    def place(self, values: Mapping[str, Any]) -> tuple[float, ...]:
        """From 0 to 1 for each key that is ordered, the number of the choice for others; -1 where it does not apply."""
        places = dict.fromkeys(self.space.dimensions, -1.0)
        for parameter in self.space.active(values):
            places[parameter.key] = self.place_of(parameter, parameter.chosen(values))
        return tuple(places.values())

    def place_of(self, parameter: Parameter, value: Any) -> float:
        if not self._is_ordered[parameter.key]:
            return float([str(option) for option in parameter.options or ()].index(str(value)))
        choices = self._orders[parameter.name]
        return choices.index(value) / max(1, len(choices) - 1) if choices else place_in(parameter, value)


def _order(parameter: Parameter) -> list[Any] | None:
    """The choices from the smallest to the largest, as of numbers or of layers1, layers2, …; None: they have none."""
    if not isinstance(parameter.distribution, CategoricalDistribution):
        return []
    choices = list(parameter.distribution.choices)
    if all(map(is_number, choices)):
        return sorted(choices)
    numbered = [re.fullmatch(r"(\D*)(\d{1,9})", str(choice)) for choice in choices]
    if len({match and match[1] for match in numbered}) != 1 or numbered[0] is None:
        return None
    return sorted(choices, key=lambda choice: int(re.sub(r"\D", "", str(choice))))


def place_in(parameter: Parameter, value: float) -> float:
    """From 0 to 1, the place of a number in its interval, on its scale."""
    low, high = parameter.distribution.low, parameter.distribution.high  # type: ignore[union-attr]
    scale = math.log if parameter.distribution.log else float  # type: ignore[union-attr]
    return min(1.0, max(0.0, (scale(value) - scale(low)) / ((scale(high) - scale(low)) or 1.0)))


def _drawn(parameter: Parameter, place: float) -> Any:
    """The value at a place from 0 to 1."""
    if (options := parameter.options) is not None:
        return options[min(int(place * len(options)), len(options) - 1)]
    return value_at(parameter, place)


def value_at(parameter: Parameter, place: float) -> float:
    """The number at a place from 0 to 1 of its interval, on its scale."""
    low, high = parameter.distribution.low, parameter.distribution.high  # type: ignore[union-attr]
    value = low * (high / low) ** place if parameter.distribution.log else low + (high - low) * place  # type: ignore[union-attr]
    return min(max(value, low), high)


class CurveModel:
    """Value after a step: what the settings lead to after the last one, and how far from it they are before.

    Both are sums of a function of all settings and one of each setting alone, which a few trials are enough for.
    A trial differs from its settings' curve by little, and smoothly.
    """

    def __init__(self, observations: Sequence[Observation], ordered: tuple[bool, ...], last_step: int) -> None:
        self._ordered, self._last = ordered, max(last_step, 2)
        self._x = np.array([o.place for o in observations], dtype=float)
        self._trial = np.array([o.trial for o in observations])
        self._left = self._steps_left(np.array([o.step for o in observations], dtype=float))
        values = np.array([o.value for o in observations])
        finite = values[np.isfinite(values)] if np.isfinite(values).any() else np.zeros(1)
        # A few diverged trainings would set the scale of all.
        lowest = np.median(finite) - 2 * (finite.max() - np.median(finite))
        values = np.maximum(np.where(np.isfinite(values), values, -np.inf), lowest)
        self.mean, self.deviation = float(values.mean()), max(float(values.std()), 1e-12)
        self._y = (values - self.mean) / self.deviation
        d = len(ordered)
        self._usual = np.log([0.2] * d + [0.3, 0.1, 0.002, 0.02, 0.02, 0.005, 2.0] + [0.1] * d + [0.05] * d)
        self._logs = self._fitted()
        self._condition()

    def _steps_left(self, steps: Array) -> Array:
        """1 after the first step, 0 after the last one."""
        return np.asarray(1 - np.log(np.clip(steps, 1, self._last)) / math.log(self._last))

    def with_(self, places: Sequence[tuple[float, ...]], trials: Sequence[int]) -> "CurveModel":
        """As if these trials had come to the values that are expected of them."""
        expected, _ = self.predict(places, trials)
        other = copy.copy(self)
        other._x = np.vstack([self._x, np.array(places, dtype=float)])
        other._trial = np.concatenate([self._trial, np.array(trials)])
        other._left = np.concatenate([self._left, np.zeros(len(trials))])
        other._y = np.concatenate([self._y, expected])
        other._condition()
        return other

    def predict(self, places: Sequence[tuple[float, ...]], trials: Sequence[int]) -> tuple[Array, Array]:
        """Means and deviations of what these reach after the last step, in deviations of all values."""
        x, number = np.array(places, dtype=float), np.array(trials)
        zeros = np.zeros(len(number))
        between = self._kernel(self._logs, _distances(self._x, x, self._ordered), self._left, zeros,
                               self._trial[:, None] == number[None])  # fmt: skip
        solved = np.linalg.solve(self._factor, between)
        d, parts = len(self._ordered), np.exp(self._logs)
        prior = _OFFSET + parts[d] + parts[d + 2] + parts[d + 4] + parts[d + 7 : 2 * d + 7].sum()
        return between.T @ self._solved, np.sqrt(np.maximum(prior - (solved**2).sum(axis=0), 1e-9))

    def _kernel(self, logs: Array, distances: Array, left: Array, other_left: Array, same: Array) -> Array:
        d, parts = len(self._ordered), np.exp(logs)
        scales, (level, slope, own, own_slope, rough, _, mean_slope) = parts[:d], parts[d : d + 7]
        levels, slopes = parts[d + 7 : 2 * d + 7], parts[2 * d + 7 :]
        root = np.sqrt(3 * np.tensordot(scales, distances**2, 1) + 1e-12)
        together = (1 + root) * np.exp(-root)  # Matérn 3/2
        alone = np.where(np.array(self._ordered)[:, None, None], np.exp(-(distances**2)), distances == 0)
        both = left[:, None] * other_left[None]
        end = level * together + np.tensordot(levels, alone, 1)
        before = slope * together + np.tensordot(slopes, alone, 1)
        apart = np.exp(-np.abs(left[:, None] - other_left[None]) / 0.3)
        own_part = same * (own + own_slope * both + rough * apart)
        return np.asarray(_OFFSET + mean_slope * both + end + before * both + own_part)

    def _fitted(self) -> Array:
        """The scales of the highest posterior, found one after the other."""
        chosen = np.arange(len(self._y))
        if len(chosen) > MOST_FITTED:
            chosen = chosen[:: math.ceil(len(chosen) / MOST_FITTED)]
        distances = _distances(self._x[chosen], self._x[chosen], self._ordered)
        same, left, y = self._trial[chosen][:, None] == self._trial[chosen][None], self._left[chosen], self._y[chosen]

        def loss(logs: Array) -> float:
            covariance = self._kernel(logs, distances, left, left, same)
            try:
                factor = np.linalg.cholesky(covariance + self._noise(logs) * np.eye(len(y)))
            except np.linalg.LinAlgError:
                return math.inf
            solved = np.linalg.solve(factor, y)
            return float((solved @ solved + ((logs - self._usual) ** 2).sum()) / 2 + np.log(np.diag(factor)).sum())

        best, least = self._usual, loss(self._usual)
        for _ in range(3):
            for position in range(len(best)):
                for change in (0.8, -0.8):
                    other = best.copy()
                    other[position] += change
                    if (loss_there := loss(other)) < least:
                        best, least = other, loss_there
                        break
        return best

    def _noise(self, logs: Array) -> float:
        return float(np.exp(logs[len(self._ordered) + 5])) + 1e-6

    def _condition(self) -> None:
        distances = _distances(self._x, self._x, self._ordered)
        same = self._trial[:, None] == self._trial[None]
        covariance = self._kernel(self._logs, distances, self._left, self._left, same)
        self._factor = np.linalg.cholesky(covariance + self._noise(self._logs) * np.eye(len(self._y)))
        self._solved = np.linalg.solve(self._factor.T, np.linalg.solve(self._factor, self._y))


_OFFSET = 10.0
"""Variance of the mean of all values: it is not known."""


def _distances(places: Array, others: Array, ordered: tuple[bool, ...]) -> Array:
    """Between each of `places` and each of `others`, for each setting."""
    one, other = places.T[:, :, None], others.T[:, None, :]
    is_far = (one != other) & (~np.array(ordered)[:, None, None] | (one < 0) | (other < 0))
    return np.where(is_far, 1.0, 2 * np.abs(one - other) * np.array(ordered)[:, None, None])


@dataclass(frozen=True)
class Curves:
    """What a search has seen so far, and what may be expected of a new trial."""

    encoding: Encoding
    model: CurveModel
    best: float
    """The best value after the last step, in deviations of all values; where there is none the best expected one."""
    most_promising: list[tuple[float, ...]]
    """Places of the trials that are expected to end best."""

    @classmethod
    def of(
        cls,
        trials: Sequence[FrozenTrial],
        encoding: Encoding,
        direction: StudyDirection,
        rungs: Sequence[int],
        last_step: int | None,
    ) -> "Curves | None":
        """None where no trial has come to a step. Trials that run are taken to end as they are expected to."""
        sign = 1 if direction == StudyDirection.MAXIMIZE else -1
        last = last_step or max((t.last_step for t in trials if t.last_step is not None), default=1)
        begun = {
            trial.number: trial for trial in trials if encoding.is_whole(trial) and EXCLUDED not in trial.user_attrs
        }
        places = {number: encoding.place(encoding.space.values(trial.params)) for number, trial in begun.items()}
        observations = [
            Observation(places[number], number, step, value)
            for number, trial in begun.items()
            for step, value in _seen(trial, sign, rungs, last).items()
        ][-MOST_OBSERVED:]
        if not any(math.isfinite(observation.value) for observation in observations):
            return None
        model = CurveModel(observations, encoding.ordered, last)
        ends = [o.value for o in observations if o.step == last and math.isfinite(o.value)]
        if running := [number for number, trial in begun.items() if trial.state == TrialState.RUNNING]:
            model = model.with_([places[number] for number in running], running)
        expected, _ = model.predict([*places.values()], [*places])
        best = (max(ends) - model.mean) / model.deviation if ends else float(expected.max())
        in_order = np.argsort(-expected, kind="stable")[:NUM_BEST]
        return cls(encoding, model, best, [[*places.values()][position] for position in in_order])

    def proposal(self, rng: random.Random, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """The values by key that are expected to improve most on the best. `fixed` are parameters by name."""

        def anywhere(parameter: Parameter) -> Any:
            return fixed[parameter.name] if parameter.name in fixed else _drawn(parameter, rng.random())

        proposals = [self.encoding.space.filled(anywhere) for _ in range(NUM_ANYWHERE)]
        proposals += [self._near(place, rng, fixed) for place in self.most_promising for _ in range(NUM_NEAR)]
        proposals = [values for values in proposals if not self.encoding.space.excludes(values)] or proposals
        improvement = self._improvement([self.encoding.place(values) for values in proposals])
        return proposals[int(np.argmax(improvement))]

    def _near(self, place: tuple[float, ...], rng: random.Random, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Values as at this place but for one choice at least, and for some of the numbers a little."""
        keys = self.encoding.space.dimensions
        by_key, changed = dict(zip(keys, place, strict=True)), rng.choice(keys)

        def near(parameter: Parameter) -> Any:
            if parameter.name in fixed:
                return fixed[parameter.name]
            there, options = by_key[parameter.key], parameter.options
            if there < 0 or (options is not None and (parameter.key == changed or rng.random() < 0.1)):
                return _drawn(parameter, rng.random())
            if options is None:
                moved = there + rng.gauss(0, 0.12) if rng.random() < 0.6 else there
                return _drawn(parameter, min(1.0, max(0.0, moved)))
            return min(options, key=lambda option: abs(self.encoding.place_of(parameter, option) - there))

        return self.encoding.space.filled(near)

    def _improvement(self, places: Sequence[tuple[float, ...]]) -> Array:
        """The expected improvement (Jones et al., Efficient Global Optimization) of new trials."""
        mean, deviation = self.model.predict(places, [-1] * len(places))
        z = (mean - self.best - GAIN) / deviation
        below = np.array([(1 + math.erf(value / math.sqrt(2))) / 2 for value in z])
        return np.asarray(deviation * (z * below + np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)))


def _seen(trial: FrozenTrial, sign: int, rungs: Sequence[int], last: int) -> dict[int, float]:
    """Of a trial the values at the rungs, its latest, and its final one, each times `sign`."""
    values = {step: sign * value for step, value in trial.intermediate_values.items() if step in rungs}
    if trial.last_step is not None:
        values[trial.last_step] = sign * trial.intermediate_values[trial.last_step]
    if trial.state == TrialState.COMPLETE:
        values[last] = sign * trial.values[0]
    if trial.state == TrialState.FAIL:
        values[last] = -math.inf
    return {last: -math.inf} if is_infeasible(trial) else values


class CurveGPSampler(BaseSampler):
    """Proposes the trial that is expected to improve most on the best one, by all that any trial has come to."""

    def __init__(
        self, *, space: Space, seed: int = 0, n_startup_trials: int = 10, max_resource: int | None = None
    ) -> None:
        self._encoding, self._seed, self._num_startup = Encoding(space), seed, n_startup_trials
        self._last_step = max_resource

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {parameter.name: parameter.distribution for parameter in self._encoding.space.parameters}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        trials = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        rng, space, curves = random.Random(f"{self._seed} {trial.number}"), self._encoding.space, None
        if sum(bool(other.params) for other in trials) >= self._num_startup:
            rungs = study.pruner.rungs if isinstance(study.pruner, PausingPruner) else POWERS_OF_TWO
            curves = Curves.of(trials, self._encoding, study.direction, rungs, self._last_step)
        if curves is None:
            values = space.filled(lambda parameter: self._spread(parameter, trial.number, rng))
        else:
            values = curves.proposal(rng, trial.system_attrs.get("fixed_params", {}))
        return {parameter.name: parameter.chosen(values) for parameter in space.active(values)}

    def _spread(self, parameter: Parameter, number: int, rng: random.Random) -> Any:
        """A Latin hypercube's value: those of the first trials are spread evenly over each parameter."""
        num_places = max(1, self._num_startup if parameter.options is None else len(parameter.options))
        around, position = divmod(number, num_places)
        order = random.Random(f"{self._seed} {parameter.name} {around}").sample(range(num_places), num_places)
        return _drawn(parameter, (order[position] + rng.random()) / num_places)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """For a parameter that a fixed one has made active."""
        seed = random.Random(f"{self._seed} {trial.number} {param_name}").getrandbits(32)
        return optuna.samplers.RandomSampler(seed=seed).sample_independent(study, trial, param_name, param_distribution)
