"""The signed logarithmic scale."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inojax import Dataset
from inojax.data import SignedLog


def dataset(trajectories):
    n, time, _ = trajectories.shape
    unit = np.full((n, 1), 0.5)
    return Dataset(
        unit,
        unit,
        times=np.arange(time, dtype=float),
        trajectories=trajectories,
        status=np.zeros(n, np.int32),
    )


@pytest.fixture
def trajectories():
    """Three channels: decades, both signs, and values of 1e-18."""
    rng = np.random.default_rng(0)
    decades = 10.0 ** rng.uniform(-3.0, 3.0, (50, 20))
    signed, tiny = rng.normal(size=(50, 20)), 1e-18 * rng.uniform(1.0, 3.0, (50, 20))
    return np.stack([decades, signed, tiny], axis=2)


def test_scaled_values_have_mean_zero_and_spread_one(trajectories):
    scaled = SignedLog.from_dataset(dataset(trajectories)).apply(trajectories)
    # Float64 sums of a thousand terms.
    np.testing.assert_allclose(scaled.mean(axis=(0, 1)), 0.0, atol=1e-12)
    np.testing.assert_allclose(scaled.std(axis=(0, 1)), 1.0, rtol=1e-12)


def test_it_is_the_formula(trajectories):
    scale = SignedLog.from_dataset(dataset(trajectories), floor=0.1)
    floor = 0.1 * trajectories.std(axis=(0, 1))
    bent = np.arcsinh(trajectories / (2.0 * floor))
    expected = (bent - bent.mean(axis=(0, 1))) / bent.std(axis=(0, 1))
    # Float64 rounding.
    np.testing.assert_allclose(scale.apply(trajectories), expected, atol=1e-11)


def test_large_values_are_logarithmic_and_small_ones_linear():
    scale = SignedLog(np.ones(1), np.zeros(1), np.ones(1))
    large = np.array([1e3, 1e5])[:, None]
    # asinh(x / 2) = log(x) + 1 / x² + ...
    np.testing.assert_allclose(scale.apply(large), np.log(large), atol=2e-6)
    small = np.array([-1e-3, 0.0, 2e-3])[:, None]
    # asinh(x / 2) = x / 2 - x³ / 48 + ...
    np.testing.assert_allclose(scale.apply(small), small / 2.0, atol=1e-9)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 1e-4)])
def test_inverse_undoes_it(trajectories, dtype, rtol):
    # Float32 numbers near 10 on the scale are 1e-6 apart, and sinh multiplies that by ten.
    scale = SignedLog.from_dataset(dataset(trajectories))
    values = trajectories.astype(dtype)
    again = scale.invert(scale.apply(values))
    assert again.dtype == dtype
    floor = np.asarray(scale.floor)[None, None, :]
    np.testing.assert_allclose(again / floor, values / floor, rtol=rtol, atol=rtol)


def test_jax_arrays_stay_on_the_device_and_in_float32(trajectories):
    scale = SignedLog.from_dataset(dataset(trajectories))
    values = jnp.asarray(trajectories, jnp.float32)
    got = eqx.filter_jit(scale.apply)(values)
    assert isinstance(got, jax.Array)
    assert got.dtype == jnp.float32
    # Float32 rounding of numbers up to ten.
    np.testing.assert_allclose(got, scale.apply(trajectories), atol=2e-5)
    gradient = jax.jit(jax.grad(lambda x: jnp.sum(scale.apply(x))))(jnp.zeros((4, 3)))
    assert np.isfinite(gradient).all()


def test_a_constant_channel_maps_to_zero(trajectories):
    trajectories[:, :, 1] = 3.7
    scale = SignedLog.from_dataset(dataset(trajectories))
    scaled = scale.apply(trajectories)
    # Not rounding errors blown up to order one.
    np.testing.assert_allclose(scaled[:, :, 1], 0.0, atol=1e-6)
    zeros = np.zeros_like(trajectories)
    np.testing.assert_array_equal(SignedLog.from_dataset(dataset(zeros)).apply(zeros), 0.0)


def test_take_picks_channels_in_their_order(trajectories):
    scale = SignedLog.from_dataset(dataset(trajectories))
    part = scale.take((2, 0))
    np.testing.assert_array_equal(
        part.apply(trajectories[..., [2, 0]]), scale.apply(trajectories)[..., [2, 0]]
    )


@pytest.mark.parametrize("unit", [1e-200, 1e-40, 1e-12, 1e12, 1e40, 1e150])
def test_the_unit_does_not_matter(trajectories, unit):
    plain, other = (SignedLog.from_dataset(dataset(x * trajectories)) for x in (1.0, unit))
    expected = plain.apply(trajectories)
    # Float64 rounding of the unit, beside logarithms near ten.
    np.testing.assert_allclose(other.apply(unit * trajectories), expected, atol=1e-11)
    np.testing.assert_allclose(other.floor, unit * plain.floor, rtol=1e-12)
    # Constants, too: what is constant but for rounding is so in any unit.
    constant = np.full_like(trajectories, unit)
    constant[0, 0] *= 1.0 + 1e-15
    scale = SignedLog.from_dataset(dataset(constant))
    np.testing.assert_allclose(scale.apply(constant), 0.0, atol=1e-9)
