"""Counts of independent events."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from .._binding import Binding
from ._base import AbstractNoise

# An expected count this far below zero is rounding, or the solver's error, whatever its unit.
_NO_COUNT = 1e-9
# Expected counts below these are taken for these where a root would have an infinite slope: the
# residual of a count of zero, of which half the square is the expected count, and the information.
_LEAST_MEAN, _LEAST_INFORMED = 1e-16, 1e-6
# Counts above this are drawn from the normal distribution, a ten-thousandth of it wide.
_MANY = 1e8
# Relative distances below which the series is more exact than the formula, and its terms.
_CLOSE = 0.05
_TERMS = 10


def _as_exposure(exposure: float) -> float:
    value = float(exposure) if np.ndim(exposure) == 0 else np.nan
    if not 0.0 < value < np.inf:
        raise ValueError(f"`exposure` must be a positive number; got {exposure!r}.")
    return value


class Poisson(AbstractNoise):
    """Counts of independent events, which happen at the rate that the solution states.

    Use it for particles, photons, spikes or patients that were counted. Events at places along a
    line are a Poisson process: count them in cells, and the smaller these are the less is lost.
    Clean values are rates per unit of exposure. Where the model predicts zero no event is possible:
    a count of zero is sure then, and adds 0 to the log density, any other is impossible, and its
    log density minus infinity. Less than zero by rounding is zero; truly less has no density.

    Residuals are those of the deviance: half of their squares is the log density of the reading
    where the model predicts it exactly, minus that of the model at hand. Their mean is 0 and their
    variance 1 up to about one over the expected count.

    Attributes:
        exposure: What a rate is multiplied by to give the expected count of a reading, such as
            the time of counting, or the number of snapshots times the length of a cell.

    Source:
        McCullagh and Nelder, Generalized Linear Models (1989), section 2.4.

    Example:
        >>> noise = ij.noise.Poisson()
        >>> counts = noise.sample(
        ...     5.0 * jnp.ones((3, 1)), jnp.zeros(1), times=jnp.arange(3.0), key=jr.key(0)
        ... )
        >>> bool((counts == jnp.round(counts)).all())
        True
    """

    exposure: float = eqx.field(static=True, default=1.0, converter=_as_exposure)

    @property
    def counts(self) -> bool:
        """Readings are counts."""
        return True

    @property
    def negligible(self) -> float:
        """A rate that makes no difference to a count."""
        return _NO_COUNT / self.exposure

    def bound_to(self, binding: Binding) -> AbstractNoise:
        """The same: no parameter matters here."""
        del binding
        return self

    def sample(
        self,
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
        key: Key[Array, ""],
    ) -> Float[Array, "reading channel"]:
        """Draw counts.

        Args:
            clean: Rates.
            theta: Not needed.
            times: Not needed.
            key: Source of randomness.

        Returns:
            Whole numbers in the dtype of `clean`; NaN where the rate is.
        """
        del theta, times
        mean = self._mean(clean, None)
        known = jnp.maximum(jnp.nan_to_num(mean), 0.0)
        drawn = jr.poisson(key, jnp.minimum(known, _MANY)).astype(mean.dtype)
        # More of them are normal, and would not fit into the integers of single precision.
        normal = jnp.round(known + jnp.sqrt(known) * jr.normal(key, known.shape, known.dtype))
        return jnp.where(jnp.isnan(mean), jnp.nan, jnp.where(known > _MANY, normal, drawn))

    def log_prob(
        self,
        readings: Float[Array | np.ndarray, "reading channel"],
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
    ) -> Float[Array, ""]:
        """Return the log probability of the counts.

        Args:
            readings: Counts.
            clean: Rates.
            theta: Not needed.
            mask: Which readings count; all by default.
            times: Not needed.

        Returns:
            The sum over the readings that count: minus infinity where a rate or a count is
            negative, or a rate zero and a count not.
        """
        del theta, times
        readings, mean = jnp.asarray(readings), self._mean(clean, mask)
        kept = jnp.ones(mean.shape, bool) if mask is None else jnp.asarray(mask)
        possible = self._possible(readings, mean)
        # What does not count must not reach gradients either, hence another `where` inside.
        readings, mean = (jnp.where(kept & possible, x, 1.0) for x in (readings, mean))
        logarithm = jnp.log(jnp.where(readings == 0.0, 1.0, mean))
        terms = readings * logarithm - mean - jax.scipy.special.gammaln(readings + 1.0)
        return jnp.sum(jnp.where(kept, jnp.where(possible, terms, -jnp.inf), 0.0))

    def whiten(
        self,
        readings: Float[Array | np.ndarray, "reading channel"],
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
    ) -> Float[Array, "reading channel"]:
        """Compare counts with rates by the roots of the deviance.

        Args:
            readings: Counts, or what a model expects in their place.
            clean: Rates.
            theta: Not needed.
            mask: Which readings count; all by default.
            times: Not needed.

        Returns:
            Residuals with the sign of the difference; infinite where the log density is minus
            infinity, and 0 (to 1e-7) for a count of zero where none is expected.
        """
        del theta, times
        readings, mean = jnp.asarray(readings), self._mean(clean, mask)
        possible = self._possible(readings, mean)
        # So that the product of a residual and its slope is that of half its square.
        mean = jnp.where(readings == 0.0, _at_least(mean, _LEAST_MEAN), mean)
        readings, mean = (jnp.where(possible, x, 1.0) for x in (readings, mean))
        return jnp.where(possible, _deviance_root(readings, mean), jnp.inf)

    def log_scale(
        self,
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
    ) -> Float[Array, "reading channel"]:
        """Return zeros: the squares of deviance residuals hold the whole density.

        Args:
            clean: Rates, for their shape.
            theta: Not needed.
            mask: Not needed.
            times: Not needed.

        Returns:
            Zeros.
        """
        del theta, mask, times
        return jnp.zeros_like(jnp.asarray(clean))

    def stabilized(
        self, clean: Float[Array | np.ndarray, "reading channel"]
    ) -> Float[Array, "reading channel"]:
        """Minus twice the root of the expected count, whose information is one.

        Args:
            clean: Rates.

        Returns:
            The predictions on that scale; infinite where a rate is negative.
        """
        mean = self._mean(clean, None)
        possible = ~(mean < 0.0)
        # Where next to nothing is expected, what a solver says of its slope may be all error.
        root = jnp.sqrt(jnp.where(possible, _at_least(mean, _LEAST_INFORMED), 1.0))
        return jnp.where(possible, -2.0 * root, -jnp.inf)

    def _mean(self, clean: Array | np.ndarray, mask: Any) -> Array:
        clean = jnp.asarray(clean)
        # What does not count says nothing about the size of the others.
        counting = clean if mask is None else jnp.where(mask, clean, 0.0)
        return self.exposure * jnp.asarray(self.settled(counting))

    def _possible(self, readings: Array, mean: Array) -> Array:
        """False where a count cannot be; NaN passes, to be seen."""
        return ~((readings < 0.0) | (mean < 0.0) | ((mean == 0.0) & (readings > 0.0)))


def _at_least(mean: Array, least: float) -> Array:
    """A mean that is no less, with the derivatives of the mean."""
    raised = least + (mean - jax.lax.stop_gradient(mean))
    return jnp.where((mean >= 0.0) & (mean < least), raised, mean)


def _deviance_root(counts: Array, mean: Array) -> Array:
    """Root of 2 (y log(y / m) - y + m) with the sign of y - m, smooth where they are equal."""
    distance = (counts - mean) / mean
    close = jnp.abs(distance) < _CLOSE
    # 2 ((1 + t) log(1 + t) - t) / t² as a series in t.
    t = jnp.where(close, distance, 0.0)
    series = jnp.zeros_like(t)
    for power in reversed(range(_TERMS)):
        series = series * t + (-1.0) ** power * 2.0 / ((power + 2.0) * (power + 1.0))
    near = t * jnp.sqrt(mean * series)
    far_counts = jnp.where(close, 2.0 * mean, counts)
    log_ratio = jnp.log(jnp.where(far_counts > 0.0, far_counts, mean) / mean)
    far = jnp.sqrt(2.0 * (far_counts * log_ratio - far_counts + mean))
    return jnp.where(close, near, jnp.sign(distance) * far)
