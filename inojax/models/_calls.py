"""Many trajectories as compiled calls of few shapes, spread over cores and devices."""

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

# `block(model, rows of thetas, how many of them are meant, times, lanes)`: arrays with a leading
# axis of rows.
Block = Callable[..., Any]


class Shape(NamedTuple):
    """Size of a compiled call: trajectories it has room for, and how many advance together."""

    rows: int
    lanes: int


# Few shapes, since each is compiled; a call may be filled in part. On a CPU 64 lanes keep the
# work in the second-level cache, and eight trajectories for each lane keep them all busy; an
# accelerator wants thousands. A trajectory with sensitivities is as much work as dozens without.
_CPU = (Shape(1, 1), Shape(8, 8), Shape(64, 16), Shape(512, 64))
_CPU_SENSITIVITIES = (Shape(1, 1), Shape(64, 16))
_ACCELERATOR = (Shape(8, 8), Shape(1024, 1024), Shape(65_536, 16_384))
_ACCELERATOR_SENSITIVITIES = (Shape(8, 8), Shape(2048, 1024))


def _shapes(platform: str, sensitivities: bool) -> tuple[Shape, ...]:
    """Shapes of calls, the smallest first."""
    if platform == "cpu":
        return _CPU_SENSITIVITIES if sensitivities else _CPU
    return _ACCELERATOR_SENSITIVITIES if sensitivities else _ACCELERATOR


def in_calls(
    block: Block,
    model: Any,
    thetas: Float[np.ndarray, "batch parameter"],
    times: Float[np.ndarray, " time"],
    *,
    mesh: jax.sharding.Mesh | None = None,
    sensitivities: bool = False,
) -> Any:
    """Run `block` over all rows of `thetas` and join the results.

    A compiled CPU computation of this kind runs on one core; calls from several Python threads
    overlap, so one thread for each core keeps the machine busy. What a row gives does not depend
    on the call it falls into.

    Args:
        block: What to run.
        model: Its first argument.
        thetas: Parameters, one row for each trajectory.
        times: Output times.
        mesh: Devices to use; by default the CPU, or all accelerators of this process.
        sensitivities: Whether `block` carries derivatives along.

    Returns:
        The result of `block` as NumPy arrays.

    Raises:
        ValueError: If `thetas` has another shape or no row.
    """
    if thetas.ndim != 2 or thetas.shape[0] == 0:
        raise ValueError(
            f"`thetas` must have shape (batch, parameter), at least one row; got {thetas.shape}."
        )
    devices = _devices(mesh)
    workers = _workers(devices)
    calls = _cut(thetas, _shapes(devices[0].platform, sensitivities), workers)

    def run(number: int) -> Any:
        rows, count, lanes = calls[number]
        # Both settings belong to the thread. Rows that are not meant, and failures, are NaN.
        with jax.enable_x64(True), jax.debug_nans(False):
            placed = jax.device_put(rows, devices[number % len(devices)])
            result = block(model, placed, np.asarray(count), times, lanes)
            return jax.tree.map(lambda x: np.asarray(x)[:count] if np.ndim(x) else x, result)

    for device in range(min(len(devices), len(calls))):
        _compile_once(block, model, calls[0], times, devices[device])
    if len(calls) == 1:
        return _join([run(0)])
    with ThreadPoolExecutor(workers) as pool:
        return _join(list(pool.map(run, range(len(calls)))))


def _devices(mesh: jax.sharding.Mesh | None) -> list[Any]:
    if mesh is not None:
        return list(mesh.local_devices)
    # Several CPU devices are slices of the same cores, which the threads fill anyway.
    return jax.local_devices()[: 1 if jax.default_backend() == "cpu" else None]


def _workers(devices: Sequence[Any]) -> int:
    return max(cores(), len(devices)) if devices[0].platform == "cpu" else len(devices)


def cores() -> int:
    """Cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _cut(
    thetas: np.ndarray, shapes: Sequence[Shape], workers: int
) -> list[tuple[np.ndarray, int, int]]:
    """Padded rows, how many of them are meant, and lanes of each call, in order."""
    count = len(thetas)
    shape = next((s for s in shapes if s.rows >= count), shapes[-1])
    # Full calls, unless there is too little to give each worker one: then shares of equal size.
    number = max(-(-count // shape.rows), min(workers, -(-count // shape.lanes)))
    parts = [p for p in np.array_split(thetas, number) if len(p)]
    return [
        (np.concatenate([p, np.repeat(p[-1:], shape.rows - len(p), axis=0)]), len(p), shape.lanes)
        for p in parts
    ]


def _join(parts: list[Any]) -> Any:
    def join(*xs: Any) -> Any:
        return np.concatenate(xs) if np.ndim(xs[0]) else np.asarray(np.sum(xs))

    return jax.tree.map(join, *parts)


_compiled: set[Any] = set()
_lock = threading.Lock()
_seconds: list[float] = []


def compile_seconds() -> float:
    """Time that this process has spent compiling ensembles so far."""
    return math.fsum(_seconds)


def _compile_once(
    block: Block, model: Any, call: tuple[np.ndarray, int, int], times: np.ndarray, device: Any
) -> None:
    """Make sure that the calls to come find the function compiled instead of all compiling it."""
    arrays, static = eqx.partition(model, eqx.is_array)
    shapes = tuple(np.shape(x) for x in jax.tree.leaves(arrays))
    leaves, structure = jax.tree.flatten(static)
    rows, _, lanes = call
    which = (block, structure, tuple(leaves), shapes, rows.shape, lanes, times.shape, device)
    with _lock:
        if which in _compiled:
            return
        began = time.perf_counter()
        # With none of its rows meant, the call is over at once.
        with jax.enable_x64(True), jax.debug_nans(False):
            jax.block_until_ready(
                block(model, jax.device_put(rows, device), np.asarray(0), times, lanes)
            )
        _seconds.append(time.perf_counter() - began)
        _compiled.add(which)
