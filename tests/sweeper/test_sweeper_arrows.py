"""Which modules of sweeper/ each of them may import.

Search is at the top; grid and local know neither studies nor Optuna's storages.
"""

from __future__ import annotations

from test_arrows import assert_modules_know_only

KNOWS = {
    "application": "settings space",
    "cluster": "",
    "constraints": "",
    "curve_gp": "constraints exclusions promotion space",
    "database": "",
    "estimate": "application jobs studies",
    "exclusions": "",
    "grid": "application cluster exclusions hydra_compat jobs overrides",
    "heartbeat": "",
    "hydra_compat": "",
    "jobs": "hydra_compat pickling",
    "journal": "",
    "local": "application jobs pickling",
    "monitor": "application promotion queue storage studies summary",
    "pickling": "",
    "promotion": "",
    "pruning": "",
    "queue": "exclusions promotion settings storage",
    "racing": "constraints",
    "search": "application cluster estimate exclusions hydra_compat jobs journal local monitor overrides promotion "
    "pruning queue settings space storage studies summary warm_start worker",
    "settings": "application constraints exclusions local promotion space",
    "overrides": "",
    "space": "exclusions overrides",
    "storage": "database journal",
    "studies": "constraints exclusions heartbeat promotion pruning queue settings space storage",
    "summary": "application constraints promotion pruning queue space studies",
    "warm_start": "application constraints jobs queue space studies",
    "worker": "application constraints exclusions heartbeat jobs local promotion pruning queue storage studies summary",
}


def test_a_module_imports_only_its_own_layer_and_those_below() -> None:
    assert_modules_know_only("sweeper", KNOWS)
