"""Which modules of report/ each of them may import.

Tables and search_results know no figures, statistics and style know no other module, figures know no page.
"""

from __future__ import annotations

import ast
from pathlib import Path

import cifarsweep.report

FOLDER = Path(cifarsweep.report.__file__).parent
KNOWS = {
    "confusion": "statistics style",
    "cost": "curves style tables",
    "curves": "style tables",
    "depth": "style tables",
    "depth_study": "search_results statistics",
    "depth_study_figures": "depth_study search_results statistics style",
    "depth_study_findings": "depth_study findings statistics style",
    "effects": "statistics style tables",
    "figures": "confusion cost curves depth depth_study depth_study_figures effects "
    "network pictures search_figures search_results style tables two_processes",
    "findings": "confusion depth effects pictures search_results statistics style tables",
    "network": "style",
    "page": "depth_study depth_study_findings effects figures findings style tables",
    "pictures": "style",
    "printed": "style tables",
    "report_command": "printed writing",
    "search_figures": "search_results style",
    "search_results": "",
    "statistics": "",
    "style": "",
    "tables": "statistics",
    "two_processes": "",
    "writing": "confusion depth_study depth_study_findings effects figures "
    "findings page pictures search_results tables",
}


def test_a_module_imports_only_its_own_layer_and_those_below() -> None:
    modules = {path.stem: path for path in FOLDER.glob("[!_]*.py")}
    assert modules.keys() == KNOWS.keys()
    for name, path in modules.items():
        imported: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "cifarsweep.report":
                imported |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cifarsweep.report."):
                imported.add(str(node.module).split(".")[2])
        assert imported <= set(KNOWS[name].split()), name
