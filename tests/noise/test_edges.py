"""Where what is read is zero, or pushed below it by rounding: no own reading is impossible."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.special
import scipy.stats as st

import inojax as ij
from inojax._linearization import linearize
from inojax.noise import AR1, Gaussian, LogNormal, Poisson
from tests.refuses import refuses

pytestmark = pytest.mark.usefixtures("compiled_quickly")

TIMES = np.array([0.0, 0.5, 1.0, 2.0, 4.0])
THETA = np.array([3.0, 0.3])
STATES = ("rise", "decay", "below")
NOISES = {
    "gaussian": Gaussian(0.2),
    "gaussian_unknown": Gaussian("sigma"),
    "log_normal": LogNormal(0.4),
    "log_normal_unknown": LogNormal("sigma"),
    "log_normal_per_channel": LogNormal((0.2, "sigma", 0.4)),
    "poisson": Poisson(),
    "poisson_exposure": Poisson(1e3),
    "ar1": AR1(Gaussian(0.2), 0.7, step=1.0),
    "ar1_log_normal": AR1(LogNormal("sigma"), 0.7, step=1.0),
}
SENSORS = {
    "all": ij.Sensors(ij.FixedTimes(TIMES)),
    "some": ij.Sensors(ij.RandomTimes(1, 5), missing=0.4),
}


def field(t, y, theta):
    del t
    return jnp.stack([theta[0] + 0.0 * y[0], -15.0 * theta[0] * y[1], 0.0 * y[2]])


def clean(times):
    """The solution: zero at the start, of 1e-78 at the end, and below zero by rounding."""
    t = np.asarray(times)[:, None]
    return np.concatenate([THETA[0] * t, np.exp(-15.0 * THETA[0] * t), -1e-14 * t**0], axis=1)


def problem_of(noise, sensors, observable=None):
    priors = (
        ij.Parameter("k", dist.LogUniform(0.3, 30.0)),
        ij.Parameter("sigma", dist.Uniform(0.1, 1)),
    )
    model = ij.ODEModel(field, np.array([0.0, 1.0, -1e-14]), times=TIMES, states=STATES)
    if observable is not None:
        sensors = ij.Sensors(sensors.times, STATES, sensors.missing, observable)
    return ij.InverseProblem("edges", ij.ParameterSpace(priors), model, sensors, noise)


def sure_or(density, readings, means):
    """Log densities; a reading of zero where nothing else can be has probability 1."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((readings == 0.0) & (means == 0.0), 0.0, density)


def expected(name, observation):
    """Log likelihood by SciPy, at the clean values without the solver's errors."""
    y, mask, means = observation.values, observation.mask, np.maximum(clean(observation.times), 0.0)
    level = {"log_normal": 0.4, "log_normal_per_channel": np.array([0.2, 0.3, 0.4])}.get(name, 0.3)
    if name.startswith("poisson"):
        rates = means * NOISES[name].exposure
        each = scipy.special.xlogy(y, rates) - rates - scipy.special.gammaln(y + 1.0)
    elif name.startswith("log_normal"):
        each = sure_or(st.lognorm(level, scale=np.maximum(means, 1e-300)).logpdf(y), y, means)
    else:
        each = st.norm(means, 0.2 if name == "gaussian" else 0.3).logpdf(y)
    return np.where(mask, each, 0.0).sum()


def dense(observation, distance, level):
    """Log density of distances that are correlated in time, those left out integrated over."""
    total = 0.0
    for channel, mask in enumerate(observation.mask.T):
        t = observation.times[mask]
        covariance = level**2 * 0.7 ** np.abs(t[:, None] - t[None, :])
        if len(t):
            total += st.multivariate_normal(np.zeros(len(t)), covariance).logpdf(
                distance[mask, channel]
            )
    return total


CASES = [(name, "all") for name in NOISES]
CASES += [(name, "some") for name in ("log_normal_unknown", "poisson", "ar1_log_normal")]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def simulated(request):
    name, sensors = request.param
    problem = problem_of(NOISES[name], SENSORS[sensors])
    return name, problem, problem.simulate(THETA, key=jr.key(3))


def test_own_simulations_are_possible(simulated):
    """At the truth, to a tolerance above the solver's errors: 1e-6 of ten terms."""
    name, problem, observation = simulated
    density = problem.log_likelihood(THETA, observation)
    if name == "ar1":
        right = dense(observation, observation.values - clean(observation.times), 0.2)
    elif name == "ar1_log_normal":
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(observation.values)
            distance = logs - np.log(clean(observation.times))
        right = dense(observation, distance, 0.3) - logs[observation.mask].sum()
    else:
        right = expected(name, observation)
    np.testing.assert_allclose(density, right, rtol=1e-5, atol=1e-4)
    assert problem.impossible(THETA, observation) == ""


def test_what_follows_from_them_is_finite(simulated):
    _, problem, observation = simulated
    with jax.enable_x64(True):
        solution, tangents = problem.model.sensitivities(THETA[None], observation.times)
        states, columns = jnp.asarray(solution.states)[0], jnp.asarray(tangents)[0]
        line = linearize(problem, observation, jnp.asarray(THETA), states, columns, jnp.eye(2))

        def density(theta, states):
            readings, mask = observation.values, observation.mask
            read = jnp.asarray(problem.read(states, theta))
            return problem.noise.log_prob(readings, read, theta, mask, times=observation.times)

        by_theta, by_states = jax.grad(density, (0, 1))(jnp.asarray(THETA), states)
        slope = by_theta + jnp.einsum("rs,rsp->p", by_states, columns)
        gradient, fisher = line.gradient, line.fisher
    for leaf in (*line[:4], fisher, by_theta, by_states):
        assert np.isfinite(leaf).all()
    # The same derivative on two ways, of terms of up to 1e4.
    np.testing.assert_allclose(gradient, -slope, rtol=1e-8, atol=1e-8)


def test_their_files_read_back(simulated, tmp_path):
    _, problem, observation = simulated
    observation.to_csv(tmp_path / "a.csv")
    again = ij.Observation.from_csv(tmp_path / "a.csv", problem)
    assert again.size == observation.size
    assert problem.log_likelihood(THETA, again) == problem.log_likelihood(THETA, observation)


@pytest.mark.parametrize("noise", [LogNormal(0.4), Poisson()], ids=["log_normal", "poisson"])
def test_observables_at_the_edge(noise):
    """A gain does not know of zero, and one that falls short of it by rounding neither."""
    gain = problem_of(noise, SENSORS["all"], lambda y, theta: theta[1] * y)
    observation = gain.simulate(THETA, key=jr.key(1))
    assert np.isfinite(gain.log_likelihood(THETA, observation))
    assert gain.impossible(THETA, observation) == ""


def test_a_log_normal_reading_of_zero_is_missing():
    problem = problem_of(LogNormal(0.4), SENSORS["all"])
    observation = problem.simulate(THETA, key=jr.key(0))
    # The start, where one rises; the other is 5e-10 and 3e-20 of its start at 0.5 and 1.
    np.testing.assert_array_equal(observation.mask[:, 0], [False, True, True, True, True])
    np.testing.assert_array_equal(observation.mask[:, 1], [True, False, False, False, False])
    assert not observation.mask[:, 2].any()
    nothing = problem_of(LogNormal(0.4), ij.Sensors(ij.FixedTimes([0.0]), ("rise", "below")))
    with refuses(ValueError, "`theta`.*predicts zero.*`LogNormal` noise has no reading"):
        nothing.simulate(THETA, key=jr.key(0))


@pytest.mark.parametrize("noise", [LogNormal(0.4), Poisson()], ids=["log_normal", "poisson"])
def test_what_is_truly_negative_cannot_be_simulated(noise):
    problem = problem_of(noise, SENSORS["all"], lambda y, theta: y - 5.0)
    with refuses(ValueError, "`theta`: the model predicts -5 for channel 'rise' at time 0,"):
        problem.simulate(THETA, key=jr.key(0))


@pytest.mark.parametrize(
    ("noise", "value"), [(Poisson(), 3.0), (LogNormal(0.3), 0.7)], ids=["poisson", "log_normal"]
)
def test_an_impossible_reading_is_named(noise, value):
    problem = problem_of(noise, SENSORS["all"])
    values = np.where(np.arange(3) == 0, [[0.0], [2.0], [3.0], [6.0], [12.0]], np.nan)
    values[0, 0] = np.nan
    fine = ij.Observation.from_arrays(TIMES, values, problem=problem)
    values[0, 0] = value
    wrong = ij.Observation.from_arrays(TIMES, values, problem=problem)
    assert problem.impossible(THETA, fine) == ""
    assert problem.log_likelihood(THETA, wrong) == -np.inf
    message = problem.impossible(THETA, wrong)
    assert f"`{type(noise).__name__}` noise of problem 'edges'" in message
    assert f"row 0, channel 'rise' at time 0 is {value:g}, but the model predicts 0." in message
    assert problem_of(Gaussian(0.0), SENSORS["all"]).impossible(THETA, fine) == ""


def test_a_failed_solve_is_not_impossible_readings():
    problem = problem_of(Poisson(), SENSORS["all"])
    observation = problem.simulate(THETA, key=jr.key(0))
    short = ij.InverseProblem(
        "edges",
        problem.parameters,
        problem.model.replace(max_steps=1),
        problem.sensors,
        problem.noise,
    )
    assert np.isnan(short.log_likelihood(THETA, observation))
    assert short.impossible(THETA, observation) == ""


# --- Noise alone --------------------------------------------------------------------------


@pytest.mark.parametrize(("below", "unit"), [(-1e-14, 1e-12), (0.0, 1.0), (-1e-14, 1e12)])
def test_rounding_is_relative_to_the_size_of_the_channel(below, unit):
    rates = unit * np.array([[below], [5.0], [10.0], [20.0]])
    counts = np.array([[0.0], [5.0], [11.0], [15.0]])
    with jax.enable_x64(True):
        density = Poisson(1.0 / unit).log_prob(counts, rates, THETA)
        logs = LogNormal(0.1).log_prob(unit * counts, rates, THETA)
        drawn = np.asarray(LogNormal(0.1).sample(rates, THETA, key=jr.key(0)))
    np.testing.assert_allclose(density, -6.877461284081957, rtol=1e-12)
    right = st.lognorm(0.1, scale=rates[1:]).logpdf(unit * counts[1:]).sum()
    np.testing.assert_allclose(logs, right, rtol=1e-12)
    assert drawn[0, 0] == 0.0


@pytest.mark.parametrize("noise", [LogNormal(0.1), Poisson(2.0)], ids=["log_normal", "poisson"])
def test_truly_negative_predictions_are_impossible(noise):
    predicted = np.array([[-1e-3], [5.0]])
    with jax.enable_x64(True):
        for reading in (0.0, 1.0):
            readings = np.array([[reading], [5.0]])
            assert noise.log_prob(readings, predicted, THETA) == -np.inf
            assert noise.whiten(readings, predicted, THETA)[0, 0] == np.inf


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_slopes_at_a_rate_of_zero(dtype):
    """The density of no count is exp(-m): its slope is -1 everywhere, by residuals as well."""
    counts, rates = np.zeros((2, 1)), np.array([[0.0], [1e-30]])
    with jax.enable_x64(True):
        values = jnp.asarray(rates, dtype)
        slope = jax.grad(lambda r: Poisson().log_prob(counts.astype(dtype), r, THETA))(values)
        residual, pull = jax.vjp(lambda r: Poisson().whiten(counts.astype(dtype), r, THETA), values)
        (by_residual,) = pull(residual)
    np.testing.assert_array_equal(slope, -1.0)
    # The square root of single precision's 6e-8, at worst.
    np.testing.assert_allclose(by_residual, 1.0, rtol=1e-6)
    np.testing.assert_allclose(residual, 0.0, atol=2e-8)


def test_a_sure_zero_says_nothing_about_its_neighbors():
    """Correlated log-normal readings behind a zero are those without it."""
    noise = AR1(LogNormal(0.3), 0.8, step=1.0)
    predicted = np.array([[1.0], [0.0], [2.0], [3.0]])
    readings = np.array([[1.2], [0.0], [1.7], [3.3]])
    rest = [0, 2, 3]
    times = np.array([0.0, 1.0, 2.0, 4.0])
    with jax.enable_x64(True):
        whole = noise.log_prob(readings, predicted, THETA, times=times)
        parts = noise.log_prob(readings[rest], predicted[rest], THETA, times=times[rest])
        whitened = noise.whiten(readings, predicted, THETA, times=times)
        fewer = noise.whiten(readings[rest], predicted[rest], THETA, times=times[rest])
        scale = noise.log_scale(predicted, THETA, times=times)
    whitened, scale = np.asarray(whitened), np.asarray(scale)
    np.testing.assert_allclose(whole, parts, rtol=1e-14)
    np.testing.assert_allclose(whitened[rest], fewer, rtol=1e-14)
    assert whitened[1, 0] == scale[1, 0] == 0.0


# --- A fit --------------------------------------------------------------------------------


def test_least_squares_on_counts_that_start_at_zero():
    """The rate 5 k t of four counts, beside the posterior on a fine grid."""
    times, counts = np.array([0.0, 1.0, 2.0, 4.0]), np.array([0.0, 5.0, 11.0, 15.0])
    problem = ij.InverseProblem(
        "n",
        ij.ParameterSpace((ij.Parameter("k", dist.LogUniform(0.1, 10.0)),)),
        ij.ODEModel(
            lambda t, y, th: 0.0 * y + 5.0 * th[0], np.zeros(1), times=times, states=("n",)
        ),
        ij.Sensors(ij.FixedTimes(times)),
        Poisson(),
    )
    observation = ij.Observation.from_arrays(times, counts, problem=problem)
    np.testing.assert_allclose(
        problem.log_likelihood(np.ones(1), observation), -6.877461284081957, rtol=1e-9
    )
    method = ij.methods.LeastSquares(starts=2, draws=512)
    estimate = method.fit(problem, key=jr.key(1))(observation, key=jr.key(2))
    assert estimate.status == 0
    log_k = np.linspace(np.log(0.1), np.log(10.0), 4001)
    means = 5.0 * np.exp(log_k)[:, None] * times
    weight = np.exp(scipy.special.xlogy(counts, means).sum(1) - means.sum(1) - 31.0 * np.log(4.0))
    weight /= weight.sum()
    mean = weight @ np.exp(log_k)
    spread = np.sqrt(weight @ (np.exp(log_k) - mean) ** 2)
    # Five standard errors of 512 resampled draws, which hold a few less of their own.
    assert abs(np.mean(estimate.samples) - mean) < 5.0 * spread / np.sqrt(300.0)
    assert abs(np.std(estimate.samples) / spread - 1.0) < 5.0 / np.sqrt(600.0)
    # The mode of the density times the penalty of unit variance 1/12.
    penalty = 6.0 * ((log_k - np.log(0.1)) / np.log(100.0) - 0.5) ** 2
    mode = np.exp(log_k[np.argmax(np.log(weight) - penalty)])
    # The distance of the grid's points.
    assert abs(estimate.value[0] / mode - 1.0) < 2e-3
