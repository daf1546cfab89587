"""The command `python -m cifarsweep`: puts our Hydra plugins in reach and hands over to cli."""

import sys
from pathlib import Path

from cifarsweep.training import groups


def main() -> None:
    # Hydra looks for plugin classes in packages named hydra_plugins only.
    sys.path.append(str(Path(__file__).resolve().parent / "sweeper"))
    if groups.asks_for_help(sys.argv[1:]):
        groups.show_help(sys.argv[1:])
        return
    from cifarsweep.training import cli

    sys.exit(cli.main())


if __name__ == "__main__":
    main()
