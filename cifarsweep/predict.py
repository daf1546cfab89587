"""Classifies image files with a trained run or an export of it: `python -m cifarsweep.predict RUN IMAGE…`."""

if __name__ == "__main__":  # at the top, so that what the imports raise is answered, too
    from cifarsweep.terminal import boundary

    raise SystemExit(boundary.run("cifarsweep.predict"))

import glob
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from cifarsweep.classifier import Classifier, load
from cifarsweep.data.class_folders import IMAGE_ENDINGS, image_files
from cifarsweep.results import files
from cifarsweep.terminal import boundary, errors, formatting, streams
from cifarsweep.terminal.arguments import Parser

COLUMNS = ("image", "rank", "class", "probability")


@boundary.command
def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m cifarsweep.predict",
        description="Classify image files. One that cannot be read is named, and the exit code is 1.",
    )
    parser.add_argument("run", type=Path, help="a complete run, by directory or run_id; or a file of cifarsweep.export")
    parser.add_argument("images", nargs="+", help="image files of any size, folders of them, or patterns in quotes")
    parser.add_argument("--top", type=int, default=3, metavar="K", help="classes shown for each image (default 3)")
    parser.add_argument("--csv", action="store_true", help=f"as a table: {', '.join(COLUMNS)}")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="images at a time (default 64)")
    parser.add_argument("--trust", action="store_true", help="open a .pt2 file, which may run any code")
    args = parser.parse_args(arguments)
    for name, value in (("--top", args.top), ("--batch-size", args.batch_size)):
        if value < 1:
            raise ValueError(f"{name} {value}: expected 1 or more")
    model, failed = load(args.run, args.trust), False
    if args.csv:
        files.write_rows(sys.stdout, [COLUMNS])
    images = [image for word in args.images for image in _images(word)]
    for image, answer in classify(model, images, args.batch_size):
        if isinstance(answer, Exception):
            streams.print_error(errors.one_line(answer))
            failed = True
            continue
        shown = formatting.printable(str(image))
        ranked = [(formatting.printable(name), probability) for name, probability in answer[: args.top]]
        if args.csv:
            files.write_rows(sys.stdout, [(shown, rank, *pair) for rank, pair in enumerate(ranked, 1)])
        else:
            streams.print_line(f"{shown}: " + ", ".join(f"{name} {probability:.1%}" for name, probability in ranked))
    return 1 if failed else 0


def _images(word: str) -> Iterable[Path]:
    """The files that a word of the command line means: it is a file, a folder, or else a pattern."""
    path = Path(word)
    if path.is_dir():
        if not (found := sorted(image_files(path).values())):
            raise ValueError(f"{word}: no image in it, expected files ending in {' '.join(sorted(IMAGE_ENDINGS))}")
        return found
    if path.exists() or not glob.has_magic(word):
        return [path]
    if not (named := sorted(glob.glob(word, recursive=True))):
        raise ValueError(f"{word}: no file has such a name")
    return map(Path, named)


Answer = list[tuple[str, float]] | Exception
"""Each class, whose name may repeat, and its probability, the best first; or why an image has none."""


@torch.inference_mode()
def classify(model: Classifier, images: Iterable[Path], batch_size: int = 64) -> Iterator[tuple[Path, Answer]]:
    """What the model says of each image, in their order."""
    left = list(images)
    while left:
        now, left = left[:batch_size], left[batch_size:]
        read = [_read(model, image) for image in now]
        pixels = [each for each in read if isinstance(each, Tensor)]
        answers = iter(model(torch.stack(pixels)).tolist() if pixels else [])
        for image, each in zip(now, read, strict=True):
            yield image, each if isinstance(each, Exception) else _ranked(model, image, next(answers))


def _read(model: Classifier, image: Path) -> Tensor | Exception:
    try:
        return model.read(image)
    except (OSError, ValueError) as error:
        return error


def _ranked(model: Classifier, image: Path, probabilities: list[float]) -> Answer:
    if not all(0 <= probability <= 1 for probability in probabilities):  # which NaN is not, either
        return ValueError(f"{image}: the network gives it no finite scores, expected other weights in its model.pt")
    return sorted(zip(model.class_names, probabilities, strict=True), key=lambda pair: -pair[1])
