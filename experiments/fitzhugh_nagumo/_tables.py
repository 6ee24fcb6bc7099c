"""The tables of inverse maps: rows over seeds, published numbers, and what was asked for."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.common.evaluation import Row
from experiments.common.tables import number, table
from experiments.fitzhugh_nagumo._maps import CLEAN, NOISY, Answers, MapSpec, TestSeries

# Rudi, Bessac and Lenzi, arXiv 2012.06691, and its slides. By simulations and by training and
# test noise: Median-APE and R2 of the convolutional network.
_SIZES = 500, 1000, 4000, 8000
_CELLS = {
    "clean/clean": ((0.023, 0.990), (0.014, 0.995), (0.014, 0.997), (0.014, 0.998)),
    "clean/noisy": ((0.169, 0.788), (0.174, 0.763), (0.204, 0.710), (0.251, 0.617)),
    "noisy/noisy": ((0.098, 0.921), (0.096, 0.938), (0.060, 0.970), (0.053, 0.976)),
}
PUBLISHED_MAPS = {
    n: {kind: column[index] for kind, column in _CELLS.items()} for index, n in enumerate(_SIZES)
}
# Squared bias and centered mean squared error of series simulated at the estimates.
PUBLISHED_SERIES = {
    "clean/clean": (2.8e-6, 0.061), "clean/noisy": (1.8e-3, 2.001), "noisy/noisy": (1.2e-3, 0.536),
}  # fmt: skip
# R2 of theta0, theta1, sigma and rho.
PUBLISHED_JOINT = {
    1000: {
        "series": (0.914, 0.812, -0.62, -0.80), "spectrum": (0.460, 0.577, 0.524, 0.603),
        "both": (0.935, 0.856, 0.589, 0.645),
    },
    8000: {
        "series": (0.962, 0.933, 0.627, 0.557), "spectrum": (0.580, 0.797, 0.669, 0.721),
        "both": (0.968, 0.942, 0.684, 0.722),
    },
}  # fmt: skip
# Median relative error of mean (2-norm) and covariance (Frobenius).
PUBLISHED_COVARIANCES = {
    "clean/clean": (0.032, 0.124), "clean/noisy": (0.215, 0.229), "noisy/noisy": (0.093, 0.161),
}  # fmt: skip
PAIRS = ((CLEAN, CLEAN), (CLEAN, NOISY), (NOISY, NOISY))


def r2(
    found: Float[np.ndarray, "case parameter"], truth: Float[np.ndarray, "case parameter"]
) -> Float[np.ndarray, " parameter"]:
    """Coefficient of determination of each parameter."""
    return 1.0 - np.square(found - truth).mean(axis=0) / truth.var(axis=0)


def median_ape(
    found: Float[np.ndarray, "case parameter"], truth: Float[np.ndarray, "case parameter"]
) -> float:
    """Median relative error over cases and parameters."""
    return float(np.median(np.abs(found - truth) / np.abs(truth)))


def median_ape_norm(
    found: Float[np.ndarray, "case parameter"], truth: Float[np.ndarray, "case parameter"]
) -> float:
    """Median over cases of the relative error in the Euclidean norm."""
    return float(np.median(np.linalg.norm(found - truth, axis=1) / np.linalg.norm(truth, axis=1)))


def map_row(
    letter: str,
    spec: MapSpec,
    answers: Sequence[Answers],
    tests: TestSeries,
    test_noise: str,
    floor: Row | None,
) -> Row:
    """Score one map of every seed on the test cases.

    Args:
        letter: The table.
        spec: The map.
        answers: Of each seed.
        tests: The test cases.
        test_noise: Which series were inverted.
        floor: The limit, where there is one.

    Returns:
        Medians over seeds, their smallest and largest value, and what limits them.
    """
    truth = tests.truth.thetas
    values = [a.values(test_noise) for a in answers]
    determined = np.stack([r2(v, truth) for v in values])
    apes = np.array([median_ape(v, truth) for v in values])
    row = {
        "table": letter,
        "method": spec.method,
        "simulations": spec.simulations,
        "fresh_simulations": spec.settings.online * spec.settings.steps,
        "train_noise": spec.train_noise,
        "test_noise": test_noise,
        "inputs": spec.settings.inputs.value,
        "seeds": len(answers),
        "cases": len(truth),
        "steps": spec.settings.steps,
        "median_ape": float(np.median(apes)),
        "median_ape_range": [apes.min(), apes.max()],
        "median_ape_norm": float(np.median([median_ape_norm(v, truth) for v in values])),
        "r2": np.median(determined, axis=0),
        "r2_range": [determined.min(axis=0), determined.max(axis=0)],
        "r2_mean": float(np.median(determined.mean(axis=1))),
        "r2_mean_range": [determined.mean(axis=1).min(), determined.mean(axis=1).max()],
        "fit_seconds": float(np.median([a.fit_seconds for a in answers])),
        "compile_seconds": float(np.median([a.compile_seconds for a in answers])),
    }
    inside = np.stack([a.inside for a in answers])
    if test_noise == NOISY and np.isfinite(inside).all():
        row["coverage_90"] = float(np.median(inside.mean(axis=1)))
        row["coverage_90_each"] = np.median(inside, axis=0)
    if floor is not None:
        row |= {f"floor_{key}": floor[key] for key in ("r2", "median_ape", "median_ape_norm")}
    return row


def floor_row(
    name: str,
    truth: Float[np.ndarray, "case parameter"],
    covariance: Float[np.ndarray, "case parameter parameter"],
    noise: float,
) -> Row:
    """The Bayes floor: what the Laplace covariances at the true parameters leave open."""
    good = np.isfinite(covariance).all(axis=(1, 2))
    truth, covariance = truth[good], covariance[good]
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    guess = laplace_guess(truth, covariance)
    return {
        "table": "h",
        "method": f"bayes_floor_{name}",
        "simulations": None,
        "train_noise": None,
        "test_noise": NOISY,
        "noise": noise,
        "seeds": 1,
        "cases": len(truth),
        "median_ape": median_ape(guess, truth),
        "median_ape_norm": median_ape_norm(guess, truth),
        "r2": 1.0 - variance.mean(axis=0) / truth.var(axis=0),
    }


def laplace_guess(
    truth: Float[np.ndarray, "case parameter"],
    covariance: Float[np.ndarray, "case parameter parameter"],
) -> Float[np.ndarray, "case parameter"]:
    """Estimates that err as the Laplace covariances say, drawn once."""
    random = np.random.default_rng(0).normal(size=truth.shape)
    return truth + np.einsum("cpq,cq->cp", np.linalg.cholesky(covariance), random)


def prior_guess(tests: TestSeries) -> Float[np.ndarray, "case parameter"]:
    """The mean of the prior for every case."""
    truth, space = tests.truth.thetas, tests.problem.parameters
    levels = (np.arange(4096)[:, None] + 0.5) / 4096 * np.ones((1, space.size))
    return np.broadcast_to(np.asarray(space.from_unit(levels)).mean(axis=0), truth.shape)


def prior_row(letter: str, tests: TestSeries) -> Row:
    """Always guessing the mean of the prior."""
    truth, guess = tests.truth.thetas, prior_guess(tests)
    return {
        "table": letter,
        "method": "prior_mean",
        "simulations": 0,
        "train_noise": None,
        "test_noise": NOISY,
        "seeds": 1,
        "cases": len(truth),
        "median_ape": median_ape(guess, truth),
        "median_ape_norm": median_ape_norm(guess, truth),
        "r2": r2(guess, truth),
    }


SERIES_ERRORS = "squared_bias", "centered_mse", "squared_bias_median", "centered_mse_median"


def series_errors(
    tests: TestSeries, values: Float[np.ndarray, "case parameter"], among: Any = slice(None)
) -> tuple[float, float, float, float]:
    """Squared bias and centered mean squared error of the potential simulated at estimates.

    Bias is the mean error over time of a series, the rest is around it. The source names both
    without a definition: neither means nor medians over cases, nor biases over all cases at each
    time or at all times, agree with all that is published.

    Args:
        tests: The test cases.
        values: Estimates of each.
        among: Which of the test cases they belong to.

    Returns:
        `SERIES_ERRORS`: means over cases, then medians.
    """
    problem = tests.problem
    (channel,) = problem.channel_index
    states = np.asarray(problem.model.solve_ensemble(values[:, :2]).states)
    error = states[:, :, channel] - tests.clean.values[among, :, 0]
    error = error[np.isfinite(error).all(axis=1)]
    bias = error.mean(axis=1)
    each = np.square(bias), np.square(error - bias[:, None]).mean(axis=1)
    found = [float(measure(x)) for measure in (np.mean, np.median) for x in each]
    return found[0], found[1], found[2], found[3]


def covariance_errors(
    answers: Answers,
    test_noise: str,
    truth: Float[np.ndarray, "case parameter"],
    laplace: Float[np.ndarray, "case parameter parameter"],
) -> tuple[float, float]:
    """Median relative errors of mean and covariance, against truth and Laplace covariance."""
    good = np.isfinite(laplace).all(axis=(1, 2))
    gap = np.linalg.norm(answers.covariances(test_noise) - laplace, axis=(1, 2))
    share = gap[good] / np.linalg.norm(laplace[good], axis=(1, 2))
    return median_ape_norm(answers.values(test_noise), truth), float(np.median(share))


def order_agreement(rows: Sequence[Row], published: Callable[[Row], float], key: str) -> Row:
    """How many pairs of rows are ordered as published; pairs that tie there do not count.

    A pair whose seeds overlap is undecided where the medians have the other order, not wrong.
    """
    same = opposite = undecided = 0
    for i, first in enumerate(rows):
        for second in rows[:i]:
            theirs = published(first) - published(second)
            if theirs == 0.0:
                continue
            ours = first[key] - second[key]
            overlap = (
                first[f"{key}_range"][0] <= second[f"{key}_range"][1]
                and second[f"{key}_range"][0] <= first[f"{key}_range"][1]
            )
            if ours * theirs > 0.0:
                same += 1
            elif overlap:
                undecided += 1
            else:
                opposite += 1
    return {"same": same, "undecided": undecided, "opposite": opposite}


def kind_of(row: Row) -> str:
    """Training and test noise in short."""
    return f"{row['train_noise']}/{row['test_noise']}"


def _spread(row: Row, key: str) -> str:
    """A number with its smallest and largest value over seeds, where there are several."""
    if row["seeds"] == 1 or f"{key}_range" not in row:
        return number(row[key])
    low, high = row[f"{key}_range"]
    return f"{number(row[key])} [{number(low)}, {number(high)}]"


def _between(row: Row) -> str:
    """How far the seeds lie apart in R2 of each parameter."""
    if row["seeds"] == 1 or "r2_range" not in row:
        return "-"
    return " ".join(f"{high - low:.3f}" for low, high in zip(*row["r2_range"], strict=True))


def _coverage(row: Row) -> str:
    if "coverage_90" not in row:
        return "-"
    return " ".join(f"{100 * share:.1f}" for share in row["coverage_90_each"])


def _simulations(row: Row) -> str:
    if not row["simulations"]:
        return "-"
    fresh = row.get("fresh_simulations")
    return f"{row['simulations']} + {fresh}" if fresh else str(row["simulations"])


def _each(values: Any, digits: int = 3) -> str:
    return "-" if values is None else " ".join(f"{v:.{digits}f}" for v in values)


def accuracy_table(rows: Sequence[Row]) -> str:
    """Tables a, b and h: errors, what is published, and the limit."""
    lines = []
    for row in rows:
        theirs = row.get("published") or {}
        lines.append(
            [
                f"{row['table']} {row['method']}",
                _simulations(row),
                kind_of(row) if row["train_noise"] else row["test_noise"],
                _spread(row, "median_ape"),
                number(theirs.get("median_ape")),
                _each(row["r2"]),
                _spread(row, "r2_mean") if "r2_mean" in row else number(np.mean(row["r2"])),
                number(theirs.get("r2")),
                _each(row.get("floor_r2")),
                _coverage(row),
                number(row.get("fit_seconds"), 2),
            ]
        )
    header = (
        "map", "N", "train/test", "APE [seeds]", "published", "R2", "mean R2 [seeds]",
        "published", "floor R2", "90 %", "fit s",
    )  # fmt: skip
    return table(header, lines)


def series_table(rows: Sequence[Row]) -> str:
    """Table c."""
    lines = []
    for row in rows:
        theirs = row.get("published") or {}
        lines.append(
            [
                f"c {row['method']}",
                kind_of(row) if row["train_noise"] else row["test_noise"],
                _spread(row, "squared_bias"),
                number(row["squared_bias_median"]),
                number(theirs.get("squared_bias")),
                _spread(row, "centered_mse"),
                number(row["centered_mse_median"]),
                number(theirs.get("centered_mse")),
            ]
        )
    header = (
        "map", "train/test", "bias^2", "median", "published", "centered MSE", "median", "published",
    )  # fmt: skip
    return table(header, lines)


def joint_table(rows: Sequence[Row]) -> str:
    """Table d."""
    lines = [
        [
            f"d {row['method']}",
            _simulations(row),
            str(row.get("steps", "-")),
            row["inputs"],
            _each(row["r2"]),
            _between(row),
            _each((row.get("published") or {}).get("r2")),
            _each(row.get("floor_r2")),
            _coverage(row),
        ]
        for row in rows
    ]
    header = (
        "map", "N", "steps", "inputs", "R2 (theta0 theta1 sigma rho)", "between seeds", "published",
        "floor", "90 %",
    )  # fmt: skip
    return table(header, lines)


def covariance_table(rows: Sequence[Row]) -> str:
    """Table e."""
    lines = [
        [
            f"e {row['method']}",
            str(row["simulations"]),
            kind_of(row),
            _spread(row, "mean_error"),
            number(row["published"]["mean_error"]),
            number(row.get("floor_median_ape_norm")),
            _spread(row, "covariance_error"),
            number(row["published"]["covariance_error"]),
            _coverage(row),
        ]
        for row in rows
    ]
    header = (
        "map", "N", "train/test", "mean", "published", "floor", "covariance", "published", "90 %",
    )  # fmt: skip
    return table(header, lines)


def width_table(rows: Sequence[Row]) -> str:
    """Table f."""
    lines = [
        [
            f"f {row['method']}",
            str(row["parameters"]),
            str(row["samples"]),
            number(row["seconds"]),
            number(row["seconds_scaled"]),
            number(row["published"]["cpu_seconds"]),
            number(row["published"]["accelerator_seconds"]),
            f"{100 * row['share_of_peak']:.0f} %",
        ]
        for row in rows
    ]
    header = (
        "network", "parameters", "samples", "s", "s per 1e6", "published CPU",
        "published accelerator", "of peak",
    )  # fmt: skip
    return table(header, lines)


def starts_table(rows: Sequence[Row]) -> str:
    """Table g, with the limit of these cases."""
    limit = [
        "g limit: Bayes floor", str(rows[0]["cases"]), number(rows[0]["floor_median_ape"]),
        _each(rows[0]["floor_r2"]), "-", "-",
    ]  # fmt: skip
    lines = [
        [
            f"g {row['method']}",
            str(row["cases"]),
            number(row["median_ape"]),
            _each(row["r2"]),
            f"{100 * row['share_global']:.0f} %",
            number(1e3 * row["seconds_per_case"]),
        ]
        for row in rows
    ]
    header = ("estimate", "cases", "APE", "R2", "at the global optimum", "ms per case")
    return table(header, [*lines, limit])
