"""The main experiment as a user runs it, in its smallest preset."""

import csv
import json
import math
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

import inojax as ij
from tests.experiments.runs import python, smoke

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "experiments" / "data" / "pollu_example.csv"
FIELDS = (
    "method", "parameter_mse", "parameter_mae", "trajectory_mse", "fit_seconds",
    "seconds_per_inversion", "coverage_90", "chi2_per_reading",
)  # fmt: skip
FIGURES = ("recovery", "parameter_errors", "trajectories", "overview", "losses")


# What one run compiles serves the later ones; none of them is killed at work.
COMPILED = tempfile.TemporaryDirectory()


CACHED = {
    "JAX_COMPILATION_CACHE_DIR": COMPILED.name,
    # Hundreds of programs take less than the second from which on they are kept by default.
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    # Compiling takes longer than computing so little.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
}


def run(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return smoke("pollu", out, *more, **CACHED)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Folder and printed text of one run from nothing."""
    out = tmp_path_factory.mktemp("results") / "pollu"
    result = run(out)
    assert result.returncode == 0, result.stderr[-3000:]
    return out, result.stdout


def metrics_of(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text())


def assert_refused(code: int, printed: str, message: str) -> None:
    assert code == 2
    assert re.search(message, printed)
    assert "Traceback" not in printed


def test_metrics_have_the_shape_of_every_experiment(finished: tuple[Path, str]):
    metrics = metrics_of(finished[0])
    assert list(metrics) == [
        "experiment", "preset", "seed", "provenance", "limits", "rows", "calibration", "timing",
    ]  # fmt: skip
    assert (metrics["experiment"], metrics["preset"], metrics["seed"]) == ("pollu", "smoke", 0)
    assert list(metrics["timing"]) == ["total_seconds", "simulate_seconds", "compile_seconds"]
    assert 0.0 < metrics["timing"]["simulate_seconds"] < metrics["timing"]["total_seconds"]
    assert metrics["timing"]["compile_seconds"] > 0.0
    rows = {row["method"]: row for row in metrics["rows"]}
    exact = ["ino + refine", "least squares (multi-start)"]
    assert list(rows) == ["prior_mean", "regression", "ino", *exact, "bayes_floor"]
    assert all(field in row for row in rows.values() for field in FIELDS)
    for name in ("prior_mean", "regression", "ino"):
        assert all(math.isfinite(rows[name][field]) for field in FIELDS[1:])
    for name in exact:
        assert all(math.isfinite(rows[name][field]) for field in FIELDS[1:])
        assert rows[name]["seconds_single"] is None
    assert metrics["calibration"] is None  # in this preset; see test_alarms.py
    for name, limit in metrics["limits"].items():
        assert limit["parameter_mse"] == rows[name]["parameter_mse"]


def test_numbers_are_plausible(finished: tuple[Path, str]):
    rows = {row["method"]: row for row in metrics_of(finished[0])["rows"]}
    # Uniform on [0, 1] has variance 1/12; the mean over 128 x 25 values scatters by 1.6 %.
    assert rows["prior_mean"]["parameter_mse"] == pytest.approx(1 / 12, rel=0.08)
    # 90 % intervals of the prior, 3200 of them: standard error 0.5 %.
    assert rows["prior_mean"]["coverage_90"] == pytest.approx(0.9, abs=0.03)
    # Measured independently as 0.0142 over 480 cases; 48 cases scatter by some 10 %.
    assert rows["bayes_floor"]["parameter_mse"] == pytest.approx(0.0142, rel=0.35)
    floor, guess = (rows[n]["parameter_mse"] for n in ("bayes_floor", "prior_mean"))
    for name in ("regression", "ino"):
        # Hardly trained, but both must have learned something.
        assert floor < rows[name]["parameter_mse"] < 0.75 * guess
        assert rows[name]["fit_seconds"] > 0.0
    assert rows["ino"]["surrogate_trajectory_mse"] < 0.0559  # published


def test_table_and_figures_are_there(finished: tuple[Path, str]):
    out, text = finished
    for word in ("prior mean", "regression", "ino", "bayes floor", "published", "loses"):
        assert word in text
    for name in FIGURES:
        image = (out / f"{name}.png").read_bytes()
        assert image.startswith(b"\x89PNG")
        assert len(image) > 10_000  # an empty canvas has a tenth of that


def test_started_again_it_keeps_its_rows_and_inverts_readings(finished: tuple[Path, str]):
    out, before = finished[0], metrics_of(finished[0])
    again = run(out, "--observations", str(EXAMPLE))
    assert again.returncode == 0, again.stderr[-3000:]
    assert metrics_of(out) == before
    assert "-- train" not in again.stdout
    assert "-- simulate" not in again.stdout
    assert re.search(r"^k25 .*\[", again.stdout, re.MULTILINE)
    assert "Chi-squared per reading" in again.stdout
    estimate = json.loads((out / "pollu_example_estimate.json").read_text())
    assert len(estimate["parameters"]) == 25
    assert (out / "pollu_example_trajectories.png").stat().st_size > 10_000


@pytest.mark.slow
def test_evaluated_again_the_stored_weights_give_the_same_errors(finished: tuple[Path, str]):
    out, before = finished[0], metrics_of(finished[0])
    (out / "metrics.json").unlink()
    again = run(out)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "-- train" not in again.stdout
    for old, new in zip(before["rows"], metrics_of(out)["rows"], strict=True):
        measured_anew = {"seconds_per_inversion", "seconds_single"}
        assert {k: v for k, v in new.items() if k not in measured_anew} == {
            k: v for k, v in old.items() if k not in measured_anew
        }


def test_the_example_readings_come_from_the_rates_beside_them():
    """They owe nothing to the library, so a wrong unit, column or equation would show here."""
    problem = ij.problems.pollu()
    observation = ij.Observation.from_csv(EXAMPLE, problem)
    with EXAMPLE.with_name("pollu_example_truth.csv").open() as file:
        truth = {row["parameter"]: float(row["value"]) for row in csv.DictReader(file)}
    theta = problem.parameters.from_dict(truth)
    residual = np.asarray(problem.whitened_residual(theta, observation))
    present = np.asarray(observation.mask)
    # Standard normal residuals, some fifty of them: the mean square scatters by 1/5.
    assert 0.4 < np.mean(np.square(residual[present])) < 1.8
    assert not np.allclose(problem.parameters.to_unit(theta), 0.5, atol=0.2)


def test_another_run_in_the_same_folder_is_refused(finished: tuple[Path, str]):
    result = run(finished[0], "--seed", "1")
    assert_refused(result.returncode, result.stderr, "holds a run of preset smoke, seed 0")


BAD_READINGS = [
    ("time,NO2,XYZ\n1,2,3\n", "unknown channel 'XYZ'"),
    ("time,NO2\n-1,0.1\n", "before the beginning"),
    ("time,NO2\n61,0.1\n", "beyond the end"),
    ("time,NO2\n1,0.1,5\n", "line 2 has 3 columns"),
    ("time,NO2\n1,\n", "no reading"),
    ("", "is empty"),
    ("time,NO2\n1,1e39\n", "overflows float32"),
]
# Starts the script once for each command line; importing takes much longer than refusing.
SEVERAL = """
import contextlib, io, json, runpy, sys
ends = []
for more in json.loads(sys.argv[1]):
    sys.argv = ["experiments/pollu", "--preset", "smoke", *more]
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        try:
            runpy.run_path(sys.argv[0], run_name="__main__")
        except SystemExit as end:
            ends.append((end.code, printed.getvalue()))
        else:
            ends.append((0, printed.getvalue()))
print(json.dumps(ends))
"""


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[int, str]]]:
    """How runs end on each of the bad readings, and at last where the folder cannot be made."""
    folder = tmp_path_factory.mktemp("refused")
    commands = []
    for number, (content, _) in enumerate(BAD_READINGS):
        path = folder / f"{number}.csv"
        path.write_text(content)
        commands.append(["--out", str(folder / f"out{number}"), "--observations", str(path)])
    (folder / "file").touch()
    commands.append(["--out", str(folder / "file" / "out")])
    result = python("-c", SEVERAL, json.dumps(commands), **CACHED)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder, json.loads(result.stdout)


@pytest.mark.parametrize("number", range(len(BAD_READINGS)), ids=[m for _, m in BAD_READINGS])
def test_bad_readings_are_refused_before_anything_runs(
    refused: tuple[Path, list[tuple[int, str]]], number: int
):
    folder, ends = refused
    assert_refused(*ends[number], BAD_READINGS[number][1])
    assert not (folder / f"out{number}").exists()


def test_an_unwritable_folder_is_refused(refused: tuple[Path, list[tuple[int, str]]]):
    assert_refused(*refused[1][-1], "`--out` .* cannot be written")
