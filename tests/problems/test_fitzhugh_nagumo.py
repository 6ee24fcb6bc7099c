"""The neuron model against an independent integration, and what is read of it."""

import jax
import jax.random as jr
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from inojax.metrics import laplace_covariances
from inojax.noise import Gaussian
from inojax.problems import fitzhugh_nagumo
from tests.refuses import refuses

# u at t = 0.2, 1, 2, 5, 10, 20, 50, 100 and 199.8 ms; explicit Runge-Kutta of order 8 at 1e-12.
ROWS = np.array([1, 5, 10, 25, 50, 100, 250, 500, 999])
POTENTIALS = {
    (0.4, 0.4): [
        -0.31543086, -1.70576905, -1.41516668, 1.84648276, -1.81073687,
        -1.54075286, 2.00117536, 0.64397585, 1.19928622,
    ],
    (0.0, 0.2): [
        -0.32506407, -1.75907007, -1.52278134, 1.92598713, -1.76762649,
        -1.43325515, 1.74769092, -1.35333373, 1.96995632,
    ],
    (0.7, 0.8): [
        -0.30835129, -1.67001456, -1.37870615, 1.82565213, 0.75211110,
        1.04447915, 1.80600926, 0.69559215, 1.01218952,
    ],
}  # fmt: skip
RECOVERY = [
    0.03584729, 0.44207867, 1.00594802, 0.57557459, 0.32792713,
    0.84176204, 1.08233039, -0.47772757, -0.34678684,
]  # fmt: skip


@pytest.mark.parametrize(("theta", "expected"), POTENTIALS.items())
def test_the_potential_is_the_reference(theta, expected):
    model = fitzhugh_nagumo().model.replace(rtol=1e-9, atol=1e-11, max_steps=100_000)
    states = model.solve_ensemble(np.array([theta])).states[0]
    # Errors of a step add up along the orbit over two hundred milliseconds.
    np.testing.assert_allclose(states[ROWS, 0], expected, atol=1e-6)
    if theta == (0.4, 0.4):
        np.testing.assert_allclose(states[ROWS, 1], RECOVERY, atol=1e-6)


def test_only_the_potential_is_read_at_every_time(key):
    problem = fitzhugh_nagumo()
    assert problem.channels == ("u",)
    observation = problem.simulate(np.array([0.4, 0.4]), key=key)
    assert observation.values.shape == (1000, 1)


def test_the_prior_is_the_truncated_normal_of_the_source():
    space = fitzhugh_nagumo().parameters
    ends = space.from_unit(np.array([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]))
    np.testing.assert_allclose(ends, [[-0.2, -0.4], [0.4, 0.4], [1.0, 1.2]], atol=1e-9)


def test_the_noise_remembers_the_reading_before(key):
    problem = fitzhugh_nagumo()
    clean = np.zeros((1000, 1))
    theta = np.array([0.4, 0.4])
    with jax.enable_x64(True):
        draw = jax.vmap(
            lambda k: problem.noise.sample(clean, theta, times=problem.model.times, key=k)
        )
        error = np.asarray(draw(jr.split(key, 200)))[..., 0]
    # 200,000 readings, a ninth of them independent: standard errors 0.5 and 0.3 %.
    np.testing.assert_allclose(error.std(), 0.35, rtol=0.025)
    np.testing.assert_allclose(np.mean(error[:, 1:] * error[:, :-1]) / 0.35**2, 0.8, rtol=0.03)
    assert isinstance(fitzhugh_nagumo(correlation=0.0).noise, Gaussian)


def test_noise_and_current_can_be_unknown():
    problem = fitzhugh_nagumo(unknown_noise=True, unknown_current=True)
    assert problem.parameters.names == ("theta0", "theta1", "zeta", "sigma", "rho")
    # With the known current the trajectory is that of two unknowns.
    states = problem.model.solve_ensemble(np.array([[0.4, 0.4, -0.4, 0.35, 0.8]])).states
    plain = fitzhugh_nagumo().model.solve_ensemble(np.array([[0.4, 0.4]])).states
    np.testing.assert_allclose(states, plain, atol=1e-6)
    # With another one it is that of an independent solver.
    other = solve_ivp(
        lambda t, y: (
            3.0 * (y[0] - y[0] ** 3 / 3.0 + y[1] - 0.3),
            -(y[0] - 0.4 + 0.4 * y[1]) / 3.0,
        ),
        (0.0, 199.8),
        np.zeros(2),
        "DOP853",
        t_eval=problem.model.times[1:],
        rtol=1e-10,
        atol=1e-10,
    )
    states = problem.model.solve_ensemble(np.array([[0.4, 0.4, -0.3, 0.35, 0.8]])).states
    np.testing.assert_allclose(states[0, 1:], other.y.T, atol=1e-3)
    middle = problem.parameters.from_unit(np.full((1, 5), 0.5))[0]
    # The correlation is cut a little nearer above than below.
    np.testing.assert_allclose(middle, [0.4, 0.4, -0.4, 0.35, 0.8], rtol=1e-5)
    ends = problem.parameters.from_unit(np.array([np.zeros(5), np.ones(5)]))
    assert (ends[:, 3] > 0.1).all()
    assert (ends[:, 4] > 0.59).all()
    assert (ends[:, 4] < 1.0).all()
    three = fitzhugh_nagumo(unknown_current=True)
    assert three.parameters.names == ("theta0", "theta1", "zeta")
    ends = three.parameters.from_unit(np.array([np.zeros(3), np.ones(3)]))
    np.testing.assert_allclose(ends[:, 2], [-0.6, -0.2], rtol=1e-5)
    # The sign is known: more current, and the potential is higher before it fires.
    _, tangents = three.model.sensitivities(np.array([[0.4, 0.4, -0.4]]))
    beside = [
        three.model.solve_ensemble(np.array([[0.4, 0.4, -0.4 + h]])).states[0]
        for h in (1e-5, -1e-5)
    ]
    slope = (beside[0] - beside[1]) / 2e-5
    np.testing.assert_allclose(
        tangents[0, :, :, 2], slope, rtol=2e-2, atol=2e-2 * np.abs(slope).max()
    )
    with refuses(ValueError, "`noise` must be a finite number, zero or more; got -1"):
        fitzhugh_nagumo(noise=-1.0)
    with refuses(ValueError, "`readings` must be a whole number, from 1 to 1000; got 0"):
        fitzhugh_nagumo(readings=0)
    with refuses(ValueError, "`unknown_noise` needs a positive `noise`.*between 0.2 and 0.8"):
        fitzhugh_nagumo(unknown_noise=True, correlation=0.9)


def test_the_information_of_a_thousand_readings_is_the_published_limit(key):
    """R² of about 0.985 and 0.989 at the level 0.35, 0.994 and 0.997 at 0.07 (300 draws)."""
    for noise, expected in ((0.35, (0.985, 0.989)), (0.07, (0.994, 0.997))):
        problem = fitzhugh_nagumo(noise=noise)
        thetas = problem.parameters.design(128, key=key)
        covariance = laplace_covariances(problem, thetas, key=key)
        left = np.diagonal(covariance, axis1=1, axis2=2).mean(axis=0) / thetas.var(axis=0)
        # A few insensitive neurons make most of the mean.
        np.testing.assert_allclose(1.0 - left, expected, atol=0.006)
