"""Systems of equations of general and of tridiagonal form, without LAPACK.

As for Cholesky factors: what runs inside calls that overlap must not wait for LAPACK's thread pool.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def solve_general(matrix: Float[Array, "n n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    """Solve A x = b by elimination with row pivots; infinite or NaN if A is singular.

    Args:
        matrix: A square matrix.
        b: The right-hand side.

    Returns:
        The solution; derivatives are those of the solution, not of the elimination.
    """
    return lax.custom_linear_solve(
        lambda x: matrix @ x,
        b,
        lambda _, b: _eliminated(matrix, b),
        transpose_solve=lambda _, b: _eliminated(matrix.T, b),
    )


def _eliminated(matrix: Array, b: Array) -> Array:
    size = b.size
    index = jnp.arange(size)

    def eliminate(k: Array, rows: Array) -> Array:
        # Finished rows are no pivots.
        pivot = jnp.argmax(jnp.where(index < k, -1.0, jnp.abs(rows[:, k])))
        rows = rows.at[jnp.stack([k, pivot])].set(rows[jnp.stack([pivot, k])])
        row = rows[k] / rows[k, k]
        rows = rows - jnp.where(index == k, 0.0, rows[:, k])[:, None] * row[None, :]
        return rows.at[k].set(row)

    joined = jnp.concatenate([matrix, b[:, None]], axis=1)
    return lax.fori_loop(0, size, eliminate, joined)[:, -1]


def solve_tridiagonal(
    lower: Float[Array, " n"],
    diagonal: Float[Array, " n"],
    upper: Float[Array, " n"],
    b: Float[Array, " n"],
) -> Float[Array, " n"]:
    """Solve a tridiagonal system without pivots, as elliptic equations allow.

    Args:
        lower: Entries left of the diagonal; the first has no meaning.
        diagonal: The diagonal.
        upper: Entries right of it; the last has no meaning.
        b: The right-hand side.

    Returns:
        The solution.
    """
    lower, upper = lower.at[0].set(0.0), upper.at[-1].set(0.0)

    def forward(carry: tuple[Array, Array], row: tuple[Array, ...]) -> tuple[tuple, tuple]:
        ratio, value = carry
        left, center, right, b = row
        pivot = center - left * ratio
        carry = right / pivot, (b - left * value) / pivot
        return carry, carry

    def backward(x: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        ratio, value = row
        x = value - ratio * x
        return x, x

    zero = jnp.zeros((), b.dtype)
    _, rows = lax.scan(forward, (zero, zero), (lower, diagonal, upper, b))
    _, x = lax.scan(backward, zero, rows, reverse=True)
    return x
