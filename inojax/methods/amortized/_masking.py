"""Readings that are lost on purpose, so that networks meet incomplete observations."""

import dataclasses
from typing import TypeVar

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Key

from ..._inverse_problem import Measured
from ..._observation import Observation

# Of regular patterns, the fewest rows that stay: every tenth.
_RAREST = 10
_Readings = TypeVar("_Readings", Observation, Measured)


def mask_readings(
    seen: _Readings, share: float, *, patterns: bool = False, key: Key[Array, ""]
) -> _Readings:
    """Lose readings of one experiment at random.

    Args:
        seen: What was measured.
        share: Chance that it loses anything, as in `kept_by_luck`.
        patterns: Whether it may lose blocks and all rows but every n-th.
        key: Source of randomness.

    Returns:
        The same with fewer readings, at least one.
    """
    if share <= 0.0:
        return seen
    kept = kept_by_luck(jnp.asarray(seen.mask), share, patterns=patterns, key=key)
    values = jnp.where(kept, jnp.asarray(seen.values), 0.0)
    if isinstance(seen, Measured):
        return seen._replace(values=values, mask=kept)
    return dataclasses.replace(seen, values=values, mask=kept)


def kept_by_luck(
    mask: Bool[Array, "row channel"], share: float, *, patterns: bool = False, key: Key[Array, ""]
) -> Bool[Array, "row channel"]:
    """Decide which readings stay.

    Args:
        mask: Which are there.
        share: Chance that any is lost; then every row and every single reading stays with a
            chance that is itself drawn from [0, 1].
        patterns: Whether as many lose one block of rows instead, and as many all rows but every
            n-th: what is lost at random says little about what is lost together.
        key: Source of randomness.

    Returns:
        Those that stay, at least one.
    """
    if share <= 0.0:
        return mask
    any_key, chance_key, row_key, reading_key = jr.split(key, 4)
    rows, channels = mask.shape
    row_chance, reading_chance = jr.uniform(chance_key, (2,))
    luck = jr.uniform(reading_key, (rows, channels))
    kept = (luck < reading_chance) & (jr.uniform(row_key, (rows, 1)) < row_chance)
    # The luckiest reading stays: an observation of nothing cannot be inverted.
    luckiest = jnp.where(mask, luck, 2.0)
    luckiest = luckiest == jnp.min(luckiest)
    kept = kept | luckiest
    if patterns:
        kept = _patterned(kept, key=row_key)
        kept = kept | (luckiest & ~jnp.any(kept & mask))
    return mask & (kept | (jr.uniform(any_key, ()) >= share))


def _patterned(
    kept: Bool[Array, "row channel"], *, key: Key[Array, ""]
) -> Bool[Array, "row channel"]:
    """Rows that stay: those given, all but a block, or every n-th, by equal chances."""
    kind_key, start_key, length_key, step_key = jr.split(jr.fold_in(key, 1), 4)
    row = jnp.arange(len(kept))[:, None]
    place = row / len(kept) - jr.uniform(start_key)
    block = (place < 0.0) | (place > jr.uniform(length_key))
    step = jnp.exp(jr.uniform(step_key, minval=np.log(2.0), maxval=np.log(_RAREST + 1.0)))
    step = jnp.floor(step).astype(int)
    regular = (row - jr.randint(start_key, (), 0, step)) % step == 0
    kind = jr.randint(kind_key, (), 0, 3)
    return jnp.where(kind == 0, kept, jnp.where(kind == 1, block, regular))
