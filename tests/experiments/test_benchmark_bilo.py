"""The cost of BiLO's steps as a user measures it, in the smallest preset."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.experiments.runs import smoke

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_all_contenders_begin_with_the_same_losses(tmp_path: Path):
    done = smoke("benchmarks/bilo.py", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    rows = {row["method"]: row for row in metrics["rows"]}
    assert list(rows) == ["BiLO", "BiLO, nested forward mode", "PINN"]
    losses = [rows[name]["loss"] for name in ("BiLO", "BiLO, nested forward mode")]
    # Nested differentiation knows nothing of what is written by hand.
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for row in rows.values():
        assert len(row["seconds_each"]) == 2
        assert row["seconds_per_step"] > 0.0
    assert "n/a: PyTorch" in done.stdout


@pytest.mark.slow
def test_pytorch_computes_the_same_losses():
    pytest.importorskip("torch")
    from experiments.benchmarks import bilo

    size = bilo.Size(8, 7, 2, 1, 0)
    for ours, theirs in (("BiLO", "BiLO, PyTorch"), ("PINN", "PINN, PyTorch")):
        losses = [bilo.contender(name, size, 0).loss for name in (ours, theirs)]
        np.testing.assert_allclose(*losses, rtol=1e-4)
