"""Shows what a configuration would train, and on what: `python -m cifarsweep.describe model=layers3 data=shapes`.

The network as a table and as a diagram, ten images of each class, and images as training sees them. Trains nothing.
"""

if __name__ == "__main__":  # at the top, so that what the imports raise is answered, too
    from cifarsweep.terminal import boundary

    raise SystemExit(boundary.run("cifarsweep.describe"))

import argparse
import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from cifarsweep.results import files, folders
from cifarsweep.terminal import boundary, formatting, streams
from cifarsweep.terminal.arguments import Parser
from cifarsweep.training.configuration import compose, error_line

if TYPE_CHECKING:  # PyTorch, 1.8 s, which a wrong value need not wait for
    from cifarsweep.training.session import Session


@boundary.command
def main(arguments: list[str] | None = None) -> int:
    parser = Parser(
        prog="python -m cifarsweep.describe",
        description="Prints the layers of a network; draws them and images of the data set, which it reads or "
        "downloads as a run does (data=shapes needs none). Trains nothing.",
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for a run: model=layers3 data=shapes")
    parser.add_argument("--output", type=Path, help="folder of the figures (default: outputs/describe/MODEL-DATA)")
    parser.add_argument("--config-dir", "-cd", type=Path, help="folder of further options, as Hydra's")
    args = parser.parse_args(arguments)
    explain = partial(error_line, words=args.overrides)
    return boundary.answered(lambda: _describe(args), explain)


def _describe(args: argparse.Namespace) -> int:
    configuration = compose(args.overrides, args.config_dir)
    outputs = Path(configuration.values["outputs"])
    folders.check_writable(args.output or outputs, "--output" if args.output else "outputs")
    from cifarsweep.training.session import Session, load_data

    dataset = load_data(configuration)
    session = Session(configuration, dataset)
    numbers = f"{len(dataset.train_indices):,} training, {len(dataset.val_indices):,} validation and "
    size = f"{dataset.image_size}×{dataset.image_size}"
    images = f"{len(dataset.test_labels):,} test images of {size} pixels, {len(dataset.class_names)} classes"
    streams.print_line(f"{dataset.name}: {numbers}{images}")
    layers = session.layers
    rows = [(layer.kind, "×".join(map(str, layer.shape)), layer.params, layer.multiply_adds) for layer in layers]
    rows.append(("total", "", sum(layer.params for layer in layers), sum(layer.multiply_adds for layer in layers)))
    cells = [[kind, shape, *(f"{n:,}" if n else "" for n in numbers)] for kind, shape, *numbers in rows]
    formatting.show(["layer", "output", "parameters", "multiply-adds"], cells, left=["layer"])
    name = f"{session.description.model}-{dataset.name}"
    _draw(session, args.output or outputs / "describe" / name)
    return 0


def _draw(session: "Session", folder: Path) -> None:
    """The figures, each of whose files is named on stdout."""
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # before its import, which may make a font cache
    from cifarsweep.data import Augmentation, samples
    from cifarsweep.report import plain_matplotlib

    plain_matplotlib.load()
    from cifarsweep.report import figures, network, pictures, style

    dataset = session.dataset
    folder = files.make_folder(folders.named(folder))
    with style.drawing():
        drawn = {
            "network.png": network.diagram(session.description.model, session.layers),
            "classes.png": pictures.classes(samples.of_classes(dataset), dataset.name),
        }
        if dataset.augmentation != Augmentation():
            drawn["augmentation.png"] = pictures.augmentation(samples.augmented(dataset))
        for name, figure in drawn.items():
            if figure:
                figures.save(figure, folder / name)
                streams.print_line(str(folder / name))
