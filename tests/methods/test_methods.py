"""Properties of every method in the table."""

import dataclasses
import functools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import inojax as ij
from inojax import Dataset, methods, problems, simulate
from inojax._estimate_status import EstimateStatus
from inojax._observation import Observation
from inojax.methods import invert_batch, resimulate
from inojax.methods.amortized import _method
from inojax.metrics import coverage, mean_squared_error
from inojax.nn import FNOSettings
from inojax.solvers import SolveStatus
from tests.helpers import (
    FNO_SETTINGS,
    METHODS,
    UNTRAINED,
    linear_gaussian,
    linear_posterior,
    optimizations,
)
from tests.refuses import refuses

KEY = jr.key(11)


def same_bits(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def close(one, other, atol=2e-5):
    """Equal up to float32 rounding in products of other shapes; physical values are near 1."""
    for field in ("value", "unit_value", "std", "samples"):
        np.testing.assert_allclose(
            getattr(one, field), getattr(other, field), atol=atol, err_msg=field
        )


@pytest.fixture(scope="module")
def observation(cases):
    return jax.tree.map(lambda x: x[0], cases[1])


# --- How well ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def estimates(trained, cases):
    return jax.tree.map(np.asarray, invert_batch(trained, cases[1], key=KEY))


def test_the_known_posterior_is_recovered(estimates, cases):
    z, observations = cases
    mean, covariance = linear_posterior(observations)
    limit = np.diagonal(covariance, axis1=1, axis2=2).mean()
    # The formula itself, on these 1,024 values: its relative standard error is 5 %.
    np.testing.assert_allclose(mean_squared_error(mean, z), limit, rtol=0.2)
    # Always guessing the prior mean costs 1/48 on these cases, and the limit is far below.
    assert limit < 0.25 / 48.0
    # Some seconds of training come near the limit, not to it: INO to 1.3 of it, regression 1.1.
    assert mean_squared_error(estimates.unit_value, z) < 1.7 * limit
    # Closer to the best estimate than that is to the truth.
    assert mean_squared_error(estimates.unit_value, mean) < 0.7 * limit


def test_stated_spread_is_calibrated(estimates, cases):
    z, observations = cases
    width = 4.0
    lower, upper = ((end + 2.0) / width for end in estimates.interval(0.9))
    share = coverage(lower, upper, z).mean()
    # 1,024 intervals: five standard errors are 0.05; a briefly trained spread errs as much.
    assert 0.82 < share < 0.98
    _, covariance = linear_posterior(observations)
    exact = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    # The spread grows where the readings say less (they come early), as it should.
    stated = estimates.std / width
    assert np.corrcoef(stated.ravel(), exact.ravel())[0, 1] > 0.3
    np.testing.assert_allclose(np.median(stated), np.median(exact), rtol=0.5)


def with_rows(linear, times, key):
    theta = np.array([0.4, -0.6])
    slope = np.array([theta[0], theta[1], 0.7 * (theta[0] - theta[1])])
    values = times[:, None] * slope[None, :]
    values = values + 0.25 * np.asarray(jr.normal(key, values.shape))
    return Observation.from_arrays(times, values, problem=linear)


def test_longer_observations_are_sharper(trained, linear):
    times = np.linspace(0.55, 1.0, 12)
    long = with_rows(linear, times, jr.key(0))
    short = Observation.from_arrays(times[::4], long.values[::4], problem=linear)
    sharp, blunt = trained(long, key=KEY), trained(short, key=KEY)
    assert sharp.value.shape == (2,)
    # Four times the readings, half the spread.
    ratio = sharp.std / blunt.std
    assert (ratio > 0.3).all()
    assert (ratio < 0.75).all()
    mean, covariance = linear_posterior(long)
    # Within a few exact standard deviations of the exact answer.
    deviation = np.sqrt(np.diag(covariance))
    assert (np.abs(sharp.unit_value - mean) < 4.0 * deviation).all()


def test_missing_readings_and_odd_numbers_of_rows_work(trained, linear):
    observation = with_rows(linear, np.array([0.3, 0.6, 0.8, 1.0]), jr.key(0))
    values = observation.values.copy()
    values[0] = [np.nan, np.nan, values[0, 2]]
    values[2, 1] = np.nan
    sparse = Observation.from_arrays(observation.times, values, problem=linear)
    estimate = trained(sparse, key=KEY)
    mean, covariance = linear_posterior(sparse)
    # As above; networks that met few such observations are given twice the room.
    assert (np.abs(estimate.unit_value - mean) < 8.0 * np.sqrt(np.diag(covariance))).all()
    one = Observation.from_arrays([1.0], [[np.nan, 0.5, np.nan]], problem=linear)
    alone = trained(one, key=KEY)
    assert np.isfinite(alone.value).all()
    # Only `b` was read, so `a` keeps its prior's deviation of 4/√12 = 1.15. (Networks meet single
    # readings in few of their training observations, and fall short of it.)
    assert alone.std[0] > 0.6


def test_padding_is_harmless(trained, observation):
    exact = trained(observation, key=KEY)
    # The rows fall into other groups, which is worse than one group but not wrong.
    same = trained(observation.padded(6), key=KEY)
    assert (np.abs(same.value - exact.value) < 2.0 * same.std).all()
    assert (same.std < 3.0 * exact.std).all()
    # A group of padding alone is left out, up to a weight of 1e-12.
    empty = trained(jax.tree.map(lambda x: x[:1], observation).padded(4), key=KEY)
    assert np.isfinite(empty.value).all()


# --- How it can be called ------------------------------------------------------------------


def test_single_jit_vmap_and_batch_agree(quick, cases):
    few = jax.tree.map(lambda x: x[:3], cases[1])
    keys = jr.split(KEY, 3)
    batch = invert_batch(quick, few, key=KEY)
    assert batch.value.shape == (3, 2)
    mapped = jax.vmap(quick)(few, key=keys)
    close(mapped, batch)
    compiled = jax.jit(quick)
    for n in range(3):
        one = jax.tree.map(lambda x, n=n: x[n], few)
        expected = jax.tree.map(lambda x, n=n: x[n], batch)
        close(quick(one, key=keys[n]), expected)
        traced = compiled(one, key=keys[n])
        close(traced, expected)
        assert traced.status == EstimateStatus.NOT_CHECKED
        assert np.isnan(traced.chi2_per_reading)


def test_a_batch_of_one_is_the_single_call(quick, observation):
    batch = jax.tree.map(lambda x: x[None], observation)
    one = invert_batch(quick, batch, key=KEY)
    single = quick(observation, key=jr.split(KEY, 1)[0])
    close(jax.tree.map(lambda x: x[0], one), single, atol=1e-6)


def test_the_inverter_is_a_pytree(quick, observation):
    leaves, structure = jax.tree.flatten(quick)
    again = jax.tree.unflatten(structure, leaves)
    same_bits(again(observation, key=KEY), quick(observation, key=KEY))
    passed = eqx.filter_jit(lambda inverter, o, key: inverter(o, key=key))
    close(passed(quick, observation, KEY), quick(observation, key=KEY))


def test_estimates_are_complete_and_inside_the_prior(quick, observation, linear):
    estimate = quick(observation, key=KEY)
    assert estimate.names == linear.parameters.names
    assert estimate.units == linear.parameters.units
    assert ((estimate.unit_value >= 0.0) & (estimate.unit_value <= 1.0)).all()
    assert (np.abs(estimate.samples) <= 2.0).all()
    assert estimate.samples.ndim == 2
    np.testing.assert_allclose(
        linear.parameters.to_unit(estimate.value), estimate.unit_value, atol=1e-6
    )
    np.testing.assert_allclose(estimate.std, estimate.samples.std(axis=0), rtol=1e-5)
    assert estimate.status in (EstimateStatus.OK, EstimateStatus.POOR_FIT)
    assert np.isfinite(estimate.chi2_per_reading)
    assert "Chi-squared per reading" in str(estimate)


def test_the_same_key_gives_the_same_bits(method, quick, linear, small_data, observation):
    again = method.fit(linear, small_data, progress=False, key=jr.key(2))
    first = quick(observation, key=KEY)
    same_bits(again(observation, key=KEY), first)
    same_bits(quick(observation, key=KEY), first)
    other = quick(observation, key=jr.key(12))
    assert not np.array_equal(other.samples, first.samples)


# --- The verdict of the real solver --------------------------------------------------------


def at(linear, theta):
    unit = np.asarray(linear.parameters.to_unit(np.asarray(theta)))
    return methods._estimates.estimate_from_cloud(
        linear, jnp.asarray(unit, jnp.float32), jnp.asarray(unit, jnp.float32)[None]
    )


def test_verdicts(linear):
    observation = with_rows(linear, np.linspace(0.1, 1.0, 10), jr.key(5))
    fine = resimulate(linear, at(linear, [0.4, -0.6]), observation)
    assert fine.status == EstimateStatus.OK
    exact = np.stack([0.4 + 0 * observation.times, -0.6 + 0 * observation.times], axis=1)
    clean = observation.times[:, None] * np.column_stack([exact, np.full(10, 0.7)])
    chi2 = np.mean(np.square((observation.values - clean) / 0.25))
    # Parameters went through float32.
    np.testing.assert_allclose(fine.chi2_per_reading, chi2, rtol=1e-5)
    wrong = resimulate(linear, at(linear, [-1.0, 1.5]), observation)
    assert wrong.status == EstimateStatus.POOR_FIT
    assert wrong.chi2_per_reading > 5.0
    np.testing.assert_array_equal(wrong.value, at(linear, [-1.0, 1.5]).value)


def test_a_failed_solve_is_a_verdict(linear):
    hurried = dataclasses.replace(linear, model=linear.model.replace(max_steps=1, rtol=1e-12))
    observation = with_rows(linear, np.linspace(0.1, 1.0, 10), jr.key(5))
    estimate = resimulate(hurried, at(linear, [0.4, -0.6]), observation)
    assert estimate.status == EstimateStatus.SOLVER_FAILED


def test_noise_free_problems_have_no_verdict(linear):
    perfect = linear_gaussian(noise=0.0)
    observation = perfect.simulate(np.array([0.4, -0.6]), key=KEY)
    estimate = resimulate(perfect, at(linear, [0.4, -0.6]), observation)
    assert estimate.status == EstimateStatus.NOT_CHECKED
    assert np.isnan(estimate.chi2_per_reading)


# --- On disk -------------------------------------------------------------------------------


@pytest.fixture
def folder(quick, tmp_path):
    ij.save(quick, tmp_path / "inverter")
    return tmp_path / "inverter"


def test_a_loaded_inverter_gives_the_same_bits(method, quick, folder, linear, observation):
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.json", "weights.safetensors"]
    loaded = ij.load(folder, linear)
    same_bits(loaded(observation, key=KEY), quick(observation, key=KEY))
    batch = jax.tree.map(lambda x: x[None], observation)
    same_bits(invert_batch(loaded, batch, key=KEY), invert_batch(quick, batch, key=KEY))
    ij.save(loaded, folder.with_name("again"))
    for file in folder.iterdir():
        assert (folder.with_name("again") / file.name).read_bytes() == file.read_bytes()


def test_loading_for_another_problem_is_refused(method, folder):
    with refuses(ValueError, "`problem` is not the one.*differs in: problem name"):
        ij.load(folder, linear_gaussian(name="other"))
    linear = linear_gaussian()
    later = dataclasses.replace(linear, model=linear.model.replace(times=2.0 * linear.model.times))
    with refuses(ValueError, "`problem` is not the one.*output times"):
        ij.load(folder, later)
    with refuses(ValueError, "`problem` is not the one"):
        ij.load(folder, problems.lotka_volterra())
    sensors = dataclasses.replace(linear.sensors, channels=("x", "y"))
    with refuses(ValueError, r"`problem` is not the one.*channels"):
        ij.load(folder, dataclasses.replace(linear, sensors=sensors))


def test_loading_with_other_settings_or_methods_is_refused(name, method, folder, linear):
    with refuses(ValueError, "other settings of its method.*Leave `method` out"):
        ij.load(folder, linear, method=METHODS[name])
    with refuses(ValueError, "other settings of its method: it has `.*draws=8.*`.*draws=9"):
        ij.load(folder, linear, method=dataclasses.replace(method, draws=9))
    other = next(other for other in UNTRAINED if other != name)
    with refuses(ValueError, f"other settings.*`{name}\\(.*`{other}\\("):
        ij.load(folder, linear, method=UNTRAINED[other])


def test_damaged_or_missing_files_are_refused(method, folder, linear):
    with refuses(FileNotFoundError, "`folder` .*holds no inverter.*`save`"):
        ij.load(folder / "nothing", linear)
    manifest, weights = folder / "manifest.json", folder / "weights.safetensors"
    text, content = manifest.read_text(), weights.read_bytes()
    manifest.write_text(text[: len(text) // 2])
    with refuses(ValueError, "`folder` .*damaged.*manifest.json"):
        ij.load(folder, linear)
    manifest.write_text("{}")
    with refuses(ValueError, "`folder` .*damaged.*manifest.json"):
        ij.load(folder, linear)
    manifest.write_text(text)
    weights.write_bytes(content[: len(content) // 2])
    with refuses(ValueError, "`folder` .*damaged.*weights.safetensors"):
        ij.load(folder, linear)
    weights.unlink()
    with refuses(ValueError, "`folder` .*damaged.*weights.safetensors"):
        ij.load(folder, linear)


def test_nothing_on_disk_can_run_code(folder):
    json.loads((folder / "manifest.json").read_text())
    header = (folder / "weights.safetensors").read_bytes()
    size = int.from_bytes(header[:8], "little")
    arrays = json.loads(header[8 : 8 + size])
    assert {entry["dtype"] for entry in arrays.values()} <= {"F32", "F64", "I32"}


# --- Bad input -----------------------------------------------------------------------------


def changed(observation, **changes):
    fields = {f.name: getattr(observation, f.name) for f in dataclasses.fields(observation)}
    return Observation(**(fields | changes))


def test_bad_observations_are_refused(quick, observation):
    with refuses(ValueError, "`observation` belongs to problem 'other'"):
        quick(changed(observation, problem="other"), key=KEY)
    with refuses(ValueError, r"`observation` has channels \('u', 'v', 'w'\)"):
        quick(changed(observation, channels=("u", "v", "w")), key=KEY)
    nothing = changed(observation, mask=np.zeros((3, 3), bool))
    with refuses(ValueError, "`observation` holds no reading"):
        quick(nothing, key=KEY)
    with refuses(ValueError, r"`observation`.*batch of shape \(1,\)"):
        quick(jax.tree.map(lambda x: x[None], observation), key=KEY)
    with refuses(TypeError, "`observation`.*ndarray"):
        quick(observation.values, key=KEY)


def test_bad_batches_are_refused(quick, observation):
    batch = jax.tree.map(lambda x: x[None], observation)
    with refuses(ValueError, "`observation` belongs to problem 'other'"):
        invert_batch(quick, changed(batch, problem="other"), key=KEY)
    with refuses(ValueError, "`observation` has channels"):
        invert_batch(quick, changed(batch, channels=("u", "v", "w")), key=KEY)
    with refuses(ValueError, "`observations`.*batch"):
        invert_batch(quick, observation, key=KEY)
    with refuses(TypeError, "`observation`.*ndarray"):
        invert_batch(quick, observation.values, key=KEY)


def rebuilt(dataset, trajectories=None, status=None):
    return Dataset(
        dataset.thetas,
        dataset.unit,
        times=dataset.times,
        trajectories=dataset.trajectories if trajectories is None else trajectories,
        status=dataset.status if status is None else status,
        manifest=dataset.manifest,
    )


def test_failed_solves_never_reach_training(method, linear, small_data, observation):
    states, status = small_data.trajectories.copy(), small_data.status.copy()
    states[[3, 17]] = np.nan
    status[3] = SolveStatus.MAX_STEPS_REACHED  # and 17 is NaN although it says success
    status[40] = SolveStatus.NON_FINITE  # and 40 looks fine
    keep = np.setdiff1d(np.arange(64), [3, 17, 40])
    clean = Dataset(
        small_data.thetas[keep],
        small_data.unit[keep],
        times=small_data.times,
        trajectories=small_data.trajectories[keep],
        status=status[keep],
        manifest=small_data.manifest,
    )
    dirty = rebuilt(small_data, states, status)
    first, second = (
        method.fit(linear, data, progress=False, key=KEY)(observation, key=KEY)
        for data in (dirty, clean)
    )
    same_bits(first, second)
    assert np.isfinite(first.value).all()


def test_unsuitable_datasets_are_refused(method, linear, small_data):
    def fit(data, problem=linear):
        return method.fit(problem, data, progress=False, key=KEY)

    with refuses(ValueError, r"`dataset`.*\(10, 3\).*'lotka_volterra' has \(21, 2\)"):
        fit(small_data, problems.lotka_volterra())
    with refuses(ValueError, "`dataset`.*problem name"):
        fit(small_data, linear_gaussian(name="other"))
    few = rebuilt(small_data, status=np.where(np.arange(64) < 9, 0, 1).astype(np.int32))
    with refuses(ValueError, "`dataset` has 9 usable simulations; at least 10"):
        fit(few)
    with refuses(ValueError, "None of the 64 simulations is usable"):
        fit(rebuilt(small_data, status=np.ones(64, np.int32)))


# --- Other problems, other ways ------------------------------------------------------------


def robertson_observation():
    """Positive log-uniform priors and channels of very different size."""
    problem = problems.robertson()
    theta = problem.parameters.sample(1, key=jr.key(3))[0]
    return problem, problem.simulate(theta, key=jr.key(4))


def lynx_observation():
    """An unknown initial state, and readings that were measured."""
    return problems.lotka_volterra(), problems.lynx_hare()


@pytest.mark.parametrize("build", [robertson_observation, lynx_observation])
def test_smoke_on_the_catalog(name, build):
    problem, observation = build()
    data = simulate(problem, 64, progress=False, key=jr.key(1))
    inverter = UNTRAINED[name].fit(problem, data, progress=False, key=jr.key(2))
    estimate = inverter(observation, key=KEY)
    for values in (estimate.value, estimate.std, estimate.samples):
        assert np.isfinite(values).all()
    assert (estimate.value > 0.0).all()
    assert estimate.status != EstimateStatus.NOT_CHECKED


def test_two_devices_train_the_same_inverter(method, quick, linear, small_data, observation):
    mesh = jax.make_mesh((2,), ("batch",))
    shared = method.fit(linear, small_data, progress=False, mesh=mesh, key=jr.key(2))
    # Sums of halves instead of wholes in float32, four steps of Adam, which divides by gradients.
    np.testing.assert_allclose(
        invert_one(shared, observation), invert_one(quick, observation), atol=1e-3
    )


def invert_one(inverter, observation):
    batch = jax.tree.map(lambda x: x[None], observation)
    return np.asarray(invert_batch(inverter, batch, key=KEY).unit_value)


def test_a_checkpointed_fit_is_the_same(method, quick, linear, small_data, observation, tmp_path):
    kept = method.fit(linear, small_data, checkpoint=tmp_path, progress=False, key=jr.key(2))
    same_bits(kept(observation, key=KEY), quick(observation, key=KEY))
    again = method.fit(linear, small_data, checkpoint=tmp_path, progress=False, key=jr.key(2))
    same_bits(again(observation, key=KEY), quick(observation, key=KEY))
    with refuses(ValueError, "`checkpoint` folder .* another training run: .*key was"):
        method.fit(linear, small_data, checkpoint=tmp_path, progress=False, key=jr.key(3))


def test_ino_stopped_in_its_second_stage_goes_on_to_the_same_bits(
    linear, small_data, observation, tmp_path, monkeypatch
):
    """The frozen surrogate and the particles on their way come back from the checkpoint."""
    method, arguments = UNTRAINED["INO"], {"progress": False, "key": jr.key(2)}
    chunks = []

    def interrupt(self, *_, **__):
        del self
        chunks.append(1)
        # One step in a chunk: four of the first stage, and now the third of the second.
        if len(chunks) == 7:
            raise KeyboardInterrupt

    with optimizations(False):
        whole = method.fit(linear, small_data, **arguments)(observation, key=KEY)
        with monkeypatch.context() as patch:
            eager = functools.partial(_method.Trainer, save_every=0.0)
            patch.setattr(_method, "Trainer", eager)
            patch.setattr("tqdm.tqdm.set_postfix", interrupt)
            with pytest.raises(KeyboardInterrupt):
                method.fit(linear, small_data, checkpoint=tmp_path, **arguments)
        resumed = method.fit(linear, small_data, checkpoint=tmp_path, **arguments)
        same_bits(resumed(observation, key=KEY), whole)


def with_surrogate(**changes):
    return dataclasses.replace(
        UNTRAINED["INO"], surrogate=dataclasses.replace(UNTRAINED["INO"].surrogate, **changes)
    )


def with_field(field):
    return dataclasses.replace(
        UNTRAINED["INO"], drift=dataclasses.replace(UNTRAINED["INO"].drift, field=field)
    )


VARIANTS = {
    "operator alone": with_surrogate(surface=False, spectral_weight=0.0, reading_dropout=0.0),
    "neither FiLM nor attention": with_surrogate(
        network=dataclasses.replace(FNO_SETTINGS, film=False, attention=False)
    ),
    "reported field": with_field(methods.ReportedDrift()),
    "repulsion": with_field(methods.ResidualDrift(repulsion=0.1)),
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_variants_train_and_come_back_from_disk(variant, linear, small_data, observation, tmp_path):
    with optimizations(False):
        inverter = variant.fit(linear, small_data, progress=False, key=jr.key(2))
        estimate = inverter(observation, key=KEY)
        assert np.isfinite(estimate.samples).all()
        ij.save(inverter, tmp_path)
        same_bits(ij.load(tmp_path, linear)(observation, key=KEY), estimate)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: methods.Regression(width=0), "`width` must be at least 1; got 0"),
        (lambda: methods.Regression(draws=0), "`draws` must be at least 1; got 0"),
        (lambda: methods.INO(particles=0), "`particles` must be at least 1; got 0"),
        (lambda: methods.INO(moves=-1), "`moves` must be at least 1; got -1"),
        (lambda: methods.DriftSettings(batch=100, pool=150), "`batch` must divide `pool`"),
        (lambda: methods.DriftSettings(batch=9, group=2), "`group` must divide `batch`"),
        (lambda: methods.DriftSettings(group=0), "`group` must be at least 1; got 0"),
        (lambda: methods.DriftSettings(restart=1.5), r"`restart` must lie in \[0, 1\]; got 1.5"),
        (lambda: methods.SurrogateSettings(steps=0), "`steps` must be at least 1; got 0"),
        (lambda: methods.SurrogateSettings(spectral_weight=-1.0), "`spectral_weight`.*got -1.0"),
        (lambda: methods.Regression(mask_rate=-0.1), r"`mask_rate` must lie in \[0, 1\]; got -0.1"),
        (lambda: FNOSettings(heads=0), "`heads` must be at least 1; got 0"),
    ],
)
def test_impossible_settings_are_refused(build, match):
    with refuses(ValueError, match):
        build()
