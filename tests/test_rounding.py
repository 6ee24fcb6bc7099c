"""One rule for times that are the same but for rounding, in any unit and from any origin."""

import types

import numpy as np
import pytest

from inojax._rounding import SINGLE, anchors, moved, nearest, outside, repeated, unresolved

# Minutes, picoseconds, Julian days by the hour, and decades.
GRIDS = {
    "minutes": np.linspace(0.0, 60.0, 61),
    "cumulated": np.cumsum(np.full(2000, 0.1)),
    "tiny": np.linspace(0.0, 60.0, 61) * 1e-12,
    "huge": np.linspace(0.0, 60.0, 61) * 1e12,
    "julian": 2459000.5 + np.arange(200) / 24.0,
    "decades": np.geomspace(1e-6, 1e6, 25),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("towards", [-np.inf, np.inf])
def test_a_time_one_rounding_away_is_that_time(grid, towards):
    off = np.nextafter(grid, towards)
    np.testing.assert_array_equal(moved(off, grid), grid)
    assert not outside(off, grid, np.finfo(float).eps).any()
    assert repeated(np.sort(np.array([grid[3], off[3]]))).all()


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_hundredth_of_a_step_is_another_time(grid):
    between = grid[:-1] + 0.01 * np.diff(grid)
    np.testing.assert_array_equal(moved(between, grid), between)
    assert not nearest(between, grid)[1].any()
    assert not repeated(between).any()
    ends = np.array([grid[0] - 0.01 * (grid[1] - grid[0]), grid[-1] + 0.01 * (grid[-1] - grid[-2])])
    assert outside(ends, grid, np.finfo(float).eps).all()


def test_times_typed_and_cumulated_are_the_same():
    grid = GRIDS["cumulated"]
    typed = np.round(grid, 1)
    assert np.any(typed != grid)
    np.testing.assert_array_equal(moved(typed, grid), grid)


def test_single_precision_is_known_by_its_own_rounding():
    grid = np.linspace(0.0, 60.0, 101)
    single = grid.astype(np.float32).astype(np.float64)
    np.testing.assert_array_equal(moved(single, grid, SINGLE), grid)
    assert not unresolved(single, grid, SINGLE).any()
    # Its numbers are a quarter of a day apart there.
    assert unresolved(GRIDS["julian"], GRIDS["julian"], SINGLE).all()


def test_a_single_time_has_no_neighbors():
    grid = np.array([2459000.5])
    assert nearest(np.nextafter(grid, 0.0), grid)[1].all()
    assert not nearest(grid + 1e-6, grid)[1].any()
    assert not nearest(np.array([np.nan]), grid)[1].any()


def test_anchors_are_the_start_and_the_output_times():
    def model(start):
        return types.SimpleNamespace(times=np.array([0.3, 1.0]), initial_time=start)

    np.testing.assert_array_equal(anchors(model(0.0)), [0.0, 0.3, 1.0])
    np.testing.assert_array_equal(anchors(model(0.3)), [0.3, 1.0])
    np.testing.assert_array_equal(anchors(model(np.nextafter(0.3, 0.0))), [0.3, 1.0])
