"""Independent Gaussian noise."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._binding import Binding
from ._independent import AbstractIndependentNoise
from ._levels import Scale, as_scale


class Gaussian(AbstractIndependentNoise):
    """Independent Gaussian noise, of a standard deviation that is known or itself an unknown.

    Use it where an instrument's error does not depend on what it reads. A scale of zero is
    allowed for simulating perfect readings; then there is no density, and `log_prob`, `whiten`
    and `log_scale` raise.

    Attributes:
        scale: Standard deviation in the unit of the readings, one number or one per channel.
            The name of a parameter stands for a standard deviation that is unknown.

    Example:
        >>> noise = ij.noise.Gaussian(0.1)
        >>> readings = noise.sample(
        ...     jnp.zeros((4, 2)), jnp.zeros(1), times=jnp.arange(4.0), key=jr.key(0)
        ... )
        >>> readings.shape
        (4, 2)
        >>> unknown = ij.noise.Gaussian("sigma")  # a parameter of that name is the level
    """

    scale: Scale = eqx.field(static=True, converter=as_scale)
    _binding: Binding | None = eqx.field(static=True, default=None, repr=False, kw_only=True)

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

    def _difference(self, readings: Array, clean: Array) -> Array:
        return readings - clean

    def _moved(self, clean: Array, distance: Array) -> Array:
        return clean + distance

    def _log_slope(self, readings: Array) -> Array:
        return jnp.zeros_like(readings)
