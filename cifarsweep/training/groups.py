"""The configuration groups: where they are, which options they have, and `--help`, which shows them.

Knows folders, not Hydra: its own `--help` takes a second, as it copies the configuration for each group.
"""

import argparse
from pathlib import Path

from cifarsweep.terminal import streams

HEADER = "cifarsweep trains small image classifiers and compares them over depth, optimizer, learning rate, batch size."
FOOTER = """\
Examples:
  python -m cifarsweep                                          train one configuration
  python -m cifarsweep model=layers4 optimizer=adamw batch_size=256
  python -m cifarsweep -m model=layers2,layers3,layers4         sweep; a report is written at the end
  python -m cifarsweep -m model=layers2,layers3,layers4 'seed=range(5)' name=depth
  python -m cifarsweep -m search=default name=search1           search with Optuna
  python -m cifarsweep -m experiment=depth_study                a search for every depth, then fresh seeds
  python -m cifarsweep.report outputs/sweeps/depth              the report again
  python -m cifarsweep.describe model=layers4                   the network and the images
  python -m cifarsweep.predict outputs/runs/RUN image.png       use what was trained
  python -m cifarsweep.export outputs/runs/RUN                  take it away: ONNX, safetensors, torch.export
  python -m cifarsweep --cfg job                                every key with its default value
Hydra's own options: python -m cifarsweep --hydra-help"""


def folder() -> Path:
    """Where the groups are: in the wheel, or beside the package in a checkout."""
    here = Path(__file__).resolve().parent.parent
    return here / "conf" if (here / "conf").is_dir() else here.parent / "conf"


def show_help(words: list[str]) -> None:
    """Prints the groups and their options, with those in a --config-dir."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    own = parser.parse_known_args(words)[0].config_dir
    groups = options_by_group(*([own] if own else []))
    lines = [f"{group}: {', '.join(options)}" for group, options in groups.items()]
    for line in [HEADER, "", "Groups (choose one with group=option)", "", *lines, "", *FOOTER.splitlines()]:
        streams.print_line(line)


def options_by_group(*further: Path) -> dict[str, list[str]]:
    """The options of each group here and in further folders, without Hydra's own groups; both sorted."""
    files = {file.relative_to(conf) for conf in (folder(), *further) for file in conf.glob("*/*.yaml")}
    groups = sorted({file.parent.name for file in files} - {"hydra"})
    return {group: sorted(file.stem for file in files if file.parent.name == group) for group in groups}
