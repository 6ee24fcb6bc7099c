"""Noise that is normal in some coordinate, each reading by itself."""

import abc
import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import jax.random as jr
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, Bool, Float, Key

from .._binding import Binding
from ._base import AbstractNoise, NoDensityError
from ._levels import Level, Scale, check_names, value_of


class AbstractIndependentNoise(AbstractNoise):
    """Readings that scatter independently, normally in some coordinate of their own.

    The standard deviation in that coordinate, the level, is a number or an unknown of the
    problem. To add one, subclass it with its two fields and say what the coordinate is; see
    `Gaussian`, where it is the reading itself, and `LogNormal`, where it is its logarithm.

    Attributes:
        scale: The level, a number or the name of a parameter, or one of either per channel.

    Example:
        >>> issubclass(ij.noise.Gaussian, ij.noise.AbstractIndependentNoise)
        True
    """

    scale: AbstractVar[Scale]
    # Names of the problem's parameters, once known.
    _binding: AbstractVar[Binding | None]

    @abc.abstractmethod
    def _difference(self, readings: Array, clean: Array) -> Array:
        """Readings minus clean values in the normal coordinate."""

    @abc.abstractmethod
    def _moved(self, clean: Array, distance: Array) -> Array:
        """Readings at a distance from clean values in the normal coordinate."""

    @abc.abstractmethod
    def _log_slope(self, readings: Array) -> Array:
        """Log of the derivative of the normal coordinate with respect to the reading."""

    def bound(self, names: tuple[str, ...]) -> "AbstractIndependentNoise":
        """Look up the parameters that the scale names; an `InverseProblem` calls this.

        Args:
            names: Names of the problem's parameters, in the order of θ.

        Returns:
            The same noise, ready for parameter vectors of this order.

        Raises:
            ValueError: If the scale names a parameter that is not there.
        """
        return self.bound_to(Binding(tuple(names)))

    def bound_to(self, binding: Binding) -> "AbstractIndependentNoise":
        """Look up the parameters that the scale names; see `AbstractNoise.bound_to`."""
        check_names(self._unknowns, binding, "scale")
        return dataclasses.replace(self, _binding=binding) if self._unknowns else self

    def check(self, n_channels: int) -> None:
        """Raise unless the scale is one level or has one for each channel.

        Args:
            n_channels: Number of observed channels.

        Raises:
            ValueError: If the number of levels is neither 1 nor `n_channels`.
        """
        if isinstance(self.scale, tuple) and len(self.scale) != n_channels:
            raise ValueError(
                f"`scale` must be one number or name, or one for each of the {n_channels} "
                f"channels; got {len(self.scale)} numbers or names."
            )

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
            theta: Physical parameter values, for levels that are unknown.
            times: Not needed.
            key: Source of randomness.

        Returns:
            Readings of the same dtype.
        """
        del times
        clean = jnp.asarray(clean)
        return self.moved(clean, jr.normal(key, clean.shape, clean.dtype), theta)

    def moved(
        self,
        clean: Float[Array | np.ndarray, "reading channel"],
        distance: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
    ) -> Float[Array, "reading channel"]:
        """Return readings at given distances from clean values, the inverse of `whiten`.

        Args:
            clean: Clean values.
            distance: How far away, in standard deviations.
            theta: Physical parameter values, for levels that are unknown.

        Returns:
            Readings of the dtype of `clean`.
        """
        clean = jnp.asarray(self.settled(jnp.asarray(clean)))
        return self._moved(clean, self._level(clean, theta) * distance)

    def log_prob(
        self,
        readings: Float[Array | np.ndarray, "reading channel"],
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
    ) -> Float[Array, ""]:
        """Return the log density of the readings.

        Args:
            readings: What was measured.
            clean: What the model predicts.
            theta: Physical parameter values, for levels that are unknown.
            mask: Which readings count; all by default.
            times: Not needed.

        Returns:
            The sum over the readings that count: minus infinity where a level is not positive,
            or a value that must be positive is not. A reading of zero where positive noise can
            give nothing else, since the prediction is zero, has probability 1 and adds 0.

        Raises:
            ValueError: If a level is the number zero, or named without a problem.
        """
        del times
        self._require_density("log_prob")
        readings, clean = jnp.asarray(readings), jnp.asarray(clean)
        kept = jnp.ones(clean.shape, bool) if mask is None else jnp.asarray(mask)
        sure, possible = self._judged(readings, clean, kept)
        # What does not count must not reach gradients either, hence another `where` inside.
        tells = kept & possible & ~sure
        readings, clean = (jnp.where(tells, x, 1.0) for x in (readings, clean))
        squares = self.whiten(readings, clean, theta) ** 2
        terms = -0.5 * squares - self.log_scale(clean, theta) - 0.5 * math.log(2.0 * math.pi)
        terms = jnp.where(sure, 0.0, terms + self._log_slope(readings))
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
        """Compare readings with clean values in standard deviations.

        Args:
            readings: What was measured.
            clean: What the model predicts.
            theta: Physical parameter values, for levels that are unknown.
            mask: Which readings count; all by default.
            times: Not needed.

        Returns:
            Differences in the normal coordinate, divided by the level; infinite where a value
            that must be positive is not, and 0 where positive noise reads a sure zero.

        Raises:
            ValueError: If a level is the number zero, or named without a problem.
        """
        del times
        self._require_density("whiten")
        readings, clean = jnp.asarray(readings), jnp.asarray(clean)
        sure, possible = self._judged(readings, clean, mask)
        tells = possible & ~sure
        difference = self._difference(*(jnp.where(tells, x, 1.0) for x in (readings, clean)))
        level = self._level(difference, theta)
        if self._unknowns:
            level = jnp.where(level <= 0.0, 1.0, level)  # `log_scale` is infinite there
        return jnp.where(possible, difference / level, jnp.inf)

    def log_scale(
        self,
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
    ) -> Float[Array, "reading channel"]:
        """Return the log of each reading's standard deviation in its normal coordinate.

        Args:
            clean: Clean values, for their shape, and for where they are zero.
            theta: Physical parameter values, for levels that are unknown.
            mask: Which readings count; all by default.
            times: Not needed.

        Returns:
            The logarithms; infinite where a level is not positive, which has no density, and 0
            where positive noise has no width, since the clean value is zero.

        Raises:
            ValueError: If a level is the number zero, or named without a problem.
        """
        del times
        self._require_density("log_scale")
        level = self._level(jnp.asarray(clean), theta)
        found = jnp.log(jnp.where(level <= 0.0, 1.0, level) if self._unknowns else level)
        if self._unknowns:
            found = jnp.where(level <= 0.0, jnp.inf, found)
        return jnp.where(self.at_edge(clean, mask), 0.0, found) if self.positive else found

    def at_edge(
        self,
        clean: Float[Array | np.ndarray, "reading channel"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
    ) -> Bool[Array, "reading channel"]:
        """Where a reading says nothing: it must be positive, but the prediction is zero.

        Args:
            clean: Clean values.
            mask: Which readings count; all by default.

        Returns:
            True where nothing but zero can be read.
        """
        clean = jnp.asarray(clean)
        if not self.positive:
            return jnp.zeros(clean.shape, bool)
        # What does not count says nothing about the size of the others.
        return self.settled(clean if mask is None else jnp.where(mask, clean, 0.0)) == 0.0

    @property
    def _levels(self) -> tuple[Level, ...]:
        return self.scale if isinstance(self.scale, tuple) else (self.scale,)

    @property
    def _unknowns(self) -> tuple[str, ...]:
        """Names among the levels."""
        return tuple(level for level in self._levels if isinstance(level, str))

    def _level(self, values: Array, theta: Any) -> Array:
        """The level of each of some values."""
        self.check(values.shape[-1])
        if self._unknowns:
            theta = jnp.asarray(theta, values.dtype)
            each = [value_of(level, theta, self._binding, "scale") for level in self._levels]
            scale = jnp.stack(each) if isinstance(self.scale, tuple) else each[0]
        else:
            scale = jnp.asarray(self.scale, values.dtype)
        return jnp.broadcast_to(scale if scale.ndim == 0 else scale[None, :], values.shape)

    def _judged(self, readings: Array, clean: Array, mask: Any) -> tuple[Array, Array]:
        """Where a reading is sure, and where it is possible; NaN is not sure, to be seen."""
        if not self.positive:
            return jnp.zeros(clean.shape, bool), jnp.ones(clean.shape, bool)
        sure = (readings == 0.0) & self.at_edge(clean, mask)
        return sure, sure | ~((readings <= 0.0) | (clean <= 0.0))

    def _require_density(self, what: str) -> None:
        if 0.0 in self._levels:
            raise NoDensityError(
                f"`{what}` needs a positive `scale`; got {self.scale}. Noise-free readings have no "
                f"density: give the `{type(self).__name__}` of this problem a small positive scale."
            )
