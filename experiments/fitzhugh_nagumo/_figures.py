"""Figures of the tables of inverse maps: medians over seeds, bars from the least to the most."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.common.evaluation import Row
from experiments.fitzhugh_nagumo._tables import kind_of
from inojax.plot import house_style, new_figure

# Colors "C0", "C1", ... are those of the house style, in its order.
MARKERS = ("o", "D", "^", "s", "v", "P", "X")
INK, GRAY = "black", "gray"
NAMES = ("θ₀", "θ₁", "σ", "ρ")


def draw_tables(out: Path, rows: Sequence[Row]) -> None:
    """Save a figure for each table that has rows."""
    drawings = {
        "accuracy": (_accuracy, ("a",)),
        "sensitivity": (_sensitivity, ("b",)),
        "series": (_series, ("c",)),
        "joint": (_joint, ("d",)),
        "covariances": (_covariances, ("e",)),
        "widths": (_widths, ("f",)),
        "searches": (_searches, ("g",)),
        "limits": (_limits, ("h",)),
    }
    for name, (draw, letters) in drawings.items():
        mine = [row for row in rows if row["table"] in letters]
        if mine:
            with house_style():
                draw(mine).savefig(out / f"{name}.png")


def _over_seeds(
    axes: Axes,
    places: Sequence[Any] | np.ndarray,
    rows: Sequence[Row],
    key: str,
    read: Callable[[Any], float] = float,
    **style: Any,
) -> None:
    """A point for each row, `read` of what it has under `key`, with its range over seeds."""
    values = np.array([read(row[key]) for row in rows])
    ends = [[read(end) for end in row.get(f"{key}_range", (row[key],) * 2)] for row in rows]
    axes.errorbar(places, values, np.abs(np.array(ends) - values[:, None]).T, **style)


def _kind(row: Row) -> str:
    return kind_of(row) if row["train_noise"] else ""


def _missing(r2: float) -> float:
    return max(1.0 - r2, 1e-6)


def _accuracy(rows: Sequence[Row]) -> Figure:
    figure = new_figure(7.5, 3.6)
    axes: Axes = figure.add_subplot()
    labels = [f"{r['method']}\n{_kind(r)}" for r in rows]
    for index in range(len(rows[0]["r2"])):
        style = {"fmt": MARKERS[index], "color": f"C{index}", "label": f"θ{'₀₁'[index]}"}
        _over_seeds(axes, labels, rows, "r2", lambda r2, at=index: _missing(r2[at]), **style)
    _floor(axes, rows)
    axes.set_yscale("log")
    axes.set_ylabel("1 − R²")
    axes.set_title("Accuracy: share of the prior's variance that is left")
    axes.legend()
    return figure


def _floor(axes: Axes, rows: Sequence[Row]) -> None:
    floors = [r["floor_r2"] for r in rows if r.get("floor_r2") is not None]
    for index, limit in enumerate(floors[0] if floors else ()):
        label = "Bayes floor, noisy" if index == 0 else None
        axes.axhline(1.0 - limit, color=f"C{index}", linewidth=0.8, linestyle=":", label=label)


def _sensitivity(rows: Sequence[Row]) -> Figure:
    figure = new_figure(9.0, 3.8)
    left, right = figure.subplots(1, 2)
    kinds = list(dict.fromkeys((r["method"], kind_of(r)) for r in rows))
    for number, (method, kind) in enumerate(kinds):
        mine = [r for r in rows if (r["method"], kind_of(r)) == (method, kind)]
        sizes = [r["simulations"] for r in mine]
        color, marker = f"C{number}", MARKERS[number % len(MARKERS)]
        style = {"color": color, "marker": marker, "markersize": 5}
        label = f"{method}, {kind}"
        _over_seeds(left, sizes, mine, "median_ape", label=label, **style)
        _over_seeds(right, sizes, mine, "r2_mean", _missing, **style)
        theirs = [r for r in mine if r.get("published")]
        if theirs:
            sizes = [r["simulations"] for r in theirs]
            dashed = {"color": color, "linestyle": "--", "linewidth": 1.0}
            left.plot(sizes, [r["published"]["median_ape"] for r in theirs], **dashed)
            right.plot(sizes, [1.0 - r["published"]["r2"] for r in theirs], **dashed)
    for axes, name in ((left, "Median-APE"), (right, "1 − R²")):
        axes.set_xscale("log")
        axes.set_yscale("log")
        sizes = sorted({r["simulations"] for r in rows})
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("simulations")
        axes.set_ylabel(name)
    left.plot([], [], color=GRAY, linestyle="--", linewidth=1.0, label="published")
    for row in [r for r in rows if r.get("floor_r2") is not None][:1]:
        dotted = {"color": INK, "linestyle": ":", "linewidth": 1.0}
        left.axhline(row["floor_median_ape"], label="Bayes floor, noisy", **dotted)
        right.axhline(1.0 - float(np.mean(row["floor_r2"])), **dotted)
    figure.legend(loc="outside right center")
    return figure


def _beside(
    axes: Axes, labels: Sequence[str], rows: Sequence[Row], key: str, theirs: list[float]
) -> None:
    place = np.arange(len(labels))
    axes.bar(place - 0.2, [r[key] for r in rows], 0.38, color="C0", label="this run")
    _over_seeds(axes, place - 0.2, rows, key, fmt="none", ecolor=INK, elinewidth=1.0)
    axes.bar(place + 0.2, theirs, 0.38, color=GRAY, label="published")
    axes.set_xticks(place, labels)
    axes.grid(visible=False, axis="x")


def _pair(rows: Sequence[Row], keys: tuple[str, str], names: tuple[str, str]) -> Figure:
    figure = new_figure(9.0, 3.6)
    panels = figure.subplots(1, 2)
    for axes, key, name in zip(panels, keys, names, strict=True):
        labels = [f"{r['method'].replace('_covariance', ', Laplace')}\n{_kind(r)}" for r in rows]
        theirs = [(r.get("published") or {}).get(key) or np.nan for r in rows]
        _beside(axes, labels, rows, key, theirs)
        axes.set_title(name)
        axes.tick_params(axis="x", labelsize=8)
    panels[0].legend()
    return figure


def _series(rows: Sequence[Row]) -> Figure:
    names = ("squared bias of the series", "centered mean squared error")
    figure = _pair(rows, ("squared_bias", "centered_mse"), names)
    for axes in figure.get_axes():
        axes.set_yscale("log")
    return figure


def _covariances(rows: Sequence[Row]) -> Figure:
    names = ("relative error of the mean", "relative error of the covariance")
    figure = _pair(rows, ("mean_error", "covariance_error"), names)
    figure.get_axes()[1].set_yscale("log")  # a likelihood is several times as wide as Laplace
    return figure


def _joint(rows: Sequence[Row]) -> Figure:
    figure = new_figure(9.0, 4.2)
    axes: Axes = figure.add_subplot()
    labels = [f"{r['method']}\n{r['inputs']}, {r['simulations']}" for r in rows]
    for index, name in enumerate(NAMES):
        style = {"color": f"C{index}", "linestyle": "none", "markersize": 6}
        found = {"marker": "o", "label": name} | style
        _over_seeds(axes, labels, rows, "r2", lambda r2, at=index: float(r2[at]), **found)
        theirs = [r["published"]["r2"][index] if r.get("published") else np.nan for r in rows]
        axes.plot(labels, theirs, marker="_", markeredgewidth=2, **style)
        limit = rows[-1].get("floor_r2")
        if limit is not None:
            axes.axhline(limit[index], color=f"C{index}", linewidth=0.8, linestyle=":")
    axes.plot([], [], "_", color=INK, markeredgewidth=2, label="published")
    axes.plot([], [], ":", color=INK, label="Bayes floor")
    axes.set_ylim(-1.0, 1.02)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_ylabel("R²")
    axes.legend(loc="lower right", ncols=3)
    return figure


def _widths(rows: Sequence[Row]) -> Figure:
    figure = new_figure(5.6, 4.0)
    axes: Axes = figure.add_subplot()
    widths = [r["width"] for r in rows]
    axes.plot(widths, [r["seconds_scaled"] for r in rows], marker="o", label="this run, scaled")
    for key, label, color in (
        ("cpu_seconds", "published, CPU", GRAY),
        ("accelerator_seconds", "published, accelerator", INK),
    ):
        theirs = [r["published"][key] for r in rows]
        axes.plot(widths, theirs, marker="s", linestyle="--", color=color, label=label)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(widths, [str(w) for w in widths])
    axes.set_xlabel("units in each of eight layers")
    axes.set_ylabel("seconds for 1,000,000 samples")
    axes.legend()
    return figure


def _searches(rows: Sequence[Row]) -> Figure:
    figure = new_figure(9.0, 3.6)
    left, middle, right = figure.subplots(1, 3)
    labels = [r["method"].replace(", ", ",\n") for r in rows]
    left.bar(labels, [100.0 * r["share_global"] for r in rows], color="C0")
    left.set_title("% at the global minimum", fontsize=9)
    middle.bar(labels, [r["median_ape"] for r in rows], color="C0")
    limit = {"color": INK, "linestyle": ":", "linewidth": 1.0, "label": "Bayes floor"}
    middle.axhline(rows[0]["floor_median_ape"], **limit)
    middle.set_yscale("log")
    middle.set_title("Median-APE", fontsize=9)
    middle.legend()
    for axes in (left, middle):
        axes.grid(visible=False, axis="x")
        axes.tick_params(axis="x", labelsize=7)
    for row in rows:
        if "local_minima" in row:
            edges = np.arange(0.5, max(row["local_minima"]) + 1.5)
            right.hist(row["local_minima"], edges, color="C0", rwidth=0.9)
    right.set_xlabel("local minima found")
    right.set_title("number of series", fontsize=9)
    return figure


def _limits(rows: Sequence[Row]) -> Figure:
    figure = new_figure(5.6, 3.6)
    axes: Axes = figure.add_subplot()
    labels = [r["method"].removeprefix("bayes_floor_").replace("_", " ") for r in rows]
    for index, name in enumerate(NAMES):
        some = [(label, r) for label, r in zip(labels, rows, strict=True) if len(r["r2"]) > index]
        missing = [_missing(r["r2"][index]) for _, r in some]
        places = [label for label, _ in some]
        axes.plot(places, missing, MARKERS[index], color=f"C{index}", label=name)
    axes.margins(x=0.2)
    axes.set_yscale("log")
    axes.set_ylabel("1 − R²")
    axes.set_title("Bayes floors, as Laplace approximations know them")
    axes.legend()
    return figure
