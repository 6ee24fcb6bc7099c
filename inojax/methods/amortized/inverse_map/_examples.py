"""What an inverse map learns from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, Key

from ._series import SeriesEncoder


class Examples(NamedTuple):
    """What a batch is drawn from.

    Attributes:
        z: Unit coordinates.
        states: Trajectories.
        inputs: Inputs with the noise that each simulation keeps; None where noise is drawn.
        numbers: What describes the Laplace covariance; None where that is not learned.
    """

    z: Float[Array, "n parameter"]
    states: Float[Array, "n time state"]
    inputs: Float[Array, "n row feature"] | None = None
    numbers: Float[Array, "n number"] | None = None


class MapData(NamedTuple):
    """What training gets as arrays, so that what it compiles serves other simulations as well.

    Attributes:
        train: Simulations that are trained on.
        held: Simulations that choose the best weights; none where all are trained on.
        encoder: Scales.
    """

    train: Examples
    held: Examples
    encoder: SeriesEncoder


class Epoch(NamedTuple):
    """A run through all examples in random order, each once.

    Attributes:
        batch: How many batches have been drawn.
        order: The examples in the order of this epoch.
    """

    batch: Int[Array, ""]
    order: Int[Array, " n"]

    @classmethod
    def first(cls, count: int) -> "Epoch":
        """Before the first batch of so many examples."""
        return cls(jnp.asarray(0), jnp.arange(count))

    def draw(self, size: int, *, key: Key[Array, ""]) -> tuple[Int[Array, " batch"], "Epoch"]:
        """Draw a batch; what does not fill one at the end of an epoch is left out.

        Args:
            size: Examples in it.
            key: Source of the order, used by the first batch of an epoch.

        Returns:
            Which examples, and the state after them.
        """
        count = self.order.shape[0]
        place = self.batch % max(1, count // size)
        order = jax.lax.cond(place == 0, lambda: jr.permutation(key, count), lambda: self.order)
        rows = order[(place * size + jnp.arange(size)) % count]
        return rows, Epoch(self.batch + 1, order)
