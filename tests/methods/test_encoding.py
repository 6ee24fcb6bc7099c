"""How observations are put to the networks."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

import inojax as ij
from inojax import simulate
from inojax.methods.amortized._encoding import Encoder
from inojax.methods.amortized._masking import mask_readings
from inojax.methods.amortized._slots import Slots
from tests.helpers import LINEAR_TIMES, linear_gaussian


@pytest.fixture(scope="module")
def problem():
    return linear_gaussian()


@pytest.fixture(scope="module")
def encoder(problem):
    return Encoder.fit(problem, simulate(problem, 64, progress=False, key=jr.key(0)))


def observation_at(problem, times):
    values = np.arange(3.0 * len(times)).reshape(-1, 3)
    return ij.Observation.from_arrays(times, values, problem=problem)


def test_thinning_keeps_at_least_one_reading_and_hides_what_it_takes(problem):
    observation = observation_at(problem, [0.2, 0.5, 1.0])
    thinned = jax.vmap(lambda key: mask_readings(observation, 1.0, key=key))(
        jr.split(jr.key(1), 2000)
    )
    count = np.asarray(thinned.mask).sum(axis=(1, 2))
    assert count.min() == 1
    assert count.max() == 9
    # From one reading to all of them, nothing in between is left out.
    assert len(np.unique(count)) == 9
    assert not np.any(np.asarray(thinned.values)[~np.asarray(thinned.mask)])
    kept = np.asarray(thinned.mask)
    np.testing.assert_array_equal(
        np.asarray(thinned.values)[kept],
        np.broadcast_to(observation.values, kept.shape)[kept].astype(np.float32),
    )


def test_the_share_of_thinned_observations_is_the_one_asked_for(problem):
    observation = observation_at(problem, [0.2, 0.5, 1.0])
    thinned = jax.vmap(lambda key: mask_readings(observation, 0.25, key=key))(
        jr.split(jr.key(2), 4000)
    )
    lost = np.mean(np.asarray(thinned.mask).sum(axis=(1, 2)) < 9)
    # Some of the chosen ones lose nothing; five standard errors of a quarter are 0.034.
    assert 0.15 < lost < 0.29
    assert mask_readings(observation, 0.0, key=jr.key(0)) is observation


def test_what_is_absent_stays_absent(problem):
    values = np.full((2, 3), np.nan)
    values[1, 2] = 4.0
    sparse = ij.Observation.from_arrays([0.2, 0.7], values, problem=problem)
    thinned = mask_readings(sparse, 1.0, key=jr.key(3))
    np.testing.assert_array_equal(thinned.mask, sparse.mask)


@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (3, 1), (4, 2), (7, 3)])
def test_long_observations_are_dealt_into_groups(problem, rows, groups):
    observation = observation_at(problem, np.linspace(0.1, 1.0, rows))
    batch = jax.tree.map(lambda x: x[None], observation)
    dealt = jax.tree.map(lambda x: x[0], Slots.of(problem).arrange(batch))
    assert dealt.mask.shape == (groups, 3, 3)
    # Every reading is in exactly one group, at its own time.
    mask = np.asarray(dealt.mask)
    assert mask.sum() == 3 * rows
    np.testing.assert_allclose(
        np.sort(np.asarray(dealt.values)[mask]), np.arange(3.0 * rows), rtol=1e-6
    )
    for time, value in zip(observation.times, observation.values, strict=True):
        group, row = np.argwhere(np.isclose(dealt.values[..., 1], value[1]) & mask[..., 1])[0]
        # Output times are a tenth apart, from 0.1 on.
        np.testing.assert_allclose(dealt.place[group, row], 10.0 * time - 1.0, rtol=1e-6)


def test_trajectories_are_read_at_output_times_and_between(problem, encoder):
    times = [0.05, 0.3, 0.35, 1.0]
    readings = encoder.readings(observation_at(problem, times))
    # A straight line in time: interpolation is exact, and held before the first output time.
    trajectory = jnp.asarray(LINEAR_TIMES[:, None] * np.array([1.0, 2.0, -1.0]), jnp.float32)
    read = encoder.at_readings(trajectory, readings)
    expected = np.array([0.1, 0.3, 0.35, 1.0])[:, None] * np.array([1.0, 2.0, -1.0])
    np.testing.assert_allclose(read, expected, rtol=1e-5)


def test_positive_priors_have_logarithms_and_others_have_none():
    priors = (dist.LogUniform(1e-2, 1e2), dist.Uniform(-1.0, 1.0), dist.Uniform(0.5, 1.5))
    space = ij.ParameterSpace(tuple(ij.Parameter(f"p{i}", p) for i, p in enumerate(priors)))
    model = ij.ODEModel(
        lambda t, y, p: -p[:1] * y, np.ones(1), times=np.linspace(0.1, 1.0, 5), states=("y",)
    )
    problem = ij.InverseProblem(
        "mixed", space, model, ij.Sensors(ij.RandomTimes(2)), ij.noise.Gaussian(0.1)
    )
    encoder = Encoder.blank(problem)
    assert encoder.logarithmic == (True, False, True)
    features = np.asarray(encoder.parameters(problem, jnp.array([0.75, 0.75, 0.5])))
    assert features.shape == (encoder.parameter_features,) == (5,)
    np.testing.assert_allclose(features[:3], [0.5, 0.5, 0.0], atol=1e-6)
    # The logarithm of a log-uniform prior runs evenly; its inner 98 % span [-1, 1].
    np.testing.assert_allclose(features[3], 0.5 / 0.98, rtol=1e-4)
    low, high = np.log([0.51, 1.49])
    np.testing.assert_allclose(features[4], -(low + high) / (high - low), rtol=1e-4)
