"""Simulations on disk: a Zarr group that a kill at any moment leaves valid.

Layout, for any Zarr 3 reader: arrays `thetas`, `unit`, `times`, `trajectories`, `status` and
`complete`, the manifest as the group's attributes. `trajectories` and `status` are stored in
chunks of simulations. A chunk counts once its element of `complete` is 1; that element is a
file of its own, put in place atomically after the chunk has reached the disk. Nothing in a
store depends on time, machine or the order of work, so equal calls give equal bytes.
"""

import contextlib
import errno
import itertools
import os
import shutil
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ._compare import Comparison, compare
from ._manifest import FORMAT, VERSION, Manifest
from ._parts import array_digest

_ARRAYS = ("thetas", "unit", "times", "trajectories", "status", "complete")
# Present while a store is being laid out: what stands beside it may be thrown away.
_LAYING_OUT = "inojax-creating"


class Finished(NamedTuple):
    """The finished simulations of a store, whose trajectories are read when they are needed.

    Attributes:
        thetas: Parameters in physical units.
        unit: The same in unit coordinates.
        times: Output times.
        status: A `SolveStatus` for each.
        trajectories: Reads the states of a slice of them.
        manifest: What they were made from.
    """

    thetas: Float[np.ndarray, "n parameter"]
    unit: Float[np.ndarray, "n parameter"]
    times: Float[np.ndarray, " time"]
    status: Int[np.ndarray, " n"]
    trajectories: Callable[[slice], np.ndarray]
    manifest: Manifest


class Store:
    """A dataset's folder.

    Attributes:
        path: The folder.
        manifest: What the simulations are made from.
        thetas: The whole design, physical units, finished or not.
        unit: The same in unit coordinates.
    """

    path: Path
    manifest: Manifest
    thetas: Float[np.ndarray, "n parameter"]
    unit: Float[np.ndarray, "n parameter"]

    def __init__(self, path: Path, manifest: Manifest, arrays: dict[str, Any]) -> None:
        """Use `Store.open` or `Store.resume`."""
        self.path, self.manifest, self._arrays = path, manifest, arrays
        with self._reading("the design"):
            self.thetas, self.unit, self.times = (
                arrays[name][:] for name in ("thetas", "unit", "times")
            )
        if array_digest(self.thetas) != manifest.get("thetas"):
            raise ValueError(_damaged(path, "the parameters do not match the manifest"))

    @classmethod
    def open(cls, path: Path, *, mode: Literal["r", "r+"] = "r") -> "Store":
        """Open an existing store.

        Args:
            path: Its folder.
            mode: `r+` to write into it.

        Raises:
            FileNotFoundError: If there is nothing at `path`.
            ValueError: If it is no dataset, one of a newer version, or damaged.
        """
        import zarr

        _require_dataset(path)
        try:
            group = zarr.open_group(path, mode=mode, use_consolidated=False)
            manifest = dict(group.attrs)
        except Exception as error:
            raise ValueError(_damaged(path, "its zarr.json cannot be read")) from error
        if manifest.get("format") != FORMAT:
            raise ValueError(f"{path} is a Zarr group, but no dataset that `simulate` wrote.")
        if manifest.get("version") != VERSION:
            raise ValueError(
                f"{path} has format version {manifest.get('version')}; this inojax reads "
                f"version {VERSION}, which says more of the equations. Simulate into another "
                "folder, or use the inojax that wrote it."
            )
        return cls(path, manifest, {name: _array(group, path, name) for name in _ARRAYS})

    @classmethod
    @contextlib.contextmanager
    def resume(
        cls,
        path: Path,
        manifest: Manifest,
        arrays: dict[str, np.ndarray],
        *,
        shared: bool = False,
        settle: Callable[[Comparison, Finished], None] | None = None,
    ) -> Iterator["Store"]:
        """Open a store for writing, laying it out first where there is none.

        Args:
            path: Its folder.
            manifest: What the simulations are made from.
            arrays: `thetas`, `unit` and `times`.
            shared: Whether others who share may write other chunks at the same time.
            settle: Decides whether a store that differs is accepted, and raises if it is not; by
                default none is.

        Yields:
            The store, locked against other processes until the context ends.

        Raises:
            BlockingIOError: If others write, and they or this call do not share.
            OSError: If `path` is a file, a folder of something else, or not writable.
            ValueError: If the store was made from something else, or is damaged.
        """
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(f"`store` must be a folder; {path} is a file.")
        with _writing(path):
            path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as locks:
            lock = locks.enter_context(_Lock.held(path, wait=shared))
            if lock.exclusive:
                with _writing(path):
                    _lay_out(path, manifest, arrays)
            store = cls.open(path, mode="r+")
            comparison = compare(store.manifest, manifest)
            if any(comparison):
                (settle or _refuse)(comparison, store.simulations())
                # What was accepted is of the problem at hand, as far as anybody can tell.
                store.manifest = manifest | {"thetas": store.manifest["thetas"]}
            if lock.exclusive:
                with _writing(path):
                    for leftover in path.rglob("*.partial"):
                        leftover.unlink()
            if shared:
                lock.share()
            yield store

    @property
    def chunk_size(self) -> int:
        """Simulations stored together."""
        return self.manifest["chunk_size"]

    @property
    def chunks(self) -> int:
        """How many chunks the finished store has."""
        return -(-len(self.thetas) // self.chunk_size)

    def finished(self) -> list[int]:
        """The chunks that are complete on disk, in order."""
        return [
            chunk
            for chunk in range(self.chunks)
            if all(_filled(file) for file in [self._marker(chunk), *self._files(chunk)])
        ]

    def write(
        self,
        chunk: int,
        states: Float[np.ndarray, "row time state"],
        status: Int[np.ndarray, " row"],
    ) -> None:
        """Write one chunk, then mark it complete.

        Args:
            chunk: Which one.
            states: Its trajectories.
            status: Its statuses.

        Raises:
            OSError: If the disk is full or refuses; complete chunks stay valid.
        """
        rows = slice(chunk * self.chunk_size, chunk * self.chunk_size + len(status))
        with _writing(self.path):
            self._arrays["trajectories"][rows] = states
            self._arrays["status"][rows] = status
            for file in self._files(chunk):
                _flush(file)
            marker = self._marker(chunk)
            marker.parent.mkdir(exist_ok=True)
            partial = marker.with_name(f"{chunk}.{os.getpid()}.partial")
            partial.write_bytes(b"\x01")
            _flush(partial)
            os.replace(partial, marker)
            _flush(marker.parent)

    def simulations(self) -> Finished:
        """What is complete on disk."""
        finished = self.finished()
        size, total = self.chunk_size, len(self.thetas)
        spans = [np.arange(c * size, min(c * size + size, total)) for c in finished]
        rows = np.concatenate([np.zeros(0, int), *spans])
        with self._reading("status"):
            status = self._arrays["status"][:][rows]

        def read(wanted: slice) -> np.ndarray:
            index = rows[wanted]
            array = self._arrays["trajectories"]
            with self._reading("trajectories"):
                if index[-1] - index[0] + 1 == len(index):
                    return array[int(index[0]) : int(index[-1]) + 1]
                return array.oindex[index]

        thetas, unit = self.thetas[rows], self.unit[rows]
        return Finished(thetas, unit, self.times, status, read, self.manifest)

    def _files(self, chunk: int) -> tuple[Path, Path]:
        root = self.path
        return root / "trajectories" / "c" / str(chunk) / "0" / "0", root / "status/c" / str(chunk)

    def _marker(self, chunk: int) -> Path:
        return self.path / "complete" / "c" / str(chunk)

    @contextlib.contextmanager
    def _reading(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            raise ValueError(_damaged(self.path, f"{what} cannot be read ({error})")) from error


def _refuse(comparison: Comparison, found: Finished) -> None:
    del found
    raise ValueError(f"The store differs in: {'; '.join(itertools.chain(*comparison))}.")


def _damaged(path: Path, what: str) -> str:
    return (
        f"The dataset at {path} is damaged: {what}. Restore the folder from a copy, or delete "
        "it and simulate again."
    )


def _require_dataset(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"There is no dataset at {path}.")
    if not path.is_dir():
        raise ValueError(f"{path} is a file; a dataset is a folder that `simulate` wrote.")
    if (path / "zarr.json").exists():
        return
    if any((path / name / "zarr.json").exists() for name in _ARRAYS):
        raise ValueError(_damaged(path, "its zarr.json is missing"))
    raise ValueError(f"{path} is no dataset: it has no zarr.json.")


def _array(group: Any, path: Path, name: str) -> Any:
    try:
        # A chunk of zeros must be a file too, or it would look lost.
        return group[name].with_config({"write_empty_chunks": True})
    except KeyError as error:
        raise ValueError(_damaged(path, f"the array `{name}` is missing")) from error
    except Exception as error:
        raise ValueError(_damaged(path, f"the array `{name}` cannot be read")) from error


def _lay_out(path: Path, manifest: Manifest, arrays: dict[str, np.ndarray]) -> None:
    """Create the empty store; its own zarr.json comes last and makes it one."""
    note = path / _LAYING_OUT
    if (path / "zarr.json").exists():
        note.unlink(missing_ok=True)
        return
    if note.exists():
        for name in _ARRAYS:
            shutil.rmtree(path / name, ignore_errors=True)
    elif any((path / name / "zarr.json").exists() for name in _ARRAYS):
        raise ValueError(_damaged(path, "its zarr.json is missing"))
    elif any(path.iterdir()):
        raise FileExistsError(
            f"`store` must be a new folder, an empty one or a dataset; {path} holds other files."
        )
    note.touch()
    _create(path, manifest, arrays)
    note.unlink()


def _create(path: Path, manifest: Manifest, arrays: dict[str, np.ndarray]) -> None:
    import zarr
    from zarr.codecs import Crc32cCodec

    n, chunk = manifest["n"], manifest["chunk_size"]
    shape = (n, len(manifest["times"]), len(manifest["states"]))
    layout: dict[str, tuple[Any, ...]] = {
        "trajectories": (shape, (chunk, *shape[1:]), "float64", np.nan, "simulation time state"),
        "status": ((n,), (chunk,), "int32", -1, "simulation"),
        "complete": ((-(-n // chunk),), (1,), "uint8", 0, "chunk"),
    }
    for name, axes in (
        ("thetas", "simulation parameter"),
        ("unit", "simulation parameter"),
        ("times", "time"),
    ):
        size = arrays[name].shape
        layout[name] = (size, size, "float64", np.nan, axes)
    for name, (size, chunks, dtype, fill, axes) in layout.items():
        array = zarr.create_array(
            path / name,
            shape=size,
            chunks=chunks,
            dtype=dtype,
            fill_value=fill,
            # Float64 trajectories hardly shrink, and plain bytes do not depend on the
            # version of a compressor. The checksum tells a damaged chunk from a good one.
            compressors=None if name == "complete" else Crc32cCodec(),
            dimension_names=axes.split(),
            config={"write_empty_chunks": True},
        )
        if name in arrays:
            array[:] = arrays[name]
    zarr.create_group(path, attributes=manifest)
    _flush(path / "zarr.json")


def _filled(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:
        return False


def _flush(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders.
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Tell what to do when the disk refuses."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "Free some space" if full else "Make the folder writable"
        raise OSError(
            error.errno,
            f"Cannot write to the `store` at {path}: {error.strerror or error}. {remedy} and "
            "make the same call again; finished simulations are kept",
        ) from error


# How long one who shares waits for another to lay out the store, in seconds.
_PATIENCE = 10.0


class _Lock:
    """A folder held for this process, alone or with others; it goes when the process does.

    Attributes:
        exclusive: Whether nobody else may hold the folder.
    """

    exclusive: bool

    def __init__(self, descriptor: int) -> None:
        """Use `held`."""
        self.exclusive = True
        self._descriptor = descriptor

    @classmethod
    @contextlib.contextmanager
    def held(cls, path: Path, *, wait: bool) -> Iterator["_Lock"]:
        """Hold `path` alone, or else, with `wait`, together with those who share it."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            lock = cls(descriptor)
            deadline = time.monotonic() + (_PATIENCE if wait else 0.0)
            while not lock._take(path, share=wait):
                if time.monotonic() >= deadline:
                    raise BlockingIOError(
                        errno.EWOULDBLOCK,
                        f"Another process or thread is simulating into the `store` at {path}. "
                        "Wait for it, or give another folder, or, to divide the work, a `share` to "
                        "each of them",
                    )
                time.sleep(0.02)
            yield lock
        finally:
            os.close(descriptor)

    def share(self) -> None:
        """Let others who share in."""
        fcntl = _fcntl()
        deadline = time.monotonic() + _PATIENCE
        while fcntl is not None:
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:  # Somebody who does not share came between the two locks.
                if time.monotonic() >= deadline:
                    raise
                time.sleep(0.02)
                continue
            except OSError:  # Some network file systems know no locks.
                pass
            break
        self.exclusive = False

    def _take(self, path: Path, *, share: bool) -> bool:
        fcntl = _fcntl()
        if fcntl is None:
            return True
        for kind in (fcntl.LOCK_EX, fcntl.LOCK_SH)[: 1 + share]:
            try:
                fcntl.flock(self._descriptor, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            except OSError:  # Some network file systems know no locks.
                return True
            self.exclusive = kind == fcntl.LOCK_EX
            # Whoever was laying out the store may have died of it.
            return self.exclusive or (path / "zarr.json").exists()
        return False


def _fcntl() -> types.ModuleType | None:
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    return fcntl
