"""Least squares on the real solver: every optimum, how far it can be trusted, from any start."""

import enum
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from .._estimate import Estimate, Optima
from .._estimate_status import EstimateStatus
from .._inverse_problem import InverseProblem
from .._observation import Observation
from .._x64 import require_x64
from ..data import Dataset
from ..models import compiled, in_calls
from ..solvers import cholesky
from ..train import TrainLog
from ._base import AbstractExactInverter, AbstractInverter, check_inverter
from ._batches import in_precision, split_each
from ._checks import check_counts
from ._levenberg_marquardt import Local, Minimum, minimize
from ._linear_posterior import sample_gaussian, sample_in_box
from ._objective import UNIT_PRECISION, Coordinates, Objective, Penalty

# Optima nearer than this, in standard deviations of the better one, are the same.
_SAME = 1.0
# Share of each parameter's own precision that is added to it, above the rounding errors.
_SINGULAR = 1e-12


class Point(enum.Enum):
    """Which point of the posterior is the estimate: its mode or the mean of its samples."""

    MODE = "mode"
    MEAN = "mean"


class LeastSquares(eqx.Module):
    """Bounded multi-start Levenberg-Marquardt on the real solver.

    Use it where an answer must be as exact as the readings allow, alone for a few observations
    or behind an amortized method (`refine`), whose estimate it polishes. It needs no training:
    the residuals are whitened by the noise model, the derivatives are forward sensitivities of the
    solver, and all starts of all observations advance together.

    The estimate's samples come from the posterior with the model linearized at each optimum,
    each with the weight that its peak and width give it (Laplace).

    Attributes:
        starts: Starts for each observation: the prior's center and random ones, or those that
            an inverter gives.
        max_steps: Most steps of each start.
        tolerance: A start has arrived when a step gains less, in units of log density.
        coordinates: In which it works.
        penalty: What is added to the misfit.
        point: Which point of the posterior is the estimate.
        draws: Samples for each observation.

    Source:
        Nocedal and Wright, Numerical Optimization, chapter 10.
    """

    starts: int = 8
    max_steps: int = 100
    tolerance: float = 1e-6
    coordinates: Coordinates = Coordinates.UNIT
    penalty: Penalty = Penalty.SPREAD
    point: Point = Point.MODE
    draws: int = 128

    def __check_init__(self) -> None:
        """Refuse counts below one and a tolerance that is not positive."""
        check_counts(self, "starts", "max_steps", "draws")
        if not self.tolerance > 0.0:
            raise ValueError(f"`tolerance` must be positive; got {self.tolerance!r}.")

    def fit(
        self, problem: InverseProblem, dataset: Dataset | None = None, *, key: Key[Array, ""]
    ) -> "LeastSquaresInverter":
        """Make an inverter; there is nothing to train.

        Args:
            problem: The inverse problem.
            dataset: Not needed.
            key: Not needed.

        Returns:
            An inverter that starts from the prior.
        """
        del dataset, key
        return LeastSquaresInverter(
            problem=problem, method=self, first=None, settings=eqx.tree_pformat(self)
        )

    def refine(self, inverter: AbstractInverter) -> "LeastSquaresInverter":
        """Make an inverter that starts where another one ends.

        The first start is the other's estimate, further ones are samples of it.

        Args:
            inverter: Any inverter.

        Returns:
            An inverter of the same problem.

        Raises:
            TypeError: If `inverter` is not an inverter.
        """
        check_inverter(inverter)
        settings = f"{eqx.tree_pformat(self)} after {inverter.settings}"
        return LeastSquaresInverter(
            problem=inverter.problem, method=self, first=inverter, settings=settings
        )


class LeastSquaresInverter(AbstractExactInverter):
    """From `LeastSquares.fit` or `LeastSquares.refine`.

    Attributes:
        problem: The problem it inverts.
        method: Its settings.
        first: The inverter whose estimates it starts from, if any.
        settings: The same as text.
        logs: Empty.
    """

    problem: InverseProblem
    method: LeastSquares
    first: AbstractInverter | None
    settings: str = eqx.field(static=True)
    logs: tuple[TrainLog, ...] = ()

    def _invert(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        require_x64("`LeastSquaresInverter`")
        if self.first is not None:
            # Networks run in float32.
            single = in_precision(observations, jnp.float32)
            guesses = self._guesses(self.first._invert(single, split_each(keys)[0]))
        else:
            guesses = self._starts(keys)
        return self._minimize(observations, keys, guesses, observations.mask.shape[0])

    def _on_host(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        if self.first is not None:
            guesses = self._guesses(self.first._on_host(observations, split_each(keys)[0]))
        else:
            with jax.enable_x64(True):
                guesses = self._starts(keys)
        # What is compiled must not depend on where the starts come from.
        alone = LeastSquaresInverter(
            problem=self.problem, method=self.method, first=None, settings=""
        )
        rows = observations, np.asarray(jr.key_data(keys)), np.asarray(guesses, np.float64)
        return in_calls(_block, alone, rows, sensitivities=True)

    def _guesses(self, estimate: Estimate) -> Array:
        """Unit coordinates that an estimate suggests: itself, then samples of it."""
        guesses = jnp.asarray(estimate.unit_value)[:, None]
        if self.method.starts > 1 and estimate.samples is not None:
            samples = jnp.asarray(estimate.samples)
            index = np.linspace(0, samples.shape[1] - 1, self.method.starts - 1).astype(int)
            unit = jnp.asarray(self.problem.parameters.to_unit(samples[:, index]))
            guesses = jnp.concatenate([guesses, unit], axis=1)
        return guesses

    def _minimize(
        self, observations: Observation, keys: Array, guesses: Array, count: Any
    ) -> Estimate:
        objective = Objective(self.problem, self.method.coordinates, self.method.penalty)
        observations = in_precision(observations, jnp.float64)
        starts = jnp.asarray(guesses, jnp.float64)
        batch, many, size = starts.shape
        every = jax.tree.map(lambda x: jnp.repeat(x, many, axis=0), observations)

        def evaluate(x: Array, count: Array, which: Array) -> Local:
            return objective(x, jax.tree.map(lambda leaf: leaf[which], every), count)

        minimum = minimize(
            evaluate,
            objective.from_unit(starts.reshape(-1, size)),
            objective.bounds,
            max_steps=self.method.max_steps,
            tolerance=self.method.tolerance,
            count=jnp.asarray(count) * many,
        )
        grouped = jax.tree.map(lambda x: x.reshape(batch, many, *x.shape[1:]), minimum)
        return jax.vmap(lambda m, key: self._estimate(objective, m, key))(
            grouped, split_each(keys)[1]
        )

    def _starts(self, keys: Key[Array, " batch"]) -> Float[Array, "batch start parameter"]:
        size = self.problem.parameters.size
        shape = (self.method.starts - 1, size)
        random = jax.vmap(lambda key: jr.uniform(key, shape, jnp.float64))(split_each(keys)[0])
        return jnp.concatenate([jnp.full((len(keys), 1, size), 0.5), random], axis=1)

    def _estimate(self, objective: Objective, minimum: Minimum, key: Array) -> Estimate:
        optima, order = _distinct(objective, minimum)
        best = jax.tree.map(lambda x: x[order], minimum)
        x = self._sample(objective, best, jnp.asarray(optima.weight), key)
        space = self.problem.parameters
        samples, unit_value = objective.theta(x), optima.unit_value[0]
        value = optima.value[0]
        if self.method.point is Point.MEAN:
            unit_value = jnp.mean(objective.to_unit(x), axis=0)
            value = space.from_unit(unit_value)
        failed = ~jnp.isfinite(best.local.value[0])
        status = jnp.where(failed, EstimateStatus.SOLVER_FAILED, EstimateStatus.NOT_CHECKED)
        return Estimate(
            space.names,
            space.units,
            jnp.asarray(value),
            jnp.asarray(unit_value),
            jnp.std(samples, axis=0),
            samples,
            jnp.asarray(jnp.nan),
            status,
            optima,
        )

    def _sample(
        self, objective: Objective, minimum: Minimum, weight: Array, key: Array
    ) -> Float[Array, "sample parameter"]:
        pick_key, draw_key = jr.split(key)
        prior = objective.prior(minimum.x)
        likelihood = jax.tree.map(jnp.subtract, minimum.local, prior)
        draws = self.method.draws

        def one(x: Array, likelihood: Local, both: Local, key: Array) -> Array:
            if objective.penalty is Penalty.NONE:
                return sample_gaussian(x, _regular(likelihood.hessian), draws, key=key)
            if objective.coordinates is Coordinates.UNIT:
                return sample_in_box(x, likelihood.gradient, likelihood.hessian, draws, key=key)
            return sample_gaussian(x, _regular(both.hessian), draws, key=key)

        keys = jr.split(draw_key, weight.size)
        every = jax.vmap(one)(minimum.x, likelihood, minimum.local, keys)
        # Without any optimum all of them are as good.
        sure = jnp.where(jnp.any(weight > 0.0), weight, 1.0)
        which = jr.categorical(pick_key, jnp.log(sure), shape=(draws,))
        lower, upper = objective.bounds
        return jnp.clip(every[which, jnp.arange(draws)], lower[None], upper[None])


def _block(inverter: LeastSquaresInverter, rows: Any, count: Array, lanes: int) -> Estimate:
    del lanes
    observations, key_data, guesses = rows
    return inverter._minimize(observations, jr.wrap_key_data(key_data), guesses, count)


_block = compiled(_block)


def _regular(hessian: Array) -> Array:
    """A matrix that has a Cholesky factor: directions that nothing holds are held a little."""
    diagonal = jnp.diagonal(hessian)
    return hessian + jnp.diag(_SINGULAR * diagonal + 1e-300)


def _distinct(objective: Objective, minimum: Minimum) -> tuple[Optima, Array]:
    """The optima without repetitions, best first, and their order among the starts."""
    # Where a start gave up there is no optimum, unless it is lower than all that are.
    there = jnp.isfinite(minimum.local.value)
    lowest = jnp.min(jnp.where(minimum.converged & there, minimum.local.value, jnp.inf))
    arrived = minimum.converged | (minimum.local.value < lowest)
    value = jnp.where(there & arrived, minimum.local.value, jnp.inf)
    order = jnp.argsort(value)
    x, value = minimum.x[order], value[order]
    local = jax.tree.map(lambda leaf: leaf[order], minimum.local)
    known = jnp.isfinite(value) & ~_repeats(x, local.hessian)
    prior = objective.prior(x)
    likelihood = jax.tree.map(jnp.subtract, local, prior)
    evidence = jnp.where(known, _log_evidence(objective, x, local, likelihood), -jnp.inf)
    weight = jnp.where(known, jax.nn.softmax(jnp.where(jnp.any(known), evidence, 0.0)), 0.0)
    misfit = jnp.where(known, likelihood.value, jnp.nan)
    return Optima(objective.theta(x), objective.to_unit(x), misfit, weight), order


def _repeats(x: Array, hessian: Array) -> Array:
    """Which points lie on the peak of an earlier one."""
    gaps = x[:, None] - x[None, :]
    squared = jnp.einsum("ijp,ipq,ijq->ij", gaps, hessian, gaps)
    # In so many dimensions points of one peak lie this far apart.
    near = squared < _SAME * x.shape[1]
    earlier = jnp.tri(len(x), k=-1, dtype=bool)
    return jnp.any(near.T & earlier, axis=1)


def _log_evidence(objective: Objective, x: Array, local: Local, likelihood: Local) -> Array:
    """Height of each peak times its volume, in the coordinates that have a flat measure."""
    if objective.coordinates is Coordinates.UNIT:
        # The prior is flat here, and no peak is wider than it.
        value, hessian = likelihood.value, likelihood.hessian
        hessian = hessian + UNIT_PRECISION * jnp.eye(x.shape[1])[None]
    else:
        value, hessian = local.value, local.hessian
        if objective.penalty is Penalty.DENSITY:
            value = value - jnp.sum(jnp.log(jnp.abs(objective.slopes(x))), axis=1)
    roots = jax.vmap(lambda h: jnp.diagonal(cholesky(_regular(h))))(hessian)
    evidence = -value - jnp.sum(jnp.log(roots), axis=1)
    return jnp.where(jnp.isnan(evidence), -jnp.inf, evidence)
