"""More starts, while those that were taken do not settle which optimum is the best."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Integer
from scipy.special import chdtrc

from ..._estimate import Estimate
from ..._multi_start import MultiStart
from ..._trust import P_VALUE
from ._laplace_mixture import SAME
from ._levenberg_marquardt import NEAR, Minimum

# SciPy's Sobol sequences have no more dimensions.
_MOST_DIMENSIONS = 21_201


class Ended(NamedTuple):
    """Where the starts of many observations ended.

    Attributes:
        minimum: The points.
        chi2: Sum of squared whitened residuals at each.
    """

    minimum: Minimum
    chi2: Float[Any, "batch start"]


class Rounds(NamedTuple):
    """Several rounds of starts together.

    Attributes:
        minimum: Where the starts of each observation ended: those of its only round, or as many
            of the best different optima of all its rounds, the best first.
        more: Observations for which more than one round was taken; what follows is about them.
        starts: Share of all starts that ended in each of these optima.
        search: How the search went.
    """

    minimum: Minimum
    more: Bool[np.ndarray, " batch"]
    starts: Float[np.ndarray, "batch optimum"]
    search: MultiStart


class Limits(NamedTuple):
    """What ends a search.

    Attributes:
        starts: Most starts for each observation.
        readings: How many readings each observation has.
        noise_known: Whether the level of the noise is known.
    """

    starts: int
    readings: Int[np.ndarray, " batch"]
    noise_known: bool


class _Pool(NamedTuple):
    """Different points where the starts of one observation ended, the best first."""

    minimum: Any  # a `Minimum` of NumPy arrays
    chi2: Float[np.ndarray, " point"]
    starts: Int[np.ndarray, " point"]
    taken: int

    @property
    def search(self) -> MultiStart:
        reached = self.starts[np.asarray(self.minimum.arrived)]
        numbers = self.taken, reached.sum(), len(reached), reached[0] if len(reached) else 0
        return MultiStart(*map(np.asarray, numbers))


def all_rounds(
    first: Ended,
    descend: Callable[[Float[np.ndarray, "batch start parameter"]], Ended],
    limits: Limits,
    seeds: Integer[np.ndarray, "batch number"],
) -> Rounds:
    """Take further rounds of as many starts as the first had, spread evenly over the prior.

    An observation is done where its best optimum explains its readings. Where it does not, the
    search goes on until one more start would end in an optimum that is not known yet with a
    chance below 5 % (`MultiStart.unseen`). Where the level of the noise is unknown, too, so that
    any optimum explains the readings, it goes on until two starts have ended in the best; but a
    single start was meant to be one. Where the steps of the lowest were used up more starts are no
    remedy, and none are taken.

    Args:
        first: Where the first round ended.
        descend: Takes a round from unit coordinates; where these are NaN there is nothing to do.
        limits: What ends a search.
        seeds: Numbers that make the starts of each observation.

    Returns:
        All rounds together.
    """
    batch, many, size = first.minimum.x.shape
    pools: dict[int, _Pool] = {row: _pool(first, row) for row in _in_doubt(first, limits)}
    active = [row for row, pool in pools.items() if _goes_on(pool, row, limits)]
    points = {row: _points(limits.starts, size, seeds[row]) for row in active}
    begin = many
    while active and begin + many <= limits.starts:
        guesses = np.full((batch, many, size), np.nan)
        for row in active:
            guesses[row] = points[row][begin : begin + many]
        ended = descend(guesses)
        for row in active:
            pools[row] = _joined(pools[row], _pool(ended, row))
        active = [row for row in active if _goes_on(pools[row], row, limits)]
        begin += many
    return _together(first, {row: pool for row, pool in pools.items() if pool.taken > many})


def with_search(estimate: Estimate, rounds: Rounds) -> Estimate:
    """Tell estimates what all rounds of starts together have found.

    Args:
        estimate: A batch, made from `rounds.minimum`.
        rounds: The rounds.

    Returns:
        The same batch.
    """
    assert estimate.optima is not None
    assert estimate.diagnostics is not None

    def told(e: Any) -> Any:
        return e.optima.starts, e.diagnostics.search

    def pick(all_of_them: np.ndarray, first: np.ndarray) -> np.ndarray:
        more = rounds.more.reshape(-1, *(1,) * (first.ndim - 1))
        return np.where(more, all_of_them, first)

    found = jax.tree.map(pick, (rounds.starts, rounds.search), told(estimate))
    return eqx.tree_at(told, estimate, found)


def _in_doubt(ended: Ended, limits: Limits) -> list[int]:
    """Observations whose best optimum may not be the best there is."""
    if not limits.noise_known:
        return list(range(len(ended.chi2)))
    value = np.where(np.isfinite(ended.minimum.local.value), ended.minimum.local.value, np.inf)
    best = np.take_along_axis(ended.chi2, value.argmin(axis=1)[:, None], axis=1)[:, 0]
    return np.flatnonzero(~(chdtrc(limits.readings, best) >= P_VALUE)).tolist()


def _goes_on(pool: _Pool, row: int, limits: Limits) -> bool:
    if not len(pool.chi2):
        return True  # no start could be evaluated so far
    if not pool.minimum.arrived[0]:
        return False
    if limits.noise_known:
        poor = chdtrc(limits.readings[row], pool.chi2[0]) < P_VALUE
        return bool(poor and not pool.search.settled)
    return bool(pool.taken > 1 and pool.search.best < 2)


def _points(count: int, size: int, seed: np.ndarray) -> Float[np.ndarray, "start parameter"]:
    # Half a second, which `import inojax` need not take.
    from scipy.stats import qmc

    rng = np.random.default_rng(seed.tolist())
    if size > _MOST_DIMENSIONS:
        return rng.random((count, size))
    # SciPy warns about counts that are no powers of two.
    return qmc.Sobol(size, rng=rng).random_base2((count - 1).bit_length())[:count]


def _pool(ended: Ended, row: int) -> _Pool:
    """Where the starts of one observation ended in one round."""
    minimum, chi2 = _rows(ended.minimum, row), ended.chi2[row]
    value = np.asarray(minimum.local.value)
    lowest = np.min(value[minimum.arrived & np.isfinite(value)], initial=np.inf)
    # Where a start gave up there is no optimum, unless it is lower than all that are.
    there = np.flatnonzero(np.isfinite(value) & (minimum.arrived | (value < lowest - NEAR)))
    pool = _Pool(_rows(minimum, there), chi2[there], np.ones(len(there), int), len(value))
    return _distinct(pool)


def _joined(pool: _Pool, more: _Pool) -> _Pool:
    minimum = jax.tree.map(lambda *x: np.concatenate(x), pool.minimum, more.minimum)
    chi2 = np.concatenate([pool.chi2, more.chi2])
    starts = np.concatenate([pool.starts, more.starts])
    return _distinct(_Pool(minimum, chi2, starts, pool.taken + more.taken))


def _distinct(pool: _Pool) -> _Pool:
    """The same without points that lie on the peak of a better one."""
    minimum = pool.minimum
    value = np.asarray(minimum.local.value)
    lowest = np.min(value[minimum.arrived], initial=np.inf)
    there = minimum.arrived | (value < lowest - NEAR)
    order = [row for row in np.argsort(value) if there[row]]
    kept: list[int] = []
    starts = pool.starts.copy()
    for row in order:
        gaps = minimum.x[row] - minimum.x[kept]
        squares = np.einsum("ip,ipq,iq->i", gaps, minimum.local.hessian[kept], gaps)
        near = np.flatnonzero(squares < SAME * len(minimum.x[row]))
        if len(near):
            starts[kept[near[0]]] += starts[row]
        else:
            kept.append(int(row))
    return _Pool(_rows(minimum, kept), pool.chi2[kept], starts[kept], pool.taken)


def _together(first: Ended, pools: dict[int, _Pool]) -> Rounds:
    batch, many = first.chi2.shape
    minimum = jax.tree.map(np.array, first.minimum)
    more, starts = np.zeros(batch, bool), np.zeros((batch, many))
    numbers = np.zeros((4, batch), int)
    for row, pool in pools.items():
        count = min(many, len(pool.chi2))
        more[row], starts[row, :count] = True, pool.starts[:count] / pool.taken
        numbers[:, row] = jax.tree.leaves(pool.search)
        if count:  # else it is as nowhere as before
            _put(minimum, row, pool, many)
    return Rounds(minimum, more, starts, MultiStart(*numbers))


def _put(minimum: Any, row: int, pool: _Pool, many: int) -> None:
    """Write the best points of a pool where an observation's first ones were."""
    index = np.minimum(np.arange(many), len(pool.chi2) - 1)
    for leaf, part in zip(*map(jax.tree.leaves, (minimum, pool.minimum)), strict=True):
        leaf[row] = part[index]
    # Rows without an optimum of their own.
    minimum.local.value[row, len(pool.chi2) :] = np.inf


def _rows(minimum: Any, index: int | list[int] | np.ndarray) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf)[index], minimum)
