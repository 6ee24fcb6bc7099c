"""Error against time of solvers."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from ._style import COLORS, MARKERS, house_style, legend_above, new_figure


def work_precision(points: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> Figure:
    """Show what accuracy costs: a panel for each problem, a line for each solver.

    Lower and further left is better.

    Args:
        points: For each problem and solver, pairs of error and milliseconds per trajectory.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no problem.

    Example:
        >>> import inojax.plot

        >>> points = {"problem": {"solver": [(1e-3, 0.1), (1e-5, 0.4)]}}
        >>> ij.plot.work_precision(points).savefig("work_precision.png")
    """
    if not points:
        raise ValueError("`points` must hold at least one problem; got none.")
    names = list(dict.fromkeys(name for series in points.values() for name in series))
    with house_style():
        figure = new_figure(3.7 * len(points) + 0.3, 4.2)
        panels = figure.subplots(1, len(points), squeeze=False)[0]
        for axes, (problem, series) in zip(panels, points.items(), strict=True):
            for name, pairs in series.items():
                number = names.index(name)
                error, time = zip(*pairs, strict=True)
                axes.plot(
                    error, time, marker=MARKERS[number % len(MARKERS)], label=name,
                    color=COLORS[number % len(COLORS)], linestyle="-" if number == 0 else "--",
                )  # fmt: skip
            axes.set_xscale("log")
            axes.set_yscale("log")
            axes.set_title(problem.replace("_", " "))
            axes.set_xlabel("largest relative error")
        panels[0].set_ylabel("time per trajectory [ms]")
        lines = {line.get_label(): line for axes in panels for line in axes.lines}
        legend_above(figure, list(lines.values()), list(lines))
        return figure
