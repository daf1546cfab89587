"""The other way round: the CIFAR application under Hydra's own Optuna sweeper, as any Hydra application."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import yaml
from conftest import Command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is None, reason="hydra-optuna-sweeper is missing"
    ),
]


def test_hydras_optuna_sweeper_searches_and_a_report_follows(
    cifarsweep: Command, small: list[str], tmp_path: Path
) -> None:
    words = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=2", "trainer.epochs=1"]
    done = cifarsweep(
        "-m", *small, *words, "hydra.sweeper.direction=maximize", "model=choice(layers1, layers2)", "name=o"
    )

    assert done.returncode == 0, done.stderr
    sweep = tmp_path / "outputs" / "sweeps" / "o"
    results = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert set(results) == {"name", "best_params", "best_value"}
    assert (sweep / "report" / "runs.csv").exists()
    assert (sweep / "report" / "index.html").exists()
