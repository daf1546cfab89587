"""The command `python -m cifarsweep`: trains one configuration or sweeps over many, then reports on the sweep."""

import importlib.util
import os
import sys
from functools import partial
from pathlib import Path

from cifarsweep.results import provenance
from cifarsweep.terminal import boundary, streams
from cifarsweep.training import groups


@partial(boundary.command, work_goes_on=True)
def main() -> int:
    if "--help" in sys.argv[1:] or "-h" in sys.argv[1:]:
        groups.show_help(sys.argv[1:])
        return 0
    if "--version" in sys.argv[1:]:
        versions = {"cifarsweep": "", **provenance.provenance()["versions"]}
        streams.print_line(", ".join(f"{name} {version or 'not installed'}" for name, version in versions.items()))
        return 0
    plugins = importlib.util.find_spec("hydra_plugins")  # without which the next line would raise
    if not plugins or not importlib.util.find_spec("hydra_plugins.cifarsweep_engine"):  # a checkout, not installed
        sys.path.append(str(Path(__file__).resolve().parent / "sweeper"))
    if os.getcwd() not in sys.path and not sys.flags.safe_path:  # the console script finds what `python -m` finds
        sys.path.insert(0, os.getcwd())
    from cifarsweep.training import command

    return command.run(report=_report)


def _report(sweep_dir: Path) -> int:
    """Writes and shows the report of a sweep that had jobs. The exit code: a missing graph is a failure."""
    import logging

    from cifarsweep.results import sweeps

    sweeps.close_sweep(sweep_dir)
    if not sweeps.SweepRecord.read(sweep_dir).jobs:
        return 0
    from cifarsweep import report

    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # Hydra's console handler would show its font cache
    report.show(report.write(sweep_dir))
    return 0


if __name__ == "__main__":
    sys.exit(main())
