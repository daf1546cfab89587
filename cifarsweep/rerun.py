"""Trains a recorded run again and compares: `python -m cifarsweep.rerun RUN`. Needs nothing but the run's directory.

The classes that a results folder names are built only where they are this project's or PyTorch's own, or with --trust.
"""

if __name__ == "__main__":  # at the top, so that what the imports raise is answered, too
    from cifarsweep.terminal import boundary

    raise SystemExit(boundary.run("cifarsweep.rerun"))

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cifarsweep.results import files, folders, identity, records
from cifarsweep.results.records import RunResult, Status
from cifarsweep.results.study_records import EARLY
from cifarsweep.terminal import boundary, streams
from cifarsweep.terminal.arguments import Parser
from cifarsweep.training import schema

OURS = re.compile(r"(cifarsweep\.(data|models|optim)|torch\.(nn|optim))\.\w+")
FIGURES = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
COMPARED = ("metrics.csv", "confusion.csv", "model.pt")


@partial(boundary.command, work_goes_on=True)
def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m cifarsweep.rerun", description="Trains a run again elsewhere and compares the figures."
    )
    parser.add_argument("run", type=Path, help="directory of a run that has ended, outputs/runs/…, or its run_id")
    parser.add_argument("--outputs", type=Path, help="where the new run goes, and stays (default: nowhere)")
    parser.add_argument("--data-root", help="where the data set is on this machine, if not where it was")
    parser.add_argument("--trust", action="store_true", help="build classes of other packages that the run names")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        return _rerun(args.run, args.outputs or Path(temporary), args.data_root, args.trust)


def _rerun(run_dir: Path, outputs: Path, data_root: str | None, trust: bool) -> int:
    run_dir = folders.meant(run_dir, "the directory of a run that has ended, or its run_id")
    recorded = RunResult.read_or_unfinished(run_dir)
    if recorded.status not in ("complete", "diverged", *EARLY):
        raise ValueError(f"{run_dir}: {recorded.status}, expected a run that is complete, pruned, paused or diverged")
    recorded.check(run_dir, "config.yaml", *COMPARED)
    config = records.read_config(run_dir)
    if not trust:
        _check_targets(run_dir, config)
    try:
        choices = {**config.pop("run")["choices"]}
        config["trainer"]["threads"] = recorded.threads
        if data_root is not None:
            config["data"]["root"] = data_root
        if "cache" in config["data"]:  # where this machine has it
            config["data"]["cache"] = os.environ.get("CIFARSWEEP_CACHE", "~/.cache/cifarsweep")
        identity.identity(config, "")
    except (KeyError, TypeError, AttributeError) as error:
        raise files.Corrupt(run_dir / "config.yaml", "not the configuration of a run") from error
    if list((outputs / "runs").glob(f"*-{recorded.run_id}")):
        raise ValueError(f"--outputs {outputs}: expected a folder without this run, which would be read, not trained")
    config |= {"outputs": str(outputs.absolute()), "force": False}
    schema.check(config)
    from omegaconf import OmegaConf

    from cifarsweep.training import run
    from cifarsweep.training.configuration import Configuration

    def stops_where_it_did(epoch: int, figures: Mapping[str, Any]) -> Status | None:
        has_stopped = recorded.status in EARLY and epoch >= (recorded.epochs_trained or 0)
        return recorded.status if has_stopped else None

    new = run.train(Configuration.of(OmegaConf.create(config), choices), stops_where_it_did)
    (new_dir,) = (outputs / "runs").glob(f"*-{new.run_id}")
    differences = list(_differences(run_dir, recorded, new_dir, new))
    for line in differences:
        streams.print_line(line)
    same = f"the same to the last bit: {', '.join(_compared_files(run_dir))}"
    streams.print_line("not the same" if differences else same)
    return 1 if differences else 0


def _check_targets(run_dir: Path, config: Any) -> None:
    for key, value in _leaves(config):
        if key == "_target_" and not OURS.fullmatch(str(value)):
            raise ValueError(
                f"{run_dir / 'config.yaml'}: _target_={value}: not of this project or PyTorch; see --trust"
            )
        if "${" in str(value):
            raise ValueError(f"{run_dir / 'config.yaml'}: {key}={value}: expected a value, no interpolation")


def _leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else None
    if children is None or key == "_target_":
        yield key, node
        return
    for name, child in children:
        yield from _leaves(child, str(name))


def _compared_files(run_dir: Path) -> list[str]:
    return [name for name in COMPARED if (run_dir / name).exists()]


def _differences(run_dir: Path, recorded: RunResult, new_dir: Path, new: RunResult) -> Iterator[str]:
    """A line for each figure and file that differs, then for each version or setting that may be the reason."""
    if new.data_fingerprint != recorded.data_fingerprint:
        yield f"data_fingerprint: was {recorded.data_fingerprint}, is {new.data_fingerprint}: other images"
    before, after = vars(recorded), vars(new)
    figures = [key for key in ("status", "run_id", *FIGURES) if before[key] != after[key]]
    yield from (f"{key}: was {before[key]}, is {after[key]}" for key in figures)
    changed = [name for name in _compared_files(run_dir) if _content(run_dir / name) != _content(new_dir / name)]
    yield from (f"{name}: not the same" for name in changed)
    if figures or changed:
        then, now = ({**run.versions, "device": run.device, "threads": run.threads} for run in (recorded, new))
        for key in sorted({*then, *now}):
            if then.get(key) != now.get(key):
                yield f"{key}: was {then.get(key)}, is {now.get(key)}"


def _content(path: Path) -> object:
    """What has to be the same; the seconds in metrics.csv need not."""
    if not path.exists():
        return None
    if path.name == "metrics.csv":
        return [replace(epoch, seconds=0.0) for epoch in records.read_metrics(path.parent)]
    return files.read_bytes(path, files.MOST_WEIGHTS)
