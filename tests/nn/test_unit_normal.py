"""Normal distributions cut to [0, 1], against SciPy."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.stats as st

from inojax.nn._truncated_normal import UnitNormal

CASES = {
    "inside": (0.4, 0.1),
    "cut below": (0.05, 0.2),
    "cut above": (1.0, 0.05),
    "cut twice": (0.7, 0.8),
    "sharp": (0.3, 0.002),
}
TABLE = pytest.mark.parametrize(("location", "scale"), CASES.values(), ids=CASES)


def scipys(location, scale):
    return st.truncnorm(-location / scale, (1.0 - location) / scale, location, scale)


def ours(location, scale, count=1):
    return UnitNormal(jnp.full(count, location), jnp.full(count, scale))


@TABLE
def test_density_is_scipys_and_integrates_to_one(location, scale):
    z = np.linspace(0.0, 1.0, 20_001)
    log_prob = np.asarray(ours(location, scale, len(z)).log_prob(jnp.asarray(z, jnp.float32)))
    near = np.abs(z - location) < 4.0 * scale
    # Float32: z / scale is good to 1e-7 * 500 for the sharp case, times 4 deviations.
    np.testing.assert_allclose(log_prob[near], scipys(location, scale).logpdf(z[near]), atol=1e-3)
    # The trapezoidal rule with 40 points to a standard deviation at the least.
    np.testing.assert_allclose(np.trapezoid(np.exp(log_prob), z), 1.0, rtol=1e-3)


@TABLE
def test_quantiles_are_scipys(location, scale):
    u = np.linspace(0.001, 0.999, 101)
    quantiles = ours(location, scale, len(u)).quantile(jnp.asarray(u, jnp.float32))
    # Float32 levels near 1 are 6e-8 apart, where the density of a level is 1e-3 or more.
    expected = scipys(location, scale).ppf(u)
    np.testing.assert_allclose(quantiles, expected, atol=3e-4 * min(scale, 1.0) + 1e-6)


@TABLE
def test_samples_have_scipys_moments(location, scale, key):
    count = 20_000
    samples = np.asarray(ours(location, scale, count).sample(key=key), np.float64)
    mean, variance, kurtosis = scipys(location, scale).stats("mvk")
    assert ((samples >= 0.0) & (samples <= 1.0)).all()
    # Five standard errors each.
    assert abs(samples.mean() - mean) < 5.0 * np.sqrt(variance / count)
    assert abs(samples.var() - variance) < 5.0 * variance * np.sqrt((kurtosis + 2.0) / count)


def test_ends_of_the_quantiles_stay_inside():
    ends = ours(0.5, 3.0, 2).quantile(jnp.array([0.0, 1.0]))
    # Float32 rounding of 3 times a normal quantile.
    np.testing.assert_allclose(ends, [0.0, 1.0], atol=1e-5)


def test_wide_limit_is_uniform():
    z = jnp.linspace(0.0, 1.0, 11)
    wide = UnitNormal.around(jnp.full(11, 0.5), jnp.tile(jnp.array([0.0, 50.0]), (11, 1)).T.ravel())
    assert (wide.location == 0.5).all()
    # exp(-(1/2)² / (2 · 3²)) = 0.986.
    np.testing.assert_allclose(np.exp(wide.log_prob(z)), 1.0, atol=0.015)


def test_any_output_of_a_network_is_a_distribution(key):
    value = jnp.concatenate([jnp.array([0.0, 1.0, 0.5]), jr.uniform(key, (47,))])
    outputs = jnp.concatenate([jnp.array([-1e4, 1e4, 0.0, 1e4]), 30.0 * jr.normal(key, (96,))])
    spread = UnitNormal.around(value, outputs)
    assert ((spread.location >= 0.0) & (spread.location <= 1.0)).all()
    # Float32 rounding of the narrowest and the widest scale.
    assert (spread.scale >= 0.999e-3).all()
    assert (spread.scale <= 3.001).all()
    inside = jr.uniform(key, (50,))

    def loss(value, outputs):
        return jnp.sum(UnitNormal.around(value, outputs).log_prob(inside))

    assert np.isfinite(loss(value, outputs))
    to_value, to_outputs = jax.jit(jax.grad(loss, argnums=(0, 1)))(value, outputs)
    assert np.isfinite(to_outputs).all()
    # What the spread learns must not move the point estimate.
    np.testing.assert_array_equal(to_value, 0.0)


def test_product_is_the_product_of_densities():
    parts = UnitNormal(jnp.array([[0.3], [0.6]]), jnp.array([[0.2], [0.1]]))
    average, joint = parts.product(jnp.array([[0.2], [0.7]]), jnp.ones((2, 1), bool))
    z = np.linspace(0.0, 1.0, 2001)
    density = scipys(0.3, 0.2).pdf(z) * scipys(0.6, 0.1).pdf(z)
    density /= np.trapezoid(density, z)
    grid = UnitNormal(jnp.full(2001, joint.location[0]), jnp.full(2001, joint.scale[0]))
    # Float32 and the trapezoidal rule, against a density up to 5.
    found = np.exp(grid.log_prob(jnp.asarray(z, jnp.float32)))
    np.testing.assert_allclose(found, density, atol=1e-4)
    # Precisions 25 and 100.
    np.testing.assert_allclose(average, [(25 * 0.2 + 100 * 0.7) / 125], rtol=1e-6)


def test_product_leaves_out_groups_that_know_nothing():
    parts = UnitNormal(jnp.array([[0.3], [0.6]]), jnp.array([[0.2], [0.1]]))
    average, joint = parts.product(jnp.array([[0.2], [0.7]]), jnp.array([[True], [False]]))
    # The other group keeps a weight of 1e-12 / 25.
    np.testing.assert_allclose(average, [0.2], rtol=1e-6)
    np.testing.assert_allclose(joint.location, [0.3], rtol=1e-6)
    np.testing.assert_allclose(joint.scale, [0.2], rtol=1e-6)
