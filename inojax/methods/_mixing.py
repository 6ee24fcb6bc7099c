"""Whether the chains of a sampler have mixed."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from .._estimate import Diagnostics

# Vehtari et al. 2021: chains agree, and each is worth at least a hundred independent draws.
_MOST_R_HAT, _LEAST_DRAWS_PER_CHAIN = 1.01, 100


def mixing(
    chains: Float[np.ndarray, "case chain draw parameter"],
    walks: Float[np.ndarray, "case walk move parameter"] | None = None,
) -> tuple[Diagnostics, Bool[np.ndarray, " case"]]:
    """Compare chains with each other.

    Args:
        chains: Draws that should all have one distribution.
        walks: The same draws by the walks that they belong to, where these are shorter than the
            chains; the chains themselves by default.

    Returns:
        The diagnostics, and whether all parameters have mixed.

    Source:
        Vehtari et al., arXiv 1903.08008.
    """
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    with np.errstate(invalid="ignore", divide="ignore"):
        r_hat = _each(split_gelman_rubin, chains)
        worth = _each(effective_sample_size, chains if walks is None else walks)
    mixed = (r_hat.max(-1) < _MOST_R_HAT) & (
        worth.min(-1) > _LEAST_DRAWS_PER_CHAIN * chains.shape[1]
    )
    return Diagnostics(r_hat, worth), mixed


def _each(measure: Any, chains: np.ndarray) -> np.ndarray:
    return np.array([measure(case) for case in chains])
