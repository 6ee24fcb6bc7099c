"""What all methods have in common: how they are fitted, called, saved and wrapped."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import inojax as ij
from inojax.methods import (
    AbstractMethod,
    ConformalInverter,
    LeastSquares,
    Posterior,
    calibrate,
    conformal,
    invert_batch,
)
from inojax.methods.exact._start import GivenEstimate
from tests.helpers import EVERY_METHOD, linear_gaussian, linear_series, optimizations
from tests.methods.toys import simulations
from tests.refuses import refuses

KEY = jr.key(3)
# Those that solve the model wait for doubles inside of transformations.
EXACT = {"LeastSquares", "Posterior", "SequentialMonteCarlo"}
# Products of other shapes round otherwise, in float32, and steps of an optimizer hand that on;
# physical values are near 1.
ROUNDING = 5e-4


@pytest.fixture(scope="module", params=EVERY_METHOD)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def problem(name):
    return EVERY_METHOD[name][0]()


@pytest.fixture(scope="module")
def method(name):
    return EVERY_METHOD[name][1]


@pytest.fixture(scope="module")
def dataset(problem):
    if not isinstance(problem.model, ij.ODEModel):
        return None
    return ij.simulate(problem, 64, progress=False, key=jr.key(1))


@pytest.fixture(scope="module")
def inverter(problem, method, dataset):
    with optimizations(False):
        return method.fit(problem, dataset, progress=False, key=jr.key(2))


@pytest.fixture(scope="module")
def readings(problem):
    """Two observations, as a batch."""
    unit = np.array([[0.4, 0.6], [0.7, 0.3]])[:, : problem.parameters.size]
    thetas = np.asarray(problem.parameters.from_unit(unit))
    each = [problem.simulate(theta, key=jr.key(i)) for i, theta in enumerate(thetas)]
    return jax.tree.map(lambda *x: np.stack(x), *each)


@pytest.fixture(scope="module")
def estimate(inverter, readings):
    with optimizations(False):
        return inverter(jax.tree.map(lambda x: x[0], readings), key=KEY)


def same_bits(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_it_is_made_of(name, problem, method, inverter):
    assert isinstance(method, AbstractMethod)
    assert inverter.problem is problem
    assert inverter.method is method
    assert inverter.settings.startswith(f"{name}(")


def test_a_single_call_is_checked(problem, estimate):
    assert estimate.names == problem.parameters.names
    assert estimate.status != ij.EstimateStatus.NOT_CHECKED
    assert np.isfinite(estimate.chi2_per_reading)
    assert estimate.ticket is not None
    assert estimate.ticket.status == estimate.status


def test_a_batch_says_what_single_calls_say(inverter, readings):
    keys = jr.split(KEY, 2)
    with optimizations(False):
        bare = invert_batch(inverter, readings, key=KEY)
        batch = invert_batch(inverter, readings, checked=True, key=KEY)
        assert bare.ticket is None
        np.testing.assert_array_equal(bare.value, batch.value)
        for row in range(2):
            one = inverter(jax.tree.map(lambda x, row=row: x[row], readings), key=keys[row])
            there = jax.tree.map(lambda x, row=row: x[row], batch)
            np.testing.assert_allclose(one.value, there.value, atol=ROUNDING)
            assert one.status == there.status
            np.testing.assert_allclose(one.ticket.p_value, there.ticket.p_value, rtol=0.1)
            assert one.ticket.verdict is there.ticket.verdict


def test_it_works_under_transformations(name, inverter, readings):
    keys = jr.split(KEY, 2)
    with optimizations(False), jax.enable_x64(name in EXACT):
        batch = jax.tree.map(jnp.asarray, readings)
        mapped = jax.jit(jax.vmap(lambda o, key: inverter(o, key=key)))(batch, keys)
        assert mapped.ticket is None
        together = jax.jit(lambda o, key: invert_batch(inverter, o, key=key))(batch, KEY)
        np.testing.assert_allclose(mapped.value, together.value, atol=ROUNDING)
        with refuses(ValueError, "`checked=True` solves the model on the host"):
            jax.jit(lambda o: invert_batch(inverter, o, checked=True, key=KEY))(batch)


def test_it_comes_back_from_disk_with_the_same_bits(problem, inverter, readings, tmp_path):
    ij.save(inverter, tmp_path / "one")
    loaded = ij.load(tmp_path / "one", problem)
    assert loaded.method == inverter.method
    ij.save(loaded, tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert (tmp_path / "two" / file.name).read_bytes() == file.read_bytes()
    with optimizations(False):
        one, other = (invert_batch(i, readings, key=KEY) for i in (inverter, loaded))
    same_bits(one, other)


def test_observations_of_others_are_refused(inverter, readings):
    one = jax.tree.map(lambda x: x[0], readings)
    other = dataclasses.replace(one, problem="other")
    with refuses(ValueError, "`observation` belongs to problem 'other'"):
        inverter(other, key=KEY)
    with refuses(ValueError, "batch"):
        inverter(readings, key=KEY)
    with refuses(ValueError, "`observations` must be a batch"):
        invert_batch(inverter, one, key=KEY)
    empty = dataclasses.replace(one, mask=np.zeros_like(one.mask))
    with refuses(ValueError, "holds no reading"):
        inverter(empty, key=KEY)


def test_what_it_has_no_use_for_is_named(name, problem, method, dataset, tmp_path):
    if name in EXACT:
        same = method.fit(problem)
        assert same.method is method
    else:
        with refuses(ValueError, "`key` is needed"):
            method.fit(problem, dataset, progress=False)
    if name in EXACT | {"BiLO", "PINN"}:
        with (
            optimizations(False),
            pytest.warns(UserWarning, match=f"{name} has no use for `checkpoint`: leave it out"),
        ):
            method.fit(problem, dataset, checkpoint=tmp_path, key=KEY)
        assert not list(tmp_path.iterdir())


# --- Wrappers and methods that build upon others ------------------------------------------------


@pytest.fixture(scope="module")
def linear():
    return linear_gaussian()


@pytest.fixture(scope="module")
def one(linear):
    return linear.simulate(np.array([0.4, -0.6]), key=KEY)


@pytest.mark.parametrize("name", ["LeastSquares", "SequentialMonteCarlo"], indirect=True)
def test_wrapped_exact_methods_come_back(problem, inverter, one, tmp_path):
    with optimizations(False):
        corrected = conformal(inverter, simulations(128, seed=4), key=KEY)
        calibrated = calibrate(corrected, simulations(100, seed=5), key=KEY)
        for which, folder in ((corrected, tmp_path / "one"), (calibrated, tmp_path / "two")):
            ij.save(which, folder)
            loaded = ij.load(folder, problem)
            assert type(loaded) is type(which)
            same_bits(which(one, key=KEY), loaded(one, key=KEY))
        assert isinstance(loaded.inner, ConformalInverter)


def test_refined_ones_come_back_with_what_they_refine(linear, one, tmp_path):
    with optimizations(False):
        first = LeastSquares(starts=2, max_starts=2, draws=16).fit(linear)
        second = LeastSquares(starts=1, max_starts=1, draws=8).refine(first)
        ij.save(second, tmp_path)
        loaded = ij.load(tmp_path, linear)
        assert loaded.first.method == first.method
        assert loaded.settings == second.settings
        assert "after LeastSquares(" in loaded.settings
        same_bits(second(one, key=KEY), loaded(one, key=KEY))


@pytest.mark.parametrize("samples", [True, False], ids=["samples", "a point"])
def test_an_estimate_is_refined(linear, one, samples, tmp_path):
    with optimizations(False):
        estimate = LeastSquares(starts=4, draws=32).fit(linear)(one, key=KEY)
        rough = dataclasses.replace(
            estimate, value=estimate.value + 0.3, samples=estimate.samples if samples else None
        )
        rough = dataclasses.replace(
            rough, unit_value=np.asarray(linear.parameters.to_unit(rough.value))
        )
        again = LeastSquares(starts=1, max_starts=1, draws=16).refine(rough, linear)
        assert isinstance(again.first, GivenEstimate)
        np.testing.assert_allclose(again(one, key=KEY).value, estimate.value, atol=1e-3)
        ij.save(again, tmp_path)
        same_bits(again(one, key=KEY), ij.load(tmp_path, linear)(one, key=KEY))


def test_estimates_to_refine_are_checked(linear, one):
    estimate = LeastSquares(starts=1, max_starts=1).fit(linear)(one, key=KEY)
    with refuses(ValueError, "`problem` is needed beside an estimate"):
        LeastSquares().refine(estimate)
    with refuses(ValueError, "`estimate` must be of the parameters alpha, beta.*it is of a, b"):
        Posterior().refine(estimate, ij.problems.lotka_volterra())
    with refuses(ValueError, "`problem` belongs to an estimate"):
        Posterior().refine(LeastSquares().fit(linear), linear_series())
    batch = jax.tree.map(lambda x: np.asarray(x)[None], estimate)
    with refuses(ValueError, r"`estimate` must be a single one.*\(1,\)"):
        LeastSquares().refine(batch, linear)
    with refuses(TypeError, "`start` must be a fitted inverter or an estimate; got LeastSquares"):
        LeastSquares().refine(LeastSquares())


def test_a_manifest_makes_no_other_classes(linear, tmp_path):
    ij.save(LeastSquares().fit(linear), tmp_path)
    file = tmp_path / "manifest.json"
    manifest = json.loads(file.read_text())
    for name in ("Popen", "InverseProblem", "save", "AbstractMethod", 3):
        manifest["inverter"]["method"]["class"] = name
        file.write_text(json.dumps(manifest))
        with refuses((ValueError, TypeError), "this version of inojax does not know|abstract"):
            ij.load(tmp_path, linear)
