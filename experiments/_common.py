"""What every experiment shares: arguments, folders, clocks and provenance."""

import contextlib
import dataclasses
import datetime
import enum
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
import tyro
import wadler_lindig

import inojax as ij

_PACKAGES = ("jax", "equinox", "diffrax", "optax", "numpy")


class Preset(enum.StrEnum):
    """How much is computed: a test, a result on a laptop, or the published amount."""

    SMOKE = "smoke"
    QUICK = "quick"
    PAPER = "paper"


@dataclasses.dataclass(frozen=True)
class Arguments:
    """The options that every experiment has; subclasses add their own and a default folder."""

    out: Path
    """Folder of all results. Started again with the same one, a run continues."""
    preset: Preset = Preset.QUICK
    """smoke: under a minute; quick: minutes on a laptop; paper: the published amount, on a GPU."""
    seed: int = 0
    """Seed of all randomness."""


_Arguments = TypeVar("_Arguments", bound=Arguments)


def run_once(
    arguments: Arguments,
    size: Any,
    make: Callable[["Clocks"], dict[str, Any]],
    report: Callable[[dict[str, Any]], str],
) -> None:
    """Make `metrics.json` unless it is there, and print what it says.

    Args:
        arguments: The command line, whose folder the run claims.
        size: How much is computed.
        make: The content, with the clocks that time it.
        report: What is printed of the content.
    """
    with complaints():
        claim(arguments, size)
    metrics = arguments.out / "metrics.json"
    if not metrics.exists():
        clocks = Clocks.in_folder(arguments.out)
        with clocks.total, clocks.compiling:
            content = make(clocks)
        write_json(metrics, content)
    print(report(json.loads(metrics.read_text())))
    print(f"\nmetrics.json and any figures are in {arguments.out}.")


def main(
    kind: type[_Arguments],
    run: Callable[[_Arguments], None],
    summary: str,
    *,
    optimized: bool = False,
) -> None:
    """Read the command line, run, and end with a sentence where a traceback would not help.

    Args:
        kind: The options.
        run: The experiment.
        summary: What it does, for `--help`.
        optimized: Whether XLA optimizes in the smoke preset as well.
    """
    arguments = tyro.cli(kind, description=summary, config=(tyro.conf.EnumChoicesFromValues,))
    if arguments.preset is Preset.SMOKE:
        # Nearly all of its time would be spent on compiling code that runs for a second.
        _compile_quickly()
        if not optimized:
            jax.config.update("jax_disable_most_optimizations", True)
    try:
        run(arguments)
    except KeyboardInterrupt:
        print(
            f"\nStopped. What is finished is kept in {arguments.out}; start the same command "
            "again to continue.",
            file=sys.stderr,
        )
        raise SystemExit(130) from None
    except OSError as error:
        _refuse(str(error))


def _compile_quickly() -> None:
    """Let XLA fuse loops in its older way, which compiles in half the time and runs slower."""
    flag, given = "--xla_cpu_use_fusion_emitters", os.environ.get("XLA_FLAGS", "")
    # XLA aborts at a flag that it does not know, and this one will not stay for ever.
    if jax.__version_info__[:2] == (0, 10) and flag not in given:
        os.environ["XLA_FLAGS"] = f"{given} {flag}=false".strip()


@contextlib.contextmanager
def complaints() -> Iterator[None]:
    """End the program with the message of a wrong input, exit code 2, without a traceback."""
    try:
        yield
    except (OSError, ValueError) as error:
        _refuse(str(error))


def _refuse(message: str) -> None:
    print(f"\nerror: {message}", file=sys.stderr)
    raise SystemExit(2) from None


def claim(arguments: Arguments, settings: Any) -> None:
    """Create the folder of a run, or make sure that it holds the same run.

    Args:
        arguments: The command line.
        settings: Everything else that results depend on; compared as text, defaults included.

    Raises:
        ValueError: If the folder holds another run.
        OSError: If it cannot be written.
    """
    path = arguments.out / "run.json"
    text = wadler_lindig.pformat(settings, short_arrays=False, hide_defaults=False)
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        wanted = {
            "preset": str(arguments.preset),
            "seed": arguments.seed,
            "settings": text.splitlines(),
        }
        stored = json.loads(path.read_text()) if path.exists() else wanted
        write_json(path, stored)
    except OSError as error:
        raise OSError(f"`--out` {arguments.out} cannot be written: {error.strerror}.") from error
    changed = [name for name in wanted if stored.get(name) != wanted[name]]
    if changed:
        raise ValueError(
            f"`--out` {arguments.out} holds a run of preset {stored['preset']}, seed "
            f"{stored['seed']}, which differs in: {', '.join(changed)}. Choose another folder, or "
            "delete this one."
        )


def write_json(path: Path, content: Any) -> None:
    """Write JSON in one move, so that a kill leaves the old file or the new one."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(_plain(content), indent=1, allow_nan=False) + "\n")
    os.replace(partial, path)


def file_name(*words: str) -> str:
    """Words as a name of a file."""
    return "_".join("".join(c if c.isalnum() or c in "-." else "_" for c in w) for w in words)


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What a file holds, made first if it is not there."""
    if not path.exists():
        write_json(path, make())
    return json.loads(path.read_text())


def _plain(value: Any) -> Any:
    """Python values instead of NumPy's, and None for what JSON lacks: NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@contextlib.contextmanager
def compiled_once() -> Iterator[None]:
    """Keep what is compiled until the program ends, so that the same program is compiled once.

    Not for longer: JAX does not write these files in one move, so a kill may leave half of one.
    """
    with tempfile.TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        try:
            yield
        finally:
            jax.config.update("jax_compilation_cache_dir", None)


class Stopwatch:
    """Seconds spent on one task, summed over sessions, those that were killed included.

    Attributes:
        path: File that holds the sum.
        now: The clock, in seconds.
    """

    path: Path
    now: Callable[[], float]

    def __init__(self, path: Path, now: Callable[[], float] = time.perf_counter) -> None:
        """Continue at what the file holds, or at zero."""
        self.path, self.now = path, now
        self._began, self._before = now(), self.stored
        self._ended = threading.Event()

    @property
    def stored(self) -> float:
        """The sum in the file, which stands still once the task has ended."""
        return json.loads(self.path.read_text())["seconds"] if self.path.exists() else 0.0

    @property
    def seconds(self) -> float:
        """The sum, the time since this task was entered included."""
        return self._before + self.now() - self._began

    def __enter__(self) -> "Stopwatch":
        self._began = self.now()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        # kill -9 asks nobody, so the sum is written every other second.
        ended = False
        while not ended:
            ended = self._ended.wait(2.0)
            write_json(self.path, {"seconds": self.seconds})


@dataclasses.dataclass(frozen=True)
class Clocks:
    """Where the time of an experiment goes, over all of its sessions.

    Attributes:
        total: From start to end.
        simulating: Part of it that went into simulations.
        compiling: Time that XLA compiled, added up over threads.
    """

    total: Stopwatch
    simulating: Stopwatch
    compiling: Stopwatch

    @classmethod
    def in_folder(cls, out: Path) -> "Clocks":
        """Clocks that continue at what a folder holds."""
        return cls(
            Stopwatch(out / "seconds.json"),
            Stopwatch(out / "simulate_seconds.json"),
            Stopwatch(out / "compile_seconds.json", compiling),
        )

    def timing(self) -> dict[str, float]:
        """The entry `timing` of `metrics.json`."""
        return {
            "total_seconds": self.total.seconds,
            "simulate_seconds": self.simulating.stored,
            "compile_seconds": self.compiling.seconds,
        }


_compilations: list[float] = []


def compiling() -> float:
    """A clock that runs while XLA compiles; compilations in several threads add up."""
    return math.fsum(_compilations)


def _listen(event: str, duration_secs: float, **_: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _compilations.append(duration_secs)


jax.monitoring.register_event_duration_secs_listener(_listen)


def stamp() -> dict[str, Any]:
    """When and with which code a part was made, which may be kept for a later run."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"date": now, "git_commit": _git_commit()}


def provenance(arguments: Arguments) -> dict[str, Any]:
    """What a result was made with."""
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    device = jax.devices()[0]
    return {
        "versions": {"python": platform.python_version(), "inojax": ij.__version__, **versions},
        "device": f"{jax.device_count()} x {device.device_kind}",
        "cpu_count": os.cpu_count(),
        "seed": arguments.seed,
        "preset": str(arguments.preset),
        **stamp(),
        "peak_memory_gib": _peak_memory(),
    }


def _git_commit() -> str | None:
    command = ["git", "rev-parse", "HEAD"]
    try:
        found = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()


def _peak_memory() -> float | None:
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30, 2)


def stage(text: str) -> None:
    """Say on one line what runs now."""
    print(f"-- {text}", flush=True)
