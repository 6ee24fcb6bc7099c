"""What a posterior predicts, through the readings it was made from."""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .._inverse_problem import InverseProblem
from .._observation import Observation
from ._style import BLUE, INK, ORANGE, house_style, legend_above, new_figure, with_unit
from ._trajectories import legend_entries

_COLUMNS = 3
_BANDS = ((0.9, 0.16), (0.5, 0.28))  # level and opacity; the wider one comes first
_LINES = ("-", "--", ":")


def predictive(
    problem: InverseProblem,
    observation: Observation,
    *,
    times: Float[np.ndarray, " time"],
    samples: Float[np.ndarray, "sample time channel"],
    curves: Mapping[str, Float[np.ndarray, "time channel"]] | None = None,
    time_zero: float = 0.0,
    reading_unit: str | None = None,
) -> Figure:
    """Draw the bands that should hold half and nine tenths of the readings, and the readings.

    Use it to check a model against measured data: readings outside of the bands, or all on one
    side for a while, are what the model does not explain. Unlike `trajectories` it shows what is
    read, noise included, so it also serves problems with an observable.

    Args:
        problem: The inverse problem, for names and units.
        observation: The readings.
        times: Times of the predictions, increasing.
        samples: Readings with noise, predicted at samples of the posterior.
        curves: Noise-free readings to draw as lines, by their label: a best fit, say.
        time_zero: What time 0 is called on the axis, the year it stands for, say.
        reading_unit: Unit of the readings, that of the states by default.

    Returns:
        The figure, a panel for each channel.

    Raises:
        ValueError: If a shape disagrees with `times` and the channels, or the observation is a
            batch.

    Example:
        >>> import inojax.plot

        >>> problem, observation = ij.problems.lotka_volterra(), ij.problems.lynx_hare()
        >>> times = np.linspace(0.0, 20.0, 41)
        >>> readings = np.random.default_rng(0).lognormal(3.0, 0.5, size=(100, 41, 2))
        >>> figure = ij.plot.predictive(problem, observation, times=times, samples=readings)
        >>> figure.savefig("predictive.png")
    """
    curves = {} if curves is None else curves
    shape = (len(times), len(problem.channels))
    for name, array in {"samples": samples, **curves}.items():
        if np.shape(array)[-2:] != shape or np.ndim(array) != (3 if name == "samples" else 2):
            raise ValueError(
                f"`{name}` must hold a value for each of {shape[0]} times and {shape[1]} channels; "
                f"got shape {np.shape(array)}."
            )
    if np.ndim(observation.times) != 1:
        raise ValueError("`observation` must be a single one, not a batch.")
    unit = problem.model.state_unit if reading_unit is None else reading_unit
    shown = np.asarray(times) + time_zero
    columns = min(_COLUMNS, shape[1])
    rows = -(-shape[1] // columns)
    with house_style():
        figure = new_figure(3.9 * columns, 2.9 * rows + 0.5)
        panels = np.atleast_1d(figure.subplots(rows, columns, sharex=True)).ravel()
        for axes, channel in zip(panels, range(shape[1]), strict=False):
            _bands(axes, shown, samples[:, :, channel])
            lines = [curve[:, channel] for curve in curves.values()]
            _curves(axes, shown, lines, list(curves))
            _readings(axes, observation, channel, time_zero)
            axes.set_title(with_unit(problem.channels[channel], unit), loc="left")
            axes.set_xlabel(with_unit(problem.model.coordinate, problem.model.time_unit))
            axes.tick_params(labelbottom=True)
            axes.margins(x=0.02)
        for axes in panels[shape[1] :]:
            axes.set_axis_off()
        legend_above(figure, *legend_entries(panels[: shape[1]]), most=3)
        return figure


def _bands(axes: Axes, times: np.ndarray, samples: np.ndarray) -> None:
    for level, opacity in _BANDS:
        ends = np.nanquantile(samples, [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0)
        label = f"{100 * level:.0f} % of predicted readings"
        axes.fill_between(times, *ends, color=BLUE, alpha=opacity, linewidth=0, label=label)


def _curves(
    axes: Axes, times: np.ndarray, curves: Sequence[np.ndarray], labels: Sequence[str]
) -> None:
    for number, (curve, label) in enumerate(zip(curves, labels, strict=True)):
        style = _LINES[number % len(_LINES)]
        color = BLUE if number == 0 else INK
        axes.plot(times, curve, style, color=color, linewidth=1.7, label=label)


def _readings(axes: Axes, observation: Observation, channel: int, time_zero: float) -> None:
    seen = np.asarray(observation.mask)[:, channel]
    times = np.asarray(observation.times)[seen] + time_zero
    values = np.asarray(observation.values)[seen, channel]
    axes.plot(
        times, values, "o", color=ORANGE, markersize=6.0, markeredgecolor="white",
        label="readings", zorder=4, linestyle="none",
    )  # fmt: skip
