"""How experiments measure test cases, invert many of them, and time that."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Key

import inojax as ij

BATCH = 256
_REPEATS = 20

Row = dict[str, Any]


def observe(
    problem: ij.InverseProblem, dataset: ij.Dataset, *, key: Key[Array, ""]
) -> ij.Observation:
    """Measure every simulation once: random times and noise, in float64, on the host."""
    with jax.enable_x64(True):
        keys = jr.split(key, len(dataset))
        measure = jax.jit(jax.vmap(lambda y, theta, k: problem.observe(y, theta, key=k)))
        return jax.tree.map(np.asarray, measure(dataset.trajectories, dataset.thetas, keys))


def take(tree: Any, index: Any) -> Any:
    """Some entries of a batch."""
    return jax.tree.map(lambda x: x[index], tree)


def invert_all(
    inverter: ij.methods.AbstractInverter,
    observations: ij.Observation,
    *,
    key: Key[Array, ""],
    fill: bool = True,
) -> ij.Estimate:
    """Invert a batch of any length in compiled calls of one size, or as few as there are."""
    count = observations.mask.shape[0]
    parts = []
    for start in range(0, count, BATCH):
        some = np.arange(start, start + BATCH) % count
        some = some if fill else np.arange(start, min(start + BATCH, count))
        part = ij.methods.invert_batch(
            inverter, take(observations, some), key=jr.fold_in(key, start)
        )
        parts.append(jax.tree.map(np.asarray, part))
    return jax.tree.map(lambda *xs: np.concatenate(xs)[:count], *parts)


def seconds_single(
    inverter: ij.methods.AbstractInverter, observations: ij.Observation, *, key: Key[Array, ""]
) -> float:
    """Time of one warm call of the inverter, the solve that checks the estimate included."""
    one = take(observations, 0)
    return median_seconds(lambda: jax.block_until_ready(inverter(one, key=key)), _REPEATS)


def median_seconds(run: Callable[[], object], repeats: int) -> float:
    """Median time of several calls, after one that compiles."""
    run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times)
