"""The conditional Fourier neural operator, in every position of its switches."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inojax.nn import FNOSettings
from inojax.nn._conditional_fno import ConditionalFNO, FourierBlock
from tests.helpers import FNO_SETTINGS

pytestmark = pytest.mark.usefixtures("compiled_quickly")

TIME, GRID, PARAMETERS, CHANNELS, FEATURES, ROWS, BATCH = 10, 4, 3, 2, 5, 3, 4

SWITCHES = {
    f"film {film}, attention {attention}": dataclasses.replace(
        FNO_SETTINGS, film=film, attention=attention
    )
    for film in (True, False)
    for attention in (True, False)
}
call = eqx.filter_jit(lambda network, *inputs: network(*inputs))
TABLE = pytest.mark.parametrize("settings", SWITCHES.values(), ids=SWITCHES)


@eqx.filter_jit
def build(settings: FNOSettings, key) -> ConditionalFNO:
    return ConditionalFNO(
        GRID, PARAMETERS, CHANNELS, reading_features=FEATURES, settings=settings, key=key
    )


@pytest.fixture
def inputs():
    # NumPy: JAX would compile each draw and each slice.
    rng = np.random.default_rng(0)
    grid, parameters, rows = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((TIME, GRID), (BATCH, PARAMETERS), (BATCH, ROWS, FEATURES))
    )
    present = np.array([[True] * 3, [False] * 3, [True, False, True], [False, True, False]])
    return grid, parameters, rows, present


@TABLE
def test_shape_and_batch_consistency(settings, inputs, key):
    network = build(settings, key)
    grid, *batched = inputs
    together = call(network, *inputs)
    assert together.shape == (TIME, BATCH, CHANNELS)
    for b in range(BATCH):
        alone = call(network, grid, *(x[b : b + 1] for x in batched))
        # Products of other shapes, float32.
        np.testing.assert_allclose(alone[:, 0], together[:, b], atol=5e-6)


@TABLE
def test_each_input_matters_where_it_is_used(settings, inputs, key):
    network = build(settings, key)
    grid, parameters, rows, present = inputs
    usual = call(network, *inputs)
    assert not np.allclose(call(network, grid, parameters + 1.0, rows, present), usual, atol=1e-4)
    blind = call(network, grid, parameters)
    hidden = call(network, grid, parameters, rows, np.zeros_like(present))
    # Without attention the same bits; with it one product instead of several, float32.
    np.testing.assert_allclose(hidden, blind, atol=1e-5)
    assert np.allclose(usual, blind, atol=1e-5) == (not settings.attention)


@TABLE
def test_every_weight_has_a_finite_gradient(settings, inputs, key):
    network = build(settings, key)

    def loss(network, inputs):
        return jnp.sum(jnp.square(network(*inputs)))

    gradient = eqx.filter_jit(eqx.filter_grad(loss))(network, inputs)
    for path, leaf in jax.tree_util.tree_leaves_with_path(eqx.filter(gradient, eqx.is_array)):
        name = jax.tree_util.keystr(path)
        assert np.isfinite(leaf).all(), name
        assert np.any(leaf != 0.0), f"{name} is never used"


@TABLE
def test_projecting_the_features_is_the_call(settings, inputs, key):
    network = build(settings, key)

    @eqx.filter_jit
    def apart(network, *inputs):
        features = network.features(*inputs)
        some = network.project(features[np.array([2, 7])])
        return network.project(features), some, network(*inputs)

    whole, some, expected = apart(network, *inputs)
    # Products of other shapes, float32.
    np.testing.assert_allclose(whole, expected, atol=5e-6)
    np.testing.assert_allclose(some, expected[np.array([2, 7])], atol=5e-6)


def test_block_is_its_formula(key):
    block = eqx.filter_jit(FourierBlock)(3, 4, key=key)
    rng = np.random.default_rng(0)
    x, scale, shift = (
        rng.normal(size=shape).astype(np.float32) for shape in ((TIME, 2, 3), (2, 3), (2, 3))
    )
    linear = x @ np.asarray(block.pointwise.weight)
    mixed = np.asarray(call(block.spectral, x)) + linear
    inside = (mixed + np.asarray(block.pointwise.bias)) * (1.0 + scale[None]) + shift[None]
    expected = x + inside / (1.0 + np.exp(-inside))
    # Float32 rounding of numbers of order ten.
    np.testing.assert_allclose(call(block, x, scale, shift), expected, atol=1e-5)
