"""The FitzHugh-Nagumo neuron with two unknown parameters."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from .._inverse_problem import InverseProblem
from .._parameters import Parameter, ParameterSpace
from .._sensors import RandomTimes, Sensors
from ..models import ODEModel
from ..noise import Gaussian

_GAMMA, _CURRENT = 3.0, -0.4


def fitzhugh_nagumo(
    *, noise: float = 0.35, readings: int = 1000, missing: float = 0.0
) -> InverseProblem:
    """Recover two parameters of a spiking neuron from its noisy membrane potential.

    u' = γ (u - u³/3 + v + ζ) and v' = -(u - θ₀ + θ₁ v) / γ with γ = 3 and ζ = -0.4; only u is
    read, by default at all thousand times. Use it to test methods on long series and on a response
    that jumps where a parameter adds or removes a spike.

    Args:
        noise: Standard deviation of the noise of u, independent at each time.
        readings: Number of times, drawn from 1000 evenly spaced ones over 200 ms.
        missing: Chance that a single reading is lost.

    Returns:
        The inverse problem.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Rudi, Bessac and Lenzi, arXiv 2012.06691, section 2; γ, ζ and the start at rest were
        fitted to its released series.
    """
    names = (("theta0", 0.4, 0.3), ("theta1", 0.4, 0.4))
    parameters = ParameterSpace(
        tuple(
            Parameter(name, dist.TruncatedNormal(m, s, low=m - 2.0 * s, high=m + 2.0 * s))
            for name, m, s in names
        )
    )
    model = ODEModel(
        _vector_field,
        np.zeros(2),
        times=np.arange(1000) * 0.2,
        states=("u", "v"),
        rtol=1e-6,
        atol=1e-8,
        time_unit="ms",
    )
    sensors = Sensors(RandomTimes(readings), channels=("u",), missing=missing)
    return InverseProblem("fitzhugh_nagumo", parameters, model, sensors, Gaussian(noise))


def _vector_field(
    t: Float[Array, ""], y: Float[Array, " state"], theta: Float[Array, " parameter"]
) -> Float[Array, " state"]:
    del t
    u, v = y
    return jnp.stack(
        [_GAMMA * (u - u**3 / 3.0 + v + _CURRENT), -(u - theta[0] + theta[1] * v) / _GAMMA]
    )
