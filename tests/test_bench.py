"""Each benchmark's small form: that it runs and says something. What it measures is never a pass or a failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

BENCHMARKS = {
    "throughput": ["--data", "shapes"],
    "sweep": ["--data", "shapes"],
    "overhead": [],
    "startup": ["--data", "shapes"],
    "report": [],
    "watch": [],
    "memory": ["--data", "shapes"],
    "scaling": ["--data", "shapes"],
    "asynchrony": [],
    "storage": [],
    "cluster": [],
    "seeds": ["--curves", "."],
    "trackers": ["--data", "shapes"],
    "recipes": ["--data", "shapes"],
    "replay": ["--curves", ".", "--peers", "random search", "optuna*"],
}
SETTINGS = "layers2,sgd,0.1,0.001,64,cosine"


def write_curves(file: Path) -> None:
    """Four configurations, in both halves, of which each is better than the one before."""
    lines = ["run,config,seed,model,optimizer,lr,weight_decay,batch_size,schedule,epoch,val_accuracy,seconds"]
    for number in range(4):
        run = f"{number:08x}0000"
        lines += [f"{run},{run},0,{SETTINGS},{epoch},{0.1 * number + 0.05 * epoch:.2f},5" for epoch in range(1, 9)]
    file.write_text("\n".join(lines) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_small_form_of_a_benchmark_prints_a_table_and_writes_it(
    name: str, tmp_path: Path, data_cache: Path
) -> None:
    if name == "memory" and not Path("/proc/self/smaps_rollup").exists():
        pytest.skip("this system does not tell what processes share")
    write_curves(tmp_path / "cifar10.csv")
    words = [*BENCHMARKS[name], "--small", "--json", str(tmp_path / "rows.json")]
    script = REPOSITORY / "tests" / "bench" / f"{name}.py"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "CIFARSWEEP_CACHE": str(data_cache)}
    environment.pop("OMP_NUM_THREADS", None)
    command = [sys.executable, str(script), *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "rows.json").read_text())
    assert written["benchmark"] == name
    assert written["machine"]["cores"] >= 1
    assert len(written["rows"]) >= 1
    assert " | ".join(written["rows"][0]) in done.stdout
