"""The benchmark of solvers as a user runs it, in its smallest preset."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(out: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return subprocess.run(
        [
            sys.executable,
            "experiments/benchmarks/solvers.py",
            "--preset",
            "smoke",
            "--out",
            str(out),
        ],
        cwd=ROOT,
        # Its preset compiles quickly; so shall the processes that it starts.
        env=os.environ | {"PYTHONPATH": paths, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_every_solver_is_measured_against_the_same_reference(tmp_path: Path):
    first = run(tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["experiment"] == "benchmark_solvers"
    rows = [row for row in metrics["rows"] if "scaling" not in row]
    assert {row["problem"] for row in rows} == {"robertson"}
    assert {row["method"] for row in rows} >= {
        "solve_ensemble",
        "solve_ensemble, global tolerance",
        "Diffrax Kvaerno5",
        "SciPy LSODA",
        "SciPy Radau",
    }
    for row in rows:
        assert row["milliseconds_per_trajectory"] > 0.0
        # At rtol 1e-5: a thousand times that would be another equation, not another solver.
        assert row["largest_relative_error"] < 2e-2, row
    assert (tmp_path / "work_precision.png").stat().st_size > 10_000
    fresh = metrics["fresh_processes"]
    assert fresh["stream"]["trajectories"] == 200
    cold, warm = (fresh[f"compilation cache {cache}"] for cache in ("empty", "filled"))
    # Compiling takes several times as long as reading what was compiled before.
    assert warm["first_seconds"] < cold["first_seconds"]
    assert not (tmp_path / "scratch").exists()
    # Without its table a second run goes on behind the last row, which is the last of all.
    (tmp_path / "metrics.json").unlink()
    again = run(tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "-- " not in again.stdout
    assert json.loads((tmp_path / "metrics.json").read_text())["rows"] == metrics["rows"]
