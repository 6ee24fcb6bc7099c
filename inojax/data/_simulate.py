"""Run a problem's model at many parameter vectors."""

import contextlib
import dataclasses
import functools
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key
from tqdm import tqdm

from .._inverse_problem import InverseProblem
from .._parameters import Design
from ..models._calls import compile_seconds
from ..models._ode import ODEModel
from ..models._pde import PDEModel
from ..solvers import SolveStatus
from ._compare import Comparison
from ._dataset import Dataset, SimulationTiming, dataset_of
from ._manifest import manifest_of
from ._second_look import settle, some_of
from ._store import Finished, Store

_WARN_ABOVE = 0.01

Solved = tuple[Float[np.ndarray, "row time state"], Int[np.ndarray, " row"]]


def simulate(  # noqa: PLR0913 - flat keywords, as in ODEModel
    problem: InverseProblem,
    n: int,
    *,
    store: str | os.PathLike[str] | None = None,
    chunk_size: int = 1024,
    design: Design = Design.SOBOL,
    mesh: jax.sharding.Mesh | None = None,
    share: tuple[int, int] | None = None,
    accept: bool = False,
    progress: bool = True,
    key: Key[Array, ""],
) -> Dataset:
    """Simulate a problem at `n` parameter vectors spread over its prior.

    Results are the same, bit for bit, with or without a store, for any number of cores or
    devices of one kind, and however often the run was interrupted (as far as LAPACK rounds alike
    on any number of threads, where a large dense Jacobian leaves the factorization to it). A
    solve that fails is tried once more with tolerances 100 times tighter and 10 times the
    steps, then kept with its status.

    With `store`, a kill at any moment loses only the chunks being worked on (two; one more
    for each device beyond the first), and the same call continues. Ctrl-C stops the same
    way, once those chunks are solved.

    Several processes fill one store together: each makes the same call but for its `share`.
    The first lays out the store under a file lock; where the file system has none between
    machines, make the call with one share first, and the others when the store is there.

    Args:
        problem: What to simulate. Its noise and sensors play no part.
        n: Number of simulations.
        store: Folder of a Zarr group to write to and to resume from; None keeps everything
            in memory. With a store, trajectories are read from it when they are first used.
        chunk_size: Most simulations in a chunk, the unit of storing; chunks are made equally
            large.
        design: How parameters are spread over the prior.
        mesh: Devices to use; by default the CPU, or all accelerators of this process.
        share: Which part of the work is this process's, as (index, number of parts): every so
            many chunks, from the one with that index on. By default its place among the processes
            of `jax.distributed`, or everything where there is no store to share.
        accept: Whether to go on with a store whose equations are written in another way. Some of
            its simulations are solved again first, and where they differ it is refused all the
            same.
        progress: Whether to show a progress bar on stderr.
        key: Randomness of the design.

    Returns:
        The simulations; `timing` says where the time went. With a share, those that were
        finished at the end of the call, by whichever process.

    Raises:
        ValueError: If an argument is out of range, or `store` was made by another call or for
            another problem; the message says what differs.
        OSError: If `store` cannot be written; what is finished is kept.
        KeyboardInterrupt: On Ctrl-C; what is finished is kept in `store`.

    Warns:
        UserWarning: If more than 1 % of the solves fail, or if the trajectories of `store` alone
            say that it is of this problem.

    Example:
        >>> dataset = ij.simulate(ij.problems.robertson(), 16, key=jr.key(0), progress=False)
        >>> dataset.trajectories.shape[0], dataset.thetas.shape
        (16, (16, 3))
    """
    began = time.perf_counter()
    for name, value in (("n", n), ("chunk_size", chunk_size)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1; got {value}.")
    share = _checked_share(share, shared=store is not None)
    chunk_size = -(-n // -(-n // chunk_size))
    thetas, unit = _draw(problem, n, design, key)
    manifest = manifest_of(problem, thetas, chunk_size=chunk_size, design=design, key=key)
    arrays = {"thetas": thetas, "unit": unit, "times": np.asarray(problem.model.times, np.float64)}
    settle = functools.partial(_settle, problem, store, accept)
    with _open_sink(store, manifest, arrays, shared=share[1] > 1, settle=settle) as sink:
        solver = _Solver(problem.model, mesh)
        make_bar = functools.partial(tqdm, desc=problem.name, disable=not progress)
        _run(solver, sink, range(sink.chunks)[share[0] :: share[1]], make_bar)
        dataset = sink.whole if isinstance(sink, _Memory) else dataset_of(sink.simulations())
    dataset.timing = SimulationTiming(
        total_seconds=time.perf_counter() - began,
        compile_seconds=solver.compile_seconds,
        simulated=sum(solver.solved),
        retried=sum(solver.retried),
    )
    _warn_of_failures(dataset, problem.name)
    return dataset


def _checked_share(share: tuple[int, int] | None, *, shared: bool) -> tuple[int, int]:
    if share is None:
        return (jax.process_index(), jax.process_count()) if shared else (0, 1)
    index, parts = share
    if not 0 <= index < parts:
        raise ValueError(
            f"`share` must be (index, number of parts), the index from 0 on; got {share}."
        )
    if parts > 1 and not shared:
        raise ValueError("A `share` of the work needs a `store` to bring the parts together.")
    return share


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


_Sink = Store | _Memory


@contextlib.contextmanager
def _open_sink(
    store: str | os.PathLike[str] | None,
    manifest: dict[str, Any],
    arrays: dict[str, np.ndarray],
    *,
    shared: bool,
    settle: Callable[[Comparison, Finished], None],
) -> Iterator[_Sink]:
    if store is not None:
        with Store.resume(Path(store), manifest, arrays, shared=shared, settle=settle) as sink:
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


def _settle(
    problem: InverseProblem, store: Any, accept: bool, comparison: Comparison, found: Finished
) -> None:
    settle(
        comparison,
        lambda: some_of(dataset_of(found)) if len(found.thetas) else None,
        problem,
        accept=accept,
        beginning=f"The `store` at {store} was made by another call",
        remedy="Give another folder, or delete this one.",
    )


class _Solver:
    """Solves whole chunks, and counts what it did."""

    def __init__(self, model: ODEModel | PDEModel, mesh: jax.sharding.Mesh | None) -> None:
        self.model = model
        self.meshes = _one_for_each_device(mesh)
        self.stop = threading.Event()
        self._compiled_before = compile_seconds()
        # Appending to a list is safe from several threads; adding to a number is not.
        self.solved: list[int] = []
        self.retried: list[int] = []

    @property
    def compile_seconds(self) -> float:
        """What compiling took since this solver was made."""
        return compile_seconds() - self._compiled_before

    def solve(self, thetas: np.ndarray, chunk: int) -> Solved:
        """All trajectories of a chunk, failures retried; devices take turns."""
        if self.stop.is_set():
            raise _Stopped
        solution = self.model.solve_ensemble(
            thetas, retry=True, mesh=self.meshes[chunk % len(self.meshes)]
        )
        self.solved.append(len(thetas))
        self.retried.append(solution.retried)
        return np.asarray(solution.states), np.asarray(solution.status, np.int32)


def _one_for_each_device(mesh: jax.sharding.Mesh | None) -> list[jax.sharding.Mesh | None]:
    """Which devices solve which chunk; the CPU's cores share each chunk among them."""
    if mesh is None and jax.default_backend() == "cpu":
        return [None]
    devices = jax.local_devices() if mesh is None else list(mesh.local_devices)
    return [jax.sharding.Mesh(np.array([device]), ("simulation",)) for device in devices]


class _Stopped(Exception):  # noqa: N818 - not an error, only the way out of a worker
    """The run was interrupted before this chunk."""


def _run(solver: _Solver, sink: _Sink, chunks: Sequence[int], make_bar: Callable[..., Any]) -> None:
    """Solve and write the unfinished ones of `chunks`, a few at a time."""
    finished = set(sink.finished()) & set(chunks)
    todo = [chunk for chunk in chunks if chunk not in finished]

    def rows(chunk: int) -> np.ndarray:
        return sink.thetas[chunk * sink.chunk_size : (chunk + 1) * sink.chunk_size]

    def work(chunk: int) -> int:
        states, status = solver.solve(rows(chunk), chunk)
        sink.write(chunk, states, status)
        return len(status)

    done = sum(len(rows(chunk)) for chunk in finished)
    # One chunk beyond the devices is in flight, so that solving goes on while another is written.
    ahead = ThreadPoolExecutor(1 + len(solver.meshes))
    bar = make_bar(initial=done, total=sum(len(rows(chunk)) for chunk in chunks))
    with ahead, bar:
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
