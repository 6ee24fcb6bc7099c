"""Importance sampling: weigh draws of one distribution so that they stand for another."""

from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
from jax import lax
from jaxtyping import Array, Float, Int

_HALVINGS = 50


def temper(
    log_ratio: Float[Array, " draw"], log_base: Float[Array, " draw"], worth: float
) -> tuple[Float[Array, " draw"], Float[Array, ""]]:
    """Weights that turn draws of a proposal over an approximation into draws of the target.

    Where few draws would have all the weight, the ratios of target and approximation count less,
    as little less as it takes for the weighted draws to be worth `worth` independent ones: a
    bridge back to the approximation.

    Args:
        log_ratio: Log density of the target over that of its approximation, up to a constant;
            minus infinity or NaN where a draw is impossible.
        log_base: Log density of the approximation over that of the proposal, finite.
        worth: The fewest effective draws wanted, at most half of those that are possible.

    Returns:
        Weights whose sum is 1, those of the approximation if no draw is possible; and the power
        in [0, 1] of the ratios that gives them.
    """
    possible = jnp.isfinite(log_ratio)
    ratio = jnp.where(possible, log_ratio, 0.0)
    # Without any, all are as good.
    possible = possible | ~jnp.any(possible)
    least = jnp.minimum(worth, 0.5 * jnp.sum(possible))

    def tempered(power: Array) -> Array:
        return jax.nn.softmax(jnp.where(possible, power * ratio + log_base, -jnp.inf))

    def enough(power: Array) -> Array:
        return jnp.sum(jnp.square(tempered(power))) * least <= 1.0

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        good = enough(jnp.exp(middle))
        return jnp.where(good, middle, low), jnp.where(good, high, middle)

    # Log ratios may be of any size, and so may be the power they bear.
    one = jnp.ones((), ratio.dtype)
    smallest = jnp.log(jnp.finfo(ratio.dtype).tiny)
    low, _ = lax.fori_loop(0, _HALVINGS, halve, (smallest, 0.0 * one))
    power = jnp.where(enough(one), one, jnp.exp(low))
    return tempered(power), power


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
    index = jnp.searchsorted(jnp.cumsum(weights), points, side="right")
    # Rounding may leave the sum below the last point.
    last = len(weights) - 1 - jnp.argmax(weights[::-1] > 0.0)
    return jnp.clip(index, 0, last)
