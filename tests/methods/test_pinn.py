"""PINNs where the answer is known, and what they refuse."""

import dataclasses

import jax.random as jr
import numpy as np
import pytest

from inojax import EstimateStatus
from inojax.methods import (
    PINN,
    AdamParameterOptimizer,
    AdamWeightOptimizer,
    GaussNewtonWeightOptimizer,
)
from inojax.problems import lotka_volterra, scalar_poisson
from tests.refuses import refuses

KEY = jr.key(4)
NOISE = 0.1
SMALL = PINN(
    width=32,
    data_weight=1e-2,
    weight_optimizer=GaussNewtonWeightOptimizer(points=64),
    pretraining=60,
    steps=200,
)


@pytest.fixture(scope="module")
def rod():
    return scalar_poisson(noise=NOISE)


@pytest.fixture(scope="module")
def observation(rod):
    return rod.simulate(np.array([2.0]), key=KEY)


def test_a_small_weight_ends_at_least_squares(rod, observation):
    """The equation is kept, so the readings are fitted by sin(πx) / D."""
    inverter = SMALL.fit(rod, key=KEY)
    found = inverter.follow(observation, key=KEY)
    wave = np.sin(np.pi * np.asarray(observation.times))
    exact = wave @ wave / (wave @ np.asarray(observation.values)[:, 0])
    np.testing.assert_allclose(found.theta, exact, rtol=0.02)
    x = np.linspace(0.0, 1.0, 21)[:, None]
    there = inverter.predict(x, found.theta, found.network)
    np.testing.assert_allclose(there, np.sin(np.pi * x) / exact, atol=0.02)
    estimate = inverter(observation, key=KEY)
    np.testing.assert_allclose(estimate.value, found.theta, rtol=1e-3)
    assert estimate.samples is None
    assert int(estimate.status) == EstimateStatus.OK


def test_a_large_weight_gives_up_the_equation_for_the_readings(rod, observation):
    """What BiLO does not do: the network passes nearer to noisy readings than any solution."""
    misfits = {}
    # Steps that are not cautious jump about under large weights, and end where rounding lets them.
    descent = GaussNewtonWeightOptimizer(points=64, cautious=True)
    for weight in (1e-2, 1e6):
        method, each = dataclasses.replace(SMALL, data_weight=weight, weight_optimizer=descent), []
        for key in (jr.key(3), KEY, jr.key(5)):
            inverter = method.fit(rod, key=key)
            found = inverter.follow(observation, key=key)
            u = inverter.predict(np.asarray(observation.times)[:, None], found.theta, found.network)
            each.append(float(np.mean(np.square(u - np.asarray(observation.values)))))
        misfits[weight] = each
    assert max(misfits[1e6]) < 0.3 * min(misfits[1e-2])


def test_the_published_steps_descend(rod, observation):
    method = PINN.published(pretraining=400, steps=600)
    method = dataclasses.replace(method, width=32, data_weight=NOISE**2)
    assert isinstance(method.weight_optimizer, AdamWeightOptimizer)
    assert isinstance(method.parameter_optimizer, AdamParameterOptimizer)
    inverter = method.fit(rod, key=KEY)
    assert inverter.losses[-1] < 1e-2 * inverter.losses[0]
    found = inverter.follow(observation, key=KEY)
    # Steps of a thousandth each, nearly all of them upward.
    assert 1.1 < found.theta[0] < 1.45


def test_bad_settings_and_problems_are_refused():
    with refuses(ValueError, "`data_weight` must be positive; got 0.0"):
        dataclasses.replace(SMALL, data_weight=0.0)
    with refuses(ValueError, "`steps` must be at least 1"):
        dataclasses.replace(SMALL, steps=0)
    with refuses(TypeError, "`problem` must have a `PDEModel`"):
        SMALL.fit(lotka_volterra(), key=KEY)


def test_observations_are_checked_before_they_are_followed(rod, observation):
    inverter = dataclasses.replace(SMALL, pretraining=1, steps=1).fit(rod, key=KEY)
    broken = dataclasses.replace(observation, values=np.full_like(observation.values, np.nan))
    with refuses(ValueError, "the reading is NaN, but marked as present"):
        inverter.follow(broken, key=KEY)
    with refuses(ValueError, "belongs to problem 'other'"):
        inverter.follow(dataclasses.replace(observation, problem="other"), key=KEY)
