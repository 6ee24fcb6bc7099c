"""Many simulations of one problem."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import DTypeLike

from ..solvers import SolveStatus
from ._store import Finished, Store

_BLOCK = 1024


@dataclasses.dataclass(frozen=True)
class SimulationTiming:
    """Where the time of one call of `simulate` went.

    Attributes:
        total_seconds: The whole call, compilation included.
        compile_seconds: Spent compiling the solver.
        simulated: Simulations run by this call; what the store already held is not counted.
        retried: Those of them that were tried again with tighter tolerances.
    """

    total_seconds: float
    compile_seconds: float
    simulated: int
    retried: int


class Dataset:
    """Parameters, trajectories and statuses of many simulations.

    Get one from `simulate` or `Dataset.open`; build one directly where trajectories come
    from elsewhere. Treat it as immutable. Everything is float64 on the host.

    Attributes:
        thetas: Parameters in physical units.
        unit: The same in unit coordinates, uniform on [0, 1] under the prior.
        times: Output times.
        status: A `SolveStatus` for each simulation, 0 for success.
        manifest: What the simulations were made from, a JSON object.
        timing: Where the time went, or None where this process did not simulate.

    Example:
        >>> dataset = ij.simulate(ij.problems.robertson(), 16, key=jr.key(0), progress=False)
        >>> len(dataset), dataset.failure_rate
        (16, 0.0)
    """

    thetas: Float[np.ndarray, "n parameter"]
    unit: Float[np.ndarray, "n parameter"]
    times: Float[np.ndarray, " time"]
    status: Int[np.ndarray, " n"]
    manifest: dict[str, Any]
    timing: SimulationTiming | None

    def __init__(
        self,
        thetas: Float[np.ndarray, "n parameter"],
        unit: Float[np.ndarray, "n parameter"],
        *,
        times: Float[np.ndarray, " time"],
        trajectories: Float[np.ndarray, "n time state"] | Callable[[slice], np.ndarray],
        status: Int[np.ndarray, " n"],
        manifest: dict[str, Any] | None = None,
        timing: SimulationTiming | None = None,
    ) -> None:
        """Keep the arrays, without copying them.

        Args:
            thetas: Parameters in physical units, shape (n, parameter).
            unit: The same in unit coordinates.
            times: Output times.
            trajectories: States, shape (n, time, state), or a function that reads the rows
                of a slice, which is first called when they are first needed.
            status: A `SolveStatus` for each simulation.
            manifest: What the simulations were made from.
            timing: Where the time went.

        Raises:
            ValueError: If the shapes disagree.
        """
        self.thetas, self.unit, self.times, self.status = thetas, unit, times, status
        self.manifest = {} if manifest is None else manifest
        self.timing = timing
        self._read = trajectories if callable(trajectories) else None
        self._loaded = None if callable(trajectories) else trajectories
        self._check()

    def _check(self) -> None:
        n = len(self.thetas)
        if self.thetas.ndim != 2 or self.unit.shape != self.thetas.shape:
            raise ValueError(
                "`thetas` and `unit` must both have shape (n, parameter); got "
                f"{self.thetas.shape} and {self.unit.shape}."
            )
        if self.status.shape != (n,):
            raise ValueError(f"`status` must have shape ({n},); got {self.status.shape}.")
        shape = None if self._loaded is None else self._loaded.shape
        if shape is not None and (len(shape) != 3 or shape[:2] != (n, len(self.times))):
            raise ValueError(
                f"`trajectories` must have shape ({n}, {len(self.times)}, state), one row for "
                f"each of `thetas` and `times`; got {shape}."
            )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Dataset":
        """Open what `simulate` wrote, finished or not.

        Trajectories stay on disk until they are first used. Of an unfinished store the
        finished simulations are read, with a warning.

        Args:
            path: The folder that was given to `simulate` as `store`.

        Returns:
            The stored simulations.

        Raises:
            FileNotFoundError: If there is nothing at `path`.
            ValueError: If `path` is no dataset, or a damaged one.
        """
        store = Store.open(Path(path))
        dataset = dataset_of(store.simulations())
        total = store.manifest["n"]
        if len(dataset) < total:
            warnings.warn(
                f"The dataset at {path} is unfinished: it holds {len(dataset)} of {total} "
                "simulations. Call `simulate` again as before to finish it.",
                stacklevel=2,
            )
        return dataset

    @property
    def trajectories(self) -> Float[np.ndarray, "n time state"]:
        """States of every simulation at every output time; read from disk on first use."""
        if self._loaded is None:
            self._loaded = self.gathered(np.float64)
        return self._loaded

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of `trajectories`, which is not read for it."""
        if self._loaded is not None:
            return self._loaded.shape
        states = next(self.blocks(1)).shape[2] if len(self) else 0
        return len(self), len(self.times), states

    def gathered(
        self, dtype: DTypeLike = np.float32, *, every: int = 1
    ) -> Float[np.ndarray, "some time state"]:
        """Trajectories in a precision of choice, read a block at a time and not kept.

        Use it instead of `trajectories` where float64 for all would fill the memory.

        Args:
            dtype: Precision of the result.
            every: Take each `every`-th simulation, starting with the first.

        Returns:
            A new array.
        """
        result = np.empty((-(-len(self) // every), *self.shape[1:]), dtype)
        start = 0
        for block in self.blocks():
            wanted = block[-start % every :: every]
            first = -(-start // every)
            result[first : first + len(wanted)] = wanted
            start += len(block)
        return result

    def blocks(self, size: int | None = None) -> Iterator[Float[np.ndarray, "block time state"]]:
        """Trajectories a few at a time, for data larger than memory.

        Args:
            size: Simulations in each block, as many as are stored together by default; the
                last may be shorter.

        Yields:
            Consecutive rows of `trajectories`.
        """
        step: int = size or self.manifest.get("chunk_size", _BLOCK)
        source = self._read if self._loaded is None else self._loaded.__getitem__
        assert source is not None
        for start in range(0, len(self), step):
            yield source(slice(start, min(start + step, len(self))))

    def __len__(self) -> int:
        return len(self.thetas)

    def __repr__(self) -> str:
        name = self.manifest.get("problem", "")
        failed = int(np.sum(~self.ok))
        return (
            f"Dataset({name!r}, {len(self)} simulations, {len(self.times)} times, {failed} failed)"
        )

    @property
    def ok(self) -> Bool[np.ndarray, " n"]:
        """Which simulations succeeded."""
        return self.status == SolveStatus.SUCCESS

    @property
    def failure_rate(self) -> float:
        """Share of the simulations that failed, 0 for an empty dataset."""
        return float(np.mean(~self.ok)) if len(self) else 0.0

    def usable(self) -> "Dataset":
        """The simulations that succeeded and are finite, which is what training may see.

        Returns:
            This dataset itself where nothing has to go, else a copy without the failures.

        Raises:
            ValueError: If nothing is left.
        """
        finite = [np.isfinite(block).all(axis=(1, 2)) for block in self.blocks()]
        keep = self.ok & np.concatenate([np.zeros(0, bool), *finite])
        keep &= np.isfinite(self.thetas).all(axis=1) & np.isfinite(self.unit).all(axis=1)
        if not keep.any():
            raise ValueError(
                f"None of the {len(self)} simulations is usable: every solve failed. "
                "`dataset.status` holds the reasons."
            )
        return self if keep.all() else self._rows(keep)

    def split(self, n_held_out: int) -> tuple["Dataset", "Dataset"]:
        """Set the last simulations apart.

        No row is copied and none is shuffled: every beginning of a Sobol sequence is itself
        space-filling, and the rows of the other designs are in random order already.

        Args:
            n_held_out: Simulations to hold out, at least 1 and fewer than all.

        Returns:
            The training part and the held-out part.

        Raises:
            ValueError: If `n_held_out` leaves one part empty.
        """
        if not 1 <= n_held_out < len(self):
            raise ValueError(
                f"`n_held_out` must be at least 1 and below the {len(self)} simulations "
                f"there are; got {n_held_out}."
            )
        cut = len(self) - n_held_out
        return self._rows(slice(0, cut)), self._rows(slice(cut, len(self)))

    def _rows(self, rows: Any) -> "Dataset":
        return Dataset(
            self.thetas[rows],
            self.unit[rows],
            times=self.times,
            trajectories=self._reader(rows) if self._loaded is None else self._loaded[rows],
            status=self.status[rows],
            manifest=self.manifest,
            timing=self.timing,
        )

    def _reader(self, rows: Any) -> Callable[[slice], np.ndarray]:
        """A function that reads from the disk some of these rows only."""
        index, source = np.arange(len(self))[rows], self._read
        assert source is not None

        def read(wanted: slice) -> np.ndarray:
            some = index[wanted]
            return source(slice(int(some[0]), int(some[-1]) + 1))[some - some[0]]

        return read


def dataset_of(found: Finished) -> Dataset:
    """What is finished in a store; trajectories are read when they are first used."""
    return Dataset(**found._asdict())
