"""The state of training after an epoch, or in the middle of one, in one file: a SHA-256, then what torch.save makes.

Knows PyTorch and atomic files, not what is trained or why.
"""

import hashlib
import io
import pickle
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cifarsweep.results import files
from cifarsweep.results.records import Epoch
from cifarsweep.training.loop import NOTHING, Part

FORMATS = {False: 1, True: 2}
"""By whether the file is of the middle of an epoch, which version 0.1 would take for its beginning."""


def save(
    path: Path,
    run_id: str,
    epochs: Sequence[Epoch],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    part: Part = NOTHING,
) -> None:
    """Everything that the rest of the training depends on: weights, optimizer, random states, figures so far."""
    content = {
        "format": FORMATS[part != NOTHING],
        "run_id": run_id,
        "epochs": [vars(epoch) for epoch in epochs],
        "part": vars(part),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": _random_states(),
    }
    archive = as_bytes(content)
    with files.atomic(path, "wb") as file:
        file.write(hashlib.sha256(archive).digest())
        file.write(archive)


def as_bytes(content: dict[str, Any]) -> memoryview:
    """What torch.save makes of it, which writes no file itself: its error names neither a full disk nor the file."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getbuffer()


def check_state(state: dict[str, Any]) -> None:
    """Raises whatever comes of a state that cannot be saved, and ValueError where it could not be read again."""
    saved = as_bytes(state)
    try:
        torch.load(io.BytesIO(saved), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError("expected tensors and plain values only in its state_dict()") from error


def restore(path: Path, run_id: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[list[Epoch], Part]:
    """Puts model, optimizer and random states back to where they were saved.

    Returns the epochs, none without a file, and what the next one has done already.

    The learning rates stay those that the optimizer came with. files.Corrupt where the file is damaged or of another
    run or network; nothing is changed then.
    """
    if not path.exists():
        return [], NOTHING
    data = files.read_bytes(path, files.MOST_WEIGHTS)
    try:
        # PyTorch compares no checksum: with one bit of the zip archive's tables flipped it read weights from anywhere.
        digest, archive = data[:32], data[32:]
        if hashlib.sha256(archive).digest() != digest:
            raise ValueError("damaged or incomplete")
        content: dict[str, Any] = torch.load(io.BytesIO(archive), map_location="cpu", weights_only=True)
        part = Part(**content.get("part", {}))
        expected = FORMATS[part != NOTHING]
        if (content["format"], content["run_id"]) != (expected, run_id):
            raise ValueError(f"format {content['format']} of run {content['run_id']}, expected {expected} of {run_id}")
        shapes = {name: value.shape for name, value in model.state_dict().items()}
        if {name: value.shape for name, value in content["model"].items()} != shapes:
            raise ValueError("of another network")
        epochs = [Epoch(**row) for row in content["epochs"]]
        lrs = [group["lr"] for group in optimizer.param_groups]
        optimizer.load_state_dict(content["optimizer"])
        for group, lr in zip(optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr
        _set_random_states(content["random"])
    except Exception as error:  # pickle, runtime, key and value errors: all say that this is no file of ours
        raise files.Corrupt(path, str(error).partition("\n")[0] or type(error).__name__) from error
    model.load_state_dict(content["model"])
    return epochs, part


def _random_states() -> dict[str, Any]:
    """Of every generator that a model may draw from. The images of an epoch come from a generator of their own."""
    name, keys, *rest = np.random.get_state(legacy=True)
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_random_states(states: dict[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    if "cuda" in states and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states["cuda"])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])
