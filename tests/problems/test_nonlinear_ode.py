"""The nonlinear ordinary differential equation as a problem of one coordinate."""

import jax.numpy as jnp
import numpy as np
import pytest

from inojax import ODEModel, PDEModel
from inojax.models import MethodOfLines, partial
from inojax.problems import nonlinear_ode
from tests.refuses import refuses

ALL = ("a11", "a12", "a21", "a22")


def slopes(t, y, theta):
    del t
    a, b = y**3
    return jnp.stack([theta[0] * a + theta[1] * b, theta[2] * a + theta[3] * b])


@pytest.mark.parametrize("theta", [(-0.1, 2.0, -2.0, -0.1), (0.2, 0.5, -2.5, -1.0)])
def test_it_is_the_ordinary_equation(theta):
    model = nonlinear_ode(unknown=ALL).model.tightened()
    plain = ODEModel(
        slopes, np.array([2.0, 0.0]), times=model.times[1:], states=("x", "y"),
        rtol=1e-10, atol=1e-12,
    )  # fmt: skip
    theta = np.array(theta)
    solution, tangents = model.sensitivities(theta[None])
    expected, columns = plain.sensitivities(theta[None])
    np.testing.assert_allclose(solution.states[0, 0], [2.0, 0.0], rtol=1e-12)
    # Tolerances of a step are 1e-10 relative, and the states turn by up to eight radians.
    np.testing.assert_allclose(solution.states[:, 1:], expected.states, atol=1e-8)
    np.testing.assert_allclose(tangents[:, 1:], columns, atol=1e-6)


def test_what_is_known_keeps_its_value():
    theta = np.array([-0.1, 2.0, -2.0, -0.1])
    whole = nonlinear_ode(unknown=ALL).model.solve(theta).states
    some = nonlinear_ode(unknown=("a22", "a11")).model.solve(np.array([-0.1, -0.1])).states
    np.testing.assert_allclose(some, whole, atol=1e-12)
    other = nonlinear_ode(unknown=("a22", "a11")).model.solve(np.array([-0.1, -0.4])).states
    assert np.abs(other - whole).max() > 0.1


def test_time_alone_needs_an_equation_of_first_order():
    def residual(u, x, theta):
        return partial(u, 0)(x) + theta[0] * u(x)

    def model(ansatz, **changes):
        given = {
            "domain": {"t": (0.0, 1.0)},
            "collocation": (5,),
            "readings": np.linspace(0.0, 1.0, 5)[:, None],
            "solver": MethodOfLines(),
        }
        return PDEModel(residual, ansatz, **(given | changes))

    decay = model(lambda n, x, theta: 1.0 + x[0] * n)
    found = decay.solve(np.array([2.0])).states[:, 0]
    np.testing.assert_allclose(found, np.exp(-2.0 * decay.times), atol=1e-8)
    with refuses(ValueError, "`ansatz` must give the state at t = 0 whatever `n` is"):
        model(lambda n, x, theta: 1.0 + n).check(("k",))
    with refuses(ValueError, "`MethodOfLines` solves equations in time 't'"):
        model(lambda n, x, theta: 1.0 + x[0] * n, domain={"s": (0.0, 1.0)})


def test_bad_arguments_are_refused():
    with refuses(ValueError, "`unknown` must be distinct names among a11, a12, a21, a22"):
        nonlinear_ode(unknown=("a21", "b"))
    with refuses(ValueError, "`unknown` must be distinct names"):
        nonlinear_ode(unknown=())
    with refuses(ValueError, "`readings` must be a whole number, at least 2"):
        nonlinear_ode(readings=1)
