"""Independent Gaussian noise."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Key

from .._x64 import is_traced
from ._base import AbstractNoise, NoDensityError


def _scale(scale: Any) -> float | tuple[float, ...]:
    if is_traced(scale):
        raise TypeError(
            "`scale` must be a number known beforehand, not a traced value. Make the `Gaussian` "
            "outside the transformed function."
        )
    values = np.asarray(scale, np.float64)
    if values.ndim > 1 or values.size == 0 or not np.all(np.isfinite(values) & (values >= 0.0)):
        raise ValueError(
            "`scale` must be one finite number, zero or more, or a vector with one for each "
            f"channel; got {scale!r}."
        )
    return values.tolist() if values.ndim == 0 else tuple(values.tolist())


class Gaussian(AbstractNoise):
    """Independent Gaussian noise of known standard deviation.

    Use it where an instrument's error does not depend on what it reads. A scale of zero is
    allowed for simulating perfect readings; then there is no density, and `log_prob` and
    `whiten` raise.

    Attributes:
        scale: Standard deviation in the unit of the readings, one number or one per channel.
    """

    scale: float | tuple[float, ...] = eqx.field(static=True, converter=_scale)

    @classmethod
    def standardized(cls, level: float, spread: Float[ArrayLike, " channel"]) -> "Gaussian":
        """Noise as a fraction of how much each channel varies.

        Args:
            level: Standard deviation in units of the spread, for instance 1e-3.
            spread: Standard deviation of each channel, say over the prior predictive.

        Returns:
            Gaussian noise with scale `level * spread`.

        Raises:
            ValueError: If `level` or an entry of `spread` is negative or not finite.
        """
        if not np.isfinite(level) or level < 0.0:
            raise ValueError(f"`level` must be a finite number, zero or more; got {level!r}.")
        return cls(level * np.asarray(spread, np.float64))

    def check(self, n_channels: int) -> None:
        """Raise unless the scale is one number or has one for each channel.

        Args:
            n_channels: Number of observed channels.

        Raises:
            ValueError: If the number of scales is neither 1 nor `n_channels`.
        """
        if isinstance(self.scale, tuple) and len(self.scale) != n_channels:
            raise ValueError(
                f"`scale` must be one number or one for each of the {n_channels} channels; "
                f"got {len(self.scale)} numbers."
            )

    def sample(
        self,
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        *,
        key: Key[Array, ""],
    ) -> Float[Array, "reading channel"]:
        """Add noise to clean values.

        Args:
            clean: Clean values.
            theta: Not needed.
            key: Source of randomness.

        Returns:
            Readings of the same dtype.
        """
        del theta
        clean = jnp.asarray(clean)
        return clean + self._scale_like(clean) * jr.normal(key, clean.shape, clean.dtype)

    def log_prob(
        self,
        readings: Float[Array | np.ndarray, "reading channel"],
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
    ) -> Float[Array, ""]:
        """Return the log density of the readings.

        Args:
            readings: What was measured.
            clean: What the model predicts.
            theta: Not needed.
            mask: Which readings count; all by default.

        Returns:
            The sum over the readings that count.

        Raises:
            ValueError: If the scale is zero.
        """
        del theta
        self._require_density("log_prob")
        residual = jnp.asarray(readings) - jnp.asarray(clean)
        scale = self._scale_like(residual)
        if mask is not None:
            residual = jnp.where(mask, residual, 0.0)
        terms = -0.5 * (residual / scale) ** 2 - jnp.log(scale) - 0.5 * math.log(2.0 * math.pi)
        return jnp.sum(terms if mask is None else jnp.where(mask, terms, 0.0))

    def whiten(
        self,
        residual: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
    ) -> Float[Array, "reading channel"]:
        """Divide residuals by the standard deviation.

        Args:
            residual: Readings minus predictions.
            theta: Not needed.

        Returns:
            Residuals in standard deviations.

        Raises:
            ValueError: If the scale is zero.
        """
        del theta
        self._require_density("whiten")
        residual = jnp.asarray(residual)
        return residual / self._scale_like(residual)

    def _scale_like(self, values: Array) -> Array:
        self.check(values.shape[-1])
        scale = jnp.asarray(self.scale, values.dtype)
        return jnp.broadcast_to(scale if scale.ndim == 0 else scale[None, :], values.shape)

    def _require_density(self, what: str) -> None:
        if np.any(np.asarray(self.scale) == 0.0):
            raise NoDensityError(
                f"`{what}` needs a positive `scale`; got {self.scale}. Noise-free readings have no "
                "density: give the `Gaussian` of this problem a small positive scale."
            )
