"""What a configuration would cost, measured over a few batches. Keeps nothing of them."""

import itertools

import torch

from cifarsweep.sweeper.application import Cost
from cifarsweep.training import loop, run_files
from cifarsweep.training.configuration import Configuration
from cifarsweep.training.session import Session, load_data

NUM_STEPS_TIMED = 6


def measure(configuration: Configuration, threads: int) -> Cost:
    """The cost of an epoch. `threads` counts where the configuration names no number of threads."""
    run_files.show_log("cifarsweep.data")
    torch.set_num_threads(configuration.values["trainer"]["threads"] or threads)
    dataset = load_data(configuration)
    session = Session(configuration, dataset)
    description = session.description
    batcher = dataset.batchers(session.device).train
    size = min(description.batch_size, len(dataset.train_indices))
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
    # Validation images go forward only, about a third of the work.
    num_images = len(dataset.train_indices) + len(dataset.val_indices) / 3
    return Cost(
        name=description.model,
        step_seconds=num_images * seconds / (num_steps * size),
        figures={"width": description.width, "params": description.params, "multiply_adds": description.flops // 2},
    )
