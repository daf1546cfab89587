"""A trained network with its preprocessing: uint8 images in, probabilities out. Trains and instantiates nothing that a
results folder names: the network is one of cifarsweep.models, the weights are opened with weights_only=True."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifarsweep import models
from cifarsweep.data import read_image
from cifarsweep.results import files, folders
from cifarsweep.results.records import RunResult

MOST_SIZE = 4096
"""Pixels a side: an image of that size takes 200 MB."""


class Classifier(nn.Module):
    """Takes uint8 images (N, 3, image_size, image_size), gives probabilities (N, classes): the softmax of the scores.

    `mean` and `std` are those of each channel, of pixels from 0 to 1. The names of two classes may be the same.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, class_names: list[str], mean: Tensor, std: Tensor, image_size: int) -> None:
        super().__init__()
        self.network, self.class_names, self.image_size = network, class_names, image_size
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("std", std.view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network((images / 255 - self.mean) / self.std)
        return scores.softmax(dim=1)

    def read(self, image: Path | str) -> Tensor:
        """The middle square of an image file, as the network takes it: uint8 (3, image_size, image_size).

        OSError or ValueError where the file cannot be read.
        """
        try:
            files.check_file(Path(os.path.realpath(image)))  # a FIFO would be waited for
            return torch.tensor(read_image(Path(image), self.image_size)).permute(2, 0, 1)
        except (FileNotFoundError, PermissionError, IsADirectoryError, files.Corrupt):
            raise
        except Exception as error:  # whatever a decoder raises on a damaged file
            raise ValueError(f"{image}: not an image that can be read ({error})") from error


def load(run_dir: Path) -> Classifier:
    """The classifier of a run, in evaluation mode. ValueError where there is none."""
    run_dir = folders.meant(run_dir, "the directory of a complete run, or its run_id")
    if result := RunResult.read(run_dir):
        result.check(run_dir, "model.pt")
    path = run_dir / "model.pt"
    for name in (RunResult.file, path.name):  # without the first, nobody knows what the second should be
        if not os.path.lexists(run_dir / name):
            reason = f"no {name} in it, expected the directory of a complete run"
            raise ValueError(f"{run_dir}: {reason}; {RunResult.made_again_by}")
    try:
        with files.opened(path, files.MOST_WEIGHTS) as file:
            return _built(torch.load(file, map_location="cpu", weights_only=True))
    except files.Corrupt:
        raise
    except Exception as error:  # of pickle, zip, the runtime or the network: all say that this is no file of ours
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path}: not a model file ({reason})") from error


def _built(content: dict[str, Any]) -> Classifier:
    """Raises whatever comes of content that is not what a run writes."""
    target, arguments, class_names = content["target"], content["arguments"], content["class_names"]
    name = target.removeprefix(f"{models.__name__}.")
    makes = None if name.startswith("_") else getattr(models, name, None)
    if not callable(makes) or f"{makes.__module__}.{makes.__name__}" != target:
        raise ValueError(f"target={target}: expected one of {models.__name__}")
    mean, std = (torch.tensor(content[key], dtype=torch.float32).flatten() for key in ("mean", "std"))
    if not (mean.shape == std.shape and mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
        raise ValueError("mean, std: expected finite numbers, above 0 as std")
    if not isinstance(class_names, list) or not all(isinstance(name, str) for name in class_names):
        raise ValueError("class_names: expected a list of texts")
    image_size = arguments["image_size"]
    if type(image_size) is not int or not 1 <= image_size <= MOST_SIZE:
        raise ValueError(f"image_size={image_size}: expected a whole number, 1 to {MOST_SIZE}")
    with torch.device("meta"):  # whatever size the arguments say, memory is taken for the weights that are there only
        network = makes(**arguments)
    network.load_state_dict(content["state_dict"], assign=True)
    classifier = Classifier(network, class_names, mean, std, image_size).eval()
    with torch.inference_mode():
        probabilities = classifier(torch.zeros(1, len(mean), image_size, image_size, dtype=torch.uint8))
    if probabilities.shape != (1, len(class_names)):
        raise ValueError(f"{len(class_names)} class_names: expected {probabilities.shape[-1]}")
    return classifier
