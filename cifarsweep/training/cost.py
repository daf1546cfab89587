"""What a configuration would cost, measured over a few batches of which nothing is kept."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from hydra.utils import instantiate

from cifarsweep.data import DataSet
from cifarsweep.training import loop, run_files
from cifarsweep.training.configuration import Configuration
from cifarsweep.training.session import Session

NUM_STEPS_TIMED = 6


def measure(configuration: Configuration, threads: int) -> dict[str, Any]:
    """What would be trained, and how fast: with so many threads, if the configuration does not say how many."""
    run_files.show_log("cifarsweep.data")
    torch.set_num_threads(configuration.values["trainer"]["threads"] or threads)
    dataset: DataSet = instantiate(configuration.node.data)
    session = Session(configuration, dataset)
    batcher = dataset.batchers(session.device).train
    size = min(session.description.batch_size, len(dataset.train_indices))
    num_steps = min(NUM_STEPS_TIMED, len(dataset.train_indices) // size)
    epochs = loop.train(
        model=session.model,
        optimizer=session.optimizer,
        schedule=session.schedule,
        loss_fn=session.loss_fn,
        batches=lambda epoch: itertools.islice(batcher.training(size, dataset.augmentation, epoch), num_steps),
        steps_per_epoch=num_steps,
        num_epochs=2,
        validate=lambda: None,
        autocast=session.autocast,
    )
    seconds = min(epoch.seconds for epoch in epochs)  # the first one makes the buffers
    return {
        "model": session.description.model,
        "width": session.description.width,
        "params": session.description.params,
        "multiply_adds": session.description.flops // 2,
        "images_per_second": num_steps * size / seconds,
        "num_train": len(dataset.train_indices),
        "num_val": len(dataset.val_indices),
    }
