"""What the calibration metrics share: a check of their input, levels, and randomness."""

from collections.abc import Sequence

import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Key

LEVELS = tuple(round(0.05 * n, 2) for n in range(1, 20))


def checked(
    samples: Float[Array | np.ndarray, "case sample parameter"],
    truth: Float[Array | np.ndarray, "case parameter"],
) -> tuple[Float[np.ndarray, "case sample parameter"], Float[np.ndarray, "case parameter"]]:
    """Put samples and true values on the host, if they fit each other.

    Args:
        samples: Samples of each case.
        truth: True values.

    Returns:
        Both in float64.

    Raises:
        ValueError: If the shapes disagree, anything is empty, or a value is not finite.
    """
    shape = np.shape(samples)
    if len(shape) != 3 or np.shape(truth) != (shape[0], shape[2]) or 0 in shape:
        raise ValueError(
            "`samples` must have shape (case, sample, parameter) and `truth` (case, parameter), "
            f"at least one of each; got {shape} and {np.shape(truth)}."
        )
    for name, values in (("samples", samples), ("truth", truth)):
        good = np.isfinite(np.asarray(values)).reshape(shape[0], -1).all(axis=1)
        if not good.all():
            raise ValueError(
                f"`{name}` must be finite; {np.sum(~good)} of {shape[0]} cases are not. Leave "
                "these cases out of both arguments."
            )
    return np.asarray(samples, np.float64), np.asarray(truth, np.float64)


def checked_levels(levels: Sequence[float] | Float[np.ndarray, " level"]) -> np.ndarray:
    """Put levels into an array, if they are shares.

    Args:
        levels: Stated shares.

    Returns:
        The same, float64.

    Raises:
        ValueError: If there is none, or one lies outside of (0, 1).
    """
    array = np.asarray(levels, np.float64)
    if array.ndim != 1 or array.size == 0 or not np.all((array > 0.0) & (array < 1.0)):
        raise ValueError(
            f"`levels` must be a sequence of numbers between 0 and 1, at least one; got {levels!r}."
        )
    return array


def generator(key: Key[Array, ""]) -> np.random.Generator:
    """Make a generator of the host from a key.

    Args:
        key: Source of randomness.

    Returns:
        The generator, the same for the same key.
    """
    return np.random.default_rng(np.asarray(jr.key_data(key)).ravel().tolist())


def ranks_among(
    values: Float[np.ndarray, "case sample *rest"],
    truth: Float[np.ndarray, "case *rest"],
    rng: np.random.Generator,
) -> Int[np.ndarray, "case *rest"]:
    """Count the samples of each case below its truth, every order of ties being equally likely.

    Args:
        values: Samples.
        truth: What to rank among them.
        rng: Source of randomness.

    Returns:
        Ranks from 0 to the number of samples.
    """
    below = (values < truth[:, None]).sum(axis=1)
    tied = (values == truth[:, None]).sum(axis=1)
    return below + rng.integers(0, tied, endpoint=True)
