"""Experiments on unknown scalars: readings, networks, least squares, one table."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

import inojax as ij
from experiments.common.evaluation import Row
from experiments.common.files import file_name, load_or_make
from experiments.common.provenance import stamp
from experiments.common.runner import Arguments, stage
from experiments.common.tables import number, table
from experiments.common.trial import Trial, stacked
from experiments.pde._parameter_paths import parameter_paths
from experiments.pde._scalar_figures import draw_estimates
from inojax.methods import (
    PINN,
    BiLO,
    BiLOInverter,
    Coordinates,
    LeastSquares,
    Penalty,
    PINNInverter,
    invert_batch,
)


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a method says about every set of readings.

    Attributes:
        thetas: Parameters.
        data_loss: Mean square of the readings minus the method's own prediction; of counts, in
            standard deviations (the mean deviance).
        u_error: Relative error of its solution at these parameters, root mean square over the
            domain; zero where the classical solver is its own reference.
        seconds: Time of one inversion of several at once.
    """

    thetas: Float[np.ndarray, "seed parameter"]
    data_loss: Float[np.ndarray, " seed"]
    u_error: Float[np.ndarray, " seed"]
    seconds: float


# Draws what is worth a picture: file to begin with, the trial, the least-squares estimates.
Picture = Callable[[Path, Trial[Answers], Answers, BiLOInverter, Any], None]


def simulated(
    measured: ij.InverseProblem, truth: Sequence[float] | np.ndarray, seeds: int, *, key: Any
) -> ij.Observation:
    """Readings of the truth, as a batch.

    Args:
        measured: The problem that measures.
        truth: The true parameters.
        seeds: Sets of readings.
        key: Source of noise.

    Returns:
        A set for each seed.
    """
    values = np.asarray(truth, np.float64)
    return stacked([measured.simulate(values, key=jr.fold_in(key, s)) for s in range(seeds)])


def experiment(
    arguments: Arguments, trials: Sequence[Trial[Answers]], picture: Picture
) -> dict[str, Any]:
    """Invert the readings of all trials by all methods, and draw.

    Args:
        arguments: The command line.
        trials: Readings and methods.
        picture: Draws what is worth a picture of each BiLO.

    Returns:
        The content of `metrics.json`.
    """
    parts, key = arguments.out / "parts", jr.key(arguments.seed)
    parts.mkdir(exist_ok=True)
    rows: list[Row] = []
    for trial in trials:
        stage(f"{trial.label}: least squares for {trial.sets} sets of readings")
        exact = least_squares(trial, key=key)
        rows += [guess_row(trial, exact), row_of("least squares", trial, exact, exact)]
        for method_name, find in trial.others.items():
            rows.append(row_of(method_name, trial, exact, find(trial)))
        for method_name, method in trial.methods.items():
            file = file_name(method_name, trial.label)
            make = functools.partial(
                network_row, method_name, method, trial, exact, arguments.out / file, key, picture
            )
            rows.append(load_or_make(parts / f"{file}.json", make))
    draw_estimates(arguments.out, trials, rows)
    return {
        "limits": {
            row["trial"]: {name: row[name] for name in ("estimates", "data_loss")}
            for row in rows
            if row["method"] == "least squares"
        },
        "rows": rows,
    }


def least_squares(trial: Trial[Answers], *, key: Key[Array, ""]) -> Answers:
    """The most likely parameters by the classical solver, from several starts."""
    settings = LeastSquares(
        starts=4, penalty=Penalty.NONE, coordinates=Coordinates.UNCONSTRAINED, candidates=0
    )
    exact = settings.fit(trial.problem, key=key)
    thetas = np.asarray(invert_batch(exact, trial.readings, key=key).value)
    began = time.perf_counter()
    invert_batch(exact, trial.readings, key=key)
    seconds = (time.perf_counter() - began) / trial.sets
    return of_the_solver(trial, thetas, seconds)


def of_the_solver(trial: Trial[Answers], thetas: np.ndarray, seconds: float = np.nan) -> Answers:
    """Parameters whose solution is the classical one."""
    times = np.asarray(trial.readings.times)
    states = np.asarray(trial.problem.model.solve_ensemble(thetas, times).states)
    return Answers(thetas, trial.data_loss(states), np.zeros(trial.sets), seconds)


def network_row(
    name: str,
    method: BiLO | PINN,
    trial: Trial[Answers],
    exact: Answers,
    stem: Path,
    key: Key[Array, ""],
    picture: Picture,
) -> Row:
    """Train a method, let it follow every set of readings, and score it."""
    inverter, found, times = parameter_paths(
        f"{trial.label}: {name}",
        dataclasses.replace(method, guess=trial.guess),
        trial.problem,
        trial.readings,
        key=key,
    )
    answers = score(trial, inverter, found, times["seconds"])
    if isinstance(inverter, BiLOInverter):
        picture(stem, trial, exact, inverter, found)
    return row_of(name, trial, exact, answers) | times | {"steps": method.steps} | stamp()


def score(
    trial: Trial[Answers], inverter: BiLOInverter | PINNInverter, found: Any, seconds: float
) -> Answers:
    """Compare networks with the readings and with the classical solver."""
    model: Any = trial.problem.model
    everywhere = model.collocation
    places = np.asarray(model.points(trial.readings.times[0]))
    thetas = np.asarray(found.theta, np.float64)
    exact = np.asarray(model.replace(readings=everywhere).solve_ensemble(thetas).states)
    predicted, error = [], []
    for seed, theta in enumerate(thetas):
        network = jax.tree.map(lambda x, seed=seed: x[seed], found.network)
        predicted.append(np.asarray(inverter.predict(places, theta, network)))
        away = np.asarray(inverter.predict(everywhere, theta, network)) - exact[seed]
        error.append(np.linalg.norm(away) / np.linalg.norm(exact[seed]))
    return Answers(thetas, trial.data_loss(np.stack(predicted)), np.array(error), seconds)


def row_of(name: str, trial: Trial[Answers], exact: Answers, answers: Answers) -> Row:
    """One line of the table: means over seeds, and standard deviations beside them."""
    names = trial.problem.parameters.names
    away = np.abs(answers.thetas / exact.thetas - 1.0)
    wrong = np.abs(answers.thetas / trial.truth - 1.0)
    row: Row = {
        "method": name,
        "trial": trial.label,
        "noise": trial.noise,
        "seeds": trial.sets,
        "estimates": dict(zip(names, answers.thetas.mean(axis=0), strict=True)),
        "estimates_std": dict(zip(names, answers.thetas.std(axis=0), strict=True)),
        "each_estimate": answers.thetas,
        "from_truth": dict(zip(names, wrong.mean(axis=0), strict=True)),
        "from_least_squares": dict(zip(names, away.mean(axis=0), strict=True)),
        "from_least_squares_most": dict(zip(names, away.max(axis=0), strict=True)),
        "u_error": answers.u_error.mean(),
        "u_error_std": answers.u_error.std(),
        "data_loss": answers.data_loss.mean(),
        "data_loss_std": answers.data_loss.std(),
        "seconds": answers.seconds,
    }
    variance = 1.0 if trial.noise is None else trial.noise**2
    if variance > 0.0:
        row["relative_data_loss"] = float(np.mean(answers.data_loss) / variance - 1.0)
        row["loss_beside_least_squares"] = float(
            np.max(np.abs(answers.data_loss - exact.data_loss) / exact.data_loss)
        )
    return row


def guess_row(trial: Trial[Answers], exact: Answers) -> Row:
    """What is lost by not moving from the guess."""
    thetas = np.tile(np.asarray(trial.guess, np.float64), (trial.sets, 1))
    return row_of("guess", trial, exact, of_the_solver(trial, thetas))


def report(metrics: dict[str, Any], title: str, source: str) -> str:
    """The table, with the limit beside every method.

    Args:
        metrics: The content of `metrics.json`.
        title: What it is about.
        source: What is published.

    Returns:
        The text.
    """
    names = list(metrics["rows"][0]["estimates"])
    header = (
        "readings", "method", *names, *(f"{name} from LSQ" for name in names), "u error",
        "loss / σ² - 1", "s each",
    )  # fmt: skip
    lines = [
        [
            row["trial"],
            row["method"],
            *(
                f"{number(row['estimates'][name])} ± {number(row['estimates_std'][name], 2)}"
                for name in names
            ),
            *(f"{100 * row['from_least_squares_most'][name]:.2f} %" for name in names),
            number(row["u_error"]),
            number(row.get("relative_data_loss")),
            number(row["seconds"]),
        ]
        for row in metrics["rows"]
    ]
    total = metrics["timing"]["total_seconds"]
    return "\n".join(
        [
            f"\n{title}, preset {metrics['preset']}, {metrics['rows'][0]['seeds']} sets of "
            f"readings each, {total:.0f} s in all. {source} The limit is least squares (LSQ) on "
            "the classical solver; distances from it are the largest.",
            "",
            table(header, lines),
        ]
    )
