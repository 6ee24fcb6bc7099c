"""Error of each parameter beside its limit."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .._parameters import UNIT_PRECISION
from ._style import COLORS, GRAY, MARKERS, PALE, house_style, new_figure


def parameter_errors(
    names: tuple[str, ...],
    errors: Mapping[str, Float[np.ndarray, " parameter"]],
    floor: Float[np.ndarray, " parameter"],
) -> Figure:
    """Compare methods parameter by parameter, in order of what the readings can settle.

    Roots are drawn, so that heights are typical errors in unit coordinates.

    Args:
        names: Name of each parameter.
        errors: Mean squared error of each parameter in unit coordinates, for each method.
        floor: Bayes floor of each parameter, the same unit.

    Returns:
        The figure.

    Raises:
        ValueError: If a length differs from the number of names.

    Example:
        >>> import inojax.plot

        >>> errors = {"least squares": np.array([0.02, 0.05])}
        >>> figure = ij.plot.parameter_errors(
        ...     ("a", "b"), errors, np.array([0.01, 0.04])
        ... )
        >>> figure.savefig("errors.png")
    """
    with house_style():
        figure = new_figure(10.5, 4.2)
        draw_parameter_errors(figure.add_subplot(), names, errors, floor)
        return figure


def draw_parameter_errors(
    axes: Axes,
    names: tuple[str, ...],
    errors: Mapping[str, Float[np.ndarray, " parameter"]],
    floor: Float[np.ndarray, " parameter"],
) -> None:
    """Draw the panel of `parameter_errors` into axes that are already there."""
    for label, values in {**errors, "floor": floor}.items():
        if np.shape(values) != (len(names),):
            raise ValueError(
                f"`{label}` must have one value for each of {len(names)} parameters; got shape "
                f"{np.shape(values)}."
            )
    order = np.argsort(floor)
    place = np.arange(len(names))
    axes.bar(place, np.sqrt(floor[order]), color=PALE, width=0.8, label="Bayes floor")
    axes.axhline(np.sqrt(1.0 / UNIT_PRECISION), color=GRAY, linestyle="--", label="prior mean")
    shift = 0.3 * (np.arange(len(errors)) - (len(errors) - 1) / 2.0)
    for number, (label, values) in enumerate(errors.items()):
        axes.plot(
            place + shift[number],
            np.sqrt(values[order]),
            MARKERS[number % len(MARKERS)],
            color=COLORS[number % len(COLORS)],
            markersize=5.5,
            label=label,
        )
    axes.set_xticks(place, [names[i] for i in order], rotation=90)
    axes.set_xlim(-0.7, len(names) - 0.3)
    highest = max(1.0 / UNIT_PRECISION, *(float(np.max(values)) for values in errors.values()))
    axes.set_ylim(0.0, 1.05 * np.sqrt(highest))
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("RMS error (unit coordinate)")
    axes.set_xlabel("parameter, best determined first")
    axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2)
