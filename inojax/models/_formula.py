"""A partial differential equation at a point, without the points where it is used."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

# `residual(u, x, theta)` and `ansatz(n, x, theta)`.
Residual = Callable[[Any, Any, Any], Any]
Ansatz = Callable[[Any, Any, Any], Any]


class Formula(eqx.Module):
    """What a classical solver needs to know of a `PDEModel`.

    Attributes:
        residual: As in `PDEModel`.
        ansatz: As in `PDEModel`.
        coordinates: A name for each coordinate.
        domain: Lower and upper end of each coordinate.
        states: A name for each unknown function.
    """

    residual: Residual
    ansatz: Ansatz
    coordinates: tuple[str, ...] = eqx.field(static=True)
    domain: tuple[tuple[float, float], ...] = eqx.field(static=True)
    states: tuple[str, ...] = eqx.field(static=True)

    def state(
        self,
        raw: Float[Array, " output"],
        x: Float[Array, " coordinate"],
        theta: Float[Array, " parameter"],
    ) -> Float[Array, " state"]:
        """The ansatz at one point, always a vector."""
        single = len(self.states) == 1
        return jnp.atleast_1d(jnp.asarray(self.ansatz(raw[0] if single else raw, x, theta)))

    def given(
        self, x: Float[Array, " coordinate"], theta: Float[Array, " parameter"]
    ) -> Float[Array, " state"]:
        """The state where the ansatz leaves no choice, as at a boundary."""
        return self.state(jnp.zeros(len(self.states), x.dtype), x, theta)

    def residual_of(
        self,
        u: Callable[[Any], Any],
        x: Float[Array, " coordinate"],
        theta: Float[Array, " parameter"],
    ) -> Float[Array, " equation"]:
        """The residual of a function with vector values at one point, always a vector."""
        single = len(self.states) == 1
        written = (lambda point: u(point)[0]) if single else u
        return jnp.atleast_1d(jnp.asarray(self.residual(written, x, theta)))
