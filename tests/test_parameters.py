"""Parameters and their coordinates, against SciPy's distributions."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats as st

from inojax._parameters import Design, Parameter, ParameterSpace
from tests.refuses import refuses

# Each prior beside the same distribution in SciPy.
PRIORS = {
    "uniform": (dist.Uniform(0.5, 1.5), st.uniform(0.5, 1.0)),
    "uniform_huge": (dist.Uniform(2.22e11, 6.66e11), st.uniform(2.22e11, 4.44e11)),
    "log_uniform": (dist.LogUniform(1e-3, 1e2), st.loguniform(1e-3, 1e2)),
    "normal": (dist.Normal(-1.0, 3.0), st.norm(-1.0, 3.0)),
    "log_normal": (dist.LogNormal(0.7, 1.2), st.lognorm(1.2, scale=np.exp(0.7))),
    "half_normal": (dist.HalfNormal(2.0), st.halfnorm(0.0, 2.0)),
    "exponential": (dist.Exponential(4.0), st.expon(0.0, 0.25)),
    "positive_normal": (
        dist.TruncatedNormal(1.0, 0.5, low=0.0),
        st.truncnorm(-2.0, np.inf, loc=1.0, scale=0.5),
    ),
    "truncated_normal": (
        dist.TruncatedNormal(0.4, 0.3, low=-0.2, high=1.0),
        st.truncnorm(-2.0, 2.0, loc=0.4, scale=0.3),
    ),
}
TABLE = pytest.mark.parametrize(("prior", "truth"), PRIORS.values(), ids=PRIORS)


def one(prior) -> ParameterSpace:
    return ParameterSpace((Parameter("a", prior),))


@pytest.fixture
def space() -> ParameterSpace:
    return ParameterSpace(tuple(Parameter(name, prior) for name, (prior, _) in PRIORS.items()))


@TABLE
def test_maps_agree_with_scipy(prior, truth):
    z = np.linspace(0.01, 0.99, 99)[:, None]
    theta = one(prior).from_unit(z)
    # Rounding of the inverse normal CDF, largest in the tails, sets the tolerance.
    np.testing.assert_allclose(theta[:, 0], truth.ppf(z[:, 0]), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(one(prior).to_unit(theta), z, rtol=1e-12)
    expected = truth.logpdf(theta[:, 0])
    np.testing.assert_allclose(one(prior).log_prob(theta), expected, rtol=1e-12, atol=1e-12)


@TABLE
def test_unconstrained_coordinates_round_trip(prior, truth):
    theta = truth.ppf(np.linspace(0.05, 0.95, 19))[:, None]
    x = one(prior).to_unconstrained(theta)
    assert np.isfinite(x).all()
    # Logit and its inverse lose a few digits where the support is far from zero.
    np.testing.assert_allclose(one(prior).from_unconstrained(x), theta, rtol=1e-12)


@TABLE
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("z", [0.0, 1.0, -3.0, 4.0])
def test_ends_of_the_unit_interval_are_finite(prior, truth, dtype, z):
    del truth
    theta = one(prior).from_unit(np.full((1, 1), z, dtype))
    assert np.isfinite(theta).all()
    assert np.isfinite(one(prior).log_prob(theta)).all()


def test_parameters_of_one_kind_are_as_good_as_alone():
    """They are computed together, each with its own numbers, among others of another kind."""
    priors = [
        dist.Uniform(0.5, 1.5),
        dist.LogUniform(1e-3, 1e2),
        dist.Uniform(-7.0, 3.0),
        dist.TruncatedNormal(0.4, 0.3, low=-0.2, high=1.0),
        dist.LogUniform(1.0, 2.0),
        dist.TruncatedNormal(0.1, 0.2, low=-0.5, high=0.2),
        dist.Normal(1.0, 2.0),
        dist.Uniform(2.0, 2.5),
    ]
    space = ParameterSpace(tuple(Parameter(f"p{i}", prior) for i, prior in enumerate(priors)))
    z = np.random.default_rng(0).uniform(0.01, 0.99, (3, 2, len(priors)))
    theta, x = space.from_unit(z), space.to_unconstrained(space.from_unit(z))
    total = 0.0
    for index, prior in enumerate(priors):
        column = slice(index, index + 1)
        alone = one(prior)
        for name, together, argument in (
            ("from_unit", theta, z),
            ("to_unit", space.to_unit(theta), theta),
            ("to_unconstrained", x, theta),
            ("from_unconstrained", space.from_unconstrained(x), x),
        ):
            np.testing.assert_array_equal(
                together[..., column], getattr(alone, name)(argument[..., column]), err_msg=name
            )
        total = total + alone.log_prob(theta[..., column])
    # The sum is taken in another order.
    np.testing.assert_allclose(space.log_prob(theta), total, rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bounded_ends_are_reached_exactly(dtype):
    space = one(dist.Uniform(-2.0, 3.0))
    ends = space.from_unit(np.array([[0.0], [1.0]], dtype))
    np.testing.assert_array_equal(ends, [[-2.0], [3.0]])


def test_outside_the_support_there_is_no_density():
    space = one(dist.LogUniform(1.0, 2.0))
    np.testing.assert_array_equal(space.log_prob(np.array([[0.5], [2.5]])), [-np.inf, -np.inf])
    np.testing.assert_array_equal(space.to_unit(np.array([[0.5], [2.5]])), [[0.0], [1.0]])


def test_precision_follows_the_input_under_jit(space):
    for dtype in (jnp.float32, jnp.float64):
        with jax.enable_x64(True):
            z = jnp.full((2, 3, space.size), 0.3, dtype)
            for function in (space.from_unit, lambda z: space.to_unit(space.from_unit(z))):
                assert jax.jit(function)(z).dtype == dtype
            theta = space.from_unit(z)
            assert space.log_prob(theta).shape == (2, 3)
            assert jax.jit(space.log_prob)(theta).dtype == dtype


def test_float32_networks_need_no_x64(space):
    z = jnp.full((4, space.size), 0.3, jnp.float32)
    in_single = jax.jit(jax.vmap(space.from_unit))(z)
    assert in_single.dtype == jnp.float32
    in_double = space.from_unit(np.full((4, space.size), 0.3))
    # A few units in the last place of float32.
    np.testing.assert_allclose(in_single, in_double, rtol=3e-6)


def test_host_input_is_computed_in_double(space):
    for values in (np.full(space.size, 0.3), [0.3] * space.size):
        theta = space.from_unit(np.asarray(values))
        assert isinstance(theta, np.ndarray)
        assert theta.dtype == np.float64


def test_gradients_agree_with_finite_differences(space):
    with jax.enable_x64(True):
        z = jnp.linspace(0.2, 0.8, space.size)

        def total(z):
            return jnp.sum(jnp.log(jnp.abs(space.from_unit(z)))) + space.log_prob(
                space.from_unit(z)
            )

        h = 1e-6
        numeric = [(total(z + h * e) - total(z - h * e)) / (2 * h) for e in jnp.eye(space.size)]
        # Central differences: h² times third derivatives, about 1e-8 here.
        np.testing.assert_allclose(jax.grad(total)(z), np.array(numeric), rtol=1e-6, atol=1e-6)


def test_prior_made_in_either_precision_is_the_same():
    with jax.enable_x64(True):
        double = one(dist.LogUniform(1e-3, 1e2))
    z = np.linspace(0.0, 1.0, 11)[:, None]
    np.testing.assert_array_equal(double.from_unit(z), one(dist.LogUniform(1e-3, 1e2)).from_unit(z))


def test_samples_follow_the_prior(space, key):
    theta = space.sample(4096, key=key)
    assert theta.shape == (4096, space.size)
    assert theta.dtype == np.float64
    for column, (_, truth) in zip(theta.T, PRIORS.values(), strict=True):
        # Nine tests with a fixed seed; 1e-4 each would fail by chance once in a thousand seeds.
        assert st.kstest(column, truth.cdf).pvalue > 1e-4


@pytest.mark.parametrize("kind", list(Design))
@pytest.mark.parametrize("n", [0, 1, 5, 64, 100])
def test_designs_have_the_size_asked_for(space, kind, n, key):
    theta = space.design(n, kind=kind, key=key)
    assert theta.shape == (n, space.size)
    assert theta.dtype == np.float64
    assert np.isfinite(theta).all()
    np.testing.assert_array_equal(theta, space.design(n, kind=kind, key=key))


def test_designs_fill_evenly(space, key):
    def strata(kind, n):
        """How many of n equal slices of each axis hold a point, averaged over the axes."""
        z = space.to_unit(space.design(n, kind=kind, key=key))
        return np.mean([len(np.unique(np.floor(column * n))) for column in z.T])

    assert strata(Design.LATIN_HYPERCUBE, 100) == 100  # its definition
    assert strata(Design.SOBOL, 64) == 64  # a digital net: one point in each slice
    assert strata(Design.RANDOM, 100) < 80  # expectation 100 (1 - 1/e) = 63
    other = space.design(64, key=jr.fold_in(key, 1))
    assert not np.array_equal(other, space.design(64, key=key))


def test_named_values_round_trip(space, key):
    theta = space.sample(1, key=key)[0]
    named = space.as_dict(theta)
    assert list(named) == list(space.names)
    np.testing.assert_array_equal(space.from_dict(dict(reversed(named.items()))), theta)


def test_bad_parameters_are_refused():
    good = dist.Uniform(0.0, 1.0)
    with refuses(ValueError, "`name`"):
        Parameter(" ", good)
    with refuses(TypeError, "`name`"):
        Parameter(3, good)  # pyright: ignore[reportArgumentType]
    with refuses(TypeError, "`prior`.*'k'.*str"):
        Parameter("k", "3.0")  # pyright: ignore[reportArgumentType]
    with refuses(ValueError, r"`prior`.*'k'.*scalar.*\(2,\)"):
        Parameter("k", dist.Normal(jnp.zeros(2), 1.0))
    with refuses(ValueError, "`prior`.*'k'.*continuous"):
        Parameter("k", dist.Poisson(3.0))
    with refuses(ValueError, "`prior`.*'k'.*inverse CDF"):
        Parameter("k", dist.ImproperUniform(dist.constraints.real, (), ()))


def test_bad_spaces_are_refused():
    parameter = Parameter("k", dist.Uniform(0.0, 1.0))
    with refuses(ValueError, r"`parameters`.*repeated: \['k'\]"):
        ParameterSpace((parameter, parameter))
    with refuses(ValueError, "`parameters`.*at least one"):
        ParameterSpace(())
    with refuses(TypeError, "`parameters`.*Uniform"):
        ParameterSpace((dist.Uniform(0.0, 1.0),))  # pyright: ignore[reportArgumentType]


def test_bad_values_are_refused(space, key):
    with refuses(ValueError, r"`theta`.*9 parameters.*\(3,\)"):
        space.to_unit(np.zeros(3))
    with refuses(ValueError, r"`z`.*9 parameters.*\(\)"):
        space.from_unit(np.array(0.5))
    with refuses(ValueError, r"missing: \['normal'\], unknown: \['x'\]"):
        space.from_dict({name if name != "normal" else "x": 0.5 for name in space.names})
    with refuses(ValueError, "`theta`"):
        space.as_dict(np.zeros((2, space.size)))
    with refuses(ValueError, "`n`.*-1"):
        space.sample(-1, key=key)
    with refuses(TypeError, "`kind`.*'sobol'"):
        space.design(4, kind="sobol", key=key)


def test_exchanged_ends_of_a_prior_are_refused():
    for ends in ((1.0, 0.0), (0.5, 0.5)):
        with refuses(ValueError, "`prior` of parameter 'k'.*lower end below its upper end"):
            Parameter("k", dist.Uniform(*ends))
