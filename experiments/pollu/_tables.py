"""The table that compares methods on POLLU, and where INO loses."""

from experiments.common.evaluation import Row
from experiments.common.tables import number

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
