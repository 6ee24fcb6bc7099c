"""Whether readings change with what their derivatives do not see, by solving again."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._inverse_problem import InverseProblem
from .._observation import Observation
from .._sensors import FixedTimes
from .._x64 import in_x64

# Cases that are solved again, and places at which each of them is.
_CASES = 16
_LEVELS = (np.arange(8) + 0.5) / 8
# Factors by which parameters are multiplied together, and what is added in standard deviations.
_REACH = np.array([-1.5, -0.8, -0.3, 0.3, 0.8, 1.5])


class Probe(NamedTuple):
    """Solves a problem again at other parameters.

    Attributes:
        problem: The problem.
        thetas: Where to start from, in physical units.
        observation: Whose times and channels are read; by default all that sensors may read.
    """

    problem: InverseProblem
    thetas: Float[np.ndarray, "case parameter"]
    observation: Observation | None

    def along(self, parameter: int) -> float:
        """The largest change of a reading while a parameter goes through its prior.

        Args:
            parameter: Which.

        Returns:
            The change in standard deviations of the noise; 0 if no solve succeeds.
        """
        cases = self.thetas[:_CASES]
        unit = np.tile(_LEVELS[:, None], (1, cases.shape[1]))
        values = np.asarray(self.problem.parameters.from_unit(unit))[:, parameter]
        moved = np.repeat(cases[:, None], len(values), axis=1)
        moved[:, :, parameter] = values
        return self._largest(cases, moved)

    def together(self, move: Float[np.ndarray, " parameter"], *, logarithmic: bool) -> float:
        """The same while parameters move together, as far as the prior goes.

        Args:
            move: By how much, of their logarithms or their values, for one step.
            logarithmic: Of which.

        Returns:
            The change in standard deviations of the noise.
        """
        cases = self.thetas[:_CASES]
        steps = (_REACH[:, None] * move[None])[None]
        moved = cases[:, None] * np.exp(steps) if logarithmic else cases[:, None] + steps
        inside = np.asarray(self.problem.parameters.to_unit(moved))
        allowed = np.all((inside > 0.0) & (inside < 1.0), axis=-1, keepdims=True)
        return self._largest(cases, np.where(allowed, moved, cases[:, None]))

    def _largest(self, cases: np.ndarray, moved: np.ndarray) -> float:
        many, size = moved.shape[1:]
        # One call, which compiles once.
        thetas = np.concatenate([cases, moved.reshape(-1, size)])
        states = np.asarray(self.problem.model.solve_ensemble(thetas, self._times).states)
        first = np.repeat(np.arange(len(cases)), many)
        changes = _compared(self.problem, self._times, self._mask, thetas, states, first)
        return float(np.max(np.nan_to_num(np.asarray(changes), posinf=0.0), initial=0.0))

    @property
    def _times(self) -> Float[np.ndarray, " reading"]:
        if self.observation is not None:
            return np.asarray(self.observation.times, np.float64)
        grid = np.asarray(self.problem.model.times)
        schedule = self.problem.sensors.times
        if not isinstance(schedule, FixedTimes):
            return grid
        gaps = np.abs(np.subtract.outer(np.asarray(schedule.times), grid))
        return grid[gaps.argmin(axis=1)]

    @property
    def _mask(self) -> np.ndarray:
        if self.observation is not None:
            return np.asarray(self.observation.mask)
        return np.ones((len(self._times), len(self.problem.channels)), bool)


@in_x64
@eqx.filter_jit
def _compared(
    problem: InverseProblem, times: Any, mask: Any, thetas: Any, states: Any, first: Any
) -> Float[Array, " row"]:
    """Largest change of a reading or of its level, in standard deviations and factors of e.

    The first rows are what `first` says the others are compared with.
    """
    thetas, states, mask = jnp.asarray(thetas), jnp.asarray(states), jnp.asarray(mask)
    clean = jax.vmap(lambda y, theta: jnp.asarray(problem.read(y, theta)))(states, thetas)
    clean = jnp.where(mask[None], clean, 1.0)
    count = len(thetas) - len(first)

    def one(before: Array, theta: Array, after: Array, moved: Array) -> Array:
        gap = problem.noise.whiten(after, before, theta, mask, times=times)
        levels = [problem.noise.log_scale(before, p, mask, times=times) for p in (theta, moved)]
        change = jnp.maximum(jnp.abs(gap), jnp.abs(levels[1] - levels[0]))
        return jnp.max(jnp.where(mask & jnp.isfinite(change), change, 0.0))

    return jax.vmap(one)(clean[first], thetas[first], clean[count:], thetas[count:])
