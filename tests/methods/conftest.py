"""Fitted methods, each trained once for the whole run.

Methods that are hardly trained are compiled with few optimizations, since their code runs once or
twice: that takes half the time. Trained ones, whose accuracy is tested, are compiled as users do.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from inojax import simulate
from tests.helpers import METHODS, UNTRAINED, linear_gaussian, optimizations

CASES = 512


@pytest.fixture(autouse=True)
def quick_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    used = set(request.fixturenames)
    with optimizations("trained" in used or not used & {"name", "method", "setting"}):
        yield


@pytest.fixture(scope="session")
def linear():
    return linear_gaussian()


@pytest.fixture(scope="session")
def linear_data(linear):
    return simulate(linear, 4096, progress=False, key=jr.key(1))


@pytest.fixture(scope="session", params=METHODS)
def name(request):
    return request.param


@pytest.fixture(scope="session")
def trained(name, linear, linear_data):
    """An inverter that knows its problem well."""
    with optimizations(True):
        return METHODS[name].fit(linear, linear_data, progress=False, key=jr.key(2))


@pytest.fixture(scope="session")
def method(name):
    """A method of few steps."""
    return UNTRAINED[name]


@pytest.fixture(scope="session")
def small_data(linear):
    return simulate(linear, 64, progress=False, key=jr.key(1))


@pytest.fixture(scope="session")
def quick(method, linear, small_data):
    """An inverter that has seen next to nothing."""
    with optimizations(False):
        return method.fit(linear, small_data, progress=False, key=jr.key(2))


@pytest.fixture(scope="session")
def cases(linear):
    """True unit coordinates, kept away from the prior's ends, with a batch of observations."""
    z = np.random.default_rng(3).uniform(0.25, 0.75, (CASES, 2)).astype(np.float32)

    @jax.jit
    def observe(z, keys):
        def one(z, key):
            theta = linear.parameters.from_unit(z)
            times = jnp.asarray(linear.model.times, jnp.float32)
            slope = jnp.stack([theta[0], theta[1], 0.7 * (theta[0] - theta[1])])
            return linear.observe(times[:, None] * slope[None, :], theta, key=key)

        return jax.vmap(one)(z, keys)

    observations = jax.tree.map(np.asarray, observe(z, jr.split(jr.key(4), CASES)))
    return z, observations
