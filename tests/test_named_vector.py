"""Vectors with names, beside the arrays that they hold."""

import operator
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from inojax._named_vector import NamedVector, UnknownNameError, position_of

MATRIX = jnp.array([[1.0, 2.0], [3.0, 5.0]])
NETWORK = eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0))
TABLE = jnp.arange(3.0)

# What vector fields do to their arguments; each must give what the array itself gives.
USES = {
    "position": lambda y: y[0] - y[-1],
    "slice": lambda y: y[1:],
    "whole slice": lambda y: y[:2],
    "reversed": lambda y: y[::-1],
    "axis": lambda y: y[None, :] * y[:, None],
    "ellipsis": lambda y: y[..., 0],
    "positions": lambda y: y[np.array([1, 0, 1])],
    "traced positions": lambda y: y[jnp.array([1, 0])],
    "mask": lambda y: y[np.array([True, False])],
    "unpacked": lambda y: jnp.stack([a * b for a, b in [tuple(y)]]),
    "iterated": lambda y: sum(a * a for a in y),
    "starred": lambda y: jnp.stack([*y, *y]),
    "length": lambda y: y * len(y),
    "plus": lambda y: 1.0 + y + MATRIX[0] + np.ones(2),
    "minus": lambda y: 1.0 - y - y,
    "times": lambda y: np.float64(2.0) * y * y,
    "over": lambda y: 1.0 / y / 2.0,
    "power": lambda y: 2.0**y + y**2,
    "modulo": lambda y: y % 0.7 + 3.0 % y + y // 0.3,
    "divmod": lambda y: divmod(y, 0.7)[1],
    "matmul": lambda y: MATRIX @ y + y @ MATRIX,
    "numpy matmul": lambda y: np.array([[1.0, 2.0], [3.0, 4.0]]) @ y,
    "sign": lambda y: abs(-y) + +y,
    "comparison": lambda y: jnp.where((y > 0.5) & (y <= 2.0) & (y != 7.0), y, 0.0),
    "comparison swapped": lambda y: jnp.where((0.5 < y) | (y == 1.0), 1.0, y),  # noqa: SIM300
    "methods": lambda y: y.sum() + y.mean() + y.max() + y.dot(y) + y.T[0],
    "shape": lambda y: jnp.zeros(y.shape, y.dtype) + y.ndim + y.size,
    "update": lambda y: y.at[0].set(y[1]).at[-1].add(2.0),
    "functions": lambda y: jnp.sin(y) + jnp.exp(y) + jnp.sqrt(jnp.abs(y)),
    "stack": lambda y: jnp.stack([y[0], y[1], y.sum()]),
    "array": lambda y: jnp.array([y[0], 1.0]) + jnp.asarray(y) + jnp.array(y),
    "concatenate": lambda y: jnp.concatenate([y, y]),
    "einsum": lambda y: jnp.einsum("ij,j->i", MATRIX, y),
    "dot": lambda y: jnp.dot(MATRIX, y) + jnp.outer(y, y)[0],
    "interp": lambda y: jnp.interp(y, TABLE, TABLE**2),
    "select": lambda y: jnp.select([y > 1.0], [y], 0.0),
    "roll": lambda y: jnp.roll(y, 1) - jnp.flip(y),
    "solve": lambda y: jnp.linalg.solve(MATRIX, y),
    "likes": lambda y: jnp.zeros_like(y) + jnp.ones_like(y) + jnp.full_like(y, 2.0),
    "network": lambda y: jax.nn.relu(y) + jax.nn.silu(y) + jax.nn.softmax(y),
    "Equinox": NETWORK,
    "scan": lambda y: lax.scan(lambda c, x: (c + x, None), jnp.zeros(()), y)[0],
    "carry": lambda y: lax.scan(lambda c, _: (2.0 * c, None), y, None, length=2)[0],
    "loop": lambda y: lax.fori_loop(0, 3, lambda i, c: c * 1.5, y),
    "cond": lambda y: lax.cond(y[0] > 0.0, lambda z: z, lambda z: -z, y),
    "vmap": lambda y: jax.vmap(lambda a: a * y[0])(y),
    "jit": jax.jit(lambda z: z * 2.0),
    "grad": jax.grad(lambda z: jnp.sum(z**3)),
    "stopped": lax.stop_gradient,
    "tree": lambda y: jax.tree.map(lambda a: 2.0 * a, y),
}


def named(array, names=("k", "y0")):
    return NamedVector(array, names, argument="theta", noun="parameters")


def program(function, *arguments):
    """What is traced, without where in memory functions are."""
    return re.sub(r"0x[0-9a-f]+", "", str(jax.make_jaxpr(function)(*arguments)))


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_it_is_the_array_in_all_that_vector_fields_do(use):
    y, direction = jnp.array([0.9, 1.7]), jnp.array([0.3, -0.2])

    def through(y):
        return use(named(y))

    def slope(function):
        return lambda y, direction: jax.jvp(function, (y,), (direction,))

    assert program(through, y) == program(use, y)
    assert program(slope(through), y, direction) == program(slope(use), y, direction)
    batch = jnp.stack([y, 2.0 * y])
    assert program(jax.vmap(through), batch) == program(jax.vmap(use), batch)


@pytest.mark.parametrize("name", ["unpacked", "matmul", "numpy matmul", "times", "update"])
def test_it_is_the_array_where_nothing_is_traced(name):
    y = jnp.array([0.9, 1.7])
    np.testing.assert_array_equal(USES[name](named(y)), USES[name](y))


def test_entries_are_read_by_name():
    theta = named(jnp.array([2.0, 3.0]))
    assert float(theta.k) == float(theta["k"]) == float(theta[0]) == 2.0
    np.testing.assert_array_equal(theta[["y0", "k"]], [3.0, 2.0])
    np.testing.assert_array_equal(theta[[1, 0]], [3.0, 2.0])
    np.testing.assert_array_equal(theta.at["y0"].set(7.0), [2.0, 7.0])
    assert "k" in theta
    assert "x" not in theta
    assert repr(theta) == "NamedVector(theta: k, y0)"


def test_names_win_over_attributes_of_arrays():
    names = ("T", "mean", "real", "at", "sum", "flat")
    theta = named(jnp.arange(6.0), names)
    for place, name in enumerate(names):
        assert float(theta[name]) == float(getattr(theta, name)) == place
    np.testing.assert_array_equal(jnp.mean(theta) + jnp.sum(theta), 17.5)


def test_names_that_jax_asks_for_are_read_as_items():
    names = ("shape", "size", "dtype", "ndim")
    theta = named(jnp.arange(4.0), names)
    for place, name in enumerate(names):
        assert float(theta[name]) == place
        with pytest.raises(UnknownNameError, match=f'`theta.{name}` could be.*theta."{name}"'):
            getattr(theta, name)
    for use in (jnp.sin, jnp.sum, jnp.stack, jnp.asarray, lambda y: jnp.where(y > 1.0, y, 2.0)):
        np.testing.assert_array_equal(use(theta), use(jnp.arange(4.0)))
    np.testing.assert_array_equal(2.0 * theta + np.ones(4), [1.0, 3.0, 5.0, 7.0])


BEYOND = {
    "theta[5]": lambda theta: theta[5],
    "theta[2]": lambda theta: theta[np.int64(2)],
    "theta[-3]": lambda theta: theta[-3],
    "theta[1:3]": lambda theta: theta[1:3],
    "theta[-3:]": lambda theta: theta[-3:],
    "theta[:4:2]": lambda theta: theta[:4:2],
    "theta[[0, 2]]": lambda theta: theta[[0, 2]],
    "theta[[-3]]": lambda theta: theta[np.array([-3])],
    "theta[7]": lambda theta: theta[..., 7],
    "theta[6]": lambda theta: theta[None, 6],
    "theta[2] of an update": lambda theta: theta.at[2].set(1.0),
    "theta[9]": lambda theta: theta[jnp.array(9)],
}


@pytest.mark.parametrize(("written", "use"), BEYOND.items(), ids=BEYOND)
def test_positions_beyond_the_end_are_refused(written, use):
    text = written.split(" of ")[0].replace("[", r"\[").replace("]", r"\]")
    match = f"`{text}` goes beyond the 2 parameters k, y0: positions are 0 to 1"
    with pytest.raises(IndexError, match=match):
        use(named(jnp.ones(2)))
    if not written.startswith("theta[9]"):
        with pytest.raises(IndexError, match=match):
            jax.make_jaxpr(lambda array: use(named(array)))(jnp.ones(2))


def test_unknown_names_are_refused_with_what_is_like_them():
    theta = named(jnp.ones(2), ("rate", "Y0"))
    for use in (lambda: theta.rat, lambda: theta["rat"]):
        with pytest.raises(
            UnknownNameError, match=r"'rat'.*`theta`: rate, Y0\. Did you mean 'rate'"
        ):
            use()
    with pytest.raises(KeyError, match="Did you mean 'Y0'"):
        theta["y0"]
    with pytest.raises(AttributeError, match="'temperature' is not among"):
        theta.temperature  # noqa: B018
    assert not hasattr(theta, "temperature")
    with pytest.raises(KeyError, match=r"^'b' is not among the states: a"):
        position_of("b", ("a",), "the states")


def test_without_names_it_says_why_there_are_none():
    theta = named(jnp.array([1.0, 2.0]), None)
    assert float(theta[1]) == 2.0
    for use in (lambda: theta.k, lambda: theta["k"]):
        with pytest.raises(UnknownNameError, match="belongs to no problem"):
            use()
    with pytest.raises(IndexError, match=r"`theta\[2\]` goes beyond the 2 parameters"):
        theta[2]


def test_it_cannot_be_assigned_to():
    theta = named(jnp.ones(2))
    with pytest.raises(TypeError, match=r"`theta` must not be changed.*at\[0\]"):
        theta[0] = 1.0
    with pytest.raises(TypeError, match=r"`theta` must not be changed.*`theta.k ="):
        theta.k = 1.0
    with pytest.raises(ValueError, match=r"`theta`.*shape \(3,\)"):
        named(jnp.ones(3))


@pytest.mark.parametrize("name", ["and_", "or_", "xor", "lshift", "rshift"])
def test_whole_numbers_have_their_operators(name):
    function, array = getattr(operator, name), jnp.array([6, 5])
    np.testing.assert_array_equal(function(named(array), 3), function(array, 3))
    np.testing.assert_array_equal(function(3, named(array)), function(3, array))
    np.testing.assert_array_equal(~named(array), ~array)
