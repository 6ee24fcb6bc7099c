"""Inverse maps on a problem whose posterior is known, and what they refuse."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
from flax import linen, nnx

import inojax as ij
from inojax import methods, nn
from inojax.methods import InverseMap, Labels, Spread, invert_batch
from inojax.methods.amortized.inverse_map._examples import Epoch
from inojax.methods.amortized.inverse_map._method import _within_the_prior
from inojax.methods.amortized.inverse_map._series import Inputs
from inojax.noise import Gaussian
from tests.helpers import LINEAR_TIMES, linear_gaussian, linear_posterior, optimizations
from tests.refuses import refuses

KEY = jr.key(3)
CASES = 512
SMALL = nn.Dense((64, 64))
TRAINED = InverseMap(SMALL, steps=2500, batch=128, learning_rate=3e-3)
BRIEF = InverseMap(nn.Dense((8,)), steps=4, batch=16, draws=8)


@pytest.fixture(autouse=True, scope="module")
def full_optimizations():
    with optimizations(True):
        yield


@pytest.fixture(scope="module")
def problem():
    """All ten times are read, always."""
    whole = linear_gaussian()
    sensors = ij.Sensors(ij.RandomTimes(10))
    return ij.InverseProblem("series", whole.parameters, whole.model, sensors, whole.noise)


@pytest.fixture(scope="module")
def data(problem):
    return ij.simulate(problem, 4096, progress=False, key=jr.key(1))


@pytest.fixture(scope="module")
def cases(problem):
    """Unit coordinates away from the prior's ends, where the posterior is normal."""
    rng = np.random.default_rng(4)
    z = rng.uniform(0.25, 0.75, (CASES, 2))
    thetas = np.asarray(problem.parameters.from_unit(z))
    return z, measured(problem, problem.model.solve_ensemble(thetas).states, thetas)


def measured(problem, states, thetas):
    with jax.enable_x64(True):
        observe = jax.vmap(lambda y, theta, k: problem.observe(y, theta, key=k))
        seen = observe(jnp.asarray(states), jnp.asarray(thetas), jr.split(KEY, len(thetas)))
    return jax.tree.map(np.asarray, seen)


@pytest.fixture(scope="module")
def inverter(problem, data):
    return TRAINED.fit(problem, data, progress=False, key=KEY)


def inverted(inverter, observations):
    return jax.tree.map(np.asarray, invert_batch(inverter, observations, key=KEY))


def unit_covariance(covariance):
    return covariance / 16.0  # the priors are uniform from -2 to 2


# --- How well ------------------------------------------------------------------------------


def test_the_known_posterior_is_recovered(inverter, cases):
    z, observations = cases
    mean, covariance = linear_posterior(observations)
    estimates = inverted(inverter, observations)
    limit = np.diagonal(covariance, axis1=1, axis2=2).mean()
    # Some seconds of training come near the limit, and nearer to the best estimate than to truth.
    assert np.mean(np.square(estimates.unit_value - z)) < 1.3 * limit
    assert np.mean(np.square(estimates.unit_value - mean)) < 0.3 * limit
    means, stated = inverter.mean_and_covariance(observations)
    np.testing.assert_allclose(means, estimates.value, atol=1e-5)
    error = np.linalg.norm(unit_covariance(stated) - covariance, axis=(1, 2))
    assert np.median(error / np.linalg.norm(covariance, axis=(1, 2))) < 0.3
    correlation = stated[:, 0, 1] / np.sqrt(stated[:, 0, 0] * stated[:, 1, 1])
    expected = covariance[:, 0, 1] / np.sqrt(covariance[:, 0, 0] * covariance[:, 1, 1])
    np.testing.assert_allclose(np.median(correlation), expected[0], atol=0.15)
    curve = ij.metrics.coverage_curve(
        np.asarray(inverter.problem.parameters.to_unit(estimates.samples)), z, levels=(0.5, 0.9)
    )
    # 512 cases of two parameters: standard errors 1.6 and 0.9 %.
    np.testing.assert_allclose(curve.overall, [0.5, 0.9], atol=0.06)


def test_points_are_as_good_as_means(problem, data, cases):
    """In physical units, whatever the labels; priors from -2 to 2 are no unit coordinates."""
    method = dataclasses.replace(TRAINED, spread=Spread.NONE, labels=Labels.RANGE)
    inverter = method.fit(problem, data, progress=False, key=KEY)
    z, observations = cases
    _, covariance = linear_posterior(observations)
    limit = np.diagonal(covariance, axis1=1, axis2=2).mean()
    estimates = inverted(inverter, observations)
    assert np.mean(np.square(estimates.unit_value - z)) < 1.3 * limit
    thetas = np.asarray(problem.parameters.from_unit(z))
    assert np.mean(np.square(estimates.value - thetas)) < 1.3 * 16.0 * limit


def test_noise_levels_are_drawn_anew_for_each_simulation(problem):
    """All simulations come with one level, so that whoever trains on it alone answers that."""
    level = ij.Parameter("sigma", dist.LogUniform(0.1, 1.0))
    space = ij.ParameterSpace((*problem.parameters.parameters, level))
    slopes = problem.model.vector_field
    model = problem.model.replace(vector_field=lambda t, y, theta: slopes(t, y, theta[:2]))
    noisy = ij.InverseProblem("levels", space, model, problem.sensors, Gaussian("sigma"))
    data = ij.simulate(noisy, 512, progress=False, key=jr.key(1))
    unit = np.array(data.unit)
    unit[:, 2] = 0.5
    thetas = np.asarray(noisy.parameters.from_unit(unit))
    same = ij.Dataset(
        thetas, unit, times=data.times, trajectories=data.trajectories, status=data.status
    )
    method = dataclasses.replace(TRAINED, select=False, steps=1500)
    inverter = method.fit(noisy, same, progress=False, key=KEY)
    rng = np.random.default_rng(0)
    states = np.asarray(same.trajectories[:256], np.float32)
    levels = rng.uniform(0.1, 0.9, 256)
    truth = np.column_stack([unit[:256, :2], levels])
    with jax.enable_x64(True):
        wanted = np.asarray(noisy.parameters.from_unit(truth), np.float32)
    observe = jax.vmap(lambda y, theta, k: noisy.observe(y, theta, key=k))
    seen = jax.tree.map(np.asarray, observe(states, wanted, jr.split(KEY, 256)))
    found = inverted(inverter, seen).unit_value[:, 2]
    # Thirty readings, less two slopes, know the logarithm of a level to 0.13 of 2.3.
    assert np.sqrt(np.mean(np.square(found - levels))) < 0.1
    kept = dataclasses.replace(method, fixed_noise=True)
    learned = inverted(kept.fit(noisy, same, progress=False, key=KEY), seen).unit_value[:, 2]
    np.testing.assert_allclose(learned, 0.5, atol=0.05)


def test_gaps_are_answered_with_wider_intervals(problem, data, cases):
    z, observations = cases
    method = dataclasses.replace(TRAINED, mask_rate=0.7)
    inverter = method.fit(problem, data, progress=False, key=KEY)
    kept = np.arange(10) % 3 == 0
    few = dataclasses.replace(
        observations,
        mask=observations.mask & kept[None, :, None],
        values=np.where(kept[None, :, None], observations.values, 0.0),
    )
    mean, covariance = linear_posterior(few)
    estimates, complete = (inverted(inverter, o) for o in (few, observations))
    limit = np.diagonal(covariance, axis1=1, axis2=2).mean()
    assert np.mean(np.square(estimates.unit_value - z)) < 1.5 * limit
    assert np.mean(np.square(estimates.unit_value - mean)) < 0.5 * limit
    assert np.median(estimates.std) > 1.3 * np.median(complete.std)
    curve = ij.metrics.coverage_curve(
        np.asarray(problem.parameters.to_unit(estimates.samples)), z, levels=(0.9,)
    )
    np.testing.assert_allclose(curve.overall, 0.9, atol=0.06)
    # Rows that are not there at all are the same as masked ones.
    rows = jax.tree.map(lambda x: x[:, kept] if x.ndim > 1 else x, few)
    again = inverted(inverter, rows)
    np.testing.assert_array_equal(again.value, estimates.value)


@pytest.mark.slow
def test_a_neuron_is_read_with_gaps():
    """Correlated noise and the default network: every second reading, and a block that is lost."""
    neuron = ij.problems.fitzhugh_nagumo()
    method = InverseMap(steps=1500, mask_rate=0.5)
    data = ij.simulate(neuron, 4096, progress=False, key=KEY)
    inverter = method.fit(neuron, data, progress=False, key=KEY)
    cases = ij.simulate(neuron, 512, progress=False, key=jr.key(99)).usable()
    complete = measured(neuron, cases.trajectories, cases.thetas)
    rows = np.arange(1000)
    lost = {"half": rows % 2 == 0, "block": (rows < 300) | (rows >= 600)}
    wide = np.median(inverted(inverter, complete).std, axis=0)
    for kept in lost.values():
        mask = complete.mask & kept[None, :, None]
        few = dataclasses.replace(complete, mask=mask, values=np.where(mask, complete.values, 0.0))
        estimate = inverted(inverter, few)
        error = np.asarray(estimate.value) - cases.thetas
        assert (1.0 - np.square(error).mean(axis=0) / cases.thetas.var(axis=0) > 0.9).all()
        curve = ij.metrics.coverage_curve(
            np.asarray(neuron.parameters.to_unit(estimate.samples)), cases.unit, levels=(0.9,)
        )
        np.testing.assert_allclose(curve.overall, 0.9, atol=0.03)
        assert (np.median(estimate.std, axis=0) > wide).all()


def test_laplace_covariances_are_learned(problem, data, cases):
    method = dataclasses.replace(TRAINED, spread=Spread.LAPLACE, labels=Labels.RANGE, steps=2000)
    inverter = method.fit(problem, data, progress=False, key=KEY)
    z, observations = cases
    mean, stated = inverter.mean_and_covariance(observations)
    # Of the linear problem it is the same everywhere; the prior adds its own precision.
    _, flat = linear_posterior(observations)
    expected = np.linalg.inv(np.linalg.inv(flat) + 12.0 * np.eye(2))
    error = np.linalg.norm(unit_covariance(stated) - expected, axis=(1, 2))
    assert np.max(error / np.linalg.norm(expected, axis=(1, 2))) < 0.02
    limit = np.diagonal(expected, axis1=1, axis2=2).mean()
    unit = np.asarray(problem.parameters.to_unit(mean))
    assert np.mean(np.square(unit - z)) < 1.4 * limit


def test_fresh_simulations_make_up_for_a_small_data_set(problem, cases):
    few = ij.simulate(problem, 40, progress=False, key=jr.key(1))
    z, observations = cases
    errors = []
    for fresh in (0, 16):
        method = dataclasses.replace(TRAINED, online=fresh, steps=2000)
        inverter = method.fit(problem, few, progress=False, key=KEY)
        errors.append(np.mean(np.square(inverted(inverter, observations).unit_value - z)))
    limit = np.diagonal(linear_posterior(observations)[1], axis1=1, axis2=2).mean()
    assert errors[1] < 1.4 * limit
    assert errors[1] < errors[0]


def test_explicit_steps_agree_with_the_solver_and_stiff_models_are_refused():
    neuron = ij.problems.fitzhugh_nagumo()
    method = dataclasses.replace(BRIEF, online=4, steps=3)
    data = ij.simulate(neuron, 20, progress=False, key=KEY)
    simulate = methods.amortized.inverse_map._online.online_simulator(neuron, 3)
    z, states = jnp.asarray(data.unit, jnp.float32), jnp.asarray(data.gathered())
    number, new_z, new = simulate((jnp.asarray(6), z, states), KEY)
    assert number == 7
    # The seventh call replaces rows 18, 19 and 0.
    np.testing.assert_array_equal(new_z[1:18], z[1:18])
    rows = np.array([18, 19, 0])
    theta = neuron.parameters.from_unit(np.asarray(new_z, np.float64)[rows])
    exact = np.asarray(neuron.model.solve_ensemble(theta).states)
    # Spikes may come a little early or late; typical errors are far smaller.
    assert np.sqrt(np.mean(np.square(np.asarray(new)[rows] - exact))) < 0.02
    method.fit(neuron, data, progress=False, key=KEY)
    with refuses(ValueError, "`online` simulations take explicit steps.*'robertson'.*stiff"):
        methods.amortized.inverse_map._online.online_simulator(ij.problems.robertson(), 3)
    hopeless = dataclasses.replace(neuron, model=dataclasses.replace(neuron.model, max_steps=3))
    with refuses(ValueError, "the solver of 'fitzhugh_nagumo' fails for 64 of 64 draws"):
        methods.amortized.inverse_map._online.online_simulator(hopeless, 3)


# --- What it is ----------------------------------------------------------------------------


class Linen(linen.Module):
    """A user's network, with running averages and random numbers that are off."""

    outputs: int

    @linen.compact
    def __call__(self, x):
        x = linen.silu(linen.Dense(8)(x.reshape(x.shape[0], -1)))
        x = linen.BatchNorm(use_running_average=True)(x)
        x = linen.Dropout(0.5, deterministic=True)(x)
        return linen.Dense(self.outputs)(x)


class NNX(nnx.Module):
    """The same with NNX."""

    def __init__(self, inputs, outputs, rngs):
        self.hidden = nnx.Linear(inputs, 8, rngs=rngs)
        self.normalization = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.dense = nnx.Linear(8, outputs, rngs=rngs)

    def __call__(self, x):
        x = nnx.silu(self.hidden(x.reshape(x.shape[0], -1)))
        return self.dense(self.dropout(self.normalization(x)))


def with_linen(shape, outputs, *, key):
    return nn.FlaxNetwork(Linen(outputs), shape, key=key)


def with_nnx(shape, outputs, *, key):
    return nn.FlaxNetwork(NNX(shape[0] * shape[1], outputs, nnx.Rngs(key)), shape, key=key)


@pytest.mark.parametrize(
    "method",
    [
        BRIEF,
        dataclasses.replace(BRIEF, network=nn.Convolutional((4,), widths=(8,)), mask_rate=0.5),
        dataclasses.replace(BRIEF, inputs=Inputs.BOTH, labels=Labels.RANGE),
        dataclasses.replace(BRIEF, inputs=Inputs.SPECTRUM, spread=Spread.LAPLACE),
        dataclasses.replace(InverseMap.published(SMALL, simulations=64, epochs=1), draws=8),
        dataclasses.replace(BRIEF, network=with_linen),
        dataclasses.replace(BRIEF, network=with_nnx, online=2),
    ],
    ids=["dense", "gaps", "both", "spectrum", "published", "linen", "nnx"],
)
def test_every_kind_is_trained_saved_and_compiled(problem, data, cases, method, tmp_path):
    small = data.split(64)[1]
    inverter = method.fit(problem, small, progress=False, key=KEY)
    ij.save(inverter, tmp_path)
    own_code = method.network in (with_linen, with_nnx)
    if own_code:
        with refuses(ValueError, "code of your own .*`load\\(folder, problem, method=...\\)`"):
            ij.load(tmp_path, problem)
    again = ij.load(tmp_path, problem, method=method if own_code else None)
    few = jax.tree.map(lambda x: x[:3], cases[1])
    first, second = inverted(inverter, few), inverted(again, few)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(first.value).all()
    keys = jr.split(KEY, 3)
    mapped = jax.jit(jax.vmap(inverter))(few, key=keys)
    # Physical values near 1 in float32.
    np.testing.assert_allclose(mapped.value, first.value, atol=1e-4)
    one = jax.tree.map(lambda x: x[0], few)
    alone = inverter(one, key=keys[0])
    np.testing.assert_allclose(alone.value, first.value[0], atol=1e-4)
    assert alone.ticket is not None
    assert (alone.samples is None) == (method.spread is Spread.NONE)
    with refuses(ValueError, "other settings"):
        ij.load(tmp_path, problem, method=dataclasses.replace(method, batch=7))


def test_fixed_noise_measures_once_and_fresh_noise_each_time(problem, data):
    small = data.split(64)[1]
    losses = []
    for fixed in (True, False):
        method = InverseMap(
            SMALL, steps=1500, batch=64, learning_rate=3e-3, fixed_noise=fixed, spread=Spread.NONE
        )
        log = method.fit(problem, small, progress=False, key=KEY).logs[0]
        losses.append((log.loss[-1], log.held_out[-1]))
    # The noise of 58 simulations can be learned by heart, and that does not help.
    assert losses[0][0] < 0.2 * losses[0][1]
    assert losses[1][0] > 0.4 * losses[1][1]


def test_clean_series_are_trained_on_with_the_covariance_of_the_noise(problem, data):
    small, targets = data.split(64)[1], []
    for clean in (True, False):
        method = dataclasses.replace(BRIEF, spread=Spread.LAPLACE, fixed_noise=True, clean=clean)
        inverter = method.fit(problem, small, progress=False, key=KEY)
        targets.append(np.concatenate([inverter.encoder.number_center, inverter.encoder.center]))
        spread = inverter.encoder.spread
        # Without noise the readings are those of the model.
        states = small.trajectories[: 64 - 6][:, :, list(problem.channel_index)]
        apart = np.abs(spread - states.std(axis=(0, 1))) / spread
        assert (np.max(apart) < 1e-5) == clean
    # The covariance is that of the noise either way.
    np.testing.assert_allclose(targets[0][:3], targets[1][:3], rtol=1e-6)


@pytest.mark.parametrize("labels", Labels)
def test_without_information_the_laplace_covariance_is_that_of_the_prior(problem, labels):
    """Six decades: the variance in physical units is that of the upper end."""
    prior = dist.LogUniform(1e-3, 1e3)
    wide = ij.ParameterSpace((ij.Parameter("a", prior), ij.Parameter("b", prior)))
    blind = ij.InverseProblem("blind", wide, problem.model, problem.sensors, Gaussian(1e9))
    data = ij.simulate(blind, 64, progress=False, key=KEY)
    method = dataclasses.replace(BRIEF, spread=Spread.LAPLACE, labels=labels, select=False)
    encoder = method.fit(blind, data, progress=False, key=KEY).encoder
    # Of the label: uniform, or log-uniform divided by its range in the simulations.
    variance, span = 1.0 / 12.0, float(encoder.high[0] - encoder.low[0])
    if labels is Labels.RANGE:
        decades = np.log(1e6)
        mean = (1e3 - 1e-3) / decades
        variance = ((1e6 - 1e-6) / (2.0 * decades) - mean**2) / span**2
    np.testing.assert_allclose(encoder.number_center[0], np.log(variance), rtol=2e-3)
    np.testing.assert_allclose(encoder.number_center[1], 0.0, atol=1e-6)


def test_published_training_sees_all_simulations_and_keeps_the_last_weights(problem, data):
    small = data.split(64)[1]
    method = InverseMap.published(SMALL, simulations=64, epochs=2)
    inverter = method.fit(problem, small, progress=False, key=KEY)
    (log,) = inverter.logs
    assert log.steps[-1] == 2 * 64 // 32
    assert np.isnan(log.held_out).all()
    # The range of the labels is that of the whole data set.
    np.testing.assert_allclose(inverter.encoder.low, small.thetas.min(axis=0), rtol=1e-6)
    choosing = dataclasses.replace(method, select=True).fit(problem, small, progress=False, key=KEY)
    assert np.isfinite(choosing.logs[0].held_out).all()


@pytest.mark.parametrize(("count", "size"), [(12, 4), (14, 4), (3, 4)])
def test_an_epoch_holds_every_example_at_most_once(count, size):
    epoch, epochs = Epoch.first(count), []
    whole = max(1, count // size)
    for number in range(5):
        drawn = []
        for place in range(whole):
            rows, epoch = epoch.draw(size, key=jr.key(10 * number + place))
            drawn.append(np.asarray(rows))
        epochs.append(np.concatenate(drawn))
    for rows in epochs:
        assert rows.shape == (whole * size,)
        assert np.bincount(rows, minlength=count).max() <= -(-size // count)
    assert len(np.unique(epochs, axis=0)) > 1
    # What one epoch leaves out, another one holds.
    assert set(np.concatenate(epochs)) == set(range(count))


class Powers:
    """Makes networks that look alike: the same arrays, the same name."""

    def __init__(self, power=1, scale=1.0, weights=1.0):
        self.power, self.scale, self.weights = power, scale, weights

    def __call__(self, shape, outputs, *, key):
        layer = eqx.nn.Linear(shape[0] * shape[1], outputs, key=key)
        layer = eqx.tree_at(lambda x: x.weight, layer, self.weights * layer.weight)
        scale = np.full(shape[0] * shape[1], self.scale, np.float32)
        first = eqx.nn.Lambda(lambda x: scale * x.reshape(-1) ** self.power)
        return eqx.nn.Sequential([first, layer])


@pytest.mark.parametrize("change", [{"power": 3}, {"scale": 2.0}, {"weights": 5.0}])
def test_checkpoints_of_another_network_are_refused(problem, data, tmp_path, change):
    small = data.split(64)[1]

    def fit(**options):
        method = dataclasses.replace(BRIEF, network=Powers(**options))
        method.fit(problem, small, checkpoint=tmp_path, progress=False, key=KEY)

    fit()
    fit()
    with refuses(ValueError, "checkpoint.*another"):
        fit(**change)


def test_arrays_of_another_network_are_not_loaded(problem, data, tmp_path):
    method = dataclasses.replace(BRIEF, network=Powers())
    inverter = method.fit(problem, data.split(64)[1], progress=False, key=KEY)
    ij.save(inverter, tmp_path)
    # Weights are those of the file, whatever they are drawn from.
    other_weights = dataclasses.replace(BRIEF, network=Powers(weights=5.0))
    same = ij.load(tmp_path, problem, method=other_weights)
    seen = observation(problem)
    np.testing.assert_array_equal(same(seen, key=KEY).value, inverter(seen, key=KEY).value)
    with refuses(ValueError, "`network` does not compute what the stored one did"):
        ij.load(tmp_path, problem, method=dataclasses.replace(BRIEF, network=Powers(power=3)))


def test_cases_without_a_laplace_covariance_are_left_out(problem, data, monkeypatch):
    small = data.split(64)[1]
    laplace = methods.amortized.inverse_map._laplace_targets.laplace_covariances

    def gaps(*args, **options):
        covariances = laplace(*args, **options).copy()
        covariances[::3] = np.nan
        return covariances

    monkeypatch.setattr(methods.amortized.inverse_map._laplace_targets, "laplace_covariances", gaps)
    method = dataclasses.replace(BRIEF, spread=Spread.LAPLACE)
    inverter = method.fit(problem, small, progress=False, key=KEY)
    assert np.isfinite(inverter.encoder.number_center).all()
    assert np.isfinite(inverter.logs[0].loss).all()


# --- Bad input -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def brief(problem, data):
    return BRIEF.fit(problem, data.split(64)[1], progress=False, key=KEY)


def observation(problem, times=LINEAR_TIMES, values=None):
    values = np.ones((len(times), 3)) if values is None else values
    return ij.Observation.from_arrays(times, values, problem=problem)


def test_series_that_do_not_fit_are_refused(problem, brief):
    with refuses(
        ValueError, r"`observation` lacks 3 of 30 readings, the first at time 1, .*mask_rate"
    ):
        brief(observation(problem, LINEAR_TIMES[:9]), key=KEY)
    values = np.ones((10, 3))
    values[4, 1] = np.nan
    with refuses(ValueError, "lacks 1 of 30 readings, the first at time 0.5,"):
        brief(observation(problem, values=values), key=KEY)
    with refuses(
        ValueError, r"reading at time 0.55, but .*10 readings from 0.1 to 1 in steps of 0.1"
    ):
        brief(observation(problem, LINEAR_TIMES - 0.05 * (LINEAR_TIMES == 0.6)), key=KEY)
    traced = jax.jit(brief)
    short = observation(problem, LINEAR_TIMES[:9])
    with refuses(ValueError, "`observation` has 9 rows, but this map was trained on series of 10"):
        traced(short, key=KEY)


def test_traced_series_that_do_not_fit_have_no_estimate(problem, brief):
    traced = jax.jit(brief)
    assert np.isfinite(traced(observation(problem), key=KEY).value).all()
    shifted = observation(problem, 0.5 * LINEAR_TIMES)
    gaps = dataclasses.replace(observation(problem), mask=np.arange(30).reshape(10, 3) != 7)
    for wrong in (shifted, gaps):
        estimate = traced(wrong, key=KEY)
        assert np.isnan(estimate.value).all()
        assert np.isnan(estimate.samples).all()


def test_times_in_single_precision_fit(problem, brief):
    """Far from zero single precision is coarse beside narrow steps."""
    near = observation(problem, LINEAR_TIMES.astype(np.float32).astype(np.float64))
    np.testing.assert_array_equal(
        brief(near, key=KEY).value, brief(observation(problem), key=KEY).value
    )
    times = np.array([0.0, 1e-3, 11.0, 11.0 + 1e-3])
    rounded = times.astype(np.float32).astype(np.float64)
    for dtype in (np.float32, np.float64):
        slack = methods.amortized._slots.slack(times, 11.0, dtype)
        assert (np.abs(rounded - times) <= slack).all()
        assert (slack < 1e-5).all()  # a hundredth of the narrow steps


def test_irregular_sensors_are_refused():
    problem = linear_gaussian()
    data = ij.simulate(problem, 64, progress=False, key=KEY)
    with refuses(ValueError, "`problem` .linear. draws other times.*`Regression`"):
        BRIEF.fit(problem, data, progress=False, key=KEY)


def test_bad_settings_are_refused(problem, data, brief):
    for change, message in (
        ({"steps": 0}, "`steps` must be at least 1"),
        ({"mask_rate": 1.5}, r"`mask_rate` must lie in \[0, 1\]"),
        ({"online": -1}, "`online` must be zero or more"),
        ({"online": 2, "fixed_noise": True}, "`online` simulations have neither"),
        ({"online": 2, "spread": Spread.LAPLACE}, "`online` simulations have neither"),
        (
            {"mask_rate": 0.5, "spread": Spread.LAPLACE},
            "Series that lose readings have no one Laplace.*`mask_rate=0.0`",
        ),
    ):
        with refuses(ValueError, message):
            dataclasses.replace(BRIEF, **change)
    with refuses(ValueError, "`learning_rate` must be positive; got -1.0"):
        dataclasses.replace(BRIEF, learning_rate=-1.0)
    for name, value in (("spread", "laplace"), ("inputs", "both"), ("labels", "unit")):
        with refuses(TypeError, f"`{name}` must be one of .*; got '{value}'"):
            dataclasses.replace(BRIEF, **{name: value})
    for name in ("simulations", "epochs"):
        with refuses(ValueError, f"`{name}` must be at least 1; got 0"):
            InverseMap.published(SMALL, **({"simulations": 64, "epochs": 1} | {name: 0}))
    network = SMALL((10, 3), 5, key=KEY)
    with refuses(TypeError, "`network` must make networks, not be one"):
        dataclasses.replace(BRIEF, network=network).fit(
            problem, data.split(64)[1], progress=False, key=KEY
        )
    wrong = dataclasses.replace(
        BRIEF, network=lambda shape, outputs, key: SMALL(shape, outputs + 1, key=key)
    )
    with refuses(ValueError, r"`network` must return 5 outputs for inputs of shape \(10, 3\)"):
        wrong.fit(problem, data.split(64)[1], progress=False, key=KEY)
    flat = dataclasses.replace(
        BRIEF, network=lambda shape, outputs, key: eqx.nn.Linear(30, outputs, key=key)
    )
    with refuses(ValueError, r"`network` must take an array of shape \(10, 3\)"):
        flat.fit(problem, data.split(64)[1], progress=False, key=KEY)

    def broken(shape, outputs, *, key):
        raise TypeError("nothing to do with the arguments")

    with refuses(TypeError, "nothing to do with the arguments"):
        dataclasses.replace(BRIEF, network=broken).fit(
            problem, data.split(64)[1], progress=False, key=KEY
        )
    many = dataclasses.replace(BRIEF, online=60)
    with refuses(
        ValueError, "`online` simulations replace .* of which 58 are for training; got 60"
    ):
        many.fit(problem, data.split(64)[1], progress=False, key=KEY)
    only_points = dataclasses.replace(brief.method, spread=Spread.NONE)
    points = dataclasses.replace(brief, method=only_points)
    batch = jax.tree.map(lambda x: np.asarray(x)[None], observation(problem))
    with refuses(ValueError, "This map gives points only"):
        points.mean_and_covariance(batch)


@pytest.mark.parametrize(
    ("prior", "deviation"),
    [(dist.Normal(0.0, 1.0), 1.0), (dist.LogNormal(0.0, 1.0), 2.16), (dist.Uniform(0, 1), 0.2887)],
)
def test_what_readings_do_not_say_is_as_wide_as_its_prior(prior, deviation):
    """A normal distribution with the moments of a uniform one goes beyond both of its ends.

    Cut at the very ends, it is 1.65 and 15.6 times as wide as the first two priors.
    """
    space = ij.ParameterSpace((ij.Parameter("x", prior),))
    rough = 0.5 + 12**-0.5 * jr.normal(KEY, (20, 128, 1))
    draws = np.asarray(jax.vmap(lambda x: _within_the_prior(jnp.array([0.5]), x))(rough))
    found = np.asarray(space.from_unit(draws))
    assert 0.9 < np.mean(found.std(axis=1)) / deviation < 1.4
    assert 0.85 < np.mean((draws > 0.05) & (draws < 0.95)) < 0.95
    # What is known to lie far out stays where it is.
    sharp = 0.9998 + 1e-5 * jr.normal(KEY, (128, 1))
    np.testing.assert_array_equal(_within_the_prior(jnp.array([0.9998]), sharp), sharp)


def test_laplace_covariances_of_series_that_lose_readings_are_refused(problem, data):
    sensors = ij.Sensors(ij.RandomTimes(10), missing=0.2)
    losing = ij.InverseProblem(
        problem.name, problem.parameters, problem.model, sensors, problem.noise
    )
    method = dataclasses.replace(BRIEF, spread=Spread.LAPLACE)
    with refuses(ValueError, "`spread=Spread.LAPLACE` learns one covariance"):
        method.fit(losing, data.split(64)[1], progress=False, key=KEY)


def test_simulations_that_all_lack_sensitivities_are_refused(problem, data, monkeypatch):
    monkeypatch.setattr(
        methods.amortized.inverse_map._laplace_targets,
        "laplace_covariances",
        lambda problem, thetas, *, unit, key: np.full((len(thetas), 2, 2), np.nan),
    )
    method = dataclasses.replace(BRIEF, spread=Spread.LAPLACE)
    with refuses(ValueError, "`dataset`: none of 58 simulations .* has finite sensitivities"):
        method.fit(problem, data.split(64)[1], progress=False, key=KEY)


def test_covariances_check_series_as_inversion_does(problem, brief):
    single = observation(problem)
    with refuses(ValueError, "`observations` must be a batch"):
        brief.mean_and_covariance(single)
    batch = jax.tree.map(lambda x: np.asarray(x)[None], single)
    broken = dataclasses.replace(batch, values=np.full_like(batch.values, np.nan))
    with refuses(ValueError, "`observations` has readings that are NaN"):
        brief.mean_and_covariance(broken)
    with refuses(ValueError, "other"):
        brief.mean_and_covariance(dataclasses.replace(batch, problem="other"))


def test_two_rows_at_one_time_are_refused(problem, brief):
    # Apart, but nearer to each other than times of the series are told apart.
    times = np.insert(LINEAR_TIMES, 5, LINEAR_TIMES[4] + 5e-5)
    with refuses(ValueError, "`observation` has two rows at the same time"):
        brief(observation(problem, times), key=KEY)


def test_series_lose_readings_at_random_in_blocks_and_in_patterns(problem):
    """A third each; the first and last row that a block spares, and equal steps, tell which."""
    whole = measured(problem, np.ones((1, 10, 3)), np.zeros((1, 2)))
    one = jax.tree.map(lambda x: jnp.asarray(x[0], jnp.float32), whole)
    one = dataclasses.replace(one, mask=jnp.ones((10, 3), bool))
    lose = jax.vmap(
        lambda k: methods.amortized._masking.mask_readings(one, 1.0, patterns=True, key=k).mask
    )
    masks = np.asarray(lose(jr.split(KEY, 600)))
    assert masks.any(axis=(1, 2)).all()
    rows = masks.any(axis=2)
    full = (masks == rows[:, :, None]).all(axis=(1, 2))  # whole rows are kept or lost
    steps = [np.unique(np.diff(np.flatnonzero(row))) for row in rows]
    regular = np.array([len(s) == 1 and s[0] > 1 for s in steps]) & full
    holes = np.array([np.sum(np.diff(np.flatnonzero(~row)) > 1) == 0 for row in rows])
    assert 0.15 < regular.mean() < 0.5
    assert 0.2 < (holes & full & ~regular).mean() < 0.6
    assert (~full).mean() > 0.15
