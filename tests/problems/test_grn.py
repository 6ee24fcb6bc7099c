"""The regulatory network against its equations written as a matrix product, and its limits."""

import numpy as np
from scipy.integrate import solve_ivp

from inojax.problems import grn


def test_it_is_the_matrix_equation(key):
    problem = grn()
    theta = problem.parameters.sample(1, key=key)[0]
    K = np.zeros((20, 20))
    for name, value in zip(problem.parameters.names, theta, strict=True):
        row, column = (int(part) - 1 for part in name[1:].split("_"))
        K[row, column] = value
    assert np.count_nonzero(np.diag(K)) == 20
    assert np.count_nonzero(np.diag(K, -1)) == 19
    assert K[0, 19] != 0.0

    def field(t, x):
        return 1.0 + K @ (x**2 / (1.0 + x**2)) - x

    start = 0.1 + 0.9 * np.arange(20) / 19
    exact = solve_ivp(
        field, (0.0, 10.0), start, t_eval=problem.model.times, rtol=1e-11, atol=1e-12
    ).y.T
    # rtol 1e-6 in each of some twenty-five steps.
    np.testing.assert_allclose(problem.model.solve(theta).states, exact, rtol=3e-5)


def test_expression_never_becomes_negative(key):
    problem = grn()
    solution = problem.model.solve_ensemble(problem.parameters.design(256, key=key))
    assert solution.states.min() > 0.0
