"""The experiments with measured data as a user runs them, in their smallest preset."""

import json
import math
import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.experiments.runs import smoke

ROOT = Path(__file__).parents[2]
FIELDS = (
    "method", "estimates", "negative_log_likelihood", "chi2_per_reading", "seconds", "status",
    "message", "ticket", "std", "interval_90", "optima", "r_hat", "effective_samples", "published",
)  # fmt: skip
ROWS = {
    "lynx_hare": ["prior_center", "constant", "maximum_likelihood", "posterior"],
    "boehm": ["prior_center", "constant", "nominal", "least_squares", "posterior"],
}
NAMES = ("lynx_hare", pytest.param("boehm", marks=pytest.mark.slow))

# What one run compiles serves the later ones; none of them is killed at work.
COMPILED = tempfile.TemporaryDirectory()


def run(name: str, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return smoke(f"measured/{name}.py", out, *more, JAX_COMPILATION_CACHE_DIR=COMPILED.name)


@pytest.fixture(scope="module", params=NAMES)
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, str]:
    """Name, folder and printed text of one run from nothing."""
    out = tmp_path_factory.mktemp("results") / request.param
    result = run(request.param, out)
    assert result.returncode == 0, result.stderr[-3000:]
    return request.param, out, result.stdout


def metrics_of(out: Path) -> dict:
    return json.loads((out / "metrics.json").read_text())


def test_metrics_have_the_shape_of_every_experiment(finished: tuple[str, Path, str]):
    name, out, _ = finished
    metrics = metrics_of(out)
    assert list(metrics) == [
        "experiment", "preset", "seed", "provenance", "limits", "rows",
        "identifiability", "timing",
    ]  # fmt: skip
    assert (metrics["experiment"], metrics["preset"], metrics["seed"]) == (name, "smoke", 0)
    rows = {row["method"]: row for row in metrics["rows"]}
    assert list(rows) == ROWS[name]
    for row in rows.values():
        assert all(field in row for field in FIELDS)
        assert math.isfinite(row["negative_log_likelihood"])
        assert all(math.isfinite(value) for value in row["estimates"].values())
    for limit, content in metrics["limits"].items():
        assert content["negative_log_likelihood"] == rows[limit]["negative_log_likelihood"]
    posterior = rows["posterior"]
    assert posterior["status"] == "NOT_MIXED"  # four draws of two chains
    assert posterior["ticket"]["verdict"] != "trust"
    assert posterior["ticket"]["exact"]
    assert posterior["estimates"].keys() == posterior["r_hat"].keys()
    assert 0.0 <= posterior["readings_inside"]["0.5"] <= posterior["readings_inside"]["0.9"] <= 1.0


def test_known_values_stand_beside_ours(finished: tuple[str, Path, str]):
    name, out, text = finished
    rows = {row["method"]: row for row in metrics_of(out)["rows"]}
    known = rows["nominal" if name == "boehm" else "maximum_likelihood"]["objective"]
    # The collection gives eight decimals; the model of the pelts is solved to 1e-6.
    assert known["value"] == pytest.approx(known["reference"], rel=1e-5)
    assert f"{known['reference']:#.8g}" in text
    for word in ("reference", "R-hat", "prior center", "constant", "lie within the predicted"):
        assert word in text
    assert "Verdict on the posterior" in text
    assert f"Identifiability of {metrics_of(out)['identifiability']['problem']}" in text
    for figure in ("predictive", "pairs", "identifiability"):
        image = (out / f"{figure}.png").read_bytes()
        assert image.startswith(b"\x89PNG")
        assert len(image) > 10_000  # an empty canvas has a tenth of that


def test_started_again_it_loads_what_it_has_found(finished: tuple[str, Path, str]):
    name, out, _ = finished
    before = metrics_of(out)
    (out / "metrics.json").unlink()
    again = run(name, out)
    assert again.returncode == 0, again.stderr[-3000:]
    steps = re.findall(r"^-- (.*)$", again.stdout, re.MULTILINE)
    assert all("found before" in step for step in steps[:-1])
    assert metrics_of(out)["rows"] == before["rows"]


def test_another_run_in_the_same_folder_is_refused(finished: tuple[str, Path, str]):
    name, out, _ = finished
    refused = run(name, out, "--seed", "1")
    assert refused.returncode == 2
    assert "holds a run of preset smoke, seed 0" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_unwritable_folder_is_refused(tmp_path: Path):
    (tmp_path / "file").touch()
    for name in ROWS:
        refused = run(name, tmp_path / "file" / "out")
        assert refused.returncode == 2
        assert re.search("`--out` .* cannot be written", refused.stderr)
