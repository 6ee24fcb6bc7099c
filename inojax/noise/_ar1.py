"""Noise that remembers: readings scatter like the one before them."""

import dataclasses
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from .._binding import Binding
from ._base import AbstractNoise
from ._independent import AbstractIndependentNoise
from ._levels import Level, as_level, check_names, value_of


class _Links(NamedTuple):
    """How each reading hangs on the one before it that the mask keeps.

    Attributes:
        before: Row of that reading; its own where there is none.
        weight: Correlation with it; 0 where there is none.
        log_share: Log of the share of its standard deviation that it does not determine;
            infinite where the correlation is no correlation.
    """

    before: Array
    weight: Array
    log_share: Array


class AR1(AbstractNoise):
    """Noise of first-order autoregression in time, each channel by itself.

    Each reading scatters by itself as `inner` says, and those of one channel, an interval Δt
    apart, are correlated in its standard deviations by `correlation` to the power of
    Δt / `step`. So readings may be missing or irregular, and the first one is drawn like any
    other (a stationary start). The precision matrix is tridiagonal, and everything here costs
    no more than the number of readings.

    Use it where an instrument samples faster than its disturbances fade: treated as
    independent, a thousand such readings would promise far too narrow intervals.

    A channel that is read twice at the same time has no density; results are then not finite.

    Attributes:
        inner: How readings scatter by themselves, with the marginal standard deviation.
        correlation: Correlation of readings one step apart, in [0, 1), or the name of a
            parameter if it is unknown.
        step: Time between two such readings, in the model's unit of time.

    Example:
        >>> noise = ij.noise.AR1(ij.noise.Gaussian(0.35), 0.8, step=0.2)
        >>> readings = noise.sample(
        ...     jnp.zeros((5, 1)), jnp.zeros(1), times=0.2 * jnp.arange(5.0), key=jr.key(0)
        ... )
        >>> readings.shape
        (5, 1)
    """

    inner: AbstractIndependentNoise
    correlation: Level = eqx.field(static=True)
    step: float = eqx.field(static=True)
    _binding: Binding | None = eqx.field(static=True, default=None, repr=False)

    def __init__(
        self,
        inner: AbstractIndependentNoise,
        correlation: Level,
        *,
        step: float,
        _binding: Binding | None = None,
    ) -> None:
        """Check correlation and step.

        Raises:
            TypeError: If `inner` is not independent noise.
            ValueError: If `correlation` is not in [0, 1) or `step` is not positive.
        """
        if not isinstance(inner, AbstractIndependentNoise):
            raise TypeError(
                "`inner` must be noise that is independent from reading to reading, such as "
                f"`Gaussian(0.1)`; got {type(inner).__name__}."
            )
        self.inner = inner
        self.correlation = _as_correlation(correlation)
        if not (math.isfinite(step) and step > 0.0):
            raise ValueError(f"`step` must be a positive time; got {step!r}.")
        self.step = float(step)
        self._binding = _binding

    @property
    def positive(self) -> bool:
        """Whether `inner` needs positive readings."""
        return self.inner.positive

    @property
    def needs_differences_only(self) -> bool:
        """Correlations depend on the time between readings."""
        return True

    def bound(self, names: tuple[str, ...]) -> "AR1":
        """Look up the parameters that correlation and scale name.

        Args:
            names: Names of the problem's parameters, in the order of θ.

        Returns:
            The same noise, ready for parameter vectors of this order.

        Raises:
            ValueError: If one of them is not there.
        """
        return self.bound_to(Binding(tuple(names)))

    def bound_to(self, binding: Binding) -> "AR1":
        """Look up the parameters that correlation and scale name; see `AbstractNoise.bound_to`."""
        check_names((self.correlation,), binding, "correlation")
        if isinstance(self.correlation, str) and self.correlation in binding.values:
            _as_correlation(binding.values[self.correlation])
        return dataclasses.replace(self, inner=self.inner.bound_to(binding), _binding=binding)

    def check(self, n_channels: int) -> None:
        """Raise unless `inner` has one level or one for each channel.

        Args:
            n_channels: Number of observed channels.

        Raises:
            ValueError: If it has another number of levels.
        """
        self.inner.check(n_channels)

    def sample(
        self,
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
        key: Key[Array, ""],
    ) -> Float[Array, "reading channel"]:
        """Draw readings around clean values.

        Args:
            clean: Clean values.
            theta: Physical parameter values, for what is unknown.
            times: Times of the readings, which must not decrease.
            key: Source of randomness.

        Returns:
            Readings of the same dtype.

        Raises:
            ValueError: If there are no times.
        """
        clean = jnp.asarray(clean)
        links = self._links(clean, theta, None, times)
        fresh = jnp.exp(links.log_share) * jr.normal(key, clean.shape, clean.dtype)

        def follow(first: tuple[Array, Array], second: tuple[Array, Array]) -> tuple[Array, Array]:
            return first[0] * second[0], second[0] * first[1] + second[1]

        _, distance = jax.lax.associative_scan(follow, (links.weight, fresh))
        return self.inner.moved(clean, distance, theta)

    def log_prob(
        self,
        readings: Float[Array | np.ndarray, "reading channel"],
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
    ) -> Float[Array, ""]:
        """Return the log density of the readings, those left out being integrated over.

        Args:
            readings: What was measured.
            clean: What the model predicts.
            theta: Physical parameter values, for what is unknown.
            mask: Which readings count; all by default.
            times: Times of the readings, which must not decrease.

        Returns:
            The log density; minus infinity where a level is not positive, the correlation not
            in [0, 1), or a value that must be positive is not.

        Raises:
            ValueError: If there are no times, or `inner` has no density.
        """
        alone = self.inner.log_prob(readings, clean, theta, mask)
        readings, clean = jnp.asarray(readings), jnp.asarray(clean)
        kept = jnp.ones(clean.shape, bool) if mask is None else jnp.asarray(mask)
        # Nor does a reading that is sure to be zero say anything about its neighbors.
        kept = kept & ~self.inner.at_edge(clean, kept)
        # What does not count must not reach gradients either, hence another `where` inside.
        readings, clean = (jnp.where(kept, x, 1.0) for x in (readings, clean))
        distance = jnp.where(kept, self.inner.whiten(readings, clean, theta), 0.0)
        distance = jnp.where(jnp.isinf(distance), 0.0, distance)  # impossible, as `alone` says
        links = self._links(clean, theta, kept, times)
        gain = 0.5 * (jnp.square(distance) - jnp.square(_innovation(distance, links)))
        return alone + jnp.sum(jnp.where(kept, gain - links.log_share, 0.0))

    def whiten(
        self,
        readings: Float[Array | np.ndarray, "reading channel"],
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
    ) -> Float[Array, "reading channel"]:
        """Return what each reading adds to the one before it, in standard deviations.

        Args:
            readings: What was measured.
            clean: What the model predicts.
            theta: Physical parameter values, for what is unknown.
            mask: Which readings count; all by default.
            times: Times of the readings, which must not decrease.

        Returns:
            Innovations; infinite where a value that must be positive is not.

        Raises:
            ValueError: If there are no times, or `inner` has no density.
        """
        distance = self.inner.whiten(readings, clean, theta, mask)
        if mask is not None:
            distance = jnp.where(jnp.asarray(mask), distance, 0.0)
        return _innovation(distance, self._links(distance, theta, self._told(clean, mask), times))

    def log_scale(
        self,
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
    ) -> Float[Array, "reading channel"]:
        """Return the log of each innovation's standard deviation.

        Args:
            clean: Clean values, for their shape, and for where they are zero.
            theta: Physical parameter values, for what is unknown.
            mask: Which readings count; all by default.
            times: Times of the readings, which must not decrease.

        Returns:
            The logarithms; infinite where a level is not positive, or the correlation not in
            [0, 1), which has no density.

        Raises:
            ValueError: If there are no times, or `inner` has no density.
        """
        links = self._links(jnp.asarray(clean), theta, self._told(clean, mask), times)
        return self.inner.log_scale(clean, theta, mask) + links.log_share

    def _told(self, clean: Any, mask: Any) -> Any:
        """Which readings say something: a gather is slow, so None where all do."""
        if not self.inner.positive:
            return mask
        told = ~self.inner.at_edge(clean, mask)
        return told if mask is None else told & jnp.asarray(mask)

    def _links(self, like: Array, theta: Any, mask: Any, times: Any) -> _Links:
        if times is None:
            raise ValueError("`times` are needed: this noise depends on the time between readings.")
        # Differences first: rounded to single precision, times far from zero would be equal.
        xp = np if isinstance(times, np.ndarray) else jnp
        times = xp.asarray(times)
        times = jnp.asarray(times - times[:1], like.dtype)
        before, first, gap = _neighbors(times[:, None], like, mask)
        rho = value_of(
            self.correlation, jnp.asarray(theta, like.dtype), self._binding, "correlation"
        )
        valid = (rho >= 0.0) & (rho < 1.0)
        # Double `where`: a valid value in the branch not taken keeps gradients finite.
        none = (rho == 0.0) | ~valid
        exponent = jnp.log(jnp.where(none, 0.5, rho)) * gap / self.step
        weight = jnp.where(first | none, 0.0, jnp.exp(exponent))
        share = -jnp.expm1(2.0 * jnp.where(first | none, -1.0, exponent))
        log_share = jnp.where(first | none, 0.0, 0.5 * jnp.log(share))
        return _Links(before, weight, jnp.where(valid, log_share, jnp.inf))


def _neighbors(times: Array, like: Array, mask: Any) -> tuple[Array, Array, Array]:
    """The row before each that the mask keeps, where there is none, and the time between."""
    row = jnp.broadcast_to(jnp.arange(len(like))[:, None], like.shape)
    if mask is None:
        # No row is left out. Training draws such noise in each step, and a gather is slow.
        gap = jnp.broadcast_to(jnp.diff(times, axis=0, prepend=times[:1]), like.shape)
        return jnp.maximum(row - 1, 0), row == 0, gap
    kept = jnp.where(jnp.asarray(mask), row, -1)
    last = jax.lax.cummax(jnp.concatenate([jnp.full_like(kept[:1], -1), kept[:-1]]))
    # Rows that are left out have no link: padding repeats a time, and no time has passed then.
    first = (last < 0) | ~jnp.asarray(mask)
    before = jnp.where(first, row, last)
    gap = times - jnp.take_along_axis(jnp.broadcast_to(times, like.shape), before, axis=0)
    return before, first, gap


def _innovation(distance: Array, links: _Links) -> Array:
    # What follows an impossible reading is not impossible for that.
    finite = jnp.where(jnp.isinf(distance), 0.0, distance)
    expected = links.weight * jnp.take_along_axis(finite, links.before, axis=0)
    scale = jnp.where(jnp.isposinf(links.log_share), 0.0, links.log_share)
    return (distance - expected) * jnp.exp(-scale)


def _as_correlation(correlation: Any) -> Level:
    level = as_level(correlation)
    if level is None or (isinstance(level, float) and level >= 1.0):
        raise ValueError(
            "`correlation` must be one number in [0, 1) or the name of a parameter; "
            f"got {correlation!r}."
        )
    return level
