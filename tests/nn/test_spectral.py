"""Spectral convolution against SciPy's cosine transform."""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.fft

from inojax.nn._spectral import SpectralConv, cosine_basis
from tests.refuses import refuses

LENGTH, BATCH, WIDTH, MODES = 24, 3, 5, 7


@pytest.mark.parametrize("modes", [1, 7, 24])
def test_basis_is_scipys_orthonormal_cosine_transform(modes):
    expected = scipy.fft.dct(np.eye(LENGTH), norm="ortho", axis=0)[:modes]
    # Float32 rounding of numbers below 1.
    np.testing.assert_allclose(cosine_basis(LENGTH, modes), expected, atol=1e-7)


def test_convolution_is_a_matrix_for_each_cosine_mode(key):
    layer = SpectralConv(WIDTH, MODES, key=key)
    x = np.asarray(jr.normal(key, (LENGTH, BATCH, WIDTH)), np.float64)
    spectrum = scipy.fft.dct(x, norm="ortho", axis=0)
    mixed = np.zeros_like(spectrum)
    mixed[:MODES] = np.einsum("mbw,mwv->mbv", spectrum[:MODES], np.asarray(layer.weight))
    expected = scipy.fft.idct(mixed, norm="ortho", axis=0)
    # Float32 sums of 24 x 5 terms of order one.
    np.testing.assert_allclose(layer(jnp.asarray(x, jnp.float32)), expected, atol=1e-5)


def test_band_limited_signal_passes_unchanged_and_the_rest_is_cut(key):
    layer = SpectralConv(2, MODES, key=key)
    identity = jnp.broadcast_to(jnp.eye(2)[None], (MODES, 2, 2))
    object.__setattr__(layer, "weight", identity)
    points = (np.arange(LENGTH) + 0.5) / LENGTH
    low = 0.3 + np.cos(np.pi * 2 * points) - 0.5 * np.cos(np.pi * (MODES - 1) * points)
    high = np.cos(np.pi * MODES * points)
    x = jnp.asarray(np.stack([low, low + high], axis=1)[:, None, :], jnp.float32)
    # Float32 sums of 24 terms of order one.
    np.testing.assert_allclose(layer(x)[:, 0, :], np.stack([low, low], axis=1), atol=2e-6)


@pytest.mark.parametrize("modes", [0, 25])
def test_impossible_modes_are_refused(modes):
    with refuses(ValueError, rf"`modes` must lie in \[1, 24\].*got {modes}"):
        cosine_basis(LENGTH, modes)
