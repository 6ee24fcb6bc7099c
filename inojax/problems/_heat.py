"""A heat equation whose initial state is an unknown function."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from .._inverse_problem import InverseProblem
from .._parameters import ParameterSpace
from .._sensors import FixedTimes, Sensors
from ..models import Field, MethodOfLines, partial
from ..models._pde import PDEModel
from ..noise import Gaussian
from ._checks import check_count
from ._published_penalty import roughness, total_variation

DIFFUSION = 0.01


def heat(
    *,
    noise: float = 0.001**0.5,
    readings: int = 21,
    penalty: float = 1e-2,
    variation: float | None = None,
    nodes: int = 51,
) -> InverseProblem:
    """Recover the initial temperature of a rod from its final one.

    u_t = 0.01 u_xx for x and t in [0, 1], u zero at both ends, u(x, 0) = f(x). The k-th wave of f
    has shrunk by exp(-0.1 k²) when it is read: some ten of them are within reach.

    Args:
        noise: Standard deviation of each reading.
        readings: Number of readings at t = 1, equally spaced, those at both ends included.
        penalty: Weight w of ∫ f'² beside the mean square of readings minus predictions, as the
            source has it; the prior's roughness is √(noise² / (readings w)).
        variation: Weight of ∫ |f'| beside both, rounded off at slopes of 0.1, for a start with
            jumps: then lower `penalty`, which makes ramps of them.
        nodes: Nodes of the piecewise linear f, ends included.

    Returns:
        The inverse problem, whose parameters are the coefficients of f. The published truth is
        the hat min(2x, 2 - 2x), the guess sin(πx). Under the published penalty the hat's first
        coefficient is 26: see `Field`.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Zhang, Li and Lowengrub, arXiv 2404.17789, Tables 4 and 5. The diffusivity is not printed
        there; with this one the regularized minimizer has the errors of Table 5.

    Example:
        >>> problem = ij.problems.heat()
        >>> problem.parameters.size, len(problem.channels)
        (49, 1)
    """
    check_count("nodes", nodes, least=3)
    field = Field(
        "f",
        "x",
        np.linspace(0.0, 1.0, nodes),
        ends=(0.0, 0.0),
        roughness=roughness(noise, readings, penalty),
        transform=_temperature,
        total_variation=None if variation is None else total_variation(noise, readings, variation),
    )
    x = np.linspace(0.0, 1.0, readings)
    model = PDEModel(
        _residual,
        _ansatz,
        domain={"x": (0.0, 1.0), "t": (0.0, 1.0)},
        collocation=(51, 51),
        readings=np.stack([x, np.ones_like(x)], axis=1),
        solver=MethodOfLines(nodes=65),
        fields=(field,),
    )
    return InverseProblem(
        "heat", ParameterSpace(field.parameters), model, Sensors(FixedTimes(x)), Gaussian(noise)
    )


def _temperature(n: Float[Array, ""], x: Float[Array, ""]) -> Float[Array, ""]:
    return x * (1.0 - x) * jax.nn.softplus(n)


def _residual(
    u: Callable[[Any], Any],
    x: Float[Array, " two"],
    theta: Float[Array, " parameter"],
    start: Callable[[Any], Any],
) -> Float[Array, ""]:
    del theta, start
    return partial(u, 1)(x) - DIFFUSION * partial(u, 0, 0)(x)


def _ansatz(
    n: Float[Array, ""],
    x: Float[Array, " two"],
    theta: Float[Array, " parameter"],
    start: Callable[[Any], Any],
) -> Float[Array, ""]:
    del theta
    return start(x) + x[0] * (1.0 - x[0]) * x[1] * n
