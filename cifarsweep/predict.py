"""Classifies image files with a trained run: `python -m cifarsweep.predict RUN IMAGE…`."""

if __name__ == "__main__":  # at the top, so that what the imports raise is answered, too
    from cifarsweep.terminal import boundary

    raise SystemExit(boundary.run("cifarsweep.predict"))

from pathlib import Path

import torch
from torch import Tensor

from cifarsweep.classifier import Classifier, load
from cifarsweep.terminal import boundary, streams
from cifarsweep.terminal.arguments import Parser


@boundary.command
def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m cifarsweep.predict", description="Classify image files.")
    parser.add_argument("run", type=Path, help="directory of a complete run, outputs/runs/…, or its run_id")
    parser.add_argument("images", type=Path, nargs="+", help="image files of any size")
    parser.add_argument("--top", type=int, default=3, metavar="N", help="classes shown for each image (default 3)")
    args = parser.parse_args(arguments)
    classifier = load(args.run)
    for image in args.images:
        ranked = sorted(classify(classifier, image), key=lambda pair: -pair[1])[: max(args.top, 1)]
        named = ", ".join(f"{name} {probability:.1%}" for name, probability in ranked)
        streams.print_line(f"{image}: {named}")
    return 0


@torch.inference_mode()
def classify(classifier: Classifier, image: Path) -> list[tuple[str, float]]:
    """Each class, whose name may repeat, and its probability. OSError or ValueError where the image cannot be read."""
    probabilities: Tensor = classifier(classifier.read(image)[None])[0]
    if not probabilities.isfinite().all():
        raise ValueError(f"{image}: the network gives it no finite scores, expected other weights in its model.pt")
    return list(zip(classifier.class_names, probabilities.tolist(), strict=True))
