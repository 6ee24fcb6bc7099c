"""The experiment on Fisher-KPP as a user runs it, in its smallest preset."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(out: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [sys.executable, "-W", "error", "experiments/fisher_kpp.py", "--preset", "smoke"]
    return subprocess.run(
        [*command, "--out", str(out)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_every_method_stands_beside_least_squares(tmp_path: Path):
    first = run(tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["experiment"] == "fisher_kpp"
    rows = {row["method"]: row for row in metrics["rows"]}
    assert list(rows) == ["guess", "least squares", "BiLO", "PINN(1)"]
    for row in rows.values():
        assert set(row["estimates"]) == {"D", "rho"}
        assert row["data_loss"] > 0.0
    # Nine readings less two parameters, of noise 1e-3: the mean square of two sets.
    assert 0.2 < rows["least squares"]["data_loss"] / 1e-6 < 2.0
    assert rows["least squares"]["from_least_squares_most"] == {"D": 0.0, "rho": 0.0}
    assert rows["guess"]["data_loss"] > 1e3 * rows["least squares"]["data_loss"]
    for image in ("estimates", "operator_BiLO_0.001", "path_BiLO_0.001"):
        assert (tmp_path / f"{image}.png").stat().st_size > 10_000
    # A second run finds the table and computes nothing.
    again = run(tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "-- " not in again.stdout
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
