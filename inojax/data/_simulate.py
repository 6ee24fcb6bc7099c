"""Run a problem's model at many parameter vectors."""

import contextlib
import dataclasses
import functools
import math
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key
from tqdm import tqdm

from .._inverse_problem import InverseProblem
from .._parameters import Design
from ..models import ODEModel, ODESolution
from ..solvers import SolveStatus
from ._dataset import Dataset, SimulationTiming
from ._manifest import RETRY_STEPS, RETRY_TOLERANCE, manifest_of
from ._store import Store

# Lanes of one compiled call on a CPU: enough to fill the vector units, few enough to stay in
# the second-level cache. An accelerator takes a whole chunk at once.
_CPU_LANES = 128
# Failures are few, and their lanes take many steps.
_RETRY_LANES = 32
_WARN_ABOVE = 0.01

Solved = tuple[Float[np.ndarray, "row time state"], Int[np.ndarray, " row"]]


def simulate(
    problem: InverseProblem,
    n: int,
    *,
    store: str | os.PathLike[str] | None = None,
    chunk_size: int = 1024,
    design: Design = Design.SOBOL,
    workers: int | None = None,
    progress: bool = True,
    key: Key[Array, ""],
) -> Dataset:
    """Simulate a problem at `n` parameter vectors spread over its prior.

    Results are the same, bit for bit, with or without a store, for any number of workers or
    devices of one kind, and however often the run was interrupted. A solve that fails is
    tried once more with tolerances 100 times tighter and 10 times the steps, then kept with
    its status.

    With `store`, a kill at any moment loses only the chunks being worked on (two; one more
    for each device beyond the first), and the same call continues. Ctrl-C stops the same
    way, once the compiled calls under way have returned.

    Args:
        problem: What to simulate. Its noise and sensors play no part.
        n: Number of simulations.
        store: Folder of a Zarr group to write to and to resume from; None keeps everything
            in memory. With a store, trajectories are read from it when they are first used.
        chunk_size: Most simulations in a chunk, the unit of storing; chunks are made equally
            large.
        design: How parameters are spread over the prior.
        workers: Threads that run compiled calls at the same time; by default one for each
            core on a CPU, one for each device otherwise.
        progress: Whether to show a progress bar on stderr.
        key: Randomness of the design.

    Returns:
        The simulations; `timing` says where the time went.

    Raises:
        ValueError: If an argument is out of range, or `store` was made by another call.
        OSError: If `store` cannot be written; what is finished is kept.
        KeyboardInterrupt: On Ctrl-C; what is finished is kept in `store`.

    Warns:
        UserWarning: If more than 1 % of the solves fail.
    """
    began = time.perf_counter()
    for name, value in (("n", n), ("chunk_size", chunk_size), ("workers", workers)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1; got {value}.")
    chunk_size = -(-n // -(-n // chunk_size))
    thetas, unit = _draw(problem, n, design, key)
    manifest = manifest_of(problem, thetas, chunk_size=chunk_size, design=design, key=key)
    arrays = {"thetas": thetas, "unit": unit, "times": np.asarray(problem.model.times, np.float64)}
    with _open_sink(store, manifest, arrays) as sink:
        solver = _Solver(problem.model, chunk_size, workers)
        _run(solver, sink, functools.partial(tqdm, desc=problem.name, disable=not progress))
        dataset = sink.dataset()
    dataset.timing = SimulationTiming(
        total_seconds=time.perf_counter() - began,
        compile_seconds=solver.compile_seconds,
        simulated=sum(solver.solved),
        retried=sum(solver.retried),
    )
    _warn_of_failures(dataset, problem.name)
    return dataset


def _draw(
    problem: InverseProblem, n: int, design: Design, key: Key[Array, ""]
) -> tuple[Float[np.ndarray, "n parameter"], Float[np.ndarray, "n parameter"]]:
    space = problem.parameters
    with jax.enable_x64(True):
        thetas = np.asarray(space.design(n, kind=design, key=key), np.float64)
        return thetas, np.asarray(space.to_unit(thetas), np.float64)


@dataclasses.dataclass
class _Memory:
    """What `Store` is on disk."""

    thetas: np.ndarray
    chunk_size: int
    chunks: int
    whole: Dataset

    def finished(self) -> list[int]:
        return []

    def write(self, chunk: int, states: np.ndarray, status: np.ndarray) -> None:
        rows = slice(chunk * self.chunk_size, chunk * self.chunk_size + len(status))
        self.whole.trajectories[rows] = states
        self.whole.status[rows] = status

    def dataset(self) -> Dataset:
        return self.whole


_Sink = Store | _Memory


@contextlib.contextmanager
def _open_sink(
    store: str | os.PathLike[str] | None,
    manifest: dict[str, Any],
    arrays: dict[str, np.ndarray],
) -> Iterator[_Sink]:
    if store is not None:
        with Store.resume(Path(store), manifest, arrays) as sink:
            yield sink
        return
    n, size = manifest["n"], manifest["chunk_size"]
    whole = Dataset(
        arrays["thetas"],
        arrays["unit"],
        times=arrays["times"],
        trajectories=np.empty((n, len(manifest["times"]), len(manifest["states"]))),
        status=np.empty(n, np.int32),
        manifest=manifest,
    )
    yield _Memory(arrays["thetas"], size, -(-n // size), whole)


class _Solver:
    """Solves of fixed shape, so that each device compiles once, run by a pool of threads.

    JAX lets go of Python's lock while a compiled call runs, so threads keep all cores, or
    all devices, busy.
    """

    def __init__(self, model: ODEModel, chunk_size: int, workers: int | None) -> None:
        self.on_cpu = _on_cpu()
        # Several CPU devices are slices of the same cores, which the threads fill anyway.
        self.devices = jax.local_devices()[: 1 if self.on_cpu else None]
        self.workers = workers or (_cores() if self.on_cpu else len(self.devices))
        lanes = min(_CPU_LANES, chunk_size) if self.on_cpu else chunk_size
        self.lanes = {False: lanes, True: min(_RETRY_LANES, lanes)}
        self.models = {False: model, True: _tightened(model)}
        self.stop = threading.Event()
        self._first = {
            (retry, device): threading.Lock()
            for retry in (False, True)
            for device in range(len(self.devices))
        }
        # Appending to a list is safe from several threads; adding to a number is not.
        self.seconds: dict[tuple[bool, int], list[float]] = {which: [] for which in self._first}
        self.solved: list[int] = []
        self.retried: list[int] = []

    @property
    def compile_seconds(self) -> float:
        """What first calls took beyond the quickest later ones."""
        return math.fsum(
            max(0.0, s[0] - min(s[1:], default=0.0)) for s in self.seconds.values() if s
        )

    def solve(self, pool: ThreadPoolExecutor, thetas: np.ndarray, chunk: int) -> Solved:
        """All trajectories of a chunk, failures retried."""
        states, status = self._map(pool, thetas, chunk, retry=False)
        failed = np.flatnonzero(status != SolveStatus.SUCCESS)
        if len(failed):
            states[failed], status[failed] = self._map(pool, thetas[failed], chunk, retry=True)
        self.solved.append(len(thetas))
        self.retried.append(len(failed))
        return states, status

    def _map(
        self, pool: ThreadPoolExecutor, thetas: np.ndarray, chunk: int, *, retry: bool
    ) -> Solved:
        lanes = self.lanes[retry]
        blocks = [thetas[i : i + lanes] for i in range(0, len(thetas), lanes)]
        # Which device solves which block depends on neither timing nor earlier runs.
        devices = [(chunk + i) % len(self.devices) for i in range(len(blocks))]
        parts = list(pool.map(lambda block, d: self._block(block, d, retry), blocks, devices))
        return np.concatenate([s for s, _ in parts]), np.concatenate([s for _, s in parts])

    def _block(self, thetas: np.ndarray, device: int, retry: bool) -> Solved:
        if self.stop.is_set():
            raise _Stopped
        count, lanes = len(thetas), self.lanes[retry]
        padded = np.concatenate([thetas, np.repeat(thetas[-1:], lanes - count, axis=0)])
        states, status = self._timed(retry, device, padded)
        status = np.array(status[:count], np.int32)
        finite = np.isfinite(states[:count]).all(axis=(1, 2))
        status[(status == SolveStatus.SUCCESS) & ~finite] = SolveStatus.NON_FINITE
        return states[:count], status

    def _timed(self, retry: bool, device: int, thetas: np.ndarray) -> Solved:
        seconds = self.seconds[retry, device]
        # The first call compiles; others wait for it instead of compiling the same again.
        lock = contextlib.nullcontext() if seconds else self._first[retry, device]
        with lock:
            began = time.perf_counter()
            solved = self._call(self.models[retry], self.devices[device], thetas)
            seconds.append(time.perf_counter() - began)
        return solved

    def _call(self, model: ODEModel, device: Any, thetas: np.ndarray) -> Solved:
        if self.on_cpu:
            # The host path, so that this and any other ensemble of the model compile once.
            solution = model.solve_ensemble(thetas)
        else:
            with jax.enable_x64(True):  # The setting belongs to the thread.
                solution = _solve_together(model, jax.device_put(thetas, device))
        return np.asarray(solution.states), np.asarray(solution.status)


@eqx.filter_jit
def _solve_together(model: ODEModel, thetas: Float[Array, "lane parameter"]) -> ODESolution:
    return model.solve_ensemble(thetas)


class _Stopped(Exception):  # noqa: N818 - not an error, only the way out of a worker
    """The run was interrupted before this block."""


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"


def _cores() -> int:
    """Cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _tightened(model: ODEModel) -> ODEModel:
    # Below 1e-13 a relative tolerance asks for more than float64 holds.
    rtol = min(model.rtol, max(model.rtol * RETRY_TOLERANCE, 1e-13))
    return model.replace(
        rtol=rtol,
        atol=model.atol * RETRY_TOLERANCE,
        max_steps=model.max_steps * RETRY_STEPS,
    )


def _run(solver: _Solver, sink: _Sink, make_bar: Callable[..., Any]) -> None:
    """Solve and write every unfinished chunk, a few at a time."""
    finished = set(sink.finished())
    todo = [chunk for chunk in range(sink.chunks) if chunk not in finished]

    def rows(chunk: int) -> np.ndarray:
        return sink.thetas[chunk * sink.chunk_size : (chunk + 1) * sink.chunk_size]

    def work(chunk: int) -> int:
        states, status = solver.solve(pool, rows(chunk), chunk)
        sink.write(chunk, states, status)
        return len(status)

    done = sum(len(rows(chunk)) for chunk in finished)
    # One chunk beyond the devices is in flight, so that solving goes on while another chunk
    # is gathered and written.
    ahead = ThreadPoolExecutor(1 + len(solver.devices))
    bar = make_bar(initial=done, total=len(sink.thetas))
    with ThreadPoolExecutor(solver.workers) as pool, ahead, bar:
        futures = [ahead.submit(work, chunk) for chunk in todo]
        try:
            for future in as_completed(futures):
                bar.update(future.result())
        except BaseException:
            solver.stop.set()
            ahead.shutdown(wait=False, cancel_futures=True)
            raise


def _warn_of_failures(dataset: Dataset, name: str) -> None:
    if dataset.failure_rate <= _WARN_ABOVE:
        return
    counts = {
        SolveStatus(int(status)): int(np.sum(dataset.status == status))
        for status in np.unique(dataset.status[~dataset.ok])
    }
    reasons = " ".join(f"{count} x {s.name}: {s.message}" for s, count in counts.items())
    warnings.warn(
        f"{np.sum(~dataset.ok)} of {len(dataset)} simulations of {name!r} "
        f"({100 * dataset.failure_rate:.3g} %) failed, also with tighter tolerances. Training "
        "leaves them out, so what it learns belongs to a distorted prior that lacks their "
        "parameters. `dataset.thetas[~dataset.ok]` shows which, `dataset.status` why. "
        f"{reasons}",
        stacklevel=3,
    )
