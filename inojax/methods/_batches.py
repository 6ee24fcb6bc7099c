"""What inverters do to batches of observations and keys, traced or on the host."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import lax
from jaxtyping import Array, Key

from .._observation import Observation
from .._x64 import is_traced

_State = TypeVar("_State")


def split_each(keys: Key[Array, " batch"]) -> tuple[Array, Array]:
    """Two keys for each."""
    pairs = jax.vmap(jr.split)(keys)
    return pairs[:, 0], pairs[:, 1]


def in_precision(observations: Observation, dtype: Any) -> Observation:
    """Observations with floats of another type, on the host where they are."""

    def convert(x: Any) -> Any:
        xp = np if isinstance(x, np.ndarray) else jnp
        return xp.asarray(x, dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(convert, observations)


def while_loop(
    condition: Callable[[_State], Any], step: Callable[[_State], _State], state: _State
) -> _State:
    """`lax.while_loop` inside a transformation; on the host the steps one after the other.

    There each step may solve ensembles on all cores.
    """
    if is_traced(state):
        return lax.while_loop(condition, step, state)
    while condition(state):
        state = step(state)
    return state


def scan(step: Callable[[_State, Any], tuple[_State, Any]], state: _State, rows: Any) -> Any:
    """`lax.scan` inside a transformation; on the host the steps one after the other."""
    if is_traced(state, rows):
        return lax.scan(step, state, rows)
    found = []
    for index in range(len(jax.tree.leaves(rows)[0])):
        state, one = step(state, jax.tree.map(lambda x, index=index: x[index], rows))
        found.append(one)
    return state, jax.tree.map(lambda *parts: jnp.stack(parts), *found)
