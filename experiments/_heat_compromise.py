"""Where a PINN for the heat equation would end: the compromise of equation and readings."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.polynomial import legendre

# Of the problem `heat`.
DIFFUSIVITY = 0.01
# Points of the quadrature in each direction; polynomials of the start, and of u in x and t.
_POINTS, _START, _SPACE, _TIME = 60, 24, 20, 20


class Compromise(NamedTuple):
    """The smallest sum of mean square residual, weighted misfit and penalty.

    Attributes:
        start: The initial temperature at the places asked for.
        predicted: The solution at the readings, which need not solve the equation.
    """

    start: Float[np.ndarray, "seed place"]
    predicted: Float[np.ndarray, "seed reading"]


def compromise(
    readings: Float[np.ndarray, "seed reading"],
    places: Float[np.ndarray, " place"],
    weight: float,
    penalty: float,
) -> Compromise:
    """Minimize ∫∫ (u_t - D u_xx)² + w mean (u(x, 1) - y)² + v ∫ f'² over polynomials u and f.

    The equation is linear, so this is least squares. As in the network, u = f + x (1 - x) t N; the
    polynomials are smoother than a network may become, and the larger w, the more that matters.

    Args:
        readings: Final temperatures at equally spaced places, both ends included.
        places: Where to evaluate the start.
        weight: w.
        penalty: v.

    Returns:
        Start and solution for each set of readings.
    """
    nodes, shares = legendre.leggauss(_POINTS)
    nodes, shares = (nodes + 1.0) / 2.0, shares / 2.0
    _, start_slope, start_curvature = _vanishing(nodes, _START)
    space, _, space_curvature = _vanishing(nodes, _SPACE)
    time, time_slope, _ = _polynomials(nodes, _TIME)
    x = np.linspace(0.0, 1.0, readings.shape[1])
    # Rows of points (x, t), x outside; columns of the start, then of N.
    of_start = np.repeat(-DIFFUSIVITY * start_curvature, _POINTS, axis=0)
    of_rest = np.kron(space, time + nodes[:, None] * time_slope)
    of_rest -= DIFFUSIVITY * np.kron(space_curvature, nodes[:, None] * time)
    root = np.sqrt(np.outer(shares, shares)).reshape(-1, 1)
    final = np.kron(_vanishing(x, _SPACE)[0], _polynomials(np.ones(1), _TIME)[0])
    seen = np.hstack([_vanishing(x, _START)[0], final])
    slopes = np.hstack([start_slope, np.zeros((_POINTS, final.shape[1]))])
    share = np.sqrt(weight / len(x))
    matrix = np.vstack(
        [
            root * np.hstack([of_start, of_rest]),
            share * seen,
            np.sqrt(penalty * shares)[:, None] * slopes,
        ]
    )
    target = np.zeros((len(matrix), len(readings)))
    target[len(root) : len(root) + len(x)] = share * readings.T
    found = np.linalg.lstsq(matrix, target, rcond=1e-13)[0]
    return Compromise((_vanishing(places, _START)[0] @ found[:_START]).T, (seen @ found).T)


def _vanishing(x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Polynomials times x (1 - x), with first and second derivatives."""
    values, slopes, curvatures = _polynomials(x, count)
    q, dq = (x * (1.0 - x))[:, None], (1.0 - 2.0 * x)[:, None]
    return q * values, dq * values + q * slopes, q * curvatures + 2.0 * dq * slopes - 2.0 * values


def _polynomials(x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Legendre polynomials of [0, 1] with first and second derivatives."""
    shifted, unit = 2.0 * x - 1.0, np.eye(count)
    return (
        legendre.legval(shifted, unit).T,
        2.0 * legendre.legval(shifted, legendre.legder(unit)).T,
        4.0 * legendre.legval(shifted, legendre.legder(unit, 2)).T,
    )
