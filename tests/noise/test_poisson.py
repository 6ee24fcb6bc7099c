"""Counts: SciPy's density, residuals that hold it, and the Fisher information of a fit."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.optimize
import scipy.stats as st

from inojax import InverseProblem, Observation, Parameter, ParameterSpace, RandomTimes, Sensors
from inojax._linearization import linearize
from inojax.methods import LeastSquares, Penalty
from inojax.noise import Poisson
from tests.helpers import linear_gaussian
from tests.refuses import refuses

THETA = np.zeros(1)
RATES = np.array([[0.02, 4.0], [31.0, 0.7], [1e4, 12.0]])
COUNTS = np.array([[0.0, 4.0], [25.0, 2.0], [10_010.0, 12.0]])
EXPOSURE = 1.5
NOISE = Poisson(EXPOSURE)


def test_density_is_scipys():
    mask = np.array([[True, True], [False, True], [True, True]])
    expected = np.where(mask, st.poisson(EXPOSURE * RATES).logpmf(COUNTS), 0.0).sum()
    with jax.enable_x64(True):
        actual = NOISE.log_prob(COUNTS, RATES, THETA, mask)
    # A sum of terms of order 1e5, in float64.
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


def test_draws_have_the_expected_count_as_mean_and_variance(key):
    draws = 20_000
    rates = jnp.asarray(RATES, jnp.float32)
    sample = jax.jit(jax.vmap(lambda k: NOISE.sample(rates, THETA, key=k)))
    drawn = np.asarray(sample(jr.split(key, draws)), np.float64)
    assert (drawn == np.round(drawn)).all()
    mean = EXPOSURE * RATES
    # Five standard errors; the fourth central moment is m + 3 m².
    assert np.all(np.abs(drawn.mean(0) - mean) < 5.0 * np.sqrt(mean / draws))
    deviation = np.sqrt((mean + 2.0 * mean**2) / draws)
    assert np.all(np.abs(drawn.var(0) - mean) < 5.0 * deviation)


@pytest.mark.parametrize(("dtype", "rtol"), [(jnp.float32, 2e-5), (jnp.float64, 1e-12)])
def test_half_of_squared_residuals_holds_the_density(dtype, rtol):
    """Near the expected count as well, where the formula of the deviance loses digits."""
    counts = np.array([0.0, 1.0, 20.0, 100.0, 400.0])
    distance = np.array([-0.9, -0.06, -0.0501, -0.0499, -1e-3, -1e-6, 0.0, 1e-6, 0.04, 0.06, 3.0])
    means = np.maximum(counts, 0.3)[:, None] / (1.0 + distance[None, :])
    counts = np.broadcast_to(counts[:, None], means.shape)
    with jax.enable_x64(True):
        rates = jnp.asarray(means / EXPOSURE, dtype)

        def half_squares(rates):
            return 0.5 * jnp.sum(jnp.square(NOISE.whiten(counts.astype(dtype), rates, THETA)))

        slopes = np.asarray(jax.grad(half_squares)(rates))
        residual = np.asarray(NOISE.whiten(counts.astype(dtype), rates, THETA))
    expected = EXPOSURE * (1.0 - counts / means)
    # Relative to the size of the slope one standard deviation away.
    size = EXPOSURE * (np.abs(1.0 - counts / means) + means**-0.5)
    assert np.all(np.abs(slopes - expected) <= rtol * size)
    high = st.poisson(means).logpmf(counts)
    top = st.poisson(np.where(counts > 0.0, counts, 1e-300)).logpmf(counts)
    np.testing.assert_allclose(0.5 * residual**2, top - high, rtol=20 * rtol, atol=20 * rtol)
    assert np.all(np.sign(residual) == np.sign(counts - means) * (np.abs(residual) > 0.0))


def test_whitened_counts_are_standard_where_many_are_expected(key):
    draws, mean = 4000, 200.0
    rates = jnp.full((1, 1), mean / EXPOSURE)
    one = jax.vmap(lambda k: NOISE.whiten(NOISE.sample(rates, THETA, key=k), rates, THETA))
    whitened = np.asarray(one(jr.split(key, draws)), np.float64)
    # The mean is -1 / (6 √m) and the variance 1 + 7 / (36 m), and five standard errors.
    assert abs(whitened.mean() + 1.0 / (6.0 * mean**0.5)) < 5.0 / draws**0.5
    assert abs(whitened.var() - 1.0) < 5.0 * (2.0 / draws) ** 0.5


def test_masked_readings_do_not_count():
    mask = np.ones(RATES.shape, bool)
    mask[1, 0] = False
    for spoiled in (np.nan, -1.0, 0.0, 1e30):
        readings, rates = (np.where(mask, x, spoiled) for x in (COUNTS, RATES))
        with jax.enable_x64(True):
            value, slope = jax.value_and_grad(
                lambda rates, readings=readings: NOISE.log_prob(readings, rates, THETA, mask)
            )(jnp.asarray(rates))
            assert value == NOISE.log_prob(COUNTS, RATES, THETA, mask)
        slope = np.asarray(slope)
        assert np.isfinite(slope).all()
        assert slope[1, 0] == 0.0


@pytest.mark.parametrize(("count", "rate"), [(1.0, 0.0), (1.0, -1.0), (0.0, -1.0), (-1.0, 1.0)])
def test_what_is_impossible_has_no_density(count, rate):
    readings, rates = COUNTS.copy(), RATES.copy()
    readings[1, 0], rates[1, 0] = count, rate
    with jax.enable_x64(True):
        value, slope = jax.value_and_grad(lambda r: NOISE.log_prob(readings, r, THETA))(
            jnp.asarray(rates)
        )
        whitened = np.asarray(NOISE.whiten(readings, rates, THETA))
        value, slope = float(value), np.asarray(slope)
    assert value == -np.inf
    assert np.isfinite(slope).all()
    assert whitened[1, 0] == np.inf
    assert np.isfinite(np.delete(np.ravel(whitened), 2)).all()


def test_a_failed_prediction_stays_visible(key):
    rates = np.where(np.arange(6).reshape(3, 2) == 2, np.nan, RATES)
    assert np.isnan(NOISE.log_prob(COUNTS, rates, THETA))
    assert np.isnan(NOISE.whiten(COUNTS, rates, THETA)[1, 0])
    assert np.isnan(NOISE.sample(rates, THETA, key=key)[1, 0])


@pytest.fixture(scope="module")
def problem():
    """Counts of two channels, whose rates are t a and t b."""
    prior = dist.Uniform(0.3, 3.0)
    return InverseProblem(
        "counts",
        ParameterSpace((Parameter("a", prior), Parameter("b", prior))),
        linear_gaussian().model,
        Sensors(RandomTimes(5), channels=("x", "y")),
        Poisson(40.0),
    )


@pytest.fixture(scope="module")
def observation(problem):
    return problem.simulate(np.array([1.2, 0.8]), key=jr.key(3))


def test_fisher_information_is_that_of_counts(problem, observation):
    """Σ m' m'ᵀ / m, whatever was counted."""
    theta = np.array([1.2, 0.8])
    with jax.enable_x64(True):
        solution, tangents = problem.model.sensitivities(theta[None], observation.times)
        states, columns = jnp.asarray(solution.states)[0], jnp.asarray(tangents)[0]
        line = linearize(problem, observation, jnp.asarray(theta), states, columns, jnp.eye(2))
        mean = 40.0 * np.asarray(problem.read(states, theta))
        slopes = 40.0 * np.asarray(
            jnp.stack([problem.read(columns[..., i], theta) for i in (0, 1)])
        )
        weights = np.where(observation.mask, 1.0 / mean, 0.0)
        expected = np.einsum("arc,brc,rc->ab", slopes, slopes, weights)
        np.testing.assert_allclose(line.fisher, expected, rtol=1e-9)
        gap = np.where(observation.mask, 1.0 - observation.values / mean, 0.0)
        np.testing.assert_allclose(
            line.gradient, np.einsum("arc,rc->a", slopes, gap), rtol=1e-9, atol=1e-9
        )


def test_least_squares_finds_the_most_likely_parameters(problem, observation, key):
    method = LeastSquares(penalty=Penalty.NONE, starts=2)
    estimate = method.fit(problem, key=key)(observation, key=key)

    def minus_log_likelihood(theta):
        return -float(problem.log_likelihood(theta, observation))

    best = scipy.optimize.minimize(
        minus_log_likelihood, np.array([1.0, 1.0]), method="Nelder-Mead", tol=1e-10
    )
    # Nelder-Mead finds a minimum to the root of the precision of its values.
    np.testing.assert_allclose(estimate.optima.value[0], best.x, rtol=1e-5)


def test_readings_that_are_no_counts_are_refused(problem):
    for wrong in (0.5, -1.0):
        with refuses(ValueError, "`values` row 0.*must be a count.*Gaussian"):
            Observation.from_arrays([0.5], [[wrong, 1.0]], problem=problem)
    kept = Observation.from_arrays([0.5], [[np.nan, 1.0]], problem=problem)
    assert kept.size == 1


@pytest.mark.parametrize("exposure", [0.0, -1.0, np.inf, np.nan, (1.0, 2.0)])
def test_bad_exposures_are_refused(exposure):
    with refuses(ValueError, "`exposure` must be a positive number"):
        Poisson(exposure)


@pytest.mark.parametrize("mean", [1e7, 3e9, 1e12])
def test_many_counts_are_drawn_in_single_precision_too(mean):
    clean = np.full((4096, 1), mean, np.float32)
    counts = np.asarray(Poisson().sample(clean, np.zeros(1, np.float32), key=jr.key(0)), float)
    error = np.sqrt(mean / 4096)
    # Four standard errors, and what single precision rounds.
    assert abs(counts.mean() - mean) < 4.0 * error + 1e-7 * mean
    assert 0.9 * mean < counts.var() + (1e-7 * mean) ** 2
