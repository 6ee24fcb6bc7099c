"""A run that was stopped ends like one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inojax.train._checkpoint import Checkpoint
from tests.refuses import refuses
from tests.train.fits import DATA, fit_line

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def whole():
    return fit_line()


def assert_same_run(trained, whole):
    for part in ("model", "carry"):
        pairs = zip(
            jax.tree.leaves(getattr(trained, part)),
            jax.tree.leaves(getattr(whole, part)),
            strict=True,
        )
        for new, old in pairs:
            np.testing.assert_array_equal(new, old)
    for field in ("steps", "loss", "held_out"):
        np.testing.assert_array_equal(getattr(trained.log, field), getattr(whole.log, field))


def saved_steps(folder: Path) -> list[int]:
    if not folder.exists():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_keeping_states_changes_nothing(whole, tmp_path):
    assert_same_run(fit_line(checkpoint=tmp_path), whole)
    assert saved_steps(tmp_path) == [98, 100]


def test_a_finished_run_is_read_back_without_another_step(whole, tmp_path):
    fit_line(checkpoint=tmp_path)
    again = fit_line(checkpoint=tmp_path)
    assert_same_run(again, whole)
    assert again.log.compile_seconds == 0.0


def test_an_interrupt_between_chunks_costs_nothing(whole, tmp_path, monkeypatch):
    save = Checkpoint.save

    def interrupted(self, step, state):
        save(self, step, state)
        if step == 35:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fit_line(checkpoint=tmp_path)
    assert saved_steps(tmp_path) == [28, 35]
    assert_same_run(fit_line(checkpoint=tmp_path), whole)


def test_an_interrupt_inside_a_chunk_saves_the_last_whole_one(whole, tmp_path, monkeypatch):
    from inojax.train import _loop

    asarray, calls = np.asarray, []

    class Interrupting:
        """NumPy, but the user presses Ctrl-C while the fourth chunk's losses are awaited."""

        def __getattr__(self, name):
            return getattr(np, name)

        def asarray(self, value, *args):
            if np.shape(value) == (2,) and value.dtype == np.float32:
                calls.append(value)
                if len(calls) == 4:
                    raise KeyboardInterrupt
            return asarray(value, *args)

    with monkeypatch.context() as patch:
        patch.setattr(_loop, "np", Interrupting())
        with pytest.raises(KeyboardInterrupt):
            fit_line(checkpoint=tmp_path, save_every=1e9)
    assert saved_steps(tmp_path) == [21]
    assert_same_run(fit_line(checkpoint=tmp_path, save_every=1e9), whole)


def test_kill_and_resume_ends_with_the_same_bits(whole, tmp_path):
    folder = tmp_path / "killed"
    command = [sys.executable, "fit_slowly.py", folder, "0.1"]
    environment = os.environ | {"PYTHONPATH": str(HERE.parents[1])}
    child = subprocess.Popen(command, cwd=HERE, env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60.0
        while len(saved_steps(folder)) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        assert child.wait(timeout=20) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()
    assert 14 <= saved_steps(folder)[-1] < 100
    assert_same_run(fit_line(checkpoint=folder), whole)


def test_what_a_kill_leaves_half_written_is_ignored(whole, tmp_path):
    fit_line(checkpoint=tmp_path)
    for step in (98, 100):
        (tmp_path / str(step)).rename(tmp_path / f"{step}.orbax-checkpoint-tmp-1")
    assert Checkpoint(tmp_path / "other", {}).restore(DATA) is None
    assert_same_run(fit_line(checkpoint=tmp_path), whole)


OTHERS = {
    "key": ({"seed": 1}, "key was "),
    "steps": ({"steps": 101}, "steps was 7, is now 101"),
    "chunk": ({"chunk": 8}, "chunk was 7, is now 8"),
    "label": ({"label": "other"}, "label was 'training', is now 'other'"),
}


def test_the_folder_of_another_run_is_refused_with_what_differs(tmp_path):
    fit_line(checkpoint=tmp_path, steps=7)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for changes, match in OTHERS.values():
        with refuses(ValueError, f"`checkpoint` folder .* another training run: .*{match}"):
            fit_line(checkpoint=tmp_path, **({"steps": 7} | changes))
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert before == after


def test_only_the_two_newest_states_are_kept(tmp_path):
    store = Checkpoint(tmp_path, {"a": 1})
    state = {"x": jnp.arange(3), "none": None}
    assert store.restore(state) is None
    for step in (1, 2, 3, 10):
        store.save(step, jax.tree.map(lambda x: x + step, state))  # noqa: B023
    assert store.steps() == [3, 10]
    newest = store.restore(state)
    np.testing.assert_array_equal(newest["x"], [10, 11, 12])
    assert newest["none"] is None
    with refuses(ValueError, "a was 1, is now 2; b was None, is now 3"):
        Checkpoint(tmp_path, {"a": 2, "b": 3})
