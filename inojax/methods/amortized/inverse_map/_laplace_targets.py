"""Laplace covariances at true parameters, as targets of a network."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from ...._blocks import in_blocks
from ...._inverse_problem import InverseProblem
from ....metrics import laplace_covariances
from ....nn._normal import Normal
from ._examples import Examples
from ._series import Labels, SeriesEncoder

_BLOCK = 1024


def with_targets(
    problem: InverseProblem,
    encoder: SeriesEncoder,
    train: Examples,
    held: Examples,
    *,
    key: Key[Array, ""],
) -> tuple[SeriesEncoder, Examples, Examples]:
    """Add Laplace covariances to examples.

    Args:
        problem: The inverse problem.
        encoder: In which coordinates.
        train: Simulations that are trained on.
        held: Held-out ones; there may be none.
        key: Source of sensors and noise.

    Returns:
        The encoder with the scales of what describes a covariance, and the examples of which the
        covariance is finite.

    Raises:
        ValueError: If that is none.
    """
    found = []
    for part, target_key in zip((train, held), jr.split(key), strict=True):
        numbers = _laplace_numbers(problem, encoder, np.asarray(part.z), key=target_key)
        # Derivatives may fail where the trajectory alone does not.
        good = np.isfinite(numbers).all(axis=1)
        if len(part.z) and not good.any():
            raise ValueError(
                f"`dataset`: none of {len(part.z)} simulations of {problem.name!r} has finite "
                "sensitivities, which Laplace covariances need. Raise the model's `max_steps`, "
                "or use `Spread.LIKELIHOOD`."
            )
        found.append((part.z[good], part.states[good], numbers[good]))
    numbers = found[0][2]
    # One scale for all entries of a matrix, or errors would not be relative ones any more.
    center, spread = numbers.mean(axis=0), np.full(numbers.shape[1], numbers.std(axis=0).mean())
    spread = np.maximum(spread, 1e-6)
    scales = tuple(np.asarray(x, np.float32) for x in (center, spread))
    encoder = eqx.tree_at(lambda e: (e.number_center, e.number_spread), encoder, scales)
    train, held = (
        Examples(z, states, numbers=jnp.asarray(numbers, jnp.float32))
        for z, states, numbers in found
    )
    return encoder, train, held


def _laplace_numbers(
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
    if not len(z):
        return np.zeros((0, Normal.size(problem.parameters.size)))

    def block(rows: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        unit, number = rows
        thetas = np.asarray(problem.parameters.from_unit(unit))
        covariance = laplace_covariances(
            problem,
            thetas,
            unit=encoder.labels is Labels.UNIT,
            key=jr.fold_in(key, int(number[0])),
        )
        if encoder.labels is Labels.RANGE:
            span = np.asarray(encoder.high - encoder.low, np.float64)
            covariance = covariance / span[:, None] / span
        with jax.enable_x64(True):
            return np.asarray(_logarithms(jnp.asarray(covariance)))

    rows = np.asarray(z, np.float64), np.arange(len(z))
    return in_blocks(block, rows, size=_BLOCK, filled=False)


_logarithms = jax.jit(jax.vmap(Normal.logarithm))
