"""The training loop. Knows nothing of Hydra, Optuna, data sets or files."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cifarsweep.results.records import Epoch

Batches = Iterable[tuple[Tensor, Tensor]]
"""Pairs of normalised images (N, C, H, W) and int64 labels (N,), on the model's device."""


@dataclass(frozen=True)
class Evaluation:
    loss: float
    accuracy: float
    """Part of the images whose highest score is their label's, 0 to 1."""
    predicted: Tensor
    """int64 class indices (N,), in the order of the batches, on the CPU."""


@dataclass(frozen=True)
class Part:
    """What an epoch has done so far, in its middle."""

    steps: int = 0
    num_images: int = 0
    loss_sum: float = 0.0
    num_correct: int = 0
    seconds: float = 0.0


NOTHING = Part()


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: Callable[[int, int], float],
    loss_fn: nn.Module,
    batches: Callable[[int], Batches],
    steps_per_epoch: int,
    num_epochs: int,
    validate: Callable[[], Evaluation | None],
    autocast: torch.autocast,
    first_epoch: int = 1,
    begun: Part = NOTHING,
    save_every: float = math.inf,
    save: Callable[[Part], None] = lambda part: None,
) -> Iterator[Epoch]:
    """Trains in place and yields after each epoch, where the caller may stop. Ends once the loss is not finite.

    Starts at `first_epoch`, with model and optimizer as the epoch before it left them, or after the part of it that
    `begun` tells. Calls `save` in the middle of an epoch that takes longer than `save_every` seconds, and again after
    as many.
    `batches(epoch)` gives the epoch's `steps_per_epoch` batches; `schedule(step, num_steps)` gives the factor on
    the learning rates the optimizer came with.
    """
    peak_lrs = [group["lr"] for group in optimizer.param_groups]
    num_steps = num_epochs * steps_per_epoch
    for epoch in range(first_epoch, num_epochs + 1):
        start = saved = time.perf_counter()
        part, begun = begun, NOTHING
        step = (epoch - 1) * steps_per_epoch + part.steps
        loss_sum, num_correct, num_images = part.loss_sum, part.num_correct, part.num_images
        model.train()
        for images, labels in itertools.islice(batches(epoch), part.steps, None):
            for group, peak_lr in zip(optimizer.param_groups, peak_lrs, strict=True):
                group["lr"] = peak_lr * schedule(step, num_steps)
            with autocast:
                scores = model(images)
                loss = loss_fn(scores, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            # Sums stay on the device: reading one out would wait for it at every step.
            loss_sum = loss_sum + loss.detach() * len(labels)
            num_correct = num_correct + (scores.detach().argmax(1) == labels).sum()
            num_images += len(labels)
            if (now := time.perf_counter()) - saved > save_every and step % steps_per_epoch:
                seconds = part.seconds + now - start
                save(Part(step % steps_per_epoch, num_images, float(loss_sum), int(num_correct), seconds))
                saved = time.perf_counter()
        train_loss, train_accuracy = float(loss_sum) / num_images, int(num_correct) / num_images
        seconds = part.seconds + time.perf_counter() - start
        val = validate()
        measured = Epoch(
            epoch=epoch,
            lr=optimizer.param_groups[0]["lr"],
            train_loss=train_loss,
            train_accuracy=train_accuracy,
            val_loss=val.loss if val else None,
            val_accuracy=val.accuracy if val else None,
            seconds=seconds,
        )
        yield measured
        if measured.diverged:
            return


@torch.inference_mode()
def evaluate(
    model: nn.Module, batches: Batches, loss_fn: nn.Module, autocast: torch.autocast, mirrored: bool = False
) -> Evaluation:
    """Loss and accuracy over all batches, with the model as it predicts (running statistics, no dropout).

    With `mirrored`, of the mean scores of each image and its mirror image.
    """
    model.eval()
    losses, predicted, num_correct = [], [], 0
    for images, labels in batches:
        with autocast:
            scores = model(images)
            if mirrored:
                scores = (scores + model(images.flip(3))) / 2
            losses.append(loss_fn(scores, labels) * len(labels))
        predicted.append(scores.argmax(1))
        num_correct = num_correct + (predicted[-1] == labels).sum()
    classes = torch.cat(predicted).cpu()
    return Evaluation(float(torch.stack(losses).sum()) / len(classes), int(num_correct) / len(classes), classes)
