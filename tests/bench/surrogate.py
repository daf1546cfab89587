"""A model of the recorded curves, which gives a curve for any settings of the space.

The curve of a configuration is described by the logit of its validation accuracy after each epoch, as a part of the
best recorded one plus CEILING, and by the logarithm of its seconds; the accuracies are rotated to their principal
components. Each component is a Gaussian process (Matérn 5/2) over the settings, with a length scale a setting and noise
fitted by the marginal likelihood. The noise is what the settings do not explain, at least what seeds differ by where a
configuration was recorded with several.

A world is one draw from the posterior, the same function for all methods of an order: where curves were recorded, it
agrees with them up to the noise; elsewhere the worlds differ by as much as the model is unsure. The mean alone would
be smoother than accuracy is, and easier to search.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from event_loop import Curve
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution
from scipy import linalg, optimize, stats

from cifarsweep.sweeper.curve_gp import place_in
from cifarsweep.sweeper.space import Space

Array = NDArray[np.float64]
CEILING = 0.02
"""Nothing is predicted to be so much better than what was recorded. The logit of the accuracy itself would have a few
diverged trainings lead to worlds with 95 % somewhere."""
ORDERED = ("model", "batch_size")
"""Choices that are steps of one scale."""
NUM_FEATURES = 1024
"""Of a draw from the prior (Rahimi and Recht, Random Features for Large-Scale Kernel Machines)."""


def encoded(space: Space, settings: Mapping[str, Any]) -> list[list[float]]:
    """A group of numbers a key."""
    groups: list[list[float]] = []
    for parameter in space.active(settings):
        value = settings[parameter.key]
        if not isinstance(parameter.distribution, CategoricalDistribution):
            groups.append([place_in(parameter, value)])
            continue
        choices = parameter.distribution.choices
        at = choices.index(value)
        groups.append(
            [at / max(1, len(choices) - 1)]
            if parameter.key in ORDERED
            else [float(i == at) for i in range(len(choices))]
        )
    return groups


@dataclass(frozen=True)
class Process:
    """A Gaussian process with mean 0 that has seen `y` at `x`."""

    x: Array
    y: Array
    setting_of: NDArray[np.int64]
    """The number of the setting that a column of x belongs to. Columns of one setting share their scale."""
    scales: Array
    variance: float
    noise: float

    @classmethod
    def fitted(cls, x: Array, y: Array, setting_of: NDArray[np.int64], least_noise: float) -> Process:
        """With the hyperparameters of the highest marginal likelihood."""
        num_settings = int(setting_of.max()) + 1
        apart = (x[:, None, :] - x[None, :, :]) ** 2
        squares = np.stack([apart[..., setting_of == setting].sum(axis=-1) for setting in range(num_settings)])

        def loss(logs: Array) -> tuple[float, Array]:
            """Without its constant, and its gradient (Rasmussen and Williams, equations 5.8 and 5.9)."""
            scales, variance, noise = np.exp(logs[:-2]), math.exp(logs[-2]), math.exp(logs[-1])
            parts = squares / scales[:, None, None] ** 2
            distance = np.sqrt(5 * parts.sum(axis=0))
            signal, slope = _matern(distance, variance), 5 / 3 * variance * (1 + distance) * np.exp(-distance)
            factor = linalg.cholesky(signal + noise * np.eye(len(y)), lower=True)
            inverse = linalg.cho_solve((factor, True), np.eye(len(y)))
            solved = inverse @ y
            outer = inverse - np.outer(solved, solved)
            gradient = [
                *((outer * slope * part).sum() for part in parts),
                (outer * signal).sum(),
                noise * np.trace(outer),
            ]
            return float(y @ solved / 2 + np.log(np.diag(factor)).sum()), np.array(gradient) / 2

        least_noise = max(1e-4, least_noise)
        bounds = [(math.log(0.1), math.log(30))] * num_settings
        bounds += [(math.log(1e-3), math.log(10)), (math.log(least_noise), math.log(max(2, 2 * least_noise)))]
        start = np.array([0.0] * num_settings + [0.0, max(math.log(0.1), math.log(least_noise))])
        found = np.exp(optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x)
        return cls(x, y, setting_of, found[:-2], float(found[-2]), float(found[-1]))

    def kernel(self, other: Array) -> Array:
        """Between `other` and what was seen."""
        apart = (other[:, None, :] - self.x[None, :, :]) / self.scales[self.setting_of]
        return _matern(np.sqrt(5 * (apart**2).sum(axis=-1)), self.variance)

    @property
    def covariance(self) -> Array:
        return self.kernel(self.x) + self.noise * np.eye(len(self.y))

    def left_out(self) -> Array:
        """What the process would predict for each of `y` without it (Rasmussen and Williams, equation 5.12)."""
        inverse = linalg.inv(self.covariance)
        return np.asarray(self.y - inverse @ self.y / np.diag(inverse))


def _matern(distance: Array, variance: float) -> Array:
    """Matérn 5/2 of the distance in scales times √5."""
    return np.asarray(variance * (1 + distance + distance**2 / 3) * np.exp(-distance))


class Draw:
    """One function from a process's posterior (Wilson et al., Efficiently Sampling Functions from Gaussian Process
    Posteriors): one from the prior, corrected by what was seen."""

    def __init__(self, process: Process, rng: np.random.Generator) -> None:
        self._process = process
        normal = rng.standard_normal((process.x.shape[1], NUM_FEATURES))
        spread = np.sqrt(
            rng.chisquare(5, NUM_FEATURES) / 5
        )  # Matérn 5/2 has the spectrum of Student's t with 5 degrees
        self._frequencies = normal / spread / process.scales[process.setting_of, None]
        self._phases = rng.uniform(0, 2 * np.pi, NUM_FEATURES)
        self._weights = rng.standard_normal(NUM_FEATURES) * math.sqrt(2 * process.variance / NUM_FEATURES)
        seen = self._prior(process.x) + math.sqrt(process.noise) * rng.standard_normal(len(process.y))
        self._correction = linalg.solve(process.covariance, process.y - seen, assume_a="pos")

    def _prior(self, x: Array) -> Array:
        return np.asarray(np.cos(x @ self._frequencies + self._phases) @ self._weights)

    def at(self, x: Array, noise: float) -> float:
        """`noise` in standard deviations."""
        mean = self._prior(x[None])[0] + self._process.kernel(x[None])[0] @ self._correction
        return float(mean + math.sqrt(self._process.noise) * noise)


class Surrogate:
    def __init__(
        self,
        space: Space,
        settings: Sequence[Mapping[str, Any]],
        curves: Sequence[Curve],
        pairs: Sequence[Sequence[Curve]],
    ) -> None:
        """`pairs` are curves of one configuration and two seeds."""
        self._space = space
        groups = [encoded(space, values) for values in settings]
        x = np.array([[number for group in row for number in group] for row in groups])
        setting_of = np.repeat(np.arange(len(groups[0])), [len(group) for group in groups[0]])
        self._accuracy = np.array([curve.values for curve in curves])
        self._most = self._accuracy.max(axis=0) + CEILING
        targets = self._targets(curves)
        self._mean, self._scale = targets.mean(axis=0), np.maximum(targets.std(axis=0), 1e-6)
        standard = (targets - self._mean) / self._scale
        _, _, components = np.linalg.svd(standard[:, :-1], full_matrices=False)
        self._rotation = linalg.block_diag(components, 1.0)
        least = np.zeros(len(self._rotation))
        if pairs:
            apart = (self._targets([a for a, _ in pairs]) - self._targets([b for _, b in pairs])) / self._scale
            least = ((apart @ self._rotation.T) ** 2).mean(axis=0) / 2
        rotated = standard @ self._rotation.T
        self._processes = [Process.fitted(x, y, setting_of, low) for y, low in zip(rotated.T, least, strict=True)]
        self.num_pairs = len(pairs)

    def _targets(self, curves: Sequence[Curve]) -> Array:
        part = np.clip(np.array([curve.values for curve in curves]) / self._most, 0.01, 0.999)
        seconds = np.array([[curve.seconds] for curve in curves])
        return np.hstack([np.log(part / (1 - part)), np.log(seconds)])

    def _curves(self, rotated: Array) -> tuple[Array, Array]:
        """Accuracies after each epoch, and seconds."""
        targets = rotated @ self._rotation * self._scale + self._mean
        return self._most / (1 + np.exp(-targets[:, :-1])), np.exp(targets[:, -1])

    def error(self) -> tuple[float, float]:
        """After the last epoch, each configuration left out: root mean square in points, and the rank correlation.

        The components and hyperparameters are those of all configurations.
        """
        predicted, _ = self._curves(np.stack([process.left_out() for process in self._processes], axis=1))
        last, recorded = predicted[:, -1], self._accuracy[:, -1]
        squares = (100 * (last - recorded)) ** 2
        return float(np.sqrt(squares.mean())), float(stats.spearmanr(last, recorded).statistic)

    def world(self, seed: int) -> World:
        return World(self, seed)


class World:
    """One draw: a curve for each configuration, the same whoever asks."""

    def __init__(self, surrogate: Surrogate, seed: int) -> None:
        self._surrogate, self._seed = surrogate, seed
        rng = np.random.default_rng([seed, 0])
        self._draws = [Draw(process, rng) for process in surrogate._processes]

    def curve(self, settings: Mapping[str, Any]) -> Curve:
        x = np.array([number for group in encoded(self._surrogate._space, settings) for number in group])
        noise = np.random.default_rng([self._seed, zlib.crc32(x.tobytes())]).standard_normal(len(self._draws))
        rotated = [draw.at(x, one) for draw, one in zip(self._draws, noise, strict=True)]
        values, seconds = self._surrogate._curves(np.array([rotated]))
        return Curve(values[0].tolist(), float(seconds[0]))
