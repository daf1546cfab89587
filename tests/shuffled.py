"""`python -m cifarsweep …` on data whose test labels are shuffled by the seed in $SHUFFLE_SEED, and nothing else is."""

import dataclasses
import os
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "cifarsweep" / "sweeper")]

from cifarsweep import data  # noqa: E402
from cifarsweep.training import command  # noqa: E402

load_shapes = data.load_shapes


def shuffled(**arguments):
    dataset = load_shapes(**arguments)
    generator = torch.Generator().manual_seed(int(os.environ["SHUFFLE_SEED"]))
    order = torch.randperm(len(dataset.test_labels), generator=generator)
    return dataclasses.replace(dataset, test_labels=dataset.test_labels[order])


if __name__ == "__main__":
    data.load_shapes = shuffled
    sys.exit(command.run())
