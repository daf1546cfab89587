"""Classifies image files with a trained run: `python -m cifarsweep.predict RUN IMAGE…`. Trains and instantiates nothing
that a results folder names: the network is one of cifarsweep.models, the weights are opened with weights_only=True."""

if __name__ == "__main__":  # at the top, so that what the imports raise is answered, too
    from cifarsweep.terminal import boundary

    raise SystemExit(boundary.run("cifarsweep.predict"))

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifarsweep import models
from cifarsweep.data import read_image
from cifarsweep.results import files, folders
from cifarsweep.results.records import RunResult
from cifarsweep.terminal import boundary, streams
from cifarsweep.terminal.arguments import Parser

MOST_SIZE = 4096
"""Pixels a side: an image of that size takes 200 MB."""


@boundary.command
def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m cifarsweep.predict", description="Classify image files.")
    parser.add_argument("run", type=Path, help="directory of a complete run, outputs/runs/…, or its run_id")
    parser.add_argument("images", type=Path, nargs="+", help="image files of any size")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="classes shown for each image (default 3)")
    args = parser.parse_args(arguments)
    predictor = load(args.run)
    for image in args.images:
        ranked = sorted(classify(predictor, image), key=lambda pair: -pair[1])[: max(args.top, 1)]
        named = ", ".join(f"{name} {probability:.1%}" for name, probability in ranked)
        streams.print_line(f"{image}: {named}")
    return 0


@dataclass(frozen=True)
class Predictor:
    """What model.pt holds, checked, with the trained network in evaluation mode."""

    model: nn.Module
    class_names: list[str]
    mean: Tensor
    """And `std`: (C, 1, 1), of pixels from 0 to 1."""
    std: Tensor
    image_size: int


def load(run_dir: Path) -> Predictor:
    """The predictor of a run. ValueError where there is none."""
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
    except (
        Exception
    ) as error:  # pickle, zip and runtime errors, and a network's own: all say that this is no file of ours
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ValueError(f"{path}: not a model file ({reason})") from error


def _built(content: dict[str, Any]) -> Predictor:
    """Raises whatever comes of content that is not what a run writes."""
    target, arguments, class_names = content["target"], content["arguments"], content["class_names"]
    name = target.removeprefix(f"{models.__name__}.")
    makes = None if name.startswith("_") else getattr(models, name, None)
    if not callable(makes) or f"{makes.__module__}.{makes.__name__}" != target:
        raise ValueError(f"target={target}: expected one of {models.__name__}")
    mean, std = (torch.tensor(content[key], dtype=torch.float32).view(-1, 1, 1) for key in ("mean", "std"))
    if not (mean.shape == std.shape and mean.isfinite().all() and std.isfinite().all() and (std > 0).all()):
        raise ValueError("mean, std: expected finite numbers, above 0 as std")
    if not isinstance(class_names, list) or not all(isinstance(name, str) for name in class_names):
        raise ValueError("class_names: expected a list of texts")
    image_size = arguments["image_size"]
    if type(image_size) is not int or not 1 <= image_size <= MOST_SIZE:
        raise ValueError(f"image_size={image_size}: expected a whole number, 1 to {MOST_SIZE}")
    with torch.device("meta"):  # whatever size the arguments say, memory is taken for the weights that are there only
        model = makes(**arguments)
    model.load_state_dict(content["state_dict"], assign=True)
    scores = model.eval()(torch.zeros(1, len(mean), image_size, image_size))
    if scores.shape != (1, len(class_names)):
        raise ValueError(f"{len(class_names)} class_names: expected {scores.shape[-1]}")
    return Predictor(model, class_names, mean, std, image_size)


@torch.inference_mode()
def classify(predictor: Predictor, image: Path) -> list[tuple[str, float]]:
    """Each class, whose name may repeat, and its probability: the softmax of the scores.

    OSError or ValueError where the image cannot be read.
    """
    try:
        files.check_file(Path(os.path.realpath(image)))  # a FIFO would be waited for
        pixels = read_image(image, predictor.image_size)
    except (FileNotFoundError, PermissionError, IsADirectoryError, files.Corrupt):
        raise
    except Exception as error:  # whatever a decoder raises on a damaged file
        raise ValueError(f"{image}: not an image that can be read ({error})") from error
    normalised = (torch.tensor(pixels).permute(2, 0, 1) / 255 - predictor.mean) / predictor.std
    scores: Tensor = predictor.model(normalised[None])
    if not scores.isfinite().all():
        raise ValueError(f"{image}: the network gives it no finite scores, expected other weights in its model.pt")
    return list(zip(predictor.class_names, scores.softmax(dim=1)[0].tolist(), strict=True))
