"""Parameters that are fixed at a number."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

import inojax as ij
from inojax import PDEModel
from inojax._binding import Binding
from inojax.data._manifest import describe_measurement
from inojax.methods._estimates import estimate_from_cloud, estimate_from_point
from inojax.models import Collocation, partial
from inojax.noise import AR1, AbstractNoise, Gaussian, LogNormal, Poisson
from tests.refuses import refuses

pytestmark = pytest.mark.usefixtures("compiled_quickly")

PRIOR = dist.LogUniform(0.1, 10.0)
SPACE = ij.ParameterSpace(
    (
        ij.Parameter("fixed", 3.0, "1/s"),
        ij.Parameter("k", PRIOR, "1/s"),
        ij.Parameter("whole", 2),
        ij.Parameter("y0", PRIOR),
        ij.Parameter("last", np.float64(0.5)),
    )
)


# --- The space ------------------------------------------------------------------------------


def test_a_number_instead_of_a_prior_is_no_unknown(key):
    assert SPACE.names == ("k", "y0")
    assert SPACE.units == ("1/s", "")
    assert SPACE.size == 2
    assert SPACE.all_names == ("fixed", "k", "whole", "y0", "last")
    assert SPACE.fixed_values == (("fixed", 3.0, "1/s"), ("whole", 2.0, ""), ("last", 0.5, ""))
    assert [each.fixed for each in (*SPACE.fixed, *SPACE.parameters)] == [3.0, 2.0, 0.5, None, None]
    alone = ij.ParameterSpace((ij.Parameter("k", PRIOR), ij.Parameter("y0", PRIOR)))
    np.testing.assert_array_equal(SPACE.design(8, key=key), alone.design(8, key=key))
    np.testing.assert_array_equal(SPACE.sample(8, key=key), alone.sample(8, key=key))
    theta = SPACE.sample(3, key=key)
    assert theta.shape == (3, 2)
    np.testing.assert_array_equal(SPACE.log_prob(theta), alone.log_prob(theta))


@pytest.mark.parametrize(
    "value", [3, 3.0, np.float32(3.0), np.array(3.0), np.int64(3), jnp.asarray(3.0)]
)
def test_any_number_will_do(value):
    parameter = ij.Parameter("k", value)
    assert parameter.fixed == 3.0
    assert isinstance(parameter.fixed, float)


def test_what_is_no_finite_number_is_refused():
    for value in (np.nan, np.inf, -np.inf, np.array(np.nan)):
        with refuses(ValueError, "`prior` of parameter 'k' must be a finite number"):
            ij.Parameter("k", value)
    for value in (True, "3", None, [3.0], np.ones(2), 3j):
        with refuses(TypeError, "`prior` of parameter 'k' must be a NumPyro distribution.*number"):
            ij.Parameter("k", value)
    with refuses(ValueError, "`parameters`.*at least one.*fixed ones only"):
        ij.ParameterSpace((ij.Parameter("k", 3.0),))
    with refuses(ValueError, r"`parameters`.*repeated: \['k'\]"):
        ij.ParameterSpace((ij.Parameter("k", 3.0), ij.Parameter("k", PRIOR)))


def test_equations_see_all_parameters_where_they_were_declared():
    expected = [3.0, 5.0, 2.0, 7.0, 0.5]
    theta = np.array([5.0, 7.0])
    np.testing.assert_array_equal(SPACE.complete(theta), expected)
    assert isinstance(SPACE.complete(theta), np.ndarray)
    batch = jnp.ones((4, 3, 2), jnp.float32)
    assert SPACE.complete(batch).shape == (4, 3, 5)
    assert SPACE.complete(batch).dtype == jnp.float32
    np.testing.assert_array_equal(jax.jit(SPACE.complete)(theta), expected)
    jacobian = jax.jacfwd(SPACE.complete)(jnp.asarray(theta))
    np.testing.assert_array_equal(jacobian.T, np.eye(5)[[1, 3]])
    alone = ij.ParameterSpace((ij.Parameter("k", PRIOR),))
    values = jnp.ones(1)
    assert alone.complete(values) is values
    with refuses(ValueError, r"`theta`.*2 unknown parameters, k, y0; got shape \(5,\)"):
        SPACE.complete(np.ones(5))


def test_names_and_numbers_go_both_ways():
    theta = np.array([5.0, 7.0])
    named = {"fixed": 3.0, "k": 5.0, "whole": 2.0, "y0": 7.0, "last": 0.5}
    assert SPACE.as_dict(theta) == named
    np.testing.assert_array_equal(SPACE.from_dict(named), theta)
    np.testing.assert_array_equal(SPACE.from_dict({"y0": 7.0, "k": 5.0}), theta)
    with refuses(ValueError, "'fixed', which is fixed at 3.0"):
        SPACE.from_dict(named | {"fixed": 4.0})
    with refuses(ValueError, r"missing: \['k'\], unknown: \['x'\]"):
        SPACE.from_dict({"y0": 7.0, "x": 5.0})


def test_a_binding_without_some_names():
    binding = SPACE.binding.without(("k",))
    assert binding == Binding(("fixed", "whole", "y0", "last"), ((0, 3.0), (1, 2.0), (3, 0.5)))
    np.testing.assert_array_equal(binding.complete(np.array([7.0])), [3.0, 2.0, 7.0, 0.5])
    assert binding.unknown == ("y0",)


# --- Noise ----------------------------------------------------------------------------------

TIMES = np.array([0.1, 0.2, 0.5])
CLEAN = np.array([[1.0], [2.0], [4.0]])
READINGS = np.array([[1.1], [1.7], [4.2]])
NOISES = {
    "gaussian": (Gaussian("last"), Gaussian(0.5)),
    "one of two": (LogNormal(("last",)), LogNormal((0.5,))),
    "correlated": (AR1(Gaussian("last"), "tenth", step=0.1), AR1(Gaussian(0.5), 0.1, step=0.1)),
    "correlation unknown": (
        AR1(Gaussian("last"), "rho", step=0.1),
        AR1(Gaussian(0.5), "rho", step=0.1),
    ),
    "level unknown": (
        AR1(Gaussian("sigma"), "tenth", step=0.1),
        AR1(Gaussian("sigma"), 0.1, step=0.1),
    ),
    "none": (Poisson(), Poisson()),
}
NOISY = Binding(("last", "rho", "tenth", "sigma"), ((0, 0.5), (2, 0.1)))


@pytest.mark.parametrize(("named", "numbers"), NOISES.values(), ids=NOISES)
def test_levels_of_fixed_parameters_are_numbers(named, numbers):
    theta = np.array([0.3, 0.8])  # rho and sigma
    found, expected = named.bound_to(NOISY), numbers.bound(("rho", "sigma"))
    assert type(found) is type(named)
    readings = np.round(READINGS) if isinstance(named, Poisson) else READINGS
    for method in ("log_prob", "whiten"):
        values = [
            getattr(noise, method)(readings, CLEAN, theta, times=TIMES)
            for noise in (found, expected)
        ]
        np.testing.assert_array_equal(*values)


class Scaled(AbstractNoise):
    """Gaussian noise of a user, whose level is the third parameter."""

    def sample(self, clean, theta, *, times=None, key):
        return clean + theta[2] * jax.random.normal(key, clean.shape, clean.dtype)

    def log_prob(self, readings, clean, theta, mask=None, *, times=None):
        return Gaussian("c").bound(("a", "b", "c")).log_prob(readings, clean, theta, mask)

    def whiten(self, readings, clean, theta, mask=None, *, times=None):
        return (readings - clean) / theta[2]

    def log_scale(self, clean, theta, mask=None, *, times=None):
        return jnp.full(clean.shape, jnp.log(theta[2]))


def test_noise_of_users_gets_all_parameters():
    noise = Scaled().bound_to(Binding(("a", "b", "c"), ((1, 9.0),)))
    theta = jnp.array([1.0, 0.25])
    np.testing.assert_allclose(noise.whiten(READINGS, CLEAN, theta), (READINGS - CLEAN) / 0.25)
    np.testing.assert_allclose(noise.log_scale(CLEAN, theta), np.full((3, 1), np.log(0.25)))
    expected = Gaussian(0.25).log_prob(READINGS, CLEAN, theta)
    np.testing.assert_allclose(noise.log_prob(READINGS, CLEAN, theta), expected, rtol=1e-6)
    drawn = noise.sample(jnp.zeros((4000, 1)), theta, key=jax.random.key(0))
    assert abs(float(jnp.std(drawn)) / 0.25 - 1.0) < 0.05
    assert not noise.positive
    assert not noise.counts
    assert noise.stabilized(CLEAN) is None
    again = noise.bound_to(Binding(("a", "c", "d"), ((2, 0.5),)))
    np.testing.assert_allclose(again.whiten(READINGS, CLEAN, theta), (READINGS - CLEAN) / 0.5)
    assert isinstance(Scaled().bound_to(Binding(("a",))), Scaled)


def test_a_fixed_level_is_checked_like_any_other():
    with refuses(ValueError, "`scale`.*zero or more"):
        Gaussian("sigma").bound_to(Binding(("sigma", "k"), ((0, -1.0),)))
    with refuses(ValueError, "`correlation`"):
        AR1(Gaussian(1.0), "rho", step=1.0).bound_to(Binding(("rho", "k"), ((0, 1.5),)))
    with refuses(ValueError, "names 'tau', not among"):
        Gaussian("tau").bound_to(Binding(("sigma", "k"), ((0, 1.0),)))


# --- Partial differential equations ----------------------------------------------------------


def rod(prior, residual, ansatz=None, observable=None, noise=None):
    """u'' = -source(θ) in [0, 1], zero at both ends: u = strength sin(πx) / diffusivity."""
    x = np.linspace(0.0, 1.0, 5)
    model = PDEModel(
        residual,
        ansatz or (lambda n, x, theta: x[0] * (1.0 - x[0]) * n),
        domain={"x": (0.0, 1.0)},
        collocation=(11,),
        readings=x[:, None],
        solver=Collocation(nodes=20, iterations=1),
    )
    parameters = ij.ParameterSpace((ij.Parameter("strength", prior), ij.Parameter("D", PRIOR)))
    channels = None if observable is None else ("signal",)
    return ij.InverseProblem(
        "rod",
        parameters,
        model,
        ij.Sensors(ij.FixedTimes(x), channels, observable=observable),
        noise or Gaussian(0.1),
    )


def by_name(u, x, theta):
    return theta.D * partial(u, 0, 0)(x) + theta.strength * jnp.pi**2 * jnp.sin(jnp.pi * x[0])


def by_place(u, x, theta):
    return theta[1] * partial(u, 0, 0)(x) + theta[0] * jnp.pi**2 * jnp.sin(jnp.pi * x[0])


@pytest.mark.parametrize("residual", [by_name, by_place])
def test_formulas_see_fixed_parameters(residual):
    problem = rod(3.0, residual)
    assert problem.parameters.names == ("D",)
    exact = 3.0 * np.sin(np.pi * problem.model.times) / 2.0
    # Chebyshev polynomials of degree 20 are a sine to rounding.
    np.testing.assert_allclose(problem.model.solve(np.array([2.0])).states[:, 0], exact, atol=1e-10)
    _, slopes = problem.model.sensitivities(np.array([[2.0]]))
    np.testing.assert_allclose(slopes[0, :, 0, 0], -exact / 2.0, atol=1e-9)
    both = rod(PRIOR, residual)
    np.testing.assert_allclose(
        both.model.solve(np.array([3.0, 2.0])).states[:, 0], exact, atol=1e-10
    )
    finer = problem.model.tightened()
    np.testing.assert_allclose(finer.solve(np.array([2.0])).states[:, 0], exact, atol=1e-10)


def test_observables_and_noise_see_fixed_parameters(key):
    problem = rod(
        3.0,
        by_name,
        observable=lambda y, theta: theta.strength * y.u + theta["D"],
        noise=Gaussian("strength"),
    )
    exact = 3.0 * np.sin(np.pi * problem.model.times) / 2.0
    observation = problem.simulate(np.array([2.0]), key=key)
    found = problem.predict(np.array([2.0]), observation)[:, 0]
    np.testing.assert_allclose(found, 3.0 * exact + 2.0, atol=1e-9)
    whitened = problem.whitened_residual(np.array([2.0]), observation)[:, 0]
    expected = (np.asarray(observation.values)[:, 0] - found) / 3.0
    np.testing.assert_allclose(whitened, expected, rtol=1e-9)
    batch = problem.read(np.ones((4, 6, 1)), np.full((4, 1), 2.0))
    np.testing.assert_allclose(batch, np.full((4, 6, 1), 5.0))


def test_slips_in_formulas_are_told():
    with refuses(AttributeError, "'d' is not among the parameters of `theta`.*Did you mean 'D'"):
        rod(3.0, lambda u, x, theta: theta.d * partial(u, 0, 0)(x))
    with refuses(IndexError, r"`theta\[2\]` goes beyond the 2 parameters strength, D"):
        rod(3.0, lambda u, x, theta: theta[2] * partial(u, 0, 0)(x))
    with refuses(TypeError, r"`ansatz` must take the arguments `\(n, x, theta\)`"):
        rod(3.0, by_name, ansatz=lambda n, x: n)
    with refuses(TypeError, "`residual` gives values to NumPy"):
        rod(3.0, lambda u, x, theta: np.array([theta.D * partial(u, 0, 0)(x)]))
    with refuses(TypeError, "`observable` decides by a value"):
        rod(3.0, by_name, observable=lambda y, theta: y if y[0] > 1.0 else -y)
    with refuses(TypeError, r"`observable` must take the arguments `\(y, theta\)`"):
        rod(3.0, by_name, observable=lambda y: y)
    with refuses(KeyError, "'U' is not among the states of `y`: u. Did you mean 'u'"):
        rod(3.0, by_name, observable=lambda y, theta: [y["U"]])
    with refuses(ValueError, r"`observable` must return one value.*signal, shape \(1,\)"):
        rod(3.0, by_name, observable=lambda y, theta: theta[:2])


def test_estimates_say_what_was_fixed():
    problem = rod(3.0, by_name)
    for estimate in (
        estimate_from_point(problem, jnp.array([2.0])),
        estimate_from_cloud(problem, jnp.array([0.5]), jnp.full((4, 1), 0.5)),
    ):
        assert estimate.names == ("D",)
        assert estimate.fixed == (("strength", 3.0, ""),)


@pytest.mark.slow
def test_fits_say_what_was_fixed(key):
    problem = rod(3.0, by_name)
    observation = problem.simulate(np.array([2.0]), key=key)
    fit = ij.methods.LeastSquares(starts=2, draws=16, candidates=0).fit(problem, key=key)
    estimate = fit(observation, key=key)
    assert estimate.names == ("D",)
    assert estimate["strength"] == 3.0
    assert abs(estimate["D"] - 2.0) < 4.0 * estimate.std[0]
    assert "Fixed: strength = 3\n" in str(estimate)
    # Readings are linear in 1/D: the best fit in closed form, but for a flat prior of log D.
    shape = 3.0 * np.sin(np.pi * np.asarray(observation.times))
    values = np.asarray(observation.values)[:, 0]
    assert abs(1.0 / estimate["D"] - shape @ values / (shape @ shape)) < 0.02


# --- Ordinary differential equations ---------------------------------------------------------


def decay(*, y0=7.0, field=None, start=None, states=("a", "b")):
    """da/dt = -k a from y0, db/dt = -rate b from 1, with `rate` fixed at 2."""
    parameters = (
        ij.Parameter("rate", 2.0),
        ij.Parameter("k", PRIOR),
        ij.Parameter("y0", y0),
    )
    times = np.array([0.5, 1.0])
    return ij.InverseProblem(
        "decay",
        ij.ParameterSpace(parameters),
        ij.ODEModel(
            field or (lambda t, y, theta: [-theta.k * y.a, -theta["rate"] * y[1]]),
            start or (lambda theta: [theta.y0, 1.0]),
            times=times,
            states=states,
        ),
        ij.Sensors(ij.FixedTimes(times)),
        Gaussian(0.1),
    )


def test_vector_fields_see_fixed_parameters():
    problem = decay()
    times = problem.model.times
    exact = np.stack([7.0 * np.exp(-0.5 * times), np.exp(-2.0 * times)], axis=1)
    np.testing.assert_allclose(problem.model.solve(np.array([0.5])).states, exact, rtol=1e-5)
    ensemble = problem.model.solve_ensemble(np.array([[0.5], [0.5]]))
    np.testing.assert_allclose(ensemble.states, [exact, exact], rtol=1e-5)
    _, slopes = problem.model.sensitivities(np.array([[0.5]]))
    np.testing.assert_allclose(slopes[0, :, 0, 0], -times * exact[:, 0], rtol=1e-4)
    np.testing.assert_allclose(slopes[0, :, 1, 0], 0.0, atol=1e-12)
    np.testing.assert_array_equal(problem.observation_parameters, [False])
    unknown = decay(y0=PRIOR)
    assert unknown.parameters.names == ("k", "y0")
    np.testing.assert_allclose(unknown.model.solve(np.array([0.5, 7.0])).states, exact, rtol=1e-5)
    tight = problem.model.replace(rtol=1e-10)
    np.testing.assert_allclose(tight.solve(np.array([0.5])).states, exact, rtol=1e-8)


def test_data_sets_see_fixed_parameters(key):
    problem = decay()
    dataset = ij.simulate(problem, 16, key=key)
    exact = 7.0 * np.exp(-np.asarray(dataset.thetas) * problem.model.times)
    np.testing.assert_allclose(dataset.trajectories[:, :, 0], exact, rtol=1e-4)


def test_shapes_are_never_broadcast_and_positions_never_moved():
    with refuses(ValueError, r"`initial_state` must return one value for each.*a, b.*\(1,\)"):
        decay(start=lambda theta: theta[2:3])
    with refuses(IndexError, r"`theta\[5\]` goes beyond the 3 parameters rate, k, y0"):
        decay(field=lambda t, y, theta: -theta[5] * y)
    with refuses(TypeError, "`vector_field` decides by a value"):
        decay(field=lambda t, y, theta: y if t > 5 else -y)
    table = jnp.arange(4.0)
    with refuses(IndexError, "`vector_field` uses position 9 of an array"):
        decay(field=lambda t, y, theta: table[9] * y)


def test_a_model_without_a_problem_knows_no_names():
    model = ij.ODEModel(
        lambda t, y, theta: -theta.k * y, np.ones(2), times=np.ones(1), states=("a", "b")
    )
    with refuses(AttributeError, "belongs to no problem"):
        model.solve(np.array([0.5]))
    model = model.replace(vector_field=lambda t, y, theta: -theta[0] * y)
    np.testing.assert_allclose(
        model.solve(np.array([0.5])).states, np.exp([[-0.5, -0.5]]), rtol=1e-5
    )


NOISES = {
    "gaussian": ij.noise.Gaussian("s"),
    "per channel": ij.noise.Gaussian((0.1, "s")),
    "log-normal": ij.noise.LogNormal("s"),
    "ar1": ij.noise.AR1(ij.noise.Gaussian("s"), 0.5, step=1.0),
    "correlation": ij.noise.AR1(ij.noise.Gaussian(0.1), "s", step=1.0),
}


@pytest.mark.parametrize("name", NOISES)
def test_a_level_that_was_fixed_is_bound_anew(name):
    """Another value, or an unknown, in a problem made from the parts of the first."""

    def field(t, y, theta):
        return [-theta.k * y.a, theta.k * y.a]

    def problem(parameter, noise, model=None):
        space = ij.ParameterSpace((ij.Parameter("k", dist.Uniform(0.1, 3.0)), parameter))
        times = np.array([0.2, 0.4, 0.8])
        model = model or ij.ODEModel(field, [1.0, 0.5], times=times, states=("a", "b"))
        return ij.InverseProblem("p", space, model, ij.Sensors(ij.FixedTimes(times)), noise)

    first = problem(ij.Parameter("s", 0.05), NOISES[name])
    observation = first.simulate(np.array([1.0]), key=jr.key(0))
    again = problem(ij.Parameter("s", 0.5), first.noise, first.model)
    fresh = problem(ij.Parameter("s", 0.5), NOISES[name])
    unknown = problem(ij.Parameter("s", dist.Uniform(0.0, 1.0)), first.noise, first.model)
    expected = fresh.log_likelihood(np.array([1.0]), observation)
    assert again.log_likelihood(np.array([1.0]), observation) == expected
    assert unknown.log_likelihood(np.array([1.0, 0.5]), observation) == expected
    assert first.log_likelihood(np.array([1.0]), observation) != expected
    assert describe_measurement(first) != describe_measurement(again)
