"""Table g: how gradient-based searches fare on the neuron's misfit, beside a network and both."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Key

import inojax as ij
from experiments.common.evaluation import Row, take
from experiments.common.files import load_or_make
from experiments.common.runner import stage
from experiments.fitzhugh_nagumo._many_starts import Descents, Posterior, descend, distinct
from experiments.fitzhugh_nagumo._maps import NOISY, TestSeries
from experiments.fitzhugh_nagumo._tables import median_ape, median_ape_norm, r2
from inojax import plot
from inojax.methods import AbstractInverter, LeastSquares, invert_batch

# An end whose log density is this close to the best is there.
_REACHED = 0.5


@dataclasses.dataclass(frozen=True)
class Starts:
    """How much is computed.

    Attributes:
        cases: Series that are inverted.
        starts: Searches for each.
        grid: Points along each axis of the map of one of them.
    """

    cases: int
    starts: int
    grid: int


def starts_rows(
    out: Path,
    starts: Starts,
    tests: TestSeries,
    posterior: Posterior,
    inverter: AbstractInverter,
    *,
    key: Key[Array, ""],
) -> list[Row]:
    """Search from many starts and compare, or read what was found before.

    Args:
        out: Folder of the results.
        starts: How much is computed.
        tests: Test cases; the first are used.
        posterior: What is minimized.
        inverter: The network.
        key: Source of the starts.

    Returns:
        A row for each kind of estimate.
    """
    stem = f"starts_{starts.cases}_{starts.starts}_{starts.grid}"
    return load_or_make(
        out / "parts" / f"{stem}.json",
        lambda: _compare(out, starts, tests, posterior, inverter, key),
    )


def _compare(
    out: Path,
    starts: Starts,
    tests: TestSeries,
    posterior: Posterior,
    inverter: AbstractInverter,
    key: Key[Array, ""],
) -> list[Row]:
    cases, many = starts.cases, starts.starts
    stage(f"{cases} series: BFGS from {many} starts each")
    truth = tests.truth.thetas[:cases]
    some = take(tests.noisy, slice(cases))
    series = np.asarray(some.values[:, :, 0])
    drawn = tests.problem.parameters.design(cases * many, kind=ij.Design.RANDOM, key=key)
    begin = posterior.coordinates(np.asarray(drawn))
    found = descend(posterior, begin, np.repeat(series, many, axis=0))
    ends = found.x.reshape(cases, many, -1)
    values = found.value.reshape(cases, many)
    # A search that did not arrive has found no optimum.
    arrived = np.where(found.arrived.reshape(cases, many), values, np.inf)
    groups = np.stack([distinct(x, v) for x, v in zip(ends, arrived, strict=True)])
    best = np.argmin(values, axis=1)
    stage("the network, alone and refined")
    network, network_seconds = _timed(inverter, some, key)
    refined, refined_seconds = _timed(
        LeastSquares(starts=1, candidates=0).refine(inverter), some, key
    )
    estimates = {
        "gradient, one start": (posterior.theta(ends[:, 0]), found.seconds / (cases * many)),
        f"gradient, {many} starts": (
            posterior.theta(ends[np.arange(cases), best]),
            found.seconds / cases,
        ),
        "network": (network, network_seconds / cases),
        "network, refined": (refined, refined_seconds / cases),
    }
    least = np.min(values, axis=1)
    at = {
        name: posterior.value_and_gradient(posterior.coordinates(theta), series)[0]
        for name, (theta, _) in estimates.items()
    }
    least = np.minimum(least, np.min(np.stack(list(at.values())), axis=0))
    rows = []
    for name, (theta, seconds) in estimates.items():
        reached = at[name] < least + _REACHED
        rows.append(
            {
                "table": "g",
                "method": name,
                "simulations": None,
                "train_noise": None,
                "test_noise": NOISY,
                "seeds": 1,
                "cases": cases,
                "median_ape": median_ape(theta, truth),
                "median_ape_norm": median_ape_norm(theta, truth),
                "r2": r2(theta, truth),
                "share_global": float(reached.mean()),
                "seconds_per_case": seconds,
            }
        )
    # Of all starts: the first ones alone say less of what a single one can expect.
    share = values < least[:, None] + _REACHED
    rows[0] |= {"share_global": float(share.mean())}
    rows[1] |= _optima(groups, found, values)
    _draw(out, starts, posterior, series[0], (begin[:many], ends[0]), truth[0], network[0])
    return rows


def _optima(groups: Int[np.ndarray, "case start"], found: Descents, values: np.ndarray) -> Row:
    counts = groups.max(axis=1) + 1
    return {
        "local_minima": counts,
        "local_minima_median": float(np.median(counts)),
        "evaluations_per_start": found.evaluations / values.size,
        "arrived": float(found.arrived.mean()),
    }


def _timed(
    inverter: AbstractInverter, some: ij.Observation, key: Key[Array, ""]
) -> tuple[Float[np.ndarray, "case parameter"], float]:
    """Estimates, and the time of a second, warm call."""
    seconds, estimate = 0.0, None
    for _ in range(2):
        began = time.perf_counter()
        estimate = np.asarray(invert_batch(inverter, some, key=jr.fold_in(key, 1)).value)
        seconds = time.perf_counter() - began
    assert estimate is not None
    return estimate.astype(np.float64), seconds


def _draw(
    out: Path,
    starts: Starts,
    posterior: Posterior,
    series: np.ndarray,
    paths: tuple[np.ndarray, np.ndarray],
    truth: np.ndarray,
    network: np.ndarray,
) -> None:
    stage(f"map the misfit of one series at {starts.grid**2} points")
    axes = [
        np.linspace(low, high, starts.grid)
        for low, high in zip(posterior.low, posterior.high, strict=True)
    ]
    first, second = np.meshgrid(*axes)
    x = np.stack([first.ravel(), second.ravel()], axis=1)
    misfit = posterior.value(x, np.broadcast_to(series, (len(x), len(series))))
    misfit = np.where(np.isfinite(misfit), misfit, np.nan).reshape(first.shape)
    scale = [m + s * a for m, s, a in zip(posterior.mean, posterior.deviation, axes, strict=True)]
    begin, end = (posterior.theta(p) for p in paths)
    figure = plot.landscape(
        ("θ₀", "θ₁"),
        (scale[0], scale[1]),
        misfit,
        points={
            "where searches end": end,
            "network": network[None],
            "truth": truth[None],
        },
        paths=np.stack([begin, end], axis=1),
    )
    figure.savefig(out / "landscape.png")


def minima_sentence(rows: Sequence[Row]) -> str:
    """What the searches found, in words."""
    searched: Any = rows[1]
    counts = searched["local_minima"]
    return (
        f"{searched['cases']} series have {min(counts)} to {max(counts)} local minima (median "
        f"{searched['local_minima_median']:g}) among the ends of searches from the prior; "
        f"{100 * rows[0]['share_global']:.0f} % of the starts reach the global one, within "
        f"{_REACHED:g} of its log density."
    )
