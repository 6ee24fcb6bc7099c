"""How large a misfit a noise model leads one to expect."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import chdtrc, gammaln, xlogy

from .._blocks import in_blocks
from ._base import AbstractNoise
from ._poisson import Poisson

# Above this mean the series in its inverse is exact to four digits.
_LARGE = 100.0
# Degrees of freedom that are left in any case.
_LEAST = 0.5
# Means that are summed at once.
_BLOCK = 4096


def misfit_p_value(
    noise: AbstractNoise,
    chi2: Float[Any, "*batch"] | float,
    clean: Float[Any, "*batch reading channel"] | None,
    mask: Bool[Any, "*batch reading channel"],
    fitted: Float[Any, "*batch parameter"] | None = None,
) -> Float[Any, "*batch"]:
    """Chance that readings miss a prediction by more, if the model is right.

    The squares of whitened readings have mean 1 and variance 2, those of counts, which are
    deviances, others: a count of mean 1 leaves 1.15, one of mean 0.1 only 0.47. So the sum is
    compared with a multiple of a chi-squared variable of the same mean and variance.

    A prediction that was fitted to the readings is nearer to them than the truth: with residuals of
    covariance I - H, where H has the eigenvalues h, their sum of squares has the mean n - Σ h and
    the variance 2 (n - Σ h (2 - h)).

    Args:
        noise: The noise model.
        chi2: Sum of squared whitened readings.
        clean: Predictions; needed for counts only.
        mask: Which readings count.
        fitted: The eigenvalues h; by default none, for the true parameters.

    Returns:
        The p-value; NaN where `chi2` is.
    """
    mask = np.asarray(mask)
    mean = mask.sum(axis=(-2, -1)).astype(float)
    variance = 2.0 * mean
    if isinstance(noise, Poisson) and clean is not None:
        rates = np.where(mask & (np.asarray(clean) > 0.0), clean, 0.0) * noise.exposure
        moments = deviance_moments(rates.ravel()).reshape(2, *rates.shape)
        mean, variance = np.where(mask, moments, 0.0).sum(axis=(-2, -1))
    if fitted is not None:
        count = np.maximum(mask.sum(axis=(-2, -1)), 1)
        shares = np.asarray(fitted, np.float64)
        # Where nothing is left over there is nothing to test, and rounding must not look like it.
        least = _LEAST / count
        mean = mean * np.maximum(1.0 - shares.sum(axis=-1) / count, least)
        lost = (shares * (2.0 - shares)).sum(axis=-1) / count
        variance = variance * np.maximum(1.0 - lost, least)
    scale = np.where(variance > 0.0, variance / np.maximum(2.0 * mean, 1e-300), 1.0)
    degrees = np.maximum(mean / scale, 1e-12)
    return chdtrc(degrees, np.asarray(chi2) / scale)


def degrees_of_freedom(
    readings: Int[Any, "*batch"], fitted: Float[Any, "*batch parameter"]
) -> Float[Any, "*batch"]:
    """How many independent residuals a correct model leaves.

    Args:
        readings: How many readings there are.
        fitted: The eigenvalues h of `misfit_p_value`.

    Returns:
        Readings less the sum of these, a half at least.
    """
    return np.maximum(np.asarray(readings) - np.asarray(fitted).sum(axis=-1), _LEAST)


def deviance_moments(mean: Float[np.ndarray, " count"]) -> Float[np.ndarray, "2 count"]:
    """Mean and variance of the deviance of Poisson counts, by summing over the counts.

    Args:
        mean: Expected counts.

    Returns:
        Both, one row for each.
    """
    mean, place = np.unique(np.nan_to_num(mean, posinf=1e300), return_inverse=True)
    if not len(mean):
        return np.zeros((2, 0))
    moments = in_blocks(_summed, mean, size=_BLOCK, filled=False)
    return np.stack(moments)[:, place]


def _summed(mean: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    small = np.minimum(mean, _LARGE)[:, None]
    counts = np.arange(int(_LARGE + 12.0 * np.sqrt(_LARGE)))[None]
    chance = np.exp(xlogy(counts, small) - small - gammaln(counts + 1.0))
    ratio = counts / np.maximum(small, 1e-300)
    deviance = 2.0 * (xlogy(counts, ratio) - counts + small)
    first = (chance * deviance).sum(axis=1)
    second = (chance * np.square(deviance)).sum(axis=1) - np.square(first)
    series = 1.0 + 1.0 / (6.0 * np.maximum(mean, 1.0)), 2.0 + 2.0 / (3.0 * np.maximum(mean, 1.0))
    few = mean < _LARGE
    return np.where(few, first, series[0]), np.where(few, second, series[1])
