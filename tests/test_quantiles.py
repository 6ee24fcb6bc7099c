"""Inverse distribution functions made from densities, against SciPy's."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

import inojax as ij
from inojax._quantiles import Quantiles, own_functions
from tests.helpers import UNTRAINED
from tests.refuses import refuses

pytestmark = pytest.mark.usefixtures("compiled_quickly")

# Each prior beside the same distribution in SciPy.
PRIORS = {
    "gamma": (dist.Gamma(2.0, 3.0), st.gamma(2.0, scale=1 / 3)),
    "gamma_peaked": (dist.Gamma(500.0, 3.0), st.gamma(500.0, scale=1 / 3)),
    "gamma_sparse": (dist.Gamma(0.1, 1e4), st.gamma(0.1, scale=1e-4)),
    "inverse_gamma": (dist.InverseGamma(3.0, 2.0), st.invgamma(3.0, scale=2.0)),
    "inverse_gamma_heavy": (dist.InverseGamma(0.5, 2.0), st.invgamma(0.5, scale=2.0)),
    "beta": (dist.Beta(2.0, 3.0), st.beta(2.0, 3.0)),
    "beta_peaked": (dist.Beta(500.0, 30.0), st.beta(500.0, 30.0)),
    "beta_at_both_ends": (dist.Beta(0.5, 0.5), st.beta(0.5, 0.5)),
    "beta_at_the_end": (dist.Beta(5.0, 0.1), st.beta(5.0, 0.1)),
    "beta_flat": (dist.Beta(1.0, 1.0), st.uniform()),
    "student": (dist.StudentT(3.0, 1.0, 2.0), st.t(3.0, 1.0, 2.0)),
    "student_far_away": (dist.StudentT(4.0, 1e6, 1e-3), st.t(4.0, 1e6, 1e-3)),
    "student_heavy": (dist.StudentT(0.5, 0.0, 1e-9), st.t(0.5, 0.0, 1e-9)),
    "student_light": (dist.StudentT(200.0, 0.0, 1.0), st.t(200.0)),
    "weibull": (dist.Weibull(2.0, 1.5), st.weibull_min(1.5, scale=2.0)),
    "weibull_steep": (dist.Weibull(2e-9, 5.0), st.weibull_min(5.0, scale=2e-9)),
    "weibull_sparse": (dist.Weibull(2.0, 0.5), st.weibull_min(0.5, scale=2.0)),
    "levy": (dist.InverseGamma(0.5, 1.0), st.levy(0.0, 2.0)),
    "chi_squared": (dist.Chi2(4.0), st.chi2(4.0)),
}
# NumPyro's own functions, exact to what rounding of theirs leaves.
OWN = {
    "cauchy": (dist.Cauchy(1.0, 2.0), st.cauchy(1.0, 2.0)),
    "laplace": (dist.Laplace(1.0, 2.0), st.laplace(1.0, 2.0)),
    "logistic": (dist.Logistic(1.0, 2.0), st.logistic(1.0, 2.0)),
    "gumbel": (dist.Gumbel(1.0, 2.0), st.gumbel_r(1.0, 2.0)),
    "half_cauchy": (dist.HalfCauchy(2.0), st.halfcauchy(0.0, 2.0)),
    "pareto": (dist.Pareto(5.0, 2.0), st.pareto(2.0, scale=5.0)),
}
TAILS = 10.0 ** -np.arange(9, 1, -1)
Z = np.concatenate([TAILS, np.linspace(0.02, 0.98, 25), 1.0 - TAILS[::-1]])


def one(prior) -> ij.ParameterSpace:
    return ij.ParameterSpace((ij.Parameter("a", prior),))


def error(found, truth, scale):
    """Relative to the number or, about zero, to the width of the distribution."""
    return np.max(np.abs(found - truth) / np.maximum(np.abs(truth), scale))


def scale_of(truth):
    """None where numbers are positive: then small ones have to be exact, too."""
    return 0.0 if truth.support()[0] == 0.0 else truth.ppf(0.75) - truth.ppf(0.25)


@pytest.mark.parametrize("name", PRIORS)
def test_inverse_functions_agree_with_scipy(name):
    prior, truth = PRIORS[name]
    space = one(prior)
    theta = space.from_unit(Z[:, None])[:, 0]
    assert error(theta, truth.ppf(Z), scale_of(truth)) < 1e-10
    assert truth.support()[0] < theta.min()
    assert theta.max() < truth.support()[1]
    # Probabilities of both tails, each by itself.
    again, expected = space.to_unit(theta[:, None])[:, 0], truth.cdf(theta)
    np.testing.assert_allclose(again, expected, rtol=1e-10)
    np.testing.assert_allclose(1.0 - again, truth.sf(theta), rtol=1e-10, atol=3e-16)
    np.testing.assert_allclose(
        space.log_prob(theta[:, None]), truth.logpdf(theta), rtol=1e-9, atol=1e-14
    )


@pytest.mark.parametrize("name", OWN)
def test_inverse_functions_that_numpyro_has_agree_with_scipy(name):
    prior, truth = OWN[name]
    theta = one(prior).from_unit(Z[:, None])[:, 0]
    assert error(theta, truth.ppf(Z), scale_of(truth)) < 2e-7  # at 1e-9 from an end
    middle = slice(6, -6)
    assert error(theta[middle], truth.ppf(Z)[middle], scale_of(truth)) < 1e-12


def test_truncated_and_transformed_priors_have_them_too():
    """Student's t below 0 and from 1 on, and a gamma distribution that is turned around."""
    t, z = st.t(3.0), Z[:, None]
    student = dist.StudentT(3.0, 0.0, 1.0)
    below = one(dist.TruncatedDistribution(student, high=0.0)).from_unit(z)
    np.testing.assert_allclose(below, t.ppf(0.5 * z), rtol=1e-10, atol=1e-10)
    turned = dist.transforms.AffineTransform(1.0, -2.0, domain=dist.constraints.positive)
    space = one(dist.TransformedDistribution(dist.Gamma(2.0, 1.0), turned))
    expected = 1.0 - 2.0 * st.gamma(2.0).isf(z)
    np.testing.assert_allclose(space.from_unit(z), expected, rtol=1e-9, atol=1e-9)
    logarithms = one(dist.TransformedDistribution(student, dist.transforms.ExpTransform()))
    # So heavy that float64 has no numbers for probabilities of 1e-9 at either end.
    middle = z[8:-8]
    np.testing.assert_allclose(logarithms.from_unit(middle), np.exp(t.ppf(middle)), rtol=1e-6)


def test_kumaraswamy_has_a_closed_form():
    z = Z[:, None]
    theta = one(dist.Kumaraswamy(2.0, 3.0)).from_unit(z)
    np.testing.assert_allclose(theta, np.sqrt(-np.expm1(np.log1p(-z) / 3.0)), rtol=1e-10)


def test_several_peaks_are_all_found():
    """Far apart: the one that is found first holds a third of the probability."""
    weights, places = jnp.array([1 / 3, 2 / 3]), jnp.array([-5.0, 1e4])
    parts = dist.Normal(places, jnp.array([1.0, 0.5]))
    space = one(dist.MixtureSameFamily(dist.Categorical(probs=weights), parts))
    theta = np.array([-6.0, -5.0, -4.0, 100.0, 1e4 - 1.0, 1e4, 1e4 + 1.0])
    weight = np.asarray(weights, np.float64)
    expected = weight[0] * st.norm.cdf(theta + 5.0) + weight[1] * st.norm.cdf((theta - 1e4) / 0.5)
    # The weights are of single precision, and so is their sum.
    np.testing.assert_allclose(space.to_unit(theta[:, None])[:, 0], expected, rtol=3e-7)
    keep = np.array([0, 1, 2, 4, 5, 6])
    again = space.from_unit(space.to_unit(theta[:, None]))[:, 0]
    np.testing.assert_allclose(again[keep], theta[keep], rtol=1e-6)


def test_kinks_and_jumps_are_closed_in_on():
    space = one(
        dist.MixtureGeneral(
            dist.Categorical(probs=jnp.array([0.5, 0.5])),
            [dist.Laplace(0.0, 1.0), dist.Laplace(3.0, 0.1)],
            support=dist.constraints.real,
        )
    )
    x = np.linspace(-4.0, 6.0, 201)
    expected = 0.5 * st.laplace.cdf(x) + 0.5 * st.laplace.cdf(x, 3.0, 0.1)
    np.testing.assert_allclose(space.to_unit(x[:, None])[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["gamma", "beta", "student", "inverse_gamma", "weibull_sparse"])
def test_derivatives_are_those_of_the_density(name):
    prior, truth = PRIORS[name]
    space = one(prior)
    with jax.enable_x64(True):
        z = jnp.asarray(Z[2:-2, None])

        def quantile(z):
            return space.from_unit(z)

        theta, slope = jax.jvp(quantile, (z,), (jnp.ones_like(z),))
        np.testing.assert_allclose(slope[:, 0], 1.0 / truth.pdf(theta[:, 0]), rtol=1e-9)
        _, density = jax.jvp(space.to_unit, (theta,), (jnp.ones_like(z),))
        np.testing.assert_allclose(density[:, 0], truth.pdf(theta[:, 0]), rtol=1e-9)
        middle, step = z[10:-10], 1e-5
        numeric = (quantile(middle + step) - quantile(middle - step)) / (2.0 * step)
        # Central differences: the square of the step times third derivatives.
        np.testing.assert_allclose(slope[10:-10], numeric, rtol=1e-6)
        gradient = jax.grad(lambda z: jnp.sum(quantile(z)))
        second = jax.jvp(gradient, (middle,), (jnp.ones_like(middle),))[1]
        numeric = (gradient(middle + step) - gradient(middle - step)) / (2.0 * step)
        np.testing.assert_allclose(second, numeric, rtol=1e-5, atol=1e-6)


MANY = [
    dist.Gamma(2.0, 3.0),
    dist.Uniform(0.0, 1.0),
    dist.Beta(2.0, 3.0),
    dist.Gamma(0.3, 5.0),
    dist.StudentT(3.0, 1.0, 2.0),
    dist.LogUniform(0.1, 1.0),
    dist.StudentT(9.0, -4.0, 1.0),
    dist.Gamma(50.0, 1.0),
    dist.Weibull(1.0, 2.0),
]


@pytest.fixture(scope="module")
def many():
    return ij.ParameterSpace([ij.Parameter(f"p{i}", prior) for i, prior in enumerate(MANY)])


def test_priors_of_one_kind_are_as_good_as_alone(many):
    z = np.random.default_rng(0).uniform(1e-6, 1.0 - 1e-6, (3, 5, len(MANY)))
    theta = many.from_unit(z)
    np.testing.assert_allclose(many.to_unit(theta), z, rtol=1e-10)
    x = many.to_unconstrained(theta)
    np.testing.assert_allclose(many.from_unconstrained(x), theta, rtol=1e-12)
    for place, prior in enumerate(MANY):
        own = one(prior)
        column = theta[..., place : place + 1]
        np.testing.assert_array_equal(own.from_unit(z[..., place : place + 1]), column)
        np.testing.assert_allclose(
            many.log_densities(theta)[..., place], own.log_prob(column), rtol=1e-13
        )


def test_single_precision_is_as_exact_as_it_can_be(many):
    z = np.random.default_rng(1).uniform(0.01, 0.99, (200, len(MANY))).astype(np.float32)
    found = jax.jit(jax.vmap(many.from_unit))(jnp.asarray(z))
    assert found.dtype == jnp.float32
    exact = many.from_unit(z.astype(np.float64))
    # What one rounding error of `z` moves, and some of the number itself.
    _, slope = _slopes(many, z)
    allowed = np.abs(slope) * z * 2.0**-23 + np.abs(exact) * 3e-6 + 1e-6
    assert (np.abs(found - exact) <= allowed).all()
    again = np.asarray(many.to_unit(found))
    assert again.dtype == np.float32
    np.testing.assert_allclose(again, z, atol=3e-6)


def _slopes(space, z):
    with jax.enable_x64(True):
        z = jnp.asarray(z, jnp.float64)
        return jax.jvp(space.from_unit, (z,), (jnp.ones_like(z),))


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ends_of_the_unit_interval_are_finite(name, dtype):
    if dtype == np.float32 and name in ("gamma_sparse", "student_far_away"):
        pytest.skip("single precision has no such numbers")
    space = one(PRIORS[name][0])
    theta = space.from_unit(np.array([[0.0], [1.0], [-3.0], [4.0]], dtype))
    assert theta.dtype == dtype
    assert np.isfinite(theta).all()
    assert np.isfinite(space.log_prob(theta)).all()


def test_outside_the_support_there_is_no_probability():
    space = one(dist.Beta(2.0, 3.0))
    np.testing.assert_array_equal(
        space.to_unit(np.array([[-1.0], [0.0], [1.0], [2.0]])).T, [[0.0, 0.0, 1.0, 1.0]]
    )
    assert np.isnan(space.to_unit(np.array([[np.nan]]))).all()
    assert np.isnan(space.from_unit(np.array([[np.nan]]))).all()


def test_samples_follow_the_prior(many, key):
    theta = many.sample(4096, key=key)
    truths = {
        0: st.gamma(2.0, scale=1 / 3),
        2: st.beta(2.0, 3.0),
        4: st.t(3.0, 1.0, 2.0),
        8: st.weibull_min(2.0),
    }
    for column, truth in truths.items():
        assert st.kstest(theta[:, column], truth.cdf).pvalue > 1e-3


def test_priors_made_in_either_precision_are_the_same():
    with jax.enable_x64(True):
        double = one(dist.Beta(0.7, 3.1))
    np.testing.assert_array_equal(
        double.from_unit(Z[:, None]), one(dist.Beta(0.7, 3.1)).from_unit(Z[:, None])
    )


def test_equal_priors_share_what_is_compiled():
    first, other = (one(dist.Gamma(2.0, 3.0)).parameters[0]._quantiles for _ in range(2))
    assert first == other
    assert hash(first) == hash(other)
    assert first.table is other.table
    assert first != one(dist.Gamma(2.0, 3.1)).parameters[0]._quantiles
    assert repr(first) == "Quantiles(Gamma)"


def test_what_is_no_density_is_refused():
    with refuses(ValueError, "`prior`.*'k' loses its support.*InverseGamma"):
        ij.Parameter("k", dist.Levy(0.0, 2.0))
    with refuses(ValueError, "`prior`.*'k' has no inverse CDF.*no draws"):
        ij.Parameter("k", dist.ImproperUniform(dist.constraints.real, (), ()))
    with refuses(ValueError, "`prior`.*'k' has no inverse CDF"):
        ij.Parameter("k", dist.Delta(1.0))

    class Doubled(dist.Gamma):
        def log_prob(self, value):
            return super().log_prob(value) + np.log(2.0)

    with refuses(ValueError, "`prior`.*'k'.*integrates to 2 instead of 1"):
        ij.Parameter("k", Doubled(2.0, 3.0))


def test_inverse_functions_that_rounding_spoils_are_not_used():
    assert not own_functions(dist.RelaxedBernoulliLogits(0.5, 0.1))
    assert own_functions(dist.Normal(0.0, 1.0))
    assert not own_functions(dist.Gamma(2.0, 1.0))
    with pytest.raises(ValueError, match=r"draws repeat|one point"):
        Quantiles(dist.Delta(1.0))


def test_distributions_of_users_need_a_density_only():
    """x = exp(-u) with u exponential of rate 3: F(x) = x³, from its density alone."""

    class Cubic(dist.Distribution):
        support = dist.constraints.unit_interval

        def log_prob(self, value):
            return jnp.log(3.0) + 2.0 * jnp.log(value)

    theta = one(Cubic()).from_unit(Z[:, None])
    np.testing.assert_allclose(theta, np.cbrt(Z[:, None]), rtol=1e-10)


# --- In use ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def problem():
    """y(t) = rate t + start, with priors of the new kinds."""
    times = np.linspace(0.1, 1.0, 10)
    return ij.InverseProblem(
        "line",
        ij.ParameterSpace(
            (ij.Parameter("rate", dist.Gamma(4.0, 2.0)), ij.Parameter("start", dist.StudentT(4.0)))
        ),
        ij.ODEModel(
            lambda t, y, theta: theta[:1], lambda theta: theta[1:], times=times, states=("y",)
        ),
        ij.Sensors(ij.FixedTimes(times)),
        ij.noise.Gaussian(0.5),
    )


def on_a_grid(observation):
    """Mean and standard deviation of the posterior, and its mode in unit coordinates."""
    times, values = np.asarray(observation.times), np.asarray(observation.values)[:, 0]
    axes = np.linspace(1e-3, 9.0, 900), np.linspace(-5.0, 5.0, 1000)
    rate, start = np.meshgrid(*axes, indexing="ij")
    squares = sum((v - rate * t - start) ** 2 for t, v in zip(times, values, strict=True))
    log = -0.5 * squares / 0.25 + st.gamma(4.0, scale=0.5).logpdf(rate) + st.t(4.0).logpdf(start)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = np.array([(weight * x).sum() for x in (rate, start)])
    return mean, np.sqrt(
        [(weight * (x - m) ** 2).sum() for x, m in zip((rate, start), mean, strict=True)]
    )


def test_data_sets_and_fits_run_with_them(problem, key):
    observation = problem.simulate(np.array([2.5, 0.3]), key=key)
    mean, std = on_a_grid(observation)
    dataset = ij.simulate(problem, 64, key=key)
    assert (dataset.status == 0).all()
    assert st.kstest(dataset.thetas[:, 0], st.gamma(4.0, scale=0.5).cdf).pvalue > 0.01
    fit = ij.methods.LeastSquares(starts=2, draws=256).fit(problem, key=key)
    estimate = fit(observation, key=key)
    # Draws are weighed by the solver's likelihood and the prior; 256 of them leave a tenth.
    assert (np.abs(np.mean(estimate.samples, axis=0) - mean) < 0.35 * std).all()
    assert (np.abs(np.std(estimate.samples, axis=0) / std - 1.0) < 0.35).all()


@pytest.mark.slow
def test_networks_and_the_sampler_run_with_them(problem, key):
    observation = problem.simulate(np.array([2.5, 0.3]), key=key)
    mean, std = on_a_grid(observation)
    network = UNTRAINED["Regression"].fit(problem, ij.simulate(problem, 64, key=key), key=key)
    assert np.isfinite(network(observation, key=key).value).all()
    sampler = ij.methods.Posterior(chains=4, warmup=200, draws=500).fit(problem, key=key)
    estimate = sampler(observation, key=jr.key(1))
    assert (np.abs(np.mean(estimate.samples, axis=0) - mean) < 0.15 * std).all()
    assert (np.abs(np.std(estimate.samples, axis=0) / std - 1.0) < 0.15).all()
