"""Values with their derivatives by coordinates, carried through a network together."""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._linear import Linear

Pair = tuple[int, int]


class Jet(eqx.Module):
    """Numbers at many points, with first and some second derivatives by the coordinates.

    All derivatives go through a layer as further rows of one matrix product, so a network with
    its Laplacian costs little more than its channels say; nested differentiation repeats work.

    Attributes:
        value: The numbers at each point.
        first: Their derivative by each coordinate.
        second: Their second derivative by each pair of coordinates in `pairs`.
        pairs: Which second derivatives are there.
    """

    value: Float[Array, "point number"]
    first: Float[Array, "coordinate point number"]
    second: Float[Array, "pair point number"]
    pairs: tuple[Pair, ...] = eqx.field(static=True)

    @classmethod
    def coordinates(cls, x: Float[Array, "point coordinate"], pairs: Sequence[Pair]) -> "Jet":
        """The coordinates themselves.

        Args:
            x: Points.
            pairs: Second derivatives that are wanted, of numbers made from these.

        Returns:
            Their jet: each has derivative one by itself.
        """
        points, size = x.shape
        eye = jnp.broadcast_to(jnp.eye(size, dtype=x.dtype)[:, None], (size, points, size))
        return cls(x, eye, jnp.zeros((len(pairs), points, size), x.dtype), tuple(pairs))

    def shifted(self, by: Float[Array, "*point number"]) -> "Jet":
        """The jet with something added to the values that does not depend on coordinates."""
        added = jnp.broadcast_to(by, self.value.shape)
        return Jet(self.value + added, self.first, self.second, self.pairs)

    def linear(self, layer: Linear) -> "Jet":
        """The jet after a linear layer, by one matrix product.

        Args:
            layer: The layer.

        Returns:
            The jet of its outputs.
        """
        stacked = jnp.concatenate([self.value[None], self.first, self.second])
        out = stacked @ layer.weight
        count = len(self.first)
        value = out[0] + layer.bias[None]
        return Jet(value, out[1 : 1 + count], out[1 + count :], self.pairs)

    def plus(self, other: "Jet") -> "Jet":
        """The sum of two jets with the same pairs."""
        return Jet(
            self.value + other.value,
            self.first + other.first,
            self.second + other.second,
            self.pairs,
        )

    def tanh(self) -> "Jet":
        """The jet after a hyperbolic tangent, by the chain rule."""
        value = jnp.tanh(self.value)
        slope = 1.0 - jnp.square(value)
        bend = -2.0 * value * slope
        first = slope[None] * self.first
        if not self.pairs:
            return Jet(value, first, self.second, self.pairs)
        products = jnp.stack([self.first[i] * self.first[j] for i, j in self.pairs])
        second = slope[None] * self.second + bend[None] * products
        return Jet(value, first, second, self.pairs)


def all_pairs(coordinates: int) -> tuple[Pair, ...]:
    """Every second derivative there is.

    Args:
        coordinates: Number of coordinates.

    Returns:
        Pairs of coordinates, each once.
    """
    return tuple(itertools.combinations_with_replacement(range(coordinates), 2))


# Channels of a jet, value, slopes and second derivatives, and the same again for their derivative
# by each parameter: one array of shape (channel, point, number).
Channels = Float[Array, "channel point number"]


def channels_of(jet: Jet, tangents: Float[Array, "parameter number"]) -> Channels:
    """The channels of a jet to whose values parameters add something everywhere.

    Args:
        jet: Without parameters.
        tangents: Derivative of the values by each parameter.

    Returns:
        All channels in one array.
    """
    block = jnp.concatenate([jet.value[None], jet.first, jet.second])
    blank = jnp.zeros_like(block[1:])
    shape = jet.value.shape
    others = [jnp.concatenate([jnp.broadcast_to(row, (1, *shape)), blank]) for row in tangents]
    return jnp.concatenate([block, *others])


def jets_of(channels: Channels, coordinates: int, pairs: tuple[Pair, ...]) -> tuple[Jet, list[Jet]]:
    """A jet and its derivative by each parameter, from their channels."""
    size = 1 + coordinates + len(pairs)
    blocks = [channels[begin : begin + size] for begin in range(0, len(channels), size)]
    jets = [Jet(b[0], b[1 : 1 + coordinates], b[1 + coordinates :], pairs) for b in blocks]
    return jets[0], jets[1:]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def tanh_channels(
    channels: Channels,
    bias: Float[Array, " number"],
    coordinates: int,
    pairs: tuple[Pair, ...],
) -> Channels:
    """The channels after a hyperbolic tangent of values plus bias.

    Its reverse mode is written down since it decides the speed: each channel is read and written
    once, where the transposition of slices would add up arrays of zeros.
    """
    rows = _tanh_rows(coordinates, pairs, bias, *channels)
    return jnp.stack(rows)


def _tanh_rows(
    coordinates: int, pairs: tuple[Pair, ...], bias: Array, *channels: Array
) -> tuple[Array, ...]:
    size = 1 + coordinates + len(pairs)

    def block(*rows: Array) -> tuple[Array, ...]:
        value = jnp.tanh(rows[0])
        slope = 1.0 - jnp.square(value)
        first, second = rows[1 : 1 + coordinates], rows[1 + coordinates :]
        bend = -2.0 * value * slope
        return (
            value,
            *(slope * row for row in first),
            *(
                slope * row + bend * (first[i] * first[j])
                for row, (i, j) in zip(second, pairs, strict=True)
            ),
        )

    primal = (channels[0] + bias[None], *channels[1:size])
    found = list(block(*primal))
    for begin in range(size, len(channels), size):
        found += jax.jvp(block, primal, tuple(channels[begin : begin + size]))[1]
    return tuple(found)


def _tanh_forward(
    channels: Channels, bias: Array, coordinates: int, pairs: tuple[Pair, ...]
) -> tuple[Channels, tuple[Channels, Array]]:
    return tanh_channels(channels, bias, coordinates, pairs), (channels, bias)


def _tanh_backward(
    coordinates: int, pairs: tuple[Pair, ...], kept: tuple[Channels, Array], slopes: Channels
) -> tuple[Channels, Array]:
    channels, bias = kept
    rows: Any = functools.partial(_tanh_rows, coordinates, pairs, bias)
    _, pull = jax.vjp(rows, *channels)
    found = pull(tuple(slopes))
    return jnp.stack(found), jnp.sum(found[0], axis=0)


tanh_channels.defvjp(_tanh_forward, _tanh_backward)
