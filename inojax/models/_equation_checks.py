"""Refusal of equations that no solver and no network could fulfill."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._derivatives import Function
from ._equation import AbstractEquation
from ._interface import Interface


def check_equation(
    equation: AbstractEquation, parameters: int, edges: Float[np.ndarray, "point coordinate"]
) -> None:
    """Refuse what has another shape or too high derivatives, and edges without a condition.

    Args:
        equation: The equation.
        parameters: Number of parameters.
        edges: Points where a classical solver takes the state from the ansatz alone; without
            any, it may also have another number of equations than of states.

    Raises:
        ValueError: If a shape is wrong, the residual has derivatives of third order or second
            ones of an unknown function, or the ansatz at an edge depends on the network.
    """
    with jax.ensure_compile_time_eval():
        theta = jnp.linspace(0.7, 1.3, parameters)  # any generic values will do
        _check_shapes(equation, theta, solved=len(edges) > 0)
        _check_orders(equation, theta)
        for edge in edges:
            _check_edge(equation, edge, theta)


def _check_shapes(equation: AbstractEquation, theta: Array, *, solved: bool) -> None:
    center = jnp.mean(jnp.asarray(equation.domain), axis=1)
    ones = jnp.ones(len(equation.states))
    names = f"each of the states {', '.join(equation.states)}"
    shape = jax.eval_shape(equation.state, ones, center, theta).shape
    if shape != ones.shape:
        raise ValueError(f"`ansatz` must return one value for {names}; got shape {shape}.")

    def u(x: Array) -> Array:
        return equation.state(jnp.sin(jnp.sum(x)) * ones, x, theta)

    shape = jax.eval_shape(lambda x: equation.residual_of(u, x, theta), center).shape
    if len(shape) != 1 or (solved and shape != ones.shape):
        raise ValueError(f"`residual` must return one value for {names}; got shape {shape}.")
    for interface in equation.interfaces:

        def jump(theta: Array, interface: Interface = interface) -> Array:
            return equation.jump_of(interface, u, u, theta)

        shape = jax.eval_shape(jump, theta).shape
        if shape != ones.shape:
            raise ValueError(f"`jump` must return one value for {names}; got shape {shape}.")


def _check_orders(equation: AbstractEquation, theta: Array) -> None:
    """Refuse derivatives that the expansions of solvers and networks leave out."""
    x = equation.generic_point()
    scalars, functions = equation.split(theta)

    def bent(function: Function, order: int) -> Function:
        """The same, but for derivatives of this order and higher."""
        return lambda y: function(y) + jnp.sum((1.0 + jnp.arange(x.size)) * (y - x)) ** order

    u = equation.generic_function(x)
    found = equation.residual_of(u, x, scalars, functions)
    if not _same(found, equation.residual_of(bent(u, 3), x, scalars, functions)):
        raise ValueError(
            "`residual` has derivatives of third or higher order, which solvers and networks "
            "leave out. Write the equation as a system: further `states` for derivatives."
        )
    for index, field in enumerate(equation.fields):
        others = [*functions]
        others[index] = bent(others[index], 2)
        if not _same(found, equation.residual_of(u, x, scalars, tuple(others))):
            raise ValueError(
                f"`residual` has second derivatives of the unknown function {field.name!r}, "
                "which is linear between its nodes. Write the equation as the divergence of a "
                "flux, so that only first ones appear."
            )


def _check_edge(equation: AbstractEquation, edge: np.ndarray, theta: Array) -> None:
    x, ones = jnp.asarray(edge), jnp.ones(len(equation.states))
    low, high = (equation.state(raw * ones, x, theta) for raw in (-1.0, 1.0))
    if np.allclose(low, high, rtol=1e-6, atol=1e-6, equal_nan=True):
        return
    named = zip(equation.coordinates, edge, strict=True)
    where = ", ".join(f"{name} = {value:g}" for name, value in named)
    raise ValueError(
        f"`ansatz` must give the state at {where} whatever `n` is, since the solver takes "
        "initial and boundary values from it. Multiply `n` by what vanishes there, or use a "
        "solver of your own (`AbstractDirectSolver`)."
    )


def _same(found: Array, other: Array) -> bool:
    return np.array_equal(np.asarray(found), np.asarray(other), equal_nan=True)
