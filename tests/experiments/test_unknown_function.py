"""The experiments on unknown functions as a user runs them, in their smallest preset."""

import json
from pathlib import Path

import pytest

from tests.experiments.runs import smoke

ROOT = Path(__file__).parents[2]


METHODS = {
    "variable_poisson": ("minimizer(0.001)", "fixed point(0.001)", "BiLO(0.001)", "PINN(0.001/1)"),
    "heat": ("minimizer(noisy)", "fixed point(noisy)", "BiLO, noisy", "PINN(100), noisy"),
}
# Independent computations of the regularized minimizer, over 20 and 5 other sets of noise: largest
# error and root mean square of the one, largest error and mean square of the other.
KNOWN = {"variable_poisson": (0.121, 0.0498, 0.05), "heat": (0.263, 7.5e-3, 0.15)}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_stands_beside_the_limits(name: str, tmp_path: Path):
    first = smoke(name, tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["experiment"] == name
    rows = {row["method"]: row for row in metrics["rows"]}
    assert tuple(rows) == METHODS[name]
    minimizer, fixed, bilo, _ = rows.values()
    largest, second, tolerance = KNOWN[name]
    assert abs(minimizer["linf"] / largest - 1.0) < tolerance
    assert abs(minimizer["l2"] / second - 1.0) < tolerance
    assert minimizer["u_error"] == 0.0
    # Where BiLO's steps end is no minimum.
    assert fixed["data_loss"] != pytest.approx(minimizer["data_loss"], rel=1e-3)
    assert len(bilo["published"]) == 4
    images = {path.name for path in tmp_path.glob("*.png")}
    assert any(image.startswith("functions_") for image in images)
    assert any(image.startswith("path_") for image in images)
    # A second run finds the table and computes nothing.
    again = smoke(name, tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "-- " not in again.stdout
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
