"""Calibration of inverters that are known to be right or wrong, on readings that are either."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats

import inojax as ij
from inojax._inverse_problem import InverseProblem
from inojax.methods import (
    AbstractNetworkInverter,
    LeastSquares,
    Regression,
    calibrate,
    conformal,
    invert_batch,
    resimulate,
)
from inojax.methods._resimulate import estimates_noise
from inojax.noise import Gaussian
from tests.helpers import LINEAR_NOISE, UNTRAINED, linear_gaussian, optimizations
from tests.methods.toys import Toy, measured, simulations
from tests.refuses import refuses

KEY = jr.key(8)
CASES = 256


class WithSurrogate(AbstractNetworkInverter):
    """A toy whose surrogate is the solution, off by so many standard deviations of the noise."""

    toy: Toy
    problem: InverseProblem
    off: np.ndarray = eqx.field(converter=np.asarray)
    method: None = None
    logs: tuple = ()

    def _evaluate(self, observations, keys):
        return self.toy._evaluate(observations, keys)

    def _surrogate_readings(self, unit_value, observations):
        thetas = np.asarray(self.problem.parameters.from_unit(unit_value))
        solution = self.problem.model.solve_ensemble(thetas, np.asarray(observations.times))
        return np.asarray(solution.states) + self.off * LINEAR_NOISE


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    with optimizations(False):
        yield


@pytest.fixture(scope="module")
def problem():
    return linear_gaussian()


@pytest.fixture(scope="module")
def calibrated(problem):
    return calibrate(Toy(problem), simulations(CASES, seed=1), key=KEY)


@pytest.fixture(scope="module")
def fresh(problem):
    return measured(problem, simulations(CASES, seed=2))


def shifted(observations, change):
    return eqx.tree_at(lambda o: o.values, observations, change(observations))


def ranks(calibrated, observations):
    return invert_batch(calibrated, observations, checked=True, key=KEY).ticket.calibration


def test_ranks_are_uniform_where_nothing_is_wrong(calibrated, fresh):
    found = ranks(calibrated, fresh)
    for rank in (found.misspecification_p_value, found.misfit_p_value):
        # Two samples of 256; a correct rule fails this once in a thousand times.
        assert scipy.stats.kstest(rank, "uniform").pvalue > 1e-3
    assert found.misspecified.mean() <= 0.05


def test_the_coverage_is_that_of_the_intervals(problem, calibrated):
    # The toy's intervals are exact, 0.9: 256 cases scatter by 0.019.
    np.testing.assert_allclose(calibrated.coverage, 0.9, atol=4 * 0.019)
    narrow = calibrate(Toy(problem, shrink=0.5), simulations(CASES, seed=1), key=KEY)
    exact = 2 * scipy.stats.norm.cdf(0.5 * scipy.stats.norm.ppf(0.95)) - 1
    np.testing.assert_allclose(narrow.coverage, exact, atol=4 * 0.031)


def test_noise_ten_times_as_loud_is_flagged(calibrated, fresh):
    noise = np.random.default_rng(0).normal(size=fresh.values.shape)
    loud = shifted(fresh, lambda o: o.values + 9.95 * LINEAR_NOISE * noise)
    assert ranks(calibrated, loud).misspecified.mean() >= 0.95


def test_readings_of_another_mechanism_are_flagged(calibrated, fresh):
    # The third channel, a combination of the two others, is driven by something else besides.
    def change(o):
        other = o.values.copy()
        other[..., 2] += 4.0 * o.times
        return other

    assert ranks(calibrated, shifted(fresh, change)).misspecified.mean() >= 0.95
    one = jax.tree.map(lambda x: x[0], shifted(fresh, change))
    estimate = calibrated(one, key=KEY)
    assert estimate.ticket.verdict is ij.Verdict.DO_NOT_TRUST
    assert "unlike the simulations" in estimate.ticket.reasons[0]


def test_a_biased_inverter_is_calibrated_by_its_own_record_but_novelty_by_the_solver(
    problem, fresh
):
    biased = calibrate(Toy(problem, bias=0.2), simulations(CASES, seed=1), key=KEY)
    found = ranks(biased, fresh)
    # Its misfits are large, as always; what a fit from there leaves is not.
    assert scipy.stats.kstest(found.misfit_p_value, "uniform").pvalue > 1e-3
    assert np.median(found.unexplained) < 1.5
    assert biased.coverage[0] < 0.3


def test_the_gap_of_a_surrogate_is_measured_in_standard_deviations(problem, fresh):
    dataset = simulations(CASES, seed=1)
    inverter = WithSurrogate(toy=Toy(problem), problem=problem, off=0.7)
    calibrated = calibrate(inverter, dataset, key=KEY)
    np.testing.assert_allclose(calibrated.gaps, 0.7, rtol=1e-5)  # the solver's tolerance
    worse = eqx.tree_at(lambda v: v.inner.off, calibrated, np.asarray(2.0))
    found = ranks(worse, fresh)
    np.testing.assert_allclose(found.surrogate_gap, 2.0, rtol=1e-5)
    assert np.all(found.surrogate_p_value < 0.02)


def test_a_single_call_says_the_same_as_a_batch(calibrated, fresh):
    one = jax.tree.map(lambda x: x[3], fresh)
    estimate = calibrated(one, key=KEY)
    again = jax.tree.map(lambda x: x[:1], jax.tree.map(lambda x: x[3:], fresh))
    batch = jax.tree.map(np.asarray, calibrated._invert(again, KEY[None]))
    same = jax.tree.map(lambda x: x[0], calibrated._checked(batch, again)).ticket
    assert estimate.ticket.as_dict() == same.as_dict()
    plain = resimulate(calibrated.problem, calibrated.inner(one, key=KEY), one)
    assert float(estimate.chi2_per_reading) == pytest.approx(
        float(plain.chi2_per_reading), rel=1e-6
    )
    assert int(estimate.status) == int(plain.status)
    assert "Verdict: trust" in str(estimate)
    assert estimate.as_dict()["ticket"]["verdict"] == "trust"


def test_under_a_transformation_it_is_the_inner_inverter(calibrated, fresh):
    one = jax.tree.map(lambda x: jnp.asarray(x[0], jnp.float32), fresh)
    estimate = jax.jit(lambda o: calibrated(o, key=KEY))(one)
    assert estimate.ticket is None
    inner = jax.jit(lambda o: calibrated.inner(o, key=KEY))(one)
    np.testing.assert_array_equal(estimate.samples, inner.samples)


def test_every_estimate_carries_a_ticket(problem, fresh):
    one = jax.tree.map(lambda x: x[0], fresh)
    plain = Toy(problem)(one, key=KEY).ticket
    assert plain.verdict is ij.Verdict.CHECK
    assert "never been tested" in plain.reasons[0]
    exact = LeastSquares(starts=1).fit(problem, key=KEY)(one, key=KEY).ticket
    assert exact.exact
    # The model is linear, so that its linearization is the posterior.
    assert exact.tempering_exponent == 1.0
    assert exact.verdict is ij.Verdict.TRUST
    # Two parameters are fitted, of which the prior knew next to nothing. What is left of its 1/20
    # to 1/400 in each direction changes the p-value by less than this.
    count = fresh.mask[0].sum()
    expected = scipy.stats.chi2.sf(float(exact.chi2_per_reading) * count, count - 2)
    assert float(exact.p_value) == pytest.approx(expected, abs=0.03)


def slope(readings):
    """x' = a from x = 0, read so many times: one unknown, linear."""
    times = np.linspace(1.0, 2.0, readings)
    return ij.InverseProblem(
        "slope",
        ij.ParameterSpace((ij.Parameter("a", dist.Uniform(-2.0, 2.0)),)),
        ij.ODEModel(lambda t, y, theta: theta, [0.0], times=times, states=("x",)),
        ij.Sensors(ij.FixedTimes(times)),
        Gaussian(0.25),
    )


@pytest.mark.parametrize("readings", [2, 10, 40])
def test_p_values_of_fits_are_uniform(readings):
    problem = slope(readings)
    thetas = np.random.default_rng(readings).uniform(-2.0, 2.0, (400, 1))
    states = thetas[:, None] * problem.model.times[None, :, None]
    seen = jax.vmap(lambda y, theta, key: problem.observe(y, theta, key=key))(
        jnp.asarray(states, jnp.float32), jnp.asarray(thetas, jnp.float32), jr.split(KEY, 400)
    )
    seen = jax.tree.map(np.asarray, seen)
    method = LeastSquares(starts=1, candidates=0)
    estimates = invert_batch(method.fit(problem), seen, checked=True, key=KEY)
    assert scipy.stats.kstest(estimates.ticket.p_value, "uniform").pvalue > 0.01
    # Per degree of freedom it is one on average; its standard error is √(2 / ν / 400).
    np.testing.assert_allclose(estimates.ticket.degrees_of_freedom, readings - 1, atol=0.1)
    error = np.sqrt(2.0 / (readings - 1) / 400)
    assert abs(np.mean(estimates.reduced_chi2) - 1.0) < 4.0 * error
    # A fit takes one of the residuals out: of true parameters these p-values would be too large.
    chi2 = np.asarray(estimates.chi2_per_reading) * readings
    naive = scipy.stats.chi2.sf(chi2, readings)
    assert naive.mean() > np.asarray(estimates.ticket.p_value).mean()
    if readings < 40:
        assert scipy.stats.kstest(naive, "uniform").pvalue < 1e-3


def test_where_parameters_explain_every_reading_there_is_nothing_to_test():
    problem = slope(1)
    observation = ij.Observation.from_arrays([1.0], [[1.3]], problem=problem)
    estimate = LeastSquares().fit(problem)(observation, key=KEY)
    assert estimate.status == ij.EstimateStatus.OK
    assert float(estimate.ticket.p_value) > 0.1
    assert "no more readings than parameters" in str(estimate.ticket)


def test_a_correction_is_told_and_what_made_the_point_stays_known(problem, fresh):
    one = jax.tree.map(lambda x: x[0], fresh)
    linearized = LeastSquares(starts=1, candidates=0).fit(problem, key=KEY)
    before = linearized(one, key=KEY).ticket
    assert before.verdict is ij.Verdict.CHECK
    assert "linearized" in before.reasons[0]
    after = conformal(linearized, simulations(128, seed=4), key=KEY)(one, key=KEY).ticket
    assert (after.exact, after.corrected) == (True, True)
    assert after.verdict is ij.Verdict.TRUST
    assert any("corrected on held-out" in reason for reason in after.reasons)


def test_the_noise_level_is_known_or_estimated():
    assert estimates_noise(ij.problems.lotka_volterra_log_normal())
    assert not estimates_noise(ij.problems.lotka_volterra())


@pytest.mark.parametrize("corrected", [False, True], ids=["plain", "conformal"])
def test_it_comes_back_from_disk(problem, fresh, tmp_path, corrected):
    method: Regression = UNTRAINED["Regression"]
    inverter = method.fit(problem, simulations(64, seed=3), progress=False, key=KEY)
    if corrected:
        inverter = conformal(inverter, simulations(128, seed=4), key=KEY)
    calibrated = calibrate(inverter, simulations(128, seed=1), key=KEY)
    ij.save(calibrated, tmp_path)
    loaded = ij.load(tmp_path, problem)
    one = jax.tree.map(lambda x: x[0], fresh)
    before, after = calibrated(one, key=KEY), loaded(one, key=KEY)
    np.testing.assert_array_equal(before.samples, after.samples)
    assert before.ticket.as_dict() == after.ticket.as_dict()
    assert jax.tree.structure(loaded.inner) == jax.tree.structure(_without_logs(calibrated.inner))


def _without_logs(inverter):
    where = (lambda i: i.inner.logs) if hasattr(inverter, "inner") else (lambda i: i.logs)
    return eqx.tree_at(where, inverter, ())


def test_bad_arguments_are_named(problem):
    with refuses(ValueError, match="`dataset` has 64 usable"):
        calibrate(Toy(problem), simulations(64, seed=1), key=KEY)
    with refuses(ValueError, match="`inverter` gives 2 samples"):
        calibrate(Toy(problem, draws=2), simulations(128, seed=1), key=KEY)
    with refuses(ValueError, match="`dataset` holds trajectories"):
        calibrate(
            LeastSquares().fit(ij.problems.robertson(), key=KEY), simulations(128, 1), key=KEY
        )
