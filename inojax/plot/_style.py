"""The look of all figures, in one place."""

import contextlib
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.legend import Legend

# Okabe and Ito's palette, which color-blind readers tell apart.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
COLORS = (BLUE, ORANGE, GREEN, PINK, "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "D", "^", "s", "v", "P", "X")
INK, GRAY, PALE = "#222222", "#8A8A8A", "#D9D9D9"
# Height of a legend of one row, in inches.
_ROW = 0.35

_STYLE: Any = {
    "font.size": 11,
    "axes.titlesize": 11,
    "axes.labelsize": 11,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "legend.fontsize": 10,
    "figure.titlesize": 12.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-2, 4),
    "axes.formatter.use_mathtext": True,
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ECECEC",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "figure.dpi": 150,
    "savefig.dpi": 150,
    "savefig.facecolor": "white",
}


@contextlib.contextmanager
def house_style() -> Iterator[None]:
    """Draw in the house style, and leave the caller's own settings as they were.

    Example:
        >>> import inojax.plot

        >>> with ij.plot.house_style():
        ...     figure = ij.plot.new_figure(4.0, 3.0)
    """
    with mpl.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of a size in inches that belongs to no window and no global state.

    Example:
        >>> import inojax.plot

        >>> with ij.plot.house_style():
        ...     figure = ij.plot.new_figure(4.0, 3.0)
        >>> figure.get_size_inches().tolist()
        [4.0, 3.0]
    """
    return Figure(figsize=(width, height), layout="constrained")


def with_unit(name: str, unit: str) -> str:
    """An axis label: the name, and the unit in brackets where there is one."""
    return f"{name} [{unit}]" if unit else name


def hide(axes: Axes) -> None:
    """Leave an unused panel empty."""
    axes.set_axis_off()


def legend_above(
    figure: Figure | SubFigure, handles: Sequence[Any], labels: Sequence[str], most: int = 4
) -> None:
    """Put a legend above all panels, whole: in as many columns as fit, and long names wrapped.

    The figure grows by the rows behind the first, so that they take nothing from the panels.

    Args:
        figure: The figure, or a part of one, which does not grow.
        handles: What is drawn.
        labels: Its names.
        most: Most columns.
    """
    names = list(labels)
    for columns in range(min(most, len(names)), 0, -1):
        legend = _legend(figure, handles, names, columns)
        if legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
    else:
        longest = max(map(len, names))
        room = figure.bbox.width / _legend_width(figure, handles, names)
        names = [textwrap.fill(name, max(8, int(0.85 * room * longest))) for name in names]
        legend = _legend(figure, handles, names, 1)
    if isinstance(figure, Figure):
        inches = (legend.get_window_extent().height - _ROW * figure.dpi) / figure.dpi
        width, height = figure.get_size_inches()
        figure.set_size_inches(width, height + max(0.0, inches))


def _legend(
    figure: Figure | SubFigure, handles: Sequence[Any], labels: list[str], columns: int
) -> Legend:
    return figure.legend(list(handles), labels, loc="outside upper center", ncols=columns)


def _legend_width(figure: Figure | SubFigure, handles: Sequence[Any], labels: list[str]) -> float:
    legend = _legend(figure, handles, labels, 1)
    width = legend.get_window_extent().width
    legend.remove()
    return width


def label_bottoms(panels: Any, count: int) -> None:
    """Keep the tick labels of an axis that panels share where no other panel stands below.

    Args:
        panels: All panels, by rows and columns.
        count: How many of them, in reading order, are drawn.
    """
    columns = panels.shape[1]
    for axes in panels.ravel()[max(0, count - columns) : count]:
        axes.tick_params(labelbottom=True)
