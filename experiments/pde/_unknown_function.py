"""Experiments on an unknown function: readings, networks, limits, one table."""

import dataclasses
import functools
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
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
from experiments.pde._field_limits import fixed_point, minimizer, moved
from experiments.pde._parameter_paths import followed
from inojax import plot
from inojax.methods import PINN, BiLO, BiLOInverter
from inojax.models import Field

# Points where functions are compared with the truth, as published.
FINE = np.linspace(0.0, 1.0, 1001)


@dataclasses.dataclass(frozen=True)
class Subject:
    """An equation with one unknown function.

    Attributes:
        name: Of the experiment.
        truth: The true function of an array of places.
        guess: Where methods begin.
        changes: What to add to the guess in pictures of the local operator, by a name.
        square: Whether the second error is a mean square; else it is its root.
        published: Rows of the source by name: errors of the function, of the solution, data loss.
    """

    name: str
    truth: Callable[[np.ndarray], np.ndarray]
    guess: Callable[[np.ndarray], np.ndarray]
    changes: dict[str, Callable[[np.ndarray], np.ndarray]]
    square: bool
    published: dict[str, tuple[float, ...]]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One problem with its readings and what is made of them.

    Attributes:
        label: What is special about it.
        problem: What readings are inverted as.
        noise: Standard deviation of the readings; 0 for exact ones.
        methods: Networks by the name of their row.
        limits: Whether minimizer and fixed point are found for this one, and by which label.
        others: Rows found without a network by their name: given readings, the unknown function at
            `FINE` and the solution at the readings, for each set.
    """

    label: str
    problem: ij.InverseProblem
    noise: float
    methods: dict[str, BiLO | PINN]
    limits: str | None
    others: Mapping[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = dataclasses.field(
        default_factory=dict
    )


def experiment(
    arguments: Arguments,
    subject: Subject,
    trials: Sequence[Trial],
    seeds: int,
) -> dict[str, Any]:
    """Invert the readings of all trials by all methods, and draw.

    Args:
        arguments: The command line.
        subject: The equation.
        trials: Problems and methods.
        seeds: Sets of readings, with weights of their own.

    Returns:
        The content of `metrics.json`.
    """
    parts, rows = arguments.out / "parts", []
    parts.mkdir(exist_ok=True)
    for trial in trials:
        readings = measured(subject, trial, seeds, arguments.seed)
        if trial.limits is not None:
            for name, find in (("minimizer", minimizer), ("fixed point", fixed_point)):
                label = f"{name}({trial.limits})"
                make = functools.partial(limit_row, label, find, subject, trial, readings)
                rows.append(kept(parts / f"{file_name(trial.label, label)}.json", make))
        for name, find in trial.others.items():
            make = functools.partial(other_row, name, find, subject, trial, readings)
            rows.append(kept(parts / f"{file_name(trial.label, name)}.json", make))
        for name, method in trial.methods.items():
            label = zlib.crc32(f"{trial.label}: {name}".encode())
            key = jr.fold_in(jr.key(arguments.seed), label)
            make = functools.partial(
                network_row, name, method, subject, trial, readings, parts, key=key
            )
            rows.append(kept(parts / f"{file_name(trial.label, name)}.json", make))
    for label in dict.fromkeys(row["trial"] for row in rows):
        draw(arguments.out, subject, [row for row in rows if row["trial"] == label])
    return {
        "limits": {
            row["method"]: {name: row[name] for name in ("linf", "l2", "data_loss")}
            for row in rows
            if row["method"].startswith(("minimizer", "fixed point", "PINN limit"))
        },
        "rows": rows,
    }


def measured(
    subject: Subject, trial: Trial, seeds: int, seed: int
) -> Float[np.ndarray, "seed reading"]:
    """Readings of the truth; the noise is the same for all trials with as many of them."""
    model: Any = trial.problem.model
    clean = np.asarray(model.solve(model.fields[0].coefficients(subject.truth)).states)[:, 0]
    noises = [np.random.default_rng([seed, s]).normal(size=len(clean)) for s in range(seeds)]
    return clean[None] + trial.noise * np.stack(noises)


def limit_row(
    name: str,
    find: Callable[..., np.ndarray],
    subject: Subject,
    trial: Trial,
    readings: Float[np.ndarray, "seed reading"],
) -> Row:
    """What a method would converge to on the classical solver."""
    stage(f"{trial.label}: {name}")
    model: Any = trial.problem.model
    start = model.fields[0].coefficients(subject.guess)
    began = time.perf_counter()
    different, same_as = np.unique(readings, axis=0, return_inverse=True)  # exact ones are one
    found = find(trial.problem, different, start)[same_as]
    seconds = (time.perf_counter() - began) / len(different)
    states = np.asarray(model.solve_ensemble(found).states)[:, :, 0]
    curves = _curves(model.fields[0], found)
    return (
        row_of(name, subject, trial, curves, states, states, readings)
        | {"seconds": seconds}
        | stamp()
    )


def other_row(
    name: str,
    find: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
    subject: Subject,
    trial: Trial,
    readings: Float[np.ndarray, "seed reading"],
) -> Row:
    """What is found without a network; its solution need not be that of its function."""
    stage(f"{trial.label}: {name}")
    model: Any = trial.problem.model
    began = time.perf_counter()
    curves, predicted = find(readings)
    seconds = (time.perf_counter() - began) / len(readings)
    row = row_of(name, subject, trial, curves, predicted, solutions(model, curves), readings)
    return row | {"seconds": seconds} | stamp()


def network_row(
    name: str,
    method: BiLO | PINN,
    subject: Subject,
    trial: Trial,
    readings: Float[np.ndarray, "seed reading"],
    parts: Path,
    *,
    key: Key[Array, ""],
) -> Row:
    """Train a method at the guess, let it follow every set of readings, and score it."""
    model: Any = trial.problem.model
    field, seeds = model.fields[0], len(readings)
    guess = tuple(np.asarray(field.coefficients(subject.guess)).tolist())
    blank = trial.problem.simulate(np.zeros(field.size), key=key)
    batch = jax.tree.map(lambda x: np.stack([x] * seeds), blank)
    inverter, found, times = followed(
        f"{trial.label}: {name}",
        dataclasses.replace(method, guess=guess),
        trial.problem,
        dataclasses.replace(batch, values=readings[:, :, None]),
        key=key,
    )
    with jax.enable_x64(False):
        curves = jax.vmap(lambda f: f.at(field.name, FINE.astype(np.float32)))(found.functions)
    predicted = []
    for seed, theta in enumerate(found.theta):
        both = found.network, found.functions
        network, functions = jax.tree.map(lambda x, s=seed: x[s], both)
        states = inverter.predict(model.readings, theta, network, functions=functions)
        predicted.append(np.asarray(states)[:, 0])
    curves, predicted = np.asarray(curves, np.float64), np.stack(predicted)
    row = row_of(name, subject, trial, curves, predicted, solutions(model, curves), readings)
    if isinstance(inverter, BiLOInverter):
        draw_path(parts.parent, subject, trial, name, np.asarray(found.path))
        draw_operator(parts.parent, subject, trial, name, inverter)
    return row | times | {"steps": method.steps} | stamp()


def solutions(
    model: Any, curves: Float[np.ndarray, "seed point"]
) -> Float[np.ndarray, "seed reading"]:
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


def _curves(field: Any, thetas: np.ndarray) -> Float[np.ndarray, "seed point"]:
    with jax.enable_x64(True):
        values = np.asarray(field.nodal(thetas))
    return np.stack([np.interp(FINE, field.nodes, row) for row in values])


def row_of(
    name: str,
    subject: Subject,
    trial: Trial,
    curves: Float[np.ndarray, "seed point"],
    predicted: Float[np.ndarray, "seed reading"],
    exact: Float[np.ndarray, "seed reading"],
    readings: Float[np.ndarray, "seed reading"],
) -> Row:
    """One line of the table: means over seeds, standard deviations beside them."""
    error = curves - subject.truth(FINE)[None]
    square = np.square(error).mean(axis=1)
    columns = {
        "linf": np.abs(error).max(axis=1),
        "l2": square if subject.square else np.sqrt(square),
        "u_error": np.linalg.norm(predicted - exact, axis=1) / np.linalg.norm(exact, axis=1),
        "data_loss": np.square(predicted - readings).mean(axis=1),
    }
    row: Row = {
        "method": name,
        "trial": trial.label,
        "noise": trial.noise,
        "seeds": len(curves),
        "curve": curves[0, ::20],
        "published": subject.published.get(name),
    }
    for column, values in columns.items():
        row[column], row[f"{column}_std"] = float(values.mean()), float(values.std())
        row[f"{column}_each"] = values
    return row


def draw_path(
    out: Path, subject: Subject, trial: Trial, name: str, paths: Float[np.ndarray, "seed step c"]
) -> None:
    """How the function went, for the first set of readings."""
    model: Any = trial.problem.model
    steps = len(paths[0])
    shown = np.unique(np.linspace(0, steps - 1, 5).astype(int))
    curves = _curves(model.fields[0], paths[0][shown].astype(np.float64))
    named = {f"step {step}": curve for step, curve in zip(shown, curves, strict=True)}
    panels = {name: {"truth": subject.truth(FINE), **named}}
    figure = plot.profiles(FINE, panels, quantity=model.fields[0].name)
    figure.savefig(out / f"path_{file_name(trial.label, name)}.png")


def draw_operator(
    out: Path, subject: Subject, trial: Trial, name: str, inverter: BiLOInverter
) -> None:
    """The pretrained operator at functions beside the guess, and the classical solution there."""
    model: Any = trial.problem.model
    field, panels = model.fields[0], {}
    nodes = np.array(field.nodes)
    places = model.readings[:, model.coordinates.index(field.coordinate)]
    still = np.zeros(field.size)
    for change, added in subject.changes.items():
        other, coefficients = moved(model, subject.guess(nodes) + added(nodes))
        values = inverter.functions.at(field.name, places) + added(places).astype(np.float32)
        local = inverter.predict(model.readings, still, functions=values[:, None])
        panels[change] = {
            "classical solution": np.asarray(other.solve(coefficients).states)[:, 0],
            "local operator, trained at the guess": np.asarray(local)[:, 0],
        }
    figure = plot.profiles(places, panels, quantity="u at the readings")
    figure.savefig(out / f"operator_{file_name(trial.label, name)}.png")


def draw(out: Path, subject: Subject, rows: Sequence[Row]) -> None:
    """The function as each method finds it from the first set of readings."""
    x = FINE[::20]
    panels = {
        row["method"]: {"truth": subject.truth(x), "found": np.asarray(row["curve"])}
        for row in rows
    }
    file = f"functions_{file_name(rows[0]['trial'])}.png"
    plot.profiles(x, panels, quantity="unknown function").savefig(out / file)


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
