"""Where particles should move: displacements built from forward passes only."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_FAR = 1e9


class AbstractDriftField(eqx.Module):
    """A rule that says where the particles of one observation should move.

    To add one, subclass it and write `__call__`. The result is a training target: no gradient
    flows through it, and it must not ask for derivatives of the surrogate.
    """

    @abc.abstractmethod
    def __call__(
        self,
        particles: Float[Array, "particle parameter"],
        residuals: Float[Array, "particle reading"],
        truth: Float[Array, " parameter"],
        truth_residual: Float[Array, " reading"],
    ) -> Float[Array, "particle parameter"]:
        """Return the displacement of each particle, in unit coordinates.

        Residuals are those of the surrogate in units of the prior's spread, 0 where no
        reading is; the true parameters of the training example come with the residual of
        their exact simulation, which is noise alone.
        """


class ResidualDrift(AbstractDriftField):
    """Attraction to whatever explains the readings better: weights fall with the residual.

    The attractors of a particle are the other particles of its observation and the true
    parameters of the training example. Where the truth has all the weight, the field
    vanishes in expectation over training examples at the posterior mean, so particles end
    there; companions that explain the readings as well pull towards the same place. An
    antisymmetric repulsion, as in drifting models, can keep the cloud from collapsing.

    Attributes:
        temperature: Mean squared residual, in units of the prior's spread, at which an
            attractor has lost most of its weight.
        repulsion: Strength of the repulsion among particles, 0 for none.
        range: Distance in unit coordinates, per square root of dimension, over which
            particles repel each other.

    Source:
        Ours; the antisymmetric form is of Deng et al. (arXiv 2602.04770), section 3.

    Example:
        >>> ij.methods.DriftSettings(field=ij.methods.ResidualDrift()).field
        ResidualDrift()
    """

    temperature: float = 1e-4
    repulsion: float = 0.0
    range: float = 0.2

    def __check_init__(self) -> None:
        """Refuse scales that are not positive."""
        if self.temperature <= 0.0 or self.range <= 0.0 or self.repulsion < 0.0:
            raise ValueError(
                "`temperature` and `range` must be positive and `repulsion` not negative; got "
                f"{self.temperature}, {self.range} and {self.repulsion}."
            )

    def __call__(
        self,
        particles: Float[Array, "particle parameter"],
        residuals: Float[Array, "particle reading"],
        truth: Float[Array, " parameter"],
        truth_residual: Float[Array, " reading"],
    ) -> Float[Array, "particle parameter"]:
        """See `AbstractDriftField`."""
        attractors = jnp.concatenate([truth[None, :], particles])
        misfit = jnp.concatenate([truth_residual[None, :], residuals])
        energy = jnp.mean(jnp.square(misfit), axis=1) / self.temperature
        # A particle does not attract itself: that would only slow it down.
        itself = jnp.eye(particles.shape[0], attractors.shape[0], 1) * _FAR
        weights = jax.nn.softmax(-energy[None, :] - itself, axis=1)
        drift = weights @ attractors - particles
        if self.repulsion == 0.0:
            return drift
        return drift - self.repulsion * self._toward_neighbors(particles)

    def _toward_neighbors(
        self, particles: Float[Array, "particle parameter"]
    ) -> Float[Array, "particle parameter"]:
        gaps = particles[None, :, :] - particles[:, None, :]
        distance = jnp.sqrt(jnp.mean(jnp.square(gaps), axis=-1) + 1e-12)
        kernel = jnp.exp(-distance / self.range) * (1.0 - jnp.eye(particles.shape[0]))
        return jnp.einsum("ij,ijp->ip", kernel / jnp.maximum(particles.shape[0] - 1, 1), gaps)


class ReportedDrift(AbstractDriftField):
    """The field as reported: kernel in residual space, weights rising with the residual.

    v(kᵢ) = Σⱼ Kᵢⱼ ‖Rⱼ‖² (kⱼ - kᵢ), Kᵢⱼ = exp(-‖Rᵢ - Rⱼ‖² / σ²), normalized by Σⱼ Kᵢⱼ ‖Rⱼ‖². It
    is here for comparison: particles attract each other the more, the worse they explain
    the readings, and the true parameters never enter.

    Attributes:
        bandwidth: σ as a multiple of the median distance between residuals.

    Source:
        arXiv 2603.11854, as far as it is known; normalization and bandwidth rule are ours.

    Example:
        >>> ij.methods.DriftSettings(field=ij.methods.ReportedDrift()).field
        ReportedDrift()
    """

    bandwidth: float = 1.0

    def __check_init__(self) -> None:
        """Refuse a bandwidth that is not positive."""
        if self.bandwidth <= 0.0:
            raise ValueError(f"`bandwidth` must be positive; got {self.bandwidth}.")

    def __call__(
        self,
        particles: Float[Array, "particle parameter"],
        residuals: Float[Array, "particle reading"],
        truth: Float[Array, " parameter"],
        truth_residual: Float[Array, " reading"],
    ) -> Float[Array, "particle parameter"]:
        """See `AbstractDriftField`; the truth is not used."""
        del truth, truth_residual
        gaps = jnp.sum(jnp.square(residuals[None, :, :] - residuals[:, None, :]), axis=-1)
        scale = jnp.square(self.bandwidth) * jnp.maximum(jnp.median(gaps), 1e-12)
        weights = jnp.exp(-gaps / scale) * jnp.sum(jnp.square(residuals), axis=1)[None, :]
        weights = weights / jnp.maximum(jnp.sum(weights, axis=1, keepdims=True), 1e-12)
        return weights @ particles - particles
