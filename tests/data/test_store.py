import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import zarr

from inojax import Dataset, simulate
from inojax._parameters import Design
from inojax.data import _manifest, _store
from inojax.data._store import Store

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory, decay):
    """A finished store, to be copied or only read: 100 simulations in 13 chunks."""
    path = tmp_path_factory.mktemp("finished") / "store"
    resimulate(decay(), path)
    return path


@pytest.fixture
def copy(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def resimulate(problem, path, **changes):
    arguments = {"n": 100, "chunk_size": 8, "progress": False, "key": jr.key(0)} | changes
    return simulate(problem, store=path, **arguments)


def markers(path):
    return sum(file.name.isdigit() for file in path.glob("complete/c/*"))


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_kill_and_resume_ends_with_the_same_bytes(finished, tmp_path, decay, bytes_of, ending):
    path = tmp_path / "killed"
    command = [sys.executable, "simulate_slowly.py", path, "0.4"]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    child = subprocess.Popen(command, cwd=HERE, env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60.0
        while markers(path) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(ending)
        # A chunk of this problem takes far less than a second, also on a busy machine.
        assert child.wait(timeout=20) == -ending
    finally:
        child.kill()
        child.wait()
    done = markers(path)
    assert 3 <= done < 13
    with pytest.warns(UserWarning, match="holds .* of 100"):
        partial = Dataset.open(path)
    assert len(partial) >= 8 * done - 4  # The last chunk is short.
    whole = Dataset.open(finished)
    rows = np.isin(whole.thetas[:, 0], partial.thetas[:, 0])
    np.testing.assert_array_equal(partial.trajectories, whole.trajectories[rows])
    dataset = resimulate(decay(), path)
    assert dataset.timing.simulated == 100 - len(partial)
    assert bytes_of(path) == bytes_of(finished)


def test_death_at_any_file_operation_loses_one_chunk_at_most(
    tmp_path, decay, bytes_of, monkeypatch
):
    """The layout and every write, cut at each step that reaches the disk."""

    class Death(BaseException):
        pass

    problem, n, chunk = decay(), 6, 2
    thetas = np.asarray(problem.parameters.design(n, key=jr.key(0)))
    manifest = _manifest.manifest_of(
        problem, thetas, chunk_size=chunk, design=Design.SOBOL, key=jr.key(0)
    )
    arrays = {"thetas": thetas, "unit": thetas, "times": problem.model.times}
    states = np.arange(n * 16.0).reshape(n, 8, 2)

    def fill(path):
        with Store.resume(path, manifest, arrays) as store:
            done = store.finished()
            for index in sorted(set(range(3)) - set(done)):
                rows = slice(2 * index, 2 * index + 2)
                store.write(index, states[rows], np.zeros(2, np.int32))
        return done

    def cut(path, last):
        calls = []

        def mortal(function):
            def wrapped(*args, **kwargs):
                calls.append(function)
                if len(calls) > last:
                    raise Death
                return function(*args, **kwargs)

            return wrapped

        with monkeypatch.context() as patch:
            for module, name in (
                (_store, "_flush"),
                (os, "replace"),
                (zarr, "create_array"),
                (zarr, "create_group"),
                (Path, "write_bytes"),
                (Path, "unlink"),
                (Path, "touch"),
            ):
                patch.setattr(module, name, mortal(getattr(module, name)))
            try:
                fill(path)
            except Death:
                return True
        return False

    fill(tmp_path / "whole")
    np.testing.assert_array_equal(Dataset.open(tmp_path / "whole").trajectories, states)
    expected = bytes_of(tmp_path / "whole")
    deaths = 0
    while cut(tmp_path / f"cut{deaths}", deaths):
        marked = markers(tmp_path / f"cut{deaths}")
        assert len(fill(tmp_path / f"cut{deaths}")) == marked
        assert bytes_of(tmp_path / f"cut{deaths}") == expected
        deaths += 1
    # At least: note, 6 arrays, group, flush, note; then 3 chunks of 6 steps each.
    assert deaths >= 10 + 3 * 6


def test_a_lost_chunk_and_leftovers_of_a_kill_are_repaired(copy, decay, finished, bytes_of):
    (copy / "trajectories/c/4/0/0").unlink()
    (copy / "trajectories/c/4/0/0.0123456789abcdef.partial").write_bytes(b"half a chu")
    (copy / "complete/c/7").unlink()
    (copy / "inojax-creating").touch()
    assert resimulate(decay(), copy).timing.simulated == 16
    assert bytes_of(copy) == bytes_of(finished)


def reverse(t, y, theta):
    return jnp.stack([-theta[1] * y[0], theta[1] * y[0] - theta[0] * y[1]])


def slightly_other(t, y, theta):
    flow = theta[0] * y[0]
    return jnp.stack([-flow, flow - theta[1] * y[1] - 1e-6 * y[0]])


@pytest.mark.parametrize(
    ("problem", "call", "message"),
    [
        ({"name": "other"}, {}, r"problem name \('other' where 'decay' is stored\)"),
        ({"units": ("1/s", "1/h")}, {}, "parameter units"),
        ({"upper": 1.6}, {}, "priors"),
        ({"states": ("x", "z")}, {}, "state names"),
        ({"times": np.linspace(0.5, 4.0, 9)}, {}, "output times"),
        ({"times": np.linspace(0.5, 4.001, 8)}, {}, "output times"),
        ({"initial_time": 0.1}, {}, "initial time"),
        ({"initial_state": np.array([1.0, 1e-6])}, {}, "initial state"),
        ({"vector_field": reverse}, {}, "vector field"),
        ({"vector_field": slightly_other}, {}, "vector field"),
        ({"rtol": 1e-7}, {}, r"solver settings \(rtol 1e-07 where 1e-06 is stored\)"),
        ({"atol": 1e-11}, {}, r"solver settings \(atol 1e-11 where None is stored\)"),
        ({"atol": np.array([1e-10, 1e-11])}, {}, r"solver settings \(atol"),
        ({"max_steps": 99}, {}, r"solver settings \(max_steps 99 where 10000 is stored\)"),
        ({}, {"n": 101}, r"`n` \(101 where 100 is stored\)"),
        ({}, {"chunk_size": 9}, r"`chunk_size`.*\(9 where 8 is stored\)"),
        ({}, {"design": Design.RANDOM}, r"`design` \('RANDOM' where 'SOBOL' is stored\)"),
        ({}, {"key": jr.key(1)}, "`key`"),
        ({}, {"key": jr.key(0, impl="rbg")}, "`key`"),
    ],
)
def test_another_call_is_refused_and_nothing_is_touched(
    finished, decay, bytes_of, problem, call, message
):
    before = bytes_of(finished)
    with pytest.raises(ValueError, match=message) as info:
        resimulate(decay(**problem), finished, **call)
    assert "differs in" in str(info.value)
    assert "Give another folder, or delete this one" in str(info.value)
    assert bytes_of(finished) == before


def test_all_differences_are_named(finished, decay):
    with pytest.raises(ValueError, match=r"`key`.*initial state.*rtol .*, max_steps "):
        resimulate(
            decay(rtol=1e-5, max_steps=7, initial_state=np.array([2.0, 0.0])),
            finished,
            key=jr.key(5),
        )


def test_a_refactored_vector_field_is_the_same_problem(finished, decay):
    def refactored(t, y, theta):
        matrix = jnp.array([[-1.0, 0.0], [1.0, 0.0]]) * theta[0]
        drain = jnp.array([[0.0, 0.0], [0.0, -1.0]]) * theta[1]
        return (matrix + drain) @ y

    def start(theta):
        return jnp.array([1.0, 0.0])

    problem = decay(vector_field=refactored, initial_state=start)
    assert resimulate(problem, finished).timing.simulated == 0


def test_an_unfinished_store_of_another_call_is_refused_too(copy, decay):
    (copy / "complete/c/7").unlink()
    with pytest.raises(ValueError, match="`key`"):
        resimulate(decay(), copy, key=jr.key(1))


def test_reading_is_lazy_and_complete(finished):
    dataset = Dataset.open(finished)
    assert dataset._loaded is None
    assert len(dataset) == 100
    blocks = list(dataset.blocks(30))
    assert [len(block) for block in blocks] == [30, 30, 30, 10]
    assert dataset._loaded is None
    np.testing.assert_array_equal(np.concatenate(blocks), dataset.trajectories)
    assert dataset.trajectories is dataset.trajectories


def test_any_zarr_reader_can_read_it(finished):
    group = zarr.open_group(finished, mode="r")
    assert group.attrs["problem"] == "decay"
    assert group["trajectories"].shape == (100, 8, 2)
    assert group["trajectories"].metadata.dimension_names == ("simulation", "time", "state")
    np.testing.assert_array_equal(group["trajectories"][:], Dataset.open(finished).trajectories)
    json.loads((finished / "zarr.json").read_text(), parse_constant=pytest.fail)


def damage(path, what):
    if what == "manifest":
        text = (path / "zarr.json").read_text()
        (path / "zarr.json").write_text(text[: len(text) // 2])
    elif what == "no manifest":
        (path / "zarr.json").unlink()
    elif what == "array":
        (path / "status" / "zarr.json").unlink()
    elif what == "array metadata":
        (path / "status" / "zarr.json").write_text("{")
    elif what == "design":
        zarr.open_array(path / "thetas", mode="r+")[3, 0] = 0.7
    elif what == "version":
        text = (path / "zarr.json").read_text()
        (path / "zarr.json").write_text(text.replace('"version": 3', '"version": 9'))
    elif what == "foreign":
        shutil.rmtree(path)
        zarr.create_group(path, attributes={"mine": 1})


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("manifest", "is damaged: its zarr.json cannot be read"),
        ("no manifest", "is damaged: its zarr.json is missing"),
        ("array", "is damaged: the array `status` is missing"),
        ("array metadata", "is damaged: the array `status` cannot be read"),
        ("design", "is damaged: the parameters do not match the manifest"),
        ("version", "has format version 9; this inojax reads version 3"),
        ("foreign", "is a Zarr group, but no dataset that `simulate` wrote"),
    ],
)
def test_damage_is_told_and_not_made_worse(copy, decay, bytes_of, what, message):
    damage(copy, what)
    before = bytes_of(copy)
    with pytest.raises(ValueError, match=message):
        Dataset.open(copy)
    with pytest.raises(ValueError, match=message):
        resimulate(decay(), copy)
    assert bytes_of(copy) == before


def test_a_flipped_bit_in_a_chunk_is_noticed(copy):
    file = copy / "trajectories/c/2/0/0"
    content = bytearray(file.read_bytes())
    content[77] ^= 1
    file.write_bytes(content)
    dataset = Dataset.open(copy)
    with pytest.raises(ValueError, match=r"is damaged: trajectories cannot be read"):
        _ = dataset.trajectories


def test_open_where_there_is_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no dataset at"):
        Dataset.open(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"is no dataset: it has no zarr.json"):
        Dataset.open(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; a dataset is a folder"):
        Dataset.open(tmp_path / "file")


def test_store_that_is_a_file_or_holds_other_files(tmp_path, decay):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(NotADirectoryError, match="`store` must be a folder"):
        resimulate(decay(), tmp_path / "file")
    with pytest.raises(OSError, match="`store`"):
        resimulate(decay(), tmp_path / "file" / "below")
    with pytest.raises(FileExistsError, match=r"`store` must be a new folder.*other files"):
        resimulate(decay(), tmp_path)
    assert (tmp_path / "file").read_text() == "precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_store_that_cannot_be_written(tmp_path, decay, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(PermissionError, match=r"Cannot write to the `store`.*writable"):
        resimulate(decay(), tmp_path / "s")


def test_processes_fill_a_store_together(finished, tmp_path, bytes_of):
    path = tmp_path / "shared"
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    children = [
        subprocess.Popen(
            [sys.executable, "simulate_slowly.py", path, "0.05", str(index), "3"],
            cwd=HERE,
            env=environment,
        )
        for index in range(3)
    ]
    try:
        assert [child.wait(timeout=120) for child in children] == [0, 0, 0]
    finally:
        for child in children:
            child.kill()
    assert bytes_of(path) == bytes_of(finished)


def test_a_share_is_every_so_many_chunks(finished, tmp_path, decay, bytes_of):
    path = tmp_path / "shared"
    first = resimulate(decay(), path, share=(0, 3))
    with pytest.warns(UserWarning, match="holds .* of 100"):
        partial = Dataset.open(path)
    assert len(first) == len(partial) == first.timing.simulated
    assert sorted(int(file.name) for file in path.glob("complete/c/*")) == [0, 3, 6, 9, 12]
    rest = resimulate(decay(), path)
    assert first.timing.simulated + rest.timing.simulated == 100
    assert bytes_of(path) == bytes_of(finished)


def test_only_those_who_share_may_write_at_once(copy, decay, monkeypatch):
    monkeypatch.setattr(_store, "_PATIENCE", 0.1)
    arguments = (copy, Dataset.open(copy).manifest, {})
    with Store.resume(*arguments, shared=True):
        assert resimulate(decay(), copy, share=(1, 2)).timing.simulated == 0
        with pytest.raises(BlockingIOError, match="a `share` to each"):
            resimulate(decay(), copy)
    with Store.resume(*arguments), pytest.raises(BlockingIOError, match="a `share` to each"):
        resimulate(decay(), copy, share=(1, 2))


@pytest.mark.parametrize("share", [(2, 2), (-1, 2), (0, 0)])
def test_impossible_shares_are_refused(tmp_path, decay, share):
    with pytest.raises(ValueError, match="`share` must be"):
        resimulate(decay(), tmp_path / "s", share=share)
    assert not (tmp_path / "s").exists()


def test_a_share_needs_a_store(decay):
    with pytest.raises(ValueError, match="needs a `store`"):
        simulate(decay(), 10, share=(0, 2), key=jr.key(0))


def test_two_at_once_are_refused(copy, decay):
    arguments = (copy, Dataset.open(copy).manifest, {})
    with (
        Store.resume(*arguments),
        pytest.raises(BlockingIOError, match="Another process or thread is simulating"),
    ):
        resimulate(decay(), copy)
    assert resimulate(decay(), copy).timing.simulated == 0
