"""The experiments on unknown functions as a user runs them, in their smallest preset."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.polynomial import legendre

from experiments.pde._pinn_limit import DIFFUSIVITY, pinn_limit
from inojax.problems import heat
from inojax.problems._heat import DIFFUSION
from tests.experiments.runs import smoke

ROOT = Path(__file__).parents[2]


METHODS = {
    "variable_poisson": ("minimizer(0.001)", "fixed point(0.001)", "BiLO(0.001)", "PINN(0.001/1)"),
    "heat": (
        "minimizer(noisy)",
        "fixed point(noisy)",
        "BiLO, noisy",
        "PINN limit(100), noisy",
        "PINN(100), noisy",
    ),
}
# Independent computations of the regularized minimizer: largest error and root mean square over 20
# other sets of noise, largest error and mean square over the same sets, by modes in closed form.
KNOWN = {"variable_poisson": (0.121, 0.0498, 0.05), "heat": (0.2783, 8.93e-3, 0.02)}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(METHODS))
def test_every_method_stands_beside_the_limits(name: str, tmp_path: Path):
    first = smoke(f"pde/{name}.py", tmp_path)
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
    assert bilo["u_error"] < 0.1
    if name == "heat":
        pinn, limit = rows["PINN(100), noisy"], rows["PINN limit(100), noisy"]
        assert abs(pinn["linf"] / limit["linf"] - 1.0) < 0.2
    images = {path.name for path in tmp_path.glob("*.png")}
    assert any(image.startswith("functions_") for image in images)
    assert any(image.startswith("path_") for image in images)
    # A second run finds the table and computes nothing.
    again = smoke(f"pde/{name}.py", tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "-- " not in again.stdout
    assert json.loads((tmp_path / "metrics.json").read_text()) == metrics


def limit_of_polynomials(readings, places, weight, penalty, diffusivity):
    """The same by linear least squares, with u = f + x (1 - x) t N and f = x (1 - x) P."""
    nodes, shares = legendre.leggauss(50)
    nodes, shares = (nodes + 1.0) / 2.0, shares / 2.0

    def polynomials(x, count):
        unit, x = np.eye(count), 2.0 * x - 1.0
        slopes = (legendre.legder(unit, m) if m else unit for m in range(3))
        return [2.0**m * legendre.legval(x, c).T for m, c in enumerate(slopes)]

    def vanishing(x, count):
        p, dp, ddp = polynomials(x, count)
        q, dq = (x * (1.0 - x))[:, None], (1.0 - 2.0 * x)[:, None]
        return q * p, dq * p + q * dp, q * ddp + 2.0 * dq * dp - 2.0 * p

    (_, df, ddf), (n, _, ddn) = vanishing(nodes, 16), vanishing(nodes, 16)
    p, dp, _ = polynomials(nodes, 24)
    t, x = nodes[:, None], np.linspace(0.0, 1.0, len(readings))
    rest = np.kron(n, p + t * dp) - diffusivity * np.kron(ddn, t * p)
    residual = np.hstack([np.repeat(-diffusivity * ddf, len(nodes), axis=0), rest])
    seen = np.hstack(
        [vanishing(x, 16)[0], np.kron(vanishing(x, 16)[0], polynomials(np.ones(1), 24)[0])]
    )
    slopes = np.hstack([df, np.zeros((len(nodes), rest.shape[1]))])
    share = (weight / len(x)) ** 0.5
    rows = [
        np.sqrt(np.outer(shares, shares)).reshape(-1, 1) * residual,
        share * seen,
        np.sqrt(penalty * shares)[:, None] * slopes,
    ]
    target = np.concatenate([np.zeros(len(residual)), share * readings, np.zeros(len(nodes))])
    found = np.linalg.lstsq(np.vstack(rows), target, rcond=1e-13)[0]
    return vanishing(places, 16)[0] @ found[:16], seen @ found


def test_the_pinn_limit_is_the_minimum_over_polynomials():
    """Of smooth readings, from which high waves, that the polynomials lack, are absent."""
    x, places = np.linspace(0.0, 1.0, 201), np.linspace(0.0, 1.0, 51)
    readings = np.sin(np.pi * x) - 0.4 * np.sin(3.0 * np.pi * x)
    for weight, penalty in ((10.0, 1e-2), (1.0, 1e-2), (10.0, 1e-4)):
        found = pinn_limit(readings[None], places, weight, penalty)
        start, predicted = limit_of_polynomials(readings, places, weight, penalty, DIFFUSIVITY)
        np.testing.assert_allclose(found.start[0], start, atol=1e-3)
        np.testing.assert_allclose(found.predicted[0], predicted, atol=1e-3)
    assert DIFFUSIVITY == DIFFUSION


def test_the_pinn_limit_of_readings_that_fulfill_the_equation_is_their_start():
    problem, x = heat(), np.linspace(0.0, 1.0, 101)
    field = problem.model.fields[0]
    start = field.coefficients(lambda s: s * (1.0 - s) * (1.0 + s))
    readings = np.asarray(problem.model.solve(start).states)[:, 0]
    found = pinn_limit(readings[None], x, 10.0, 1e-12)
    # The solver's start is linear between 65 nodes.
    np.testing.assert_allclose(found.start[0], x * (1.0 - x) * (1.0 + x), atol=2e-3)
    np.testing.assert_allclose(found.predicted[0], readings, atol=2e-5)
    # The larger the penalty, the flatter the start, at the equation's expense and the readings'.
    flat = pinn_limit(readings[None], x, 10.0, 1.0)
    assert np.abs(flat.start).max() < 0.8 * np.abs(found.start).max()
    assert np.abs(flat.predicted - readings).max() > 1e-3
