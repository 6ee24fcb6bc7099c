"""Explicit steps of fixed size."""

import jax
import jax.numpy as jnp
import numpy as np

from inojax.solvers._explicit import solve_explicit


def oscillator(t, y, theta):
    return jnp.stack([theta[0] * y[1], -theta[0] * y[0] + jnp.cos(t)])


def test_errors_fall_with_the_fourth_power_of_the_step():
    """u'' = -ω² u + ω cos t has a closed solution from rest."""
    omega = np.array([0.5, 2.0, 3.0])
    times = np.array([0.0, 0.5, 1.5, 4.0])
    amplitude = omega / (omega**2 - 1.0)
    exact = amplitude * (np.cos(times[:, None]) - np.cos(omega * times[:, None]))
    errors = []
    with jax.enable_x64(True):
        for substeps in (16, 32):
            states = solve_explicit(
                oscillator, jnp.zeros((3, 2)), jnp.asarray(omega[:, None]), times,
                initial_time=0.0, substeps=substeps,
            )  # fmt: skip
            assert states.shape == (3, 4, 2)
            errors.append(np.abs(np.asarray(states)[:, :, 0].T - exact).max())
    assert errors[1] < 1e-4
    np.testing.assert_allclose(errors[0] / errors[1], 16.0, rtol=0.2)


def test_it_stays_in_single_precision():
    with jax.enable_x64(False):
        states = solve_explicit(
            oscillator, jnp.zeros((1, 2)), jnp.ones((1, 1)), np.array([0.0, 1.0]),
            initial_time=-1.0, substeps=4,
        )  # fmt: skip
    assert states.dtype == jnp.float32
