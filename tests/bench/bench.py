"""What the benchmarks share: their options, the machine's name, interleaved medians, tables and JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
TOY = REPOSITORY / "tests" / "toy.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.getenv("PYTHONPATH")]))}
"""For processes in which `python -m cifarsweep` is the one of this checkout."""

Row = dict[str, Any]


def parser(doc: str | None, data: bool = False) -> argparse.ArgumentParser:
    """With --small and --json; with `data`, --data and --root as well."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--small", action="store_true", help="seconds instead of minutes: shows that it works, no more")
    made.add_argument("--json", type=Path, metavar="FILE", help="writes the rows of the table there as well")
    if data:
        made.add_argument("--data", choices=["cifar10", "shapes"], default="cifar10")
        default = os.environ.get("CIFARSWEEP_DATA", "~/.cache/cifarsweep")
        made.add_argument("--root", default=default, help="holds cifar-10-batches-py (default $CIFARSWEEP_DATA)")
    return made


def data_words(arguments: argparse.Namespace) -> list[str]:
    """Overrides that choose the data; 2,000 images of them where the benchmark is small."""
    if arguments.data == "cifar10":
        words = ["data=cifar10", f"data.root={Path(arguments.root).expanduser().absolute()}"]
        return [*words, "data.subset=2000"] if arguments.small else words
    num_train = ["data.num_train=2500", "data.num_test=500", "data.val_size=500"] if arguments.small else []
    return ["data=shapes", *num_train]


def cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def interleaved(contenders: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """The median of each, measured in turn, so that what else the machine does meets all of them."""
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, measure in contenders.items():
            measured[name].append(measure())
    return {name: statistics.median(values) for name, values in measured.items()}


def show(row: Row, first: bool) -> None:
    """A line of the table at once, as the next may take minutes; the names above the first."""
    if first:
        print(" | ".join(row))
    print(" | ".join(map(_text, row.values())), flush=True)


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.3g}" if value < 100 else f"{value:,.0f}"


def table(rows: Sequence[Row] | Any, arguments: argparse.Namespace) -> list[Row]:
    """Shows each row as it comes, then writes them all where --json says."""
    shown: list[Row] = []
    for row in rows:
        show(row, first=not shown or list(row) != list(shown[-1]))
        shown.append(row)
    if arguments.json:
        content = {"benchmark": Path(sys.argv[0]).stem, "command": sys.argv, "machine": machine(), "rows": shown}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return shown


def machine() -> dict[str, Any]:
    import torch

    return {
        "cpu": _cpu(),
        "cores": len(cores()),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "simd": torch.backends.cpu.get_cpu_capability(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
