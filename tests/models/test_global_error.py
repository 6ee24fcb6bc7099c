import jax.numpy as jnp
import numpy as np
import pytest

import inojax as ij


def oscillator(t, y, theta):
    return jnp.stack([theta[0] * y[1], -theta[0] * y[0]])


def lorenz(t, y, theta):
    x, v, z = y
    return jnp.stack([10.0 * (v - x), x * (theta[0] - z) - v, x * v - 8.0 / 3.0 * z])


def exact(model, frequencies):
    angles = frequencies[:, None] * model.times[None, :]
    return np.stack([np.cos(angles), -np.sin(angles)], axis=-1)


@pytest.mark.parametrize("rtol", [1e-5, 1e-8])
def test_a_global_tolerance_holds_for_trajectories_of_many_steps(rtol):
    model = ij.ODEModel(
        oscillator,
        np.array([1.0, 0.0]),
        times=np.linspace(0.0, 200.0, 41),
        rtol=rtol,
        atol=rtol,
        states=("x", "v"),
    )
    frequencies = np.linspace(0.5, 2.0, 8)

    def error(model):
        states = model.solve_ensemble(frequencies[:, None]).states
        return np.abs(states - exact(model, frequencies)).max()

    assert error(model) > 3.0 * rtol
    strict = model.with_global_tolerance(frequencies[[0, 3, 7], None])
    assert error(strict) <= 2.0 * rtol
    # Not by asking for as much as float64 holds.
    assert error(strict) > 1e-3 * rtol


def test_tolerances_that_suffice_stay_as_they_are():
    model = ij.ODEModel(oscillator, np.array([1.0, 0.0]), times=np.array([0.1]), states=("x", "v"))
    assert model.with_global_tolerance(np.array([[1.0]])).rtol == 1e-6


def test_a_global_tolerance_that_cannot_be_reached_is_refused():
    chaotic = ij.ODEModel(
        lorenz,
        np.ones(3),
        times=np.linspace(1.0, 60.0, 60),
        states=("x", "y", "z"),
        max_steps=100_000,
    )
    with pytest.raises(ValueError, match="small errors grow too much"):
        chaotic.with_global_tolerance(np.array([[28.0]]))


def test_a_global_tolerance_needs_trajectories_that_do_not_fail():
    blow_up = ij.ODEModel(
        lambda t, y, theta: theta * y**2, np.ones(1), times=np.array([1.0]), states=("x",)
    )
    with pytest.raises(ValueError, match=r"1 of the trajectories for `thetas` failed"):
        blow_up.with_global_tolerance(np.array([[0.5], [2.0]]))
