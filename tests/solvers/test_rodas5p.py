"""Rodas5P inside Diffrax: order, stiffness, gradients with each adjoint."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from inojax.solvers import Rodas5P
from tests.solvers.equations import (
    ROBERTSON_AT_END,
    ROBERTSON_RATES,
    ROBERTSON_START,
    prothero_robinson,
    robertson,
    van_der_pol,
)

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def solve(field, y0, theta, t1, *, t0=0.0, steps=None, rtol=1e-8, atol=1e-10, **options):
    fixed = steps is not None
    controller = diffrax.PIDController(rtol=rtol, atol=atol)
    return diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        Rodas5P(),
        t0,
        t1,
        (t1 - t0) / steps if fixed else None,
        y0,
        args=theta,
        stepsize_controller=diffrax.ConstantStepSize() if fixed else controller,
        max_steps=None if fixed else 4096,
        adjoint=options.pop("adjoint", diffrax.ForwardMode()),
        saveat=options.pop("saveat", diffrax.SaveAt(t1=True)),
        **options,
    )


def forced(t, y, theta):
    """Nonlinear, non-autonomous, coupled; smooth on [0, 1]."""
    return jnp.stack([-y[0] * y[1] + jnp.sin(3 * t), y[0] ** 2 - theta * y[1] * (1 + t)])


def reference(times):
    result = solve_ivp(
        lambda t, y: np.asarray([-y[0] * y[1] + np.sin(3 * t), y[0] ** 2 - y[1] * (1 + t)]),
        (0, 1),
        [1.0, 0.5],
        method="DOP853",
        t_eval=times,
        rtol=1e-13,
        atol=1e-15,
    )
    return result.y.T


def observed_orders(errors):
    return np.log2(np.asarray(errors[:-1]) / np.asarray(errors[1:]))


def test_state_converges_with_order_5():
    truth = reference([1.0])[0]
    errors = [
        np.abs(solve(forced, jnp.array([1.0, 0.5]), 1.0, 1.0, steps=n).ys[0] - truth).max()
        for n in (8, 16, 32)
    ]
    # The order is a limit; at these steps the next term still moves it by some tenths.
    assert np.all(observed_orders(errors) > 4.6), errors


def test_dense_output_converges_with_order_4():
    times = np.linspace(0.0, 1.0, 41)
    truth = reference(times)
    errors = [
        np.abs(
            solve(
                forced, jnp.array([1.0, 0.5]), 1.0, 1.0, steps=n, saveat=diffrax.SaveAt(ts=times)
            ).ys
            - truth
        ).max()
        for n in (4, 8, 16)
    ]
    assert np.all(observed_orders(errors) > 3.6), errors  # as above


@pytest.mark.parametrize("stiffness", [-1.0, -1e3, -1e6])
def test_prothero_robinson(stiffness):
    """Order reduction is what this equation is for; Rodas5P was built to resist it."""
    y0 = jnp.zeros(1)
    errors = [
        abs(float(solve(prothero_robinson, y0, jnp.array([stiffness]), 1.0, steps=n).ys[0, 0])
            - np.sin(1.0))
        for n in (4, 8, 16)
    ]  # fmt: skip
    # An error of 1e-6 with steps of 1/4 would already be one of a low-order method.
    assert errors[0] < 1e-5
    # Measured orders 3.9 to 5; below 1e-13 the errors are rounding.
    assert np.all((observed_orders(errors) > 2.8) | (np.asarray(errors[1:]) < 1e-12)), errors


def test_robertson_reaches_its_published_solution():
    solution = solve(
        robertson, jnp.asarray(ROBERTSON_START), jnp.asarray(ROBERTSON_RATES), 1e11,
        rtol=1e-8, atol=1e-20,
    )  # fmt: skip
    np.testing.assert_allclose(solution.ys[0], ROBERTSON_AT_END, rtol=1e-5)  # issue 2, item 3


def test_van_der_pol_matches_radau():
    def field(t, y):
        return [y[1], 1e3 * ((1 - y[0] ** 2) * y[1] - y[0])]

    radau = solve_ivp(field, (0, 2), [2.0, 0.0], method="Radau", rtol=1e-11, atol=1e-13)
    ours = solve(van_der_pol, jnp.array([2.0, 0.0]), jnp.array([1e3]), 2.0, rtol=1e-9, atol=1e-11)
    # Both errors accumulate along the relaxation oscillation, ours from a tolerance of 1e-9.
    np.testing.assert_allclose(ours.ys[0], radau.y[:, -1], rtol=1e-6)


def tree_field(t, y, theta):
    a, b = y["a"], y["b"]
    return {
        "a": -theta[0] * a + theta[1] * b[0] ** 2 + jnp.sin(t),
        "b": jnp.stack([theta[0] * a - theta[1] * b[0] ** 2, -b[1]]),
    }


def tree_end(theta, adjoint, t0=0.0, t1=1.5):
    start = {"a": jnp.array(1.0), "b": jnp.array([0.5, 2.0])}
    ys = solve(tree_field, start, theta, t1, t0=t0, adjoint=adjoint).ys
    return ys["a"][0] + ys["b"][0, 1]


ADJOINTS = {
    "checkpoint": diffrax.RecursiveCheckpointAdjoint(),
    "direct": diffrax.DirectAdjoint(),
    "backsolve": diffrax.BacksolveAdjoint(
        solver=Rodas5P(), stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-10)
    ),
    "forward": diffrax.ForwardMode(),
}


@pytest.mark.parametrize("name", ADJOINTS)
@pytest.mark.parametrize("t1", [1.5, -0.5], ids=["forward_time", "backward_time"])
def test_gradients_match_finite_differences(name, t1):
    theta = jnp.array([2.0, 1.5])
    differentiate = jax.jacfwd if name == "forward" else jax.grad

    def end(theta):
        return tree_end(theta, ADJOINTS[name], t1=t1)

    # Central differences with step 1e-4: truncation 1e-8, solver error 1e-9 / 1e-4 at most.
    value = jax.jit(end)
    differences = [(value(theta + step) - value(theta - step)) / 2e-4 for step in 1e-4 * jnp.eye(2)]
    gradient = jax.jit(differentiate(end))(theta)
    np.testing.assert_allclose(gradient, differences, rtol=1e-5, atol=1e-6)


def test_state_that_leaves_the_domain_is_rejected_not_returned():
    """sqrt of a negative number is NaN: the steps that overshoot must be tried again."""

    def field(t, y, theta):
        return -jnp.sqrt(y) * theta

    # y = (1 - t / 2)²; a first step of 10 overshoots far.
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field), Rodas5P(), 0.0, 1.5, 10.0, jnp.array([1.0]), args=jnp.array([1.0]),
        stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-10),
    )  # fmt: skip
    np.testing.assert_allclose(solution.ys[0, 0], 0.25**2, rtol=1e-6)  # tolerance 1e-8 a step


def test_singular_system_is_rejected_and_leaves_the_gradient_finite():
    """With y' = y / (h γ) the matrix of the first step is zero."""
    from inojax.solvers._rodas5p_tableau import GAMMA

    def end(rate):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, args: args * y), Rodas5P(), 0.0, 1.0, 1 / (GAMMA * rate),
            jnp.array([1.0]), args=rate,
            stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-10),
        ).ys[0, 0]  # fmt: skip

    rate = 1 / (GAMMA * 0.5)
    value, gradient = jax.value_and_grad(end)(rate)
    np.testing.assert_allclose(value, np.exp(rate), rtol=1e-5)  # tolerance 1e-8 times growth
    np.testing.assert_allclose(gradient, np.exp(rate), rtol=1e-5)


def test_runs_in_single_precision():
    with jax.enable_x64(False):
        y0, theta = jnp.array([2.0, 0.0]), jnp.array([5.0])
        ys = solve(van_der_pol, y0, theta, 0.5, rtol=1e-4, atol=1e-5).ys
    assert ys.dtype == jnp.float32
    assert np.all(np.isfinite(ys))
