"""What methods for an unknown function converge to, by Gauss-Newton on the classical solver."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Float

import inojax as ij
from inojax.models import Field

# Share of each step that is taken; steps; a change of all coefficients below which it is over.
_EXACT, _LOCAL, _STEPS, _SMALL = 0.5, 0.1, 400, 1e-7
# A constant added to a function, to see what it does to the readings.
_SHIFT = 1e-4


def minimizer(
    problem: ij.InverseProblem,
    readings: Float[np.ndarray, " reading"],
    scale: float,
    start: Float[np.ndarray, " coefficient"],
) -> Float[np.ndarray, " coefficient"]:
    """The regularized minimizer: the best that the penalty allows.

    Args:
        problem: With one unknown function and nothing else.
        readings: At all points of `problem.model.readings`.
        scale: Standard deviation of the problem's noise.
        start: Coefficients to begin with.

    Returns:
        Coefficients of the function.
    """
    return _iterate(problem, readings, scale, start, local=False)


def fixed_point(
    problem: ij.InverseProblem,
    readings: Float[np.ndarray, " reading"],
    scale: float,
    start: Float[np.ndarray, " coefficient"],
) -> Float[np.ndarray, " coefficient"]:
    """What BiLO converges to: it moves the function at a reading as if it moved everywhere.

    Args:
        problem: With one unknown function and nothing else.
        readings: At all points of `problem.model.readings`.
        scale: Standard deviation of the problem's noise.
        start: Coefficients to begin with.

    Returns:
        Coefficients of the function.
    """
    return _iterate(problem, readings, scale, start, local=True)


def _iterate(
    problem: Any, readings: np.ndarray, scale: float, start: np.ndarray, *, local: bool
) -> np.ndarray:
    model, field = problem.model, problem.model.fields[0]
    coefficients, share = np.array(start, np.float64), _LOCAL if local else _EXACT
    nodes = _at_nodes(field)
    places = model.readings[:, model.coordinates.index(field.coordinate)]
    columns = np.stack([np.interp(places, field.nodes, node) for node in nodes.T], axis=1)
    for _ in range(_STEPS):
        solution, tangents = model.sensitivities(coefficients[None])
        states = np.asarray(solution.states)[0, :, 0]
        jacobian = np.asarray(tangents)[0, :, 0, :]
        if local:
            jacobian = _response(model, coefficients, states)[:, None] * columns
        jacobian = jacobian / scale
        gradient = jacobian.T @ (states - readings) / scale + coefficients
        curvature = jacobian.T @ jacobian + np.eye(len(coefficients))
        step = np.linalg.solve(curvature, gradient)
        coefficients = coefficients - share * step
        if np.abs(step).max() < _SMALL * (1.0 + np.abs(coefficients).max()):
            break
    return coefficients


def _at_nodes(field: Field) -> Float[np.ndarray, "node coefficient"]:
    """What each coefficient adds at the nodes."""
    with jax.enable_x64(True):
        unit = np.asarray(field.nodal(np.eye(field.size)))
        return (unit - np.asarray(field.nodal(np.zeros(field.size)))[None]).T


def _response(model: Any, coefficients: np.ndarray, states: np.ndarray) -> np.ndarray:
    """What a constant added to the function, ends included, does to each reading."""
    field = model.fields[0]
    ends = field.ends[0] + _SHIFT, field.ends[1] + _SHIFT
    shifted = Field(
        field.name,
        field.coordinate,
        np.array(field.nodes),
        ends=ends,
        roughness=field.roughness,
    )
    moved = np.asarray(model.replace(fields=(shifted,)).solve(coefficients).states)[:, 0]
    return (moved - states) / _SHIFT
