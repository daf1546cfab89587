"""index.html: the report on one page that needs no other file. Knows what is shown where; the templates know how.

Every text from a result file goes through Jinja2's autoescape; the page's policy forbids any request and any script
but its own.
"""

import base64
import contextlib
import hashlib
import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pandas.api.types import is_numeric_dtype

from cifarsweep.report import depth_study, depth_study_findings, effects, findings, page_data
from cifarsweep.report.answer import STARTS, Answers
from cifarsweep.report.depth_study import DepthStudy
from cifarsweep.report.figures import Drawing, Material
from cifarsweep.report.findings import Best
from cifarsweep.report.style import span
from cifarsweep.report.tables import SETTINGS, Tables
from cifarsweep.results import files, sweeps
from cifarsweep.results.records import RunResult
from cifarsweep.results.study_records import EARLY
from cifarsweep.terminal.formatting import count, shortened

TEMPLATES = Path(__file__).parent / "templates"
SCRIPTS = ("conditions", "runs", "axes", "figures", "table", "page")
MOST_RUNS = 10_000
"""That the page's script has; runs.csv has all."""
CHOSEN_LATER = ("train_accuracy", "params")
"""Columns that the table shows where a reader chooses them, so that it fits a window of 1280 pixels."""
STILL_ROWS = 100
"""Of the table on paper and without JavaScript."""
MEASURED = ["val_accuracy", "test_accuracy", "train_accuracy", "train_seconds"]
TITLES = {
    "label": "model", "val_accuracy": "val %", "test_accuracy": "test %", "train_accuracy": "train %",
    "train_seconds": "seconds", "params": "parameters",
}  # fmt: skip
"""Of columns that have another title than their name."""
MOST_SETTINGS = 6
MOST_COMPARISONS = 45
MOST_LOST = 50
MOST_LINKS = 5
UNRESERVED = " !$'()*+,/:;=?@[]^_`{|}~"
"""Characters that a data: address in double quotes keeps as they are."""
MOST_SVG = 300_000
"""Bytes. In place of a larger SVG file the PNG file is shown, where that is smaller."""
NUM_PAIRS = 10
SECTIONS = {
    "study_figures": ["depth_study", "depth_study_*"],
    "depth_figures": ["depth_vs_accuracy", "parameters_vs_accuracy", "seconds_vs_accuracy"],
    "curve_figures": ["learning_curves"],
    "model_figures": ["accuracy_*"],
    "setting_figures": ["settings", "lr_by_batch_size"],
    "search_figures": ["parameter_importance", "optimization_history", "pareto", "slices"],
    "confusion_figures": ["confusion", "class_accuracy"],
    "confused_figures": ["confused"],
    "image_figures": ["classes", "augmentation"],
    "network_figures": ["network_*"],
}
"""Patterns of the stems of the figures that each section may have, in their order: all that a report may hold."""
SPLITS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Column:
    key: str
    title: str
    cells: list[str]
    is_number: bool


def render(
    material: Material, answers: Answers, drawings: Sequence[Drawing], sources: tuple[Path, ...], folder: Path
) -> str:
    """The page of a report in `folder` with these figures in it, of the runs that `sources` stand for."""
    tables, bests, confusion = material.tables, material.bests, material.confusion
    by_test = bool(bests) and pd.isna(bests[0].configuration["val_accuracy_mean"])
    sections = {
        section: [each for pattern in patterns for each in drawings if fnmatchcase(each.stem, pattern)]
        for section, patterns in SECTIONS.items()
    }
    script = "\n".join((TEMPLATES / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS).strip()
    template = environment(folder).get_template("index.html")
    return template.render(
        **(_comparisons(tables, bests) | sections | _depth_study(material.depth)),
        title=", ".join(Path(os.path.abspath(source)).name for source in sources),
        outcome=findings.outcome(tables),
        answers=answers,
        unfinished=int((tables.runs["status"] == "unfinished").sum()),
        effects=[findings.effect_sentence(effect, material.effects) for effect in material.effects.effects],
        bests=[_best(best, tables, sources) for best in bests],
        best_of_search=findings.search_sentence(tables, material.study, bests),
        confused_pairs=confusion.pairs(NUM_PAIRS) if confusion else [],
        best_run=findings.whose(bests[0]) if bests else "",
        best_by="test" if by_test else "validation",
        **_table(tables, sources, folder),
        lost=_lost(tables, folder),
        measured=_measured(tables),
        library=page_data.packed_library(),
        script=script,
        script_hashes=" ".join(map(_hash, (script, page_data.library()))),
    )


def environment(folder: Path) -> Environment:
    """What the templates of pages in this folder know."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"name": findings.name, "count": count}
    made.filters["unbroken"] = lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%")
    made.filters["source"] = lambda drawing: _data_address(folder / drawing.name)
    return made


def _hash(script: str) -> str:
    """The script, as the page's policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


# models against each other


def _comparisons(tables: Tables, bests: list[Best]) -> dict[str, Any]:
    data = bests[0].data if bests else ""
    compared = findings.comparisons(tables, data)
    return {
        "comparisons": [findings.comparison_cells(comparison) for comparison in compared[:MOST_COMPARISONS]],
        "num_comparisons": len(compared),
        "compared_on": data if tables.runs["data"].nunique() > 1 else "",
    }


def _depth_study(depth: DepthStudy | None) -> dict[str, Any]:
    if depth is None or not any(study.by_seed for study in depth.studies):
        return {"depth_study": None}
    return {
        "depth_study": {
            "compares_depths": depth.compares_depths,
            "protocol": depth_study_findings.protocol(depth),
            "rows": depth_study_findings.rows(depth),
            "pairs": depth_study_findings.pair_rows(depth),
            "files": depth_study.FILES,
            "unreadable": depth.unreadable,
        },
    }


def _best(best: Best, tables: Tables, sources: tuple[Path, ...]) -> dict[str, Any]:
    run, row = best.runs.iloc[0], best.configuration
    settings = {
        "model": row["label"],
        "parameters": "" if pd.isna(row["params"]) else f"{int(row['params']):,}",
        **{_title(key): _text(row[key]) for key in [*SETTINGS, *tables.settings]},
    }
    seeds = sorted(int(seed) for seed in best.runs["seed"].dropna())
    run_dir = tables.directories[run["run_id"]]
    return {
        "data": best.data,
        "sentence": findings.best_sentence(best),
        "settings": {key: value for key, value in settings.items() if value},
        "command": _command(run_dir, sources),
        "seed": _text(run["seed"]),
        "other_seeds": ", ".join(str(seed) for seed in seeds if seed != run["seed"]),
        "config": files.read_text(run_dir / "config.yaml", files.MOST_YAML),
    }


def _command(run_dir: Path, sources: tuple[Path, ...]) -> str | None:
    """What trains this run: the job of a sweep that has it, else the command that it was started with."""
    if alone := sweeps.command_of(run_dir, sources):
        return shlex.join(alone)
    words = RunResult.read_or_unfinished(run_dir).command_line or []
    started = next((start for start in STARTS if words[: len(start)] == start), None)
    if started is None or {"-m", "--multirun"} & set(words[len(started) :]):
        return None
    return shlex.join(words)


# figures


def _data_address(path: Path) -> str:
    """The SVG beside the figure, or the PNG where the SVG is large."""
    svg, png = (files.read_bytes(path.with_suffix(suffix)) for suffix in (".svg", ".png"))
    if len(svg) > MOST_SVG and len(png) < len(svg):
        return f"data:image/png;base64,{base64.b64encode(png).decode()}"
    if b";base64," in svg:  # images, which base64 would make a third longer once more
        return f"data:image/svg+xml,{quote(svg, safe=UNRESERVED)}"
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


# the table of runs


def _table(tables: Tables, sources: tuple[Path, ...], folder: Path) -> dict[str, Any]:
    """The runs, best first: all for the script, and those that the page shows without it.

    The latter have no columns that say the same of each; those are `constant`.
    """
    table = tables.runs
    key = "val_accuracy" if table["val_accuracy"].notna().any() else "test_accuracy"
    order = table.assign(lost=table["status"] != "complete")
    order = order.sort_values(["lost", key], ascending=[True, False], kind="stable", na_position="last")
    of_script = order.drop(columns="lost")[:MOST_RUNS]
    settings = effects.independent(table, tables.settings)
    # What was measured comes before the settings, which may be many.
    keys = ["data", "label", "status", *MEASURED, *SETTINGS, *settings[:MOST_SETTINGS], "seed", "params"]
    titles = _headings([str(key) for key in of_script])
    columns = [_column(of_script[key], titles[key]) for key in keys]
    varying = [column for column in columns if len(set(column.cells)) > 1 or column.key in ("label", "status")]
    links = [_link(tables.directories[id], folder) for id in of_script["run_id"]]
    rows = zip(*(column.cells[:STILL_ROWS] for column in varying), strict=True)
    shown = [column.key.replace("label", "model") for column in varying if column.key not in CHOSEN_LATER]
    return {
        "runs_data": page_data.packed(page_data.runs(tables, of_script, titles, shown, links, _argument(sources[0]))),
        "table": {
            "by": key.removesuffix("_accuracy").replace("val", "validation"),
            "columns": varying,
            "constant": {
                _title(column.key): column.cells[0]
                for column in columns
                if column not in varying and column.cells and column.cells[0]
            },
            "rows": list(zip(links[:STILL_ROWS], rows, strict=True)),
            "more": len(of_script) > STILL_ROWS,
            "left_out": len(table) - len(of_script),
            "settings_left_out": settings[MOST_SETTINGS:],
        },
    }


def _argument(source: Path) -> str:
    """The source as a word of a command: by a short path where there is one."""
    path = os.path.relpath(source)
    return shlex.quote(str(source) if path.startswith(os.pardir) else path)


def _title(key: str) -> str:
    return TITLES.get(key, key if "." in key else key.replace("_", " "))


def _headings(keys: list[str]) -> dict[str, str]:
    """Titles over columns: without the group that a setting is in, where no other column is called so."""
    short = {key: TITLES.get(key, key.rpartition(".")[2].replace("_", " ")) for key in keys}
    numbers = Counter(short.values())
    return {key: title if numbers[title] == 1 else key for key, title in short.items()}


def _column(values: "pd.Series[Any]", title: str) -> Column:
    key, is_number = str(values.name), is_numeric_dtype(values)
    if key in MEASURED:
        factor, digits = (1, 1) if key == "train_seconds" else (100, 2)
        cells = ["" if pd.isna(value) else f"{factor * value:.{digits}f}" for value in values]
    else:
        cells = [_text(value) if is_number else shortened(_text(value), 40) for value in values]
    with contextlib.suppress(ValueError):
        list(map(float, filter(None, cells)))
        is_number = True
    return Column(key, title, cells, is_number)


def _text(value: Any) -> str:
    if isinstance(value, bool | str):
        return str(value)
    return "" if pd.isna(value) else f"{value:.4g}" if isinstance(value, float) else str(value)


def _link(run_dir: Path, folder: Path) -> str | None:
    """From the page to the run's log; None where it is not kept."""
    log = run_dir / "train.log"
    return quote(os.fsencode(Path(os.path.relpath(log, folder)).as_posix())) if log.exists() else None


# what became of the others


def _lost(tables: Tables, folder: Path) -> dict[str, Any]:
    """Runs that are not complete, by reason; and what could not be read or never became a run."""
    lost = tables.runs[tables.runs["status"] != "complete"]
    run_dirs = defaultdict(list)
    for id, status, *cause in lost[["run_id", "status", "diverged_epoch", "error"]].itertuples(index=False):
        run_dirs[status, _reason(status, *cause)].append(tables.directories[id])
    groups = [
        {
            "status": status,
            "reason": reason,
            "number": len(of_cause),
            "links": [(run_dir.name, _link(run_dir, folder)) for run_dir in of_cause[:MOST_LINKS]],
        }
        for (status, reason), of_cause in sorted(run_dirs.items(), key=lambda item: -len(item[1]))
    ]
    jobs = Counter(shortened(reason, 300) for reason in tables.jobs_without_run)
    return {
        "groups": groups[:MOST_LOST],
        "all_early": bool(lost["status"].isin(EARLY).all()) and not (tables.jobs_without_run or tables.unreadable),
        "groups_left_out": max(0, len(groups) - MOST_LOST),
        "jobs": jobs.most_common(MOST_LOST),
        "unreadable": [shortened(line, 300) for line in tables.unreadable[:MOST_LOST]],
        "unreadable_left_out": max(0, len(tables.unreadable) - MOST_LOST),
    }


def _reason(status: str, diverged_epoch: Any, error: Any) -> str:
    if status == "diverged":
        return "the loss stopped being finite" + ("" if pd.isna(diverged_epoch) else f" in epoch {diverged_epoch}")
    if isinstance(error, str) and error.strip():
        return shortened(error.strip().splitlines()[0], 300)
    return {
        "pruned": "stopped early by the search, as it fell behind other runs",
        "paused": "stopped early by the search, which goes on with it once it is among the best that came as far",
        "unfinished": "still running, or interrupted",
    }.get(status, "no reason was recorded")


# how it was measured


def _measured(tables: Tables) -> dict[str, Any]:
    table = tables.runs
    splits = []
    for data, group in table.groupby("data"):
        sizes = [span(group[f"num_{which}"], f"{noun} image") for which, noun in SPLITS.items()]
        splits.append(f"{findings.name(str(data))}: {', '.join(size for size in sizes if size)}")
    machines = Counter(map(_machine, tables.provenance)).most_common(MOST_LINKS)
    devices = Counter(zip(table["device"].fillna(""), table["threads"].fillna(0), strict=True))
    dates = table["started"].dropna()
    return {
        "splits": splits,
        "seeds": ", ".join(str(seed) for seed in sorted(table["seed"].dropna().unique())[:20]),
        "num_seeds": int(table["seed"].nunique()),
        "devices": [
            f"{findings.name(device)}, {count(int(threads), 'thread')} ({count(number, 'run')})"
            for (device, threads), number in devices.most_common(MOST_LINKS)
            if device
        ],
        "machines": [(text, count(number, "run")) for text, number in machines if text],
        "from": findings.name(min(dates)) if len(dates) else "",
        "to": findings.name(max(dates)) if len(dates) else "",
    }


def _machine(made_by: Mapping[str, Any]) -> str:
    """Processor, versions and commit of a provenance, whatever it holds."""
    versions = made_by.get("versions")
    known = {str(key): value for key, value in versions.items() if value} if isinstance(versions, Mapping) else {}
    cores = count(made_by["cores"], "core") if isinstance(made_by.get("cores"), int) else ""
    commit = f"commit {str(made_by['git_commit'])[:12]}" if made_by.get("git_commit") else ""
    changed = "with uncommitted changes" if made_by.get("git_dirty") else ""
    listed = [f"{key} {known[key]}" for key in sorted(known)]
    parts = [made_by.get("cpu"), cores, made_by.get("platform"), *listed, f"{commit} {changed}".strip()]
    return shortened(", ".join(str(part) for part in parts if part), 400)
