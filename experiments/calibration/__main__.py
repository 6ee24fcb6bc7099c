"""Are the stated intervals calibrated? Coverage on cases drawn from the prior, and several optima.

Result:   of the 90 % intervals of least squares (Laplace, or corrected), NUTS and tempering, 88 to
          92 % hold the truth; where the posterior is no parabola, Laplace's do not.
Command:  python experiments/calibration --preset {smoke,quick,paper} --out results/calibration
Runtime:  quick 39 min on two CPU cores with other work beside it, 20 of them NUTS; paper: not yet
          run.
Expected: preset quick: 90 % intervals hold the truth in percent of the cases: Robertson, least
          squares 88.9 (standard error 0.7), corrected 92.2 (0.6), NUTS 90.1 (2.9), tempering 90.1
          (2.9); Lotka-Volterra 75.8 (1.7), 90.7 (1.1), 90.1 (2.5), 88.3 (2.6). Ambiguous readings:
          tempering weighs the two modes 0.45 and 0.54, parabolas 0.06 and 0.94; brute force
          0.50 and 0.49 (0.02).

By ranks 5 and 2 % of the NUTS runs, with 250 draws of each chain, have mixed, and no run of
tempering, with two populations of 1,024, has. Their coverage is right all the same.

Least squares draws from parabolas. The likelihood of predator and prey is a curved ridge over a
wide prior, of which a parabola holds too little: intervals are too narrow, and optima weighed
wrongly, though the solver has weighed the draws; too few of them fall on the ridge.

Robertson's reaction and Lotka-Volterra: true parameters come from the prior and are measured once;
all methods invert the same readings. Coverage is that of central intervals, its standard error
that between cases. The second part (`_several_optima.py`) reads Lotka-Volterra so rarely that its
period is ambiguous, and compares the weights of the optima with the posterior by brute force.
Everything lands in `--out`; started again with the same folder it continues.
"""

import dataclasses
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Key

import inojax as ij
from experiments.calibration._several_optima import Ambiguous, optima_table, weigh_optima
from experiments.common.clocks import Clocks, compiling
from experiments.common.evaluation import Row, observe, take
from experiments.common.files import load_or_make
from experiments.common.runner import Arguments, Preset, main, run_once, stage
from experiments.common.tables import number, table
from inojax import plot
from inojax.methods import (
    AbstractInverter,
    LeastSquares,
    Posterior,
    SequentialMonteCarlo,
    conformal,
    invert_batch,
)


@dataclasses.dataclass(frozen=True)
class Calibration(Arguments):
    """The options of this experiment."""

    out: Path = Path("results/calibration")
    """Folder of all results. Started again with the same one, a run continues."""


class CaseCounts(NamedTuple):
    """How much is computed for one problem.

    Attributes:
        cases: Cases that least squares inverts.
        starts: From how many points.
        sampled: The first of them, which NUTS and tempering invert.
        batch: Cases whose chains or particles advance together.
        held_out: Other cases, on which intervals are corrected; 0 leaves that out.
    """

    cases: int
    starts: int
    sampled: int
    batch: int
    held_out: int


@dataclasses.dataclass(frozen=True)
class Size:
    """How much a preset computes."""

    problems: dict[str, CaseCounts]
    draws: int  # of least squares
    posterior: Posterior
    tempering: SequentialMonteCarlo
    ambiguous: Ambiguous


# The likelihood of predator and prey has many local optima.
SIZES = {
    Preset.SMOKE: Size(
        {"lotka_volterra": CaseCounts(32, 4, 16, 16, 0)},
        64,
        Posterior(chains=2, warmup=10, draws=20, depth=3),
        SequentialMonteCarlo(populations=2, particles=64, moves=4, draws=64),
        Ambiguous(starts=16, particles=256, prior_draws=2048),
    ),
    Preset.QUICK: Size(
        {
            "robertson": CaseCounts(1024, 4, 64, 64, 256),
            "lotka_volterra": CaseCounts(256, 16, 64, 64, 256),
        },
        128,
        Posterior(chains=4, warmup=150, draws=250, depth=4),
        SequentialMonteCarlo(populations=2, particles=1024, draws=256),
        Ambiguous(starts=64, particles=8192, prior_draws=200_000),
    ),
    Preset.PAPER: Size(
        {
            "robertson": CaseCounts(4096, 16, 1024, 256, 1024),
            "lotka_volterra": CaseCounts(4096, 64, 1024, 256, 1024),
        },
        512,
        Posterior(chains=4, warmup=500, draws=500, depth=8),
        SequentialMonteCarlo(particles=8192, draws=1024),
        Ambiguous(starts=256, particles=65_536, prior_draws=4_000_000),
    ),
}
PROBLEMS = {"robertson": ij.problems.robertson, "lotka_volterra": ij.problems.lotka_volterra}
LABELS = {
    "least_squares": "least squares (Laplace)",
    "conformal": "least squares (conformal)",
    "posterior": "NUTS",
    "tempering": "tempering (SMC)",
}
SAMPLERS = ("posterior", "tempering")
SHOWN = (0.5, 0.8, 0.9, 0.95)
# As many samples of a case are ranked, evenly spaced among those that follow each other.
RANKED = 39


def run(arguments: Calibration) -> None:
    """Make the tables unless they are there."""
    size = SIZES[arguments.preset]
    run_once("calibration", arguments, size, partial(experiment, arguments, size), report)


def experiment(arguments: Calibration, size: Size, clocks: Clocks) -> dict[str, Any]:
    """Invert the cases of every problem by all methods, then the ambiguous readings."""
    out, key = arguments.out, jr.key(arguments.seed)
    rows: list[Row] = []
    for index, (name, counts) in enumerate(size.problems.items()):
        cases = measured_cases(name, counts, clocks, key=jr.fold_in(key, index))
        methods = [method for method in LABELS if counts.held_out or method != "conformal"]
        found = [cases.row(out, method, size) for method in methods]
        curves = {LABELS[row["method"]]: curve_of(row) for row in found}
        plot.calibration(curves).savefig(out / f"calibration_{name}.png")
        rows += found
    several = load_or_make(
        out / "several_optima.json",
        lambda: weigh_optima(size.ambiguous, out, key=jr.fold_in(key, len(PROBLEMS))),
    )
    return {
        "limits": {
            row["problem"]: {
                "prior_mean": {"parameter_mse": row["prior_mean_mse"]},
                "bayes_floor": {"parameter_mse": row["bayes_floor"]},
            }
            for row in rows
        },
        "rows": rows,
        "several_optima": several,
    }


class Answers(NamedTuple):
    """What a method says about cases, in unit coordinates."""

    unit: Float[np.ndarray, "case parameter"]
    samples: Float[np.ndarray, "case sample parameter"]
    not_mixed: Bool[np.ndarray, " case"]
    seconds: Float[np.ndarray, " case"]


@dataclasses.dataclass(frozen=True)
class ProblemCases:
    """Cases of one problem that all methods invert.

    Attributes:
        counts: How much is computed.
        problem: The problem.
        truth: True parameters in unit coordinates.
        observations: Readings of each case.
        floor: The limit.
        key: Randomness of the methods.
    """

    counts: CaseCounts
    problem: ij.InverseProblem
    truth: Float[np.ndarray, "case parameter"]
    observations: ij.Observation
    floor: ij.metrics.BayesFloor
    key: Key[Array, ""]

    def row(self, out: Path, method: str, size: Size) -> Row:
        """Score one method on as many cases as the preset gives it."""
        cases = batch = self.counts.cases
        if method in SAMPLERS:
            cases, batch = self.counts.sampled, self.counts.batch
        path = out / f"{self.problem.name}_{method}.json"

        def make() -> Row:
            inverter = self._inverter(method, size)
            return self._row(path.with_suffix(""), inverter, method, cases, batch)

        return load_or_make(path, make)

    def _inverter(self, method: str, size: Size) -> AbstractInverter:
        if method == "tempering":
            return size.tempering.fit(self.problem, key=self.key)
        least_squares = LeastSquares(starts=self.counts.starts, draws=size.draws)
        first = least_squares.fit(self.problem, key=self.key)
        if method == "posterior":
            return size.posterior.refine(first)
        if method == "conformal":
            draw_key, key = jr.split(jr.fold_in(self.key, self.counts.held_out))
            stage(f"{self.problem.name}: correct on {self.counts.held_out} other cases")
            others = draw_cases(self.problem, self.counts.held_out, key=draw_key)
            return conformal(first, others, key=key)
        return first

    def _row(
        self, stem: Path, inverter: AbstractInverter, method: str, cases: int, batch: int
    ) -> Row:
        cases = min(cases, len(self.truth))
        bounds = list(range(0, cases, batch))
        parts = [
            self._part(stem, inverter, slice(start, min(start + batch, cases))) for start in bounds
        ]
        answers = Answers(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        good = np.isfinite(answers.samples).all(axis=(1, 2))
        row = {
            "problem": self.problem.name,
            "method": method,
            "cases": cases,
            "failed": int(np.sum(~good)),
            "not_mixed": float(answers.not_mixed.mean()),
            "seconds_per_case": float(answers.seconds.mean()),
            "draws": answers.samples.shape[1],
            "bayes_floor": self.floor.parameter_mse,
            "prior_mean_mse": float(np.square(self.truth[:cases] - 0.5).mean()),
        }
        truth = self.truth[:cases][good]
        errors = np.square(answers.unit[good] - truth).mean(axis=0)
        row |= {"parameter_mse": float(errors.mean()), "parameter_mse_each": errors}
        return row | calibration_of(answers.samples[good], truth, key=self.key)

    def _part(self, stem: Path, inverter: AbstractInverter, some: slice) -> Answers:
        """What a method says about some of the cases, from the disk if it is there."""
        path = stem.with_name(f"{stem.name}_{some.start}.npz")
        if not path.exists():
            stage(f"{stem.name}: cases {some.start} to {some.stop}")
            partial = path.with_suffix(".part")
            with partial.open("wb") as file:
                np.savez(file, **self._invert(inverter, some)._asdict())
            partial.replace(path)
        with np.load(path) as stored:
            return Answers(*(stored[name] for name in Answers._fields))

    def _invert(self, inverter: AbstractInverter, some: slice) -> Answers:
        observations = take(self.observations, some)
        compiled, began = compiling(), time.perf_counter()
        estimate = invert_batch(inverter, observations, key=jr.fold_in(self.key, some.start))
        samples = np.asarray(estimate.samples)
        # Several threads may compile at once.
        seconds = max(0.0, time.perf_counter() - began - (compiling() - compiled))
        count = len(samples)
        return Answers(
            np.asarray(estimate.unit_value),
            np.asarray(self.problem.parameters.to_unit(samples)),
            np.asarray(estimate.status) == ij.EstimateStatus.NOT_MIXED,
            np.full(count, seconds / count),
        )


def draw_cases(problem: ij.InverseProblem, count: int, *, key: Key[Array, ""]) -> ij.Dataset:
    """Draw true parameters from the prior, independently, and solve the model for them."""
    return ij.simulate(problem, count, design=ij.Design.RANDOM, key=key).usable()


def measured_cases(
    name: str, counts: CaseCounts, clocks: Clocks, *, key: Key[Array, ""]
) -> ProblemCases:
    """Draw true parameters from the prior, measure them, and compute the limit."""
    problem = PROBLEMS[name]()
    case_key, observe_key, floor_key, key = jr.split(key, 4)
    stage(f"{name}: draw and measure {counts.cases} cases")
    with clocks.simulating:
        dataset = draw_cases(problem, counts.cases, key=case_key)
        observations = observe(problem, dataset, key=observe_key)
        floor = ij.metrics.bayes_floor(problem, min(counts.cases, 512), key=floor_key)
    return ProblemCases(counts, problem, np.asarray(dataset.unit), observations, floor, key)


def calibration_of(
    samples: Float[np.ndarray, "case sample parameter"],
    truth: Float[np.ndarray, "case parameter"],
    *,
    key: Key[Array, ""],
) -> Row:
    """Coverage with its standard errors, and the tests of ranks and of random points."""
    curve = ij.metrics.coverage_curve(samples, truth)
    row: Row = {}
    for level in SHOWN:
        # Parameters of one case miss together, so cases are what is independent.
        single = [
            ij.metrics.coverage_curve(s[None], t[None], levels=(level,)).overall[0]
            for s, t in zip(samples, truth, strict=True)
        ]
        name = f"coverage_{100.0 * level:.0f}"
        row[name] = float(np.mean(single))
        row[f"{name}_error"] = float(np.std(single, ddof=1) / np.sqrt(len(single)))
    row["coverage_90_each"] = curve.per_parameter[np.isclose(curve.levels, 0.9)][0]
    row["curve"] = {"levels": curve.levels, "per_parameter": curve.per_parameter}
    spaced = np.linspace(0, samples.shape[1] - 1, min(RANKED, samples.shape[1])).astype(int)
    ranks = ij.metrics.sbc_ranks(samples[:, spaced], truth, key=key)
    random = ij.metrics.tarp(samples[:, spaced], truth, key=key)
    return row | {
        "sbc_p_value": ranks.p_value,
        "sbc_p_values": ranks.p_values,
        "sbc_shift": ranks.shift,
        "sbc_dispersion": ranks.dispersion,
        "tarp_p_value": random.p_value,
        "tarp_largest_deviation": random.largest_deviation,
    }


def curve_of(row: Row) -> ij.metrics.CoverageCurve:
    """The coverage curve that a row holds."""
    levels, each = (np.array(row["curve"][name]) for name in ("levels", "per_parameter"))
    error = np.sqrt(levels * (1.0 - levels) / row["cases"])
    return ij.metrics.CoverageCurve(levels, each, each.mean(axis=1), error, row["cases"])


HEADER = (
    "problem, method", "cases", "50 %", "80 %", "90 %", "95 %", "SBC p", "TARP p", "MSE",
    "/ floor", "/ prior", "not mixed", "s per case",
)  # fmt: skip


def report(metrics: dict[str, Any]) -> str:
    """Both tables and what to make of them."""
    lines = []
    for row in metrics["rows"]:
        shares = [
            f"{100 * row[f'coverage_{level}']:.1f} ± {100 * row[f'coverage_{level}_error']:.1f}"
            for level in (50, 80, 90, 95)
        ]
        lines.append(
            [
                f"{row['problem']}, {LABELS[row['method']]}",
                str(row["cases"] - row["failed"]),
                *shares,
                number(row["sbc_p_value"], 2),
                number(row["tarp_p_value"], 2),
                number(row["parameter_mse"]),
                f"{row['parameter_mse'] / row['bayes_floor']:.2f}",
                f"{row['parameter_mse'] / row['prior_mean_mse']:.2f}",
                f"{100 * row['not_mixed']:.0f} %",
                number(row["seconds_per_case"], 2),
            ]
        )
    return "\n".join(
        [
            f"\nCalibration, preset {metrics['preset']}: shares of central intervals that hold the "
            f"truth in percent, {metrics['timing']['total_seconds']:.0f} s in all\n",
            table(HEADER, lines),
            "",
            "p: chance of ranks at least as uneven if calibrated. MSE: of the parameters, in unit "
            "coordinates; floor: mean Laplace variance.",
            "",
            optima_table(metrics["several_optima"]),
        ]
    )


if __name__ == "__main__":
    main(
        Calibration,
        run,
        "Measure coverage of intervals of least squares, NUTS and tempering.",
    )
