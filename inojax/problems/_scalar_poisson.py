"""The simplest of all: a Poisson equation with one unknown, solved by a sine."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._inverse_problem import InverseProblem
from .._parameters import Parameter, ParameterSpace
from .._sensors import FixedTimes, Sensors
from ..models import Collocation, partial
from ..models._pde import PDEModel
from ..noise import Gaussian
from ._checks import check_count, check_noise


def scalar_poisson(*, noise: float = 0.1, readings: int = 11) -> InverseProblem:
    """Recover the diffusivity of a rod from its temperature.

    D u'' = -π² sin(πx) for x in [0, 1], zero at both ends, so u = sin(πx) / D. Use it to test a
    method before anything costs time.

    Args:
        noise: Standard deviation of each reading.
        readings: Number of readings, equally spaced, those at both ends included.

    Returns:
        The inverse problem; the published truth is D = 2, the guess 1, the prior's median.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        The tutorial of Zhang, Li and Lowengrub, arXiv 2404.17789. The prior is ours.

    Example:
        >>> problem = ij.problems.scalar_poisson()
        >>> problem.parameters.size, len(problem.channels)
        (1, 1)
    """
    import numpyro.distributions as dist

    check_noise(noise)
    check_count("readings", readings, least=3)  # two at the ends, where nothing can be learned
    x = np.linspace(0.0, 1.0, readings)
    model = PDEModel(
        _residual,
        _ansatz,
        domain={"x": (0.0, 1.0)},
        collocation=(11,),
        readings=x[:, None],
        solver=Collocation(nodes=25, iterations=1),
    )
    parameters = ParameterSpace((Parameter("D", dist.LogNormal(0.0, 1.0)),))
    return InverseProblem(
        "scalar_poisson", parameters, model, Sensors(FixedTimes(x)), Gaussian(noise)
    )


def _residual(
    u: Callable[[Any], Any], x: Float[Array, " one"], theta: Float[Array, " parameter"]
) -> Float[Array, ""]:
    return theta[0] * partial(u, 0, 0)(x) + jnp.pi**2 * jnp.sin(jnp.pi * x[0])


def _ansatz(
    n: Float[Array, ""], x: Float[Array, " one"], theta: Float[Array, " parameter"]
) -> Float[Array, ""]:
    del theta
    return x[0] * (1.0 - x[0]) * n
