"""Properties of every noise model: what it draws against the density it states."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats as st

from tests.helpers import NOISES
from tests.refuses import refuses

# For clean values of shape (4, 2) and these parameters.
TABLE = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
THETA = np.array([0.5, 1.5])
CLEAN = np.array([[1.0, 4.0], [2.0, 3.0], [0.5, 6.0], [1.5, 5.0]])
TIMES = np.array([0.0, 1.0, 1.5, 4.0])
DRAWS = 4000


@pytest.fixture
def readings(noise, key):
    with jax.enable_x64(True):
        keys = jr.split(key, DRAWS)
        clean, theta = jnp.asarray(CLEAN), jnp.asarray(THETA)
        draw = jax.vmap(lambda k: noise.sample(clean, theta, times=TIMES, key=k))
        return np.asarray(jax.jit(draw)(keys))


@TABLE
def test_density_integrates_to_one(noise, key):
    """Importance sampling of one reading at a time with a wide normal proposal."""
    with jax.enable_x64(True):
        mask = jnp.zeros(CLEAN.shape, bool).at[1, 1].set(True)
        spread = 5.0
        z = jr.normal(key, (20_000,), jnp.float64)

        def weight(z):
            proposed = jnp.asarray(CLEAN) + jnp.where(mask, spread * z, 0.0)
            proposal = -0.5 * z**2 - jnp.log(spread) - 0.5 * jnp.log(2 * jnp.pi)
            density = noise.log_prob(proposed, jnp.asarray(CLEAN), THETA, mask, times=TIMES)
            return jnp.exp(density - proposal)

        weights = jax.vmap(weight)(z)
        error = jnp.std(weights) / np.sqrt(len(z))
        # Five standard errors of the estimate itself.
        assert abs(jnp.mean(weights) - 1.0) < 5.0 * error


@TABLE
def test_score_has_mean_zero_under_its_own_samples(noise, readings):
    """E ∇ log p = 0 holds only if `sample` and `log_prob` are the same distribution."""
    with jax.enable_x64(True):
        clean = jnp.asarray(CLEAN)
        score = jax.vmap(jax.grad(lambda r: noise.log_prob(r, clean, THETA, times=TIMES)))
        scores = np.asarray(score(jnp.asarray(readings)))
        expected = np.asarray(scores * (readings - CLEAN)).mean(axis=0)
    # Five standard errors. By parts, E[score · residual] = -1, which fixes the scale as well.
    assert np.all(np.abs(scores.mean(0)) < 5.0 * scores.std(0) / np.sqrt(DRAWS))
    deviation = (scores * (readings - CLEAN)).std(0) / np.sqrt(DRAWS)
    assert np.all(np.abs(expected + 1.0) < 5.0 * deviation)


@TABLE
def test_whitened_residuals_are_standard(noise, readings):
    with jax.enable_x64(True):
        clean = jnp.asarray(CLEAN)
        whitened = jax.vmap(lambda r: noise.whiten(r, clean, THETA, times=TIMES))(readings)
    # Five standard errors: 1/√n of the mean, √(2/n) of the variance, 1/√n of a correlation.
    whitened = np.asarray(whitened).reshape(DRAWS, -1)
    assert np.abs(whitened.mean(0)).max() < 5.0 / np.sqrt(DRAWS)
    assert np.abs(whitened.var(0) - 1.0).max() < 5.0 * np.sqrt(2.0 / DRAWS)
    correlation = np.corrcoef(whitened.T) - np.eye(whitened.shape[1])
    assert np.abs(correlation).max() < 5.0 / np.sqrt(DRAWS)


@TABLE
def test_masked_readings_do_not_count(noise, readings):
    with jax.enable_x64(True):
        mask = np.ones(CLEAN.shape, bool)
        mask[2, 0] = False
        spoiled = readings[0].copy()
        spoiled[2, 0] = 1e30
        density = [
            noise.log_prob(r, jnp.asarray(CLEAN), THETA, mask, times=TIMES)
            for r in (readings[0], spoiled)
        ]
        assert density[0] == density[1]
        nan = jnp.asarray(CLEAN).at[2, 0].set(jnp.nan)
        gradient = jax.grad(
            lambda clean: noise.log_prob(readings[0], clean, THETA, mask, times=TIMES)
        )(nan)
        assert np.isfinite(gradient).all()
        nothing = np.zeros_like(mask)
        assert noise.log_prob(np.full_like(CLEAN, np.inf), nan, THETA, nothing, times=TIMES) == 0.0
        whitened = [
            np.where(mask, noise.whiten(r, CLEAN, THETA, mask, times=TIMES), 0.0)
            for r in (readings[0], spoiled)
        ]
        np.testing.assert_array_equal(*whitened)


@TABLE
@pytest.mark.parametrize("spoiled", [np.nan, np.inf, 0.0, -1.0])
def test_masked_predictions_reach_no_gradient(noise, readings, spoiled):
    mask = np.ones(CLEAN.shape, bool)
    mask[2, 0] = False
    with jax.enable_x64(True):

        def density(clean, theta):
            given = np.where(mask, readings[0], spoiled)
            return noise.log_prob(given, clean, theta, mask, times=TIMES)

        clean = jnp.asarray(np.where(mask, CLEAN, spoiled))
        value, gradients = jax.value_and_grad(density, (0, 1))(clean, jnp.asarray(THETA))
        assert value == noise.log_prob(readings[0], jnp.asarray(CLEAN), THETA, mask, times=TIMES)
        for gradient in gradients:
            assert np.isfinite(gradient).all()
        assert gradients[0][2, 0] == 0.0


@TABLE
def test_gradients_agree_with_finite_differences(noise, readings):
    h = 1e-5
    with jax.enable_x64(True):

        def along(h):
            # One direction through predictions and parameters together.
            clean = CLEAN * (1.0 + h * np.cos(np.arange(8.0)).reshape(4, 2))
            theta = THETA * (1.0 + h * np.array([1.0, -0.7]))
            return noise.log_prob(readings[0], clean, theta, times=TIMES)

        numeric = (along(h) - along(-h)) / (2.0 * h)
        # h² times third derivatives of order 100, and rounding 1e-14 / h.
        np.testing.assert_allclose(jax.grad(along)(0.0), numeric, rtol=1e-6, atol=1e-7)


@TABLE
def test_density_is_made_of_whitened_readings_and_log_scale(noise, readings):
    """Change of variables gives log p, and log σ alone what a parameter in it changes."""
    with jax.enable_x64(True):
        clean, theta, given = jnp.asarray(CLEAN), jnp.asarray(THETA), jnp.asarray(readings[0])
        whitened = noise.whiten(given, clean, theta, times=TIMES)
        jacobian = jax.jacfwd(lambda r: noise.whiten(r, clean, theta, times=TIMES).ravel())(given)
        _, log_slope = np.linalg.slogdet(jacobian.reshape(8, 8))
        normal = st.norm.logpdf(np.asarray(whitened)).sum()
        density = noise.log_prob(given, clean, theta, times=TIMES)
        # Eight terms of order one in float64.
        np.testing.assert_allclose(density, normal + log_slope, rtol=1e-12)
        slopes = jax.jacfwd(lambda t: noise.log_scale(clean, t, times=TIMES))(theta)
        moves = jax.jacfwd(lambda t: noise.whiten(given, clean, t, times=TIMES))(theta)
        expected = -(np.asarray(whitened)[..., None] * moves + slopes).sum((0, 1))
        actual = jax.grad(lambda t: noise.log_prob(given, clean, t, times=TIMES))(theta)
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@TABLE
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_precision_follows_the_clean_values(noise, dtype, key):
    with jax.enable_x64(True):
        clean = jnp.asarray(CLEAN, dtype)
        assert noise.sample(clean, THETA, times=TIMES, key=key).dtype == dtype
        assert noise.whiten(clean, clean, THETA, times=TIMES).dtype == dtype
        assert noise.log_scale(clean, THETA, times=TIMES).dtype == dtype
        assert noise.log_prob(clean, clean, THETA, times=TIMES).dtype == dtype


@TABLE
def test_other_numbers_of_channels_are_refused(noise):
    if np.ndim(getattr(noise, "inner", noise).scale) == 0:
        noise.check(7)
    else:
        with refuses(ValueError, "`scale`.*7 channels"):
            noise.check(7)
