"""Figures of experiments on an unknown function: paths, local operators, estimates."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.common.evaluation import Row
from experiments.common.files import file_name
from experiments.pde._field_limits import moved
from inojax import plot
from inojax.methods import BiLOInverter

Function = Callable[[np.ndarray], np.ndarray]


def draw_path(
    file: Path,
    title: str,
    quantity: str,
    x: Float[np.ndarray, " point"],
    truth: Function,
    curves: Mapping[str, Float[np.ndarray, " point"]],
) -> None:
    """How the function went, for the first set of readings."""
    panels = {title: {"truth": truth(x), **curves}}
    plot.profiles(x, panels, quantity=quantity).savefig(file)


def draw_operator(
    file: Path,
    model: Any,
    guess: Function,
    changes: Mapping[str, Function],
    inverter: BiLOInverter,
) -> None:
    """The pretrained operator at functions beside the guess, and the classical solution there."""
    field, panels = model.fields[0], {}
    nodes = np.array(field.nodes)
    places = model.readings[:, model.coordinates.index(field.coordinate)]
    still = np.zeros(field.size)
    for change, added in changes.items():
        other, coefficients = moved(model, guess(nodes) + added(nodes))
        values = inverter.functions.at(field.name, places) + added(places).astype(np.float32)
        local = inverter.predict(model.readings, still, functions=values[:, None])
        panels[change] = {
            "classical solution": np.asarray(other.solve(coefficients).states)[:, 0],
            "local operator, trained at the guess": np.asarray(local)[:, 0],
        }
    plot.profiles(places, panels, quantity="u at the readings").savefig(file)


def draw_functions(
    out: Path, rows: Sequence[Row], x: Float[np.ndarray, " point"], truth: Function
) -> None:
    """The function as each method finds it from the first set of readings."""
    panels = {row["method"]: {"truth": truth(x), "found": np.asarray(row["curve"])} for row in rows}
    file = f"functions_{file_name(rows[0]['trial'])}.png"
    plot.profiles(x, panels, quantity="unknown function").savefig(out / file)
