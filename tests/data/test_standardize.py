import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inojax import Dataset
from inojax.data import Standardizer

SCALES = np.array([1.0, 3e-18, 4e11, 1e-4])


def make(trajectories, status=None):
    n = len(trajectories)
    return Dataset(
        np.zeros((n, 1)),
        np.zeros((n, 1)),
        times=np.arange(float(trajectories.shape[1])),
        trajectories=trajectories,
        status=np.zeros(n, np.int32) if status is None else status,
        manifest={"chunk_size": 7},
    )


def random_trajectories(n=40):
    random = np.random.default_rng(0)
    return (random.normal(size=(n, 5, 4)) + np.array([3.0, 1.0, -2.0, 1e3])) * SCALES


def test_moments_are_those_of_numpy():
    values = random_trajectories()
    standardizer = Standardizer.from_dataset(make(values))
    flat = values.reshape(-1, 4)
    # Same sums in another order: a few rounding errors of the mean, 1e3 standard deviations
    # large in the last channel.
    np.testing.assert_allclose(standardizer.mean, flat.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(standardizer.std, flat.std(axis=0), rtol=1e-11)
    assert standardizer.mean.dtype == standardizer.std.dtype == np.float64
    mapped = standardizer.apply(values).reshape(-1, 4)
    np.testing.assert_allclose(mapped.mean(axis=0), 0.0, atol=1e-11)
    np.testing.assert_allclose(mapped.std(axis=0), 1.0, rtol=1e-11)


def test_moments_survive_a_large_offset():
    values = random_trajectories() / SCALES + 1e8
    standardizer = Standardizer.from_dataset(make(values))
    # The values themselves carry 1e8 * 1e-16; a mean of squares would lose all digits.
    np.testing.assert_allclose(standardizer.std, values.reshape(-1, 4).std(axis=0), rtol=1e-7)


def test_failures_do_not_enter():
    values = random_trajectories()
    broken = values.copy()
    broken[3], broken[9, 2:] = 1e30, np.nan
    status = np.zeros(40, np.int32)
    status[3] = 1
    standardizer = Standardizer.from_dataset(make(broken, status))
    good = np.delete(values, [3, 9], axis=0).reshape(-1, 4)
    np.testing.assert_allclose(standardizer.mean, good.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(standardizer.std, good.std(axis=0), rtol=1e-11)


def test_nothing_usable_is_an_error():
    with pytest.raises(ValueError, match="`dataset` holds no usable simulation"):
        Standardizer.from_dataset(make(random_trajectories(3), np.ones(3, np.int32)))


def test_constant_channels_map_to_zero():
    values = random_trajectories()
    values[..., 0] = 0.1 * (1.0 + 1e-15 * np.random.default_rng(1).normal(size=(40, 5)))
    values[..., 1] = 0.0
    values[..., 2] = -5e-40
    standardizer = Standardizer.from_dataset(make(values))
    np.testing.assert_allclose(standardizer.std[:3], [0.1, 1.0, 1.0], rtol=1e-12)
    np.testing.assert_allclose(standardizer.apply(values)[..., :3], 0.0, atol=1e-12)


@pytest.mark.parametrize("shape", [(4,), (6, 4), (2, 3, 4)])
def test_invert_undoes_apply(shape):
    standardizer = Standardizer.from_dataset(make(random_trajectories()))
    values = np.random.default_rng(2).normal(size=shape)
    back = standardizer.apply(standardizer.invert(values))
    # The last channel's mean is 1e3 standard deviations away from zero.
    np.testing.assert_allclose(back, values, atol=1e-11)
    assert back.dtype == np.float64


def test_networks_stay_in_float32():
    standardizer = Standardizer.from_dataset(make(random_trajectories()))
    values = jnp.ones((3, 4), jnp.float32)
    for x64 in (False, True):
        with jax.enable_x64(x64):
            mapped = jax.jit(lambda s, x: s.invert(s.apply(x)))(standardizer, values)
            assert mapped.dtype == jnp.float32
            assert np.isfinite(mapped).all()


@pytest.mark.parametrize("unit", [1e-40, 1e-12, 1e12, 1e40])
def test_the_unit_does_not_matter(unit):
    values = random_trajectories() / SCALES
    plain, other = (Standardizer.from_dataset(make(x * values)) for x in (1.0, unit))
    # Float64 rounding of the unit; the last channel's mean is 1e3 standard deviations away.
    np.testing.assert_allclose(other.apply(unit * values), plain.apply(values), atol=1e-11)
    if unit == 1e-40:
        with pytest.raises(ValueError, match="`values` are float32, which does not hold"):
            other.apply(jnp.ones((3, 4), jnp.float32))


def test_bad_input_is_named():
    standardizer = Standardizer.from_dataset(make(random_trajectories()))
    with pytest.raises(ValueError, match="`values` must end in an axis of 4 channels"):
        standardizer.apply(np.ones((4, 3)))
    with pytest.raises(ValueError, match="`std` must be positive"):
        Standardizer(np.zeros(2), np.array([1.0, 0.0]))
    with pytest.raises(Exception, match=r"shape|channel"):
        Standardizer(np.zeros(2), np.ones(3))
