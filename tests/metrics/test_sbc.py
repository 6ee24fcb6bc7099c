"""Ranks of simulation-based calibration against closed forms."""

import jax.random as jr
import numpy as np
import pytest
import scipy.stats

from inojax.metrics import sbc_ranks
from tests.metrics.posteriors import posteriors
from tests.refuses import refuses


def test_ranks_are_counted(key):
    samples, truth = posteriors(30, 7)
    result = sbc_ranks(samples, truth, key=key)
    expected = [[int((samples[i, :, j] < truth[i, j]).sum()) for j in (0, 1)] for i in range(30)]
    np.testing.assert_array_equal(result.ranks, expected)
    assert result.samples == 7
    np.testing.assert_array_equal(result.counts.sum(axis=1), [30, 30])
    np.testing.assert_allclose(result.expected.sum(), 30.0)
    # 8 ranks in 4 bins of two: five bins would expect 30 / 8 < 5 in one of them.
    np.testing.assert_allclose(result.expected, 7.5)


def test_unequal_bins_have_their_own_expectation(key):
    """129 ranks do not divide into 20 equal bins; the test must not mistake that for a bias."""
    ranks = np.arange(129)
    samples = np.broadcast_to(np.arange(128.0)[None, :, None], (129 * 8, 128, 1))
    truth = np.repeat(ranks - 0.5, 8)[:, None]  # each rank exactly eight times
    result = sbc_ranks(samples, truth, key=key)
    assert len(result.expected) == 20
    np.testing.assert_allclose(result.counts[0], result.expected)
    np.testing.assert_allclose([result.p_value, *result.p_values], 1.0)
    np.testing.assert_allclose(result.shift, 0.0, atol=1e-12)
    np.testing.assert_allclose(result.dispersion, 1.0)


def test_ties_are_broken_at_random(key):
    result = sbc_ranks(np.zeros((4000, 9, 1)), np.zeros((4000, 1)), key=key)
    assert set(result.ranks.ravel()) == set(range(10))
    assert result.p_value > 1e-3
    again = sbc_ranks(np.zeros((4000, 9, 1)), np.zeros((4000, 1)), key=key)
    np.testing.assert_array_equal(again.ranks, result.ranks)
    other = sbc_ranks(np.zeros((4000, 9, 1)), np.zeros((4000, 1)), key=jr.key(0))
    assert not np.array_equal(other.ranks, result.ranks)


def test_p_values_of_calibrated_samples_are_uniform(key):
    results = [sbc_ranks(*posteriors(300, 19, seed=seed), key=key) for seed in range(300)]
    p_values = np.array([result.p_values for result in results]).ravel()
    for level in (0.1, 0.5):
        # Four standard errors of 600 trials.
        room = 4.0 * np.sqrt(level * (1.0 - level) / 600)
        assert abs(np.mean(p_values < level) - level) < room
    # Bonferroni's rule is conservative, but hardly so for two independent parameters.
    overall = np.array([result.p_value for result in results])
    assert 0.05 < np.mean(overall < 0.1) < 0.16


@pytest.mark.parametrize("scale", [1.0 / 3.0, 2.0])
def test_wrong_spread_shows_in_the_dispersion(scale, key):
    """Var Φ(a x) = arcsin(a² / (1 + a²)) / 2π for normal x, here with a = 1 / scale."""
    count = 99
    result = sbc_ranks(*posteriors(4000, count, scale=scale), key=key)
    variance = np.arcsin(1.0 / (1.0 + scale**2)) / (2.0 * np.pi)
    of_ranks = count**2 * variance + count * (0.25 - variance)
    expected = of_ranks / (((count + 1) ** 2 - 1) / 12.0)
    # A variance over 4,000 cases of bounded ranks: a relative standard error below 1.5 %.
    np.testing.assert_allclose(result.dispersion, expected, rtol=0.06)
    assert result.p_value < 1e-6
    # The standard error of a mean rank is at most 0.5 / √4000 = 0.008.
    np.testing.assert_allclose(result.shift, 0.0, atol=0.032)


def test_a_bias_shows_in_its_own_parameter(key):
    """E Φ(x - b) = Φ(-b / √2): samples too high put the truth too low."""
    result = sbc_ranks(*posteriors(4000, 99, shift=np.array([0.5, 0.0])), key=key)
    expected = scipy.stats.norm.cdf(-0.5 / np.sqrt(2.0)) - 0.5
    # Four standard errors.
    np.testing.assert_allclose(result.shift, [expected, 0.0], atol=0.02)
    assert result.p_values[0] < 1e-6
    assert result.p_values[1] > 1e-3
    np.testing.assert_allclose(result.p_value, 2.0 * result.p_values[0])


def test_too_few_cases_are_refused(key):
    samples, truth = posteriors(10, 99)
    assert len(sbc_ranks(samples, truth, key=key).expected) == 2
    with refuses(ValueError, "`truth` has 9 cases; at least 10"):
        sbc_ranks(samples[:9], truth[:9], key=key)
    with refuses(ValueError, "`truth` has 14 cases; at least 15"):
        sbc_ranks(*posteriors(14, 2), key=key)


def test_bad_input_is_refused(key):
    samples, truth = posteriors(20, 9)
    with refuses(ValueError, r"`samples` must have shape.*\(20, 9, 2\) and \(20, 1\)"):
        sbc_ranks(samples, truth[:, :1], key=key)
    truth[3] = np.nan
    with refuses(ValueError, "`truth` must be finite; 1 of 20"):
        sbc_ranks(samples, truth, key=key)
