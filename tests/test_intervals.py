"""Central intervals, where the chance of holding one more sample is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inojax._intervals import central_interval


@pytest.mark.parametrize("count", [9, 19, 128])
@pytest.mark.parametrize("level", [0.5, 0.8])
def test_one_more_sample_is_held_as_often_as_stated(count, level):
    """Each of `count` + 1 exchangeable numbers is equally likely to be the one more.

    Uniform numbers: the chance is the mean distance of the ends, k / (count + 1) for the k-th.
    """
    expected = np.arange(1.0, count + 1.0) / (count + 1.0)
    lower, upper = central_interval(expected, level, axis=0)
    np.testing.assert_allclose(upper - lower, level, rtol=1e-12)
    np.testing.assert_allclose(lower + upper, 1.0, rtol=1e-12)


def test_beyond_their_resolution_all_samples_are_spanned():
    samples = np.random.default_rng(0).normal(size=(5, 10, 3))
    for level in (9.0 / 11.0, 0.9, 0.999):
        lower, upper = central_interval(samples, level, axis=1)
        np.testing.assert_allclose(lower, samples.min(axis=1), rtol=1e-12)
        np.testing.assert_allclose(upper, samples.max(axis=1), rtol=1e-12)
    for level in (0.1, 0.9):
        lower, upper = central_interval(samples[:, :1], level, axis=1)
        np.testing.assert_array_equal(lower, samples[:, 0])
        np.testing.assert_array_equal(upper, samples[:, 0])


def test_traced_samples_give_the_same():
    samples = np.random.default_rng(1).normal(size=(4, 33, 2)).astype(np.float32)
    expected = central_interval(samples, 0.9, axis=-2)
    found = jax.jit(lambda x: central_interval(x, 0.9, axis=-2))(jnp.asarray(samples))
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert expected[0].dtype == found[0].dtype == np.float32


def test_what_is_not_finite_shows():
    samples = np.zeros((12, 3))
    samples[4, 1], samples[:, 2] = np.nan, np.inf
    lower, _ = central_interval(samples, 0.8, axis=0)
    assert lower[0] == 0.0
    assert np.isnan(lower[1])
    assert not np.isfinite(lower[2])
