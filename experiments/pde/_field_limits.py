"""What methods for an unknown function converge to, on the classical solver."""

from typing import Any

import jax
import jax.random as jr
import numpy as np
import scipy.optimize
from jaxtyping import Float

import inojax as ij
from inojax.methods import Coordinates, LeastSquares, Penalty, invert_batch
from inojax.models import Field

# Steps of a share of Gauss-Newton's before Newton's own, and a step that is none any more.
_SHARE, _STEPS, _SMALL = 0.1, 100, 1e-5
# Of coefficients, and a constant added to a function, to see what they do.
_NUDGE, _SHIFT = 1e-5, 1e-4


def minimizer(
    problem: ij.InverseProblem,
    readings: Float[np.ndarray, "seed reading"],
    start: Float[np.ndarray, " coefficient"],
) -> Float[np.ndarray, "seed coefficient"]:
    """The regularized minimizer of each set of readings: the best that the penalty allows.

    Args:
        problem: With one unknown function and nothing else.
        readings: At all points of `problem.model.readings`.
        start: Not needed.

    Returns:
        Coefficients of the function.
    """
    del start
    method = LeastSquares(
        starts=1, penalty=Penalty.DENSITY, coordinates=Coordinates.UNCONSTRAINED, candidates=0
    )
    seen = [
        ij.Observation.from_arrays(problem.model.times, row[:, None], problem=problem)
        for row in readings
    ]
    batch = jax.tree.map(lambda *rows: np.stack(rows), *seen)
    return np.asarray(invert_batch(method.fit(problem, key=jr.key(0)), batch, key=jr.key(0)).value)


def fixed_point(
    problem: ij.InverseProblem,
    readings: Float[np.ndarray, "seed reading"],
    start: Float[np.ndarray, " coefficient"],
) -> Float[np.ndarray, "seed coefficient"]:
    """What BiLO converges to: it moves the function at a reading as if it moved everywhere.

    Args:
        problem: With one unknown function, without a total variation, and nothing else.
        readings: At all points of `problem.model.readings`.
        start: Coefficients to begin with.

    Returns:
        Coefficients of the function.

    Raises:
        RuntimeError: If Newton's steps do not end.
    """
    local = _Local(problem)
    return np.stack([local.stationary(row, start) for row in readings])


def moved(model: Any, values: Float[np.ndarray, " node"]) -> tuple[Any, np.ndarray]:
    """A model whose function may have other values at the ends, and its coefficients.

    Args:
        model: With one unknown function.
        values: At the nodes.

    Returns:
        The model, and the coefficients of the function with these values.
    """
    field = model.fields[0]
    other = Field(
        field.name,
        field.coordinate,
        field.nodes,
        ends=(float(values[0]), float(values[-1])),
        roughness=field.roughness,
    )
    return model.replace(fields=(other,)), other.coefficients(values)


class _Local:
    """The penalized misfit's derivative as BiLO knows it.

    Each reading depends on the function through a constant added to all of it, and that constant
    stands for the change at the reading's own place.
    """

    def __init__(self, problem: Any) -> None:
        model, field = problem.model, problem.model.fields[0]
        assert field.total_variation is None
        self.model, self.scale = model, float(problem.noise.scale)
        with jax.enable_x64(True):
            still = np.asarray(field.nodal(np.zeros(field.size)))
            columns = np.asarray(field.nodal(np.eye(field.size))) - still
        places = model.readings[:, model.coordinates.index(field.coordinate)]
        # What each coefficient adds to the function where a reading is.
        self.columns = np.stack([np.interp(places, field.nodes, one) for one in columns], axis=1)
        self.shifted, _ = moved(model, still + _SHIFT)

    def gradient(
        self, coefficients: Float[np.ndarray, "many coefficient"], readings: np.ndarray
    ) -> tuple[Float[np.ndarray, "many coefficient"], Float[np.ndarray, "many reading"]]:
        """The derivative, and how readings respond to the constant."""
        states, beside = (
            np.asarray(model.solve_ensemble(coefficients).states)[:, :, 0]
            for model in (self.model, self.shifted)
        )
        response = (beside - states) / _SHIFT
        weighted = response * (states - readings) / self.scale**2
        return weighted @ self.columns + coefficients, response

    def stationary(self, readings: np.ndarray, start: np.ndarray) -> np.ndarray:
        """Where the derivative vanishes."""
        x = np.array(start, np.float64)
        for _ in range(_STEPS):
            gradient, response = self.gradient(x[None], readings)
            slopes = response[0][:, None] * self.columns / self.scale
            curvature = slopes.T @ slopes + np.eye(len(x))
            x = x - _SHARE * np.linalg.solve(curvature, gradient[0])
        found = scipy.optimize.root(
            lambda x: self.gradient(x[None], readings)[0][0],
            x,
            jac=lambda x: self._jacobian(x, readings),
            method="hybr",
            options={"xtol": 1e-10, "maxfev": 2000},
        )
        step = np.linalg.solve(self._jacobian(found.x, readings), found.fun)
        if not np.abs(step).max() < _SMALL * (1.0 + np.abs(found.x).max()):
            raise RuntimeError(f"The fixed point was not found: {found.message}")
        return found.x

    def _jacobian(self, x: np.ndarray, readings: np.ndarray) -> np.ndarray:
        nudges = _NUDGE * np.eye(len(x))
        ahead, behind = (self.gradient(x + sign * nudges, readings)[0] for sign in (1.0, -1.0))
        return (ahead - behind).T / (2.0 * _NUDGE)
