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
        bias = jnp.zeros(self.value.shape[1], self.value.dtype)
        channels = tanh(self.channels, bias, len(self.first), self.pairs)
        return Jet.of_channels(channels, len(self.first), self.pairs)

    @property
    def channels(self) -> "Channels":
        """Value, slopes and second derivatives in one array."""
        return jnp.concatenate([self.value[None], self.first, self.second])

    @classmethod
    def of_channels(cls, channels: "Channels", coordinates: int, pairs: tuple[Pair, ...]) -> "Jet":
        """The jet with these channels."""
        first, second = channels[1 : 1 + coordinates], channels[1 + coordinates :]
        return cls(channels[0], first, second, pairs)


def all_pairs(coordinates: int) -> tuple[Pair, ...]:
    """Every second derivative there is.

    Args:
        coordinates: Number of coordinates.

    Returns:
        Pairs of coordinates, each once.
    """
    return tuple(itertools.combinations_with_replacement(range(coordinates), 2))


# Channels of a jet: value, slopes and second derivatives in one array.
Channels = Float[Array, "channel point number"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def tanh_channels(
    channels: Channels,
    bias: Float[Array, " number"],
    coordinates: int,
    pairs: tuple[Pair, ...],
) -> Channels:
    """The channels after a hyperbolic tangent of values plus bias.

    Its reverse mode is written down, and that one's as well, since they decide the speed: each
    channel is read and written once, where the transposition of slices would add up arrays of
    zeros. Losses of residuals need the first, losses of their derivatives the second. There is
    no forward mode.

    Args:
        channels: Before.
        bias: Added to the values.
        coordinates: Number of coordinates.
        pairs: Which second derivatives there are.

    Returns:
        The channels after it.
    """
    return tanh(channels, bias, coordinates, pairs)


def tanh(channels: Channels, bias: Array, coordinates: int, pairs: tuple[Pair, ...]) -> Channels:
    """The same, differentiable in any mode."""
    value = jnp.tanh(channels[0] + bias[None])
    slope, bend, *_ = _derivatives(value)
    first, second = _split(channels, coordinates)
    rows = [slope * f for f in first]
    for h, (i, j) in zip(second, pairs, strict=True):
        rows.append(slope * h + bend * (first[i] * first[j]))
    return jnp.stack([value, *rows])


def _derivatives(value: Array) -> tuple[Array, Array, Array, Array]:
    """The first four derivatives of a hyperbolic tangent where it has this value."""
    square = jnp.square(value)
    slope = 1.0 - square
    return (
        slope,
        -2.0 * value * slope,
        slope * (6.0 * square - 2.0),
        value * slope * (16.0 - 24.0 * square),
    )


def _split(channels: Channels, coordinates: int) -> tuple[list[Array], list[Array]]:
    """Slopes and second derivatives."""
    return list(channels[1 : 1 + coordinates]), list(channels[1 + coordinates :])


def _tanh_forward(
    channels: Channels, bias: Array, coordinates: int, pairs: tuple[Pair, ...]
) -> tuple[Channels, tuple[Channels, Channels, Array]]:
    # By itself, so that an outer derivative finds the rule again.
    after: Any = tanh_channels(channels, bias, coordinates, pairs)
    return after, (after, channels, bias)


def _tanh_backward(
    coordinates: int,
    pairs: tuple[Pair, ...],
    kept: tuple[Channels, Channels, Array],
    slopes: Channels,
) -> tuple[Channels, Array]:
    found: Any = _pull(*kept, slopes, coordinates, pairs)
    return found


tanh_channels.defvjp(_tanh_forward, _tanh_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _pull(
    after: Channels,
    channels: Channels,
    bias: Array,
    weights: Channels,
    coordinates: int,
    pairs: tuple[Pair, ...],
) -> tuple[Channels, Array]:
    """Derivative of weighted channels after the tangent, by those before it and by the bias."""
    del bias
    slope, bend, third, _ = _derivatives(after[0])
    f, h = _split(channels, coordinates)
    g, gg = _split(weights, coordinates)
    value = slope * weights[0]
    first = [slope * row for row in g]
    for row, each in zip(g, f, strict=True):
        value = value + bend * (row * each)
    for row, each, (i, j) in zip(gg, h, pairs, strict=True):
        value = value + row * (bend * each + third * (f[i] * f[j]))
        first[i] = first[i] + bend * (row * f[j])
        first[j] = first[j] + bend * (row * f[i])
    found = jnp.stack([value, *first, *(slope * row for row in gg)])
    return found, jnp.sum(value, axis=0)


def _pull_forward(
    after: Channels,
    channels: Channels,
    bias: Array,
    weights: Channels,
    coordinates: int,
    pairs: tuple[Pair, ...],
) -> tuple[tuple[Channels, Array], tuple[Channels, Channels, Channels]]:
    found: Any = _pull(after, channels, bias, weights, coordinates, pairs)
    return found, (after, channels, weights)


def _pull_backward(
    coordinates: int,
    pairs: tuple[Pair, ...],
    kept: tuple[Channels, Channels, Channels],
    moves: tuple[Channels, Array],
) -> tuple[None, Channels, Array, Channels]:
    """By what goes into `_pull`; what depends on the values after it is counted before it."""
    after, channels, weights = kept
    slope, bend, third, fourth = _derivatives(after[0])
    f, h = _split(channels, coordinates)
    g, gg = _split(weights, coordinates)
    e0 = moves[0][0] + moves[1][None]
    e, ee = _split(moves[0], coordinates)
    value = bend * e0 * weights[0]
    first, pushed = [], []
    for row, each, move in zip(g, f, e, strict=True):
        value = value + row * (bend * move + third * (e0 * each))
        first.append(bend * (e0 * row))
        pushed.append(slope * move + bend * (e0 * each))
    second = []
    for row, each, move, (i, j) in zip(gg, h, ee, pairs, strict=True):
        cross, product = e[i] * f[j] + f[i] * e[j], f[i] * f[j]
        pushed.append(slope * move + bend * (e0 * each + cross) + third * (e0 * product))
        value = value + row * (bend * move + third * (e0 * each + cross) + fourth * (e0 * product))
        first[i] = first[i] + row * (bend * e[j] + third * (e0 * f[j]))
        first[j] = first[j] + row * (bend * e[i] + third * (e0 * f[i]))
        second.append(bend * (e0 * row))
    before = jnp.stack([value, *first, *second])
    return None, before, jnp.sum(value, axis=0), jnp.stack([slope * e0, *pushed])


_pull.defvjp(_pull_forward, _pull_backward)
