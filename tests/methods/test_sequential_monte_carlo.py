"""Tempering where posterior and evidence are known."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

import inojax as ij
from inojax.methods import LeastSquares, SequentialMonteCarlo, invert_batch
from inojax.methods.exact._sequential_monte_carlo import Particles, _reweighed
from tests.helpers import HIGHEST, LOWEST, linear_gaussian, optimizations
from tests.refuses import refuses

KEY = jr.key(3)
SMALL = SequentialMonteCarlo(populations=4, particles=512, moves=8, draws=512)


@pytest.fixture(autouse=True)
def quick_compilation():
    with optimizations(False):
        yield


@pytest.fixture(scope="module")
def leaning():
    """One reading near an end of the prior of two unknowns, and the posterior on a grid."""
    problem = linear_gaussian(noise=1.5)
    observation = ij.Observation.from_arrays(
        [1.0], np.array([[0.9, np.nan, np.nan]]), problem=problem
    )
    grid = (np.arange(300) + 0.5) / 300
    unit = np.stack(np.meshgrid(grid, grid, indexing="ij"), -1).reshape(-1, 2)
    states = problem.model.solve_ensemble(np.eye(2), np.array([1.0])).states[:, 0, 0]
    theta = LOWEST + (HIGHEST - LOWEST) * unit
    z = (0.9 - theta @ states) / 1.5
    return problem, observation, unit, np.exp(-0.5 * z**2) / (1.5 * np.sqrt(2.0 * np.pi))


def test_samples_and_evidence_are_those_of_the_posterior(leaning):
    problem, observation, unit, likelihood = leaning
    estimate = SMALL.fit(problem, key=KEY)(observation, key=KEY)
    weight = likelihood / likelihood.sum()
    mean = weight @ unit
    std = np.sqrt(weight @ (unit - mean) ** 2)
    sampled = np.asarray(problem.parameters.to_unit(np.asarray(estimate.samples)))
    # Two hundred independent draws leave a fourteenth of the standard deviation.
    assert np.all(np.abs(np.asarray(estimate.unit_value) - mean) < 0.2 * std)
    assert np.all(np.abs(sampled.std(axis=0) / std - 1.0) < 0.12)
    assert np.all((sampled > 0.0) & (sampled < 1.0))
    assert estimate.diagnostics is not None
    found = np.asarray(estimate.diagnostics.log_evidence)
    assert found.shape == (4,)
    # Likelihood averaged over the prior; the mean of four populations.
    assert abs(found.mean() - np.log(likelihood.mean())) < 0.1


def both_signs(prior):
    """y = theta^2 t: both signs of theta explain a reading."""
    return ij.InverseProblem(
        "squared",
        ij.ParameterSpace((ij.Parameter("theta", prior),)),
        ij.ODEModel(
            lambda t, y, theta: theta[:1] ** 2,
            np.zeros(1),
            times=np.array([0.5, 1.0]),
            states=("y",),
        ),
        ij.Sensors(ij.FixedTimes((0.5, 1.0))),
        ij.noise.Gaussian(0.1),
    )


@pytest.fixture(scope="module")
def squared():
    return both_signs(dist.Uniform(-2.0, 3.0))


def read(problem, value):
    values = np.array([[0.5 * value], [value]])
    return ij.Observation.from_arrays([0.5, 1.0], values, problem=problem)


def test_two_modes_weigh_the_same_and_both_are_listed(squared):
    method = SequentialMonteCarlo(particles=512, moves=8)
    inverter = method.fit(squared, key=KEY)
    estimate = inverter(read(squared, 1.44), key=KEY)
    share = (np.asarray(estimate.samples)[:, 0] > 0.0).mean()
    assert abs(share - 0.5) < 0.1
    # Their mean fits nothing, but that is not the model's fault.
    assert estimate.ticket.verdict is ij.Verdict.CHECK
    assert "between modes" in estimate.ticket.reasons[0]
    estimate = LeastSquares(starts=32).refine(inverter)(read(squared, 1.44), key=KEY)
    assert estimate.optima is not None
    known = np.isfinite(np.asarray(estimate.optima.misfit))
    values = np.asarray(estimate.optima.value)[known, 0]
    weights = np.asarray(estimate.optima.starts)[known]
    assert sorted(np.round(values, 1).tolist()) == [-1.2, 1.2]
    # Thirty-two descents: standard error 0.09.
    assert np.all(np.abs(weights - 0.5) < 0.3)
    assert weights.sum() == pytest.approx(1.0)
    assert estimate.ticket is not None
    assert estimate.ticket.modes == 2


def test_modes_weigh_what_the_prior_says():
    """The likelihood is the same at both, so only their prior densities differ."""
    problem = both_signs(dist.Normal(0.3, 1.0))
    method = SequentialMonteCarlo(particles=1024, moves=8)
    inverter = method.fit(problem, key=KEY)
    expected = 1.0 / (1.0 + np.exp(0.5 * (0.9**2 - 1.5**2)))  # at 1.2 and at -1.2: 0.673
    samples = np.asarray(inverter(read(problem, 1.44), key=KEY).samples)
    assert abs((samples > 0.0).mean() - expected) < 0.07
    # Descents end where they start but for few, so they share the samples' sign.
    optima = LeastSquares(starts=128).refine(inverter)(read(problem, 1.44), key=KEY).optima
    assert optima is not None
    share = np.asarray(optima.starts)[np.asarray(optima.value)[:, 0] > 0.0].sum()
    assert abs(share - expected) < 0.13  # standard error of 128: 0.04


def test_starts_are_counted_where_they_end(squared):
    estimate = LeastSquares(starts=16).fit(squared, key=KEY)(read(squared, 1.44), key=KEY)
    assert estimate.optima is not None
    starts = np.asarray(estimate.optima.starts)
    known = np.isfinite(np.asarray(estimate.optima.misfit))
    assert starts[known].min() > 0.0
    assert starts.sum() == pytest.approx(1.0)
    assert np.all(starts[~known] == 0.0)


def test_starts_that_fail_count_for_no_optimum(squared):
    """Where the equation has no solution for negative values, only the positive optimum is left."""
    model = squared.model.replace(
        vector_field=lambda t, y, theta: jnp.where(theta[:1] < 0.0, jnp.nan, theta[:1] ** 2)
    )
    parts = squared.parameters, model, squared.sensors, squared.noise
    problem = ij.InverseProblem("half", *parts)
    inverter = LeastSquares(starts=16, candidates=0).fit(problem, key=KEY)
    estimate = inverter(read(problem, 1.44), key=KEY)
    starts = np.asarray(estimate.optima.starts)
    np.testing.assert_allclose(estimate.optima.value[0], 1.2, atol=0.1)
    assert starts[0] < 0.85  # two fifths of the prior are negative
    assert starts[1:].sum() == 0.0


def test_likelihoods_of_any_size_can_be_tempered():
    """A scale of 1e20, and particles that are impossible."""
    value = -1e20 * np.linspace(0.0, 1.0, 64) ** 2
    value[::4] = -np.inf
    with jax.enable_x64(True):
        x = jnp.zeros((1, 8, 8, 1))
        rows = jnp.zeros(1)
        solved = jnp.ones(1, dtype=bool)
        log_likelihood = jnp.asarray(value).reshape(1, 8, 8)
        start = Particles(x, log_likelihood, rows, rows, rows, solved)
        found, _ = _reweighed(start, jr.split(KEY, 1))
        assert 0.0 < found.power[0] < 1e-15
        assert np.isfinite(found.log_evidence[0])


def test_a_batch_under_jit_gives_what_the_host_gives(squared):
    method = SequentialMonteCarlo(populations=2, particles=64, moves=4, draws=64)
    inverter = method.fit(squared, key=KEY)
    batch = jax.tree.map(
        lambda *x: np.stack(x), read(squared, 1.0), read(squared, 2.0), read(squared, 0.5)
    )
    several = invert_batch(inverter, batch, key=KEY)
    assert several.diagnostics is not None
    assert several.samples is not None
    assert several.diagnostics.r_hat.shape == (3, 1)
    with jax.enable_x64(True):
        traced = jax.jit(lambda b, key: invert_batch(inverter, b, key=key))(
            jax.tree.map(jnp.asarray, batch), KEY
        )
    gap = np.abs(np.asarray(traced.samples) - np.asarray(several.samples))
    assert gap.max() < 1e-6


def test_failed_solves_are_said(squared):
    def explodes(t, y, theta):
        return theta[:1] * jnp.nan

    broken = ij.ODEModel(explodes, np.zeros(1), times=np.array([0.5, 1.0]), states=("y",))
    problem = ij.InverseProblem(
        "broken", squared.parameters, broken, squared.sensors, squared.noise
    )
    method = SequentialMonteCarlo(populations=2, particles=32, moves=4, draws=16)
    inverter = method.fit(problem, key=KEY)
    batch = jax.tree.map(lambda x: np.asarray(x)[None], read(problem, 1.0))
    status = np.asarray(invert_batch(inverter, batch, key=KEY).status)
    assert status.tolist() == [int(ij.EstimateStatus.SOLVER_FAILED)]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"particles": 100, "moves": 16}, "multiple of `moves`"),
        ({"draws": 10**6}, "`draws` must be at most"),
        ({"populations": 0}, "`populations` must be at least 1"),
    ],
)
def test_wrong_settings_are_refused(settings, match):
    with refuses(ValueError, match):
        SequentialMonteCarlo(**settings)
