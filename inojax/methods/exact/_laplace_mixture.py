"""The posterior as a sum of peaks: which optima differ, what each weighs, and draws of all."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Int

from ..._estimate_status import EstimateStatus
from ._levenberg_marquardt import NEAR, Minimum
from ._linear_posterior import log_mass, log_mass_in_box, sample_gaussian, sample_in_box
from ._objective import Coordinates, Objective

# Optima nearer than this, in standard deviations of the better one, are the same.
SAME = 1.0
# Share of each parameter's own precision that is added to it, above the rounding errors.
_SINGULAR = 1e-12


class Peaks(NamedTuple):
    """Optima of one observation, the best first, each with a parabola for its log density.

    Attributes:
        x: Coordinates.
        known: Which ones are an optimum that no earlier row is.
        misfit: Negative log likelihood, with what couples parameters in the prior; not finite where
            the solver failed.
        gradient: Slope of the parabola, downwards; zero where the prior is part of it.
        precision: Its second derivatives.
        log_mass: Logarithm of the integral of a peak whose height is 1.
        log_weight: Logarithm of the probability of each, as far as its peak is the parabola's;
            minus infinity in rows that are not known.
        starts: Share of the starts that ended on each.
    """

    x: Float[Array, "peak parameter"]
    known: Bool[Array, " peak"]
    misfit: Float[Array, " peak"]
    gradient: Float[Array, "peak parameter"]
    precision: Float[Array, "peak parameter parameter"]
    log_mass: Float[Array, " peak"]
    log_weight: Float[Array, " peak"]
    starts: Float[Array, " peak"]


def find_peaks(objective: Objective, minimum: Minimum, *, key: Array) -> Peaks:
    """Sort out the optima at which the starts for one observation ended.

    In unit coordinates the parabola is that of the likelihood, in a box where the prior is
    uniform; else it is that of likelihood and prior.

    Args:
        objective: What was minimized.
        minimum: Where each start ended.
        key: Source of randomness.

    Returns:
        The peaks.
    """
    # Where a start gave up there is no optimum, unless it is lower than all that are.
    there = jnp.isfinite(minimum.local.value)
    lowest = jnp.min(jnp.where(minimum.arrived & there, minimum.local.value, jnp.inf))
    arrived = minimum.arrived | (minimum.local.value < lowest)
    value = jnp.where(there & arrived, minimum.local.value, jnp.inf)
    order = jnp.argsort(value)
    x = minimum.x[order]
    local = jax.tree.map(lambda leaf: leaf[order], minimum.local)
    likelihood = jax.tree.map(jnp.subtract, local, objective.prior(x))
    if objective.coordinates is Coordinates.UNIT:
        gradient, precision = likelihood.gradient, likelihood.hessian
        # The same draws for all peaks: what is random about their masses cancels in part.
        mass = jax.vmap(lambda *peak: log_mass_in_box(*peak, key=key))(x, gradient, precision)
    else:
        gradient, precision = jnp.zeros_like(x), jax.vmap(_regular)(local.hessian)
        mass = jax.vmap(log_mass)(precision)
    evidence = objective.log_measure(x) - likelihood.value + mass
    known = jnp.isfinite(value[order]) & ~_repeats(x, local.hessian) & jnp.isfinite(evidence)
    evidence = jnp.where(known, evidence, -jnp.inf)
    weight = jax.nn.log_softmax(jnp.where(jnp.any(known), evidence, 0.0))
    weight = jnp.where(known, weight, -jnp.inf)
    starts = _shares(x, local.hessian, known, jnp.isfinite(value[order]))
    return Peaks(x, known, likelihood.value, gradient, precision, mass, weight, starts)


def how_it_ended(minimum: Minimum) -> Int[Array, ""]:
    """Whether the lowest point of one observation is an optimum, and if there is none, why.

    Args:
        minimum: Where each start ended.

    Returns:
        An `EstimateStatus`; `NOT_CHECKED` if all is well.
    """
    value = minimum.local.value
    there = jnp.isfinite(value)
    lowest = jnp.min(jnp.where(there, value, jnp.inf))
    optimum = jnp.min(jnp.where(there & minimum.arrived, value, jnp.inf))
    status = jnp.where(
        lowest < optimum - NEAR, EstimateStatus.NOT_CONVERGED, EstimateStatus.NOT_CHECKED
    )
    # Readings that are impossible leave an infinite misfit, and a failed solve none.
    nothing = jnp.where(
        jnp.any(jnp.isposinf(value)),
        EstimateStatus.IMPOSSIBLE_READINGS,
        EstimateStatus.SOLVER_FAILED,
    )
    return jnp.where(jnp.any(there), status, nothing)


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


def log_densities(peaks: Peaks, x: Float[Array, "sample parameter"]) -> Float[Array, "sample peak"]:
    """Log density of draws from each peak, up to a constant that all share.

    Args:
        peaks: The peaks.
        x: Coordinates.

    Returns:
        The log densities, minus infinity where a peak is not known.
    """

    def one(peak: Array, gradient: Array, precision: Array, mass: Array) -> Array:
        step = x - peak[None]
        return -step @ gradient - 0.5 * jnp.einsum("sp,pq,sq->s", step, precision, step) - mass

    densities = jax.vmap(one)(peaks.x, peaks.gradient, peaks.precision, peaks.log_mass)
    return jnp.where(peaks.known[:, None], densities, -jnp.inf).T


def _regular(hessian: Array) -> Array:
    """A matrix that has a Cholesky factor: directions that nothing holds are held a little."""
    diagonal = jnp.diagonal(hessian)
    return hessian + jnp.diag(_SINGULAR * diagonal + 1e-300)


def _shares(x: Array, hessian: Array, known: Array, ended: Array) -> Array:
    """Share of the points that lie nearest to each of the known ones, in its own metric.

    A start that failed, or was given up, counts for none.
    """
    distances = jnp.where(known[None, :], _distances(x, hessian).T, jnp.inf)
    nearest = jax.nn.one_hot(jnp.argmin(distances, axis=1), len(x), dtype=x.dtype)
    ended = ended & jnp.isfinite(jnp.min(distances, axis=1))
    return jnp.sum(jnp.where(ended[:, None], nearest, 0.0), axis=0) / len(x)


def _distances(x: Array, hessian: Array) -> Array:
    """Squared distances, in standard deviations of the first point."""
    gaps = x[:, None] - x[None, :]
    return jnp.einsum("ijp,ipq,ijq->ij", gaps, hessian, gaps)


def _repeats(x: Array, hessian: Array) -> Array:
    """Which points lie on the peak of an earlier one."""
    # In so many dimensions points of one peak lie this far apart.
    near = _distances(x, hessian) < SAME * x.shape[1]
    earlier = jnp.tri(len(x), k=-1, dtype=bool)
    return jnp.any(near.T & earlier, axis=1)
