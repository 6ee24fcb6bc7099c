"""Linear systems (I / γ - h J) x = b, one per lane, with the batch as the last axis.

A sparse elimination runs down the diagonal in an order fixed when the vector field is traced,
without row exchanges: exchanges that differ between lanes would cost more than the elimination
itself. Zero or bad pivots are caught afterwards, by `backward_error`, and the step is then tried
again with a smaller h: as h shrinks the diagonal dominates, so that elimination without exchanges
becomes safe. Where sparsity does not pay, LAPACK (or its like on a GPU) factors dense matrices
with partial pivoting.
"""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ._sparsity import color_columns

# Operations and entries of one elimination that may be written out: compiling twice as many takes
# many times as long.
_MOST_UNROLLED = 300
# What one operation costs a lane, in seconds, in a loop over entries of 64 lanes and in LAPACK on
# matrices of some hundred rows; only their ratio matters.
_LOOPED, _DENSE = 5e-9, 4e-10
# Solves for each factorization: the stages of the method.
_SOLVES = 8


class Form(enum.Enum):
    """How an elimination is carried out."""

    UNROLLED = enum.auto()  # written out entry by entry
    LOOPED = enum.auto()  # entry by entry, in a loop over a table
    DENSE = enum.auto()  # whole matrices, with partial pivoting


class Elimination(NamedTuple):
    """The symbolic part of the elimination, fixed when the vector field is traced.

    Attributes:
        form: How it is carried out.
        order: Order in which the pivots are taken (least fill-in first, Markowitz 1957).
        slots: Position of each entry (row, column) of the factors among the stored values.
        pattern: Entries of J that can be nonzero.
        colors: Color of each column for the compressed Jacobian.
    """

    form: Form
    order: list[int]
    slots: dict[tuple[int, int], int]
    pattern: Bool[np.ndarray, "state state"]
    colors: np.ndarray

    @property
    def seeds(self) -> Float[np.ndarray, "color state"]:
        """Directions whose derivatives make up the compressed Jacobian."""
        return (np.arange(self.colors.max() + 1)[:, None] == self.colors[None, :]).astype(float)


def plan_elimination(
    pattern: Bool[np.ndarray, "state state"], form: Form | None = None
) -> Elimination:
    """Choose the order of pivots, and how to carry the elimination out.

    Args:
        pattern: Entries of J that can be nonzero.
        form: How to carry it out; by default what should be fastest.
    """
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
    form = form or _fastest(len(pattern), operations, len(slots))
    return Elimination(form, order, slots, pattern, color_columns(pattern))


def _fastest(n: int, operations: int, entries: int) -> Form:
    if operations + entries <= _MOST_UNROLLED:
        return Form.UNROLLED
    looped = _LOOPED * (operations + _SOLVES * entries)
    dense = _DENSE * (n**3 / 3 + 2 * _SOLVES * n**2)
    return Form.LOOPED if looped < dense else Form.DENSE


# Values of the entries, or matrices with their row exchanges.
Factors = (
    Float[Array, "entry batch"]
    | tuple[Float[Array, "batch state state"], Int[Array, "batch state"]]
)
# `substitution(plan, factors, b)`.
Substitution = Callable[[Elimination, Any, Array], Array]


def row_sizes(
    plan: Elimination,
    jacobian: Float[Array, "color state batch"],
    sizes: Float[Array, "state batch"],
) -> tuple[Float[Array, "state batch"], Float[Array, "state batch"]]:
    """Sum of |J| times some sizes along each row, and the size of the diagonal."""
    colors, n = int(plan.colors.max()) + 1, len(plan.colors)
    # Which column an entry of the compressed Jacobian stands for; none has size zero.
    column = np.full((colors, n), n)
    for j in range(n):
        column[plan.colors[j], plan.pattern[:, j]] = j
    padded = jnp.concatenate([sizes, jnp.zeros_like(sizes[:1])])
    rows = zip(jacobian, column, strict=True)
    terms = sum((jnp.abs(row) * padded[which] for row, which in rows), jnp.zeros_like(sizes))
    return terms, jnp.abs(jacobian[plan.colors, np.arange(n)])


def factor(plan: Elimination, jacobian: Float[Array, "color state batch"], shift: float) -> Factors:
    """Factor `shift` I - J, where J is given by its compressed columns."""
    if plan.form is Form.UNROLLED:
        return jnp.stack(_factor_unrolled(plan, jacobian, shift))
    if plan.form is Form.LOOPED:
        return _factor_looped(plan, jacobian, shift)
    columns = jacobian[plan.colors] * plan.pattern.T[:, :, None].astype(float)
    matrices = shift * jnp.eye(len(plan.order))[None] - jnp.transpose(columns, (2, 1, 0))
    return lax.platform_dependent(matrices, cpu=_factor_each, default=_factor_dense)


def solve(plan: Elimination, factors: Factors, b: Float[Array, "state batch"]) -> Array:
    """Solve with the factors."""
    for substitute in substitutions(plan):
        b = substitute(plan, factors, b)
    return b


def substitutions(plan: Elimination) -> tuple[Substitution, ...]:
    """What solving consists of, one after the other.

    The compiler computes an intermediate value again wherever it is used, rather than storing it.
    Written out, both directions in one piece cost several times as much as one by one with the
    result in between stored.
    """
    return {
        Form.UNROLLED: (_forward_unrolled, _backward_unrolled),
        Form.LOOPED: (_solve_looped,),
        Form.DENSE: (_solve_dense,),
    }[plan.form]


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
    columns, colors = jnp.asarray(plan.pattern.T.astype(float)), jnp.asarray(plan.colors)

    def add(j: Array | int, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        term = columns[j][:, None] * jacobian[colors[j]] * x[j][None, :]
        return sums[0] + term, sums[1] + jnp.abs(term)

    sums = b - shifted, jnp.abs(b) + jnp.abs(shifted)
    if plan.form is Form.UNROLLED:
        for j in range(x.shape[0]):
            sums = add(j, sums)
    else:
        sums = lax.fori_loop(0, x.shape[0], add, sums)
    residual, size = sums
    return jnp.max(jnp.abs(residual) / jnp.where(size > 0, size, 1.0), axis=0)


def _factor_unrolled(plan: Elimination, jacobian: Array, shift: float) -> list[Array]:
    slots = plan.slots

    def entry(i: int, j: int) -> Array:
        if not plan.pattern[i, j]:
            return jnp.zeros_like(jacobian[0, 0])
        value = jacobian[plan.colors[j], i]
        return shift - value if i == j else -value

    v = [entry(i, j) for i, j in slots]
    for place, k in enumerate(plan.order):
        rest = plan.order[place + 1 :]
        v[slots[k, k]] = inverse = 1.0 / v[slots[k, k]]
        for i in (i for i in rest if (i, k) in slots):
            v[slots[i, k]] = multiplier = v[slots[i, k]] * inverse
            for j in (j for j in rest if (k, j) in slots):
                v[slots[i, j]] = v[slots[i, j]] - multiplier * v[slots[k, j]]
    return v


def _forward_unrolled(plan: Elimination, factors: Array, b: Array) -> Array:
    slots, v, x = plan.slots, list(factors), list(b)
    for place, k in enumerate(plan.order):
        for i in plan.order[place + 1 :]:
            if (i, k) in slots:
                x[i] = x[i] - v[slots[i, k]] * x[k]
    return jnp.stack(x)


def _backward_unrolled(plan: Elimination, factors: Array, b: Array) -> Array:
    slots, v, x = plan.slots, list(factors), list(b)
    for place, k in reversed(list(enumerate(plan.order))):
        for j in plan.order[place + 1 :]:
            if (k, j) in slots:
                x[k] = x[k] - v[slots[k, j]] * x[j]
        x[k] = x[k] * v[slots[k, k]]
    return jnp.stack(x)


# The same two, in loops over tables of positions. Each table has a row for each operation
# x[target] -= a[left] * b[right]; a row that closes a pivot scales instead.


def _factor_looped(plan: Elimination, jacobian: Array, shift: float) -> Array:
    slots, pivots, scaled, updates = plan.slots, [], [], []
    rows, columns = np.array(list(slots)).T
    v = -jacobian[plan.colors[columns], rows] * plan.pattern[rows, columns].astype(float)[:, None]
    v = v + shift * (rows == columns).astype(float)[:, None]
    for place, k in enumerate(plan.order):
        rest = plan.order[place + 1 :]
        below = [i for i in rest if (i, k) in slots]
        right = [j for j in rest if (k, j) in slots]
        pivots.append((slots[k, k], len(scaled), len(scaled) + len(below)))
        for i in below:
            first = len(updates)
            updates += [(slots[i, j], slots[k, j]) for j in right]
            scaled.append((slots[i, k], first, len(updates)))
    pivot_table, scaled_table = (jnp.asarray(np.array(t or [(0, 0, 0)])) for t in (pivots, scaled))
    update_table = jnp.asarray(np.array(updates or [(0, 0)]))

    def eliminate(place: Array, v: Array) -> Array:
        diagonal, first, end = pivot_table[place]
        inverse = 1.0 / v[diagonal]

        def row(number: Array, v: Array) -> Array:
            position, start, stop = scaled_table[number]
            multiplier = v[position] * inverse

            def update(number: Array, v: Array) -> Array:
                target, right = update_table[number]
                return v.at[target].add(-multiplier * v[right])

            return lax.fori_loop(start, stop, update, v.at[position].set(multiplier))

        return lax.fori_loop(first, end, row, v.at[diagonal].set(inverse))

    return lax.fori_loop(0, len(pivots), eliminate, v)


def _solve_looped(plan: Elimination, factors: Array, b: Array) -> Array:
    slots, order = plan.slots, plan.order
    place = {k: p for p, k in enumerate(order)}
    lower = [(i, slots[i, k], k) for k in order for i in order[place[k] + 1 :] if (i, k) in slots]
    upper = []
    for k in reversed(order):
        upper += [(k, slots[k, j], j) for j in order[place[k] + 1 :] if (k, j) in slots]
        upper.append((k, slots[k, k], -1))  # the diagonal, which holds an inverse
    lower_table, upper_table = (jnp.asarray(np.array(t or [(0, 0, 0)])) for t in (lower, upper))

    def forward(number: Array, x: Array) -> Array:
        target, entry, source = lower_table[number]
        return x.at[target].add(-factors[entry] * x[source])

    def backward(number: Array, x: Array) -> Array:
        target, entry, source = upper_table[number]
        old = x[target]
        new = jnp.where(source < 0, old * factors[entry], old - factors[entry] * x[source])
        return x.at[target].set(new)

    x = lax.fori_loop(0, len(lower), forward, b)
    return lax.fori_loop(0, len(upper), backward, x)


# Whole matrices. Two programs that factor batches of them by LAPACK at the same time, each in a
# thread of its own, may wait for each other for ever on a CPU: a batch is spread over the threads
# that the programs themselves run in. A single matrix is not, and all of them one after the other
# take no longer.


def _factor_dense(
    matrices: Float[Array, "*batch state state"],
) -> tuple[Float[Array, "*batch state state"], Int[Array, "*batch state"]]:
    lu, _, permutation = lax.linalg.lu(matrices)
    return lu, permutation


def _factor_each(matrices: Float[Array, "batch state state"]) -> tuple[Array, Array]:
    return lax.map(_factor_dense, matrices)


def _solve_dense(plan: Elimination, factors: tuple[Array, Array], b: Array) -> Array:
    del plan
    rows = b.T[:, :, None]
    return lax.platform_dependent(*factors, rows, cpu=_solve_each, default=_solve_lu)[:, :, 0].T


def _solve_lu(
    lu: Float[Array, "*batch state state"],
    permutation: Int[Array, "*batch state"],
    rows: Float[Array, "*batch state one"],
) -> Float[Array, "*batch state one"]:
    rows = jnp.take_along_axis(rows, permutation[..., None], axis=-2)
    y = lax.linalg.triangular_solve(lu, rows, left_side=True, lower=True, unit_diagonal=True)
    return lax.linalg.triangular_solve(lu, y, left_side=True, lower=False)


def _solve_each(lu: Array, permutation: Array, rows: Array) -> Array:
    return lax.map(lambda system: _solve_lu(*system), (lu, permutation, rows))
