"""Training losses."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from ..train import TrainLog
from ._style import BLUE, ORANGE, house_style, new_figure


def losses(logs: Mapping[str, TrainLog]) -> Figure:
    """Show how training went, a panel for each network.

    Args:
        logs: Log of each network, by its name.

    Returns:
        The figure.

    Raises:
        ValueError: If there is no log.

    Example:
        >>> import inojax.plot
        >>> problem = ij.problems.robertson()
        >>> dataset = ij.simulate(problem, 64, key=jr.key(0), progress=False)
        >>> inverter = ij.methods.Regression(steps=10).fit(
        ...     problem, dataset, key=jr.key(1), progress=False
        ... )
        >>> ij.plot.losses({"regression": inverter.logs[0]}).savefig("losses.png")
    """
    if not logs:
        raise ValueError("`logs` must hold at least one training log; got none.")
    with house_style():
        figure = new_figure(3.7 * len(logs) + 0.3, 3.4)
        panels = np.atleast_1d(figure.subplots(1, len(logs)))
        for axes, (name, log) in zip(panels, logs.items(), strict=True):
            axes.plot(log.steps, log.loss, "-", color=BLUE, label="training loss")
            if np.isfinite(log.held_out).any():
                axes.plot(log.steps, log.held_out, "--", color=ORANGE, label="held-out error")
            # Losses that hold a log likelihood can be negative, and a logarithm would hide them.
            if np.nanmin([log.loss, log.held_out]) > 0.0:
                axes.set_yscale("log")
            axes.set_title(name)
            axes.set_xlabel("optimizer steps")
            axes.legend()
        panels[0].set_ylabel("loss")
        return figure
