"""Values with their derivatives by coordinates, carried through a network together."""

import itertools
from collections.abc import Sequence

import equinox as eqx
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
