"""Central intervals of samples."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._x64 import is_traced


def central_interval(
    samples: Float[Array | np.ndarray, "*batch"], level: float, *, axis: int
) -> tuple[Float[Any, "*rest"], Float[Any, "*rest"]]:
    """Ends between which one more sample would lie with the probability `level`.

    The end at quantile p of S samples is the p (S + 1)-th smallest, interpolated: each gap
    between neighbours, and what lies outside of all, is equally likely to hold the next. Plain
    sample quantiles hold it (S - 1)/(S + 1) times as often as they say. Beyond the level
    (S - 1)/(S + 1) the interval spans all samples, and holds less than it says.

    Args:
        samples: The samples. NaN makes NaN.
        level: Share of new samples inside, in (0, 1).
        axis: Axis of the samples.

    Returns:
        Lower and upper end, without that axis.

    Source:
        Weibull 1939; plotting position 6 of Hyndman and Fan 1996, The American Statistician 50.
    """
    count = np.shape(samples)[axis]
    tail = (0.5 - 0.5 * level) * (count + 1) - 1.0
    low = min(max(tail / max(count - 1, 1), 0.0), 0.5)
    xp: Any = jnp if is_traced(samples) else np
    samples = xp.asarray(samples)
    with np.errstate(invalid="ignore"):  # between infinite samples
        lower, upper = xp.quantile(samples, np.array([low, 1.0 - low], samples.dtype), axis=axis)
    return lower, upper
