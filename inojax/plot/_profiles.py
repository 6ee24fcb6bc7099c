"""Curves over a coordinate: a solution and what stands beside it."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from ._style import COLORS, house_style, legend_above, new_figure

_COLUMNS = 3


def profiles(
    x: Float[np.ndarray, " point"],
    panels: Mapping[str, Mapping[str, Float[np.ndarray, " point"]]],
    *,
    label: str = "x",
    quantity: str = "u",
    dots: Mapping[str, tuple[Float[np.ndarray, " dot"], Float[np.ndarray, " dot"]]] | None = None,
) -> Figure:
    """Show curves in panels: the first of each solid, the others dashed.

    Use it for a solution beside its approximation, or an unknown function beside its estimates.

    Args:
        x: Where the curves are known.
        panels: For each panel, curves by their name.
        label: Label of the horizontal axis.
        quantity: Label of the vertical axis.
        dots: Places and values of readings, by the name of the panel they belong to.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no panel, or a curve has another length than `x`.

    Example:
        >>> import inojax.plot

        >>> x = np.linspace(0.0, 1.0, 50)
        >>> figure = ij.plot.profiles(
        ...     x, {"panel": {"sine": np.sin(x), "cosine": np.cos(x)}}
        ... )
        >>> figure.savefig("profiles.png")
    """
    if not panels:
        raise ValueError("`panels` must hold at least one; got none.")
    for title, curves in panels.items():
        for name, curve in curves.items():
            if np.shape(curve) != np.shape(x):
                raise ValueError(
                    f"`panels` has a curve {name!r} of shape {np.shape(curve)} in {title!r}, but "
                    f"`x` has shape {np.shape(x)}."
                )
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    with house_style():
        figure = new_figure(3.5 * columns + 0.3, 2.8 * rows + 0.5)
        axes = figure.subplots(rows, columns, squeeze=False, sharex=True).ravel()
        for unused in axes[len(panels) :]:
            unused.set_axis_off()
        for panel, (title, curves) in zip(axes, panels.items(), strict=False):
            for number, (name, curve) in enumerate(curves.items()):
                style = "-" if number == 0 else "--"
                panel.plot(x, curve, style, color=COLORS[number % len(COLORS)], label=name)
            if dots and title in dots:
                panel.plot(*dots[title], "o", color="black", markersize=4, label="readings")
            panel.set_title(title)
            panel.set_xlabel(label)
            panel.tick_params(labelbottom=True)
        axes[0].set_ylabel(quantity)
        lines = {line.get_label(): line for panel in axes for line in panel.lines}
        legend_above(figure, list(lines.values()), list(lines))
        return figure
