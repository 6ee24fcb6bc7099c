"""The forward model against SciPy, finite differences and itself."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from inojax import ODEModel
from inojax.models import _calls, _ode_solve
from inojax.models._calls import compile_seconds
from inojax.problems import pollu
from inojax.solvers import SolveStatus
from inojax.solvers._ensemble import EnsembleSolution
from tests.refuses import refuses

pytestmark = pytest.mark.usefixtures("compiled_quickly")

THETA = np.array([1.3, 0.4])
TIMES = np.array([0.5, 1.0, 2.0, 4.0])


def pendulum(t, y, theta):
    """Driven and damped, so that time, state and both parameters matter."""
    return jnp.stack([y[1], -theta[0] * jnp.sin(y[0]) - theta[1] * y[1] + 0.3 * jnp.cos(t)])


def start(theta):
    return jnp.stack([theta[1], theta[0] * 0.0])


@pytest.fixture(scope="module")
def model() -> ODEModel:
    return ODEModel(pendulum, start, times=TIMES, states=("angle", "speed"), rtol=1e-9, atol=1e-12)


def scipys(theta, times, initial=None):
    def field(t, y):
        return [y[1], -theta[0] * np.sin(y[0]) - theta[1] * y[1] + 0.3 * np.cos(t)]

    first = [theta[1], 0.0] if initial is None else initial
    options = {"method": "DOP853", "rtol": 1e-12, "atol": 1e-13, "t_eval": times}
    return solve_ivp(field, (0.0, times[-1]), first, **options).y.T


def test_solve_is_scipys(model):
    solution = model.solve(THETA)
    assert isinstance(solution.states, np.ndarray)
    assert solution.states.dtype == np.float64
    assert solution.status == SolveStatus.SUCCESS
    assert solution.steps > 0
    np.testing.assert_array_equal(solution.times, TIMES)
    # A relative tolerance of 1e-9 for each of some hundred steps.
    np.testing.assert_allclose(solution.states, scipys(THETA, TIMES), atol=1e-7)


def test_other_times_may_repeat_and_begin_at_the_start(model):
    times = np.array([0.0, 0.7, 0.7, 3.1])
    states = model.solve(THETA, times).states
    np.testing.assert_array_equal(states[0], [THETA[1], 0.0])
    np.testing.assert_array_equal(states[1], states[2])
    # As above.
    np.testing.assert_allclose(states[1:], scipys(THETA, [0.7, 3.1])[[0, 0, 1]], atol=1e-7)


def test_start_as_numbers_and_initial_time(model):
    fixed = model.replace(initial_state=np.array([0.2, 0.1]), initial_time=0.25)
    shifted = model.solve(THETA).states
    assert not np.allclose(fixed.solve(THETA).states, shifted, atol=1e-3)
    assert fixed.horizon == 4.0
    np.testing.assert_array_equal(fixed.solve(THETA, np.array([0.25, 1.0])).states[0], [0.2, 0.1])


def some_thetas(count):
    return np.random.default_rng(0).uniform(0.2, 2.0, (count, 2))


def test_ensemble_is_solve_lane_by_lane(model):
    thetas = some_thetas(3)
    ensemble = model.solve_ensemble(thetas)
    assert ensemble.states.shape == (3, 4, 2)
    assert (ensemble.status == SolveStatus.SUCCESS).all()
    for theta, states in zip(thetas, ensemble.states, strict=True):
        # Two step size controllers at a relative tolerance of 1e-9.
        np.testing.assert_allclose(states, model.solve(theta).states, atol=1e-7)


def test_ensemble_does_not_depend_on_its_size(model):
    thetas = some_thetas(131)
    many = model.solve_ensemble(thetas)
    assert many.states.shape == (131, 4, 2)
    assert many.steps.shape == many.status.shape == (131,)
    few = model.solve_ensemble(thetas[125:])
    one = model.solve_ensemble(thetas[130:])
    # Lanes choose their own steps, so only vectorized rounding may differ.
    np.testing.assert_allclose(few.states, many.states[125:], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(one.states, many.states[130:], rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(few.steps, many.steps[125:])


def differences(model, theta, h=1e-5):
    columns = [
        model.solve(theta + h * e).states - model.solve(theta - h * e).states for e in np.eye(2)
    ]
    return np.stack(columns, axis=-1) / (2.0 * h)


def test_sensitivities_are_finite_differences(model):
    thetas = some_thetas(2)
    solution, sensitivities = model.sensitivities(thetas)
    assert sensitivities.shape == (2, 4, 2, 2)
    np.testing.assert_allclose(
        solution.states, model.solve_ensemble(thetas).states, rtol=1e-10, atol=1e-12
    )
    for theta, sensitivity in zip(thetas, sensitivities, strict=True):
        # Central differences: h² times third derivatives of order one, and solver noise 1e-10/h.
        np.testing.assert_allclose(sensitivity, differences(model, theta), atol=5e-5)


def test_sensitivities_are_forward_mode_through_solve(model):
    _, sensitivities = model.sensitivities(THETA[None])
    with jax.enable_x64(True):

        def states(theta):
            return model.solve(theta).states

        jacobian = jax.jit(jax.jacfwd(states))(jnp.asarray(THETA))
    # Steps are controlled by the state's error only: the derivative is somewhat less accurate.
    np.testing.assert_allclose(sensitivities[0], jacobian, atol=1e-6)


def test_reverse_mode_through_solve(model):
    weights = np.cos(np.arange(8.0)).reshape(4, 2)
    with jax.enable_x64(True):

        def loss(theta):
            return jnp.sum(jnp.asarray(weights) * model.solve(theta).states)

        gradient = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(THETA)))
    expected = np.einsum("ts,tsp->p", weights, differences(model, THETA))
    # As for the sensitivities, eight terms.
    np.testing.assert_allclose(gradient, expected, atol=3e-4)


@pytest.mark.parametrize("call", ["solve", "solve_ensemble"])
def test_tracing_in_single_precision_is_refused_with_the_remedy(model, call):
    theta = jnp.asarray(THETA if call == "solve" else THETA[None], jnp.float32)
    with refuses(RuntimeError, r"needs 64-bit floats.*`with jax.enable_x64\(True\):`"):
        jax.jit(lambda theta: getattr(model, call)(theta).states)(theta)


def test_ensemble_inside_a_transformation(model):
    thetas = some_thetas(2)
    with jax.enable_x64(True):
        states = jax.jit(lambda thetas: model.solve_ensemble(thetas).states)(jnp.asarray(thetas))
    # The same computation, compiled in another context.
    np.testing.assert_allclose(states, model.solve_ensemble(thetas).states, rtol=1e-10, atol=1e-12)


def test_sensitivities_inside_a_transformation(model):
    thetas = some_thetas(2)
    with jax.enable_x64(True):
        solution, derivatives = eqx.filter_jit(model.sensitivities)(jnp.asarray(thetas))
    host, expected = model.sensitivities(thetas)
    np.testing.assert_allclose(solution.states, host.states, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(derivatives, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("count", [1, 9, 70])
def test_sensitivities_do_not_depend_on_how_many_there_are(model, count):
    thetas = some_thetas(count)
    whole, derivatives = model.sensitivities(thetas)
    last, expected = model.sensitivities(thetas[-1:])
    np.testing.assert_allclose(whole.states[-1:], last.states, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(derivatives[-1:], expected, rtol=1e-9, atol=1e-11)


def test_the_gradient_of_pollu_through_solve_agrees_with_its_sensitivities():
    problem = pollu()
    model = problem.model.replace(rtol=1e-9, atol=1e-20)
    theta = problem.parameters.design(1, key=jr.key(1))[0]
    times = np.array([6.0, 60.0])
    weights = np.cos(np.arange(40.0)).reshape(2, 20)
    with jax.enable_x64(True):

        def loss(theta):
            return jnp.sum(jnp.asarray(weights) * model.solve(theta, times).states)

        gradient = np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(theta)))
    _, derivatives = model.sensitivities(theta[None], times)
    expected = np.einsum("ts,tsp->p", weights, derivatives[0])
    # Both differentiate a solution to 1e-9 a step, on different steps; relative changes count.
    scale = np.abs(expected * theta).max()
    np.testing.assert_allclose(gradient * theta / scale, expected * theta / scale, atol=1e-6)


def square(t, y, theta):
    """y' = a y² leaves every bound at t = 1/a."""
    del t
    return theta[0] * y**2


def test_a_failed_lane_has_a_status_and_harms_no_other():
    blow_up = ODEModel(
        square, np.ones(1), times=np.array([0.25, 0.5, 1.0]), states=("y",), max_steps=500
    )
    ensemble = blow_up.solve_ensemble(np.array([[0.5], [1.6], [0.7]]))
    assert ensemble.status[1] != SolveStatus.SUCCESS
    assert SolveStatus(int(ensemble.status[1])).message
    np.testing.assert_array_equal(ensemble.status[[0, 2]], SolveStatus.SUCCESS)
    np.testing.assert_array_equal(np.isnan(ensemble.states[1, :, 0]), [False, False, True])
    rates = np.array([0.5, 0.7])[:, None]
    exact = 1.0 / (1.0 - rates * blow_up.times[None, :])
    # The relative tolerance of 1e-6 over some ten steps.
    np.testing.assert_allclose(ensemble.states[[0, 2], :, 0], exact, rtol=1e-4)
    alone = blow_up.solve(np.array([1.6]))
    assert alone.status != SolveStatus.SUCCESS
    assert np.isnan(alone.states[-1, 0])


def test_a_second_attempt_is_tighter_but_asks_for_nothing_impossible(model):
    tighter = model.replace(rtol=1e-6, atol=np.array([1e-9, 1e-12]), max_steps=100).tightened()
    assert tighter.rtol == pytest.approx(1e-8)
    np.testing.assert_allclose(tighter.atol, [1e-11, 1e-14])
    assert tighter.max_steps == 1000
    assert model.replace(rtol=1e-12).tightened().rtol == 1e-13
    assert model.replace(rtol=1e-14).tightened().rtol == 1e-14


def test_failures_are_tried_again_if_asked(model):
    hurried, thetas = model.replace(max_steps=30, rtol=1e-6), some_thetas(20)
    once = hurried.solve_ensemble(thetas)
    failed = once.status == SolveStatus.MAX_STEPS_REACHED
    assert 0 < failed.sum() < 20
    assert once.retried == 0
    twice = hurried.solve_ensemble(thetas, retry=True)
    assert twice.retried == failed.sum()
    assert (twice.status == SolveStatus.SUCCESS).all()
    np.testing.assert_array_equal(twice.states[~failed], once.states[~failed])
    for theta, states in zip(thetas[failed], twice.states[failed], strict=True):
        np.testing.assert_allclose(states, model.solve(theta).states, atol=1e-6)
    assert (twice.steps[failed] > 30).all()


def test_success_with_a_hidden_infinity_counts_as_a_failure(model, monkeypatch):
    def poisoned(*_, **__):
        states = np.ones((5, 4, 2))
        states[:3, 2, 1] = np.inf
        return EnsembleSolution(states, np.zeros(5, int), np.ones(5, int), np.asarray(5))

    monkeypatch.setattr(_ode_solve, "in_calls", poisoned)
    status = model.solve_ensemble(some_thetas(5)).status
    np.testing.assert_array_equal(status == SolveStatus.NON_FINITE, [True] * 3 + [False] * 2)


def test_a_hunt_for_nan_finds_none_where_all_is_well(model):
    with jax.debug_nans(True):
        assert np.isfinite(model.solve_ensemble(some_thetas(3)).states).all()


@pytest.mark.parametrize("count", [1, 8, 9, 513, 700])
def test_any_number_of_trajectories_on_any_devices(model, count):
    thetas = some_thetas(count)
    mesh = jax.make_mesh((2,), ("trajectory",))
    plain, spread = model.solve_ensemble(thetas), model.solve_ensemble(thetas, mesh=mesh)
    assert plain.states.shape == (count, 4, 2)
    assert 0.0 <= plain.wasted < 1.0
    np.testing.assert_array_equal(plain.states, spread.states)
    np.testing.assert_array_equal(plain.steps, spread.steps)


def test_options_that_the_compiler_does_not_know_are_left_out(monkeypatch):
    known = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    assert _calls._options().items() >= known.items()
    monkeypatch.setattr(_calls, "_OPTIONS", ({"xla_no_such_thing": True}, known))
    assert _calls._options.__wrapped__() == known


@pytest.mark.parametrize("call", ["solve_ensemble", "sensitivities"])
@pytest.mark.parametrize("times", [[1.0, 0.5], [0.5, np.nan]])
def test_impossible_times_are_refused(model, call, times):
    with pytest.raises(ValueError, match="`times` must be finite"):
        getattr(model, call)(some_thetas(2), np.array(times))


def test_a_derivative_that_is_not_finite_is_no_success():
    def field(t, y, theta):
        return jnp.where(y > 0.0, -theta[0] * y**1.5, 0.0)

    model = ODEModel(field, np.zeros(1), times=np.ones(1), states=("y",))
    thetas = np.ones((2, 1))
    solution, derivatives = model.sensitivities(thetas)
    good = np.isfinite(derivatives).all((1, 2, 3))
    np.testing.assert_array_equal(solution.status == SolveStatus.SUCCESS, good)


def test_tolerances_do_not_compile_again(model):
    model.solve_ensemble(some_thetas(3))
    before = compile_seconds()
    loose = model.replace(rtol=1e-4, atol=1e-6, max_steps=500).solve_ensemble(some_thetas(3))
    assert compile_seconds() == before
    assert loose.steps.sum() < model.solve_ensemble(some_thetas(3)).steps.sum()


def test_too_few_steps_are_reported(model):
    hurried = model.replace(max_steps=3)
    assert hurried.solve(THETA).status == SolveStatus.MAX_STEPS_REACHED
    ensemble = hurried.solve_ensemble(THETA[None])
    assert ensemble.status[0] == SolveStatus.MAX_STEPS_REACHED
    assert np.isnan(ensemble.states[0, -1]).all()


def test_replace_changes_only_what_is_named(model):
    loose = model.replace(rtol=1e-4, time_unit="s")
    assert (loose.rtol, loose.time_unit) == (1e-4, "s")
    assert (loose.atol, loose.states, loose.vector_field) == (
        model.atol,
        model.states,
        model.vector_field,
    )
    assert loose.solve(THETA).steps < model.solve(THETA).steps
    with refuses(ValueError, r"`replace` knows .*'rtol'.*got \['tolerance'\]"):
        model.replace(tolerance=1.0)
    with refuses(ValueError, "`rtol`"):
        model.replace(rtol=-1.0)


def test_a_tolerance_for_each_state(model):
    each = model.replace(atol=np.array([1e-12, 1e-6]))
    # A looser tolerance on one state costs accuracy, not correctness.
    np.testing.assert_allclose(each.solve(THETA).states, scipys(THETA, TIMES), atol=1e-5)


def build(**changes):
    settings = {
        "vector_field": pendulum,
        "initial_state": np.zeros(2),
        "times": TIMES,
        "states": ("angle", "speed"),
    }
    return ODEModel(**(settings | changes))


BAD = {
    "no times": ({"times": []}, r"`times` must be a non-empty vector.*\(0,\)"),
    "matrix of times": ({"times": np.ones((2, 2))}, r"`times`.*\(2, 2\)"),
    "NaN time": ({"times": [0.0, np.nan]}, "`times`.*finite"),
    "repeated time": ({"times": [1.0, 1.0]}, "`times` must increase strictly"),
    "falling times": ({"times": [2.0, 1.0]}, "`times` must increase strictly"),
    "early time": ({"times": [-1.0, 1.0]}, "`initial_time` = 0.0; got -1.0"),
    "no states": ({"states": ()}, r"`states`.*got \(\)"),
    "repeated state": ({"states": ("a", "a")}, "`states` must be distinct"),
    "short start": ({"initial_state": np.zeros(3)}, r"`initial_state`.*\(2,\).*\(3,\)"),
    "NaN start": ({"initial_state": [0.0, np.nan]}, "`initial_state` must be finite"),
    "rtol": ({"rtol": 0.0}, "`rtol` and `atol`.*got 0.0"),
    "atol": ({"atol": [-1.0, 1.0]}, "`atol`"),
    "atol shape": ({"atol": [1.0, 1.0, 1.0]}, r"`atol`.*\(2,\).*\(3,\)"),
    "NaN tolerance": ({"rtol": np.nan}, "`rtol`"),
    "max_steps": ({"max_steps": 0}, "`max_steps` must be at least 1; got 0"),
}


@pytest.mark.parametrize(("changes", "match"), BAD.values(), ids=BAD)
def test_impossible_models_are_refused(changes, match):
    with refuses(ValueError, match):
        build(**changes)


def test_an_initial_state_by_name_is_refused():
    with refuses(TypeError, "`initial_state`.*in their order.*got dict"):
        build(initial_state={"a": 0.0})


def test_impossible_calls_are_refused(model):
    for call in (model.solve_ensemble, model.sensitivities):
        with refuses(ValueError, r"`thetas`.*\(2,\)"):
            call(THETA)
        with refuses(ValueError, r"`thetas`.*\(0, 2\)"):
            call(np.zeros((0, 2)))


@pytest.mark.parametrize("count", [5, 150])
def test_every_trajectory_may_have_output_times_of_its_own(model, count):
    thetas = some_thetas(count)
    horizon = float(model.times[-1])
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0.0, horizon, (count, 6)), axis=1)
    times[1], times[2, 3:] = 0.0, times[2, 2]  # nothing to solve; repeated times
    together = model.solve_ensemble(thetas, times)
    np.testing.assert_array_equal(together.status, SolveStatus.SUCCESS)
    also, derivatives = model.sensitivities(thetas[:4], times[:4])
    for row in (0, 1, 2, 3):
        alone = model.solve_ensemble(thetas[row : row + 1], times[row])
        np.testing.assert_allclose(together.states[row], alone.states[0], rtol=1e-10)
        np.testing.assert_allclose(also.states[row], alone.states[0], rtol=1e-10)
        _, expected = model.sensitivities(thetas[row : row + 1], times[row])
        np.testing.assert_allclose(derivatives[row], expected[0], rtol=1e-8, atol=1e-12)
    with pytest.raises(ValueError, match="a row for each of the"):
        model.solve_ensemble(thetas, times[:2])
    with pytest.raises(ValueError, match="`count` serves transformations"):
        model.sensitivities(thetas, times, count=jnp.asarray(2))


@pytest.mark.parametrize("double", [False, True])
def test_what_a_trajectory_depends_on_is_seen_in_either_precision(double):
    """Without a warning about a table in double precision, where networks train in single."""
    table = np.linspace(0.0, 1.0, 5)

    def field(t, y, theta):
        inflow = jnp.interp(t, jnp.arange(5.0), jnp.asarray(table, jnp.float64))
        return jnp.stack([inflow - theta[0] * y[0]])

    model = ODEModel(field, lambda theta: [theta[2]], times=[1.0, 2.0], states=("x",))
    with jax.enable_x64(double):
        np.testing.assert_array_equal(model.depends_on(4), [True, False, True, False])


def test_an_input_by_select_is_its_closed_form_alone_and_in_ensembles():
    """3 until 1, 1 until 2, then nothing, with decay at rate one."""

    def field(t, y, theta):
        return jnp.stack([jnp.select([t < 1.0, t < 2.0], [3.0, 1.0], 0.0) - theta[0] * y[0]])

    model = ODEModel(field, [0.0], times=[0.5, 1.5, 3.0], states=("c",))
    at_one = 3.0 * (1.0 - np.exp(-1.0))
    at_two = 1.0 + (at_one - 1.0) * np.exp(-1.0)
    right = [
        3.0 * (1.0 - np.exp(-0.5)),
        1.0 + (at_one - 1.0) * np.exp(-0.5),
        at_two * np.exp(-1.0),
    ]
    alone = np.asarray(model.solve(np.ones(1)).states)[:, 0]
    together = np.asarray(model.solve_ensemble(np.ones((3, 1))).states)[..., 0]
    np.testing.assert_allclose(alone, right, rtol=1e-6)
    np.testing.assert_allclose(together, np.tile(right, (3, 1)), rtol=1e-6)
