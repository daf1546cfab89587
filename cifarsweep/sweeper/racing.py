"""Racing: a trial over several runs ends once it is clearly worse than the best one. Knows nothing of seeds."""

import math
from itertools import count, takewhile

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from cifarsweep.sweeper.constraints import is_infeasible


class RacingPruner(BasePruner):
    """Ends a trial whose further runs would hardly make it the best one.

    This is a race (Maron and Moore, Hoeffding Races, 1994) by the rule of stochastic curtailment (Lan, Simon and
    Halperin, 1982). A trial reports the mean over its first k runs as its step k. A run's value is the sum of three
    parts: its trial's own, one that the k-th runs of all trials have in common, as they share a seed, and noise. The
    complete trials tell the last two (two-way analysis of variance), and so how far a trial's final mean may be from
    that over its first k runs.
    """

    def __init__(self, *, standard_errors: float = 2.5, n_startup_trials: int = 4) -> None:
        """A trial ends where its mean is expected so many standard errors behind the best one.

        None ends before `n_startup_trials`, two or more, are complete: the noise is not known.
        """
        if n_startup_trials < 2:
            raise ValueError(f"n_startup_trials={n_startup_trials}: expected 2 or more")
        self._standard_errors, self._n_startup_trials = standard_errors, n_startup_trials

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
        best = max((sign * other.values[0] for other in complete if not is_infeasible(other)), default=None)
        means = [_means(other) for other in complete]
        num_runs, k = max(map(len, means), default=0), trial.last_step
        means = [each for each in means if len(each) == num_runs]
        if best is None or not k or k >= num_runs or len(means) < self._n_startup_trials:
            return False
        runs = np.diff(np.arange(num_runs + 1) * np.pad(means, ((0, 0), (1, 0))))
        in_common = runs.mean(axis=0) - runs.mean()
        noise = runs - runs.mean(axis=1, keepdims=True) - in_common
        variance = (noise**2).sum() / ((len(runs) - 1) * (num_runs - 1))
        error = math.sqrt(variance * (1 / k - 1 / num_runs) * (1 + 1 / len(runs)))
        expected = trial.intermediate_values[k] - in_common[:k].mean()
        return bool(best - sign * expected > self._standard_errors * error)


def _means(trial: FrozenTrial) -> list[float]:
    """Over the trial's first run, over the first two, and so on."""
    steps = trial.intermediate_values
    return [steps[k] for k in takewhile(steps.__contains__, count(1))]
