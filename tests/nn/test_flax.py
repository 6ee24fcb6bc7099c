"""Networks written with Flax, used like any other."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from flax import linen, nnx

from inojax.nn import FlaxNetwork
from tests.refuses import refuses

SHAPE, KEY = (20, 2), jr.key(0)
X = jr.normal(jr.key(1), (5, *SHAPE))


class LinenNetwork(linen.Module):
    """Convolution, normalization by running averages, dropout, dense."""

    @linen.compact
    def __call__(self, x):
        x = linen.silu(linen.Conv(4, (3,), strides=2)(x))
        x = linen.BatchNorm(use_running_average=True)(x)
        x = linen.Dropout(0.5, deterministic=True)(x)
        return linen.Dense(3)(x.reshape(x.shape[0], -1))


class NNXNetwork(nnx.Module):
    """The same with NNX."""

    def __init__(self, rngs):
        self.convolution = nnx.Conv(2, 4, (3,), strides=2, rngs=rngs)
        self.normalization = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(40, 3, rngs=rngs)

    def __call__(self, x):
        x = self.dropout(self.normalization(nnx.silu(self.convolution(x))))
        return self.dense(x.reshape(x.shape[0], -1))


def linen_network(key=KEY):
    module = LinenNetwork()
    variables = module.init(key, jnp.zeros((1, *SHAPE)))
    return FlaxNetwork(module, SHAPE, key=key), lambda x: module.apply(variables, x)


def nnx_network(key=KEY):
    def make():
        return NNXNetwork(nnx.Rngs(params=key, dropout=jr.fold_in(key, 1)))

    reference = make()
    reference.eval()
    return FlaxNetwork(make(), SHAPE, key=key), reference


BOTH = pytest.mark.parametrize("make", [linen_network, nnx_network], ids=["linen", "nnx"])


@BOTH
def test_it_computes_what_flax_computes_under_jit_and_vmap(make):
    network, reference = make()
    expected = np.asarray(reference(X))
    assert expected.shape == (5, 3)
    for evaluate in (
        jax.vmap(network),
        eqx.filter_jit(eqx.filter_vmap(network)),
        lambda x: jnp.stack([network(row) for row in x]),
    ):
        # Float32 sums of a hundred products.
        np.testing.assert_allclose(evaluate(X), expected, rtol=1e-4, atol=1e-5)


@BOTH
def test_gradients_reach_every_parameter_and_nothing_else(make):
    network, _ = make()
    trained, rest = eqx.partition(network, lambda x: isinstance(x, jax.Array))
    assert trained.constants is None or not jax.tree.leaves(trained.constants)

    def loss(arrays):
        return jnp.sum(jnp.square(jax.vmap(eqx.combine(arrays, rest))(X)))

    gradient = jax.jit(jax.grad(loss))(trained)
    assert jax.tree.structure(gradient) == jax.tree.structure(trained)
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0.0
    # Along the gradient the loss falls as the derivative says.
    moved = jax.tree.map(lambda x, g: x - 1e-4 * g, trained, gradient)
    change = sum(float(jnp.sum(jnp.square(g))) for g in jax.tree.leaves(gradient)) * 1e-4
    np.testing.assert_allclose(loss(trained) - loss(moved), change, rtol=0.1)


@BOTH
def test_two_networks_of_one_make_share_compiled_code(make):
    first, second = make(jr.key(0))[0], make(jr.key(5))[0]
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert not np.allclose(first(X[0]), second(X[0]))


def test_other_objects_are_refused():
    with refuses(TypeError, "`module` must be a `flax.linen.Module` or a `flax.nnx.Module`; got"):
        FlaxNetwork(lambda x: x, SHAPE, key=KEY)


def test_the_callers_module_goes_on_training():
    module = NNXNetwork(nnx.Rngs(0))
    FlaxNetwork(module, SHAPE, key=KEY)
    assert not module.dropout.deterministic
    assert not module.normalization.use_running_average


def test_keys_of_other_generators_are_kept():
    network = FlaxNetwork(NNXNetwork(nnx.Rngs(jr.key(0, impl="rbg"))), SHAPE, key=KEY)
    assert network(X[0]).shape == (3,)


class Dropping(linen.Module):
    """Dropout that is on, or not told."""

    deterministic: bool | None

    @linen.compact
    def __call__(self, x):
        return linen.Dropout(0.5, deterministic=self.deterministic)(linen.Dense(3)(x))


class Counting(linen.Module):
    """A normalization that goes on averaging."""

    @linen.compact
    def __call__(self, x):
        return linen.BatchNorm(use_running_average=False)(linen.Dense(3)(x))


@pytest.mark.parametrize("module", [Dropping(False), Counting()])
def test_randomness_and_running_averages_are_refused_with_the_remedy(module):
    with refuses(ValueError, "`module` needs random numbers.*`deterministic=True`.*Flax says"):
        FlaxNetwork(module, (4,), key=KEY)


class Calling(nnx.Module):
    """A layer called with settings of its own, which evaluation mode does not reach."""

    def __init__(self, layer, **settings):
        self.layer, self.settings = layer, nnx.static(settings)

    def __call__(self, x):
        return self.layer(x, **self.settings)


class Noisy(nnx.Module):
    """Adds noise always."""

    def __init__(self):
        self.rngs = nnx.Rngs(noise=0)

    def __call__(self, x):
        return x + jr.normal(self.rngs.noise(), x.shape)


@pytest.mark.parametrize(
    "make",
    [
        Noisy,
        lambda: Calling(nnx.Dropout(0.5, rngs=nnx.Rngs(0)), deterministic=False),
        lambda: Calling(nnx.BatchNorm(4, rngs=nnx.Rngs(0)), use_running_average=False),
    ],
)
def test_a_module_that_changes_in_a_call_is_refused(make):
    """NNX raises nothing itself, and the same noise would come with every call."""
    with refuses(ValueError, "`module` needs random numbers or changes what it keeps"):
        FlaxNetwork(make(), (4,), key=KEY)


def test_what_cannot_be_evaluated_is_refused():
    with refuses(ValueError, "`module` cannot be evaluated.*no other argument.*Flax says"):
        FlaxNetwork(Dropping(None), (4,), key=KEY)
    with refuses(ValueError, r"`module` cannot be evaluated for inputs of `shape` \(20, 3\)"):
        FlaxNetwork(NNXNetwork(nnx.Rngs(0)), (20, 3), key=KEY)
