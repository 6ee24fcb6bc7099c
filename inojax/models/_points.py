"""Points of a box: where networks are asked and where solutions are read."""

from typing import Any

import numpy as np

# Name of each coordinate with its lower and upper end.
Box = dict[str, tuple[float, float]]


def check_box(box: Box) -> None:
    """Raise a ValueError unless each coordinate has a lower and a higher end."""
    for name, (low, high) in box.items():
        if not -np.inf < low < high < np.inf:
            raise ValueError(
                f"`domain` of {name!r} must be a lower and a higher end; got ({low:g}, {high:g})."
            )


def lattice(wanted: Any, box: Box) -> np.ndarray:
    """Points on a lattice with so many along each coordinate, unless they are given."""
    counts = np.asarray(wanted)
    if counts.ndim != 1:
        return np.array(wanted, np.float64)
    sizes = [int(count) for count in counts]
    if len(sizes) != len(box) or any(size < 2 for size in sizes):
        raise ValueError(
            f"`collocation` must be a number of points, at least 2, for each of the coordinates "
            f"{', '.join(box)}, or an array of points of shape (point, {len(box)}); got {wanted}."
        )
    axes = [np.linspace(*ends, size) for ends, size in zip(box.values(), sizes, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def checked(name: str, points: np.ndarray, box: Box) -> np.ndarray:
    """Points, if they have a column for each coordinate and lie in the box."""
    size = len(box)
    if points.ndim != 2 or points.shape[1] != size or not len(points):
        raise ValueError(
            f"`{name}` must have shape (point, {size}), a column for each of the coordinates "
            f"{', '.join(box)}; got shape {points.shape}."
        )
    low, high = np.array(list(box.values())).T
    if not np.all((points >= low) & (points <= high)):
        raise ValueError(f"`{name}` has points outside of the `domain`, or NaN.")
    return points


def along(points: np.ndarray) -> tuple[np.ndarray, int | None]:
    """How far along a line of points each is, and which coordinate says so.

    That is the only one that varies, if it increases; else it is None, and points are numbered.
    """
    varies = np.flatnonzero(np.ptp(points, axis=0) > 0.0)
    if len(varies) == 1 and np.all(np.diff(points[:, varies[0]]) > 0.0):
        return points[:, varies[0]], int(varies[0])
    return np.arange(len(points), dtype=np.float64), None
