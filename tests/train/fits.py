"""A small fit that several tests share; `fit_slowly.py` runs it in another process."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from inojax.train._loop import Trained, Trainer
from inojax.train._sharding import shard_batch


class Line(eqx.Module):
    """y = slope x + offset."""

    slope: jax.Array
    offset: jax.Array


X = np.linspace(-1.0, 1.0, 64)
DATA = (jnp.asarray(X, jnp.float32), jnp.asarray(2.0 * X - 0.5 + np.sin(20.0 * X), jnp.float32))


def blank() -> Line:
    return Line(jnp.zeros(()), jnp.zeros(()))


def loss(model, carry, data, *, key):
    """Squared error on a random batch; counts steps and sums inputs on the side."""
    index = jr.randint(key, (16,), 0, 64)
    x, y = shard_batch((data[0][index], data[1][index]))
    error = jnp.mean(jnp.square(model.slope * x + model.offset - y))
    return error, {"steps": carry["steps"] + 1, "sum": carry["sum"] + jnp.sum(x)}


def held_out(model, data):
    return jnp.mean(jnp.square(model.slope * data[0] + model.offset - data[1]))


def fit_line(seed: int = 0, optimizer=None, data=DATA, **changes) -> Trained:
    settings = {"steps": 100, "chunk": 7, "progress": False, "save_every": 0.0}
    trainer = Trainer(optimizer or optax.adam(0.05), **(settings | changes))
    carry = {"steps": jnp.asarray(0), "sum": jnp.asarray(0.0)}
    return trainer.fit(blank(), loss, data, carry=carry, held_out=held_out, key=jr.key(seed))
