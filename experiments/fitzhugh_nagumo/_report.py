"""What the tables of inverse maps say: the printed report, and what was asked for."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.common.evaluation import Row
from experiments.common.tables import number, table
from experiments.fitzhugh_nagumo._landscape import minima_sentence
from experiments.fitzhugh_nagumo._tables import (
    PUBLISHED_JOINT,
    accuracy_table,
    covariance_table,
    joint_table,
    kind_of,
    order_agreement,
    series_table,
    starts_table,
    width_table,
)

_ASKED = 8000  # simulations


def claims(rows: Sequence[Row], timing: Row) -> list[Row]:
    """What was asked for, beside what was found; only what this preset computes.

    Args:
        rows: All rows.
        timing: Seconds of one inversion.

    Returns:
        Text, value, limits and whether they are kept.
    """
    found: list[Row] = []

    def ask(text: str, value: float, *, least: float = -np.inf, most: float = np.inf) -> None:
        met = bool(least <= value <= most)
        found.append({"text": text, "value": value, "least": least, "most": most, "met": met})

    def pick(letter: str, method: str, simulations: int | None, kind: str) -> Row | None:
        for row in rows:
            same = row["table"] == letter and row["method"] == method
            if same and row["simulations"] == simulations and kind_of(row) == kind:
                return row
        return None

    clean = pick("b", "cnn", _ASKED, "clean/clean")
    if clean is not None:
        ask("cnn clean/clean, Median-APE", clean["median_ape"], most=0.014)
        ask("cnn clean/clean, R2", clean["r2_mean"], least=0.998)
    noisy = pick("b", "cnn", _ASKED, "noisy/noisy")
    if noisy is not None:
        ask("cnn noisy/noisy, Median-APE", noisy["median_ape"], most=0.053)
        ask("cnn noisy/noisy, R2", noisy["r2_mean"], least=0.976)
    few = pick("b", "cnn", 1000, "noisy/noisy")
    if few is not None:
        ask("cnn noisy/noisy, 1,000 simulations, R2", few["r2_mean"], least=0.938)
    ours = pick("b", "ours", _ASKED, "noisy/noisy")
    if ours is not None:
        ask("ours noisy/noisy, R2", ours["r2_mean"], least=0.980)
        ask("ours noisy/noisy, Median-APE", ours["median_ape"], most=0.035)
    for letter, method, label in (
        ("b", "ours", "ours"), ("b", "ours_fresh", "ours, fresh"), ("d", "ours", "unknown noise")
    ):  # fmt: skip
        row = pick(letter, method, _ASKED, "noisy/noisy")
        if row is not None:
            text = f"{label}, 90 % intervals hold the truth"
            ask(text, row["coverage_90"], least=0.88, most=0.92)
            each = row["coverage_90_each"]
            ask(f"{text}, the rarest parameter", float(min(each)), least=0.88, most=0.92)
            ask(f"{text}, the most frequent", float(max(each)), least=0.88, most=0.92)
    fresh = pick("b", "ours_fresh", _ASKED, "noisy/noisy")
    if fresh is not None:
        gap = float(np.max(np.asarray(fresh["floor_r2"]) - np.asarray(fresh["r2"])))
        ask("ours with fresh simulations, R2 below the floor", gap, most=0.005)
    for label, agree in _orders([row for row in rows if row["table"] == "b"]):
        ask(f"pairs of cells of table b the other way round, by {label}", agree["opposite"], most=0)
    _ask_joint(ask, pick)
    for method, label in (("cnn_covariance", "cnn"), ("ours_covariance", "ours")):
        row = pick("e", method, _ASKED, "noisy/noisy")
        if row is not None:
            ask(f"covariances noisy/noisy, {label}, mean", row["mean_error"], most=0.093)
            error = row["covariance_error"]
            ask(f"covariances noisy/noisy, {label}, covariance", error, most=0.161)
    for row in rows:
        on_cpu = row["table"] == "f" and row["platform"] == "cpu"
        if on_cpu and row["width"] <= 512 and row["samples"] >= 10_000:
            limit = row["published"]["cpu_seconds"]
            ask(f"{row['method']}, s for 1,000,000 samples", row["seconds_scaled"], most=limit)
    if timing:
        ask("one network pass under jit, warm, ms", 1e3 * timing["network"], most=2.0)
    return found


def _ask_joint(ask: Callable[..., None], pick: Callable[..., Row | None]) -> None:
    published = PUBLISHED_JOINT[_ASKED]["both"]
    for method, label in (
        ("cnn_both", "cnn"), ("cnn_redrawn", "cnn on noise drawn anew"), ("ours", "ours")
    ):  # fmt: skip
        row = pick("d", method, _ASKED, "noisy/noisy")
        if row is None:
            continue
        for name, value, limit in zip(
            ("theta0", "theta1", "sigma", "rho"), row["r2"], published, strict=True
        ):
            ask(f"unknown noise, {label}, R2 of {name}", float(value), least=limit)


def report(metrics: dict[str, Any]) -> str:
    """All tables with the published numbers and the limits side by side."""
    by_letter: dict[str, list[Row]] = {letter: [] for letter in "abcdefgh"}
    for row in metrics["rows"]:
        by_letter[row["table"]].append(row)
    seeds = max(row.get("seeds", 1) for row in metrics["rows"])
    parts = [
        f"\nFitzHugh-Nagumo, preset {metrics['preset']}: medians over {seeds} seed(s), "
        f"{by_letter['h'][0]['cases']} test cases (floors of "
        f"{' and '.join(sorted({str(row['cases']) for row in by_letter['h']}))}), "
        f"{metrics['timing']['total_seconds']:.0f} s in all",
        accuracy_table([*by_letter["a"], *by_letter["b"], *by_letter["h"]]),
    ]
    for letter, written in (
        ("b", _order), ("c", series_table), ("d", joint_table), ("e", covariance_table),
        ("f", width_table), ("f", _scaled), ("g", starts_table), ("g", minima_sentence),
    ):  # fmt: skip
        if by_letter[letter]:
            parts.append(written(by_letter[letter]))
    if metrics["seconds_single"]:
        parts.append(_timing(metrics["seconds_single"]))
    if metrics["claims"]:
        parts.append(_claims_table(metrics["claims"]))
    return "\n\n".join(parts)


def _scaled(rows: Sequence[Row]) -> str:
    peaks = [row["matrix_product_peak"] / 1e9 for row in rows]
    return (
        f"Seconds on {rows[0]['device']} in batches of {rows[0]['batch']}, measured on that many "
        "samples and scaled linearly to 1,000,000; the peak is that of large matrix products "
        f"just before and after, {min(peaks):.0f} to {max(peaks):.0f} GFlop/s."
    )


def _orders(rows: Sequence[Row]) -> list[tuple[str, Row]]:
    """How many pairs of the published cells are ordered as published, by each measure."""
    cells = [row for row in rows if row["method"] == "cnn" and row.get("published")]
    if len(cells) < 2:
        return []
    return [
        (label, order_agreement(cells, lambda row, name=name: row["published"][name], key))
        for key, name, label in (
            ("median_ape", "median_ape", "Median-APE"),
            ("r2_mean", "r2", "R2"),
        )
    ]


def _order(rows: Sequence[Row]) -> str:
    parts = [
        f"by {label} {agree['same']} pairs as published, {agree['undecided']} undecided between "
        f"seeds, {agree['opposite']} the other way round"
        for label, agree in _orders(rows)
    ]
    if not parts:
        return "Order of the cells of table b: too few are published."
    return f"Order of the cells of table b: {'; '.join(parts)}."


def _timing(timing: Row) -> str:
    return (
        f"One inversion, warm: {1e3 * timing['network']:.2f} ms for the network pass with its "
        f"samples, {1e3 * timing['checked']:.1f} ms with the solve that checks the estimate."
    )


def _claims_table(found: Sequence[Row]) -> str:
    lines = []
    for row in found:
        bounds = [
            "" if row["least"] is None else f">= {row['least']:g}",
            "" if row["most"] is None else f"<= {row['most']:g}",
        ]
        asked = " and ".join(b for b in bounds if b)
        lines.append([row["text"], number(row["value"], 4), asked, "yes" if row["met"] else "no"])
    return table(("asked for", "found", "limit", "met"), lines)
