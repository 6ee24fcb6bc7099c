"""Derivatives of functions of a point, to write equations with."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# A function of a point, which is a vector of coordinates.
Function = Callable[[Any], Any]


def partial(u: Function, *axes: int) -> Function:
    """The derivative by one coordinate after another: `partial(u, 0, 0)` is ∂²u/∂x₀².

    Args:
        u: A function of a point, with values of any shape.
        axes: Numbers of the coordinates.

    Returns:
        The derivative, again a function of a point.

    Example:
        >>> u = lambda x: x[0] ** 2 * x[1]
        >>> float(ij.models.partial(u, 0, 0)(jnp.array([3.0, 5.0])))
        10.0
    """
    for axis in axes:
        u = _along(u, axis)
    return u


def gradient(u: Function, axes: tuple[int, ...] | None = None) -> Function:
    """All first derivatives of a function.

    Args:
        u: A function of a point.
        axes: Numbers of the coordinates, for instance those of space; all by default.

    Returns:
        A function whose values have one more axis, the first, for the coordinates.

    Example:
        >>> u = lambda x: x[0] ** 2 * x[1]
        >>> ij.models.gradient(u)(jnp.array([3.0, 5.0])).tolist()
        [30.0, 9.0]
    """

    def derivative(x: Float[Array, " coordinate"]) -> Array:
        return jnp.stack([_along(u, axis)(x) for axis in _axes(x, axes)])

    return derivative


def laplacian(u: Function, axes: tuple[int, ...] | None = None) -> Function:
    """The sum of the second derivatives by each coordinate.

    Args:
        u: A function of a point.
        axes: Numbers of the coordinates, for instance those of space; all by default.

    Returns:
        The Laplacian, a function of a point.

    Example:
        >>> u = lambda x: x[0] ** 2 + 3.0 * x[1] ** 2
        >>> float(ij.models.laplacian(u)(jnp.array([3.0, 5.0])))
        8.0
    """

    def derivative(x: Float[Array, " coordinate"]) -> Array:
        return jnp.sum(jnp.stack([partial(u, axis, axis)(x) for axis in _axes(x, axes)]), axis=0)

    return derivative


def divergence(flux: Function, axes: tuple[int, ...] | None = None) -> Function:
    """The divergence of a flux: `divergence(lambda x: D(x) * gradient(u)(x))`.

    Args:
        flux: A function of a point whose values have the coordinates as first axis.
        axes: What each row of the flux is directed along; all coordinates by default.

    Returns:
        The divergence, a function of a point.

    Example:
        >>> flux = lambda x: jnp.stack([x[0] ** 2, x[0] * x[1]])
        >>> float(ij.models.divergence(flux)(jnp.array([3.0, 5.0])))
        9.0
    """

    def derivative(x: Float[Array, " coordinate"]) -> Array:
        rows = enumerate(_axes(x, axes))
        return jnp.sum(jnp.stack([_along(flux, axis)(x)[row] for row, axis in rows]), axis=0)

    return derivative


def _along(u: Function, axis: int) -> Function:
    def derivative(x: Float[Array, " coordinate"]) -> Array:
        direction = jnp.zeros_like(x).at[axis].set(1.0)
        return jax.jvp(u, (x,), (direction,))[1]

    return derivative


def _axes(x: Array, axes: tuple[int, ...] | None) -> tuple[int, ...]:
    return tuple(range(x.shape[0])) if axes is None else axes


def expansion(
    value: Float[Array, " number"],
    first: Float[Array, "coordinate number"],
    second: dict[tuple[int, int], Float[Array, " number"]],
    center: Float[Array, " coordinate"],
) -> Function:
    """The polynomial with given value and derivatives at a point.

    Differentiating it there gives these back, whatever function they came from, without that
    function's cost.

    Args:
        value: Values at the center.
        first: First derivatives.
        second: Second derivatives by pairs of coordinates; those left out are zero.
        center: Where they hold.

    Returns:
        A function of a point.
    """

    def polynomial(x: Float[Array, " coordinate"]) -> Array:
        step = x - center
        total = value + step @ first
        for (i, j), bend in second.items():
            total = total + (0.5 if i == j else 1.0) * step[i] * step[j] * bend
        return total

    return polynomial
