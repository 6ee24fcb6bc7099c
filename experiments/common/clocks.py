"""Where the time of an experiment goes, over all of its sessions; what is compiled, once."""

import contextlib
import dataclasses
import json
import math
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from experiments.common.files import write_json


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
