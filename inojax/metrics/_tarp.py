"""Tests of accuracy with random points: the joint calibration of all parameters."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ._samples import LEVELS, checked, checked_levels, generator, ranks_among


@dataclasses.dataclass(frozen=True)
class TARPCurve:
    """Coverage of regions around random reference points.

    Attributes:
        levels: Credibility of the regions.
        coverage: Share of cases whose region holds the truth. Overconfident samples are above
            the level where it is small and below where it is large, underconfident ones the
            other way round.
        standard_error: Of the coverage: binomial if calibrated, or from the bootstrap.
        largest_deviation: Largest distance between coverage and level, over all levels.
        p_value: Chance of a deviation at least as large if the samples are calibrated
            (Kolmogorov and Smirnov).
        cases: Number of cases.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> center = rng.uniform(0.3, 0.7, size=(400, 1, 2))
        >>> samples = center + 0.05 * rng.normal(size=(400, 64, 2))
        >>> truth = (center + 0.05 * rng.normal(size=(400, 1, 2)))[:, 0]

        >>> bool(ij.metrics.tarp(samples, truth, key=jr.key(0)).largest_deviation < 0.15)
        True
    """

    levels: Float[np.ndarray, " level"]
    coverage: Float[np.ndarray, " level"]
    standard_error: Float[np.ndarray, " level"]
    largest_deviation: float
    p_value: float
    cases: int


def tarp(
    samples: Float[Array | np.ndarray, "case sample parameter"],
    truth: Float[Array | np.ndarray, "case parameter"],
    *,
    references: Float[Array | np.ndarray, "case parameter"] | None = None,
    box: tuple[ArrayLike, ArrayLike] = (0.0, 1.0),
    levels: Sequence[float] | Float[np.ndarray, " level"] = LEVELS,
    bootstrap: int = 0,
    key: Key[Array, ""],
) -> TARPCurve:
    """Test the calibration of all parameters together.

    For each case a ball around a reference point just reaches to the truth; the share of the
    samples in it is uniform on [0, 1] if they are draws from the posterior. Unlike the test of
    each parameter alone it sees wrong correlations, and samples that are merely the prior if
    the reference points depend on the readings. Distances are measured in standard deviations
    of the true values.

    Args:
        samples: Samples of each case.
        truth: True values.
        references: A reference point for each case, which must not depend on its truth other
            than through its readings; drawn uniformly over `box` if None.
        box: Lower and upper end of each parameter, or of all; the unit coordinates by default.
        levels: Credibilities to report, in (0, 1).
        bootstrap: Number of times that cases and reference points are drawn anew for the
            standard error; 0 for the binomial one.
        key: Source of randomness.

    Returns:
        Coverage against credibility.

    Raises:
        ValueError: If the shapes disagree, a value is not finite, a level is out of range,
            `bootstrap` is 1 or negative, or `box` is empty or does not hold the truth.

    Source:
        Lemos et al. 2023, arXiv 2302.03026, algorithm 2.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> center = rng.uniform(0.3, 0.7, size=(400, 1, 2))
        >>> samples = center + 0.05 * rng.normal(size=(400, 64, 2))
        >>> truth = (center + 0.05 * rng.normal(size=(400, 1, 2)))[:, 0]

        >>> ij.metrics.tarp(samples, truth, key=jr.key(0)).p_value > 1e-4
        True
    """
    samples, truth = checked(samples, truth)
    stated = checked_levels(levels)
    if bootstrap < 0 or bootstrap == 1:
        raise ValueError(f"`bootstrap` must be 0, or at least 2 for a spread; got {bootstrap}.")
    cases = _cases(samples, truth, references, box)
    rng = generator(key)
    shares = _shares(cases, rng)
    coverage = _curve(shares, stated)
    error = np.sqrt(stated * (1.0 - stated) / len(truth))
    if bootstrap:
        error = np.std([_curve(_shares(_again(cases, rng), rng), stated) for _ in range(bootstrap)],
                       axis=0, ddof=1)  # fmt: skip
    # Half a second, which `import inojax` need not take.
    from scipy.stats import kstest

    test = kstest(shares, "uniform")
    return TARPCurve(stated, coverage, error, float(test.statistic), float(test.pvalue), len(truth))


class _Cases(NamedTuple):
    """Everything in standard deviations of the truth; the ends of the box only if it is used."""

    samples: Float[np.ndarray, "case sample parameter"]
    truth: Float[np.ndarray, "case parameter"]
    references: Float[np.ndarray, "case parameter"] | None
    lower: Float[np.ndarray, " parameter"]
    upper: Float[np.ndarray, " parameter"]


def _cases(
    samples: np.ndarray,
    truth: np.ndarray,
    references: Array | np.ndarray | None,
    box: tuple[ArrayLike, ArrayLike],
) -> _Cases:
    scale = truth.std(axis=0)
    # A parameter that is the same in all cases is left in its own unit.
    scale = np.where(scale > 0.0, scale, 1.0)
    points = None
    if references is None:
        lower, upper = _ends(box, truth)
    else:
        points = _checked_references(references, truth) / scale
        lower = upper = np.zeros_like(scale)
    return _Cases(samples / scale, truth / scale, points, lower / scale, upper / scale)


def _checked_references(references: Array | np.ndarray, truth: np.ndarray) -> np.ndarray:
    points = np.asarray(references, np.float64)
    if points.shape != truth.shape or not np.isfinite(points).all():
        raise ValueError(
            f"`references` must be finite and have the shape of `truth`, {truth.shape}; got "
            f"{points.shape}. Leave them out for random ones."
        )
    return points


def _ends(box: tuple[ArrayLike, ArrayLike], truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    size = truth.shape[1:]
    ends = [np.asarray(end, np.float64) for end in box]
    fits = len(ends) == 2 and all(end.shape in ((), size) for end in ends)
    if not fits or not np.all(ends[0] < ends[1]) or not np.isfinite(ends[1] - ends[0]).all():
        raise ValueError(
            "`box` must be a pair of finite lower and upper ends, numbers or one for each of "
            f"{size[0]} parameters, the lower ones below; got {box!r}."
        )
    outside = ((truth < ends[0]) | (truth > ends[1])).any(axis=1)
    if outside.any():
        raise ValueError(
            f"`truth` lies outside of `box` in {outside.sum()} of {len(truth)} cases. Give unit "
            "coordinates, or a `box` that holds the prior."
        )
    return np.broadcast_to(ends[0], size), np.broadcast_to(ends[1], size)


def _shares(cases: _Cases, rng: np.random.Generator) -> Float[np.ndarray, " case"]:
    """Share of the samples nearer to the reference point than the truth, uniform by random ties."""
    points = cases.references
    if points is None:
        points = rng.uniform(cases.lower, cases.upper, cases.truth.shape)
    near = np.square(cases.samples - points[:, None]).sum(axis=-1)
    reach = np.square(cases.truth - points).sum(axis=-1)
    ranks = ranks_among(near, reach, rng)
    # Ranks are discrete; a random place within each makes their shares uniform.
    return (ranks + rng.uniform(size=ranks.shape)) / (near.shape[1] + 1)


def _curve(shares: np.ndarray, levels: np.ndarray) -> Float[np.ndarray, " level"]:
    return (shares[:, None] <= levels).mean(axis=0)


def _again(cases: _Cases, rng: np.random.Generator) -> _Cases:
    some = rng.integers(0, len(cases.truth), len(cases.truth))
    points = None if cases.references is None else cases.references[some]
    return cases._replace(samples=cases.samples[some], truth=cases.truth[some], references=points)
