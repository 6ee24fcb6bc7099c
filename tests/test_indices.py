"""Known positions beyond the ends of arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from inojax._indices import check_indices

TABLE = jnp.arange(5.0)
GRID = jnp.ones((3, 4))
X = jnp.ones(2)

BEYOND = {
    "position 5 of an array of shape (2,)": lambda x: x[5],
    "position -3 of an array of shape (2,)": lambda x: x[-3],
    "position 2 of an array of shape (2,)": lambda x: x[2],
    "position 7 of an array of shape (5,)": lambda x: TABLE[7] * x,
    "position 6 of an array of shape (5,)": lambda x: TABLE[jnp.array(6)] * x,
    "position 8 of an array of shape (5,)": lambda x: TABLE[np.array([0, 8])] * x,
    "position 9 of an array of shape (5,)": lambda x: TABLE[2 * jnp.arange(3) + 5] * x[0],
    "axis 1 of (3, 4)": lambda x: GRID[0, 4] * x,
    "axis 0 of (3, 4)": lambda x: GRID[3] * x[0],
    "give NaN": lambda x: jnp.take(TABLE, 5) * x,
    "leave it out": lambda x: x.at[2].set(1.0),
    "position 4 of an array of shape (2,)": lambda x: x.at[jnp.array([0, 4])].add(1.0),
    "position 3 of an array of shape (2,)": jax.jit(lambda z: z[3]),
    "position 10 of an array of shape (5,)": lambda x: jax.jit(lambda i: TABLE[i])(10) * x,
    "position 11 of an array of shape (5,)": lambda x: lax.cond(
        x[0] > 0, lambda: TABLE[11], lambda: TABLE[0]
    ),
    "position 12 of an array of shape (5,)": lambda x: lax.fori_loop(
        0, 3, lambda i, c: c + TABLE[12], x
    ),
    "position 13 of an array of shape (5,)": lambda x: lax.scan(
        lambda c, _: (c + TABLE[13], None), x, None, length=2
    )[0],
    "position 14 of an array of shape (5,)": jax.checkpoint(lambda z: z * TABLE[14]),
    "position 15 of an array of shape (5,)": jax.vmap(lambda z: z * TABLE[15]),
    "position 5 of an array of shape (5,)": lambda x: lax.dynamic_slice(TABLE, (4,), (2,))[0] * x,
}


@pytest.mark.parametrize(("told", "function"), BEYOND.items(), ids=BEYOND)
@pytest.mark.parametrize("x64", [False, True])
def test_known_positions_beyond_the_end_are_refused(told, function, x64):
    with jax.enable_x64(x64):
        closed = jax.make_jaxpr(function)(X)
        with pytest.raises(IndexError) as found:
            check_indices(closed, "vector_field")
    assert "`vector_field` uses position" in str(found.value)
    assert told in str(found.value)


FINE = {
    "ends": lambda x: x[0] * x[-1] * x[-2] * TABLE[4] * GRID[2, 3],
    "all": lambda x: x[jnp.arange(2)] * TABLE[np.array([0, 4, -5])][0],
    "unknown position": lambda x: TABLE[x[0].astype(int)] * x,
    "interp": lambda x: jnp.interp(x, TABLE, TABLE),
    "searchsorted": lambda x: TABLE[jnp.searchsorted(TABLE, x[0])],
    "update": lambda x: x.at[1].set(2.0).at[jnp.array([0, 1])].add(1.0),
    "asked to fill": lambda x: x.at[jnp.arange(2) + 1].get(mode="fill", fill_value=0.0),
    "asked to clip": lambda x: x.at[jnp.arange(2) + 1].get(mode="clip"),
    "sorted": lambda x: jnp.sort(x)[::-1] + jnp.argsort(x),
    "loop": lambda x: lax.fori_loop(0, 5, lambda i, c: c + TABLE[i], x),
    "padded": lambda x: jnp.pad(x, 1)[1:-1] + jnp.convolve(x, jnp.ones(3))[:2],
    "empty": lambda x: jnp.sum(x[jnp.zeros(0, int)]) + x,
    "linear algebra": lambda x: jnp.linalg.solve(jnp.eye(2) + jnp.outer(x, x), x),
    "custom": lambda x: jax.nn.relu(x) + jax.scipy.special.gammainc(x, x),
}


@pytest.mark.parametrize("function", FINE.values(), ids=FINE)
def test_all_else_passes(function):
    check_indices(jax.make_jaxpr(function)(X), "vector_field")


def test_constants_that_are_being_traced_are_not_known():
    @jax.jit
    def outer(table, x):
        check_indices(jax.make_jaxpr(lambda x: table[1] * x[0])(x), "vector_field")
        return table[1] * x

    outer(TABLE, X)
