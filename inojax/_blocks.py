"""Work on many rows, on the host, a block of them at a time."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def in_blocks(block: Callable[..., Any], rows: Any, *, size: int, filled: bool = True) -> Any:
    """Run a function over many rows in calls of one size, so that it is compiled once.

    Args:
        block: From a PyTree of some rows to one of results with as many rows.
        rows: PyTree of arrays with the same number of rows, at least one.
        size: Rows of a call.
        filled: Whether the last call has as many rows as the others, the first ones again; else
            it has what is left.

    Returns:
        The results of all rows, as NumPy arrays.
    """
    count, parts = len(jax.tree.leaves(rows)[0]), []
    for start in range(0, count, size):
        meant = min(size, count - start)
        some = np.arange(start, start + (size if filled else meant)) % count
        found = block(jax.tree.map(lambda x, some=some: x[some], rows))
        parts.append(jax.tree.map(lambda x, meant=meant: np.asarray(x)[:meant], found))
    return jax.tree.map(lambda *each: np.concatenate(each), *parts)
