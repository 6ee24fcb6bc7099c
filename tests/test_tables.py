"""Readings as numerical users have them; pandas and xarray where they are installed, else alike."""

import datetime
import decimal
import fractions
import types
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from inojax._observation import Observation
from inojax._tables import as_numbers, as_table, as_times
from tests.refuses import refuses

PROBLEM: Any = types.SimpleNamespace(
    name="toy",
    channels=("NO2", "NO", "O3"),
    model=types.SimpleNamespace(
        times=np.linspace(1.0, 60.0, 60), initial_time=0.0, coordinate="time"
    ),
    noise=types.SimpleNamespace(positive=False, counts=False),
)
SINGLE_CHANNEL: Any = types.SimpleNamespace(**(vars(PROBLEM) | {"channels": ("NO2",)}))
NAN = np.nan
TIMES = [3.0, 1.0]
VALUES = np.array([[1.0, 2.0, NAN], [4.0, 5.0, 6.0]])
# Sorted by time, and in the order of the channels.
RIGHT = np.array([[4.0, 5.0, 6.0], [1.0, 2.0, NAN]])


class NAType:
    """As pandas' missing value: no number, and neither true nor false."""

    def __float__(self):
        raise TypeError("float() argument must be a string or a real number, not 'NAType'")

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


class Series:
    """What is used of a pandas Series."""

    def __init__(self, values, name=None, index=None):
        self.values, self.name = np.asarray(values), name
        self.index = np.arange(len(self.values)) if index is None else np.asarray(index)
        self.iloc, self.ndim, self.dtype = self.values, 1, self.values.dtype

    def __array__(self, dtype=None, copy=None):
        del copy
        return np.asarray(self.values, dtype)

    def to_numpy(self):
        return self.values


class Frame:
    """What is used of a pandas DataFrame."""

    def __init__(self, columns, index=None):
        self.columns = list(columns)
        self.parts = [Series(column, name, index) for name, column in columns.items()]
        self.index = self.parts[0].index
        self.iloc, self.ndim = self, 2

    def __getitem__(self, where):
        return self.parts[where[1]]

    def to_numpy(self):
        return np.stack([part.values for part in self.parts], axis=1)


class Labeled:
    """What is used of an xarray DataArray."""

    def __init__(self, values, dims, coords=None, name=None):
        self.data, self.dims, self.name = np.asarray(values), tuple(dims), name
        self.coords = coords or {}
        self.dtype, self.ndim = self.data.dtype, self.data.ndim

    def __array__(self, dtype=None, copy=None):
        del copy
        return np.asarray(self.data, dtype)

    def to_numpy(self):
        return self.data


class Quantity:
    """What is used of numbers with units, of pint and others."""

    units = "second"

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("would strip units")


def read(values, times=TIMES, problem=PROBLEM, **kwargs):
    observation = Observation.from_arrays(times, values, problem=problem, **kwargs)
    return np.where(observation.mask, observation.values, NAN)


MASKED = np.ma.masked_values(np.where(np.isnan(VALUES), -999.0, VALUES), -999.0)
NONE = [[1.0, 2.0, None], [4.0, 5.0, 6.0]]
KINDS = {
    "array": VALUES,
    "lists": VALUES.tolist(),
    "tuples": tuple(map(tuple, VALUES.tolist())),
    "masked": MASKED,
    "masked integers": np.ma.masked_equal([[1, 2, -999], [4, 5, 6]], -999),
    "masked rows": [MASKED[0], MASKED[1]],
    "masked constant": [[1.0, 2.0, np.ma.masked], [4, 5, 6]],
    "none": NONE,
    "object": np.array(NONE, object),
    "pandas' missing value": [[1, 2, NAType()], [4, 5, 6]],
    "object of that": np.array([[1, 2, NAType()], [4, 5, 6]], object),
    "jax": jnp.asarray(VALUES, jnp.float32),
    "bfloat16": jnp.asarray(VALUES, jnp.bfloat16),
    "float16": VALUES.astype(np.float16),
    "decimals": [[decimal.Decimal(1), fractions.Fraction(2), None], [4, 5, 6]],
    "rows of arrays": [VALUES[0], jnp.asarray(VALUES[1], jnp.float32)],
    "mapping": {"NO2": [1.0, 4.0], "NO": [2, 5], "O3": [None, 6.0]},
    "mapping in another order": {"O3": [None, 6.0], "NO2": [1.0, 4.0], "NO": [2, 5]},
    "structured": np.array(
        [(NAN, 1.0, 2.0), (6.0, 4.0, 5.0)], [("O3", float), ("NO2", float), ("NO", float)]
    ),
    "frame": Frame({"NO2": [1.0, 4.0], "NO": [2, 5], "O3": [NAN, 6.0]}),
    "frame in another order": Frame({"NO": [2, 5], "O3": [NAN, 6.0], "NO2": [1.0, 4.0]}),
    "frame with missing values": Frame(
        {"NO": [2, 5], "O3": np.array([NAType(), 6], object), "NO2": [1.0, 4.0]}
    ),
    "frame that counts its columns": Frame({0: [1.0, 4.0], 1: [2.0, 5.0], 2: [NAN, 6.0]}),
    "labeled": Labeled(VALUES, ("time", "channel")),
    "labeled and turned": Labeled(VALUES.T, ("channel", "time")),
    "turned, known by time": Labeled(VALUES.T, ("place", "time")),
    "turned, known by channel": Labeled(VALUES.T, ("species", "sample")),
    "turned, known by names": Labeled(
        VALUES.T[[2, 0, 1]], ("a", "b"), {"a": np.array(["O3", "NO2", "NO"])}
    ),
    "labeled, axes unknown": Labeled(VALUES, ("a", "b")),
}


@pytest.mark.parametrize("values", KINDS.values(), ids=KINDS)
def test_what_is_missing_stays_missing_and_names_say_where(values):
    np.testing.assert_array_equal(read(values), RIGHT)


@pytest.mark.parametrize(
    "values",
    [
        [1.0, None],
        np.array([1.0, NAN]),
        np.ma.masked_equal([1, -9], -9),
        [[1.0], [None]],
        Series([1.0, NAN], "NO2"),
        Series([1.0, NAN]),
        Labeled([1.0, NAN], ["time"]),
        Labeled([1.0, NAN], ["time"], name="NO2"),
        {"NO2": [1.0, None]},
    ],
    ids=lambda values: type(values).__name__,
)
def test_one_channel_may_be_one_dimensional(values):
    np.testing.assert_array_equal(read(values, problem=SINGLE_CHANNEL), [[NAN], [1.0]])
    columns = read(values, channels=["NO2"])
    np.testing.assert_array_equal(columns, [[NAN, NAN, NAN], [1.0, NAN, NAN]])


def test_counts_and_truth_values_are_numbers():
    np.testing.assert_array_equal(
        read(np.array([True, False]), problem=SINGLE_CHANNEL), [[0.0], [1.0]]
    )
    np.testing.assert_array_equal(
        read(np.array([3, 250], np.uint8), problem=SINGLE_CHANNEL), [[250.0], [3.0]]
    )


def test_channels_choose_among_named_columns():
    frame = Frame({"O3": [NAN, 6.0], "NO": [2, 5], "NO2": [1.0, 4.0]})
    np.testing.assert_array_equal(read(frame, channels=["NO2", "O3"]), RIGHT * [1.0, NAN, 1.0])
    # Names of its own are no channels, so that `channels` says which they are.
    own = Frame({"a": [1.0, 4.0], "b": [2.0, 5.0], "c": [NAN, 6.0]})
    np.testing.assert_array_equal(read(own, channels=["NO2", "NO", "O3"]), RIGHT)
    part = Frame({"O3": [NAN, 6.0], "NO2": [1.0, 4.0]})
    np.testing.assert_array_equal(read(part), RIGHT * [1.0, NAN, 1.0])


BAD = {
    "unknown name": (Frame({"NO": [1, 2], "N02": [3, 4]}), "columns: unknown channel 'N02'.*'NO2'"),
    "repeated name": ({"NO": [1, 2]} | {"x": [1, 2]}, "unknown channel 'x'"),
    "time beside them": (Frame({"time": [3, 1], "NO": [1, 2]}), "column 'time' beside"),
    "name of a series": (Series([1.0, 2.0], "signal"), "unknown channel 'signal'"),
    "transposed": (VALUES.T, r"\(2, 3\); got `values` of shape \(3, 2\).*`values.T`"),
    "one of three": (np.ones(2), r"shape \(2,\).*one channel alone.*`channels="),
    "row": ([1.0, 2.0, 3.0], "A single row is written"),
    "three axes": (np.ones((2, 3, 1)), r"\(2, 3, 1\)"),
    "ragged": ([[1.0, 2.0, 3.0], [1.0]], r"rectangular.*\(1,\), \(3,\)"),
    "ragged columns": ({"NO": [1.0, 2.0], "O3": [1.0]}, "rectangular"),
    "complex": (VALUES + 0j, "must be real.*complex"),
    "complex item": ([[1j, 2.0, 3.0]] * 2, "must be real.*complex"),
    "text": ([["1.0", "2.0", "3.0"]] * 2, "must be numbers; got text such as .'1.0'"),
    "text of numpy": (np.array([["1", "2", "3"]] * 2), "must be numbers; got text"),
    "bytes": (np.array([[b"1", b"2", b"3"]] * 2), "must be numbers; got text"),
    "dates": (np.ones((2, 3), "M8[s]"), "not dates or durations"),
    "durations": (np.ones((2, 3), "m8[s]"), "not dates or durations"),
    "units": (Quantity(), r"carries units \(second\)"),
    "units inside": ([[Quantity(), 1.0, 2.0]] * 2, "carries units"),
    "labeled units": (
        types.SimpleNamespace(dims=("time", "channel"), coords={}, data=Quantity()),
        "carries units",
    ),
    "a set": ({1.0, 2.0}, "rectangular array of numbers"),
    "an iterator": (iter([1.0]), "rectangular array of numbers"),
    "too large": ([[10**400, 1, 1]] * 2, "rectangular array of numbers"),
}


@pytest.mark.parametrize(("values", "complaint"), BAD.values(), ids=BAD)
def test_what_cannot_be_read_is_refused(values, complaint):
    with refuses(ValueError, rf"(?s)`values`.*{complaint}"):
        read(values)


def test_columns_for_rows_are_refused_where_sizes_tell():
    with refuses(ValueError, "transpose"):
        read(np.ones((1, 2)), problem=SINGLE_CHANNEL)
    with refuses(ValueError, "transpose"):
        read(Labeled(VALUES.T, ("a", "b")))


def test_names_and_channels_that_disagree_are_refused():
    frame = Frame({"NO": [2, 5], "x": [1.0, 4.0]})
    with refuses(ValueError, "`channels` are NO2, but the columns of `values` are called NO, x"):
        read(frame, channels=["NO2"])
    with refuses(ValueError, r"`channels` must be a list of names; got 'NO2'. Write \['NO2'\]"):
        read(np.ones(2), channels="NO2")


def test_rows_in_another_order_than_times_are_refused():
    frame = Frame({"NO": [2.0, 5.0]}, index=["a", "b"])
    np.testing.assert_array_equal(read(frame, Series(TIMES, index=["a", "b"]))[:, 1], [5.0, 2.0])
    with refuses(ValueError, "rows with different labels"):
        read(frame, Series(TIMES[::-1], index=["b", "a"]))
    with refuses(ValueError, "labeled with the same times.*another order"):
        read(Frame({"NO": [2.0, 5.0]}, index=[3.0, 1.0]), [1.0, 3.0])
    with refuses(ValueError, "labeled with the same times.*another order"):
        read(Labeled(VALUES, ("time", "channel"), {"time": np.array([3.0, 1.0])}), [1.0, 3.0])
    # Rows that are only counted say nothing.
    np.testing.assert_array_equal(read(Frame({"NO": [2.0, 5.0]}), [1, 0])[:, 1], [5.0, 2.0])


TIMES_OF = {
    "integers": np.array([3, 1]),
    "tuple": (3, 1.0),
    "series": Series(TIMES),
    "labeled": Labeled(TIMES, ("time",)),
    "jax": jnp.asarray(TIMES),
    "object": np.array([3, decimal.Decimal(1)], object),
    "unmasked": np.ma.array(TIMES),
}


@pytest.mark.parametrize("times", TIMES_OF.values(), ids=TIMES_OF)
def test_times_of_any_kind(times):
    np.testing.assert_array_equal(read(VALUES, times), RIGHT)


DAY = datetime.date(2024, 5, 1)
BAD_TIMES = {
    "masked": (np.ma.masked_equal([3, -1], -1), "masked entries.*Leave these rows out"),
    "none": ([3.0, None], "row 1.*finite"),
    "dates": (np.array(["2024-05-01", "2024-05-02"], "M8[D]"), "not dates"),
    "durations": (np.array([1, 2], "m8[h]"), r"not dates or durations.*np.timedelta64\(1, 'h'\)"),
    "series of dates": (Series(np.array([1, 2], "M8[s]")), "not dates"),
    "python's dates": ([DAY, DAY], "not dates"),
    "python's durations": (np.array([datetime.timedelta(1)] * 2, object), "not dates"),
    "truth values": ([True, False], "True and False"),
    "mask": (np.array([True, False]), "True and False"),
    "units": (Quantity(), "carries units"),
    "complex": (np.array([3j, 1.0]), "real"),
    "table": (Frame({"t": TIMES}), "one row of numbers.*columns t"),
    "text": (["3", "1"], "text"),
    "nanoseconds": (np.array([1714521600000000001, 1], np.int64), "Subtract"),
    "python's nanoseconds": ([1714521600000000001, 1], "Subtract"),
}


@pytest.mark.parametrize(("times", "complaint"), BAD_TIMES.values(), ids=BAD_TIMES)
def test_bad_times_are_refused(times, complaint):
    with refuses(ValueError, rf"(?s){complaint}"):
        read(VALUES, times)


def test_empty_input_has_its_own_words():
    for times, values in (([], np.ones((0, 3))), ([], []), (np.empty(0), {"NO": []})):
        with refuses(ValueError, "at least one reading|shape"):
            read(values, times)


def test_numbers_that_are_none():
    assert as_numbers(3, "x") == 3.0
    assert np.isnan(as_numbers(None, "x"))
    assert as_table(np.ma.masked, "x").numbers.shape == ()
    assert as_times(np.float32(0.5))[1] == np.finfo(np.float32).eps
    assert as_times([np.float32(0.5), 1.0])[1] == np.finfo(np.float32).eps


# --- The real things ----------------------------------------------------------------------


def test_pandas():
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"O3": [pd.NA, 6], "NO2": [1, 4], "NO": [2.0, 5.0]}, index=[7, 9])
    frame = frame.astype({"O3": "Int64", "NO2": "Int64"})
    for times in (TIMES, pd.Series(TIMES, index=[7, 9]), pd.Index(TIMES), pd.array([3, 1])):
        np.testing.assert_array_equal(read(frame, times), RIGHT)
    with refuses(ValueError, "different labels"):
        read(frame, pd.Series(TIMES))
    assert as_times(pd.Series(TIMES, dtype="Float32"))[1] == np.finfo(np.float32).eps
    single = {"problem": SINGLE_CHANNEL}
    np.testing.assert_array_equal(read(frame["O3"].rename("NO2"), **single), [[6.0], [NAN]])
    np.testing.assert_array_equal(read(frame[["O3"]].to_numpy(), **single), [[6.0], [NAN]])
    with refuses(ValueError, "unknown channel 'O3'"):
        read(frame["O3"], **single)
    days = pd.to_datetime(["2024-05-01", "2024-05-02"])
    bad = (days, days.tz_localize("UTC"), pd.Series(days), days - days[0], days.to_period("D"))
    for times in (*bad, list(days), [days[0], pd.NaT]):
        with refuses(ValueError, "`times`.*not dates or durations"):
            read(frame, times)
    repeated = pd.DataFrame([[1.0, 2.0], [3.0, 4.0]], columns=["NO", "NO"])
    with refuses(ValueError, "distinct"):
        read(repeated)


def test_xarray():
    xr = pytest.importorskip("xarray")
    array = xr.DataArray(
        VALUES, dims=("time", "gas"), coords={"time": TIMES, "gas": ["NO2", "NO", "O3"]}
    )
    for turned in (array, array.T, array[:, ::-1], array.T[[1, 0, 2]]):
        np.testing.assert_array_equal(read(turned, array.time), RIGHT)
    np.testing.assert_array_equal(read(array.to_dataset("gas"), array.time), RIGHT)
    np.testing.assert_array_equal(read(array.drop_vars(["time", "gas"]).T), RIGHT)
    with refuses(ValueError, "another order"):
        read(array, TIMES[::-1])
    single = array.sel(gas="NO2").rename("NO2")
    np.testing.assert_array_equal(read(single, problem=SINGLE_CHANNEL), [[4.0], [1.0]])
    with refuses(ValueError, "not dates"):
        read(array, xr.DataArray(np.array([1, 2], "M8[ns]"), dims="time"))
