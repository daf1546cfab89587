"""Writes the learning curves of a search's runs as a CSV file: a row an epoch of a run that trained all its epochs.

    python tests/bench/curves/collect.py outputs/sweeps/curves tests/bench/curves/cifar10.csv [--more]

With --more the rows are added to those of the file, runs that it has aside.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from cifarsweep.results import folders, records
from cifarsweep.results.records import RunResult

SETTINGS = ["model", "optimizer", "lr", "weight_decay", "batch_size", "schedule"]


def curves(sweep: Path) -> pd.DataFrame:
    rows = []
    for name, run_dir in sorted(folders.runs_of(sweep).items()):
        result = RunResult.read(run_dir)
        if result is None or result.status not in ("complete", "diverged"):
            continue
        config = records.read_config(run_dir)
        known = {"run": name.rpartition("-")[2], "config": result.config_id, "seed": result.seed}
        known |= {"weight_decay": config["optimizer"]["weight_decay"]}
        known |= {key: getattr(result, key) for key in SETTINGS if key != "weight_decay"}
        for epoch in records.read_metrics(run_dir):
            figures = {name: getattr(epoch, name) for name in ("epoch", "val_loss", "val_accuracy", "seconds")}
            rows.append({**known, **figures, "status": result.status})
    table = pd.DataFrame(
        rows, columns=["run", "config", "seed", *SETTINGS, "epoch", "val_loss", "val_accuracy", "seconds", "status"]
    )
    # Other work on the machine makes an epoch longer, never shorter.
    table["seconds"] = table.groupby("run")["seconds"].transform("min")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--more", action="store_true")
    arguments = parser.parse_args()
    table = curves(arguments.sweep)
    if arguments.more and arguments.csv.exists():
        before = pd.read_csv(arguments.csv)
        table = pd.concat([before, table[~table["run"].isin(before["run"])]])
    table = table.round({"val_loss": 4, "val_accuracy": 4, "seconds": 3, "lr": 6, "weight_decay": 8})
    table.to_csv(arguments.csv, index=False)
    print(f"{table['run'].nunique()} runs, {table['config'].nunique()} configurations, {len(table)} epochs")


if __name__ == "__main__":
    main()
