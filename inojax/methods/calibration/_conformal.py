"""A conformal correction: any inverter's intervals, calibrated on held-out simulations."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from ..._estimate import Estimate
from ..._inverse_problem import InverseProblem
from ..._observation import Observation
from ..._x64 import is_traced
from ...data._dataset import Dataset
from .._estimates import estimate_from_cloud
from .._inverter import AbstractInverter
from ._held_out import check_enough, invert_held_out, usable_cases
from ._wrapper import AbstractWrapper

# In unit coordinates, as the narrowest of `UnitNormal`. A smaller one is mostly that of samples
# which were cut to an end of the prior, and would make an outlier of any error.
_NARROWEST = 1e-3
# The inner inverter may split or fold its key as it likes; this number is not one it would use.
_TIES = 0x636F6E66


class ConformalInverter(AbstractWrapper):
    """An inverter with corrected samples, from `conformal`.

    It gives the point estimate of the inner inverter, so errors do not change. In each unit
    coordinate the inner samples keep their order, and with it the correlations between
    parameters, but take new values: median + half width of the central 68 % × a quantile of the
    held-out residuals, cut to [0, 1].

    Attributes:
        inner: The inverter that is corrected.
        quantiles: Standardized residual that stands for each sample, in order of size.

    Example:
        >>> # what `conformal(inverter, held_out, key=key)` gives
        >>> issubclass(ij.methods.ConformalInverter, ij.methods.AbstractInverter)
        True
    """

    inner: AbstractInverter
    quantiles: Float[Array | np.ndarray, "particle parameter"]

    def __init__(
        self,
        inner: AbstractInverter,
        quantiles: Float[Array | np.ndarray, "particle parameter"],
    ) -> None:
        """Keep the parts; `conformal` computes them."""
        self.inner, self.quantiles = inner, quantiles

    @classmethod
    def _around(cls, inner: AbstractInverter) -> "ConformalInverter":
        return cls(inner, np.zeros((1, inner.problem.parameters.size), np.float32))

    @property
    def _is_corrected(self) -> bool:
        return True

    def _invert(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        estimate = self.inner._invert(observations, keys)
        if is_traced(self, estimate, keys):
            return self._correct(estimate, keys)
        with jax.enable_x64(np.asarray(estimate.samples).dtype == np.float64):
            return _compiled_correction(self, estimate, keys)

    def _correct(self, estimate: Estimate, keys: Key[Array, " batch"]) -> Estimate:
        value, samples = jnp.asarray(estimate.unit_value), jnp.asarray(estimate.samples)
        corrected = jax.vmap(self._corrected)(value, samples, keys)

        # The point, its status, optima and diagnostics stay what they were.
        def spread(e: Estimate) -> Any:
            return e.std, e.samples

        return eqx.tree_at(spread, estimate, spread(corrected))

    def _corrected(
        self,
        unit_value: Float[Array, " parameter"],
        samples: Float[Array, "particle parameter"],
        key: Key[Array, ""],
    ) -> Estimate:
        unit = jnp.asarray(self.problem.parameters.to_unit(samples))
        # Samples that were cut to an end of the prior are equal; in the order of their rows they
        # would be correlated between parameters.
        luck = jr.uniform(jr.fold_in(key, _TIES), unit.shape)
        order = jnp.lexsort((luck, unit), axis=0)
        center, spread = _center_and_spread(jnp.take_along_axis(unit, order, axis=0))
        moved = center[None] + spread[None] * jnp.asarray(self.quantiles, unit.dtype)
        columns = jnp.arange(unit.shape[1])[None]
        cloud = unit.at[order, columns].set(jnp.clip(moved, 0.0, 1.0))
        return estimate_from_cloud(self.problem, unit_value, cloud)


@eqx.filter_jit
def _compiled_correction(inverter: ConformalInverter, estimate: Estimate, keys: Array) -> Estimate:
    return inverter._correct(estimate, keys)


def conformal(
    inverter: AbstractInverter, dataset: Dataset, *, accept: bool = False, key: Key[Array, ""]
) -> ConformalInverter:
    """Correct the spread of an inverter on simulations that it has not seen.

    Each held-out simulation is measured and inverted. In unit coordinates the gap between truth
    and median, in units of the spread of the samples, is a standardized residual of each
    parameter. Its order statistics replace the shape of the samples: of n residuals the
    ⌈(n + 1) p⌉-th smallest is the quantile p above the median, the ⌊(n + 1) p⌋-th below.

    What follows holds for any inverter, however wrong: over new cases drawn like the held-out
    ones, the central interval of each parameter, as `Estimate.interval` takes it from S
    samples, holds the truth at least as often as it says, at the levels 1 - 2 k/(S + 1) for whole
    k from 1; between two of these its ends are interpolated, and it may hold the truth as rarely
    as the lower of the two says. It is a promise for the average over the prior, not for each
    observation, and not for data that the problem does not describe.

    Args:
        inverter: A fitted inverter that gives samples.
        dataset: Simulations of its problem that it was not trained on; failed ones are left
            out. At least 100 are needed, and S.
        accept: Whether to accept simulations of equations that are written in another way. Some
            are solved again, and where they differ they are refused all the same.
        key: Source of randomness of sensors, noise and inversions.

    Returns:
        The corrected inverter.

    Raises:
        ValueError: If the data set is of another problem or too small, or if the inverter gives
            no samples, too few or some that are not finite.

    Source:
        Vovk, Gammerman and Shafer 2005, Algorithmic learning in a random world; Lei et al.
        2018, section 5.2 (residuals scaled by a local spread), arXiv 1604.04173.

    Example:
        >>> problem = ij.problems.robertson()
        >>> training, held_out = (
        ...     ij.simulate(problem, 128, key=jr.key(seed), progress=False) for seed in (0, 1)
        ... )
        >>> inverter = ij.methods.Regression(steps=10, draws=32).fit(
        ...     problem, training, key=jr.key(2), progress=False
        ... )

        >>> corrected = ij.methods.conformal(inverter, held_out, key=jr.key(3))
        >>> observation = problem.simulate(held_out.thetas[0], key=jr.key(4))
        >>> corrected(observation, key=jr.key(5)).ticket.corrected
        True
    """
    usable = usable_cases(inverter, dataset, accept=accept)
    residuals, particles = _held_out_residuals(inverter, usable, key)
    # Then every sample has an order statistic of its own, none of them infinite.
    check_enough(len(usable), particles, f"for {particles} samples of each estimate")
    return ConformalInverter(inverter, _conformal_quantiles(residuals, particles))


def _center_and_spread(
    ordered: Float[Array, "particle parameter"],
) -> tuple[Float[Array, " parameter"], Float[Array, " parameter"]]:
    """Median and half width of the central 68 %, which a few stray samples hardly change."""
    place = np.array([0.16, 0.5, 0.84]) * (len(ordered) - 1)
    below = np.floor(place).astype(int)
    weight = jnp.asarray(place - below, ordered.dtype)[:, None]
    above = np.minimum(below + 1, len(ordered) - 1)
    low, center, high = (1.0 - weight) * ordered[below] + weight * ordered[above]
    return center, jnp.maximum(0.5 * (high - low), _NARROWEST)


@eqx.filter_jit
def _summarized(
    problem: InverseProblem, samples: Float[Any, "batch particle parameter"]
) -> tuple[Float[Array, "batch parameter"], Float[Array, "batch parameter"]]:
    unit = jnp.asarray(problem.parameters.to_unit(samples))
    return jax.vmap(_center_and_spread)(jnp.sort(unit, axis=1))


def _held_out_residuals(
    inverter: AbstractInverter, usable: Dataset, key: Key[Array, ""]
) -> tuple[Float[np.ndarray, "n parameter"], int]:
    """Standardized residuals of all simulations, and the number of samples of each estimate."""
    parts, particles = [], 0
    for block in invert_held_out(inverter, usable, key=key):
        particles = block.samples.shape[-2]
        with jax.enable_x64(False):
            center, spread = _summarized(inverter.problem, block.samples)
        gap = (usable.unit[block.rows] - np.asarray(center)) / np.asarray(spread)
        parts.append(gap[: block.size])
    return np.concatenate(parts), particles


def _conformal_quantiles(
    residuals: Float[np.ndarray, "n parameter"], particles: int
) -> Float[np.ndarray, "particle parameter"]:
    """Order statistics of the residuals, one for each sample in order of size.

    Sample k of S, counted from 1, stands at level k / (S + 1), where `central_interval` sees it.
    """
    n, steps = len(residuals), particles + 1
    level = np.arange(1, steps)
    # Whole numbers: rounding would push a level that is an exact order statistic to the next.
    floor = (n + 1) * level // steps
    ceiling = -(-(n + 1) * level // steps)
    order = np.where(2 * level > steps, ceiling, floor) - 1
    return np.sort(residuals, axis=0)[order].astype(np.float32)
