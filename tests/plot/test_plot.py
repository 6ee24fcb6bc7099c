"""Every kind of figure is drawn, and refuses what it cannot draw."""

import io
import subprocess
import sys

import jax
import matplotlib as mpl
import numpy as np
import numpyro.distributions as dist
import pytest
from matplotlib.figure import Figure

import inojax as ij
from inojax import plot
from tests.refuses import refuses

NAMES = ("a", "b", "c", "d", "e", "f", "g")
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def problem() -> ij.InverseProblem:
    return ij.problems.lotka_volterra()


@pytest.fixture(scope="module")
def observation(problem: ij.InverseProblem) -> ij.Observation:
    values = np.ones((2, len(problem.channels)))
    values[1, 0] = np.nan
    times = problem.model.times[[1, -1]]
    return ij.Observation.from_arrays(times, values, problem=problem)


@pytest.fixture
def states(problem: ij.InverseProblem) -> np.ndarray:
    return np.ones((len(problem.model.times), len(problem.model.states)))


def log(held_out: float) -> ij.train.TrainLog:
    steps = np.arange(1, 4) * 10
    losses, second = np.array([3.0, 2.0, 1.0]), np.asarray(1.0)
    return ij.train.TrainLog(steps, losses, np.full(3, held_out), second, second)


def cloud(names: tuple[str, ...]) -> dict[str, np.ndarray]:
    truth = RANDOM.uniform(size=(30, len(names)))
    return {"truth": truth, "estimate": truth, "lower": truth - 0.1, "upper": truth + 0.1}


def assert_drawn(figure: Figure, panels: int) -> None:
    """Something beyond the blank page is in each panel, and it can be written as PNG."""
    visible = [axes for axes in figure.get_axes() if axes.axison]
    assert len(visible) == panels
    assert all(axes.has_data() for axes in visible)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    assert file.getvalue().startswith(b"\x89PNG")


def test_recovery_has_a_panel_for_each_parameter_in_the_order_of_the_floor():
    floor = np.linspace(0.07, 0.01, len(NAMES))
    figure = plot.recovery(NAMES, floor=floor, **cloud(NAMES))
    assert_drawn(figure, len(NAMES))
    assert figure.get_axes()[0].get_title().startswith("g: 0 (floor 0.1")


def test_recovery_refuses_shapes_that_disagree():
    with refuses(ValueError, "`floor` and `names`"):
        plot.recovery(NAMES, floor=np.ones(3), **cloud(NAMES))


def test_parameter_errors_are_roots_in_the_order_of_the_floor():
    floor = np.linspace(0.07, 0.01, len(NAMES))
    figure = plot.parameter_errors(NAMES, {"one": 4.0 * floor, "two": floor}, floor)
    assert_drawn(figure, 1)
    (axes,) = figure.get_axes()
    assert [tick.get_text() for tick in axes.get_xticklabels()] == list(reversed(NAMES))
    (line,) = [line for line in axes.lines if line.get_label() == "one"]
    np.testing.assert_allclose(line.get_ydata(), 2.0 * np.sqrt(floor[::-1]))


def test_parameter_errors_refuse_a_wrong_length():
    with refuses(ValueError, "`INO` must have one value"):
        plot.parameter_errors(NAMES, {"INO": np.ones(3)}, np.ones(len(NAMES)))


def test_trajectories_show_what_is_there(
    problem: ij.InverseProblem, observation: ij.Observation, states: np.ndarray
):
    band = np.stack([states, 2.0 * states])
    figure = plot.trajectories(problem, observation, states=states, cloud=band, truth=states)
    assert_drawn(figure, len(problem.model.states))
    first, second = figure.get_axes()[:2]
    shown = [
        len(line.get_xdata())
        for axes in (first, second)
        for line in axes.lines
        if line.get_label() == "readings"
    ]
    assert shown == [1, 2]  # the missing reading is not drawn
    assert problem.model.time_unit in first.get_xlabel()


def test_readings_that_are_no_states_are_not_drawn_among_them(
    problem: ij.InverseProblem, observation: ij.Observation, states: np.ndarray
):
    first = problem.model.states[0]  # a channel may have the name of a state that it is not
    sensors = ij.Sensors(
        ij.RandomTimes(2), channels=(first,), observable=lambda y, theta: 100.0 * y[:1]
    )
    setting = ij.InverseProblem(
        "share", problem.parameters, problem.model, sensors, ij.noise.Gaussian(1.0)
    )
    percent = ij.Observation.from_arrays(observation.times, [[90.0], [80.0]], problem=setting)
    figure = plot.trajectories(setting, percent, states=states)
    labels = [line.get_label() for axes in figure.get_axes() for line in axes.lines]
    assert "readings" not in labels


def test_trajectories_refuse_unknown_states_and_batches(
    problem: ij.InverseProblem, observation: ij.Observation, states: np.ndarray
):
    with refuses(ValueError, "`show` must name states"):
        plot.trajectories(problem, observation, states=states, show=("nobody",))
    batch = ij.Observation(
        observation.times[None],
        observation.values[None],
        observation.mask[None],
        observation.channels,
    )
    with refuses(ValueError, "`observation` must be a single one"):
        plot.trajectories(problem, batch, states=states)


def test_overview_is_a_row_of_trajectories_above_the_errors(
    problem: ij.InverseProblem, observation: ij.Observation, states: np.ndarray
):
    floor = np.full(problem.parameters.size, 0.01)
    figure = plot.overview(
        problem, observation, states=states, cloud=None, truth=None,
        show=problem.model.states, errors={"INO": 2.0 * floor}, floor=floor,
    )  # fmt: skip
    assert_drawn(figure, len(problem.model.states) + 1)


def test_losses_are_logarithmic_where_they_can_be():
    figure = plot.losses({"one": log(0.5), "two": log(np.nan), "three": log(-0.5)})
    assert_drawn(figure, 3)
    assert [axes.get_yscale() for axes in figure.get_axes()] == ["log", "log", "linear"]
    assert [len(axes.lines) for axes in figure.get_axes()] == [2, 1, 2]


def test_losses_refuse_to_draw_nothing():
    with refuses(ValueError, "`logs` must hold"):
        plot.losses({})


def test_work_and_precision_have_a_panel_for_each_problem():
    lines = {"ours": [(1e-4, 0.1), (1e-6, 0.2)], "theirs": [(1e-5, 3.0)]}
    figure = plot.work_precision({"one": lines, "two_words": {"theirs": [(1e-3, 1.0)]}})
    assert_drawn(figure, 2)
    assert [axes.get_title() for axes in figure.get_axes()] == ["one", "two words"]
    assert all(axes.get_xscale() == axes.get_yscale() == "log" for axes in figure.get_axes())
    # One solver, one color, in every panel.
    first, second = figure.get_axes()
    assert first.lines[1].get_color() == second.lines[0].get_color()
    with refuses(ValueError, "`points` must hold"):
        plot.work_precision({})


def curve(cases: int, gap: float) -> ij.metrics.CoverageCurve:
    levels = np.array([0.25, 0.5, 0.75])
    each = np.stack([levels + gap, levels + gap, levels + gap], axis=1)
    error = np.sqrt(levels * (1.0 - levels) / cases)
    return ij.metrics.CoverageCurve(levels, each, each.mean(axis=1), error, cases)


def test_calibration_has_a_curve_for_each_method_around_the_diagonal():
    figure = plot.calibration({"INO": curve(400, -0.1), "corrected": curve(100, 0.02)})
    assert_drawn(figure, 1)
    (axes,) = figure.get_axes()
    drawn = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(drawn["INO"].get_ydata(), [0.15, 0.4, 0.65])
    np.testing.assert_allclose(drawn["corrected"].get_ydata(), [0.27, 0.52, 0.77])
    assert len(axes.lines) == 3  # with the diagonal
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    # Two standard errors of the fewest cases at one half: 2 × √(1/4 / 100).
    middle = corners[np.isclose(corners[:, 0], 0.5)][:, 1]
    np.testing.assert_allclose([middle.min(), middle.max()], [0.4, 0.6])


def test_calibration_of_one_method_shows_its_parameters():
    (axes,) = plot.calibration({"INO": curve(100, 0.1)}).get_axes()
    assert len(axes.lines) == 1 + 3 + 1


def test_calibration_refuses_to_draw_nothing():
    with refuses(ValueError, "`curves` must hold"):
        plot.calibration({})


def card(names: tuple[str, ...]) -> ij.metrics.IdentifiabilityCard:
    size = len(names)
    std = np.linspace(0.28, 0.01, size)
    values = 12.0 * 10.0 ** np.arange(-1.0, size - 1.0)
    values[0] = -1e-9  # a null direction, up to rounding
    return ij.metrics.IdentifiabilityCard(
        problem="made up", names=names, posterior_std=std, contraction=1.0 - 12.0 * std**2,
        logarithmic=True, scaled_std=std, prior_std=np.ones(size), fisher=np.diag(values),
        eigenvalues=values, rank=size - 1, informative=size - 2, directions=-np.eye(size),
        direction_spread=np.linspace(1.0, 0.1, size), invisible=1, sentences=("a is invisible.",),
        floor=ij.metrics.BayesFloor(0.01, std**2, 0.001, 8), cases=8, failed=0,
    )  # fmt: skip


def test_identifiability_has_bars_a_spectrum_and_the_sloppiest_directions():
    figure = plot.identifiability(card(NAMES))
    assert_drawn(figure, 4)  # the last one is the colors' scale
    bars, spectrum, loadings = figure.get_axes()[:3]
    assert [tick.get_text() for tick in bars.get_xticklabels()] == list(reversed(NAMES))
    heights = [bar.get_height() for bar in bars.patches[len(NAMES) :]]
    np.testing.assert_allclose(heights, np.sqrt(12.0) * np.linspace(0.01, 0.28, len(NAMES)))
    more, less = [line for line in spectrum.lines if not line.get_label().startswith("_")]
    assert (len(more.get_xdata()), len(less.get_xdata())) == (len(NAMES) - 2, 2)
    (image,) = loadings.get_images()
    # The sloppiest is the last parameter alone; its sign is turned to be positive.
    np.testing.assert_array_equal(image.get_array()[0], np.eye(len(NAMES))[-1])


def test_identifiability_of_a_single_parameter_and_of_no_card():
    assert_drawn(plot.identifiability(card(("a",))), 4)
    with refuses(TypeError, "`card` must be an `IdentifiabilityCard`"):
        plot.identifiability("a")  # type: ignore


def test_the_callers_style_is_left_alone():
    before = dict(mpl.rcParams)
    plot.losses({"one": log(0.5)})
    assert dict(mpl.rcParams) == before


def test_importing_it_opens_no_window_system():
    program = "import sys, inojax.plot; sys.exit('matplotlib.pyplot' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_predictive_has_bands_curves_and_readings(problem, observation):
    times = np.linspace(0.0, 20.0, 9)
    samples = RANDOM.uniform(size=(40, 9, 2))
    figure = plot.predictive(
        problem, observation, times=times, samples=samples, curves={"fit": samples[0]},
        time_zero=1900.0,
    )  # fmt: skip
    assert_drawn(figure, 2)
    hare, lynx = figure.get_axes()
    (line,) = [line for line in hare.lines if line.get_label() == "fit"]
    np.testing.assert_allclose(line.get_xdata(), times + 1900.0)
    # The second reading of the hare is missing.
    counts = [
        len(line.get_xdata())
        for axes in (hare, lynx)
        for line in axes.lines
        if line.get_label() == "readings"
    ]
    assert counts == [1, 2]
    assert len(hare.collections) == 2


def channels(count: int) -> tuple[ij.InverseProblem, ij.Observation]:
    """A problem with so many channels, and one reading of each."""
    times, names = np.array([1.0, 2.0]), tuple(f"s{number}" for number in range(count))
    space = ij.ParameterSpace((ij.Parameter("k", dist.Uniform(0.0, 1.0)),))
    model = ij.ODEModel(lambda t, y, k: -k[0] * y, np.ones(count), times=times, states=names)
    problem = ij.InverseProblem(
        "many", space, model, ij.Sensors(ij.FixedTimes((2.0,))), ij.noise.Gaussian(0.1)
    )
    return problem, ij.Observation.from_arrays([2.0], np.ones((1, count)), problem=problem)


LONG = "a curve whose name goes on for longer than any figure of one panel is wide"


@pytest.mark.parametrize("names", [(), ("best fit",), ("best fit", LONG)])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_legends_are_whole_and_every_panel_says_its_times(count, names):
    problem, observation = channels(count)
    times, samples = np.linspace(0.0, 2.0, 5), RANDOM.uniform(size=(9, 5, count))
    curves = dict.fromkeys(names, samples[0])
    figure = plot.predictive(problem, observation, times=times, samples=samples, curves=curves)
    assert_drawn(figure, count)
    (legend,) = figure.legends
    shown, page = legend.get_window_extent(), figure.bbox
    assert shown.x0 >= 0.0
    assert shown.x1 <= page.width
    assert shown.y1 <= page.height
    told = " ".join(text.get_text().replace("\n", " ") for text in legend.get_texts())
    assert all(name in told for name in names)
    for axes in figure.get_axes():
        if axes.axison:
            assert any(label.get_visible() and label.get_text() for label in axes.get_xticklabels())
            # What the legend takes is not taken from the panels.
            assert axes.get_window_extent().height > 1.5 * figure.dpi


def test_predictive_refuses_shapes_that_disagree(problem, observation):
    times, samples = np.arange(3.0), np.ones((5, 3, 2))
    with refuses(ValueError, "`samples` must hold a value for each of 3 times and 2 channels"):
        plot.predictive(problem, observation, times=times, samples=samples[:, :2])
    with refuses(ValueError, "`fit` must hold"):
        plot.predictive(problem, observation, times=times, samples=samples, curves={"fit": samples})


def test_pairs_have_a_marginal_for_each_parameter_and_a_panel_for_each_pair():
    problem = ij.problems.boehm()
    samples = problem.parameters.sample(50, key=jax.random.key(0))
    figure = plot.pairs(problem, samples, marks={"first": samples[0]})
    assert_drawn(figure, 45)
    panels = figure.get_axes()
    # Log-uniform priors are drawn by their decimal logarithm, where their density is flat.
    (prior,) = [line for line in panels[0].lines if line.get_label() == "prior"]
    grid, density = prior.get_xdata(), prior.get_ydata()
    np.testing.assert_allclose(density[(grid > -5.0) & (grid < 5.0)], 0.1, rtol=1e-9)
    np.testing.assert_allclose(panels[0].lines[-1].get_xdata()[0], np.log10(samples[0, 0]))


def test_pairs_refuse_shapes_that_disagree(problem):
    with refuses(ValueError, "`samples` must be at least two rows of 6 parameters"):
        plot.pairs(problem, np.ones((10, 3)))
    with refuses(ValueError, "`marks` must hold 6 parameters each; 'fit' has shape"):
        plot.pairs(problem, np.ones((10, 6)), marks={"fit": np.ones(3)})


def test_landscape_shows_misfit_points_and_paths():
    grid = np.linspace(0.0, 1.0, 5), np.linspace(-1.0, 1.0, 4)
    misfit = np.square(grid[0])[None, :] + np.square(grid[1])[:, None]
    misfit[0, 0] = np.nan  # where the model fails
    paths = RANDOM.uniform(size=(3, 2, 2))
    points = {"truth": np.array([[0.25, 0.5]])}
    figure = plot.landscape(("a", "b"), grid, misfit, points=points, paths=paths)
    assert_drawn(figure, 2)
    axes, bar = figure.get_axes()
    assert len(axes.lines) == 4
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), paths[0])
    np.testing.assert_array_equal(axes.lines[3].get_xydata(), points["truth"])
    # Of what is there: its least value, 1/9 at (0, -1/3), is the zero of the color scale.
    assert bar.get_ylim()[1] >= np.log10(1.0 + 2.0 - 1.0 / 9.0)
    plot.landscape(("a", "b"), grid, misfit)


def test_landscape_refuses_what_does_not_fit():
    grid = np.linspace(0.0, 1.0, 5), np.linspace(-1.0, 1.0, 4)
    with refuses(ValueError, r"`misfit` must have shape \(row, column\) = \(4, 5\).*got \(5, 4\)"):
        plot.landscape(("a", "b"), grid, np.ones((5, 4)))
    with refuses(ValueError, "`misfit` must have finite values"):
        plot.landscape(("a", "b"), grid, np.full((4, 5), np.nan))
    with refuses(ValueError, r"`points` of 'truth' must have shape \(point, 2\); got \(1, 3\)"):
        plot.landscape(("a", "b"), grid, np.ones((4, 5)), points={"truth": np.ones((1, 3))})


def test_profiles_show_curves_and_readings():
    x = np.linspace(0.0, 1.0, 9)
    panels = {
        name: {"exact": np.sin(x + shift), "found": np.cos(x)}
        for shift, name in enumerate(("first", "second", "third", "fourth"))
    }
    dots = {"second": (np.array([0.2, 0.4]), np.array([0.1, 0.3]))}
    figure = plot.profiles(x, panels, dots=dots)
    assert_drawn(figure, 4)
    used = [axes for axes in figure.get_axes() if axes.lines]
    assert [len(axes.lines) for axes in used] == [2, 3, 2, 2]
    assert [axes.get_title() for axes in used] == list(panels)


def test_profiles_refuse_what_does_not_fit():
    with refuses(ValueError, "`panels` must hold at least one"):
        plot.profiles(np.ones(3), {})
    with refuses(ValueError, "curve 'exact' of shape \\(2,\\) in 'one'"):
        plot.profiles(np.ones(3), {"one": {"exact": np.ones(2)}})
