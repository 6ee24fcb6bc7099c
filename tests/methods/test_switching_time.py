"""An unknown time at which an input begins: least squares and the identifiability card see it."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

import inojax as ij

TIMES = np.arange(1.0, 11.0)
THETA, NOISE = np.array([0.5, 1.7]), 0.02


def exact(k, start):
    """An input of 1 from `start` on, lost at the rate k."""
    since = np.maximum(TIMES - start, 0.0)
    return -np.expm1(-k * since) / k


@pytest.fixture(scope="module")
def problem():
    def field(t, y, theta):
        return [jnp.where(t >= theta.start, 1.0, 0.0) - theta.k * y[0]]

    return ij.InverseProblem(
        "late",
        ij.ParameterSpace(
            (
                ij.Parameter("k", dist.LogUniform(0.1, 2.0)),
                ij.Parameter("start", dist.Uniform(0.0, 6.0)),
            )
        ),
        ij.ODEModel(field, [0.0], times=TIMES, states=("y",)),
        ij.Sensors(ij.FixedTimes(TIMES)),
        ij.noise.Gaussian(NOISE),
    )


def posterior(readings):
    """Means and standard deviations on a grid, under the prior."""
    k, start = np.geomspace(0.45, 0.56, 201), np.linspace(1.55, 1.85, 201)
    misfit = np.array(
        [[np.sum(np.square((exact(a, b) - readings) / NOISE)) for b in start] for a in k]
    )
    weights = np.exp(-0.5 * (misfit - misfit.min()))  # log-uniform: even in log k
    weights /= weights.sum()
    means = np.array([weights.sum(1) @ k, weights.sum(0) @ start])
    squares = np.array([weights.sum(1) @ k**2, weights.sum(0) @ start**2])
    return means, np.sqrt(squares - means**2)


def test_least_squares_finds_when_an_input_began(problem):
    readings = exact(*THETA) + NOISE * np.random.default_rng(0).normal(size=10)
    observation = ij.Observation.from_arrays(TIMES, readings, problem=problem)
    inverter = ij.methods.LeastSquares().fit(problem, key=jr.key(0))
    estimate = inverter(observation, key=jr.key(1))
    means, deviations = posterior(readings)
    # A mode beside a mean, 128 samples.
    np.testing.assert_allclose(estimate.value, means, atol=0.3 * deviations.min())
    np.testing.assert_allclose(estimate.std, deviations, rtol=0.25)
    assert estimate.ticket.verdict is ij.Verdict.TRUST


def test_every_reading_is_known_to_depend_on_it(problem):
    card = ij.metrics.identifiability(problem, key=jr.key(2))
    assert "no reading depends" not in str(card)
