"""Networks on series: the published sizes, their arithmetic, and what they refuse."""

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import pytest

from inojax.nn import Convolutional, Dense
from inojax.nn._series import ByLength
from tests.refuses import refuses

KEY = jr.key(0)


def parameters(network):
    return sum(x.size for x in jax.tree.leaves(eqx.filter(network, eqx.is_array)))


def test_published_networks_have_the_published_numbers_of_parameters():
    assert parameters(Dense.published()((1000, 1), 2, key=KEY)) == 39_490
    assert parameters(Convolutional.published()((1000, 1), 2, key=KEY)) == 33_874
    # The accelerator table: eight layers of 32, 128, 512 and 2,048 units.
    for width, expected in ((128, 243_970), (512, 2_352_130)):
        assert parameters(Dense((width,) * 8)((1000, 1), 2, key=KEY)) == expected
    widest = eqx.filter_eval_shape(lambda: Dense((2048,) * 8)((1000, 1), 2, key=KEY))
    leaves = jax.tree.leaves(widest, is_leaf=lambda x: isinstance(x, jax.ShapeDtypeStruct))
    assert sum(x.size for x in leaves if isinstance(x, jax.ShapeDtypeStruct)) == 31_428_610


def test_a_gathered_convolution_is_the_library_one():
    network = Convolutional((4, 6), kernel=3, stride=2, pool=2, widths=(5,))((41, 3), 2, key=KEY)
    x = jr.normal(jr.key(1), (41, 3))

    def convolved(x, layer):
        kernel = layer.weight.reshape(3, -1, layer.weight.shape[1])
        y = jax.lax.conv_general_dilated(
            x[None], kernel, (2,), "VALID", dimension_numbers=("NWC", "WIO", "NWC")
        )
        return jax.nn.silu(y[0] + layer.bias[None])

    y = convolved(x, network.convolutions[0])
    y = y[: len(y) // 2 * 2].reshape(-1, 2, 4).mean(axis=1)
    y = convolved(y, network.convolutions[1]).reshape(-1)
    expected = network.layers[1](jax.nn.silu(network.layers[0](y)))
    # Sums of a dozen products in float32.
    np.testing.assert_allclose(network(x), expected, rtol=1e-5, atol=1e-6)


def test_glorot_weights_are_uniform_with_the_stated_variance():
    weight = np.asarray(Dense.published()((1000, 1), 2, key=KEY).layers[0].weight)
    end = np.sqrt(6.0 / 1032.0)
    assert np.abs(weight).max() <= end
    # 32,000 weights: five standard errors of the variance of a uniform are 2.5 %.
    np.testing.assert_allclose(weight.var(), end**2 / 3.0, rtol=0.025)
    # A reading comes under each of three places of a kernel, which has 16 filters.
    weight = np.asarray(Convolutional.published()((1000, 1), 2, key=KEY).convolutions[1].weight)
    end = np.sqrt(6.0 / (3 * 8 + 3 * 16))
    assert 0.97 * end < np.abs(weight).max() <= end


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: Dense(()), "widths"),
        (lambda: Dense((8, 0)), "widths"),
        (lambda: Dense((8.5,)), "widths"),
        (lambda: Dense(64), "widths"),
        (lambda: Convolutional(filters=8), "filters"),
        (lambda: Convolutional(filters=()), "filters"),
        (lambda: Convolutional(stride=0), "stride"),
        (lambda: ByLength(rows=0), "rows"),
    ],
)
def test_sizes_below_one_are_refused(make, argument):
    with refuses(ValueError, f"`{argument}` must be (a whole number|whole numbers), at least 1"):
        make()


def test_a_series_too_short_is_refused():
    with refuses(ValueError, "series of 20 rows is too short for 3 `filters`"):
        Convolutional.published()((20, 1), 2, key=KEY)


@pytest.mark.parametrize(("rows", "expected"), [(63, 0), (64, 2), (1000, 2)])
def test_short_series_get_no_convolutions(rows, expected):
    network = ByLength()((rows, 1), 2, key=KEY)
    assert len(network.convolutions) == expected
    assert network(jr.normal(KEY, (rows, 1))).shape == (2,)
