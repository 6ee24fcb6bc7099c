"""Sets of readings, and what inverts them."""

import dataclasses
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from jaxtyping import Float

import inojax as ij
from inojax.methods import PINN, BiLO

# What is said about every set of readings.
Answer = TypeVar("Answer")


@dataclasses.dataclass(frozen=True)
class Trial(Generic[Answer]):
    """Several sets of readings of one truth, and what inverts them.

    Attributes:
        label: What is special about them.
        noise: Standard deviation of the readings; 0 for exact ones, None for counts.
        problem: What they are inverted as.
        truth: The true parameters; of an unknown function its coefficients.
        guess: Where methods begin.
        readings: The sets, as a batch.
        methods: Networks by the name of their row.
        others: Ways to an answer without a network, limits among them, by the name of their row.
    """

    label: str
    noise: float | None
    problem: ij.InverseProblem
    truth: Float[np.ndarray, " parameter"]
    guess: tuple[float, ...]
    readings: ij.Observation
    methods: dict[str, BiLO | PINN]
    others: dict[str, Callable[["Trial[Answer]"], Answer]] = dataclasses.field(default_factory=dict)

    @property
    def sets(self) -> int:
        """Number of sets."""
        return len(self.readings.times)

    def data_loss(
        self, predicted: Float[np.ndarray, "set reading channel"]
    ) -> Float[np.ndarray, " set"]:
        """Mean square of readings minus predictions; of counts in standard deviations."""
        values = np.asarray(self.readings.values)
        if self.noise is None:
            blank = np.zeros(self.problem.parameters.size)
            with jax.enable_x64(True):
                away = np.asarray(self.problem.noise.whiten(values, predicted, blank))
        else:
            away = values - predicted
        return np.square(away).mean(axis=(1, 2))


def stacked(observations: list[ij.Observation]) -> ij.Observation:
    """Single sets of readings as a batch."""
    batch: Any = jax.tree.map(lambda *xs: np.stack(xs), *observations)
    return batch
