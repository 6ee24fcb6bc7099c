"""The conformal correction of inverters that are known to be wrong, and how wrong."""

import dataclasses

import equinox as eqx
import jax
import jax.random as jr
import numpy as np
import pytest

import inojax as ij
from inojax import Dataset, methods, problems
from inojax._estimate import Estimate
from inojax._estimate_status import EstimateStatus
from inojax._intervals import central_interval
from inojax.methods import conformal, invert_batch
from inojax.methods.calibration._conformal import _conformal_quantiles
from inojax.metrics import coverage, coverage_curve
from inojax.solvers import SolveStatus
from tests.helpers import (
    HIGHEST,
    LINEAR_TIMES,
    LOWEST,
    UNTRAINED,
    linear_gaussian,
    optimizations,
)
from tests.methods.toys import DRAWS, WIDTH, Toy, measured, simulations
from tests.refuses import refuses

KEY = jr.key(5)
HELD_OUT, FRESH = 3000, 3000


def to_unit(values):
    return (np.asarray(values, np.float64) - LOWEST) / WIDTH


def inverted(inverter, observations):
    return jax.tree.map(np.asarray, invert_batch(inverter, observations, key=KEY))


def covered(estimate, truth, level=0.9):
    """Coverage of the intervals that an estimate states."""
    return coverage(*(to_unit(end) for end in estimate.interval(level)), truth.unit)


def rank(samples):
    return np.argsort(np.argsort(samples, axis=1), axis=1)


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Instead of the one for all methods: nothing here runs often."""
    with optimizations(False):
        yield


@pytest.fixture(scope="module")
def problem():
    return linear_gaussian()


@pytest.fixture(scope="module")
def held_out():
    return simulations(HELD_OUT, seed=1)


@pytest.fixture(scope="module")
def fresh():
    return simulations(FRESH, seed=2)


@pytest.fixture(scope="module")
def observations(problem, fresh):
    return measured(problem, fresh)


@pytest.fixture(scope="module")
def wrong(problem):
    """A third of the right spread, and one parameter is off by a true standard deviation."""
    return Toy(problem, shrink=1.0 / 3.0, bias=0.05)


@pytest.fixture(scope="module")
def corrected(wrong, held_out):
    return conformal(wrong, held_out, key=KEY)


@pytest.fixture(scope="module")
def estimates(wrong, corrected, observations):
    return inverted(wrong, observations), inverted(corrected, observations)


# --- Calibrated ----------------------------------------------------------------------------


def test_an_overconfident_and_biased_inverter_becomes_calibrated(estimates, fresh):
    before, after = (covered(estimate, fresh) for estimate in estimates)
    # 2 Φ(1.645 / 3) - 1 = 0.42 without the bias, and less with it.
    assert before[0] < 0.32
    assert 0.35 < before[1] < 0.47
    # √(0.09 / 3000) = 0.0055 each from held-out and fresh cases: 0.02 are 2.6 standard errors.
    assert ((after > 0.88) & (after < 0.92)).all()


@pytest.mark.parametrize("level", [0.2, 0.5, 0.8, 0.95])
def test_every_level_is_calibrated(estimates, fresh, level):
    share = covered(estimates[1], fresh, level)
    # Four standard errors of held-out and fresh cases together.
    room = 4.0 * np.sqrt(2.0 * level * (1.0 - level) / FRESH)
    np.testing.assert_allclose(share, level, atol=room)


def test_the_coverage_curve_tells_them_apart(estimates, fresh):
    before, after = (coverage_curve(to_unit(e.samples), fresh.unit) for e in estimates)
    assert before.largest_deviation < -0.3
    # 128 samples hold 129/127 of the level, and then four standard errors.
    assert 0.0 < after.largest_deviation < 0.016 + 4.0 * np.sqrt(2.0 * 0.25 / FRESH)


def test_a_calibrated_inverter_is_left_nearly_as_it_was(problem, held_out, observations, fresh):
    toy = Toy(problem)
    before, after = (inverted(i, observations) for i in (toy, conformal(toy, held_out, key=KEY)))
    # The prior's ends cut the true posterior of some cases, so that spreads shrink a little.
    ratio = np.median(after.std / before.std, axis=0)
    np.testing.assert_allclose(ratio, 1.0, atol=0.1)
    assert (np.abs(covered(after, fresh) - 0.9) < 0.022).all()


def test_an_inverter_without_any_spread_gets_one(problem, held_out, observations, fresh):
    estimate = inverted(conformal(Toy(problem, shrink=0.0), held_out, key=KEY), observations)
    assert (np.abs(covered(estimate, fresh) - 0.9) < 0.022).all()
    # Samples that were all equal have no correlation to keep: random order, so none is made up.
    ranks = rank(estimate.samples) - 63.5
    correlation = np.mean(ranks[..., 0] * ranks[..., 1], axis=1) / np.var(np.arange(DRAWS))
    # Each of the 3,000 has the standard deviation 1 / √127; five standard errors.
    assert abs(np.mean(correlation)) < 5.0 / np.sqrt(127 * FRESH)


@pytest.mark.parametrize(("n", "particles"), [(7, 5), (99, 20), (100, 20), (253, 128)])
def test_quantiles_follow_the_rule_of_n_plus_one(n, particles):
    """Exact for any distribution: each of n + 1 residuals is equally likely to be the new one."""
    residuals = np.exp(np.linspace(-3.0, 3.0, n + 1))
    # Levels whose ends are samples.
    levels = 1.0 - 2.0 * np.arange(1, particles // 2) / (particles + 1)
    inside = np.zeros(len(levels))
    for new in range(n + 1):
        quantiles = _conformal_quantiles(np.delete(residuals, new)[:, None], particles)[:, 0]
        low, high = np.transpose([central_interval(quantiles, x, axis=0) for x in levels.tolist()])
        inside += (low < residuals[new]) & (residuals[new] < high)
    share = inside / (n + 1)
    assert (share >= levels - 1e-12).all()
    assert (share <= levels + 2.0 / (n + 1)).all()


def test_quantiles_of_a_small_case():
    quantiles = _conformal_quantiles(np.arange(7.0, 0.0, -1.0)[:, None], 5)
    # At 1/6, 2/6, ... of eight places, outward from the middle.
    np.testing.assert_array_equal(quantiles[:, 0], [1.0, 2.0, 4.0, 6.0, 7.0])


# --- What it keeps -------------------------------------------------------------------------


def test_order_and_point_estimate_are_kept(estimates):
    before, after = estimates
    np.testing.assert_array_equal(after.unit_value, before.unit_value)
    np.testing.assert_allclose(after.value, before.value, atol=1e-6)
    order = np.argsort(before.samples, axis=1)
    inner, outer = (
        np.diff(np.take_along_axis(e.samples, order, axis=1), axis=1) for e in estimates
    )
    assert (outer[inner > 0.0] >= 0.0).all()
    # But for those that are cut to the prior's ends.
    assert (outer > 0.0).mean() > 0.9


def test_samples_stay_inside_the_prior(estimates):
    samples = estimates[1].samples
    assert (np.abs(samples) <= HIGHEST).all()
    assert (samples == HIGHEST).any()
    np.testing.assert_allclose(estimates[1].std, samples.std(axis=1), rtol=1e-4)


def test_jit_and_vmap_agree_with_the_batch(corrected, estimates, observations):
    few, batch = (jax.tree.map(lambda x: x[:2], tree) for tree in (observations, estimates[1]))
    keys = jr.split(KEY, FRESH)[:2]
    mapped = jax.vmap(corrected)(few, key=keys)
    # Physical values near 1 in float32.
    np.testing.assert_allclose(mapped.samples, batch.samples, atol=2e-5)
    one = jax.tree.map(lambda x: x[0], few)
    traced = jax.jit(corrected)(one, key=keys[0])
    np.testing.assert_allclose(traced.samples, batch.samples[0], atol=2e-5)
    assert traced.status == EstimateStatus.NOT_CHECKED


def test_it_reads_like_its_inner_inverter(corrected, wrong, problem):
    assert (corrected.problem, corrected.settings, corrected.logs) == (problem, "Toy", ())
    assert corrected.quantiles.shape == (DRAWS, 2)
    leaves, structure = jax.tree.flatten(corrected)
    assert isinstance(jax.tree.unflatten(structure, leaves).inner, Toy)


def test_failed_simulations_are_left_out(wrong):
    clean = simulations(400, seed=3)
    rows = np.delete(np.arange(402), [5, 300])
    states, status = np.full((402, 10, 3), np.nan), np.full(402, SolveStatus.NON_FINITE, np.int32)
    thetas, unit = np.zeros((402, 2)), np.zeros((402, 2))
    states[rows], status[rows] = clean.trajectories, SolveStatus.SUCCESS
    thetas[rows], unit[rows] = clean.thetas, clean.unit
    dirty = Dataset(thetas, unit, times=LINEAR_TIMES, trajectories=states, status=status)
    np.testing.assert_array_equal(
        conformal(wrong, dirty, key=KEY).quantiles, conformal(wrong, clean, key=KEY).quantiles
    )


def test_no_simulation_counts_twice(wrong):
    """The last batch, here of a single one, is filled up; the filling must not be counted."""
    quantiles = conformal(wrong, simulations(257, seed=3), key=KEY).quantiles
    assert len(np.unique(quantiles[:, 0])) == DRAWS


# --- A method that was trained, and its way to disk and back -------------------------------


@pytest.fixture(scope="module")
def regression():
    return dataclasses.replace(UNTRAINED["Regression"], draws=64)


@pytest.fixture(scope="module")
def trained(regression, problem):
    """Four steps: it knows next to nothing."""
    return regression.fit(problem, simulations(64, seed=4), progress=False, key=KEY)


def test_a_hardly_trained_regression_becomes_calibrated(
    trained, regression, problem, held_out, observations, fresh, tmp_path
):
    corrected = conformal(trained, held_out, key=KEY)
    estimate = inverted(corrected, observations)
    assert (np.abs(covered(estimate, fresh) - 0.9) < 0.022).all()
    ij.save(corrected, tmp_path)
    loaded = ij.load(tmp_path, problem)
    assert isinstance(loaded, methods.ConformalInverter)
    assert loaded.problem is problem
    assert loaded.logs == ()
    without_logs = eqx.tree_at(lambda inverter: inverter.inner.logs, corrected, ())
    for one, other in zip(jax.tree.leaves(without_logs), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(one, other)
    assert jax.tree.structure(without_logs) == jax.tree.structure(loaded)
    ij.save(loaded, tmp_path / "again")
    with refuses(ValueError, "other settings.*draws=64.*draws=8"):
        ij.load(tmp_path, problem, method=UNTRAINED["Regression"])
    with refuses(ValueError, "`problem` is not the one"):
        ij.load(tmp_path, linear_gaussian(name="other"))


# --- Bad input -----------------------------------------------------------------------------


def test_too_few_simulations_are_refused(wrong):
    with refuses(ValueError, "`dataset` has 99 usable simulations; at least 100"):
        conformal(wrong, simulations(99, seed=1), key=KEY)
    with refuses(ValueError, "127 usable.*at least 128 are needed for 128 samples.*`simulate`"):
        conformal(wrong, simulations(127, seed=1), key=KEY)
    assert conformal(wrong, simulations(128, seed=1), key=KEY).quantiles.shape == (DRAWS, 2)


def test_simulations_of_another_problem_are_refused(wrong, held_out):
    with refuses(ValueError, r"`dataset`.*\(10, 3\).*'lotka_volterra' has \(21, 2\)"):
        conformal(Toy(problems.lotka_volterra()), held_out, key=KEY)
    other = Dataset(
        held_out.thetas, held_out.unit, times=LINEAR_TIMES, trajectories=held_out.trajectories,
        status=held_out.status, manifest={"problem": "other"},
    )  # fmt: skip
    with refuses(ValueError, "`dataset` is not of problem 'linear'"):
        conformal(wrong, other, key=KEY)


class Pointless(Toy):
    """An inverter that gives no samples."""

    def _invert_one(self, observation, key):
        estimate = super()._invert_one(observation, key)
        return Estimate(
            estimate.names, estimate.units, estimate.value, estimate.unit_value, estimate.std
        )


def test_unsuitable_inverters_are_refused(problem, held_out):
    with refuses(ValueError, "`inverter` gives 0 samples.*at least 3"):
        conformal(Pointless(problem), held_out, key=KEY)
    with refuses(ValueError, "`inverter` gives 2 samples"):
        conformal(Toy(problem, draws=2), held_out, key=KEY)
    with refuses(ValueError, "not finite for 256 of 256 held-out"):
        conformal(Toy(problem, shrink=float("nan")), held_out, key=KEY)
