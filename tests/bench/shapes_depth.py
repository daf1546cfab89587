"""Does depth pay on data=shapes? Trains layers2 to layers4 with the default recipe and compares them seed by seed.

    python tests/bench/shapes_depth.py [--epochs 8] [--seeds 3] [--outputs outputs]

Prints test accuracy by depth and seed, and fails where layers2 < layers3 < layers4 does not hold for a seed.
Nine runs of eight epochs take about 10 minutes on two cores; runs that were made before are read, not made again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pandas as pd

MODELS = ["layers2", "layers3", "layers4"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    args = parser.parse_args()
    words = ["data=shapes", f"model={','.join(MODELS)}", f"seed=range({args.seeds})", f"trainer.epochs={args.epochs}"]
    sweep = [f"outputs={args.outputs}", "name=shapes_depth"]
    subprocess.run([sys.executable, "-m", "cifarsweep", "-m", *words, *sweep], check=True)

    runs = pd.read_csv(args.outputs / "sweeps" / "shapes_depth" / "report" / "runs.csv")
    runs = runs[(runs["epochs"] == args.epochs) & (runs["seed"] < args.seeds)]
    table = runs.pivot_table(index="seed", columns="model", values="test_accuracy")[MODELS]
    print(f"\nTest accuracy on shapes, {args.epochs} epochs\n{table.round(4)}\nmean\n{table.mean().round(4)}")
    ordered = all((table[shallow] < table[deep]).all() for shallow, deep in pairwise(MODELS))
    print("ordered by depth in every seed" if ordered else "NOT ordered by depth in every seed")
    return 0 if ordered else 1


if __name__ == "__main__":
    sys.exit(main())
