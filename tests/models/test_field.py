"""Unknown functions: their prior, their coefficients, and equations that depend on them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import inojax as ij
from inojax import PDEModel
from inojax.data._compare import differences
from inojax.data._manifest import describe_problem
from inojax.methods import (
    Coordinates,
    LeastSquares,
    Penalty,
    Posterior,
    Regression,
    SequentialMonteCarlo,
    calibrate,
    conformal,
    invert_batch,
)
from inojax.models import Field, FiniteElements, TotalVariation, partial
from inojax.problems import heat, variable_poisson
from tests.refuses import refuses

NODES = np.linspace(0.0, 2.0, 21)


def hat(x):
    return 1.25 - 0.5 * np.abs(x - 0.5)


@pytest.fixture
def field():
    return Field("D", "x", NODES, ends=(1.0, 3.0), roughness=0.5)


def test_coefficients_and_values_at_the_nodes_are_two_ways_to_say_the_same(field):
    def bump(x):
        return 1.0 + x + np.sin(np.pi * x) ** 3

    coefficients = field.coefficients(bump)
    assert coefficients.shape == (field.size,) == (19,)
    with jax.enable_x64(True):
        np.testing.assert_allclose(field.nodal(coefficients), bump(NODES), atol=1e-12)
        between = field.at(jnp.asarray(coefficients), jnp.array([0.03, 1.999]))
    np.testing.assert_allclose(between, np.interp([0.03, 1.999], NODES, bump(NODES)), atol=1e-12)
    np.testing.assert_allclose(field.coefficients(bump(NODES)), coefficients, atol=1e-12)


def test_nodes_are_taken_from_arrays_lists_and_other_fields(field):
    for nodes in (NODES.tolist(), field.nodes, jnp.asarray(NODES)):
        other = Field("D", "x", nodes, ends=(1.0, 3.0), roughness=0.5)
        np.testing.assert_allclose(other.nodes, NODES, atol=1e-6)


def test_the_prior_is_the_penalty_on_slopes(field):
    """A sum of squares of coefficients is ∫ (f - line)'² over the square of the roughness."""
    values = 1.0 + NODES + np.sin(np.pi * NODES / 2.0)
    values[[0, -1]] = field.ends
    slopes = np.diff(values) / np.diff(NODES) - 1.0
    integral = np.sum(np.square(slopes) * np.diff(NODES))
    found = np.sum(np.square(field.coefficients(values)))
    np.testing.assert_allclose(found, integral / field.roughness**2, rtol=1e-12)


def test_samples_of_the_prior_are_a_brownian_bridge(field):
    space = ij.ParameterSpace(field.parameters)
    with jax.enable_x64(True):
        values = np.asarray(field.nodal(space.sample(20_000, key=jax.random.key(0))))
    np.testing.assert_allclose(values.mean(axis=0), 1.0 + NODES, atol=0.02)
    # Variance r² s (L - s) / L; 20,000 draws know it within 1 %.
    variance = field.roughness**2 * NODES * (2.0 - NODES) / 2.0
    np.testing.assert_allclose(values.var(axis=0), variance, rtol=0.05, atol=1e-9)


# --- Total variation ------------------------------------------------------------------------------


@pytest.fixture
def stepped():
    nodes = np.linspace(0.0, 2.0, 9)
    tv = TotalVariation(0.5, 0.1)
    return Field("D", "x", nodes, ends=(1.0, 3.0), roughness=2.0, total_variation=tv)


def test_the_total_variation_of_what_rises_is_its_rise(stepped):
    """Whatever is between the ends, and twice as far if it goes down again as much as up."""
    steps = stepped.coefficients(np.repeat([1.0, 3.0], [4, 5]))
    ramp = stepped.coefficients(np.linspace(1.0, 3.0, 9))
    detour = stepped.coefficients(np.array([1.0, 3, 3, 3, 1, 1, 1, 3, 3]))
    with jax.enable_x64(True):
        found = [float(stepped.variation(c).value) for c in (steps, ramp, detour)]
    # ∫ √(f'² + ε²) - ε over b: on the ramp of slope 1 by hand.
    np.testing.assert_allclose(found[1], 2.0 * (np.sqrt(1.01) - 0.1) / 0.5, rtol=1e-12)
    # Rounding takes at most ε times the length where the function moves.
    np.testing.assert_allclose(found[0], 2.0 / 0.5, rtol=0.02)
    np.testing.assert_allclose(found[2], 6.0 / 0.5, rtol=0.02)


def test_the_variation_has_its_derivative_and_a_parabola_above_it(stepped):
    with jax.enable_x64(True):
        point = jnp.asarray(stepped.coefficients(np.linspace(1.0, 3.0, 9) ** 1.3 / 3.0**0.3))
        point = point + 0.1 * jnp.cos(jnp.arange(7.0))
        local = stepped.variation(point)
        slope = jax.grad(lambda c: stepped.variation(c).value)(point)
        np.testing.assert_allclose(local.gradient, slope, rtol=1e-10, atol=1e-12)
        steps = 3.0 * jax.random.normal(jax.random.key(0), (200, 7), jnp.float64)
        above = local.value + steps @ local.gradient
        above += 0.5 * jnp.einsum("np,pq,nq->n", steps, local.curvature, steps)
        there = jax.vmap(lambda c: stepped.variation(c).value)(point[None] + steps)
    assert np.all(np.asarray(above - there) > -1e-9)


def test_a_field_without_total_variation_has_none(field):
    found = field.variation(np.ones(field.size))
    assert float(found.value) == 0.0
    assert not np.any(found.gradient)
    assert found.curvature.shape == (field.size, field.size)


def test_each_field_counts_where_its_coefficients_are():
    nodes = np.linspace(0.0, 1.0, 5)
    fields = [
        Field(
            name,
            "x",
            nodes,
            ends=(1.0, 1.0),
            roughness=1.0,
            total_variation=TotalVariation(jump, 0.1),
        )
        for name, jump in (("D", 0.5), ("E", 0.25))
    ]

    def residual(u, x, theta, first, second):
        return partial(lambda y: first(y) * second(y) * partial(u, 0)(y), 0)(x) + theta[0]

    def ansatz(n, x, theta, first, second):
        return x[0] * (1.0 - x[0]) * n

    model = one_state(residual, ansatz, fields=tuple(fields))
    theta = np.arange(7.0)  # a scalar, then three coefficients of each
    with jax.enable_x64(True):
        found = model.variation(jnp.asarray(theta))
        each = [f.variation(theta[s]) for f, s in zip(fields, ([1, 2, 3], [4, 5, 6]), strict=True)]
    np.testing.assert_allclose(found.value, each[0].value + each[1].value)
    np.testing.assert_allclose(found.gradient[0], 0.0)
    np.testing.assert_allclose(found.gradient[4:], each[1].gradient)
    np.testing.assert_allclose(found.curvature[1:4, 1:4], each[0].curvature)
    assert not np.any(found.curvature[:4, 4:])


def steep():
    """A rod of two materials whose readings hardly scatter; slopes are almost free."""
    return variable_poisson(noise=1e-3, penalty=1e-9, variation=1e-6, nodes=21)


def two_materials(x):
    return np.where(np.abs(x - 0.5) < 0.22, 1.5, 1.0)


def test_the_prior_of_a_problem_knows_the_total_variation():
    problem = steep()
    plain = variable_poisson(noise=1e-3, penalty=1e-9, nodes=21)
    theta = problem.model.fields[0].coefficients(two_materials)
    observation = problem.simulate(theta, key=jax.random.key(0))
    with jax.enable_x64(True):
        value = float(problem.model.variation(theta).value)
    difference = plain.log_posterior(theta, observation) - problem.log_posterior(theta, observation)
    np.testing.assert_allclose(difference, value, rtol=1e-6)
    # Up by 0.5 and down again, in units of 2 noise² / (readings w); the rounding takes some.
    np.testing.assert_allclose(value, 1.0 / (2e-6 / (51 * 1e-6)), rtol=0.02)


def fitted(problem, observation, **settings):
    method = LeastSquares(
        starts=1,
        penalty=Penalty.DENSITY,
        coordinates=Coordinates.UNCONSTRAINED,
        candidates=0,
        draws=16,
        max_steps=400,
        tolerance=1e-9,
    )
    method = dataclasses.replace(method, **settings)
    return method.fit(problem, key=jax.random.key(0))(observation, key=jax.random.key(0))


def test_least_squares_finds_the_minimum_with_total_variation():
    """No derivative is left, and jumps stay sharper than under any penalty on slopes."""
    problem = steep()
    field = problem.model.fields[0]
    truth = field.coefficients(two_materials)
    observation = problem.simulate(truth, key=jax.random.key(1))
    found = fitted(problem, observation)
    with jax.enable_x64(True):
        theta = jnp.asarray(found.value)
        left = jax.grad(problem.log_posterior)(theta, observation)
        away = jax.grad(problem.log_posterior)(theta + 1e-2, observation)
    assert np.abs(left).max() < 1e-3 * np.abs(away).max()

    def error(estimate):
        with jax.enable_x64(True):
            values = np.asarray(field.nodal(estimate.value))
        return np.sqrt(np.mean(np.square(values - two_materials(np.array(field.nodes)))))

    smooth = [
        fitted(variable_poisson(noise=1e-3, penalty=w, nodes=21), observation)
        for w in (1e-8, 1e-7, 1e-6, 1e-5)
    ]
    # `value` are coefficients of the same components, times another roughness.
    errors = []
    for w, estimate in zip((1e-8, 1e-7, 1e-6, 1e-5), smooth, strict=True):
        scale = (1e-9 / w) ** 0.5
        errors.append(error(dataclasses.replace(estimate, value=scale * estimate.value)))
    assert error(found) < 0.8 * min(errors)


def test_without_a_penalty_the_total_variation_does_not_count():
    problem = steep()
    truth = problem.model.fields[0].coefficients(two_materials)
    observation = problem.simulate(truth, key=jax.random.key(1))
    plain = variable_poisson(noise=1e-3, penalty=1e-9, nodes=21)
    both = [fitted(p, observation, penalty=Penalty.NONE, max_steps=20) for p in (problem, plain)]
    np.testing.assert_allclose(both[0].value, both[1].value, rtol=1e-6)


def test_draws_of_the_prior_are_refused_where_total_variation_couples_them():
    problem = steep()
    plain = variable_poisson(noise=1e-3, penalty=1e-9, nodes=21)
    simulations = ij.simulate(plain, 40, progress=False, key=jax.random.key(1))
    inverter = LeastSquares().fit(problem, key=jax.random.key(0))
    thetas = np.zeros((2, problem.parameters.size))
    for refused in (
        lambda: Regression().fit(problem, key=jax.random.key(0)),
        lambda: ij.metrics.bayes_floor(problem, cases=2, key=jax.random.key(0)),
        lambda: ij.metrics.laplace_covariances(problem, thetas, key=jax.random.key(0)),
        lambda: conformal(inverter, simulations, key=jax.random.key(0)),
        lambda: calibrate(inverter, simulations, key=jax.random.key(0)),
    ):
        with refuses(ValueError, "total variation couples the parameters of 'variable_poisson'"):
            refused()


def test_what_was_made_under_another_prior_is_told_apart():
    plain, coupled = (
        describe_problem(variable_poisson(variation=w, nodes=5)) for w in (None, 1e-4)
    )
    assert differences(plain, coupled) == ["total variation of unknown functions"]
    heavier = describe_problem(variable_poisson(variation=2e-4, nodes=5))
    assert differences(coupled, heavier)
    assert not differences(coupled, describe_problem(variable_poisson(variation=1e-4, nodes=5)))


def test_a_sampler_counts_the_total_variation():
    """Of a single coefficient, against the density on a grid."""

    def tiny(variation):
        return variable_poisson(noise=0.3, penalty=1e-2, variation=variation, nodes=3)

    problem = tiny(5e-2)
    observation = problem.simulate(np.array([1.0]), key=jax.random.key(3))
    grid = np.linspace(-6.0, 6.0, 801)[:, None]
    with jax.enable_x64(True):
        density = jax.vmap(lambda t: problem.log_posterior(t, observation))(jnp.asarray(grid))
    weight = np.exp(np.asarray(density) - np.asarray(density).max())
    weight /= weight.sum()
    mean = weight @ grid[:, 0]
    std = np.sqrt(weight @ np.square(grid[:, 0] - mean))
    for method in (
        Posterior(chains=4, warmup=200, draws=500),
        SequentialMonteCarlo(particles=1024, draws=1000),
    ):
        inverter = method.fit(problem, key=jax.random.key(0))
        estimate = inverter(observation, key=jax.random.key(4))
        samples = np.asarray(estimate.samples)[:, 0]
        np.testing.assert_allclose(samples.mean(), mean, atol=0.1 * std)
        np.testing.assert_allclose(samples.std(), std, rtol=0.1)
    # What the prior integrates to is not known.
    assert np.isnan(estimate.diagnostics.log_evidence).all()
    # Without it the answer is another one, or the test could not fail.
    free = tiny(None)
    with jax.enable_x64(True):
        other = jax.vmap(lambda t: free.log_posterior(t, observation))(jnp.asarray(grid))
    weight = np.exp(np.asarray(other) - np.asarray(other).max())
    assert abs(weight @ grid[:, 0] / weight.sum() - mean) > 0.3 * std


def test_total_variations_that_make_no_sense_are_refused():
    with refuses(ValueError, "`jump` must be positive"):
        TotalVariation(0.0, 0.1)
    with refuses(ValueError, "`rounding` must be positive"):
        TotalVariation(1.0, -1.0)
    with refuses(ValueError, "`variation` must be positive"):
        variable_poisson(variation=0.0)
    with refuses(TypeError, "`total_variation` must be a `TotalVariation`"):
        Field("D", "x", NODES, ends=(0.0, 0.0), roughness=1.0, total_variation=0.1)


# --- Finite elements ------------------------------------------------------------------------------


def one_state(residual, ansatz=None, **changes):
    def between(n, x, theta):
        return 1.0 + x[0] + (x[0] - 1.0) * x[0] * n

    settings = {
        "domain": {"x": (0.0, 1.0)},
        "collocation": (11,),
        "readings": np.linspace(0.0, 1.0, 11)[:, None],
        "solver": FiniteElements(400),
    }
    return PDEModel(residual, between if ansatz is None else ansatz, **(settings | changes))


def test_a_smooth_equation_with_every_term_converges_by_squares():
    """u = exp(x)(1 - x) + 2x² + x solves (1 + x) u'' - 2 u' + 3 u = d for a matching d."""

    def exact(x):
        return jnp.exp(x) * (1.0 - x) + x + x**2

    def source(x, theta):
        u, slope, bend = exact(x), jax.grad(exact)(x), jax.grad(jax.grad(exact))(x)
        return (1.0 + x) * bend - theta[0] * slope + 3.0 * u

    def residual(u, x, theta):
        found = (1.0 + x[0]) * partial(u, 0, 0)(x) - theta[0] * partial(u, 0)(x) + 3.0 * u(x)
        return found - source(x[0], jnp.array([2.0]))

    def ansatz(n, x, theta):
        return 1.0 + x[0] + x[0] * (1.0 - x[0]) * n

    errors = []
    for elements in (50, 100):
        model = one_state(residual, ansatz, solver=FiniteElements(elements))
        states = model.solve(np.array([2.0])).states[:, 0]
        with jax.enable_x64(True):
            errors.append(np.abs(states - np.asarray(jax.vmap(exact)(model.times))).max())
    assert errors[1] < 1e-4
    # Second order: a quarter.
    np.testing.assert_allclose(errors[1] / errors[0], 0.25, rtol=0.05)


def test_a_kink_of_the_diffusivity_costs_nothing():
    """(D u')' = 0 with a hat-shaped D: u' is one over D, whose integral is a logarithm."""
    field = Field("D", "x", np.linspace(0.0, 1.0, 11), ends=(1.0, 1.0), roughness=1.0)

    def residual(u, x, theta, diffusivity):
        return partial(lambda y: diffusivity(y) * partial(u, 0)(y), 0)(x)

    def ansatz(n, x, theta, diffusivity):
        return x[0] + x[0] * (1.0 - x[0]) * n

    model = one_state(residual, ansatz, fields=(field,))
    states = model.solve(field.coefficients(hat)).states[:, 0]
    x = model.times
    half = 2.0 * np.log(1.25)
    expected = np.where(
        x < 0.5, 2.0 * np.log(1.0 + 0.5 * x), 2.0 * half - 2.0 * np.log(1.5 - 0.5 * x)
    )
    np.testing.assert_allclose(states, expected / (2.0 * half), atol=2e-6)


def test_derivatives_by_coefficients_are_finite_differences():
    problem = variable_poisson(nodes=11)
    theta = np.linspace(-1.0, 1.0, 9)
    _, tangents = problem.model.sensitivities(theta[None])
    for index in (0, 4, 8):
        step = np.eye(9)[index] * 1e-5
        high, low = (problem.model.solve(theta + sign * step).states for sign in (1, -1))
        np.testing.assert_allclose(
            tangents[0, :, 0, index], (high - low)[:, 0] / 2e-5, rtol=1e-6, atol=1e-9
        )


def test_a_large_source_hides_no_term_and_is_no_term():
    def large(u, x, theta):
        return partial(u, 0, 0)(x) + theta[0] * 1e4

    def hidden(u, x, theta):
        return large(u, x, theta) + u(x) ** 2

    space = ij.ParameterSpace((ij.Parameter("k", dist.Normal()),))
    parts = ij.Sensors(ij.FixedTimes((0.5,))), ij.noise.Gaussian(0.1)
    ij.InverseProblem("large", space, one_state(large), *parts)
    with refuses(ValueError, "solves linear equations"):
        ij.InverseProblem("hidden", space, one_state(hidden), *parts)


def test_what_finite_elements_cannot_solve_is_refused():
    def square(u, x, theta):
        return partial(u, 0, 0)(x) - u(x) ** 2

    space = ij.ParameterSpace((ij.Parameter("k", dist.Normal()),))
    parts = ij.Sensors(ij.FixedTimes((0.5,))), ij.noise.Gaussian(0.1)
    with refuses(ValueError, "solves linear equations"):
        ij.InverseProblem("square", space, one_state(square), *parts)
    with refuses(ValueError, "`elements` must be at least 2"):
        FiniteElements(1)
    with refuses(ValueError, "one state in one coordinate"):
        one_state(square, states=("u", "v"))


# --- Problems with unknown functions --------------------------------------------------------------


def test_the_heat_equation_is_its_sine_series():
    problem = heat(nodes=11)
    field = problem.model.fields[0]
    theta = field.coefficients(lambda x: np.sin(np.pi * x) + 0.3 * np.sin(3.0 * np.pi * x))
    x = np.linspace(0.0, 1.0, 4001)
    with jax.enable_x64(True):
        start = np.asarray(field.at(jnp.asarray(theta), jnp.asarray(x)))
    waves = np.arange(1, 60)
    sines = np.sin(np.pi * waves[:, None] * x)
    weights = 2.0 * np.trapezoid(sines * start, x, axis=1)
    decayed = weights * np.exp(-0.01 * (np.pi * waves) ** 2)
    expected = decayed @ np.sin(np.pi * waves[:, None] * problem.model.times)
    found = problem.model.solve(theta).states[:, 0]
    # The start has kinks, which polynomials through 65 points miss by the square of their distance.
    np.testing.assert_allclose(found, expected, atol=5e-4)


def test_least_squares_finds_the_regularized_minimizer():
    """Of a linear problem, the initial temperature: ridge regression in the coefficients."""
    problem = heat(nodes=11, readings=11, penalty=1e-3)
    field = problem.model.fields[0]
    theta = field.coefficients(lambda x: 1.0 - np.abs(2.0 * x - 1.0))
    observation = problem.simulate(theta, key=jax.random.key(1))
    method = LeastSquares(
        starts=1,
        tolerance=1e-12,
        penalty=Penalty.DENSITY,
        coordinates=Coordinates.UNCONSTRAINED,
        draws=16,
        candidates=0,
    )
    batch = jax.tree.map(lambda x: np.asarray(x)[None], observation)
    found = invert_batch(method.fit(problem, key=jax.random.key(0)), batch, key=jax.random.key(0))
    # Steps are chosen by the state, so not where it is zero.
    columns = problem.model.sensitivities(theta[None])[1][0, :, 0] / (0.001**0.5)
    readings = np.asarray(observation.values)[:, 0] / (0.001**0.5)
    expected = np.linalg.solve(columns.T @ columns + np.eye(field.size), columns.T @ readings)
    np.testing.assert_allclose(found.value[0], expected, rtol=1e-4, atol=1e-5)


def test_the_regularized_minimizer_of_the_published_table_is_reproduced():
    """The row that arXiv 2404.17789, Table 2, gives to its adjoint method, by 20 sets of noise.

    Which weight that row belongs to, and .1090 and .0427 for these sets, are from an independent
    computation with 50 elements.
    """
    problem = variable_poisson(penalty=5e-4)
    field = problem.model.fields[0]
    clean = problem.model.solve(field.coefficients(hat)).states
    noise = np.stack([np.random.default_rng(seed).normal(size=(51, 1)) for seed in range(20)])
    one = problem.simulate(np.zeros(field.size), key=jax.random.key(0))
    batch = dataclasses.replace(
        jax.tree.map(lambda x: np.stack([x] * 20), one), values=clean + 0.01 * noise
    )
    method = LeastSquares(
        starts=1,
        penalty=Penalty.DENSITY,
        coordinates=Coordinates.UNCONSTRAINED,
        draws=16,
        candidates=0,
    )
    inverter = method.fit(problem, key=jax.random.key(0))
    estimate = invert_batch(inverter, batch, key=jax.random.key(0))
    with jax.enable_x64(True):
        found = np.asarray(field.nodal(estimate.value))
    error = found - hat(np.array(field.nodes))
    largest, square = np.abs(error).max(axis=1), np.sqrt(np.square(error).mean(axis=1))
    # Four elements between two nodes instead of one: .1091 and .0426.
    np.testing.assert_allclose(largest.mean(), 0.1090, rtol=0.005)
    np.testing.assert_allclose(square.mean(), 0.0427, rtol=0.005)


def test_the_transform_keeps_the_ends(field):
    for end, value in zip((0.0, 2.0), field.ends, strict=True):
        assert field.transform(7.0, end) == value
    assert field.transform(1.0, 1.0) == 2.25


def test_many_calls_at_once_end():
    """LAPACK inside of calls that overlap would wait for ever."""
    problem = variable_poisson(nodes=11)
    thetas = np.zeros((300, 9))
    solution = problem.model.solve_ensemble(thetas)
    batch = jax.tree.map(
        lambda x: np.stack([x] * 100), problem.simulate(thetas[0], key=jax.random.key(0))
    )
    assert solution.states.shape == (300, 51, 1)
    method = LeastSquares(
        starts=1, coordinates=Coordinates.UNCONSTRAINED, penalty=Penalty.DENSITY, candidates=0
    )
    inverter = method.fit(problem, key=jax.random.key(0))
    assert np.isfinite(invert_batch(inverter, batch, key=jax.random.key(0)).value).all()


def test_fields_that_do_not_fit_are_refused(field):
    with refuses(ValueError, "`nodes` of 'D' must increase"):
        Field("D", "x", [0.0, 1.0], ends=(0.0, 0.0), roughness=1.0)
    with refuses(ValueError, "`nodes` of 'D' must increase"):
        Field("D", "x", [], ends=(0.0, 0.0), roughness=1.0)
    with refuses(ValueError, "`ends` must be finite"):
        Field("D", "x", NODES, ends=(0.0, np.nan), roughness=1.0)
    with refuses(ValueError, "`roughness` must be positive"):
        Field("D", "x", NODES, ends=(0.0, 0.0), roughness=0.0)
    with refuses(ValueError, "must give a value at each of the 21"):
        field.coefficients(np.zeros(5))

    def residual(u, x, theta, diffusivity):
        return diffusivity(x) * partial(u, 0, 0)(x)

    def ansatz(n, x, theta, diffusivity):
        return x[0] * (1.0 - x[0]) * n

    with refuses(ValueError, "must reach from 0.0 to 1.0"):
        one_state(residual, ansatz, fields=(field,))
    open_end = Field(
        "D", "x", np.linspace(0, 1, 5), ends=(1.0, 1.0), roughness=1.0, transform=lambda n, s: n
    )
    with refuses(ValueError, "`transform` of field 'D' must have the values"):
        one_state(residual, ansatz, fields=(open_end,))
    elsewhere = Field("D", "y", np.linspace(0, 1, 5), ends=(1.0, 1.0), roughness=1.0)
    with refuses(ValueError, "depends on 'y'"):
        one_state(residual, ansatz, fields=(elsewhere,))
    good = Field("D", "x", np.linspace(0, 1, 5), ends=(1.0, 1.0), roughness=1.0)

    def bent(u, x, theta, diffusivity):
        return residual(u, x, theta, diffusivity) + partial(diffusivity, 0, 0)(x)

    parts = ij.Sensors(ij.FixedTimes((0.5,))), ij.noise.Gaussian(0.1)
    with refuses(ValueError, "second derivatives of the unknown function 'D'"):
        ij.InverseProblem(
            "bent", ij.ParameterSpace(good.parameters), one_state(bent, ansatz, fields=(good,)),
            *parts,
        )  # fmt: skip
    model = one_state(residual, ansatz, fields=(good,))
    space = ij.ParameterSpace(good.parameters[::-1])
    with refuses(ValueError, "must end in the coefficients of the fields D"):
        ij.InverseProblem("reversed", space, model, *parts)
