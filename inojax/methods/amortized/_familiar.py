"""Which readings are missing, beside what is missing in training."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..._inverse_problem import InverseProblem
from ._masking import kept_by_luck
from ._slots import Arranged, Slots, quarter

# Training observations that are looked at: what none of them is like is met less than once in as
# many.
_DRAWS = 1024
_QUARTERS = 4
# Share of training observations that are unlike all others.
_ALARMS = 0.01
_ROUNDING = 1e-5


class Familiar(eqx.Module):
    """Shares of the readings that are there in training observations.

    Shares of all readings come first, then those of each channel in both halves of time, then
    those in each quarter of time.

    Attributes:
        shares: Of some training observations.
        typical: Their median.
        reach: Within this distance of another one are all but one in a hundred of them.
    """

    shares: Float[np.ndarray, "draw share"]
    typical: Float[np.ndarray, " share"]
    reach: Float[np.ndarray, ""]

    @classmethod
    def fit(
        cls, problem: InverseProblem, slots: Slots, *, mask_rate: float, patterns: bool = False
    ) -> "Familiar":
        """Look at what training observations of a problem lack.

        Args:
            problem: The inverse problem.
            slots: Where its readings go.
            mask_rate: Share of them that lose readings.
            patterns: Whether these lose blocks and all but every n-th row as well.

        Returns:
            What is familiar.
        """
        draw = jax.jit(jax.vmap(partial(_mask, problem, mask_rate, patterns)))
        rows, mask = (np.asarray(x) for x in draw(jr.split(jr.key(0), _DRAWS)))
        shares = _shares(slots, np.asarray(rows, float), mask)
        typical = np.median(shares, axis=0)
        gaps = _gaps(np.minimum(shares, typical[None]))
        np.fill_diagonal(gaps, np.inf)
        reach = np.quantile(gaps.min(axis=1), 1.0 - _ALARMS)
        return cls(shares, typical, np.asarray(reach, np.float32))

    @classmethod
    def blank(cls, slots: Slots) -> "Familiar":
        """A placeholder of the right shapes."""
        size = 1 + 2 * len(slots.channels) + _QUARTERS
        shares = np.zeros((_DRAWS, size), np.float32)
        return cls(shares, shares[0], np.zeros((), np.float32))

    def lacks(self, slots: Slots, arranged: Arranged) -> Bool[np.ndarray, " batch"]:
        """Whether observations lack more readings, or others, than training observations.

        Args:
            slots: Where the readings went.
            arranged: A batch of observations in their slots.

        Returns:
            True where they do.
        """
        flat = [np.asarray(x).reshape(len(x), -1, *x.shape[3:]) for x in arranged[:3]]
        return np.array([self._lacks(one) for one in _shares(slots, flat[0], flat[2])], bool)

    def _lacks(self, shares: Float[np.ndarray, " share"]) -> bool:
        if shares[0] < self.shares[:, 0].min() - _ROUNDING:
            return True
        # More readings than is typical of training are no lack.
        met, one = (np.minimum(x, self.typical[None]) for x in (self.shares, shares[None]))
        if np.linalg.norm(met - one, axis=1).min() > float(self.reach) + _ROUNDING:
            return True
        # Of few readings all of one kind may be missing by chance, but not beside many others.
        many = self.shares[:, 0] >= 0.5 * min(shares[0], self.typical[0])
        return bool(np.any(_silent(shares[None]) > _silent(self.shares[many]).max(axis=0)))


def _mask(
    problem: InverseProblem, mask_rate: float, patterns: bool, key: Array
) -> tuple[Array, Array]:
    draw_key, lose_key = jr.split(key)
    grid = problem.model.times
    rows, mask = problem.sensors.draw(grid, len(problem.channels), key=draw_key)
    return rows, kept_by_luck(jnp.asarray(mask), mask_rate, patterns=patterns, key=lose_key)


def _shares(
    slots: Slots, place: Float[np.ndarray, "n row"], mask: Bool[np.ndarray, "n row channel"]
) -> Float[np.ndarray, "n share"]:
    """How many readings there are of each kind, as shares of as many as slots can hold."""
    when, channels = quarter(place, len(slots.times)), mask.shape[2]
    counts = np.stack([(mask & (when == q)[..., None]).sum(axis=1) for q in range(_QUARTERS)], 1)
    most = np.full(_QUARTERS, slots.count)
    if slots.fixed is not None:
        fixed = quarter(np.array(slots.fixed, float), len(slots.times))
        most = np.bincount(fixed, minlength=_QUARTERS)
    halves, most_of_half = (
        x.reshape(*x.shape[:-1], -1, 2).sum(axis=-1) for x in (np.moveaxis(counts, 1, 2), most)
    )
    most_of_half = np.clip(most_of_half, 1, slots.count)
    parts = (
        mask.sum(axis=(1, 2))[:, None] / (slots.count * channels),
        halves[..., 0] / most_of_half[0],
        halves[..., 1] / most_of_half[1],
        counts.sum(axis=2) / np.maximum(most * channels, 1)[None],
    )
    return np.concatenate(parts, axis=1).astype(np.float32)


def _gaps(shares: Float[np.ndarray, "n share"]) -> Float[np.ndarray, "n n"]:
    """Distances between rows."""
    squares = np.sum(np.square(shares, dtype=np.float64), axis=1)
    products = shares.astype(np.float64) @ shares.astype(np.float64).T
    return np.sqrt(np.maximum(squares[:, None] + squares[None] - 2.0 * products, 0.0))


def _silent(shares: Float[np.ndarray, "n share"]) -> Int[np.ndarray, "n kind"]:
    """How many channels, halves of channels and quarters have no reading at all."""
    halves = shares[:, 1:-_QUARTERS].reshape(len(shares), 2, -1)
    kinds = halves.sum(axis=1), halves.reshape(len(shares), -1), shares[:, -_QUARTERS:]
    return np.stack([np.sum(kind == 0.0, axis=1) for kind in kinds], axis=1)
