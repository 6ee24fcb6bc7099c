"""The sampler where the posterior is known."""

import jax
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

import inojax as ij
from inojax.methods import LeastSquares, Posterior, invert_batch, resimulate
from tests.helpers import HIGHEST, LOWEST, linear_gaussian, optimizations
from tests.refuses import refuses

KEY = jr.key(7)
WIDTH = HIGHEST - LOWEST
# Ends of the priors of a rate and of the noise level.
RATES, SIGMAS = (-3.0, 3.0), (0.05, 3.0)
LEAST, WIDTHS = np.array([RATES[0], SIGMAS[0]]), np.array([6.0, 2.95])
SHORT = Posterior(chains=4, warmup=200, draws=800)


@pytest.fixture(autouse=True)
def quick_compilation():
    with optimizations(False):
        yield


@pytest.fixture(scope="module")
def level():
    """y(t) = rate t, read with noise of unknown level."""
    return ij.InverseProblem(
        "level",
        ij.ParameterSpace(
            (
                ij.Parameter("rate", dist.Uniform(*RATES)),
                ij.Parameter("sigma", dist.Uniform(*SIGMAS)),
            )
        ),
        ij.ODEModel(
            lambda t, y, theta: theta[:1],
            np.zeros(1),
            times=np.linspace(0.05, 1.0, 20),
            states=("y",),
        ),
        ij.Sensors(ij.FixedTimes(tuple(np.linspace(0.05, 1.0, 20).tolist()))),
        ij.noise.Gaussian("sigma"),
    )


@pytest.fixture(scope="module")
def sampler(level):
    with optimizations(False):
        return SHORT.refine(LeastSquares(starts=2, draws=32, candidates=0).fit(level, key=KEY))


def posterior_on_a_grid(observation):
    """Mean and standard deviation of both unknowns of `level`, by brute force."""
    present = np.asarray(observation.mask)[:, 0]
    times = np.asarray(observation.times)[present]
    values = np.asarray(observation.values)[present, 0]
    axes = np.linspace(*RATES, 801), np.linspace(*SIGMAS, 801)
    rates, sigmas = np.meshgrid(*axes, indexing="ij")
    squares = np.square(values - rates[..., None] * times).sum(-1)
    weight = np.exp(-0.5 * squares / sigmas**2 - len(times) * np.log(sigmas))
    weight /= weight.sum()
    mean = np.array([(weight * rates).sum(), (weight * sigmas).sum()])
    std = np.sqrt(
        [(weight * (x - m) ** 2).sum() for x, m in zip((rates, sigmas), mean, strict=True)]
    )
    return mean, std


def test_samples_follow_a_posterior_that_leans_on_the_ends_of_the_prior():
    problem = linear_gaussian(noise=1.5)
    values = np.array([[0.9, np.nan, np.nan]])
    observation = ij.Observation.from_arrays([1.0], values, problem=problem)
    states = problem.model.solve_ensemble(np.eye(2), np.array([1.0])).states[:, 0, 0]
    grid = np.linspace(0.0, 1.0, 301)
    unit = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    theta = LOWEST + (HIGHEST - LOWEST) * unit
    weight = np.exp(-0.5 * ((0.9 - theta @ states) / 1.5) ** 2)
    weight /= weight.sum()
    mean = weight @ unit
    std = np.sqrt(weight @ (unit - mean) ** 2)
    sampler = SHORT.refine(LeastSquares(starts=2, draws=32, candidates=0).fit(problem, key=KEY))
    estimate = sampler(observation, key=KEY)
    assert ij.EstimateStatus(int(estimate.status)) is ij.EstimateStatus.OK
    diagnostics = estimate.diagnostics
    assert (diagnostics.r_hat < 1.01).all()
    # Standard errors of mean and spread with the effective sample size that is stated.
    error = std / np.sqrt(diagnostics.effective_samples)
    assert (np.abs(estimate.unit_value - mean) < 4.0 * error).all()
    np.testing.assert_allclose(np.asarray(estimate.std) / (HIGHEST - LOWEST), std, rtol=0.15)


def test_an_unknown_noise_level_is_inferred_with_the_rest(level, sampler):
    observation = level.simulate(np.array([0.7, 0.5]), key=KEY)
    mean, std = posterior_on_a_grid(observation)
    estimate = sampler(observation, key=KEY)
    samples = np.asarray(estimate.samples)
    error = std / np.sqrt(estimate.diagnostics.effective_samples)
    assert (np.abs(samples.mean(0) - mean) < 4.0 * error).all()
    np.testing.assert_allclose(samples.std(0), std, rtol=0.2)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="`chains`"):
        Posterior(chains=0)
    with pytest.raises(ValueError, match="`draws` must be at least 4"):
        Posterior(draws=3)
    with refuses(TypeError, "`start` must be a fitted inverter"):
        SHORT.refine(SHORT)
    with pytest.raises(ValueError, match="`target_acceptance` must lie between 0 and 1"):
        Posterior(target_acceptance=1.0)


@pytest.fixture(scope="module")
def hasty():
    """Nine observations with their parameters, and what chains that are too short make of them."""
    problem = linear_gaussian()
    thetas = np.linspace(-1.0, 1.0, 18).reshape(9, 2)
    cases = [problem.simulate(theta, key=KEY) for theta in thetas]
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *cases)
    # Too few draws to be worth a hundred for each chain, however well they mix.
    method = Posterior(chains=2, warmup=60, draws=60)
    with optimizations(False):
        estimate = invert_batch(method.fit(problem, key=KEY), batch, key=KEY)
    return problem, thetas, cases, estimate


def test_a_batch_is_sampled_case_by_case(hasty):
    _, thetas, _, estimate = hasty
    gap = np.asarray(estimate.unit_value) - (thetas - LOWEST) / WIDTH
    # The readings leave a standard deviation of a twentieth or so.
    assert np.sqrt(np.mean(gap**2)) < 0.15
    assert estimate.diagnostics.r_hat.shape == (9, 2)


def test_chains_that_are_too_short_are_not_trusted(hasty):
    problem, _, cases, estimates = hasty
    assert (estimates.status == int(ij.EstimateStatus.NOT_MIXED)).all()
    # That stays so when the model, solved again at the estimate, explains the readings.
    estimate = resimulate(problem, jax.tree.map(lambda x: x[0], estimates), cases[0])
    assert 0.0 < estimate.chi2_per_reading < 3.0
    assert ij.EstimateStatus(int(estimate.status)) is ij.EstimateStatus.NOT_MIXED
    assert "do not agree" in str(estimate)
