"""Test accuracy against the time of training on all cores: the recipes of conf/experiment, layersN and the tutorial.

    python tests/bench/recipes.py [--root FOLDER] [--outputs FOLDER] [--figure FILE] [--recipes cifar10_90:3 ...]
                                  [--epochs 4 8 16] [--json FILE]

cifar10_90:3 means seeds 0, 1 and 2 of that recipe. Each is trained alone, with all cores, one after another; a run that
--outputs holds already is read, so that the command can be given again after an interruption. The tutorial is the
textbook's network with a DataLoader of two workers, as in throughput.py, on the same training images and with this
project's settings of memory. Of resnet18 an epoch is measured over a few batches, and nothing else. `PFLOP` are the
operations of training: three times the forward pass, two operations for each multiply-add.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench
import throughput

DEPTHS = (2, 3, 4, 5)


def rows(arguments: argparse.Namespace) -> Iterator[bench.Row]:
    import cifarsweep

    words = [*bench.data_words(arguments), f"outputs={arguments.outputs}"]
    of_recipes = [
        (recipe, [f"experiment={recipe}", f"seed={seed}"])
        for recipe, num_seeds in arguments.recipes
        for seed in range(num_seeds)
    ]
    of_depths = [
        (f"layers{depth}", [f"model=layers{depth}", f"trainer.epochs={epochs}"])
        for depth, epochs in itertools.product(DEPTHS, arguments.epochs)
    ]
    small = ["trainer.epochs=1"] if arguments.small else []
    for name, own in (*of_recipes, *of_depths):
        result = cifarsweep.train(*words, *own, *small)
        yield row(name, result.epochs, result.seed, result.train_seconds, result.test_accuracy) | {
            "mirrored": result.mirrored_test_accuracy,
            "PFLOP": 3 * result.flops * result.num_train * result.epochs / 1e15,
        }
    setup = throughput.Setup(bench.data_words(arguments), plain=False)
    yield from tutorial(arguments, setup)
    yield resnet18(arguments, setup)


def row(name: str, epochs: int, seed: int, seconds: Any, accuracy: Any) -> bench.Row:
    return {"name": name, "epochs": epochs, "seed": seed, "seconds": seconds, "test accuracy": accuracy}


def tutorial(arguments: argparse.Namespace, setup: throughput.Setup) -> Iterator[bench.Row]:
    """After each epoch of the tutorial's loop; recorded beside the runs, as they are."""
    record = arguments.outputs / "tutorial.json"
    if record.exists():
        yield from json.loads(record.read_text(encoding="utf-8"))
        return
    import torch
    import torchvision.transforms as T
    from torch.utils.data import DataLoader, Subset

    dataset = setup.dataset
    transform = T.Compose([T.RandomCrop(dataset.image_size, padding=4), T.RandomHorizontalFlip(), T.ToTensor(),
                           T.Normalize(dataset.mean, dataset.std)])  # fmt: skip
    images: Any = throughput.PilImages(dataset, transform, len(dataset.train_labels))
    loader: Any = DataLoader(Subset(images, dataset.train_indices.tolist()), 128, shuffle=True, num_workers=2)
    torch.manual_seed(0)
    net, loss_fn = throughput.textbook_network(2), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    done, seconds = [], 0.0
    for epoch in range(1, (1 if arguments.small else max(arguments.epochs)) + 1):
        start = time.perf_counter()
        net.train()
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = loss_fn(net(inputs), labels)
            loss.backward()
            optimizer.step()
            loss.item()
        seconds += time.perf_counter() - start
        net.eval()
        with torch.inference_mode():
            batches = setup.batchers.test.evaluation(500)
            correct = sum(int((net(images).argmax(1) == labels).sum()) for images, labels in batches)
        done.append(row("tutorial", epoch, 0, seconds, correct / len(dataset.test_labels)))
        yield done[-1]
    record.write_text(json.dumps(done), encoding="utf-8")


def resnet18(arguments: argparse.Namespace, setup: throughput.Setup) -> bench.Row:
    """One epoch, from a few batches."""
    num_train, steps = len(setup.dataset.train_indices), 2 if arguments.small else 6
    timed = setup.cifarsweep("model=resnet18", 128, steps)
    next(timed)
    start = time.perf_counter()
    seen = next(timed)
    seconds = (time.perf_counter() - start) * num_train / seen
    return row("resnet18, an epoch", 1, 0, seconds, None)


def draw(table: list[bench.Row], file: Path) -> None:
    import matplotlib.pyplot as plt
    import pandas as pd
    from matplotlib.ticker import FuncFormatter

    from cifarsweep.report import style

    frame = pd.DataFrame(table)
    marks = ["o", "s", "D", "^", "v", "P", "X"]
    with plt.rc_context(style.RC_PARAMS):
        figure, axes = plt.subplots(figsize=(9, 5))
        trained = frame.dropna(subset=["test accuracy"])
        for number, (name, group) in enumerate(trained.groupby("name", sort=False)):
            means = group.groupby("epochs")[["seconds", "test accuracy"]].mean()
            colour = style.OKABE_ITO[number % len(style.OKABE_ITO)]
            mark = "" if name == "tutorial" else marks[number % len(marks)]
            axes.plot(means["seconds"] / 60, 100 * means["test accuracy"], marker=mark, color=colour, label=name)
        for _, slow in frame[frame["test accuracy"].isna()].iterrows():
            axes.axvline(slow["seconds"] / 60, color=style.GREY, linestyle=":", label=slow["name"])
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda minutes, _: f"{minutes:g}"))
        axes.set_xlabel(f"minutes of training on {len(bench.cores())} cores")
        axes.set_ylabel("test accuracy %")
        axes.legend(loc="lower right", ncols=2)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, bbox_inches="tight")


def name_and_seeds(text: str) -> tuple[str, int]:
    name, _, seeds = text.partition(":")
    return name, int(seeds or 1)


def main() -> None:
    parser = bench.parser(__doc__, data=True)
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where the runs go")
    parser.add_argument("--figure", type=Path, default=Path("outputs/accuracy_vs_time.png"))
    parser.add_argument(
        "--recipes",
        nargs="*",
        type=name_and_seeds,
        default=[("cifar10_90", 3), ("cifar10_94", 1), ("cifar10_95", 1)],
        metavar="NAME:SEEDS",
    )
    parser.add_argument("--epochs", type=int, nargs="+", default=[4, 8, 16], help="of layersN")
    arguments = parser.parse_args()
    if arguments.small:
        arguments.recipes, arguments.epochs = [], [1]
    draw(bench.table(rows(arguments), arguments), arguments.figure)


if __name__ == "__main__":
    main()
