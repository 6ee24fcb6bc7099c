"""The experiments on unknown functions as a user runs them, in their smallest preset."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from inojax.problems import heat
from tests.experiments.runs import smoke

ROOT = Path(__file__).parents[2]


METHODS = {
    "variable_poisson": ("minimizer(0.001)", "fixed point(0.001)", "BiLO(0.001)", "PINN(0.001/1)"),
    "heat": (
        "minimizer(noisy)",
        "fixed point(noisy)",
        "BiLO, noisy",
        "compromise(100), noisy",
        "PINN(100), noisy",
    ),
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
    minimizer, fixed, bilo, *_ = rows.values()
    largest, second, tolerance = KNOWN[name]
    assert abs(minimizer["linf"] / largest - 1.0) < tolerance
    assert abs(minimizer["l2"] / second - 1.0) < tolerance
    assert minimizer["u_error"] == 0.0
    # Where BiLO's steps end is no minimum.
    assert fixed["data_loss"] != pytest.approx(minimizer["data_loss"], rel=1e-3)
    assert len(bilo["published"]) == 4
    assert bilo["u_error"] < 1.0
    images = {path.name for path in tmp_path.glob("*.png")}
    assert any(image.startswith("functions_") for image in images)
    assert any(image.startswith("path_") for image in images)
    # A second run finds the table and computes nothing.
    again = smoke(name, tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "-- " not in again.stdout
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics


def test_the_compromise_of_readings_that_fulfill_the_equation_is_their_start(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    compromise = importlib.import_module("_heat_compromise").compromise
    problem, x = heat(), np.linspace(0.0, 1.0, 101)
    field = problem.model.fields[0]
    start = field.coefficients(lambda s: s * (1.0 - s) * (1.0 + s))
    readings = np.asarray(problem.model.solve(start).states)[:, 0]
    found = compromise(readings[None], x, 10.0, 1e-12)
    # The solver's start is linear between 65 nodes.
    np.testing.assert_allclose(found.start[0], x * (1.0 - x) * (1.0 + x), atol=2e-3)
    np.testing.assert_allclose(found.predicted[0], readings, atol=2e-5)
    # The larger the penalty, the flatter the start, at the equation's expense and the readings'.
    flat = compromise(readings[None], x, 10.0, 1.0)
    assert np.abs(flat.start).max() < 0.8 * np.abs(found.start).max()
    assert np.abs(flat.predicted - readings).max() > 1e-3
