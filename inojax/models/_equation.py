"""A partial differential equation at a point: residual, ansatz and conditions at interfaces."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, Float

from .._binding import Binding
from .._named_vector import NamedVector
from .._user_function import as_array, called
from ._derivatives import Function, expansion
from ._field import Field
from ._interface import Interface

# `residual(u, x, theta, *fields)` and `ansatz(n, x, theta, *fields)`.
Residual = Callable[..., Any]
Ansatz = Callable[..., Any]


class AbstractEquation(eqx.Module):
    """What a classical solver and a network need to know of a `PDEModel`.

    Attributes:
        residual: As in `PDEModel`.
        ansatz: As in `PDEModel`.
        coordinates: A name for each coordinate.
        domain: Lower and upper end of each coordinate.
        states: A name for each state.
        fields: The unknown functions, whose coefficients are the last parameters.
        interfaces: Points where the solution has a kink.
    """

    residual: AbstractVar[Residual]
    ansatz: AbstractVar[Ansatz]
    coordinates: AbstractVar[tuple[str, ...]]
    domain: AbstractVar[tuple[tuple[float, float], ...]]
    states: AbstractVar[tuple[str, ...]]
    fields: AbstractVar[tuple[Field, ...]]
    interfaces: AbstractVar[tuple[Interface, ...]]
    _binding: AbstractVar[Binding | None]

    def split(
        self, theta: Float[Array, " parameter"]
    ) -> tuple[Float[Array, " scalar"], tuple[Function, ...]]:
        """Scalar parameters, and unknown functions by their coefficients."""
        size = sum(field.size for field in self.fields)
        begin = theta.shape[0] - size
        scalars, functions = theta[:begin], []
        for field in self.fields:
            functions.append(self._function(field, theta[begin : begin + field.size]))
            begin += field.size
        return scalars, tuple(functions)

    def _function(self, field: Field, coefficients: Array) -> Function:
        axis = self.coordinates.index(field.coordinate)
        return lambda x: field.at(coefficients, x[axis])

    def state(
        self,
        raw: Float[Array, " output"],
        x: Float[Array, " coordinate"],
        theta: Float[Array, " parameter"],
        functions: tuple[Function, ...] | None = None,
    ) -> Float[Array, " state"]:
        """The ansatz at one point, always a vector.

        Args:
            raw: What a network says.
            x: The point.
            theta: All parameters, or scalars alone where `functions` are given.
            functions: The unknown functions; by default those of the coefficients.
        """
        if functions is None:
            theta, functions = self.split(theta)
        single = len(self.states) == 1
        arguments = raw[0] if single else raw, x, self._known(theta), *functions
        found = called(self.ansatz, arguments, what="ansatz", form=self._form("n"))
        return jnp.atleast_1d(as_array(found, "ansatz"))

    def given(
        self, x: Float[Array, " coordinate"], theta: Float[Array, " parameter"]
    ) -> Float[Array, " state"]:
        """The state where the ansatz leaves no choice, as at a boundary."""
        return self.state(jnp.zeros(len(self.states), x.dtype), x, theta)

    def generic_point(self) -> Float[Array, " coordinate"]:
        """A point inside of the domain that is like no other."""
        low, high = jnp.asarray(self.domain).T
        return low + (high - low) * jnp.linspace(0.37, 0.61, len(self.domain))

    def generic_function(self, x: Float[Array, " coordinate"]) -> Function:
        """A polynomial of second order with generic derivatives at a point."""
        rng = np.random.default_rng(0)
        states, size = len(self.states), len(self.domain)
        value, first = (jnp.asarray(rng.uniform(0.5, 1.5, s)) for s in (states, (size, states)))
        pairs = ((i, j) for i in range(size) for j in range(i, size))
        second = {pair: jnp.asarray(rng.uniform(0.5, 1.5, states)) for pair in pairs}
        return expansion(value, first, second, x)

    def residual_of(
        self,
        u: Callable[[Any], Any],
        x: Float[Array, " coordinate"],
        theta: Float[Array, " parameter"],
        functions: tuple[Function, ...] | None = None,
    ) -> Float[Array, " equation"]:
        """The residual of a function with vector values at one point, always a vector.

        `theta` and `functions` are as for `state`.
        """
        if functions is None:
            theta, functions = self.split(theta)
        arguments = self._written(u), x, self._known(theta), *functions
        found = called(self.residual, arguments, what="residual", form=self._form("u"))
        return jnp.atleast_1d(as_array(found, "residual"))

    def jump_of(
        self,
        interface: Interface,
        below: Function,
        above: Function,
        theta: Float[Array, " parameter"],
        functions: tuple[Function, ...] | None = None,
    ) -> Float[Array, " state"]:
        """By how much functions on either side of an interface miss its condition.

        `theta` and `functions` are as for `state`.
        """
        if functions is None:
            theta, functions = self.split(theta)
        x = jnp.full(1, interface.at, theta.dtype)
        sides = self._written(below), self._written(above)
        arguments = *sides, x, self._known(theta), *functions
        found = called(interface.jump, arguments, what="jump", form=self._form("below, above"))
        return jnp.atleast_1d(as_array(found, "jump"))

    def _known(self, theta: Array) -> NamedVector:
        """Scalar parameters as users see them, by name and with the fixed ones."""
        binding = self._binding
        if binding is not None:
            coefficients = (name for field in self.fields for name in field.parameter_names)
            binding = binding.without(tuple(coefficients))
        every = theta if binding is None else binding.complete(theta)
        names = None if binding is None else binding.names
        return NamedVector(every, names, argument="theta", noun="parameters")

    def _form(self, first: str) -> str:
        return f"({', '.join([first, 'x', 'theta', *(field.name for field in self.fields)])})"

    def _written(self, u: Function) -> Function:
        """A function with vector values as users write it: a number if there is one state."""
        return (lambda point: u(point)[0]) if len(self.states) == 1 else u
