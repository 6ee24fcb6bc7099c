"""Calling the equations of an initial value problem as users write them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array, Float

from .._binding import Binding
from .._indices import check_indices
from .._named_vector import NamedVector
from .._user_function import as_array, as_vector, called

_FIELD, _START, _BREAKS = "vector_field", "initial_state", "breakpoints"


def call_vector_field(
    function: Callable[..., Any],
    t: Float[Array | np.ndarray, ""] | float,
    y: Float[Array | np.ndarray, " state"],
    theta: Float[Array | np.ndarray, " parameter"],
    *,
    states: tuple[str, ...],
    parameters: tuple[str, ...] | None,
) -> Float[Array, " state"]:
    """The time derivative that a user's vector field returns, checked.

    Args:
        function: `f(t, y, theta)`, which may read `y` and `theta` by name or position, and return
            an array, a list or a tuple; a number if there is one state.
        t: Time.
        y: State.
        theta: All parameters, fixed ones included.
        states: A name for each state.
        parameters: A name for each parameter; None where they are not known.

    Returns:
        The derivative, of the dtype of `y`.

    Raises:
        TypeError: If the function takes other arguments, does what cannot be done with traced
            values, or returns no real numbers; the sentence says what to write instead.
        ValueError: If it returns another shape than one value for each state.
        IndexError: If it uses a position that is not there.
    """
    arguments = jnp.asarray(t), _named(y, states, "y", "states"), _named(theta, parameters, "theta")
    result = called(function, arguments, what=_FIELD, form="(t, y, theta)")
    return as_vector(result, states, y.dtype, what=_FIELD, noun="states")


def call_initial_state(
    function: Callable[..., Any],
    theta: Float[Array | np.ndarray, " parameter"],
    *,
    states: tuple[str, ...],
    parameters: tuple[str, ...] | None,
) -> Float[Array, " state"]:
    """The state that a user's function of the parameters returns, checked.

    Args:
        function: `initial_state(theta)`, otherwise as in `call_vector_field`.
        theta: All parameters, fixed ones included.
        states: A name for each state.
        parameters: A name for each parameter; None where they are not known.

    Returns:
        The state, of the dtype of `theta`.

    Raises:
        TypeError: As `call_vector_field`.
        ValueError: As `call_vector_field`.
        IndexError: As `call_vector_field`.
    """
    arguments = (_named(theta, parameters, "theta"),)
    result = called(function, arguments, what=_START, form="(theta)")
    return as_vector(result, states, theta.dtype, what=_START, noun="states")


def call_breakpoints(
    function: Callable[..., Any],
    theta: Float[Array | np.ndarray, " parameter"],
    parameters: tuple[str, ...] | None,
) -> Float[Array, " breakpoint"]:
    """The times that a user's function of the parameters returns.

    Args:
        function: `breakpoints(theta)`, which returns times, as many for all parameters.
        theta: All parameters, fixed ones included.
        parameters: A name for each parameter; None where they are not known.

    Returns:
        The times, of the dtype of `theta`.

    Raises:
        TypeError: As `call_vector_field`.
        IndexError: As `call_vector_field`.
    """
    arguments = (_named(theta, parameters, "theta"),)
    result = called(function, arguments, what=_BREAKS, form="(theta)")
    return as_array(result, _BREAKS).astype(theta.dtype).ravel()


def check_functions(
    vector_field: Callable[..., Any],
    initial_state: Any,
    *,
    states: tuple[str, ...],
    binding: Binding,
) -> None:
    """Trace the functions of a model once and look for positions that are not there.

    Args:
        vector_field: As in `call_vector_field`.
        initial_state: As in `call_initial_state`; numbers are left alone.
        states: A name for each state.
        binding: Names and fixed values of the parameters.

    Raises:
        TypeError: As `call_vector_field`.
        ValueError: As `call_vector_field`.
        IndexError: If a position beyond the end of any array is used, of which JAX would take the
            nearest.
    """
    traced_vector_field(vector_field, states=states, binding=binding)
    if callable(initial_state):
        traced_initial_state(initial_state, states=states, binding=binding)


def traced_vector_field(
    function: Callable[..., Any], *, states: tuple[str, ...], binding: Binding
) -> core.ClosedJaxpr:
    """Trace a vector field once and look for positions that are not there.

    Args:
        function: As in `call_vector_field`.
        states: A name for each state.
        binding: Names and fixed values of the parameters.

    Returns:
        The traced function of time, state and unknowns, in the current precision.

    Raises:
        TypeError: As `call_vector_field`.
        ValueError: As `call_vector_field`.
        IndexError: If a position beyond the end of any array is used, of which JAX would take the
            nearest.
    """

    def field(t: Array, y: Array, theta: Array) -> Array:
        every = binding.complete(theta)
        return call_vector_field(function, t, y, every, states=states, parameters=binding.names)

    numbers = (jnp.zeros(shape) for shape in ((), (len(states),), (binding.size,)))
    closed = jax.make_jaxpr(field)(*numbers)
    check_indices(closed, _FIELD)
    return closed


def traced_initial_state(
    function: Callable[..., Any], *, states: tuple[str, ...], binding: Binding
) -> core.ClosedJaxpr:
    """Trace a function for the initial state once and look for positions that are not there.

    Args:
        function: As in `call_initial_state`.
        states: A name for each state.
        binding: Names and fixed values of the parameters.

    Returns:
        The traced function of the unknowns, in the current precision.

    Raises:
        TypeError: As `call_vector_field`.
        ValueError: As `call_vector_field`.
        IndexError: As `traced_vector_field`.
    """

    def start(theta: Array) -> Array:
        every = binding.complete(theta)
        return call_initial_state(function, every, states=states, parameters=binding.names)

    closed = jax.make_jaxpr(start)(jnp.zeros(binding.size))
    check_indices(closed, _START)
    return closed


def _named(
    values: Any, names: tuple[str, ...] | None, argument: str, noun: str = "parameters"
) -> NamedVector:
    return NamedVector(jnp.asarray(values), names, argument=argument, noun=noun)
