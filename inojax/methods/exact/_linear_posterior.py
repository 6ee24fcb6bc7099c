"""Samples of a posterior whose log likelihood is a parabola and whose prior is uniform in a box."""

from functools import partial

import jax
import jax.numpy as jnp
import jax.random as jr
from jax import lax
from jax.scipy.special import log_ndtr, ndtri
from jaxtyping import Array, Float, Key

from ...solvers._cholesky import cholesky, solve_upper
from ._importance import resample

# Draws for each sample.
_OVERSAMPLED = 8
# Draws that tell how much of a normal distribution lies in the box, and the precision that holds
# directions which the likelihood leaves open; the draws make up for it.
_MASS_DRAWS, _HELD = 256, 0.1
# Normal tails below this are zero in double precision.
_LOG_ZERO = -700.0


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

    Source:
        Genz, Numerical computation of multivariate normal probabilities, J. Comput. Graph. Stat. 1
        (1992): separation of variables.
    """
    _, masses = _separated(point, gradient, fisher, _MASS_DRAWS, key)
    return jax.nn.logsumexp(masses) - jnp.log(float(_MASS_DRAWS))


def _separated(
    point: Array, gradient: Array, fisher: Array, count: int, key: Array
) -> tuple[Float[Array, "draw parameter"], Float[Array, " draw"]]:
    """Draws by separated variables, with the logarithm of what each says about the mass."""
    root = cholesky(fisher + _HELD * jnp.eye(point.size))
    pull = gradient + _HELD * (point - 0.5)
    uniform = jr.uniform(key, (count, point.size), point.dtype)
    return jax.vmap(partial(_one_by_one, root, point, pull))(uniform)


def _one_by_one(root: Array, point: Array, pull: Array, uniform: Array) -> tuple[Array, Array]:
    """A draw, and one unbiased estimate of the mass, which is the draw's weight as well.

    With the precision as `root` times its transpose, the exponent is a sum over coordinates of
    pull[k] d[k] + (root[k, k] d[k] + c[k])² / 2, where c[k] depends on later steps d alone. So the
    steps are drawn one after the other, the last first, each from its own term within the box; the
    integrals of these terms, multiplied, have the mass as their mean. A pull out of the box stays
    with the coordinate it pulls at, and does not move the others to where they cannot be.
    """

    def add(number: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        step, total = carry
        k = point.size - 1 - number
        scale, tilt = root[k, k], pull[k] / root[k, k]
        shift = root[:, k] @ step  # steps that are not drawn yet are zero
        # (scale d + shift + tilt)² / 2 is the term, up to what does not depend on d.
        low, high = shift + tilt - scale * point[k], shift + tilt + scale * (1.0 - point[k])
        share, value = _cut_normal(low, high, uniform[k])
        total = total + share + tilt * (shift + 0.5 * tilt) - jnp.log(scale)
        inside = jnp.clip((value - shift - tilt) / scale, -point[k], 1.0 - point[k])
        return step.at[k].set(inside), total

    start = jnp.zeros_like(point), jnp.zeros((), point.dtype)
    step, total = lax.fori_loop(0, point.size, add, start)
    # What held the steps beyond the likelihood is taken out again.
    held = jnp.square(point + step - 0.5) - jnp.square(point - 0.5)
    return point + step, total + 0.5 * _HELD * jnp.sum(held)


def _cut_normal(low: Array, high: Array, level: Array) -> tuple[Array, Array]:
    """Log probability of a standard normal between two ends, and its quantile there."""
    # In the lower tail nothing is lost to rounding.
    flip = low + high > 0.0
    low, high = jnp.where(flip, -high, low), jnp.where(flip, -low, high)
    log_low, log_high = log_ndtr(low), log_ndtr(high)
    share = log_high + jnp.log1p(-jnp.exp(log_low - log_high))
    below, above = jnp.exp(log_low), jnp.exp(log_high)
    value = jnp.clip(ndtri(below + level * (above - below)), low, high)
    # So far out all of it lies at the nearer end.
    value = jnp.where(log_high < _LOG_ZERO, high, value)
    return share, jnp.where(flip, -value, value)


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

    By separated variables, each coordinate from its own term within the box; what the terms of
    later coordinates miss is made up for by resampling several times as many draws. However far
    outside of the box the likelihood has its top, no direction is drawn too narrow.

    Args:
        point: Where the likelihood was expanded, within the box.
        gradient: Gradient of the negative log likelihood there.
        fisher: Its second derivatives.
        count: Number of samples.
        key: Source of randomness.

    Returns:
        The samples.

    Source:
        As `log_mass_in_box`.
    """
    draw_key, pick_key, order_key = jr.split(key, 3)
    draws, masses = _separated(point, gradient, fisher, _OVERSAMPLED * count, draw_key)
    index = resample(jax.nn.softmax(masses), count, key=pick_key)
    return draws[jr.permutation(order_key, index)]
