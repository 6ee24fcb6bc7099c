"""The dense network on masked readings."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inojax.nn._conditional_mlp import ConditionalMLP
from tests.refuses import refuses

PRESENT = np.array([True, False, True])


call = eqx.filter_jit(lambda network, *inputs: network(*inputs))


@pytest.fixture
def network(key):
    return eqx.filter_jit(ConditionalMLP)(3, 4, 2, (5, 6), width=8, depth=2, key=key)


@pytest.fixture
def rows():
    return np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)


CONDITIONS = np.array([0.3, -0.7], np.float32)


def test_outputs_of_both_heads(network, rows):
    first, second = call(network, rows, PRESENT, CONDITIONS)
    assert first.shape == (5,)
    assert second.shape == (6,)
    assert not np.allclose(
        call(network, rows, PRESENT, np.float32(2.0) * CONDITIONS)[0], first, atol=1e-4
    )


def test_no_conditions(rows, key):
    network = eqx.filter_jit(ConditionalMLP)(3, 4, 0, (5, 6), width=8, depth=1, key=key)
    assert call(network, rows, PRESENT, np.zeros(0, np.float32))[0].shape == (5,)


def test_absent_rows_do_not_matter(network, rows):
    usual = call(network, rows, PRESENT, CONDITIONS)
    for filler in (1e6, np.nan):
        filled = np.where(PRESENT[:, None], rows, np.float32(filler))
        for got, expected in zip(call(network, filled, PRESENT, CONDITIONS), usual, strict=True):
            np.testing.assert_array_equal(got, expected)
    changed = call(network, rows + np.float32(1.0), PRESENT, CONDITIONS)
    assert not np.allclose(changed[0], usual[0], atol=1e-4)


def test_the_side_head_sends_no_gradient_to_the_blocks(network, rows):
    def loss(network, which):
        return jnp.sum(jnp.square(call(network, rows, PRESENT, CONDITIONS)[which]))

    main = eqx.filter_jit(eqx.filter_grad(loss))(network, 0)
    side = eqx.filter_jit(eqx.filter_grad(loss))(network, 1)
    assert all(np.any(leaf != 0.0) for leaf in jax.tree.leaves(main.blocks))
    assert all(np.all(leaf == 0.0) for leaf in jax.tree.leaves(side.blocks))
    assert all(np.all(leaf == 0.0) for leaf in jax.tree.leaves(side.head))
    assert all(np.any(leaf != 0.0) for leaf in jax.tree.leaves(side.side))


def test_depth_below_one_is_refused(key):
    with refuses(ValueError, "`depth` must be at least 1; got 0"):
        ConditionalMLP(3, 4, 2, (5, 6), depth=0, key=key)
