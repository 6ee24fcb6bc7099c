"""Gaussian noise, against SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats as st

from inojax.noise import Gaussian
from tests.refuses import refuses

CLEAN = jnp.zeros((3, 2))
THETA = jnp.zeros(1)


def test_density_is_scipys():
    readings = np.array([[0.1, -3.0], [0.7, 2.0], [-0.2, 0.0]])
    mask = np.array([[True, True], [False, True], [True, False]])
    expected = np.where(mask, st.norm(0.0, [0.5, 2.0]).logpdf(readings), 0.0).sum()
    with jax.enable_x64(True):
        actual = Gaussian([0.5, 2.0]).log_prob(jnp.asarray(readings), 0.0 * readings, THETA, mask)
    # A sum of six terms of order one, in float64.
    np.testing.assert_allclose(actual, expected, rtol=1e-14)


def test_standardized_scales_the_spread():
    assert Gaussian.standardized(0.1, np.array([3e-18, 20.0])).scale == (0.1 * 3e-18, 2.0)


def test_perfect_readings_can_be_drawn_but_have_no_density(key):
    noise = Gaussian([0.0, 1.0])
    drawn = noise.sample(CLEAN, THETA, key=key)
    np.testing.assert_array_equal(drawn[:, 0], 0.0)
    assert (drawn[:, 1] != 0.0).all()
    with refuses(ValueError, "`whiten` needs a positive `scale`"):
        noise.whiten(CLEAN, CLEAN, THETA)
    with refuses(ValueError, "`log_scale` needs a positive `scale`"):
        noise.log_scale(CLEAN, THETA)
    with refuses(ValueError, "`log_prob` needs a positive `scale`"):
        jax.jit(lambda x: noise.log_prob(x, x, THETA))(CLEAN)


@pytest.mark.parametrize(
    "scale",
    [
        -1.0,
        np.nan,
        np.inf,
        [1.0, -1.0],
        [],
        [[1.0]],
        np.ones((2, 1)),
        None,
        "",
        ("a", -1.0),
        ["a", ""],
    ],
    ids=str,
)
def test_bad_scales_are_refused(scale):
    with refuses(ValueError, "`scale` must be one finite number"):
        Gaussian(scale)


def test_traced_scales_and_bad_levels_are_refused():
    with refuses(TypeError, "`scale`.*traced"):
        jax.jit(lambda s: Gaussian(s).whiten(CLEAN, CLEAN, THETA))(1.0)
    for level in (-1.0, np.nan):
        with refuses(ValueError, "`level`"):
            Gaussian.standardized(level, np.ones(2))


def test_scales_must_fit_the_readings():
    with refuses(ValueError, "`scale`.*2 channels.*3 numbers"):
        Gaussian([1.0, 2.0, 3.0]).whiten(CLEAN, CLEAN, THETA)
