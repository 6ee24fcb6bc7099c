"""Autoregressive noise beside the dense normal distribution that it is."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

import inojax as ij
from inojax._linearization import linearize
from inojax.noise import AR1, Gaussian, LogNormal, NoDensityError
from tests.refuses import refuses

THETA = np.array([0.5, 0.8])
NAMES = ("sigma", "rho")
TIMES = np.array([0.0, 0.2, 0.4, 1.0, 1.2, 2.0])
CLEAN = np.stack([np.sin(TIMES), np.cos(TIMES)], axis=1)
MASK = np.array([[1, 0], [1, 1], [0, 1], [1, 1], [1, 0], [1, 1]], bool)


def covariance(times, sigma, rho, step=0.2):
    return sigma**2 * rho ** (np.abs(times[:, None] - times[None, :]) / step)


@pytest.fixture
def readings():
    return CLEAN + np.random.default_rng(0).normal(size=CLEAN.shape)


@pytest.mark.parametrize("mask", [None, MASK], ids=["complete", "with gaps"])
@pytest.mark.parametrize(
    ("noise", "levels"),
    [
        (AR1(Gaussian((0.5, 2.0)), 0.8, step=0.2), (0.5, 2.0)),
        (AR1(Gaussian("sigma"), "rho", step=0.2).bound(NAMES), (0.5, 0.5)),
    ],
    ids=["known", "unknown"],
)
def test_density_is_that_of_the_dense_covariance(noise, levels, mask, readings):
    """Readings left out are integrated over, so the gap between two may be any."""
    kept = np.ones_like(MASK) if mask is None else mask
    expected = 0.0
    for channel, sigma in enumerate(levels):
        rows = kept[:, channel]
        gap = (readings - CLEAN)[rows, channel]
        expected += st.multivariate_normal.logpdf(gap, cov=covariance(TIMES[rows], sigma, 0.8))
    with jax.enable_x64(True):
        actual = noise.log_prob(readings, CLEAN, THETA, mask, times=TIMES)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.parametrize("mask", [None, MASK], ids=["complete", "with gaps"])
def test_the_origin_of_time_does_not_matter(mask, readings):
    """Neither in double precision nor where only clean values are in single precision."""
    noise = AR1(Gaussian(0.5), 0.8, step=0.2)
    # Quarters, which double precision holds exactly there.
    times = np.round(4.0 * TIMES) / 4.0 + 0.25 * np.arange(6)
    far = times + 2459000.5
    with jax.enable_x64(True):
        expected = noise.log_prob(readings, CLEAN, THETA, mask, times=times)
        found = noise.log_prob(readings, CLEAN, THETA, mask, times=far)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    single = [jnp.asarray(x, jnp.float32) for x in (readings, CLEAN)]
    np.testing.assert_allclose(noise.log_prob(*single, THETA, mask, times=far), expected, rtol=1e-5)


def test_padding_reaches_neither_density_nor_gradients(readings):
    """Padding repeats the last time, after which no time has passed."""
    noise = AR1(Gaussian("sigma"), "rho", step=0.2).bound(NAMES)

    def pad(x):
        return np.concatenate([x, np.repeat(x[-1:], 2, axis=0)])

    longer = np.concatenate([MASK, np.zeros((2, 2), bool)])

    def density(clean, theta, readings, mask, times):
        return noise.log_prob(readings, clean, theta, mask, times=times)

    def squares(clean, theta, readings, mask, times):
        return jnp.sum(jnp.square(noise.whiten(readings, clean, theta, mask, times=times)))

    with jax.enable_x64(True):
        for function in (density, squares):
            both = jax.value_and_grad(function, argnums=(0, 1))
            value, (slope, levels) = both(CLEAN, THETA, readings, MASK, TIMES)
            padded, (slope_padded, levels_padded) = both(
                pad(CLEAN), THETA, pad(readings), longer, pad(TIMES)
            )
            np.testing.assert_allclose(padded, value, rtol=1e-12)
            np.testing.assert_allclose(slope_padded[:-2], slope, rtol=1e-10, atol=1e-12)
            np.testing.assert_array_equal(slope_padded[-2:], 0.0)
            np.testing.assert_allclose(levels_padded, levels, rtol=1e-10)


def test_what_follows_an_impossible_value_is_not_impossible():
    noise = AR1(LogNormal(0.5), 0.8, step=1.0)
    clean = np.array([[1.0], [-1.0], [-2.0], [1.5]])
    found = np.asarray(noise.whiten(np.ones((4, 1)), clean, THETA, times=np.arange(4.0)))[:, 0]
    assert np.isinf(found).tolist() == [False, True, True, False]
    assert not np.isnan(found).any()


def test_draws_have_the_covariance_from_the_first_on():
    noise, draws = AR1(Gaussian(0.5), 0.8, step=0.2), 40_000
    with jax.enable_x64(True):
        keys = jr.split(jr.key(0), draws)
        sample = jax.vmap(lambda k: noise.sample(CLEAN, THETA, times=TIMES, key=k))
        error = np.asarray(jax.jit(sample)(keys)) - CLEAN
    expected = covariance(TIMES, 0.5, 0.8)
    for channel in range(2):
        # Standard error at most √2 σ² / √n; six of them for 36 entries.
        found = np.cov(error[:, :, channel].T)
        np.testing.assert_allclose(found, expected, atol=6.0 * 0.25 * np.sqrt(2.0 / draws))
    across = error[:, :, 0].T @ error[:, :, 1] / draws
    assert np.abs(across).max() < 6.0 * 0.25 / np.sqrt(draws)


def test_without_correlation_it_is_the_inner_noise(readings):
    for inner, given in ((Gaussian(0.3), readings), (LogNormal(0.3), np.exp(readings))):
        noise = AR1(inner, 0.0, step=1.0)
        clean = np.exp(CLEAN)
        with jax.enable_x64(True):
            for mask in (None, MASK):
                np.testing.assert_allclose(
                    noise.log_prob(given, clean, THETA, mask, times=TIMES),
                    inner.log_prob(given, clean, THETA, mask),
                    rtol=1e-13,
                )


def test_fisher_information_of_an_unknown_correlation():
    """(1 + ρ²) / (1 - ρ²)² for each pair of neighbours, and 2 / σ² for each reading."""
    sigma, rho, count = 0.4, 0.7, 4000
    times = np.arange(float(count))
    problem = ij.InverseProblem(
        "constant",
        ij.ParameterSpace(
            (ij.Parameter("sigma", dist.Uniform(0.1, 1.0)), ij.Parameter("rho", dist.Uniform(0, 1)))
        ),
        ij.ODEModel(lambda t, y, theta: 0.0 * y, np.zeros(1), times=times, states=("y",)),
        ij.Sensors(ij.RandomTimes(count)),
        AR1(Gaussian("sigma"), "rho", step=1.0),
    )
    with jax.enable_x64(True):
        theta, states = jnp.array([sigma, rho]), jnp.zeros((count, 1))
        observation = problem.observe(states, theta, key=jr.key(1))
        flat = jnp.zeros((count, 1, 2))
        line = linearize(problem, observation, theta, states, flat, jnp.eye(2))
        found, whitened = np.asarray(line.fisher), np.asarray(line.residual)
    np.testing.assert_allclose(found[0, 0], 2.0 * count / sigma**2, rtol=1e-12)
    # It squares realized readings: √(2 / 4000) is 2 %.
    expected = (count - 1) * (1.0 + rho**2) / (1.0 - rho**2) ** 2
    np.testing.assert_allclose(found[1, 1], expected, rtol=0.1)
    # By differentiating log det: Σ (σ^-1) (-ρ / (1 - ρ²)) twice.
    expected = -2.0 * (count - 1) * rho / (1.0 - rho**2) / sigma
    np.testing.assert_allclose(found[0, 1], expected, rtol=0.1)
    # White: 4.5 standard errors of variance and of the correlation of neighbours.
    assert abs(whitened.var() - 1.0) < 0.1
    assert abs(np.mean(whitened[1:] * whitened[:-1])) < 0.07


def test_a_simulated_level_and_correlation_are_found_again(readings):
    """The maximum of the likelihood of a long series is close to what made it."""
    noise = AR1(Gaussian("sigma"), "rho", step=0.5).bound(NAMES)
    times = 0.5 * np.arange(20_000.0)
    with jax.enable_x64(True):
        clean = jnp.zeros((len(times), 1))
        drawn = noise.sample(clean, THETA, times=times, key=jr.key(2))

        @jax.jit
        def density(theta):
            return noise.log_prob(drawn, clean, theta, times=times)

        score = np.asarray(jax.grad(density)(jnp.asarray(THETA)))
        curvature = -np.asarray(jax.hessian(density)(jnp.asarray(THETA)))
    # A Newton step from the truth stays within four standard errors.
    step = np.linalg.solve(curvature, score)
    assert (np.abs(step) < 4.0 * np.sqrt(np.diag(np.linalg.inv(curvature)))).all()


@pytest.mark.parametrize("rho", [-0.2, 1.0, 1.5])
def test_what_is_no_correlation_has_no_density(rho, readings):
    """Where an optimizer without bounds may step."""
    noise = AR1(Gaussian("sigma"), "rho", step=0.2).bound(NAMES)
    theta = jnp.array([0.5, rho])
    with jax.enable_x64(True):
        value, slope = jax.value_and_grad(
            lambda t: noise.log_prob(readings, CLEAN, t, times=TIMES)
        )(theta)
        assert float(value) == -np.inf
        assert np.isfinite(slope).all()
        assert np.isposinf(noise.log_scale(CLEAN, theta, times=TIMES)).all()


def test_bad_arguments_are_refused():
    for correlation in (1.0, -0.1, np.nan, "", (0.5, 0.5)):
        with refuses(ValueError, r"`correlation` must be one number in \[0, 1\)"):
            AR1(Gaussian(0.1), correlation, step=1.0)
    for step in (0.0, -1.0, np.inf):
        with refuses(ValueError, "`step` must be a positive time"):
            AR1(Gaussian(0.1), 0.5, step=step)
    with refuses(TypeError, "`inner` must be noise that is independent.*got AR1"):
        AR1(AR1(Gaussian(0.1), 0.5, step=1.0), 0.5, step=1.0)
    with refuses(ValueError, "`correlation` of the noise names 'r', not among the parameters"):
        AR1(Gaussian(0.1), "r", step=1.0).bound(NAMES)
    with refuses(ValueError, "`times` are needed"):
        AR1(Gaussian(0.1), 0.5, step=1.0).log_prob(CLEAN, CLEAN, THETA)
    with refuses(ValueError, "`correlation` names the parameter 'rho', but this noise belongs"):
        AR1(Gaussian(0.1), "rho", step=1.0).whiten(CLEAN, CLEAN, THETA, times=TIMES)
    with refuses(NoDensityError, "`whiten` needs a positive `scale`"):
        AR1(Gaussian(0.0), 0.5, step=1.0).whiten(CLEAN, CLEAN, THETA, times=TIMES)
