import numpy as np
import pytest

from inojax import Dataset
from inojax.solvers import SolveStatus


def make(n=10, failed=(), broken=(), **changes):
    random = np.random.default_rng(0)
    trajectories = random.normal(size=(n, 4, 3))
    status = np.zeros(n, np.int32)
    for row in failed:
        status[row] = SolveStatus.MAX_STEPS_REACHED
        trajectories[row, 2:] = np.nan
    for row in broken:
        trajectories[row, 1, 0] = np.nan
    arrays = {
        "thetas": random.uniform(size=(n, 2)),
        "unit": random.uniform(size=(n, 2)),
        "times": np.arange(4.0),
        "trajectories": trajectories,
        "status": status,
    } | changes
    return Dataset(arrays.pop("thetas"), arrays.pop("unit"), **arrays)


def test_failures_are_counted():
    dataset = make(failed=(2, 5))
    assert len(dataset) == 10
    assert dataset.failure_rate == 0.2
    assert list(np.flatnonzero(~dataset.ok)) == [2, 5]
    assert "10 simulations" in repr(dataset)
    assert "2 failed" in repr(dataset)


def test_usable_drops_failures_and_hidden_nans():
    dataset = make(failed=(2, 5), broken=(7,))
    usable = dataset.usable()
    kept = [0, 1, 3, 4, 6, 8, 9]
    np.testing.assert_array_equal(usable.trajectories, dataset.trajectories[kept])
    np.testing.assert_array_equal(usable.thetas, dataset.thetas[kept])
    np.testing.assert_array_equal(usable.unit, dataset.unit[kept])
    assert np.isfinite(usable.trajectories).all()
    assert usable.ok.all()


@pytest.mark.parametrize("every", [1, 3, 4, 20])
def test_trajectories_are_gathered_without_being_kept(every):
    whole = make()
    reads = []

    def read(wanted):
        reads.append(wanted)
        return whole.trajectories[wanted]

    manifest = {"chunk_size": 4}
    lazy = make(trajectories=read, manifest=manifest)
    assert lazy.shape == (10, 4, 3)
    gathered = lazy.gathered(every=every)
    assert gathered.dtype == np.float32
    np.testing.assert_array_equal(gathered, whole.trajectories[::every].astype(np.float32))
    before = len(reads)
    lazy.gathered()
    assert len(reads) > before  # read again, since nothing was kept
    np.testing.assert_array_equal(
        make(manifest=manifest).gathered(np.float64, every=every), whole.trajectories[::every]
    )


def test_parts_of_what_lies_on_disk_stay_there():
    whole = make(failed=(2, 5))
    usable = make(failed=(2, 5), trajectories=whole.trajectories.__getitem__).usable()
    train, held_out = usable.split(3)
    kept = [0, 1, 3, 4, 6, 7, 8, 9]
    np.testing.assert_array_equal(train.gathered(np.float64), whole.trajectories[kept[:-3]])
    np.testing.assert_array_equal(held_out.trajectories, whole.trajectories[kept[-3:]])
    assert train._loaded is None
    assert usable._loaded is None


def test_usable_drops_parameters_that_are_not_finite():
    thetas = np.ones((10, 2))
    thetas[4, 1] = np.inf
    assert len(make(thetas=thetas).usable()) == 9


def test_usable_copies_nothing_where_nothing_goes():
    dataset = make()
    assert dataset.usable() is dataset


@pytest.mark.parametrize("n", [0, 3])
def test_nothing_usable_is_an_error(n):
    with pytest.raises(ValueError, match=f"None of the {n} simulations is usable"):
        make(n, failed=range(n)).usable()


def test_split_is_deterministic_and_copies_nothing():
    dataset = make()
    train, held_out = dataset.split(3)
    assert (len(train), len(held_out)) == (7, 3)
    np.testing.assert_array_equal(held_out.thetas, dataset.thetas[7:])
    assert np.shares_memory(train.trajectories, dataset.trajectories)
    assert np.shares_memory(held_out.trajectories, dataset.trajectories)


@pytest.mark.parametrize("n_held_out", [-1, 0, 10, 11])
def test_split_refuses_an_empty_part(n_held_out):
    with pytest.raises(ValueError, match=f"`n_held_out` must be.*got {n_held_out}"):
        make().split(n_held_out)


def test_trajectories_are_read_once_and_late():
    values = make().trajectories
    calls = []

    def read(rows):
        calls.append(rows)
        return values[rows]

    dataset = make(trajectories=read)
    assert not calls
    np.testing.assert_array_equal(dataset.trajectories, values)
    count = len(calls)
    np.testing.assert_array_equal(dataset.trajectories, values)
    assert len(calls) == count


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit": np.zeros((9, 2))}, "`thetas` and `unit`"),
        ({"status": np.zeros(9, np.int32)}, "`status`"),
        ({"trajectories": np.zeros((9, 4, 3))}, "`trajectories`"),
        ({"times": np.zeros(5)}, "`trajectories`"),
    ],
)
def test_shapes_that_disagree(changes, message):
    # The annotations check some of this in tests already; users run without them.
    with pytest.raises(Exception, match=message.split()[0].strip("`")):
        make(**changes)
    check = Dataset.__new__(Dataset)
    good = make()
    vars(check).update(vars(good))
    for name, value in changes.items():
        vars(check)["_loaded" if name == "trajectories" else name] = value
    with pytest.raises(ValueError, match=message):
        check._check()
