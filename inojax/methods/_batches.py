"""What inverters that solve the model do to batches of observations and keys."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Key

from .._observation import Observation


def split_each(keys: Key[Array, " batch"]) -> tuple[Array, Array]:
    """Two keys for each."""
    pairs = jax.vmap(jr.split)(keys)
    return pairs[:, 0], pairs[:, 1]


def in_precision(observations: Observation, dtype: Any) -> Observation:
    """An observation with floats of another type."""

    def convert(x: Any) -> Any:
        return jnp.asarray(x, dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(convert, observations)
