"""Least squares where the answer is known: linear readings, oracles, several optima."""

import equinox as eqx
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
from inojax.methods._estimates import estimate_from_cloud, estimate_from_point
from inojax.methods.exact._importance import resample, temper
from inojax.methods.exact._laplace_mixture import find_peaks
from inojax.methods.exact._levenberg_marquardt import Local, Minimum
from inojax.methods.exact._linear_posterior import log_mass_in_box, sample_in_box
from inojax.methods.exact._objective import Objective
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
NOISY = 1.5


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


@pytest.fixture(scope="module")
def inverter(linear):
    """With the prior's spread as penalty; what it compiles serves several tests."""
    return LeastSquares(starts=2).fit(linear, key=KEY)


@pytest.fixture(scope="module")
def estimates(inverter, cases):
    with optimizations(False):
        return invert_batch(inverter, cases[1], key=KEY)


def test_without_a_prior_it_is_linear_regression(linear, cases):
    _, observations = cases
    method = LeastSquares(
        starts=1, penalty=Penalty.NONE, coordinates=Coordinates.UNCONSTRAINED, candidates=0
    )
    estimate = invert_batch(method.fit(linear, key=KEY), observations, key=KEY)
    mean, covariance = linear_posterior(observations)
    # The solver is exact to 1e-6 here.
    np.testing.assert_allclose(estimate.unit_value, mean, atol=2e-5)
    assert (estimate.optima.count == 1).all()
    bounded = LeastSquares(starts=2, penalty=Penalty.NONE, candidates=0).fit(linear, key=KEY)
    spread = np.asarray(invert_batch(bounded, observations, key=KEY).std) / WIDTH
    exact = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    # 128 draws know a standard deviation to 6 %; their mean over 400 to 0.3 %.
    np.testing.assert_allclose(np.mean(spread / exact), 1.0, atol=0.02)


def test_the_spread_of_the_prior_is_added_as_a_parabola(estimates, cases):
    mean, covariance = linear_posterior(cases[1])
    precision = np.linalg.inv(covariance)
    ridge = precision + 12.0 * np.eye(2)
    pulled = (precision @ mean[..., None])[..., 0] + 6.0
    expected = np.linalg.solve(ridge, pulled[..., None])[..., 0]
    np.testing.assert_allclose(estimates.unit_value, expected, atol=2e-5)


@pytest.fixture(scope="module")
def noisy():
    """The problem with so much noise that one reading leaves all of the prior."""
    return linear_gaussian(noise=NOISY)


@pytest.fixture(scope="module")
def alone(noisy):
    """An inverter for single observations of three rows each."""
    method = LeastSquares(starts=1, draws=20_000, point=Point.MEAN, candidates=0)
    return method.fit(noisy, key=KEY)


def test_samples_follow_the_posterior_up_to_the_ends_of_the_prior(noisy, alone):
    # One late and noisy reading: the posterior fills the prior and feels its ends.
    mask = np.zeros((3, 3), bool)
    mask[2, 0] = True
    observation = ij.Observation(
        np.array([0.1, 0.2, 1.0]), np.where(mask, 0.9, 0.0), mask, noisy.channels
    )
    estimate = alone(observation, key=KEY)
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


def test_stated_intervals_are_calibrated(estimates, cases):
    z, _ = cases
    lower, upper = ((end - LOWEST) / WIDTH for end in estimates.interval(0.9))
    inside = ((lower <= z) & (z <= upper)).mean()
    # 400 intervals: standard error 1.5 %; the truth is more central than the prior says.
    assert 0.86 < inside < 0.96


def test_alone_it_says_how_well_it_fits(noisy, alone):
    observation = noisy.simulate(np.array([0.5, -0.3]), key=KEY)
    estimate = alone(observation, key=KEY)
    assert ij.EstimateStatus(int(estimate.status)) is ij.EstimateStatus.OK
    assert 0.1 < estimate.chi2_per_reading < 3.0
    shifted = ij.Observation(
        observation.times, observation.values + 36.0 * NOISY, observation.mask, observation.channels
    )
    poor = alone(shifted, key=KEY)
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
    method = LeastSquares(starts=8, penalty=Penalty.DENSITY, draws=1000, candidates=0)
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


def quadrature(problem, observation, points=40_001):
    """Values of the single parameter, and the posterior probability of each."""
    theta = np.linspace(-3.0, 1.0, points)
    misfit = (observation.values - theta**2 * np.asarray(observation.times)[:, None]) / 0.1
    weight = np.exp(-0.5 * np.square(misfit).sum(axis=0))
    return theta, weight / weight.sum()


def weight_above(optima):
    return np.asarray(optima.weight)[np.asarray(optima.value)[:, 0] > 0.0].sum()


# Readings of y(1): near zero both peaks melt together; one is at the end of the prior, which cuts
# the upper peak in halves, and what is more pushes against it.
@pytest.mark.parametrize(
    ("coordinates", "reading"),
    [
        *[(Coordinates.UNIT, reading) for reading in (0.02, 0.9, 1.0, 1.1)],
        *[(Coordinates.UNCONSTRAINED, reading) for reading in (0.02, 0.9)],
    ],
)
def test_the_solver_corrects_what_the_linearization_says(coordinates, reading):
    problem = squared()
    observation = ij.Observation.from_arrays(
        [1.0, 2.0], [[reading], [2.0 * reading]], problem=problem
    )
    theta, weight = quadrature(problem, observation)
    method = LeastSquares(starts=8, penalty=Penalty.DENSITY, draws=2000, coordinates=coordinates)
    estimate = method.fit(problem, key=KEY)(observation, key=KEY)
    samples = np.asarray(estimate.samples).ravel()
    # 2,000 of 8,000 candidates: quantiles of the distribution function scatter by 1.5 %.
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    exact = np.interp(levels, np.cumsum(weight), theta)
    reached = np.interp(exact, np.sort(samples), np.linspace(0.0, 1.0, len(samples)))
    np.testing.assert_allclose(reached, levels, atol=0.05)
    optima = estimate.optima
    assert optima.count == 2
    np.testing.assert_allclose(weight_above(optima), weight[theta > 0.0].sum(), atol=0.04)


@pytest.mark.parametrize("distance", [0.0, 3.0, 30.0, 300.0])
def test_a_pull_out_of_the_prior_narrows_no_other_direction(distance):
    """The likelihood's top lies so many standard deviations of 0.01 outside, in one direction."""
    with jax.enable_x64(True):
        point, pull = jnp.array([0.0, 0.5]), jnp.array([100.0 * distance, 0.0])
        samples = sample_in_box(point, pull, 1e4 * jnp.eye(2), 2000, key=KEY)
    samples = np.asarray(samples)
    # 2,000 samples: four standard errors.
    np.testing.assert_allclose(samples[:, 1].std(), 0.01, rtol=0.07)
    assert abs(samples[:, 1].mean() - 0.5) < 4.0 * 0.01 / np.sqrt(2000)
    exact = scipy.stats.truncnorm(distance, np.inf, loc=-0.01 * distance, scale=0.01)
    # Where even float64 has no tail left, 37 standard deviations out, all lies at the end.
    np.testing.assert_allclose(samples[:, 0].mean(), exact.mean(), rtol=0.1, atol=4e-5)


@pytest.mark.parametrize("reading", [1.0, 1.1])
def test_a_peak_that_the_prior_cuts_weighs_what_is_left_of_it(reading):
    problem = squared()
    observation = ij.Observation.from_arrays(
        [1.0, 2.0], [[reading], [2.0 * reading]], problem=problem
    )
    theta, weight = quadrature(problem, observation)
    method = LeastSquares(starts=8, penalty=Penalty.DENSITY, candidates=0)
    optima = method.fit(problem, key=KEY)(observation, key=KEY).optima
    assert optima.count == 2
    # A third of all, or next to nothing, not half of it; both peaks are nearly parabolas.
    np.testing.assert_allclose(weight_above(optima), weight[theta > 0.0].sum(), rtol=0.1)


@pytest.mark.parametrize("pull", [-800.0, -300.0, -3.0, 0.0, 40.0, 500.0, 5000.0])
def test_the_mass_of_a_normal_peak_in_an_interval(pull):
    """However far outside of it the likelihood would have its top."""
    with jax.enable_x64(True):
        point = 0.0 if pull > 0.0 else 1.0
        z = np.linspace(0.0, 1.0, 2_000_001)
        exponent = -pull * (z - point) - 0.5 * 1e4 * np.square(z - point)
        expected = np.log(np.trapezoid(np.exp(exponent), z)) - 0.5 * np.log(2.0 * np.pi)
        mass = log_mass_in_box(jnp.array([point]), jnp.array([pull]), jnp.array([[1e4]]), key=KEY)
    np.testing.assert_allclose(mass, expected, atol=1e-4)


@pytest.mark.parametrize("size", [1, 5, 25])
def test_the_mass_of_a_peak_that_is_open_in_all_directions(size):
    with jax.enable_x64(True):
        point, pull = jnp.linspace(0.1, 0.9, size), jnp.linspace(0.5, 3.0, size)
        mass = log_mass_in_box(point, pull, jnp.zeros((size, size)), key=KEY)
        expected = float(jnp.sum(pull * point + jnp.log((1.0 - jnp.exp(-pull)) / pull)))
    np.testing.assert_allclose(mass, expected - 0.5 * size * np.log(2.0 * np.pi), atol=0.02)


# The likelihood alone would have the top of the last two ten widths of the box outside of it.
@pytest.mark.parametrize(
    ("point", "pull", "slant"),
    [((0.0, 0.6), (30.0, 0.0), 350.0), ((1.0, 0.6), (-5000.0, 0.0), 430.0),
     ((0.6, 1.0), (0.0, -5000.0), -430.0), ((1.0, 0.0), (-3000.0, 2000.0), 430.0)],
)  # fmt: skip
def test_the_mass_of_a_slanted_peak_that_edges_cut(point, pull, slant):
    with jax.enable_x64(True):
        fisher = np.array([[400.0, slant], [slant, 500.0]])
        arrays = jnp.array(point), jnp.array(pull), jnp.array(fisher)
        mass = float(log_mass_in_box(*arrays, key=KEY))
    # Finer towards where the mass is.
    ends = np.concatenate([[0.0], np.geomspace(1e-7, 1.0, 3001)])
    grids = []
    for center in point:
        grid = np.unique(np.concatenate([center - ends, center + ends]))
        grids.append(grid[(grid >= 0.0) & (grid <= 1.0)] - center)
    first, second = np.meshgrid(*grids, indexing="ij")
    exponent = pull[0] * first + pull[1] * second + slant * first * second
    exponent += 0.5 * (fisher[0, 0] * first**2 + fisher[1, 1] * second**2)
    total = np.trapezoid(np.trapezoid(np.exp(-exponent), grids[1], axis=1), grids[0])
    # 256 draws.
    np.testing.assert_allclose(mass, np.log(total / (2.0 * np.pi)), atol=0.15)


def test_weights_are_ratios_as_long_as_enough_draws_share_them():
    with jax.enable_x64(True):
        ratio, even = jnp.log(jnp.array([1.0, 2.0, 3.0, 4.0])), jnp.zeros(4)
        np.testing.assert_allclose(temper(ratio + 700.0, even, 1.0)[0], [0.1, 0.2, 0.3, 0.4])
        # What the proposal has too little of counts in full, however few draws remain.
        base = jnp.log(jnp.array([4.0, 1.0, 1.0, 4.0]))
        np.testing.assert_allclose(temper(ratio, base, 1.0)[0], np.array([4, 2, 3, 16]) / 25)
        # One of a hundred would have all; so much is left to the others that five share it.
        lonely, power = temper(jnp.zeros(100).at[3].set(5e8), jnp.zeros(100), 5.0)
        np.testing.assert_allclose(1.0 / np.sum(np.square(lonely)), 5.0, rtol=0.01)
        assert 0.0 < power < 1e-6
        impossible = jnp.array([-jnp.inf, 0.0, jnp.nan, 0.0])
        np.testing.assert_allclose(temper(impossible, even, 2.0)[0], [0.0, 0.5, 0.0, 0.5])
        none, _ = temper(jnp.full(4, -jnp.inf), base, 2.0)
        np.testing.assert_allclose(none, [0.4, 0.1, 0.1, 0.4])


def test_resampling_takes_each_as_often_as_its_weight_says():
    with jax.enable_x64(True):
        weights = jnp.array([0.1, 0.0, 0.55, 0.35])
        index = resample(weights, 20, key=KEY)
    np.testing.assert_array_equal(np.bincount(index, minlength=4), [2, 0, 11, 7])


def test_a_start_that_gave_up_counts_where_it_is_lower_than_every_optimum(linear):
    with jax.enable_x64(True):
        x = jnp.array([[0.2, 0.2], [0.5, 0.5], [0.8, 0.8]])
        hessian = jnp.tile(1e4 * jnp.eye(2), (3, 1, 1))
        local = Local(jnp.array([3.0, 1.0, 4.0]), jnp.zeros((3, 2)), hessian)
        minimum = Minimum(x, local, jnp.array([True, False, False]), jnp.full(3, 9))
        objective = Objective(linear, Coordinates.UNIT, Penalty.NONE, coupled=True)
        peaks = find_peaks(objective, minimum, key=KEY)
    np.testing.assert_array_equal(peaks.misfit, [1.0, 3.0, 4.0])
    np.testing.assert_array_equal(peaks.known, [True, True, False])
    np.testing.assert_array_equal(peaks.x[0], [0.5, 0.5])


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
    # Whole turns more, and turns the other way round: 0.99, 2.15 and 4.13 have 99 % of the
    # posterior, which has a peak of 1 % at 5.29 and others beyond.
    assert (expected > 0.02).sum() == 3
    np.testing.assert_allclose(found[:3], [0.99, 2.15, 4.13], atol=0.02)
    # The density of the prior changes over the width of a peak, which Laplace leaves out.
    np.testing.assert_allclose(weight, expected, atol=0.03)
    samples = np.asarray(estimate.samples)[:, 0]
    share = np.bincount(np.argmin(np.abs(samples[:, None] - found), axis=1), minlength=len(found))
    # 2000 draws: standard error of a half 0.011.
    np.testing.assert_allclose(share / len(samples), weight, atol=0.04)


class Guess(AbstractNetworkInverter):
    """Always answers the same."""

    problem: ij.InverseProblem
    answer: np.ndarray = eqx.field(converter=np.float32)
    method: None = None
    logs: tuple = ()

    def _evaluate(self, observations, keys):
        z = self.problem.parameters.to_unit(jnp.full((len(keys), 1), self.answer))
        return jax.vmap(lambda z: estimate_from_cloud(self.problem, z, z[None]))(z)


def test_refining_starts_where_another_inverter_ends():
    problem = squared()
    observation = ij.Observation.from_arrays([1.0, 2.0], [[0.49], [0.98]], problem=problem)
    method = LeastSquares(starts=1, penalty=Penalty.DENSITY, candidates=0)
    # Whatever they started from besides the guess, one of both would end in the other valley.
    for answer, optimum in ((0.5, 0.7), (-2.0, -0.7)):
        refined = method.refine(Guess(problem, answer))(observation, key=KEY)
        np.testing.assert_allclose(refined.value, [optimum], atol=1e-4)
    with refuses(TypeError, "`start` must be a fitted inverter or an estimate"):
        LeastSquares().refine(LeastSquares())


class BarePoint(Guess):
    """Answers without any uncertainty."""

    def _evaluate(self, observations, keys):
        z = self.problem.parameters.to_unit(jnp.full((len(keys), 1), self.answer))
        return jax.vmap(lambda z: estimate_from_point(self.problem, z))(z)


@pytest.mark.parametrize("answer", [0.5, np.nan])
def test_behind_a_point_further_starts_are_of_the_prior(answer):
    """So both optima are found, also where the point is none."""
    problem = squared()
    observation = ij.Observation.from_arrays([1.0, 2.0], [[0.49], [0.98]], problem=problem)
    method = LeastSquares(starts=8, penalty=Penalty.DENSITY, candidates=0)
    estimate = method.refine(BarePoint(problem, answer))(observation, key=KEY)
    assert estimate.optima is not None
    values = np.asarray(estimate.optima.value)[np.asarray(estimate.optima.starts) > 0.0, 0]
    np.testing.assert_allclose(sorted(values), [-0.7, 0.7], atol=1e-3)


def test_it_works_under_jit_and_vmap(inverter, estimates, cases):
    few = jax.tree.map(lambda x: x[:3], cases[1])
    expected = jax.tree.map(lambda x: x[:3], estimates)
    with jax.enable_x64(True):
        single = jax.jit(inverter)(jax.tree.map(lambda x: jnp.asarray(x[1]), few), key=KEY)
        np.testing.assert_allclose(single.unit_value, expected.unit_value[1], atol=1e-6)
        together = jax.jit(jax.vmap(lambda o: inverter(o, key=KEY)))(jax.tree.map(jnp.asarray, few))
    np.testing.assert_allclose(together.unit_value, expected.unit_value, atol=1e-6)
    # Alone and compiled it chooses the same samples.
    alone = inverter(jax.tree.map(lambda x: x[1], few), key=KEY)
    np.testing.assert_allclose(single.samples, alone.samples, atol=1e-5)
    np.testing.assert_allclose(single.optima.weight, alone.optima.weight, atol=1e-6)


def test_under_jit_readings_in_single_precision_are_fine_also_behind_another(cases, inverter):
    with jax.enable_x64(True):
        one = jax.tree.map(
            lambda x: jnp.asarray(x[1], jnp.float32 if x.dtype == np.float64 else x.dtype), cases[1]
        )
        again = LeastSquares(starts=1, draws=16).refine(inverter)
        refined = jax.jit(again)(one, key=KEY)
        alone = inverter(jax.tree.map(lambda x: x[1], cases[1]), key=KEY)
    np.testing.assert_allclose(refined.unit_value, alone.unit_value, atol=2e-5)


def test_candidates_are_solved_in_parts_where_they_are_many(
    inverter, estimates, cases, monkeypatch
):
    monkeypatch.setattr("inojax.methods.exact._objective._MOST_STATES", 50_000)
    parts = invert_batch(inverter, cases[1], key=KEY)
    np.testing.assert_array_equal(parts.samples, estimates.samples)


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
    np.testing.assert_array_equal(estimate.optima.weight, 0.0)


@pytest.mark.parametrize("field", ["starts", "max_steps", "draws"])
def test_counts_below_one_are_refused(field):
    with pytest.raises(ValueError, match=f"`{field}`"):
        LeastSquares(**{field: 0})


def test_a_negative_number_of_candidates_is_refused():
    with pytest.raises(ValueError, match="`candidates` must not be negative"):
        LeastSquares(candidates=-1)


def test_a_tolerance_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="`tolerance` must be positive"):
        LeastSquares(tolerance=0.0)


PELTS = {
    # Published or independent optima for the lynx and hare of 1900 to 1920: least squares in
    # counts and in logarithms, and in the Stan case study's model by maximum likelihood and by its
    # joint density.
    "counts": ([0.48120, 0.024832, 0.92602, 0.027533, 34.9143, 3.8619], Penalty.NONE),
    "logs": ([0.54016, 0.027165, 0.79639, 0.023695, 34.602, 5.8445], Penalty.NONE),
    "likelihood": (
        [0.54001, 0.027156, 0.79660, 0.023702, 34.599, 5.8437, 0.2184, 0.2201],
        Penalty.NONE,
    ),
    "density": (
        [0.5417, 0.02725, 0.7969, 0.02384, 34.14, 5.845, 0.2160, 0.2178],
        Penalty.DENSITY,
    ),
}


def pelts(name):
    """The problem whose optimum is known by that name."""
    if name == "counts":
        return ij.problems.lotka_volterra()
    if name != "logs":
        return ij.problems.lotka_volterra_log_normal()
    base = ij.problems.lotka_volterra()
    # Where the optimum is does not depend on the level.
    noise = ij.noise.LogNormal(0.25)
    return ij.InverseProblem("logs", base.parameters, base.model, base.sensors, noise)


@pytest.mark.parametrize("name", PELTS)
def test_lynx_and_hare_end_at_the_known_optima(name):
    expected, penalty = PELTS[name]
    method = LeastSquares(
        starts=8,
        penalty=penalty,
        coordinates=Coordinates.UNCONSTRAINED,
        tolerance=1e-10,
        draws=16,
        candidates=0,
    )
    observation = ij.problems.lynx_hare()
    estimate = method.fit(pelts(name), key=KEY)(observation, key=KEY)
    # To the digits that are known: half a unit in the fourth, and the solver's 1e-6.
    np.testing.assert_allclose(estimate.value, expected, rtol=2e-4)
    # Its intervals are those of the linearized model, which is said.
    assert estimate.diagnostics.tempering_exponent == 0.0
    assert not any("come from the real solver" in reason for reason in estimate.ticket.reasons)


@pytest.mark.slow
def test_from_starts_all_over_ten_decades_the_dimers_end_at_the_known_likelihood():
    problem, observation = ij.problems.boehm(), ij.problems.boehm_data()
    method = LeastSquares(starts=32, penalty=Penalty.NONE, draws=16, candidates=0)
    with optimizations(True):
        estimate = method.fit(problem, key=jr.key(0))(observation, key=jr.key(0))
    found = -float(problem.log_likelihood(np.asarray(estimate.value), observation))
    # What the PEtab collection states for its nominal parameters, all constants included.
    assert found <= 138.2220
    # The same by SciPy from there: nothing lies much lower.
    assert found > 138.2
