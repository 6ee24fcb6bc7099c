import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inojax import ODEModel
from tests.solvers.inputs import INPUTS, THETA, TIMES, looped, pulses, solution

RTOL = 1e-8
# Errors of some steps of that tolerance, on solutions of order one.
CLOSE = 3e-7


def differences(function, theta, h=1e-6):
    """Derivatives of a closed form: rounding over h, and h²."""
    columns = [(function(theta + h * e) - function(theta - h * e)) / (2 * h) for e in np.eye(3)]
    return np.stack(columns, axis=-1)


def driven(u, **settings):
    def field(t, y, theta):
        return u(t, theta) - theta[0] * y

    return ODEModel(field, [0.0], times=TIMES, states=("y",), rtol=RTOL, **settings)


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_that_jump_or_bend_are_met_and_differentiated(name):
    u, knots = INPUTS[name]
    found, derivatives = driven(u).sensitivities(THETA[None])
    assert found.status[0] == 0
    np.testing.assert_allclose(found.states[0, :, 0], solution(THETA, knots(THETA)), atol=CLOSE)
    expected = differences(lambda p: solution(p, knots(p)), THETA)
    np.testing.assert_allclose(derivatives[0, :, 0], expected, atol=10 * CLOSE)


@pytest.mark.parametrize("tolerances", [{}, {"rtol": 1e-12, "atol": 1e-14}])
def test_a_quarter_of_an_hour_twice_a_day(tolerances):
    """The state of `solve` and `solve_ensemble` is the closed form, whatever is asked for."""
    starts, length, k = 12.0 * np.arange(6), 0.25, 0.2
    times = np.array([0.5, 11.5, 12.5, 23.5, 24.5, 36.0, 48.5, 60.5])

    def field(t, y, theta):
        on = jnp.asarray(starts)
        rate = jnp.sum(jnp.where((t >= on) & (t < on + length), 1.0 / length, 0.0))
        return jnp.stack([rate - theta[0] * y[0]])

    since = np.maximum(times[:, None] - starts, 0.0)
    within = np.minimum(since, length)
    exact = np.sum(-np.expm1(-k * within) * np.exp(-k * (since - within)), axis=1) / (length * k)
    model = ODEModel(field, [0.0], times=times, states=("c",)).replace(**tolerances)
    for found in (
        model.solve(np.array([k])).states,
        model.solve_ensemble(np.array([[k]])).states[0],
    ):
        np.testing.assert_allclose(found[:, 0], exact, rtol=1e-5)


def test_given_breakpoints_serve_what_tracing_cannot_look_into():
    model = driven(lambda t, p: looped(t, p[1]), breakpoints=lambda p: p[1:3])
    found, derivatives = model.sensitivities(THETA[None])
    expected = solution(THETA, pulses(THETA[1]))
    np.testing.assert_allclose(found.states[0, :, 0], expected, atol=CLOSE)
    expected = differences(lambda p: solution(p, pulses(p[1])), THETA)
    np.testing.assert_allclose(derivatives[0, :, 0], expected, atol=10 * CLOSE)
    # Constant ones as well.
    model = driven(lambda t, p: looped(t, 1.05), breakpoints=[1.05])
    found = model.solve_ensemble(THETA[None])
    np.testing.assert_allclose(found.states[0, :, 0], solution(THETA, pulses(1.05)), atol=CLOSE)


@pytest.mark.parametrize("mode", ["reverse", "forward", "through the steps"])
def test_every_way_to_differentiate_crosses_breaks(mode):
    u, knots = INPUTS["window"]
    model = driven(u)
    with jax.enable_x64(True):

        def states(theta):
            if mode == "through the steps":
                return model.solve_ensemble(theta[None]).states[0, :, 0]
            return model.solve(theta).states[:, 0]

        jacobian = jax.jacrev(states) if mode == "reverse" else jax.jacfwd(states)
        found = np.asarray(jax.jit(jacobian)(jnp.asarray(THETA)))
    expected = differences(lambda p: solution(p, knots(p)), THETA)
    np.testing.assert_allclose(found, expected, atol=10 * CLOSE)


def test_second_derivatives_cross_breaks():
    u, knots = INPUTS["window"]
    model = driven(u)
    with jax.enable_x64(True):

        def last(theta):
            return model.solve_ensemble(theta[None]).states[0, -1, 0]

        found = np.asarray(jax.jit(jax.jacfwd(jax.jacfwd(last)))(jnp.asarray(THETA)))

    def slopes(theta):
        return differences(lambda p: solution(p, knots(p)), theta, 1e-4)[-1]

    np.testing.assert_allclose(found, differences(slopes, THETA, 1e-4), atol=1e-5)


def test_two_that_jump_at_the_same_time_are_told_apart():
    def field(t, y, theta):
        return (
            jnp.where(t >= theta[1], 1.0, 0.0) + jnp.where(t >= theta[2], 2.0, 0.0) - theta[0] * y
        )

    def exact(p):
        return solution(p, pulses(p[1])) + 2.0 * solution(p, pulses(p[2]))

    theta = np.array([0.5, 1.0, 1.0])
    model = ODEModel(field, [0.0], times=TIMES, states=("y",), rtol=RTOL)
    found, derivatives = model.sensitivities(theta[None])
    np.testing.assert_allclose(found.states[0, :, 0], exact(theta), atol=CLOSE)
    np.testing.assert_allclose(derivatives[0, :, 0], differences(exact, theta), atol=10 * CLOSE)


def test_trajectories_of_one_call_have_breaks_of_their_own():
    u, knots = INPUTS["window"]
    thetas = THETA + 0.3 * np.random.default_rng(0).uniform(0, 1, (70, 3))
    found = driven(u).solve_ensemble(thetas)
    expected = np.stack([solution(theta, knots(theta)) for theta in thetas])
    np.testing.assert_allclose(found.states[:, :, 0], expected, atol=CLOSE)


def crossing(t, y, theta):
    """x grows at the rate a; while it exceeds b the second state does, too."""
    return jnp.stack([theta[0] + 0.0 * y[0], jnp.where(y[0] > theta[1], 1.0, 0.0) * theta[2]])


def test_thresholds_of_the_state_are_differentiated():
    theta = np.array([0.8, 1.2, 2.0])
    model = ODEModel(crossing, [0.0, 0.0], times=TIMES, states=("x", "y"), rtol=RTOL)
    found, derivatives = model.sensitivities(theta[None])

    def exact(p):
        return p[2] * np.maximum(TIMES - p[1] / p[0], 0.0)

    np.testing.assert_allclose(found.states[0, :, 1], exact(theta), atol=CLOSE)
    np.testing.assert_allclose(derivatives[0, :, 1], differences(exact, theta), atol=10 * CLOSE)
    assert found.steps[0] < 60


def bouncing(t, y, theta):
    """A force of constant size towards the origin: parabolas, one after the other."""
    return jnp.stack([y[1], -theta[0] * jnp.sign(y[0])])


def test_a_threshold_that_is_passed_again_and_again():
    a, times = 1.3, np.linspace(0.3, 12.0, 40)
    model = ODEModel(bouncing, [1.0, 0.0], times=times, states=("x", "v"), rtol=RTOL)
    found, derivatives = model.sensitivities(np.array([[a]]))

    def exact(a):
        quarter = np.sqrt(2.0 / a)
        phase = np.mod(times / quarter, 4.0)
        inner = np.where(phase < 2.0, phase, phase - 2.0)
        x = 1.0 - np.square(np.where(inner < 1.0, inner, 2.0 - inner))
        falling = np.where(phase < 1.0, x, np.where(phase < 3.0, -x, x))
        return falling

    np.testing.assert_allclose(found.states[0, :, 0], exact(a), atol=3e-6)
    slope = (exact(a + 1e-6) - exact(a - 1e-6)) / 2e-6
    np.testing.assert_allclose(derivatives[0, :, 0, 0], slope, atol=3e-5)


@pytest.mark.parametrize(
    "field",
    [
        lambda t, y, p: jnp.where(y > 0.0, -jnp.sqrt(jnp.where(y > 0.0, y, 1.0)), 0.0),
        lambda t, y, p: jnp.where(y > 0.0, -jnp.sqrt(y), 0.0),
    ],
)
def test_guards_against_negative_states_cost_nothing_in_truth(field):
    """An emptying tank: the level reaches zero at t = 2, and stays there."""
    model = ODEModel(field, [1.0], times=[1.0, 1.9, 3.0], states=("level",), atol=1e-9)
    found = model.solve_ensemble(np.array([[1.0]]))
    assert found.status[0] == 0
    np.testing.assert_allclose(found.states[0, :, 0], [0.25, 0.0025, 0.0], atol=1e-5)


def test_a_longest_step_is_kept():
    def pulse(t, y, theta):
        return jnp.exp(-jnp.square((t - 3.0) / 0.01)) - theta[0] * y

    model = ODEModel(pulse, [0.0], times=[5.0], states=("y",), max_step=0.02)
    area = 0.01 * np.sqrt(np.pi)
    found = model.solve(np.array([0.5])).states[0, 0]
    # The area decays from its middle on, up to the square of its width.
    np.testing.assert_allclose(found, area * np.exp(-0.5 * 2.0), rtol=1e-4)


@jax.custom_jvp
def safe_root(x):
    return jnp.sqrt(jnp.maximum(x, 0.0))


@safe_root.defjvp
def _(primals, tangents):
    (x,), (dx,) = primals, tangents
    root = safe_root(x)
    return root, jnp.where(x > 0.0, dx * 0.5 / jnp.where(x > 0.0, root, 1.0), 0.0)


CLOCK = np.array([2.0, 4.0, 8.0, 10.0])
# Right-hand sides beside a clock x, and what they add up to.
BESIDE_A_CLOCK = {
    "a guard of a division": (
        lambda t, x, p: jnp.where(x == 0.0, 0.0, x / jnp.where(x == 0.0, 1.0, x)),
        lambda p: CLOCK,
    ),
    "sign from zero on": (lambda t, x, p: jnp.sign(x), lambda p: CLOCK),
    "a window of the state": (
        lambda t, x, p: jnp.where((x >= p[0]) & (x < 5.25), 4.0, 0.0),
        lambda p: 4.0 * np.clip(CLOCK - p[0], 0.0, 5.25 - p[0]),
    ),
    "a short window of the state": (
        lambda t, x, p: jnp.where((x >= p[0]) & (x < p[0] + 0.25), 4.0, 0.0),
        lambda p: 4.0 * np.clip(CLOCK - p[0], 0.0, 0.25),
    ),
}


@pytest.mark.parametrize("name", BESIDE_A_CLOCK)
def test_states_that_go_through_points_and_windows(name):
    rate, exact = BESIDE_A_CLOCK[name]

    def field(t, y, p):
        return jnp.stack([1.0 + 0.0 * y[0], rate(t, y[0], p)])

    model = ODEModel(field, [0.0, 0.0], times=CLOCK, states=("x", "y"))
    theta = np.array([5.0])
    found, derivatives = model.sensitivities(theta[None])
    np.testing.assert_allclose(found.states[0, :, 1], exact(theta), atol=1e-5)
    slope = (exact(theta + 1e-6) - exact(theta - 1e-6)) / 2e-6
    np.testing.assert_allclose(derivatives[0, :, 1, 0], slope, atol=1e-4)


def test_a_state_may_say_when_an_input_comes():
    def field(t, y, p):
        start = y[0] + p[0]
        return jnp.stack([0.0 * y[0], jnp.where((t >= start) & (t < start + 0.25), 4.0, 0.0)])

    model = ODEModel(field, [2.0, 0.0], times=CLOCK, states=("start", "y"))
    found, derivatives = model.sensitivities(np.array([[3.1]]))
    np.testing.assert_allclose(found.states[0, :, 1], [0.0, 0.0, 1.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(derivatives[0, :, 1, 0], 0.0, atol=1e-6)


def test_derivatives_of_the_users_own_are_kept():
    def field(t, y, p):
        return jnp.stack([jnp.where(y[1] > 3.0, 1.0, 2.0) - safe_root(y[0]), 1.0 + 0.0 * y[0]])

    model = ODEModel(field, [0.0, 0.0], times=CLOCK, states=("x", "clock"))
    assert model.solve_ensemble(np.array([[1.0]])).status[0] == 0


def test_large_numbers_in_a_comparison_are_rounded_more_coarsely_than_times():
    seconds = 1.7e9

    def field(t, y, p):
        return jnp.stack([jnp.where(seconds + t > seconds + p[0], 1.0, 0.0) + 0.0 * y[0]])

    model = ODEModel(field, [0.0], times=CLOCK, states=("y",))
    found, derivatives = model.sensitivities(np.array([[5.1]]))
    # Times are known to a quarter of a microsecond.
    np.testing.assert_allclose(found.states[0, :, 0], [0.0, 0.0, 2.9, 4.9], atol=1e-5)
    np.testing.assert_allclose(derivatives[0, :, 0, 0], [0.0, 0.0, -1.0, -1.0], atol=1e-5)
