import threading
import warnings

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from inojax import Dataset, simulate
from inojax.data import _simulate, _store
from inojax.data._store import Store
from inojax.models import _ode_solve
from inojax.solvers import SolveStatus


def test_trajectories_are_the_closed_form(decay, key):
    dataset = simulate(decay(), 50, chunk_size=8, progress=False, key=key)
    exact = np.exp(-dataset.thetas[:, :1] * dataset.times[None, :])
    # Local errors of 1e-6 may add up over a dozen steps.
    np.testing.assert_allclose(dataset.trajectories[:, :, 0], exact, rtol=1e-5)
    assert dataset.trajectories.dtype == np.float64
    assert dataset.trajectories.shape == (50, 8, 2)


def test_rows_belong_together(decay, key):
    problem = decay()
    dataset = simulate(problem, 30, chunk_size=8, progress=False, key=key)
    np.testing.assert_array_equal(dataset.thetas, problem.parameters.design(30, key=key))
    # A round trip through the logarithm of the prior costs a few rounding errors.
    np.testing.assert_allclose(
        problem.parameters.from_unit(dataset.unit), dataset.thetas, rtol=1e-12
    )
    assert dataset.status.shape == (30,)
    assert dataset.ok.all()
    assert dataset.failure_rate == 0.0


@pytest.mark.parametrize("chunk_size", [8, 200])
def test_bits_depend_neither_on_devices_nor_on_the_store(decay, key, chunk_size, tmp_path):
    arguments = {"chunk_size": chunk_size, "progress": False, "key": key}
    one = simulate(decay(), 200 if chunk_size > 8 else 60, **arguments)
    mesh = jax.make_mesh((2,), ("simulation",))
    two = simulate(decay(), len(one), mesh=mesh, **arguments)
    stored = simulate(decay(), len(one), store=tmp_path / "s", **arguments)
    for other in (two, stored, Dataset.open(tmp_path / "s")):
        for name in ("thetas", "unit", "times", "trajectories", "status"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=True)
        assert other.manifest == one.manifest


def test_devices_take_turns(decay, key, monkeypatch):
    seen, in_calls = [], _ode_solve.in_calls

    def spied(*args, mesh, **kwargs):
        seen.extend(mesh.local_devices)
        return in_calls(*args, mesh=mesh, **kwargs)

    monkeypatch.setattr(_ode_solve, "in_calls", spied)
    mesh = jax.make_mesh((2,), ("simulation",))
    simulate(decay(), 60, chunk_size=8, mesh=mesh, progress=False, key=key)
    # Every other chunk on the other device, whichever is done first.
    assert sorted(seen.count(device) for device in jax.local_devices()) == [4, 4]


def test_callers_precision_plays_no_part(decay, key):
    narrow = simulate(decay(), 20, chunk_size=8, progress=False, key=key)
    with jax.enable_x64(True):
        wide = simulate(decay(), 20, chunk_size=8, progress=False, key=key)
    np.testing.assert_array_equal(narrow.trajectories, wide.trajectories, strict=True)
    assert narrow.manifest == wide.manifest


def test_timing_says_what_was_done(decay, key, tmp_path):
    arguments = {"store": tmp_path / "s", "chunk_size": 8, "progress": False, "key": key}
    first = simulate(decay(), 30, **arguments).timing
    assert first.simulated == 30
    assert first.retried == 0
    assert 0.0 <= first.compile_seconds <= first.total_seconds
    again = simulate(decay(), 30, **arguments).timing
    assert again.simulated == 0
    assert again.compile_seconds == 0.0


def test_progress_bar_counts_to_the_end_on_stderr(decay, key, capsys):
    simulate(decay(), 20, chunk_size=8, key=key)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "decay" in captured.err
    assert "20/20" in captured.err
    simulate(decay(), 20, chunk_size=8, progress=False, key=key)
    assert capsys.readouterr().err == ""


def test_failures_are_kept_counted_and_named(blow_up, key):
    with pytest.warns(UserWarning, match="distorted prior") as caught:
        dataset = simulate(blow_up(), 64, chunk_size=8, progress=False, key=key)
    a = dataset.thetas[:, 0]
    np.testing.assert_array_equal(dataset.ok, a < 1.0)
    assert dataset.timing.retried == np.sum(a >= 1.0)
    assert dataset.failure_rate == np.mean(a >= 1.0)
    (warning,) = [entry for entry in caught if entry.category is UserWarning]
    message = str(warning.message)
    assert f"{np.sum(a >= 1.0)} of 64" in message
    assert "dataset.thetas[~dataset.ok]" in message
    status = SolveStatus(int(dataset.status[~dataset.ok][0]))
    assert status.name in message


def test_nothing_that_is_not_finite_is_usable(blow_up, key):
    with pytest.warns(UserWarning, match="distorted prior"):
        dataset = simulate(blow_up(), 64, chunk_size=8, progress=False, key=key)
    usable = dataset.usable()
    assert len(usable) == np.sum(dataset.ok)
    assert np.isfinite(usable.trajectories).all()
    # Where the equation can be solved its solution is 1 / (1 - a t).
    mild = usable.thetas[:, 0] < 0.9
    exact = 1.0 / (1.0 - usable.thetas[mild] * usable.times[None, :])
    np.testing.assert_allclose(usable.trajectories[mild, :, 0], exact, rtol=1e-4)


def test_rare_failures_do_not_warn(blow_up, key):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = simulate(blow_up(upper=1.005), 256, chunk_size=8, progress=False, key=key)
    assert 0.0 < dataset.failure_rate <= 0.01


def test_a_retry_with_more_steps_rescues(decay, key):
    hurried = decay(max_steps=9)
    dataset = simulate(hurried, 16, chunk_size=8, progress=False, key=key)
    first = hurried.model.solve_ensemble(dataset.thetas[:8])
    failed = first.status == SolveStatus.MAX_STEPS_REACHED
    assert failed.any()
    assert dataset.timing.retried >= failed.sum()
    assert dataset.ok.all()
    exact = np.exp(-dataset.thetas[:, :1] * dataset.times[None, :])
    # A retry is more accurate than the first attempt, never less.
    np.testing.assert_allclose(dataset.trajectories[:, :, 0], exact, rtol=1e-5)
    kept = ~failed
    np.testing.assert_array_equal(dataset.trajectories[:8][kept], first.states[kept])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n": 0}, "`n` must be at least 1; got 0"),
        ({"chunk_size": 0}, "`chunk_size` must be at least 1; got 0"),
    ],
)
def test_counts_out_of_range(decay, key, changes, message):
    with pytest.raises(ValueError, match=message):
        simulate(decay(), **({"n": 4, "progress": False, "key": key} | changes))


def test_an_error_in_the_vector_field_reaches_the_caller(decay, key, tmp_path):
    problem = decay()

    def broken(thetas, **_):
        raise FloatingPointError("from the model")

    model = type("Model", (type(problem.model),), {"solve_ensemble": staticmethod(broken)})
    object.__setattr__(problem.model, "__class__", model)
    before = threading.active_count()
    with pytest.raises(FloatingPointError, match="from the model"):
        simulate(problem, 20, chunk_size=2, store=tmp_path / "s", progress=False, key=key)
    assert threading.active_count() <= before + 1  # zarr keeps its event loop


@pytest.mark.parametrize("moment", [0, 1, 4])
def test_ctrl_c_keeps_what_is_finished(decay, key, tmp_path, bytes_of, monkeypatch, moment):
    arguments = {"chunk_size": 8, "progress": False, "key": key}
    simulate(decay(), 120, store=tmp_path / "whole", **arguments)
    seen, write = [], Store.write
    pace = threading.Semaphore(2)  # Keeps a slow main thread from missing the whole run.

    def paced_write(self, chunk, states, status):
        pace.acquire(timeout=1.0)
        write(self, chunk, states, status)

    def interrupt(self, count=1):
        pace.release()
        seen.append(count)
        if len(seen) > moment:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tqdm.tqdm.update", interrupt)
        patch.setattr(Store, "write", paced_write)
        with pytest.raises(KeyboardInterrupt):
            simulate(decay(), 120, store=tmp_path / "cut", **arguments)
    with pytest.warns(UserWarning, match="unfinished"):
        partial = Dataset.open(tmp_path / "cut")
    # What was shown is finished; so are the chunks in flight at the time.
    assert 8 * (moment + 1) <= len(partial) < 120
    simulate(decay(), 120, store=tmp_path / "cut", **arguments)
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_full_disk_says_so_and_keeps_what_is_finished(decay, key, tmp_path, bytes_of, monkeypatch):
    arguments = {"chunk_size": 8, "progress": False, "key": key}
    simulate(decay(), 60, store=tmp_path / "whole", **arguments)
    flush, calls = _store._flush, []

    def full(path):
        calls.append(path)
        if len(calls) > 12:
            raise OSError(28, "No space left on device")
        flush(path)

    with monkeypatch.context() as patch:
        patch.setattr(_store, "_flush", full)
        with pytest.raises(
            OSError, match=r"No space left.*Free some space.*same call again"
        ) as info:
            simulate(decay(), 60, store=tmp_path / "cut", **arguments)
    assert info.value.errno == 28
    with pytest.warns(UserWarning, match="unfinished"):
        assert len(Dataset.open(tmp_path / "cut")) > 0
    simulate(decay(), 60, store=tmp_path / "cut", **arguments)
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_memory_stays_with_the_chunks_in_flight(decay, key, tmp_path, monkeypatch):
    """With a store no more than two chunks are solved and not yet written."""
    alive, most = set(), [0]
    lock = threading.Lock()
    write = Store.write
    solve = _simulate._Solver.solve

    def counted_solve(self, thetas, chunk):
        with lock:
            alive.add(thetas[0].tobytes())
            most[0] = max(most[0], len(alive))
        return solve(self, thetas, chunk)

    def counted_write(self, chunk, states, status):
        write(self, chunk, states, status)
        with lock:
            alive.remove(self.thetas[chunk * self.chunk_size].tobytes())

    monkeypatch.setattr(_simulate._Solver, "solve", counted_solve)
    monkeypatch.setattr(Store, "write", counted_write)
    simulate(decay(), 80, chunk_size=8, store=tmp_path / "s", progress=False, key=key)
    assert most[0] == 2
    assert not alive


def test_constants_in_float32_parameters_do_not_enter(decay, key):
    dataset = simulate(decay(), 8, chunk_size=8, progress=False, key=jr.clone(key))
    assert dataset.thetas.dtype == dataset.unit.dtype == np.float64
    assert jnp.asarray(1.0).dtype == jnp.float32  # The caller's setting is untouched.
