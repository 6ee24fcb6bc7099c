"""An estimate depends on what was read, not on how it was written or in which units.

Networks are hardly trained: what is tested is that they see the same.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

import inojax as ij
from inojax import methods, nn
from inojax._inverse_problem import measure
from inojax._unfamiliar import Unfamiliar
from inojax.methods import invert_batch
from inojax.methods.amortized._encoding import Encoder, Readings
from inojax.methods.amortized._familiar import Familiar
from inojax.methods.amortized._slots import Slots
from inojax.methods.amortized._training_data import prepare
from tests.helpers import FNO_SETTINGS
from tests.refuses import refuses

pytestmark = pytest.mark.usefixtures("compiled_quickly")

KEY = jr.key(7)
HOURS = np.arange(1.0, 13.0) / 4.0
# A Julian day.
CALENDAR = 2459000.5
READ = HOURS[[0, 2, 3, 5, 7, 8, 10, 11]]
RATES = (0.2, 3.0), (0.1, 1.0)
# Noise of either state.
LEVEL = np.array([0.05, 0.03])


@dataclasses.dataclass(frozen=True)
class Units:
    """How numbers are written: a time is `origin + time * hours`, a state is `state` as large."""

    origin: float = 0.0
    time: float = 1.0
    state: tuple[float, float] = (1.0, 1.0)

    def times(self, hours: Any) -> np.ndarray:
        return self.origin + self.time * np.asarray(hours)


PLAIN = Units()
OTHER = {
    "calendar": Units(origin=CALENDAR, time=1.0 / 24.0, state=(1e-12, 1e12)),
    "long": Units(origin=-3e13, time=1e12, state=(1e12, 1e-9)),
    "short": Units(time=1e-12, state=(3e-12, 1e-12)),
}


def a_to_b(unit_rates, hours):
    """A decays to B, which decays: its two states in closed form."""
    k1, k2 = (unit_rates[..., i, None] for i in range(2))
    a = np.exp(-k1 * hours)
    return np.stack([a, k1 / (k1 - k2) * (np.exp(-k2 * hours) - a)], axis=-1)


def make(sensors, units=PLAIN, observable=None, noise=None):
    """The problem in some units, and simulations of it."""
    size = np.array(units.state)
    space = ij.ParameterSpace(
        tuple(
            ij.Parameter(f"k{i}", dist.LogUniform(low / units.time, high / units.time))
            for i, (low, high) in enumerate(RATES, start=1)
        )
    )

    def field(t, y, k):
        a, b = y[0] / size[0], y[1] / size[1]
        return jnp.stack([-k[0] * a * size[0], (k[0] * a - k[1] * b) * size[1]])

    model = ij.ODEModel(
        field,
        size * np.array([1.0, 0.0]),
        times=units.times(HOURS),
        states=("A", "B"),
        initial_time=units.origin,
        atol=1e-9 * size,
    )
    channels = ("A", "B")
    times = {"fixed": ij.FixedTimes(units.times(READ)), "drawn": ij.RandomTimes(5)}[sensors]
    noise = ij.noise.Gaussian(LEVEL * size) if noise is None else noise
    sensors = ij.Sensors(times, channels=channels, missing=0.1, observable=observable)
    problem = ij.InverseProblem("chain", space, model, sensors, noise)
    return problem, simulations(problem, units)


def simulations(problem, units=PLAIN, n=200):
    unit = np.random.default_rng(0).uniform(0.02, 0.98, (n, 2))
    thetas = np.asarray(problem.parameters.from_unit(unit))
    states = a_to_b(thetas * units.time, HOURS) * np.array(units.state)
    return ij.Dataset(
        thetas,
        unit,
        times=units.times(HOURS),
        trajectories=states,
        status=np.zeros(n, np.int32),
    )


BRIEF = {
    "Regression": methods.Regression(width=16, depth=2, steps=20, batch=32, draws=8),
    "INO": methods.INO(
        methods.SurrogateSettings(FNO_SETTINGS, steps=10, batch=16, correction=(8,)),
        methods.DriftSettings(width=16, depth=1, steps=10, batch=16, pool=32),
        particles=2,
        moves=2,
        draws=8,
    ),
    "InverseMap": methods.InverseMap(nn.Dense((16,)), steps=20, batch=32, mask_rate=0.5, draws=8),
}
CASES = [
    (name, sensors)
    for name in BRIEF
    for sensors in ("fixed", "drawn")
    if (name, sensors) != ("InverseMap", "drawn")
]


# These two read through an observable where times are fixed.
THROUGH = ("INO", "InverseMap")


def doubled(y, k):
    return jnp.stack([y[0], 2.0 * y[1]])


@functools.cache
def fitted(name, sensors, units=PLAIN):
    through = doubled if sensors == "fixed" and name in THROUGH else None
    problem, data = make(sensors, units, observable=through)
    return BRIEF[name].fit(problem, data, progress=False, key=KEY)


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def trained(request):
    return fitted(*request.param)


def written(problem, rows, values, units=PLAIN):
    """Rows of the output grid as an observation; NaN where nothing was read."""
    values = np.array(values) * np.array(units.state)
    there = ~np.isnan(values)
    return ij.Observation(
        units.times(HOURS[rows]),
        np.where(there, values, 0.0),
        there,
        problem.channels,
        problem.name,
    )


def alone(inverter, observation):
    """The estimate in unit coordinates, by the same random numbers each time."""
    batch = jax.tree.map(lambda x: np.asarray(x)[None], observation)
    estimate = invert_batch(inverter, batch, key=KEY)
    samples = inverter.problem.parameters.to_unit(np.asarray(estimate.samples[0], np.float64))
    return np.concatenate([np.asarray(estimate.unit_value), samples])


def readings():
    """Four rows, one of which lacks a reading."""
    rows = np.array([2, 5, 8, 11])
    values = a_to_b(np.array([1.0, 0.2]), HOURS)[rows]
    values = values + LEVEL * np.random.default_rng(1).normal(size=values.shape)
    values[1, 0] = np.nan
    return rows, values


def other_ways(rows, values):
    """The same readings written otherwise."""
    nothing = np.full((1, 2), np.nan)
    yield "rows in another order", rows[[2, 0, 3, 1]], values[[2, 0, 3, 1]]
    for place in (0, 2, 4):
        empty = np.insert(rows, place, 3), np.insert(values, place, nothing, axis=0)
        yield f"an empty row at {place}", *empty
    yield (
        "repeated rows without readings",
        np.append(rows, [11] * 4),
        np.concatenate([values, np.repeat(nothing, 4, axis=0)]),
    )
    first, second = np.array([[1.0, np.nan]]), np.array([[np.nan, 1.0]])
    yield (
        "a row for each reading",
        np.repeat(rows, 2),
        np.stack([values * first, values * second], axis=1).reshape(-1, 2),
    )
    yield (
        "channels one after the other",
        np.tile(rows, 2),
        np.concatenate([values * second, values * first]),
    )


def test_only_what_was_read_counts(trained):
    problem = trained.problem
    rows, values = readings()
    expected = alone(trained, written(problem, rows, values))
    assert np.isfinite(expected).all()
    for name, other_rows, other_values in other_ways(rows, values):
        found = alone(trained, written(problem, other_rows, other_values))
        # The same numbers go through the same program.
        np.testing.assert_array_equal(found, expected, err_msg=name)
    # Another reading makes another estimate.
    other = values + np.where(np.arange(4)[:, None] == 2, 0.2, 0.0)
    assert np.abs(alone(trained, written(problem, rows, other)) - expected).max() > 1e-4


def test_only_what_was_read_counts_inside_a_transformation(trained):
    problem = trained.problem
    rows, values = readings()
    expected = alone(trained, written(problem, rows, values))
    key = jr.split(KEY, 1)[0]
    # Every way has eight rows, so that it is compiled once.
    ways = [("as it was", rows, values), *other_ways(rows, values)]
    padded = [written(problem, r, v).padded(8) for _, r, v in ways]
    batch = jax.tree.map(lambda *x: np.stack(x), *padded)
    found = jax.jit(jax.vmap(lambda o: trained(o, key=key)))(batch)
    for (name, _, _), unit in zip(ways, np.asarray(found.unit_value), strict=True):
        # Products of other shapes, float32, and scales in single precision.
        np.testing.assert_allclose(unit, expected[0], atol=2e-5, err_msg=name)


def test_a_batch_is_its_members(trained):
    problem = trained.problem
    rows, values = readings()
    many = np.array([0, 2, 3, 5, 7, 8, 10, 11])
    clean = a_to_b(np.array([0.5, 0.4]), HOURS)
    each = [
        written(problem, rows, values),
        written(problem, rows[:1], values[:1]),
        # Eight rows are two groups where there are five slots.
        written(problem, many, clean[many]),
    ]
    batch = jax.tree.map(lambda *x: np.stack(x), *[one.padded(9) for one in each])
    keys = jr.split(KEY, 3)
    together = trained._invert(batch, keys)
    for index, one in enumerate(each):
        single = jax.tree.map(lambda x: np.asarray(x)[None], one)
        single = trained._invert(single, keys[index : index + 1])
        for field in ("unit_value", "samples"):
            both = (np.asarray(getattr(e, field)) for e in (together, single))
            # Products of other shapes, float32; a group of nothing has a weight of 1e-12.
            np.testing.assert_allclose(next(both)[index], next(both)[0], atol=5e-5)


@pytest.mark.parametrize(
    ("name", "sensors", "units"),
    [
        ("Regression", "fixed", "calendar"),
        ("Regression", "drawn", "long"),
        ("InverseMap", "fixed", "short"),
        ("INO", "drawn", "calendar"),
    ],
)
def test_units_and_origin_do_not_matter(name, sensors, units):
    rows, values = readings()
    plain, other = fitted(name, sensors), fitted(name, sensors, OTHER[units])
    expected = alone(plain, written(plain.problem, rows, values))
    found = alone(other, written(other.problem, rows, values, OTHER[units]))
    # Rounding in float32, after a few steps of an optimizer that divides by gradients.
    np.testing.assert_allclose(found, expected, atol=2e-3)
    if units != "calendar" or name == "INO":
        return
    # Inside a transformation, where times need double precision.
    one = written(other.problem, rows, values, OTHER[units])
    key = jr.split(KEY, 1)[0]
    with jax.enable_x64(True):
        traced = jax.jit(lambda o: other(o, key=key))(one)
        np.testing.assert_allclose(traced.unit_value, found[0], atol=2e-5)
    with refuses(RuntimeError, "too close to each other for float32.*`invert_batch` outside"):
        jax.jit(lambda o: other(o, key=key))(one)
    rounded = dataclasses.replace(one, times=one.times.astype(np.float32))
    with refuses(ValueError, "`observation` has times .*double precision"):
        other(rounded, key=key)


# --- What networks were not trained for ------------------------------------------------------


def ticket(inverter, observation):
    batch = jax.tree.map(lambda x: np.asarray(x)[None], observation)
    flags = inverter._unfamiliar(batch)
    assert flags.shape == (1,)
    np.testing.assert_array_equal(inverter._unfamiliar(observation), flags[0])
    return Unfamiliar(int(flags[0]))


def full(rows):
    return a_to_b(np.array([1.0, 0.2]), HOURS)[rows]


def test_a_reading_without_a_slot_is_refused():
    for name in BRIEF:
        inverter = fitted(name, "fixed")
        rows = np.array([0, 2, 4])  # the last is an output time, but none that is read
        one = written(inverter.problem, rows, full(rows))
        with refuses(ValueError, "reading at time 1.25, but .*8 readings from 0.25 to 3 in steps"):
            inverter(one, key=KEY)
        batch = jax.tree.map(lambda x: np.asarray(x)[None], one)
        with refuses(ValueError, "reading at time 1.25"):
            invert_batch(inverter, batch, key=KEY)
        if name == "INO":
            continue  # it takes longest to compile, and shares this with regression
        traced = jax.jit(inverter)
        assert np.isnan(traced(one, key=KEY).value).all()
        assert np.isnan(traced(one, key=KEY).samples).all()
        # Where nothing was read, a time does not matter.
        less = dataclasses.replace(one, mask=one.mask & (rows != 4)[:, None])
        assert np.isfinite(alone(inverter, less)).all()
        assert np.isfinite(traced(less, key=KEY).value).all()


@pytest.mark.parametrize("sensors", ["fixed", "drawn"])
def test_two_readings_for_one_slot_are_refused(sensors):
    inverter = fitted("Regression", sensors)
    rows = np.array([2, 2, 5])
    twice = written(inverter.problem, rows, full(rows))
    with refuses(ValueError, "two rows at the same time 0.75 that both read 'A'. Several readings"):
        inverter(twice, key=KEY)
    assert np.isnan(jax.jit(inverter)(twice, key=KEY).value).all()


def test_times_off_by_rounding_find_their_slots():
    inverter = fitted("Regression", "fixed", OTHER["calendar"])
    rows, values = (x[:3] for x in readings())
    one = written(inverter.problem, rows, values, OTHER["calendar"])
    # A second of a quarter of an hour, and what double precision leaves of a Julian day.
    for shift in (0.5 / 86400.0, -4e-10):
        moved = dataclasses.replace(one, times=one.times + shift)
        np.testing.assert_array_equal(alone(inverter, moved), alone(inverter, one))
    away = dataclasses.replace(one, times=one.times - 60.0 / 86400.0)
    with refuses(ValueError, "reading at time 2459000.53"):
        inverter(away, key=KEY)


def test_more_rows_than_slots_are_told():
    inverter = fitted("Regression", "drawn")
    rows = np.array([0, 2, 3, 5, 7, 8])
    assert ticket(inverter, written(inverter.problem, rows, full(rows))) == Unfamiliar.MORE_ROWS
    rows = rows[:5]
    assert ticket(inverter, written(inverter.problem, rows, full(rows))) == Unfamiliar.NOTHING


def test_groups_of_correlated_rows_are_refused():
    noise = ij.noise.AR1(ij.noise.Gaussian(LEVEL), 0.5, step=0.25)
    problem, _ = make("drawn", noise=noise)
    inverter = BRIEF["Regression"]._untrained(problem, Encoder.blank(problem))
    rows = np.array([0, 2, 3, 5, 7, 8])
    many = written(problem, rows, full(rows))
    with refuses(
        ValueError, "has 6 rows, but the sensors of problem 'chain' take 5, and its noise"
    ):
        inverter(many, key=KEY)
    traced = jax.jit(inverter)
    assert np.isnan(traced(many, key=KEY).value).all()
    few = dataclasses.replace(many, mask=many.mask & (rows != 8)[:, None])
    assert np.isfinite(traced(few, key=KEY).value).all()


def test_readings_between_output_times_are_told():
    inverter = fitted("Regression", "drawn")
    rows = np.array([0, 2, 5, 8, 11])
    one = written(inverter.problem, rows, full(rows))
    between = dataclasses.replace(one, times=one.times + np.array([0.0, 0.0, 0.1, 0.0, 0.0]))
    assert ticket(inverter, between) == Unfamiliar.BETWEEN_TIMES
    estimate = inverter(between, key=KEY)
    assert estimate.ticket.verdict >= ij.Verdict.CHECK
    assert any("between output times" in reason for reason in estimate.ticket.reasons)


def familiar(missing, mask_rate, patterns=False, count=20):
    """What is familiar to a network of two channels read at so many fixed times."""
    hours = np.arange(1.0, count + 1)
    problem, _ = make("fixed")
    model = problem.model.replace(times=hours)
    sensors = ij.Sensors(ij.FixedTimes(hours), missing=missing)
    problem = ij.InverseProblem("chain", problem.parameters, model, sensors, problem.noise)
    slots = Slots.of(problem)
    known = Familiar.fit(problem, slots, mask_rate=mask_rate, patterns=patterns)

    def lacks(mask):
        values = np.where(mask, 1.0, 0.0)
        one = ij.Observation(hours, values, mask, problem.channels, problem.name)
        batch = jax.tree.map(lambda x: np.asarray(x)[None], one)
        return bool(known.lacks(slots, slots.arrange(batch))[0])

    return lacks


LOSSES = {
    "nothing": np.ones((20, 2), bool),
    "a reading": np.arange(40).reshape(20, 2) != 13,
    "half at random": np.random.default_rng(0).random((20, 2)) < 0.5,
    "a channel": np.ones((20, 2), bool) & np.array([True, False]),
    "the second half": np.ones((20, 2), bool) & (np.arange(20) < 10)[:, None],
    "a channel's second half": ~((np.arange(20) >= 10)[:, None] & np.array([True, False])),
    "a third at random": np.random.default_rng(1).random((20, 2)) < 0.67,
}


SILENT = {"a channel", "the second half", "a channel's second half"}


@pytest.mark.parametrize(
    ("trained_with", "told"),
    [
        ((0.0, 0.0), set(LOSSES) - {"nothing"}),
        ((0.3, 0.0), SILENT | {"half at random"}),
        ((0.0, 0.2), SILENT),
        ((0.0, 0.5, True), SILENT - {"the second half"}),
    ],
    ids=["complete", "missing", "mask_rate", "mask_rate in patterns"],
)
def test_losses_that_training_did_not_meet_are_told(trained_with, told):
    lacks = familiar(*trained_with)
    assert {name for name, mask in LOSSES.items() if lacks(mask)} == told


@pytest.mark.parametrize("sensors", ["fixed", "drawn"])
def test_familiar_observations_are_seldom_told(sensors):
    inverter = fitted("Regression", sensors)
    states, theta = jnp.asarray(full(slice(None)), jnp.float32), jnp.array([1.0, 0.2])
    observe = jax.vmap(lambda k: inverter.problem.observe(states, theta, key=k))
    seen = jax.tree.map(np.asarray, observe(jr.split(jr.key(5), 1000)))
    # By construction in one case of a hundred, and in a few of a thousand by the other rules.
    assert np.mean(inverter._unfamiliar(seen) > 0) < 0.03


# --- Simulations for training ----------------------------------------------------------------


@pytest.mark.parametrize("sensors", ["fixed", "drawn"])
def test_training_in_single_precision_is_that_from_zero(sensors):
    """Correlated noise depends on the time between readings, whatever the origin."""
    noise = ij.noise.AR1(ij.noise.Gaussian(LEVEL), 0.8, step=0.5)
    found = []
    for units in (PLAIN, Units(origin=CALENDAR)):
        problem, data = make(sensors, units, noise=noise)
        states, theta = (jnp.asarray(x[0], jnp.float32) for x in (data.trajectories, data.thetas))
        draw = jax.jit(lambda k: measure(problem, states, theta, key=k))  # noqa: B023
        found.append(draw(KEY))
        if units.origin:
            with refuses(RuntimeError, "Output times of problem 'chain' near 2459003.5 .*float32"):
                problem.observe(states, theta, key=KEY)
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_calendar_times_cost_no_accuracy():
    """One rate from four readings, as accurate as from time zero, where it is well known."""
    units = Units(origin=CALENDAR, time=1.0 / 24.0)
    hours = np.linspace(0.05, 3.0, 60)
    rate = ij.Parameter("k", dist.Uniform(2.4, 72.0))
    model = ij.ODEModel(
        lambda t, y, k: -k[0] * y,
        np.ones(1),
        times=units.times(hours),
        states=("y",),
        initial_time=units.origin,
    )
    problem = ij.InverseProblem(
        "decay",
        ij.ParameterSpace((rate,)),
        model,
        ij.Sensors(ij.RandomTimes(4)),
        ij.noise.Gaussian(0.02),
    )
    unit = np.random.default_rng(0).uniform(size=(2000, 1))
    thetas = np.asarray(problem.parameters.from_unit(unit))
    states = np.exp(-thetas[:, :, None] / 24.0 * hours[None, :, None])
    data = ij.Dataset(
        thetas,
        unit,
        times=model.times,
        trajectories=states,
        status=np.zeros(2000, np.int32),
    )
    method = methods.Regression(width=48, depth=2, steps=500, batch=64, learning_rate=4e-3)
    inverter = method.fit(problem, data, progress=False, key=KEY)
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.1, 3.0, 256)
    times = np.sort([rng.choice(hours, 4, replace=False) for _ in truth], axis=1)
    values = np.exp(-truth[:, None] * times) + 0.02 * rng.normal(size=times.shape)
    seen = ij.Observation(
        units.times(times),
        values[..., None],
        np.ones((256, 4, 1), bool),
        problem.channels,
        problem.name,
    )
    found = np.asarray(invert_batch(inverter, seen, key=KEY).value)[:, 0] / 24.0
    # A network that sees no times is off by 0.42, one that sees them by 0.12.
    assert np.sqrt(np.mean(np.square(found - truth))) < 0.2


def test_units_beyond_single_precision():
    """What is not read is put in a unit of its own; what is read is refused."""
    found = []
    for units in (PLAIN, Units(state=(1.0, 1e-40))):
        problem, data = make("drawn", units)
        only = ij.Sensors(ij.RandomTimes(5), channels=("A",))
        parts = problem.parameters, problem.model, only, ij.noise.Gaussian(0.05)
        encoder, prepared = prepare(ij.InverseProblem("chain", *parts), data)
        found.append(encoder.scale.apply(np.asarray(prepared.states)))
    np.testing.assert_allclose(*found, atol=1e-5)
    with refuses(ValueError, "values of 'B' up to .*e-41, but networks run in single precision"):
        BRIEF["Regression"].fit(problem, data, progress=False, key=KEY)


# --- Observables -----------------------------------------------------------------------------


def observable(y, k):
    """A gain that is unknown, and a logarithm that has no value at the start."""
    return jnp.stack([k[0] * y[0], jnp.log(y[1])])


def test_observables_are_read_like_states_of_the_same_values():
    problem, data = make("drawn", observable=observable)
    k, (a, b) = data.thetas[:, 0, None], np.moveaxis(data.trajectories, 2, 0)
    states = ij.Dataset(
        data.thetas,
        data.unit,
        times=data.times,
        trajectories=np.stack([k * a, np.log(b)], axis=2),
        status=data.status,
    )
    rows, values = readings()
    found = []
    for one, solved in ((problem, data), (make("drawn")[0], states)):
        encoder, prepared = prepare(one, solved)
        theta = jnp.asarray(one.parameters.from_unit(prepared.z[0]))
        seen = measure(one, prepared.states[0], theta, key=KEY)
        batch = jax.tree.map(lambda x: np.asarray(x)[None], written(one, rows, values))
        held = encoder.arranged(encoder.slots.arrange(batch))
        found.append((encoder.measured(seen)[0], held, encoder.reading_spread))
    for one, other in zip(*(jax.tree.leaves(x) for x in found), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_surrogates_are_read_through_observables():
    problem, data = make("drawn", observable=observable)
    encoder, _ = prepare(problem, data)
    place = np.array([[0.0, 3.0, 7.0, 11.0, 0.0]], np.float32)
    position = jnp.asarray((place + 1.0) / len(HOURS))
    nothing = jnp.zeros((1, 5, 2))
    readings = Readings(nothing, nothing == 0.0, position)
    states = data.trajectories[:1, place[0].astype(int)]
    scaled, theta = (
        jnp.asarray(x, jnp.float32) for x in (encoder.scale.apply(states), data.thetas[:1])
    )
    with jax.enable_x64(True):
        clean = np.asarray(problem.read(states[0], data.thetas[0]))
    expected = encoder.reading_scale.apply(clean)
    # Float32, to the scale of states and back.
    np.testing.assert_allclose(
        encoder.read(problem, theta, scaled, readings)[0], expected, atol=2e-4
    )
    # A surrogate may predict what has no logarithm.
    wild = encoder.read(problem, theta, scaled - 100.0, readings)
    assert np.isfinite(wild).all()


def test_a_surrogate_is_compared_where_readings_were_taken():
    """In the order of their rows, whatever the slots."""
    inverter = fitted("INO", "fixed")
    rows, values = readings()
    unit = np.full((1, 2), 0.5)
    found = []
    for order in (np.arange(4), np.array([2, 0, 3, 1])):
        one = written(inverter.problem, rows[order], values[order])
        batch = jax.tree.map(lambda x: np.asarray(x)[None], one)
        found.append(inverter._surrogate_readings(unit, batch)[0])
    assert np.isfinite(found[0]).all()
    np.testing.assert_allclose(found[1], found[0][order], rtol=1e-5)


def test_observables_without_a_value_are_refused():
    problem, data = make("fixed", observable=lambda y, k: jnp.log(y[:2] - 0.1))
    for name in ("Regression", "InverseMap"):
        with refuses(ValueError, "`observable` of problem 'chain' is not finite in .* channel '"):
            BRIEF[name].fit(problem, data, progress=False, key=KEY)
