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
from experiments.common.files import file_name, kept
from experiments.common.provenance import stamp
from experiments.common.runner import Arguments, stage
from experiments.common.tables import number, table
from experiments.pde._parameter_paths import followed
from inojax import plot
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


@dataclasses.dataclass(frozen=True)
class Trial:
    """Sets of readings, and what inverts them.

    Attributes:
        label: What is special about them.
        noise: Standard deviation of the readings; 0 for exact ones, None for counts.
        problem: What they are inverted as.
        truth: The true parameters.
        guess: Where methods begin.
        readings: The sets, as a batch.
        methods: Networks by the name of their row.
        others: Further ways to the parameters by the name of their row.
    """

    label: str
    noise: float | None
    problem: ij.InverseProblem
    truth: Float[np.ndarray, " parameter"]
    guess: tuple[float, ...]
    readings: ij.Observation
    methods: dict[str, BiLO | PINN]
    others: dict[str, Callable[["Trial"], Answers]] = dataclasses.field(default_factory=dict)

    @property
    def seeds(self) -> int:
        """Number of sets."""
        return len(self.readings.times)

    def loss(
        self, predicted: Float[np.ndarray, "seed reading channel"]
    ) -> Float[np.ndarray, " seed"]:
        """Mean square of readings minus predictions, see `Answers`."""
        values = np.asarray(self.readings.values)
        if self.noise is None:
            blank = np.zeros(self.problem.parameters.size)
            with jax.enable_x64(True):
                away = np.asarray(self.problem.noise.whiten(values, predicted, blank))
        else:
            away = values - predicted
        return np.square(away).mean(axis=(1, 2))


# Draws what is worth a picture: file to begin with, the trial, the least-squares estimates.
Picture = Callable[[Path, Trial, Answers, BiLOInverter, Any], None]


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
    seen = [measured.simulate(values, key=jr.fold_in(key, seed)) for seed in range(seeds)]
    return jax.tree.map(lambda *xs: np.stack(xs), *seen)


def experiment(arguments: Arguments, trials: Sequence[Trial], picture: Picture) -> dict[str, Any]:
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
        stage(f"{trial.label}: least squares for {trial.seeds} sets of readings")
        exact = least_squares(trial, key=key)
        rows += [guess_row(trial, exact), row_of("least squares", trial, exact, exact)]
        for method_name, find in trial.others.items():
            rows.append(row_of(method_name, trial, exact, find(trial)))
        for method_name, method in trial.methods.items():
            file = file_name(method_name, trial.label)
            make = functools.partial(
                network_row, method_name, method, trial, exact, arguments.out / file, key, picture
            )
            rows.append(kept(parts / f"{file}.json", make))
    draw(arguments.out, trials, rows)
    return {
        "limits": {
            row["trial"]: {name: row[name] for name in ("estimates", "data_loss")}
            for row in rows
            if row["method"] == "least squares"
        },
        "rows": rows,
    }


def least_squares(trial: Trial, *, key: Key[Array, ""]) -> Answers:
    """The most likely parameters by the classical solver, from several starts."""
    settings = LeastSquares(
        starts=4, penalty=Penalty.NONE, coordinates=Coordinates.UNCONSTRAINED, candidates=0
    )
    exact = settings.fit(trial.problem, key=key)
    thetas = np.asarray(invert_batch(exact, trial.readings, key=key).value)
    began = time.perf_counter()
    invert_batch(exact, trial.readings, key=key)
    seconds = (time.perf_counter() - began) / trial.seeds
    return of_the_solver(trial, thetas, seconds)


def of_the_solver(trial: Trial, thetas: np.ndarray, seconds: float = np.nan) -> Answers:
    """Parameters whose solution is the classical one."""
    times = np.asarray(trial.readings.times)
    states = np.asarray(trial.problem.model.solve_ensemble(thetas, times).states)
    return Answers(thetas, trial.loss(states), np.zeros(trial.seeds), seconds)


def network_row(
    name: str,
    method: BiLO | PINN,
    trial: Trial,
    exact: Answers,
    stem: Path,
    key: Key[Array, ""],
    picture: Picture,
) -> Row:
    """Train a method, let it follow every set of readings, and score it."""
    inverter, found, times = followed(
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
    trial: Trial, inverter: BiLOInverter | PINNInverter, found: Any, seconds: float
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
    return Answers(thetas, trial.loss(np.stack(predicted)), np.array(error), seconds)


def row_of(name: str, trial: Trial, exact: Answers, answers: Answers) -> Row:
    """One line of the table: means over seeds, and standard deviations beside them."""
    names = trial.problem.parameters.names
    away = np.abs(answers.thetas / exact.thetas - 1.0)
    wrong = np.abs(answers.thetas / trial.truth - 1.0)
    row: Row = {
        "method": name,
        "trial": trial.label,
        "noise": trial.noise,
        "seeds": trial.seeds,
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


def guess_row(trial: Trial, exact: Answers) -> Row:
    """What is lost by not moving from the guess."""
    thetas = np.tile(np.asarray(trial.guess, np.float64), (trial.seeds, 1))
    return row_of("guess", trial, exact, of_the_solver(trial, thetas))


def draw_path(
    stem: Path,
    trial: Trial,
    exact: Answers,
    paths: Float[np.ndarray, "seed step two"],
    *,
    floor: float = 0.0,
) -> None:
    """How two parameters went, over the misfit of the first set of readings.

    Args:
        stem: Name of the file after `path_`.
        trial: The readings.
        exact: Least squares.
        paths: Parameters before each step.
        floor: What they may not be below.
    """
    reach = np.concatenate([paths.reshape(-1, 2), exact.thetas, trial.truth[None]])
    low, high = reach.min(axis=0), reach.max(axis=0)
    margin = 0.15 * (high - low)
    ends = np.maximum(low - margin, floor), high + margin
    axes = [np.linspace(a, b, 41) for a, b in zip(*ends, strict=True)]
    first, second = np.meshgrid(*axes)
    thetas = np.stack([first.ravel(), second.ravel()], axis=1)
    observation = jax.tree.map(lambda x: x[0], trial.readings)
    states = np.asarray(trial.problem.model.solve_ensemble(thetas, observation.times).states)
    blank = np.zeros(2)
    with jax.enable_x64(True):
        away = trial.problem.noise.whiten(observation.values[None], states, blank)
        misfit = 0.5 * np.square(np.asarray(away)).sum(axis=(1, 2)).reshape(first.shape)
    horizontal, vertical = trial.problem.parameters.names
    figure = plot.landscape(
        (horizontal, vertical),
        (axes[0], axes[1]),
        misfit,
        points={
            "least squares": exact.thetas,
            "BiLO": paths[:, -1],
            "truth": trial.truth[None],
        },
        paths=paths,
    )
    figure.savefig(stem.with_name(f"path_{stem.name}.png"))


def draw(out: Path, trials: Sequence[Trial], rows: Sequence[Row]) -> None:
    """Estimates of every method beside least squares, for each trial."""
    first, *others = trials[0].problem.parameters.names
    with plot.house_style():
        figure = plot.new_figure(4.2 * len(trials) + 0.4, 4.2)
        panels = figure.subplots(1, len(trials), squeeze=False)[0]
        for panel, trial in zip(panels, trials, strict=True):
            truth: list[float] = trial.truth.tolist()
            shown = [r for r in rows if r["trial"] == trial.label and r["method"] != "guess"]
            for row in shown:
                thetas = np.asarray(row["each_estimate"])
                y = thetas[:, 1] if others else np.arange(len(thetas)) + 1.0
                panel.plot(thetas[:, 0], y, "o", label=row["method"], alpha=0.7)
            if others:
                panel.plot(truth[0], truth[1], "k+", markersize=12, label="truth")
            else:
                panel.axvline(truth[0], color="black", linestyle=":", label="truth")
            panel.set_title(trial.label)
            panel.set_xlabel(first)
        panels[0].set_ylabel(others[0] if others else "set of readings")
        lines = {line.get_label(): line for panel in panels for line in panel.lines}
        figure.legend(
            list(lines.values()), list(lines), loc="outside upper center", ncols=min(4, len(lines))
        )
    figure.savefig(out / "estimates.png")


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
