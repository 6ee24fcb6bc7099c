"""Trajectories through readings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .._inverse_problem import InverseProblem
from .._observation import Observation
from ._style import BLUE, INK, ORANGE, hide, house_style, legend_above, new_figure, with_unit

_COLUMNS = 3


def trajectories(
    problem: InverseProblem,
    observation: Observation,
    *,
    states: Float[np.ndarray, "time state"],
    cloud: Float[np.ndarray, "particle time state"] | None = None,
    truth: Float[np.ndarray, "time state"] | None = None,
    show: Sequence[str] | None = None,
) -> Figure:
    """Draw the model, solved at an estimate, through the readings it was made from.

    Args:
        problem: The inverse problem, for names, times and units.
        observation: The readings.
        states: Solution at the estimate, at the model's output times.
        cloud: Solutions at samples of the estimate; their central 90 % become a band.
        truth: Solution at the true parameters, where they are known.
        show: Names of the states to draw, all of them by default.

    Returns:
        The figure, a panel for each state.

    Raises:
        ValueError: If `show` names an unknown state, or the observation is a batch.

    Example:
        >>> import inojax.plot
        >>> problem, observation = ij.problems.lotka_volterra(), ij.problems.lynx_hare()
        >>> theta = problem.parameters.from_unit(np.full(6, 0.5))
        >>> states = np.asarray(problem.model.solve(theta).states)
        >>> ij.plot.trajectories(problem, observation, states=states).savefig("trajectories.png")
    """
    chosen = tuple(problem.model.states if show is None else show)
    unknown = [name for name in chosen if name not in problem.model.states]
    if unknown or not chosen:
        raise ValueError(f"`show` must name states of the model; got {list(chosen)}.")
    if np.ndim(observation.times) != 1:
        raise ValueError("`observation` must be a single one, not a batch.")
    columns = min(_COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    with house_style():
        figure = new_figure(3.4 * columns, 2.3 * rows + 0.6)
        panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True)).ravel()
        for axes, name in zip(panels, chosen, strict=False):
            draw_trajectory(axes, problem, observation, name, states, cloud, truth)
        for axes in panels[len(chosen) :]:
            hide(axes)
        for axes in panels[max(0, len(chosen) - columns) : len(chosen)]:
            axes.set_xlabel(with_unit(problem.model.coordinate, problem.model.time_unit))
            axes.tick_params(labelbottom=True)
        legend_above(figure, *legend_entries(panels[: len(chosen)]))
        return figure


def draw_trajectory(
    axes: Axes,
    problem: InverseProblem,
    observation: Observation,
    name: str,
    states: Float[np.ndarray, "time state"],
    cloud: Float[np.ndarray, "particle time state"] | None,
    truth: Float[np.ndarray, "time state"] | None,
) -> None:
    """Draw one state into axes that are already there."""
    model = problem.model
    index = model.states.index(name)
    if cloud is not None:
        ends = np.nanquantile(cloud[:, :, index], [0.05, 0.95], axis=0)
        axes.fill_between(
            model.times, *ends, color=BLUE, alpha=0.22, linewidth=0, label="90 % of the samples"
        )
    if truth is not None:
        axes.plot(model.times, truth[:, index], color=INK, linewidth=1.2, label="truth")
    style = {"color": BLUE, "linewidth": 2.0, "linestyle": (0, (4, 2))}
    axes.plot(model.times, states[:, index], label="solved at the estimate", **style)
    if name in problem.channels and problem.sensors.observable is None:
        channel = problem.channels.index(name)
        seen = np.asarray(observation.mask)[:, channel]
        times = np.asarray(observation.times)[seen]
        values = np.asarray(observation.values)[seen, channel]
        axes.plot(
            times, values, "o", color=ORANGE, markersize=6.5, markeredgecolor="white",
            label="readings", zorder=4, linestyle="none",
        )  # fmt: skip
    axes.set_title(with_unit(name, model.state_unit), loc="left")


def legend_entries(panels: np.ndarray) -> tuple[list[Any], list[str]]:
    """Legend entries of all panels, each once: not every state has readings."""
    found: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    return list(found.values()), list(found.keys())
