"""What descents from many starts say about whether the best optimum was found."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Int

# A start leads to an optimum that no other has found with a chance below this: enough were taken.
_RARELY_NEW = 0.05


class MultiStart(eqx.Module):
    """How a search from many starts went.

    Attributes:
        starts: How many starts were taken.
        arrived: How many of them ended in an optimum; the others failed, or their steps were
            used up.
        optima: How many different optima they found.
        best: How many of them ended in the best.

    Example:
        >>> problem = ij.problems.lotka_volterra()
        >>> inverter = ij.methods.LeastSquares(draws=64, candidates=0).fit(problem)
        >>> estimate = inverter(ij.problems.lynx_hare(), key=jr.key(0))

        >>> search = estimate.diagnostics.search
        >>> bool(1 <= search.best <= search.starts)
        True
    """

    starts: Int[Array | np.ndarray, "*batch"]
    arrived: Int[Array | np.ndarray, "*batch"]
    optima: Int[Array | np.ndarray, "*batch"]
    best: Int[Array | np.ndarray, "*batch"]

    @property
    def unseen(self) -> Float[Any, "*batch"]:
        """Expected chance that one more start would end in an optimum that was not yet found.

        Of n starts that ended in w different optima it is w (w + 1) / (n (n - 1)), whatever the
        number of optima and the sizes of their basins, all of which are as likely beforehand.

        Source:
            Boender and Rinnooy Kan, Math. Program. 37 (1987).
        """
        n, found = np.asarray(self.arrived, float), np.asarray(self.optima, float)
        return np.minimum(found * (found + 1.0) / np.maximum(n * (n - 1.0), 1.0), 1.0)

    @property
    def settled(self) -> Bool[Any, "*batch"]:
        """Whether more starts would hardly find another optimum than these did."""
        return (self.unseen < _RARELY_NEW) & (np.asarray(self.best) > 1)

    def as_dict(self) -> dict[str, int]:
        """The numbers of a single search, ready for `json.dump`."""
        return {name: int(getattr(self, name)) for name in ("starts", "arrived", "optima", "best")}

    def __str__(self) -> str:
        """How many starts ended where, for a single search."""
        starts, arrived, optima, best = self.as_dict().values()
        lost = f" ({starts - arrived} of them in no optimum)" if arrived < starts else ""
        if starts == 1:
            return "A single start was taken"
        if best == 1 and optima == arrived:
            return f"Of {starts} starts{lost} each ended in an optimum of its own"
        different = "a single optimum" if optima == 1 else f"the best of {optima} optima"
        return f"Of {starts} starts{lost} {best} ended in {different}"
