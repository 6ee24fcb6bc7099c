"""Partial differential equations: derivative operators, residuals, classical solvers."""

import dataclasses

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

import inojax as ij
from inojax import PDEModel
from inojax.methods.pde._network_states import residuals_of, second_derivatives, states_of
from inojax.models import (
    Collocation,
    MethodOfLines,
    _ode_checks,
    divergence,
    gradient,
    laplacian,
    partial,
)
from inojax.nn._jet import all_pairs
from inojax.nn._local_operator import LocalOperator
from inojax.plot import trajectories
from inojax.solvers import SolveStatus
from tests.refuses import refuses

LINE = np.linspace(0.0, 1.0, 11)


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def heat_residual(u, x, theta):
    return partial(u, 1)(x) - theta[0] * partial(u, 0, 0)(x)


def heat_ansatz(n, x, theta):
    return theta[1] * jnp.sin(jnp.pi * x[0]) + x[0] * (1.0 - x[0]) * x[1] * n


def heat(residual=heat_residual, ansatz=heat_ansatz, **changes):
    """u = θ₁ sin(πx) exp(-π² θ₀ t), read at t = 1 unless told otherwise."""
    given = {
        "domain": {"x": (0.0, 1.0), "t": (0.0, 1.0)},
        "collocation": (5, 4),
        "readings": np.stack([LINE, np.ones_like(LINE)], axis=1),
        "solver": MethodOfLines(nodes=17),
    }
    return PDEModel(residual, ansatz, **(given | changes))


def heat_solution(points, theta):
    return theta[1] * np.sin(np.pi * points[:, 0]) * np.exp(-(np.pi**2) * theta[0] * points[:, 1])


HEAT_THETAS = np.array([[0.02, 1.0], [0.1, 3.0]])


# --- Derivative operators -----------------------------------------------------------------------


def wave(x):
    return jnp.sin(2.0 * x[0]) * jnp.cos(3.0 * x[1])


def test_operators_are_the_derivatives_of_calculus():
    x = jnp.array([0.3, 0.7])
    sin2, cos2 = np.sin(0.6), np.cos(0.6)
    sin3, cos3 = np.sin(2.1), np.cos(2.1)
    np.testing.assert_allclose(partial(wave)(x), sin2 * cos3, rtol=1e-14)
    np.testing.assert_allclose(partial(wave, 0, 1)(x), -6.0 * cos2 * sin3, rtol=1e-14)
    np.testing.assert_allclose(partial(wave, 1, 1)(x), -9.0 * sin2 * cos3, rtol=1e-14)
    np.testing.assert_allclose(gradient(wave)(x), [2.0 * cos2 * cos3, -3.0 * sin2 * sin3])
    np.testing.assert_allclose(gradient(wave, (1,))(x), [-3.0 * sin2 * sin3], rtol=1e-14)
    np.testing.assert_allclose(laplacian(wave)(x), -13.0 * sin2 * cos3, rtol=1e-14)
    np.testing.assert_allclose(laplacian(wave, (0,))(x), -4.0 * sin2 * cos3, rtol=1e-14)


def test_divergence_of_a_flux():
    def coefficient(x):
        return 1.0 + x[0] * x[1]

    x = jnp.array([0.3, 0.7])
    flux = divergence(lambda point: coefficient(point) * gradient(wave)(point))
    slopes = gradient(coefficient)(x) @ gradient(wave)(x)
    np.testing.assert_allclose(flux(x), slopes + coefficient(x) * laplacian(wave)(x), rtol=1e-14)


# --- Residuals of networks ----------------------------------------------------------------------


def mixed_residual(u, x, theta):
    flux = divergence(lambda point: (1.0 + u(point)) * gradient(u)(point))
    return flux(x) + theta[0] * partial(u, 0, 1)(x) - jnp.exp(u(x))


@pytest.mark.parametrize("residual", [heat_residual, mixed_residual])
def test_residuals_are_those_of_nested_differentiation(residual):
    model = heat(residual, solver=MethodOfLines(nodes=5))
    network = LocalOperator(2, 2, width=7, key=jr.key(0))
    theta, x = jnp.array([0.4, 1.5]), jr.uniform(jr.key(1), (6, 2))
    jet = network.jet(x, theta, second_derivatives(model, 2))

    def u(point):
        return heat_ansatz(network(point, theta)[0], point, theta)

    expected = jnp.stack([residual(u, point, theta) for point in x])
    # The network computes in single precision, since its weights are.
    np.testing.assert_allclose(
        residuals_of(model, jet, x, theta)[:, 0], expected, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(
        states_of(model, jet.value, x, theta)[:, 0], jax.vmap(u)(x), rtol=1e-5
    )


def test_only_second_derivatives_that_appear_are_asked_for():
    assert second_derivatives(heat(), 2) == ((0, 0),)
    assert second_derivatives(heat(mixed_residual), 2) == all_pairs(2)
    assert second_derivatives(heat(lambda u, x, theta: u(x)), 2) == ()


def test_a_system_has_vectors():
    """A wave as two equations of first order; both are zero for this one."""

    def residual(u, x, theta):
        return partial(u, 1)(x) - theta[0] * partial(u, 0)(x)[::-1]

    def ansatz(n, x, theta):
        return jnp.stack([jnp.sin(x[0] + theta[0] * x[1])] * 2) + 0.0 * n

    model = heat(residual, ansatz, states=("p", "v"))
    network = LocalOperator(2, 2, 2, width=5, key=jr.key(0))
    x, theta = jr.uniform(jr.key(1), (6, 2)), jnp.array([0.4, 1.5])
    jet = network.jet(x, theta, ())
    assert residuals_of(model, jet, x, theta).shape == (6, 2)
    np.testing.assert_allclose(residuals_of(model, jet, x, theta), 0.0, atol=1e-12)


# --- Classical solvers --------------------------------------------------------------------------


def test_heat_decays_as_in_the_closed_form():
    model = heat()
    solution = model.solve_ensemble(HEAT_THETAS)
    assert (solution.status == SolveStatus.SUCCESS).all()
    for states, theta in zip(solution.states, HEAT_THETAS, strict=True):
        # Tolerances of a step are 1e-8 relative.
        np.testing.assert_allclose(states[:, 0], heat_solution(model.readings, theta), atol=3e-7)
    single = model.solve(HEAT_THETAS[1])
    np.testing.assert_allclose(single.states, solution.states[1], atol=3e-7)


def test_sensitivities_are_the_derivatives_of_the_closed_form():
    model = heat()
    solution, tangents = model.sensitivities(HEAT_THETAS)
    np.testing.assert_allclose(solution.states, model.solve_ensemble(HEAT_THETAS).states, atol=1e-6)
    for tangent, theta in zip(tangents, HEAT_THETAS, strict=True):
        exact = heat_solution(model.readings, theta)
        np.testing.assert_allclose(tangent[:, 0, 0], -(np.pi**2) * exact, atol=1e-5)
        # The initial value is an unknown, too.
        np.testing.assert_allclose(tangent[:, 0, 1], exact / theta[1], atol=1e-6)


def test_gradient_of_a_single_solve():
    model = heat()
    weights = np.cos(np.arange(len(LINE)))

    def loss(theta):
        return weights @ model.solve(theta).states[:, 0]

    _, tangents = model.sensitivities(HEAT_THETAS)
    slopes = jax.jit(jax.grad(loss))(jnp.asarray(HEAT_THETAS[1]))
    np.testing.assert_allclose(slopes, weights @ tangents[1, :, 0], atol=1e-6)


def test_readings_may_lie_anywhere_in_any_order():
    readings = np.array([[0.3, 0.9], [0.0, 0.5], [0.77, 0.2], [0.5, 0.0], [1.0, 1.0]])
    model = heat(readings=readings)
    np.testing.assert_array_equal(model.times, np.arange(5))
    expected = heat_solution(readings, HEAT_THETAS[1])
    np.testing.assert_allclose(model.solve(HEAT_THETAS[1]).states[:, 0], expected, atol=3e-7)
    _, tangents = model.sensitivities(HEAT_THETAS)
    np.testing.assert_allclose(tangents[1, :, 0, 1], expected / HEAT_THETAS[1, 1], atol=1e-6)


def test_places_between_readings_lie_on_the_line():
    model = heat(readings=np.array([[0.2, 1.0], [0.8, 1.0]]))
    np.testing.assert_allclose(model.times, [0.2, 0.8])
    points = np.array([[0.35, 1.0], [0.5, 1.0]])
    np.testing.assert_allclose(model.points(points[:, 0]), points)
    states = model.solve(HEAT_THETAS[0], points[:, 0]).states
    np.testing.assert_allclose(states[:, 0], heat_solution(points, HEAT_THETAS[0]), atol=3e-7)


def test_time_may_be_the_first_coordinate():
    def swapped(u, x, theta):
        return partial(u, 0)(x) - theta[0] * partial(u, 1, 1)(x)

    model = heat(
        swapped,
        lambda n, x, theta: heat_ansatz(n, x[::-1], theta),
        domain={"t": (0.0, 1.0), "x": (0.0, 1.0)},
        readings=np.stack([np.ones_like(LINE), LINE], axis=1),
    )
    expected = heat_solution(heat().readings, HEAT_THETAS[0])
    np.testing.assert_allclose(model.solve(HEAT_THETAS[0]).states[:, 0], expected, atol=3e-7)


def bratu(nodes=25):
    """u'' + λ exp(u) = 0, zero at both ends: u = -2 log(cosh((x - 1/2) θ / 2) / cosh(θ / 4))."""
    return PDEModel(
        lambda u, x, theta: partial(u, 0, 0)(x) + theta[0] * jnp.exp(u(x)),
        lambda n, x, theta: x[0] * (1.0 - x[0]) * n,
        domain={"x": (0.0, 1.0)},
        collocation=(11,),
        readings=LINE[:, None],
        solver=Collocation(nodes),
    )


def test_collocation_solves_a_nonlinear_equation():
    model = bratu()
    root = 1.5171645990507543  # of θ = sqrt(2 λ) cosh(θ / 4) for λ = 1
    exact = -2.0 * np.log(np.cosh((LINE - 0.5) * root / 2.0) / np.cosh(root / 4.0))
    np.testing.assert_allclose(model.solve(np.ones(1)).states[:, 0], exact, atol=1e-12)
    finer = model.tightened()
    assert finer.solver.nodes == 49
    np.testing.assert_allclose(finer.solve(np.ones(1)).states[:, 0], exact, atol=1e-12)


def test_collocation_differentiates_implicitly():
    model, h = bratu(), 1e-4
    up, down = (model.solve(np.array([1.0 + step])).states for step in (h, -h))
    _, tangents = model.sensitivities(np.array([[1.0]]))
    np.testing.assert_allclose(tangents[0, :, :, 0], (up - down) / (2.0 * h), atol=1e-7)
    reverse = jax.grad(lambda theta: jnp.sum(model.solve(theta).states))(jnp.ones(1))
    np.testing.assert_allclose(reverse, tangents[0].sum(axis=(0, 1)), rtol=1e-10)


def test_a_solve_that_finds_nothing_has_a_status():
    solution = bratu().solve_ensemble(np.array([[1.0], [np.nan]]))
    assert solution.status.tolist() == [SolveStatus.SUCCESS, SolveStatus.NON_FINITE]
    assert np.isnan(solution.states[1]).any()


def test_newton_that_finds_nothing_says_so():
    """Beyond λ = 3.51 Bratu's equation has no solution."""
    thetas = np.array([[3.0], [4.0], [10.0]])
    success, nothing = SolveStatus.SUCCESS, SolveStatus.NON_FINITE
    assert bratu().solve_ensemble(thetas).status.tolist() == [success, nothing, nothing]


# --- Bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"collocation": (5,)}, ValueError, "`collocation` must be a number of points"),
        ({"collocation": (5, 1)}, ValueError, "`collocation` must be a number of points"),
        ({"readings": LINE[:, None]}, ValueError, "`readings` must have shape \\(point, 2\\)"),
        ({"readings": [[0.5, 2.0]]}, ValueError, "`readings` has points outside"),
        ({"readings": [[0.5, np.nan]]}, ValueError, "`readings` has points outside"),
        ({"domain": {"x": (1.0, 0.0), "t": (0, 1)}}, ValueError, "`domain` of 'x' must be a lower"),
        ({"states": ()}, ValueError, "`states` must be distinct names"),
        ({"solver": None}, TypeError, "`solver` must be a classical solver"),
        ({"solver": Collocation()}, ValueError, "`Collocation` solves equations in one"),
        ({"solver": MethodOfLines(time="s")}, ValueError, "Name time by `MethodOfLines"),
    ],
)
def test_models_that_cannot_be_are_refused(changes, error, message):
    with refuses(error, message):
        heat(**changes)


def test_impossible_grids_are_refused():
    with refuses(ValueError, "`nodes` must be at least 3; got 2"):
        MethodOfLines(nodes=2)
    with refuses(ValueError, "`nodes` must be at least 3; got 1"):
        Collocation(nodes=1)
    with refuses(ValueError, "`iterations` must be at least 1"):
        Collocation(iterations=0)


def test_unknown_changes_are_refused():
    with refuses(ValueError, "got \\['rtol'\\]"):
        heat().replace(rtol=1e-9)


def test_parameters_of_another_shape_are_refused():
    with refuses(ValueError, "`thetas` must have shape"):
        heat().solve_ensemble(HEAT_THETAS[0])
    with refuses(ValueError, "`times` must be a vector"):
        heat().sensitivities(HEAT_THETAS, np.zeros((3, 2)))


def test_tracing_needs_double_precision():
    with jax.enable_x64(False), refuses(RuntimeError, "64-bit"):
        jax.jit(lambda theta: heat().solve(theta).states)(jnp.ones(2))


def as_problem(model):
    unknown = tuple(ij.Parameter(name, dist.LogNormal(0.0, 1.0)) for name in ("a", "b"))
    sensors = ij.Sensors(ij.FixedTimes(tuple(model.times)))
    noise = ij.noise.Gaussian(1.0)
    return ij.InverseProblem("heat", ij.ParameterSpace(unknown), model, sensors, noise)


def test_what_the_solver_takes_from_the_ansatz_must_be_there():
    assert as_problem(heat()).channels == ("u",)
    for ansatz, where in (
        (lambda n, x, theta: x[0] * (1.0 - x[0]) * n, "x = 0.3, t = 0 "),
        (lambda n, x, theta: x[0] * x[1] * n, "x = 1, t = 0.3 "),
    ):
        with refuses(ValueError, f"`ansatz` must give the state at {where}whatever `n` is"):
            as_problem(heat(ansatz=ansatz))


def test_shapes_are_told_when_the_problem_is_made():
    with refuses(ValueError, r"`ansatz` must return one value for each .* u; got shape \(2,\)"):
        as_problem(heat(ansatz=lambda n, x, theta: jnp.stack([n, n])))
    with refuses(ValueError, r"`residual` must return one value for each .* u; got shape \(2,\)"):
        as_problem(heat(lambda u, x, theta: jnp.stack([u(x), u(x)])))


# --- Files of readings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (lambda u, x: partial(u, 0, 0, 0)(x), "derivatives of third or higher order"),
        (lambda u, x: partial(u, 0, 1, 1)(x), "derivatives of third or higher order"),
        (lambda u, x: partial(u, 1, 1)(x), "first order in time 't'"),
        (lambda u, x: partial(u, 0, 1)(x), "first order in time 't'"),
        (lambda u, x: partial(u, 1)(x) ** 2, "linear in the derivative by time 't'"),
        (lambda u, x: -partial(u, 1)(x), "needs the derivative of every state by time 't'"),
    ],
)
def test_terms_that_a_solver_would_leave_out_are_refused(term, message):
    def residual(u, x, theta):
        return heat_residual(u, x, theta) + term(u, x)

    with refuses(ValueError, message):
        as_problem(heat(residual))


@pytest.mark.parametrize("power", [1, 2])
def test_nonlinear_terms_of_space_are_no_obstacle(power):
    def residual(u, x, theta):
        return heat_residual(u, x, theta) + u(x) * partial(u, 0)(x) ** power

    assert as_problem(heat(residual)).channels == ("u",)


def test_readings_at_places_are_written_and_read_by_the_name_of_the_coordinate(tmp_path):
    problem = ij.problems.fisher_kpp()
    observation = problem.simulate(np.array([0.01, 1.0]), key=jax.random.key(0))
    path = tmp_path / "readings.csv"
    observation.to_csv(path)
    assert path.read_text().startswith("x,u\n")
    again = ij.Observation.from_csv(path, problem)
    np.testing.assert_array_equal(again.times, observation.times)
    np.testing.assert_array_equal(again.values, observation.values)
    assert (again.coordinate, again.padded(20).coordinate) == ("x", "x")
    path.write_text("time,u\n0.5,0.2\n")
    with refuses(ValueError, "exactly one column named `x`"):
        ij.Observation.from_csv(path, problem)
    with refuses(ValueError, "x 1.5 lies beyond the end 0.9 of problem 'fisher_kpp'"):
        ij.Observation.from_arrays([1.5], [[0.1]], problem=problem)


def test_what_is_read_along_something_else_is_refused(tmp_path):
    problem = ij.problems.fisher_kpp()
    observation = problem.simulate(np.array([0.01, 1.0]), key=jr.key(0))
    other = dataclasses.replace(observation, coordinate="time")
    with refuses(ValueError, "was read along 'time', but problem 'fisher_kpp' is along 'x'"):
        problem.predict(np.array([0.01, 1.0]), other)
    with refuses(ValueError, "`to_csv` needs to know what `times` are"):
        dataclasses.replace(observation, coordinate="").to_csv(tmp_path / "readings.csv")
    rod = ij.problems.scalar_poisson(noise=0.1)
    with refuses(ValueError, "a channel named 'x', as the places of readings are called"):
        ij.InverseProblem(
            rod.name, rod.parameters, rod.model.replace(states=("x",)), rod.sensors, rod.noise
        )


def test_the_floor_of_a_partial_differential_equation_is_that_of_its_closed_form():
    """Readings are sin(πx) / D, so the information of D is their square over (D noise)²."""
    problem = ij.problems.scalar_poisson(noise=0.05)
    thetas = problem.parameters.design(4, key=jr.key(1))
    wave = np.sin(np.pi * problem.model.times)
    slope = wave[None] / np.asarray(thetas) ** 2
    levels = np.asarray(problem.parameters.from_unit((np.arange(4096)[:, None] + 0.5) / 4096))
    precision = np.sum(slope**2, axis=1) / 0.05**2 + 1.0 / levels.var()
    found = ij.metrics.laplace_covariances(problem, thetas, key=jr.key(2))
    np.testing.assert_allclose(found[:, 0, 0], 1.0 / precision, rtol=1e-3)
    assert np.isfinite(ij.metrics.bayes_floor(problem, cases=4, key=jr.key(2)).per_parameter).all()


def test_figures_say_along_what_a_solution_is_drawn():
    problem = ij.problems.fisher_kpp()
    observation = problem.simulate(np.array([0.01, 1.0]), key=jax.random.key(0))
    solution = problem.model.solve(np.array([0.01, 1.0])).states
    figure = trajectories(problem, observation, states=solution)
    assert any(axes.get_xlabel() == "x" for axes in figure.axes)


def test_the_time_course_of_an_equation_is_looked_at_once(monkeypatch):
    """The lines that are solved are made anew each time; what the user wrote is not."""
    looked = []
    traced = _ode_checks.trace_field
    monkeypatch.setattr(
        _ode_checks, "trace_field", lambda *all_of_it: looked.append(1) or traced(*all_of_it)
    )
    for slope in (1.0, 2.0):

        def residual(u, x, theta, slope=slope):
            return partial(u, 1)(x) - slope * theta[0] * partial(u, 0, 0)(x)

        model = heat(residual)
        for value in (0.01, 0.02):
            model.solve(np.array([value, 1.0]))
    assert len(looked) == 2
