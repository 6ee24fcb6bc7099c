"""Solutions with kinks: the classical solver in pieces, and what networks see of an interface."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

import inojax as ij
from inojax import PDEModel
from inojax.methods.pde._network_states import input_size, inputs_at, jumps_of
from inojax.models import Collocation, FiniteElements, Interface, MethodOfLines, gradient, partial
from inojax.nn._local_operator import LocalOperator
from inojax.problems import particles
from tests.refuses import refuses

TRUTH = np.array([500.0, 10.0])


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def intensity(x, theta):
    """The solution of the particle problem in closed form."""
    birth, root = theta[0], np.sqrt(theta[1])
    near, far = np.minimum(x, 0.5), 1.0 - np.maximum(x, 0.5)
    return birth / root * np.sinh(root * near) * np.sinh(root * far) / np.sinh(root)


def test_the_closed_form_is_solved():
    model = particles().model
    thetas = np.stack([TRUTH, 0.5 * TRUTH])
    solution, tangents = model.sensitivities(thetas)
    for states, slopes, theta in zip(solution.states, tangents, thetas, strict=True):
        np.testing.assert_allclose(states[:, 0], intensity(model.times, theta), rtol=1e-11)
        for index, step in enumerate(np.diag(1e-4 * theta)):
            ends = intensity(model.times, theta + step), intensity(model.times, theta - step)
            numeric = (ends[0] - ends[1]) / (2.0 * step[index])
            # The square of the step times a third derivative.
            np.testing.assert_allclose(slopes[:, 0, index], numeric, rtol=1e-6)


def test_the_expected_number_of_particles_is_that_of_the_source():
    """3,026 in a hundred snapshots, by the integral in closed form."""
    problem = particles(cells=400)
    expected = 100.0 / 400.0 * problem.model.solve(TRUTH).states.sum()
    root = np.sqrt(TRUTH[1])
    exact = 100.0 * TRUTH[0] / TRUTH[1] * (1.0 - 1.0 / np.cosh(0.5 * root))
    assert round(exact) == 3026
    # The midpoint rule is h² / 24 off.
    np.testing.assert_allclose(expected, exact, rtol=1e-5)


# Two materials, heated evenly: (D u')' = -1 with D = 1 left of 0.3, θ to 0.6, 1 right of it. The
# state is continuous and so is the flux.
PLACES = (0.3, 0.6)


def layered_residual(u, x, theta):
    inside = (x[0] > PLACES[0]) & (x[0] < PLACES[1])
    return jnp.where(inside, theta[0], 1.0) * partial(u, 0, 0)(x) + 1.0


def entering(below, above, x, theta):
    return theta[0] * gradient(above)(x)[0] - gradient(below)(x)[0]


def leaving(below, above, x, theta):
    return gradient(above)(x)[0] - theta[0] * gradient(below)(x)[0]


def layered(residual=layered_residual, **changes):
    given = {
        "domain": {"x": (0.0, 1.0)},
        "collocation": (9,),
        "readings": np.linspace(0.0, 1.0, 41)[:, None],
        "solver": Collocation(nodes=5, iterations=1),
        "interfaces": (Interface(PLACES[0], entering), Interface(PLACES[1], leaving)),
    }
    return PDEModel(
        residual,
        lambda n, x, theta: x[0] * (1.0 - x[0]) * n,
        **(given | changes),
    )


def test_layers_are_solved_with_two_interfaces():
    """D u' = c - x, and c follows from u(1) = 0."""
    theta = np.array([4.0])
    model = layered()

    def moments(x):
        first, second = PLACES
        weight = (min(x, first) - 0.0, max(min(x, second) - first, 0.0), max(x - second, 0.0))
        ends = (0.0, min(x, first)), (first, min(max(x, first), second)), (second, max(x, second))
        shares = np.array([1.0, 1.0 / theta[0], 1.0])
        return shares @ weight, shares @ [0.5 * (b**2 - a**2) for a, b in ends]

    whole = moments(1.0)
    c = whole[1] / whole[0]
    exact = [c * moments(x)[0] - moments(x)[1] for x in model.times]
    np.testing.assert_allclose(model.solve(theta).states[:, 0], exact, atol=1e-13)


def test_an_interface_with_nothing_to_it_changes_nothing():
    def smooth(below, above, x, theta):
        return gradient(above)(x)[0] - gradient(below)(x)[0]

    def residual(u, x, theta):
        return theta[0] * partial(u, 0, 0)(x) - jnp.exp(u(x)) + x[0]

    def solved(**changes):
        model = layered(residual, solver=Collocation(nodes=21), **changes)
        return model.solve(np.array([2.0])).states

    cut = solved(interfaces=(Interface(0.4, smooth),))
    np.testing.assert_allclose(cut, solved(interfaces=()), atol=1e-12)


# --- Networks -------------------------------------------------------------------------------------


def test_networks_have_the_kink_and_its_derivatives():
    """Jets against differentiation of the network itself on either side."""
    model = layered()
    network = LocalOperator(input_size(model), 1, width=7, key=jr.key(0))
    theta = jnp.array([1.5])

    def raw(x, side):
        distances = jnp.stack([s * (x - at) for s, at in zip(side, PLACES, strict=True)])
        return network(jnp.concatenate([x[None], distances]), theta / 1.5)[0]

    assert input_size(model) == 3
    points = jnp.array([[0.1], [0.45], [0.9]])
    jet = network.jet(inputs_at(model, points, ((0, 0),)), theta / 1.5, ((0, 0),))
    for index, side in enumerate([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0)]):
        x = points[index, 0]
        values = [f(x, side) for f in (raw, jax.grad(raw), jax.grad(jax.grad(raw)))]
        found = jet.value[index, 0], jet.first[0, index, 0], jet.second[0, index, 0]
        # The network computes in single precision, since its weights are.
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-5)


def test_jumps_are_those_of_the_network_on_either_side():
    model = particles().model
    network = LocalOperator(input_size(model), 2, width=7, key=jr.key(0))
    theta, place = jnp.asarray(TRUTH), jnp.array([[0.5]])
    scaled = theta / jnp.array([250.0, 5.0])
    sides = [
        network.jet(inputs_at(model, place, ((0, 0),), above=above), scaled, ((0, 0),))
        for above in (False, True)
    ]
    found = jumps_of(model, *sides, theta)

    def u(x, side):
        n = network(jnp.stack([x, side * (x - 0.5)]), scaled)[0]
        return 100.0 * x * (1.0 - x) * jnp.exp(n)

    slopes = [jax.grad(u)(0.5, side) for side in (-1.0, 1.0)]
    assert found.shape == (1, 1)
    np.testing.assert_allclose(found[0, 0], 0.5 * (slopes[1] - slopes[0] + 500.0), rtol=1e-5)


def test_points_of_an_interface_belong_to_a_side():
    model = layered()
    at = jnp.array([[PLACES[0]]])
    above, below = (inputs_at(model, at, (), above=side).first[0, 0] for side in (True, False))
    np.testing.assert_array_equal(above, [1.0, 1.0, -1.0])
    np.testing.assert_array_equal(below, [1.0, -1.0, -1.0])


# --- What is refused ------------------------------------------------------------------------------


def test_bad_interfaces_are_refused():
    def jump(below, above, x, theta):
        return gradient(above)(x)[0] - gradient(below)(x)[0]

    for places in ((0.0,), (1.0,), (0.6, 0.3), (0.3, 0.3), (np.nan,)):
        with refuses(ValueError, "`interfaces` must lie inside of the domain.*and increase"):
            layered(interfaces=tuple(Interface(at, jump) for at in places))
    with refuses(TypeError, "`interfaces` must hold `Interface.*got float"):
        layered(interfaces=(0.5,))
    with refuses(ValueError, "`solver` FiniteElements knows no `interfaces`: use `Collocation`"):
        layered(solver=FiniteElements())
    with refuses(ValueError, "`solver` MethodOfLines knows no `interfaces`"):
        layered(solver=MethodOfLines(time="x"))
    square = {"x": (0.0, 1.0), "y": (0.0, 1.0)}
    with refuses(ValueError, "`interfaces` are points of an equation in one coordinate"):
        layered(domain=square, collocation=(3, 3), readings=np.zeros((2, 2)))
    model = layered(interfaces=(Interface(0.5, lambda below, above, x, theta: jnp.zeros(2)),))
    with refuses(ValueError, "`jump` must return one value for each of the states u"):
        ij.InverseProblem(
            "layers",
            ij.ParameterSpace((ij.Parameter("D", dist.LogNormal(0.0, 1.0)),)),
            model,
            ij.Sensors(ij.FixedTimes(model.times)),
            ij.noise.Gaussian(0.1),
        )


def test_bad_particles_are_refused():
    with refuses(ValueError, "`cells` must be even"):
        particles(cells=7)
    with refuses(ValueError, "`snapshots` must be a whole number, at least 1"):
        particles(snapshots=0)
