"""Whether stated uncertainties are calibrated."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from .._intervals import central_interval
from ._samples import LEVELS, checked, checked_levels


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

    Example:
        >>> truth = np.array([[0.1], [0.5], [0.9], [1.5]])
        >>> ij.metrics.coverage(np.zeros((4, 1)), np.ones((4, 1)), truth).tolist()
        [0.75]
    """
    shapes = {np.shape(lower), np.shape(upper), np.shape(truth)}
    if len(shapes) > 1 or np.size(truth) == 0:
        raise ValueError(
            "`lower`, `upper` and `truth` must have the same shape, at least one case; "
            f"got {shapes}."
        )
    inside = (np.asarray(lower) <= np.asarray(truth)) & (np.asarray(truth) <= np.asarray(upper))
    return inside.mean(axis=0)


@dataclasses.dataclass(frozen=True)
class CoverageCurve:
    """How often central intervals hold the truth, level by level.

    Attributes:
        levels: Stated shares.
        per_parameter: Share of cases whose interval holds the true value, for each parameter.
        overall: The same over all parameters.
        standard_error: Binomial standard error of one parameter's share, if it is calibrated;
            that of `overall` is at most as large.
        cases: Number of cases.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> center = rng.normal(size=(400, 1, 2))  # posteriors N(center, 1) of a flat prior
        >>> samples = center + rng.normal(size=(400, 64, 2))
        >>> truth = (center + rng.normal(size=(400, 1, 2)))[:, 0]

        >>> ij.metrics.coverage_curve(samples, truth, levels=(0.5, 0.9)).cases
        400
    """

    levels: Float[np.ndarray, " level"]
    per_parameter: Float[np.ndarray, "level parameter"]
    overall: Float[np.ndarray, " level"]
    standard_error: Float[np.ndarray, " level"]
    cases: int

    @property
    def largest_deviation(self) -> float:
        """Largest gap between `overall` and `levels`, with its sign: negative is overconfident."""
        gap = self.overall - self.levels
        return float(gap[np.argmax(np.abs(gap))])


def coverage_curve(
    samples: Float[Array | np.ndarray, "case sample parameter"],
    truth: Float[Array | np.ndarray, "case parameter"],
    *,
    levels: Sequence[float] | Float[np.ndarray, " level"] = LEVELS,
) -> CoverageCurve:
    """Compare the coverage of central intervals with their level.

    A calibrated curve lies on the diagonal, an overconfident one below. The end at quantile p
    of S samples is the p (S + 1)-th smallest, interpolated, as in `Estimate.interval`, so that
    calibrated samples cover each level exactly, however few they are.

    Args:
        samples: Samples of each case.
        truth: True values.
        levels: Stated shares, in (0, 1) and at most (S - 1)/(S + 1).

    Returns:
        The curve.

    Raises:
        ValueError: If the shapes disagree, a value is not finite, there are no cases, or a level
            is out of range.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> center = rng.normal(size=(400, 1, 2))  # posteriors N(center, 1) of a flat prior
        >>> samples = center + rng.normal(size=(400, 64, 2))
        >>> truth = (center + rng.normal(size=(400, 1, 2)))[:, 0]

        >>> curve = ij.metrics.coverage_curve(samples, truth, levels=(0.5, 0.9))
        >>> bool((abs(curve.overall - curve.levels) < 0.1).all())
        True
    """
    samples, truth = checked(samples, truth)
    stated = checked_levels(levels)
    _check_resolution(stated, samples.shape[1])
    ends = (central_interval(samples, level, axis=1) for level in stated.tolist())
    share = np.stack([coverage(lower, upper, truth) for lower, upper in ends])
    error = np.sqrt(stated * (1.0 - stated) / len(truth))
    return CoverageCurve(stated, share, share.mean(axis=1), error, len(truth))


def _check_resolution(levels: np.ndarray, samples: int) -> None:
    highest, limit = float(levels.max()), (samples - 1) / (samples + 1)
    # Levels such as 0.95 with the 39 samples that it needs must survive rounding.
    if highest > limit + 1e-12:
        needed = int(np.ceil((1.0 + highest) / (1.0 - highest) - 1e-9))
        raise ValueError(
            f"`levels` up to {highest} need at least {needed} samples of each case; `samples` has "
            f"{samples}. Draw more, or leave out levels above {limit:.3g}."
        )
