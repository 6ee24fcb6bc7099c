"""Two small problems; `simulate_slowly.py` uses them from another process."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from inojax import ODEModel
from inojax._inverse_problem import InverseProblem
from inojax._parameters import Parameter, ParameterSpace
from inojax._sensors import RandomTimes, Sensors
from inojax.noise import Gaussian


def _chain(t, y, theta):
    flow = theta[0] * y[0]
    return jnp.stack([-flow, flow - theta[1] * y[1]])


def _square(t, y, theta):
    return theta[0] * y**2


def make_decay(name="decay", units=("1/h", "1/h"), upper=1.5, **changes):
    """x -> y -> nothing: every solve succeeds, and the first state is exp(-a t)."""
    settings = {
        "vector_field": _chain,
        "initial_state": np.array([1.0, 0.0]),
        "times": np.linspace(0.5, 4.0, 8),
        "states": ("x", "y"),
    }
    space = ParameterSpace(
        (
            Parameter("a", dist.Uniform(0.5, upper), units[0]),
            Parameter("b", dist.LogUniform(0.1, 1.0), units[1]),
        )
    )
    model = ODEModel(**(settings | changes))
    return InverseProblem(name, space, model, Sensors(RandomTimes(2)), Gaussian(0.01))


def make_blow_up(upper=2.0):
    """y' = a y², y(0) = 1 leaves every bound at t = 1/a, before the horizon 1 where a > 1."""
    model = ODEModel(_square, np.ones(1), times=np.linspace(0.25, 1.0, 4), states=("y",))
    space = ParameterSpace((Parameter("a", dist.Uniform(0.0, upper)),))
    return InverseProblem("blow-up", space, model, Sensors(RandomTimes(2)), Gaussian(0.01))


def files_of(folder):
    """Every file below a folder with its bytes."""
    root = Path(folder)
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


@pytest.fixture(scope="session")
def decay():
    return make_decay


@pytest.fixture
def blow_up():
    return make_blow_up


@pytest.fixture
def bytes_of():
    return files_of
