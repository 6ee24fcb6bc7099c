"""Coverage of stated intervals."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..metrics import CoverageCurve
from ._style import COLORS, GRAY, INK, MARKERS, PALE, house_style, new_figure

# Standard errors on either side of the diagonal; about 95 % of calibrated curves stay inside at
# any one level.
_BAND = 2.0


def calibration(curves: Mapping[str, CoverageCurve]) -> Figure:
    """Show how often intervals hold the truth against how often they say they do.

    A calibrated method lies on the diagonal; the band around it is two binomial standard errors
    of the curve with the fewest cases. Of a single curve each parameter is a thin line.

    Args:
        curves: Coverage of each method, by its name.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no curve.

    Example:
        >>> import inojax.plot
        >>> rng = np.random.default_rng(0)
        >>> center = rng.normal(size=(400, 1, 2))  # posteriors N(center, 1) of a flat prior
        >>> samples = center + rng.normal(size=(400, 64, 2))
        >>> truth = (center + rng.normal(size=(400, 1, 2)))[:, 0]
        >>> curve = ij.metrics.coverage_curve(samples, truth)
        >>> ij.plot.calibration({"exact": curve}).savefig("calibration.png")
    """
    if not curves:
        raise ValueError("`curves` must hold at least one coverage curve; got none.")
    with house_style():
        figure = new_figure(4.6, 4.8)
        draw_calibration(figure.add_subplot(), curves)
        return figure


def draw_calibration(axes: Axes, curves: Mapping[str, CoverageCurve]) -> None:
    """Draw the panel of `calibration` into axes that are already there."""
    _draw_diagonal(axes, min(curve.cases for curve in curves.values()))
    for number, (label, curve) in enumerate(curves.items()):
        if len(curves) == 1:
            axes.plot(curve.levels, curve.per_parameter, color=GRAY, linewidth=0.6, alpha=0.6)
        axes.plot(
            curve.levels,
            curve.overall,
            marker=MARKERS[number % len(MARKERS)],
            color=COLORS[number % len(COLORS)],
            markersize=4.5,
            label=label,
        )
    axes.set_xlim(0.0, 1.0)
    axes.set_ylim(0.0, 1.0)
    axes.set_aspect("equal")
    axes.set_xlabel("stated level of the interval")
    axes.set_ylabel("share of intervals that hold the truth")
    axes.legend(loc="lower left", ncols=2, bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2)


def _draw_diagonal(axes: Axes, cases: int) -> None:
    level = np.linspace(0.0, 1.0, 101)
    half = _BAND * np.sqrt(level * (1.0 - level) / cases)
    axes.fill_between(
        level, level - half, level + half, color=PALE, linewidth=0, label="chance, ±2 SE"
    )
    axes.plot(level, level, color=INK, linewidth=0.8)
    place = {"color": GRAY, "fontsize": 9.5, "transform": axes.transAxes}
    axes.text(0.04, 0.95, "too wide", ha="left", va="top", **place)
    axes.text(0.96, 0.05, "too narrow", ha="right", va="bottom", **place)
