"""Recovered against true parameters."""

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._style import BLUE, GRAY, INK, hide, house_style, label_bottoms, new_figure

_COLUMNS = 5
_BARS = 40  # cases whose interval is drawn; more would hide each other


def recovery(
    names: tuple[str, ...],
    truth: Float[np.ndarray, "case parameter"],
    estimate: Float[np.ndarray, "case parameter"],
    *,
    lower: Float[np.ndarray, "case parameter"],
    upper: Float[np.ndarray, "case parameter"],
    floor: Float[np.ndarray, " parameter"],
) -> Figure:
    """Show every parameter of many cases, true against recovered, in unit coordinates.

    Panels are ordered by what the readings can settle, and each says how its error compares
    with its limit. Vertical lines are intervals of some of the cases.

    Args:
        names: Name of each parameter.
        truth: True values.
        estimate: Recovered values.
        lower: Lower end of the interval of each.
        upper: Upper end.
        floor: Bayes floor of each parameter.

    Returns:
        The figure.

    Raises:
        ValueError: If the shapes disagree.

    Example:
        >>> import inojax.plot

        >>> truth = np.random.default_rng(0).uniform(size=(50, 2))
        >>> figure = ij.plot.recovery(
        ...     ("a", "b"), truth, truth + 0.02, lower=truth - 0.1, upper=truth + 0.1,
        ...     floor=np.full(2, 0.01)
        ... )
        >>> figure.savefig("recovery.png")
    """
    shapes = {np.shape(x) for x in (truth, estimate, lower, upper)}
    if len(shapes) > 1 or np.shape(floor) != np.shape(truth)[-1:] or len(names) != len(floor):
        raise ValueError(
            "`truth`, `estimate`, `lower` and `upper` must have one shape (case, parameter), and "
            f"`floor` and `names` one entry for each parameter; got {sorted(shapes)}, "
            f"{np.shape(floor)} and {len(names)} names."
        )
    rows = -(-len(names) // _COLUMNS)
    with house_style():
        figure = new_figure(10.0, 2.0 * rows + 0.6)
        panels = np.atleast_2d(figure.subplots(rows, _COLUMNS, sharex=True, sharey=True))
        for axes, index in zip(panels.flat, np.argsort(floor), strict=False):
            ends = lower[:, index], upper[:, index]
            _panel(axes, truth[:, index], estimate[:, index], ends)
            error = np.sqrt(np.mean(np.square(estimate[:, index] - truth[:, index])))
            axes.set_title(
                f"{names[index]}: {error:.2g} (floor {np.sqrt(floor[index]):.2g})", fontsize=10
            )
        for axes in panels.flat[len(names) :]:
            hide(axes)
        label_bottoms(panels, len(names))
        figure.supxlabel("true value (unit coordinate)")
        figure.supylabel("recovered value (unit coordinate)")
        figure.suptitle("True against recovered, with 90 % intervals; in titles the RMS error")
        return figure


def _panel(
    axes: Axes, truth: np.ndarray, estimate: np.ndarray, ends: tuple[np.ndarray, np.ndarray]
) -> None:
    axes.plot([0.0, 1.0], [0.0, 1.0], color=INK, linewidth=0.8, zorder=3)
    low, high = (x[:_BARS] for x in ends)
    axes.vlines(truth[:_BARS], low, high, color=GRAY, linewidth=0.7, alpha=0.6)
    shown = min(1.0, 12.0 / np.sqrt(len(truth)))
    axes.plot(truth, estimate, "o", color=BLUE, markersize=2.6, alpha=shown, markeredgewidth=0)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    axes.set_xticks([0.0, 0.5, 1.0], ["0", "0.5", "1"])
    axes.set_yticks([0.0, 0.5, 1.0], ["0", "0.5", "1"])
