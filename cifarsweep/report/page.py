"""index.html: the report on one page that needs no other file. Knows what is shown where; the templates know how.

Every text from a result file goes through Jinja2's autoescape; the page's policy forbids any request and any script
but its own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cifarsweep.report import depth_study, depth_study_findings, effects, findings
from cifarsweep.report.depth_study import DepthStudy
from cifarsweep.report.figures import Material, of_models
from cifarsweep.report.findings import Best
from cifarsweep.report.style import count, span
from cifarsweep.report.tables import SETTINGS, Tables
from cifarsweep.results import files, sweeps
from cifarsweep.results.records import RunResult
from cifarsweep.terminal.formatting import shortened

TEMPLATES = Path(__file__).parent / "templates"
MOST_ROWS = 10_000
"""Runs in the page's table; runs.csv has all."""
MOST_SETTINGS = 6
MOST_COMPARISONS = 45
MOST_LOST = 50
MOST_LINKS = 5
UNRESERVED = " !$'()*+,/:;=?@[]^_`{|}~"
"""Characters that a data: address in double quotes keeps as they are."""
MOST_SVG = 300_000
"""Bytes of an SVG file from which on its PNG file is shown, where that is smaller."""
NUM_PAIRS = 10
STARTS = (["python", "-m", "cifarsweep"], ["cifarsweep"])
"""How a command line begins that trains a run."""
SPLITS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Shown:
    """A figure of the page."""

    source: str
    """A data: address."""
    sentence: str
    title: str
    files: list[str] = field(default_factory=list)
    """Names beside the page, PNG and SVG."""


@dataclass(frozen=True)
class Column:
    title: str
    cells: list[str]
    is_number: bool = False


def write(material: Material, figures: list[Path], sources: tuple[Path, ...], folder: Path) -> Path:
    """The page of a report in `folder` whose PNG files are `figures`, of the runs that `sources` stand for."""
    tables = material.tables
    confusion, whose = material.of_best or (None, "")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["name"] = findings.name
    environment.filters["unbroken"] = lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%")
    script = (TEMPLATES / "page.js").read_text(encoding="utf-8").strip()
    content = environment.get_template("index.html").render(
        **{**_answer(tables, sources), **_figures(material, figures), **_depth_study(material.depth, figures)},
        effects=[findings.effect_sentence(effect, material.effects) for effect in material.effects.effects],
        bests=[_best(one, tables, sources) for one in findings.best(tables)],
        confusion={"pairs": confusion.pairs(NUM_PAIRS) if confusion else [], "of": whose, "by": _chosen_by(tables)},
        table=_table(tables, folder),
        lost=_lost(tables, folder),
        measured=_measured(tables),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    path = folder / "index.html"
    with files.atomic(path) as file:
        file.write(content.encode("utf-8", "backslashreplace").decode())  # JSON can hold half a surrogate pair
    return path


# the answer


def _chosen_by(tables: Tables) -> str:
    """What the first best run was chosen by."""
    found = findings.best(tables)
    return "test" if found and pd.isna(found[0].configuration["val_accuracy_mean"]) else "validation"


def _answer(tables: Tables, sources: tuple[Path, ...]) -> dict[str, Any]:
    complete = int((tables.runs["status"] == "complete").sum())
    unfinished = int((tables.runs["status"] == "unfinished").sum())
    of_main = [one.data for one in findings.best(tables)][:1]
    compared = [one for data in of_main for one in findings.comparisons(tables, data)]
    return {
        "title": ", ".join(Path(os.path.abspath(source)).name for source in sources),
        "answers": findings.answers(tables),
        "complete": complete,
        "num_runs": len(tables.runs),
        "unfinished": unfinished,
        "comparisons": [_comparison(one, len(compared)) for one in compared[:MOST_COMPARISONS]],
        "num_comparisons": len(compared),
        "compared_on": of_main[0] if of_main and tables.runs["data"].nunique() > 1 else "",
    }


def _depth_study(depth: DepthStudy | None, figures: list[Path]) -> dict[str, Any]:
    """What a depth study has to say takes the place of the answer and of the models beside each other, as a model there
    is whichever of its widths was best. Searches that compare no depths have a section of their own, no more."""
    if depth is None or not any(one.by_seed for one in depth.studies):
        return {"depth_study": None}
    shown = depth_study_findings.sentences(depth)
    drawn = {path.stem: path for path in figures}
    instead = {
        "answers": depth_study_findings.answer(depth),
        "comparisons": [],
        "num_comparisons": 0,
        "depth_figures": [],
    }
    return {
        **(instead if depth.compares_depths else {}),
        "depth_study": {
            "compares_depths": depth.compares_depths,
            "protocol": depth_study_findings.protocol(depth),
            "rows": depth_study_findings.rows(depth),
            "pairs": depth_study_findings.pair_rows(depth),
            "figures": [
                Shown(_data_address(drawn[stem]), sentence, stem, [f"{stem}.png", f"{stem}.svg"])
                for stem, sentence in shown.items()
                if stem in drawn
            ],
            "files": depth_study.FILES,
            "unreadable": depth.unreadable,
        },
    }


def _comparison(one: Any, num_pairs: int) -> dict[str, str]:
    known = one.n >= 2
    points = findings.points
    return {
        "pair": f"{findings.name(one.second)} − {findings.name(one.first)}",
        "n": str(one.n),
        "difference": points(one.difference, signed=True) if one.n else "",
        "interval": f"{points(one.low)} to {points(one.high)}" if known else "none",
        "effect_size": f"{one.effect_size:.2f}".replace("-", "−").replace("inf", "∞") if known else "",
        "p": findings.p_text(one.p) if known else "",
        "p_corrected": findings.p_text(one.p_corrected) if known else "",
        "verdict": {
            "unknown": "not enough runs to say",
            "tie": "tie",
            "higher": f"{findings.name(one.second)} is better",
            "lower": f"{findings.name(one.first)} is better",
        }[one.verdict],
    }


def _best(found: Best, tables: Tables, sources: tuple[Path, ...]) -> dict[str, Any]:
    run = found.runs.iloc[0]
    row = found.configuration
    settings = {
        "model": row["label"],
        "parameters": "" if pd.isna(row["params"]) else f"{int(row['params']):,}",
        **{key.replace("_", " "): _text(row[key]) for key in SETTINGS},
        **{key: _text(row[key]) for key in tables.settings},
    }
    seeds = sorted(int(seed) for seed in found.runs["seed"].dropna())
    run_dir = tables.directories[run["run_id"]]
    return {
        "data": found.data,
        "sentence": findings.best_sentence(found),
        "settings": {key: value for key, value in settings.items() if value},
        "command": _command(run_dir, sources),
        "seed": _text(run["seed"]),
        "other_seeds": ", ".join(str(seed) for seed in seeds if seed != run["seed"]),
        "config": _config(run_dir),
    }


def _command(run_dir: Path, sources: tuple[Path, ...]) -> str | None:
    """What trains this run: the job of a sweep that has it, else the command that it was started with."""
    for sweep_dir in [*sources, *sorted((run_dir.parent.parent / "sweeps").glob("*"))]:
        overrides = _overrides(sweep_dir, run_dir.name)
        if overrides is not None:
            return shlex.join(["python", "-m", "cifarsweep", *overrides])
    try:
        result = RunResult.read(run_dir)
    except (OSError, ValueError):
        return None
    words = result and result.command_line
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        return None
    started = next((start for start in STARTS if words[: len(start)] == start), None)
    if started is None or {"-m", "--multirun"} & set(words[len(started) :]):
        return None
    return shlex.join(words)


def _overrides(sweep_dir: Path, run: str) -> list[str] | None:
    """Of the job that this run answers; without what makes it a part of its sweep."""
    try:
        jobs = sweeps.SweepRecord.read(sweep_dir).jobs.values()
    except (OSError, ValueError):
        return None
    job = next((job for job in jobs if job.run == run), None)
    overrides = job.overrides if job else None
    if not isinstance(overrides, list):
        return None
    return [str(word) for word in overrides if not str(word).startswith(("search=", "hydra", "name="))]


def _config(run_dir: Path) -> str:
    try:
        return (run_dir / "config.yaml").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


# figures


def _figures(material: Material, figures: list[Path]) -> dict[str, list[Shown]]:
    """The figures of each section, of those that were drawn."""
    drawn = {path.stem: path for path in figures}
    sentences = _sentences(material)
    models, networks = (_stems(material.tables, what) for what in ("accuracy", "network"))

    def shown(*stems: str) -> list[Shown]:
        found = [(drawn[stem], sentences[stem]) for stem in stems if stem in drawn]
        return [
            Shown(_data_address(path), sentence, path.stem, [path.name, f"{path.stem}.svg"]) for path, sentence in found
        ]

    return {
        "depth_figures": shown("depth_vs_accuracy", "parameters_vs_accuracy", "seconds_vs_accuracy"),
        "curve_figures": shown("learning_curves"),
        "model_figures": shown(*models),
        "setting_figures": shown("settings", "lr_by_batch_size"),
        "search_figures": shown("parameter_importance", "optimization_history", "pareto", "slices"),
        "confusion_figures": shown("confusion", "class_accuracy"),
        "confused_figures": shown("confused"),
        "image_figures": shown("classes", "augmentation"),
        "network_figures": shown(*networks),
    }


def _stems(tables: Tables, what: str) -> dict[str, str]:
    """The labels of models by the stem of their figure."""
    return {Path(name).stem: label for label, name in of_models(tables, what).items()}


def _sentences(material: Material) -> dict[str, str]:
    """What each figure shows, by its stem; of the settings the page has a list."""
    tables, study, pictures = material.tables, material.study, material.pictures
    confusion = material.of_best[0] if material.of_best else None
    interaction = effects.interaction(material.effects)
    models, networks = (_stems(tables, what).items() for what in ("accuracy", "network"))
    return {
        "depth_vs_accuracy": findings.depth_sentence(tables),
        "parameters_vs_accuracy": findings.cost_sentence(tables, "params"),
        "seconds_vs_accuracy": findings.cost_sentence(tables, "train_seconds_mean"),
        "learning_curves": findings.curve_sentence(tables),
        **{stem: findings.curve_sentence(tables, label) for stem, label in models},
        "settings": f"Each point is the mean over the runs with that value{_of_models(material.effects)}.",
        "lr_by_batch_size": findings.interaction_sentence(interaction) if interaction else "",
        "parameter_importance": findings.importance_sentence(study) if study else "",
        "optimization_history": findings.history_sentence(study) if study else "",
        "pareto": findings.pareto_sentence(study) if study else "",
        "slices": findings.slices_sentence(study) if study else "",
        "confusion": findings.confusion_sentence(confusion) if confusion else "",
        "class_accuracy": findings.class_sentence(confusion) if confusion else "",
        "confused": findings.confused_sentence(confusion) if confusion else "",
        "classes": findings.classes_sentence(pictures) if pictures else "",
        "augmentation": findings.augmentation_sentence(pictures) if pictures else "",
        **{stem: findings.network_sentence(label, material.networks[label]) for stem, label in networks},
    }


def _of_models(found: effects.Effects) -> str:
    return "; a colour is a model" if len(found.labels) <= effects.MOST_COLOURS else ", whatever their model"


def _data_address(path: Path) -> str:
    """The SVG beside the figure, or the PNG where the SVG is large."""
    svg, png = (path.with_suffix(suffix).read_bytes() for suffix in (".svg", ".png"))
    if len(svg) > MOST_SVG and len(png) < len(svg):
        return f"data:image/png;base64,{base64.b64encode(png).decode()}"
    if b";base64," in svg:  # images, which base64 would make a third longer once more
        return f"data:image/svg+xml,{quote(svg, safe=UNRESERVED)}"
    return f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"


# the table of runs


def _table(tables: Tables, folder: Path) -> dict[str, Any]:
    """The runs, best first, without the columns that say the same of each; those are `constant`."""
    table = tables.runs
    key = "val_accuracy" if table["val_accuracy"].notna().any() else "test_accuracy"
    order = table.assign(lost=table["status"] != "complete").sort_values(
        ["lost", key], ascending=[True, False], kind="stable", na_position="last"
    )
    rows = order[:MOST_ROWS]
    settings = effects.independent(table, tables.settings)
    columns = [_column(rows, *column) for column in _columns(settings)]
    varying = [column for column in columns if len(set(column.cells)) > 1 or column.title in ("model", "status")]
    links = [_link(tables.directories[id], folder) for id in rows["run_id"]]
    return {
        "by": key.removesuffix("_accuracy").replace("val", "validation"),
        "columns": varying,
        "number_selector": ", ".join(
            f"#table td:nth-child({at})" for at, column in enumerate(varying, 1) if column.is_number
        )
        or "#none",
        "constant": {
            column.title: column.cells[0]
            for column in columns
            if column not in varying and column.cells and column.cells[0]
        },
        "rows": list(zip(links, zip(*(column.cells for column in varying), strict=True), strict=True)),
        "left_out": len(table) - len(rows),
        "settings_left_out": settings[MOST_SETTINGS:],
    }


def _columns(settings: list[str]) -> Iterator[tuple[str, str, str]]:
    """Title, column of the runs and kind of each column; what was measured stands first, as settings may be many."""
    yield from (("data", "data", "text"), ("model", "label", "text"), ("status", "status", "text"))
    yield from (("val %", "val_accuracy", "percent"), ("test %", "test_accuracy", "percent"))
    yield from (("train %", "train_accuracy", "percent"), ("seconds", "train_seconds", "seconds"))
    yield from (("optimizer", "optimizer", "text"), ("lr", "lr", "number"), ("batch size", "batch_size", "number"))
    yield from (("schedule", "schedule", "text"), ("loss", "loss", "text"), ("epochs", "epochs", "number"))
    yield from ((key, key, "text") for key in settings[:MOST_SETTINGS])
    yield from (("seed", "seed", "number"), ("parameters", "params", "number"))


def _column(rows: pd.DataFrame, title: str, key: str, kind: str) -> Column:
    show: Callable[[Any], str] = {
        "text": lambda value: shortened(_text(value), 40),
        "number": _text,
        "percent": lambda value: "" if pd.isna(value) else f"{100 * value:.2f}",
        "seconds": lambda value: "" if pd.isna(value) else f"{value:.1f}",
    }[kind]
    cells = [show(value) for value in rows[key]]
    return Column(title, cells, kind != "text" or all(_is_number(cell) for cell in cells if cell))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
    reasons = [_reason(*cause) for cause in zip(lost["status"], lost["diverged_epoch"], lost["error"], strict=True)]
    ids = defaultdict(list)
    for cause, id in zip(zip(lost["status"], reasons, strict=True), lost["run_id"], strict=True):
        ids[cause].append(id)
    groups = [
        {"status": status, "reason": reason, "number": len(of_cause), "links": _links(of_cause, tables, folder)}
        for (status, reason), of_cause in sorted(ids.items(), key=lambda item: -len(item[1]))
    ]
    jobs = Counter(shortened(reason, 300) for reason in tables.jobs_without_run)
    return {
        "groups": groups[:MOST_LOST],
        "groups_left_out": max(0, len(groups) - MOST_LOST),
        "jobs": jobs.most_common(MOST_LOST),
        "unreadable": [shortened(line, 300) for line in tables.unreadable[:MOST_LOST]],
        "unreadable_left_out": max(0, len(tables.unreadable) - MOST_LOST),
    }


def _links(ids: list[str], tables: Tables, folder: Path) -> list[tuple[str, str | None]]:
    """Name and log of the first of these runs."""
    found = [tables.directories[id] for id in ids[:MOST_LINKS]]
    return [(run_dir.name, _link(run_dir, folder)) for run_dir in found]


def _reason(status: str, diverged_epoch: Any, error: Any) -> str:
    if status == "diverged":
        return "the loss stopped being finite" + ("" if pd.isna(diverged_epoch) else f" in epoch {diverged_epoch}")
    if isinstance(error, str) and error.strip():
        return shortened(error.strip().splitlines()[0], 300)
    return {
        "pruned": "stopped early, as it fell behind others of the search",
        "unfinished": "still running, or interrupted",
    }.get(status, "no reason was recorded")


# how it was measured


def _measured(tables: Tables) -> dict[str, Any]:
    table = tables.runs
    splits = []
    for data, group in table.groupby("data"):
        sizes = [span(group[f"num_{which}"], f"{noun} image") for which, noun in SPLITS.items()]
        splits.append(f"{findings.name(str(data))}: {', '.join(size for size in sizes if size)}")
    machines = [(_machine(text), number) for text, number in tables.provenance.most_common(MOST_LINKS)]
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


def _machine(provenance: str) -> str:
    """Processor, versions and commit of a `provenance`, whatever it holds."""
    found = json.loads(provenance)
    if not isinstance(found, Mapping):
        return ""
    versions = found.get("versions")
    listed = [f"{key} {value}" for key, value in versions.items() if value] if isinstance(versions, Mapping) else []
    cores = f"{found['cores']} cores" if found.get("cores") else ""
    commit = f"commit {str(found['git_commit'])[:12]}" if found.get("git_commit") else ""
    changed = "with uncommitted changes" if found.get("git_dirty") else ""
    parts = [found.get("cpu"), cores, found.get("platform"), *listed, f"{commit} {changed}".strip()]
    return shortened(", ".join(str(part) for part in parts if part), 400)
