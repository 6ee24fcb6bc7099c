"""Normal distributions cut to [0, 1]: what a network says about a unit coordinate."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Bool, Float, Key

_NARROWEST, _WIDEST = 1e-3, 3.0


class UnitNormal(eqx.Module):
    """Independent normal distributions cut to the unit interval.

    The family reaches from a sharp value to the uniform distribution, so it can say of an
    unknown that the readings settle it and of another that they do not touch its prior. The
    best fit in likelihood has the mean and variance of what it is fitted to.

    Attributes:
        location: Mode of each coordinate, in [0, 1].
        scale: Standard deviation before the cut, between 1e-3 and 3.
    """

    location: Float[Array, "*batch parameter"]
    scale: Float[Array, "*batch parameter"]

    @classmethod
    def around(
        cls,
        value: Float[Array, "*batch parameter"],
        outputs: Float[Array, "*batch two_parameter"],
    ) -> "UnitNormal":
        """Read offset and scale off the raw outputs of a network.

        Args:
            value: Point estimate of each coordinate; no gradient flows into it.
            outputs: Any real numbers, two for each coordinate.

        Returns:
            The distributions. Their mode may leave the point estimate, which is a mean: a
            distribution cut at one side has them apart.
        """
        # An untrained network starts out unsure: outputs of zero mean a scale of 0.7.
        raw_offset, raw_scale = jnp.split(outputs, 2, axis=-1)
        location = jax.lax.stop_gradient(value) + 0.5 * jnp.tanh(raw_offset)
        span = jnp.log(_WIDEST / _NARROWEST)
        scale = _NARROWEST * jnp.exp(span * jax.nn.sigmoid(raw_scale + 1.5))
        return cls(jnp.clip(location, 0.0, 1.0), scale)

    def log_prob(self, z: Float[Array, "*batch parameter"]) -> Float[Array, "*batch parameter"]:
        """Log density of each coordinate.

        Args:
            z: Unit coordinates.

        Returns:
            Log densities.
        """
        lower, upper = self._ends()
        return (
            -0.5 * jnp.square((z - self.location) / self.scale)
            - jnp.log(self.scale * (upper - lower))
            - 0.5 * jnp.log(2.0 * jnp.pi)
        )

    def quantile(self, u: Float[Array, "*batch parameter"]) -> Float[Array, "*batch parameter"]:
        """Inverse distribution function.

        Args:
            u: Levels in [0, 1], same shape as the distributions.

        Returns:
            Unit coordinates.
        """
        lower, upper = self._ends()
        level = jnp.clip(lower + u * (upper - lower), 1e-7, 1.0 - 1e-7)
        return jnp.clip(self.location + self.scale * ndtri(level), 0.0, 1.0)

    def sample(self, *, key: Key[Array, ""]) -> Float[Array, "*batch parameter"]:
        """Draw one value of each coordinate.

        Args:
            key: Source of randomness.

        Returns:
            Unit coordinates.
        """
        return self.quantile(jr.uniform(key, self.location.shape, self.location.dtype))

    def product(
        self,
        values: Float[Array, "*batch group parameter"],
        known: Bool[Array, "*batch group one"],
    ) -> tuple[Float[Array, "*batch parameter"], "UnitNormal"]:
        """Combine what several groups of readings say about the same unknowns.

        Groups are independent given the unknowns and the prior is flat in unit coordinates,
        so the product of their densities is the density given all of them.

        Args:
            values: A value from each group, to be averaged by precision.
            known: Which groups say anything.

        Returns:
            The average and the combined distribution, without the axis of the groups.
        """
        precision = jnp.where(known, self.scale**-2.0, 1e-12)
        total = jnp.sum(precision, axis=-2)
        weights = precision / jnp.expand_dims(total, -2)
        location = jnp.sum(weights * self.location, axis=-2)
        return jnp.sum(weights * values, axis=-2), UnitNormal(location, total**-0.5)

    def _ends(self) -> tuple[Array, Array]:
        return ndtr(-self.location / self.scale), ndtr((1.0 - self.location) / self.scale)
