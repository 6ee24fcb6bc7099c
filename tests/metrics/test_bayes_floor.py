"""The Bayes floor where the posterior is known in closed form."""

import jax
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

from inojax import ODEModel
from inojax._inverse_problem import InverseProblem
from inojax._parameters import Design, Parameter, ParameterSpace
from inojax._sensors import FixedTimes, RandomTimes, Sensors
from inojax.metrics import bayes_floor, laplace_covariances
from inojax.noise import Gaussian, LogNormal
from tests.helpers import HIGHEST, LINEAR_NOISE, LINEAR_TIMES, LOWEST, SLOPES, linear_gaussian
from tests.refuses import refuses

pytestmark = pytest.mark.usefixtures("compiled_quickly")

WIDTH = HIGHEST - LOWEST


def exact(times, slopes=SLOPES):
    """Diagonal of the Laplace posterior covariance in unit coordinates."""
    rows = (np.asarray(times)[:, None, None] * slopes[None]).reshape(-1, 2) * WIDTH
    return np.diag(np.linalg.inv(rows.T @ rows / LINEAR_NOISE**2 + 12.0 * np.eye(2)))


def linear(sensors):
    problem = linear_gaussian()
    return InverseProblem("linear", problem.parameters, problem.model, sensors, problem.noise)


def test_fixed_sensors_give_the_closed_form(key):
    times = LINEAR_TIMES[[1, 4, 9]]
    floor = bayes_floor(linear(Sensors(FixedTimes(times))), 4, key=key)
    # The solver's relative tolerance of 1e-6 on a solution that is linear in time.
    np.testing.assert_allclose(floor.per_parameter, exact(times), rtol=1e-6)
    np.testing.assert_allclose(floor.parameter_mse, exact(times).mean(), rtol=1e-6)
    assert floor.standard_error < 1e-6 * floor.parameter_mse
    assert floor.cases == 4


def test_only_observed_channels_count_in_their_own_order(key):
    sensors = Sensors(FixedTimes(LINEAR_TIMES[[4]]), channels=("z", "x"))
    floor = bayes_floor(linear(sensors), 2, key=key)
    # As above.
    expected = exact(LINEAR_TIMES[[4]], SLOPES[[2, 0]])
    np.testing.assert_allclose(floor.per_parameter, expected, rtol=1e-6)


def test_random_sensors_are_averaged(key):
    floor = bayes_floor(linear_gaussian(), 400, key=key)
    rng = np.random.default_rng(0)
    draws = [exact(rng.choice(LINEAR_TIMES, 3, replace=False)).mean() for _ in range(4000)]
    # Five standard errors of ours; that of the 4,000 draws is a third of it.
    assert abs(floor.parameter_mse - np.mean(draws)) < 5.0 * floor.standard_error
    np.testing.assert_allclose(floor.standard_error, np.std(draws) / np.sqrt(400), rtol=0.3)


def test_missing_readings_raise_the_floor(key):
    complete = bayes_floor(linear_gaussian(), 100, key=key)
    sparse = bayes_floor(linear_gaussian(missing=0.6), 100, key=key)
    assert sparse.parameter_mse > 1.5 * complete.parameter_mse
    # The prior alone: 1/12.
    assert sparse.parameter_mse < 1.0 / 12.0


def test_curved_priors_enter_by_their_slope(key):
    """y = θ t with a log-uniform θ: dy/dz = t θ log(high / low) in closed form."""
    space = ParameterSpace((Parameter("k", dist.LogUniform(0.1, 10.0)),))
    model = ODEModel(_constant, np.zeros(1), times=np.array([0.5, 1.0]), states=("y",))
    noise = Gaussian(0.2)
    problem = InverseProblem("curved", space, model, Sensors(FixedTimes([1.0])), noise)
    floor = bayes_floor(problem, 50, key=key)
    z = np.random.default_rng(0).uniform(size=100_000)
    theta = 0.1 * 100.0**z
    variances = 1.0 / ((theta * np.log(100.0) / 0.2) ** 2 + 12.0)
    assert abs(floor.parameter_mse - variances.mean()) < 5.0 * floor.standard_error


def _constant(t, y, theta):
    del t, y
    return theta[:1]


def in_unit_coordinates(information, theta):
    """Variances of (slope, level) with log-uniform priors on [0.1, 10]."""
    slopes = theta * np.log(100.0)
    scaled = information * slopes[:, None, :] * slopes[:, :, None]
    return np.diagonal(np.linalg.inv(scaled + 12.0 * np.eye(2)), axis1=1, axis2=2)


@pytest.mark.parametrize("noise", [Gaussian, LogNormal])
def test_unknown_levels_are_learned_from_the_scatter(noise, key):
    """n readings of y = k t: information n t² / σ² (or n / (k σ)²) on k, and 2 n / σ² on σ."""
    prior = dist.LogUniform(0.1, 10.0)
    space = ParameterSpace((Parameter("k", prior), Parameter("sigma", prior)))
    times = np.array([0.5, 1.0, 2.0])
    model = ODEModel(_constant, np.zeros(1), times=times, states=("y",))
    problem = InverseProblem("level", space, model, Sensors(FixedTimes(times)), noise("sigma"))
    floor = bayes_floor(problem, 40, key=key)
    theta = space.design(40, kind=Design.RANDOM, key=jr.split(key)[0])
    k, sigma = theta.T
    on_slope = (times**2).sum() / sigma**2 if noise is Gaussian else 3.0 / (k * sigma) ** 2
    information = np.zeros((40, 2, 2))
    information[:, 0, 0], information[:, 1, 1] = on_slope, 6.0 / sigma**2
    expected = in_unit_coordinates(information, theta).mean(axis=0)
    # The solver's relative tolerance of 1e-6 on a solution that is linear in time.
    np.testing.assert_allclose(floor.per_parameter, expected, rtol=1e-6)


def test_observables_enter_by_the_chain_rule(key):
    """Reading g (k t)² with unknown gain g: derivatives 2 g k t² and (k t)²."""
    prior = dist.LogUniform(0.1, 10.0)
    space = ParameterSpace((Parameter("k", prior), Parameter("g", prior)))
    times = np.array([0.5, 1.0])
    model = ODEModel(_constant, np.zeros(1), times=times, states=("y",))
    sensors = Sensors(FixedTimes(times), ("signal",), observable=lambda y, theta: theta[1] * y**2)
    problem = InverseProblem("gain", space, model, sensors, Gaussian(0.2))
    floor = bayes_floor(problem, 40, key=key)
    theta = space.design(40, kind=Design.RANDOM, key=jr.split(key)[0])
    k, g = theta.T[:, :, None]
    rows = np.stack([2.0 * g * k * times**2, (k * times) ** 2], axis=1) / 0.2
    expected = in_unit_coordinates(rows @ np.swapaxes(rows, 1, 2), theta).mean(axis=0)
    # As above; inverting a nearly singular matrix magnifies the solver's error.
    np.testing.assert_allclose(floor.per_parameter, expected, rtol=1e-4)


def test_the_floor_is_reached_by_the_posterior_mean(key):
    """Its meaning: no estimate has a smaller mean squared error, and the best one has it."""
    problem = linear(Sensors(FixedTimes(LINEAR_TIMES[[1, 4, 9]])))
    z = np.asarray(jr.uniform(key, (4000, 2), minval=0.3, maxval=0.7), np.float64)
    rows = (LINEAR_TIMES[[1, 4, 9]][:, None, None] * SLOPES[None]).reshape(-1, 2) * WIDTH
    noise = LINEAR_NOISE * np.random.default_rng(0).normal(size=(4000, len(rows)))
    best = z + noise @ np.linalg.pinv(rows).T  # the posterior mean, far from the prior's ends
    mse = np.mean((best - z) ** 2)
    # 4 standard errors of 2 %; the floor's prior of variance 1/12 lowers it by 5 %.
    np.testing.assert_allclose(bayes_floor(problem, 2, key=key).parameter_mse, mse, rtol=0.13)


@pytest.mark.parametrize("cases", [1, 0, -3])
def test_too_few_cases_are_refused(cases, key):
    with refuses(ValueError, f"`cases` must be at least 2; got {cases}"):
        bayes_floor(linear_gaussian(), cases, key=key)


def test_noise_free_problems_are_refused(key):
    with refuses(ValueError, "`scale`"):
        bayes_floor(linear_gaussian(noise=0.0), 2, key=key)


def test_failed_solves_are_left_out(key):
    """y' = a y² has no solution at t = 1 where a > 1, half of this prior."""

    def square(t, y, theta):
        del t
        return theta[0] * y**2

    space = ParameterSpace((Parameter("a", dist.Uniform(0.0, 2.0)),))
    model = ODEModel(square, np.ones(1), times=np.array([0.5, 1.0]), states=("y",), max_steps=200)
    sensors = Sensors(RandomTimes(1))
    problem = InverseProblem("blow-up", space, model, sensors, Gaussian(0.1))
    floor = bayes_floor(problem, 32, key=key)
    assert 0 < floor.cases < 32
    assert 0.0 < floor.parameter_mse < 1.0 / 12.0
    hopeless = ParameterSpace((Parameter("a", dist.Uniform(2.5, 3.0)),))
    problem = InverseProblem("blow-up", hopeless, model, sensors, Gaussian(0.1))
    with refuses(ValueError, "No solve succeeded"):
        bayes_floor(problem, 2, key=key)


def test_the_same_key_gives_the_same_floor(key):
    first, second = (bayes_floor(linear_gaussian(), 100, key=key) for _ in range(2))
    assert first.parameter_mse == second.parameter_mse
    assert bayes_floor(linear_gaussian(), 100, key=jax.random.key(0)).parameter_mse != (
        first.parameter_mse
    )


def test_cases_do_not_depend_on_how_many_there_are(key):
    """More cases than are linearized together, fixed sensors: each case by itself."""
    problem = linear(Sensors(FixedTimes(LINEAR_TIMES[[1, 4, 9]])))
    thetas = problem.parameters.design(150, kind=Design.RANDOM, key=key)
    whole = laplace_covariances(problem, thetas, key=key)
    assert whole.shape == (150, 2, 2)
    last = laplace_covariances(problem, thetas[140:], key=key)
    # The solver's tolerance, 1e-6.
    np.testing.assert_allclose(whole[140:], last, rtol=1e-5)
