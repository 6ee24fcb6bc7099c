"""Units and origins leave solutions as they are; what steps could skip is told."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from inojax import ODEModel
from tests.solvers.inputs import looped

TIMES = np.linspace(0.5, 12.0, 24)
THETA = np.array([1.0, 0.5, 0.3, 0.8])


def model(state=(1.0, 1.0), time=1.0, origin=0.0, start=(2.0, 1.0), **settings):
    """Prey and predator in units of `state` and `time`, from an origin of time on."""
    unit = np.array(state)

    def field(t, y, p):
        del t
        x, z = y[0] / unit[0], y[1] / unit[1]
        slopes = jnp.stack([(p[0] - p[1] * z) * x, (p[2] * x - p[3]) * z])
        return slopes * unit / time

    return ODEModel(
        field,
        np.array(start) * unit,
        times=origin + TIMES * time,
        initial_time=origin,
        states=("prey", "predator"),
        **settings,
    )


def solved(model, unit):
    solution, derivatives = model.sensitivities(THETA[None])
    assert solution.status[0] == 0
    one = model.solve(THETA)
    np.testing.assert_allclose(one.states, solution.states[0], rtol=1e-9)
    return solution.states[0] / unit, derivatives[0] / np.array(unit)[:, None]


UNITS = {
    "both states small": ((1e-12, 1e-12), 1.0),
    "both states large": ((1e12, 1e12), 1.0),
    "one small": ((1e-9, 1.0), 1.0),
    "one small, one large": ((1e12, 1e-12), 1.0),
    "short times": ((1.0, 1.0), 1e-12),
    "long times": ((1.0, 1.0), 1e12),
    "all": ((1e-12, 1e6), 1e9),
}


@pytest.mark.parametrize("name", UNITS)
def test_units_of_states_and_of_time_do_not_matter(name):
    unit, time = UNITS[name]
    expected, slopes = solved(model(), (1.0, 1.0))
    found, derivatives = solved(model(unit, time), unit)
    # The same steps, with other rounding errors.
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(derivatives, slopes, rtol=1e-7, atol=1e-8)


def test_the_origin_of_time_does_not_matter():
    expected, _ = solved(model(), (1.0, 1.0))
    found, _ = solved(model(origin=2459000.5), (1.0, 1.0))
    # Julian days are known to 5e-10.
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def chain(units):
    """Seven substances, each made from the one before: all but the first begin at zero."""
    units = np.array(units)

    def field(t, y, p):
        del t
        x = y / units
        made = jnp.concatenate([jnp.zeros(1), p[0] * x[:-1]])
        return (made - p[0] * x) * units

    start = np.zeros(7)
    start[0] = units[0]
    names = tuple("abcdefg")
    return ODEModel(field, start, times=[0.3, 1.0, 4.0], states=names)


@pytest.mark.parametrize("units", [np.ones(7), 10.0 ** np.array([0, -12, 12, -6, 0, 9, -12])])
def test_states_that_begin_at_zero_have_the_tolerance_of_their_size(units):
    solution = chain(units).solve_ensemble(np.array([[1.0]]))
    t = np.array([0.3, 1.0, 4.0])[:, None]
    k = np.arange(7)
    factorials = np.array([1, 1, 2, 6, 24, 120, 720])
    exact = np.exp(-t) * t**k / factorials  # the distribution of Poisson
    largest = exact.max(axis=0)
    # Of each in relation to its own size.
    np.testing.assert_allclose(solution.states[0] / units / largest, exact / largest, atol=3e-6)
    assert solution.steps[0] < 120


def test_what_is_zero_but_for_rounding_stops_no_solve():
    def field(t, y, p):
        del t
        # What two equal states differ by: nothing, in exact arithmetic.
        return jnp.stack([-p[0] * y[0], -0.1 * y[1] * 3.0 * p[0] / 0.3, (y[0] - y[1]) * 1e3])

    m = ODEModel(field, [1.0, 1.0, 0.0], times=[1.0, 30.0], states=("a", "b", "difference"))
    solution = m.solve_ensemble(np.array([[0.3]]))
    assert solution.status[0] == 0
    assert solution.steps[0] < 200
    np.testing.assert_allclose(solution.states[0, :, 2], 0.0, atol=1e-10)


def gaussian(width):
    def field(t, y, p):
        return jnp.exp(-0.5 * jnp.square((t - 6.1) / width)) - p[0] * y

    return field


def driven(field, **settings):
    return ODEModel(field, [0.0], times=np.arange(1.0, 13.0), states=("c",), **settings)


def test_a_narrow_pulse_that_is_no_switch_is_told():
    with pytest.warns(
        UserWarning, match=r"between the times 6\.0.* and 6\.1.*`breakpoints`.*`max_step`"
    ):
        driven(gaussian(0.01)).solve(np.array([0.2]))


@pytest.mark.parametrize(
    "m",
    [
        driven(gaussian(1.0)),
        driven(lambda t, y, p: jnp.sin(t) - p[0] * y),
        driven(lambda t, y, p: jnp.sin(20.0 * t) - p[0] * y),
        driven(lambda t, y, p: jnp.exp(-t / 0.01) - p[0] * y),
        driven(lambda t, y, p: 1.0 + 1e-14 * jnp.sin(1e3 * t) - p[0] * y),
        driven(gaussian(0.01), max_step=0.02),
        driven(gaussian(0.01), breakpoints=[6.05, 6.1]),
        driven(lambda t, y, p: jnp.where((t > 6.0) & (t < 6.001), 1.0, 0.0) - p[0] * y),
    ],
)
def test_what_steps_meet_is_not_told(m):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        m.solve(np.array([0.2]))


def test_states_below_their_tolerance_are_told_where_they_are_wrong():
    small = (1e-9, 1e-9)
    with pytest.warns(UserWarning, match=r"prey, predator stay below `atol`.*off by"):
        model(small, atol=1e-8).solve_ensemble(THETA[None])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(small, atol=1e-19).solve_ensemble(THETA[None])


def test_derivatives_that_tolerances_do_not_control_are_told():
    """The phase of an oscillation moves by the time: errors of derivatives grow with it."""

    def field(t, y, theta):
        return jnp.stack([y[1], -jnp.square(theta[0]) * y[0]])

    m = ODEModel(field, [1.0, 0.0], times=np.linspace(1.0, 60.0, 20), states=("x", "v"), rtol=1e-2)
    with pytest.warns(UserWarning, match=r"derivatives by parameter 0 are off by up to \d+%"):
        m.sensitivities(np.array([[3.0]]))


def test_choices_that_tracing_cannot_look_into_are_told():
    with pytest.warns(UserWarning, match=r"chooses by time or state inside of while"):
        driven(lambda t, y, p: looped(t, 5.0) - p[0] * y).solve(np.array([0.2]))


def test_a_pulse_that_multiplies_a_state_of_zero_is_told():
    def field(t, y, p):
        return p[0] - y * 1000.0 * jnp.exp(-jnp.square((t - 6.1) / 0.005))

    with pytest.warns(UserWarning, match="between the times"):
        driven(field).solve(np.array([0.2]))
