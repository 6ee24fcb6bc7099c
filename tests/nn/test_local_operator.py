"""Jets of local operators against nested differentiation, and their published sizes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from inojax.nn._jet import Jet, all_pairs, tanh_channels
from inojax.nn._local_operator import LocalOperator
from tests.refuses import refuses

KEY = jr.key(5)
POINTS = 7

pytestmark = pytest.mark.usefixtures("compiled_quickly")


def nested(function, x):
    """Value, first and all second derivatives at each point."""
    hessian = jax.vmap(jax.jacfwd(jax.jacfwd(function)))(x)
    pairs = all_pairs(x.shape[1])
    return (
        jax.vmap(function)(x),
        jnp.moveaxis(jax.vmap(jax.jacfwd(function))(x), -1, 0),
        jnp.stack([hessian[:, :, i, j] for i, j in pairs]),
    )


@pytest.mark.parametrize("coordinates", [1, 2, 3])
def test_jets_are_derivatives(coordinates):
    network = LocalOperator(coordinates, 2, 3, width=9, key=KEY)
    x = jr.uniform(jr.key(1), (POINTS, coordinates))
    theta = jnp.array([0.3, -1.2])
    jet = network.jet(x, theta, all_pairs(coordinates))
    expected = nested(lambda point: network(point, theta), x)
    for found, wanted in zip((jet.value, jet.first, jet.second), expected, strict=True):
        # Numbers near one in single precision.
        np.testing.assert_allclose(found, wanted, atol=2e-6)


@pytest.mark.parametrize("pairs", [(), ((0, 0),), all_pairs(2)])
def test_what_is_written_by_hand_is_differentiation(pairs):
    """Jets, their way back to the parameters, and the gradient of a loss of both."""
    network = LocalOperator(2, 2, 3, width=9, key=KEY)
    x = jr.uniform(jr.key(1), (POINTS, 2))
    theta = jnp.array([0.3, -1.2])
    blank = network.jet(x, theta, pairs)
    weights = jax.tree.map(lambda leaf: jnp.cos(jnp.arange(leaf.size)).reshape(leaf.shape), blank)

    def by_hand(network, x, theta):
        jet, pull = network.local_jet(x, theta, pairs)
        return jax.tree.leaves(jet), pull(weights)

    def differentiated(network, x, theta):
        def channels(point, theta):
            def function(point):
                return network(point, theta)

            hessian = jax.jacfwd(jax.jacfwd(function))(point)
            bends = [hessian[:, i, j] for i, j in pairs]
            second = jnp.stack(bends) if pairs else jnp.zeros((0, 3))
            return function(point), jax.jacfwd(function)(point).T, second

        def weighted(theta, point, *given):
            rows = zip(channels(point, theta), given, strict=True)
            return sum(jnp.sum(a * b) for a, b in rows)

        value, first, second = jax.vmap(channels, (0, None))(x, theta)
        each = weights.value, jnp.moveaxis(weights.first, 1, 0), jnp.moveaxis(weights.second, 1, 0)
        slopes = jax.vmap(jax.jacfwd(weighted), (None, 0, 0, 0, 0))(theta, x, *each)
        return [value, jnp.moveaxis(first, 0, 1), jnp.moveaxis(second, 0, 1)], slopes

    def loss(f):
        def of(arguments):
            leaves, slopes = f(*arguments)
            return sum(jnp.sum(jnp.square(leaf)) for leaf in (*leaves, 2.0 * slopes))

        return of

    for found, wanted in zip(
        jax.tree.leaves(by_hand(network, x, theta)),
        jax.tree.leaves(differentiated(network, x, theta)),
        strict=True,
    ):
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    gradients = [
        jax.tree.leaves(eqx.filter_grad(loss(f))((network, x, theta)))
        for f in (by_hand, differentiated)
    ]
    assert (
        len(gradients[0]) == 11
    )  # weights and biases of four layers, embedding, points, parameters
    for found, wanted in zip(*gradients, strict=True):
        # Sums of some hundred numbers near one, in single precision.
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("coordinates", [1, 2])
def test_derivatives_written_by_hand_are_exact(coordinates):
    """In double precision: the first and the second reverse mode of a layer."""
    pairs = all_pairs(coordinates)
    many = 1 + coordinates + len(pairs)
    with jax.enable_x64(True):
        keys = jr.split(KEY, 4)
        channels, weights, moves = (jr.normal(k, (many, 4, 3), jnp.float64) for k in keys[:3])
        bias = jr.normal(keys[3], (3,), jnp.float64)

        def layer(channels, bias):
            return tanh_channels(channels, bias, coordinates, pairs)

        def plain(channels, bias):
            value = jnp.tanh(channels[0] + bias[None])
            slope, f = 1.0 - value**2, channels[1 : 1 + coordinates]
            bends = [
                slope * h - 2.0 * value * slope * f[i] * f[j]
                for h, (i, j) in zip(channels[1 + coordinates :], pairs, strict=True)
            ]
            return jnp.concatenate([value[None], slope[None] * f, jnp.stack(bends)])

        def second(f):
            def of(channels, bias, weights):
                pulled, shift = jax.vjp(f, channels, bias)[1](weights)
                return jnp.sum(pulled * moves) + jnp.sum(jnp.sin(shift))

            return jax.grad(of, (0, 1, 2))(channels, bias, weights)

        found, wanted = (
            jax.tree.leaves((f(channels, bias), jax.vjp(f, channels, bias)[1](weights), second(f)))
            for f in (layer, plain)
        )
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)


def test_only_the_pairs_asked_for_are_computed():
    network = LocalOperator(2, 1, width=9, key=KEY)
    x = jr.uniform(jr.key(1), (POINTS, 2))
    theta = jnp.array([0.3])
    whole = network.jet(x, theta, all_pairs(2))
    for pairs, rows in (((), []), (((0, 0),), [0]), (((0, 1), (1, 1)), [1, 2])):
        some = network.jet(x, theta, pairs)
        np.testing.assert_allclose(some.second, whole.second[np.array(rows, int)], atol=1e-6)
        np.testing.assert_allclose(some.value, whole.value, atol=1e-6)


def test_derivatives_go_through_unknown_functions():
    """The chain rule for u(x, f(x)), f a network of its own."""
    operator = LocalOperator(2, 1, width=9, key=KEY)
    function = LocalOperator(2, width=6, key=jr.key(2))
    x = jr.uniform(jr.key(1), (POINTS, 2))
    nothing = jnp.zeros(0)
    jet = operator.jet(x, function.jet(x, nothing, all_pairs(2)), all_pairs(2))
    expected = nested(lambda point: operator(point, function(point, nothing)), x)
    for found, wanted in zip((jet.value, jet.first, jet.second), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_coordinates_have_derivative_one_by_themselves():
    x = jr.uniform(KEY, (POINTS, 2))
    jet = Jet.coordinates(x, ((0, 0),))
    np.testing.assert_array_equal(jet.value, x)
    np.testing.assert_array_equal(jet.first[:, 3], np.eye(2))
    assert not jet.second.any()


def test_sizes_are_the_published_ones():
    """33,537 numbers with the frozen embedding of one unknown function, of 8,513 itself."""

    def count(network, kind):
        return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(network, kind)))

    operator = LocalOperator(1, 1, key=KEY)
    assert count(operator, eqx.is_array) == 33_537
    assert count(operator, lambda leaf: isinstance(leaf, jax.Array)) == 33_537 - 128
    assert count(LocalOperator(1, width=64, key=KEY), eqx.is_array) == 8_513
    trained = LocalOperator(1, 1, train_embedding=True, key=KEY)
    assert count(trained, lambda leaf: isinstance(leaf, jax.Array)) == 33_537


def test_weights_are_uniform_as_published():
    operator = LocalOperator(2, 3, key=KEY)
    end = 2**-0.5
    assert 0.95 * end < np.abs(operator.embedding).max() <= end
    assert 0.95 * end < np.abs(operator.layers[0].weight).max() <= end
    hidden = np.asarray(operator.layers[1].weight)
    assert np.abs(hidden).max() <= 128**-0.5
    # 16,384 weights: four standard errors of the variance of a uniform are 2.8 %.
    np.testing.assert_allclose(hidden.var(), 1.0 / (3.0 * 128.0), rtol=0.028)
    assert np.abs(operator.layers[1].bias).max() > 0.0


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0,), {}, "`coordinates` must be at least 1; got 0"),
        ((1, -1), {}, "`parameters` must be zero or more; got -1"),
        ((1, 1, 0), {}, "`outputs` must be at least 1"),
        ((1,), {"width": 0}, "`width` must be at least 1"),
    ],
)
def test_impossible_sizes_are_refused(arguments, options, message):
    with refuses(ValueError, message):
        LocalOperator(*arguments, **options, key=KEY)
