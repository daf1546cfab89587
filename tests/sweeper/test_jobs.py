"""Jobs that are composed and run fast are what Hydra's own would be."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, run_job
from hydra.experimental.callback import Callback
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, OmegaConf

from cifarsweep.sweeper import hydra_compat, jobs
from cifarsweep.training import groups


@pytest.fixture(scope="module")
def loader() -> Iterator[ConfigLoader]:
    with initialize_config_dir(str(groups.folder()), **hydra_compat.VERSION_BASE):
        yield GlobalHydra.instance().config_loader()


@pytest.fixture(scope="module")
def master(loader: ConfigLoader) -> DictConfig:
    return loader.load_configuration("config", ["data=shapes", "seed=1,2"], run_mode=RunMode.MULTIRUN)


@pytest.mark.parametrize(
    "words",
    [
        ["seed=3", "model=layers2", "optimizer.lr=1e-3"],
        ["optimizer.lr=0.5", "optimizer=adamw"],  # values come after groups, in whatever order they are
        ["optimizer=adamw", "optimizer.lr=null"],
        ["schedule=step", "schedule.milestones=[0.1,0.2]"],
        ["name='a b'", "force=true"],
        ["name=a$b", "data.root='${outputs}/x'"],
        ["+foo=3", "foo=4"],
        ["++optimizer.lr=2", "~seed"],
        ["hydra.verbose=true", "seed=1"],
        ["hydra.job.config.override_dirname.exclude_keys=[seed]", "seed=1", "model=layers4"],
        [],
    ],
)
def test_the_configuration_is_that_of_hydra(loader: ConfigLoader, master: DictConfig, words: list[str]) -> None:
    compose = jobs.Composer(loader, master)
    theirs = loader.load_sweep_config(master, words)
    for ours in (compose(words), compose(words)):  # the second of what was kept of the first
        assert OmegaConf.to_container(ours) == OmegaConf.to_container(theirs)
        assert OmegaConf.is_struct(ours)


@pytest.mark.parametrize(
    "word", ["nokey=3", "seed=[1", "model=layers9", "trainer.epochs=a,b", "optimizer@foo=adamw", "data=null"]
)
def test_the_error_is_that_of_hydra(loader: ConfigLoader, master: DictConfig, word: str) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011 - whatever it is
        loader.load_sweep_config(master, [word])
    with pytest.raises(type(theirs.value)) as ours:
        jobs.Composer(loader, master)([word])
    assert str(ours.value) == str(theirs.value)


def test_a_configuration_is_no_part_of_the_next(loader: ConfigLoader, master: DictConfig) -> None:
    compose = jobs.Composer(loader, master)
    first = compose(["seed=1"])
    first.optimizer.lr = 9.0
    assert compose(["seed=1"]).optimizer.lr == 0.1
    assert compose(["model=layers2"]).seed == 0


def test_name_keeps_to_how_hydra_names_a_folder(loader: ConfigLoader) -> None:
    words = [f"hydra.job.config.override_dirname.{word}" for word in ("kv_sep=_", "item_sep=+", "exclude_keys=[seed]")]
    master = loader.load_configuration("config", ["data=shapes", *words], run_mode=RunMode.MULTIRUN)
    overrides = ["seed=1", "model=layers2", "batch_size=64"]
    ours = jobs.Composer(loader, master)(overrides)
    assert ours.hydra.job.override_dirname == "batch_size_64+model_layers2"
    assert ours.hydra.job.override_dirname == loader.load_sweep_config(master, overrides).hydra.job.override_dirname


@pytest.mark.parametrize(
    "wish", ["seed=7", "hydra.job.chdir=true", "+hydra.job.env_set.WISHED=yes", "hydra.output_subdir=own", "listener"]
)
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("is_trial", [False, True])
def test_a_job_sees_and_leaves_what_it_would_under_hydra(
    loader: ConfigLoader, tmp_path: Path, wish: str, fails: bool, is_trial: bool
) -> None:
    def task(config: DictConfig) -> dict[str, object]:
        seen = {"config": OmegaConf.to_container(config, resolve=True), "folder": Path.cwd().name}
        seen |= {"WISHED": os.environ.get("WISHED"), "seed": HydraConfig.get().overrides.task[0]}
        if fails:
            raise ZeroDivisionError(str(seen))
        return seen

    started = []

    class Listener(Callback):
        def on_job_start(self, config: DictConfig, **kwargs: object) -> None:
            started.append(config.seed)

    def outcome(name: str, run: Callable[[DictConfig, HydraContext], JobReturn]) -> tuple[object, ...]:
        words = [f"hydra.sweep.dir={tmp_path / name}", "hydra.sweep.subdir=job"]
        if wish.lstrip("+").startswith("hydra."):
            words.append(wish)
        callbacks = Callbacks()
        callbacks.callbacks = [Listener()] if wish == "listener" else []
        started.clear()
        master = loader.load_configuration("config", words, run_mode=RunMode.MULTIRUN)
        config = jobs.Composer(loader, master)(["seed=7", "name=a"])  # not of the second that it is
        result = run(config, HydraContext(config_loader=loader, callbacks=callbacks))
        files = sorted(path.relative_to(tmp_path / name).as_posix() for path in (tmp_path / name).glob("job/*/*"))
        return str(result._return_value), result.status, files, [*started], "WISHED" in os.environ, Path.cwd()

    def ours(config: DictConfig, context: HydraContext) -> JobReturn:
        return jobs.run(config, task, context, is_trial=is_trial)

    def theirs(config: DictConfig, context: HydraContext) -> JobReturn:
        return run_job(task, config, "hydra.sweep.dir", "hydra.sweep.subdir", context)

    assert outcome("a", ours) == outcome("b", theirs)
