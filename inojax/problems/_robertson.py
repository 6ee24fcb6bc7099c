"""Robertson's autocatalytic reaction: three species, the classical stiff test."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._inverse_problem import InverseProblem
from .._parameters import Parameter, ParameterSpace
from .._sensors import RandomTimes, Sensors
from ..models._ode import ODEModel
from ..noise import Gaussian
from ._checks import check_count, check_noise

RATES = (0.04, 3e7, 1e4)
_UNITS = ("s^-1", "s^-1", "s^-1")
# Each rate is log-uniform over two decades on either side of its nominal value.
_FACTOR = 100.0
_TIMES = 100

# Standard deviation of each species over the prior and all output times:
# `model.solve_ensemble(parameters.design(4096, key=jr.key(0))).states.std((0, 1))`.
STD = (3.94657e-01, 1.70541e-04, 3.94686e-01)


def robertson(*, noise: float = 1e-2, readings: int = 10, missing: float = 0.0) -> InverseProblem:
    """Recover the three rates of Robertson's reaction, each unknown over four decades.

    A small problem with scales that are far apart: the fast intermediate B stays near 1e-5 and
    time runs over eight decades, hence the logarithmic output times. Use it to test methods on
    widely spread priors and on channels of very different size.

    Args:
        noise: Standard deviation of the noise, as a fraction of each species' prior predictive
            standard deviation.
        readings: Number of times, drawn from 100 logarithmically spaced ones, 1e-3 to 1e5 s.
        missing: Chance that a single reading is lost.

    Returns:
        The inverse problem; concentrations are fractions of the initial A.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Robertson (1966) in Walsh (ed.), Numerical Analysis: An Introduction, 178-182; Hairer and
        Wanner, Solving Ordinary Differential Equations II, equation (IV.1.4).

    Example:
        >>> problem = ij.problems.robertson()
        >>> problem.parameters.size, len(problem.channels)
        (3, 3)
    """
    import numpyro.distributions as dist

    check_noise(noise)
    check_count("readings", readings, most=_TIMES)
    parameters = ParameterSpace(
        tuple(
            Parameter(f"k{number}", dist.LogUniform(rate / _FACTOR, rate * _FACTOR), unit)
            for number, (rate, unit) in enumerate(zip(RATES, _UNITS, strict=True), start=1)
        )
    )
    model = ODEModel(
        _vector_field,
        np.array([1.0, 0.0, 0.0]),
        times=np.logspace(-3.0, 5.0, _TIMES),
        states=("A", "B", "C"),
        rtol=1e-6,
        atol=np.array([1e-10, 1e-13, 1e-10]),
        time_unit="s",
    )
    sensors = Sensors(RandomTimes(readings), missing=missing)
    scatter = Gaussian.standardized(noise, np.array(STD))
    return InverseProblem("robertson", parameters, model, sensors, scatter)


def _vector_field(
    t: Float[Array, ""], y: Float[Array, " state"], k: Float[Array, " parameter"]
) -> Float[Array, " state"]:
    del t
    r1 = k[0] * y[0]  # A -> B
    r2 = k[1] * y[1] ** 2  # B + B -> C + B
    r3 = k[2] * y[1] * y[2]  # B + C -> A + C
    return jnp.stack([r3 - r1, r1 - r2 - r3, r2])
