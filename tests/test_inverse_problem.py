"""The inverse problem, on a model whose solution is known: exponential decay."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from inojax._inverse_problem import InverseProblem
from inojax._observation import Observation
from inojax._parameters import Parameter, ParameterSpace
from inojax._sensors import FixedTimes, RandomTimes, Sensors
from inojax.models import ODEModel
from inojax.noise import Gaussian
from tests.refuses import refuses

TIMES = np.linspace(0.25, 5.0, 20)
THETA = np.array([0.7, 1.3])
SCALES = (0.05, 0.2)


def decay(t, y, theta):
    del t
    return -theta * y


def problem(sensors=None, noise=None, **changes) -> InverseProblem:
    parts = {
        "name": "decay",
        "parameters": ParameterSpace(
            tuple(Parameter(n, dist.LogUniform(0.1, 10.0), "1/s") for n in ("a", "b"))
        ),
        "model": ODEModel(
            decay, np.array([1.0, 2.0]), times=TIMES, states=("x", "y"), rtol=1e-10, atol=1e-12
        ),
        "sensors": sensors or Sensors(RandomTimes(2, 4), channels=("y", "x")),
        "noise": noise or Gaussian(SCALES),
    }
    return InverseProblem(**(parts | changes))


def exact(times, theta=THETA):
    """Channels in the order y, x."""
    x, y = np.exp(-theta[0] * times), 2.0 * np.exp(-theta[1] * times)
    return np.stack([y, x], axis=1)


@pytest.fixture
def observation() -> Observation:
    times = np.array([0.0, 0.1, 1.0, 4.9])
    values = exact(times) + 0.1
    values[1, 0] = np.nan
    return Observation.from_arrays(times, values, problem=problem())


def test_channels_follow_the_sensors():
    assert problem().channels == ("y", "x")
    assert problem().channel_index == (1, 0)
    everything = problem(Sensors(RandomTimes(1)))
    assert everything.channels == ("x", "y")
    assert everything.channel_index == (0, 1)


def test_simulate_reads_the_solution(key):
    perfect = problem(noise=Gaussian(0.0)).simulate(THETA, key=key)
    assert isinstance(perfect.values, np.ndarray)
    assert perfect.values.dtype == perfect.times.dtype == np.float64
    assert perfect.problem == "decay"
    assert np.isin(perfect.times, TIMES).all()
    # The solver's relative tolerance of 1e-10, a hundred steps long.
    expected = np.where(perfect.mask, exact(perfect.times), 0.0)
    np.testing.assert_allclose(perfect.values, expected, rtol=1e-8)


def test_simulated_noise_has_its_scale(key):
    setting = problem(Sensors(FixedTimes(TIMES), channels=("y", "x")))
    keys = jr.split(key, 200)
    trajectory = jnp.asarray(exact(TIMES)[:, ::-1])
    values = jax.vmap(lambda k: setting.observe(trajectory, THETA, key=k).values)(keys)
    scatter = np.asarray(values - exact(TIMES)[None]).std(axis=(0, 1))
    # 4,000 draws: relative standard deviation of a standard deviation 1.1 %.
    np.testing.assert_allclose(scatter, SCALES, rtol=0.06)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_observe_is_pure_and_keeps_the_precision(dtype, key):
    setting = problem(Sensors(RandomTimes(2, 4), missing=0.2))
    with jax.enable_x64(dtype == jnp.float64):
        trajectories = jnp.ones((8, 20, 2), dtype)
        thetas = jnp.ones((8, 2), dtype)
        draw = jax.jit(jax.vmap(lambda y, p, k: setting.observe(y, p, key=k)))
        batch = draw(trajectories, thetas, jr.split(key, 8))
    assert batch.values.dtype == batch.times.dtype == dtype
    assert batch.values.shape == batch.mask.shape == (8, 4, 2)
    values, mask = np.asarray(batch.values), np.asarray(batch.mask)
    assert (values[~mask] == 0.0).all()
    assert (values[mask] != 1.0).all()
    assert (np.diff(batch.times, axis=1) >= 0).all()


def test_predict_solves_at_the_observations_own_times(observation):
    setting = problem()
    predicted = setting.predict(THETA, observation)
    assert isinstance(predicted, np.ndarray)
    # The solver's relative tolerance of 1e-10, a hundred steps long.
    np.testing.assert_allclose(predicted, exact(observation.times), rtol=1e-8)
    padded = setting.predict(THETA, observation.padded(7))
    np.testing.assert_allclose(padded[:4], predicted, rtol=1e-14)
    np.testing.assert_array_equal(padded[4:], np.repeat(padded[3:4], 3, axis=0))


def test_densities_are_scipys(observation):
    setting = problem()
    residual = np.where(observation.mask, observation.values - exact(observation.times), 0.0)
    whitened = setting.whitened_residual(THETA, observation)
    # Solver error 1e-8 against residuals of 0.1.
    np.testing.assert_allclose(whitened, residual / SCALES, atol=1e-6)
    densities = st.norm(0.0, SCALES).logpdf(residual)
    expected = np.where(observation.mask, densities, 0.0).sum()
    prior = -2.0 * np.log(np.log(100.0)) - np.log(THETA).sum()
    for observed in (observation, observation.padded(9)):
        np.testing.assert_allclose(setting.log_likelihood(THETA, observed), expected, rtol=1e-6)
        posterior = setting.log_posterior(THETA, observed)
        np.testing.assert_allclose(posterior, expected + prior, rtol=1e-6)


def test_no_posterior_density_outside_the_prior(observation):
    assert problem().log_posterior(np.array([0.7, 11.0]), observation) == -np.inf


def test_gradients_of_the_posterior(observation):
    setting, observed = problem(), observation.padded(6)
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(setting.log_posterior))(jnp.asarray(THETA), observed)
    h = 1e-4
    numeric = [
        (
            setting.log_posterior(THETA + h * e, observed)
            - setting.log_posterior(THETA - h * e, observed)
        )
        / (2 * h)
        for e in np.eye(2)
    ]
    # Central differences: h² times third derivatives of order 10, and solver error 1e-9 / h.
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5)


def test_single_precision_inside_a_transformation_is_refused(observation):
    with refuses(RuntimeError, "64-bit"):
        jax.grad(problem().log_posterior)(jnp.asarray(THETA, jnp.float32), observation)


def test_a_failed_solve_is_an_error_of_simulate(key):
    def blow_up(t, y, theta):
        del t
        return theta[:1] * y**2

    parameters = ParameterSpace((Parameter("a", dist.Uniform(0.0, 2.0)),))
    model = ODEModel(blow_up, np.ones(1), times=np.array([2.0]), states=("y",))
    setting = InverseProblem("blow_up", parameters, model, Sensors(RandomTimes(1)), Gaussian(0.1))
    with refuses(RuntimeError, "`theta`. The solve used up its steps"):
        setting.simulate(np.array([1.0]), key=key)


BAD_PARTS = {
    "name": ({"name": " "}, ValueError, "`name`"),
    "sensors type": ({"sensors": RandomTimes(1)}, TypeError, "`sensors`.*`Sensors`.*RandomTimes"),
    "parameters type": ({"parameters": ()}, TypeError, "`parameters`.*`ParameterSpace`.*tuple"),
    "channel": (
        {"sensors": Sensors(RandomTimes(1), channels=("z",))},
        ValueError,
        r"`sensors`.*\['z'\].*x, y",
    ),
    "times": ({"sensors": Sensors(FixedTimes([0.3]))}, ValueError, r"`times`.*\[0.3\]"),
    "too many times": ({"sensors": Sensors(RandomTimes(21))}, ValueError, "21 distinct times"),
    "noise": ({"noise": Gaussian([1.0, 2.0, 3.0])}, ValueError, "`scale`.*2 channels"),
}


@pytest.mark.parametrize(("changes", "error", "match"), BAD_PARTS.values(), ids=BAD_PARTS)
def test_parts_that_do_not_fit_are_refused(changes, error, match):
    with refuses(error, match):
        problem(**changes)


def test_foreign_input_is_refused(observation, key):
    setting = problem()
    renamed = problem(name="other")
    with refuses(ValueError, "`observation` belongs to problem 'decay', not 'other'"):
        renamed.log_likelihood(THETA, observation)
    with refuses(ValueError, r"`observation` has channels \('y', 'x'\)"):
        problem(Sensors(RandomTimes(1))).predict(THETA, observation)
    with refuses(TypeError, "`observation`.*ndarray"):
        setting.predict(THETA, np.ones(3))
    with refuses(ValueError, r"`observation`.*batch of shape \(2,\)"):
        setting.predict(THETA, jax.tree.map(lambda x: np.stack([x, x]), observation))
    for action in (
        lambda theta: setting.simulate(theta, key=key),
        lambda theta: setting.whitened_residual(theta, observation),
    ):
        with refuses(ValueError, r"`theta`.*2 parameters.*\(3,\)"):
            action(np.ones(3))
