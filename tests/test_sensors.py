"""Sensors: which readings are taken."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from inojax._sensors import FixedTimes, RandomTimes, Sensors
from tests.refuses import refuses

GRID = np.linspace(0.6, 60.0, 100)


def draws(sensors: Sensors, n_channels: int, n: int, key, grid=GRID):
    keys = jr.split(key, n)
    index, mask = jax.jit(jax.vmap(lambda k: sensors.draw(grid, n_channels, key=k)))(keys)
    return np.asarray(index), np.asarray(mask)


def test_fixed_times_are_looked_up(key):
    sensors = Sensors(FixedTimes([0.6, 3.0, 60.0]))
    index, mask = sensors.draw(GRID, 4, key=key)
    np.testing.assert_array_equal(index, [0, 4, 99])
    assert mask.shape == (3, 4)
    assert mask.all()
    assert sensors.size == 3


@pytest.mark.parametrize("origin", [0.0, 2459000.5, -1e9])
def test_fixed_times_are_told_apart_far_from_zero(key, origin):
    """Minutes of a Julian day are a tenth of a thousandth of what single precision tells apart."""
    grid = origin + GRID / 1440.0
    sensors = Sensors(FixedTimes(grid[[0, 4, 99]]))
    index, _ = draws(sensors, 1, 1, key, grid=grid)
    np.testing.assert_array_equal(index[0], [0, 4, 99])


def test_random_times_are_distinct_sorted_and_uniform(key):
    index, mask = draws(Sensors(RandomTimes(3)), 20, 4000, key)
    assert (np.diff(index, axis=1) > 0).all()
    assert mask.all()
    counts = np.bincount(index.ravel(), minlength=100)
    # 120 expected, standard deviation 10.8; five of them for a hundred counts.
    assert np.abs(counts - 120).max() < 54


def test_random_number_of_times(key):
    index, mask = draws(Sensors(RandomTimes(2, 5)), 3, 4000, key)
    present = mask.all(axis=2)
    np.testing.assert_array_equal(present, mask.any(axis=2))
    number = present.sum(axis=1)
    # 1000 expected of each number from 2 to 5, standard deviation 27.
    assert np.abs(np.bincount(number, minlength=6)[2:] - 1000).max() < 140
    for rows, real in zip(index, present, strict=True):
        assert real[: real.sum()].all()
        assert (np.diff(rows[real]) > 0).all()
        assert (rows[~real] == rows[real][-1]).all()


def test_all_times_of_a_short_grid_can_be_drawn(key):
    index, _ = draws(Sensors(RandomTimes(4)), 1, 10, key, grid=np.arange(4.0))
    np.testing.assert_array_equal(index, np.tile(np.arange(4), (10, 1)))


def test_missing_readings_are_missing_as_often_as_told(key):
    _, mask = draws(Sensors(RandomTimes(3), missing=0.3), 20, 2000, key)
    # 120,000 readings: standard deviation of the share 0.0013.
    assert abs(mask.mean() - 0.7) < 0.007


def test_one_reading_always_stays(key):
    index, mask = draws(Sensors(RandomTimes(1, 2), missing=0.999), 1, 500, key)
    assert (mask.sum(axis=(1, 2)) >= 1).all()
    assert (np.diff(index, axis=1) >= 0).all()


def test_draws_differ_between_keys_and_repeat_with_the_same(key):
    sensors = Sensors(RandomTimes(3))
    first, second = (sensors.draw(GRID, 2, key=key)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, sensors.draw(GRID, 2, key=jr.fold_in(key, 1))[0])


def test_the_grid_may_be_traced(key):
    sensors = Sensors(FixedTimes([3.0]))
    index, _ = jax.jit(lambda grid: sensors.draw(grid, 1, key=key))(jnp.asarray(GRID))
    np.testing.assert_array_equal(index, [4])


@pytest.mark.parametrize(
    "times",
    [
        [],
        [1.0, 1.0],
        [2.0, 1.0],
        [np.nan],
        ["noon"],
        ["1.0"],
        [[1.0, 2.0]],
        [True],
        np.array([1, 2], "m8[s]"),
        np.ma.masked_equal([1, -1], -1),
    ],
    ids=str,
)
def test_bad_fixed_times_are_refused(times):
    with refuses(ValueError, "`times`"):
        FixedTimes(times)


@pytest.mark.parametrize("numbers", [(0,), (-1,), (3, 2), (1.5,), (2, 3.5), (True,)], ids=str)
def test_bad_random_times_are_refused(numbers):
    with refuses(ValueError, "`least`"):
        RandomTimes(*numbers)


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("origin", [0.0, 2459000.5])
def test_one_rule_of_rounding_in_any_unit_and_from_any_origin(unit, origin, key):
    grid = unit * (origin + np.arange(1.0, 61.0) / 24.0)
    times = FixedTimes(np.nextafter(grid[[3, 7]], np.inf))
    times.check(grid)
    np.testing.assert_array_equal(times.draw(grid, key=key)[0], [3, 7])
    with refuses(ValueError, "must be output times"):
        FixedTimes(grid[[3, 7]] + unit / 2400.0).check(grid)


def test_large_times_are_looked_up_in_double_precision(key):
    """In single precision the days of a month are a few numbers."""
    days = 2459000.5 + np.arange(30.0) / 24.0
    index, _ = Sensors(FixedTimes(days)).draw(days, 1, key=key)
    np.testing.assert_array_equal(index, np.arange(30))


def test_fixed_times_in_single_precision_are_found():
    times = FixedTimes(GRID.astype(np.float32))
    times.check(GRID)
    with refuses(ValueError, "must be output times"):  # a fifth of a day off, in numbers it holds
        FixedTimes([2459000.5]).check(2459000.3 + np.arange(3.0))


def test_two_fixed_times_that_are_one_are_refused():
    times = FixedTimes([0.3, 0.1 + 0.2])
    with refuses(ValueError, "`times` of `FixedTimes` must differ by more than rounding"):
        times.check(np.array([0.3, 0.4]))


def test_schedules_that_do_not_fit_the_grid_are_refused():
    with refuses(ValueError, r"`times`.*\[0.7\]"):
        FixedTimes([0.6, 0.7]).check(GRID)
    with refuses(ValueError, "101 distinct times.*100 output times"):
        RandomTimes(101).check(GRID)


def test_bad_sensors_are_refused():
    with refuses(TypeError, "`times`.*list"):
        Sensors([1.0])  # pyright: ignore[reportArgumentType]
    with refuses(ValueError, "`channels`.*at least one"):
        Sensors(RandomTimes(1), channels=())
    with refuses(ValueError, "`channels`.*'NO2'"):
        Sensors(RandomTimes(1), channels="NO2")  # pyright: ignore[reportArgumentType]
    with refuses(ValueError, "`channels`.*distinct"):
        Sensors(RandomTimes(1), channels=("a", "a"))
    with refuses(TypeError, "`observable`.*str"):
        Sensors(RandomTimes(1), ("a",), observable="sum")  # pyright: ignore[reportArgumentType]
    with refuses(ValueError, "`channels` must name what the `observable` returns"):
        Sensors(RandomTimes(1), observable=lambda y, theta: y)
    for chance in (-0.1, 1.0, np.nan):
        with refuses(ValueError, "`missing`"):
            Sensors(RandomTimes(1), missing=chance)


def ratio(y, theta):
    return jnp.stack([y[0] / y[1], theta[0] * y[1]])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)], ids=str)
def test_observables_are_applied_to_each_state(dtype, batch):
    sensors = Sensors(RandomTimes(1), ("share", "signal"), observable=ratio)
    states = np.random.default_rng(0).uniform(1.0, 2.0, (*batch, 5, 3))
    theta = np.random.default_rng(1).uniform(1.0, 2.0, (*batch, 1, 4))
    with jax.enable_x64(True):
        read = sensors.observed(jnp.asarray(states, dtype), theta)
    assert read.dtype == dtype
    expected = np.stack([states[..., 0] / states[..., 1], theta[..., 0] * states[..., 1]], axis=-1)
    np.testing.assert_allclose(read, expected, rtol=1e-6)


def test_an_observable_must_return_its_channels():
    sensors = Sensors(RandomTimes(1), ("a", "b", "c"), observable=ratio)
    with refuses(ValueError, r"`observable`.*a, b, c, shape \(3,\); got shape \(2,\)"):
        sensors.observed(jnp.ones((5, 3)), jnp.ones((1, 4)))
