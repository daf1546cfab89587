"""Hydra's own test suites for plugins, run on ours."""

from __future__ import annotations

from typing import Any

import pytest
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import (
    BatchedSweeperTestSuite,
    IntegrationTestSuite,
    LauncherTestSuite,
)
from hydra.test_utils.test_utils import TSweepRunner
from hydra.version import VersionBase

# Hydra's fixture takes away again what the first scan for plugins, were it in a test, adds to the ConfigStore.
Plugins.instance()


@pytest.fixture(autouse=True)
def _no_version_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another test may have given Hydra a version_base, which changes whether jobs change their folder."""
    monkeypatch.delitem(Singleton._instances, VersionBase, raising=False)


def test_hydra_discovers_our_plugins_without_help() -> None:
    assert "LocalLauncher" in {plugin.__name__ for plugin in Plugins.instance().discover(Launcher)}
    assert "StudySweeper" in {plugin.__name__ for plugin in Plugins.instance().discover(Sweeper)}


@pytest.mark.parametrize(("launcher_name", "overrides"), [("local", ["hydra.launcher.n_workers=2"])])
class TestLocalLauncher(LauncherTestSuite):
    """One or two jobs each."""


@pytest.mark.slow
@pytest.mark.parametrize(("launcher_name", "overrides"), [("local", ["hydra.sweeper.max_batch_size=2"])])
class TestLocalLauncherWithBatches(BatchedSweeperTestSuite):
    """Hydra's basic sweeper launches three times in one sweep."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task_launcher_cfg", "extra_flags"), [({}, ["-m", "hydra/launcher=local", "hydra.launcher.n_workers=1"])]
)
class TestLocalLauncherInApplications(IntegrationTestSuite):
    """Scripts in processes of their own, which read HydraConfig."""


@pytest.mark.parametrize("launcher_name", ["local", "basic"])
def test_a_search_with_hydras_sweep_runner_finds_the_best_of_its_configurations(
    hydra_restore_singletons: Any, hydra_sweep_runner: TSweepRunner, launcher_name: str, tmpdir: Any
) -> None:
    """What BatchedSweeperTestSuite asks of a sweeper, but for batches, which an asynchronous search does not have."""
    overrides = [
        "hydra/sweeper=study",
        f"hydra/launcher={launcher_name}",
        "hydra/sweeper/sampler=grid",
        "hydra.sweeper.n_trials=6",
        "group1=choice(file1, file2)",
        "bar=choice(100, 200, 300)",
    ]
    sweep = hydra_sweep_runner(
        calling_file=None,
        calling_module="hydra.test_utils.a_module",
        task_function=lambda cfg: float(cfg.foo + cfg.bar),
        config_path="configs",
        config_name="compose.yaml",
        overrides=overrides,
        temp_dir=tmpdir,
    )
    with sweep:
        assert sweep.returns == 110.0
        assert sorted(path.basename for path in tmpdir.listdir() if (path / ".hydra").exists()) == list("012345")
