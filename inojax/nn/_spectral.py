"""Spectral convolution on a time grid."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key


def cosine_basis(length: int, modes: int) -> Float[np.ndarray, "mode time"]:
    """Orthonormal cosines: the Fourier modes of a grid continued by reflection.

    Args:
        length: Number of grid points.
        modes: Number of modes, the constant included; at most `length`.

    Returns:
        The lowest rows of the DCT-II matrix, float32, so that `B @ B.T` is the identity.

    Raises:
        ValueError: If `modes` is not in [1, length].
    """
    if not 1 <= modes <= length:
        raise ValueError(f"`modes` must lie in [1, {length}] on {length} points; got {modes}.")
    points = (np.arange(length) + 0.5) / length
    basis = np.sqrt(2.0 / length) * np.cos(np.pi * np.arange(modes)[:, None] * points[None, :])
    basis[0] /= np.sqrt(2.0)
    return basis.astype(np.float32)


class SpectralConv(eqx.Module):
    """Convolution over the whole time axis: a linear map of the channels in each low mode.

    A trajectory does not return to its start, so the grid is continued by reflection rather
    than periodically: its Fourier series is then a cosine series with real weights. On grids
    of some hundred points the transform is cheapest as a product with the truncated basis.

    Attributes:
        weight: Channel matrix of each mode.
        modes: Number of modes kept.

    Source:
        Li et al., Fourier Neural Operator (arXiv 2010.08895), section 4; the reflection is ours.
    """

    weight: Float[Array, "mode width width"]
    modes: int = eqx.field(static=True)

    def __init__(self, width: int, modes: int, *, key: Key[Array, ""]) -> None:
        """Draw the weights.

        Args:
            width: Channels in and out.
            modes: Modes kept, at most the number of grid points.
            key: Source of the initial weights.
        """
        self.weight = jr.normal(key, (modes, width, width)) / width**0.5
        self.modes = modes

    def __call__(self, x: Float[Array, "time batch width"]) -> Float[Array, "time batch width"]:
        """Convolve.

        Args:
            x: Features on the grid, time first: the transform is then one matrix product.

        Returns:
            Features on the same grid, without modes above the highest kept.
        """
        length, batch, width = x.shape
        basis = jnp.asarray(cosine_basis(length, self.modes), x.dtype)
        spectrum = (basis @ x.reshape(length, -1)).reshape(self.modes, batch, width)
        mixed = jnp.einsum("mbw,mwv->mbv", spectrum, self.weight)
        return (basis.T @ mixed.reshape(self.modes, -1)).reshape(length, batch, width)
