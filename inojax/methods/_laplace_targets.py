"""Laplace covariances at true parameters, as targets of a network."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from .._inverse_problem import InverseProblem
from ..metrics import laplace_covariances
from ..nn import Normal
from ._series import SeriesEncoder

_BLOCK = 1024


def laplace_numbers(
    problem: InverseProblem,
    encoder: SeriesEncoder,
    z: Float[np.ndarray, "n parameter"],
    *,
    key: Key[Array, ""],
) -> Float[np.ndarray, "n number"]:
    """Describe the Laplace covariance of each simulation by numbers that a network can learn.

    Args:
        problem: The inverse problem.
        encoder: In which coordinates.
        z: True unit coordinates.
        key: Source of sensors and noise.

    Returns:
        The numbers of `Normal.of_logarithm`, for covariances of labels; not finite where a solve
        fails.
    """
    parts = []
    for start in range(0, len(z), _BLOCK):
        unit = np.asarray(z[start : start + _BLOCK], np.float64)
        thetas = np.asarray(problem.parameters.from_unit(unit))
        covariance = laplace_covariances(problem, thetas, key=jr.fold_in(key, start))
        with jax.enable_x64(True):
            slopes = np.asarray(encoder.label_slopes(problem, jnp.asarray(unit)))
            scaled = covariance / slopes[:, :, None] / slopes[:, None, :]
            parts.append(np.asarray(jax.jit(jax.vmap(Normal.logarithm))(jnp.asarray(scaled))))
    return np.concatenate(parts)
