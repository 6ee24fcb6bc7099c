"""Coverage curves where they are known in closed form."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from inojax.metrics import coverage, coverage_curve
from tests.metrics.posteriors import posteriors
from tests.refuses import refuses

LEVELS = np.array([0.1, 0.5, 0.8, 0.9])


def normal_coverage(levels, scale=1.0, shift=0.0):
    """Share of N(0, 1) in the central intervals of N(shift, scale²)."""
    z = scale * scipy.stats.norm.ppf(0.5 + 0.5 * levels)
    return scipy.stats.norm.cdf(shift + z) - scipy.stats.norm.cdf(shift - z)


@pytest.mark.parametrize("samples", [19, 99])
def test_calibrated_samples_lie_on_the_diagonal_however_few(samples):
    """Plain sample quantiles would miss: 19 samples cover 0.81 at the level 0.9."""
    curve = coverage_curve(*posteriors(8000, samples), levels=LEVELS)
    gap = curve.per_parameter - LEVELS[:, None]
    # The largest of eight deviates; 4 happens once in 2,000 seeds.
    assert (np.abs(gap) < 4.0 * curve.standard_error[:, None]).all()
    np.testing.assert_allclose(curve.standard_error, np.sqrt(LEVELS * (1.0 - LEVELS) / 8000))
    assert curve.cases == 8000


@pytest.mark.parametrize("scale", [1.0 / 3.0, 2.0])
def test_wrong_spread_is_measured(scale):
    curve = coverage_curve(*posteriors(samples=399, scale=scale), levels=LEVELS)
    expected = normal_coverage(LEVELS, scale)
    # 4,000 intervals: four standard errors are at most 0.032; 399 samples add less than 0.003.
    np.testing.assert_allclose(curve.overall, expected, atol=0.035)
    assert np.sign(curve.largest_deviation) == (1.0 if scale > 1.0 else -1.0)
    worst = np.max(np.abs(curve.overall - LEVELS))
    np.testing.assert_allclose(abs(curve.largest_deviation), worst)


def test_a_bias_shows_in_its_own_parameter():
    samples, truth = posteriors(samples=399, shift=np.array([1.0, 0.0]))
    curve = coverage_curve(samples, truth, levels=LEVELS)
    # 2,000 intervals: four standard errors are at most 0.045.
    np.testing.assert_allclose(
        curve.per_parameter[:, 0], normal_coverage(LEVELS, shift=1.0), atol=0.045
    )
    np.testing.assert_allclose(curve.per_parameter[:, 1], LEVELS, atol=0.045)
    np.testing.assert_array_equal(curve.overall, curve.per_parameter.mean(axis=1))


def test_the_ends_are_order_statistics():
    """Of 19 samples the 5th and the 15th hold the level 1/2: (15 - 5) / (19 + 1)."""
    samples, truth = posteriors(500, 19)
    ordered = np.sort(samples, axis=1)
    expected = coverage(ordered[:, 4], ordered[:, 14], truth)
    curve = coverage_curve(jnp.asarray(samples), truth, levels=[0.5])
    # Float32 moves an end across the truth hardly ever: one case in 500 at most.
    np.testing.assert_allclose(curve.per_parameter[0], expected, atol=0.0021)


def test_default_levels_are_those_of_figures():
    curve = coverage_curve(*posteriors(20, 39))
    np.testing.assert_allclose(curve.levels, np.linspace(0.05, 0.95, 19))


def test_bad_shapes_are_refused():
    samples, truth = posteriors(10, 39)
    with refuses(ValueError, r"`samples` must have shape.*\(10, 39, 2\) and \(9, 2\)"):
        coverage_curve(samples, truth[:9])
    with refuses(ValueError, r"`samples`.*\(10, 39\)"):
        coverage_curve(samples[..., 0], truth)
    with refuses(ValueError, "`samples` .*at least one"):
        coverage_curve(samples[:0], truth[:0])
    with refuses(ValueError, "`samples` .*at least one"):
        coverage_curve(samples[:, :0], truth)


def test_missing_values_are_refused():
    samples, truth = posteriors(10, 39)
    samples[[2, 5], 3, 1], truth[4, 0] = np.nan, np.inf
    with refuses(ValueError, "`samples` must be finite; 2 of 10 cases.*out of both"):
        coverage_curve(samples, truth)
    with refuses(ValueError, "`truth` must be finite; 1 of 10 cases"):
        coverage_curve(posteriors(10, 39)[0], truth)


@pytest.mark.parametrize("levels", [[], [0.5, 1.0], [0.0], [-0.1], [np.nan], 0.5, [[0.5]]])
def test_bad_levels_are_refused(levels):
    with refuses(ValueError, "`levels` must be a sequence of numbers between 0 and 1"):
        coverage_curve(*posteriors(10, 39), levels=levels)


def test_levels_beyond_the_samples_are_refused():
    with refuses(ValueError, "up to 0.95 need at least 39 samples.*has 38.*above 0.949"):
        coverage_curve(*posteriors(10, 38))
