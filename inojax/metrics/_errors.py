"""Errors of estimates, arrays in and numbers out."""

import numpy as np
from jaxtyping import Array, Float


def mean_squared_error(
    estimate: Float[Array | np.ndarray, "case *rest"],
    truth: Float[Array | np.ndarray, "case *rest"],
) -> float:
    """Mean over cases and everything else of the squared error.

    In unit coordinates, always guessing the prior mean costs 1/12.

    Args:
        estimate: Estimates.
        truth: True values, same shape.

    Returns:
        The mean squared error.

    Raises:
        ValueError: If the shapes differ or there are no cases.

    Example:
        >>> ij.metrics.mean_squared_error(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
        2.0
    """
    return float(np.mean(np.square(_gap(estimate, truth))))


def mean_absolute_error(
    estimate: Float[Array | np.ndarray, "case *rest"],
    truth: Float[Array | np.ndarray, "case *rest"],
) -> float:
    """Mean over cases and everything else of the absolute error.

    In unit coordinates, always guessing the prior mean costs 1/4.

    Args:
        estimate: Estimates.
        truth: True values, same shape.

    Returns:
        The mean absolute error.

    Raises:
        ValueError: If the shapes differ or there are no cases.

    Example:
        >>> ij.metrics.mean_absolute_error(np.array([1.0, 2.0]), np.array([1.0, 4.0]))
        1.0
    """
    return float(np.mean(np.abs(_gap(estimate, truth))))


def _gap(estimate: Array | np.ndarray, truth: Array | np.ndarray) -> np.ndarray:
    if np.shape(estimate) != np.shape(truth) or np.size(truth) == 0:
        raise ValueError(
            "`estimate` and `truth` must have the same shape, at least one case; got "
            f"{np.shape(estimate)} and {np.shape(truth)}."
        )
    return np.asarray(estimate, np.float64) - np.asarray(truth, np.float64)
