"""Linear layers: how they are drawn and how they are applied."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key


def new_linear(
    inputs: int, outputs: int, *, gain: float = 1.0, key: Key[Array, ""]
) -> eqx.nn.Linear:
    """Draw a linear layer whose outputs are as large as its inputs.

    Equinox draws weights with a third of this variance; through four layers the signal then
    all but vanishes, and training starts slowly.

    Args:
        inputs: Number of inputs.
        outputs: Number of outputs.
        gain: Factor on the weights.
        key: Source of the weights.

    Returns:
        The layer, its biases zero.
    """
    blank = eqx.nn.Linear(inputs, outputs, key=key)
    weight = gain * jr.normal(key, (outputs, inputs)) / inputs**0.5
    return eqx.tree_at(lambda x: (x.weight, x.bias), blank, (weight, jnp.zeros(outputs)))


def apply_linear(
    layer: eqx.nn.Linear, x: Float[Array, "*batch features"]
) -> Float[Array, "*batch outputs"]:
    """Apply a linear layer along the last axis.

    One product for all leading axes: `jax.vmap(layer)` puts the outputs first and leaves
    transpositions behind, which on a CPU cost more than the product.

    Args:
        layer: The layer.
        x: Its inputs.

    Returns:
        Its outputs.
    """
    out = x @ layer.weight.T
    if layer.bias is None:
        return out
    return out + layer.bias.reshape((1,) * (out.ndim - 1) + (-1,))


def new_mlp(sizes: tuple[int, ...], *, key: Key[Array, ""]) -> tuple[eqx.nn.Linear, ...]:
    """Draw the layers of a dense network, the last one small.

    Args:
        sizes: Inputs, hidden widths, outputs.
        key: Source of the weights.

    Returns:
        The layers.
    """
    keys = jr.split(key, len(sizes) - 1)
    gains = [1.0] * (len(sizes) - 2) + [0.1]
    return tuple(
        new_linear(n_in, n_out, gain=gain, key=k)
        for n_in, n_out, gain, k in zip(sizes[:-1], sizes[1:], gains, keys, strict=True)
    )


def apply_mlp(
    layers: tuple[eqx.nn.Linear, ...], x: Float[Array, "*batch features"]
) -> Float[Array, "*batch outputs"]:
    """Apply dense layers with a sigmoid-weighted linear unit (SiLU) between them.

    Args:
        layers: The layers.
        x: Inputs.

    Returns:
        Outputs.
    """
    for layer in layers[:-1]:
        x = jax.nn.silu(apply_linear(layer, x))
    return apply_linear(layers[-1], x)
