"""Every form of the elimination against NumPy, and the choice between them."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from inojax.solvers import SolveStatus, _linalg as linalg, solve_ensemble
from inojax.solvers._linalg import Form, plan_elimination

LANES = 5


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def tridiagonal(n):
    return np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= 1


PATTERNS = {
    "one state": np.ones((1, 1), bool),
    "diagonal": np.eye(6, dtype=bool),
    "tridiagonal": tridiagonal(9),
    "arrow": np.eye(7, dtype=bool) | (np.arange(7) == 2)[None, :] | (np.arange(7) == 2)[:, None],
    "random": np.eye(12, dtype=bool) | (np.random.default_rng(4).uniform(size=(12, 12)) < 0.2),
    "full": np.ones((8, 8), bool),
}


def compressed(plan, jacobians):
    """The columns of each color, added up: (color, state, lane)."""
    return np.einsum("cj,lij->cil", plan.seeds, jacobians)


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("pattern", PATTERNS.values(), ids=PATTERNS)
def test_solves_what_numpy_solves(pattern, form):
    rng = np.random.default_rng(0)
    plan = plan_elimination(pattern, form)
    jacobians = rng.normal(size=(LANES, *pattern.shape)) * pattern
    shift = 2.0 + np.abs(jacobians).sum(axis=(1, 2)).max()
    b = rng.normal(size=(len(pattern), LANES))
    entries = jnp.asarray(compressed(plan, jacobians))

    @jax.jit
    def solve(entries, b):
        x = linalg.solve(plan, linalg.factor(plan, entries, shift), b)
        return x, linalg.backward_error(plan, entries, shift, x, b)

    x, wrong = solve(entries, jnp.asarray(b))
    expected = np.linalg.solve(shift * np.eye(len(pattern)) - jacobians, b.T[:, :, None])
    # Well conditioned (diagonally dominant): rounding errors only.
    np.testing.assert_allclose(x, expected[:, :, 0].T, rtol=1e-12)
    assert np.all(wrong < 1e-14)


def test_a_zero_pivot_is_noticed_without_exchanges_and_overcome_with_them():
    # shift - J = [[0, 1], [1, 0]]: fine for exchanges, impossible without.
    jacobians = np.array([[[1.0, -1.0], [-1.0, 1.0]]])
    b = jnp.asarray([[3.0], [4.0]])
    for form in Form:
        plan = plan_elimination(np.ones((2, 2), bool), form)
        entries = jnp.asarray(compressed(plan, jacobians))
        x = linalg.solve(plan, linalg.factor(plan, entries, 1.0), b)
        if form is Form.DENSE:
            np.testing.assert_allclose(x, [[4.0], [3.0]], rtol=1e-15)
        else:
            wrong = linalg.backward_error(plan, entries, 1.0, x, b)
            assert not np.all(np.asarray(wrong) <= 1e-7)


def test_each_form_is_chosen_where_it_pays():
    assert plan_elimination(PATTERNS["random"]).form is Form.UNROLLED
    assert plan_elimination(tridiagonal(200)).form is Form.LOOPED
    five_bands = np.abs(np.subtract.outer(np.arange(200), np.arange(200))) <= 3
    assert plan_elimination(five_bands).form is Form.LOOPED
    assert plan_elimination(np.ones((40, 40), bool)).form is Form.DENSE


def test_a_chain_of_200_states_matches_its_exponential():
    """Diffusion on a line, y' = k A y: exact through the matrix exponential."""
    n = 200
    A = -2.0 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1) + 0.1 * np.eye(n, k=3)
    start = np.exp(-(((np.arange(n) - 60.0) / 10.0) ** 2))

    def field(t, y, k):
        def shifted(by):
            return jnp.concatenate([y[by:], jnp.zeros(by)]) if by > 0 else (
                jnp.concatenate([jnp.zeros(-by), y[:by]])
            )  # fmt: skip

        return k[0] * (shifted(1) + shifted(-1) + 0.1 * shifted(3) - 2.0 * y)

    rates = np.array([[1.0], [30.0]])
    times = jnp.array([0.5, 2.0])
    solution = jax.jit(lambda k: solve_ensemble(field, jnp.asarray([start] * 2), k, times))(rates)
    for rate, states in zip(rates[:, 0], solution.states, strict=True):
        for time, state in zip(times, states, strict=True):
            exact = scipy.linalg.expm(rate * float(time) * A) @ start
            np.testing.assert_allclose(state, exact, atol=1e-5)  # rtol 1e-6 a step


def test_a_dense_stiff_system_matches_its_exponential():
    rng = np.random.default_rng(1)
    n = 40
    rotation = np.linalg.qr(rng.normal(size=(n, n)))[0]
    A = rotation @ np.diag(-np.logspace(-1, 4, n)) @ rotation.T
    start = rng.normal(size=n)
    solution = jax.jit(
        lambda y0, k, t: solve_ensemble(lambda t, y, k: k[0] * (jnp.asarray(A) @ y), y0, k, t)
    )(jnp.asarray([start] * 3), jnp.asarray([[1.0], [0.5], [np.nan]]), jnp.array([0.1, 1.0]))
    assert solution.status.tolist() == [
        SolveStatus.SUCCESS, SolveStatus.SUCCESS, SolveStatus.NON_FINITE
    ]  # fmt: skip
    for rate, states in zip((1.0, 0.5), solution.states[:2], strict=True):
        for time, state in zip((0.1, 1.0), states, strict=True):
            np.testing.assert_allclose(state, scipy.linalg.expm(rate * time * A) @ start, atol=1e-5)


OVERLAPPING = """
import sys
from concurrent.futures import ThreadPoolExecutor
import jax, jax.numpy as jnp, numpy as np
from inojax.solvers import _linalg as linalg

jax.config.update("jax_enable_x64", True)
plan = linalg.plan_elimination(np.ones((20, 20), bool), linalg.Form.DENSE)
entries = jnp.asarray(np.random.default_rng(0).normal(size=(20, 20, 96)))

@jax.jit
def many(b):
    return jax.lax.fori_loop(
        0, 20, lambda i, b: linalg.solve(plan, linalg.factor(plan, entries, 100.0 + i), b), b
    )

def often(_):
    for _ in range(40):
        many(jnp.ones((20, 96))).block_until_ready()

with ThreadPoolExecutor(2) as pool:
    list(pool.map(often, range(2)))
"""


def test_programs_in_two_threads_do_not_wait_for_each_other():
    # In a process of its own, since threads that hang cannot be ended. Two programs that factor
    # whole batches by LAPACK hang in every run of this; it takes 3 s otherwise.
    subprocess.run([sys.executable, "-c", OVERLAPPING], check=True, timeout=100)
