"""The training loop on problems whose answer is known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

from inojax.train._loop import Trainer
from inojax.train._schedule import one_cycle
from tests.refuses import refuses
from tests.train.fits import DATA, X, blank, fit_line, held_out


def same_bits(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def full_loss(model, carry, data, *, key):
    del key
    return held_out(model, data), carry


def quick(steps, chunk, optimizer=None, **changes):
    return Trainer(optimizer or optax.sgd(0.5), steps, chunk, progress=False, **changes)


def test_a_quadratic_problem_ends_at_its_minimizer(key):
    trained = quick(200, 50).fit(blank(), full_loss, DATA, key=key)
    slope, offset = np.polyfit(X, np.asarray(DATA[1], np.float64), 1)
    # The slowest mode falls by 1 - 2/3 * 0.5 a step: float32 rounding is what is left.
    np.testing.assert_allclose(trained.model.slope, slope, rtol=1e-5)
    np.testing.assert_allclose(trained.model.offset, offset, rtol=1e-5)
    assert trained.carry is None


@pytest.mark.parametrize("chunk", [50, 100])
def test_chunks_do_not_change_the_bits(chunk):
    short, long = fit_line(chunk=7), fit_line(chunk=chunk)
    # Not `model`: it is the best one seen at the end of a chunk.
    same_bits(short.carry, long.carry)
    first, second = (
        Trainer(optax.adam(0.05), 100, size, progress=False).fit(
            blank(), full_loss, DATA, key=jr.key(0)
        )
        for size in (7, chunk)
    )
    same_bits(first.model, second.model)


def test_the_log_has_a_row_for_each_chunk():
    log = fit_line().log
    np.testing.assert_array_equal(log.steps, [*range(7, 99, 7), 100])
    assert log.loss.shape == log.held_out.shape == (15,)
    assert np.isfinite(log.loss).all()
    assert np.isfinite(log.held_out).all()
    assert log.loss[-1] < log.loss[0]
    assert log.seconds > 0.0
    assert log.compile_seconds > 0.0


def test_without_held_out_data_there_are_no_held_out_losses(key):
    log = quick(20, 10).fit(blank(), full_loss, DATA, key=key).log
    assert np.isnan(log.held_out).all()
    # The mean over the chunk of what plain gradient descent does.
    slope = offset = 0.0
    losses = []
    for _ in range(20):
        error = slope * X + offset - np.asarray(DATA[1], np.float64)
        losses.append(np.mean(error**2))
        slope, offset = slope - np.mean(error * X), offset - np.mean(error)
    # Float32 against float64 over twenty steps.
    np.testing.assert_allclose(log.loss, np.reshape(losses, (2, 10)).mean(axis=1), rtol=1e-5)


def test_the_best_model_on_held_out_data_is_returned(key):
    """A held-out loss that is smallest where the slope passes 1 on its way to 2."""

    def outside(model, data):
        del data
        return jnp.square(model.slope - 1.0)

    optimizer = optax.sgd(0.05)
    trained = quick(100, 10, optimizer).fit(blank(), full_loss, DATA, held_out=outside, key=key)
    log = trained.log
    assert 0 < np.argmin(log.held_out) < 9
    assert outside(trained.model, None) == log.held_out.min()
    last = quick(100, 10, optimizer).fit(blank(), full_loss, DATA, key=key)
    assert last.model.slope > trained.model.slope


def test_the_carry_is_carried():
    trained = fit_line()
    assert trained.carry["steps"] == 100
    keys = jax.vmap(lambda n: jr.fold_in(jr.key(0), n))(jnp.arange(100))
    drawn = np.concatenate([X[np.asarray(jr.randint(k, (16,), 0, 64))] for k in keys])
    # Sums of 1,600 float32 numbers below 1.
    np.testing.assert_allclose(trained.carry["sum"], drawn.sum(), atol=1e-3)


def test_only_floating_point_arrays_are_trained(key):
    class Mixed(eqx.Module):
        weight: jax.Array
        count: jax.Array
        table: np.ndarray
        name: str

    model = Mixed(jnp.ones(()), jnp.asarray(3), np.arange(2), "mixed")

    def loss(model, carry, data, *, key):
        del data, key
        return jnp.square(model.weight - model.count), carry

    trained = quick(50, 50, optax.adam(0.1)).fit(model, loss, (), key=key).model
    assert trained.weight > 2.0
    assert trained.count == 3
    assert trained.name == "mixed"
    np.testing.assert_array_equal(trained.table, [0, 1])


def test_divergence_is_an_error_that_names_the_remedy(key):
    with refuses(RuntimeError, r"'steep' is no longer finite after \d+ steps.*`learning_rate`"):
        quick(400, 20, optax.sgd(50.0), label="steep").fit(blank(), full_loss, DATA, key=key)


def test_broken_data_is_an_error(key):
    with refuses(RuntimeError, "no longer finite after 10 steps"):
        quick(20, 10).fit(blank(), full_loss, (DATA[0], DATA[1] + jnp.nan), key=key)


def test_a_held_out_loss_that_is_not_a_number_is_an_error(key):
    def outside(model, data):
        return jnp.nan * held_out(model, data)

    with refuses(RuntimeError, "no longer finite after 10 steps"):
        quick(20, 10).fit(blank(), full_loss, DATA, held_out=outside, key=key)


MESHES = {
    "jax.sharding.Mesh": lambda: jax.sharding.Mesh(np.array(jax.devices()[:2]), ("batch",)),
    "jax.make_mesh": lambda: jax.make_mesh((2,), ("batch",)),
}


@pytest.mark.parametrize("mesh", MESHES.values(), ids=MESHES)
def test_two_devices_give_the_same_losses(mesh):
    assert len(jax.devices()) >= 2
    alone, shared = fit_line(), fit_line(mesh=mesh())
    # Sums of halves instead of wholes, float32, through a hundred contracting steps.
    np.testing.assert_allclose(shared.log.loss, alone.log.loss, rtol=1e-4)
    np.testing.assert_allclose(shared.model.slope, alone.model.slope, rtol=1e-4)
    assert len(shared.model.slope.sharding.device_set) == 2


def test_one_cycle_warms_up_and_decays_to_zero():
    schedule = one_cycle(0.1, 100)
    state = schedule.init(jnp.zeros(()))
    sizes = []
    for _ in range(100):
        update, state = schedule.update(jnp.asarray(1e-3), state)
        sizes.append(abs(float(update)))
    # Adam's update of a constant gradient is the learning rate; a tenth of the steps warm up.
    assert np.argmax(sizes) == 10
    np.testing.assert_allclose(max(sizes), 0.1, rtol=1e-2)
    assert sizes[0] < 0.01
    assert sizes[-1] < 1e-4


@pytest.mark.parametrize(("steps", "chunk"), [(0, 10), (10, 0), (-1, 1)])
def test_runs_of_no_steps_are_refused(steps, chunk):
    with refuses(ValueError, f"`steps` and `chunk`.*got {steps} and {chunk}"):
        Trainer(optax.sgd(0.1), steps, chunk)
