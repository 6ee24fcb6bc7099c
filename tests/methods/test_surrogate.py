"""The surrogate of INO: what it looks at, and that nobody differentiates it."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.fft

from inojax import simulate
from inojax.methods import INO, INOInverter, SurrogateSettings
from inojax.methods.amortized._encoding import Encoder
from inojax.methods.amortized._familiar import Familiar
from inojax.methods.amortized._training_data import prepare
from inojax.methods.amortized.ino._drift import Drift, drift_loss, new_pool, residual_of
from inojax.methods.amortized.ino._surrogate import (
    Surrogate,
    new_surrogate,
    roughness,
    surrogate_error,
    surrogate_loss,
)
from inojax.train._loop import Trainer
from inojax.train._schedule import one_cycle
from tests.helpers import FNO_SETTINGS, UNTRAINED, linear_gaussian


@pytest.fixture(scope="module")
def setting():
    """Problem, encoder, data and an untrained surrogate with its response surface."""
    problem = linear_gaussian()
    encoder, data = prepare(problem, simulate(problem, 64, progress=False, key=jr.key(0)))
    settings = SurrogateSettings(FNO_SETTINGS, steps=4, batch=16, correction=(8,))
    surrogate = new_surrogate(problem, encoder, settings, data=data, key=jr.key(1))
    return problem, encoder, data, surrogate


def readings_of(problem: object, encoder: Encoder, values: float):
    """A batch of two observations that read `values` everywhere."""
    from inojax._observation import Observation

    observation = Observation(
        np.array([0.1, 0.5, 1.0], np.float32),
        np.full((3, 3), values, np.float32),
        np.ones((3, 3), bool),
        problem.channels,
        problem.name,
    )
    one = encoder.readings(observation)
    return jax.tree.map(lambda x: jnp.stack([x, x]), one)


Z = jnp.array([[0.3, 0.6], [0.8, 0.1]])


def test_a_prediction_that_hides_the_readings_does_not_depend_on_them(setting):
    problem, encoder, _, surrogate = setting

    @eqx.filter_jit
    def predict(surrogate, values, seen):
        readings = readings_of(problem, encoder, 0.0)
        readings = readings._replace(values=jnp.broadcast_to(values, readings.values.shape))
        rows = jax.vmap(encoder.rows)(readings)
        return surrogate(problem, encoder, Z, rows, jnp.broadcast_to(seen, (2, 3)))

    blind = eqx.filter_jit(lambda s: s(problem, encoder, Z))(surrogate)
    for values in (-1.0, 2.0):
        hidden = predict(surrogate, values, False)
        # One product instead of several, float32.
        np.testing.assert_allclose(hidden, blind, atol=1e-5)
    shown = predict(surrogate, 2.0, True)
    assert not np.allclose(shown, blind, atol=1e-5)


def test_predicting_the_readings_is_reading_the_prediction(setting):
    problem, encoder, _, surrogate = setting

    @eqx.filter_jit
    def both(surrogate):
        readings = readings_of(problem, encoder, 0.5)
        few = surrogate.at_readings(problem, encoder, Z, readings)
        whole = jnp.swapaxes(surrogate(problem, encoder, Z), 0, 1)
        return few, whole

    few, whole = both(surrogate)
    # Times 0.1, 0.5 and 1.0 are output times 0, 4 and 9; products of other shapes, float32.
    np.testing.assert_allclose(few, whole[:, np.array([0, 4, 9])], atol=1e-5)


def test_training_the_surrogate_lowers_its_held_out_error(setting):
    problem, encoder, data, surrogate = setting
    settings = SurrogateSettings(FNO_SETTINGS, steps=100, batch=32)
    trained = Trainer(one_cycle(5e-3, 100), 100, 25, progress=False).fit(
        surrogate,
        surrogate_loss(problem, encoder, settings, 0.15),
        data,
        held_out=surrogate_error(problem, encoder),
        key=jr.key(2),
    )
    before = eqx.filter_jit(surrogate_error(problem, encoder))(surrogate, data)
    assert trained.log.held_out.min() < 0.5 * before


def test_roughness_is_the_weighted_cosine_spectrum():
    error = np.random.default_rng(0).normal(size=(12, 3, 2))
    spectrum = scipy.fft.dct(error, norm="ortho", axis=0)
    weights = (np.arange(12) / 12.0)[:, None, None]
    got = jax.jit(roughness)(jnp.asarray(error, jnp.float32))
    # Float32 sums of 12 terms.
    np.testing.assert_allclose(got, np.mean((weights * spectrum) ** 2), rtol=1e-5)
    smooth = jnp.ones((12, 3, 2), jnp.float32)
    assert jax.jit(roughness)(smooth) < 1e-10
    assert got < np.mean(error**2)


# --- No derivative of the surrogate --------------------------------------------------------


class DerivativeTakenError(Exception):
    pass


@jax.custom_jvp
def not_differentiable(x):
    return x


@not_differentiable.defjvp
def _refuse(primals, tangents):
    del primals, tangents
    raise DerivativeTakenError


def guarded(output):
    return not_differentiable(output)


class Guarded(Surrogate):
    """A surrogate whose every output raises when anything differentiates it."""

    def __call__(self, *args, **kwargs):
        return guarded(super().__call__(*args, **kwargs))

    def at_readings(self, *args, **kwargs):
        return guarded(super().at_readings(*args, **kwargs))


@pytest.fixture
def guard(setting):
    surrogate = setting[-1]
    return Guarded(*(getattr(surrogate, f.name) for f in dataclasses.fields(surrogate)))


def test_the_guard_fires_when_one_does_differentiate(setting, guard):
    problem, encoder, data, surrogate = setting
    readings = readings_of(problem, encoder, 0.5)

    def misfit(z, surrogate):
        return jnp.sum(jnp.square(residual_of(problem, encoder, surrogate, z, readings)))

    assert np.isfinite(eqx.filter_jit(misfit)(Z, guard))
    plain = eqx.filter_jit(jax.grad(misfit))(Z, surrogate)
    assert np.any(plain != 0.0)
    # Under `jit` each stops while being traced, before anything is compiled.
    with pytest.raises(DerivativeTakenError):
        eqx.filter_jit(jax.grad(misfit))(Z, guard)
    with pytest.raises(DerivativeTakenError):
        eqx.filter_jit(lambda z: jax.jvp(lambda x: misfit(x, guard), (z,), (z,)))(Z)
    with pytest.raises(DerivativeTakenError):
        eqx.filter_jit(eqx.filter_grad(lambda surrogate: misfit(Z, surrogate)))(guard)
    # Training it, as the first stage does, must raise as well, or the guard proves nothing.
    loss = surrogate_loss(problem, encoder, SurrogateSettings(FNO_SETTINGS, batch=4), 0.0)
    with pytest.raises(DerivativeTakenError):
        eqx.filter_jit(eqx.filter_grad(lambda model: loss(model, None, data, key=jr.key(0))[0]))(
            guard
        )


def test_the_drift_is_trained_without_a_derivative_of_the_surrogate(setting, guard):
    problem, encoder, data, surrogate = setting
    settings = UNTRAINED["INO"].drift

    def train(surrogate):
        pool = new_pool(problem, encoder, settings, surrogate, data, key=jr.key(1))
        drift = eqx.filter_jit(lambda key: Drift(problem, encoder, settings, key=key))(jr.key(2))
        return Trainer(one_cycle(1e-3, 4), 4, 4, progress=False).fit(
            drift,
            drift_loss(problem, encoder, settings),
            (data, surrogate),
            carry=pool,
            key=jr.key(3),
        )

    with_guard, without = train(guard), train(surrogate)
    # The guard is the identity: the same training, and the particles did move.
    for a, b in zip(jax.tree.leaves(with_guard.model), jax.tree.leaves(without.model), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert with_guard.carry.age.max() > 0.0


def test_inference_works_without_a_derivative_of_the_surrogate(setting, guard):
    problem, encoder, _, _ = setting
    method = UNTRAINED["INO"]
    assert isinstance(method, INO)
    drift = Drift(problem, encoder, method.drift, key=jr.key(2))
    familiar = Familiar.blank(encoder.slots)
    inverter = INOInverter(
        problem=problem,
        method=method,
        encoder=encoder,
        familiar=familiar,
        surrogate=guard,
        drift=drift,
    )
    observation = problem.simulate(np.array([0.4, -0.6]), key=jr.key(4))
    assert np.isfinite(inverter(observation, key=jr.key(5)).value).all()
