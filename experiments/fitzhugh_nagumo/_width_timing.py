"""How long dense networks of several widths train, and what share of the machine that uses."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jaxtyping import Array, Float, Key

import inojax as ij
from experiments.common.evaluation import Row
from experiments.common.files import load_or_make
from experiments.common.runner import stage

# A thousand epochs of a thousand simulations, as published.
SAMPLES = 1_000_000
# By width: trainable parameters, seconds on a CPU, seconds on a wafer-scale accelerator.
PUBLISHED = {
    32: (39_490, 21.0, 4.9),
    128: (243_970, 47.9, 4.6),
    512: (2_352_130, 221.6, 5.7),
    2048: (31_428_610, 2576.2, 8.9),
}
_LAYERS, _READINGS, _BATCH = 8, 1000, 256
_WARM_UP = 4  # steps
_LEAST_SECONDS, _MOST_RUNS = 1.0, 5


@dataclasses.dataclass(frozen=True)
class Widths:
    """How much is measured.

    Attributes:
        samples: Samples that each width trains on.
        matrix: Size of the square matrices whose product measures the machine's peak.
    """

    samples: dict[int, int]
    matrix: int = 4096


def width_rows(out: Path, widths: Widths, *, key: Key[Array, ""]) -> list[Row]:
    """Measure every width, or read what was measured before.

    Args:
        out: Folder of the results.
        widths: How much is measured.
        key: Source of weights and data.

    Returns:
        A row for each width.
    """
    parts, device = out / "parts", jax.devices()[0].platform
    return [
        load_or_make(
            parts / f"width_{device}_{width}_{samples}.json",
            lambda width=width, samples=samples: _row(width, samples, widths.matrix, key),
        )
        for width, samples in widths.samples.items()
    ]


def peak_flops(size: int) -> float:
    """Floating-point operations per second of a large float32 matrix product, at best."""
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a, b: a @ b)
    return 2.0 * size**3 / min(_times(lambda: product(a, a), 4))


def _times(run: Callable[[], Any], repeats: int) -> list[float]:
    jax.block_until_ready(run())  # compiles
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - began)
    return times


def _row(width: int, samples: int, matrix: int, key: Key[Array, ""]) -> Row:
    stage(f"width {width}: {samples} samples beside products of matrices of {matrix} rows")
    network = ij.nn.Dense((width,) * _LAYERS, glorot=True)((_READINGS, 1), 2, key=key)
    parameters = sum(x.size for x in jax.tree.leaves(network) if isinstance(x, jax.Array))
    steps = max(1, samples // _BATCH)
    data = (
        jr.normal(key, (1024, _READINGS, 1)),
        jr.uniform(jr.fold_in(key, 1), (1024, 2)),
    )

    def seconds(steps: int) -> tuple[float, float]:
        trainer = ij.train.Trainer(optax.adam(2e-3), steps, steps, progress=False)
        log = trainer.fit(network, _loss, data, key=key).log
        return float(log.seconds), float(log.compile_seconds)

    seconds(_WARM_UP)
    before = peak_flops(matrix)
    runs = [seconds(steps)]
    # A short run says little alone.
    while sum(took for took, _ in runs) < _LEAST_SECONDS and len(runs) < _MOST_RUNS:
        runs.append(seconds(steps))
    # A shared machine may be faster at one moment than at the next.
    peak = max(before, peak_flops(matrix))
    took, compiling = statistics.median(took for took, _ in runs), runs[0][1]
    done = steps * _BATCH
    flops = training_flops(width) * done / took
    names = ("parameters", "cpu_seconds", "accelerator_seconds")
    return {
        "table": "f",
        "method": f"dense, width {width}",
        "simulations": None,
        "train_noise": None,
        "test_noise": None,
        "median_ape": None,
        "r2": None,
        "width": width,
        "parameters": parameters,
        "samples": done,
        "seconds": took,
        "seconds_scaled": took * SAMPLES / done,
        "scaled_to_samples": SAMPLES,
        "compile_seconds": compiling,
        "batch": _BATCH,
        "runs": len(runs),
        "platform": jax.devices()[0].platform,
        "device": jax.devices()[0].device_kind,
        "flops_per_second": flops,
        "matrix_product_peak": peak,
        "share_of_peak": flops / peak,
        "published": dict(zip(names, PUBLISHED[width], strict=True)),
    }


def training_flops(width: int) -> float:
    """Operations of matrix products to train on one sample, forward and backward."""
    first, hidden, last = _READINGS * width, (_LAYERS - 1) * width**2, 2 * width
    # Twice for the values, twice for the weights' gradient, twice for the inputs' but the series'.
    return 4.0 * first + 6.0 * (hidden + last)


def _loss(
    model: Any, carry: None, data: tuple[Array, Array], *, key: Key[Array, ""]
) -> tuple[Float[Array, ""], None]:
    series, labels = data
    index = jr.randint(key, (_BATCH,), 0, len(series))
    found = jax.nn.sigmoid(jax.vmap(model)(series[index]))
    return jnp.mean(jnp.square(found - labels[index])), carry
