"""Fisher-KPP: a population that spreads and grows, seen once at the end."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._inverse_problem import InverseProblem
from .._parameters import Parameter, ParameterSpace
from .._sensors import FixedTimes, Sensors
from ..models import MethodOfLines, partial
from ..models._pde import PDEModel
from ..noise import Gaussian
from ._checks import check_count, check_noise

# The published equation has its unknowns in units of these.
DIFFUSION, GROWTH = 0.01, 1.0


def fisher_kpp(*, noise: float = 1e-3, readings: int = 9) -> InverseProblem:
    """Recover diffusion and growth of a population from its final density.

    u_t = 0.01 D u_xx + ρ u (1 - u) for x and t in [0, 1], with u = sin²(πx) / 2 at the start and
    zero at both ends, read at t = 1. Diffusion and growth nearly make up for each other: a noise
    of 0.01 leaves D uncertain by a third.

    Args:
        noise: Standard deviation of each reading.
        readings: Number of readings, equally spaced between the ends.

    Returns:
        The inverse problem. Its readings lie along x; the published truth is D = ρ = 2, the
        guess 1, which is the median of both priors.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Zhang, Li and Lowengrub, arXiv 2404.17789, section 3.1. The noise levels and the priors
        are ours.

    Example:
        >>> problem = ij.problems.fisher_kpp()
        >>> problem.parameters.size, len(problem.channels)
        (2, 1)
    """
    import numpyro.distributions as dist

    check_noise(noise)
    check_count("readings", readings, least=2)
    parameters = ParameterSpace(
        (
            Parameter("D", dist.LogNormal(0.0, 1.0), f"{DIFFUSION}"),
            Parameter("rho", dist.LogNormal(0.0, 1.0)),
        )
    )
    x = np.linspace(0.0, 1.0, readings + 2)[1:-1]
    model = PDEModel(
        _residual,
        _ansatz,
        domain={"x": (0.0, 1.0), "t": (0.0, 1.0)},
        collocation=(51, 51),
        readings=np.stack([x, np.ones_like(x)], axis=1),
        solver=MethodOfLines(nodes=25),
    )
    return InverseProblem("fisher_kpp", parameters, model, Sensors(FixedTimes(x)), Gaussian(noise))


def _residual(
    u: Callable[[Any], Any], x: Float[Array, " two"], theta: Float[Array, " parameter"]
) -> Float[Array, ""]:
    diffusion, growth = DIFFUSION * theta[0], GROWTH * theta[1]
    density = u(x)
    return partial(u, 1)(x) - diffusion * partial(u, 0, 0)(x) - growth * density * (1.0 - density)


def _ansatz(
    n: Float[Array, ""], x: Float[Array, " two"], theta: Float[Array, " parameter"]
) -> Float[Array, ""]:
    del theta
    place, time = x[0], x[1]
    return 0.5 * jnp.sin(jnp.pi * place) ** 2 + place * (1.0 - place) * time * n
