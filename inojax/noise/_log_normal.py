"""Independent log-normal noise."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from .._binding import Binding
from ._independent import AbstractIndependentNoise
from ._levels import Scale, as_scale


class LogNormal(AbstractIndependentNoise):
    """Independent noise that is Gaussian on a log scale, so that it grows with what it reads.

    Use it for counts, concentrations and other positive readings whose error is a share of
    their size. Clean values are the medians of readings. Where the model predicts zero or less
    no reading is possible, and the log density is minus infinity.

    Attributes:
        scale: Standard deviation of the logarithm of a reading, about its relative error: one
            number or one per channel, or names of parameters where it is unknown.

    Example:
        >>> noise = ij.noise.LogNormal(0.25)
        >>> readings = noise.sample(
        ...     jnp.ones((100, 1)), jnp.zeros(1), times=jnp.arange(100.0), key=jr.key(0)
        ... )
        >>> bool((readings > 0.0).all())
        True
    """

    scale: Scale = eqx.field(static=True, converter=as_scale)
    _binding: Binding | None = eqx.field(static=True, default=None, repr=False, kw_only=True)

    @property
    def positive(self) -> bool:
        """Logarithms need positive readings."""
        return True

    def _difference(self, readings: Array, clean: Array) -> Array:
        return jnp.log(readings) - jnp.log(clean)

    def _moved(self, clean: Array, distance: Array) -> Array:
        return clean * jnp.exp(distance)

    def _log_slope(self, readings: Array) -> Array:
        return -jnp.log(readings)
