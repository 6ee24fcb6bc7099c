"""A noise model that reads parameters of which some are fixed."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from .._binding import Binding
from ._base import AbstractNoise


class Completed(AbstractNoise):
    """A noise model behind vectors of the unknowns: it gets them with the fixed parameters in.

    Attributes:
        inner: The noise model.
        binding: Where the fixed parameters stand, and their values.
    """

    inner: AbstractNoise
    binding: Binding = eqx.field(static=True)

    def bound_to(self, binding: Binding) -> AbstractNoise:
        """The inner noise, bound anew: another problem may have other parameters fixed."""
        return self.inner.bound_to(binding)

    @property
    def positive(self) -> bool:
        """As `inner`."""
        return self.inner.positive

    @property
    def counts(self) -> bool:
        """As `inner`."""
        return self.inner.counts

    @property
    def negligible(self) -> float:
        """As `inner`."""
        return self.inner.negligible

    @property
    def needs_differences_only(self) -> bool:
        """As `inner`."""
        return self.inner.needs_differences_only

    def settled(
        self,
        clean: Float[Array | np.ndarray, "*batch reading channel"],
        *,
        relative: float | Float[Array | np.ndarray, ""] = 0.0,
        absolute: float | Float[Array | np.ndarray, "..."] = 0.0,
    ) -> Float[Array | np.ndarray, "*batch reading channel"]:
        """As `inner`."""
        return self.inner.settled(clean, relative=relative, absolute=absolute)

    def stabilized(
        self, clean: Float[Array | np.ndarray, "reading channel"]
    ) -> Float[Array, "reading channel"] | None:
        """As `inner`."""
        return self.inner.stabilized(clean)

    def check(self, n_channels: int) -> None:
        """As `inner`."""
        self.inner.check(n_channels)

    def sample(
        self,
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
        key: Key[Array, ""],
    ) -> Float[Array, "reading channel"]:
        """As `inner`, from the unknowns."""
        return self.inner.sample(clean, self.binding.complete(theta), times=times, key=key)

    def log_prob(
        self,
        readings: Float[Array | np.ndarray, "reading channel"],
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
    ) -> Float[Array, ""]:
        """As `inner`, from the unknowns."""
        theta = self.binding.complete(theta)
        return self.inner.log_prob(readings, clean, theta, mask, times=times)

    def whiten(
        self,
        readings: Float[Array | np.ndarray, "reading channel"],
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
    ) -> Float[Array, "reading channel"]:
        """As `inner`, from the unknowns."""
        theta = self.binding.complete(theta)
        return self.inner.whiten(readings, clean, theta, mask, times=times)

    def log_scale(
        self,
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
    ) -> Float[Array, "reading channel"]:
        """As `inner`, from the unknowns."""
        return self.inner.log_scale(clean, self.binding.complete(theta), mask, times=times)
