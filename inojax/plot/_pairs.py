"""Samples of a posterior, parameter by parameter and pair by pair."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from .._inverse_problem import InverseProblem
from .._parameters import Parameter
from ._style import BLUE, COLORS, GRAY, INK, MARKERS, hide, house_style
from ._trajectories import legend_entries

_BINS = 30
_SHOWN = 1500  # points in a panel; more would hide each other
_PANEL, _LEFT, _RIGHT = 1.3, 0.9, 0.15  # inches
_GAP = 0.12  # between panels, as a share of one
_LABEL = 16  # characters in a line


def pairs(
    problem: InverseProblem,
    samples: Float[np.ndarray, "sample parameter"],
    *,
    marks: Mapping[str, Float[np.ndarray, " parameter"]] | None = None,
) -> Figure:
    """Draw the marginals of a posterior over its priors, and below them every pair.

    Use it to see which parameters the readings determine, and which only together: a marginal
    that follows its prior has learned nothing, and a narrow slanted cloud is a valley. Parameters
    with a log-uniform prior have logarithmic axes.

    Args:
        problem: The inverse problem, for names, units and priors.
        samples: Samples of the posterior, in physical units.
        marks: Points to compare with, by their label: a best fit or published values, say.

    Returns:
        The figure.

    Raises:
        ValueError: If a shape disagrees with the parameters, or there are fewer than two samples.

    Example:
        >>> import inojax.plot

        >>> problem = ij.problems.robertson()
        >>> samples = np.asarray(problem.parameters.sample(200, key=jr.key(0)))
        >>> ij.plot.pairs(problem, samples).savefig("pairs.png")
    """
    size, points = problem.parameters.size, {} if marks is None else dict(marks)
    if np.ndim(samples) != 2 or np.shape(samples)[1] != size or len(samples) < 2:
        raise ValueError(
            f"`samples` must be at least two rows of {size} parameters; got shape "
            f"{np.shape(samples)}."
        )
    for label, point in points.items():
        if np.shape(point) != (size,):
            raise ValueError(
                f"`marks` must hold {size} parameters each; {label!r} has shape {np.shape(point)}."
            )
    scales = [_Scale(parameter) for parameter in problem.parameters.parameters]
    moved = _moved(scales, np.asarray(samples))
    places = {label: _moved(scales, np.asarray(point)) for label, point in points.items()}
    with house_style():
        inches = _PANEL * size + _LEFT + _RIGHT
        # Placed by hand: a layout that measures every label takes seconds for so many panels.
        figure = Figure(figsize=(inches, inches))
        ends = _LEFT / inches, 1.0 - _RIGHT / inches
        figure.subplots_adjust(ends[0], ends[0], ends[1], ends[1], wspace=_GAP, hspace=_GAP)
        panels: Any = figure.subplots(size, size, squeeze=False, sharex="col")
        for row, column in np.ndindex(size, size):
            if column > row:
                hide(panels[row, column])
            else:
                _panel(panels[row, column], scales, moved, places, (row, column))
        handles, labels = legend_entries(panels[np.tril_indices(size)])
        figure.legend(handles, labels, loc="upper right", bbox_to_anchor=(0.98, 0.97))
        return figure


def _panel(
    axes: Axes,
    scales: list["_Scale"],
    moved: np.ndarray,
    places: Mapping[str, np.ndarray],
    place: tuple[int, int],
) -> None:
    row, column = place
    if column == row:
        _marginal(axes, scales[row], moved[:, row])
    else:
        _pair(axes, moved[:, column], moved[:, row])
    for number, (label, point) in enumerate(places.items()):
        _mark(axes, label, number, (point[column],) if row == column else point[[column, row]])
    axes.set_xlim(*_limits(moved[:, column]))
    _label(axes, scales, row, column)


class _Scale:
    """How one parameter is drawn: as it is, or by its decimal logarithm."""

    def __init__(self, parameter: Parameter) -> None:
        self.prior: Any = parameter.prior
        self.log = isinstance(parameter.prior, dist.LogUniform)
        name = f"log10\n{parameter.name}" if self.log else parameter.name
        unit = f"[{parameter.unit}]" if parameter.unit else ""
        self.label = f"{name}\n{_wrapped(unit)}" if unit else name

    def move(self, values: np.ndarray) -> np.ndarray:
        """Physical values to what is drawn."""
        return np.asarray(np.log10(values) if self.log else values)

    def density(self, drawn: np.ndarray) -> np.ndarray:
        """Density of the prior over what is drawn."""
        with jax.enable_x64(True):
            values = 10.0**drawn if self.log else drawn
            density = np.exp(np.asarray(self.prior.log_prob(values)))
        inside = np.asarray(self.prior.support(values))
        density = np.where(inside, density, 0.0)
        return density * values * np.log(10.0) if self.log else density


def _wrapped(unit: str) -> str:
    """A long unit over two lines."""
    place = unit.find(" ", len(unit) // 3)
    return unit if len(unit) <= _LABEL or place < 0 else f"{unit[:place]}\n{unit[place + 1 :]}"


def _moved(scales: list[_Scale], values: np.ndarray) -> np.ndarray:
    columns = [scale.move(values[..., index]) for index, scale in enumerate(scales)]
    return np.stack(columns, axis=-1)


def _limits(column: np.ndarray) -> tuple[float, float]:
    """All but the farthest thousandths, with some room."""
    low, high = np.quantile(column, [0.001, 0.999])
    room = 0.08 * (high - low) or 1.0
    return float(low - room), float(high + room)


def _marginal(axes: Axes, scale: _Scale, column: np.ndarray) -> None:
    low, high = _limits(column)
    bins = np.linspace(low, high, _BINS + 1).tolist()
    axes.hist(column, bins, density=True, color=BLUE, alpha=0.55, label="posterior")
    grid = np.linspace(low, high, 200)
    axes.plot(grid, scale.density(grid), color=GRAY, linewidth=1.4, label="prior")
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(bottom=0.0)


def _pair(axes: Axes, x: np.ndarray, y: np.ndarray) -> None:
    some = np.linspace(0, len(x) - 1, min(len(x), _SHOWN)).astype(int)
    axes.plot(
        x[some], y[some], "o", color=BLUE, markersize=2.2, alpha=0.22, markeredgewidth=0,
        rasterized=True,
    )  # fmt: skip
    axes.set_ylim(*_limits(y))


def _mark(axes: Axes, label: str, number: int, place: Sequence[float] | np.ndarray) -> None:
    color = (*COLORS[1:], INK)[number % len(COLORS)]
    if len(place) == 1:
        axes.axvline(place[0], color=color, linewidth=1.2)
        return
    marker = MARKERS[(number + 1) % len(MARKERS)]
    axes.plot(
        *place, marker, color=color, label=label, linestyle="none", zorder=4, markersize=5.0,
        markeredgecolor="white", markeredgewidth=0.5,
    )  # fmt: skip


def _label(axes: Axes, scales: list[_Scale], row: int, column: int) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(4, prune="both"))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))
    axes.tick_params(labelsize=7.5, labelbottom=row == len(scales) - 1)
    if row != column:
        axes.yaxis.set_major_locator(MaxNLocator(4, prune="both"))
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))
    if column > 0:
        axes.tick_params(labelleft=False)
    elif row > 0:
        axes.set_ylabel(scales[row].label, fontsize=8.5)
    if row == len(scales) - 1:
        axes.set_xlabel(scales[column].label, fontsize=8.5)
