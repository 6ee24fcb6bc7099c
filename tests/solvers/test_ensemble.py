"""The ensemble driver: accuracy, statuses, independence of lanes, sensitivities."""

from functools import partial

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from inojax.solvers import Rodas5P, SolveStatus, solve_ensemble
from inojax.solvers._batch_last import BatchLast, trace_field
from inojax.solvers._linalg import Form
from tests.solvers.equations import (
    POLLU_AT_60,
    POLLU_INVARIANTS,
    POLLU_RATES,
    POLLU_START,
    POLLU_TOTALS,
    ROBERTSON_AT_END,
    ROBERTSON_RATES,
    ROBERTSON_START,
    pollu,
    prothero_robinson,
    robertson,
    van_der_pol,
)

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.fixture(autouse=True)
def double_precision():
    with jax.enable_x64(True):
        yield


def run(field, y0, thetas, times, *, compiler=None, **options):
    thetas = jnp.asarray(thetas, dtype=float)
    y0 = jnp.broadcast_to(jnp.asarray(y0, dtype=float), (len(thetas), np.shape(y0)[-1]))
    solver = partial(solve_ensemble, field, **options)
    return jax.jit(solver, compiler_options=compiler)(y0, thetas, jnp.asarray(times, dtype=float))


# Programs of different shapes agree digit by digit where they are compiled as for users; XLA's
# older way to fuse loops, which tests compile with (see conftest.py), rounds in each otherwise.
AS_USERS = {"xla_cpu_use_fusion_emitters": True} if jax.__version_info__[:2] == (0, 10) else None
run_as_users = partial(run, compiler=AS_USERS)


def random_rates(rng, count):
    return POLLU_RATES * rng.uniform(0.5, 1.5, (count, 25))


def test_pollu_matches_its_published_solution_and_keeps_its_invariants():
    times = np.linspace(0.6, 60.0, 100)
    rates = np.stack([POLLU_RATES, POLLU_RATES * 0.7])
    solution = run(pollu, POLLU_START, rates, times, rtol=1e-10, atol=1e-22)
    assert np.all(solution.status == SolveStatus.SUCCESS)
    np.testing.assert_allclose(solution.states[0, -1], POLLU_AT_60, rtol=1e-6)  # issue 2, item 3
    totals = solution.states @ POLLU_INVARIANTS.T
    np.testing.assert_allclose(totals, np.broadcast_to(POLLU_TOTALS, totals.shape), atol=1e-10)


def test_pollu_at_the_default_tolerances():
    solution = run(pollu, POLLU_START, POLLU_RATES[None], [0.6, 60.0])
    # Errors of 1e-6 in a step, of each species in relation to its own size, from 1e-17 to 1.
    np.testing.assert_allclose(solution.states[0, -1], POLLU_AT_60, rtol=1e-6)
    # Measured 168, of which two thirds go to the first seconds of radicals that begin at zero.
    assert int(solution.steps[0]) < 250
    solution = run(pollu, POLLU_START, POLLU_RATES[None], [0.6, 60.0], atol=1e-10)
    # Measured 8e-8; a margin of ten, since the steps are chosen for 1e-6.
    np.testing.assert_allclose(solution.states[0, -1], POLLU_AT_60, rtol=1e-6)
    assert int(solution.steps[0]) < 100


def test_robertson_matches_its_published_solution():
    solution = run(
        robertson, ROBERTSON_START, ROBERTSON_RATES[None], [1.0, 1e11], rtol=1e-8, atol=1e-20
    )
    np.testing.assert_allclose(solution.states[0, -1], ROBERTSON_AT_END, rtol=1e-5)  # issue 2


def test_matches_the_diffrax_solver_and_scipy():
    times = np.linspace(0.0, 3.0, 31)
    thetas = np.array([[0.5], [1.0], [20.0]])
    ours = run(van_der_pol, [2.0, 0.0], thetas, times, rtol=1e-9, atol=1e-11).states
    for theta, states in zip(thetas, ours, strict=True):
        single = diffrax.diffeqsolve(
            diffrax.ODETerm(van_der_pol), Rodas5P(), 0.0, 3.0, None, jnp.array([2.0, 0.0]),
            args=jnp.asarray(theta), saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-11),
        ).ys  # fmt: skip
        radau = solve_ivp(
            lambda t, y, m=theta[0]: [y[1], m * ((1 - y[0] ** 2) * y[1] - y[0])],
            (0, 3), [2.0, 0.0], method="Radau", t_eval=times, rtol=1e-10, atol=1e-12,
        ).y.T  # fmt: skip
        # Errors of 1e-9 a step, of both solvers, over tens of steps.
        np.testing.assert_allclose(states, single, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(states, radau, rtol=1e-6, atol=1e-7)


def test_non_autonomous_stiff():
    times = np.linspace(0.0, 2.0, 21)
    stiffness = [[-1.0], [-1e3], [-1e6]]
    states = run(prothero_robinson, [0.0], stiffness, times, rtol=1e-8, atol=1e-10).states
    truth = np.broadcast_to(np.sin(times)[None, :, None], states.shape)
    # Ten times the tolerance of a step, at its end and, since the interpolation is controlled as
    # well, between.
    np.testing.assert_allclose(states, truth, atol=1e-7)


def test_stiff_transient_is_resolved():
    """y' = -λ y from t = 0: outputs inside the transient, where steps are smallest."""
    rates = np.array([[1e2], [1e6]])
    times = np.array([1e-7, 1e-6, 1e-3])
    states = run(lambda t, y, k: -k * y, [1.0], rates, times, rtol=1e-8, atol=1e-12).states
    np.testing.assert_allclose(states[..., 0], np.exp(-rates * times), rtol=1e-6, atol=1e-11)


def test_times_may_include_the_start_and_the_start_alone():
    states = run(lambda t, y, k: -k * y, [1.0], [[1.0], [2.0]], [0.0, 1.0]).states
    np.testing.assert_array_equal(states[:, 0, 0], 1.0)
    np.testing.assert_allclose(states[:, 1, 0], np.exp([-1.0, -2.0]), rtol=1e-5)  # rtol 1e-6
    alone = run(lambda t, y, k: -k * y, [1.0], [[1.0]], [0.0])
    assert int(alone.status[0]) == SolveStatus.SUCCESS
    assert float(alone.states[0, 0, 0]) == 1.0


def test_initial_time_other_than_zero():
    states = run(lambda t, y, k: k * t, [0.0], [[1.0]], [3.0], initial_time=2.0).states
    np.testing.assert_allclose(states[0, 0, 0], 2.5, rtol=1e-9)  # polynomial: exact but rounding


def test_blow_up_ends_with_a_status_and_leaves_the_neighbors_alone():
    times = [0.5, 0.9, 1.5]
    solution = run(lambda t, y, k: k * y**2, [1.0], [[0.1], [1.0], [0.2]], times)
    assert solution.status.tolist() == [
        SolveStatus.SUCCESS, SolveStatus.STEP_SIZE_TOO_SMALL, SolveStatus.SUCCESS
    ]  # fmt: skip
    expected = 1 / (1 - np.array([0.1, 1.0, 0.2])[:, None] * np.array(times))
    expected[1, 2] = np.nan  # after the blow-up at t = 1
    np.testing.assert_allclose(solution.states[..., 0], expected, rtol=1e-5)


def test_nan_from_the_vector_field_ends_with_a_status():
    solution = run(lambda t, y, k: -jnp.sqrt(k) * y, [1.0], [[1.0], [-1.0]], [0.5, 1.0])
    assert solution.status.tolist() == [SolveStatus.SUCCESS, SolveStatus.NON_FINITE]
    assert np.all(np.isnan(solution.states[1]))
    np.testing.assert_allclose(solution.states[0, :, 0], np.exp([-0.5, -1.0]), rtol=1e-5)


def test_max_steps_ends_with_a_status():
    solution = run(van_der_pol, [2.0, 0.0], [[0.1], [1e3]], [1.0, 2.0], max_steps=20)
    assert solution.status.tolist() == [SolveStatus.SUCCESS, SolveStatus.MAX_STEPS_REACHED]
    assert int(solution.steps[1]) == 20
    assert np.isnan(solution.states[1, -1]).all()


def test_each_status_has_its_sentence():
    assert len({status.message for status in SolveStatus}) == len(SolveStatus)


def test_a_lane_does_not_feel_its_neighbors():
    rng = np.random.default_rng(1)
    times = np.linspace(0.0, 10.0, 11)
    first, second = random_rates(rng, 4), random_rates(rng, 4)
    second[0] = first[0]
    second[2] = np.nan  # a neighbor that fails
    one = run(pollu, POLLU_START, first, times).states[0]
    other = run(pollu, POLLU_START, second, times).states[0]
    np.testing.assert_allclose(one, other, rtol=1e-12)  # the same operations in the same order


def test_single_lane_is_like_one_of_many():
    rng = np.random.default_rng(2)
    rates, times = random_rates(rng, 3), np.linspace(0.0, 10.0, 11)
    many = run(pollu, POLLU_START, rates, times).states[1]
    one = run(pollu, POLLU_START, rates[1:2], times).states[0]
    # Vectorized and scalar code may round differently, and a rounding error that changes a step
    # size changes the result by less than the tolerance 1e-6.
    np.testing.assert_allclose(one, many, rtol=1e-6, atol=1e-12)


def decays(count):
    """Rates over six decades, of very different work, in an order that means nothing."""
    rates = 10.0 ** np.random.default_rng(5).uniform(-2.0, 4.0, (count, 1))
    return rates, lambda t, y, k: -k * (y - jnp.cos(t))


def wasted(solution):
    return 1.0 - float(solution.steps.sum() / solution.work)


def test_lanes_take_up_what_waits():
    rates, field = decays(100)
    times = np.linspace(0.5, 10.0, 20)
    few = run_as_users(field, [2.0], rates, times, lanes=8)
    all_at_once = run_as_users(field, [2.0], rates, times, lanes=100)
    assert few.status.tolist() == [SolveStatus.SUCCESS] * 100
    # Each has the answer for its own rate, whatever lane it came into and when.
    np.testing.assert_array_equal(few.steps, all_at_once.steps)
    np.testing.assert_allclose(few.states, all_at_once.states, rtol=1e-10)
    k = rates[:, 0][:, None]
    phase = (k * np.cos(times) + np.sin(times)) * k / (1.0 + k**2)
    exact = phase + (2.0 - k**2 / (1.0 + k**2)) * np.exp(-k * times)
    np.testing.assert_allclose(few.states[..., 0], exact, atol=1e-5)
    # In lockstep all wait for the slowest; with a queue only the last few do.
    lockstep = 1.0 - float(few.steps.mean() / few.steps.max())
    np.testing.assert_allclose(wasted(all_at_once), lockstep, atol=1e-12)
    assert wasted(few) < 0.5 * wasted(all_at_once)


def test_only_the_rows_that_are_meant_are_solved():
    rates, field = decays(20)
    whole = run_as_users(field, [2.0], rates, [1.0, 2.0], lanes=4)
    for count in (0, 1, 4, 11):
        part = run_as_users(field, [2.0], rates, [1.0, 2.0], lanes=4, count=count)
        np.testing.assert_array_equal(part.states[:count], whole.states[:count])
        assert np.isnan(part.states[count:]).all()
        assert not part.steps[count:].any()
    begun = run_as_users(field, [2.0], rates, [0.0, 1.0], lanes=4, count=3).states
    assert (begun[:3, 0] == 2.0).all()
    assert np.isnan(begun[3:]).all()


def test_a_failure_leaves_its_lane_to_the_next():
    rates = np.array([[0.1], [1.0], [0.2], [0.3], [np.nan], [0.4]])
    solution = run(lambda t, y, k: k * y**2, [1.0], rates, [0.5, 1.5], lanes=1)
    good = np.array([0, 2, 3, 5])
    np.testing.assert_array_equal(np.flatnonzero(solution.status == SolveStatus.SUCCESS), good)
    expected = 1 / (1 - rates[good] * np.array([[0.5, 1.5]]))
    np.testing.assert_allclose(solution.states[good, :, 0], expected, rtol=1e-5)


def test_sensitivities_of_a_linear_equation_are_exact():
    times = np.array([0.0, 0.5, 2.0])
    rates = np.array([[1.0], [3.0]])

    def states(shift):
        return run(lambda t, y, k: -k * y, [1.0], rates + shift, times, rtol=1e-9).states

    tangent = jax.jacfwd(states)(0.0)[..., 0]
    # Differentiating a solution to 1e-9 a step.
    np.testing.assert_allclose(tangent, -times * np.exp(-rates * times), atol=1e-7)


def test_sensitivities_of_pollu_match_finite_differences():
    rng = np.random.default_rng(3)
    rates, times = random_rates(rng, 2), np.array([5.0, 20.0, 60.0])

    def states(log_change):
        changed = jnp.asarray(rates) * jnp.exp(log_change)[None, :]
        return run(pollu, POLLU_START, changed, times, rtol=1e-9, atol=1e-18).states

    derivative = jax.jit(jax.jacfwd(states))(jnp.zeros(25))
    value = jax.jit(states)
    scale = np.abs(np.asarray(value(jnp.zeros(25))))
    for j in (0, 2, 14, 18, 23):
        change = 1e-3 * jnp.eye(25)[j]
        difference = (value(change) - value(-change)) / 2e-3
        # Relative to each state: truncation of the difference 1e-6, its noise 1e-9 / 1e-3.
        assert np.max(np.abs(derivative[..., j] - difference) / scale) < 2e-5, j


def chain(n):
    """Decay along a chain of `n` states, with a source that depends on time."""

    def field(t, y, k):
        before = jnp.concatenate([jnp.sin(t)[None], k[0] * y[:-1]])
        return before - k[0] * y - k[1] * y**2

    return field


def ring(n):
    """As the chain, but every state feels all others through their mean."""

    def field(t, y, k):
        return jnp.roll(y, 1) * k[0] - y * (k[0] + k[1] * jnp.mean(y)) + jnp.cos(t)

    return field


@pytest.mark.parametrize(
    ("field", "start", "thetas", "times"),
    [
        (robertson, ROBERTSON_START, ROBERTSON_RATES * np.array([[0.5], [1.0]]), [0.4, 4e3]),
        (chain(4), np.ones(4), [[1.0, 0.1], [30.0, 2.0]], [0.0, 0.5, 3.0]),
        (chain(160), np.ones(160), [[1.0, 0.1], [30.0, 2.0]], [0.5, 3.0]),
        (ring(30), np.arange(30.0), [[1.0, 0.1], [30.0, 2.0]], [0.5, 3.0]),
    ],
    ids=["robertson", "non-autonomous", "looped", "dense"],
)
def test_tangents_are_the_derivative_of_what_was_computed(field, start, thetas, times):
    thetas = np.asarray(thetas)
    directions = np.eye(thetas.shape[1])
    rng = np.random.default_rng(5)
    # The start, too, may depend on the parameters.
    starts = rng.normal(size=(*np.shape(start), len(directions))) * np.asarray(start)[:, None]

    def along(direction):
        def states(step):
            changed = jnp.asarray(start) + starts @ direction * step
            return run(field, changed, thetas + direction[None] * step, times).states

        return jax.jvp(states, (0.0,), (1.0,))[1]

    expected = jax.jit(jax.vmap(along, out_axes=-1))(directions)
    tangents = jnp.broadcast_to(starts, (len(thetas), *starts.shape)), jnp.asarray(directions)
    solution = run(field, start, thetas, times, tangents=tangents)
    np.testing.assert_array_equal(solution.status, 0)
    # The same steps, compiled into another program.
    plain = run(field, start, thetas, times)
    np.testing.assert_array_equal(solution.steps, plain.steps)
    np.testing.assert_allclose(solution.states, plain.states, rtol=1e-11)
    scale = np.abs(expected).max(axis=(0, 1, 2))
    # The same sums in another order; stiff systems magnify rounding.
    assert (np.abs(solution.tangents - expected) / scale).max() < 1e-9


def test_those_equations_cover_every_form_of_the_elimination():
    fields = {Form.UNROLLED: (chain(4), 4), Form.LOOPED: (chain(160), 160)}
    fields[Form.DENSE] = ring(30), 30
    for form, (field, size) in fields.items():
        assert BatchLast(trace_field(field, size, 2)).elimination.form is form


def test_tangents_may_be_differentiated_again():
    thetas = np.array([[1.0, 0.1], [3.0, 2.0]])
    tangents = jnp.zeros((2, 4, 2)), jnp.eye(2)

    def plain(change):
        return run(chain(4), np.ones(4), thetas + change[None], [0.5, 3.0]).states

    def explicit(change):
        changed = thetas + change[None]
        return run(chain(4), np.ones(4), changed, [0.5, 3.0], tangents=tangents).tangents

    expected = jax.jacfwd(jax.jacfwd(plain))(jnp.zeros(2))
    np.testing.assert_allclose(jax.jacfwd(explicit)(jnp.zeros(2)), expected, atol=1e-10)


def test_many_lanes_write_their_outputs_alike():
    rates, field = decays(90)
    times = np.array([0.0, 0.1, 0.2, 0.2, 0.3, 0.4, 0.5, 2.0, 2.5])
    tangents = jnp.zeros((90, 1, 1)), jnp.ones((1, 1))
    few = run_as_users(field, [2.0], rates, times, lanes=8, tangents=tangents)
    many = run_as_users(field, [2.0], rates, times, lanes=90, tangents=tangents)
    np.testing.assert_array_equal(few.steps, many.steps)
    np.testing.assert_allclose(few.states, many.states, rtol=1e-12)
    np.testing.assert_allclose(few.tangents, many.tangents, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    "tangents",
    [
        (np.zeros((1, 1, 1)), np.ones((1, 1))),
        (np.zeros((2, 1, 2)), np.ones((1, 1))),
        (np.zeros((2, 1, 1)), np.ones((2, 1))),
        (np.zeros((2, 1, 1), np.float32), np.ones((1, 1))),
    ],
)
def test_tangents_of_another_shape_are_refused(tangents):
    with pytest.raises(Exception, match="tangents"):
        solve_ensemble(
            lambda t, y, k: -k * y,
            jnp.ones((2, 1)),
            jnp.ones((2, 1)),
            jnp.ones(1),
            tangents=tuple(map(jnp.asarray, tangents)),
        )


def test_tangents_of_a_failed_solve_are_nan_and_harm_no_other():
    thetas, times = np.array([[0.5], [1.6], [0.7]]), [0.5, 1.0]
    tangents = jnp.zeros((3, 1, 1)), jnp.ones((1, 1))
    solution = run(lambda t, y, k: k * y**2, [1.0], thetas, times, tangents=tangents, rtol=1e-9)
    np.testing.assert_array_equal(solution.status == SolveStatus.SUCCESS, [True, False, True])
    assert np.isnan(solution.tangents[1, 1]).all()
    good, t = thetas[[0, 2]], np.array(times)
    expected = t / (1.0 - good * t) ** 2
    # Differentiating a solution to 1e-9 a step.
    np.testing.assert_allclose(solution.tangents[[0, 2], :, 0, 0], expected, rtol=1e-6)


def test_initial_states_have_sensitivities_too():
    def end(y0):
        return run(lambda t, y, k: -k * y, y0, [[2.0]], [1.0], rtol=1e-9).states[0, 0, 0]

    np.testing.assert_allclose(jax.jacfwd(end)(jnp.array([1.5])), [np.exp(-2.0)], rtol=1e-7)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"initial_states": np.ones(2)}, "initial_states"),
        ({"thetas": np.ones((3, 1))}, "thetas"),
        ({"times": np.ones((3, 2))}, "times"),
        ({"times": np.ones((2, 1, 1))}, "times"),
        ({"times": np.ones(0)}, "times"),
        ({"thetas": np.ones((2, 1), np.float32)}, "thetas"),
        ({"vector_field": lambda t, y, k: y[0]}, "vector_field"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_arguments_are_named(change, name):
    arguments = {
        "vector_field": lambda t, y, k: -k * y,
        "initial_states": np.ones((2, 1)),
        "thetas": np.ones((2, 1)),
        "times": np.ones(1),
        **change,
    }
    field = arguments.pop("vector_field")
    with pytest.raises(Exception, match=name):  # jaxtyping reports some of them first
        solve_ensemble(field, **{k: jnp.asarray(v) for k, v in arguments.items()})


def test_no_lanes_are_refused():
    with pytest.raises(ValueError, match="`lanes` must be at least 1; got 0"):
        run(lambda t, y, k: -k * y, [1.0], [[1.0]], [1.0], lanes=0)


def test_single_precision_is_refused():
    with jax.enable_x64(False), pytest.raises(RuntimeError, match="64-bit"):
        solve_ensemble(lambda t, y, k: -k * y, jnp.ones((2, 1)), jnp.ones((2, 1)), jnp.ones(1))
