"""Whether the chains of a sampler have mixed."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import ndtri

from ..._estimate import Diagnostics

# Vehtari et al. 2021: chains agree, and each is worth at least a hundred independent draws.
_MOST_R_HAT, _LEAST_DRAWS_PER_CHAIN = 1.01, 100
# Ends of the interval in whose tails draws are counted.
_TAILS = 0.05, 0.95


def mixing(
    chains: Float[np.ndarray, "case chain draw parameter"],
    walks: Float[np.ndarray, "case walk move parameter"] | None = None,
) -> tuple[Diagnostics, Bool[np.ndarray, " case"]]:
    """Compare chains with each other, by the ranks of their draws.

    Ranks see chains of different spread and heavy tails, which plain moments miss.

    Args:
        chains: Draws that should all have one distribution.
        walks: The same draws by the walks that they belong to, where these are shorter than the
            chains; halves of the chains by default.

    Returns:
        The diagnostics, and whether all parameters have mixed.

    Source:
        Vehtari et al., arXiv 1903.08008, sections 4.1 to 4.3.
    """
    walks = _halves(chains) if walks is None else walks
    with np.errstate(invalid="ignore", divide="ignore"):
        r_hat = np.array([_r_hat(case) for case in chains])
        bulk = np.array([_bulk(case) for case in walks])
        tail = np.array([_tail(case) for case in walks])
    least = np.minimum(bulk, tail).min(-1)
    mixed = (r_hat.max(-1) < _MOST_R_HAT) & (least > _LEAST_DRAWS_PER_CHAIN * chains.shape[1])
    return Diagnostics(r_hat, bulk, tail), mixed


def _r_hat(chains: Float[np.ndarray, "chain draw parameter"]) -> Float[Any, " parameter"]:
    """Of ranks, and of ranks of the distance from the median."""
    from numpyro.diagnostics import split_gelman_rubin

    folded = np.abs(chains - np.median(chains, axis=(0, 1)))
    return np.maximum(
        split_gelman_rubin(_normal_ranks(chains)), split_gelman_rubin(_normal_ranks(folded))
    )


def _bulk(chains: Float[np.ndarray, "chain draw parameter"]) -> Float[Any, " parameter"]:
    """Independent draws that the middle of the distribution is worth."""
    from numpyro.diagnostics import effective_sample_size

    return effective_sample_size(_normal_ranks(chains))


def _tail(chains: Float[np.ndarray, "chain draw parameter"]) -> Float[Any, " parameter"]:
    """The same for the tail that is worth less."""
    from numpyro.diagnostics import effective_sample_size

    ends = np.quantile(chains, _TAILS, axis=(0, 1))
    return np.min([effective_sample_size((chains <= end).astype(float)) for end in ends], axis=0)


def _normal_ranks(
    draws: Float[np.ndarray, "chain draw parameter"],
) -> Float[np.ndarray, "chain draw parameter"]:
    """Normal scores of the ranks among all draws."""
    from scipy.stats import rankdata

    count = draws.shape[0] * draws.shape[1]
    ranks = rankdata(draws.reshape(count, -1), axis=0)
    return np.asarray(ndtri((ranks - 0.375) / (count + 0.25))).reshape(draws.shape)


def _halves(
    chains: Float[np.ndarray, "case chain draw parameter"],
) -> Float[np.ndarray, "case half some parameter"]:
    half = chains.shape[2] // 2
    return np.concatenate([chains[:, :, :half], chains[:, :, -half:]], axis=1)
