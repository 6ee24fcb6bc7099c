"""Figures of experiments on unknown scalars: paths over the misfit, and estimates."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from experiments.common.evaluation import Row
from experiments.common.trial import Trial
from inojax import plot


def draw_path(
    stem: Path,
    trial: Trial[Any],
    exact: Float[np.ndarray, "set parameter"],
    paths: Float[np.ndarray, "set step two"],
    *,
    floor: float = 0.0,
) -> None:
    """How two parameters went, over the misfit of the first set of readings.

    Args:
        stem: Name of the file after `path_`.
        trial: The readings.
        exact: Least-squares estimates.
        paths: Parameters before each step.
        floor: What they may not be below.
    """
    reach = np.concatenate([paths.reshape(-1, 2), exact, trial.truth[None]])
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
            "least squares": exact,
            "BiLO": paths[:, -1],
            "truth": trial.truth[None],
        },
        paths=paths,
    )
    figure.savefig(stem.with_name(f"path_{stem.name}.png"))


def draw_estimates(out: Path, trials: Sequence[Trial[Any]], rows: Sequence[Row]) -> None:
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
