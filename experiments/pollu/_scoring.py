"""From estimates on POLLU to the rows of its table."""

import dataclasses
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

import inojax as ij
from experiments.common.evaluation import (
    BATCH,
    Row,
    invert_all,
    median_seconds,
    seconds_single,
    take,
)


@dataclasses.dataclass(frozen=True)
class Cases:
    """Test cases that all methods see alike.

    Attributes:
        problem: The inverse problem.
        dataset: True parameters and trajectories.
        scale: Standardization of trajectory errors.
        observations: One observation of each case, a batch in float64.
        floor: The limit.
    """

    problem: ij.InverseProblem
    dataset: ij.Dataset
    scale: ij.data.Standardizer
    observations: ij.Observation
    floor: ij.metrics.BayesFloor

    @property
    def hidden(self) -> np.ndarray:
        """Parameters of which the readings leave more than half of the prior variance."""
        return self.floor.per_parameter > 0.5 / 12.0

    def first(self, count: int) -> "Cases":
        """The first of the cases, for methods that take their time."""
        data = self.dataset
        some = ij.Dataset(
            data.thetas[:count],
            data.unit[:count],
            times=data.times,
            trajectories=data.trajectories[:count],
            status=data.status[:count],
        )
        observations = take(self.observations, slice(count))
        return dataclasses.replace(self, dataset=some, observations=observations)


@dataclasses.dataclass(frozen=True)
class Scored:
    """A method's row with the arrays that figures need.

    Attributes:
        row: The row.
        unit: Estimates in unit coordinates.
        lower: Lower ends of their 90 % intervals, in unit coordinates.
        upper: Upper ends.
        trajectories: The model, solved again at the estimates.
    """

    row: Row
    unit: Float[np.ndarray, "case parameter"]
    lower: Float[np.ndarray, "case parameter"]
    upper: Float[np.ndarray, "case parameter"]
    trajectories: Float[np.ndarray, "case time state"]

    def with_fields(self, fields: Row) -> "Scored":
        """The same with more fields in the row, or other values in those that are there."""
        return dataclasses.replace(self, row=self.row | fields)


def score(
    method: str,
    cases: Cases,
    unit: Float[np.ndarray, "case parameter"],
    interval: tuple[Float[np.ndarray, "case parameter"], Float[np.ndarray, "case parameter"]],
) -> Scored:
    """Solve the model again at the estimates and measure every kind of error.

    Args:
        method: Name of the row.
        cases: The test cases.
        unit: Estimates in unit coordinates.
        interval: Their 90 % intervals in unit coordinates.

    Returns:
        The row and what figures need.
    """
    problem, truth = cases.problem, cases.dataset
    unit = np.asarray(unit, np.float64)
    with jax.enable_x64(True):
        thetas = np.asarray(problem.parameters.from_unit(unit))
    solved = problem.model.solve_ensemble(thetas)
    good = np.asarray(solved.status) == ij.solvers.SolveStatus.SUCCESS
    states = np.asarray(solved.states)
    apply = cases.scale.apply
    gap = apply(states[good]) - apply(truth.trajectories[good])
    errors = np.square(unit - truth.unit).mean(axis=0)
    row: Row = {
        "method": method,
        "parameter_mse": ij.metrics.mean_squared_error(unit, truth.unit),
        "parameter_mae": ij.metrics.mean_absolute_error(unit, truth.unit),
        "trajectory_mse": float(np.square(gap).mean()),
        "fit_seconds": 0.0,
        "seconds_per_inversion": 0.0,
        "seconds_single": 0.0,
        "coverage_90": float(ij.metrics.coverage(*interval, truth.unit).mean()),
        "chi2_per_reading": float(np.median(chi2_per_reading(cases, thetas, states)[good])),
        "failed_resimulations": int(np.sum(~good)),
        **split_errors(errors, cases.hidden),
        "parameter_mse_each": errors,
    }
    return Scored(row, unit, *interval, states)


def split_errors(errors: Float[np.ndarray, " parameter"], hidden: np.ndarray) -> Row:
    """Mean over the parameters that the readings determine, and over the others."""
    return {
        "parameter_mse_determined": float(errors[~hidden].mean()) if (~hidden).any() else None,
        "parameter_mse_hidden": float(errors[hidden].mean()) if hidden.any() else None,
    }


def chi2_per_reading(
    cases: Cases,
    thetas: Float[np.ndarray, "case parameter"],
    states: Float[np.ndarray, "case time state"],
) -> Float[np.ndarray, " case"]:
    """Mean squared whitened residual of each case, from trajectories at the output times."""
    problem, observations = cases.problem, cases.observations
    gap = np.abs(observations.times[:, :, None] - problem.model.times[None, None, :])
    rows = np.argmin(gap, axis=2)
    seen = np.take_along_axis(states, rows[:, :, None], axis=1)
    with jax.enable_x64(True):
        predicted = problem.read(seen, thetas)
        residual = np.asarray(
            jax.vmap(problem.noise.whiten)(observations.values, predicted, thetas)
        )
    squares = np.where(observations.mask, np.square(residual), 0.0)
    return squares.sum(axis=(1, 2)) / observations.mask.sum(axis=(1, 2))


def score_inverter(
    method: str,
    cases: Cases,
    inverter: ij.methods.AbstractInverter,
    *,
    key: Key[Array, ""],
) -> Scored:
    """Score an inverter on the test cases, and time it."""
    estimate = invert_all(inverter, cases.observations, key=key)
    timing = {
        "seconds_per_inversion": seconds_in_batch(inverter, cases.observations, key=key),
        "seconds_single": seconds_single(inverter, cases.observations, key=key),
    }
    return _score_estimate(method, cases, estimate).with_fields(timing)


def score_exact(
    method: str,
    cases: Cases,
    inverter: ij.methods.AbstractInverter,
    *,
    key: Key[Array, ""],
) -> Scored:
    """Score an inverter on the real solver, which takes too long to invert anything twice."""
    began, compiling = time.perf_counter(), ij.models.compile_seconds()
    estimate = invert_all(inverter, cases.observations, key=key, fill=False)
    seconds = time.perf_counter() - began - (ij.models.compile_seconds() - compiling)
    count = len(cases.dataset)
    timing: Row = {
        "seconds_per_inversion": seconds / count,
        "seconds_single": None,
        "cases": count,
    }
    return _score_estimate(method, cases, estimate).with_fields(timing)


def _score_estimate(method: str, cases: Cases, estimate: ij.Estimate) -> Scored:
    return score(method, cases, np.asarray(estimate.unit_value), unit_interval(cases, estimate))


def unit_interval(
    cases: Cases, estimate: ij.Estimate
) -> tuple[Float[np.ndarray, "case parameter"], Float[np.ndarray, "case parameter"]]:
    """90 % intervals in unit coordinates."""
    to_unit = cases.problem.parameters.to_unit
    with jax.enable_x64(True):
        lower, upper = (
            np.asarray(to_unit(np.asarray(x, np.float64))) for x in estimate.interval(0.9)
        )
    return lower, upper


def score_prior_mean(cases: Cases) -> Scored:
    """Score the guess that needs no data."""
    middle = np.full(cases.dataset.unit.shape, 0.5)
    ends = np.full(middle.shape, 0.05), np.full(middle.shape, 0.95)
    return score("prior_mean", cases, middle, ends)


def floor_row(cases: Cases) -> Row:
    """The limit as a row: it has no fit, no time and no trajectories."""
    floor = cases.floor
    names = (
        "parameter_mae", "trajectory_mse", "fit_seconds", "seconds_per_inversion",
        "seconds_single", "coverage_90", "chi2_per_reading",
    )  # fmt: skip
    return {
        "method": "bayes_floor",
        "parameter_mse": floor.parameter_mse,
        **dict.fromkeys(names),
        **split_errors(floor.per_parameter, cases.hidden),
        "parameter_mse_each": floor.per_parameter,
        "standard_error": floor.standard_error,
        "cases": floor.cases,
    }


def seconds_in_batch(
    inverter: ij.methods.AbstractInverter, observations: ij.Observation, *, key: Key[Array, ""]
) -> float:
    """Time of one inversion in a warm batch of 256, the median of several batches."""
    batch = take(observations, np.arange(BATCH) % observations.mask.shape[0])

    def run() -> None:
        jax.block_until_ready(ij.methods.invert_batch(inverter, batch, key=key))

    return median_seconds(run, 5) / BATCH


def surrogate_mse(cases: Cases, inverter: ij.methods.INOInverter) -> Row:
    """Error of the C-FNO at the true parameters, standardized as all trajectories are.

    Once from the parameters alone, as the drift uses it, and once with the readings in view,
    as the paper does.
    """
    names = ("surrogate_trajectory_mse", "surrogate_trajectory_mse_with_readings")
    sums: Row = dict.fromkeys(names, 0.0)
    count = len(cases.dataset)
    for start in range(0, count, BATCH):
        some = slice(start, start + BATCH)
        exact = cases.scale.apply(cases.dataset.trajectories[some])
        unit, observations = cases.dataset.unit[some], take(cases.observations, some)
        predicted = _surrogate(inverter, jnp.asarray(unit, jnp.float32), observations)
        for name, scaled in zip(names, predicted, strict=True):
            states = inverter.encoder.scale.invert(np.asarray(scaled, np.float64))
            gap = cases.scale.apply(states.swapaxes(0, 1)) - exact
            sums[name] += float(np.square(gap).mean()) * len(gap) / count
    return sums


@eqx.filter_jit
def _surrogate(
    inverter: ij.methods.INOInverter, unit: Array, observations: ij.Observation
) -> tuple[Array, Array]:
    problem, encoder = inverter.problem, inverter.encoder
    readings = jax.vmap(encoder.readings)(observations)
    rows, present = jax.vmap(lambda r: (encoder.rows(r), r.present))(readings)
    blind = inverter.surrogate(problem, encoder, unit)
    return blind, inverter.surrogate(problem, encoder, unit, rows, present)
