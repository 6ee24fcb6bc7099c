"""Vetting: what an inverter's record on held-out simulations says about an estimate."""

import dataclasses
import os
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from ..._estimate import Estimate
from ..._estimate_status import EstimateStatus
from ..._inverse_problem import InverseProblem
from ..._observation import Observation
from ..._trust import P_VALUE, Vetting
from ..._x64 import in_x32
from ...data import Dataset
from ...models import compiled, in_calls
from ...noise import misfit_p_value
from ...train import TrainLog
from .._base import MORE_URGENT, AbstractInverter, issue_ticket
from .._batches import in_precision
from .._storage import load, stored_names
from ..amortized._encoding import Encoder
from ..amortized._method import AbstractAmortizedMethod
from ..exact._levenberg_marquardt import Local, minimize
from ..exact._objective import Coordinates, Objective, Penalty
from ._conformal import ConformalInverter
from ._held_out import invert_held_out, usable_cases

# A network's estimate is mostly so near the optimum that a few steps show what misfit will be left.
_STEPS, _TOLERANCE = 12, 0.01
_LEVEL = 0.9


class VettedInverter(AbstractInverter):
    """An inverter whose estimates carry a full trust ticket, from `vet` or `load_vetted`.

    On concrete observations each estimate is solved again, and compared with those of held-out
    simulations; `estimate.ticket` has the verdict. `invert_batch` does the same for a batch.
    Under a transformation it is the inner inverter.

    Attributes:
        inner: The inverter that was vetted.
        misfits: Misfit of each held-out estimate, in order.
        surprises: Misfit plus penalty left by a fit on the real solver, in order.
        gaps: Distance of the surrogate from the solver, in order; empty without a surrogate.
        coverage: Share of truths within the 90 % interval of each parameter.
    """

    inner: AbstractInverter
    misfits: Float[Array | np.ndarray, " case"]
    surprises: Float[Array | np.ndarray, " case"]
    gaps: Float[Array | np.ndarray, " gap"]
    coverage: Float[Array | np.ndarray, " parameter"]

    def __init__(
        self,
        inner: AbstractInverter,
        misfits: Float[Array | np.ndarray, " case"],
        surprises: Float[Array | np.ndarray, " case"],
        gaps: Float[Array | np.ndarray, " gap"],
        coverage: Float[Array | np.ndarray, " parameter"],
    ) -> None:
        """Keep the parts; `vet` computes them."""
        self.inner, self.misfits, self.surprises = inner, misfits, surprises
        self.gaps, self.coverage = gaps, coverage

    @property
    def problem(self) -> InverseProblem:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The problem it inverts."""
        return self.inner.problem

    @property
    def settings(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The method that made the inner inverter, as text."""
        return self.inner.settings

    @property
    def logs(self) -> tuple[TrainLog, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Logs of the inner inverter's training, empty after loading."""
        return self.inner.logs

    @property
    def _is_exact(self) -> bool:
        return self.inner._is_exact

    @property
    def _is_corrected(self) -> bool:
        return self.inner._is_corrected

    def _check_loaded(self) -> None:
        self.inner._check_loaded()

    def _unfamiliar(self, observations: Observation) -> Int[np.ndarray, "*batch"]:
        return self.inner._unfamiliar(observations)

    def _invert(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        return self.inner._invert(observations, keys)

    def _on_host(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        estimate = self.inner._on_host(observations, keys)
        found = _examine(self.inner, estimate, observations)
        estimate = _with_status(self.problem, estimate, found, observations)
        ticket = issue_ticket(self.inner, estimate, observations, found.clean)
        cases = len(self.misfits)
        nothing = np.full(found.chi2.shape, np.nan)
        vetting = Vetting(
            misfit_rank=_rank(found.chi2, self.misfits),
            novelty_rank=_rank(found.surprise, self.surprises),
            unexplained=found.left / found.count,
            surrogate_gap=nothing if found.gap is None else found.gap,
            surrogate_rank=nothing if found.gap is None else _rank(found.gap, self.gaps),
            coverage=np.broadcast_to(self.coverage, (*found.chi2.shape, len(self.coverage))),
            cases=cases,
        )
        ticket = eqx.tree_at(lambda t: t.vetting, ticket, vetting, is_leaf=lambda x: x is None)
        return eqx.tree_at(lambda e: e.ticket, estimate, ticket, is_leaf=lambda x: x is None)


def vet(
    inverter: AbstractInverter, dataset: Dataset, *, accept: bool = False, key: Key[Array, ""]
) -> VettedInverter:
    """Learn on held-out simulations what is normal for an inverter.

    Each simulation is measured and inverted, the model solved again at the estimate and fitted
    from there to the readings. Later estimates are ranked among these: their misfit, what a fit
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
    """
    usable = usable_cases(inverter, dataset, accept=accept)
    found, inside = [], []
    for block in invert_held_out(inverter, usable, key=key):
        some = slice(block.size)
        observations, estimate = jax.tree.map(
            lambda x, some=some: np.asarray(x)[some], (block.observations, block.estimate)
        )
        found.append(_examine(inverter, estimate, observations))
        lower, upper = estimate.interval(_LEVEL)
        truth = usable.thetas[block.rows[some]]
        inside.append((lower <= truth) & (truth <= upper))
    misfits, surprises = (
        np.sort(np.concatenate([getattr(f, name) for f in found])) for name in ("chi2", "surprise")
    )
    gaps = [f.gap for f in found if f.gap is not None]
    return VettedInverter(
        inverter,
        misfits,
        surprises,
        np.sort(np.concatenate(gaps)) if gaps else np.zeros(0),
        np.concatenate(inside).mean(axis=0),
    )


@in_x32
def load_vetted(
    folder: str | os.PathLike[str],
    problem: InverseProblem,
    *,
    method: AbstractAmortizedMethod[Any],
    accept: bool = False,
) -> VettedInverter:
    """Read a vetted inverter back, corrected by `conformal` or not.

    Args:
        folder: Where `save` put it.
        problem: The problem it was trained for.
        method: The method that made the inner inverter, with the same settings.
        accept: Whether to accept a problem whose functions are written in another way, if a few
            trajectories and readings are the same.

    Returns:
        The vetted inverter.

    Raises:
        FileNotFoundError: If there is nothing in the folder.
        ValueError: If it is of another problem, method or settings, or was not vetted.
    """
    inner = method._untrained(problem, Encoder.blank(problem))
    if ".inner.quantiles" in stored_names(folder):
        inner = ConformalInverter(inner, np.zeros((1, problem.parameters.size), np.float32))
    blank = np.zeros(1)
    blanks = VettedInverter(inner, blank, blank, blank, blank)
    return load(blanks, folder, problem, accept=accept)


class _Found(eqx.Module):
    """What the solver says about a batch of estimates; infinite where it fails."""

    chi2: Float[np.ndarray, " batch"]  # of the estimate
    left: Float[np.ndarray, " batch"]  # after a fit
    surprise: Float[np.ndarray, " batch"]
    gap: Float[np.ndarray, " batch"] | None
    count: Int[np.ndarray, " batch"]
    impossible: Bool[np.ndarray, " batch"]  # though solved
    clean: Float[np.ndarray, "batch reading channel"]


def _examine(inverter: AbstractInverter, estimate: Estimate, observations: Observation) -> _Found:
    problem = inverter.problem
    unit = np.asarray(estimate.unit_value, np.float64)
    chi2, clean = in_calls(_misfits, problem, (unit, observations))
    objective = Objective(problem, Coordinates.UNIT, Penalty.SPREAD, coupled=False)
    fitted, surprise = in_calls(_fit, objective, (unit, observations), sensitivities=True)
    left, _ = in_calls(_misfits, problem, (fitted, observations))
    count = np.asarray(observations.mask).sum(axis=(1, 2))
    predicted = inverter._surrogate_readings(unit, observations)
    gap = None
    if predicted is not None:
        gap = _finite(np.sqrt(_distance(problem, unit, predicted, clean, observations) / count))
    # A surprise of observations with many and few readings on one scale, as for chi-squared.
    surprise = (_finite(surprise) - count) / np.sqrt(2.0 * count)
    read = np.where(np.asarray(observations.mask), np.isfinite(clean), True).all(axis=(1, 2))
    impossible = read & np.isposinf(chi2)
    return _Found(_finite(chi2) / count, _finite(left), surprise, gap, count, impossible, clean)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), np.inf, values)


def _misfits_block(
    problem: InverseProblem, rows: tuple[Any, Observation], count: Array, lanes: int
) -> tuple[Float[Array, " batch"], Float[Array, "batch reading channel"]]:
    """Chi-squared and clean readings at given parameters."""
    del count, lanes
    unit, observations = rows
    observations = in_precision(observations, jnp.float64)
    theta = jnp.asarray(problem.parameters.from_unit(unit))
    solution = problem.model.solve_ensemble(theta, jnp.asarray(observations.times))
    clean = jnp.asarray(jax.vmap(problem.read)(solution.states, theta))
    return _chi2(problem, theta, observations, clean), clean


_misfits = compiled(_misfits_block)


def _chi2(
    problem: InverseProblem, theta: Array, observations: Observation, clean: Any
) -> Float[Array, " batch"]:
    def one(theta: Array, observation: Observation, clean: Array) -> Array:
        mask = jnp.asarray(observation.mask)
        readings, clean = (jnp.where(mask, x, 1.0) for x in (observation.values, clean))
        residual = problem.noise.whiten(readings, clean, theta, mask, times=observation.times)
        return jnp.sum(jnp.where(mask, jnp.square(residual), 0.0))

    return jax.vmap(one)(theta, observations, clean)


def _fit_block(
    objective: Objective, rows: tuple[Any, Observation], count: Array, lanes: int
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
    unit: np.ndarray,
    predicted: np.ndarray,
    clean: np.ndarray,
    observations: Observation,
) -> Float[np.ndarray, " batch"]:
    with jax.enable_x64(True):
        theta = jnp.asarray(problem.parameters.from_unit(unit))
        seen = dataclasses.replace(observations, values=predicted)
        return np.asarray(_chi2_compiled(problem, theta, in_precision(seen, jnp.float64), clean))


_chi2_compiled = eqx.filter_jit(_chi2)


def _with_status(
    problem: InverseProblem, estimate: Estimate, found: _Found, observations: Observation
) -> Estimate:
    """The estimates with misfit and status, as `resimulate` gives them to a single one."""
    total = found.chi2 * found.count
    p_value = misfit_p_value(problem.noise, total, found.clean, observations.mask)
    before = np.asarray(estimate.status)
    status = np.where(p_value < P_VALUE, int(EstimateStatus.POOR_FIT), int(EstimateStatus.OK))
    status = np.where(np.isin(before, MORE_URGENT), before, status)
    status = np.where(np.isinf(found.chi2), int(EstimateStatus.SOLVER_FAILED), status)
    status = np.where(found.impossible, int(EstimateStatus.IMPOSSIBLE_READINGS), status)
    reduced = np.where(np.isinf(found.chi2), np.nan, found.chi2)
    return eqx.tree_at(lambda e: (e.reduced_chi2, e.status), estimate, (reduced, status))


def _rank(
    values: Float[np.ndarray, " batch"], ordered: Float[Array | np.ndarray, " case"]
) -> Float[np.ndarray, " batch"]:
    """Share of ordered values, and of the value itself, that are at least as large."""
    larger = len(ordered) - np.searchsorted(np.asarray(ordered), values, side="left")
    return (1.0 + larger) / (1.0 + len(ordered))
