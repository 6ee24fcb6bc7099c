"""Searches for the highest posterior density along gradients, from many starts."""

import dataclasses
import time
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

import inojax as ij

# A start has arrived when the parabola it stands on promises less, in units of log density.
_TOLERANCE = 1e-5
_EVALUATIONS, _HALVINGS = 80, 20
_LONGEST, _SHORTEST = 0.3, 1e-7  # of steps, in standard deviations of the prior
_ARMIJO = 1e-4
_DIFFERENCE = 1e-4  # for curvatures, in standard deviations of the prior
# Ends that lie closer in standard deviations of the prior are the same optimum.
_SAME = 0.02


@dataclasses.dataclass(frozen=True)
class Posterior:
    """Negative log posterior of many series, up to a constant, in standard deviations of the prior.

    The prior counts as normal inside its bounds, the noise as first-order autoregressive. Written
    down here once more, so that it also checks the library's.

    Attributes:
        model: The neuron.
        mean: Prior means.
        deviation: Prior standard deviations, before they are cut.
        low: Lower bounds of the prior, in standard deviations from the mean.
        high: Upper bounds.
        noise: Standard deviation of a reading.
        correlation: Correlation of a reading with the one before.
    """

    model: ij.ODEModel
    mean: Float[np.ndarray, " parameter"]
    deviation: Float[np.ndarray, " parameter"]
    low: Float[np.ndarray, " parameter"]
    high: Float[np.ndarray, " parameter"]
    noise: float
    correlation: float

    def theta(self, x: Float[np.ndarray, "row parameter"]) -> Float[np.ndarray, "row parameter"]:
        """Physical values."""
        return self.mean + self.deviation * x

    def coordinates(
        self, theta: Float[np.ndarray, "row parameter"]
    ) -> Float[np.ndarray, "row parameter"]:
        """Standard deviations from the prior's mean."""
        return (theta - self.mean) / self.deviation

    def value(
        self, x: Float[np.ndarray, "row parameter"], series: Float[np.ndarray, "row time"]
    ) -> Float[np.ndarray, " row"]:
        """Values alone; infinite where the model cannot be solved."""
        states = np.asarray(self.model.solve_ensemble(self.theta(x)).states)
        with np.errstate(invalid="ignore"):
            squares = np.square(self._innovations(series - states[:, :, 0]))
        value = 0.5 * squares.sum(axis=1) + 0.5 * np.square(x).sum(axis=1)
        return np.where(np.isfinite(value), value, np.inf)

    def value_and_gradient(
        self, x: Float[np.ndarray, "row parameter"], series: Float[np.ndarray, "row time"]
    ) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, "row parameter"]]:
        """Values and gradients, by forward sensitivities."""
        solution, slopes = self.model.sensitivities(self.theta(x))
        with np.errstate(invalid="ignore"):
            left = self._innovations(series - np.asarray(solution.states)[:, :, 0])
            columns = self._innovations(-np.asarray(slopes)[:, :, 0] * self.deviation)
            value = 0.5 * np.square(left).sum(axis=1) + 0.5 * np.square(x).sum(axis=1)
            gradient = np.einsum("rt,rtp->rp", left, columns) + x
        good = np.isfinite(value) & np.isfinite(gradient).all(axis=1)
        return np.where(good, value, np.inf), np.where(good[:, None], gradient, 0.0)

    def _innovations(self, residual: np.ndarray) -> np.ndarray:
        scaled = residual / self.noise
        share = np.sqrt(1.0 - self.correlation**2)
        later = (scaled[:, 1:] - self.correlation * scaled[:, :-1]) / share
        return np.concatenate([scaled[:, :1], later], axis=1)


class Descents(NamedTuple):
    """Where descents ended.

    Attributes:
        x: Ends.
        value: Values there.
        arrived: Whether they converged.
        evaluations: Of values with gradients, all starts together.
        seconds: Time for all.
    """

    x: Float[np.ndarray, "row parameter"]
    value: Float[np.ndarray, " row"]
    arrived: Bool[np.ndarray, " row"]
    evaluations: int
    seconds: float


def descend(
    posterior: Posterior,
    starts: Float[np.ndarray, "row parameter"],
    series: Float[np.ndarray, "row time"],
) -> Descents:
    """Run BFGS with backtracking within the prior's bounds from every start, all side by side.

    Not by `scipy.optimize.minimize`, with which table g would be another (preset quick, 32 searches
    on four series). Its "BFGS" knows no bounds: 9 searches converge, here 24 to 26, and 1 or 2
    minima of a series are found instead of 3 to 6. Its "L-BFGS-B" keeps them and calls all 32 ends
    converged, without a look at their curvature; 41 % reach the global minimum, here 25 %.

    Args:
        posterior: What is minimized.
        starts: A start in each row, in standard deviations of the prior.
        series: The series that each belongs to.

    Returns:
        Where they ended.
    """
    began = time.perf_counter()
    size = starts.shape[1]
    x = starts.copy()
    value, gradient = posterior.value_and_gradient(x, series)
    evaluations = len(x)
    active, arrived = np.isfinite(value), np.zeros(len(x), bool)
    inverse = np.tile(np.eye(size), (len(x), 1, 1))
    low, high = posterior.low, posterior.high
    full = np.zeros_like(x)
    for row in np.flatnonzero(active):
        full[row] = _newton(inverse[row], x[row], gradient[row], low, high)
    step, halvings, fresh = full.copy(), np.zeros(len(x), int), np.ones(len(x), bool)
    for _ in range(_EVALUATIONS):
        promise = -0.5 * np.einsum("rp,rp->r", gradient, full)
        # What an update has made of the curvature may be far off: only the measured one decides.
        for row in np.flatnonzero(active & (promise < _TOLERANCE)):
            inverse[row], valley = _measured(posterior, x[row], series[row])
            evaluations += 2 * size
            full[row] = _newton(inverse[row], x[row], gradient[row], low, high)
            step[row], halvings[row], fresh[row] = full[row], 0, False
            arrived[row] = valley and -0.5 * gradient[row] @ full[row] < _TOLERANCE
        active &= ~arrived
        rows = np.flatnonzero(active)
        if not len(rows):
            break
        trial = np.clip(x[rows] + _limited(step[rows]), low, high)
        new, slope = posterior.value_and_gradient(trial, series[rows])
        evaluations += len(rows)
        moved = trial - x[rows]
        promised = np.einsum("rp,rp->r", gradient[rows], moved)
        better = new <= value[rows] + _ARMIJO * np.minimum(promised, 0.0)
        for row, ok, end, f, g, s in zip(rows, better, trial, new, slope, moved, strict=True):
            if ok:
                inverse[row] = _updated(inverse[row], s, g - gradient[row])
                x[row], value[row], gradient[row], fresh[row] = end, f, g, False
            elif halvings[row] < _HALVINGS and np.abs(s).max() > _SHORTEST:
                step[row], halvings[row] = 0.5 * s, halvings[row] + 1
                continue
            elif fresh[row]:
                active[row] = False  # not even along the gradient is there a way down
                continue
            else:
                inverse[row], fresh[row] = np.eye(size), True
            full[row] = _newton(inverse[row], x[row], gradient[row], low, high)
            step[row], halvings[row] = full[row], 0
    return Descents(x, value, arrived, evaluations, time.perf_counter() - began)


def _newton(
    inverse: np.ndarray, x: np.ndarray, gradient: np.ndarray, low: np.ndarray, high: np.ndarray
) -> np.ndarray:
    """The quasi-Newton step within the bounds that the gradient does not point out of."""
    free = ~((x <= low) & (gradient > 0.0) | (x >= high) & (gradient < 0.0))
    # The inverse of the curvature's free part, from the inverse of the whole.
    held = np.flatnonzero(~free)
    if len(held):
        block = inverse[np.ix_(held, held)]
        cross = inverse[:, held]
        inverse = inverse - cross @ np.linalg.solve(block, cross.T)
    return np.where(free, -inverse @ np.where(free, gradient, 0.0), 0.0)


def _measured(posterior: Any, x: np.ndarray, series: np.ndarray) -> tuple[np.ndarray, bool]:
    """The inverse curvature by differences of gradients, and whether all of it is positive."""
    size = len(x)
    shifts = _DIFFERENCE * np.eye(size)
    around = np.concatenate([x + shifts, x - shifts])
    _, slopes = posterior.value_and_gradient(around, np.tile(series, (2 * size, 1)))
    matrix = (slopes[:size] - slopes[size:]) / (2.0 * _DIFFERENCE)
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    least = 1e-6 * max(np.abs(values).max(), 1e-300)
    inverse = (vectors / np.maximum(np.abs(values), least)) @ vectors.T
    return inverse, bool((values > 0.0).all())


def _limited(steps: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(steps, axis=1, keepdims=True)
    return steps * np.minimum(1.0, _LONGEST / np.maximum(length, 1e-300))


def _updated(inverse: np.ndarray, s: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The BFGS formula; the old matrix where the curvature is not positive."""
    curvature = float(s @ y)
    if not curvature > 1e-12 * float(np.linalg.norm(s) * np.linalg.norm(y)):
        return inverse
    left = np.eye(len(s)) - np.outer(s, y) / curvature
    return left @ inverse @ left.T + np.outer(s, s) / curvature


def distinct(
    x: Float[np.ndarray, "row parameter"], value: Float[np.ndarray, " row"]
) -> Int[np.ndarray, " row"]:
    """Number of the optimum that each end belongs to, the best first; -1 where none is finite."""
    group = np.full(len(x), -1)
    for row in np.argsort(value)[: np.isfinite(value).sum()]:
        near = (group >= 0) & (np.abs(x - x[row]).max(axis=1) < _SAME)
        group[row] = group[near][0] if near.any() else group.max() + 1
    return group
