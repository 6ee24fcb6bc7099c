"""Observations: checks on the way in, and files that read back to the same bits."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inojax._observation import Observation
from tests.refuses import refuses

# What an observation needs to know of a problem.
PROBLEM = types.SimpleNamespace(
    name="toy",
    channels=("NO2", "NO", "O3"),
    model=types.SimpleNamespace(
        times=np.linspace(1.0, 60.0, 60), initial_time=0.0, coordinate="time"
    ),
    noise=types.SimpleNamespace(positive=False, counts=False),
)
POSITIVE = types.SimpleNamespace(
    **(vars(PROBLEM) | {"noise": types.SimpleNamespace(positive=True, counts=False)})
)


def write(tmp_path, text: str):
    path = tmp_path / "readings.csv"
    path.write_text(text)
    return path


@pytest.fixture
def ragged(key) -> Observation:
    """Readings of very different sizes with gaps, as no decimal rounding could hold them."""
    times = np.sort(np.asarray(jax.random.uniform(key, (7,))).astype(np.float64)) * 60.0
    values = np.random.default_rng(0).normal(size=(7, 3)) * np.array([1e-18, 1.0, 1e11])
    values[2, 1] = np.nan
    values[5] = np.nan
    return Observation.from_arrays(times, values, problem=PROBLEM)


def test_csv_round_trip_is_exact(ragged, tmp_path):
    ragged.to_csv(tmp_path / "a.csv")
    again = Observation.from_csv(tmp_path / "a.csv", PROBLEM)
    assert again.channels == ragged.channels
    assert again.problem == ragged.problem == "toy"
    for name in ("times", "values", "mask"):
        before, after = getattr(ragged, name), getattr(again, name)
        assert after.dtype == before.dtype
        np.testing.assert_array_equal(after, before)


def test_padding_is_not_written(ragged, tmp_path):
    ragged.padded(12).to_csv(tmp_path / "a.csv")
    assert len(Observation.from_csv(tmp_path / "a.csv", PROBLEM)) == 7


def test_file_of_a_person(tmp_path):
    """Subset of columns in another order, unsorted rows, spaces, blank lines, BOM, gaps."""
    text = "\ufeffO3, time ,NO2\n\n 5e-3,30,\n4e-3, 2.5 ,0.25\n nan,40.0,+.5\n"
    observation = Observation.from_csv(write(tmp_path, text), PROBLEM)
    np.testing.assert_array_equal(observation.times, [2.5, 30.0, 40.0])
    np.testing.assert_array_equal(
        observation.mask, [[True, False, True], [False, False, True], [True, False, False]]
    )
    np.testing.assert_array_equal(
        observation.values, [[0.25, 0.0, 4e-3], [0.0, 0.0, 5e-3], [0.5, 0.0, 0.0]]
    )
    assert len(observation) == 3
    assert observation.size == 4


BAD_FILES = {
    "empty": ("", "empty"),
    "blank lines": ("\n , \n", "empty"),
    "header only": ("time,NO2\n", "no readings"),
    "no time column": ("t,NO2\n1,2\n", "one column named `time`.*'t'"),
    "two time columns": ("time,time,NO2\n1,1,2\n", "one column named `time`"),
    "semicolons": ("time;NO2\n1;2\n", "commas between"),
    "time alone": ("time\n1\n", "at least one"),
    "unknown channel": ("time,N02\n1,2\n", "unknown channel 'N02'.*'NO2'.*NO2, NO, O3"),
    "repeated channel": ("time,NO,NO\n1,2,3\n", "distinct"),
    "too few columns": ("time,NO2,NO\n1,2,3\n2,3\n", "line 3 has 2 columns.*header has 3"),
    "too many columns": ("time,NO2\n1,2\n\n2,3,4\n", "line 4 has 3 columns.*header has 2"),
    "not a number": ("time,NO2\n1,2\n2,high\n", "line 3, column 'NO2'.*'high' is not a number"),
    "time not a number": ("time,NO2\nnoon,2\n", "line 2, column 'time'.*'noon'"),
    "time missing": ("time,NO2\n1,2\n,2\n", "line 3.*time must be a finite number"),
    "negative time": ("time,NO2\n1,2\n-1,2\n", "line 3: time -1.0 lies before the beginning 0.0"),
    "beyond the horizon": ("time,NO2\n60.1,2\n", "line 2: time 60.1 lies beyond the end 60.0"),
    "duplicate time": ("time,NO2\n1,2\n2,2\n1.0,3\n", "line 4: time 1.0 already.*line 2"),
    "NaN everywhere": ("time,NO2,NO\n1,,nan\n2,NaN,\n", "every value is missing"),
    "infinite": ("time,NO2\n1,2\n2,inf\n", "line 3, channel 'NO2'.*infinite"),
    "float32 overflow": ("time,NO2\n1,2\n2,-1e39\n", "line 3, channel 'NO2'.*-1e.39.*float32"),
}


@pytest.mark.parametrize(("text", "complaint"), BAD_FILES.values(), ids=BAD_FILES)
def test_bad_files_are_refused(text, complaint, tmp_path):
    with refuses(ValueError, rf"(?s)^`path` readings\.csv.*{complaint}"):
        Observation.from_csv(write(tmp_path, text), PROBLEM)


def test_a_file_is_named_in_full_though_its_name_holds_a_comma(tmp_path):
    path = tmp_path / "readings, row 2.csv"
    path.write_text("time,NO2\n1,\n")
    with refuses(ValueError, r"^`path` readings, row 2\.csv holds no reading"):
        Observation.from_csv(path, PROBLEM)


def test_binary_and_absent_files_are_refused(tmp_path):
    path = tmp_path / "readings.csv"
    path.write_bytes(b"\x89PNG\xff\xfe")
    with refuses(ValueError, "`path`.*UTF-8"):
        Observation.from_csv(path, PROBLEM)
    with pytest.raises(FileNotFoundError):
        Observation.from_csv(tmp_path / "other.csv", PROBLEM)


FULL = np.ones((2, 3))
BAD_ARRAYS = {
    "time shape": ([[1.0, 2.0]], FULL, r"`times` of shape \(1, 2\)"),
    "rows": ([1.0, 2.0, 3.0], FULL, r"\(3, 3\).*`values` of shape \(2, 3\)"),
    "columns": ([1.0, 2.0], np.ones((2, 2)), r"3 channels.*`values` of shape \(2, 2\)"),
    "ragged": ([1.0, 2.0], [[1.0], [1.0, 2.0]], "`values`.*rectangular"),
    "text": (["a", "b"], FULL, "`times`.*numbers"),
    "none": ([], np.ones((0, 3)), "at least one reading"),
    "all missing": ([1.0, 2.0], np.nan * FULL, "`values`.*every value is missing"),
    "negative time": ([1.0, -2.0], FULL, "row 1: time -2.0.*beginning"),
    "beyond the horizon": ([1.0, 61.0], FULL, "row 1: time 61.0.*end"),
    "duplicate": ([1.0, 1.0], FULL, "row 1: time 1.0 already appears in `values` row 0"),
    "duplicate but for rounding": (
        [0.1 + 0.2, 0.3],
        FULL,
        "row 1: time 0.3 already appears in `values` row 0.*mean scatters by `scale` / √n",
    ),
    "one row for each channel": (
        [1.0, 1.0],
        FULL * [[1.0, np.nan, np.nan], [np.nan, 1.0, 1.0]],
        "row 1: time 1.0 already.*row 0. Put the channels of both into one row",
    ),
    "NaN time": ([1.0, np.nan], FULL, "row 1.*finite"),
    "infinite": ([1.0, 2.0], FULL * [1.0, np.inf, 1.0], "row 0, channel 'NO'.*infinite"),
    "minus infinite": ([1.0, 2.0], FULL * [1.0, -np.inf, 1.0], "row 0, channel 'NO'.*infinite"),
    "overflow": ([1.0, 2.0], FULL * [1.0, 1.0, 4e38], "row 0, channel 'O3'.*4e.38.*float32"),
}


@pytest.mark.parametrize(("times", "values", "complaint"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_bad_arrays_are_refused(times, values, complaint):
    with refuses(ValueError, rf"(?s){complaint}"):
        Observation.from_arrays(times, values, problem=PROBLEM)


def test_channels_of_arrays_can_be_named():
    observation = Observation.from_arrays(
        [2.0, 0.0], [[3.0, 1.0], [4.0, 2.0]], problem=PROBLEM, channels=["O3", "NO2"]
    )
    np.testing.assert_array_equal(observation.times, [0.0, 2.0])
    np.testing.assert_array_equal(observation.values, [[2.0, 0.0, 4.0], [1.0, 0.0, 3.0]])
    with refuses(ValueError, "`channels`.*unknown channel 'o3'.*Did you mean 'O3'"):
        Observation.from_arrays([1.0], [[1.0]], problem=PROBLEM, channels=["o3"])


@pytest.mark.parametrize("convert", [np.asarray, jnp.asarray], ids=["numpy", "jax"])
def test_padding_adds_rows_without_readings(ragged, convert):
    short = jax.tree.map(lambda x: convert(x, x.dtype if x.dtype == bool else np.float32), ragged)
    long = short.padded(10)
    assert len(long) == 10
    assert long.values.dtype == np.float32
    assert long.size == short.size
    np.testing.assert_array_equal(long.times[7:], np.repeat(short.times[-1:], 3))
    np.testing.assert_array_equal(long.values[:7], short.values)
    assert not np.asarray(long.mask[7:]).any()
    assert len(short.padded(7)) == 7
    with refuses(ValueError, "`rows`.*7 rows.*6"):
        short.padded(6)


def test_padding_keeps_double_precision(ragged):
    assert ragged.padded(9).values.dtype == np.float64


def test_observations_pass_through_jit_and_vmap(ragged):
    batch = jax.tree.map(lambda *xs: np.stack(xs), ragged, ragged.padded(7))
    assert jax.jit(lambda o: o)(batch).channels == ragged.channels
    np.testing.assert_array_equal(jax.jit(jax.vmap(lambda o: o.size))(batch), [17, 17])
    for action in (len, lambda o: o.to_csv("never.csv"), lambda o: o.padded(9)):
        with refuses(ValueError, r"batch of shape \(2,\)"):
            action(batch)


def test_shapes_must_agree():
    with refuses(ValueError, r"`values`.*\(2, 1\).*\(2, 2\)"):
        Observation(np.ones(2), np.ones((2, 2)), np.ones((2, 1), bool), ("a",))
    with refuses(ValueError, r"`mask`.*\(2, 1\).*\(1, 1\)"):
        Observation(np.ones(2), np.ones((2, 1)), np.ones((1, 1), bool), ("a",))


def test_noise_that_is_positive_needs_positive_readings(tmp_path):
    values = [[np.nan, 1.0, 2.0], [3.0, 4.0, 0.0]]
    assert Observation.from_arrays([1.0, 2.0], values, problem=PROBLEM).mask.sum() == 5
    with refuses(ValueError, "`values` row 1, channel 'O3': reading 0.0 .*greater than zero"):
        Observation.from_arrays([1.0, 2.0], values, problem=POSITIVE)
    path = write(tmp_path, "time,NO2,NO\n1,0.3,\n2,0.1,-5e-3\n")
    with refuses(ValueError, r"readings.csv, line 3, channel 'NO': reading -0.005 "):
        Observation.from_csv(path, POSITIVE)


def model_of(times, start=0.0):
    """What an observation needs to know of a problem that is solved at these times."""
    model = types.SimpleNamespace(times=np.asarray(times), initial_time=start, coordinate="time")
    return types.SimpleNamespace(**(vars(PROBLEM) | {"channels": ("y",), "model": model}))


@pytest.mark.parametrize("unit", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("origin", [0.0, 0.3])
def test_times_that_miss_by_rounding_are_moved(unit, origin, tmp_path):
    grid = unit * (origin + np.cumsum(np.full(8, 0.1)))
    problem = model_of(grid, unit * origin)
    wanted = unit * np.array([origin, origin + 0.25, origin + 0.5, origin + 0.8])
    wanted[[0, 2, 3]] = [unit * origin, grid[4], grid[7]]
    for direction in (-np.inf, np.inf):
        off = np.nextafter(wanted, direction)
        observation = Observation.from_arrays(off, np.ones(4), problem=problem)
        np.testing.assert_array_equal(observation.times, np.where([1, 0, 1, 1], wanted, off))
        path = write(tmp_path, "time,y\n" + "".join(f"{t!r},1\n" for t in off.tolist()))
        np.testing.assert_array_equal(Observation.from_csv(path, problem).times, observation.times)
    for wrong in (unit * (origin - 1e-3), unit * (origin + 0.801)):
        with refuses(ValueError, "lies b"):
            Observation.from_arrays([wrong], [1.0], problem=problem)


def test_calendar_times_have_the_same_tolerance():
    """A minute beyond the end is refused, a rounding is not: 4.7e-10 days."""
    grid = 2459000.5 + np.arange(1.0, 61.0)
    problem = model_of(grid, 2459000.5)
    off = np.nextafter(grid[-1], np.inf)
    assert Observation.from_arrays([off], [1.0], problem=problem).times == grid[-1]
    with refuses(ValueError, "beyond the end"):
        Observation.from_arrays([grid[-1] + 1.0 / 1440.0], [1.0], problem=problem)
    single = grid[:2].astype(np.float32)
    with refuses(ValueError, "`times` came in a precision.*0.29 apart.*float64"):
        Observation.from_arrays(single, [1.0, 2.0], problem=problem)


def test_times_in_single_precision_are_moved_where_it_resolves_them():
    grid = np.linspace(0.6, 60.0, 100)
    problem = model_of(grid)
    single = grid.astype(np.float32)
    assert np.any(single.astype(np.float64) > 60.0) or np.any(single != grid)
    observation = Observation.from_arrays(single, np.ones(100), problem=problem)
    np.testing.assert_array_equal(observation.times, grid)


@pytest.mark.parametrize(
    ("positive", "counts", "advice"),
    [
        (False, False, "the mean scatters by `scale` / √n"),
        (True, False, "the geometric mean scatters by `scale` / √n"),
        (False, True, "sum of n counts is a count of n times the exposure"),
    ],
)
def test_replicates_are_refused_with_what_becomes_of_the_noise(positive, counts, advice):
    noise = types.SimpleNamespace(positive=positive, counts=counts)
    problem = types.SimpleNamespace(**(vars(PROBLEM) | {"noise": noise}))
    with refuses(ValueError, f"not supported yet: keep one of them.*{advice}"):
        Observation.from_arrays([1.0, 1.0], FULL, problem=problem)
