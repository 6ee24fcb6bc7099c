"""P-values of misfits that hold for what noise models draw."""

import numpy as np
import pytest
import scipy.stats

from inojax.noise import Gaussian, Poisson
from inojax.noise._misfit import deviance_moments, misfit_p_value


def deviance(counts, mean):
    ratio = np.maximum(counts, 1.0) / mean
    return 2.0 * (np.where(counts > 0, counts * np.log(ratio), 0.0) - counts + mean)


@pytest.mark.parametrize("mean", [1e-3, 0.1, 1.0, 2.0, 30.0, 99.0, 101.0, 400.0])
def test_moments_of_the_deviance_are_those_of_the_distribution(mean):
    counts = np.arange(3000.0)
    chance = scipy.stats.poisson(mean).pmf(counts)
    first = chance @ deviance(counts, mean)
    second = chance @ np.square(deviance(counts, mean)) - first**2
    np.testing.assert_allclose(deviance_moments(np.array([mean]))[:, 0], [first, second], rtol=1e-4)


@pytest.mark.parametrize(("mean", "size"), [(0.05, 400), (1.5, 1000), (40.0, 50)])
def test_true_rates_are_rejected_as_often_as_the_p_value_says(mean, size):
    """A plain chi-squared rejects two thirds of the sets of a thousand counts around 1.5."""
    counts = np.random.default_rng(0).poisson(mean, (4000, size, 1))
    chi2 = deviance(counts, mean).sum(axis=(1, 2))
    mask = np.ones(counts.shape, bool)
    p_value = misfit_p_value(Poisson(), chi2, np.full(counts.shape, mean), mask)
    # 40 of 4000 are expected, give or take six; the tail is not quite that of a chi-squared.
    assert 0.004 < np.mean(p_value < 0.01) < 0.02
    assert np.mean(p_value < 1e-3) < 0.004
    exposed = misfit_p_value(Poisson(2.0), chi2, np.full(counts.shape, mean / 2.0), mask)
    np.testing.assert_allclose(exposed, p_value)


def test_normal_noise_has_the_chi_squared_of_its_readings():
    mask = np.array([[True, False], [True, True]])
    p_value = misfit_p_value(Gaussian(0.1), 5.0, None, mask)
    np.testing.assert_allclose(p_value, scipy.stats.chi2.sf(5.0, 3))
    assert np.isnan(misfit_p_value(Gaussian(0.1), np.nan, None, mask))


def test_counts_that_must_be_zero_leave_nothing():
    mask, clean = np.ones((2, 1), bool), np.zeros((2, 1))
    assert misfit_p_value(Poisson(), 0.0, clean, mask) == 1.0
    assert misfit_p_value(Poisson(), np.inf, clean, mask) == 0.0
