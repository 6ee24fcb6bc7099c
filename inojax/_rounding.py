"""When two times are the same: a rule that knows neither their unit nor their origin."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

# Share of the way to the nearest other output time by which a time, typed or computed, may be off.
_CLOSE = 1e-6
# So many roundings may lie between two ways to compute one time, and they must stay below this
# share of that distance.
_ROUNDINGS = 4.0
_MOST = 0.1
EPSILON, SINGLE = (float(np.finfo(kind).eps) for kind in (np.float64, np.float32))


def anchors(model: Any) -> Float[np.ndarray, " anchor"]:
    """The times that readings may be moved onto: output times, and where a model starts.

    Args:
        model: The forward model.

    Returns:
        Increasing times.
    """
    times, start = np.asarray(model.times, np.float64), float(model.initial_time)
    if times[0] - start <= _ROUNDINGS * EPSILON * abs(start):
        return times
    return np.append(start, times)


def nearest(
    times: Float[np.ndarray, "*time"],
    grid: Float[np.ndarray, " anchor"],
    resolution: float = EPSILON,
) -> tuple[Int[np.ndarray, "*time"], Bool[np.ndarray, "*time"]]:
    """Look times up in a grid.

    Args:
        times: Any times; NaN is near none.
        grid: Increasing times.
        resolution: Relative distance of neighboring numbers in the precision that times came in.

    Returns:
        The nearest of the grid's times, and whether it is the same but for rounding: nearer than
        a millionth of its distance to the next one, and than rounding of the numbers themselves.
    """
    index = np.searchsorted(0.5 * (grid[1:] + grid[:-1]), times)
    return index, np.abs(times - grid[index]) <= _slack(grid, resolution)[index]


def moved(
    times: Float[np.ndarray, "*time"],
    grid: Float[np.ndarray, " anchor"],
    resolution: float = EPSILON,
) -> Float[np.ndarray, "*time"]:
    """Put times that are off by rounding onto the grid.

    Args:
        times: Any times.
        grid: Increasing times.
        resolution: As in `nearest`.

    Returns:
        The times of the grid where they are the same, all others as they were.
    """
    index, near = nearest(times, grid, resolution)
    return np.where(near, grid[index], times)


def unresolved(
    times: Float[np.ndarray, " time"], grid: Float[np.ndarray, " anchor"], resolution: float
) -> Bool[np.ndarray, " time"]:
    """Which times are too coarse to tell output times apart.

    Args:
        times: Any times.
        grid: Increasing times.
        resolution: As in `nearest`.

    Returns:
        True where the distance of neighboring numbers is a fair share of that of the grid's times.
    """
    index, _ = nearest(times, grid)
    return _ROUNDINGS * resolution * np.abs(times) > _MOST * _gaps(grid)[index]


def outside(
    times: Float[np.ndarray, "*time"], grid: Float[np.ndarray, " anchor"], resolution: float
) -> Bool[np.ndarray, "*time"]:
    """Which times lie beyond the ends of a grid by more than rounding.

    Args:
        times: Any times.
        grid: Increasing times.
        resolution: As in `nearest`.

    Returns:
        The answer for each; True for NaN.
    """
    slack = _close(grid) + _ROUNDINGS * resolution * np.abs(grid)
    return ~((times >= grid[0] - slack[0]) & (times <= grid[-1] + slack[-1]))


def repeated(
    times: Float[np.ndarray, " time"], resolution: float = EPSILON
) -> Bool[np.ndarray, " next"]:
    """Which times differ from the one before by no more than rounding of the numbers themselves.

    Args:
        times: Times in order.
        resolution: As in `nearest`.

    Returns:
        The answer for all but the first.
    """
    size = np.maximum(np.abs(times[1:]), np.abs(times[:-1]))
    return np.diff(times) <= _ROUNDINGS * resolution * size


def _gaps(grid: np.ndarray) -> np.ndarray:
    """Distance of each time to the nearest other one; infinite if there is none."""
    steps = np.diff(grid)
    return np.minimum(np.append(np.inf, steps), np.append(steps, np.inf))


def _slack(grid: np.ndarray, resolution: float) -> np.ndarray:
    rounding = _ROUNDINGS * resolution * np.abs(grid)
    return np.minimum(_close(grid) + rounding, _MOST * _gaps(grid))


def _close(grid: np.ndarray) -> np.ndarray:
    gaps = _gaps(grid)
    return np.where(np.isfinite(gaps), _CLOSE * gaps, 0.0)
