"""POLLU: INO recovers 25 rate coefficients from readings at three random times.

Result:   INO, arXiv 2603.11854, Tables 1-3 (rows POLLU).
Command:  python experiments/pollu --preset {smoke,quick,paper} --out results/pollu --seed 0
          python experiments/pollu --observations experiments/data/pollu_example.csv
Runtime:  quick 12.2 min on two CPU cores with light work beside it, 3.2 of them compilation; paper
          not yet run.
Expected: preset quick, mean squared error of the 25 parameters in unit coordinates: prior mean
          0.0837, regression 0.0243, INO 0.0170, INO and refine 0.0140 (33 ms per inversion), Bayes
          floor 0.0141; 90 % intervals hold 90.3, 90.4 and 89.3 %. Alarms: 3.3 % false, 100 % at
          ten times the noise, 90.2 % where a reaction is missing (22 of 25 reactions above 95 %).
          Published: INO 0.0117, MLP regression 0.1023, for a definition that is not known.

Simulates training data with the real solver, trains a plain regression and INO for about the same
time (`fit_seconds`), and compares both on cases they have not seen with the trivial guess and with
what the readings allow at best. Everything lands in `--out`; started again with the same folder it
continues.
"""

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax.random as jr
import numpy as np
from jaxtyping import Array, Key

import inojax as ij
from experiments.common.clocks import Clocks
from experiments.common.evaluation import Row, invert_all, observe
from experiments.common.files import write_json
from experiments.common.runner import Arguments, Preset, input_errors, main, run_once, stage
from experiments.common.tables import number, table
from experiments.pollu._alarms import alarms, describe
from experiments.pollu._figures import cloud, draw
from experiments.pollu._presets import SIZES, Size
from experiments.pollu._scoring import (
    Cases,
    Scored,
    floor_row,
    score_exact,
    score_inverter,
    score_prior_mean,
    surrogate_mse,
    unit_interval,
)
from experiments.pollu._stages import Fit, calibrated, held_out, simulations, trained
from experiments.pollu._tables import HEADER, cells, where_ino_loses
from inojax import plot
from inojax.methods import (
    ConformalInverter,
    INOInverter,
    conformal,
)


@dataclasses.dataclass(frozen=True)
class Pollu(Arguments):
    """The options of this experiment."""

    out: Path = Path("results/pollu")
    """Folder of all results. Started again with the same one, a run continues."""
    observations: Path | None = None
    """Readings of your own to invert: CSV with a header `time,NO2,NO,...`, minutes and ppm."""


# arXiv 2603.11854, Tables 1 and 3.
PUBLISHED = {
    "regression": {"parameter_mse": 0.1023, "seconds_single": 0.05},
    "ino": {"parameter_mse": 0.0117, "parameter_mae": 0.1001, "seconds_single": 0.23},
}
PUBLISHED_SURROGATE = 0.0559
TUNED = (
    "Tuned: sizes, learning rates and steps of both networks, on simulations held out from "
    "training; never on the test cases."
)
REFINED, ALONE = "ino + refine", "least squares (multi-start)"
# One species of each kind: product, sink, radical, and the two fastest.
SHOWN = ("NO2", "PAN", "OH", "O3P", "O1D", "N2O5")
SHOWN_IN_OVERVIEW = ("NO2", "OH", "O1D")


def run(arguments: Pollu) -> None:
    """Make the table unless it is there, then invert the user's readings if there are any."""
    problem, size = ij.problems.pollu(), SIZES[arguments.preset]
    observation = None
    with input_errors():
        if arguments.observations is not None:
            observation = ij.Observation.from_csv(arguments.observations, problem)
    make = functools.partial(experiment, arguments, problem, size)
    run_once("pollu", arguments, size, make, report)
    if observation is not None:
        invert(arguments, problem, size, observation)


def experiment(
    arguments: Pollu, problem: ij.InverseProblem, size: Size, clocks: Clocks
) -> dict[str, Any]:
    """Simulate, train, evaluate and draw."""
    out = arguments.out
    data_key, test_key, observe_key, fit_key, floor_key, invert_key = jr.split(
        jr.key(arguments.seed), 6
    )
    correct_key, calibrate_key, held_key, *check_keys = jr.split(jr.fold_in(invert_key, 1), 5)
    with clocks.simulating:
        dataset, test = simulations(
            out, problem, (size.simulations, size.test_cases), keys=(data_key, test_key)
        )
        correcting = held_out(out, problem, "correcting", size.correcting, key=correct_key)

    def limit() -> ij.metrics.BayesFloor:
        stage(f"Bayes floor from {size.floor_cases} cases")
        return ij.metrics.bayes_floor(problem, size.floor_cases, key=floor_key)

    def train() -> list[Fit]:
        methods = {"regression": size.regression, "ino": size.ino}
        return [trained(n, m, out, problem, dataset, key=fit_key) for n, m in methods.items()]

    floor, fits = floor_and_fits(limit, train, at_once=arguments.preset is Preset.SMOKE)
    stage(f"evaluate on {len(test)} new cases")
    scale = ij.data.Standardizer.from_dataset(dataset)
    cases = Cases(problem, test, scale, observe(problem, test, key=observe_key), floor)
    corrected = {f.name: conformal(f.inverter, correcting, key=held_key) for f in fits}
    scored = evaluate(cases, fits, corrected, key=invert_key)
    stage("refine on the real solver, and fit from scratch")
    scored |= evaluate_exact(cases, fits[-1].inverter, size, key=invert_key)
    record = None
    if size.calibration:
        # Not with what has corrected it.
        calibration = held_out(out, problem, "calibration", size.calibration, key=calibrate_key)
        checked = calibrated(size.ino, corrected["ino"], out, calibration, key=check_keys[0])
        stage("count alarms")
        record = {
            "cases": size.calibration,
            "coverage_90": np.mean(checked.coverage),
            "coverage_90_each": checked.coverage,
            "alarms": alarms(checked, test, each=size.alarms_each, key=check_keys[1]),
        }
    stage("draw figures")
    draw(out, cases, scored, fits, show=SHOWN, show_in_overview=SHOWN_IN_OVERVIEW, key=invert_key)
    return {
        "limits": {
            "prior_mean": {"parameter_mse": scored["prior_mean"].row["parameter_mse"]},
            "bayes_floor": {"parameter_mse": floor.parameter_mse},
        },
        "rows": [*(s.row for s in scored.values()), floor_row(cases)],
        "calibration": record,
    }


def floor_and_fits(
    limit: Callable[[], ij.metrics.BayesFloor], train: Callable[[], list[Fit]], *, at_once: bool
) -> tuple[ij.metrics.BayesFloor, list[Fit]]:
    """Run one after the other, or at once where training times need not be exact."""
    if not at_once:
        return limit(), train()
    with ThreadPoolExecutor(1) as beside:
        waiting = beside.submit(limit)
        fits = train()
        return waiting.result(), fits


def evaluate(
    cases: Cases, fits: list[Fit], corrected: dict[str, ConformalInverter], *, key: Key[Array, ""]
) -> dict[str, Scored]:
    """Score the prior mean and every trained method on the same observations."""
    scored = {"prior_mean": score_prior_mean(cases)}
    for fit in fits:
        own = unit_interval(cases, invert_all(fit.inverter, cases.observations, key=key))
        more: Row = {
            "fit_seconds": fit.seconds,
            "published": PUBLISHED[fit.name],
            "coverage_90_uncorrected": ij.metrics.coverage(*own, cases.dataset.unit).mean(),
        }
        if isinstance(fit.inverter, INOInverter):
            more |= surrogate_mse(cases, fit.inverter)
        inverter = corrected[fit.name]
        scored[fit.name] = score_inverter(fit.name, cases, inverter, key=key).with_fields(more)
    return scored


def evaluate_exact(
    cases: Cases, ino: ij.methods.AbstractInverter, size: Size, *, key: Key[Array, ""]
) -> dict[str, Scored]:
    """Score least squares on the real solver, from where INO ends and from scratch."""
    some = cases.first(size.multi_start)
    alone = size.alone.fit(cases.problem, key=key)
    return {
        REFINED: score_exact(REFINED, cases, size.refining.refine(ino), key=key),
        ALONE: score_exact(ALONE, some, alone, key=key),
    }


def report(metrics: dict[str, Any]) -> str:
    """The table with published numbers and limit, and what to make of it."""
    rows = {row["method"]: row for row in metrics["rows"]}
    floor = metrics["limits"]["bayes_floor"]["parameter_mse"]
    lines = [cells(row["method"].replace("_", " "), row, floor) for row in rows.values()]
    lines += [cells(f"{name}, published*", row, None) for name, row in PUBLISHED.items()]
    blind, seeing = (
        number(rows["ino"][f"surrogate_trajectory_mse{suffix}"])
        for suffix in ("", "_with_readings")
    )
    return "\n".join(
        [
            f"\nPOLLU, preset {metrics['preset']}: errors in unit coordinates, "
            f"{metrics['timing']['total_seconds']:.0f} s in all, "
            f"{metrics['timing']['simulate_seconds']:.0f} s to simulate\n",
            table(HEADER, lines),
            "",
            "* another, unknown definition of the problem; compare with the floor instead.",
            f"C-FNO, standardized trajectory MSE: {blind} from the parameters alone, {seeing} with "
            f"the readings in view, published* {PUBLISHED_SURROGATE}.",
            "" if metrics["calibration"] is None else describe(metrics["calibration"]["alarms"]),
            f"Intervals are corrected on {SIZES[Preset(metrics['preset'])].correcting} "
            "simulations; least squares alone was given "
            f"{rows[ALONE]['cases']} of the cases.",
            TUNED,
            where_ino_loses(rows, floor),
        ]
    )


def invert(
    arguments: Pollu, problem: ij.InverseProblem, size: Size, observation: ij.Observation
) -> None:
    """Invert the user's readings, solve again at the estimate, and show both."""
    assert arguments.observations is not None
    stage(f"invert {arguments.observations}")
    if size.calibration:
        inverter = ij.load(arguments.out / "calibrated", problem)
    else:
        inverter = ij.load(arguments.out / "ino", problem)
    estimate = inverter(observation, key=jr.key(arguments.seed))
    print(f"\n{estimate}\n\n{estimate.ticket}")
    stem = arguments.observations.stem
    content = {"observations": arguments.observations.name, **estimate.as_dict()}
    write_json(arguments.out / f"{stem}_estimate.json", content)
    states = np.asarray(problem.model.solve(estimate.value).states)
    figure = plot.trajectories(problem, observation, states=states, cloud=cloud(problem, estimate))
    figure.savefig(arguments.out / f"{stem}_trajectories.png")
    print(f"\nEstimate: {stem}_estimate.json, figure: {stem}_trajectories.png in {arguments.out}.")


if __name__ == "__main__":
    main(Pollu, run, "Recover the 25 rate coefficients of POLLU from three sparse readings.")
