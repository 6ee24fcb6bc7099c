"""Linear systems (I / γ - h J) x = b, one per lane, with the batch as the last axis.

Elimination runs down the diagonal, without row exchanges: exchanges that differ between lanes
would cost more than the elimination itself. Zero or bad pivots are caught afterwards, by
`backward_error`, and the step is then tried again with a smaller h: as h shrinks the diagonal
dominates, so that elimination without exchanges becomes safe.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from ._sparsity import color_columns

_MOST_UNROLLED = 600


class Elimination(NamedTuple):
    """The symbolic part of the elimination, fixed when the vector field is traced.

    Attributes:
        order: Order in which the pivots are taken (least fill-in first, Markowitz 1957).
        slots: Position of each entry (row, column) of the factors among the stored values.
        unrolled: Whether the elimination is written out entry by entry.
        pattern: Entries of J that can be nonzero.
        colors: Color of each column for the compressed Jacobian.
    """

    order: list[int]
    slots: dict[tuple[int, int], int]
    unrolled: bool
    pattern: Bool[np.ndarray, "state state"]
    colors: np.ndarray

    @property
    def seeds(self) -> Float[np.ndarray, "color state"]:
        """Directions whose derivatives make up the compressed Jacobian."""
        return (np.arange(self.colors.max() + 1)[:, None] == self.colors[None, :]).astype(float)


def plan_elimination(pattern: Bool[np.ndarray, "state state"]) -> Elimination:
    """Choose the order of pivots, and whether to write the elimination out."""
    filled, alive, order, operations = pattern.copy(), list(range(len(pattern))), [], 0
    while alive:
        costs = [(filled[alive, k].sum() - 1) * (filled[k, alive].sum() - 1) for k in alive]
        pivot = alive[int(np.argmin(costs))]
        operations += int(min(costs))
        alive.remove(pivot)
        order.append(pivot)
        below, right = filled[:, pivot].copy(), filled[pivot].copy()
        mask = np.isin(np.arange(len(pattern)), alive)
        filled |= (below & mask)[:, None] & (right & mask)[None, :]
    slots = {(int(i), int(j)): q for q, (i, j) in enumerate(zip(*np.nonzero(filled), strict=True))}
    return Elimination(order, slots, operations <= _MOST_UNROLLED, pattern, color_columns(pattern))


Factors = Float[Array, "entry batch"] | Float[Array, "state state batch"]


def factor(plan: Elimination, jacobian: Float[Array, "color state batch"], shift: float) -> Factors:
    """Factor `shift` I - J, where J is given by its compressed columns."""
    if plan.unrolled:
        return _factor_unrolled(plan, jacobian, shift)
    dense = jnp.swapaxes(jacobian[plan.colors] * plan.pattern.T[:, :, None], 0, 1)
    return _factor_dense(shift * jnp.eye(len(plan.order))[:, :, None] - dense)


def solve(plan: Elimination, factors: Factors, b: Float[Array, "state batch"]) -> Array:
    """Solve with the factors."""
    return _solve_unrolled(plan, factors, b) if plan.unrolled else _solve_dense(factors, b)


def backward_error(
    plan: Elimination,
    jacobian: Float[Array, "color state batch"],
    shift: float,
    x: Float[Array, "state batch"],
    b: Float[Array, "state batch"],
) -> Float[Array, " batch"]:
    """Largest relative change of any entry of the system that makes `x` exact.

    Oettli & Prager (1964); unaffected by the scales of states and equations.
    """
    shifted = shift * x
    residual, size = b - shifted, jnp.abs(b) + jnp.abs(shifted)
    for j in range(x.shape[0]):
        mask = jnp.asarray(plan.pattern[:, j].astype(float))[:, None]
        term = mask * jacobian[plan.colors[j]] * x[j][None, :]
        residual, size = residual + term, size + jnp.abs(term)
    return jnp.max(jnp.abs(residual) / jnp.where(size > 0, size, 1.0), axis=0)


def _factor_unrolled(plan: Elimination, jacobian: Array, shift: float) -> Array:
    slots = plan.slots
    v = [_entry(plan, jacobian, shift, i, j) for i, j in slots]
    for place, k in enumerate(plan.order):
        rest = plan.order[place + 1 :]
        v[slots[k, k]] = inverse = 1.0 / v[slots[k, k]]
        for i in (i for i in rest if (i, k) in slots):
            v[slots[i, k]] = multiplier = v[slots[i, k]] * inverse
            for j in (j for j in rest if (k, j) in slots):
                v[slots[i, j]] = v[slots[i, j]] - multiplier * v[slots[k, j]]
    return jnp.stack(v)


def _entry(plan: Elimination, jacobian: Array, shift: float, i: int, j: int) -> Array:
    if not plan.pattern[i, j]:
        return jnp.zeros_like(jacobian[0, 0])
    value = jacobian[plan.colors[j], i]
    return shift - value if i == j else -value


def _solve_unrolled(plan: Elimination, factors: Array, b: Array) -> Array:
    slots, x = plan.slots, list(b)
    for place, k in enumerate(plan.order):
        for i in plan.order[place + 1 :]:
            if (i, k) in slots:
                x[i] = x[i] - factors[slots[i, k]] * x[k]
    for place, k in reversed(list(enumerate(plan.order))):
        for j in plan.order[place + 1 :]:
            if (k, j) in slots:
                x[k] = x[k] - factors[slots[k, j]] * x[j]
        x[k] = x[k] * factors[slots[k, k]]
    return jnp.stack(x)


def _factor_dense(matrix: Array) -> Array:
    n = matrix.shape[0]
    index = jnp.arange(n)[:, None]

    def eliminate(k: Array, a: Array) -> Array:
        inverse = 1.0 / a[k, k]
        column = jnp.where(index > k, a[:, k] * inverse[None, :], 0.0)
        row = jnp.where(index > k, a[k], 0.0)
        rest = a - column[:, None, :] * row[None, :, :]
        return rest.at[:, k].set(jnp.where(index > k, column, a[:, k]))

    return lax.fori_loop(0, n, eliminate, matrix)


def _solve_dense(factors: Array, b: Array) -> Array:
    n = factors.shape[0]
    index = jnp.arange(n)[:, None]

    def forward(k: Array, z: Array) -> Array:
        return z - jnp.where(index > k, factors[:, k] * z[k][None, :], 0.0)

    def backward(i: Array, x: Array) -> Array:
        k = n - 1 - i
        entry = (x[k] / factors[k, k])[None, :]
        return jnp.where(index == k, entry, x - jnp.where(index < k, factors[:, k] * entry, 0.0))

    return lax.fori_loop(0, n, backward, lax.fori_loop(0, n, forward, b))
