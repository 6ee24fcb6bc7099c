"""The neuron model against an independent integration, and what is read of it."""

import numpy as np
import pytest

from inojax.problems import fitzhugh_nagumo

# u at t = 0.2, 1, 2, 5, 10, 20, 50 and 100 ms; explicit Runge-Kutta of order 8 at 1e-12.
ROWS = np.array([1, 5, 10, 25, 50, 100, 250, 500])
POTENTIALS = {
    (0.4, 0.4): [
        -0.31543086, -1.70576905, -1.41516668, 1.84648276,
        -1.81073687, -1.54075286, 2.00117536, 0.64397585,
    ],
    (0.0, 0.2): [
        -0.32506407, -1.75907007, -1.52278134, 1.92598713,
        -1.76762649, -1.43325515, 1.74769092, -1.35333373,
    ],
    (0.7, 0.8): [
        -0.30835129, -1.67001456, -1.37870615, 1.82565213,
        0.75211110, 1.04447915, 1.80600926, 0.69559215,
    ],
}  # fmt: skip


@pytest.mark.parametrize(("theta", "expected"), POTENTIALS.items())
def test_the_potential_is_the_reference(theta, expected):
    model = fitzhugh_nagumo().model.replace(rtol=1e-9, atol=1e-11, max_steps=100_000)
    states = model.solve_ensemble(np.array([theta])).states[0]
    # Errors of a step add up along the orbit over a hundred milliseconds.
    np.testing.assert_allclose(states[ROWS, 0], expected, atol=1e-6)


def test_only_the_potential_is_read_at_every_time(key):
    problem = fitzhugh_nagumo()
    assert problem.channels == ("u",)
    observation = problem.simulate(np.array([0.4, 0.4]), key=key)
    assert observation.values.shape == (1000, 1)


def test_the_prior_is_the_truncated_normal_of_the_source():
    space = fitzhugh_nagumo().parameters
    ends = space.from_unit(np.array([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]))
    np.testing.assert_allclose(ends, [[-0.2, -0.4], [0.4, 0.4], [1.0, 1.2]], atol=1e-9)
