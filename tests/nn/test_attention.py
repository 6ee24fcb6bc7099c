"""Cross-attention to a set of readings, some of them absent."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inojax.nn._attention import ReadingAttention
from tests.refuses import refuses

pytestmark = pytest.mark.usefixtures("compiled_quickly")

TIME, BATCH, WIDTH, FEATURES, ROWS = 6, 3, 8, 5, 4


@pytest.fixture
def layer(key):
    return eqx.filter_jit(ReadingAttention)(WIDTH, FEATURES, 2, key=key)


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(size=(TIME, BATCH, WIDTH)).astype(np.float32)


@pytest.fixture
def rows():
    return np.random.default_rng(2).normal(size=(BATCH, ROWS, FEATURES)).astype(np.float32)


call = eqx.filter_jit(lambda layer, x, rows, present: layer(x, rows, present))
PRESENT = np.array([[True, True, False, True], [False] * 4, [True] * 4])


def test_it_is_softmax_attention_over_the_present_rows_and_nothing(layer, x, rows):
    """Scores and averages written out with loops, from the textbook formula."""
    got = call(layer, x, rows, PRESENT)
    depth = WIDTH // 2
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), layer)
    for b in range(BATCH):
        readings = np.asarray(rows[b], np.float64)[np.asarray(PRESENT[b])]
        pairs = readings @ weights.key_value.weight + weights.key_value.bias[None, :]
        pairs = np.concatenate([weights.nothing[None, :], pairs])
        for t in range(TIME):
            query = np.asarray(x[t, b]) @ weights.query.weight + weights.query.bias
            seen = []
            for h in range(2):
                part = slice(h * depth, (h + 1) * depth)
                scores = pairs[:, :WIDTH][:, part] @ query[part] / np.sqrt(depth)
                chances = np.exp(scores - scores.max())
                seen.append(chances / chances.sum() @ pairs[:, WIDTH:][:, part])
            expected = np.concatenate(seen) @ weights.output.weight + weights.output.bias
            # Float32 against float64 on sums of 8 terms of order one.
            np.testing.assert_allclose(got[t, b], expected, atol=2e-6)


def test_absent_readings_do_not_matter(layer, x, rows):
    wild = np.where(PRESENT[:, :, None], rows, np.float32(1e6))
    # The same bits: an absent row has weight exp(-1e9) = 0.
    np.testing.assert_array_equal(call(layer, x, wild, PRESENT), call(layer, x, rows, PRESENT))
    changed = call(layer, x, np.float32(2.0) * rows, PRESENT)
    assert not np.allclose(changed, call(layer, x, rows, PRESENT), atol=1e-3)


def test_order_of_readings_does_not_matter(layer, x, rows):
    order = np.array([2, 0, 3, 1])
    # Sums in another order, float32.
    np.testing.assert_allclose(
        call(layer, x, rows[:, order], PRESENT[:, order]), call(layer, x, rows, PRESENT), atol=2e-6
    )


def test_without_readings_it_is_defined_and_the_same_everywhere(layer, x, rows):
    none = call(layer, x, None, None)
    assert none.shape == x.shape
    assert np.isfinite(none).all()
    absent = call(layer, x, rows, np.zeros((BATCH, ROWS), bool))
    empty = call(layer, x, rows[:, :0], np.zeros((BATCH, 0), bool))
    # One product instead of several, float32.
    np.testing.assert_allclose(absent, none, atol=1e-6)
    np.testing.assert_allclose(empty, none, atol=1e-6)


def test_gradients_are_finite_with_absent_readings(layer, x, rows):
    def loss(layer, x, rows):
        return jnp.sum(jnp.square(call(layer, x, rows, PRESENT)))

    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(layer, x, rows)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    np.testing.assert_array_equal(gradients[2][1], 0.0)


@pytest.mark.parametrize("heads", [0, 3])
def test_heads_must_divide_the_width(heads, key):
    with refuses(ValueError, rf"`heads` must divide the width 8; got {heads}"):
        ReadingAttention(WIDTH, FEATURES, heads, key=key)
