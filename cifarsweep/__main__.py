"""The command `python -m cifarsweep`: trains one configuration or sweeps over many, then reports on the sweep."""

import importlib.util
import sys
from pathlib import Path

from cifarsweep.terminal import streams
from cifarsweep.training import groups


def main() -> None:
    streams.prepare(work_goes_on=True)
    if "--help" in sys.argv[1:] or "-h" in sys.argv[1:]:
        groups.show_help(sys.argv[1:])
        return
    if importlib.util.find_spec("hydra_plugins.cifarsweep_study") is None:  # a checkout that was not installed
        sys.path.append(str(Path(__file__).resolve().parent / "sweeper"))
    from cifarsweep.training import command

    sys.exit(command.run(report=_report))


def _report(sweep_dir: Path) -> int:
    """Writes and shows the report of a sweep that had jobs. The exit code: a missing graph is a failure."""
    import logging

    from cifarsweep.results import sweeps

    sweeps.close_sweep(sweep_dir)
    if not sweeps.SweepRecord.read(sweep_dir).jobs:
        return 0
    from cifarsweep import report

    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # Hydra's console handler would show its font cache
    return report.main([str(sweep_dir)])


if __name__ == "__main__":
    main()
