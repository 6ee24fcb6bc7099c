"""The experiment on the neuron as a user runs it, in its smallest preset, and its searches."""

import json
from pathlib import Path

import jax.random as jr
import numpy as np
import pytest

import inojax as ij
from experiments.fitzhugh_nagumo import _many_starts
from tests.experiments.runs import smoke

ROOT = Path(__file__).parents[2]
FIGURES = (
    "accuracy", "sensitivity", "series", "joint", "covariances", "widths", "searches",
    "landscape", "limits",
)  # fmt: skip
SHARED = ("method", "simulations", "train_noise", "test_noise", "seeds", "median_ape", "r2")


@pytest.mark.slow
def test_every_table_has_its_rows(tmp_path: Path):
    first = smoke("fitzhugh_nagumo", tmp_path)
    assert first.returncode == 0, first.stderr[-3000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["experiment"] == "fitzhugh_nagumo"
    rows = metrics["rows"]
    assert {row["table"] for row in rows} == set("abcdefgh")
    for row in rows:
        if row["table"] != "f":
            assert all(name in row for name in SHARED), row
            assert len(row["r2"]) == (4 if row["table"] == "d" else 2)
            assert max(row["r2"]) < 1.0
    kinds = [(r["train_noise"], r["test_noise"]) for r in rows if r["table"] == "b"]
    assert kinds[:3] == [("clean", "clean"), ("clean", "noisy"), ("noisy", "noisy")]
    (limit,) = (row for row in rows if row["table"] == "h")
    # A thousand cases leave 1.1 and 0.7 % of the prior's variance; 32 scatter widely.
    assert min(limit["r2"]) > 0.9
    refined = next(row for row in rows if row["method"] == "network, refined")
    assert refined["seconds_per_case"] > 0.0
    for row in rows:
        if row["table"] == "f":
            assert row["parameters"] == 39_490
            np.testing.assert_allclose(
                row["seconds_scaled"], row["seconds"] * 1e6 / row["samples"], rtol=1e-9
            )
            assert 0.0 < row["share_of_peak"] < 1.0
    for name in FIGURES:
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    # A second run finds the table and computes nothing; another seed is another run.
    again = smoke("fitzhugh_nagumo", tmp_path)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "-- train" not in again.stdout
    refused = smoke("fitzhugh_nagumo", tmp_path, "--seed", "1")
    assert refused.returncode == 2
    assert "differs in: seed" in refused.stderr


@pytest.fixture
def posterior():
    neuron = ij.problems.fitzhugh_nagumo()
    deviation = np.array([0.3, 0.4])
    return _many_starts.Posterior(
        neuron.model, np.full(2, 0.4), deviation, np.full(2, -2.0), np.full(2, 2.0), 0.35, 0.8
    )


def test_what_is_searched_is_the_posterior_of_the_library(posterior):
    neuron = ij.problems.fitzhugh_nagumo()
    truth = np.array([0.4, 0.3])
    observation = neuron.simulate(truth, key=jr.key(1))
    x = np.array([[0.0, -0.25], [0.1, 0.2]])
    series = np.asarray(observation.values)[None, :, 0].repeat(2, axis=0)
    ours = posterior.value(x, series)
    library = [float(neuron.log_posterior(t, observation)) for t in posterior.theta(x)]
    # Constants cancel in the difference; the solver's tolerance is 1e-6 on squares of order 1e3.
    np.testing.assert_allclose(ours[1] - ours[0], library[0] - library[1], rtol=1e-3)
    value, gradient = posterior.value_and_gradient(x, series)
    np.testing.assert_allclose(value, ours, rtol=1e-3)
    step = 1e-4
    for index in range(2):
        shift = step * np.eye(2)[index]
        slope = (posterior.value(x + shift, series) - posterior.value(x - shift, series)) / 2 / step
        np.testing.assert_allclose(gradient[:, index], slope, rtol=2e-2)


class Bowl:
    """A quadratic with its least value at a known place, too steep for plain gradient steps."""

    low, high = np.full(2, -2.0), np.full(2, 2.0)
    matrix = np.array([[300.0, 40.0], [40.0, 7.0]])

    def value_and_gradient(self, x, series):
        away = x - series[:, :2]
        gradient = away @ self.matrix
        return 0.5 * np.sum(away * gradient, axis=1), gradient


def test_searches_find_the_least_value_and_count_ends():
    starts = np.random.default_rng(0).uniform(-2.0, 2.0, (6, 2))
    target = np.array([[0.5, -1.0], [-0.3, 0.2]]).repeat(3, axis=0)
    found = _many_starts.descend(Bowl(), starts, target)
    assert found.arrived.all()
    # A search ends where less than 1e-5 can be gained, and the flattest curvature is 1.6.
    np.testing.assert_allclose(found.x, target, atol=5e-3)
    groups = _many_starts.distinct(found.x, np.array([3.0, 2.0, 1.0, 0.0, 0.0, 0.0]))
    np.testing.assert_array_equal(groups, [1, 1, 1, 0, 0, 0])


def test_searches_go_along_the_bounds():
    """From everywhere to the one minimum within the bounds, which lies in a corner."""
    starts = np.random.default_rng(1).uniform(-2.0, 2.0, (12, 2))
    found = _many_starts.descend(Bowl(), starts, np.array([[3.0, 0.0]]).repeat(12, axis=0))
    assert found.arrived.all()
    np.testing.assert_allclose(found.x, 2.0)
    assert (_many_starts.distinct(found.x, found.value) == 0).all()


class Valley:
    """Rosenbrock's function: curved, one minimum at (1, 1)."""

    low, high = np.full(2, -2.5), np.array([2.5, 10.0])

    def value_and_gradient(self, x, series):
        a, b = x[:, 0], x[:, 1]
        across = b - a**2
        gradient = np.stack([-400.0 * a * across - 2.0 * (1.0 - a), 200.0 * across], axis=1)
        return 100.0 * across**2 + (1.0 - a) ** 2, gradient


def test_only_minima_count_as_arrived():
    starts = np.random.default_rng(2).uniform(-2.0, 2.0, (32, 2))
    found = _many_starts.descend(Valley(), starts, starts)
    assert found.arrived.mean() > 0.9
    # Less than 1e-5 to gain, and the flattest curvature at the minimum is 0.4.
    np.testing.assert_allclose(found.x[found.arrived], 1.0, atol=1e-2)
    ends = np.where(found.arrived, found.value, np.inf)
    assert (_many_starts.distinct(found.x, ends)[~found.arrived] == -1).all()
