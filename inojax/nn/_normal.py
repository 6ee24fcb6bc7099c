"""Normal distributions with any covariance: what a network says about all unknowns at once."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

# Logarithms of a conditional variance stay between these.
_LEAST, _MOST = -20.0, 4.0
# The shortest axis of an ellipsoid may be shorter than any conditional deviation.
_LEAST_AXIS = -30.0


class Normal(eqx.Module):
    """A normal distribution, each coordinate given those before it.

    The precision is Mᵀ D⁻¹ M, with M lower triangular and ones on its diagonal, and D diagonal:
    the entries of M are minus the coefficients of a regression of each coordinate on those
    before, and D holds what variance that leaves. Any real numbers give a positive definite
    matrix, and every positive definite matrix is given by some.

    Attributes:
        mean: The mean.
        log_variance: Logarithm of each coordinate's variance given those before it.
        mixing: The matrix M.

    Source:
        Pourahmadi 1999, Biometrika 86, 677-690.
    """

    mean: Float[Array, " parameter"]
    log_variance: Float[Array, " parameter"]
    mixing: Float[Array, "parameter parameter"]

    @staticmethod
    def size(parameters: int) -> int:
        """Numbers that describe a covariance."""
        return parameters * (parameters + 1) // 2

    @classmethod
    def of(cls, mean: Float[Array, " parameter"], numbers: Float[Array, " number"]) -> "Normal":
        """Read a covariance off real numbers.

        Args:
            mean: The mean.
            numbers: Log variances, then entries of M below the diagonal, row by row.

        Returns:
            The distribution.
        """
        n = mean.shape[0]
        rows, columns = np.tril_indices(n, -1)
        mixing = jnp.eye(n, dtype=mean.dtype).at[rows, columns].set(numbers[n:])
        return cls(mean, jnp.clip(numbers[:n], _LEAST, _MOST), mixing)

    @classmethod
    def of_logarithm(
        cls, mean: Float[Array, " parameter"], numbers: Float[Array, " number"]
    ) -> "Normal":
        """Read a covariance off the entries of its matrix logarithm.

        Errors of these numbers are relative errors of the covariance in every direction, which
        suits learning a covariance as such; `of` suits learning by a likelihood.

        Args:
            mean: The mean.
            numbers: Entries of the logarithm on and below its diagonal, row by row.

        Returns:
            The distribution.
        """
        n = mean.shape[0]
        rows, columns = np.tril_indices(n)
        lower = jnp.zeros((n, n), mean.dtype).at[rows, columns].set(numbers)
        symmetric = lower + jnp.tril(lower, -1).T
        values, vectors = jnp.linalg.eigh(symmetric)
        root = vectors * jnp.exp(0.5 * jnp.clip(values, _LEAST_AXIS, _MOST))[None, :]
        # Triangular without squaring: in single precision thin ellipsoids would lose their width.
        triangle = jnp.linalg.qr(root.T, mode="r").T
        scale = jnp.diagonal(triangle)
        mixing = _inverse(triangle / scale[None, :])
        return cls(mean, 2.0 * jnp.log(jnp.abs(scale)), mixing)

    @staticmethod
    def logarithm(
        covariance: Float[Array, "parameter parameter"],
    ) -> Float[Array, " number"]:
        """The numbers that `of_logarithm` turns into a covariance.

        Args:
            covariance: A positive definite matrix.

        Returns:
            Entries of its logarithm on and below the diagonal, row by row.
        """
        values, vectors = jnp.linalg.eigh(covariance)
        found = (vectors * jnp.log(values)[None, :]) @ vectors.T
        rows, columns = np.tril_indices(covariance.shape[0])
        return found[rows, columns]

    @staticmethod
    def numbers(
        covariance: Float[Array, "parameter parameter"],
    ) -> Float[Array, " number"]:
        """The numbers that `of` turns into a covariance.

        Args:
            covariance: A positive definite matrix.

        Returns:
            Log variances, then entries of M below the diagonal, row by row.
        """
        n = covariance.shape[0]
        lower = jnp.linalg.cholesky(covariance)
        scale = jnp.diagonal(lower)
        unit = lower / scale[None, :]
        mixing = _inverse(unit)
        rows, columns = np.tril_indices(n, -1)
        return jnp.concatenate([2.0 * jnp.log(scale), mixing[rows, columns]])

    @property
    def covariance(self) -> Float[Array, "parameter parameter"]:
        """The covariance matrix."""
        spread = self._spread(jnp.eye(self.mean.shape[0], dtype=self.mean.dtype))
        return spread @ spread.T

    def log_prob(self, z: Float[Array, " parameter"]) -> Float[Array, ""]:
        """Log density.

        Args:
            z: A point.

        Returns:
            Its log density.
        """
        left = self.mixing @ (z - self.mean)
        squares = jnp.square(left) * jnp.exp(-self.log_variance)
        return -0.5 * jnp.sum(squares + self.log_variance + jnp.log(2.0 * jnp.pi))

    def sample(self, n: int, *, key: Key[Array, ""]) -> Float[Array, "n parameter"]:
        """Draw points.

        Args:
            n: How many.
            key: Source of randomness.

        Returns:
            The points.
        """
        fresh = jr.normal(key, (self.mean.shape[0], n), self.mean.dtype)
        return self.mean[None] + self._spread(fresh).T

    def _spread(self, x: Array) -> Array:
        scaled = jnp.exp(0.5 * self.log_variance)[:, None] * x
        return jax.scipy.linalg.solve_triangular(
            self.mixing, scaled, lower=True, unit_diagonal=True
        )


def _inverse(unit: Float[Array, "parameter parameter"]) -> Float[Array, "parameter parameter"]:
    """Inverse of a lower triangular matrix with ones on its diagonal."""
    eye = jnp.eye(unit.shape[0], dtype=unit.dtype)
    return jax.scipy.linalg.solve_triangular(unit, eye, lower=True, unit_diagonal=True)
