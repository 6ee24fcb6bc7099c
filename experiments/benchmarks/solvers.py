"""Stiff ensembles: accuracy and time of many trajectories, side by side in one run.

Result:   what a trajectory costs and how exact it is, which every simulation-based method pays.
Command:  python experiments/benchmarks/solvers.py --preset {smoke,quick,paper} --out DIR
Runtime:  quick 9 min on two CPU cores; docs/pages/solvers.md holds the result.
Expected: on POLLU `solve_ensemble` at least 40 times as fast as Diffrax's Kvaerno5 under vmap, 10
          times as SciPy's LSODA and 5 times as CVODE on both cores, at no larger error.

Rivals get what they can use: an analytic Jacobian in NumPy and one process for each core (SciPy's
LSODA, BDF, Radau and, with scikit-sundae installed, CVODE); jit and vmap, whose operations XLA
spreads over the cores as it sees fit (Diffrax). Errors are measured against SciPy's Radau at rtol
1e-12, which shares no code with any JAX solver here, relative to the largest value of each state.
Compile time is apart. `pip install -e ".[benchmark]"` brings CVODE.
"""

import dataclasses
import functools
import importlib.util
import itertools
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import diffrax as dfx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array

import inojax as ij
from experiments.benchmarks._fresh_process import measured, started, streamed
from experiments.benchmarks._numpy_solvers import Task, solve
from experiments.common.clocks import Clocks
from experiments.common.files import write_json
from experiments.common.runner import Arguments, Preset, main, run_once, stage
from experiments.common.tables import number, table
from inojax import plot


@dataclasses.dataclass(frozen=True)
class Benchmark(Arguments):
    """The options of this benchmark."""

    out: Path = Path("results/solvers")
    """Folder of all results."""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much a preset computes."""

    problems: tuple[str, ...]
    checked: int  # trajectories whose errors are measured
    batch: int  # trajectories of `solve_ensemble` in the comparison
    rivals: int  # trajectories of the others, at most
    rtols: tuple[float, ...]
    batches: tuple[int, ...]  # sizes for the scaling of `solve_ensemble`
    seconds: float  # a rival solves as many trajectories as fit into so many seconds
    streamed: int  # trajectories of POLLU written to a store


SIZES = {
    Preset.SMOKE: Size(("robertson",), 1, 8, 8, (1e-5,), (1, 16), 0.2, 200),
    Preset.QUICK: Size(
        ("pollu", "robertson", "fitzhugh_nagumo", "grn"),
        8,
        1024,
        256,
        (1e-5, 1e-6, 1e-8),
        (1, 16, 256, 1024, 4096, 16_384),
        3.0,
        50_000,
    ),
    Preset.PAPER: Size(
        ("pollu", "robertson", "fitzhugh_nagumo", "grn"),
        64,
        16_384,
        1024,
        (1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9),
        (1, 16, 256, 1024, 4096, 16_384, 65_536, 262_144),
        30.0,
        50_000,
    ),
}
GLOBALLY = "solve_ensemble, global tolerance"
PROBLEMS = {
    "pollu": ij.problems.pollu,
    "robertson": ij.problems.robertson,  # its prior spreads each rate over four decades
    "fitzhugh_nagumo": ij.problems.fitzhugh_nagumo,
    "grn": ij.problems.grn,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A problem with the parameters it is solved for.

    Attributes:
        name: Name in the catalog.
        model: The model.
        thetas: Parameters.
        exact: Reference trajectories of the first ones.
    """

    name: str
    model: ij.ODEModel
    thetas: np.ndarray
    exact: np.ndarray

    def at(self, rtol: float) -> ij.ODEModel:
        """The model with other tolerances, in their usual proportion."""
        return self.model.with_rtol(rtol)

    def error(self, states: np.ndarray) -> float:
        """Largest error of any state at any time, relative to its largest value."""
        gap = np.abs(states[: len(self.exact)] - self.exact)
        return float((gap / np.abs(self.exact).max(axis=(0, 1))).max())


@dataclasses.dataclass(frozen=True)
class Timed:
    """What a solver did: states, seconds for all of them, and what compiling took apart."""

    states: np.ndarray
    seconds: float
    compile_seconds: float = 0.0
    memory: float | None = None  # MiB of all arrays, where the compiler says so
    wasted: float | None = None


Solver = Callable[[Case, np.ndarray, float], Timed]


def ours(case: Case, thetas: np.ndarray, rtol: float) -> Timed:
    """`ODEModel.solve_ensemble`, which spreads over all cores by itself."""
    return timed_ensemble(case, case.at(rtol), thetas)


def globally(case: Case, thetas: np.ndarray, rtol: float) -> Timed:
    """The same with tolerances for whole trajectories, found with others than those checked."""
    return timed_ensemble(case, case.at(rtol).with_global_tolerance(thetas[-8:]), thetas)


def timed_ensemble(case: Case, model: ij.ODEModel, thetas: np.ndarray) -> Timed:
    """Time and memory of an ensemble, after it has been compiled."""
    before = ij.models.compile_seconds()
    model.solve_ensemble(thetas)
    compiling = ij.models.compile_seconds() - before
    taken, solution = median(lambda: model.solve_ensemble(thetas))
    memory = memory_of_a_call(case) + solution.states.nbytes / 2**20
    return Timed(solution.states, taken, compiling, memory, solution.wasted)


@functools.cache
def memory_of_a_call(case: Case) -> float:
    """MiB of the calls that run at the same time, one for each core, with 1,024 rows each."""
    model = case.model

    def solve(thetas: Array) -> Any:
        starts = jax.vmap(model.start)(thetas)
        times = jnp.asarray(model.times)
        field = model.vector_field
        return ij.solvers.solve_ensemble(field, starts, thetas, times, lanes=96).states

    with jax.enable_x64(True):
        shape = jax.ShapeDtypeStruct((1024, case.thetas.shape[1]), jnp.float64)
        call: Any = jax.jit(solve).lower(shape).compile()
    analysis = call.memory_analysis()
    each = analysis.temp_size_in_bytes + analysis.output_size_in_bytes
    return (os.cpu_count() or 1) * each / 2**20


def diffrax(solver: Callable[[], Any]) -> Solver:
    """A Diffrax solver under jit and vmap."""
    compiled: dict[Any, tuple[Any, float]] = {}

    def run(case: Case, thetas: np.ndarray, rtol: float) -> Timed:
        model = case.at(rtol)
        with jax.enable_x64(True):
            arguments = jnp.asarray(thetas), (jnp.asarray(model.rtol), jnp.asarray(model.atol))
            which = (case.name, thetas.shape)
            if which not in compiled:
                batch = jax.vmap(partial(_solve_with, solver, model), in_axes=(0, None))
                began = time.perf_counter()
                call = jax.jit(batch).lower(*arguments).compile()
                compiled[which] = call, time.perf_counter() - began
            call, compiling = compiled[which]
            taken, states = median(lambda: jax.block_until_ready(call(*arguments)))
        analysis = call.memory_analysis()
        memory = (analysis.temp_size_in_bytes + analysis.output_size_in_bytes) / 2**20
        return Timed(np.asarray(states), taken, compiling, memory)

    return run


def _solve_with(
    solver: Callable[[], Any], model: ij.ODEModel, theta: Array, tolerances: tuple[Array, Array]
) -> Array:
    rtol, atol = tolerances
    solution = dfx.diffeqsolve(
        dfx.ODETerm(model.vector_field),  # pyright: ignore[reportArgumentType]
        solver(), model.initial_time, model.horizon, None, model.start(theta), theta,
        saveat=dfx.SaveAt(ts=jnp.asarray(model.times)), max_steps=16_384, throw=False,
        stepsize_controller=dfx.PIDController(rtol=rtol, atol=atol),
    )  # fmt: skip
    return jnp.asarray(solution.ys)


def numpy_solver(method: str, pool: ProcessPoolExecutor) -> Solver:
    """A solver of SciPy or SUNDIALS in a pool of processes."""

    def run(case: Case, thetas: np.ndarray, rtol: float) -> Timed:
        tasks = list(tasks_of(case, thetas, method, rtol))
        taken, states = seconds(
            lambda: list(
                pool.map(solve, tasks, chunksize=max(1, len(tasks) // (4 * (os.cpu_count() or 1))))
            )
        )
        return Timed(np.array(states), taken)

    return run


def tasks_of(case: Case, thetas: np.ndarray, method: str, rtol: float) -> Iterator[Task]:
    """One task for each trajectory."""
    model = case.at(rtol)
    assert model.atol is not None
    with jax.enable_x64(True):
        starts = [np.asarray(model.start(jnp.asarray(theta))) for theta in thetas]
    span = (model.initial_time, model.horizon)
    for theta, start in zip(thetas, starts, strict=True):
        yield Task(
            case.name, method, np.asarray(theta), start, span, model.times, model.rtol, model.atol
        )


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """Time of one call, and its result."""
    began = time.perf_counter()
    result = run()
    return time.perf_counter() - began, result


def median(run: Callable[[], Any]) -> tuple[float, Any]:
    """Median time of three calls, or that of the only one if it takes long; and a result."""
    timed = [seconds(run)]
    if timed[0][0] < 2.0:
        timed += [seconds(run) for _ in range(2)]
    return statistics.median(t for t, _ in timed), timed[-1][1]


def run(arguments: Benchmark) -> None:
    """Make the table unless it is there, then print it."""
    size = SIZES[arguments.preset]
    make = partial(benchmark, arguments, size)
    draw(run_once("benchmark_solvers", arguments, size, make, report), arguments.out)


def benchmark(arguments: Benchmark, size: Size, _: Clocks) -> dict[str, Any]:
    """Every solver on every problem at every tolerance."""
    workers = os.cpu_count() or 1
    context = get_context("spawn")
    done = Rows(arguments.out / "rows.json")
    with ProcessPoolExecutor(workers, context) as processes:
        list(processes.map(abs, range(8 * workers)))  # start them
        solvers = contenders(processes)
        for name in size.problems:
            case = case_of(name, size, arguments, processes)
            for (method, solver), rtol in itertools.product(solvers.items(), size.rtols):
                task = f"{name}: {method} at rtol {rtol:.0e}"
                done.add(task, partial(measure, case, method, solver, rtol, size))
            task, rtol = f"{name}: global tolerance", size.rtols[-1]
            done.add(task, partial(measure, case, GLOBALLY, globally, rtol, size))
            for count in size.batches:
                task = f"{name}: solve_ensemble, batch of {count}"
                done.add(task, partial(scaling, case, count))
    fresh = Rows(arguments.out / "fresh.json")
    scratch = arguments.out / "scratch"
    fresh.add("stream", lambda: measured(streamed, size.streamed, scratch / "store"))
    if "compilation cache empty" not in fresh.rows:
        shutil.rmtree(scratch / "cache", ignore_errors=True)
    for cache in ("empty", "filled"):
        start = partial(measured, started, scratch / "cache", 512)
        fresh.add(f"compilation cache {cache}", start)
    shutil.rmtree(scratch, ignore_errors=True)
    return {
        "provenance": {"workers": workers},
        "limits": {},
        "rows": list(done.rows.values()),
        "fresh_processes": fresh.rows,
    }


def contenders(processes: ProcessPoolExecutor) -> dict[str, Solver]:
    """Who takes part; CVODE where scikit-sundae is installed."""
    solvers: dict[str, Solver] = {
        "solve_ensemble": ours,
        "Diffrax Kvaerno5": diffrax(dfx.Kvaerno5),
        "Diffrax Kvaerno3": diffrax(dfx.Kvaerno3),
    }
    methods = ["LSODA", "BDF", "Radau"]
    if importlib.util.find_spec("sksundae"):
        methods.append("CVODE")
    return solvers | {
        f"SciPy {m}" if m != "CVODE" else m: numpy_solver(m, processes) for m in methods
    }


class Rows:
    """The rows measured so far, kept in a file so that a stopped run goes on behind the last."""

    def __init__(self, path: Path) -> None:
        """Continue at what the file holds."""
        self.path = path
        self.rows: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}

    def add(self, task: str, run: Callable[[], dict[str, Any]]) -> None:
        """Measure a row unless it is there."""
        if task not in self.rows:
            stage(task)
            self.rows[task] = run()
            write_json(self.path, self.rows)


def case_of(name: str, size: Size, arguments: Benchmark, processes: ProcessPoolExecutor) -> Case:
    """A problem with parameters from its prior and reference trajectories of some."""
    problem, key = PROBLEMS[name](), jr.key(arguments.seed)
    count = max(size.batch, *size.batches)
    thetas = problem.parameters.design(count, kind=ij.Design.RANDOM, key=key)
    empty = np.empty((0, len(problem.model.times), len(problem.model.states)))
    case = Case(name, problem.model, thetas, empty)
    path = arguments.out / f"{name}_reference.npy"
    if not path.exists():
        stage(f"{name}: reference trajectories")
        tasks = tasks_of(case, thetas[: size.checked], "Radau", 1e-12)
        partial_path = path.with_suffix(".part.npy")
        np.save(partial_path, np.array(list(processes.map(solve, tasks))))
        os.replace(partial_path, path)
    exact = np.load(path)
    return dataclasses.replace(case, exact=exact)


def measure(case: Case, method: str, solver: Solver, rtol: float, size: Size) -> dict[str, Any]:
    """One row: as many trajectories as the time allows, at least those that are checked."""
    count = size.batch if method.startswith("solve_ensemble") else min(size.batch, size.rivals)
    if not method.startswith(("solve", "Diffrax")):
        pilot = solver(case, case.thetas[: size.checked], rtol)
        count = int(min(count, max(size.checked, size.seconds * size.checked / pilot.seconds)))
    timed = solver(case, case.thetas[:count], rtol)
    return row_of(case, method, rtol, count, timed)


def scaling(case: Case, count: int) -> dict[str, Any]:
    """One row of `solve_ensemble` at its default tolerance."""
    timed = ours(case, case.thetas[:count], case.model.rtol)
    checked = dataclasses.replace(case, exact=case.exact[:count])
    return row_of(checked, "solve_ensemble", case.model.rtol, count, timed) | {"scaling": True}


def row_of(case: Case, method: str, rtol: float, count: int, timed: Timed) -> dict[str, Any]:
    """A row of the table."""
    return {
        "method": method,
        "problem": case.name,
        "rtol": rtol,
        "batch": count,
        "largest_relative_error": case.error(timed.states),
        "milliseconds_per_trajectory": 1e3 * timed.seconds / count,
        "compile_seconds": timed.compile_seconds,
        "memory_mib": timed.memory,
        "wasted": timed.wasted,
    }


def report(metrics: dict[str, Any]) -> str:
    """A table for each problem, then how `solve_ensemble` scales with the batch."""
    rows = metrics["rows"]
    header = (
        "method",
        "rtol",
        "batch",
        "error",
        "ms each",
        "times ours",
        "compile s",
        "MiB",
        "wasted",
    )
    parts = []
    for name in dict.fromkeys(row["problem"] for row in rows):
        mine = {
            r["rtol"]: r["milliseconds_per_trajectory"]
            for r in rows
            if r["problem"] == name and r["method"] == "solve_ensemble" and "scaling" not in r
        }
        lines = [
            [
                r["method"], f"{r['rtol']:.0e}", str(r["batch"]),
                number(r["largest_relative_error"], 2), number(r["milliseconds_per_trajectory"]),
                number(r["milliseconds_per_trajectory"] / mine[r["rtol"]]),
                number(r["compile_seconds"], 2), number(r["memory_mib"], 2), number(r["wasted"], 2),
            ]
            for r in rows
            if r["problem"] == name and "scaling" not in r
        ]  # fmt: skip
        scaled = [
            [str(r["batch"]), number(r["milliseconds_per_trajectory"]), number(r["wasted"], 2)]
            for r in rows
            if r["problem"] == name and "scaling" in r
        ]
        parts += [f"\n{name}\n", table(header, lines), ""]
        parts += [table(("batch", "ms each", "wasted"), scaled)]
    return "\n".join([*parts, "\nPOLLU in a fresh process\n", *fresh_processes(metrics)])


def fresh_processes(metrics: dict[str, Any]) -> Iterator[str]:
    """What compiling and writing to a store cost."""
    rows = dict(metrics["fresh_processes"])
    store = rows.pop("stream")
    yield (
        f"{store['trajectories']} trajectories to a Zarr store: {store['seconds']:.1f} s, of which "
        f"compiling {store['compile_seconds']:.1f} s; peak memory of the process "
        f"{number(store['peak_memory_mib'])} MiB."
    )
    for name, row in rows.items():
        yield f"{name}: first call {row['first_seconds']:.1f} s, then {row['second_seconds']:.2f} s"


def draw(metrics: dict[str, Any], out: Path) -> None:
    """Error against time for each problem, both logarithmic."""
    points: dict[str, Any] = {}
    for row in metrics["rows"]:
        if "scaling" not in row:
            series = points.setdefault(row["problem"], {}).setdefault(row["method"], [])
            series.append((row["largest_relative_error"], row["milliseconds_per_trajectory"]))
    plot.work_precision(points).savefig(out / "work_precision.png")


if __name__ == "__main__":
    main(Benchmark, run, "Compare solvers of stiff ensembles in accuracy and time.")
