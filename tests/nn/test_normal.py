"""Normal distributions of networks beside SciPy's."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.stats as st

from inojax.nn._normal import Normal

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


def test_matrix_logarithm_and_covariance_are_inverse_to_each_other():
    with jax.enable_x64(True):
        numbers = Normal.logarithm(jnp.asarray(COVARIANCE))
        assert numbers.shape == (Normal.size(3),)
        # Entries 0, 2 and 5 are its diagonal, whose sum is the logarithm of the determinant.
        trace = np.asarray(numbers)[[0, 2, 5]].sum()
        np.testing.assert_allclose(trace, np.linalg.slogdet(COVARIANCE)[1], rtol=1e-10)
        normal = Normal.of_logarithm(jnp.asarray(MEAN), numbers)
        np.testing.assert_allclose(normal.covariance, COVARIANCE, rtol=1e-9, atol=1e-12)
        z = jnp.asarray(MEAN + 0.1)
        expected = st.multivariate_normal(MEAN, COVARIANCE).logpdf(MEAN + 0.1)
        np.testing.assert_allclose(normal.log_prob(z), expected, rtol=1e-9)


def test_thin_ellipsoids_keep_their_width_in_single_precision():
    """Two parameters that are collinear but for one part in a hundred thousand."""
    angle = 0.6
    axes = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    variances = np.array([1e-2, 1e-10])
    matrix = (axes * np.log(variances)) @ axes.T
    numbers = jnp.asarray(matrix[np.tril_indices(2)], jnp.float32)
    normal = Normal.of_logarithm(jnp.zeros(2), numbers)
    conditional = np.exp(np.asarray(normal.log_variance))
    exact = (axes * variances) @ axes.T
    # log variances of size 20 carry errors of 1e-6 in single precision, relative ones of results.
    np.testing.assert_allclose(conditional[0], exact[0, 0], rtol=1e-3)
    np.testing.assert_allclose(conditional[1], np.prod(variances) / exact[0, 0], rtol=5e-2)
