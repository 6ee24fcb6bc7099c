"""Particles: birth and death rates from where particles are seen.

Result:   Zhang, Li and Lowengrub, arXiv 2404.17789, section 3.2 (Figure 3, which has no numbers):
          BiLO beside PINNs of several data weights, from the positions of particles in 100
          snapshots, whose equilibrium has a kink where they are made. The limits are the most
          likely rates, by the classical solver for counts in cells and by the closed form for the
          positions themselves.
Command:  python experiments/pde/particles.py --preset {smoke,quick,paper} --out DIR --seed 0
Runtime:  quick 7.8 min on two CPU cores with tests beside it; paper: not yet run, 60,000 steps of
          Adam for each row.
Expected: preset quick, five sets of snapshots: BiLO within 0.01 % of the most likely rates by
          counts and 0.7 % (birth) and 1.5 % (death) of those by positions, 21 s each after
          pretraining of 3.8 s, its solution within 6.4e-6 of the classical one. PINNs are within
          5.9 and 11 % (data weight 100), 0.04 and 0.09 (1,000), 0.4 and 0.9 (10,000), 2.6 and 6.4
          (100,000) of those by counts. Counting in cells moves the estimates by up to 0.7 and
          1.5 %, a tenth of their standard deviation, which is 31 and 1.2 over sets (by the
          Cramér-Rao bound 47 and 1.8).

Positions are drawn by thinning, snapshot by snapshot, and counted in 100 cells; what the cells lose
is the distance between the two limits. Each part is kept in `--out`; started again with the same
folder, a run continues.
"""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.integrate
import scipy.optimize
from jaxtyping import Float

import inojax as ij
from experiments.common.clocks import Clocks
from experiments.common.evaluation import Row
from experiments.common.runner import Arguments, Preset, main, run_once
from experiments.common.tables import number
from experiments.common.trial import Trial, stacked
from experiments.pde._scalar_figures import draw_path
from experiments.pde._unknown_scalars import Answers, experiment, of_the_solver, report
from inojax import plot
from inojax.methods import (
    PINN,
    BiLO,
    BiLOInverter,
    GaussNewtonWeightOptimizer,
    Penalty,
)
from inojax.problems import particles

TRUTH = np.array([500.0, 10.0])
GUESS = (250.0, 5.0)
SNAPSHOTS, CELLS = 100, 100
# Where particles are made, and half of the interval there for Simpson's rule.
SOURCE, SIMPSON = 0.5, 101
BY_POSITIONS = "most likely, by positions"


@dataclasses.dataclass(frozen=True)
class Particles(Arguments):
    """The options of this experiment."""

    out: Path = Path("results/particles")
    """Folder of all results. Started again with the same one, a run continues."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much a preset computes.

    Attributes:
        seeds: Sets of snapshots.
        bilo: Variants of BiLO.
        pinn: The PINN, for each weight of the readings.
        weights: Weights of the mean deviance beside the mean square of the residual.
    """

    seeds: int
    bilo: dict[str, BiLO]
    pinn: PINN
    weights: tuple[float, ...]


_OURS = BiLO(penalty=Penalty.NONE)
_PINN = PINN()
_SMALL = {
    "width": 16,
    "pretraining": 5,
    "steps": 5,
    "weight_optimizer": GaussNewtonWeightOptimizer(16),
}
_WEIGHTS = (1e2, 1e3, 1e4, 1e5)
SIZES = {
    Preset.SMOKE: Size(
        2,
        {"BiLO": dataclasses.replace(_OURS, **_SMALL)},
        dataclasses.replace(_PINN, **_SMALL),
        (1e4,),
    ),
    Preset.QUICK: Size(5, {"BiLO": _OURS}, _PINN, _WEIGHTS),
    Preset.PAPER: Size(
        5,
        {"BiLO": _OURS, "BiLO, as published": BiLO.published()},
        PINN.published(),
        _WEIGHTS,
    ),
}


def run(arguments: Particles) -> None:
    """Make the table unless it is there."""
    size = SIZES[arguments.preset]

    def make(_: Clocks) -> dict[str, Any]:
        made = trial(size, arguments.seed)
        content = experiment(arguments, [made], picture)
        draw_counts(arguments.out, made, content)
        beside_positions(content["rows"], made.problem.parameters.names)
        return content | {"cramer_rao": cramer_rao(made.problem)}

    run_once("particles", arguments, size, make, describe)


def describe(metrics: dict[str, Any]) -> str:
    """The table, and how well any method could know the rates."""
    least = ", ".join(f"{number(s)} ({name})" for name, s in metrics["cramer_rao"].items())
    table = report(metrics, "Particles", "The source has no numbers.")
    apart = [(row["method"], row["from_positions_most"].values()) for row in metrics["rows"]]
    away = "; ".join(f"{m} {', '.join(f'{100 * x:.2f} %' for x in xs)}" for m, xs in apart)
    return (
        f"{table}\n\nCramér-Rao bound of the standard deviations at the truth: {least}.\n"
        f"Largest distance from the rates under which the positions are most likely: {away}."
    )


def beside_positions(rows: list[Row], names: Sequence[str]) -> None:
    """Add to each row how far it is, at most, from the most likely rates by positions."""
    (limit,) = (row for row in rows if row["method"] == BY_POSITIONS)
    exact = np.asarray(limit["each_estimate"])
    for row in rows:
        away = np.abs(np.asarray(row["each_estimate"]) / exact - 1.0).max(axis=0)
        row["from_positions_most"] = dict(zip(names, away.tolist(), strict=True))


def cramer_rao(problem: ij.InverseProblem) -> dict[str, float]:
    """The least standard deviation of each rate that counts allow, at the truth."""
    model, noise = problem.model, problem.noise
    assert isinstance(noise, ij.noise.Poisson)
    solution, tangents = model.sensitivities(TRUTH[None])
    rate, slopes = np.asarray(solution.states)[0, :, 0], np.asarray(tangents)[0, :, 0]
    fisher = noise.exposure * slopes.T @ (slopes / rate[:, None])
    least = np.sqrt(np.diag(np.linalg.inv(fisher)))
    return dict(zip(problem.parameters.names, least.tolist(), strict=True))


def trial(size: Size, seed: int) -> Trial[Answers]:
    """Positions of every set, counted in cells."""
    problem = particles(snapshots=SNAPSHOTS, cells=CELLS)
    rngs = [np.random.default_rng([seed, s]) for s in range(size.seeds)]
    positions = [thinned(TRUTH, SNAPSHOTS, rng) for rng in rngs]
    model: Any = problem.model
    counts = [np.histogram(q, bins=CELLS, range=(0.0, 1.0))[0] for q in positions]
    seen = [ij.Observation.from_arrays(model.times, c[:, None], problem=problem) for c in counts]
    readings = stacked(seen)
    methods: dict[str, BiLO | PINN] = dict(size.bilo)
    for weight in size.weights:
        methods[f"PINN({weight:g})"] = dataclasses.replace(size.pinn, data_weight=weight)

    def of_positions(made: Trial[Answers]) -> Answers:
        began = time.perf_counter()
        thetas = np.stack([most_likely(q, SNAPSHOTS) for q in positions])
        return of_the_solver(made, thetas, (time.perf_counter() - began) / len(positions))

    return Trial(
        "positions", None, problem, TRUTH, GUESS, readings, methods,
        {BY_POSITIONS: of_positions},
    )  # fmt: skip


def intensity(
    theta: Float[np.ndarray, " two"], x: Float[np.ndarray, " place"]
) -> Float[np.ndarray, " place"]:
    """The solution in closed form; NaN for a death rate below zero, where networks may end."""
    with np.errstate(invalid="ignore"):
        birth, root = theta[0], np.sqrt(theta[1])
    near, far = np.minimum(x, SOURCE), 1.0 - np.maximum(x, SOURCE)
    return birth / root * np.sinh(root * near) * np.sinh(root * far) / np.sinh(root)


def thinned(
    theta: Float[np.ndarray, " two"], snapshots: int, rng: np.random.Generator
) -> Float[np.ndarray, " particle"]:
    """Positions in all snapshots: evenly spread candidates, kept in proportion to the intensity."""
    most = intensity(theta, np.array([SOURCE]))[0]
    kept = []
    for _ in range(snapshots):
        candidates = rng.uniform(size=rng.poisson(most))
        kept.append(
            candidates[rng.uniform(size=len(candidates)) < intensity(theta, candidates) / most]
        )
    return np.concatenate(kept)


def most_likely(
    positions: Float[np.ndarray, " particle"], snapshots: int
) -> Float[np.ndarray, " two"]:
    """The rates under which the positions are most likely, by the closed form."""
    halves = np.linspace(0.0, SOURCE, SIMPSON), np.linspace(SOURCE, 1.0, SIMPSON)

    def minus_log_likelihood(logs: np.ndarray) -> float:
        theta = np.exp(logs)
        expected = sum(scipy.integrate.simpson(intensity(theta, x), x=x) for x in halves)
        return float(snapshots * expected - np.log(intensity(theta, positions)).sum())

    found = scipy.optimize.minimize(
        minus_log_likelihood, np.log(GUESS), method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-9, "maxiter": 2000},
    )  # fmt: skip
    return np.exp(found.x)


def picture(
    stem: Path, trial: Trial[Answers], exact: Answers, inverter: BiLOInverter, found: Any
) -> None:
    """The pretrained operator beside the guess, and how its parameters went from there."""
    x = np.linspace(0.0, 1.0, 201)
    model: Any = inverter.problem.model
    fine, panels = model.replace(readings=x[:, None]), {}
    for factors in ((1.0, 1.0), (1.25, 1.0), (1.0, 1.5), (0.75, 1.0), (1.0, 0.5), (1.25, 1.5)):
        theta = np.multiply(GUESS, factors)
        panels[f"λ = {theta[0]:g}, μ = {theta[1]:g}"] = {
            "classical solution": np.asarray(fine.solve(theta).states)[:, 0],
            "local operator, trained at (250, 5)": np.asarray(inverter.predict(x[:, None], theta))[
                :, 0
            ],
        }
    figure = plot.profiles(x, panels, quantity="intensity")
    figure.savefig(stem.with_name(f"operator_{stem.name}.png"))
    draw_path(stem, trial, exact.thetas, np.asarray(found.path), floor=0.5)


def draw_counts(out: Path, trial: Trial[Answers], content: dict[str, Any]) -> None:
    """Counts of the first set beside what each method expects."""
    model: Any = trial.problem.model
    x, noise = model.times, trial.problem.noise
    assert isinstance(noise, ij.noise.Poisson)
    panels = {}
    for row in content["rows"]:
        if row["method"] != "guess":
            theta = np.asarray(row["each_estimate"])[0]
            panels[row["method"]] = {"expected": noise.exposure * intensity(theta, x)}
    dots = dict.fromkeys(panels, (x, np.asarray(trial.readings.values)[0, :, 0]))
    figure = plot.profiles(x, panels, quantity="particles in a cell", dots=dots)
    figure.savefig(out / "counts.png")


if __name__ == "__main__":
    main(Particles, run, "Recover birth and death rates of particles from where they are seen.")
