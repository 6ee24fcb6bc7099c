"""Cross-attention from the points of a grid to a set of readings."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Key

from ._linear import Linear


class ReadingAttention(eqx.Module):
    """Let every grid point look at the readings: any number, at any times, some absent.

    A learned vector stands among the readings and is never absent, so that with no reading
    at all the layer still returns something defined, and a point may choose to look away.

    Attributes:
        query: Map of the grid features.
        key_value: Map of a reading's features to its key and value.
        output: Map back to the grid features.
        nothing: The vector that stands for "no reading".
        heads: Number of attention heads.

    Source:
        Vaswani et al. (arXiv 1706.03762), section 3.2; its use in the C-FNO is of
        arXiv 2603.11854.
    """

    query: Linear
    key_value: Linear
    output: Linear
    nothing: Float[Array, " two_width"]
    heads: int = eqx.field(static=True)

    def __init__(self, width: int, features: int, heads: int, *, key: Key[Array, ""]) -> None:
        """Draw the weights.

        Args:
            width: Features of a grid point, a multiple of `heads`.
            features: Features of a reading.
            heads: Number of heads.
            key: Source of the initial weights.

        Raises:
            ValueError: If `heads` does not divide `width`.
        """
        if heads < 1 or width % heads:
            raise ValueError(f"`heads` must divide the width {width}; got {heads}.")
        query_key, reading_key, output_key, nothing_key = jr.split(key, 4)
        self.query = Linear(width, width, key=query_key)
        self.key_value = Linear(features, 2 * width, key=reading_key)
        self.output = Linear(width, width, key=output_key)
        self.nothing = 0.1 * jr.normal(nothing_key, (2 * width,))
        self.heads = heads

    def __call__(
        self,
        x: Float[Array, "time batch width"],
        rows: Float[Array, "batch reading feature"] | None,
        present: Bool[Array, "batch reading"] | None,
    ) -> Float[Array, "time batch width"]:
        """Gather what the readings say about each grid point.

        Args:
            x: Features on the grid.
            rows: Features of the readings; None if there are none at all.
            present: Which rows are real.

        Returns:
            Features on the grid, to be added to `x`.
        """
        keys, values = jnp.split(self.nothing, 2)
        if rows is None or present is None:
            alone = self.output(values)
            return jnp.broadcast_to(alone[None, None, :], x.shape)
        pairs = self.key_value(rows)
        first = jnp.broadcast_to(self.nothing[None, None, :], (*rows.shape[:1], 1, pairs.shape[2]))
        pairs = jnp.concatenate([first, pairs], axis=1)
        keys, values = (self._split(part) for part in jnp.split(pairs, 2, axis=2))
        allowed = jnp.concatenate([jnp.ones((present.shape[0], 1), bool), present], axis=1)
        queries = self._split(self.query(x))
        scores = jnp.einsum("nbhd,bmhd->nbhm", queries, keys) / queries.shape[-1] ** 0.5
        scores = jnp.where(allowed[None, :, None, :], scores, -1e9)
        seen = jnp.einsum("nbhm,bmhd->nbhd", jax.nn.softmax(scores, axis=-1), values)
        return self.output(seen.reshape(x.shape))

    def _split(self, features: Float[Array, "one two width"]) -> Float[Array, "one two head depth"]:
        return features.reshape(*features.shape[:2], self.heads, -1)
