"""Searches for the highest posterior density along gradients, from many starts."""

import dataclasses
import time
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

import inojax as ij

# A start has arrived when a step gains less than this, in units of log density.
_TOLERANCE = 1e-6
_EVALUATIONS, _HALVINGS = 80, 20
_LONGEST = 0.3  # of a step, in standard deviations of the prior
_ARMIJO = 1e-4
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

    model: ij.models.ODEModel
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
    """Run BFGS with backtracking from every start, all of them side by side.

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
    step, halvings = _first_step(inverse, gradient), np.zeros(len(x), int)
    for _ in range(_EVALUATIONS):
        rows = np.flatnonzero(active)
        if not len(rows):
            break
        trial = np.clip(x[rows] + step[rows], posterior.low, posterior.high)
        new, slope = posterior.value_and_gradient(trial, series[rows])
        evaluations += len(rows)
        moved = trial - x[rows]
        promised = np.einsum("rp,rp->r", gradient[rows], moved)
        better = new <= value[rows] + _ARMIJO * np.minimum(promised, 0.0)
        for row, ok, end, f, g, s in zip(rows, better, trial, new, slope, moved, strict=True):
            if not ok:
                step[row], halvings[row] = 0.5 * s, halvings[row] + 1
                stuck = halvings[row] > _HALVINGS or np.abs(s).max() < 1e-10
                active[row], arrived[row] = not stuck, stuck
                continue
            gain = value[row] - f
            inverse[row] = _updated(inverse[row], s, g - gradient[row])
            x[row], value[row], gradient[row], halvings[row] = end, f, g, 0
            step[row] = _limited(-inverse[row] @ g)
            if gain < _TOLERANCE:
                active[row], arrived[row] = False, True
    return Descents(x, value, arrived, evaluations, time.perf_counter() - began)


def _first_step(inverse: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    return np.stack([_limited(-h @ g) for h, g in zip(inverse, gradient, strict=True)])


def _limited(step: np.ndarray) -> np.ndarray:
    return step * min(1.0, _LONGEST / max(float(np.linalg.norm(step)), 1e-300))


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
    """Number of the optimum that each end belongs to, the best first."""
    group = np.full(len(x), -1)
    for row in np.argsort(value):
        near = (group >= 0) & (np.abs(x - x[row]).max(axis=1) < _SAME)
        group[row] = group[near][0] if near.any() else group.max() + 1
    return group
