"""What a traced function depends on, read off NaN that passes through it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inojax.solvers._sparsity import dependence

VECTOR = jax.ShapeDtypeStruct((3,), jnp.float32)
SCALAR = jax.ShapeDtypeStruct((), jnp.float32)


def chain(t, y, theta):
    return jnp.stack([t * y[0], y[0] * y[1] + theta[2], jnp.exp(theta[0])])


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (1, [[1, 0, 0], [1, 1, 0], [0, 0, 0]]),
        (2, [[0, 0, 0], [0, 0, 1], [1, 0, 0]]),
    ],
)
def test_each_argument_has_its_own_pattern(argument, expected):
    closed = jax.make_jaxpr(chain)(SCALAR, VECTOR, VECTOR)
    np.testing.assert_array_equal(dependence(closed, argument), np.array(expected, bool))


def test_a_constant_depends_on_nothing():
    closed = jax.make_jaxpr(lambda x: jnp.zeros(2))(VECTOR)
    assert not dependence(closed, 0).any()


def test_a_number_made_whole_may_hide_what_it_depends_on():
    """NaN as an index is some index."""
    table = jnp.arange(4.0)
    closed = jax.make_jaxpr(lambda x: jnp.take(table, x[0].astype(int), mode="clip")[None])(VECTOR)
    assert dependence(closed, 0).all()


def test_whole_numbers_made_real_hide_nothing():
    closed = jax.make_jaxpr(lambda n, x: x * n.astype(jnp.float32))(
        jax.ShapeDtypeStruct((3,), jnp.int32), VECTOR
    )
    np.testing.assert_array_equal(dependence(closed, 1), np.eye(3, dtype=bool))


def test_a_choice_by_something_else_hides_nothing():
    """An input that is switched or looked up by time leaves the states' pattern as it is."""

    def driven(t, y, theta):
        inflow = jnp.where(t > 0.7, theta[0], 0.0) + jnp.interp(t, jnp.arange(3.0), jnp.arange(3.0))
        return jnp.stack([inflow - y[0], y[0] - y[1], y[1] - y[2]])

    closed = jax.make_jaxpr(driven)(SCALAR, VECTOR, VECTOR)
    expected = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]], bool)
    np.testing.assert_array_equal(dependence(closed, 1), expected)
    assert dependence(closed, 2).all()  # of the parameters, one is switched


def test_a_choice_may_hide_what_it_depends_on():
    """At a generic point `where` takes one branch, and the other one would never be seen."""
    closed = jax.make_jaxpr(lambda x: jnp.where(x[0] > 9.0, x[1], x[2])[None])(VECTOR)
    assert dependence(closed, 0).all()
