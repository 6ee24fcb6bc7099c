"""BiLO and PINN on solutions with kinks, read as counts."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from inojax.methods import PINN, BiLO, GaussNewtonWeightOptimizer, LeastSquares, Penalty
from inojax.methods.pde._equation import equation_of
from inojax.methods.pde._network_states import input_size
from inojax.methods.pde._unknowns import Functions, Unknowns
from inojax.nn._local_operator import LocalOperator
from inojax.problems import particles

KEY = jr.key(6)
TRUTH = np.array([500.0, 10.0])
SMALL = BiLO(
    width=32,
    weight_optimizer=GaussNewtonWeightOptimizer(points=48),
    penalty=Penalty.NONE,
    pretraining=80,
    steps=80,
)


@pytest.fixture(scope="module")
def problem():
    return particles()


@pytest.fixture(scope="module")
def observation(problem):
    return problem.simulate(TRUTH, key=KEY)


@pytest.fixture(scope="module")
def most_likely(problem, observation):
    exact = LeastSquares(penalty=Penalty.NONE, starts=2).fit(problem, key=KEY)
    return np.asarray(exact(observation, key=KEY).optima.value[0])


def test_local_jumps_hold_their_derivatives_by_the_parameters(problem):
    equation = equation_of(problem, None)
    network = LocalOperator(input_size(problem.model), 2, width=8, key=KEY)
    functions = Functions.draw(problem.model, 4, 1, key=KEY)

    def jump(theta):
        return equation.jumps(network, Unknowns(theta, functions))[0, 0]

    theta = jnp.array([300.0, 7.0])
    found = equation.local_jumps(network, Unknowns(theta, functions), 0.25)
    slopes = 0.5 * equation.scale * jax.grad(jump)(theta)
    expected = np.concatenate([jump(theta)[None], slopes])
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)


def test_bilo_ends_at_the_most_likely_parameters(problem, observation, most_likely):
    inverter = SMALL.fit(problem, key=KEY)
    found = inverter.follow(observation, key=KEY)
    np.testing.assert_allclose(found.theta, most_likely, rtol=0.02)
    there = inverter.predict(problem.model.readings, found.theta, found.network)
    exact = problem.model.solve(np.asarray(found.theta, np.float64)).states
    # A kink of the network, not a bend that is narrower than the collocation points.
    np.testing.assert_allclose(there, exact, rtol=0.01)
    fine = np.linspace(0.49, 0.51, 41)[:, None]
    there = inverter.predict(fine, found.theta, found.network)
    exact = problem.model.replace(readings=fine).solve(np.asarray(found.theta, np.float64)).states
    np.testing.assert_allclose(there, exact, rtol=0.005)


def test_a_pinn_of_even_weights_keeps_the_jump(problem, observation, most_likely):
    method = PINN(
        width=32,
        data_weight=1e4,
        weight_optimizer=GaussNewtonWeightOptimizer(points=48),
        pretraining=80,
        steps=300,
    )
    inverter = method.fit(problem, key=KEY)
    found = inverter.follow(observation, key=KEY)
    jumps = inverter.equation.jumps(found.network, Unknowns(found.theta, found.functions))
    # The slope jumps by some 500, of which this is half.
    assert abs(float(jumps[0, 0])) < 1.0
    np.testing.assert_allclose(found.theta, most_likely, rtol=0.05)
