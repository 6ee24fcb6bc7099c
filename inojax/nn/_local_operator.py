"""Local solution operators: a solution of an equation that knows how its parameters move it."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from ._jet import Jet, Pair, channels_of, jets_of, tanh_channels
from ._linear import Linear


class LocalOperator(eqx.Module):
    """Network of coordinates and parameters, with hyperbolic tangents between its layers.

    Parameters come in through a random embedding that is frozen: added to what the first layer
    makes of the coordinates. If it were trained, the network could forget the parameters, and
    a residual whose derivative by them is small would mean nothing. The same network without
    parameters serves for an unknown function.

    Attributes:
        embedding: What each parameter adds to the first layer; a NumPy array, which training
            leaves as it is, unless the embedding is trained.
        layers: The first layer takes coordinates, the last one is linear.
        train_embedding: Whether the embedding is trained.

    Source:
        Zhang, Li and Lowengrub, arXiv 2404.17789, section 2.
    """

    embedding: Float[Array | np.ndarray, "parameter width"]
    layers: tuple[Linear, ...]
    train_embedding: bool = eqx.field(static=True)

    def __init__(
        self,
        coordinates: int,
        parameters: int = 0,
        outputs: int = 1,
        *,
        width: int = 128,
        depth: int = 2,
        train_embedding: bool = False,
        key: Key[Array, ""],
    ) -> None:
        """Draw the weights, uniform within one over the root of the number of inputs.

        Args:
            coordinates: Number of coordinates.
            parameters: Number of parameters, or of values of unknown functions.
            outputs: Number of outputs.
            width: Units of each layer.
            depth: Layers from width to width.
            train_embedding: Whether the embedding is trained, to show what goes wrong.
            key: Source of the weights.

        Raises:
            ValueError: If a size is below one, or `parameters` below zero.
        """
        sizes = {"coordinates": coordinates, "outputs": outputs, "width": width, "depth": depth}
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"`{name}` must be at least 1; got {size}.")
        if parameters < 0:
            raise ValueError(f"`parameters` must be zero or more; got {parameters}.")
        embed_key, key = jr.split(key)
        end = coordinates**-0.5
        embedding = jr.uniform(embed_key, (parameters, width), minval=-end, maxval=end)
        self.embedding = embedding if train_embedding else np.asarray(embedding)
        self.train_embedding = train_embedding
        shape = coordinates, *(width,) * (depth + 1), outputs
        keys = jr.split(key, len(shape) - 1)
        self.layers = tuple(
            _uniform(n_in, n_out, k) for n_in, n_out, k in zip(shape, shape[1:], keys, strict=False)
        )

    def __call__(
        self, x: Float[Array, " coordinate"], theta: Float[Array, " parameter"]
    ) -> Float[Array, " output"]:
        """Evaluate it at one point.

        Args:
            x: The coordinates.
            theta: The parameters.

        Returns:
            The outputs.
        """
        hidden = jnp.tanh(self.layers[0](x) + theta @ jnp.asarray(self.embedding))
        for layer in self.layers[1:-1]:
            hidden = jnp.tanh(layer(hidden))
        return self.layers[-1](hidden)

    def jet(
        self,
        x: "Float[Array, 'point coordinate'] | Jet",
        theta: "Float[Array, ' parameter'] | Jet",
        pairs: Sequence[Pair],
    ) -> Jet:
        """Evaluate it at many points with derivatives by the coordinates.

        Args:
            x: Points, or what stands for their coordinates, such as distances, with derivatives.
            theta: The parameters, or values of unknown functions at these points with their own
                derivatives, which the chain rule then includes.
            pairs: Which second derivatives are wanted.

        Returns:
            The outputs with first and second derivatives.
        """
        jet = _jet_of(x, pairs).linear(self.layers[0])
        embedding = jnp.asarray(self.embedding)
        if isinstance(theta, Jet):
            jet = jet.plus(theta.linear(_without_bias(embedding)))
        elif len(embedding):
            jet = jet.shifted((theta @ embedding)[None])
        for layer in self.layers[1:]:
            jet = jet.tanh().linear(layer)
        return jet

    def local_jet(
        self,
        x: "Float[Array, 'point coordinate'] | Jet",
        theta: "Float[Array, ' parameter'] | Jet",
        pairs: Sequence[Pair],
    ) -> tuple[Jet, list[Jet]]:
        """Evaluate it with derivatives by the coordinates, and all of that by each parameter.

        For losses: gradients by the weights are fast in reverse mode, and there is no forward
        mode.

        Args:
            x: As for `jet`.
            theta: As for `jet`.
            pairs: Which second derivatives are wanted.

        Returns:
            The outputs with first and second derivatives, and the derivative of all of these by
            each parameter, or by a constant added to each unknown function.
        """
        inputs, pairs = _jet_of(x, pairs), tuple(pairs)
        coordinates = len(inputs.first)
        embedding = jnp.asarray(self.embedding)
        first, *hidden, last = self.layers
        bias = first.bias
        start = inputs.linear(_without_bias(first.weight))
        if isinstance(theta, Jet):
            start = start.plus(theta.linear(_without_bias(embedding)))
        else:
            bias = bias + theta @ embedding
        channels = channels_of(start, embedding)
        for layer in (*hidden, last):
            hidden_channels: Any = tanh_channels(channels, bias, coordinates, pairs)
            channels = hidden_channels @ layer.weight
            bias = layer.bias
        jet, tangents = jets_of(channels, coordinates, pairs)
        return jet.shifted(bias[None]), tangents


def _jet_of(x: Array | Jet, pairs: Sequence[Pair]) -> Jet:
    return x if isinstance(x, Jet) else Jet.coordinates(x, pairs)


def _without_bias(weight: Array) -> Linear:
    blank, bias = Linear(*weight.shape, key=jr.key(0)), jnp.zeros(weight.shape[1], weight.dtype)
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), blank, (weight, bias))


def _uniform(inputs: int, outputs: int, key: Key[Array, ""]) -> Linear:
    weight_key, bias_key = jr.split(key)
    end = inputs**-0.5
    weight = jr.uniform(weight_key, (inputs, outputs), minval=-end, maxval=end)
    bias = jr.uniform(bias_key, (outputs,), minval=-end, maxval=end)
    blank = Linear(inputs, outputs, key=key)
    return eqx.tree_at(lambda layer: (layer.weight, layer.bias), blank, (weight, bias))
