import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from inojax.methods.exact._levenberg_marquardt import Local, _candidate, minimize

ROWS = 6


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def least_squares(residuals):
    """The objective of a function `(x, problem) -> residuals`."""

    @jax.jit
    def evaluate(x, count, which):
        del count

        def one(x, problem):
            r, jacobian = residuals(x, problem), jax.jacfwd(residuals)(x, problem)
            return Local(0.5 * r @ r, jacobian.T @ r, jacobian.T @ jacobian)

        return jax.vmap(one)(x, which)

    return evaluate


def infinite(size):
    return -jnp.full(size, jnp.inf), jnp.full(size, jnp.inf)


def test_rosenbrock_valleys_of_different_steepness_are_followed_to_the_end():
    def residuals(x, problem):
        steepness = 10.0 ** jnp.asarray(problem, float)
        return jnp.stack([steepness * (x[1] - x[0] ** 2), 1.0 - x[0]])

    start = jnp.tile(jnp.array([-1.2, 1.0]), (4, 1))
    end = minimize(least_squares(residuals), start, infinite(2), max_steps=500, tolerance=1e-12)
    assert end.converged.all()
    np.testing.assert_allclose(end.x, 1.0, atol=1e-5)
    # Each row stops counting when it is done.
    assert len(set(end.steps.tolist())) > 1


def test_errors_of_a_solver_do_not_keep_it_from_arriving():
    exact = least_squares(lambda x, _: jnp.concatenate([x, x**2, jnp.array([10.0])]))

    def evaluate(x, count, which):
        local = exact(x, count, which)
        # Like a solver's, its errors jump between neighboring points, and the gradient has its own.
        value = local.value + 3e-8 * jnp.sin(1e9 * jnp.sum(x, axis=1))
        return Local(value, local.gradient + 1e-4, local.hessian)

    start = jnp.linspace(-1.0, 1.0, 12).reshape(6, 2)
    end = minimize(evaluate, start, infinite(2), max_steps=60, tolerance=1e-6)
    assert end.converged.all()
    np.testing.assert_allclose(end.x, 0.0, atol=2e-3)


@pytest.mark.parametrize("seed", range(5))
def test_bounded_linear_problems_end_where_scipy_does(seed):
    rng = np.random.default_rng(seed)
    matrix, target = rng.normal(size=(ROWS, 8, 5)), 2.0 * rng.normal(size=(ROWS, 8))
    matrix[:, :, 4] = matrix[:, :, 3] + 1e-3 * matrix[:, :, 4]  # hardly to be told apart

    def residuals(x, problem):
        return jnp.asarray(matrix)[problem] @ x - jnp.asarray(target)[problem]

    bounds = jnp.full(5, -0.3), jnp.full(5, 0.4)
    end = minimize(
        least_squares(residuals), jnp.zeros((ROWS, 5)), bounds, max_steps=200, tolerance=1e-14
    )
    assert end.converged.all()
    for row in range(ROWS):
        exact = scipy.optimize.lsq_linear(matrix[row], target[row], (-0.3, 0.4), tol=1e-14)
        # Values, since the points are hardly determined in one direction.
        np.testing.assert_allclose(end.local.value[row], exact.cost, rtol=1e-9)
    on_a_bound = np.isclose(end.x, -0.3) | np.isclose(end.x, 0.4)
    assert 0 < on_a_bound.sum() < end.x.size


def test_a_place_where_the_model_fails_is_stepped_around():
    def residuals(x, problem):
        del problem
        return jnp.where(x > 1.0, jnp.nan, 1.0) * (jnp.exp(3.0 * x) - jnp.exp(2.4))

    end = minimize(
        least_squares(residuals),
        jnp.full((1, 1), -1.0),
        infinite(1),
        max_steps=100,
        tolerance=1e-12,
    )
    assert end.converged.all()
    np.testing.assert_allclose(end.x, 0.8, rtol=1e-6)


def test_a_start_where_the_model_fails_has_not_converged():
    def residuals(x, problem):
        return jnp.where(problem == 0, jnp.nan, x)

    end = minimize(
        least_squares(residuals), jnp.ones((2, 1)), infinite(1), max_steps=10, tolerance=1e-9
    )
    assert end.converged.tolist() == [False, True]
    assert not np.isfinite(end.local.value[0])


def test_rows_that_are_not_meant_are_left_alone():
    def residuals(x, problem):
        del problem
        return x - 2.0

    start = jnp.zeros((3, 1))
    end = minimize(
        least_squares(residuals), start, infinite(1), max_steps=10, tolerance=1e-9, count=2
    )
    np.testing.assert_allclose(end.x.ravel(), [2.0, 2.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_one_undamped_step_solves_a_parabola_in_a_box(seed):
    rng = np.random.default_rng(seed)
    matrix, target = rng.normal(size=(9, 6)), 2.0 * rng.normal(size=9)
    matrix[:, 5] = matrix[:, 4] + 0.1 * matrix[:, 5]
    lower, upper = np.full(6, -0.3), np.full(6, 0.4)
    exact = scipy.optimize.lsq_linear(matrix, target, (-0.3, 0.4), tol=1e-14)
    start = rng.uniform(-0.3, 0.4, 6)
    gradient = matrix.T @ (matrix @ start - target)
    parts = start, gradient, matrix.T @ matrix, np.array(1e-13), lower, upper
    step = _candidate(*map(jnp.asarray, parts))
    assert 0 < np.isin(np.round(exact.x, 9), [-0.3, 0.4]).sum() < 6
    np.testing.assert_allclose(step, exact.x, atol=1e-6)
