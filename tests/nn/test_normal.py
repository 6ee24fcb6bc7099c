"""Normal distributions of networks beside SciPy's."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.stats as st

from inojax.nn import Normal

MEAN = np.array([0.3, -1.0, 2.0])
ROOT = np.array([[0.5, 0.0, 0.0], [0.4, 0.2, 0.0], [-0.3, 0.1, 0.05]])
COVARIANCE = ROOT @ ROOT.T


def test_numbers_and_covariance_are_inverse_to_each_other():
    with jax.enable_x64(True):
        numbers = Normal.numbers(jnp.asarray(COVARIANCE))
        assert numbers.shape == (Normal.size(3),) == (6,)
        normal = Normal.of(jnp.asarray(MEAN), numbers)
        np.testing.assert_allclose(normal.covariance, COVARIANCE, rtol=1e-12, atol=1e-15)


def test_any_numbers_give_a_covariance():
    numbers = 3.0 * np.random.default_rng(0).normal(size=(50, 6))
    with jax.enable_x64(True):
        for row in numbers:
            covariance = Normal.of(jnp.asarray(MEAN), jnp.asarray(row)).covariance
            assert np.linalg.eigvalsh(np.asarray(covariance)).min() > 0.0


def test_density_and_draws():
    with jax.enable_x64(True):
        normal = Normal.of(jnp.asarray(MEAN), Normal.numbers(jnp.asarray(COVARIANCE)))
        z = np.random.default_rng(1).normal(size=(20, 3))
        expected = st.multivariate_normal(MEAN, COVARIANCE).logpdf(z)
        actual = jax.vmap(normal.log_prob)(jnp.asarray(z))
        np.testing.assert_allclose(actual, expected, rtol=1e-11)
        draws = np.asarray(normal.sample(40_000, key=jr.key(0)))
    scale = np.sqrt(np.diag(COVARIANCE))
    # Five standard errors of mean and covariance.
    assert (np.abs(draws.mean(axis=0) - MEAN) < 5.0 * scale / 200.0).all()
    gap = (np.cov(draws.T) - COVARIANCE) / scale[:, None] / scale[None, :]
    assert np.abs(gap).max() < 5.0 * np.sqrt(2.0) / 200.0
