"""The response surface on maps that it can represent exactly."""

import jax.numpy as jnp
import numpy as np

from inojax.nn._response_surface import ResponseSurface, monomials


def quadratic(x: np.ndarray) -> np.ndarray:
    """A quadratic map R^2 -> R^(5 x 2) of rank 3."""
    t = np.linspace(0.0, 1.0, 5)
    first = x[:, :1] ** 2 - x[:, 1:] + (x[:, :1] * x[:, 1:]) * t[None, :]
    second = 3.0 + x[:, 1:] ** 2 * t[None, :]
    return np.stack([first, second], axis=2)


def test_monomials_are_all_products_of_two():
    x = np.array([[2.0, 3.0]])
    np.testing.assert_array_equal(monomials(x), [[1.0, 2.0, 3.0, 4.0, 6.0, 9.0]])
    np.testing.assert_array_equal(monomials(jnp.asarray(x)), monomials(x))


def test_a_quadratic_map_is_recovered():
    rng = np.random.default_rng(0)
    surface = ResponseSurface.fit(x := rng.uniform(-1.0, 1.0, (300, 2)), quadratic(x))
    fresh = rng.uniform(-1.0, 1.0, (20, 2))
    predicted = surface(jnp.asarray(fresh, jnp.float32))
    assert predicted.shape == (5, 20, 2)
    assert len(surface.components) == 3
    # The ridge of 1e-4 against 300 rows: a bias near 1e-5 of numbers of order one.
    np.testing.assert_allclose(np.swapaxes(predicted, 0, 1), quadratic(fresh), atol=1e-4)


def test_components_are_limited_and_the_mean_survives():
    rng = np.random.default_rng(0)
    surface = ResponseSurface.fit(x := rng.uniform(-1.0, 1.0, (300, 2)), quadratic(x), components=1)
    assert surface.components.shape == (1, 5, 2)
    predicted = np.asarray(surface(jnp.asarray(x, jnp.float32)))
    # Least squares with a constant term keeps the mean, up to the ridge and float32.
    np.testing.assert_allclose(predicted.mean(axis=1), quadratic(x).mean(axis=0), atol=1e-4)


def test_more_rows_than_principal_components_need():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, (5000, 2))
    surface = ResponseSurface.fit(x, quadratic(x))
    # As above, with less bias.
    np.testing.assert_allclose(
        np.swapaxes(surface(jnp.asarray(x[-9:], jnp.float32)), 0, 1), quadratic(x[-9:]), atol=1e-4
    )
