"""Unknowns that no solution depends on are drawn anew in each training step, by every method."""

import dataclasses

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

import inojax as ij
from inojax.methods import InverseMap
from inojax.methods.amortized._training_data import redraw
from inojax.nn import Dense
from inojax.noise import Gaussian
from tests.helpers import UNTRAINED, linear_gaussian

KEY = jr.key(8)
METHODS = UNTRAINED | {
    "InverseMap": InverseMap(
        # Scales are measured on noisy simulations.
        Dense((8,)),
        steps=4,
        batch=16,
        draws=8,
        scaled=False,
    )
}


@pytest.fixture(scope="module")
def problem():
    """Two slopes, and an unknown level of noise after them."""
    whole = linear_gaussian()
    slopes = whole.model.vector_field
    level = ij.Parameter("sigma", dist.LogUniform(0.1, 1.0))
    return ij.InverseProblem(
        "levels",
        ij.ParameterSpace((*whole.parameters.parameters, level)),
        whole.model.replace(vector_field=lambda t, y, theta: slopes(t, y, theta[:2])),
        ij.Sensors(ij.RandomTimes(10)),
        Gaussian("sigma"),
    )


def with_level(problem, data, level):
    """The same solutions, said to have been measured with another level."""
    unit = np.array(data.unit)
    # Held-out simulations keep theirs, or another network would be chosen.
    unit[: len(unit) - len(unit) // 10, 2] = level
    thetas = np.asarray(problem.parameters.from_unit(unit))
    return ij.Dataset(
        thetas, unit, times=data.times, trajectories=data.trajectories, status=data.status
    )


def test_the_rest_stays_and_the_level_is_uniform(problem):
    z = jnp.asarray(np.random.default_rng(0).uniform(size=(4096, 3)), jnp.float32)
    found = np.asarray(redraw(problem, z, key=KEY))
    np.testing.assert_array_equal(found[:, :2], z[:, :2])
    # Mean and variance of a uniform number: four standard errors of 4,096.
    np.testing.assert_allclose(found[:, 2].mean(), 0.5, atol=4 * 0.289 / 64)
    np.testing.assert_allclose(found[:, 2].var(), 1.0 / 12.0, atol=4 * 0.0745 / 64)
    assert np.abs(np.corrcoef(found[:, 2], z[:, 2])[0, 1]) < 4 / 64


def test_nothing_changes_where_a_solution_depends_on_everything():
    whole = linear_gaussian()
    z = jnp.full((3, 2), 0.25)
    assert redraw(whole, z, key=KEY) is z


@pytest.mark.parametrize("name", METHODS)
def test_training_does_not_look_at_the_level_of_a_simulation(problem, name):
    method = METHODS[name]
    if name == "INO":
        # The response surface is fitted before, to all parameters as they came.
        surrogate = dataclasses.replace(method.surrogate, surface=False)
        method = dataclasses.replace(method, surrogate=surrogate)
    data = ij.simulate(problem, 64, progress=False, key=jr.key(1))
    logs = [
        method.fit(problem, with_level(problem, data, level), progress=False, key=KEY).logs
        for level in (0.1, 0.9)
    ]
    for low, high in zip(*logs, strict=True):
        np.testing.assert_allclose(low.loss, high.loss, rtol=1e-5)
