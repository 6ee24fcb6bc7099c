"""Cholesky factors of small matrices, in loops that the compiler sees.

On a CPU, LAPACK's kernels wait for the thread pool they run in: two compiled calls that both factor
batches of matrices at the same time wait for each other for ever.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def cholesky(matrix: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """Lower triangular factor L of a positive definite matrix L Lᵀ; NaN if it is not.

    Args:
        matrix: A symmetric matrix.
    """
    index = jnp.arange(matrix.shape[0])

    def eliminate(k: Array, rest: Array) -> Array:
        root = jnp.sqrt(rest[k, k])
        column = jnp.where(index > k, rest[:, k] / root, 0.0).at[k].set(root)
        # What is left of k holds finished columns.
        inside = (index[:, None] > k) & (index[None, :] > k)
        rest = rest - jnp.where(inside, column[:, None] * column[None, :], 0.0)
        return rest.at[:, k].set(jnp.where(index >= k, column, 0.0))

    return lax.fori_loop(0, matrix.shape[0], eliminate, matrix)


def solve_lower(root: Float[Array, "n n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    """Solve L x = b."""

    def substitute(k: Array, x: Array) -> Array:
        value = x[k] / root[k, k]
        below = jnp.arange(x.size) > k
        return jnp.where(below, x - root[:, k] * value, x).at[k].set(value)

    return lax.fori_loop(0, b.size, substitute, b)


def solve_upper(root: Float[Array, "n n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    """Solve Lᵀ x = b."""
    last = b.size - 1

    def substitute(number: Array, x: Array) -> Array:
        k = last - number
        value = x[k] / root[k, k]
        above = jnp.arange(x.size) < k
        return jnp.where(above, x - root[k] * value, x).at[k].set(value)

    return lax.fori_loop(0, b.size, substitute, b)


def solve_positive(matrix: Float[Array, "n n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    """Solve a positive definite system; NaN if the matrix is not."""
    root = cholesky(matrix)
    return solve_upper(root, solve_lower(root, b))
