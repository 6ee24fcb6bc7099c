"""Tables that compare methods, and sentences about where one loses."""

import io
import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from experiments.common.scoring import Row

HEADER = (
    "method", "MSE", "/ floor", "MAE", "MSE determined", "MSE hidden", "trajectory MSE", "chi2",
    "coverage 90 %", "fit s", "ms in 256", "ms alone",
)  # fmt: skip


def cells(name: str, row: Row, floor: float | None) -> list[str]:
    """One line of the table; without a floor, the column that divides by it stays empty."""
    mse = row["parameter_mse"]
    milliseconds = [row.get(f"seconds_{kind}") for kind in ("per_inversion", "single")]
    return [
        name,
        number(mse),
        "-" if floor is None else f"{mse / floor:.2f}",
        *(
            number(row.get(key))
            for key in (
                "parameter_mae",
                "parameter_mse_determined",
                "parameter_mse_hidden",
                "trajectory_mse",
                "chi2_per_reading",
                "coverage_90",
                "fit_seconds",
            )
        ),
        *("-" if s is None else number(1e3 * s) for s in milliseconds),
    ]


_COMPARED = {
    "parameter_mse": "parameter MSE",
    "parameter_mae": "parameter MAE",
    "trajectory_mse": "trajectory MSE",
    "chi2_per_reading": "chi-squared per reading",
    "fit_seconds": "training time",
    "seconds_per_inversion": "time per inversion in a batch",
    "seconds_single": "time of one inversion",
}


def where_ino_loses(rows: dict[str, Row], floor: float) -> str:
    """Say where INO loses, to the plain regression and to the limit."""
    ino, plain = rows["ino"], rows["regression"]
    behind = [
        f"{label} ({number(ino[key])} against {number(plain[key])})"
        for key, label in _COMPARED.items()
        if ino[key] is not None and plain[key] is not None and ino[key] > plain[key]
    ]
    above = 100.0 * (ino["parameter_mse"] / floor - 1.0)
    where = ", ".join(behind) if behind else "nothing that is measured here"
    return (
        f"Where INO loses: its parameter MSE is {above:.0f} % above the floor; to the regression "
        f"it loses in {where}."
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, numbers to the right; as wide as it must be."""
    printed = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, name in enumerate(header):
        printed.add_column(name, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        printed.add_row(*(Text(cell) for cell in row))
    console = Console(width=10_000, color_system=None, file=io.StringIO())
    with console.capture() as captured:
        console.print(printed)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    if value != 0.0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    return f"{value:#.{digits}g}".rstrip(".")
