"""The experiments on unknown scalars as a user runs them, in their smallest preset."""

import json
from pathlib import Path

import pytest

from tests.experiments.runs import smoke

ROOT = Path(__file__).parents[2]

# Rows, parameters, pictures, and how far the rows that are no network may be from the truth.
ROWS = {
    "fisher_kpp": ("guess", "least squares", "BiLO", "PINN(1)"),
    "particles": (
        "guess",
        "least squares",
        "most likely, by positions",
        "BiLO",
        "PINN(10000)",
    ),
    "scalar_poisson": ("guess", "least squares", "closed form", "BiLO", "PINN(1)"),
    "nonlinear_ode": ("guess", "least squares", "BiLO", "PINN(1)"),
}
PARAMETERS = {
    "fisher_kpp": {"D", "rho"},
    "particles": {"birth", "death"},
    "scalar_poisson": {"D"},
    "nonlinear_ode": {"a21"},
}
# Two sets of readings: five standard deviations of the mean square in units of the noise.
LOSS = {
    "fisher_kpp": (0.2, 2.0),
    "particles": (0.6, 1.4),
    "scalar_poisson": (0.2, 2.4),
    "nonlinear_ode": (0.4, 1.9),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ROWS))
def test_every_method_stands_beside_least_squares(name: str, tmp_path: Path):
    first = smoke(f"pde/{name}.py", tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["experiment"] == name
    rows = {row["method"]: row for row in metrics["rows"]}
    assert tuple(rows) == ROWS[name]
    for row in rows.values():
        assert set(row["estimates"]) == PARAMETERS[name]
        assert row["data_loss"] > 0.0
    exact = rows["least squares"]
    low, high = LOSS[name]
    assert low < exact["relative_data_loss"] + 1.0 < high
    assert set(exact["from_least_squares_most"].values()) == {0.0}
    assert rows["guess"]["data_loss"] > 2.0 * exact["data_loss"]
    for independent in ("closed form", "most likely, by positions"):
        if independent in rows:
            # Cells of a hundredth lose a few hundredths of a standard deviation.
            assert max(rows[independent]["from_least_squares_most"].values()) < 0.02
    images = {path.name for path in tmp_path.glob("*.png")}
    assert "estimates.png" in images
    assert any(image.startswith("operator_BiLO") for image in images)
    assert any(image.startswith("path_BiLO") for image in images)
    # A second run finds the table and computes nothing.
    again = smoke(f"pde/{name}.py", tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "-- " not in again.stdout
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics
