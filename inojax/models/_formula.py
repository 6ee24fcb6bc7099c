"""A partial differential equation at a point, without the points where it is used."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
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


class Formula(eqx.Module):
    """What a classical solver needs to know of a `PDEModel`.

    Attributes:
        residual: As in `PDEModel`.
        ansatz: As in `PDEModel`.
        coordinates: A name for each coordinate.
        domain: Lower and upper end of each coordinate.
        states: A name for each state.
        fields: The unknown functions, whose coefficients are the last parameters.
        interfaces: Points where the solution has a kink.
        binding: Names of all parameters but those of the fields, with the values of fixed ones.
    """

    residual: Residual
    ansatz: Ansatz
    coordinates: tuple[str, ...] = eqx.field(static=True)
    domain: tuple[tuple[float, float], ...] = eqx.field(static=True)
    states: tuple[str, ...] = eqx.field(static=True)
    fields: tuple[Field, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    binding: Binding | None = eqx.field(static=True, default=None)

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

    def check(self, parameters: int, edges: Float[np.ndarray, "point coordinate"]) -> None:
        """Refuse what has another shape or too high derivatives, and edges without a condition.

        Args:
            parameters: Number of parameters.
            edges: Points where a classical solver takes the state from the ansatz alone; without
                any, it may also have another number of equations than of states.

        Raises:
            ValueError: If a shape is wrong, the residual has derivatives of third order or second
                ones of an unknown function, or the ansatz at an edge depends on the network.
        """
        with jax.ensure_compile_time_eval():
            theta = jnp.linspace(0.7, 1.3, parameters)  # any generic values will do
            self._check_shapes(theta, solved=len(edges) > 0)
            self._check_orders(theta)
            for edge in edges:
                self._check_edge(edge, theta)

    def _check_shapes(self, theta: Array, *, solved: bool) -> None:
        center = jnp.mean(jnp.asarray(self.domain), axis=1)
        ones = jnp.ones(len(self.states))
        names = f"each of the states {', '.join(self.states)}"
        shape = jax.eval_shape(self.state, ones, center, theta).shape
        if shape != ones.shape:
            raise ValueError(f"`ansatz` must return one value for {names}; got shape {shape}.")

        def u(x: Array) -> Array:
            return self.state(jnp.sin(jnp.sum(x)) * ones, x, theta)

        shape = jax.eval_shape(lambda x: self.residual_of(u, x, theta), center).shape
        if len(shape) != 1 or (solved and shape != ones.shape):
            raise ValueError(f"`residual` must return one value for {names}; got shape {shape}.")
        for interface in self.interfaces:

            def jump(theta: Array, interface: Interface = interface) -> Array:
                return self.jump_of(interface, u, u, theta)

            shape = jax.eval_shape(jump, theta).shape
            if shape != ones.shape:
                raise ValueError(f"`jump` must return one value for {names}; got shape {shape}.")

    def _check_orders(self, theta: Array) -> None:
        """Refuse derivatives that the expansions of solvers and networks leave out."""
        x = self.generic_point()
        scalars, functions = self.split(theta)

        def bent(function: Function, order: int) -> Function:
            """The same, but for derivatives of this order and higher."""
            return lambda y: function(y) + jnp.sum((1.0 + jnp.arange(x.size)) * (y - x)) ** order

        u = self.generic_function(x)
        found = self.residual_of(u, x, scalars, functions)
        if not _same(found, self.residual_of(bent(u, 3), x, scalars, functions)):
            raise ValueError(
                "`residual` has derivatives of third or higher order, which solvers and networks "
                "leave out. Write the equation as a system: further `states` for derivatives."
            )
        for index, field in enumerate(self.fields):
            others = [*functions]
            others[index] = bent(others[index], 2)
            if not _same(found, self.residual_of(u, x, scalars, tuple(others))):
                raise ValueError(
                    f"`residual` has second derivatives of the unknown function {field.name!r}, "
                    "which is linear between its nodes. Write the equation as the divergence of a "
                    "flux, so that only first ones appear."
                )

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

    def _check_edge(self, edge: np.ndarray, theta: Array) -> None:
        x, ones = jnp.asarray(edge), jnp.ones(len(self.states))
        low, high = (self.state(raw * ones, x, theta) for raw in (-1.0, 1.0))
        if np.allclose(low, high, rtol=1e-6, atol=1e-6, equal_nan=True):
            return
        named = zip(self.coordinates, edge, strict=True)
        where = ", ".join(f"{name} = {value:g}" for name, value in named)
        raise ValueError(
            f"`ansatz` must give the state at {where} whatever `n` is, since the solver takes "
            "initial and boundary values from it. Multiply `n` by what vanishes there, or use a "
            "solver of your own (`AbstractDirectSolver`)."
        )

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
        binding = self.binding
        every = theta if binding is None else binding.complete(theta)
        names = None if binding is None else binding.names
        return NamedVector(every, names, argument="theta", noun="parameters")

    def _form(self, first: str) -> str:
        return f"({', '.join([first, 'x', 'theta', *(field.name for field in self.fields)])})"

    def _written(self, u: Function) -> Function:
        """A function with vector values as users write it: a number if there is one state."""
        return (lambda point: u(point)[0]) if len(self.states) == 1 else u


def _same(found: Array, other: Array) -> bool:
    return np.array_equal(np.asarray(found), np.asarray(other), equal_nan=True)
