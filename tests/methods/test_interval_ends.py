"""What estimates say where starts end in many optima, steps run out, or nothing is possible."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.optimize

import inojax as ij
from inojax.methods import (
    LeastSquares,
    Point,
    Posterior,
    SequentialMonteCarlo,
    invert_batch,
)
from inojax.methods._resimulate import resimulate
from tests.helpers import optimizations

KEY = jr.key(3)
TIMES = np.linspace(0.2, 4.0, 12)


@pytest.fixture(autouse=True, scope="module")
def quick_compilation():
    with optimizations(False):
        yield


def swing(noise=0.1):
    """y(t) = sin(w t): an optimum of the misfit for each whole turn more between readings."""
    return ij.InverseProblem(
        "swing",
        ij.ParameterSpace((ij.Parameter("w", dist.LogUniform(1.0, 30.0)),)),
        ij.ODEModel(
            lambda t, y, theta: theta[:1] * jnp.cos(theta[0] * t), np.zeros(1), times=TIMES,
            states=("y",), rtol=1e-5,
        ),
        ij.Sensors(ij.FixedTimes(TIMES)),
        ij.noise.Gaussian(noise),
    )  # fmt: skip


@pytest.fixture(scope="module")
def found():
    """The problem, readings of a swing that few starts find, and what two of them come to."""
    problem = swing()
    rng = np.random.default_rng(0)
    values = np.sin(17.0 * TIMES) + 0.1 * rng.normal(size=len(TIMES))
    observation = ij.Observation.from_arrays(TIMES, values[:, None], problem=problem)
    few = LeastSquares(starts=4, max_starts=4, draws=32).fit(problem, key=KEY)
    more = LeastSquares(starts=4, draws=32).fit(problem, key=KEY)
    return problem, observation, few(observation, key=KEY), more(observation, key=KEY)


def test_a_local_optimum_is_not_called_the_best(found):
    _, _, few, _ = found
    assert few.ticket.verdict is ij.Verdict.DO_NOT_TRUST
    (reason,) = (r for r in few.ticket.reasons if "misses the readings" in r)
    assert "Of 4 starts" in reason
    assert "`max_starts`" in reason
    assert "wrong" not in reason
    assert few.as_dict()["search"]["starts"] == 4


def test_more_starts_find_the_truth(found):
    _, observation, _, more = found

    def residual(w):
        return (np.sin(w * TIMES) - observation.values[:, 0]) / 0.1

    best = scipy.optimize.least_squares(residual, 17.0).x
    # The prior's pull is a hundredth of a standard deviation, and the solver's error as small.
    np.testing.assert_allclose(more.value, best, atol=2e-3)
    assert more.ticket.verdict is ij.Verdict.TRUST
    assert more.ticket.p_value > 1e-3
    search = more.diagnostics.search
    assert 4 < search.starts <= 128
    assert search.starts % 4 == 0
    # The share of all starts that ended there, not of those of a round.
    np.testing.assert_allclose(more.optima.starts[0], search.best / search.starts)


def test_a_batch_takes_more_starts_where_they_are_needed(found):
    problem, observation, _, more = found
    easy = ij.Observation.from_arrays(TIMES, np.sin(1.3 * TIMES)[:, None], problem=problem)
    batch = jax.tree.map(lambda *x: np.stack(x), easy, observation)
    method = LeastSquares(starts=4, draws=32)
    estimates = invert_batch(method.fit(problem, key=KEY), batch, key=KEY)
    np.testing.assert_allclose(estimates.value[:, 0], [1.3, more.value[0]], atol=5e-3)
    assert estimates.diagnostics.search.starts[1] > 4


def slow():
    """y' = -a y + b, from which a few steps of least squares do not arrive."""
    prior = dist.LogUniform(1e-3, 1e3)
    return ij.InverseProblem(
        "slow",
        ij.ParameterSpace((ij.Parameter("a", prior), ij.Parameter("b", prior))),
        ij.ODEModel(
            lambda t, y, theta: theta[1] - theta[0] * y, np.zeros(1), times=TIMES, states=("y",)
        ),
        ij.Sensors(ij.FixedTimes(TIMES)),
        ij.noise.Gaussian(0.01),
    )


def slow_readings(problem):
    values = 5.0 * (1.0 - np.exp(-0.4 * TIMES)) / 0.4
    return ij.Observation.from_arrays(TIMES, values[:, None], problem=problem)


@pytest.mark.parametrize("point", Point)
def test_where_steps_run_out_there_is_no_spread(point):
    problem = slow()
    method = LeastSquares(starts=2, max_steps=2, draws=32, candidates=0, point=point)
    estimate = method.fit(problem, key=KEY)(slow_readings(problem), key=KEY)
    assert ij.EstimateStatus(int(estimate.status)) is ij.EstimateStatus.NOT_CONVERGED
    assert estimate.ticket.verdict is ij.Verdict.DO_NOT_TRUST
    assert np.isfinite(estimate.value).all()
    assert np.isnan(estimate.std).all()
    assert np.isnan(estimate.interval()).all()
    assert "[" not in str(estimate)
    assert "`max_steps`" in str(estimate)
    assert estimate.as_dict()["parameters"]["a"]["interval_90"] is None
    np.testing.assert_array_equal(estimate.optima.weight, 0.0)


def test_with_enough_steps_it_arrives_and_under_jit_it_says_where_not():
    problem = slow()
    observation = slow_readings(problem)
    method = LeastSquares(starts=2, draws=32)
    estimate = method.fit(problem, key=KEY)(observation, key=KEY)
    np.testing.assert_allclose(estimate.value, [0.4, 5.0], rtol=1e-2)
    assert ij.EstimateStatus(int(estimate.status)) is ij.EstimateStatus.OK
    assert np.isfinite(estimate.interval()).all()
    hurried = dataclasses.replace(method, max_steps=2).fit(problem, key=KEY)
    with jax.enable_x64(True):
        traced = jax.jit(hurried)(jax.tree.map(jnp.asarray, observation), key=KEY)
    assert int(traced.status) == ij.EstimateStatus.NOT_CONVERGED
    assert np.isnan(traced.samples).all()
    assert np.isfinite(traced.value).all()


def empty(noise, rate=0.0):
    """A model that is always zero, under noise that allows nothing else there."""
    model = ij.ODEModel(
        lambda t, y, theta: rate * theta[:1] * y**2, np.full(1, rate), times=np.array([1.0, 2.0]),
        states=("y",), max_steps=60,
    )  # fmt: skip
    space = ij.ParameterSpace((ij.Parameter("k", dist.Uniform(2.0, 3.0)),))
    return ij.InverseProblem("empty", space, model, ij.Sensors(ij.FixedTimes((1.0, 2.0))), noise)


EXACT = {
    "LeastSquares": LeastSquares(starts=2, max_starts=4, draws=16),
    "Posterior": Posterior(chains=2, warmup=4, draws=4, depth=2),
    "SequentialMonteCarlo": SequentialMonteCarlo(populations=2, particles=32, moves=4, draws=16),
}


@pytest.mark.parametrize(
    ("name", "noise", "traced"),
    [
        ("LeastSquares", ij.noise.LogNormal(0.1), False),
        ("LeastSquares", ij.noise.Poisson(), True),
        ("Posterior", ij.noise.LogNormal(0.1), False),
        ("SequentialMonteCarlo", ij.noise.LogNormal(0.1), True),
    ],
)
def test_impossible_readings_are_no_failed_solve(name, noise, traced):
    problem = empty(noise)
    observation = ij.Observation.from_arrays([1.0, 2.0], [[3.0], [4.0]], problem=problem)
    inverter = EXACT[name].fit(problem, key=KEY)
    estimate = inverter(observation, key=KEY)
    assert ij.EstimateStatus(int(estimate.status)) is ij.EstimateStatus.IMPOSSIBLE_READINGS
    assert estimate.ticket.verdict is ij.Verdict.DO_NOT_TRUST
    assert "impossible under the noise" in estimate.ticket.reasons[0]
    assert "could not be solved" not in str(estimate)
    if traced:  # `Posterior` says nothing there
        with jax.enable_x64(True):
            status = jax.jit(inverter)(jax.tree.map(jnp.asarray, observation), key=KEY).status
        assert int(status) == int(estimate.status)


@pytest.mark.parametrize("name", ["LeastSquares", "SequentialMonteCarlo"])
def test_a_failed_solve_is_no_matter_of_the_readings(name):
    """y' = k y² blows up before the first reading."""
    problem = empty(ij.noise.Poisson(), rate=1.0)
    observation = ij.Observation.from_arrays([1.0, 2.0], [[3.0], [4.0]], problem=problem)
    estimate = EXACT[name].fit(problem, key=KEY)(observation, key=KEY)
    assert ij.EstimateStatus(int(estimate.status)) is ij.EstimateStatus.SOLVER_FAILED
    assert "could not be solved" in estimate.ticket.reasons[0]


def test_a_point_that_is_impossible_while_its_samples_are_not_is_a_poor_fit():
    """Counts at rate max(k - 1, 0): the point is at 1, and the samples are above."""
    model = ij.ODEModel(
        lambda t, y, theta: jnp.maximum(theta[:1] - 1.0, 0.0), np.zeros(1), times=np.array([1.0]),
        states=("y",),
    )  # fmt: skip
    space = ij.ParameterSpace((ij.Parameter("k", dist.Uniform(0.0, 9.0)),))
    sensors = ij.Sensors(ij.FixedTimes((1.0,)))
    problem = ij.InverseProblem("half", space, model, sensors, ij.noise.Poisson())
    observation = ij.Observation.from_arrays([1.0], [[2.0]], problem=problem)
    estimate = ij.Estimate(
        ("k",), ("",), np.ones(1), np.ones(1) / 9.0, np.ones(1), np.linspace(1.5, 4.0, 9)[:, None]
    )
    assert resimulate(problem, estimate, observation).status == ij.EstimateStatus.POOR_FIT
    alone = dataclasses.replace(estimate, samples=None)
    status = resimulate(problem, alone, observation).status
    assert status == ij.EstimateStatus.IMPOSSIBLE_READINGS


def test_an_observable_without_a_value_is_said_to_be_one():
    """The logarithm of -1."""
    model = ij.ODEModel(
        lambda t, y, theta: 0.0 * y, -np.ones(1), times=np.array([1.0]), states=("y",)
    )
    space = ij.ParameterSpace((ij.Parameter("k", dist.Uniform(0.0, 9.0)),))
    sensors = ij.Sensors(
        ij.FixedTimes((1.0,)), ("log",), observable=lambda y, theta: jnp.log(y) + theta
    )
    problem = ij.InverseProblem("log", space, model, sensors, ij.noise.Gaussian(0.1))
    observation = ij.Observation.from_arrays([1.0], [[2.0]], problem=problem)
    estimate = LeastSquares(starts=2, max_starts=2, draws=16).fit(problem, key=KEY)(
        observation, key=KEY
    )
    assert estimate.status == ij.EstimateStatus.SOLVER_FAILED
    assert "what is read of it is not finite" in str(estimate)
