"""The posterior as a sum of peaks: which optima differ, what each weighs, and draws of all."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int

from ._levenberg_marquardt import Local, Minimum
from ._linear_posterior import log_mass, log_mass_in_box, sample_gaussian, sample_in_box
from ._objective import Coordinates, Objective

# Optima nearer than this, in standard deviations of the better one, are the same.
_SAME = 1.0
# Share of each parameter's own precision that is added to it, above the rounding errors.
_SINGULAR = 1e-12


class Peaks(NamedTuple):
    """Optima of one observation, the best first, each with a parabola for its log density.

    Attributes:
        x: Coordinates.
        known: Which ones are an optimum that no earlier row is.
        misfit: Negative log likelihood.
        log_density: Log density of the posterior in the coordinates, up to a constant.
        gradient: Slope of the parabola, downwards; zero where the prior is part of it.
        precision: Its second derivatives.
        log_mass: Logarithm of the integral of a peak whose height is 1.
    """

    x: Float[Array, "peak parameter"]
    known: Bool[Array, " peak"]
    misfit: Float[Array, " peak"]
    log_density: Float[Array, " peak"]
    gradient: Float[Array, "peak parameter"]
    precision: Float[Array, "peak parameter parameter"]
    log_mass: Float[Array, " peak"]

    @property
    def weight(self) -> Float[Array, " peak"]:
        """Probability of each, as far as its peak is the parabola's."""
        evidence = self.log_density + self.log_mass
        evidence = jnp.where(self.known & ~jnp.isnan(evidence), evidence, -jnp.inf)
        some = jnp.any(jnp.isfinite(evidence))
        return jnp.where(some, jax.nn.softmax(jnp.where(some, evidence, 0.0)), 0.0)


def find_peaks(
    objective: Objective, minimum: Minimum, *, flatter: float, key: Array
) -> tuple[Peaks, Local]:
    """Sort out the optima at which the starts for one observation ended.

    In unit coordinates the parabola is that of the likelihood, in a box where the prior is
    uniform; else it is that of likelihood and prior.

    Args:
        objective: What was minimized.
        minimum: Where each start ended.
        flatter: By how much the parabolas are flatter than the misfit.
        key: Source of randomness.

    Returns:
        The peaks, and the objective at each.
    """
    # Where a start gave up there is no optimum, unless it is lower than all that are.
    there = jnp.isfinite(minimum.local.value)
    lowest = jnp.min(jnp.where(minimum.converged & there, minimum.local.value, jnp.inf))
    arrived = minimum.converged | (minimum.local.value < lowest)
    value = jnp.where(there & arrived, minimum.local.value, jnp.inf)
    order = jnp.argsort(value)
    x = minimum.x[order]
    local = jax.tree.map(lambda leaf: leaf[order], minimum.local)
    known = jnp.isfinite(value[order]) & ~_repeats(x, local.hessian)
    likelihood = jax.tree.map(jnp.subtract, local, objective.prior(x))
    if objective.coordinates is Coordinates.UNIT:
        gradient, precision = likelihood.gradient / flatter, likelihood.hessian / flatter
        # The same draws for all peaks: what is random about their masses cancels in part.
        mass = jax.vmap(lambda *peak: log_mass_in_box(*peak, key=key))(x, gradient, precision)
    else:
        gradient = jnp.zeros_like(x)
        precision = jax.vmap(_regular)(local.hessian) / flatter
        mass = jax.vmap(log_mass)(precision)
    density = objective.log_measure(x) - likelihood.value
    return Peaks(x, known, likelihood.value, density, gradient, precision, mass), local


def draw(
    objective: Objective, peaks: Peaks, which: Int[Array, " sample"], *, key: Array
) -> Float[Array, "sample parameter"]:
    """Draw from the parabolas.

    Args:
        objective: What was minimized.
        peaks: The peaks.
        which: The peak that each sample comes from.
        key: Source of randomness.

    Returns:
        Coordinates.
    """

    def one(x: Array, gradient: Array, precision: Array, key: Array) -> Array:
        if objective.coordinates is Coordinates.UNIT:
            return sample_in_box(x, gradient, precision, which.size, key=key)
        return sample_gaussian(x, precision, which.size, key=key)

    keys = jr.split(key, len(peaks.x))
    every = jax.vmap(one)(peaks.x, peaks.gradient, peaks.precision, keys)
    lower, upper = objective.bounds
    return jnp.clip(every[which, jnp.arange(which.size)], lower[None], upper[None])


def log_density_of_draws(
    peaks: Peaks, share: Float[Array, " peak"], x: Float[Array, "sample parameter"]
) -> Float[Array, " sample"]:
    """Log density of `draw`, up to a constant.

    Args:
        peaks: The peaks.
        share: Share of the samples that comes from each.
        x: Coordinates.

    Returns:
        The log density of the mixture at each.
    """

    def one(peak: Array, gradient: Array, precision: Array, mass: Array) -> Array:
        step = x - peak[None]
        return -step @ gradient - 0.5 * jnp.einsum("sp,pq,sq->s", step, precision, step) - mass

    densities = jax.vmap(one)(peaks.x, peaks.gradient, peaks.precision, peaks.log_mass)
    weights = jnp.broadcast_to(share[:, None], densities.shape)
    densities = jnp.where(weights > 0.0, densities, -jnp.inf)
    return jax.nn.logsumexp(densities, axis=0, b=weights)


def _regular(hessian: Array) -> Array:
    """A matrix that has a Cholesky factor: directions that nothing holds are held a little."""
    diagonal = jnp.diagonal(hessian)
    return hessian + jnp.diag(_SINGULAR * diagonal + 1e-300)


def _repeats(x: Array, hessian: Array) -> Array:
    """Which points lie on the peak of an earlier one."""
    gaps = x[:, None] - x[None, :]
    squared = jnp.einsum("ijp,ipq,ijq->ij", gaps, hessian, gaps)
    # In so many dimensions points of one peak lie this far apart.
    near = squared < _SAME * x.shape[1]
    earlier = jnp.tri(len(x), k=-1, dtype=bool)
    return jnp.any(near.T & earlier, axis=1)
