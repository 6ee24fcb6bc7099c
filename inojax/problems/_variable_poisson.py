"""A Poisson equation whose diffusivity is an unknown function."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._inverse_problem import InverseProblem
from .._parameters import ParameterSpace
from .._sensors import FixedTimes, Sensors
from ..models import Field, FiniteElements, gradient, partial
from ..models._pde import PDEModel
from ..noise import Gaussian
from ._checks import check_count
from ._published_penalty import roughness, total_variation


def variable_poisson(
    *,
    noise: float = 0.01,
    readings: int = 51,
    penalty: float = 1e-3,
    variation: float | None = None,
    nodes: int = 51,
) -> InverseProblem:
    """Recover the diffusivity along a rod from its temperature.

    (D(x) u')' = -π² sin(πx) for x in [0, 1], u zero and D one at both ends. Where u is flat, in the
    middle, readings say nothing of D, so that a penalty has to.

    Args:
        noise: Standard deviation of each reading.
        readings: Number of readings, equally spaced, those at both ends included.
        penalty: Weight w of ∫ D'² beside the mean square of readings minus predictions, as the
            source has it; the prior's roughness is √(noise² / (readings w)).
        variation: Weight of ∫ |D'| beside both, rounded off at slopes of 0.1, for a rod of few
            materials: then lower `penalty`, which makes ramps of jumps.
        nodes: Nodes of the piecewise linear D, ends included.

    Returns:
        The inverse problem, whose parameters are the coefficients of D. The published truth is a
        hat of height 1.25, the guess D = 1, where all coefficients are zero. Under the published
        penalty 1e-3 the first coefficient of the hat is 10: see `Field`.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Zhang, Li and Lowengrub, arXiv 2404.17789, Table 2, from whose errors the height of the hat
        and the noise follow.

    Example:
        >>> problem = ij.problems.variable_poisson()
        >>> problem.parameters.size, len(problem.channels)
        (49, 1)
    """
    check_count("nodes", nodes, least=3)
    field = Field(
        "D",
        "x",
        np.linspace(0.0, 1.0, nodes),
        ends=(1.0, 1.0),
        roughness=roughness(noise, readings, penalty),
        total_variation=None if variation is None else total_variation(noise, readings, variation),
    )
    x = np.linspace(0.0, 1.0, readings)
    model = PDEModel(
        _residual,
        _ansatz,
        domain={"x": (0.0, 1.0)},
        collocation=(101,),
        readings=x[:, None],
        solver=FiniteElements(4 * (nodes - 1)),
        fields=(field,),
    )
    return InverseProblem(
        "variable_poisson",
        ParameterSpace(field.parameters),
        model,
        Sensors(FixedTimes(x)),
        Gaussian(noise),
    )


def _residual(
    u: Callable[[Any], Any],
    x: Float[Array, " one"],
    theta: Float[Array, " parameter"],
    diffusivity: Callable[[Any], Any],
) -> Float[Array, ""]:
    del theta

    def flux(y: Array) -> Array:
        return diffusivity(y) * gradient(u)(y)[0]

    return partial(flux, 0)(x) + jnp.pi**2 * jnp.sin(jnp.pi * x[0])


def _ansatz(
    n: Float[Array, ""],
    x: Float[Array, " one"],
    theta: Float[Array, " parameter"],
    diffusivity: Callable[[Any], Any],
) -> Float[Array, ""]:
    del theta, diffusivity
    return x[0] * (1.0 - x[0]) * n
