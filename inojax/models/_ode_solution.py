"""What solving an ordinary differential equation gives."""

import dataclasses
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int


class ODESolution(eqx.Module):
    """States at the requested times, with what became of each solve.

    Attributes:
        times: Output times.
        states: States at those times; NaN from the point on where a solve failed.
        status: A `SolveStatus` for each solve, 0 for success.
        steps: Accepted and rejected steps taken.
        work: Steps of all lanes of an ensemble, those without a trajectory included.
        retried: How many solves of an ensemble failed at first and were tried again.

    Example:
        >>> problem = ij.problems.robertson()
        >>> solution = problem.model.solve(problem.parameters.from_unit(np.full(3, 0.5)))
        >>> int(solution.status) == ij.solvers.SolveStatus.SUCCESS, solution.states.shape[1]
        (True, 3)
    """

    times: Float[Array | np.ndarray, "*rows time"]
    states: Float[Array | np.ndarray, "*batch time state"]
    status: Int[Array | np.ndarray, "*batch"]
    steps: Int[Array | np.ndarray, "*batch"]
    work: Int[Array | np.ndarray, ""] | int = 0
    retried: int = eqx.field(static=True, default=0)

    @property
    def wasted(self) -> float:
        """Share of an ensemble's work done in lanes that had no trajectory, in [0, 1)."""
        work = int(self.work)
        return 1.0 - float(np.sum(np.asarray(self.steps))) / work if work else 0.0

    def replaced(self, rows: Int[np.ndarray, " some"], again: "ODESolution") -> "ODESolution":
        """The same with some rows from a second attempt, on the host."""

        def merge(old: Any, new: Any) -> np.ndarray:
            merged = np.array(old)
            merged[rows] = new
            return merged

        return dataclasses.replace(
            self,
            states=merge(self.states, again.states),
            status=merge(self.status, again.status),
            steps=merge(self.steps, np.asarray(self.steps)[rows] + again.steps),
            work=np.asarray(self.work + again.work),
            retried=len(rows),
        )
