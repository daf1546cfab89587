"""Images of a data set that a person should see: of each class, as training sees them, and those that were confused."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cifarsweep.data import DataSet
from cifarsweep.results.mosaic import Mosaic

NUM_COLUMNS = 10
MOST_ORIGINALS = 10
NUM_PAIRS = 6


def of_classes(dataset: DataSet) -> Mosaic:
    """Ten images of each class, drawn from all training images by a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for label in range(len(dataset.class_names)):
        places = (dataset.train_labels == label).nonzero()[:, 0]
        drawn = places[torch.randperm(len(places), generator=generator)[:NUM_COLUMNS]]
        rows.append(_row(dataset.train_images, drawn))
    return Mosaic(dataset.class_names, np.stack(rows))


def augmented(dataset: DataSet) -> Mosaic:
    """An image of each of ten classes, and beside it what training makes of it, by the code that training uses."""
    train = dataset.batchers(torch.device("cpu")).train
    names, rows = [], []
    for label, name in enumerate(dataset.class_names[:MOST_ORIGINALS]):
        places = (dataset.train_labels == label).nonzero()[:1, 0]
        if not len(places):
            continue
        repeated = replace(train, indices=places.expand(NUM_COLUMNS - 1))
        epochs = [repeated.training(NUM_COLUMNS - 1, dataset.augmentation, label, epoch) for epoch in range(2)]
        batches = [images for ((images, _),) in epochs]
        batches[0][1::2] = batches[1][1::2]
        colours = batches[0] * train.std.view(1, -1, 1, 1) + train.mean.view(1, -1, 1, 1)
        variants = (colours * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        names.append(name)
        rows.append(np.concatenate([_row(dataset.train_images, places)[:1], variants]))
    return Mosaic(names, np.stack(rows))


def confused(dataset: DataSet, predicted: Tensor) -> Mosaic | None:
    """The first test images of the pairs of classes that were confused most often; None where nothing was.

    `predicted` are the class indices (N,) of all test images. Pairs are in the order of the report's table: by number,
    then by the true class.
    """
    num_classes, labels = len(dataset.class_names), dataset.test_labels
    wrong = (labels * num_classes + predicted)[labels != predicted]
    counts = torch.bincount(wrong, minlength=num_classes**2)
    totals = torch.bincount(labels, minlength=num_classes).tolist()
    names, rows = [], []
    for pair in counts.argsort(descending=True, stable=True)[:NUM_PAIRS].tolist():
        true, taken = divmod(pair, num_classes)
        if counts[pair]:
            places = ((labels == true) & (predicted == taken)).nonzero()[:NUM_COLUMNS, 0]
            rows.append(_row(dataset.test_images, places))
            pair_names = f"{dataset.class_names[true]}, taken for {dataset.class_names[taken]}"
            names.append(f"{pair_names}: {int(counts[pair]):,} of {totals[true]:,}")
    return Mosaic(names, np.stack(rows)) if rows else None


def _row(images: Tensor, places: Tensor) -> NDArray[np.uint8]:
    """(NUM_COLUMNS, H, W, 3), white after the last."""
    shown = images[places].permute(0, 2, 3, 1).numpy()
    row = np.full((NUM_COLUMNS, *shown.shape[1:]), 255, np.uint8)
    row[: len(shown)] = shown
    return row
