"""Dense networks on readings: the body of the drifting model and of regression."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Key

from ._linear import Linear


class ConditionalMLP(eqx.Module):
    """Dense blocks on the readings of an observation and a vector of conditions.

    Readings sit in a fixed number of slots, in order of time, absent ones zeroed. (A sum of
    embedded readings, as for sets, would not care for their number, but makes it harder to
    learn what counts here: differences between readings at different times.)

    Two linear heads leave the last block. The second one sees a copy of the features through
    which no gradient flows, so what it learns does not disturb the first.

    Attributes:
        blocks: Dense layers.
        head: First head.
        side: Second head.
    """

    blocks: tuple[Linear, ...]
    head: Linear
    side: Linear

    def __init__(
        self,
        slots: int,
        reading_features: int,
        conditions: int,
        outputs: tuple[int, int],
        *,
        width: int = 512,
        depth: int = 4,
        key: Key[Array, ""],
    ) -> None:
        """Draw the weights.

        Args:
            slots: Rows of an observation.
            reading_features: Features of a row.
            conditions: Length of the vector of conditions; 0 for none.
            outputs: Outputs of the first and of the second head.
            width: Units of each layer.
            depth: Hidden layers.
            key: Source of the initial weights.

        Raises:
            ValueError: If `depth` is below 1.
        """
        if depth < 1:
            raise ValueError(f"`depth` must be at least 1; got {depth}.")
        blocks_key, head_key, side_key = jr.split(key, 3)
        sizes = [slots * reading_features + conditions] + [width] * depth
        self.blocks = tuple(
            Linear(n_in, n_out, key=k)
            for n_in, n_out, k in zip(sizes, sizes[1:], jr.split(blocks_key, depth), strict=False)
        )
        self.head = Linear(width, outputs[0], gain=0.1, key=head_key)
        self.side = Linear(width, outputs[1], gain=0.1, key=side_key)

    def __call__(
        self,
        rows: Float[Array, "reading feature"],
        present: Bool[Array, " reading"],
        conditions: Float[Array, " condition"],
    ) -> tuple[Float[Array, " output"], Float[Array, " side_output"]]:
        """Evaluate both heads.

        Args:
            rows: Features of the readings, as many as there are slots.
            present: Which rows are real.
            conditions: The vector of conditions, empty if there are none.

        Returns:
            The outputs of the two heads.
        """
        filled = jnp.where(present[:, None], rows, 0.0)
        x = jnp.concatenate([filled.reshape(-1), conditions])
        for block in self.blocks:
            x = jax.nn.silu(block(x))
        return self.head(x), self.side(jax.lax.stop_gradient(x))
