"""Errors and coverage against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from inojax.metrics import coverage, mean_absolute_error, mean_squared_error
from tests.refuses import refuses

RNG = np.random.default_rng(7)
TRUTH, ESTIMATE = RNG.uniform(size=(2, 40, 3))


def test_errors_are_numpys():
    # Sums of 120 numbers, float64.
    np.testing.assert_allclose(
        mean_squared_error(ESTIMATE, TRUTH), np.mean((ESTIMATE - TRUTH) ** 2), rtol=1e-14
    )
    np.testing.assert_allclose(
        mean_absolute_error(ESTIMATE, TRUTH), np.mean(np.abs(ESTIMATE - TRUTH)), rtol=1e-14
    )
    assert mean_squared_error(TRUTH, TRUTH) == mean_absolute_error(TRUTH, TRUTH) == 0.0
    assert isinstance(mean_squared_error(jnp.asarray(ESTIMATE), TRUTH), float)


def test_errors_are_summed_in_double_precision():
    small = jnp.full((4, 1), 1e-30, jnp.float32)
    # Squared in float32 it would vanish.
    np.testing.assert_allclose(mean_squared_error(small, 0.0 * small), 1e-60, rtol=1e-6)


def test_guessing_the_prior_mean_costs_what_the_docstring_says():
    z = np.random.default_rng(0).uniform(size=(100_000, 2))
    guess = np.full_like(z, 0.5)
    # Five standard errors: sqrt(1/180 / 2e5) and sqrt(1/48 / 2e5).
    assert abs(mean_squared_error(guess, z) - 1.0 / 12.0) < 5 * 1.7e-4
    assert abs(mean_absolute_error(guess, z) - 0.25) < 5 * 3.3e-4


def test_coverage_counts_each_parameter():
    truth = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0], [6.0, 7.0]])
    lower = truth - np.array([[0.0, 1.0], [-1.0, 1.0], [1.0, 1.0], [1.0, -1.0]])
    shares = coverage(lower, truth + 2.0, truth)
    np.testing.assert_array_equal(shares, [0.75, 0.75])
    np.testing.assert_array_equal(coverage(truth, truth, truth), [1.0, 1.0])
    np.testing.assert_array_equal(coverage(truth + np.nan, truth, truth), [0.0, 0.0])


@pytest.mark.parametrize("error", [mean_squared_error, mean_absolute_error])
def test_bad_shapes_of_errors_are_refused(error):
    with refuses(ValueError, r"`estimate` and `truth`.*\(40, 3\) and \(40, 2\)"):
        error(ESTIMATE, TRUTH[:, :2])
    with refuses(ValueError, "at least one case"):
        error(ESTIMATE[:0], TRUTH[:0])


def test_bad_shapes_of_coverage_are_refused():
    with refuses(ValueError, "`lower`, `upper` and `truth`"):
        coverage(TRUTH, TRUTH[:3], TRUTH)
    with refuses(ValueError, "at least one case"):
        coverage(TRUTH[:0], TRUTH[:0], TRUTH[:0])
