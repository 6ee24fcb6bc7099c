"""Particles that are made at a point, wander and decay: rates from snapshots of their places."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._inverse_problem import InverseProblem
from .._parameters import Parameter, ParameterSpace
from .._sensors import FixedTimes, Sensors
from ..models import Collocation, Interface, partial
from ..models._pde import PDEModel
from ..noise import Poisson
from ._checks import check_count

# Where they are made.
_SOURCE = 0.5


def particles(*, snapshots: int = 100, cells: int = 100) -> InverseProblem:
    """Recover birth and death rates of particles from where they are seen.

    Particles are made at x = 1/2 at the rate λ, diffuse, die at the rate μ and vanish at the
    ends of [0, 1]. In equilibrium they are a Poisson process of the intensity u:

        u'' - μ u + λ δ(x - 1/2) = 0,  u(0) = u(1) = 0

    Each snapshot is one draw of it. The readings are the numbers of particles in equal cells,
    added up over all snapshots: `np.histogram(positions, cells, (0, 1))`. A cell's expected count
    is taken as the intensity in its middle times its length.

    Args:
        snapshots: How many.
        cells: How many; an even number, so that the source lies between two of them.

    Returns:
        The inverse problem; the published truth is λ = 500, μ = 10, the guess half of each, the
        medians of the priors.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Zhang, Li and Lowengrub, arXiv 2404.17789, section 3.2. The priors are ours.

    Example:
        >>> problem = ij.problems.particles()
        >>> problem.parameters.size, len(problem.channels)
        (2, 1)
    """
    import numpyro.distributions as dist

    check_count("snapshots", snapshots)
    check_count("cells", cells, least=2)
    if cells % 2:
        raise ValueError(f"`cells` must be even; got {cells}.")
    x = (np.arange(cells) + 0.5) / cells
    model = PDEModel(
        _residual,
        _ansatz,
        domain={"x": (0.0, 1.0)},
        collocation=(101,),
        readings=x[:, None],
        interfaces=(Interface(_SOURCE, _jump),),
        solver=Collocation(nodes=17, iterations=1),
        states=("intensity",),
    )
    parameters = ParameterSpace(
        (
            Parameter("birth", dist.LogNormal(np.log(250.0), 1.0)),
            Parameter("death", dist.LogNormal(np.log(5.0), 1.0)),
        )
    )
    noise = Poisson(snapshots / cells)
    return InverseProblem("particles", parameters, model, Sensors(FixedTimes(x)), noise)


def _residual(
    u: Callable[[Any], Any], x: Float[Array, " one"], theta: Float[Array, " parameter"]
) -> Float[Array, ""]:
    return partial(u, 0, 0)(x) - theta[1] * u(x)


def _jump(
    below: Callable[[Any], Any],
    above: Callable[[Any], Any],
    x: Float[Array, " one"],
    theta: Float[Array, " parameter"],
) -> Float[Array, ""]:
    # Half, as in the source, where it is the slope by the distance.
    return 0.5 * (partial(above, 0)(x) - partial(below, 0)(x) + theta[0])


def _ansatz(
    n: Float[Array, ""], x: Float[Array, " one"], theta: Float[Array, " parameter"]
) -> Float[Array, ""]:
    del theta
    # An exponential, since intensities are positive.
    return 100.0 * x[0] * (1.0 - x[0]) * jnp.exp(n)
