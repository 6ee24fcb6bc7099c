import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inojax.solvers._batch_last import BatchLast, trace_field

CONSTANT = np.array([0.3, 1.7, -0.4])
MATRIX = np.arange(9.0).reshape(3, 3) / 9.0
TABLE = np.linspace(0.0, 2.0, 7)


def mixed(function):
    """An operation of two operands: both of the batch, and either of them constant."""
    return {
        "batched": lambda t, y, p: function(y, p),
        "constant first": lambda t, y, p: function(CONSTANT, y),
        "constant last": lambda t, y, p: function(y, CONSTANT),
        "number first": lambda t, y, p: function(1.5, y),
        "number last": lambda t, y, p: function(y, 1.5),
        "of time": lambda t, y, p: function(t, y),
        "both constant": lambda t, y, p: y + function(CONSTANT, 1.5),
    }


# fmt: off
NAMES = (
    "add", "subtract", "multiply", "divide", "maximum", "minimum", "power", "arctan2", "hypot",
    "logaddexp", "heaviside", "fmod", "remainder", "floor_divide", "copysign", "less",
    "greater_equal", "equal", "nextafter",
)
# fmt: on
BINARY = {name: getattr(jnp, name) for name in NAMES} | {
    "where": lambda a, b: jnp.where(a > 0.5, a, b),
    "stack": lambda a, b: jnp.stack([jnp.sum(a), jnp.sum(b), 0.0]),
    "clip": lambda a, b: jnp.clip(a + 0.0 * b, 0.2, b + 0.0 * a + 1.0),
    "select": lambda a, b: jnp.select([a < 0.0, a < b], [3.0, b + 0.0 * a], 0.0 * a),
    "select of numbers": lambda a, b: jnp.select([a < 0.5, b < 0.5], [3.0, 1.0], 0.0),
    "cond": lambda a, b: jax.lax.cond(jnp.sum(a) > 1.0, lambda: a + b, lambda: a - b),
}
OTHERS = {
    "concatenate": lambda t, y, p: jnp.concatenate([y[:1], CONSTANT[:1], p[:1]]),
    "join of a truth": lambda t, y, p: jnp.stack([True, t < 1.0, y[0] > 1.0]) * 1.0,
    "join of numbers": lambda t, y, p: jnp.stack([1.0, t, y[0]]),
    "a table": lambda t, y, p: jnp.interp(t, TABLE, jnp.sin(TABLE)) + y,
    "a table of parameters": lambda t, y, p: jnp.interp(t, jnp.sort(p), CONSTANT) + y,
    "searchsorted": lambda t, y, p: jnp.searchsorted(TABLE, y) + 0.0 * y,
    "an index": lambda t, y, p: jnp.asarray(CONSTANT)[(3.0 * t).astype(int) % 3] * y,
    "an index of the state": lambda t, y, p: y[jnp.argsort(p)],
    "a matrix": lambda t, y, p: MATRIX @ y,
    "a matrix of the batch": lambda t, y, p: jnp.outer(y, p) @ CONSTANT,
    "a product of constants": lambda t, y, p: MATRIX @ CONSTANT + y,
    "einsum": lambda t, y, p: jnp.einsum("ij,j,k->i", MATRIX, y, p),
    "at": lambda t, y, p: jnp.asarray(CONSTANT).at[0].set(y[0]).at[1].add(t),
    "at, of the batch": lambda t, y, p: y.at[1:].multiply(CONSTANT[1:]),
    "roll": lambda t, y, p: jnp.roll(y, 1) + jnp.flip(p) + jnp.pad(y[:1], (1, 1)),
    "sums": lambda t, y, p: jnp.cumsum(y) + jnp.prod(p) + jnp.max(y) + jnp.mean(CONSTANT),
    "argmax": lambda t, y, p: jnp.asarray(CONSTANT)[jnp.argmax(y)] + y,
    "sort": lambda t, y, p: jnp.sort(y) + jnp.sort(CONSTANT),
    "norm": lambda t, y, p: y / jnp.linalg.norm(p),
    "solve": lambda t, y, p: jnp.linalg.solve(MATRIX + 3.0 * jnp.eye(3), y),
    "scan": lambda t, y, p: jax.lax.scan(lambda c, x: (c + x * t, c), y[0], CONSTANT)[1] + y,
    "fori": lambda t, y, p: jax.lax.fori_loop(
        0, 3, lambda i, x: x * p + jnp.asarray(CONSTANT)[i], y
    ),
    "while": lambda t, y, p: jax.lax.while_loop(lambda x: x[0] < 3.0, lambda x: x + 1.0, y),
    "vmap": lambda t, y, p: jax.vmap(lambda a, b: a * b + t)(y, CONSTANT),
    "jvp": lambda t, y, p: jax.jvp(jnp.sin, (y,), (jnp.asarray(CONSTANT),))[1],
    "grad": lambda t, y, p: jax.grad(lambda x: jnp.sum(x**3 * CONSTANT))(y),
    "custom derivative": lambda t, y, p: jax.nn.relu(y - 1.0) + jax.nn.softplus(CONSTANT),
    "logsumexp": lambda t, y, p: jax.nn.logsumexp(y) + jax.nn.softmax(p),
    "special": lambda t, y, p: jax.scipy.special.erf(y) + jax.scipy.special.gammaln(p),
    "piecewise": lambda t, y, p: jnp.piecewise(y, [y < 1.0, y >= 1.0], [0.0, lambda x: x * 2.0]),
    "switch": lambda t, y, p: jax.lax.switch(
        (2.0 * t).astype(int), [lambda: y, lambda: p, lambda: jnp.asarray(CONSTANT)]
    ),
    "rounding": lambda t, y, p: jnp.floor(y) + jnp.round(p) + jnp.ceil(t) + jnp.sign(y - 1.0),
    "whole numbers": lambda t, y, p: y.astype(jnp.int32) % 2 + (p > 1.0) * 2.0,
    "constant": lambda t, y, p: jnp.asarray(CONSTANT),
}
CASES = OTHERS | {
    f"{name}, {how}": field
    for name, function in BINARY.items()
    for how, field in mixed(function).items()
}


@pytest.mark.parametrize("name", CASES)
def test_each_operation_is_that_of_vmap(name):
    def field(t, y, theta):
        return jnp.broadcast_to(CASES[name](t, y, theta) * 1.0, (3,))

    rng = np.random.default_rng(0)
    t, y, theta = rng.uniform(0, 1, 5), rng.uniform(0.1, 2, (3, 5)), rng.uniform(0.1, 2, (3, 5))
    with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):
        t, y, theta = jnp.asarray(t), jnp.asarray(y), jnp.asarray(theta)
        expected = jax.vmap(field, in_axes=-1, out_axes=-1)(t, y, theta)
        found = BatchLast(trace_field(field, 3, 3))(t, y, theta)
    # The same operations, fused in another way.
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-15)
