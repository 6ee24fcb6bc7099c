"""The inverse problem, on a model whose solution is known: exponential decay."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from inojax import ODEModel
from inojax._inverse_problem import InverseProblem
from inojax._observation import Observation
from inojax._parameters import Parameter, ParameterSpace
from inojax._sensors import FixedTimes, RandomTimes, Sensors
from inojax.noise import Gaussian, LogNormal
from inojax.problems import scalar_poisson
from tests.refuses import refuses

pytestmark = pytest.mark.usefixtures("compiled_quickly")

TIMES = np.linspace(0.25, 5.0, 20)
THETA = np.array([0.7, 1.3])
SCALES = (0.05, 0.2)


def decay(t, y, theta):
    del t
    return -theta[:2] * y


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


def test_unknowns_of_noise_observable_and_start_are_told_apart():
    """The fourth parameter is used by the start alone, the third by the observable alone."""
    space = ParameterSpace(
        tuple(Parameter(n, dist.LogUniform(0.1, 10.0)) for n in ("a", "b", "gain", "y0", "sigma"))
    )
    model = ODEModel(
        decay, lambda theta: jnp.stack([theta[3], theta[3]]), times=TIMES, states=("x", "y")
    )
    sensors = Sensors(
        RandomTimes(2), channels=("signal",), observable=lambda y, theta: theta[2] * y[:1]
    )
    whole = InverseProblem("decay", space, model, sensors, Gaussian("sigma"))
    np.testing.assert_array_equal(whole.observation_parameters, [False, False, True, False, True])
    assert not problem().observation_parameters.any()


def test_an_equation_in_space_is_taken_to_use_all_parameters():
    assert not scalar_poisson().observation_parameters.any()


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
    with refuses(RuntimeError, "`theta`. The step size fell.*finite-time blow-up"):
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
    "noise type": ({"noise": 0.1}, TypeError, "`noise`.*`AbstractNoise`.*float"),
    "level": ({"noise": Gaussian("sigma")}, ValueError, "`scale`.*'sigma'.*they are a, b"),
    "observable": (
        {"sensors": Sensors(RandomTimes(1), ("s", "t"), observable=lambda y, theta: y[:1])},
        ValueError,
        r"`observable`.*s, t, shape \(2,\); got shape \(1,\)",
    ),
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
        with refuses(ValueError, r"`theta`.*2 parameters a, b; got shape \(3,\)"):
            action(np.ones(3))
        with refuses(TypeError, r"`problem.parameters.from_dict\(theta\)`"):
            action({"a": 1.0, "b": 1.0})


# --- Levels of noise that are unknowns -------------------------------------------------------

LEVELS = ("sigma_y", "sigma_x")
ALL = np.array([*THETA, 0.2, 0.05])


def with_levels(noise) -> InverseProblem:
    names = ("a", "b", "sigma_x", "sigma_y")
    space = ParameterSpace(tuple(Parameter(n, dist.LogUniform(0.01, 10.0)) for n in names))
    return problem(parameters=space, noise=noise)


DENSITIES = {
    "Gaussian": (Gaussian, st.norm),
    "LogNormal": (LogNormal, lambda clean, levels: st.lognorm(levels, scale=clean)),
}
NOISE = pytest.mark.parametrize(("noise", "density"), DENSITIES.values(), ids=DENSITIES)


@NOISE
def test_unknown_levels_enter_the_density(noise, density, observation):
    setting, levels = with_levels(noise(LEVELS)), (0.05, 0.2)  # of the channels y and x
    expected = density(exact(observation.times), levels).logpdf(observation.values)
    expected = np.where(observation.mask, expected, 0.0).sum()
    for observed in (observation, observation.padded(9)):
        # Solver error 1e-8.
        np.testing.assert_allclose(setting.log_likelihood(ALL, observed), expected, rtol=1e-6)
    known = with_levels(noise(levels))
    np.testing.assert_array_equal(
        setting.whitened_residual(ALL, observation), known.whitened_residual(ALL, observation)
    )


@NOISE
def test_gradients_with_unknown_levels(noise, density, observation):
    """Of the density, and of whitened residuals, which padding with zeros must not spoil."""
    del density
    setting, observed = with_levels(noise(LEVELS)), observation.padded(6)

    def both(theta):
        squares = jnp.square(jnp.asarray(setting.whitened_residual(theta, observed)))
        return jnp.stack([setting.log_posterior(theta, observed), jnp.sum(squares)])

    with jax.enable_x64(True):
        slopes = jax.jit(jax.jacrev(both))(jnp.asarray(ALL))
        value = jax.jit(both)
        h = 1e-5
        numeric = [(value(ALL + h * e) - value(ALL - h * e)) / (2 * h) for e in np.eye(4)]
    # Central differences: h² times third derivatives over σ³, and solver error 1e-9 / h.
    np.testing.assert_allclose(slopes, np.array(numeric).T, rtol=1e-4)


def test_replaced_parameters_move_the_levels(observation):
    setting = with_levels(Gaussian(LEVELS))
    turned = dataclasses.replace(
        setting, parameters=ParameterSpace(setting.parameters.parameters[::-1])
    )
    # The model takes its rates by position, so only the levels can be compared.
    with jax.enable_x64(True):
        scales = [
            p.noise.log_scale(exact(TIMES), theta)
            for p, theta in ((setting, ALL), (turned, ALL[::-1]))
        ]
    np.testing.assert_array_equal(*scales)


def test_readings_that_cannot_be_are_refused(observation):
    setting = with_levels(LogNormal(LEVELS))
    spoiled = dataclasses.replace(observation, values=observation.values - 0.5)
    with refuses(ValueError, "`observation` row 3, channel 'y': reading -0.*greater than zero"):
        setting.log_likelihood(ALL, spoiled)
    masked = dataclasses.replace(observation, mask=observation.mask & (spoiled.values > 0.0))
    masked = dataclasses.replace(masked, values=np.where(masked.mask, spoiled.values, 0.0))
    assert np.isfinite(setting.log_likelihood(ALL, masked))


# --- Observables -----------------------------------------------------------------------------


def signals(y, theta):
    return jnp.stack([theta[1] * jnp.log(y[1]), y[0] * y[1], y[0]])


def with_observable(**changes) -> InverseProblem:
    sensors = Sensors(RandomTimes(2, 4), ("gain", "product", "x"), observable=signals)
    return problem(sensors, Gaussian(0.1), **changes)


def exact_signals(times):
    y, x = exact(times).T
    return np.stack([THETA[1] * np.log(y), x * y, x], axis=1)


def test_observables_are_read(key):
    setting = with_observable()
    assert setting.channels == ("gain", "product", "x")
    observation = Observation.from_arrays([0.3, 2.0], np.ones((2, 3)), problem=setting)
    # The solver's relative tolerance of 1e-10, a hundred steps long.
    expected = exact_signals(observation.times)
    np.testing.assert_allclose(setting.predict(THETA, observation), expected, rtol=1e-7, atol=1e-8)
    density = st.norm(expected, 0.1).logpdf(1.0).sum()
    np.testing.assert_allclose(setting.log_likelihood(THETA, observation), density, rtol=1e-6)
    perfect = dataclasses.replace(setting, noise=Gaussian(0.0)).simulate(THETA, key=key)
    expected = np.where(perfect.mask, exact_signals(perfect.times), 0.0)
    np.testing.assert_allclose(perfect.values, expected, rtol=1e-7, atol=1e-8)


def test_gradients_pass_through_observables():
    setting = with_observable()
    observation = Observation.from_arrays([0.3, 2.0], np.ones((2, 3)), problem=setting)
    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(setting.log_likelihood))(jnp.asarray(THETA), observation)
    h = 1e-5
    numeric = [
        (
            setting.log_likelihood(THETA + h * e, observation)
            - setting.log_likelihood(THETA - h * e, observation)
        )
        / (2 * h)
        for e in np.eye(2)
    ]
    # Central differences, and solver error 1e-9 / h.
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4)


def test_an_observable_may_be_singular_where_nothing_is_read():
    def logarithm(y, theta):
        del theta
        return jnp.log(y[:1])

    def grow(t, y, theta):
        del t
        return theta - y

    model = ODEModel(grow, np.zeros(2), times=np.append(0.0, TIMES), states=("x", "y"))
    sensors = Sensors(RandomTimes(2), ("log",), observable=logarithm)
    setting = problem(sensors, Gaussian(0.1), model=model)
    values = np.array([[np.nan], [-1.0]])
    observation = Observation.from_arrays([0.0, 1.0], values, problem=setting).padded(4)
    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(setting.log_likelihood)(
            jnp.asarray(THETA), observation
        )
    exact_value = st.norm(np.log(THETA[0] * (1.0 - np.exp(-1.0))), 0.1).logpdf(-1.0)
    np.testing.assert_allclose(value, exact_value, rtol=1e-5)
    # d log(a (1 - 1/e)) / da = 1 / a, whatever the masked rows are.
    residual = -1.0 - np.log(THETA[0] * (1.0 - np.exp(-1.0)))
    np.testing.assert_allclose(gradient, [residual / 0.01 / THETA[0], 0.0], rtol=1e-4)


@pytest.mark.parametrize("batch", [(), (3,)], ids=str)
def test_read_picks_states_to_the_bit(batch):
    states = np.random.default_rng(0).normal(size=(*batch, 20, 2))
    read = problem().read(states, np.ones((*batch, 2)))
    np.testing.assert_array_equal(read, states[..., [1, 0]])


def test_channels_that_are_no_states_have_no_place_among_them():
    with refuses(
        ValueError, "gain, product, x of problem 'decay'.*`observable`.*`InverseProblem.read`"
    ):
        _ = with_observable().channel_index


def by_hand(times, **changes) -> Observation:
    """Readings of the channels y and x without the checks of `from_arrays`."""
    times = np.asarray(times)
    values = exact(np.clip(times, 0.0, 5.0)) + 0.1
    parts = {"values": values, "mask": np.ones(values.shape, bool)} | changes
    return Observation(times, parts["values"], parts["mask"], ("y", "x"))


@pytest.mark.parametrize("towards", [-np.inf, np.inf])
def test_observations_by_hand_may_miss_the_ends_by_rounding(towards):
    """One is read before the start, where no solver goes."""
    times = np.array([0.0, 1.0, 5.0])
    off = np.nextafter(times, towards)
    expected = problem().log_likelihood(THETA, by_hand(times))
    np.testing.assert_allclose(problem().log_likelihood(THETA, by_hand(off)), expected, rtol=1e-9)
    np.testing.assert_allclose(problem().predict(THETA, by_hand(off)), exact(times), rtol=1e-8)


def test_observations_by_hand_are_checked():
    for wrong in ([-1e-3, 1.0], [1.0, 5.001]):
        with refuses(ValueError, r"`observation` has times outside of \[0.0, 5.0\]"):
            problem().log_likelihood(THETA, by_hand(wrong))
    for wrong in ([2.0, 1.0], [np.nan, 1.0]):
        with refuses(ValueError, "times that are NaN or decrease.*`Observation.from_arrays`"):
            problem().predict(THETA, by_hand(wrong))
    values = exact(np.array([1.0, 2.0]))
    values[1, 0] = np.nan
    with refuses(ValueError, "`observation` row 1, channel 'y': the reading is NaN.*`mask`"):
        problem().log_likelihood(THETA, by_hand([1.0, 2.0], values=values))
    # Rows without readings may lie anywhere: nothing is compared there.
    mask = np.array([[True, True], [False, False]])
    assert np.isfinite(problem().log_likelihood(THETA, by_hand([1.0, 9.0], mask=mask)))
