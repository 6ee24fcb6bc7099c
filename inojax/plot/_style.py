"""The look of all figures, in one place."""

import contextlib
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, which color-blind readers tell apart.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
COLORS = (BLUE, ORANGE, GREEN, PINK, "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "D", "^", "s", "v", "P", "X")
INK, GRAY, PALE = "#222222", "#8A8A8A", "#D9D9D9"

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
    """Draw in the house style, and leave the caller's own settings as they were."""
    with mpl.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of a size in inches that belongs to no window and no global state."""
    return Figure(figsize=(width, height), layout="constrained")


def with_unit(name: str, unit: str) -> str:
    """An axis label: the name, and the unit in brackets where there is one."""
    return f"{name} [{unit}]" if unit else name


def hide(axes: Axes) -> None:
    """Leave an unused panel empty."""
    axes.set_axis_off()
