"""Estimates: the table, the plain dictionary, and what happens to batches."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from safetensors.numpy import save_file

from inojax._estimate import Diagnostics, Estimate, Optima
from inojax._estimate_status import EstimateStatus
from inojax.methods import LeastSquares, calibrate
from tests.helpers import linear_gaussian
from tests.methods.toys import simulations
from tests.refuses import refuses

NAMES, UNITS = ("k1", "k19", "ratio"), ("min^-1", "ppm^-1 min^-1", "")
VALUE = np.array([0.35, 4.44e11, 1.3e-4])
STD = np.array([0.012, 2.0e11, 1e-6])
# Of 39 samples the second and the 38th are the ends at 5 and 95 %, the tenth and the 30th at 25
# and 75 %.
SAMPLES = VALUE + STD * (np.arange(39.0)[:, None] - 19.0) / 2.0


@pytest.fixture
def estimate() -> Estimate:
    status = np.array(int(EstimateStatus.OK))
    return Estimate(NAMES, UNITS, VALUE, VALUE * 0 + 0.5, STD, SAMPLES, np.array(1.0312), status)


def test_table(estimate):
    assert str(estimate).splitlines() == [
        "parameter   estimate      +/-  unit           90 % interval",
        "k1             0.350    0.012  min^-1         [0.2420, 0.4580]",
        "k19          4.4e+11  2.0e+11  ppm^-1 min^-1  [-1.356e+12, 2.244e+12]",
        "ratio      0.0001300  1.0e-06                 [0.0001210, 0.0001390]",
        "",
        "Chi-squared per reading: 1.03",
        "The model, solved again at the estimate, agrees with the readings.",
    ]


def test_table_without_samples_spread_or_check():
    plain = Estimate(NAMES, UNITS, VALUE, VALUE * 0 + 0.5, VALUE * np.nan)
    assert str(plain).splitlines() == [
        "parameter   estimate  +/-  unit",
        "k1            0.3500    -  min^-1",
        "k19        4.440e+11    -  ppm^-1 min^-1",
        "ratio      0.0001300    -",
        "",
        "Chi-squared per reading: not known",
        "The model has not been solved again at the estimate.",
    ]


@pytest.mark.parametrize("value", [0.0, -1e-300, np.nan, np.inf, 1e300])
@pytest.mark.parametrize("std", [0.0, 1e-300, np.nan, np.inf, 1e300])
def test_any_number_can_be_printed(value, std):
    one = np.array([value])
    table = str(Estimate(("k",), ("",), one, one, np.array([std]), np.array([[value], [std]])))
    assert table.startswith("parameter")


def test_every_status_has_its_sentence(estimate):
    for status in EstimateStatus:
        assert status.message.endswith((".", "unreliable."))
        changed = Estimate(NAMES, UNITS, VALUE, VALUE, STD, status=np.array(int(status)))
        assert str(changed).splitlines()[-1] == status.message


def test_dictionary_is_json(estimate):
    plain = json.loads(json.dumps(estimate.as_dict(), allow_nan=False))
    assert plain["status"] == "OK"
    assert plain["chi2_per_reading"] == 1.0312
    assert plain["parameters"]["k19"]["value"] == 4.44e11
    assert plain["parameters"]["k1"]["unit"] == "min^-1"
    # One rounding error of the interpolation between order statistics.
    np.testing.assert_allclose(plain["parameters"]["k1"]["interval_90"], [0.242, 0.458], rtol=1e-14)
    unknown = Estimate(NAMES, UNITS, VALUE, VALUE, VALUE * np.nan)
    plain = json.loads(json.dumps(unknown.as_dict(), allow_nan=False))
    assert plain["chi2_per_reading"] is None
    assert plain["parameters"]["k1"]["std"] is None
    assert plain["parameters"]["k1"]["interval_90"] is None


def test_optima_and_diagnostics_are_printed_and_json(estimate):
    optima = Optima(
        np.stack([VALUE, 2.0 * VALUE, VALUE]),
        np.full((3, 3), 0.5),
        np.array([1.5, 2.5, np.nan]),
        np.array([0.75, 0.25, 0.0]),
        np.array([0.125, 0.875, 0.0]),
    )
    diagnostics = Diagnostics(
        np.array([1.0, 1.02, 1.001]), np.full(3, 450.0), np.full(3, 200.0), np.array([-3.5, -3.6])
    )
    found = dataclasses.replace(estimate, optima=optima, diagnostics=diagnostics)
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert [row["starts"] for row in plain["optima"]] == [0.125, 0.875]
    assert plain["r_hat"]["k19"] == 1.02
    assert plain["tail_samples"]["k1"] == 200.0
    assert plain["log_evidence"] == [-3.5, -3.6]
    assert "tempering_exponent" not in plain
    lines = str(found).splitlines()
    assert (
        "Largest R-hat: 1.02; smallest effective sample size: 450 in the bulk, 200 in the tails"
        in lines
    )
    assert lines[-3].split() == ["weight", "starts", "misfit", *NAMES]
    assert lines[-2].split()[:3] == ["0.750", "0.125", "1.5"]
    weighed = dataclasses.replace(
        estimate, diagnostics=Diagnostics(tempering_exponent=np.array(0.5))
    )
    assert weighed.as_dict()["tempering_exponent"] == 0.5
    assert "R-hat" not in str(weighed)


def test_intervals(estimate):
    lower, upper = estimate.interval(0.5)
    np.testing.assert_allclose(lower, VALUE - 5 * STD, rtol=1e-12, atol=1e-18)
    np.testing.assert_allclose(upper, VALUE + 5 * STD, rtol=1e-12, atol=1e-18)
    with refuses(ValueError, "`level`.*1.5"):
        estimate.interval(1.5)
    with refuses(ValueError, "`interval` needs samples"):
        Estimate(NAMES, UNITS, VALUE, VALUE, STD).interval()


def test_an_estimate_outside_of_its_interval_is_told(estimate):
    """The first sits at an end of its prior, and the last in a far tail of its samples."""
    assert "Outside" not in str(estimate)
    assert [p["in_interval"] for p in estimate.as_dict()["parameters"].values()] == [True] * 3
    value = VALUE + STD * np.array([-9.5, 0.0, 9.5])
    unit = np.array([0.0, 0.5, 0.9])
    skewed = dataclasses.replace(estimate, value=value, unit_value=unit)
    (line,) = [line for line in str(skewed).splitlines() if line.startswith("Outside")]
    assert line == (
        "Outside of its central interval lies k1 (at an end of its prior), ratio (its posterior "
        "is skewed, or its samples were corrected)."
    )
    told = [p["in_interval"] for p in skewed.as_dict()["parameters"].values()]
    assert told == [False, True, False]
    optima = Optima(
        np.stack([value, VALUE]), np.full((2, 3), 0.5), np.array([1.0, 1.5]), np.array([0.1, 0.9]),
        np.array([0.5, 0.5]),
    )  # fmt: skip
    assert "ratio (the best of several optima)" in str(dataclasses.replace(skewed, optima=optima))
    # What single precision makes of a value is no reason.
    alike = dataclasses.replace(estimate, value=SAMPLES[1] * (1.0 - 1e-7))
    assert "Outside" not in str(alike)


def test_a_few_samples_have_no_90_percent_interval(estimate):
    few = dataclasses.replace(estimate, samples=SAMPLES[15:24])
    # They span 8 of 10 of the places where one more may fall.
    assert "80 % interval" in str(few).splitlines()[0]
    assert few.as_dict()["parameters"]["k1"]["interval_90"] is None
    nineteen = dataclasses.replace(estimate, samples=SAMPLES[10:29])
    assert "90 % interval" in str(nineteen).splitlines()[0]
    assert nineteen.as_dict()["parameters"]["k1"]["interval_90"] is not None


def test_without_a_spread_there_is_no_interval(estimate):
    none = dataclasses.replace(
        estimate, samples=SAMPLES * np.nan, std=STD * np.nan,
        status=np.array(int(EstimateStatus.NOT_CONVERGED)),
    )  # fmt: skip
    assert np.isnan(none.interval()).all()
    assert "[" not in str(none)
    plain = json.loads(json.dumps(none.as_dict(), allow_nan=False))
    assert plain["parameters"]["k1"]["interval_90"] is None
    assert plain["parameters"]["k1"]["in_interval"] is None


def test_points_where_starts_gave_up_are_not_called_optima(estimate):
    optima = Optima(
        np.stack([VALUE, 2.0 * VALUE]), np.full((2, 3), 0.5), np.array([1.0, 1.5]), np.zeros(2),
        np.array([0.5, 0.5]),
    )  # fmt: skip
    found = dataclasses.replace(estimate, optima=optima)
    assert "2 optima" in str(found)
    status = np.array(int(EstimateStatus.NOT_CONVERGED))
    assert "optima" not in str(dataclasses.replace(found, status=status))


def test_batches_from_vmap(estimate):
    def invert(shift):
        value = jnp.asarray(VALUE, jnp.float32) + shift
        samples = jnp.asarray(SAMPLES, jnp.float32) + shift
        return Estimate(NAMES, UNITS, value, value, value, samples)

    batch = jax.jit(jax.vmap(invert))(jnp.zeros(4))
    assert batch.status.shape == (4,)
    assert batch.interval()[0].shape == (4, 3)
    for action in (str, Estimate.as_dict):
        with refuses(ValueError, r"batch of shape \(4,\)"):
            action(batch)
    single = jax.tree.map(lambda x: x[0], batch)
    assert str(single).splitlines()[1].startswith("k1")


def test_printing_inside_jit_shows_the_types():
    value = jnp.asarray(VALUE, jnp.float32)
    shown = []

    def show(value):
        shown.append(str(Estimate(NAMES, UNITS, value, value, value)))
        return value

    jax.jit(show)(value)
    assert "f32[3]" in shown[0]


def test_arrays_must_fit_the_names():
    with refuses(ValueError, r"`std`.*3 parameters.*\(2,\)"):
        Estimate(NAMES, UNITS, VALUE, VALUE, STD[:2])
    with refuses(ValueError, "`units`.*3 names"):
        Estimate(NAMES, UNITS[:2], VALUE, VALUE, STD)


def test_parameters_are_read_by_name(estimate):
    for position, name in enumerate(NAMES):
        assert estimate[name] == VALUE[position]
        assert type(estimate[name]) is float
        np.testing.assert_array_equal(estimate.samples_of(name), SAMPLES[:, position])
    assert list(estimate) == list(NAMES)
    assert "k1" in estimate
    assert "k2" not in estimate


def test_batches_and_traced_estimates_are_read_by_name(estimate):
    batch = jax.tree.map(lambda x: np.stack([x, 2.0 * x]), estimate)
    np.testing.assert_array_equal(batch["k19"], [VALUE[1], 2.0 * VALUE[1]])
    assert batch.samples_of("ratio").shape == (2, 39)
    np.testing.assert_array_equal(batch.samples_of("ratio")[1], 2.0 * SAMPLES[:, 2])

    @jax.jit
    def ratio(estimate):
        return estimate["k1"] / estimate["ratio"] + jnp.mean(estimate.samples_of("k1"))

    single = jax.tree.map(lambda x: np.asarray(x, np.float32), estimate)
    np.testing.assert_allclose(ratio(single), 0.35 / 1.3e-4 + 0.35, rtol=1e-6)


def test_names_that_are_not_there_are_refused(estimate):
    with refuses(KeyError, "'k199' is not among the unknowns of this estimate.*Did you mean 'k19'"):
        estimate["k199"]
    with refuses(KeyError, "'Ratio' is not among.*Did you mean 'ratio'"):
        estimate.samples_of("Ratio")
    with refuses(TypeError, "`name` must be the name of a parameter; got 0.*`estimate.value`"):
        estimate[0]
    with refuses(ValueError, "`samples_of` needs samples"):
        Estimate(NAMES, UNITS, VALUE, VALUE, STD).samples_of("k1")


def test_fixed_parameters_are_told(estimate):
    fixed = (("kappa", 0.3, "1/s"), ("order", 2.0, ""))
    estimate = dataclasses.replace(estimate, fixed=fixed)
    assert estimate["kappa"] == 0.3
    assert "order" in estimate
    assert str(estimate).splitlines()[4:7] == [
        "",
        "Fixed: kappa = 0.3 1/s, order = 2",
        "",
    ]
    told = json.loads(json.dumps(estimate.as_dict(), allow_nan=False))
    assert told["fixed"] == {
        "kappa": {"value": 0.3, "unit": "1/s"},
        "order": {"value": 2.0, "unit": ""},
    }
    assert list(told["parameters"]) == list(NAMES)
    with refuses(KeyError, "'kappa' is fixed at 0.3"):
        estimate.samples_of("kappa")


# --- On disk, and as labeled arrays ---------------------------------------------------------------


def same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def calibrated_estimate():
    problem = linear_gaussian()
    inverter = LeastSquares(starts=2, max_starts=2, draws=32).fit(problem)
    observation = problem.simulate(np.array([0.4, -0.6]), key=jr.key(1))
    return calibrate(inverter, simulations(100, seed=1), key=jr.key(2))(observation, key=jr.key(3))


def test_all_of_an_estimate_comes_back(calibrated_estimate, tmp_path):
    assert calibrated_estimate.ticket.calibration is not None
    path = tmp_path / "estimate.safetensors"
    calibrated_estimate.save(path)
    loaded = Estimate.load(path)
    same_bits(calibrated_estimate, loaded)
    assert str(loaded) == str(calibrated_estimate)
    assert str(loaded.ticket) == str(calibrated_estimate.ticket)
    loaded.save(tmp_path / "again")
    assert path.read_bytes() == (tmp_path / "again").read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["again", path.name]


def test_a_point_comes_back(tmp_path):
    estimate = Estimate(
        NAMES, ("1/s", "", "m"), *(np.arange(3.0),) * 3, fixed=(("k", 0.1 + 0.2, "1/s"),)
    )
    estimate.save(tmp_path / "point")
    loaded = Estimate.load(tmp_path / "point")
    same_bits(estimate, loaded)
    assert loaded.samples is None
    assert loaded.ticket is None
    assert np.isnan(loaded.reduced_chi2)
    assert loaded.fixed == estimate.fixed
    assert loaded["k"] == 0.1 + 0.2


def test_other_files_are_no_estimates(calibrated_estimate, tmp_path):
    with refuses(FileNotFoundError, "`path` .*no file"):
        Estimate.load(tmp_path / "nothing")
    path = tmp_path / "estimate"
    path.write_text("time,x\n")
    with refuses(ValueError, "`path` .*damaged, or no estimate"):
        Estimate.load(path)
    save_file({"x": np.ones(3)}, path)
    with refuses(ValueError, "`path` .*no estimate"):
        Estimate.load(path)
    calibrated_estimate.save(path)
    path.write_bytes(path.read_bytes()[:-9])
    with refuses(ValueError, "`path` .*damaged"):
        Estimate.load(path)


def test_covariance_and_correlation_are_those_of_the_samples():
    root = np.array([[2.0, 0.0, 0.0], [1.0, 0.5, 0.0], [0.0, 0.0, 3.0]])
    samples = np.random.default_rng(0).standard_normal((2, 4000, 3)) @ root.T
    point = samples.mean(axis=1)
    unit = np.full((2, 3), 0.5)
    checked = np.full(2, np.nan), np.full(2, int(EstimateStatus.NOT_CHECKED))
    estimate = Estimate(NAMES, UNITS, point, unit, samples.std(1), samples, *checked)
    for row in range(2):
        np.testing.assert_allclose(estimate.covariance[row], np.cov(samples[row].T))
        np.testing.assert_allclose(estimate.correlation[row], np.corrcoef(samples[row].T))
    bare = dataclasses.replace(estimate, samples=None)
    assert bare.covariance.shape == (2, 3, 3)
    assert np.isnan(bare.correlation).all()


def test_as_labeled_arrays(calibrated_estimate):
    xarray = pytest.importorskip("xarray")
    found = calibrated_estimate.to_xarray()
    assert isinstance(found, xarray.Dataset)
    assert found.samples.dims == ("draw", "parameter")
    for name in calibrated_estimate:
        np.testing.assert_array_equal(
            found.samples.sel(parameter=name), calibrated_estimate.samples_of(name)
        )
        assert float(found["value"].sel(parameter=name)) == calibrated_estimate[name]
    batch = jax.tree.map(lambda x: np.stack([x, x]), calibrated_estimate).to_xarray()
    assert batch.samples.dims == ("batch", "draw", "parameter")
