"""The calibration experiment as a user runs it, in its smallest preset."""

import json
from pathlib import Path

import pytest

from tests.experiments.runs import smoke

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_intervals_and_optima_are_scored(tmp_path: Path):
    first = smoke("calibration", tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["experiment"] == "calibration"
    rows = {row["method"]: row for row in metrics["rows"]}
    assert list(rows) == ["least_squares", "posterior", "tempering"]
    for row in rows.values():
        assert row["problem"] == "lotka_volterra"
        assert 0.0 < row["parameter_mse"] < row["prior_mean_mse"]
        assert row["seconds_per_case"] > 0.0
        assert row["coverage_50"] < row["coverage_90"] <= row["coverage_95"]
        assert 0.0 <= row["sbc_p_value"] <= 1.0
    # On the ridges of Lotka-Volterra parabolas hold about 70 %; standard error of 32 cases 6 %.
    assert 0.45 < rows["least_squares"]["coverage_90"] < 0.95
    assert sum(row["weight"] for row in metrics["several_optima"]["rows"]) > 0.9
    assert len(metrics["several_optima"]["rows"]) >= 2
    for word in ("NUTS", "tempering (SMC)", "90 %", "cycles in ten years"):
        assert word in first.stdout
    for image in ("calibration_lotka_volterra", "1_cycles_in_ten_years"):
        assert (tmp_path / f"{image}.png").stat().st_size > 10_000
    # A second run finds the table and computes nothing.
    again = smoke("calibration", tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "cases" not in again.stdout.partition("Calibration, preset")[0]
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
