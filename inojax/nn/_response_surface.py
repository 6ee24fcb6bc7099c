"""A quadratic response surface: the part of an operator that least squares can find."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# Weights of the squared coefficients that are tried; the small end suits many simulations.
_RIDGES = (1e-4, 1e-2, 1.0, 100.0)


def monomials(
    x: Float[Array | np.ndarray, "*batch feature"],
) -> Float[Array | np.ndarray, "*batch term"]:
    """All products of up to two features: 1, xᵢ, xᵢ xⱼ.

    Args:
        x: Features, of order one.

    Returns:
        The `1 + p + p (p + 1) / 2` terms.
    """
    where = np if isinstance(x, np.ndarray) else jnp
    rows, columns = np.triu_indices(x.shape[-1])
    products = x[..., rows] * x[..., columns]
    return where.concatenate([where.ones_like(x[..., :1]), x, products], axis=-1)


class ResponseSurface(eqx.Module):
    """Trajectories as a quadratic polynomial of the parameters, on principal components.

    Where a solution depends smoothly on its parameters, least squares finds most of it in a
    second; a network then needs to learn the remainder only. The fit is closed-form and no
    gradient ever flows into it.

    Attributes:
        coefficients: Weights of the monomials for each component.
        components: Principal components of the trajectories, scaled to unit variance.
        center: Mean trajectory.
        error: Root mean square error of each component's weight, on held-out simulations.

    Source:
        Box and Wilson (1951), J. R. Stat. Soc. B 13, 1-45, for response surfaces.
    """

    # NumPy arrays: training touches JAX arrays only.
    coefficients: Float[np.ndarray, "term component"]
    components: Float[np.ndarray, "component time channel"]
    center: Float[np.ndarray, "time channel"]
    error: Float[np.ndarray, " component"]

    @classmethod
    def fit(
        cls,
        features: Float[np.ndarray, "n feature"],
        trajectories: Float[np.ndarray, "n time channel"],
        *,
        components: int = 80,
    ) -> "ResponseSurface":
        """Fit by ridge regression, its weight chosen on a tenth of the rows held out.

        Args:
            features: Features of the parameters, of order one.
            trajectories: Scaled trajectories, of order one.
            components: Principal components kept, at most.

        Returns:
            The surface in float32.
        """
        count, *shape = trajectories.shape
        flat = trajectories.reshape(count, -1)
        center = flat.mean(axis=0, dtype=np.float64)
        scale, rows = _principal(flat, center, components)
        scores = (flat - center[None, :].astype(flat.dtype)) @ (rows.T / scale).astype(flat.dtype)
        coefficients, error = _ridge(np.asarray(monomials(features.astype(np.float64))), scores)
        return cls(
            coefficients.astype(np.float32),
            (scale[:, None] * rows).reshape(-1, *shape).astype(np.float32),
            center.reshape(shape).astype(np.float32),
            error.astype(np.float32),
        )

    def __call__(
        self,
        features: Float[Array, "batch feature"],
        correction: Float[Array, "batch component"] | None = None,
    ) -> Float[Array, "time batch channel"]:
        """Evaluate the surface.

        Args:
            features: Features of parameter vectors.
            correction: Added to the weights of the components, in units of `error`.

        Returns:
            The trajectories it predicts, time first.
        """
        scores = monomials(features) @ jnp.asarray(self.coefficients)
        if correction is not None:
            scores = scores + correction * jnp.asarray(self.error)[None, :]
        components = jnp.swapaxes(jnp.asarray(self.components), 0, 1)
        return jnp.asarray(self.center)[:, None, :] + scores[None] @ components


def _principal(
    flat: Float[np.ndarray, "n feature"], center: Float[np.ndarray, " feature"], most: int
) -> tuple[Float[np.ndarray, " component"], Float[np.ndarray, "component feature"]]:
    """Standard deviations and directions of the principal components, largest first."""
    # A few thousand rows settle the directions; the regression later takes all of them.
    sample = flat[:4096] - center[None, :].astype(flat.dtype)
    values, vectors = np.linalg.eigh((sample.T @ sample).astype(np.float64) / len(sample))
    kept = max(1, min(most, int(np.sum(values > 1e-10 * values[-1]))))
    # Trajectories that never vary have one component, of no size.
    scale = np.sqrt(np.maximum(values[-kept:][::-1], 1e-30))
    return scale, vectors[:, -kept:][:, ::-1].T


def _ridge(
    terms: Float[np.ndarray, "n term"], scores: Float[np.ndarray, "n component"]
) -> tuple[Float[np.ndarray, "term component"], Float[np.ndarray, " component"]]:
    """Coefficients and held-out error of each component, at the best of a few weights."""
    held = max(1, len(terms) // 10)
    train, test = slice(None, -held) if held < len(terms) else slice(None), slice(-held, None)
    gram, moments = terms[train].T @ terms[train], terms[train].T @ scores[train]
    best: tuple[Any, Any] | None = None
    for weight in _RIDGES:
        coefficients = np.linalg.solve(gram + weight * np.eye(len(gram)), moments)
        error = np.sqrt(np.square(scores[test] - terms[test] @ coefficients).mean(axis=0))
        if best is None or np.sum(error**2) < np.sum(best[1] ** 2):
            best = coefficients, error
    assert best is not None
    return best
