"""Levels of noise that are unknowns: found by name, and moved with the parameters."""

import jax
import numpy as np
import pytest
import scipy.stats as st

from inojax.noise import Gaussian, LogNormal
from tests.refuses import refuses

NAMES = ("k", "sigma", "tau")
THETA = np.array([9.0, 0.5, 2.0])
CLEAN = np.array([[1.0, 4.0], [2.0, 3.0]])
READINGS = np.array([[1.3, 2.0], [1.1, 3.5]])

# The scale as it is written, and the levels it stands for at these parameters.
SCALES = {
    "one for both": ("sigma", (0.5, 0.5)),
    "each its own": (("tau", "sigma"), (2.0, 0.5)),
    "with a number": ((0.3, "sigma"), (0.3, 0.5)),
    "the same twice": (["tau", "tau"], (2.0, 2.0)),
}
EACH = pytest.mark.parametrize(("scale", "levels"), SCALES.values(), ids=SCALES)


@EACH
def test_levels_are_found_by_name(scale, levels, key):
    with jax.enable_x64(True):
        for noise, density in (
            (Gaussian, st.norm(CLEAN, levels)),
            (LogNormal, st.lognorm(levels, scale=CLEAN)),
        ):
            unknown = noise(scale).bound(NAMES)
            actual = unknown.log_prob(READINGS, CLEAN, THETA)
            np.testing.assert_allclose(actual, density.logpdf(READINGS).sum(), rtol=1e-13)
            known = noise(levels)
            for method in ("whiten", "log_scale"):
                given = (READINGS, CLEAN, THETA) if method == "whiten" else (CLEAN, THETA)
                actual, expected = (getattr(x, method)(*given) for x in (unknown, known))
                np.testing.assert_array_equal(actual, expected)
            draws = [x.sample(CLEAN, THETA, key=key) for x in (unknown, known)]
            np.testing.assert_array_equal(*draws)


def test_binding_again_finds_the_new_places():
    noise = Gaussian("sigma").bound(NAMES).bound(("sigma", "k"))
    with jax.enable_x64(True):
        scale = noise.log_scale(CLEAN, np.array([3.0, 1.0]))
    np.testing.assert_allclose(scale, np.log(3.0), rtol=1e-15)


def test_known_levels_need_no_names():
    noise = Gaussian(0.3)
    assert noise.bound(NAMES) is noise


@pytest.mark.parametrize("noise", [Gaussian, LogNormal])
@pytest.mark.parametrize("level", [0.0, -1.0])
def test_a_level_that_is_not_positive_has_no_density(noise, level):
    """Where an optimizer without bounds may step."""
    unknown = noise(("sigma", 0.3)).bound(NAMES)
    theta = np.array([9.0, level, 2.0])
    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(lambda t: unknown.log_prob(READINGS, CLEAN, t))(theta)
        scale = unknown.log_scale(CLEAN, theta)
    assert float(value) == -np.inf
    assert np.isfinite(gradient).all()
    scale = np.asarray(scale)
    np.testing.assert_array_equal(scale[:, 0], np.inf)
    assert np.isfinite(scale[:, 1]).all()


def test_unknown_names_are_refused():
    with refuses(ValueError, "`scale`.*'sigmas'.*parameters; they are k, sigma, tau"):
        Gaussian(("sigmas", "tau")).bound(NAMES)


def test_levels_without_a_problem_are_refused(key):
    noise = LogNormal(("sigma", 0.3))
    for use in (
        lambda: noise.sample(CLEAN, THETA, key=key),
        lambda: noise.log_prob(READINGS, CLEAN, THETA),
        lambda: noise.whiten(READINGS, CLEAN, THETA),
        lambda: noise.log_scale(CLEAN, THETA),
    ):
        with refuses(ValueError, "`scale` names the parameter 'sigma'.*InverseProblem"):
            use()


def test_a_zero_beside_an_unknown_level_has_no_density():
    with refuses(ValueError, "`log_prob` needs a positive `scale`"):
        Gaussian((0.0, "sigma")).bound(NAMES).log_prob(READINGS, CLEAN, THETA)
