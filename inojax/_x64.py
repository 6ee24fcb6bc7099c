"""Double precision where stiffness needs it, without touching JAX's global switch."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

_P = ParamSpec("_P")
_R = TypeVar("_R")


def is_traced(*trees: Any) -> bool:
    """Whether any leaf of `trees` is an abstract value inside a JAX transformation."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def require_x64(what: str) -> None:
    """Raise unless 64-bit floats are switched on.

    Args:
        what: The operation that needs them, as the subject of the error's sentence.

    Raises:
        RuntimeError: If 64-bit floats are off.
    """
    if jnp.zeros(()).dtype != jnp.float64:
        raise RuntimeError(
            f"{what} needs 64-bit floats, but is being traced in 32-bit. Wrap the call in "
            "`with jax.enable_x64(True):`, or set `jax.config.update('jax_enable_x64', True)` "
            "at the start of your program."
        )


def in_x32(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run a host-level function with 32-bit floats, whatever the caller's setting.

    Networks are trained and evaluated in float32; a user who has switched 64-bit floats on
    must get the same bits as one who has not.

    Args:
        function: A function of arrays.

    Returns:
        The same function, computing in float32 unless it is being traced.
    """

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if is_traced(args, kwargs):
            return function(*args, **kwargs)
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return wrapped


def in_x64(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run a host-level function with 64-bit floats, whatever the caller's setting.

    Called with concrete arrays it enters the 64-bit context itself. Called from inside a
    transformation it cannot, so there the caller's own setting must already be 64-bit.

    Args:
        function: A function of arrays.

    Returns:
        The same function, always computing in float64.

    Raises:
        RuntimeError: If called on traced values while 64-bit floats are off.
    """

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if is_traced(args, kwargs):
            require_x64(f"`{function.__name__}`")
            return function(*args, **kwargs)
        with jax.enable_x64(True):
            return function(*args, **kwargs)

    return wrapped
