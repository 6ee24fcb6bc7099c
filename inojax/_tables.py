"""What numerical users hand over: arrays, masked arrays, tables, labeled arrays, lists with gaps.

Nothing is imported for it: objects of pandas, xarray and others are known by what they can do.
"""

import datetime
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ._rounding import EPSILON

_TIME_AXES = {"time", "times", "t"}
_CHANNEL_AXES = {"channel", "channels", "state", "states", "species", "variable", "variables"}
# By name, since pandas is not imported: its missing value, and times that are no `datetime`.
_MISSING = {"NAType"}
_DATES = {"NaTType", "Period", "Timedelta", "Timestamp"}
_PLAIN = {float, int, np.float64}


class Table(NamedTuple):
    """Numbers as they came, and what labels say about them.

    Attributes:
        numbers: The numbers; NaN where one is missing.
        names: Name of each column, if the columns have names.
        rows: Label of each row, if the rows have labels.
    """

    numbers: Float[np.ndarray, "..."]
    names: tuple[str, ...] | None = None
    rows: np.ndarray | None = None


def as_table(values: Any, argument: str, coordinate: str = "time") -> Table:
    """Read numbers with the names of their columns.

    Args:
        values: An array or nested lists, masked or with None where a number is missing; a data
            frame, a mapping from names to columns or a structured array; a labeled array, whose
            axes are put in order by their names.
        argument: What to call it.
        coordinate: Name of the axis along which rows lie.

    Returns:
        The table.

    Raises:
        ValueError: If these are no numbers, or numbers with units.
    """
    if hasattr(values, "dims") and hasattr(values, "coords") and not isinstance(values, Mapping):
        return _labeled(values, argument, coordinate)
    columns = _columns(values)
    if columns is not None:
        numbers = [as_numbers(column, argument) for _, column in columns]
        names = tuple(str(name) for name, _ in columns)
        # A frame made of a bare array counts its columns.
        counted = [name for name, _ in columns] == list(range(len(columns)))
        table = _stacked(numbers, argument).T if columns else np.empty((0, 0))
        return Table(table, None if counted else names, _rows(values))
    return Table(as_numbers(values, argument), _name(values), _rows(values))


def as_times(times: Any, argument: str = "times") -> tuple[Float[np.ndarray, "..."], float]:
    """Read times, none of which may be missing.

    Args:
        times: As in `as_table`, but without columns.
        argument: What to call it.

    Returns:
        The times, and the relative distance of neighboring numbers in the precision they came in.

    Raises:
        ValueError: If these are no numbers, one is missing, or float64 cannot hold them.
    """
    columns = _columns(times)
    if columns is not None:
        raise ValueError(
            f"`{argument}` must be one row of numbers; got a table with the columns "
            f"{', '.join(str(name) for name, _ in columns)}. Take one of them."
        )
    numbers = as_numbers(times, argument)
    if isinstance(times, np.ma.MaskedArray) and np.ma.getmaskarray(times).any():
        raise ValueError(
            f"`{argument}` holds masked entries, but a reading without a time cannot be used. "
            "Leave these rows out."
        )
    kind = getattr(getattr(times, "dtype", None), "kind", "")
    items = {type(time) for time in times} if isinstance(times, list | tuple) else set()
    if kind == "b" or items & {bool, np.bool_}:
        raise ValueError(f"`{argument}` must be numbers; got True and False, such as a mask.")
    if (kind in {"i", "u"} or items == {int}) and np.any(np.abs(numbers) > 2.0**53):
        raise ValueError(
            f"`{argument}` holds whole numbers up to {np.max(np.abs(numbers)):.6g}, more than a "
            "float can hold exactly. Subtract where the model starts first, while they are whole."
        )
    return numbers, _resolution(times)


def as_numbers(values: Any, argument: str) -> Float[np.ndarray, "..."]:
    """Read an array of numbers.

    Args:
        values: Anything that NumPy makes an array of; masked entries, None and pandas' NA are
            missing.
        argument: What to call it.

    Returns:
        Float64 numbers; NaN where one is missing.

    Raises:
        ValueError: If these are no numbers, or numbers with units.
    """
    try:
        return _numbers(values, argument)
    except (TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"`{argument}` must be a rectangular array of numbers: {error}") from error


def _numbers(values: Any, argument: str) -> np.ndarray:
    if isinstance(values, np.ma.MaskedArray):
        data = _numbers(np.asarray(values.data), argument)
        return np.where(np.ma.getmaskarray(values), np.nan, data).astype(np.float64)
    if isinstance(values, list | tuple):
        if {type(value) for value in values} <= _PLAIN:
            return np.asarray(values, np.float64)
        return _stacked([_numbers(value, argument) for value in values], argument)
    _refuse_dates(values, argument)
    _refuse_units(values, argument)
    if np.ndim(values) == 0 and not hasattr(values, "dtype"):
        return _number(values, argument)
    array = np.asarray(values)
    if array.dtype.kind == "O":
        if array.ndim == 0:
            return _number(array.item(), argument)
        each = [_numbers(value, argument) for value in array.ravel()]
        return _stacked(each, argument).reshape(array.shape)
    _refuse_kind(array, argument)
    return array.astype(np.float64)


def _number(value: Any, argument: str) -> np.ndarray:
    if value is None or type(value).__name__ in _MISSING:
        return np.asarray(np.nan)
    _refuse_dates(value, argument)
    if type(value) in (str, bytes, complex):
        _refuse_kind(np.asarray(value), argument)
    return np.asarray(float(value))


def _stacked(parts: list[np.ndarray], argument: str) -> np.ndarray:
    shapes = {part.shape for part in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"`{argument}` must be a rectangular array of numbers; its parts have the shapes "
            f"{', '.join(map(str, sorted(shapes)))}."
        )
    return np.stack(parts) if parts else np.empty(0)


def _refuse_kind(array: np.ndarray, argument: str) -> None:
    kind = array.dtype.kind
    if kind == "c":
        raise ValueError(
            f"`{argument}` must be real numbers; got complex ones. Give real and imaginary parts, "
            "or modulus and phase, as channels of their own."
        )
    if kind in "USTa":
        raise ValueError(
            f"`{argument}` must be numbers; got text such as {array.ravel()[:1].tolist()}. Convert "
            "it first, or read a file with `Observation.from_csv`."
        )


def _refuse_dates(values: Any, argument: str) -> None:
    dates = isinstance(values, datetime.date | datetime.time | datetime.timedelta)
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    if dates or kind in {"M", "m"} or type(values).__name__ in _DATES:
        raise ValueError(
            f"`{argument}` must be plain numbers, not dates or durations. Count from where the "
            "model starts, in its unit of time: `(times - start) / np.timedelta64(1, 'h')`, or "
            "in pandas `(times - start) / pd.Timedelta('1h')`."
        )


def _refuse_units(values: Any, argument: str) -> None:
    # Of tables and labeled arrays `unit` may be a column or a note.
    if hasattr(values, "iloc") or hasattr(values, "dims"):
        values = getattr(values, "data", None) if hasattr(values, "dims") else None
    units = getattr(values, "units", getattr(values, "unit", None))
    if units is not None and not callable(units):
        raise ValueError(
            f"`{argument}` carries units ({units}), which are not converted here. Give plain "
            "numbers in the unit of the model, such as `quantity.to(unit).magnitude`."
        )


def _columns(values: Any) -> list[tuple[Any, Any]] | None:
    """Names and columns, if there are such."""
    if isinstance(values, Mapping):
        return [(name, values[name]) for name in values]
    structured = getattr(getattr(values, "dtype", None), "names", None)
    if structured:
        return [(name, values[name]) for name in structured]
    names = getattr(values, "column_names", getattr(values, "columns", None))
    if names is None or isinstance(values, np.ndarray) or callable(names):
        return None
    if hasattr(values, "iloc"):
        # By place, since a data frame may have two columns of one name.
        return [(name, values.iloc[:, place]) for place, name in enumerate(names)]
    return [(name, values[name]) for name in names]


def _rows(values: Any) -> np.ndarray | None:
    """Labels of the rows of a pandas object."""
    index = getattr(values, "index", None) if hasattr(values, "iloc") else None
    return None if index is None else np.asarray(index)


def _labeled(values: Any, argument: str, coordinate: str) -> Table:
    """A labeled array of xarray, its axes in order."""
    axes = list(values.dims)
    labels = [np.asarray(values.coords[axis]) if axis in values.coords else None for axis in axes]
    numbers = as_numbers(values, argument)
    if len(axes) != 2:
        return Table(numbers, _name(values), labels[0] if len(axes) == 1 else None)
    text = [label is not None and label.dtype.kind in "UOT" for label in labels]
    rows = [str(axis) in _TIME_AXES | {coordinate} for axis in axes]
    columns = [str(axis) in _CHANNEL_AXES for axis in axes]
    # What says most comes first; where nothing says anything the axes stay.
    signs = (text, rows[::-1], columns, [False, True])
    turned = next(first for first, second in signs if first != second)
    if turned:
        numbers, labels, text = numbers.T, labels[::-1], text[::-1]
    channels = labels[1] if text[1] else None
    names = None if channels is None else tuple(str(name) for name in channels)
    return Table(numbers, names, None if text[0] else labels[0])


def _name(values: Any) -> tuple[str, ...] | None:
    """The name of a series, which is a column."""
    name = getattr(values, "name", None)
    if not isinstance(name, str) or not hasattr(values, "to_numpy") or np.ndim(values) != 1:
        return None
    return (name,)


def _resolution(values: Any) -> float:
    """Relative distance of neighboring numbers."""
    if isinstance(values, list | tuple):
        kinds = {getattr(value, "dtype", None) for value in values}
        return max((_resolution_of(kind) for kind in kinds), default=EPSILON)
    return _resolution_of(getattr(values, "dtype", None))


def _resolution_of(dtype: Any) -> float:
    dtype = getattr(dtype, "numpy_dtype", dtype)
    try:
        floating = jnp.issubdtype(dtype, jnp.floating) if dtype is not None else False
    except TypeError:  # of another library
        floating = False
    return max(EPSILON, float(jnp.finfo(dtype).eps)) if floating else EPSILON
