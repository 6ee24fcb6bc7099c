"""Importance sampling: weigh draws of one distribution so that they stand for another."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jax import lax
from jaxtyping import Array, Float, Int

_HALVINGS = 20


def weights_of(log_ratio: Float[Array, " draw"], worth: int) -> Float[Array, " draw"]:
    """Weights from logarithms of density ratios.

    Where few draws would have all the weight, the ratios count less, as little less as it takes for
    the weighted draws to be worth `worth` independent ones: a bridge back to what was drawn from.

    Args:
        log_ratio: Of each draw, up to a constant; minus infinity or NaN where it is impossible.
        worth: The fewest effective draws wanted.

    Returns:
        Weights whose sum is 1; all the same if no draw is possible.
    """
    possible = jnp.isfinite(log_ratio)
    # Without any, all are as good.
    possible = possible | ~jnp.any(possible)
    ratio = jnp.where(possible, jnp.where(jnp.isfinite(log_ratio), log_ratio, 0.0), -jnp.inf)

    def tempered(power: Array) -> Array:
        return jax.nn.softmax(jnp.where(possible, power * ratio, -jnp.inf))

    # All of those that are possible are worth their number at most.
    least = jnp.minimum(float(worth), 0.9 * jnp.sum(possible))

    def enough(power: Array) -> Array:
        return jnp.sum(jnp.square(tempered(power))) * least <= 1.0

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        good = enough(middle)
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    one = jnp.ones((), ratio.dtype)
    low, _ = lax.fori_loop(0, _HALVINGS, halve, (0.0 * one, one))
    return tempered(jnp.where(enough(one), one, low))


def resample(weights: Float[Array, " draw"], count: int, *, key: Array) -> Int[Array, " sample"]:
    """Draw so many indices by weight, each as often as its weight says to within one.

    Args:
        weights: Of the draws; their sum is 1.
        count: How many indices.
        key: Source of randomness.

    Returns:
        Indices in increasing order.

    Source:
        Systematic resampling; Kitagawa, J. Comput. Graph. Stat. 5 (1996).
    """
    points = (jnp.arange(count) + jr.uniform(key, (), weights.dtype)) / count
    index = jnp.searchsorted(jnp.cumsum(weights), points)
    return jnp.clip(index, 0, len(weights) - 1)
