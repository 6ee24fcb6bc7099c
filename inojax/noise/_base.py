"""What every noise model can do."""

import abc

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Key


class NoDensityError(ValueError):
    """The noise has no density, so readings cannot be weighed against predictions."""


class AbstractNoise(eqx.Module):
    """The distribution of readings around a clean solution.

    To add a noise model, write a subclass in a file of its own with these three methods, for
    a single experiment (batches are `jax.vmap`'s work):

    - `sample` draws readings; what it draws must keep the dtype of `clean`;
    - `log_prob` is the log density of exactly what `sample` draws, summed over the readings
      that the mask keeps. A masked reading must not count, whatever value stands in its place;
    - `whiten` divides residuals so that under the model they have mean 0, variance 1 and no
      correlation. A model for which that makes no sense raises `NoDensityError`.

    Methods get the parameters θ, so a scale or correlation can itself be unknown; models that
    do not need θ write `del theta`. Then add a line to `noise/__init__.py`, to the table in
    `tests/noise/test_noise.py` (which checks `sample` against `log_prob`) and to the docs.
    """

    def check(self, n_channels: int) -> None:
        """Raise a ValueError, on the host, if the model does not fit so many channels."""

    @abc.abstractmethod
    def sample(
        self,
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        *,
        key: Key[Array, ""],
    ) -> Float[Array, "reading channel"]:
        """Draw readings around clean values."""

    @abc.abstractmethod
    def log_prob(
        self,
        readings: Float[Array | np.ndarray, "reading channel"],
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
    ) -> Float[Array, ""]:
        """Return the log density of the readings that the mask keeps."""

    @abc.abstractmethod
    def whiten(
        self,
        residual: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
    ) -> Float[Array, "reading channel"]:
        """Scale residuals to unit variance under the model."""
