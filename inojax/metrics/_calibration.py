"""Whether stated uncertainties are honest."""

import numpy as np
from jaxtyping import Array, Float


def coverage(
    lower: Float[Array | np.ndarray, "case parameter"],
    upper: Float[Array | np.ndarray, "case parameter"],
    truth: Float[Array | np.ndarray, "case parameter"],
) -> Float[np.ndarray, " parameter"]:
    """Share of cases in which an interval holds the true value.

    Args:
        lower: Lower ends.
        upper: Upper ends.
        truth: True values.

    Returns:
        The share for each parameter; its mean is the overall coverage.

    Raises:
        ValueError: If the shapes differ or there are no cases.
    """
    shapes = {np.shape(lower), np.shape(upper), np.shape(truth)}
    if len(shapes) > 1 or np.size(truth) == 0:
        raise ValueError(
            "`lower`, `upper` and `truth` must have the same shape, at least one case; "
            f"got {shapes}."
        )
    inside = (np.asarray(lower) <= np.asarray(truth)) & (np.asarray(truth) <= np.asarray(upper))
    return inside.mean(axis=0)
