"""The card where the posterior is known in closed form, and words where the truth is."""

import json

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
import pytest

import inojax as ij
from inojax.metrics import bayes_floor, identifiability
from inojax.metrics._sloppy import find_sloppy, informative, is_invisible
from inojax.metrics._sloppy_words import View, sentences
from tests.helpers import HIGHEST, LINEAR_NOISE, LINEAR_TIMES, LOWEST, SLOPES, linear_gaussian
from tests.refuses import refuses

WIDTH = HIGHEST - LOWEST
TIMES = (0.25, 0.5, 1.0)


def exact(times, slopes=SLOPES):
    """Fisher information of y = t A θ in unit coordinates."""
    rows = (np.asarray(times)[:, None, None] * slopes[None]).reshape(-1, 2) * WIDTH
    return rows.T @ rows / LINEAR_NOISE**2


def test_linear_gaussian_problems_have_the_closed_form(key):
    times = LINEAR_TIMES[[1, 4, 9]]
    card = identifiability(linear_gaussian(), ij.Sensors(ij.FixedTimes(times)), 4, key=key)
    variance = np.diag(np.linalg.inv(exact(times) + 12.0 * np.eye(2)))
    # The solver's relative tolerance of 1e-6 on a solution that is linear in time.
    np.testing.assert_allclose(card.fisher, exact(times), rtol=2e-6)
    np.testing.assert_allclose(card.eigenvalues, np.linalg.eigvalsh(exact(times)), rtol=2e-6)
    np.testing.assert_allclose(card.posterior_std, np.sqrt(variance), rtol=1e-6)
    np.testing.assert_allclose(card.contraction, 1.0 - 12.0 * variance, rtol=1e-6)
    # Physical values: the priors reach below zero. 1,024 quantiles have a variance of 1/12 less
    # a millionth of it.
    assert not card.logarithmic
    np.testing.assert_allclose(card.prior_std, WIDTH / np.sqrt(12.0), rtol=1e-6)
    np.testing.assert_allclose(card.scaled_std, WIDTH * np.sqrt(variance), rtol=2e-6)
    spreads = np.sqrt(12.0 / (12.0 + np.linalg.eigvalsh(exact(times))))
    np.testing.assert_allclose(card.direction_spread, spreads, rtol=2e-6)
    assert (card.rank, card.informative, card.invisible) == (2, 2, 0)
    assert card.sentences == ()
    assert "narrow every direction" in str(card)


def test_other_sensors_answer_what_if(key):
    """Only the third state, 0.7 (a - b) t: the sum of both cannot be seen."""
    sensors = ij.Sensors(ij.FixedTimes(LINEAR_TIMES[[4]]), channels=("z",))
    card = identifiability(linear_gaussian(), sensors, 2, key=key)
    np.testing.assert_allclose(card.fisher, exact(LINEAR_TIMES[[4]], SLOPES[[2]]), rtol=2e-6)
    assert (card.rank, card.informative, card.invisible) == (1, 1, 1)
    assert card.sentences == (
        "a by +1 and b by +1 can be shifted together (or by any multiple), and no reading "
        "changes: only a - b is visible.",
    )


def test_its_floor_is_the_bayes_floor(key):
    card = identifiability(linear_gaussian(), cases=16, key=key)
    floor = bayes_floor(linear_gaussian(), 16, key=key)
    assert card.floor.parameter_mse == floor.parameter_mse
    assert card.floor.standard_error == floor.standard_error
    np.testing.assert_array_equal(card.posterior_std, np.sqrt(floor.per_parameter))


def decay(names, rate, noise=1e-3):
    """y' = -rate(θ) y, read three times, with log-uniform priors over a decade."""
    prior = dist.LogUniform(0.3, 3.0)
    space = ij.ParameterSpace(tuple(ij.Parameter(name, prior) for name in names))
    model = ij.ODEModel(
        lambda t, y, theta: -rate(theta) * y, np.ones(1), times=np.array(TIMES), states=("y",)
    )
    sensors = ij.Sensors(ij.FixedTimes(TIMES))
    return ij.InverseProblem("decay", space, model, sensors, ij.noise.Gaussian(noise))


def test_products_and_absent_parameters_are_told(key):
    card = identifiability(decay("abc", lambda p: p[0] * p[1]), cases=32, key=key)
    assert card.sentences == (
        "a can be multiplied by any factor if b is divided by it, and no reading changes: only "
        "a * b is visible.",
        "c is invisible: no reading depends on it.",
    )
    assert (card.rank, card.informative, card.invisible) == (1, 1, 2)
    # Of two equal logarithms one half is settled if their sum is; c stays as it was.
    np.testing.assert_allclose(card.contraction, [0.5, 0.5, 0.0], atol=0.01)
    np.testing.assert_allclose(card.direction_spread[:2], 1.0)
    log = np.log(10.0) / np.sqrt(12.0)
    np.testing.assert_allclose(card.prior_std, log, rtol=1e-5)
    np.testing.assert_allclose(card.scaled_std[2], log, rtol=1e-5)
    assert card.logarithmic


def test_a_share_is_recognized(key):
    """k a / (a + b): exponents change from case to case, the formula does not."""
    problem = decay("kab", lambda p: p[0] * p[1] / (p[1] + p[2]))
    card = identifiability(problem, cases=32, key=key)
    assert card.sentences == (
        "Of k, a and b only one combination can be seen: k * a / (a + b).",
        "a and b can be multiplied by the same factor, and no reading changes.",
    )
    # Each case sees one direction, but another one in each; only a, b together are never seen.
    assert (card.rank, card.invisible) == (2, 2)


def told(names, gradient, noise=1e-2, units=None, logarithmic=True):
    """Sentences about information of one combination, from its gradient in θ or log θ."""
    theta = 10.0 ** np.random.default_rng(0).uniform(-0.5, 0.5, size=(100, len(names)))
    rows = np.stack([np.broadcast_to(g, 100) for g in gradient(*theta.T)], axis=1) / noise
    information = rows[:, :, None] * rows[:, None, :]
    units = units or ("",) * len(names)
    ones = np.ones(len(names))
    view = View(tuple(names), units, theta, ones, information, ones, logarithmic)
    return sentences(view, find_sloppy(information))


def share(*terms):
    total = sum(terms)
    return [term / total for term in terms]


@pytest.mark.parametrize(
    ("names", "gradient", "formula"),
    [
        ("ab", lambda a, b: (1, 2), "a * b^2"),
        ("ab", lambda a, b: (0.5, -1), "a / b^2"),
        ("abc", lambda a, b, c: (1, 1, -1), "a * b / c"),
        ("abc", lambda a, b, c: (-1, 1, 1), "a / (b * c)"),
        ("ab", share, "a + b"),
        ("abc", share, "a + b + c"),
        ("abc", lambda a, b, c: (1, *share(b, c)), "a * (b + c)"),
        ("abc", lambda a, b, c: (1, *np.subtract(1, share(b, c))), "a * b * c / (b + c)"),
        ("abc", lambda a, b, c: (1, *np.multiply(-1, share(b, c))), "a / (b + c)"),
    ],
)
def test_one_visible_combination_is_written_as_a_formula(names, gradient, formula):
    first = told(names, gradient)[0]
    assert first.endswith((f"can be seen: {formula}.", f": only {formula} is visible."))


def test_sums_need_one_unit():
    (line,) = told("ab", share, units=("m", "s"))
    assert "only one combination can be seen: about" in line
    assert "exponents that change over the prior (" in line


def test_weighted_sums_of_physical_values():
    (line,) = told("abc", lambda a, b, c: (1, 1, -2), logarithmic=False)
    assert line == "Of a, b and c only one combination can be seen: a + b - 2 c."


def test_weak_information_hides_a_parameter_in_numbers():
    """Spread 1/√(1 + 0.1) = 95 % is invisible, 1/√(1 + 0.3) = 88 % is not."""
    faint = np.tile(np.diag([0.1, 0.3, 100.0]), (8, 1, 1))
    assert is_invisible(faint, np.eye(3)[:, :1])
    assert not is_invisible(faint, np.eye(3)[:, 2:])
    sloppy = find_sloppy(faint)
    assert sloppy.dimension == 1
    assert [group.members for group in sloppy.groups] == [(0,)]
    width = np.array([0.95, 0.88, 0.1])
    ones = np.ones(3)
    view = View(("a", "b", "c"), ("",) * 3, np.ones((8, 3)), ones, faint, width, True)
    expected = "a is hardly visible: its posterior is 95 % of the prior's width."
    assert sentences(view, sloppy) == (expected,)


def test_directions_that_mix_everything_are_counted():
    """One null direction along (1, ..., 1) of seven: no small set of parameters explains it."""
    everything = np.eye(7) - np.full((7, 7), 1.0 / 7.0)
    information = np.tile(1e4 * everything, (8, 1, 1))
    sloppy = find_sloppy(information)
    assert (sloppy.dimension, sloppy.groups, sloppy.mixed) == (1, (), 1)
    ones = np.ones(7)
    view = View(tuple("abcdefg"), ("",) * 7, np.ones((8, 7)), ones, information, 0.4 * ones, True)
    (line,) = sentences(view, sloppy)
    assert line.startswith("One more direction is hardly visible, mixing ")
    assert line.endswith(" and others.")


def test_air_pollution_hides_what_its_chemistry_hides(key):
    """O1D = k16 O3 / (k18 + k19) with k18 far below k19, and k18 itself too rare to matter."""
    problem = ij.problems.pollu()
    card = identifiability(problem, cases=16, key=key)
    assert any(line.endswith("only k16 / k19 is visible.") for line in card.sentences)
    assert any(line.startswith("k18 is hardly visible: its pos") for line in card.sentences)
    assert card.contraction[problem.parameters.names.index("k18")] < 0.01
    blind = tuple(name for name in problem.channels if name != "O1D")
    sensors = ij.Sensors(ij.RandomTimes(3), channels=blind)
    card = identifiability(problem, sensors, 16, key=key)
    for name in ("k16", "k18", "k19"):
        assert any(line.startswith(f"{name} is hardly visible") for line in card.sentences)


def test_the_card_is_a_table_and_json(key):
    card = identifiability(decay("ab", lambda p: p[0] * p[1]), cases=4, key=key)
    text = str(card)
    assert text.startswith("Identifiability of decay: 2 parameters, 4 cases from the prior\n")
    assert "only a * b is visible." in text
    assert "rank 1 of 2" in text
    plain = json.loads(json.dumps(card.as_dict()))
    assert plain["names"] == ["a", "b"]
    assert plain["floor"]["parameter_mse"] == card.floor.parameter_mse
    assert plain["sentences"] == list(card.sentences)


def test_failed_solves_are_counted(key):
    """y' = a y² has no solution at t = 1 where a > 1, half of this prior."""
    model = ij.ODEModel(
        lambda t, y, theta: theta[:1] * jnp.square(y),
        np.ones(1),
        times=np.array([0.5, 1.0]),
        states=("y",),
        max_steps=200,
    )
    space = ij.ParameterSpace((ij.Parameter("a", dist.Uniform(0.0, 2.0)),))
    noise = ij.noise.Gaussian(0.1)
    problem = ij.InverseProblem("blow-up", space, model, ij.Sensors(ij.RandomTimes(1)), noise)
    card = identifiability(problem, cases=16, key=key)
    assert 0 < card.failed < 16
    assert card.cases + card.failed == 16
    assert f"{card.failed} more failed to solve" in str(card)


def test_no_reading_depends_is_said_only_where_it_is_so(key):
    """A rate that doubles at c = 1 has no derivative by c, and yet all readings know of it."""
    switch = decay("abc", lambda p: p[0] * jnp.where(p[2] > 1.0, 2.0, 1.0))
    card = identifiability(switch, cases=8, key=key)
    absent, switching = (
        next(line for line in card.sentences if line.startswith(f"{name} is ")) for name in "bc"
    )
    assert absent == "b is invisible: no reading depends on it."
    assert switching.startswith("c is hardly visible to derivatives, but readings change by up to")
    # exp(-a t) against exp(-2 a t) is 1/4 at most, for 250 standard deviations.
    told = float(switching.split("up to ")[1].split()[0])
    assert 100.0 < told <= 250.0


def test_moves_that_change_readings_by_steps_are_told(key):
    """Only a b is seen but for a switch of a, which no derivative knows."""
    problem = decay("ab", lambda p: p[0] * p[1] + jnp.where(p[0] > 1.0, 1.0, 0.0))
    (line,) = identifiability(problem, cases=8, key=key).sentences
    assert "and readings change by steps (" in line


def test_readings_that_overflow_are_no_failed_solves(key):
    """Of log-normal noise with a level of up to 10,000 most draws are no numbers."""
    prior = dist.LogUniform(0.3, 3.0), dist.LogUniform(1e-2, 1e4)
    space = ij.ParameterSpace(
        tuple(ij.Parameter(name, p) for name, p in zip(("k", "sigma"), prior, strict=True))
    )
    model = ij.ODEModel(
        lambda t, y, theta: -theta[0] * y, np.ones(1), times=np.array(TIMES), states=("y",)
    )
    sensors = ij.Sensors(ij.FixedTimes(TIMES))
    problem = ij.InverseProblem("wide", space, model, sensors, ij.noise.LogNormal("sigma"))
    card = identifiability(problem, cases=32, key=key)
    assert (card.cases, card.failed, card.undefined) == (32, 0, 0)
    assert "failed" not in str(card)
    # Three readings say 2 x 3 of the square of log sigma, whose prior is uniform over ln 10^6.
    information = 6.0 * np.log(1e6) ** 2
    np.testing.assert_allclose(card.posterior_std[1] ** 2, 1.0 / (12.0 + information), rtol=1e-6)


def test_cases_without_finite_readings_are_counted_apart(key):
    """The logarithm of what is negative for half of the prior."""
    space = ij.ParameterSpace((ij.Parameter("a", dist.Uniform(-1.0, 1.0)),))
    model = ij.ODEModel(
        lambda t, y, theta: theta[:1], np.zeros(1), times=np.array(TIMES), states=("y",)
    )
    sensors = ij.Sensors(ij.FixedTimes(TIMES), ("log",), observable=lambda y, theta: jnp.log(y))
    problem = ij.InverseProblem("log", space, model, sensors, ij.noise.Gaussian(0.1))
    card = identifiability(problem, cases=16, key=key)
    assert card.failed == 0
    assert 0 < card.undefined < 16
    assert f"{card.undefined} more were solved, but have no finite readings" in str(card)


def test_what_was_read_counts_instead_of_what_sensors_may_draw(key):
    """Only z at one time was read, and twice: times need not be those of the model."""
    problem = linear_gaussian()
    mask = np.array([[False, False, True], [False, False, True], [False, False, False]])
    observation = ij.Observation(
        np.array([0.25, 0.25, 0.9]), np.where(mask, 1.0, 0.0), mask, problem.channels
    )
    card = identifiability(problem, cases=4, observation=observation, key=key)
    np.testing.assert_allclose(card.fisher, exact([0.25, 0.25], SLOPES[[2]]), rtol=2e-6)
    assert "read as the observation was" in str(card)
    assert card.invisible == 1
    with refuses(ValueError, "`observation` says what was read, and so do `sensors`"):
        identifiability(problem, problem.sensors, observation=observation, key=key)
    with refuses(TypeError, "`observation` must be an `Observation`"):
        identifiability(problem, observation=3.0, key=key)  # type: ignore


def test_it_looks_at_the_parameters_given(key):
    """exp(-k t): the information about log k is (k t exp(-k t) / noise)², summed."""
    problem = decay("kb", lambda p: p[0])
    card = identifiability(problem, at=np.array([0.8, 1.0]), key=key)
    assert card.cases == 1
    times = np.array(TIMES)
    per_unit = 0.8 * times * np.exp(-0.8 * times) / 1e-3 * np.log(10.0)
    expected = np.diag([np.square(per_unit).sum(), 0.0])
    np.testing.assert_allclose(card.fisher, expected, rtol=1e-4, atol=1e-6)
    text = str(card)
    assert "1 case at the parameters given" in text
    assert "Bayes floor" not in text
    assert "b is invisible: no reading depends on it." in card.sentences
    random = ij.InverseProblem(
        "some", problem.parameters, problem.model, ij.Sensors(ij.RandomTimes(1)), problem.noise
    )
    assert identifiability(random, cases=8, at=[0.8, 1.0], key=key).cases == 8
    with refuses(ValueError, r"`at` must be one value for each of the 2 parameters; got .*\(3,\)"):
        identifiability(problem, at=np.ones(3), key=key)
    with refuses(ValueError, "`at` must lie inside of the prior; k does not"):
        identifiability(problem, at=np.array([7.0, 1.0]), key=key)


@pytest.mark.parametrize("seed", range(6))
def test_what_is_seen_and_what_is_not_are_never_more_than_there_is(seed):
    """One case in ten knows everything: the average does, and nine of ten do not."""
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(64, 12, 12)) * 10.0 ** rng.uniform(-4.0, 1.0, (64, 1, 12))
    roots[:6] *= 1e5
    information = roots @ np.swapaxes(roots, 1, 2)
    assert np.all(np.linalg.eigvalsh(information.mean(axis=0)) > 1.0)
    sloppy = find_sloppy(information)
    assert sloppy.dimension > 0
    assert informative(information) + sloppy.dimension <= 12


def test_bad_input_is_refused():
    key, problem = jr.key(0), linear_gaussian()
    with refuses(TypeError, "`sensors` must be of type `Sensors`, or None"):
        identifiability(problem, ij.RandomTimes(2), key=key)  # type: ignore
    with refuses(ValueError, "`cases` must be at least 2; got 1"):
        identifiability(problem, cases=1, key=key)
    with refuses(ValueError, "`scale`"):
        identifiability(linear_gaussian(noise=0.0), cases=2, key=key)
    with refuses(ValueError, "`sensors` reads channels"):
        identifiability(problem, ij.Sensors(ij.RandomTimes(2), channels=("w",)), key=key)
    levels = ij.InverseProblem(
        "levels", problem.parameters, problem.model,
        ij.Sensors(ij.RandomTimes(2), channels=("x", "y")), ij.noise.Gaussian((0.1, 0.2)),
    )  # fmt: skip
    with refuses(ValueError, "`sensors` reads z, for which the problem's noise has no level"):
        identifiability(levels, ij.Sensors(ij.RandomTimes(2), channels=("x", "z")), key=key)


def test_levels_of_correlated_noise_stay_with_their_channels(key):
    """Reversed channels see what they saw, each with its own level."""
    whole = linear_gaussian()
    noise = ij.noise.AR1(ij.noise.Gaussian((0.1, 1.0, 10.0)), correlation=0.5, step=0.1)
    sensors = ij.Sensors(ij.FixedTimes(LINEAR_TIMES[[4]]))
    problem = ij.InverseProblem("levels", whole.parameters, whole.model, sensors, noise)
    turned = ij.Sensors(ij.FixedTimes(LINEAR_TIMES[[4]]), channels=("z", "y", "x"))
    straight, reverse = (identifiability(problem, s, 16, key=key) for s in (None, turned))
    np.testing.assert_allclose(reverse.posterior_std, straight.posterior_std, rtol=1e-9)
