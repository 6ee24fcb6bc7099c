"""A scale on which readings that span decades look alike: logarithmic, but safe around zero."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._dataset import Dataset

_FLOOR = 0.02
# A channel that varies by less than this share of its size holds rounding errors only.
_CONSTANT = 1e-10


class SignedLog(eqx.Module):
    """asinh of each channel, standardized: logarithmic for large values, linear around zero.

    Rates and concentrations act through products and ratios, which a logarithm turns into
    sums; but noisy readings cross zero, where asinh, unlike the logarithm, is smooth.

    Attributes:
        floor: Below this magnitude the scale is linear.
        mean: Mean of each channel on the new scale.
        std: Standard deviation of each channel on the new scale.

    Example:
        >>> dataset = ij.simulate(ij.problems.robertson(), 16, key=jr.key(0), progress=False)
        >>> scale = ij.data.SignedLog.from_dataset(dataset)
        >>> again = scale.invert(scale.apply(dataset.trajectories))
        >>> bool(np.allclose(again, dataset.trajectories, rtol=1e-3, atol=1e-6))
        True
    """

    floor: Float[Array | np.ndarray, " channel"]
    mean: Float[Array | np.ndarray, " channel"]
    std: Float[Array | np.ndarray, " channel"]

    @classmethod
    def from_dataset(cls, dataset: Dataset, *, floor: float = _FLOOR) -> "SignedLog":
        """Measure the scale on all simulations and times.

        Args:
            dataset: Simulations without failures, see `Dataset.usable`.
            floor: Where the scale turns linear, as a fraction of each channel's standard
                deviation.

        Returns:
            The scale.
        """
        # A scale is measured well enough on a few thousand simulations.
        some = dataset.gathered(np.float64, every=max(1, len(dataset) // 4096))
        return cls.measured(some, floor=floor)

    @classmethod
    def measured(
        cls, values: Float[np.ndarray, "n time channel"], *, floor: float = _FLOOR
    ) -> "SignedLog":
        """Measure the scale on values, whatever their unit.

        Args:
            values: Values in physical units, channels last.
            floor: As in `from_dataset`.

        Returns:
            The scale.
        """
        flat = values.reshape(-1, values.shape[-1])
        # Powers of two, which do not round, keep squares of any unit within range.
        peak = np.abs(flat).max(axis=0)
        unit = np.exp2(np.round(np.log2(np.where(peak > 0.0, peak, 1.0))))
        deviation = (flat / unit[None]).std(axis=0)
        # One that is constant but for rounding errors has no spread to tell where to bend.
        constant = deviation <= _CONSTANT * (peak / unit)
        linear = floor * np.where(constant, np.where(peak > 0.0, peak, 1.0), deviation * unit)
        bent = np.arcsinh(flat / (2.0 * linear)[None, :])
        spread = bent.std(axis=0)
        # A constant channel maps to zero instead of amplified rounding errors.
        std = np.where(spread > 1e-9 * (1.0 + np.abs(bent).max(axis=0)), spread, 1.0)
        return cls(linear, bent.mean(axis=0), std)

    def apply(
        self, values: Float[Array | np.ndarray, "*batch channel"]
    ) -> Float[Array | np.ndarray, "*batch channel"]:
        """Bring values to the scale.

        Args:
            values: Values in physical units, channels last.

        Returns:
            Values of order one.
        """
        xp = np if isinstance(values, np.ndarray) else jnp
        floor, mean, std = self._broadcast(values)
        return ((xp.arcsinh(values / (2.0 * floor)) - mean) / std).astype(values.dtype)

    def invert(
        self, values: Float[Array | np.ndarray, "*batch channel"]
    ) -> Float[Array | np.ndarray, "*batch channel"]:
        """Undo `apply`.

        Args:
            values: Values of order one, channels last.

        Returns:
            Values in physical units.
        """
        xp = np if isinstance(values, np.ndarray) else jnp
        floor, mean, std = self._broadcast(values)
        return (2.0 * floor * xp.sinh(values * std + mean)).astype(values.dtype)

    def take(self, channels: tuple[int, ...]) -> "SignedLog":
        """The scale of some of the channels.

        Args:
            channels: Their positions.

        Returns:
            The smaller scale.
        """
        index = np.array(channels)
        return SignedLog(self.floor[index], self.mean[index], self.std[index])

    def _broadcast(self, values: Array | np.ndarray) -> list[Any]:
        shape = (1,) * (values.ndim - 1) + (-1,)
        # On the host in double precision, where no unit is too small or too large.
        host = isinstance(values, np.ndarray)
        xp, dtype = (np, np.float64) if host else (jnp, values.dtype)
        return [xp.asarray(x, dtype).reshape(shape) for x in (self.floor, self.mean, self.std)]
