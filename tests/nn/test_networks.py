"""Properties of every network in the table."""

import io

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from tests.helpers import NETWORKS

pytestmark = pytest.mark.usefixtures("compiled_quickly")

TABLE = pytest.mark.parametrize("build", NETWORKS.values(), ids=NETWORKS)


@TABLE
def test_weights_survive_a_file(build, key):
    network, inputs = build(key)
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, network)
    file.seek(0)
    other, _ = build(jr.key(1))
    again = eqx.tree_deserialise_leaves(file, other)
    call = eqx.filter_jit(lambda network: network(*inputs))
    for new, old in zip(jax.tree.leaves(call(again)), jax.tree.leaves(call(network)), strict=True):
        assert new.dtype == jnp.float32
        np.testing.assert_array_equal(new, old)


@TABLE
def test_gradients_are_finite(build, key):
    network, inputs = build(key)

    def loss(network):
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(network(*inputs)))

    gradient = eqx.filter_jit(eqx.filter_grad(loss))(network)
    leaves = jax.tree.leaves(gradient)
    assert leaves
    assert all(np.isfinite(leaf).all() for leaf in leaves)
