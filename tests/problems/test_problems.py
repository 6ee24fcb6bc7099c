"""Properties of every problem in the catalog."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inojax.noise import Gaussian
from inojax.solvers import SolveStatus
from tests.helpers import PROBLEMS
from tests.refuses import refuses

TABLE = pytest.mark.parametrize("build", PROBLEMS.values(), ids=PROBLEMS)

# Problems whose noise is a share of the shipped prior predictive spread.
STANDARDIZED = {name: PROBLEMS[name] for name in ("pollu", "robertson", "grn")}
# Unit coordinates at which to differentiate, where at the center of the prior nothing is left of
# a state (Boehm's dimers are below 1e-20 after 50 minutes).
PLACES = {"boehm": (0.35, 0.3, 0.3, 0.3, 0.6, 0.9, 0.5, 0.5, 0.5)}

# Problems whose noise has levels that are unknowns, and all others.
UNKNOWN_NOISE = {name: PROBLEMS[name] for name in ("lotka_volterra_log_normal", "boehm")}
KNOWN_NOISE = {name: build for name, build in PROBLEMS.items() if name not in UNKNOWN_NOISE}


@TABLE
def test_an_experiment_can_be_simulated_and_scored(build, key):
    problem = build()
    theta = problem.parameters.sample(1, key=key)[0]
    observation = problem.simulate(theta, key=key)
    assert observation.problem == problem.name == build.__name__
    assert observation.values.shape == (problem.sensors.size, len(problem.channels))
    whitened = problem.whitened_residual(theta, observation)
    # Mean square 1 with variance 2/n: six standard deviations.
    count = observation.size
    assert abs(np.sum(whitened**2) / count - 1.0) < 6.0 * np.sqrt(2.0 / count)
    assert np.isfinite(problem.log_posterior(theta, observation))


@TABLE
def test_observations_survive_a_file(build, key, tmp_path):
    problem = build(missing=0.2)
    observation = problem.simulate(problem.parameters.sample(1, key=key)[0], key=key)
    observation.to_csv(tmp_path / "a.csv")
    again = type(observation).from_csv(tmp_path / "a.csv", problem)
    present = observation.mask.any(axis=1)  # a row may have lost all its readings
    np.testing.assert_array_equal(again.values[again.mask], observation.values[observation.mask])
    assert np.isin(observation.times[present], again.times).all()


@TABLE
def test_gradient_of_solve_agrees_with_finite_differences(build):
    """Directional derivative of scaled final states along a direction in unit coordinates."""
    problem = build()
    model = problem.model.replace(rtol=1e-9, atol=1e-10 * np.asarray(problem.model.atol))
    times = problem.model.times[:12]
    z = np.array(PLACES.get(problem.name, (0.5,) * problem.parameters.size))
    direction = np.cos(np.arange(problem.parameters.size))
    with jax.enable_x64(True):

        def states(z):
            return jnp.asarray(model.solve(problem.parameters.from_unit(z), times).states)[1:]

        z, direction = jnp.asarray(z), jnp.asarray(direction)
        scale = jnp.abs(states(z)) + 1e-30
        weights = jnp.cos(jnp.arange(scale.size, dtype=float)).reshape(scale.shape)

        def loss(z):
            return jnp.sum(weights * states(z) / scale)

        gradient = jnp.dot(jax.jit(jax.grad(loss))(z), direction)
        h = 1e-4
        numeric = (loss(z + h * direction) - loss(z - h * direction)) / (2.0 * h)
    # Steps chosen differently on either side leave noise of rtol / h = 1e-5 per entry.
    np.testing.assert_allclose(gradient, numeric, rtol=1e-3)


@TABLE
def test_prior_draws_can_be_solved(build, key):
    problem = build()
    solution = problem.model.solve_ensemble(problem.parameters.design(128, key=key))
    assert (solution.status == SolveStatus.SUCCESS).all()
    assert np.isfinite(solution.states).all()


@TABLE
def test_arguments_reach_the_sensors(build):
    assert build(readings=7, missing=0.5).sensors.size == 7
    assert build(missing=0.5).sensors.missing == 0.5
    with refuses(ValueError, "`missing`"):
        build(missing=1.0)
    with refuses(ValueError, "`readings`"):
        build(readings=0)
    most = build().model.times.size
    assert build(readings=most).sensors.size == most
    for readings in (most + 1, 2.5, True):
        with refuses(ValueError, "`readings`"):
            build(readings=readings)


@pytest.mark.parametrize("build", KNOWN_NOISE.values(), ids=KNOWN_NOISE)
def test_arguments_reach_the_noise(build):
    noise = build(noise=0.0).noise
    assert np.max(getattr(noise, "inner", noise).scale) == 0.0
    with refuses(ValueError, "`noise`"):
        build(noise=-1.0)


@pytest.mark.parametrize("build", UNKNOWN_NOISE.values(), ids=UNKNOWN_NOISE)
def test_unknown_levels_are_parameters(build):
    problem = build()
    assert len(problem.noise.scale) == len(problem.channels)
    assert problem.parameters.names[-len(problem.channels) :] == problem.noise.scale


@pytest.mark.parametrize("build", STANDARDIZED.values(), ids=STANDARDIZED)
def test_shipped_spread_is_the_prior_predictive_one(build, key):
    problem = build(noise=1.0)
    assert isinstance(problem.noise, Gaussian)
    states = problem.model.solve_ensemble(problem.parameters.design(4096, key=key)).states
    squares = ((states - states.mean(axis=(0, 1))) ** 2).mean(axis=1)
    spread = np.sqrt(squares.mean(axis=0))
    # Standard error of a standard deviation over independent draws; an even design errs less.
    # Four of them, for the shipped numbers come from such a sample too.
    error = squares.std(axis=0) / (2.0 * spread * np.sqrt(len(states)))
    difference = np.abs(np.array(problem.noise.scale) - spread)
    assert (difference < 4.0 * error).all()
    # Or the comparison would say little; the rarely large B of Robertson is the worst, 3.6 %.
    assert (error < 0.05 * spread).all()
