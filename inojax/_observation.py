"""What was measured: readings with their times, gaps and channel names."""

import csv
import difflib
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ._rounding import EPSILON, anchors, moved, outside, repeated, unresolved
from ._tables import Table, as_table, as_times

# Networks run in float32, where a larger reading would silently become infinite.
_LARGEST = float(np.finfo(np.float32).max)


@runtime_checkable
class _Measured(Protocol):
    """The part of an `InverseProblem` that readings are checked against."""

    @property
    def name(self) -> str: ...

    @property
    def channels(self) -> tuple[str, ...]: ...

    @property
    def model(self) -> Any: ...

    @property
    def noise(self) -> Any: ...


class Observation(eqx.Module):
    """Readings of one experiment; times may be irregular and readings may be missing.

    Make one with `from_csv` or `from_arrays`, which check everything; the plain constructor
    checks shapes only, so that it works inside `jit` and `vmap`.

    Attributes:
        times: Place of each row along `coordinate`, mostly its time, non-decreasing.
        values: The readings in the unit of the channels; 0 where the mask is False, never NaN.
        mask: Which readings are present.
        channels: Name of each channel.
        problem: Name of the problem they belong to; empty if unknown.
        coordinate: What `times` are: `time`, or the coordinate along which a `PDEModel` is read;
            empty if unknown.

    Example:
        >>> observation = ij.Observation.from_arrays(
        ...     times=[0.0, 1.0, 2.0],
        ...     values=[[30.0, 4.0], [47.2, None], [70.2, 9.8]],
        ...     problem=ij.problems.lotka_volterra(),
        ... )
        >>> int(observation.mask.sum())
        5
    """

    times: Float[Array | np.ndarray, "*batch reading"]
    values: Float[Array | np.ndarray, "*batch reading channel"]
    mask: Bool[Array | np.ndarray, "*batch reading channel"]
    channels: tuple[str, ...] = eqx.field(static=True)
    problem: str = eqx.field(static=True, default="")
    coordinate: str = eqx.field(static=True, default="")

    def __check_init__(self) -> None:
        """Refuse arrays whose shapes disagree."""
        shape = (*np.shape(self.times), len(self.channels))
        for name in ("values", "mask"):
            got = np.shape(getattr(self, name))
            if got != shape:
                raise ValueError(
                    f"`{name}` must have one row for each time and one column for each channel, "
                    f"shape {shape}; got {got}."
                )

    @classmethod
    def from_arrays(
        cls,
        times: Any,
        values: Any,
        *,
        problem: _Measured,
        channels: Sequence[str] | None = None,
    ) -> "Observation":
        """Check readings against a problem, sort them by time and mask what is missing.

        Arrays of NumPy (masked ones keep their mask), JAX and others, nested lists with None where
        a reading is missing, data frames, mappings from names to columns, and labeled arrays are
        welcome. Numbers with units, dates and text are refused.

        Args:
            times: Time of each row, in the model's unit of time, in any order, shape `(reading,)`.
                A time that misses an output time or the start by rounding is moved onto it.
            values: A row for each time and a column for each channel, shape `(reading, channel)`,
                or `(reading,)` for one channel; NaN, None or masked where missing. Columns that
                have names are put in order by them.
            problem: The inverse problem they will be inverted with.
            channels: Names of the columns, a subset of the problem's channels in any order; by
                default those that `values` has, or all of them in the problem's order.

        Returns:
            The observation, as float64 NumPy arrays.

        Raises:
            ValueError: If a shape, channel, time or value cannot be right; it says which.
        """
        table = as_table(values, "values", problem.model.coordinate)
        moments, resolution = as_times(times)
        columns, numbers = _choose_columns(table, channels, problem)
        numbers = _as_matrix(moments, numbers, columns)
        _check_labels(table, times, moments)
        rows = _Places("`values`", [f"`values` row {index}" for index in range(moments.size)])
        return _build(moments, numbers, columns, problem, rows, resolution)

    @classmethod
    def from_csv(cls, path: str | os.PathLike[str], problem: _Measured) -> "Observation":
        """Read a comma-separated file with a header `time,NAME,NAME,...`.

        Where a `PDEModel` is read at places the header says `x`, or whatever coordinate they lie
        along, instead of `time`. Columns may be any subset of the problem's channels, in any
        order; rows may come in any order; an empty field or `nan` is a missing reading.

        Args:
            path: The file.
            problem: The inverse problem the readings will be inverted with.

        Returns:
            The observation, as float64 NumPy arrays.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file is not of that form or a reading cannot be right; the message
                names line and column.
        """
        name = f"`path` {Path(path).name}"
        coordinate = problem.model.coordinate
        lines = _read_rows(path, name, coordinate)
        header = [field.strip() for field in lines[0][1]]
        columns = _check_header(header, problem, name)
        numbers = np.array([_parse_row(row, line, header, name) for line, row in lines[1:]])
        order = [header.index(column) for column in columns]
        rows = _Places(name, [f"{name}, line {line}" for line, _ in lines[1:]])
        return _build(
            numbers[:, header.index(coordinate)], numbers[:, order], columns, problem, rows
        )

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write a file that `from_csv` reads back to exactly the same numbers.

        Rows that only pad the observation to a fixed size are left out.

        Args:
            path: The file; an existing one is replaced.

        Raises:
            ValueError: If this is a batch of observations, or says not along what it was read.
        """
        self._require_single("to_csv")
        if not self.coordinate:
            raise ValueError(
                "`to_csv` needs to know what `times` are: make the observation by `from_arrays` or "
                "`InverseProblem.simulate`, or give it `coordinate='time'`."
            )
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([self.coordinate, *self.channels])
        times, values, mask = (np.asarray(x) for x in (self.times, self.values, self.mask))
        padding = np.append(False, np.diff(times) == 0.0) & ~mask.any(axis=1)
        for index in np.flatnonzero(~padding):
            pairs = zip(values[index].tolist(), mask[index], strict=True)
            fields = [repr(value) if present else "" for value, present in pairs]
            writer.writerow([repr(times[index].item()), *fields])
        Path(path).write_text(buffer.getvalue(), encoding="utf-8")

    def __len__(self) -> int:
        """Number of rows, padding included."""
        self._require_single("len")
        return np.shape(self.times)[0]

    @property
    def size(self) -> Int[Array | np.ndarray, "*batch"]:
        """Number of present readings."""
        total = self.mask.sum(axis=(-2, -1))
        return total if isinstance(total, jax.Array) else np.asarray(total)

    def padded(self, rows: int) -> "Observation":
        """Add rows without readings, so that observations of different lengths get one shape.

        Args:
            rows: Number of rows wanted, at least `len(self)`.

        Returns:
            The observation with the last time repeated and the mask False in the new rows.

        Raises:
            ValueError: If there are already more rows, or this is a batch.
        """
        extra = rows - len(self)
        if extra < 0:
            raise ValueError(f"`rows` must be at least the {len(self)} rows there are; got {rows}.")
        # NumPy arrays stay NumPy: JAX would round them to float32 unless 64-bit floats are on.
        xp: Any = jnp if any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(self)) else np
        blank = (extra, len(self.channels))
        return Observation(
            times=xp.concatenate([self.times, xp.repeat(self.times[-1:], extra)]),
            values=xp.concatenate([self.values, xp.zeros(blank, self.values.dtype)]),
            mask=xp.concatenate([self.mask, xp.zeros(blank, bool)]),
            channels=self.channels,
            problem=self.problem,
            coordinate=self.coordinate,
        )

    def in_order(self) -> "Observation":
        """The same with its rows in order of time, on the host.

        Rows of one time stay in the order they have. `from_arrays` and `from_csv` do this already.

        Returns:
            The observation, or batch of observations; itself if nothing is out of order.
        """
        times = np.asarray(self.times)
        if not np.any(np.diff(times) < 0.0):
            return self
        order = np.argsort(times, axis=-1, kind="stable")

        def sort(rows: Array | np.ndarray) -> np.ndarray:
            index = order.reshape(*order.shape, *(1,) * (np.ndim(rows) - order.ndim))
            return np.take_along_axis(np.asarray(rows), index, axis=order.ndim - 1)

        return jax.tree.map(sort, self)

    def _require_single(self, what: str) -> None:
        if np.ndim(self.times) != 1:
            raise ValueError(
                f"`{what}` needs a single observation; this is a batch of shape "
                f"{np.shape(self.times)[:-1]}. Take one with `jax.tree.map(lambda x: x[i], ...)`."
            )


def _choose_columns(
    table: Table, channels: Sequence[str] | None, problem: _Measured
) -> tuple[list[str], np.ndarray]:
    """Names of the columns, and the columns in this order."""
    if isinstance(channels, str):
        raise ValueError(
            f"`channels` must be a list of names; got {channels!r}. Write [{channels!r}]."
        )
    if channels is not None:
        _check_channels(list(channels), problem, "`channels`")
    if table.names is None or (
        channels is not None and set(table.names).isdisjoint(problem.channels)
    ):
        return list(problem.channels if channels is None else channels), table.numbers
    names, found = list(table.names), ", ".join(table.names)
    if channels is None and problem.model.coordinate in names:
        raise ValueError(
            f"`values` has a column {problem.model.coordinate!r} beside its readings ({found}). "
            "Give that one as `times`, and the others as `values`."
        )
    if channels is None:
        hint = "`values`, names of its columns"
        _check_channels(names, problem, hint)
        return names, table.numbers
    if not set(channels) <= set(names) or len(set(names)) < len(names):
        raise ValueError(
            f"`channels` are {', '.join(channels)}, but the columns of `values` are called "
            f"{found}. Give the same names, or an array without names."
        )
    numbers = table.numbers if table.numbers.ndim > 1 else table.numbers[:, None]
    return list(channels), numbers[:, [names.index(channel) for channel in channels]]


def _as_matrix(times: np.ndarray, values: np.ndarray, columns: list[str]) -> np.ndarray:
    """Values with a row for each time; those of one channel may lack the second axis."""
    count, wide = times.size, len(columns)
    if times.ndim == values.ndim == wide == 1:
        values = values[:, None]
    if times.ndim == 1 and values.shape == (count, wide):
        return values
    remedy = ""
    if values.shape == (wide, count) or (wide == 1 and values.shape == (1, count)):
        remedy = " These are columns for rows: transpose them, `values.T`."
    elif values.ndim == 1 and values.size == count:
        remedy = " To give readings of one channel alone, name it: `channels=[...]`."
    elif values.ndim == 1 and values.size == wide:
        remedy = " A single row is written `[[...]]`."
    raise ValueError(
        "`values` must have one row for each of the `times` and one column for each of "
        f"the {wide} channels, shape ({count}, {wide}); got `values` "
        f"of shape {values.shape} and `times` of shape {times.shape}.{remedy}"
    )


def _check_labels(table: Table, times: Any, moments: np.ndarray) -> None:
    """Refuse rows whose labels say that they are in another order than the times."""
    rows = table.rows
    if rows is None or len(rows) != len(moments):
        return
    index = getattr(times, "index", None) if hasattr(times, "iloc") else None
    if index is not None and not np.array_equal(np.asarray(index), rows):
        raise ValueError(
            "`times` and `values` have rows with different labels, so that they may be in "
            "different orders. Take both from one table, or reset the index of both."
        )
    if rows.dtype.kind not in "iuf" or np.array_equal(rows, np.arange(len(rows))):
        return
    if np.array_equal(np.sort(rows), np.sort(moments)) and not np.array_equal(rows, moments):
        raise ValueError(
            "The rows of `values` are labeled with the same times as `times`, in another order. "
            "Give the labels themselves as `times`."
        )


def _check_channels(columns: Sequence[str], problem: _Measured, where: str) -> None:
    for column in columns:
        if column not in problem.channels:
            close = difflib.get_close_matches(column, problem.channels, 1, 0.5)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ValueError(
                f"{where}: unknown channel {column!r}.{hint} Problem {problem.name!r} has "
                f"{', '.join(problem.channels)}."
            )
    if not columns or len(set(columns)) != len(columns):
        raise ValueError(
            f"{where} must be distinct channel names, at least one; got {list(columns)}."
        )


def _read_rows(
    path: str | os.PathLike[str], name: str, coordinate: str
) -> list[tuple[int, list[str]]]:
    """The file's rows that are not blank, each with its line number."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        reader = csv.reader(io.StringIO(text), strict=True)
        rows = [(reader.line_num, row) for row in reader if any(field.strip() for field in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{name} is not a comma-separated text file in UTF-8: {error}.") from error
    if not rows:
        raise ValueError(
            f"{name} is empty; it needs a header `{coordinate},NAME,...` and rows of numbers."
        )
    return rows if len(rows) > 1 else _no_rows(name, coordinate)


def _no_rows(name: str, coordinate: str) -> list[tuple[int, list[str]]]:
    raise ValueError(f"{name} has a header but no readings; add a row for each {coordinate}.")


def _check_header(header: list[str], problem: _Measured, name: str) -> list[str]:
    coordinate = problem.model.coordinate
    if header.count(coordinate) != 1:
        raise ValueError(
            f"{name} needs exactly one column named `{coordinate}`; the header is {header}. The "
            f"first line must read `{coordinate},NAME,NAME,...` with commas between."
        )
    columns = [column for column in header if column != coordinate]
    _check_channels(columns, problem, f"{name}, header")
    return columns


def _parse_row(row: list[str], line: int, header: list[str], name: str) -> list[float]:
    if len(row) != len(header):
        raise ValueError(
            f"{name}, line {line} has {len(row)} columns, but the header has {len(header)}. Leave "
            "a missing reading's field empty but keep its comma; the decimal mark is a point."
        )
    return [
        _parse_field(field.strip(), f"{name}, line {line}, column {column!r}")
        for field, column in zip(row, header, strict=True)
    ]


def _parse_field(field: str, where: str) -> float:
    if not field:
        return math.nan
    try:
        if "_" in field:  # Python reads 1_000 as a number, no other program does
            raise ValueError(field)
        return float(field)
    except ValueError as error:
        raise ValueError(
            f"{where}: {field!r} is not a number. Leave the field empty if it is missing."
        ) from error


class _Places(NamedTuple):
    """Where readings came from, in the words of error messages: all of them, and each row."""

    source: str
    rows: list[str]


def _build(
    times: np.ndarray,
    values: np.ndarray,
    columns: list[str],
    problem: _Measured,
    places: _Places,
    resolution: float = EPSILON,
) -> Observation:
    """Check readings and put them in the problem's order."""
    if not len(times):
        raise ValueError("`times` and `values` must hold at least one reading; got none.")
    times = _moved(times, problem, resolution)
    _check_times(times, problem, places.rows)
    _check_distinct(times, ~np.isnan(values), problem, places.rows, resolution)
    _check_values(values, columns, places)
    check_possible(values, columns, places.rows, problem.noise)
    order = np.argsort(times, kind="stable")
    full = np.full((len(times), len(problem.channels)), np.nan)
    full[:, [problem.channels.index(column) for column in columns]] = values[order]
    mask = ~np.isnan(full)
    return Observation(
        times[order],
        np.where(mask, full, 0.0),
        mask,
        tuple(problem.channels),
        problem.name,
        problem.model.coordinate,
    )


def _check_times(times: np.ndarray, problem: _Measured, rows: list[str]) -> None:
    start, end = float(problem.model.initial_time), float(np.max(problem.model.times))
    coordinate = problem.model.coordinate
    for time, row in zip(times.tolist(), rows, strict=True):
        if not math.isfinite(time):
            raise ValueError(f"{row}: the {coordinate} must be a finite number; got {time}.")
        if time < start:
            raise ValueError(
                f"{row}: {coordinate} {time} lies before the beginning {start} of problem "
                f"{problem.name!r}. Count from there, or drop the row."
            )
        if time > end:
            raise ValueError(
                f"{row}: {coordinate} {time} lies beyond the end {end} of problem "
                f"{problem.name!r}. Drop the row, check its unit, or let the model be read further."
            )


def _moved(times: np.ndarray, problem: _Measured, resolution: float) -> np.ndarray:
    """Times, those that are off by rounding on the output times they mean."""
    grid = anchors(problem.model)
    coarse = unresolved(times, grid, resolution) if resolution > EPSILON else np.zeros(1, bool)
    if coarse.any():
        time = float(times[coarse][0])
        raise ValueError(
            f"`times` came in a precision whose numbers near {time} lie about "
            f"{resolution * abs(time):.2g} apart, too coarse for the output times of problem "
            f"{problem.name!r}. Make them float64 where they are still exact, or count from a "
            "later origin."
        )
    return moved(times, grid, resolution)


def _check_distinct(
    times: np.ndarray, mask: np.ndarray, problem: _Measured, rows: list[str], resolution: float
) -> None:
    """Refuse two rows at one time: what each of them weighs is not known."""
    order = np.argsort(times, kind="stable")
    for place in np.flatnonzero(repeated(times[order], resolution)):
        first, second = sorted(order[place : place + 2])
        where = f"{rows[second]}: {problem.model.coordinate} {times[second]} already appears in"
        if not np.any(mask[first] & mask[second]):
            raise ValueError(f"{where} {rows[first]}. Put the channels of both into one row.")
        raise ValueError(
            f"{where} {rows[first]}. Several readings at one {problem.model.coordinate} are not "
            f"supported yet: keep one of them. {_combined(problem.noise)}"
        )


def _combined(noise: Any) -> str:
    """What becomes of the noise where replicates are combined."""
    if noise.counts:
        return (
            "The sum of n counts is a count of n times the exposure: if all times have as many, "
            "give a problem with that exposure. Their mean is no count."
        )
    mean = "geometric mean" if noise.positive else "mean"
    return (
        f"Their mean has less noise than they have: of n independent readings the {mean} scatters "
        "by `scale` / √n. If all times have as many, give a problem with that noise; in this one "
        "it would be weighed too little."
    )


def _check_values(values: np.ndarray, columns: list[str], places: _Places) -> None:
    if np.isnan(values).all():
        raise ValueError(
            f"{places.source} holds no reading: every value is missing (empty or NaN). At least "
            "one number is needed."
        )
    for index, column in np.argwhere(np.abs(np.nan_to_num(values, posinf=np.inf)) > _LARGEST):
        value = float(values[index, column])
        where = f"{places.rows[index]}, channel {columns[column]!r}"
        if math.isinf(value):
            raise ValueError(f"{where}: the reading is infinite; leave it empty (NaN) if missing.")
        raise ValueError(
            f"{where}: reading {value} overflows float32, in which networks run (largest "
            f"{_LARGEST:.3g}). Check its unit."
        )


def check_times(observation: Observation, problem: _Measured, name: str = "`observation`") -> None:
    """Refuse, on the host, times that are no numbers, out of order or where nothing is solved.

    Args:
        observation: One observation or a batch, made by hand.
        problem: The inverse problem.
        name: What to call it.

    Raises:
        ValueError: If a time cannot be right. Missing the ends by rounding is no fault.
    """
    times, mask = np.asarray(observation.times), np.asarray(observation.mask)
    if not np.isfinite(times).all() or np.any(np.diff(times) < 0.0):
        raise ValueError(
            f"{name} has times that are NaN or decrease. Make it with `Observation.from_arrays`, "
            "which puts rows in order."
        )
    grid = anchors(problem.model)
    wrong = outside(times.astype(np.float64), grid, float(np.finfo(times.dtype).eps))
    if np.any(wrong & mask.any(axis=-1)):
        time = float(times[wrong & mask.any(axis=-1)][0])
        raise ValueError(
            f"{name} has times outside of [{grid[0]}, {grid[-1]}], where problem {problem.name!r} "
            f"is solved, such as {time}. Check their unit, or let the model be read further."
        )


def check_possible(
    values: Float[np.ndarray, "reading channel"],
    columns: Sequence[str],
    rows: Sequence[str],
    noise: Any,
) -> None:
    """Refuse readings that cannot occur under a noise model.

    Args:
        values: Readings, NaN where missing.
        columns: Name of each column.
        rows: What to call each row.
        noise: The noise model.

    Raises:
        ValueError: Naming the first reading that cannot be.
    """
    if noise.positive:
        wrong, must = values <= 0.0, "be greater than zero"
        remedy = "if it is below what can be measured, or use noise that allows it"
    elif noise.counts:
        wrong, must = (values < 0.0) | (values != np.round(values)), "be a count, 0 or 1 or 2 ..."
        wrong &= ~np.isnan(values)
        remedy = "if it is missing, undo a normalization, or use noise that allows it"
    else:
        return
    for index, column in np.argwhere(wrong):
        raise ValueError(
            f"{rows[index]}, channel {columns[column]!r}: reading {values[index, column]} must "
            f"{must} under the noise of this problem. Leave it empty (NaN) {remedy}, such as "
            "`Gaussian`."
        )
