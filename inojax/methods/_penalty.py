"""What the prior adds to the misfit that a method minimizes."""

import enum
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._parameters import UNIT_PRECISION, ParameterSpace


class Penalty(enum.Enum):
    """What is added to the misfit.

    `SPREAD` is a parabola with the prior's mean and variance in unit coordinates; its minimum is
    near the posterior mean, which has the smallest expected error. `DENSITY` is minus the log
    density of the prior in physical values; its minimum is the maximum a posteriori estimate.
    `NONE` gives the maximum likelihood estimate; samples are those of a prior that is flat in the
    coordinates, which in unit coordinates is the prior itself, but for a total variation.

    Example:
        >>> ij.methods.LeastSquares(penalty=ij.methods.Penalty.DENSITY).penalty.value
        'density'
    """

    SPREAD = "spread"
    DENSITY = "density"
    NONE = "none"


class Penalties(NamedTuple):
    """A penalty near some coordinates; parameters are independent in it.

    Attributes:
        value: What each parameter adds.
        slope: Its derivative by the parameter's own coordinate.
        curvature: The second derivative, where that is not negative, else zero.
    """

    value: Float[Array, "*row parameter"]
    slope: Float[Array, "*row parameter"]
    curvature: Float[Array, "*row parameter"]


def penalties(
    penalty: Penalty,
    space: ParameterSpace,
    physical: Callable[[Array], Array],
    x: Float[Array, "*row parameter"],
    *,
    unit: Callable[[Array], Array] | None = None,
) -> Penalties:
    """What the prior adds to the misfit, with derivatives by some coordinates.

    The total variation of fields is not included, since it couples parameters: it is
    `InverseProblem.coupling`.

    Args:
        penalty: What is added.
        space: Priors.
        physical: Physical values at coordinates, each of its own coordinate.
        x: The coordinates.
        unit: Unit coordinates at coordinates; by default those of the physical values.

    Returns:
        The penalty of each parameter.
    """

    def to_unit(x: Array) -> Array:
        return jnp.asarray(space.to_unit(physical(x))) if unit is None else unit(x)

    def value(x: Array) -> Array:
        if penalty is Penalty.NONE:
            return jnp.zeros_like(x)
        if penalty is Penalty.SPREAD:
            return 0.5 * UNIT_PRECISION * jnp.square(to_unit(x) - 0.5)
        return -cast(Array, space.log_densities(physical(x)))

    def slope(x: Array) -> Array:
        return jax.jvp(value, (x,), (jnp.ones_like(x),))[1]

    curvature = jax.jvp(slope, (x,), (jnp.ones_like(x),))[1]
    return Penalties(value(x), slope(x), jnp.maximum(curvature, 0.0))
