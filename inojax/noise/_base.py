"""What every noise model can do."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from .._binding import Binding

# So many roundings may push a prediction below zero that should be zero.
_ROUNDINGS = 64.0


class NoDensityError(ValueError):
    """The noise has no density, so readings cannot be weighed against predictions.

    Example:
        >>> problem = ij.problems.robertson(noise=0.0)
        >>> theta = problem.parameters.from_unit(np.full(3, 0.5))
        >>> observation = problem.simulate(theta, key=jr.key(0))
        >>> try:
        ...     problem.log_likelihood(theta, observation)
        ... except ij.noise.NoDensityError:
        ...     print("readings without noise have no density")
        readings without noise have no density
    """


class AbstractNoise(eqx.Module):
    """The distribution of readings around a clean solution.

    To add a noise model, write a subclass in a file of its own with these four methods, for
    a single experiment (batches are `jax.vmap`'s work):

    - `sample` draws readings; what it draws must keep the dtype of `clean`;
    - `log_prob` is the log density of exactly what `sample` draws, summed over the readings
      that the mask keeps. A masked reading must not count, whatever value stands in its place;
    - `whiten` compares readings and clean values so that under the model the results have mean
      0, variance 1 and no correlation. A model for which that makes no sense raises
      `NoDensityError`;
    - `log_scale` is the logarithm of what `whiten` divides by, which is what its derivatives
      leave out of the density where that scale is unknown. Half of the squares of whitened
      readings plus these logarithms is the negative log density, up to what does not depend on
      the prediction.

    Where each reading is normal by itself in some coordinate, such as its logarithm, subclass
    `AbstractIndependentNoise` instead, which has all four.

    Where readings cannot be negative (`positive`, `counts`), predictions that rounding pushed
    below zero are zero: take `settled` of them first.

    Methods get the parameters θ, so a scale or correlation can itself be unknown, and the times
    of the readings, on which a correlation depends; models that need neither write
    `del theta, times`. A model that calls parameters by name finds them in `bound`.
    Then add a line to `noise/__init__.py`, to the table in `tests/helpers.py` (whose tests check
    `sample` against `log_prob`) and to the docs.

    Example:
        >>> issubclass(ij.noise.AR1, ij.noise.AbstractNoise)
        True
    """

    @property
    def positive(self) -> bool:
        """Whether readings must be greater than zero; by default they may be any number."""
        return False

    @property
    def counts(self) -> bool:
        """Whether readings must be counts, whole numbers from zero on."""
        return False

    @property
    def negligible(self) -> float:
        """How far below zero a prediction is as good as zero, in its own unit; 0 by default."""
        return 0.0

    def settled(
        self,
        clean: Float[Array | np.ndarray, "*batch reading channel"],
        *,
        relative: float | Float[Array | np.ndarray, ""] = 0.0,
        absolute: float | Float[Array | np.ndarray, "..."] = 0.0,
    ) -> Float[Array | np.ndarray, "*batch reading channel"]:
        """Predictions, of which those below zero by no more than rounding are exactly zero.

        Where readings may be negative nothing changes. Derivatives stay as they are.

        Args:
            clean: Clean values.
            relative: How far below zero still counts as zero, as a share of the largest value of
                the channel; never less than rounding.
            absolute: The same in the unit of the channel, if that is more.

        Returns:
            The predictions; what is truly negative, and NaN, stays.
        """
        if not (self.positive or self.counts):
            return clean
        xp = jnp if isinstance(clean, jax.Array) else np
        least = _ROUNDINGS * jnp.finfo(clean.dtype).eps
        size = xp.max(
            xp.where(xp.isfinite(clean), xp.abs(clean), 0.0), axis=-2, keepdims=True, initial=0.0
        )
        slack = xp.maximum(xp.maximum(relative, least) * size, absolute)
        slack = xp.maximum(slack, self.negligible)
        # A difference that is zero, so that derivatives pass.
        zero = clean - jax.lax.stop_gradient(clean) if xp is jnp else xp.zeros_like(clean)
        return xp.where((clean < 0.0) & (clean >= -slack), zero, clean).astype(clean.dtype)

    @property
    def needs_differences_only(self) -> bool:
        """Whether of times only their differences matter, so that they may count from anywhere.

        Networks train in single precision, in which calendar times are hardly told apart. Noise
        that says True gets times from the model's start there; other noise gets them as they are.
        """
        return False

    def stabilized(
        self, clean: Float[Array | np.ndarray, "reading channel"]
    ) -> Float[Array, "reading channel"] | None:
        """Predictions on a scale where each has unit information, where `whiten` has none.

        Least squares then takes the Fisher information from it. Elsewhere None: derivatives of
        what `whiten` returns say as much.

        Args:
            clean: Clean values.

        Returns:
            None.
        """
        del clean
        return None

    def bound(self, names: tuple[str, ...]) -> "AbstractNoise":
        """Look up the parameters that the model names; an `InverseProblem` calls this.

        Args:
            names: Names of the problem's parameters, in the order of θ.

        Returns:
            The same model, ready for parameter vectors of this order.

        Raises:
            ValueError: If it names a parameter that is not there.
        """
        del names
        return self

    def bound_to(self, binding: Binding) -> "AbstractNoise":
        """The same model for vectors of the unknowns, where some parameters are fixed.

        An `InverseProblem` calls this. By default the model's methods get θ with the fixed
        parameters at their places, as equations do.

        Args:
            binding: Names of all parameters, and values of the fixed ones.

        Returns:
            The same model, ready for vectors of the unknowns.

        Raises:
            ValueError: If it names a parameter that is not there.
        """
        if not binding.fixed:
            return self.bound(binding.names)
        return Completed(self.bound(binding.names), binding)

    def check(self, n_channels: int) -> None:
        """Raise a ValueError, on the host, if the model does not fit so many channels."""

    @abc.abstractmethod
    def sample(
        self,
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
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
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
    ) -> Float[Array, ""]:
        """Return the log density of the readings that the mask keeps."""

    @abc.abstractmethod
    def whiten(
        self,
        readings: Float[Array | np.ndarray, "reading channel"],
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
    ) -> Float[Array, "reading channel"]:
        """Return readings minus clean values, uncorrelated and of unit variance under the model.

        What the mask leaves out may become anything, but must not change the others.
        """

    @abc.abstractmethod
    def log_scale(
        self,
        clean: Float[Array | np.ndarray, "reading channel"],
        theta: Float[Array | np.ndarray, " parameter"],
        mask: Bool[Array | np.ndarray, "reading channel"] | None = None,
        *,
        times: Float[Array | np.ndarray, " reading"] | None = None,
    ) -> Float[Array, "reading channel"]:
        """Return the log of the standard deviation that `whiten` divides by."""


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
