"""A second look at functions whose programs differ: whether the trajectories are the same."""

import hashlib
import json
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .._inverse_problem import InverseProblem
from ..models._ode import ODEModel
from ..models._pde import PDEModel
from ..solvers import SolveStatus
from ._compare import Comparison, Manifest
from ._dataset import Dataset

# Rewriting moves a trajectory by rounding errors, or, where a step is taken in another length for
# that, by errors of single steps; both are below this many relative tolerances.
_ROOM = 10.0
_RELATIVE = 1e-6  # tolerance of a solver that has none
_CANCELLATION = 1e-14
_ROWS = 64
_PROBLEMS = 32  # of which trajectories are remembered
PROBES = 4


class Trajectories(NamedTuple):
    """Solutions to compare new ones with.

    Attributes:
        thetas: Parameters in physical units.
        states: Their trajectories.
        status: A `SolveStatus` for each.
        rtol: Relative tolerance they were solved with.
    """

    thetas: Float[np.ndarray, "row parameter"]
    states: Float[np.ndarray, "row time state"]
    status: Int[np.ndarray, " row"]
    rtol: float


# A few trajectories of problems by the digest of their description. Solving would compile anew.
_remembered: dict[str, Trajectories] = {}


def remember(description: Manifest, trajectories: Trajectories) -> None:
    """Keep a few trajectories for `probed`.

    Args:
        description: What `describe_problem` says of their problem.
        trajectories: The trajectories.
    """
    while len(_remembered) >= _PROBLEMS:
        _remembered.pop(next(iter(_remembered)))
    _remembered[_digest(description)] = trajectories


def _digest(description: Manifest) -> str:
    return hashlib.sha256(json.dumps(description).encode()).hexdigest()


def probed(problem: InverseProblem, description: Manifest) -> Trajectories:
    """A few trajectories of a problem, solved where no simulations have been seen yet.

    Args:
        problem: The inverse problem.
        description: What `describe_problem` says of it.

    Returns:
        The trajectories.
    """
    if (known := _remembered.get(_digest(description))) is not None:
        return known
    random = np.random.RandomState(20260103)
    unit = 0.1 + 0.8 * random.random_sample((PROBES, problem.parameters.size))
    return _solved(problem, np.asarray(problem.parameters.from_unit(unit), np.float64))


def _solved(problem: InverseProblem, thetas: np.ndarray) -> Trajectories:
    solution = problem.model.solve_ensemble(thetas, retry=True)
    return Trajectories(
        thetas,
        np.asarray(solution.states),
        np.asarray(solution.status, np.int32),
        _tolerance(problem.model),
    )


def few_of(dataset: Dataset) -> "Trajectories":
    """As many simulations as are kept beside an inverter.

    Args:
        dataset: Simulations.
    """
    return some_of(dataset, PROBES)


def some_of(dataset: Dataset, count: int = _ROWS) -> Trajectories:
    """Some simulations of a data set, evenly spread over it."""
    rows = np.unique(np.linspace(0, len(dataset) - 1, count).astype(int))
    part = dataset._rows(rows)
    rtol = dataset.manifest.get("solver", {}).get("rtol", _RELATIVE)
    return Trajectories(part.thetas, part.trajectories, part.status, rtol)


def distance(problem: InverseProblem, stored: Trajectories) -> float:
    """How far stored trajectories are from those that a problem has now.

    Args:
        problem: The inverse problem.
        stored: Trajectories that are said to be its own.

    Returns:
        The largest difference of a state, as a share of the largest value of that state along the
        trajectory and in units of what rewriting may change; infinite where only one is solved.
    """
    solved = _solved(problem, stored.thetas)
    ok = stored.status == SolveStatus.SUCCESS
    if np.any(ok != (solved.status == SolveStatus.SUCCESS)) or not ok.any():
        return np.inf
    old, new = stored.states[ok], solved.states[ok]
    scale = np.abs(old).max(axis=1, keepdims=True)
    tolerance = max(stored.rtol, solved.rtol)
    room = _ROOM * tolerance * scale + _CANCELLATION * scale.max(axis=2, keepdims=True)
    gap = np.abs(new - old)
    return float(np.max(np.where(gap == 0.0, 0.0, gap / np.where(room > 0.0, room, 1e-300))))


def _tolerance(model: ODEModel | PDEModel) -> float:
    owner = model.solver if isinstance(model, PDEModel) else model
    return float(getattr(owner, "rtol", None) or _RELATIVE)


def settle(
    comparison: Comparison,
    trajectories: Callable[[], Trajectories | None],
    problem: InverseProblem,
    *,
    accept: bool,
    beginning: str,
    remedy: str,
) -> None:
    """Refuse another problem, and one that was perhaps only rewritten until that is accepted.

    Args:
        comparison: How the identities differ.
        trajectories: Gives stored trajectories where programs differ, or None.
        problem: The problem at hand.
        accept: Whether a rewritten problem is accepted.
        beginning: What is refused, the beginning of the message.
        remedy: What to do instead, a sentence.

    Raises:
        ValueError: If the problems are not the same.

    Warns:
        UserWarning: If the trajectories alone decided.
    """
    changed, rewritten, unseen = comparison
    if changed:
        raise ValueError(f"{beginning}; it differs in: {'; '.join(changed + rewritten)}. {remedy}")
    if not (rewritten or unseen):
        return
    phrases = "; ".join(rewritten + unseen)
    stored = trajectories()
    if stored is None or not len(stored.thetas):
        raise ValueError(
            f"{beginning}; it differs in: {phrases}. There are no trajectories to compare. {remedy}"
        )
    gap = distance(problem, stored)
    many = f"{len(stored.thetas)} trajectories that were solved again"
    if not gap <= 1.0:
        raise ValueError(
            f"{beginning}; it differs in: {phrases}, and {many} differ from the stored ones. "
            f"{remedy}"
        )
    if rewritten and not accept:
        raise ValueError(
            f"{beginning}; it differs in: {phrases}. The numbers agree: {many} are the stored ones "
            "within the solver's tolerance. If it is the same problem, only written in another "
            f"way, pass `accept=True`. {remedy}"
        )
    if unseen:
        warnings.warn(
            f"Not seen to be the same, {phrases}; {many} are the stored ones within the solver's "
            "tolerance, and that is all that is known.",
            stacklevel=4,
        )
