"""How reliably calibration notices readings that the problem does not describe."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Key

import inojax as ij
from experiments.common.evaluation import observe
from inojax.methods import CalibratedInverter, invert_batch
from inojax.noise import Gaussian

_LOUDER = 10.0


def alarms(
    inverter: CalibratedInverter, dataset: ij.Dataset, *, each: int, key: Key[Array, ""]
) -> dict[str, Any]:
    """Count alarms where nothing is wrong, where noise is louder and where a term is missing.

    Args:
        inverter: A calibrated inverter of a problem whose parameters are rates of its terms, so
            that a rate of zero is a mechanism without one of them.
        dataset: Cases that it has not seen.
        each: Cases for each parameter; ten times as many for the two others.
        key: Source of randomness.

    Returns:
        Shares of cases flagged; for each missing term also how far its absence moves the readings
        (root mean square in standard deviations of the noise, the median case), and over all
        terms together.
    """
    problem, keys = inverter.problem, jax.random.split(key, 4)
    some = np.arange(10 * each) % len(dataset)
    thetas, states = dataset.thetas[some], dataset.trajectories[some]
    quiet = _measured(problem, thetas, states, keys[0])
    loud = _measured(_louder(problem), thetas, states, keys[1])
    crippled = _without_each(thetas[:each])
    solution = problem.model.solve_ensemble(crippled)
    missing = _measured(problem, crippled, np.asarray(solution.states), keys[2])
    # The same cases with all terms, and the same noise.
    alike = [
        np.tile(x[:each], (problem.parameters.size, *(1,) * (x.ndim - 1))) for x in (thetas, states)
    ]
    whole = _measured(problem, alike[0], alike[1], keys[2])
    flagged = [_flagged(inverter, readings, keys[3]) for readings in (quiet, loud, missing)]
    names = problem.parameters.names
    moved = _distance(problem, missing, whole, crippled).reshape(len(names), each)
    return {
        "cases": len(some),
        "false_alarms": float(flagged[0].mean()),
        "noise_tenfold": float(flagged[1].mean()),
        "cases_each_missing_term": each,
        "any_missing_term": float(flagged[2].mean()),
        "missing_term": dict(
            zip(names, flagged[2].reshape(len(names), each).mean(axis=1).tolist(), strict=True)
        ),
        "moved_by": dict(zip(names, np.median(moved, axis=1).tolist(), strict=True)),
    }


def describe(found: dict[str, Any]) -> str:
    """Two sentences for the report."""
    missing, moved = found["missing_term"], found["moved_by"]
    sure = [name for name, share in missing.items() if share >= 0.95]
    others = [
        f"{name} {share:.0%} (its absence moves readings by {moved[name]:.2g} sd)"
        for name, share in missing.items()
        if share < 0.95
    ]
    rest = f"; the others: {', '.join(others)}" if others else ""
    return (
        f"Alarms: {found['false_alarms']:.1%} false, {found['noise_tenfold']:.1%} of readings with "
        f"ten times the noise. Without one reaction: {found['any_missing_term']:.1%} of all cases, "
        f"at least 95 % for {len(sure)} of {len(missing)}{rest}."
    )


def _flagged(
    inverter: CalibratedInverter, readings: ij.Observation, key: Key[Array, ""]
) -> np.ndarray:
    estimate = invert_batch(inverter, readings, checked=True, key=key)
    assert estimate.ticket is not None
    assert estimate.ticket.calibration is not None
    return estimate.ticket.calibration.misspecified


def _without_each(
    thetas: Float[np.ndarray, "case parameter"],
) -> Float[np.ndarray, "many parameter"]:
    cases, size = thetas.shape
    every = np.tile(thetas, (size, 1))
    every[np.arange(size * cases), np.repeat(np.arange(size), cases)] = 0.0
    return every


def _louder(problem: ij.InverseProblem) -> ij.InverseProblem:
    noise = problem.noise
    assert isinstance(noise, Gaussian)
    louder = Gaussian(_LOUDER * np.asarray(noise.scale))
    return ij.InverseProblem(
        problem.name, problem.parameters, problem.model, problem.sensors, louder
    )


def _measured(
    problem: ij.InverseProblem, thetas: np.ndarray, states: np.ndarray, key: Key[Array, ""]
) -> ij.Observation:
    unit = np.zeros(thetas.shape)  # not needed to measure
    dataset = ij.Dataset(
        thetas,
        unit,
        times=problem.model.times,
        trajectories=states,
        status=np.zeros(len(thetas), np.int32),
    )
    return observe(problem, dataset, key=key)


def _distance(
    problem: ij.InverseProblem, one: ij.Observation, other: ij.Observation, thetas: np.ndarray
) -> Float[np.ndarray, " case"]:
    """Between readings with the same noise, in its standard deviations."""
    with jax.enable_x64(True):
        gap = np.asarray(jax.vmap(problem.noise.whiten)(one.values, other.values, thetas))
    present = np.asarray(one.mask)
    squares = np.where(present, np.square(gap), 0.0).sum(axis=(1, 2))
    return np.sqrt(squares / present.sum(axis=(1, 2)))
