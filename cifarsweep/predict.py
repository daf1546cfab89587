"""Classifies image files with a trained run: `python -m cifarsweep.predict RUN IMAGE…`. Trains and instantiates nothing
that a results folder names: the network is one of cifarsweep.models, the weights are opened with weights_only=True."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cifarsweep import models
from cifarsweep.data import read_image
from cifarsweep.terminal.arguments import Parser, exit_code, one_line_errors
from cifarsweep.terminal.formatting import printable


@one_line_errors
def main() -> int:
    parser = Parser(prog="python -m cifarsweep.predict", description="Classify image files.")
    parser.add_argument("run", type=Path, help="directory of a complete run, outputs/runs/…")
    parser.add_argument("images", type=Path, nargs="+", help="image files of any size")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="classes shown for each image (default 3)")
    args = parser.parse_args()
    predictor = load(args.run)
    for image in args.images:
        ranked = sorted(classify(predictor, image).items(), key=lambda pair: -pair[1])[: max(args.top, 1)]
        print(f"{image}: " + ", ".join(f"{printable(name)} {probability:.1%}" for name, probability in ranked))
    return 0


def load(run_dir: Path) -> dict[str, Any]:
    """What model.pt holds, with `model`, the trained network, in evaluation mode. ValueError where there is none."""
    path = run_dir / "model.pt"
    if not path.exists():
        raise ValueError(f"{run_dir}: no model.pt in it, expected the directory of a complete run")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and runtime errors: all say that this is no file of ours
        raise ValueError(f"{path}: not a model file ({str(error).splitlines()[0]})") from error
    target, name = content["target"], content["target"].removeprefix(f"{models.__name__}.")
    makes = None if name.startswith("_") else getattr(models, name, None)
    is_ours = callable(makes) and f"{makes.__module__}.{makes.__name__}" == target
    model = makes(**content["arguments"]) if makes and is_ours else None
    if not isinstance(model, nn.Module):
        raise ValueError(f"model {target}: expected one of {models.__name__}")
    model.load_state_dict(content["state_dict"])
    return {**content, "model": model.eval()}


@torch.inference_mode()
def classify(predictor: Mapping[str, Any], image: Path) -> dict[str, float]:
    """Probability of each class: the softmax of the scores. OSError or ValueError where the image cannot be read."""
    try:
        pixels = read_image(image, predictor["arguments"]["image_size"])
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # whatever a decoder raises on a damaged file
        raise ValueError(f"{image}: not an image that can be read ({error})") from error
    mean, std = (torch.tensor(predictor[key]).view(-1, 1, 1) for key in ("mean", "std"))
    normalised = (torch.tensor(pixels).permute(2, 0, 1) / 255 - mean) / std
    scores: Tensor = predictor["model"](normalised[None])
    return dict(zip(predictor["class_names"], scores.softmax(dim=1)[0].tolist(), strict=True))


if __name__ == "__main__":
    sys.exit(exit_code(main))
