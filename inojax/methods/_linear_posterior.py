"""Samples of a posterior whose log likelihood is a parabola and whose prior is uniform in a box."""

from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
from jax import lax
from jaxtyping import Array, Float, Key

from ..solvers import cholesky, solve_lower, solve_upper
from ._objective import UNIT_PRECISION

_FIRST, _BETWEEN = 64, 4
_MOST_SHRINKS = 60
# Pairs of draws that tell how much of a normal distribution lies in the box.
_PAIRS = 256


def log_mass(precision: Float[Array, "parameter parameter"]) -> Float[Array, ""]:
    """Logarithm of the integral of exp(-xᵀPx/2), without the powers of 2π; NaN if P is singular."""
    return -jnp.sum(jnp.log(jnp.diagonal(cholesky(precision))))


def log_mass_in_box(
    point: Float[Array, " parameter"],
    gradient: Float[Array, " parameter"],
    fisher: Float[Array, "parameter parameter"],
    *,
    key: Key[Array, ""],
) -> Float[Array, ""]:
    """Logarithm of the integral of what `sample_in_box` draws from, which is 1 at `point`.

    Args:
        point: Where the likelihood was expanded, within the box.
        gradient: Gradient of the negative log likelihood there.
        fisher: Its second derivatives.
        key: Source of randomness.

    Returns:
        The logarithm, without the powers of 2π.
    """
    root, mean, drop = _stand_in(point, gradient, fisher)
    normal = jr.normal(key, (_PAIRS, point.size), point.dtype)
    step = jax.vmap(partial(solve_upper, root))(normal)
    ratios = jax.vmap(_log_ratio)(jnp.concatenate([mean[None] + step, mean[None] - step]))
    # None of them inside: the box has less than one draw's share.
    share = jnp.maximum(jax.nn.logsumexp(ratios), 0.0) - jnp.log(2.0 * _PAIRS)
    return share + drop - jnp.sum(jnp.log(jnp.diagonal(root)))


def _stand_in(point: Array, gradient: Array, fisher: Array) -> tuple[Array, Array, Array]:
    """The normal distribution with the likelihood and a normal prior in place of the uniform one.

    Returns the Cholesky factor of its precision, its mean, and the logarithm of its top over what
    likelihood and normal prior are at `point` where they leave out constants.
    """
    precision = fisher + UNIT_PRECISION * jnp.eye(point.size)
    root = cholesky(precision)
    pull = gradient + UNIT_PRECISION * (point - 0.5)
    half = solve_lower(root, pull)
    mean = point - solve_upper(root, half)
    prior = 0.5 * UNIT_PRECISION * jnp.sum(jnp.square(point - 0.5))
    return root, mean, 0.5 * jnp.sum(jnp.square(half)) - prior


def _log_ratio(z: Array) -> Array:
    """Uniform prior over the normal one that stands in for it."""
    inside = jnp.all((z >= 0.0) & (z <= 1.0))
    ratio = 0.5 * UNIT_PRECISION * jnp.sum(jnp.square(z - 0.5))
    return jnp.where(inside, ratio, -jnp.inf)


def sample_gaussian(
    mean: Float[Array, " parameter"],
    precision: Float[Array, "parameter parameter"],
    count: int,
    *,
    key: Key[Array, ""],
) -> Float[Array, "sample parameter"]:
    """Draw from a normal distribution given by its precision matrix."""
    root = cholesky(precision)
    normal = jr.normal(key, (count, mean.size), mean.dtype)
    return mean[None, :] + jax.vmap(partial(solve_upper, root))(normal)


def sample_in_box(
    point: Float[Array, " parameter"],
    gradient: Float[Array, " parameter"],
    fisher: Float[Array, "parameter parameter"],
    count: int,
    *,
    key: Key[Array, ""],
) -> Float[Array, "sample parameter"]:
    """Draw unit coordinates from a parabolic log likelihood and the uniform prior on [0, 1].

    Elliptical slice sampling around the normal distribution that has the likelihood and, in place
    of the uniform prior, a normal one of the same mean and variance: it has the right width in
    every direction, also in those that the readings leave open.

    Args:
        point: Where the likelihood was expanded, within the box.
        gradient: Gradient of the negative log likelihood there.
        fisher: Its second derivatives.
        count: Number of samples.
        key: Source of randomness.

    Returns:
        The samples.

    Source:
        Murray, Adams and MacKay, Elliptical slice sampling, arXiv 1001.0175.
    """
    size = point.size
    root, mean, _ = _stand_in(point, gradient, fisher)

    def move(z: Array, key: Array) -> tuple[Array, None]:
        normal_key, height_key, angle_key, shrink_key = jr.split(key, 4)
        normal = jr.normal(normal_key, (size,), z.dtype)
        other = solve_upper(root, normal)
        height = _log_ratio(z) + jnp.log(jr.uniform(height_key, (), z.dtype))
        angle = jr.uniform(angle_key, (), z.dtype, 0.0, 2.0 * jnp.pi)
        centered = z - mean

        def at(angle: Array) -> Array:
            return mean + centered * jnp.cos(angle) + other * jnp.sin(angle)

        def outside(carry: tuple[Array, ...]) -> Array:
            angle, _, _, tries = carry
            return (_log_ratio(at(angle)) < height) & (tries < _MOST_SHRINKS)

        def shrink(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            angle, low, high, tries = carry
            low, high = jnp.where(angle < 0.0, angle, low), jnp.where(angle < 0.0, high, angle)
            luck = jr.uniform(jr.fold_in(shrink_key, tries), (), z.dtype)
            return low + (high - low) * luck, low, high, tries + 1

        first = angle, angle - 2.0 * jnp.pi, angle, jnp.asarray(0)
        angle, *_, tries = lax.while_loop(outside, shrink, first)
        return jnp.where(tries < _MOST_SHRINKS, at(angle), z), None

    def sample(z: Array, key: Array) -> tuple[Array, Array]:
        z = lax.scan(move, z, jr.split(key, _BETWEEN))[0]
        return z, z

    first_key, key = jr.split(key)
    z = lax.scan(move, point, jr.split(first_key, _FIRST))[0]
    return lax.scan(sample, z, jr.split(key, count))[1]
