"""A damped rotation with cubes for sides: an initial value problem as a local operator sees it."""

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

# dx/dt = a11 x³ + a12 y³ and dy/dt = a21 x³ + a22 y³ from here.
_TRUTH = {"a11": -0.1, "a12": 2.0, "a21": -2.0, "a22": -0.1}
_START = (2.0, 0.0)


def nonlinear_ode(
    *, noise: float = 0.05**0.5, readings: int = 11, unknown: tuple[str, ...] = ("a21",)
) -> InverseProblem:
    """Recover coefficients of two coupled ordinary differential equations.

    From (2, 0) at t = 0 to t = 1, both states read:

        x' = a11 x³ + a12 y³,  y' = a21 x³ + a22 y³

    It is a problem of one coordinate, time, for methods that train networks on an equation; as
    an `ODEModel` it would be one more line. What is not unknown has its true value: -0.1 for a11
    and a22, 2 for a12, -2 for a21.

    Args:
        noise: Standard deviation of each reading.
        readings: Number of readings, equally spaced, those at both ends included.
        unknown: Names of the unknown coefficients.

    Returns:
        The inverse problem. Priors are normal, of half the true values as means, and standard
        deviation 1.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        The code of Zhang, Li and Lowengrub, arXiv 2404.17789, with a21 unknown and noise of
        variance 0.05. Priors and horizon are ours.

    Example:
        >>> problem = ij.problems.nonlinear_ode()
        >>> problem.parameters.size, len(problem.channels)
        (1, 2)
    """
    import numpyro.distributions as dist

    check_noise(noise)
    check_count("readings", readings, least=2)  # those at both ends
    if not unknown or len(set(unknown)) < len(unknown) or not set(unknown) <= set(_TRUTH):
        raise ValueError(
            f"`unknown` must be distinct names among {', '.join(_TRUTH)}, at least one; got "
            f"{unknown}."
        )
    t = np.linspace(0.0, 1.0, readings)

    def residual(
        u: Callable[[Any], Any], x: Float[Array, " one"], theta: Float[Array, " parameter"]
    ) -> Float[Array, " two"]:
        known = dict(_TRUTH) | dict(zip(unknown, theta, strict=True))
        a, b = jnp.power(u(x), 3)
        slopes = known["a11"] * a + known["a12"] * b, known["a21"] * a + known["a22"] * b
        return partial(u, 0)(x) - jnp.stack(slopes)

    model = PDEModel(
        residual,
        _ansatz,
        domain={"t": (0.0, 1.0)},
        collocation=(101,),
        readings=t[:, None],
        solver=MethodOfLines(),
        states=("x", "y"),
    )
    parameters = ParameterSpace(
        tuple(Parameter(name, dist.Normal(0.5 * _TRUTH[name], 1.0)) for name in unknown)
    )
    return InverseProblem(
        "nonlinear_ode", parameters, model, Sensors(FixedTimes(t)), Gaussian(noise)
    )


def _ansatz(
    n: Float[Array, " two"], x: Float[Array, " one"], theta: Float[Array, " parameter"]
) -> Float[Array, " two"]:
    del theta
    return jnp.array(_START) + x[0] * n
