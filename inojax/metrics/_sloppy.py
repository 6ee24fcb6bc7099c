"""Directions that readings do not see: which parameters trade off against which."""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

# A direction is invisible if readings take less than a tenth off the prior's spread along it:
# less than anyone would notice in a histogram of the posterior.
VISIBLE_FROM = 0.9
# A sparse direction that stands for an invisible one may be seen a little more than it is: no
# parameter alone is exactly a direction that mixes it with traces of others.
SPARSE_FROM = 0.8
# Below this information for one prior standard deviation the readings together move by less
# than a thousandth of their noise, and by about what the solver's tolerance leaves open.
NO_CHANGE = 1e-6
# Sentences about more parameters than this explain nothing; the rest is told as a mix.
_LARGEST_SUPPORT = 4
# More supports of one size than this take longer than the solves.
_MOST_SUPPORTS = 4000
# A median needs no more cases than this, and the search is over many supports.
_SEARCH_CASES = 64
# A parameter with less than this share in every sloppy direction is in no trade-off.
_LEAST_SHARE = 1e-4
# Parameters with less of what remains unexplained are not told as part of it.
_LEAST_TOLD = 0.05
# A direction is new if more than a quarter of its square lies outside those already found.
_NEW = 0.25


class Group(NamedTuple):
    """Parameters that only appear together, as far as the readings can tell.

    Attributes:
        members: Positions of the parameters.
        supports: For each invisible direction among them, the parameters it moves.
    """

    members: tuple[int, ...]
    supports: tuple[tuple[int, ...], ...]


class Sloppy(NamedTuple):
    """What the readings do not see.

    Attributes:
        dimension: Number of invisible directions.
        groups: Parameters that trade off; one alone is hardly seen at all.
        mixed: Number of invisible directions that no group explains.
        mix: Parameters with the largest share in these, largest first.
    """

    dimension: int
    groups: tuple[Group, ...]
    mixed: int
    mix: tuple[int, ...]


def spread(lowest: Float[np.ndarray, "*support case"]) -> Float[np.ndarray, "*support"]:
    """Expected posterior over prior standard deviation, from each case's information.

    Args:
        lowest: Information for one prior standard deviation along a direction.

    Returns:
        The root of the mean variance ratio over the cases.
    """
    variance = 1.0 / (1.0 + np.maximum(lowest, 0.0))
    return np.asarray(np.sqrt(np.mean(variance, axis=-1)))


def is_invisible(
    information: Float[np.ndarray, "case parameter parameter"],
    moves: Float[np.ndarray, "*case parameter move"],
) -> bool:
    """Whether readings leave the prior as wide along every combination of some moves.

    Args:
        information: Fisher information for one prior standard deviation of each parameter.
        moves: Directions in the same coordinates, the same in all cases or others in each.

    Returns:
        Whether the expected spread stays above `SPARSE_FROM` of the prior's.
    """
    basis, _ = np.linalg.qr(moves)
    inside = np.swapaxes(basis, -1, -2) @ information @ basis
    return bool(spread(np.linalg.eigvalsh(inside)[:, -1]) >= SPARSE_FROM)


def informative(information: Float[np.ndarray, "case parameter parameter"]) -> int:
    """In how many directions the readings of the median case say more than the prior.

    Together with the invisible ones of `find_sloppy` these are never more than there are: along an
    invisible direction most cases say less than the prior.

    Args:
        information: Fisher information for one prior standard deviation of each parameter.
    """
    values = np.linalg.eigvalsh(information[:_SEARCH_CASES])
    return int(np.median(np.sum(values > 1.0, axis=1)))


def find_sloppy(information: Float[np.ndarray, "case parameter parameter"]) -> Sloppy:
    """Explain the invisible directions by as few parameters as possible each.

    Moves of one parameter are looked for first, then of two, and so on: taking the smallest
    supports that are independent gives the sparsest basis there is. Directions may differ from
    case to case, as those of a / (a + b) do; their supports do not.

    Args:
        information: Fisher information for one prior standard deviation of each parameter.

    Returns:
        Groups of parameters that share supports, and what remains unexplained.
    """
    values, vectors = np.linalg.eigh(information[:_SEARCH_CASES])
    sloppy = np.moveaxis(values, 0, -1)
    dimension = int(np.sum(spread(sloppy) >= VISIBLE_FROM))
    if dimension == 0:
        return Sloppy(0, (), 0, ())
    local = vectors[..., :dimension]
    share = np.square(local).sum(-1).mean(0)
    search = information[:_SEARCH_CASES]
    supports, found = _supports(search, share > _LEAST_SHARE, dimension)
    left = local - found @ (np.swapaxes(found, 1, 2) @ local)
    share = np.square(left).sum(-1).mean(0)
    mix = tuple(int(i) for i in np.argsort(-share) if share[i] > _LEAST_TOLD)
    return Sloppy(dimension, _joined(supports), dimension - len(supports), mix)


def _supports(
    information: np.ndarray, candidate: Bool[np.ndarray, " parameter"], dimension: int
) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Smallest sets of parameters with an invisible direction, and those directions."""
    chosen: list[tuple[int, ...]] = []
    found = np.zeros((*information.shape[:2], 0))
    for size in range(1, _LARGEST_SUPPORT + 1):
        free = [i for i in np.flatnonzero(candidate).tolist() if (i,) not in chosen]
        sets = [
            s
            for s in itertools.combinations(free, size)
            if not any(set(c) <= set(s) for c in chosen)
        ]
        if not sets or len(sets) > _MOST_SUPPORTS or len(chosen) == dimension:
            break
        for support, direction in _invisible(information, np.array(sets)):
            rest = direction - found @ (np.swapaxes(found, 1, 2) @ direction)
            norm = np.linalg.norm(rest, axis=1, keepdims=True)
            if len(chosen) < dimension and np.mean(norm**2) > _NEW:
                chosen.append(support)
                found = np.concatenate([found, rest / np.maximum(norm, 1e-12)], axis=2)
    return chosen, found


def _invisible(
    information: np.ndarray, sets: np.ndarray
) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Supports with an invisible direction, the least visible first, with it in each case."""
    blocks = np.moveaxis(information[:, sets[:, :, None], sets[:, None, :]], 1, 0)
    lowest = spread(np.linalg.eigvalsh(blocks)[..., 0])
    results = []
    for index in np.argsort(-lowest, kind="stable"):
        if lowest[index] < SPARSE_FROM:
            break
        direction = np.zeros((*information.shape[:2], 1))
        direction[:, sets[index], 0] = np.linalg.eigh(blocks[index])[1][..., 0]
        results.append((tuple(sets[index].tolist()), direction))
    return results


def _joined(supports: list[tuple[int, ...]]) -> tuple[Group, ...]:
    """Supports that share a parameter are one group."""
    groups: list[list[tuple[int, ...]]] = []
    for support in supports:
        touching = [g for g in groups if set(support) & set(itertools.chain(*g))]
        groups = [g for g in groups if g not in touching]
        groups.append([*itertools.chain(*touching), support])
    return tuple(
        Group(tuple(sorted(set(itertools.chain(*group)))), tuple(group)) for group in groups
    )
