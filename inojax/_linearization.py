"""How readings respond to parameters: misfit, gradient and Fisher information in one place."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._inverse_problem import InverseProblem
from ._observation import Observation


class Linearization(NamedTuple):
    """An observation's whitened residuals at some parameters, and their derivatives.

    Masked readings are zero everywhere. Attributes:
        residual: Readings minus predictions in standard deviations.
        log_scale: Logarithm of the standard deviation of each reading.
        d_residual: Derivatives of `residual` in each direction.
        d_log_scale: Derivatives of `log_scale` in each direction.
        d_stabilized: Derivatives of predictions on a scale of unit information, where the noise
            has one of its own.
    """

    residual: Float[Array, " reading"]
    log_scale: Float[Array, " reading"]
    d_residual: Float[Array, "direction reading"]
    d_log_scale: Float[Array, "direction reading"]
    d_stabilized: Float[Array, "direction reading"] | None = None

    @property
    def misfit(self) -> Float[Array, ""]:
        """Negative log likelihood, up to what does not depend on the parameters."""
        return 0.5 * jnp.sum(jnp.square(self.residual)) + jnp.sum(self.log_scale)

    @property
    def gradient(self) -> Float[Array, " direction"]:
        """Derivative of the misfit in each direction."""
        return self.d_residual @ self.residual + jnp.sum(self.d_log_scale, axis=1)

    @property
    def fisher(self) -> Float[Array, "direction direction"]:
        """Fisher information: the expected second derivative of the misfit."""
        if self.d_stabilized is not None:
            return self.d_stabilized @ self.d_stabilized.T
        # What the scale does to the residual is random with mean zero; its square is counted with
        # the scale's own information, 2 for each reading of normal noise.
        expected = self.d_residual + self.residual[None, :] * self.d_log_scale
        return expected @ expected.T + 2.0 * self.d_log_scale @ self.d_log_scale.T


def linearize(
    problem: InverseProblem,
    observation: Observation,
    theta: Float[Array, " parameter"],
    states: Float[Array, "reading state"],
    tangents: Float[Array, "reading state direction"],
    directions: Float[Array, "parameter direction"],
) -> Linearization:
    """Carry derivatives of the states on to whitened residuals; pure, for a single observation.

    Args:
        problem: The inverse problem.
        observation: The readings.
        theta: Physical parameter values.
        states: Solution at the observation's times.
        tangents: Its derivatives in some directions, from `ODEModel.sensitivities`.
        directions: Derivatives of the parameters in these directions.

    Returns:
        Residuals and derivatives; NaN where the solution is.
    """
    mask, times = jnp.asarray(observation.mask), jnp.asarray(observation.times)
    # What is masked may be zero, and its prediction NaN: neither must reach derivatives.
    readings = jnp.where(mask, jnp.asarray(observation.values), 1.0)

    def of(y: Array, parameters: Array) -> tuple[Array, Array, Array | None]:
        clean = jnp.where(mask, jnp.asarray(problem.read(y, parameters)), 1.0)
        residual = problem.noise.whiten(readings, clean, parameters, mask, times=times)
        log_scale = problem.noise.log_scale(clean, parameters, mask, times=times)
        kept = residual, log_scale, problem.noise.stabilized(clean)
        return jax.tree.map(lambda x: jnp.where(mask, x, 0.0).ravel(), kept)

    def along(tangent: Array, direction: Array) -> tuple[Array, Array, Array | None]:
        return jax.jvp(of, (states, theta), (tangent, direction))[1]

    derivatives = jax.vmap(along, in_axes=(2, 1))(tangents, directions)
    residual, log_scale, _ = of(states, theta)
    return Linearization(residual, log_scale, *derivatives)
