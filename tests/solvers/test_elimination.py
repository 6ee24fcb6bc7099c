"""Systems of equations against NumPy's solutions."""

import jax
import jax.numpy as jnp
import numpy as np

from inojax.solvers._elimination import solve_general, solve_tridiagonal


def test_general_systems_are_solved_with_pivots():
    rng = np.random.default_rng(0)
    matrices, b = rng.normal(size=(5, 9, 9)), rng.normal(size=(5, 9))
    matrices[0, 0, 0] = 0.0
    expected = np.linalg.solve(matrices, b[..., None])[..., 0]
    with jax.enable_x64(True):
        found = jax.vmap(solve_general)(jnp.asarray(matrices), jnp.asarray(b))
        # Condition numbers of such matrices are a hundred or so.
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10)
        assert not np.isfinite(solve_general(jnp.ones((2, 2)), jnp.array([1.0, 2.0]))).all()


def test_derivatives_are_those_of_the_solution():
    rng = np.random.default_rng(1)
    matrix, b = rng.normal(size=(4, 4)), rng.normal(size=4)
    with jax.enable_x64(True):
        forward = jax.jacfwd(solve_general, argnums=(0, 1))(matrix, b)
        backward = jax.jacrev(solve_general, argnums=(0, 1))(matrix, b)
    inverse = np.linalg.inv(matrix)
    # d(A⁻¹b) = -A⁻¹ dA A⁻¹ b + A⁻¹ db.
    expected = -np.einsum("ij,k->ijk", inverse, inverse @ b)
    for found in (forward, backward):
        np.testing.assert_allclose(found[0], expected, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(found[1], inverse, rtol=1e-9, atol=1e-11)


def test_tridiagonal_systems_are_solved():
    rng = np.random.default_rng(2)
    lower, diagonal, upper, b = rng.normal(size=(4, 7))
    diagonal += 4.0
    matrix = np.diag(diagonal) + np.diag(lower[1:], -1) + np.diag(upper[:-1], 1)
    with jax.enable_x64(True):
        found = solve_tridiagonal(*map(jnp.asarray, (lower, diagonal, upper, b)))
    np.testing.assert_allclose(found, np.linalg.solve(matrix, b), rtol=1e-13, atol=1e-14)
