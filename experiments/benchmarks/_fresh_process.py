"""What a user meets in a new process: compiling, a cache from yesterday, a store to fill."""

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import jax
import jax.random as jr

import inojax as ij


def measured(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def streamed(count: int, store: Path) -> dict[str, float | None]:
    """Simulate POLLU into an empty store, and delete it."""
    shutil.rmtree(store, ignore_errors=True)
    began = time.perf_counter()
    dataset = ij.simulate(ij.problems.pollu(), count, store=store, progress=False, key=jr.key(0))
    taken = time.perf_counter() - began
    assert dataset.ok.all()
    assert dataset.timing is not None
    shutil.rmtree(store)
    return {
        "trajectories": count,
        "seconds": taken,
        "compile_seconds": dataset.timing.compile_seconds,
        "peak_memory_mib": peak_memory_mib(),
    }


def peak_memory_mib() -> float | None:
    """Most memory this process has had at once, where Linux says so."""
    # Not from `getrusage`: its number survives the start of a process from a larger one.
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**10


def started(cache: Path, count: int) -> dict[str, float]:
    """Solve POLLU for the first time in a process, with a persistent compilation cache."""
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    problem = ij.problems.pollu()
    thetas = problem.parameters.design(count, key=jr.key(0))
    began = time.perf_counter()
    problem.model.solve_ensemble(thetas)
    first = time.perf_counter() - began
    began = time.perf_counter()
    problem.model.solve_ensemble(thetas)
    return {"first_seconds": first, "second_seconds": time.perf_counter() - began}
