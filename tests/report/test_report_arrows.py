"""Which modules of report/ each of them may import.

Tables and search_results know no figures, statistics and style know no other module, figures know no page.
"""

from __future__ import annotations

from test_arrows import assert_modules_know_only

KNOWS = {
    "answer": "depth_study depth_study_findings effects findings search_results statistics tables",
    "comparison": "findings statistics tables",
    "comparison_report": "comparison figures findings page statistics style tables",
    "confusion": "",
    "cost": "curves style tables",
    "curves": "style tables",
    "depth": "style tables",
    "depth_study": "search_results statistics",
    "depth_study_figures": "depth_study search_results statistics style",
    "depth_study_findings": "depth_study findings statistics style",
    "effects": "statistics style tables",
    "figures": "confusion cost curves depth depth_study depth_study_figures depth_study_findings effects findings "
    "network pictures search_figures search_results style tables two_processes",
    "findings": "confusion effects search_results statistics style tables",
    "live": "page",
    "network": "style",
    "page": "answer depth_study depth_study_findings effects figures findings page_data style tables",
    "page_data": "tables",
    "plain_matplotlib": "",
    "pictures": "confusion statistics style",
    "printed": "comparison_report findings style tables",
    "report_command": "comparison_report live plain_matplotlib printed writing",
    "search_figures": "search_results style",
    "search_results": "",
    "statistics": "",
    "style": "",
    "tables": "statistics",
    "two_processes": "",
    "writing": "answer confusion depth_study depth_study_findings effects figures "
    "findings page pictures search_results style tables",
}


def test_a_module_imports_only_its_own_layer_and_those_below() -> None:
    assert_modules_know_only("report", KNOWS)
