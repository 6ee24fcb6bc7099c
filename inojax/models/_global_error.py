"""From tolerances of one step to an accuracy of whole trajectories."""

from typing import Any

import numpy as np
from jaxtyping import ArrayLike, Float

from ..solvers import SolveStatus

# A measured error is brought below this share of what is allowed, since other parameters may err
# somewhat more than those measured.
_AIM = 0.3
_ATTEMPTS = 4
_LEAST_RTOL = 1e-13


def with_global_tolerance(model: Any, thetas: Float[ArrayLike, "batch parameter"]) -> Any:
    """See `ODEModel.with_global_tolerance`."""
    local = model
    for _ in range(_ATTEMPTS):
        # What is exact enough to see the first error need not be so for the next one.
        exact = _states(local.tightened(), thetas, model)
        error = global_error(model, _states(local, thetas, model), exact)
        if error <= 1.0:
            return local
        factor = _AIM / error
        rtol, steps = local.rtol * factor, int(local.max_steps / factor**0.25)
        if rtol < _LEAST_RTOL:
            break
        local = local.with_rtol(rtol).replace(max_steps=steps)
    raise ValueError(
        f"The global error of these trajectories could not be brought to `rtol` = {model.rtol:g}, "
        f"`atol` = {_said(model.atol)} by tolerances that float64 allows: small errors grow too "
        "much. Ask for less accuracy, or solve for a shorter time."
    )


def global_error(model: Any, states: np.ndarray, exact: np.ndarray) -> float:
    """Largest error of any state, in units of what `rtol` and `atol` allow at its largest value.

    Args:
        model: Has the tolerances.
        states: Trajectories, with axes (batch, time, state).
        exact: The same, from a more accurate solution.
    """
    largest = np.abs(exact).max(axis=1, keepdims=True)
    atol = np.finfo(float).tiny if model.atol is None else model.atol
    return float((np.abs(states - exact) / (atol + model.rtol * largest)).max())


def _states(model: Any, thetas: Any, asked: Any) -> np.ndarray:
    solution = model.solve_ensemble(thetas)
    if not (solution.status == SolveStatus.SUCCESS).all():
        failed = int(np.sum(solution.status != SolveStatus.SUCCESS))
        raise ValueError(
            f"{failed} of the trajectories for `thetas` failed with tolerances around `rtol` = "
            f"{asked.rtol:g}, and show no error. Leave them out, or raise `max_steps`."
        )
    return np.asarray(solution.states)


def _said(atol: Any) -> str:
    return "a share of each state's largest value" if atol is None else str(atol)
