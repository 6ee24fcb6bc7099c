"""Many trajectories as compiled calls of few shapes, spread over cores and devices."""

import functools
import itertools
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

from .._x64 import is_traced

# `block(fixed, rows, how many rows are meant, lanes)`, where `fixed` and `rows` are PyTrees. The
# arrays of `rows` and those that it returns have a leading axis of rows.
Block = Callable[..., Any]


class Shape(NamedTuple):
    """Size of a compiled call: trajectories it has room for, and how many advance together."""

    rows: int
    lanes: int


class _Call(NamedTuple):
    rows: Any  # padded to the call's shape
    begin: int  # number of the first among all
    meant: int  # how many of them are
    lanes: int


# Few shapes, since each is compiled; a call may be filled in part. On a CPU 96 lanes keep the
# work in the second-level cache (64 or 128 compete for the same places in it), and ten
# trajectories for each lane keep them all busy; an accelerator wants thousands. A trajectory with
# sensitivities is as much work as dozens without.
_CPU = (Shape(1, 1), Shape(8, 8), Shape(64, 16), Shape(1024, 96))
_CPU_SENSITIVITIES = (Shape(1, 1), Shape(16, 8), Shape(64, 16), Shape(256, 32))
_ACCELERATOR = (Shape(8, 8), Shape(1024, 1024), Shape(65_536, 16_384))
_ACCELERATOR_SENSITIVITIES = (Shape(8, 8), Shape(2048, 1024))


def _shapes(platform: str, sensitivities: bool) -> tuple[Shape, ...]:
    """Shapes of calls, the smallest first."""
    if platform == "cpu":
        return _CPU_SENSITIVITIES if sensitivities else _CPU
    return _ACCELERATOR_SENSITIVITIES if sensitivities else _ACCELERATOR


# A step is hundreds of small operations in a row, which the compiler's default order, made for
# running several at once, does not suit: with the other one POLLU with its sensitivities takes
# three quarters of the time. The older code generator compiles it in two thirds of the time.
_OPTIONS = (
    {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"},
    {"xla_cpu_use_fusion_emitters": False},
)


class compiled:  # noqa: N801 - a decorator
    """`block` under `equinox.filter_jit`, with compiler options for ensembles on a CPU.

    Attributes:
        traced: The same without options: inside a transformation these are set outside.
    """

    def __init__(self, block: Block) -> None:
        """Compile nothing yet."""
        self.traced = eqx.filter_jit(block)
        self._block = block
        functools.update_wrapper(self, block)

    @functools.cache  # noqa: B019 - blocks live as long as their modules
    def _on(self, platform: str) -> Block:
        options = _options() if platform == "cpu" else {}
        return eqx.filter_jit(self._block, compiler_options=options)  # pyright: ignore[reportCallIssue]

    def __call__(self, *args: Any) -> Any:
        return self._on(jax.default_backend())(*args)


@functools.cache
def _options() -> dict[str, Any]:
    """Those options that this version of the compiler knows."""

    def known(option: dict[str, Any]) -> bool:
        try:
            jax.jit(lambda: 0.0, compiler_options=option).lower().compile()
        except jax.errors.JaxRuntimeError:
            return False
        return True

    return {name: value for option in _OPTIONS if known(option) for name, value in option.items()}


def in_calls(
    block: compiled,
    fixed: Any,
    rows: Any,
    *,
    count: Any = None,
    mesh: jax.sharding.Mesh | None = None,
    sensitivities: bool = False,
    one_by_one: bool = False,
) -> Any:
    """Run `block` over all rows and join the results: in calls on the host, else as it is.

    Inside of a transformation all rows are part of the program that is being traced. On a CPU
    calls from several Python threads overlap, and one for each core keeps the machine busy; the
    operations of a single call are too small for that. What a row gives does not depend on the
    call it falls into.

    Args:
        block: What to run.
        fixed: Its first argument, the same for all rows.
        rows: PyTree of arrays with a row for each trajectory, at least one.
        count: Inside a transformation, how many of the rows are meant, if not all.
        mesh: Devices to use; by default the CPU, or all accelerators of this process.
        sensitivities: Whether `block` carries derivatives along.
        one_by_one: Whether calls must not overlap. Two that factor batches of matrices by LAPACK
            on a CPU at the same time may wait for each other for ever.

    Returns:
        The result of `block`, as NumPy arrays unless traced.
    """
    if is_traced(fixed, rows, count):
        size = _count(rows)
        lanes = _lanes_inside(size, sensitivities)
        return block.traced(fixed, rows, size if count is None else count, lanes)
    rows = jax.tree.map(np.asarray, rows)
    devices = _devices(mesh)
    workers = 1 if one_by_one else _workers(devices)
    calls = _cut(rows, _shapes(devices[0].platform, sensitivities), workers)

    joined = _Joined(_count(rows))

    def run(number: int) -> None:
        rows, begin, meant, lanes = calls[number]
        # Both settings belong to the thread. Rows that are not meant, and failures, are NaN.
        with jax.enable_x64(True), jax.debug_nans(False):
            placed = jax.device_put(rows, devices[number % len(devices)])
            joined.put(block(fixed, placed, np.asarray(meant), lanes), begin, meant)

    for device in range(min(len(devices), len(calls))):
        _compile_once(block, fixed, calls[0], devices[device])
    if len(calls) == 1:
        run(0)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(run, range(len(calls))))
    return joined.result()


def _lanes_inside(size: int, sensitivities: bool) -> int:
    """How many rows of a call inside a transformation advance together."""
    # An accelerator has room for all at once.
    cpu = jax.default_backend() == "cpu"
    return _shapes("cpu", sensitivities)[-1].lanes if cpu else size


def _count(rows: Any) -> int:
    return len(jax.tree.leaves(rows)[0])


class _Joined:
    """Results of calls, copied to where they belong in the whole as they come."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.lock = threading.Lock()
        self.structure: Any = None
        self.leaves: list[np.ndarray] = []

    def put(self, part: Any, begin: int, count: int) -> None:
        """Rows become rows of the whole; numbers are added up."""
        leaves, structure = jax.tree.flatten(part)
        arrays = [np.asarray(leaf) for leaf in leaves]
        with self.lock:
            if self.structure is None:
                self.structure = structure
                self.leaves = [
                    np.empty((self.size, *x.shape[1:]), x.dtype) if x.ndim else np.zeros_like(x)
                    for x in arrays
                ]
            for whole, array in zip(self.leaves, arrays, strict=True):
                if not array.ndim:
                    np.add(whole, array, out=whole)
        for whole, array in zip(self.leaves, arrays, strict=True):
            if array.ndim:
                whole[begin : begin + count] = array[:count]

    def result(self) -> Any:
        """All of it."""
        return jax.tree.unflatten(self.structure, self.leaves)


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


def _cut(rows: Any, shapes: Sequence[Shape], workers: int) -> list[_Call]:
    count = _count(rows)
    shape = next((s for s in shapes if s.rows >= count), shapes[-1])
    # Full calls, unless there is too little to give each worker one: then shares of equal size.
    number = max(-(-count // shape.rows), min(workers, -(-count // shape.lanes)))
    bounds = np.linspace(0, count, number + 1).astype(int).tolist()

    def part(begin: int, end: int) -> Any:
        # The last row again and again, where a call has room for more.
        index = np.minimum(np.arange(begin, begin + shape.rows), end - 1)
        return jax.tree.map(lambda x: x[index], rows)

    return [
        _Call(part(begin, end), begin, end - begin, shape.lanes)
        for begin, end in itertools.pairwise(bounds)
    ]


_compiled: set[Any] = set()
_lock = threading.Lock()
_seconds: list[float] = []


def compile_seconds() -> float:
    """Time that this process has spent compiling ensembles so far.

    Example:
        >>> ij.models.compile_seconds() >= 0.0
        True
    """
    return math.fsum(_seconds)


def _compile_once(block: Block, fixed: Any, call: _Call, device: Any) -> None:
    """Make sure that the calls to come find the function compiled instead of all compiling it."""
    arrays, static = eqx.partition((fixed, call.rows), eqx.is_array)
    shapes = tuple((np.shape(x), np.result_type(x)) for x in jax.tree.leaves(arrays))
    leaves, structure = jax.tree.flatten(static)
    which = (block, structure, tuple(leaves), shapes, call.lanes, device)
    with _lock:
        if which in _compiled:
            return
        began = time.perf_counter()
        # With none of its rows meant, the call is over at once.
        with jax.enable_x64(True), jax.debug_nans(False):
            placed = jax.device_put(call.rows, device)
            jax.block_until_ready(block(fixed, placed, np.asarray(0), call.lanes))
        _seconds.append(time.perf_counter() - began)
        _compiled.add(which)
