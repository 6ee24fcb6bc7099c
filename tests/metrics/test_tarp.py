"""Tests of accuracy with random points against closed forms."""

import numpy as np
import pytest
import scipy.stats

from inojax.metrics import sbc_ranks, tarp
from tests.metrics.posteriors import posteriors
from tests.refuses import refuses

Z = scipy.stats.norm.ppf(np.round(0.05 * np.arange(1, 20), 2))


def in_one_dimension(**changes):
    """So narrow that the reference point is beside the whole posterior, not inside."""
    return posteriors(4000, size=1, spread=1e-3, **changes)


def test_calibrated_samples_pass(key):
    result = tarp(*posteriors(4000, size=5), key=key)
    # 4.5 standard errors at the worst of 19 levels.
    assert (np.abs(result.coverage - result.levels) < 4.5 * result.standard_error).all()
    assert result.p_value > 0.01
    assert result.largest_deviation < 0.03
    assert result.cases == 4000
    np.testing.assert_allclose(result.levels, np.linspace(0.05, 0.95, 19))


def test_p_values_of_calibrated_samples_are_uniform(key):
    """Also with three samples of each case, whose plain shares have four values only."""
    p_values = [tarp(*posteriors(200, 3, seed=seed), key=key).p_value for seed in range(300)]
    for level in (0.1, 0.5):
        # Four standard errors of 300 trials.
        room = 4.0 * np.sqrt(level * (1.0 - level) / 300)
        assert abs(np.mean(np.array(p_values) < level) - level) < room


@pytest.mark.parametrize("scale", [1.0 / 3.0, 2.0])
def test_wrong_spread_is_measured(scale, key):
    """On a line the share is Φ(x / scale) for normal x, from either side."""
    result = tarp(*in_one_dimension(scale=scale), key=key)
    # Four standard errors of 4,000 cases; 99 samples blur the share by 0.01 at most.
    np.testing.assert_allclose(result.coverage, scipy.stats.norm.cdf(scale * Z), atol=0.042)
    assert result.p_value < 1e-6
    assert np.sign(result.coverage[1] - 0.1) == (1.0 if scale < 1.0 else -1.0)
    at_levels = np.max(np.abs(result.coverage - result.levels))
    assert at_levels <= result.largest_deviation < at_levels + 0.05


def test_a_bias_is_measured(key):
    """From one side the truth looks too near, from the other too far; both are equally likely."""
    result = tarp(*in_one_dimension(shift=1.0), key=key)
    expected = 0.5 * (scipy.stats.norm.cdf(Z + 1.0) + scipy.stats.norm.cdf(Z - 1.0))
    # As above.
    np.testing.assert_allclose(result.coverage, expected, atol=0.042)
    assert result.p_value < 1e-6


def test_wrong_correlations_are_seen_from_a_corner(key):
    """Where ranks of single parameters cannot see them."""
    samples, truth = posteriors(4000, correlation=0.9)
    assert sbc_ranks(samples, truth, key=key).p_value > 1e-3
    result = tarp(samples, truth, references=np.zeros_like(truth), key=key)
    assert result.p_value < 1e-6
    # Along the diagonal the truth spreads by √1.8 of what the samples say: overconfident.
    assert result.coverage[1] > 0.1 + 4.0 * result.standard_error[1]
    assert result.coverage[-2] < 0.9 - 4.0 * result.standard_error[-2]
    right = posteriors(4000)
    assert tarp(*right, references=np.zeros_like(truth), key=key).p_value > 1e-3


def test_units_do_not_matter(key):
    samples, truth = posteriors(500)
    scale, offset = np.array([1e6, 1e-3]), np.array([-2e6, 7.0])
    result = tarp(samples, truth, key=key)
    other = tarp(
        offset + scale * samples, offset + scale * truth, box=(offset, offset + scale), key=key
    )
    # Rounding may move a sample across the truth's distance, a rank of 100.
    np.testing.assert_allclose(other.coverage, result.coverage, atol=0.005)
    np.testing.assert_allclose(other.p_value, result.p_value, rtol=0.05)


def test_a_parameter_that_never_changes_does_no_harm(key):
    samples, truth = posteriors(500)
    samples, truth = (np.insert(x, 2, 0.5, axis=-1) for x in (samples, truth))
    assert tarp(samples, truth, key=key).p_value > 1e-3


def test_the_bootstrap_agrees_with_the_binomial_error(key):
    samples, truth = posteriors(500, 19)
    levels = [0.2, 0.5, 0.8]
    plain = tarp(samples, truth, levels=levels, key=key)
    again = tarp(samples, truth, levels=levels, bootstrap=200, key=key)
    # A standard deviation of 200 draws has a relative standard error of 5 %.
    np.testing.assert_allclose(again.standard_error, plain.standard_error, rtol=0.25)
    np.testing.assert_array_equal(again.coverage, plain.coverage)
    fixed = tarp(
        samples, truth, references=np.zeros_like(truth), levels=levels, bootstrap=200, key=key
    )
    np.testing.assert_allclose(fixed.standard_error, plain.standard_error, rtol=0.25)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"bootstrap": 1}, "`bootstrap` must be 0, or at least 2.*got 1"),
        ({"bootstrap": -5}, "`bootstrap` .*got -5"),
        ({"levels": [1.5]}, "`levels`.*between 0 and 1"),
        ({"references": np.zeros((20, 3))}, r"`references`.*\(20, 2\).*\(20, 3\)"),
        ({"references": np.full((20, 2), np.nan)}, "`references` must be finite"),
        ({"box": (0.0, 0.5)}, r"`truth` lies outside of `box` in \d+ of 20 cases"),
        ({"box": (1.0, 0.0)}, "`box` must be a pair"),
        ({"box": (0.0,)}, "`box` must be a pair"),
        ({"box": (np.zeros(3), np.ones(3))}, "`box` must be a pair.*2 parameters"),
        ({"box": (-np.inf, np.inf)}, "`box` must be a pair of finite"),
    ],
)
def test_bad_input_is_refused(changes, match, key):
    with refuses(ValueError, match):
        tarp(*posteriors(20, 9), key=key, **changes)


def test_bad_samples_are_refused(key):
    samples, truth = posteriors(20, 9)
    with refuses(ValueError, r"`samples` must have shape.*\(20, 9, 2\) and \(19, 2\)"):
        tarp(samples, truth[:19], key=key)
    samples[0] = np.nan
    with refuses(ValueError, "`samples` must be finite; 1 of 20"):
        tarp(samples, truth, key=key)
