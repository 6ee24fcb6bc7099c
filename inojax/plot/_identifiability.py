"""What the readings of a problem can and cannot see."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .._parameters import UNIT_PRECISION
from ..metrics import IdentifiabilityCard
from ._style import BLUE, GRAY, INK, ORANGE, PALE, house_style, new_figure

# Directions in the map of loadings.
_SHOWN = 5


def identifiability(card: IdentifiabilityCard) -> Figure:
    """Show what is expected of each parameter, of each direction, and of the sloppiest ones.

    On the left the expected posterior of each parameter beside its prior, on the right the
    spectrum of the averaged information beside the prior's precision, and below the parameters
    that the sloppiest directions move.

    Args:
        card: What `metrics.identifiability` returns.

    Returns:
        The figure.

    Raises:
        TypeError: If `card` is no card.

    Example:
        >>> import inojax.plot

        >>> card = ij.metrics.identifiability(ij.problems.robertson(), cases=16, key=jr.key(0))
        >>> ij.plot.identifiability(card).savefig("identifiability.png")
    """
    if not isinstance(card, IdentifiabilityCard):
        raise TypeError(
            "`card` must be an `IdentifiabilityCard`, from `metrics.identifiability(problem, "
            f"key=key)`; got {type(card).__name__}."
        )
    with house_style():
        rows = min(_SHOWN, len(card.names))
        figure = new_figure(max(8.5, 0.34 * len(card.names) + 2.5), 4.2 + 0.36 * rows)
        grid = figure.add_gridspec(
            2, 2, width_ratios=[1.7, 1.0], height_ratios=[3.0, 0.36 * rows + 0.4]
        )
        order = np.argsort(card.posterior_std, kind="stable")
        _draw_parameters(figure.add_subplot(grid[0, 0]), card, order)
        _draw_spectrum(figure.add_subplot(grid[0, 1]), card)
        _draw_loadings(figure.add_subplot(grid[1, :]), card, order, rows)
        return figure


def _draw_parameters(axes: Axes, card: IdentifiabilityCard, order: np.ndarray) -> None:
    place = np.arange(len(card.names))
    ratio = np.sqrt(UNIT_PRECISION) * card.posterior_std[order]
    axes.bar(place, np.ones(len(place)), color=PALE, width=0.8, label="prior")
    axes.bar(place, ratio, color=BLUE, width=0.55, label="expected posterior")
    axes.set_xticks(place, [card.names[i] for i in order], rotation=90)
    axes.set_xlim(-0.7, len(place) - 0.3)
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("parameter, best determined first")
    axes.set_ylabel("standard deviation / prior's")
    axes.legend(ncols=2, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2)


def _draw_spectrum(axes: Axes, card: IdentifiabilityCard) -> None:
    values = card.eigenvalues[::-1]
    place = np.arange(1, len(values) + 1)
    # Below this an eigenvalue is rounding error, of either sign.
    least = len(values) * np.finfo(np.float64).eps * values[0]
    seen = values > UNIT_PRECISION
    shown = np.maximum(values, least if least > 0.0 else 1.0)
    axes.plot(place[seen], shown[seen], "o", color=BLUE, markersize=5, label="above the prior's")
    axes.plot(place[~seen], shown[~seen], "o", color=ORANGE, markersize=5, label="below")
    axes.axhline(UNIT_PRECISION, color=GRAY, linestyle="--")
    axes.annotate(
        "prior's precision 12", (1, UNIT_PRECISION), (2, 3), color=GRAY, fontsize=9.5,
        textcoords="offset points",
    )  # fmt: skip
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("direction")
    axes.set_ylabel("averaged information")
    axes.legend(
        ncols=2, loc="lower left", bbox_to_anchor=(-0.12, 1.0), borderaxespad=0.2,
        handletextpad=0.2, columnspacing=1.0,
    )  # fmt: skip


def _draw_loadings(axes: Axes, card: IdentifiabilityCard, order: np.ndarray, rows: int) -> None:
    loadings = card.directions[:rows, order]
    # Signs mean nothing; the largest loading of each direction is drawn positive.
    largest = np.take_along_axis(loadings, np.abs(loadings).argmax(1)[:, None], axis=1)
    image = axes.imshow(
        loadings * np.sign(largest), cmap="RdBu_r", vmin=-1.0, vmax=1.0, aspect="auto"
    )
    axes.set_xticks(np.arange(len(order)), [card.names[i] for i in order], rotation=90)
    widths = [f"{100.0 * spread:.3g} %" for spread in card.direction_spread[:rows]]
    axes.set_yticks(np.arange(rows), widths)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.set_ylabel("posterior /\nprior width")
    title = "sloppiest directions, in logarithms" if card.logarithmic else "sloppiest directions"
    axes.set_title(title, color=INK, loc="left")
    bar = axes.get_figure().colorbar(image, ax=axes, pad=0.01, label="loading")  # type: ignore
    bar.outline.set_visible(False)  # type: ignore
