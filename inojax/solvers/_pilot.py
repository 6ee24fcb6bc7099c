"""How large the states of a trajectory become, roughly, before anything is known of their units."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from . import _linalg as linalg
from ._batch_last import BatchLast
from ._ensemble_step import jacobian_at

# Steps, each as long as all before it together, the first so short a share of the whole.
_STEPS, _FIRST = 32, 1e-9


def rough_sizes(
    field: BatchLast,
    t0: Float[Array, " lane"],
    y0: Float[Array, "state lane"],
    theta: Float[Array, "parameter lane"],
    end: Float[Array, " lane"],
) -> Float[Array, "state lane"]:
    """The largest value of each state along a few steps of the linearly implicit Euler method.

    A state that begins at zero has no size yet, and an error of it can be measured by nothing:
    through a chain of k reactions it grows as t^k, which no method gets right in relation to
    itself. These steps have no error control and so no need of a size. They double with time, which
    shows quick and slow states alike, and growth is taken for decay, so that no step is singular.

    Args:
        field: The vector field.
        t0: Start.
        y0: States there.
        theta: Parameters.
        end: Where trajectories end.
    """
    t0, y0, theta, end = lax.stop_gradient((t0, y0, theta, end))
    plan = field.elimination
    diagonal = np.arange(len(plan.colors))
    shares = np.concatenate([[0.0], np.geomspace(_FIRST, 1.0, _STEPS)])

    def step(carry: tuple[Array, Array], row: tuple[Array, Array]) -> tuple[tuple, None]:
        y, largest = carry
        begin, length = row
        t, h = t0 + begin * (end - t0), length * (end - t0)
        entries = jacobian_at(field, t, y, theta) * h[None, None, :]
        own = entries[plan.colors, diagonal]
        entries = entries.at[plan.colors, diagonal].set(-jnp.abs(own))
        factors = linalg.factor(plan, entries, 1.0)
        new = y + linalg.solve(plan, factors, h[None, :] * field(t, y, theta))
        y = jnp.where(jnp.all(jnp.isfinite(new), axis=0, keepdims=True), new, y)
        return (y, jnp.maximum(largest, jnp.abs(y))), None

    rows = jnp.asarray(shares[:-1]), jnp.asarray(np.diff(shares))
    (_, largest), _ = lax.scan(step, (y0, jnp.abs(y0)), rows)
    return largest


def in_blocks(
    field: BatchLast,
    t0: Float[Array, " batch"],
    y0: Float[Array, "state batch"],
    theta: Float[Array, "parameter batch"],
    end: Float[Array, " batch"],
    *,
    lanes: int,
) -> Float[Array, "state batch"]:
    """The same for many trajectories, so many at once."""
    batch = y0.shape[1]
    blocks = -(-batch // lanes)
    taken = np.minimum(np.arange(blocks * lanes), batch - 1).reshape(blocks, lanes)

    def block(which: Array) -> Array:
        return rough_sizes(field, t0[which], y0[:, which], theta[:, which], end[which])

    found = lax.map(block, jnp.asarray(taken))
    return jnp.moveaxis(found, 0, 1).reshape(len(y0), -1)[:, :batch]
