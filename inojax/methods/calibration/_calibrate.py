"""Calibration: what an inverter's record on held-out simulations says about an estimate."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..._estimate import Estimate
from ..._inverse_problem import InverseProblem
from ..._observation import Observation
from ..._trust import Calibration
from ...data._dataset import Dataset
from ...models._calls import compiled, in_calls
from .._batches import in_precision
from .._inverter import AbstractInverter
from .._penalty import Penalty
from .._resimulate import Misfit, misfit, squared_residuals
from ..exact._levenberg_marquardt import Local, minimize
from ..exact._objective import Coordinates, Objective
from ._held_out import invert_held_out, usable_cases
from ._wrapper import AbstractWrapper

# A network's estimate is mostly so near the optimum that a few steps show what misfit will be left.
_STEPS, _TOLERANCE = 12, 0.01
_LEVEL = 0.9


class CalibratedInverter(AbstractWrapper):
    """An inverter whose estimates carry a full trust ticket, from `calibrate`.

    On concrete observations each estimate is solved again, and compared with those of held-out
    simulations; `estimate.ticket` has the verdict. `invert_batch(..., checked=True)` does the same
    for a batch. Under a transformation it is the inner inverter.

    Attributes:
        inner: The inverter that was calibrated.
        misfits: Misfit of each held-out estimate, in order.
        misspecifications: Misfit plus penalty left by a fit on the real solver, in order.
        gaps: Distance of the surrogate from the solver, in order; empty without a surrogate.
        coverage: Share of truths within the 90 % interval of each parameter.

    Example:
        >>> # what `calibrate(inverter, held_out, key=key)` gives
        >>> issubclass(ij.methods.CalibratedInverter, ij.methods.AbstractInverter)
        True
    """

    inner: AbstractInverter
    misfits: Float[Array | np.ndarray, " case"]
    misspecifications: Float[Array | np.ndarray, " case"]
    gaps: Float[Array | np.ndarray, " gap"]
    coverage: Float[Array | np.ndarray, " parameter"]

    def __init__(
        self,
        inner: AbstractInverter,
        misfits: Float[Array | np.ndarray, " case"],
        misspecifications: Float[Array | np.ndarray, " case"],
        gaps: Float[Array | np.ndarray, " gap"],
        coverage: Float[Array | np.ndarray, " parameter"],
    ) -> None:
        """Keep the parts; `calibrate` computes them."""
        self.inner, self.misfits, self.misspecifications = inner, misfits, misspecifications
        self.gaps, self.coverage = gaps, coverage

    @classmethod
    def _around(cls, inner: AbstractInverter) -> "CalibratedInverter":
        return cls(inner, *(np.zeros(1) for _ in range(4)))

    def _calibrated(
        self, estimates: Estimate, found: Misfit, observations: Observation
    ) -> Calibration:
        beside = _examine(self.inner, estimates, found, observations)
        nothing = np.full(found.chi2.shape, np.nan)
        return Calibration(
            misfit_p_value=_p_value(beside.chi2, self.misfits),
            misspecification_p_value=_p_value(beside.misspecification, self.misspecifications),
            unexplained=beside.left / found.readings,
            surrogate_gap=nothing if beside.gap is None else beside.gap,
            surrogate_p_value=nothing if beside.gap is None else _p_value(beside.gap, self.gaps),
            coverage=np.broadcast_to(self.coverage, (*found.chi2.shape, len(self.coverage))),
            cases=len(self.misfits),
        )


def calibrate(
    inverter: AbstractInverter, dataset: Dataset, *, accept: bool = False, key: Key[Array, ""]
) -> CalibratedInverter:
    """Learn on held-out simulations what is normal for an inverter.

    Each simulation is measured and inverted, the model solved again at the estimate and fitted
    from there to the readings. Later estimates are compared with these: their misfit, what a fit
    cannot explain (readings unlike those the problem describes), how far a surrogate is from the
    solver, and how often the intervals held the truth. The thresholds need no theory: among the
    held-out cases each is passed in one of fifty.

    Args:
        inverter: A fitted inverter that gives samples.
        dataset: Simulations of its problem that neither training nor `conformal` has seen;
            failed ones are left out. At least 100 are needed, and 500 to tell 2 % well.
        accept: Whether to accept simulations of equations that are written in another way. Some
            are solved again, and where they differ they are refused all the same.
        key: Source of randomness of sensors, noise and inversions.

    Returns:
        An inverter with the same estimates, and a ticket with each.

    Raises:
        ValueError: If the data set is of another problem or too small, if the inverter gives no
            samples, or if the noise is zero.

    Example:
        >>> problem = ij.problems.robertson()
        >>> training, held_out = (
        ...     ij.simulate(problem, 128, key=jr.key(seed), progress=False) for seed in (0, 1)
        ... )
        >>> inverter = ij.methods.Regression(steps=10, draws=32).fit(
        ...     problem, training, key=jr.key(2), progress=False
        ... )

        >>> calibrated = ij.methods.calibrate(inverter, held_out, key=jr.key(3))
        >>> calibrated.coverage.shape
        (3,)
    """
    usable = usable_cases(inverter, dataset, accept=accept)
    found, inside = [], []
    for block in invert_held_out(inverter, usable, key=key):
        some = slice(block.size)
        observations, estimate = jax.tree.map(
            lambda x, some=some: np.asarray(x)[some], (block.observations, block.estimate)
        )
        again = misfit(inverter.problem, np.asarray(estimate.value), observations)
        found.append(_examine(inverter, estimate, again, observations))
        lower, upper = estimate.interval(_LEVEL)
        truth = usable.thetas[block.rows[some]]
        inside.append((lower <= truth) & (truth <= upper))
    misfits, misspecifications = (
        np.sort(np.concatenate([getattr(f, name) for f in found]))
        for name in ("chi2", "misspecification")
    )
    gaps = [f.gap for f in found if f.gap is not None]
    return CalibratedInverter(
        inverter,
        misfits,
        misspecifications,
        np.sort(np.concatenate(gaps)) if gaps else np.zeros(0),
        np.concatenate(inside).mean(axis=0),
    )


class _Found(eqx.Module):
    """What the solver says about a batch of estimates; infinite where it fails."""

    chi2: Float[np.ndarray, " batch"]  # of the estimate, per reading
    left: Float[np.ndarray, " batch"]  # after a fit
    misspecification: Float[np.ndarray, " batch"]
    gap: Float[np.ndarray, " batch"] | None


def _examine(
    inverter: AbstractInverter, estimates: Estimate, found: Misfit, observations: Observation
) -> _Found:
    problem = inverter.problem
    unit = np.asarray(estimates.unit_value, np.float64)
    objective = Objective(problem, Coordinates.UNIT, Penalty.SPREAD, coupled=False)
    fitted, misspecification = in_calls(_fit, objective, (unit, observations), sensitivities=True)
    with jax.enable_x64(True):
        thetas = np.asarray(problem.parameters.from_unit(jnp.asarray(fitted)))
    left = misfit(problem, thetas, observations).chi2
    predicted = inverter._surrogate_readings(unit, observations)
    gap = None
    if predicted is not None:
        distance = _distance(problem, np.asarray(estimates.value), predicted, found, observations)
        gap = _finite(np.sqrt(distance / found.readings))
    # Observations with many and few readings on one scale, as for chi-squared.
    misspecification = (_finite(misspecification) - found.readings) / np.sqrt(2.0 * found.readings)
    return _Found(_finite(found.chi2) / found.readings, _finite(left), misspecification, gap)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), np.inf, values)


def _fit_block(
    objective: Objective, rows: tuple[Any, Observation], count: Any, lanes: int
) -> tuple[Float[Array, "batch parameter"], Float[Array, " batch"]]:
    """Fit the readings from given parameters on; where that ends, and twice what is left."""
    del lanes
    unit, observations = rows
    observations = in_precision(observations, jnp.float64)

    def evaluate(x: Array, count: Array, which: Array) -> Local:
        return objective(x, jax.tree.map(lambda leaf: leaf[which], observations), count)

    minimum = minimize(
        evaluate,
        objective.from_unit(unit),
        objective.bounds,
        max_steps=_STEPS,
        tolerance=_TOLERANCE,
        count=count,
    )
    reference = jax.vmap(lambda o: _log_scale(objective.problem, o))(observations)
    return objective.to_unit(minimum.x), 2.0 * (minimum.local.value - reference)


_fit = compiled(_fit_block)


def _log_scale(problem: InverseProblem, observation: Observation) -> Float[Array, ""]:
    """Logarithm of all scales of the noise at the center of the prior."""
    mask = jnp.asarray(observation.mask)
    readings = jnp.where(mask, jnp.asarray(observation.values), 1.0)
    center = jnp.asarray(problem.parameters.from_unit(jnp.full(problem.parameters.size, 0.5)))
    log_scale = problem.noise.log_scale(readings, center, mask, times=observation.times)
    return jnp.sum(jnp.where(mask, log_scale, 0.0))


def _distance(
    problem: InverseProblem,
    thetas: np.ndarray,
    predicted: np.ndarray,
    found: Misfit,
    observations: Observation,
) -> Float[np.ndarray, " batch"]:
    with jax.enable_x64(True):
        seen = in_precision(dataclasses.replace(observations, values=predicted), jnp.float64)
        values = jnp.asarray(thetas, jnp.float64)
        return np.asarray(_squares(problem, values, seen, jnp.asarray(found.clean)))


_squares = eqx.filter_jit(squared_residuals)


def _p_value(
    values: Float[np.ndarray, " batch"], ordered: Float[Array | np.ndarray, " case"]
) -> Float[np.ndarray, " batch"]:
    """Monte Carlo p-value: share of held-out values, and of the value itself, at least as large."""
    larger = len(ordered) - np.searchsorted(np.asarray(ordered), values, side="left")
    return (1.0 + larger) / (1.0 + len(ordered))
