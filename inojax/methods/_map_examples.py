"""What an inverse map learns from."""

from typing import NamedTuple

from jaxtyping import Array, Float

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
