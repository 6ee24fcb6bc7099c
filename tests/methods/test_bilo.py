"""BiLO where the answer is known, its theorem, and what it refuses."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

import inojax as ij
from inojax import save
from inojax.methods import (
    PINN,
    AdamParameterOptimizer,
    AdamWeightOptimizer,
    BiLO,
    Coordinates,
    GaussNewtonParameterOptimizer,
    GaussNewtonWeightOptimizer,
    LeastSquares,
    Penalty,
    invert_batch,
)
from inojax.methods.pde._unknowns import Functions
from inojax.methods.pde._weight_optimizers import Weights
from inojax.models import Collocation, Field, partial
from inojax.nn._local_operator import LocalOperator
from inojax.problems import (
    fisher_kpp,
    lotka_volterra,
    particles,
    scalar_poisson,
    variable_poisson,
)
from tests.refuses import refuses

KEY = jr.key(4)
SMALL = BiLO(
    width=32,
    weight_optimizer=GaussNewtonWeightOptimizer(points=64),
    pretraining=60,
    steps=80,
    penalty=Penalty.NONE,
)
TRUTH = 2.0


def test_rows_of_a_total_variation_have_its_derivative():
    """Of the weights of the network that an unknown function is."""
    problem = variable_poisson(noise=3e-3, penalty=1e-6, variation=1e-4)
    functions = Functions.draw(problem.model, 8, 1, key=KEY)
    weights, (field,) = Weights.of(functions), problem.model.fields
    points = jnp.linspace(0.0, 1.0, 101)[:, None]

    def squares(vector):
        return 0.5 * jnp.mean(jnp.square(weights.build(vector).slopes(points)[:, 1]))

    def penalty(vector):
        # In units of what the prior on slopes expects, and times it, is the slope itself.
        slopes = field.roughness * weights.build(vector).slopes(points)[:, 0]
        return jnp.mean(field.total_variation(slopes))

    found, wanted = jax.grad(squares)(weights.vector), jax.grad(penalty)(weights.vector)
    assert np.linalg.norm(wanted) > 1.0
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


def test_a_total_variation_flattens_what_bilo_finds():
    plain, flat = (
        variable_poisson(noise=3e-3, penalty=1e-6, variation=w, nodes=21) for w in (None, 1e-4)
    )
    field = plain.model.fields[0]
    truth = field.coefficients(lambda x: 1.0 + 0.25 * (np.abs(x - 0.5) < 0.2))
    observation = plain.simulate(truth, key=KEY)
    method = BiLO(width=32, field_width=32, pretraining=60, steps=80, penalty=Penalty.DENSITY)
    values = [
        np.asarray(field.nodal(method.fit(p, key=KEY)(observation, key=KEY).value))
        for p in (plain, flat)
    ]
    ups_and_downs = [np.abs(np.diff(v)).sum() for v in values]
    # That of the truth is 0.5; less than half of what noise adds to it is left.
    assert ups_and_downs[1] - 0.5 < 0.5 * (ups_and_downs[0] - 0.5)


@pytest.fixture(scope="module")
def rod():
    return scalar_poisson(noise=0.1)


@pytest.fixture(scope="module")
def inverter(rod):
    return SMALL.fit(rod, key=KEY)


def exact(observation):
    """The diffusivity of least squares: readings are sin(πx) / D."""
    wave = np.sin(np.pi * np.asarray(observation.times))
    return wave @ wave / (wave @ np.asarray(observation.values)[:, 0])


@pytest.fixture(scope="module")
def observations(rod):
    """Three with the same truth, as a batch."""
    seen = [rod.simulate(np.array([TRUTH]), key=key) for key in jr.split(KEY, 3)]
    return jax.tree.map(lambda *xs: np.stack(xs), *seen)


def one(observations, index):
    return jax.tree.map(lambda x: x[index], observations)


def test_it_finds_what_least_squares_finds(inverter, observations):
    estimate = invert_batch(inverter, observations, key=KEY)
    wanted = [exact(one(observations, index)) for index in range(3)]
    # What is asked of it where the equation is hard.
    np.testing.assert_allclose(estimate.value[:, 0], wanted, rtol=0.02)
    single = inverter(one(observations, 1), key=KEY)
    np.testing.assert_allclose(single.value[0], wanted[1], rtol=0.02)
    assert single.chi2_per_reading > 0.0


def test_its_intervals_are_those_of_the_linearized_posterior(inverter, observations):
    estimate = invert_batch(inverter, observations, key=KEY)
    for index in range(3):
        value = exact(one(observations, index))
        wave = np.sin(np.pi * np.asarray(observations.times[index]))
        # u = sin(πx) / D, so log D is known within σ D / |sin(πx)|.
        spread = 0.1 * value / np.sqrt(wave @ wave)
        found = np.std(np.log(estimate.samples[index, :, 0]))
        # 128 samples: four standard errors of a standard deviation are a quarter.
        np.testing.assert_allclose(found, spread, rtol=0.25)


@pytest.mark.parametrize("method", [SMALL, PINN(16, pretraining=20, steps=5)])
def test_many_are_trained_at_once(rod, observations, method):
    """Each as if it were alone, and followed with weights of its own."""
    keys = jr.split(KEY, 3)
    base = method.fit(rod, key=keys[0])

    def train(key):
        found = method.fit(rod, key=key)
        return eqx.filter(found.network, eqx.is_array), found.losses

    with jax.enable_x64(False):
        arrays, losses = jax.jit(jax.vmap(train))(keys)
    assert losses.shape == (3, method.pretraining)
    np.testing.assert_allclose(losses[0], base.losses, rtol=0.2)
    assert np.ptp(losses[:, 0]) > 0.0

    def follow(arrays, observation, key):
        network = eqx.combine(arrays, base.network)
        return dataclasses.replace(base, network=network).follow(observation, key=key).theta

    with jax.enable_x64(False):
        thetas = jax.jit(jax.vmap(follow))(arrays, observations, keys)
    assert np.isfinite(thetas).all()
    if isinstance(method, BiLO):
        wanted = [exact(one(observations, index)) for index in range(3)]
        np.testing.assert_allclose(thetas[:, 0], wanted, rtol=0.02)


def test_it_works_under_jit(inverter, observations):
    whole = invert_batch(inverter, observations, key=KEY)
    with jax.enable_x64(False):
        keys = jr.split(KEY, 3)
        traced = jax.jit(jax.vmap(lambda o, key: inverter(o, key=key)))(observations, keys)
    np.testing.assert_allclose(traced.value, whole.value, rtol=1e-3)


def test_a_mesh_of_devices_finds_the_same(inverter, observations):
    """Each device follows readings of its own."""
    pair = jax.tree.map(lambda x: x[:2], observations)
    mesh = jax.make_mesh((2,), ("seed",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.enable_x64(False):
        follow = jax.jit(jax.vmap(lambda o, k: inverter.follow(o, key=k).theta))
        given = jax.tree.map(jnp.asarray, pair), jr.split(KEY, 2)
        spread = jax.device_put(given, jax.NamedSharding(mesh, jax.P("seed")))
        shared, alone = follow(*spread), follow(*given)
    assert len(shared.sharding.device_set) == 2
    np.testing.assert_allclose(shared, alone, rtol=1e-4)


@pytest.mark.parametrize("make", [scalar_poisson, variable_poisson, particles])
def test_a_trained_operator_is_saved_and_loaded(make, tmp_path):
    problem = make()
    few = {"width": 8, "field_width": 6, "pretraining": 3, "steps": 3}
    for kind in (BiLO, PINN):
        method = dataclasses.replace(
            kind(weight_optimizer=GaussNewtonWeightOptimizer(points=16)), **few
        )
        trained = method.fit(problem, key=KEY)
        save(trained, tmp_path / kind.__name__)
        loaded = ij.load(tmp_path / kind.__name__, problem)
        space = problem.parameters
        observation = problem.simulate(
            np.asarray(space.from_unit(np.full(space.size, 0.4))), key=KEY
        )
        one, other = (i.follow(observation, key=KEY).theta for i in (trained, loaded))
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(trained.losses, loaded.losses)
        with refuses(ValueError, "was made with other settings"):
            other = dataclasses.replace(method, steps=4)
            ij.load(tmp_path / kind.__name__, problem, method=other)
        with refuses(ValueError, "`problem` is not the one"):
            ij.load(tmp_path / kind.__name__, fisher_kpp())


def test_the_operator_knows_the_solution_beside_its_parameters(inverter):
    """u = sin(πx) / D at the guess, and to first order near it."""
    x = np.linspace(0.0, 1.0, 21)[:, None]
    wave = np.sin(np.pi * x)
    np.testing.assert_allclose(inverter.predict(x, np.array([1.0])), wave, atol=2e-3)
    for shift in (-0.1, 0.1):
        found = np.asarray(inverter.predict(x, np.array([1.0 + shift])))
        # What the second derivative adds is 1 %.
        np.testing.assert_allclose(found, wave / (1.0 + shift), atol=0.02)


def test_the_operator_knows_what_a_constant_added_to_a_function_does():
    """Of a rod of unknown diffusivity: and not what a tilt or a wave does, which it cannot see."""
    problem = variable_poisson(noise=0.01)
    model, (field,) = problem.model, problem.model.fields
    inverter = dataclasses.replace(SMALL, pretraining=200).fit(problem, key=KEY)
    x = np.linspace(0.0, 1.0, 101)
    still = np.zeros(field.size)
    guess = np.asarray(inverter.functions.at("D", x), np.float64)

    def classical(shift):
        moved = Field("D", "x", x, ends=(1.0 + shift, 1.0 + shift), roughness=field.roughness)
        coefficients = moved.coefficients(np.r_[1.0 + shift, guess[1:-1] + shift, 1.0 + shift])
        fine = model.replace(fields=(moved,), readings=x[:, None])
        return np.asarray(fine.solve(coefficients).states)[:, 0]

    def local(shift):
        values = (guess + shift)[:, None].astype(np.float32)
        return np.asarray(inverter.predict(x[:, None], still, functions=values))[:, 0]

    size = np.abs(classical(0.0)).max()
    np.testing.assert_allclose(local(0.0), classical(0.0), atol=3e-3 * size)
    for shift in (-0.1, 0.1):
        change = classical(shift) - classical(0.0)
        assert np.abs(change).max() > 0.08 * size
        # What the second derivative adds is a tenth of the change.
        np.testing.assert_allclose(local(shift) - local(0.0), change, atol=0.02 * size)
    # The functions may be given as they are found, too.
    whole = inverter.predict(x[:, None], still, functions=inverter.functions)
    np.testing.assert_allclose(whole[:, 0], local(0.0), atol=1e-5)


def test_unknown_functions_are_asked_for_by_their_names(inverter):
    functions = dataclasses.replace(SMALL, pretraining=1).fit(variable_poisson(), key=KEY).functions
    np.testing.assert_allclose(functions.at("D", np.array([0.0, 1.0])), [1.0, 1.0], atol=1e-6)
    with refuses(ValueError, "`name` must be one of D; got 'f'"):
        functions.at("f", np.zeros(1))
    with refuses(ValueError, "`name` must be one of none; got 'D'"):
        inverter.functions.at("D", np.zeros(1))


def test_it_says_how_it_went(inverter, observations):
    observation = one(observations, 0)
    found = inverter.follow(observation, key=KEY)
    assert found.path.shape == (SMALL.steps, 1)
    np.testing.assert_allclose(found.path[0], 1.0)
    np.testing.assert_allclose(found.theta, exact(observation), rtol=0.02)
    assert found.misfit[-1] < 0.1 * found.misfit[0]
    x = np.linspace(0.0, 1.0, 21)[:, None]
    there = inverter.predict(x, found.theta, found.network)
    np.testing.assert_allclose(there, np.sin(np.pi * x) / float(found.theta[0]), atol=5e-3)


def test_the_direct_gradient_is_the_hypergradient(inverter, observations):
    """Theorem 2.1: with the equation solved, weights need not be differentiated."""
    observation, theta = one(observations, 0), 1.0
    x, y = (np.asarray(v, np.float64).ravel() for v in (observation.times, observation.values))
    wave = np.sin(np.pi * x)

    def misfit(theta):
        states = inverter.predict(x[:, None], theta)[:, 0]
        return jnp.mean(jnp.square(states - y))

    direct = jax.grad(misfit)(jnp.array([theta]))[0]
    # d/dD of the mean of (sin(πx) / D - y)², where the solution moves with D.
    whole = np.mean(2.0 * (wave / theta - y) * -wave / theta**2)
    np.testing.assert_allclose(direct, whole, rtol=0.01)
    ignorant = dataclasses.replace(SMALL, residual_gradient=1e-12).fit(inverter.problem, key=KEY)
    blind = jax.grad(lambda t: jnp.mean(ignorant.predict(x[:, None], t)[:, 0] - y))(jnp.ones(1))
    informed = jax.grad(lambda t: jnp.mean(inverter.predict(x[:, None], t)[:, 0] - y))(jnp.ones(1))
    exactly = np.mean(-wave)
    assert abs(informed[0] - exactly) < 0.1 * abs(blind[0] - exactly)


@pytest.mark.parametrize("method", [SMALL, BiLO.published(pretraining=3, steps=3)])
def test_only_a_trained_embedding_moves(rod, observations, method):
    """Inside of compiled functions as well, where a frozen one looks like any other array."""
    method = dataclasses.replace(method, width=32, pretraining=3, steps=3)
    drawn = LocalOperator(1, 1, width=32, key=jr.split(jr.split(KEY)[0])[0]).embedding
    for trained in (False, True):
        inverter = dataclasses.replace(method, train_embedding=trained).fit(rod, key=KEY)
        found = inverter.follow(one(observations, 0), key=KEY)
        for network in (inverter.network, found.network):
            assert np.array_equal(network.embedding, drawn) is not trained


def test_a_network_without_parameters_moves_nowhere(rod, observations):
    """The frozen embedding is what carries parameters into the network."""
    inverter = SMALL.fit(rod, key=KEY)
    blind = eqx.tree_at(lambda i: i.network.embedding, inverter, np.zeros((1, 32), np.float32))
    x = np.linspace(0.0, 1.0, 5)[:, None]
    np.testing.assert_array_equal(blind.predict(x, np.ones(1)), blind.predict(x, 2.0 * np.ones(1)))


def test_the_published_schedule_descends(rod, observations):
    method = dataclasses.replace(BiLO.published(pretraining=400, steps=400), width=32)
    inverter = method.fit(rod, key=KEY)
    assert inverter.losses[-1] < 1e-2 * inverter.losses[0]
    found = inverter.follow(one(observations, 0), key=KEY)
    # Steps of a thousandth each, all of them upward.
    assert 1.2 < found.theta[0] < 1.45
    assert found.misfit[-1] < found.misfit[0]


def test_priors_hold_estimates_back(rod, observations):
    observation = one(observations, 0)
    free = SMALL.fit(rod, key=KEY)(observation, key=KEY).value[0]
    held = dataclasses.replace(SMALL, penalty=Penalty.DENSITY)
    value = held.fit(rod, key=KEY)(observation, key=KEY).value[0]
    wave = np.sin(np.pi * np.asarray(observation.times))
    y = np.asarray(observation.values)[:, 0]
    grid = np.linspace(1.0, 4.0, 30_001)
    misfit = 0.5 * np.sum((wave / grid[:, None] - y) ** 2, axis=1) / 0.1**2
    density = np.log(grid) + 0.5 * np.log(grid) ** 2  # minus that of a standard log-normal
    np.testing.assert_allclose(value, grid[np.argmin(misfit + density)], rtol=0.02)
    assert value < free


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "`width` must be at least 1"),
        ({"steps": 0}, "`steps` must be at least 1"),
        ({"residual_gradient": 0.0}, "`residual_gradient` must be positive"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with refuses(ValueError, message):
        dataclasses.replace(SMALL, **change)


@pytest.mark.parametrize("kind", [BiLO, LeastSquares, PINN])
def test_choices_given_as_text_are_refused(kind):
    for name in {"penalty", "coordinates", "point"} & set(kind.__annotations__):
        with refuses(TypeError, f"`{name}` must be one of"):
            kind(**{name: "none"})
    for name in {"weight_optimizer", "parameter_optimizer", "field_optimizer"} & set(
        kind.__annotations__
    ):
        with refuses(TypeError, f"`{name}` must be one of Adam"):
            kind(**{name: "adam"})


def test_settings_are_written_with_their_defaults(inverter):
    """A default that changes is told apart when an inverter is loaded."""
    assert "residual_gradient=0.1" in inverter.settings
    assert "GaussNewtonParameterOptimizer(" in inverter.settings


def test_bad_rates_are_refused():
    for kind in (
        AdamWeightOptimizer,
        GaussNewtonWeightOptimizer,
        AdamParameterOptimizer,
        GaussNewtonParameterOptimizer,
    ):
        with refuses(ValueError, "`learning_rate` must be positive; got 0.0"):
            kind(learning_rate=0.0)
    with refuses(ValueError, "`points` must be at least 1"):
        GaussNewtonWeightOptimizer(points=0)
    with refuses(ValueError, "`reach` must be positive"):
        GaussNewtonParameterOptimizer(reach=-1.0)


def test_bad_problems_and_guesses_are_refused(rod):
    with refuses(TypeError, "`problem` must have a `PDEModel`"):
        SMALL.fit(lotka_volterra(), key=KEY)
    for guess in ((1.0, 2.0), (0.0,), (np.nan,)):
        with refuses(ValueError, "`guess` must be a finite number for each"):
            dataclasses.replace(SMALL, guess=guess).fit(rod, key=KEY)
    with refuses(ValueError, "`guess` must lie within the priors; -1 is none of 'D'"):
        dataclasses.replace(SMALL, guess=(-1.0,)).fit(rod, key=KEY)


@pytest.mark.slow
def test_fisher_kpp_ends_at_least_squares():
    """Readings of noise 1e-3, weights of their own, the default settings: 2 % in both parameters.

    With three tenths of a step for the parameters the second run wanders off along the valley.
    """
    problem = fisher_kpp(noise=1e-3)
    truth = np.full(2, TRUTH)
    noise_key = jr.fold_in(jr.key(0), 1)
    seen = [problem.simulate(truth, key=jr.fold_in(noise_key, seed)) for seed in range(2)]
    observations = jax.tree.map(lambda *xs: np.stack(xs), *seen)
    least = LeastSquares(
        penalty=Penalty.NONE, coordinates=Coordinates.UNCONSTRAINED, candidates=0
    ).fit(problem, key=KEY)
    wanted = invert_batch(least, observations, key=KEY).value
    method = BiLO(penalty=Penalty.NONE)
    fit_key, follow_key = jr.split(jr.key(3))
    found = []
    for index, (fit, follow) in enumerate(
        zip(jr.split(fit_key, 2), jr.split(follow_key, 2), strict=True)
    ):
        inverter = method.fit(problem, key=fit)
        found.append(inverter.follow(one(observations, index), key=follow).theta)
    np.testing.assert_allclose(found, wanted, rtol=0.02)


def test_a_diverging_run_says_so(rod):
    wild = dataclasses.replace(SMALL, weight_optimizer=AdamWeightOptimizer(1e30))
    with refuses(RuntimeError, "The residual is no longer finite after 60 steps"):
        wild.fit(rod, key=KEY)


def test_fisher_kpp_holds_the_published_information():
    """Nine readings at the published truth."""
    problem = fisher_kpp(noise=1e-2)
    _, tangents = problem.model.sensitivities(np.array([[TRUTH, TRUTH]]))
    # pde.md, section 2: norms 0.104 and 0.506, standard deviations 0.73 and 0.15.
    np.testing.assert_allclose(np.linalg.norm(tangents[0, :, 0], axis=0), [0.104, 0.506], atol=6e-4)
    fisher = tangents[0, :, 0].T @ tangents[0, :, 0] / 1e-4
    deviations = np.sqrt(np.diag(np.linalg.inv(fisher)))
    np.testing.assert_allclose(deviations, [0.73, 0.15], rtol=0.02)


def test_a_program_in_single_precision_spoils_no_double_precision():
    """What JAX keeps of arrays in a program of the caller's must not reach the solver."""
    table = np.linspace(0.1, 0.4, 8)  # of a user's own, beside the arrays of the problem

    def residual(u, x, theta):
        return theta[0] * partial(u, 0, 0)(x) + jnp.sum(jnp.asarray(table)) * x[0]

    places = np.linspace(0.1, 0.9, 5)
    problem = ij.InverseProblem(
        "rod with a table",
        ij.ParameterSpace((ij.Parameter("k", dist.Uniform(0.5, 2.0)),)),
        ij.PDEModel(
            residual,
            lambda n, x, theta: x[0] * (1.0 - x[0]) * n,
            domain={"x": (0.0, 1.0)},
            collocation=(17,),
            readings=places[:, None],
            solver=Collocation(),
        ),
        ij.Sensors(ij.FixedTimes(tuple(places))),
        ij.noise.Gaussian(0.01),
    )
    inverter = BiLO(pretraining=2).fit(problem, key=KEY, progress=False)
    observation = problem.simulate(np.ones(1), key=KEY)
    compiled = jax.jit(lambda o: inverter(o, key=KEY).value)  # alive until the end
    value = compiled(observation)
    np.testing.assert_allclose(inverter(observation, key=KEY).value, value, rtol=1e-5)
    refined = LeastSquares(starts=1, draws=8).refine(inverter)(observation, key=KEY)
    assert refined.status == ij.EstimateStatus.OK
