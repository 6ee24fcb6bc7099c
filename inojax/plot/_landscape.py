"""What a search has to find its way in: the misfit over two parameters."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ._style import COLORS, INK, MARKERS, PALE, house_style, legend_above, new_figure

_LEVELS = 24


def landscape(
    names: tuple[str, str],
    grid: tuple[Float[np.ndarray, " column"], Float[np.ndarray, " row"]],
    misfit: Float[np.ndarray, "row column"],
    *,
    points: Mapping[str, Float[np.ndarray, "point 2"]] | None = None,
    paths: Float[np.ndarray, "path step 2"] | None = None,
) -> Figure:
    """Show a misfit over two parameters, with points of interest and searches that crossed it.

    Colors are the logarithm of the misfit above its least value, so that small hollows show next
    to high walls. Where the model could not be solved nothing is drawn.

    Args:
        names: Labels of the horizontal and the vertical axis.
        grid: Values of the two parameters, increasing.
        misfit: The misfit in any unit, NaN where there is none.
        points: Marked points, by their name.
        paths: Points of each search, joined by a thin line.

    Returns:
        The figure.

    Raises:
        ValueError: If shapes disagree, or no misfit is finite.

    Example:
        >>> import inojax.plot

        >>> a, b = np.linspace(-1.0, 1.0, 20), np.linspace(-2.0, 2.0, 30)
        >>> misfit = a[None, :] ** 2 + b[:, None] ** 2
        >>> ij.plot.landscape(("a", "b"), (a, b), misfit).savefig("landscape.png")
    """
    shape = len(grid[1]), len(grid[0])
    if np.shape(misfit) != shape:
        raise ValueError(
            f"`misfit` must have shape (row, column) = {shape}, as `grid` says; "
            f"got {np.shape(misfit)}."
        )
    finite = np.isfinite(misfit)
    if not finite.any():
        raise ValueError("`misfit` must have finite values; there is none.")
    for name, found in (points or {}).items():
        if np.ndim(found) != 2 or np.shape(found)[1] != 2:
            raise ValueError(
                f"`points` of {name!r} must have shape (point, 2); got {np.shape(found)}."
            )
    above = np.where(finite, misfit - misfit[finite].min(), np.nan)
    with house_style():
        figure = new_figure(6.4, 5.2)
        axes = figure.add_subplot()
        filled = axes.contourf(*grid, np.log10(1.0 + above), levels=_LEVELS, cmap="viridis")
        bar = figure.colorbar(filled, ax=axes)
        bar.set_label("log₁₀(1 + misfit above the least)")
        for path in () if paths is None else paths:
            axes.plot(path[:, 0], path[:, 1], color=PALE, linewidth=0.7, alpha=0.8)
        for number, (name, found) in enumerate((points or {}).items()):
            axes.plot(
                found[:, 0],
                found[:, 1],
                MARKERS[number % len(MARKERS)],
                color=COLORS[(number + 1) % len(COLORS)],
                markeredgecolor=INK,
                markersize=7,
                label=name,
            )
        axes.set_xlim(grid[0][0], grid[0][-1])
        axes.set_ylim(grid[1][0], grid[1][-1])
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
        axes.grid(visible=False)
        if points:
            legend_above(figure, *axes.get_legend_handles_labels())
        return figure
