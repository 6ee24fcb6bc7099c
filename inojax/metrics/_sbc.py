"""Simulation-based calibration: the rank of the truth among the samples."""

import dataclasses

import numpy as np
from jaxtyping import Array, Float, Int, Key
from scipy.special import chdtrc

from ._samples import checked, generator, ranks_among

# More bins would spread the common errors (a slope, a bowl) over more degrees of freedom.
_MOST_BINS = 20
# Below it the distribution of the statistic is not chi-squared (Cochran's rule).
_LEAST_EXPECTED = 5


@dataclasses.dataclass(frozen=True)
class SBCRanks:
    """Ranks of the true values among posterior samples, and whether they are uniform.

    Attributes:
        ranks: Samples below the truth, from 0 to `samples`.
        samples: Number of samples of each case.
        counts: Cases in each bin of neighboring ranks.
        expected: The same where ranks are uniform.
        p_values: Chance of counts at least as uneven if the parameter is calibrated.
        p_value: The smallest of them times the number of parameters (Bonferroni), at most 1.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> center = rng.normal(size=(400, 1, 2))  # posteriors N(center, 1) of a flat prior
        >>> samples = center + rng.normal(size=(400, 64, 2))
        >>> truth = (center + rng.normal(size=(400, 1, 2)))[:, 0]

        >>> narrow = center + 0.5 * (samples - center)
        >>> ij.metrics.sbc_ranks(narrow, truth, key=jr.key(0)).p_value < 1e-6
        True
    """

    ranks: Int[np.ndarray, "case parameter"]
    samples: int
    counts: Int[np.ndarray, "parameter bin"]
    expected: Float[np.ndarray, " bin"]
    p_values: Float[np.ndarray, " parameter"]
    p_value: float

    @property
    def shift(self) -> Float[np.ndarray, " parameter"]:
        """Mean rank as a share, minus 1/2: positive where estimates are too low."""
        return self.ranks.mean(axis=0) / self.samples - 0.5

    @property
    def dispersion(self) -> Float[np.ndarray, " parameter"]:
        """Variance of the ranks over that of uniform ones: above 1 where samples are too narrow."""
        return self.ranks.var(axis=0) / (((self.samples + 1) ** 2 - 1) / 12.0)


def sbc_ranks(
    samples: Float[Array | np.ndarray, "case sample parameter"],
    truth: Float[Array | np.ndarray, "case parameter"],
    *,
    key: Key[Array, ""],
) -> SBCRanks:
    """Rank the truth among the samples of each case and test the ranks for uniformity.

    Over cases whose truth was drawn from the prior, each rank is equally likely if the samples
    are independent draws from the posterior. Ties are broken at random. The test is Pearson's
    chi-squared over at most 20 bins of equal width, up to a rank, with five cases expected in
    each at least.

    Args:
        samples: Samples of each case.
        truth: True values.
        key: Source of randomness for ties.

    Returns:
        Ranks and tests.

    Raises:
        ValueError: If the shapes disagree, a value is not finite, or there are too few cases for
            two bins.

    Source:
        Talts et al. 2018, arXiv 1804.06788, algorithm 1.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> center = rng.normal(size=(400, 1, 2))  # posteriors N(center, 1) of a flat prior
        >>> samples = center + rng.normal(size=(400, 64, 2))
        >>> truth = (center + rng.normal(size=(400, 1, 2)))[:, 0]

        >>> found = ij.metrics.sbc_ranks(samples, truth, key=jr.key(0))
        >>> found.ranks.shape, found.p_value > 1e-4
        ((400, 2), True)
    """
    samples, truth = checked(samples, truth)
    cases, count = samples.shape[:2]
    ranks = ranks_among(samples, truth, generator(key))
    bins = _bin_count(cases, count + 1)
    bin_of_rank = np.arange(count + 1) * bins // (count + 1)
    expected = np.bincount(bin_of_rank) * (cases / (count + 1))
    counts = (bin_of_rank[ranks][:, :, None] == np.arange(bins)).sum(axis=0)
    statistic = (np.square(counts - expected) / expected).sum(axis=1)
    p_values = np.asarray(chdtrc(bins - 1, statistic))
    overall = min(1.0, len(p_values) * float(p_values.min()))
    return SBCRanks(ranks, count, counts, expected, p_values, overall)


def _bin_count(cases: int, outcomes: int) -> int:
    def least_expected(bins: int) -> float:
        return (outcomes // bins) * cases / outcomes

    choices = range(2, min(_MOST_BINS, outcomes) + 1)
    possible = [bins for bins in choices if least_expected(bins) >= _LEAST_EXPECTED]
    if not possible:
        needed = int(np.ceil(_LEAST_EXPECTED * outcomes / (outcomes // 2)))
        raise ValueError(
            f"`truth` has {cases} cases; at least {needed} are needed to test whether ranks are "
            "uniform. Add cases."
        )
    return max(possible)
