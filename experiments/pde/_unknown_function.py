"""Experiments on an unknown function: readings, networks, limits, one table."""

import dataclasses
import functools
import time
import zlib
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
from experiments.pde._field_limits import fixed_point, minimizer
from experiments.pde._function_figures import draw_functions, draw_operator, draw_path
from experiments.pde._parameter_paths import parameter_paths
from inojax.methods import PINN, BiLO, BiLOInverter
from inojax.models import Field

# Points where functions are compared with the truth, as published.
FINE = np.linspace(0.0, 1.0, 1001)


@dataclasses.dataclass(frozen=True)
class UnknownFunction:
    """What is known of the function, and what is published about it.

    Attributes:
        truth: The true function of an array of places.
        guess: Where methods begin.
        changes: What to add to the guess in pictures of the local operator, by a name.
        square: Whether the second error is a mean square; else it is its root.
        published: Rows of the source by name: errors of the function, of the solution, data loss.
    """

    truth: Callable[[np.ndarray], np.ndarray]
    guess: Callable[[np.ndarray], np.ndarray]
    changes: dict[str, Callable[[np.ndarray], np.ndarray]]
    square: bool
    published: dict[str, tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class Answers:
    """What a method says about every set of readings.

    Attributes:
        curves: The function at `FINE`.
        predicted: The method's solution at the readings.
        exact: The classical solution there for the same function.
        seconds: Time of one inversion.
    """

    curves: Float[np.ndarray, "set point"]
    predicted: Float[np.ndarray, "set reading"]
    exact: Float[np.ndarray, "set reading"]
    seconds: float


def measured(
    unknown: UnknownFunction, problem: ij.InverseProblem, noise: float, sets: int, seed: int
) -> dict[str, Any]:
    """What a `Trial` of this problem begins with: noise, truth, guess and readings.

    The noise is the same for all problems with as many readings.
    """
    model: Any = problem.model
    field = model.fields[0]
    truth = np.asarray(field.coefficients(unknown.truth))
    clean = np.asarray(model.solve(truth).states)[:, 0]
    noises = [np.random.default_rng([seed, s]).normal(size=len(clean)) for s in range(sets)]
    values = clean[None] + noise * np.stack(noises)
    seen = [
        ij.Observation.from_arrays(model.times, one[:, None], problem=problem) for one in values
    ]
    return {
        "noise": noise,
        "problem": problem,
        "truth": truth,
        "guess": tuple(np.asarray(field.coefficients(unknown.guess)).tolist()),
        "readings": stacked(seen),
    }


def limits(label: str) -> dict[str, Callable[[Trial[Answers]], Answers]]:
    """What methods would converge to on the classical solver, by the name of their row."""
    return {
        f"minimizer({label})": functools.partial(of_coefficients, minimizer),
        f"fixed point({label})": functools.partial(of_coefficients, fixed_point),
    }


def experiment(
    arguments: Arguments, unknown: UnknownFunction, trials: Sequence[Trial[Answers]]
) -> dict[str, Any]:
    """Invert the readings of all trials by all methods, and draw.

    Args:
        arguments: The command line.
        unknown: The function.
        trials: Readings, limits and methods.

    Returns:
        The content of `metrics.json`.
    """
    parts, rows = arguments.out / "parts", []
    parts.mkdir(exist_ok=True)
    for trial in trials:
        for name, find in trial.others.items():
            make = functools.partial(other_row, name, find, unknown, trial)
            rows.append(load_or_make(parts / f"{file_name(trial.label, name)}.json", make))
        for name, method in trial.methods.items():
            label = zlib.crc32(f"{trial.label}: {name}".encode())
            key = jr.fold_in(jr.key(arguments.seed), label)
            make = functools.partial(
                network_row, name, method, unknown, trial, arguments.out, key=key
            )
            rows.append(load_or_make(parts / f"{file_name(trial.label, name)}.json", make))
    for label in dict.fromkeys(row["trial"] for row in rows):
        mine = [row for row in rows if row["trial"] == label]
        draw_functions(arguments.out, mine, FINE[::20], unknown.truth)
    return {
        "limits": {
            row["method"]: {name: row[name] for name in ("linf", "l2", "data_loss")}
            for row in rows
            if row["method"].startswith(("minimizer", "fixed point", "PINN limit"))
        },
        "rows": rows,
    }


def of_coefficients(find: Callable[..., np.ndarray], trial: Trial[Answers]) -> Answers:
    """The answer whose coefficients `find` gives for problem, readings and guess."""
    model: Any = trial.problem.model
    readings = np.asarray(trial.readings.values)[:, :, 0]
    began = time.perf_counter()
    different, same_as = np.unique(readings, axis=0, return_inverse=True)  # exact ones are one
    found = find(trial.problem, different, np.array(trial.guess))[same_as]
    seconds = (time.perf_counter() - began) / len(different)
    states = np.asarray(model.solve_ensemble(found).states)[:, :, 0]
    return Answers(curves_of(model.fields[0], found), states, states, seconds)


def other_row(
    name: str,
    find: Callable[[Trial[Answers]], Answers],
    unknown: UnknownFunction,
    trial: Trial[Answers],
) -> Row:
    """What is found without a network."""
    stage(f"{trial.label}: {name}")
    return row_of(name, unknown, trial, find(trial)) | stamp()


def network_row(
    name: str,
    method: BiLO | PINN,
    unknown: UnknownFunction,
    trial: Trial[Answers],
    out: Path,
    *,
    key: Key[Array, ""],
) -> Row:
    """Train a method at the guess, let it follow every set of readings, and score it."""
    model: Any = trial.problem.model
    field = model.fields[0]
    inverter, found, times = parameter_paths(
        f"{trial.label}: {name}",
        dataclasses.replace(method, guess=trial.guess),
        trial.problem,
        trial.readings,
        key=key,
    )
    with jax.enable_x64(False):
        curves = jax.vmap(lambda f: f.at(field.name, FINE.astype(np.float32)))(found.functions)
    predicted = []
    for index, theta in enumerate(found.theta):
        both = found.network, found.functions
        network, functions = jax.tree.map(lambda x, i=index: x[i], both)
        states = inverter.predict(model.readings, theta, network, functions=functions)
        predicted.append(np.asarray(states)[:, 0])
    curves = np.asarray(curves, np.float64)
    exact = solutions(model, curves)
    answers = Answers(curves, np.stack(predicted), exact, times["seconds"])
    if isinstance(inverter, BiLOInverter):
        file = f"{file_name(trial.label, name)}.png"
        shown = _along(field, np.asarray(found.path)[0])
        draw_path(out / f"path_{file}", name, field.name, FINE, unknown.truth, shown)
        draw_operator(out / f"operator_{file}", model, unknown.guess, unknown.changes, inverter)
    return row_of(name, unknown, trial, answers) | times | {"steps": method.steps} | stamp()


def _along(field: Any, path: Float[np.ndarray, "step c"]) -> dict[str, np.ndarray]:
    """The function at a few steps of its path."""
    steps = np.unique(np.linspace(0, len(path) - 1, 5).astype(int))
    curves = curves_of(field, path[steps].astype(np.float64))
    return {f"step {step}": curve for step, curve in zip(steps, curves, strict=True)}


def solutions(
    model: Any, curves: Float[np.ndarray, "set point"]
) -> Float[np.ndarray, "set reading"]:
    """Classical solutions for functions given at `FINE`.

    A network is smooth where the model's function is linear between nodes, and the difference would
    count as an error of its solution: hence as many nodes as are needed for there to be none.
    """
    field, every = model.fields[0], 5
    fine = Field(
        field.name, field.coordinate, FINE[::every], ends=field.ends, roughness=field.roughness
    )
    coefficients = fine.coefficients(curves[:, ::every])
    return np.asarray(model.replace(fields=(fine,)).solve_ensemble(coefficients).states)[:, :, 0]


def curves_of(field: Any, thetas: np.ndarray) -> Float[np.ndarray, "set point"]:
    """The functions of some coefficients at `FINE`."""
    with jax.enable_x64(True):
        values = np.asarray(field.nodal(thetas))
    return np.stack([np.interp(FINE, field.nodes, row) for row in values])


def row_of(name: str, unknown: UnknownFunction, trial: Trial[Answers], answers: Answers) -> Row:
    """One line of the table: means over sets of readings, standard deviations beside them."""
    error = answers.curves - unknown.truth(FINE)[None]
    square = np.square(error).mean(axis=1)
    away = np.linalg.norm(answers.predicted - answers.exact, axis=1)
    columns = {
        "linf": np.abs(error).max(axis=1),
        "l2": square if unknown.square else np.sqrt(square),
        "u_error": away / np.linalg.norm(answers.exact, axis=1),
        "data_loss": trial.data_loss(answers.predicted[:, :, None]),
    }
    row: Row = {
        "method": name,
        "trial": trial.label,
        "noise": trial.noise,
        "seeds": trial.sets,
        "curve": answers.curves[0, ::20],
        "published": unknown.published.get(name),
    }
    for column, values in columns.items():
        row[column], row[f"{column}_std"] = float(values.mean()), float(values.std())
        row[f"{column}_each"] = values
    return row | {"seconds": answers.seconds}


def report(metrics: dict[str, Any], title: str, square: bool) -> str:
    """The table, with the published row and the limits beside every method."""
    names = "linf", "l2", "u_error", "data_loss"
    lines = []
    for row in metrics["rows"]:
        theirs = row["published"] or (None,) * 4
        lines.append(
            [
                f"{row['trial']}: {row['method']}",
                *(
                    cell
                    for name, value in zip(names, theirs, strict=True)
                    for cell in (f"{number(row[name])} ± {number(row[name + '_std'], 2)}",
                                 number(value))
                ),
                number(row["seconds"]),
            ]
        )  # fmt: skip
    second = "mean square" if square else "L2"
    header = (
        "method", "Linf", "published", second, "published", "u error", "published", "data loss",
        "published", "s each",
    )  # fmt: skip
    return "\n".join(
        [
            f"\n{title}, preset {metrics['preset']}, {metrics['rows'][0]['seeds']} sets of readings"
            f", {metrics['timing']['total_seconds']:.0f} s in all\n",
            table(header, lines),
            "",
            "u error: relative, at the readings, of a method's solution beside the classical one "
            "for the same function. Minimizer: of misfit and penalty, on the classical solver. "
            "Fixed point: where BiLO's steps would end there. PINN limit: where a PINN would end.",
        ]
    )
