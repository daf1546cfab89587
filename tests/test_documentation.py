"""The README files: their tables name every key, file and column, their links lead somewhere, no sentence is long."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY

from cifarsweep.report import figures, page
from cifarsweep.results import records

FILES = sorted(
    path
    for folder in (".", "conf", "outputs", "cifarsweep/sweeper", "tests/bench", "tests/bench/curves")
    for path in (REPOSITORY / folder).glob("README.md")
)
MOST_WORDS = 35
"""Of a sentence, and of a table's cell."""


def blocks(text: str) -> Iterator[str]:
    """Paragraphs, list items and cells of tables, each in one line; without code blocks and headings."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    paragraph: list[str] = []
    for line in [*text.splitlines(), ""]:
        is_item = bool(re.match(r"\s*([-*]|\d+\.) ", line))
        if not line.strip() or is_item or line.startswith(("    ", "|", "#")):
            if paragraph:
                yield " ".join(paragraph)
            paragraph = []
        if line.startswith("|"):
            yield from (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        elif line.strip() and not line.startswith(("    ", "#")):
            paragraph.append(line.strip())


def sentences(text: str) -> Iterator[str]:
    """Code counts as one word, and a link as its text."""
    for block in blocks(text):
        plain = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "code", block))
        yield from re.split(r"(?<=[.!?])[)*\"]*\s+", plain)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_no_sentence_and_no_cell_of_a_table_is_long(path: Path) -> None:
    counts = {sentence: len(re.findall(r"[^\W_][^\s/]*", sentence)) for sentence in sentences(path.read_text())}
    assert {sentence: number for sentence, number in counts.items() if number > MOST_WORDS} == {}


def test_sentences_are_told_apart() -> None:
    text = "One, of `a. B c`.\nTwo\n- Three (see [x](y. Z)).\n\n```\nNo. No.\n```\n    no\n| four | five. Six |\n"
    assert list(sentences(text)) == ["One, of code.", "Two", "- Three (see [x]).", "four", "five.", "Six"]


def anchors(text: str) -> set[str]:
    """Those that GitHub makes of headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_to_a_file_and_its_heading(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if not link.startswith("https://"):
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target.read_text()), link


def tables(path: str, heading: str = "") -> dict[str, set[str]]:
    """What stands in backticks in the first column of each table, by the text before the table.

    Of the part of the file under that heading, or of all of it.
    """
    text = (REPOSITORY / path).read_text()
    if heading:
        text = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found: dict[str, set[str]] = {}
    before = ""
    for block in text.strip().split("\n\n"):
        if block.startswith("|"):
            rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in block.splitlines()[2:]]
            found[before] = {name for row in rows for name in re.findall(r"`([^`]+)`", row[0])}
        before = block
    return found


def keys(values: Any, prefix: str = "") -> Iterator[str]:
    """Without the keys of Hydra's own. `augment` is one value, which null replaces."""
    for key, value in values.items():
        if isinstance(value, dict) and key != "augment":
            yield from keys(value, f"{prefix}{key}.")
        elif not key.startswith("_") and key != "defaults":
            yield f"{prefix}{key}"


def test_the_table_of_options_has_each_file_of_conf() -> None:
    text = (REPOSITORY / "conf" / "README.md").read_text()
    listed: dict[str, list[str]] = {}
    group = ""
    for line in text.partition("## Groups and options")[2].partition("\n## ")[0].splitlines():
        if line.startswith("|") and not line.startswith(("| group", "|---")):
            _, name, options, *_ = line.split("|")
            group = name.strip(" `") or group
            listed.setdefault(group, []).extend(re.findall(r"`(\w+)`", options))
    there: dict[str, list[str]] = {}
    for path in (REPOSITORY / "conf").glob("*/*.yaml"):
        there.setdefault(path.parent.name, []).append(path.stem)
    assert {group: sorted(options) for group, options in listed.items()} == {
        group: sorted(options) for group, options in there.items()
    }


def test_the_table_of_keys_has_each_key_of_conf() -> None:
    there = {"batch_size", "seed", "name", "force", "outputs"}
    assert there < yaml.safe_load((REPOSITORY / "conf" / "config.yaml").read_text()).keys()
    for group in ("model", "optimizer", "schedule", "loss", "data", "trainer", "tracker"):
        for path in (REPOSITORY / "conf" / group).rglob("*.yaml"):
            there |= set(keys(yaml.safe_load(path.read_text()) or {}, f"{group}."))
    ((_, listed),) = tables("conf/README.md", "Keys").items()
    assert listed == there


def test_the_table_of_trackers_has_each() -> None:
    ((_, listed),) = tables("conf/README.md", "Trackers").items()
    assert listed == {path.stem for path in (REPOSITORY / "conf" / "tracker").glob("*.yaml")} - {"none"}


def test_the_engines_tables_have_each_key_sampler_and_pruner_and_the_defaults() -> None:
    conf = REPOSITORY / "cifarsweep" / "sweeper" / "conf" / "hydra" / "sweeper"
    ((_, listed),) = tables("cifarsweep/sweeper/README.md", "Keys of `hydra.sweeper`").items()
    there = yaml.safe_load((conf / "study.yaml").read_text())
    assert listed == set(keys(dict.fromkeys(there)))
    text = (REPOSITORY / "cifarsweep" / "sweeper" / "README.md").read_text()
    shown = re.findall(r"((?:`\w+`(?: \([^)]*\))?(?:, )?)+) \|", text.partition("## Keys of")[2].partition("\n## ")[0])
    defaults = {}
    for cell in shown:
        waiting: list[str] = []
        for name, default in re.findall(r"`(\w+)`(?: \(([^)]*)\))?", cell):
            waiting.append(name)
            if default:
                defaults |= dict.fromkeys(waiting, yaml.safe_load(default))
                waiting = []
    assert defaults == {key: there[key] for key in listed}
    samplers, pruners = tables("cifarsweep/sweeper/README.md", "Samplers and pruners").values()
    assert samplers == {path.stem for path in (conf / "sampler").glob("*.yaml")}
    assert pruners == {path.stem for path in (conf / "pruner").glob("*.yaml")}


def test_the_list_of_files_has_each_that_a_run_and_a_sweep_leave() -> None:
    text = (REPOSITORY / "outputs" / "README.md").read_text().partition("## Files")[2].partition("\n## ")[0]
    listed = set(re.findall(r"[\w]+\.(?:json|jsonl|csv|png|pt|yaml|log|journal|html)\b", text))
    own = {"result.json", "train.log", "trackers.json", records.CHECKPOINT}
    of_sweep = {"sweep.json", "jobs.jsonl", "multirun.yaml", "optimization_results.yaml", "index.html"}
    of_comparison = {"comparison.csv", "pairs.csv", "changes.csv"}
    of_search = {"study.journal", "study.json", "studies.json"}
    assert listed == {*records.FILES, *own, *of_sweep, *of_search, *of_comparison}


@pytest.mark.parametrize("name", ["runs", "summary", "epochs", "layers", "depth_study", "depth_study_pairs"])
def test_the_table_of_columns_has_each_column_of_a_report(name: str) -> None:
    """But for those of the settings, which every report has others of."""
    example = REPOSITORY / "outputs" / "example"
    place = {
        "layers": sorted((example / "runs").glob("layers3*"))[0],
        "depth_study": REPOSITORY / "outputs" / "depth_study",
        "depth_study_pairs": REPOSITORY / "outputs" / "depth_study",
    }.get(name, example / "sweeps" / "first" / "report")
    header = next(csv.reader((place / f"{name}.csv").read_text().splitlines()))
    (listed,) = (names for before, names in tables("outputs/README.md").items() if f"**`{name}.csv`**" in before)
    ends = [column for column in listed if column.startswith("_")]
    settings = {"data", "model", "depth", "params", "optimizer", "lr", "batch_size", "schedule", "loss", "epochs"}
    left_out = settings | {"config_id"} if name == "summary" else set()
    left_out |= {"optimizer", "optimizer.lr", "batch_size"} if name == "depth_study" else set()
    meant = (listed - set(ends)) | {
        f"{column.removesuffix('_mean')}{end}" for column in listed if column.endswith("accuracy_mean") for end in ends
    }
    assert set(header) - left_out <= meant
    assert listed - set(ends) <= set(header)


def test_the_table_of_figures_has_each_that_the_page_shows() -> None:
    (listed,) = (names for before, names in tables("outputs/README.md", "The report").items() if "PNG" in before)
    patterns = {pattern.replace("*", "<model>") for of_section in page.SECTIONS.values() for pattern in of_section}
    stems = set(figures.depth_study_figures.FIGURES)
    assert listed == (patterns - {"depth_study_<model>"}) | stems


def test_the_table_of_exported_models_has_each_format() -> None:
    from cifarsweep import export

    ((_, listed),) = tables("outputs/README.md", "Exported models").items()
    assert listed == set(export.FORMATS)


def test_the_table_of_benchmarks_has_each() -> None:
    (listed, *_) = tables("tests/bench/README.md").values()
    modules = {"bench.py", "peers.py", "surrogate.py", "event_loop.py"}  # what benchmarks share
    files = {path.name for path in (REPOSITORY / "tests" / "bench").glob("*.py")}
    assert {Path(name).name.split(" ")[0] for name in listed} == files - modules


def test_the_layout_has_each_folder_of_the_package() -> None:
    ((_, listed),) = tables_of_links("For those who change the project").items()
    folders = {path.parent for path in (REPOSITORY / "cifarsweep").glob("*/__init__.py")}
    known = {path.relative_to(REPOSITORY).as_posix() for path in folders} - {"cifarsweep/data"}
    assert known | {"cifarsweep", "conf", "outputs", "tests"} == listed


def tables_of_links(heading: str) -> dict[str, set[str]]:
    text = (REPOSITORY / "README.md").read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return {heading: set(re.findall(r"^\| \[[^]]*\]\(([^)]+)\) \|", text, re.MULTILINE))}
