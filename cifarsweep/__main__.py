"""The command `python -m cifarsweep`: puts our Hydra plugins and configuration in reach and hands over to cli."""

import sys
from pathlib import Path


def main() -> None:
    here = Path(__file__).resolve().parent
    sys.path.append(str(here / "plugins"))  # Hydra looks for plugin classes in packages named hydra_plugins only
    inside_wheel, checkout = here / "conf", here.parent / "conf"
    from cifarsweep import cli

    sys.exit(cli.main(inside_wheel if inside_wheel.is_dir() else checkout))


if __name__ == "__main__":
    main()
