"""STAT5 dimers: a fit from many starts and the posterior of a benchmark of systems biology.

Result:   Boehm et al. (2014), J. Proteome Res. 13(12), doi 10.1021/pr5006923, as stated in the
          PEtab benchmark collection: nine unknowns from 48 readings by mass spectrometry.
Command:  python experiments/measured/boehm.py --preset {smoke,quick,paper} --out DIR --seed 0
Runtime:  quick 4.1 min on two CPU cores, 2.5 min of it the sampler.
Expected: preset quick: negative log likelihood 138.221998 at the collection's values, as stated
          there, and 138.221976 by least squares, with k_exp_hetero and k_imp_homo at ends of their
          ranges; posterior largest R-hat 1.007, smallest effective sample size 652; by
          ranks 1.015 and 604, by which it is not called mixed.

The likelihood at the collection's values checks the model, least squares from random starts all
over ten decades has to find them or better, and the posterior says which of the nine the readings
determine: of k_exp_hetero they give an upper end, of k_imp_homo a lower one. Started again with the
same folder it continues behind the last fit that was finished.
"""

import dataclasses
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
from inojax.methods import LeastSquares, Penalty, Posterior


@dataclasses.dataclass(frozen=True)
class Boehm(Arguments):
    """The options of this experiment."""

    out: Path = Path("results/boehm")
    """Folder of all results. Started again with the same one, a run continues."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much a preset computes."""

    cases: int  # of the identifiability card
    starts: int
    max_steps: int
    draws: int  # of the linearized posterior
    posterior: Posterior
    # Of the solver in the sampler: 1e-5 changes log likelihoods by less than 1e-4.
    sampler_rtol: float
    predicted: int  # samples of the posterior at which readings are predicted


SIZES = {
    Preset.SMOKE: Size(16, 2, 4, 64, Posterior(chains=2, warmup=2, draws=4, depth=1), 1e-3, 128),
    Preset.QUICK: Size(
        256, 32, 100, 1000, Posterior(chains=4, warmup=100, draws=400, depth=6), 1e-5, 512
    ),
    Preset.PAPER: Size(
        1024, 480, 200, 1000, Posterior(chains=4, warmup=2000, draws=2000), 1e-6, 512
    ),
}

# PEtab benchmark collection, Boehm_JProteomeRes2014, commit 4d20850.
NOMINAL = {
    "Epo_degradation": 0.026982514033029,
    "k_exp_hetero": 1.00067973851508e-5,
    "k_exp_homo": 0.006170228086381,
    "k_imp_hetero": 0.0163679184468,
    "k_imp_homo": 97749.3794024716,
    "k_phos": 15766.5070195731,
    "sd_pSTAT5A_rel": 3.85261197844677,
    "sd_pSTAT5B_rel": 6.59147818673419,
    "sd_rSTAT5A_rel": 3.15271275648527,
}
NOMINAL_MISFIT = 138.22199774
_OBJECTIVE = "-log L"
_FITTED = ("nominal", "least_squares")


def run(arguments: Boehm) -> None:
    """Make the tables unless they are there, and print them."""
    size = SIZES[arguments.preset]
    run_once("boehm", arguments, size, lambda _: experiment(arguments, size), report)


def experiment(arguments: Boehm, size: Size) -> Row:
    """Fit from many starts, sample, predict and draw."""
    problem, observation = ij.problems.boehm(), ij.problems.boehm_data()
    out = arguments.out
    card_key = jr.key(arguments.seed + 1)
    card = identifiability(out, problem, size.cases, key=card_key)
    fit_key, laplace_key, sample_key, predict_key = jr.split(jr.key(arguments.seed), 4)
    fits = {"nominal": at_values("nominal", problem, problem.parameters.from_dict(NOMINAL))}
    many = LeastSquares(size.starts, size.max_steps, penalty=Penalty.NONE, draws=size.draws)
    fits["least_squares"] = fit_or_load(
        out, "least_squares", many.fit(problem, key=fit_key), observation, key=fit_key
    )
    first = fits["least_squares"].estimate
    if arguments.preset is not Preset.SMOKE:
        # The likelihood is flat in some directions: the prior's spread pulls to its middle there.
        near = LeastSquares(1, size.max_steps, draws=size.draws)
        refined = near.refine(first, problem)
        fits["laplace"] = fit_or_load(out, "laplace", refined, observation, key=laplace_key)
        first = fits["laplace"].estimate
    sampler = size.posterior.refine(first, with_tolerance(problem, size.sampler_rtol))
    sampled = fit_or_load(out, "posterior", sampler, observation, key=sample_key)
    fits["posterior"] = dataclasses.replace(sampled, problem=problem)
    stage("predict new readings and draw figures")
    prediction = predict(fits["posterior"], observation, size.predicted, key=predict_key)
    draw(out, observation, fits, prediction)
    return {**results(observation, fits, prediction), "identifiability": card}


def with_tolerance(problem: ij.InverseProblem, rtol: float) -> ij.InverseProblem:
    """The problem with another tolerance of the solver."""
    assert isinstance(problem.model, ij.ODEModel)
    model = problem.model.with_rtol(rtol)
    parts = problem.parameters, model, problem.sensors, problem.noise
    return ij.InverseProblem(problem.name, *parts)


def results(observation: ij.Observation, fits: dict[str, Fit], prediction: Prediction) -> Row:
    """Limits and rows of `metrics.json`."""
    problem = fits["nominal"].problem
    rows = {
        "prior_center": row_of(at_values("prior_center", problem, center(problem)), observation),
        "constant": constant_row(observation, in_logs=False),
    }
    for name, fit in fits.items():
        rows[name] = row_of(fit, observation, NOMINAL if name in _FITTED else None)
    for name in _FITTED:
        value = rows[name]["negative_log_likelihood"]
        goal = {"name": _OBJECTIVE, "value": value, "reference": NOMINAL_MISFIT}
        rows[name] |= {"objective": goal}
    rows["posterior"] |= {"readings_inside": prediction.inside}
    limits = {
        name: {"negative_log_likelihood": rows[name]["negative_log_likelihood"]}
        for name in ("prior_center", "constant", "least_squares")
    }
    return {"limits": limits, "rows": list(rows.values())}


def draw(
    out: Path, observation: ij.Observation, fits: dict[str, Fit], prediction: Prediction
) -> None:
    """Save the bands through the readings and the pairs of parameters."""
    problem, best = fits["nominal"].problem, np.asarray(fits["least_squares"].estimate.value)
    curves = {"maximum likelihood": read_at(problem, best[None], prediction.times)[0]}
    figure = plot.predictive(
        problem, observation, times=prediction.times, samples=prediction.readings, curves=curves,
        reading_unit="%",
    )  # fmt: skip
    figure.savefig(out / "predictive.png")
    samples = np.asarray(fits["posterior"].estimate.samples)
    marks = {"maximum likelihood": best, "nominal (PEtab)": np.array(list(NOMINAL.values()))}
    plot.pairs(problem, samples, marks=marks).savefig(out / "pairs.png")


def report(metrics: Row) -> str:
    """The tables with the known values beside ours, and what the sampler's diagnostics say."""
    rows = {row["method"]: row for row in metrics["rows"]}
    posterior = rows["posterior"]
    inside = posterior["readings_inside"]
    return "\n".join(
        [
            f"\nSTAT5 dimers, preset {metrics['preset']}: 48 readings, "
            f"{metrics['timing']['total_seconds']:.0f} s in all\n",
            fits_table(metrics["rows"]),
            "",
            values_table(metrics["rows"], tuple(NOMINAL), {"least_squares": NOMINAL}),
            "",
            sampler_table(posterior, {"nominal": NOMINAL}, in_logs=True),
            "",
            "-log L: all constants included; nominal and reference: the PEtab collection. "
            "Geometric mean and standard deviation of log10; the prior's is 2.89.",
            ticket_text(posterior),
            "",
            metrics["identifiability"]["text"],
            "",
            f"Of the readings {100 * inside['0.5']:.0f} % lie within the predicted 50 %, "
            f"{100 * inside['0.9']:.0f} % within 90 %.",
        ]
    )


if __name__ == "__main__":
    main(Boehm, run, "Fit and sample STAT5 dimerization from mass spectrometry.")
