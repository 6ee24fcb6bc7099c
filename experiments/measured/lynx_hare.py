"""Lynx and hare: four optima and the posterior of measured data, each beside its known value.

Result:   Carpenter (2018), Predator-Prey Population Dynamics (the Stan case study): posterior of
          eight unknowns from the pelts of the Hudson's Bay Company, 1900 to 1920.
Command:  python experiments/measured/lynx_hare.py --preset {smoke,quick,paper} --out DIR
Runtime:  quick 2.2 min on two CPU cores, 4.4 with other work beside it (1.9 of these the sampler).
Expected: preset quick: sum of squares 594.7454 in counts (independent optimum 594.7446) and
          2.018662 in logarithms (2.018660), maximum likelihood -42.74055 (-42.74056); posterior
          means within 0.1 standard deviations of the case study's, by ranks largest R-hat 1.005,
          smallest effective sample size 937, 1,017 in the tails.

The same equations are fitted by least squares in counts and in logarithms, by maximum likelihood
with a noise level for each species, by the highest density of the posterior, and sampled by NUTS
from there. What each minimizes is known to several digits from independent optimizers; the
posterior's means and standard deviations from the case study. Started again with the same folder it
continues behind the last fit that was finished.
"""

import dataclasses
import math
from pathlib import Path

import jax.random as jr
import numpy as np

import inojax as ij
from experiments.common.evaluation import Row
from experiments.common.runner import Arguments, Preset, main, run_once, stage
from experiments.measured._real_data import (
    Fit,
    Prediction,
    at_values,
    center,
    constant_row,
    fit_or_load,
    fits_table,
    identifiability,
    predict,
    read_at,
    row_of,
    sampler_table,
    ticket_text,
    values_table,
)
from inojax import plot
from inojax.methods import Coordinates, LeastSquares, Penalty, Posterior


@dataclasses.dataclass(frozen=True)
class LynxHare(Arguments):
    """The options of this experiment."""

    out: Path = Path("results/lynx_hare")
    """Folder of all results. Started again with the same one, a run continues."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much a preset computes."""

    fits: tuple[str, ...]
    cases: int  # of the identifiability card
    starts: int
    draws: int  # of the linearized posterior of each optimum
    posterior: Posterior
    predicted: int  # samples of it at which readings are predicted


_COUNTS, _LOGS = "least_squares_in_counts", "least_squares_in_logs"
_LIKELIHOOD, _DENSITY = "maximum_likelihood", "maximum_a_posteriori"
_FITS = (_COUNTS, _LOGS, _LIKELIHOOD, _DENSITY)
SIZES = {
    # Nearly all of its time is compilation, which each fit needs for itself.
    Preset.SMOKE: Size(
        (_LIKELIHOOD,), 16, 4, 64, Posterior(chains=2, warmup=2, draws=4, depth=1), 128
    ),
    Preset.QUICK: Size(_FITS, 256, 16, 1000, Posterior(chains=4, warmup=150, draws=450), 512),
    # As many chains and draws as published.
    Preset.PAPER: Size(_FITS, 1024, 64, 1000, Posterior(chains=4, warmup=1000, draws=1000), 512),
}

# What the best fit leaves, sqrt(594.7446 / 36) and sqrt(2.01866 / 36) with 42 readings and six
# parameters. The optimum does not depend on it, its standard deviations and likelihood do.
LEVEL_COUNTS, LEVEL_LOGS = 4.0645, 0.23680
_DYNAMICS = ("alpha", "beta", "gamma", "delta", "hare0", "lynx0")
_NAMES: tuple[str, ...] = (*_DYNAMICS, "sigma_hare", "sigma_lynx")
# Independent optimizers (SciPy) for the optima; Carpenter (2018) for the posterior.
_REFERENCES = {
    _COUNTS: (0.48120, 0.024832, 0.92602, 0.027533, 34.9143, 3.8619),
    _LOGS: (0.54016, 0.027165, 0.79639, 0.023695, 34.602, 5.8445),
    _LIKELIHOOD: (
        0.54001, 0.027156, 0.79660, 0.023702, 34.599, 5.8437, 0.2184, 0.2201,
    ),
    _DENSITY: (0.5417, 0.02725, 0.7969, 0.02384, 34.14, 5.845, 0.2160, 0.2178),
    "posterior": (0.545, 0.028, 0.803, 0.024, 33.956, 5.933, 0.250, 0.252),
}  # fmt: skip
REFERENCES: dict[str, dict[str, float]] = {
    name: dict(zip(_NAMES[: len(values)], values, strict=True))
    for name, values in _REFERENCES.items()
}
_STAN_STD = (0.064, 0.004, 0.092, 0.004, 2.856, 0.535, 0.045, 0.044)
STAN = {
    "Stan mean": REFERENCES["posterior"],
    "Stan std": dict(zip(_NAMES, _STAN_STD, strict=True)),
}
OBJECTIVES = {
    _COUNTS: ("sum of squares", 594.7446),
    _LOGS: ("sum of squares of logs", 2.01866),
    _LIKELIHOOD: ("sum of log s + z^2 / 2", -42.74056),
}


def run(arguments: LynxHare) -> None:
    """Make the tables unless they are there, and print them."""
    size = SIZES[arguments.preset]
    run_once("lynx_hare", arguments, size, lambda _: experiment(arguments, size), report)


def experiment(arguments: LynxHare, size: Size) -> Row:
    """Fit, sample, predict and draw."""
    observation = ij.problems.lynx_hare()
    *keys, sample_key, predict_key = jr.split(jr.key(arguments.seed), 6)
    wanted = problems()
    card_key = jr.fold_in(predict_key, 1)
    card = identifiability(arguments.out, wanted[_LIKELIHOOD][0], size.cases, key=card_key)
    fits = {}
    for (name, (problem, penalty)), key in zip(wanted.items(), keys, strict=True):
        if name not in size.fits:
            continue
        # The optima lie far out in their priors, or have none.
        method = LeastSquares(
            size.starts,
            tolerance=1e-10,
            coordinates=Coordinates.UNCONSTRAINED,
            penalty=penalty,
            draws=size.draws,
        )
        fits[name] = fit_or_load(
            arguments.out, name, method.fit(problem, key=key), observation, key=key
        )
    best = fits.get(_DENSITY, fits[_LIKELIHOOD])
    sampler = size.posterior.refine(best.estimate, best.problem)
    fits["posterior"] = fit_or_load(
        arguments.out, "posterior", sampler, observation, key=sample_key
    )
    stage("predict new readings and draw figures")
    prediction = predict(fits["posterior"], observation, size.predicted, key=predict_key)
    draw(arguments.out, observation, fits, prediction)
    return {**results(observation, fits, prediction), "identifiability": card}


def problems() -> dict[str, tuple[ij.InverseProblem, Penalty]]:
    """What each fit minimizes: the noise it supposes, and the prior it adds."""
    counts = ij.problems.lotka_volterra(noise=LEVEL_COUNTS)
    with_levels = ij.problems.lotka_volterra_log_normal()
    logs = ij.InverseProblem(
        "lotka_volterra_logs",
        counts.parameters,
        counts.model,
        counts.sensors,
        ij.noise.LogNormal(LEVEL_LOGS),
    )
    return {
        _COUNTS: (counts, Penalty.NONE),
        _LOGS: (logs, Penalty.NONE),
        _LIKELIHOOD: (with_levels, Penalty.NONE),
        _DENSITY: (with_levels, Penalty.DENSITY),
    }


def results(observation: ij.Observation, fits: dict[str, Fit], prediction: Prediction) -> Row:
    """Limits and rows of `metrics.json`."""
    with_levels = fits["posterior"].problem
    blind = at_values("prior_center", with_levels, center(with_levels))
    rows = {
        "prior_center": row_of(blind, observation),
        "constant": constant_row(observation, in_logs=True),
    }
    for name, fit in fits.items():
        rows[name] = row_of(fit, observation, REFERENCES[name])
        rows[name] |= {"objective": objective(rows[name], observation)}
    rows["posterior"] |= {"readings_inside": prediction.inside}
    bounds = ("prior_center", "constant", _LIKELIHOOD)
    limits = {
        name: {"negative_log_likelihood": rows[name]["negative_log_likelihood"]} for name in bounds
    }
    return {"limits": limits, "rows": list(rows.values())}


def objective(row: Row, observation: ij.Observation) -> Row | None:
    """What a fit minimizes in the usual form, without the constants of a density."""
    if row["method"] not in OBJECTIVES:
        return None
    name, reference = OBJECTIVES[row["method"]]
    count = int(observation.mask.sum())
    squares = row["chi2_per_reading"] * count
    value = {
        _COUNTS: squares * LEVEL_COUNTS**2,
        _LOGS: squares * LEVEL_LOGS**2,
        _LIKELIHOOD: row["negative_log_likelihood"] - constants(observation),
    }[row["method"]]
    return {"name": name, "value": value, "reference": reference}


def constants(observation: ij.Observation) -> float:
    """What log-normal noise adds to `sum of log s + z^2 / 2`: Gauss's constant and the slopes."""
    logs = np.log(observation.values[observation.mask])
    return float(logs.sum() + 0.5 * len(logs) * math.log(2.0 * math.pi))


def draw(
    out: Path, observation: ij.Observation, fits: dict[str, Fit], prediction: Prediction
) -> None:
    """Save the bands through the readings and the pairs of parameters."""
    fit = fits["posterior"]
    shown = [name for name in (_LIKELIHOOD, _COUNTS) if name in fits]
    curves = {
        name.replace("_", " "): read_at(
            fits[name].problem, np.asarray(fits[name].estimate.value)[None], prediction.times
        )[0]
        for name in shown
    }
    figure = plot.predictive(
        fit.problem, observation, times=prediction.times, samples=prediction.readings,
        curves=curves, time_zero=1900.0,
    )  # fmt: skip
    figure.savefig(out / "predictive.png")
    marks = {
        "maximum likelihood": np.asarray(fits[_LIKELIHOOD].estimate.value),
        "mean, Stan": np.array(list(REFERENCES["posterior"].values())),
    }
    figure = plot.pairs(fit.problem, np.asarray(fit.estimate.samples), marks=marks)
    figure.savefig(out / "pairs.png")


def report(metrics: Row) -> str:
    """The tables with the known values beside ours, and what the limits say."""
    rows = {row["method"]: row for row in metrics["rows"]}
    inside = rows["posterior"]["readings_inside"]
    return "\n".join(
        [
            f"\nLynx and hare, preset {metrics['preset']}: 42 readings, "
            f"{metrics['timing']['total_seconds']:.0f} s in all\n",
            fits_table(metrics["rows"]),
            "",
            values_table(metrics["rows"], _NAMES, REFERENCES, means=True),
            "",
            sampler_table(rows["posterior"], STAN),
            "",
            "-log L: of the density of the counts, all constants included, so that noise models "
            "compare; no parameters of the log-normal model reach less than maximum likelihood. "
            "References: independent optimizers; of the posterior Carpenter (2018).",
            ticket_text(rows["posterior"]),
            "",
            metrics["identifiability"]["text"],
            "",
            f"Of the readings {100 * inside['0.5']:.0f} % lie within the predicted 50 %, "
            f"{100 * inside['0.9']:.0f} % within 90 %.",
        ]
    )


if __name__ == "__main__":
    main(LynxHare, run, "Fit and sample predator and prey from measured pelts.")
