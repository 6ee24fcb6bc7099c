"""One figure that tells the whole story."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from .._inverse_problem import InverseProblem
from .._observation import Observation
from ._errors import draw_parameter_errors
from ._style import house_style, legend_above, new_figure, with_unit
from ._trajectories import draw_trajectory, legend_entries


def overview(
    problem: InverseProblem,
    observation: Observation,
    *,
    states: Float[np.ndarray, "time state"],
    cloud: Float[np.ndarray, "particle time state"] | None,
    truth: Float[np.ndarray, "time state"] | None,
    show: Sequence[str],
    errors: Mapping[str, Float[np.ndarray, " parameter"]],
    floor: Float[np.ndarray, " parameter"],
) -> Figure:
    """Put one case's trajectories above the errors of all parameters over many cases.

    Args:
        problem: The inverse problem.
        observation: Readings of the case.
        states: Solution at the estimate.
        cloud: Solutions at samples of the estimate, or None.
        truth: Solution at the true parameters, or None.
        show: Names of the states to draw, in one row.
        errors: Mean squared error of each parameter, for each method, as `parameter_errors`.
        floor: Bayes floor of each parameter.

    Returns:
        The figure.

    Example:
        >>> import inojax.plot
        >>> problem, observation = ij.problems.lotka_volterra(), ij.problems.lynx_hare()
        >>> theta = problem.parameters.from_unit(np.full(6, 0.5))
        >>> states = np.asarray(problem.model.solve(theta).states)
        >>> figure = ij.plot.overview(
        ...     problem, observation, states=states, cloud=None, truth=None, show=("hare", "lynx"),
        ...     errors={"guess": np.full(6, 0.1)}, floor=np.full(6, 0.05),
        ... )
        >>> figure.savefig("overview.png")
    """
    with house_style():
        figure = new_figure(11.0, 6.4)
        halves: Any = figure.subfigures(2, 1, height_ratios=[1.0, 1.35])
        above, below = halves
        panels = np.atleast_1d(above.subplots(1, len(show)))
        for axes, name in zip(panels, show, strict=True):
            draw_trajectory(axes, problem, observation, name, states, cloud, truth)
            axes.set_xlabel(with_unit(problem.model.coordinate, problem.model.time_unit))
        legend_above(above, *legend_entries(panels))
        draw_parameter_errors(below.subplots(), problem.parameters.names, errors, floor)
        return figure
