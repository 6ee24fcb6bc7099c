"""Where a PINN for the heat equation would end: what fits equation and readings best."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Of the problem `heat`; its readings are taken at t = 1.
DIFFUSIVITY = 0.01
# Sine modes; their share of a reading's variance falls off as 1 / number².
_MODES = 4000


class PINNLimit(NamedTuple):
    """The smallest sum of mean square residual, weighted misfit and penalty.

    Attributes:
        start: The initial temperature at the places asked for.
        predicted: The solution at the readings, which need not solve the equation.
    """

    start: Float[np.ndarray, "seed place"]
    predicted: Float[np.ndarray, "seed reading"]


def pinn_limit(
    readings: Float[np.ndarray, "seed reading"],
    places: Float[np.ndarray, " place"],
    weight: float,
    penalty: float,
) -> PINNLimit:
    """Minimize ∫∫ (u_t - D u_xx)² + w mean (u(x, 1) - y)² + v ∫ f'², with u(x, 0) = f(x).

    A sine mode with decay λ = D k² π² that goes from f to g costs at least
    (g - exp(-λ) f)² / G in the first integral, G = (1 - exp(-2λ)) / 2λ, and v k² π² f² in the last,
    each times a half. The best f for a g leaves a cost of g² alone, so that the g of all modes are
    the mean of a Gaussian process given its readings. Unlike the network's, f may be negative.

    Args:
        readings: Final temperatures at equally spaced places, both ends included.
        places: Where to evaluate the start.
        weight: w.
        penalty: v.

    Returns:
        Start and solution for each set of readings.
    """
    count = readings.shape[1]
    k = np.pi * np.arange(1, _MODES + 1)
    decay, stiffness = np.exp(-DIFFUSIVITY * k**2), penalty * k**2
    room = (1.0 - decay**2) / (2.0 * DIFFUSIVITY * k**2)
    total = decay**2 + stiffness * room
    waves = np.sin(np.outer(np.linspace(0.0, 1.0, count), k))
    # g of one mode has the variance 2 total / stiffness, a reading's noise count / w.
    spread = waves * (2.0 * total / stiffness)
    heights = np.linalg.solve(spread @ waves.T + np.eye(count) * count / weight, readings.T)
    final = spread.T @ heights
    start = (decay / total)[:, None] * final
    return PINNLimit((np.sin(np.outer(places, k)) @ start).T, (waves @ final).T)
