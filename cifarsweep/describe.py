"""Shows what a configuration would train, and on what: `python -m cifarsweep.describe model=layers3 data=shapes`.

The network as a table and as a diagram, ten images of each class, and images as training sees them. Trains nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifarsweep.terminal import errors, formatting
from cifarsweep.terminal.arguments import Parser, exit_code
from cifarsweep.training import compose, groups, schema

if TYPE_CHECKING:  # PyTorch, 1.8 s, which a wrong value need not wait for
    from matplotlib.figure import Figure

    from cifarsweep.data import DataSet
    from cifarsweep.training.trainer import Session

HEADER = ["layer", "output", "parameters", "multiply-adds"]


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m cifarsweep.describe",
        description="Prints the layers of a network; draws them and images of the data set. Trains nothing.",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for a run: model=layers3 data=shapes")
    parser.add_argument("--output", type=Path, help="folder of the figures (default: outputs/describe/MODEL-DATA)")
    args = parser.parse_args(arguments)
    conf = groups.folder()
    try:
        _describe(conf, args.overrides, args.output)
    except Exception as error:
        if not errors.is_users(error):
            raise
        print(errors.one_line(error, partial(compose.known_keys, conf, args.overrides)), file=sys.stderr)
        return 1
    return 0


def _describe(conf: Path, overrides: list[str], output: Path | None) -> None:
    cfg, choices = compose.compose(conf, overrides)
    config = compose.plain(cfg)
    schema.check(config)
    from hydra.utils import instantiate

    from cifarsweep.training import trainer

    dataset = instantiate(cfg.data)
    session = trainer.Session(cfg, config, dataset)
    model = session.describe(choices)["model"]
    print(_about(dataset))
    _print_layers(session)
    folder = output or Path(config["outputs"]) / "describe" / f"{model}-{dataset.name}"
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    from cifarsweep.report import figures, style

    with style.drawing():
        for name, figure in _figures(session, model):
            figures.save(figure, folder / name)
            print(folder / name)


def _about(dataset: DataSet) -> str:
    numbers = f"{len(dataset.train_indices):,} training, {len(dataset.val_indices):,} validation and "
    size = f"{dataset.image_size}×{dataset.image_size}"
    images = f"{len(dataset.test_labels):,} test images of {size} pixels, {len(dataset.class_names)} classes"
    return f"{formatting.printable(dataset.name)}: {numbers}{images}"


def _print_layers(session: Session) -> None:
    layers = session.layers
    rows = [[one.kind, _by(one.shape), _number(one.params), _number(one.multiply_adds)] for one in layers]
    totals = (sum(one.params for one in layers), sum(one.multiply_adds for one in layers))
    formatting.show(HEADER, [*rows, ["total", "", *map(_number, totals)]], left=["layer"])


def _figures(session: Session, model: str) -> Iterator[tuple[str, Figure]]:
    from cifarsweep.data import Augmentation, samples
    from cifarsweep.report import network, pictures

    dataset = session.dataset
    augmented = samples.augmented(dataset) if dataset.augmentation != Augmentation() else None
    shown = pictures.Pictures(dataset.name, samples.of_classes(dataset), augmented, confused=None)
    drawn: dict[str, Any] = {
        "network.png": network.diagram(model, session.layers),
        "classes.png": pictures.classes(shown),
        "augmentation.png": pictures.augmentation(shown),
    }
    yield from ((name, figure) for name, figure in drawn.items() if figure)


def _by(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _number(value: int) -> str:
    return f"{value:,}" if value else ""


if __name__ == "__main__":
    sys.exit(exit_code(main))
