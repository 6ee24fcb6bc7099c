"""The figures of an experiment that compares amortized methods."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Array, Key

import inojax as ij
from experiments.common.evaluation import take
from experiments.pollu._scoring import Cases, Scored
from experiments.pollu._stages import Fit
from inojax import plot

_LABELS = {"regression": "regression", "ino": "INO"}
_STAGES = {"regression": ("regression",), "ino": ("INO, surrogate (C-FNO)", "INO, drift (ADM)")}


def draw(
    out: Path,
    cases: Cases,
    scored: dict[str, Scored],
    fits: list[Fit],
    *,
    show: Sequence[str],
    show_in_overview: Sequence[str],
    key: Key[Array, ""],
) -> None:
    """Save recovery, errors, trajectories, overview and losses; the last fit is the main one."""
    problem, best = cases.problem, scored[fits[-1].name]
    names, floor = problem.parameters.names, cases.floor.per_parameter
    errors = {_LABELS[f.name]: scored[f.name].row["parameter_mse_each"] for f in fits}
    ends = {"lower": best.lower, "upper": best.upper}
    figures = {
        "recovery": plot.recovery(names, cases.dataset.unit, best.unit, floor=floor, **ends),
        "parameter_errors": plot.parameter_errors(names, errors, floor),
    }
    typical = typical_case(cases, best)
    observation = take(cases.observations, typical)
    curves = {
        "states": best.trajectories[typical],
        "cloud": cloud(problem, fits[-1].inverter(observation, key=key)),
        "truth": cases.dataset.trajectories[typical],
    }
    figures["trajectories"] = plot.trajectories(problem, observation, show=show, **curves)
    figures["overview"] = plot.overview(
        problem, observation, show=show_in_overview, errors=errors, floor=floor, **curves
    )
    logs = {n: log for f in fits for n, log in zip(_STAGES[f.name], f.logs, strict=True)}
    figures["losses"] = plot.losses(logs)
    for name, figure in figures.items():
        figure.savefig(out / f"{name}.png")


def typical_case(cases: Cases, scored: Scored) -> int:
    """The case whose parameter error is the median one."""
    errors = np.square(scored.unit - cases.dataset.unit).mean(axis=1)
    return int(np.argsort(errors)[len(errors) // 2])


def cloud(problem: ij.InverseProblem, estimate: ij.Estimate) -> np.ndarray:
    """Trajectories at the samples of one estimate."""
    samples = np.asarray(estimate.samples, np.float64)
    # Always the number that the solver advances together, so that nothing compiles again.
    samples = np.resize(samples, (128, samples.shape[1]))
    return np.asarray(problem.model.solve_ensemble(samples).states)
