"""What experiments with measured data share: fits that are kept, their rows, bands and tables."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

import inojax as ij
from experiments.common.clocks import Stopwatch
from experiments.common.evaluation import Row
from experiments.common.files import write_json
from experiments.common.runner import stage
from experiments.common.tables import number, table
from inojax import plot
from inojax.methods import AbstractInverter

LEVELS = (0.5, 0.9)
_REPEATS = 8  # draws of the noise for each sample
_GRID = 121


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """An estimate and what it took.

    Attributes:
        name: Name of the row.
        problem: The problem it answers.
        estimate: The estimate.
        seconds: Time of the inversion, compilation included, summed over sessions.
    """

    name: str
    problem: ij.InverseProblem
    estimate: ij.Estimate
    seconds: float


def fit_or_load(
    out: Path,
    name: str,
    inverter: AbstractInverter,
    observation: ij.Observation,
    *,
    key: Key[Array, ""],
) -> Fit:
    """Invert the readings, or load what an earlier run of the same folder has found."""
    path, clock = out / f"{name}.safetensors", Stopwatch(out / f"{name}_seconds.json")
    problem = inverter.problem
    if path.exists():
        stage(f"load {_words(name)}, found before")
        return Fit(name, problem, ij.Estimate.load(path), clock.stored)
    stage(_words(name))
    with clock:
        estimate = inverter(observation, key=key)
    estimate.save(path)
    return Fit(name, problem, estimate, clock.stored)


def at_values(name: str, problem: ij.InverseProblem, theta: Float[np.ndarray, " parameter"]) -> Fit:
    """Values that no method has found: the center of the prior, or published ones."""
    space = problem.parameters
    unknown = np.full(space.size, np.nan)
    unit = np.asarray(space.to_unit(theta))
    estimate = ij.Estimate(space.names, space.units, theta, unit, unknown)
    return Fit(name, problem, estimate, 0.0)


def center(problem: ij.InverseProblem) -> Float[np.ndarray, " parameter"]:
    """The median of every prior: the best guess without readings, in unit coordinates."""
    return np.asarray(problem.parameters.from_unit(np.full(problem.parameters.size, 0.5)))


def identifiability(
    out: Path, problem: ij.InverseProblem, cases: int, *, key: Key[Array, ""]
) -> Row:
    """The identifiability card, kept with its figure, or what an earlier run has kept."""
    path = out / "identifiability.json"
    if path.exists():
        stage("load identifiability, found before")
        return json.loads(path.read_text())
    stage("identifiability")
    card = ij.metrics.identifiability(problem, cases=cases, key=key)
    plot.identifiability(card).savefig(out / "identifiability.png")
    write_json(path, {"text": str(card), **card.as_dict()})
    return json.loads(path.read_text())


def ticket_text(row: Row) -> str:
    """Verdict and reasons of a row's trust ticket."""
    told = row["ticket"]
    return "\n".join(
        [
            f"Verdict on the {_words(row['method'])}: {told['verdict']}",
            *(f"- {reason}" for reason in told["reasons"]),
        ]
    )


def row_of(fit: Fit, observation: ij.Observation, published: Row | None = None) -> Row:
    """The row of an estimate.

    `negative_log_likelihood` is minus the natural logarithm of the density of the readings in
    their own unit, with all constants, so that rows of different noise models compare.
    """
    estimate, problem = fit.estimate, fit.problem
    theta = np.asarray(estimate.value, np.float64)
    chi2 = np.square(problem.whitened_residual(theta, observation)).sum()
    told = estimate.as_dict()
    columns = {
        name: {parameter: told["parameters"][parameter][entry] for parameter in estimate.names}
        for name, entry in (("estimates", "value"), ("std", "std"), ("interval_90", "interval_90"))
    }
    checked = estimate.status != ij.EstimateStatus.NOT_CHECKED
    return {
        "method": fit.name,
        "estimates": columns["estimates"],
        "negative_log_likelihood": -float(problem.log_likelihood(theta, observation)),
        "chi2_per_reading": float(chi2) / int(observation.mask.sum()),
        "seconds": fit.seconds,
        "status": told["status"] if checked else None,
        "message": told["message"] if checked else None,
        "ticket": told.get("ticket"),
        "std": columns["std"] if checked else None,
        "interval_90": columns["interval_90"] if estimate.samples is not None else None,
        "optima": None if estimate.optima is None else int(estimate.optima.count),
        # Estimates of a sampler are means of unit coordinates.
        "sample_mean": _of_samples(estimate, lambda x: x.mean(axis=0)),
        "std_log10": _of_samples(estimate, lambda x: np.log10(x).std(axis=0)),
        "r_hat": told.get("r_hat"),
        "effective_samples": told.get("effective_samples"),
        "tail_samples": told.get("tail_samples"),
        "tempering_exponent": told.get("tempering_exponent"),
        "published": {} if published is None else published,
    }


def _of_samples(
    estimate: ij.Estimate, reduce: Callable[[np.ndarray], np.ndarray]
) -> dict[str, float] | None:
    """A statistic of each parameter's samples, where they come from a sampler."""
    diagnostics = estimate.diagnostics
    if diagnostics is None or diagnostics.r_hat is None or estimate.samples is None:
        return None
    return dict(zip(estimate.names, reduce(np.asarray(estimate.samples)), strict=True))


def constant_row(observation: ij.Observation, *, in_logs: bool) -> Row:
    """A row without a model: every channel stays at its mean and scatters around it.

    Means and scatter are those of the readings themselves, so that two numbers are fitted to
    each channel; with `in_logs` those of their logarithms.
    """
    values = np.where(observation.mask, observation.values, np.nan)
    drawn = np.log(values) if in_logs else values
    count = observation.mask.sum(axis=0)
    scatter = np.nanstd(drawn, axis=0)
    density = count * (np.log(scatter) + 0.5 + 0.5 * math.log(2.0 * math.pi))
    slopes = np.nansum(drawn) if in_logs else 0.0
    empty = (
        "seconds", "status", "message", "ticket", "std", "interval_90", "optima", "sample_mean",
        "std_log10",
    )  # fmt: skip
    return {
        "method": "constant",
        "estimates": {},
        "negative_log_likelihood": float(density.sum() + slopes),
        "chi2_per_reading": 1.0,
        **dict.fromkeys((*empty, "r_hat", "effective_samples")),
        "published": {},
    }


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """What samples of a posterior predict.

    Attributes:
        times: Times between the first and the last reading.
        readings: Readings with noise, several for each sample.
        inside: For each level, the share of the measured readings within their central interval.
    """

    times: Float[np.ndarray, " time"]
    readings: Float[np.ndarray, "sample time channel"]
    inside: dict[str, float]


def predict(
    fit: Fit, observation: ij.Observation, count: int, *, key: Key[Array, ""]
) -> Prediction:
    """Predict new readings at so many samples of an estimate, noise included."""
    assert fit.estimate.samples is not None
    samples = np.asarray(fit.estimate.samples, np.float64)
    thetas = np.resize(samples[:: max(1, len(samples) // count)], (count, samples.shape[1]))
    measured = np.asarray(observation.times, np.float64)
    grid = np.linspace(measured.min(), measured.max(), _GRID)
    times = np.union1d(grid, measured)
    clean = read_at(fit.problem, thetas, times)
    noise = fit.problem.noise
    clean, thetas = (np.repeat(x, _REPEATS, axis=0) for x in (clean, thetas))
    with jax.enable_x64(True):
        keys = jr.split(key, len(thetas))
        scatter = jax.vmap(lambda y, theta, k: noise.sample(y, theta, times=times, key=k))
        readings = np.asarray(scatter(jnp.asarray(clean), jnp.asarray(thetas), keys))
    at_readings = readings[:, np.searchsorted(times, measured)]
    inside = {f"{level:g}": _share(at_readings, observation, level) for level in LEVELS}
    return Prediction(times, readings, inside)


def _share(predicted: np.ndarray, observation: ij.Observation, level: float) -> float:
    lower, upper = np.nanquantile(predicted, [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0)
    within = (lower <= observation.values) & (observation.values <= upper)
    return float(within[observation.mask].mean())


def read_at(
    problem: ij.InverseProblem,
    thetas: Float[np.ndarray, "sample parameter"],
    times: Float[np.ndarray, " time"],
) -> Float[np.ndarray, "sample time channel"]:
    """Noise-free readings at times of one's own."""
    states = np.asarray(problem.model.solve_ensemble(thetas, times).states)
    with jax.enable_x64(True):
        return np.asarray(problem.read(states, thetas))


def values_table(
    rows: Sequence[Row],
    names: Sequence[str],
    published: Mapping[str, Mapping[str, float]],
    *,
    means: bool = False,
) -> str:
    """Every row's parameters, and below it those that are known; of samples also plain means."""
    lines = []
    for row in rows:
        if not row["estimates"]:
            continue
        shown = (means and row["sample_mean"]) or row["estimates"]
        lines.append([_words(row["method"]), *(number(shown.get(n), 5) for n in names)])
        if row["method"] in published:
            theirs = published[row["method"]]
            lines.append(["  reference", *(number(theirs.get(n), 5) for n in names)])
    return table(("parameters", *names), lines)


def fits_table(rows: Sequence[Row]) -> str:
    """How well each row fits, and what it minimizes beside the value that is known."""
    header = (
        "row", "objective", "ours", "reference", "-log L", "chi2", "optima", "seconds", "status",
    )  # fmt: skip
    lines = []
    for row in rows:
        goal = row.get("objective") or {"name": "-", "value": None, "reference": None}
        line = [
            _words(row["method"]),
            goal["name"],
            number(goal["value"], 8),
            number(goal["reference"], 8),
            number(row["negative_log_likelihood"], 6),
            number(row["chi2_per_reading"]),
            "-" if row["optima"] is None else str(row["optima"]),
            number(row["seconds"] or None),
            row["status"] or "-",
        ]
        lines.append(line)
    return table(header, lines)


def sampler_table(
    row: Row, published: Mapping[str, Mapping[str, float]], *, in_logs: bool = False
) -> str:
    """Mean, spread and mixing of each parameter of a sampled posterior, published ones beside."""
    mean, std = ("estimates", "std_log10") if in_logs else ("sample_mean", "std")
    names = ("mean", "std of log10") if in_logs else ("mean", "std")
    header = ("posterior", *names, "90 % from", "to", "R-hat", "bulk", "tails", *published)
    lines = [
        [
            name,
            number(row[mean][name], 4),
            number(row[std][name], 2),
            # Of few draws there is no such interval.
            *(number(end, 4) for end in row["interval_90"][name] or (None, None)),
            "-" if row["r_hat"][name] is None else f"{row['r_hat'][name]:.4f}",
            number(row["effective_samples"][name], 4),
            number(row["tail_samples"][name], 4),
            *(number(column.get(name), 4) for column in published.values()),
        ]
        for name in row["estimates"]
    ]
    return table(header, lines)


def _words(name: str) -> str:
    return name.replace("_", " ")
