"""Log-normal noise, against SciPy, and where a logarithm has no value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st

from inojax.noise import LogNormal
from tests.refuses import refuses

CLEAN = np.array([[1.0, 20.0], [3e-9, 5.0], [0.5, 1e12]])
READINGS = np.array([[0.7, 31.0], [5e-9, 4.0], [0.6, 9e11]])
SCALES = (0.5, 0.2)
THETA = np.zeros(1)


def test_density_is_scipys():
    mask = np.array([[True, True], [False, True], [True, True]])
    expected = np.where(mask, st.lognorm(SCALES, scale=CLEAN).logpdf(READINGS), 0.0).sum()
    with jax.enable_x64(True):
        actual = LogNormal(SCALES).log_prob(READINGS, CLEAN, THETA, mask)
    # A sum of terms of order 30, in float64.
    np.testing.assert_allclose(actual, expected, rtol=1e-13)


def test_residuals_are_relative():
    with jax.enable_x64(True):
        whitened = LogNormal(SCALES).whiten(READINGS, CLEAN, THETA)
        scale = LogNormal(SCALES).log_scale(CLEAN, THETA)
    np.testing.assert_allclose(whitened, np.log(READINGS / CLEAN) / SCALES, rtol=1e-12)
    np.testing.assert_allclose(scale, np.tile(np.log(SCALES), (3, 1)), rtol=1e-14)


def test_draws_are_positive_with_clean_values_as_medians(key):
    clean = jnp.full((20_000, 2), 3.0)
    drawn = np.asarray(LogNormal(SCALES).sample(clean, THETA, key=key))
    assert (drawn > 0.0).all()
    # Five standard deviations of the share below the median.
    assert np.abs((drawn < 3.0).mean(axis=0) - 0.5).max() < 5.0 * 0.5 / np.sqrt(20_000)


@pytest.mark.parametrize("place", ["reading", "clean value", "both"])
@pytest.mark.parametrize("value", [0.0, -1.0])
def test_what_is_not_positive_is_impossible(place, value):
    readings, clean = READINGS.copy(), CLEAN.copy()
    if place != "clean value":
        readings[1, 0] = value
    if place != "reading":
        clean[1, 0] = value
    sure = place == "both" and value == 0.0
    noise = LogNormal(("sigma", 0.2)).bound(("sigma",))
    with jax.enable_x64(True):

        def density(clean, theta):
            return noise.log_prob(readings, clean, theta)

        values = jnp.asarray(clean), jnp.ones(1)
        rest = noise.log_prob(*(np.delete(x, 1, axis=0) for x in (readings, clean)), values[1])
        # A prediction of zero gives a reading of zero and no other.
        expected = rest + st.lognorm(0.2, scale=5.0).logpdf(4.0) if sure else -np.inf
        np.testing.assert_allclose(density(*values), expected, rtol=1e-13)
        # An optimizer that steps there must find its way back.
        for gradient in jax.grad(density, (0, 1))(*values):
            assert np.isfinite(gradient).all()
        whitened = noise.whiten(readings, *values)
    whitened = np.asarray(whitened)
    assert whitened[1, 0] == (0.0 if sure else np.inf)
    assert np.isfinite(np.delete(np.ravel(whitened), 2)).all()


def test_a_failed_prediction_stays_visible():
    clean = CLEAN.copy()
    clean[1, 0] = np.nan
    assert np.isnan(LogNormal(0.5).log_prob(READINGS, clean, THETA))
    assert np.isnan(LogNormal(0.5).whiten(READINGS, clean, THETA)[1, 0])


def test_bad_scales_are_refused():
    with refuses(ValueError, "`scale` must be one finite number"):
        LogNormal(-1.0)
    with refuses(ValueError, "`log_prob` needs a positive `scale`.*`LogNormal`"):
        LogNormal(0.0).log_prob(READINGS, CLEAN, THETA)
    with refuses(ValueError, "`scale`.*2 channels.*3 numbers"):
        LogNormal((0.1, 0.2, 0.3)).whiten(READINGS, CLEAN, THETA)
