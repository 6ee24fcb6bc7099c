"""What a method on the real solver may start from: another inverter, or an estimate."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from ..._estimate import Estimate
from ..._inverse_problem import InverseProblem
from ..._observation import Observation
from ..._x64 import is_traced
from ...train import TrainLog
from .._estimates import estimate_from_point
from .._inverter import AbstractInverter


class GivenEstimate(AbstractInverter):
    """An inverter whose answer is given: every observation has the same estimate.

    `refine` makes one where it is given an estimate instead of an inverter.

    Attributes:
        problem: The problem.
        estimate: Its single answer.
        method: None.
        logs: Empty.
    """

    problem: InverseProblem
    estimate: Estimate
    method: None = None
    logs: tuple[TrainLog, ...] = ()

    def __init__(self, problem: InverseProblem, estimate: Estimate) -> None:
        """Keep the point, its spread and its samples.

        Args:
            problem: The problem.
            estimate: A single estimate of it.

        Raises:
            ValueError: If it is of another problem, or a batch.
        """
        if estimate.names != problem.parameters.names:
            raise ValueError(
                f"`estimate` must be of the parameters {', '.join(problem.parameters.names)} of "
                f"`problem`; it is of {', '.join(estimate.names)}."
            )
        if np.ndim(estimate.value) != 1:
            raise ValueError(
                f"`estimate` must be a single one; this is a batch of shape "
                f"{np.shape(estimate.value)[:-1]}. Take one by "
                "`jax.tree.map(lambda x: x[0], estimate)`."
            )
        self.problem = problem
        point = estimate_from_point(problem, jnp.asarray(estimate.value))
        known = (estimate.value, estimate.unit_value, estimate.std, estimate.samples)
        self.estimate = eqx.tree_at(
            lambda e: (e.value, e.unit_value, e.std, e.samples),
            jax.tree.map(np.asarray, point),
            tuple(None if each is None else np.asarray(each) for each in known),
            is_leaf=lambda x: x is None,
        )
        self.method, self.logs = None, ()

    def _parts(self) -> dict[str, Any]:
        return {"samples": self.estimate.samples is not None}

    @classmethod
    def _from_parts(cls, problem: InverseProblem, parts: dict[str, Any]) -> "GivenEstimate":
        value = np.full(problem.parameters.size, 0.5)
        blank = estimate_from_point(problem, jnp.asarray(problem.parameters.from_unit(value)))
        samples = np.zeros((1, len(value))) if parts["samples"] else None
        return cls(
            problem,
            eqx.tree_at(lambda e: e.samples, blank, samples, is_leaf=lambda x: x is None),
        )

    def _invert(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        xp = jnp if is_traced(self, observations, keys) else np
        return jax.tree.map(lambda x: xp.repeat(xp.asarray(x)[None], len(keys), 0), self.estimate)


def starting_from(
    start: AbstractInverter | Estimate, problem: InverseProblem | None
) -> AbstractInverter:
    """The inverter whose estimates a method starts from.

    Args:
        start: An inverter, or an estimate to start from whatever is observed.
        problem: The problem of an estimate; that of an inverter is its own.

    Returns:
        The inverter.

    Raises:
        TypeError: If `start` is neither.
        ValueError: If the problem is missing, or another one.
    """
    if isinstance(start, Estimate):
        if problem is None:
            raise ValueError(
                "`problem` is needed beside an estimate, which does not know its equations: "
                "`refine(estimate, problem)`."
            )
        return GivenEstimate(problem, start)
    if not isinstance(start, AbstractInverter):
        raise TypeError(
            f"`start` must be a fitted inverter or an estimate; got {type(start).__name__}. Fit a "
            "method first, for instance `LeastSquares().fit(problem)`."
        )
    if problem is not None and problem is not start.problem:
        raise ValueError(
            f"`problem` belongs to an estimate; the inverter has its own, {start.problem.name!r}. "
            "Leave `problem` out."
        )
    return start
