"""Least squares where the answer is known: linear readings, oracles, several optima."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import inojax as ij
from inojax.methods import (
    AbstractNetworkInverter,
    Coordinates,
    LeastSquares,
    Penalty,
    Point,
    invert_batch,
)
from inojax.methods._base import estimate_from_cloud
from tests.helpers import (
    HIGHEST,
    LINEAR_NOISE,
    LOWEST,
    linear_gaussian,
    linear_posterior,
    optimizations,
)
from tests.refuses import refuses

KEY = jr.key(5)
WIDTH = HIGHEST - LOWEST


@pytest.fixture(autouse=True)
def quick_compilation():
    with optimizations(False):
        yield


@pytest.fixture(scope="module")
def linear():
    return linear_gaussian()


@pytest.fixture(scope="module")
def cases(linear):
    """Parameters of the middle of the prior, where its ends matter little, and readings."""
    z = jr.uniform(jr.key(1), (200, 2), minval=0.25, maxval=0.75)
    thetas = np.asarray(linear.parameters.from_unit(np.asarray(z, np.float64)))
    states = linear.model.solve_ensemble(thetas).states
    with jax.enable_x64(True):
        observe = jax.jit(jax.vmap(lambda y, theta, key: linear.observe(y, theta, key=key)))
        observations = observe(states, thetas, jr.split(jr.key(2), len(thetas)))
    return np.asarray(z), jax.tree.map(np.asarray, observations)


def test_without_a_prior_it_is_linear_regression(linear, cases):
    _, observations = cases
    method = LeastSquares(starts=1, penalty=Penalty.NONE, coordinates=Coordinates.UNCONSTRAINED)
    estimate = invert_batch(method.fit(linear, key=KEY), observations, key=KEY)
    mean, covariance = linear_posterior(observations)
    # The solver is exact to 1e-6 here.
    np.testing.assert_allclose(estimate.unit_value, mean, atol=2e-5)
    assert (estimate.optima.count == 1).all()
    bounded = LeastSquares(starts=2, penalty=Penalty.NONE).fit(linear, key=KEY)
    spread = np.asarray(invert_batch(bounded, observations, key=KEY).std) / WIDTH
    exact = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    # 128 draws know a standard deviation to 6 %; their mean over 400 to 0.3 %.
    np.testing.assert_allclose(np.mean(spread / exact), 1.0, atol=0.02)


def test_the_spread_of_the_prior_is_added_as_a_parabola(linear, cases):
    _, observations = cases
    estimate = invert_batch(LeastSquares(starts=2).fit(linear, key=KEY), observations, key=KEY)
    mean, covariance = linear_posterior(observations)
    precision = np.linalg.inv(covariance)
    ridge = precision + 12.0 * np.eye(2)
    pulled = (precision @ mean[..., None])[..., 0] + 6.0
    expected = np.linalg.solve(ridge, pulled[..., None])[..., 0]
    np.testing.assert_allclose(estimate.unit_value, expected, atol=2e-5)


def test_samples_follow_the_posterior_up_to_the_ends_of_the_prior(linear):
    # One late and noisy reading: the posterior fills the prior and feels its ends.
    noisy = linear_gaussian(noise=1.5)
    values = np.array([[0.9, np.nan, np.nan]])
    observation = ij.Observation.from_arrays([1.0], values, problem=noisy)
    method = LeastSquares(starts=1, draws=20_000, point=Point.MEAN)
    estimate = method.fit(noisy, key=KEY)(observation, key=KEY)
    grid = np.linspace(0.0, 1.0, 401)
    theta = LOWEST + WIDTH * np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    states = noisy.model.solve_ensemble(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([1.0])).states
    predicted = theta @ states[:, 0, 0]
    weight = np.exp(-0.5 * ((0.9 - predicted) / 1.5) ** 2)
    weight /= weight.sum()
    unit = (theta - LOWEST) / WIDTH
    mean = weight @ unit
    std = np.sqrt(weight @ (unit - mean) ** 2)
    # 20,000 correlated draws, worth at least 2,000: 0.25 / sqrt(2000) = 0.006.
    np.testing.assert_allclose(estimate.unit_value, mean, atol=0.02)
    np.testing.assert_allclose(np.asarray(estimate.std) / WIDTH, std, rtol=0.05)
    samples = (np.asarray(estimate.samples) - LOWEST) / WIDTH
    assert samples.min() >= 0.0
    assert samples.max() <= 1.0
    assert (samples > 0.95).any(axis=0).all()


def test_stated_intervals_are_honest(linear, cases):
    z, observations = cases
    estimate = invert_batch(LeastSquares(starts=1).fit(linear, key=KEY), observations, key=KEY)
    lower, upper = ((end - LOWEST) / WIDTH for end in estimate.interval(0.9))
    inside = ((lower <= z) & (z <= upper)).mean()
    # 400 intervals: standard error 1.5 %; the truth is more central than the prior says.
    assert 0.86 < inside < 0.96


def test_alone_it_says_how_well_it_fits(linear, cases):
    observation = jax.tree.map(lambda x: x[0], cases[1])
    inverter = LeastSquares(starts=2).fit(linear, key=KEY)
    estimate = inverter(observation, key=KEY)
    assert ij.EstimateStatus(int(estimate.status)) is ij.EstimateStatus.OK
    assert 0.1 < estimate.reduced_chi2 < 3.0
    shifted = ij.Observation(
        observation.times, observation.values + 9.0, observation.mask, observation.channels
    )
    poor = inverter(shifted, key=KEY)
    assert ij.EstimateStatus(int(poor.status)) is ij.EstimateStatus.POOR_FIT


def squared(name="squared"):
    """y(t) = θ² t: the sign of θ cannot be seen."""
    return ij.InverseProblem(
        name,
        ij.ParameterSpace((ij.Parameter("a", dist.Uniform(-3.0, 1.0)),)),
        ij.ODEModel(
            lambda t, y, theta: theta**2, np.zeros(1), times=np.array([1.0, 2.0]), states=("y",)
        ),
        ij.Sensors(ij.FixedTimes((1.0, 2.0))),
        ij.noise.Gaussian(0.1),
    )


def test_both_optima_are_found_and_weighed():
    problem = squared()
    observation = ij.Observation.from_arrays([1.0, 2.0], [[0.49], [0.98]], problem=problem)
    method = LeastSquares(starts=8, penalty=Penalty.DENSITY, draws=1000)
    estimate = method.fit(problem, key=KEY)(observation, key=KEY)
    optima = estimate.optima
    assert optima.count == 2
    found = np.sort(np.asarray(optima.value)[np.asarray(optima.weight) > 0.0].ravel())
    np.testing.assert_allclose(found, [-0.7, 0.7], atol=1e-4)
    np.testing.assert_allclose(np.sort(optima.weight)[-2:], 0.5, atol=1e-3)
    samples = np.asarray(estimate.samples).ravel()
    # Half of the samples at each, none in between.
    assert abs((samples > 0.0).mean() - 0.5) < 0.06
    assert (np.abs(np.abs(samples) - 0.7) < 0.3).all()
    text = str(estimate)
    assert "2 optima" in text
    assert len(estimate.as_dict()["optima"]) == 2


def oscillator():
    """y(t) = cos(ω t), read so rarely that turns between readings go unseen."""
    return ij.InverseProblem(
        "oscillator",
        ij.ParameterSpace((ij.Parameter("frequency", dist.LogNormal(0.5, 0.5)),)),
        ij.ODEModel(
            lambda t, y, theta: jnp.stack([theta[0] * y[1], -theta[0] * y[0]]),
            np.array([1.0, 0.0]),
            times=np.array([2.0, 4.0]),
            states=("y", "v"),
        ),
        ij.Sensors(ij.FixedTimes((2.0, 4.0)), channels=("y",)),
        ij.noise.Gaussian(0.1),
    )


def test_an_ambiguous_frequency_has_optima_with_the_weights_of_the_posterior():
    problem = oscillator()
    times, readings = np.array([2.0, 4.0]), np.array([-0.4, -0.7])
    observation = ij.Observation.from_arrays(times, readings[:, None], problem=problem)
    method = LeastSquares(starts=24, draws=2000)
    estimate = method.fit(problem, key=KEY)(observation, key=KEY)
    known = np.asarray(estimate.optima.weight) > 0.0
    found = np.asarray(estimate.optima.value)[known, 0]
    order = np.argsort(found)
    found, weight = found[order], np.asarray(estimate.optima.weight)[known][order]
    # By brute force, from the closed form: the share of the posterior around each optimum.
    grid = np.linspace(1e-3, 12.0, 200_001)
    misfit = 0.5 * np.square((np.cos(grid[:, None] * times) - readings) / 0.1).sum(axis=1)
    posterior = np.exp(-misfit) * scipy.stats.lognorm(0.5, scale=np.exp(0.5)).pdf(grid)
    posterior /= posterior.sum()
    nearest = np.argmin(np.abs(grid[:, None] - found), axis=1)
    expected = np.bincount(nearest, posterior, minlength=len(found))
    # Whole turns more, and turns the other way round: 0.99, 2.15, 4.13, 5.29 and beyond.
    assert (expected > 0.01).sum() == 4
    # The density of the prior changes over the width of a peak, which Laplace leaves out.
    np.testing.assert_allclose(weight, expected, atol=0.03)
    samples = np.asarray(estimate.samples)[:, 0]
    share = np.bincount(np.argmin(np.abs(samples[:, None] - found), axis=1), minlength=len(found))
    # 2000 draws: standard error of a half 0.011.
    np.testing.assert_allclose(share / len(samples), weight, atol=0.04)


class Guess(AbstractNetworkInverter):
    """Always answers 0.5."""

    problem: ij.InverseProblem
    settings: str = ""
    logs: tuple = ()

    def _invert(self, observations, keys):
        z = self.problem.parameters.to_unit(jnp.full((len(keys), 1), 0.5, jnp.float32))
        return jax.vmap(lambda z: estimate_from_cloud(self.problem, z, z[None]))(z)


def test_refining_starts_where_another_inverter_ends():
    problem = squared()
    observation = ij.Observation.from_arrays([1.0, 2.0], [[0.49], [0.98]], problem=problem)
    method = LeastSquares(starts=1, penalty=Penalty.DENSITY)
    # The prior's mean is -1, in the valley of the negative one; the guess in the other.
    alone = method.fit(problem, key=KEY)(observation, key=KEY)
    np.testing.assert_allclose(alone.value, [-0.7], atol=1e-4)
    refined = method.refine(Guess(problem))(observation, key=KEY)
    np.testing.assert_allclose(refined.value, [0.7], atol=1e-4)
    with refuses(TypeError, "`inverter` must be a fitted inverter"):
        LeastSquares().refine(LeastSquares())


def test_it_works_under_jit_and_vmap(linear, cases):
    few = jax.tree.map(lambda x: x[:3], cases[1])
    inverter = LeastSquares(starts=2, draws=8).fit(linear, key=KEY)
    expected = invert_batch(inverter, few, key=KEY)
    with jax.enable_x64(True):
        single = jax.jit(inverter)(jax.tree.map(lambda x: jnp.asarray(x[1]), few), key=KEY)
        np.testing.assert_allclose(single.unit_value, expected.unit_value[1], atol=1e-6)
        together = jax.jit(jax.vmap(lambda o: inverter(o, key=KEY)))(jax.tree.map(jnp.asarray, few))
    np.testing.assert_allclose(together.unit_value, expected.unit_value, atol=1e-6)


def test_where_no_solve_succeeds_the_estimate_says_so():
    problem = ij.InverseProblem(
        "blow_up",
        ij.ParameterSpace((ij.Parameter("a", dist.Uniform(2.0, 3.0)),)),
        ij.ODEModel(
            lambda t, y, theta: theta * y**2, np.ones(1), times=np.array([1.0]), states=("y",)
        ),
        ij.Sensors(ij.FixedTimes((1.0,))),
        ij.noise.Gaussian(LINEAR_NOISE),
    )
    observation = ij.Observation.from_arrays([1.0], [[2.0]], problem=problem)
    estimate = LeastSquares(starts=2).fit(problem, key=KEY)(observation, key=KEY)
    assert ij.EstimateStatus(int(estimate.status)) is ij.EstimateStatus.SOLVER_FAILED
    assert estimate.optima.count == 0


@pytest.mark.parametrize("field", ["starts", "max_steps", "draws"])
def test_counts_below_one_are_refused(field):
    with pytest.raises(ValueError, match=f"`{field}`"):
        LeastSquares(**{field: 0})


def test_a_tolerance_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="`tolerance` must be positive"):
        LeastSquares(tolerance=0.0)


PELTS = {
    # Published or independent optima for the lynx and hare of 1900 to 1920: least squares in
    # counts, and in the Stan case study's model by maximum likelihood and by its joint density.
    "counts": ([0.48120, 0.024832, 0.92602, 0.027533, 34.9143, 3.8619], Penalty.NONE),
    "likelihood": (
        [0.54001, 0.027156, 0.79660, 0.023702, 34.599, 5.8437, 0.2184, 0.2201],
        Penalty.NONE,
    ),
    "density": (
        [0.5417, 0.02725, 0.7969, 0.02384, 34.14, 5.845, 0.2160, 0.2178],
        Penalty.DENSITY,
    ),
}


@pytest.mark.parametrize("name", PELTS)
def test_lynx_and_hare_end_at_the_known_optima(name):
    expected, penalty = PELTS[name]
    catalog = ij.problems
    problem = catalog.lotka_volterra if name == "counts" else catalog.lotka_volterra_log_normal
    method = LeastSquares(
        starts=8,
        penalty=penalty,
        coordinates=Coordinates.UNCONSTRAINED,
        tolerance=1e-10,
        draws=16,
    )
    estimate = method.fit(problem(), key=KEY)(catalog.lynx_hare(), key=KEY)
    # To the digits that are known: half a unit in the fourth, and the solver's 1e-6.
    np.testing.assert_allclose(estimate.value, expected, rtol=2e-4)
