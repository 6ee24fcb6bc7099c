"""Bring every channel to mean 0 and standard deviation 1."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._dataset import Dataset

# A channel that varies by less than this share of its size holds rounding errors only.
_CONSTANT = 1e-10
# A constant channel may have any standard deviation; one that small would vanish in float32.
_TINY = 1e-30


class Standardizer(eqx.Module):
    """Affine map of each channel to mean 0 and standard deviation 1.

    Use it before anything is learned: concentrations of one problem can differ by fifteen
    decades. NumPy input is mapped in double precision on the host, JAX input in its own
    dtype inside any transformation; either keeps its dtype.

    Attributes:
        mean: Mean of each channel.
        std: Standard deviation of each channel, positive.

    Example:
        >>> dataset = ij.simulate(ij.problems.robertson(), 16, key=jr.key(0), progress=False)
        >>> scale = ij.data.Standardizer.from_dataset(dataset)
        >>> again = scale.invert(scale.apply(dataset.trajectories))
        >>> bool(np.allclose(again, dataset.trajectories, rtol=1e-4, atol=1e-6))
        True
    """

    mean: Float[Array | np.ndarray, " channel"]
    std: Float[Array | np.ndarray, " channel"]

    def __check_init__(self) -> None:
        """Refuse shapes that disagree and scales that would divide by zero."""
        if np.ndim(self.mean) != 1 or np.shape(self.mean) != np.shape(self.std):
            raise ValueError(
                "`mean` and `std` must both have shape (channel,); got "
                f"{np.shape(self.mean)} and {np.shape(self.std)}."
            )
        if isinstance(self.std, np.ndarray) and not np.all(self.std > 0.0):
            raise ValueError(f"`std` must be positive in every channel; got {self.std}.")

    @classmethod
    def from_dataset(cls, dataset: Dataset) -> "Standardizer":
        """Measure mean and standard deviation over all usable simulations and all times.

        A channel is constant if its standard deviation is at most 1e-10 times its largest
        magnitude. Its standard deviation becomes that magnitude (1 where it is below 1e-30), so
        that it maps to about 0 instead of amplified rounding errors.

        Args:
            dataset: Simulations; failed ones are left out.

        Returns:
            The standardizer, float64.

        Raises:
            ValueError: If no simulation is usable.
        """
        count, mean, squares, peak = 0, np.float64(0.0), np.float64(0.0), np.float64(0.0)
        start = 0
        for block in dataset.blocks():
            good = dataset.ok[start : start + len(block)] & np.isfinite(block).all(axis=(1, 2))
            start += len(block)
            rows = block[good].reshape(-1, block.shape[2])
            if not len(rows):
                continue
            # Pairwise update of mean and sum of squares: Chan, Golub and LeVeque (1983).
            center = rows.mean(axis=0)
            gap, total = center - mean, count + len(rows)
            spread = np.square(rows - center).sum(axis=0)
            squares = squares + spread + gap**2 * (count * len(rows) / total)
            mean = mean + gap * (len(rows) / total)
            peak = np.maximum(peak, np.abs(rows).max(axis=0))
            count = total
        if count == 0:
            raise ValueError(
                "`dataset` holds no usable simulation to standardize by: every solve failed."
            )
        return cls(np.asarray(mean), _guarded(np.sqrt(squares / count), np.asarray(peak)))

    def apply(
        self, values: Float[Array | np.ndarray, "*batch channel"]
    ) -> Float[Array | np.ndarray, "*batch channel"]:
        """Standardize.

        Args:
            values: Values in physical units, channels last.

        Returns:
            The standardized values.
        """
        mean, std = self._broadcast(values)
        return ((values - mean) / std).astype(values.dtype)

    def invert(
        self, values: Float[Array | np.ndarray, "*batch channel"]
    ) -> Float[Array | np.ndarray, "*batch channel"]:
        """Undo `apply`.

        Args:
            values: Standardized values, channels last.

        Returns:
            The values in physical units.
        """
        mean, std = self._broadcast(values)
        return (values * std + mean).astype(values.dtype)

    def _broadcast(self, values: Array | np.ndarray) -> tuple[Any, Any]:
        count = self.mean.shape[0]
        if values.ndim == 0 or values.shape[-1] != count:
            raise ValueError(
                f"`values` must end in an axis of {count} channels; got shape {values.shape}."
            )
        shape = (1,) * (values.ndim - 1) + (count,)
        if isinstance(values, np.ndarray):
            # In double precision, where no unit is too small or too large.
            return self.mean.reshape(shape), self.std.reshape(shape)
        tiny = float(jnp.finfo(values.dtype).tiny)
        if isinstance(self.std, np.ndarray) and np.any(self.std < tiny):
            raise ValueError(
                f"`values` are {values.dtype}, which does not hold channels with a standard "
                f"deviation of {self.std.min():.3g}. Choose another unit, or map NumPy arrays."
            )
        mean, std = (jnp.asarray(moment, values.dtype) for moment in (self.mean, self.std))
        return mean.reshape(shape), std.reshape(shape)


def _guarded(
    std: Float[np.ndarray, " channel"], peak: Float[np.ndarray, " channel"]
) -> Float[np.ndarray, " channel"]:
    constant = std <= _CONSTANT * peak
    return np.where(constant, np.where(peak > _TINY, peak, 1.0), std)
