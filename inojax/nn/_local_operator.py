"""Local solution operators: a solution of an equation that knows how its parameters move it."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from .._x64 import is_traced
from ._jet import Jet, Pair, tanh, tanh_channels
from ._linear import Linear

# From weights of a jet to the derivative of the weighted sum by each parameter, at each point.
Pullback = Callable[[Jet], Float[Array, "point parameter"]]


class LocalOperator(eqx.Module):
    """Network of coordinates and parameters, with hyperbolic tangents between its layers.

    Parameters come in through a random embedding, added to what the first layer makes of the
    coordinates. It is frozen, as in the source, so that the network cannot forget them; on scalar
    Poisson a trained one does no harm (`experiments/pde/scalar_poisson.py`). The same network
    without parameters serves for an unknown function.

    Attributes:
        embedding: What each parameter adds to the first layer; a NumPy array, which training
            leaves as it is, unless the embedding is trained or the network is made under a
            transformation.
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
            train_embedding: Whether the embedding is trained.
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
        keep = train_embedding or is_traced(embedding)
        self.embedding = embedding if keep else np.asarray(embedding)
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
        *,
        reverse_only: bool = False,
    ) -> Jet:
        """Evaluate it at many points with derivatives by the coordinates.

        Args:
            x: Points, or what stands for their coordinates, such as distances, with derivatives.
            theta: The parameters, or values of unknown functions at these points with their own
                derivatives, which the chain rule then includes.
            pairs: Which second derivatives are wanted.
            reverse_only: Whether to be differentiated in reverse mode alone, which is then faster.

        Returns:
            The outputs with first and second derivatives.
        """
        return self._jet(x, theta, pairs, None, tanh_channels if reverse_only else tanh)

    def local_jet(
        self,
        x: "Float[Array, 'point coordinate'] | Jet",
        theta: "Float[Array, ' parameter'] | Jet",
        pairs: Sequence[Pair],
    ) -> tuple[Jet, Pullback]:
        """Evaluate it with derivatives by the coordinates, and by the parameters in reverse.

        For losses of residuals and their derivatives by the parameters, however many there are:
        one way back through the network gives them all.

        Args:
            x: As for `jet`.
            theta: As for `jet`.
            pairs: Which second derivatives are wanted.

        Returns:
            The outputs with first and second derivatives, and what turns weights of all of these,
            a jet of its own, into the derivative of the weighted sum at each point by each
            parameter, or by a constant added to each unknown function.
        """
        shape = len(x.value if isinstance(x, Jet) else x), self.embedding.shape[1]
        embedding = jnp.asarray(self.embedding)
        still = jnp.zeros(shape, embedding.dtype)
        jet, pull = jax.vjp(lambda shift: self._jet(x, theta, pairs, shift, tanh_channels), still)
        return jet, lambda weights: pull(weights)[0] @ embedding.T

    def _jet(
        self,
        x: "Array | Jet",
        theta: "Array | Jet",
        pairs: Sequence[Pair],
        shift: Float[Array, "point width"] | None,
        activate: Any,
    ) -> Jet:
        """The outputs where something is added to what the first layer makes of each point."""
        inputs, embedding = _jet_of(x, pairs), jnp.asarray(self.embedding)
        first, *hidden, last = self.layers
        bias = first.bias
        start = inputs.linear(_without_bias(first.weight))
        if isinstance(theta, Jet):
            start = start.plus(theta.linear(_without_bias(embedding)))
        elif len(embedding):
            bias = bias + theta @ embedding
        if shift is not None:
            start = start.shifted(shift)
        channels, coordinates = start.channels, len(inputs.first)
        for layer in (*hidden, last):
            channels = activate(channels, bias, coordinates, inputs.pairs) @ layer.weight
            bias = layer.bias
        return Jet.of_channels(channels, coordinates, inputs.pairs).shifted(bias[None])


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
