"""Unknown functions as networks: their derivatives, and what BiLO and PINN make of readings."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

import inojax as ij
from inojax import EstimateStatus, PDEModel
from inojax.methods import PINN, AdamWeightOptimizer, BiLO, GaussNewtonWeightOptimizer, Penalty
from inojax.methods.pde._equation import equation_of
from inojax.methods.pde._unknowns import Functions, Unknowns, diagonal, fitted
from inojax.methods.pde._weight_optimizers import Weights
from inojax.models import Field, FiniteElements, gradient, partial
from inojax.nn._local_operator import LocalOperator
from inojax.problems import heat, variable_poisson

KEY = jr.key(5)
UPPER = GaussNewtonWeightOptimizer(points=None, learning_rate=0.3)
SMALL = BiLO(
    width=32,
    field_width=16,
    weight_optimizer=GaussNewtonWeightOptimizer(points=48),
    field_optimizer=UPPER,
    pretraining=60,
    steps=150,
)


def truth(x):
    return 1.0 + 0.4 * np.sin(np.pi * x) ** 2


@pytest.fixture(scope="module")
def rod():
    """Readings that fix D nearly everywhere."""
    return variable_poisson(noise=1e-3, readings=21, penalty=1e-7, nodes=21)


@pytest.fixture(scope="module")
def observation(rod):
    return rod.simulate(rod.model.fields[0].coefficients(truth), key=KEY)


def wavy(model):
    """A network for the function of a model that is nowhere flat."""
    functions = Functions.draw(model, 8, 1, key=KEY)
    weights = Weights.of(functions)
    return weights.build(2.0 * weights.vector)


def value_at(functions, x):
    """The first function at one point, written down anew."""
    network, field, axis = functions.networks[0], functions.fields[0], functions.axes[0]
    s = x[axis]
    return field.transform(network(s[None], jnp.zeros(0))[0], s)


def test_derivatives_are_those_of_the_function():
    model = heat(nodes=5).model
    functions, pairs = wavy(model), ((0, 0), (1, 1), (0, 1))
    points = jr.uniform(KEY, (7, 2))
    jet = functions.jet(points, pairs)

    def each(derivative):
        return np.asarray(jax.vmap(derivative)(points))

    np.testing.assert_allclose(jet.value[:, 0], each(lambda x: value_at(functions, x)), rtol=1e-5)
    slopes = each(jax.grad(lambda x: value_at(functions, x)))
    np.testing.assert_allclose(jet.first[:, :, 0], slopes.T, rtol=1e-4, atol=1e-6)
    bends = each(jax.hessian(lambda x: value_at(functions, x)))
    wanted = np.stack([bends[:, i, j] for i, j in pairs])
    np.testing.assert_allclose(jet.second[:, :, 0], wanted, rtol=1e-3, atol=1e-5)
    assert np.abs(wanted[0]).max() > 0.1


def test_slopes_are_in_units_of_the_prior():
    field = Field("D", "x", np.linspace(1.0, 5.0, 9), ends=(0.0, 8.0), roughness=0.5)
    model = PDEModel(
        lambda u, x, theta, diffusivity: partial(u, 0, 0)(x) - diffusivity(x),
        lambda n, x, theta, diffusivity: (x[0] - 1.0) * (5.0 - x[0]) * n,
        domain={"x": (1.0, 5.0)},
        collocation=(11,),
        readings=np.linspace(1.0, 5.0, 3)[:, None],
        solver=FiniteElements(16),
        fields=(field,),
    )
    weights = Weights.of(Functions.draw(model, 8, 1, key=KEY))
    line = weights.build(jnp.zeros_like(weights.vector))
    # A slope of 2 over a length of 4: ∫ f'² / r² = 16 / 0.25.
    np.testing.assert_allclose(
        jnp.mean(line.slopes(diagonal(model, key=KEY).lattice) ** 2), 64.0, rtol=1e-5
    )
    np.testing.assert_allclose(line.coefficients(), np.zeros(7), atol=1e-4)


def test_networks_start_as_the_guess(rod):
    field = rod.model.fields[0]
    wanted = field.coefficients(truth)
    equation = equation_of(rod, tuple(wanted))
    with jax.enable_x64(False):
        functions = equation.functions(16, 2, key=KEY)
        values = functions.jet(jnp.asarray(np.array(field.nodes)[:, None], jnp.float32), ()).value
        again = field.nodal(functions.coefficients())
    # Hats between 21 nodes are 4e-3 away from the function that they stand for.
    np.testing.assert_allclose(values[:, 0], truth(np.array(field.nodes)), atol=5e-3)
    np.testing.assert_allclose(again, values[:, 0], atol=1e-5)


def test_no_network_loses_the_guess():
    """Steps that are taken whatever they do leave one of eight such networks at zero or far off."""
    model = heat().model
    field = model.fields[0]
    coefficients = jnp.asarray(field.coefficients(lambda x: np.sin(np.pi * x)), jnp.float32)
    x = jnp.linspace(0.0, 1.0, 101)
    wanted = field.at(coefficients, x)

    def gap(key):
        functions = fitted(Functions.draw(model, 8, 2, key=key), model, coefficients, key)
        return jnp.linalg.norm(functions.at("f", x) - wanted) / jnp.linalg.norm(wanted)

    gaps = jax.jit(jax.vmap(gap))(jr.split(KEY, 40))
    assert gaps.max() < 1e-3


@pytest.mark.parametrize("make", [variable_poisson, heat])
def test_residual_gradients_are_those_of_a_shifted_function(make):
    problem = make(nodes=5)
    equation = equation_of(problem, None)
    functions = wavy(problem.model)
    weights = Weights.of(LocalOperator(len(problem.model.coordinates), 1, width=8, key=KEY))
    network = weights.build(2.0 * weights.vector)
    points = jr.uniform(KEY, (6, len(problem.model.coordinates)), minval=0.1, maxval=0.9)
    unknowns, weight = Unknowns(jnp.zeros(0), functions), 0.25
    found = np.asarray(equation.local_rows(network, unknowns, points, weight))
    field = functions.fields[0]

    def shifted(by):
        def transform(n, s):
            return field.transform(n, s) + by

        moved = dataclasses.replace(functions, fields=(_with_transform(field, transform),))
        return equation.residuals(network, Unknowns(jnp.zeros(0), moved), points)

    np.testing.assert_allclose(found[:, :1], shifted(0.0), rtol=1e-4, atol=1e-4)
    slope = jax.jacrev(shifted)(0.0)
    np.testing.assert_allclose(found[:, 1:], weight**0.5 * slope, rtol=1e-3, atol=1e-5)
    assert np.abs(found[:, 1:]).max() > 1e-3


def _with_transform(field, transform):
    return Field(
        field.name,
        field.coordinate,
        np.array(field.nodes),
        ends=field.ends,
        roughness=field.roughness,
        transform=transform,
    )


def test_bilo_recovers_a_function(rod, observation):
    inverter = SMALL.fit(rod, key=KEY)
    found = inverter.follow(observation, key=KEY)
    field = rod.model.fields[0]
    nodes = np.array(field.nodes)
    diffusivity = np.asarray(field.nodal(found.theta))
    # At the start it is 0.4 away.
    np.testing.assert_allclose(diffusivity, truth(nodes), atol=0.05)
    assert found.path.shape == (SMALL.steps, field.size)
    np.testing.assert_allclose(field.nodal(found.path[0]), 1.0, atol=0.01)
    exact = np.asarray(rod.model.solve(np.asarray(found.theta, np.float64)).states)
    predicted = inverter.predict(rod.model.readings, found.theta, found.network)
    np.testing.assert_allclose(predicted, exact, atol=2e-3)
    # By other random points.
    estimate = inverter(observation, key=KEY)
    np.testing.assert_allclose(field.nodal(estimate.value), diffusivity, atol=5e-3)
    assert estimate.samples is None
    assert int(estimate.status) == EstimateStatus.OK


def test_a_heavy_prior_holds_the_function_at_its_line(observation):
    heavy = variable_poisson(noise=1e-3, readings=21, penalty=1.0, nodes=21)
    inverter = SMALL.fit(heavy, key=KEY)
    held = inverter.follow(observation, key=KEY).theta
    np.testing.assert_allclose(heavy.model.fields[0].nodal(held), 1.0, atol=0.02)
    free = dataclasses.replace(SMALL, penalty=Penalty.NONE).fit(heavy, key=KEY)
    moved = heavy.model.fields[0].nodal(free.follow(observation, key=KEY).theta)
    assert np.max(np.abs(np.asarray(moved) - 1.0)) > 0.3


def test_the_published_schedule_descends(rod, observation):
    method = BiLO.published(penalty=Penalty.DENSITY, pretraining=300, steps=300)
    assert isinstance(method.field_optimizer, AdamWeightOptimizer)
    inverter = dataclasses.replace(method, width=32, field_width=16).fit(rod, key=KEY)
    found = inverter.follow(observation, key=KEY)
    assert found.misfit[-1] < 0.5 * found.misfit[0]


def test_a_pinn_recovers_a_function(rod, observation):
    method = PINN(
        width=32,
        field_width=16,
        data_weight=1e-2,
        weight_optimizer=GaussNewtonWeightOptimizer(points=48),
        pretraining=60,
        steps=300,
    )
    found = method.fit(rod, key=KEY).follow(observation, key=KEY)
    field = rod.model.fields[0]
    np.testing.assert_allclose(field.nodal(found.theta), truth(np.array(field.nodes)), atol=0.1)


def test_scalars_and_functions_are_found_together():
    """(D u')' = k u - 10 with D a function and k a number."""
    field = Field("D", "x", np.linspace(0.0, 1.0, 21), ends=(1.0, 1.0), roughness=1.0)

    def residual(u, x, theta, diffusivity):
        def flux(y):
            return diffusivity(y) * gradient(u)(y)[0]

        return partial(flux, 0)(x) - theta[0] * u(x) + 10.0

    x = np.linspace(0.0, 1.0, 21)
    model = PDEModel(
        residual,
        lambda n, x, theta, diffusivity: x[0] * (1.0 - x[0]) * n,
        domain={"x": (0.0, 1.0)},
        collocation=(51,),
        readings=x[:, None],
        solver=FiniteElements(80),
        fields=(field,),
    )
    space = ij.ParameterSpace((ij.Parameter("k", dist.LogNormal(0.0, 1.0)), *field.parameters))
    problem = ij.InverseProblem(
        "both", space, model, ij.Sensors(ij.FixedTimes(x)), ij.noise.Gaussian(1e-3)
    )
    theta = np.concatenate([[2.0], field.coefficients(truth)])
    found = SMALL.fit(problem, key=KEY).follow(problem.simulate(theta, key=KEY), key=KEY)
    # What k and a constant factor of D do is much alike; the ends tell them apart.
    np.testing.assert_allclose(found.theta[0], 2.0, rtol=0.3)
    np.testing.assert_allclose(field.nodal(found.theta[1:]), truth(x), atol=0.1)


@pytest.mark.slow
def test_by_default_a_function_does_not_run_ahead_of_the_operator():
    """Steps of three tenths end up to 1e-2 from the equation on some such readings."""
    problem = heat()
    model, field = problem.model, problem.model.fields[0]
    hat = field.coefficients(lambda x: 1.0 - 2.0 * np.abs(x - 0.5))
    guess = tuple(np.asarray(field.coefficients(lambda x: np.sin(np.pi * x))).tolist())
    nodes = np.linspace(0.0, 1.0, 201)
    fine = model.replace(fields=(Field("f", "x", nodes, ends=(0.0, 0.0), roughness=1.0),))
    for key in jr.split(KEY, 3):
        read_key, fit_key, follow_key = jr.split(key, 3)
        inverter = BiLO(guess=guess).fit(problem, key=fit_key)
        found = inverter.follow(problem.simulate(hat, key=read_key), key=follow_key)
        values = np.asarray(found.functions.at("f", nodes), np.float64)
        exact = np.asarray(fine.solve(fine.fields[0].coefficients(values)).states)
        ours = inverter.predict(
            model.readings, found.theta, found.network, functions=found.functions
        )
        assert np.linalg.norm(ours - exact) < 2e-3 * np.linalg.norm(exact)
