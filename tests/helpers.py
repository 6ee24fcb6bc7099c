"""Tables of small, fast instances, for tests that hold for all of their kind.

A new problem, noise model, network or method adds one line here.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import numpyro.distributions as dist
from flax import linen

from inojax import ODEModel, problems
from inojax._inverse_problem import InverseProblem
from inojax._observation import Observation
from inojax._parameters import Parameter, ParameterSpace
from inojax._sensors import RandomTimes, Sensors
from inojax.methods import (
    INO,
    PINN,
    BiLO,
    DriftSettings,
    GaussNewtonWeightOptimizer,
    InverseMap,
    LeastSquares,
    Posterior,
    Regression,
    SequentialMonteCarlo,
    SurrogateSettings,
)
from inojax.nn import Convolutional, Dense, FlaxNetwork, FNOSettings
from inojax.nn._attention import ReadingAttention
from inojax.nn._conditional_fno import ConditionalFNO
from inojax.nn._conditional_mlp import ConditionalMLP
from inojax.nn._local_operator import LocalOperator
from inojax.nn._response_surface import ResponseSurface
from inojax.nn._spectral import SpectralConv
from inojax.noise import AR1, AbstractNoise, Gaussian, LogNormal


@contextlib.contextmanager
def optimizations(wanted: bool) -> Iterator[None]:
    """Compile with or without XLA's costly optimizations in this block."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", not wanted)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)


# --- A problem whose posterior is known -----------------------------------------------------

# dy/dt = A θ from y = 0, so y(t) = t A θ: readings are linear in the parameters.
SLOPES = np.array([[1.0, 0.0], [0.0, 1.0], [0.7, -0.7]])
LINEAR_TIMES = np.linspace(0.1, 1.0, 10)
LINEAR_NOISE = 0.25
# Uniform priors, of which the readings leave a twentieth or so.
LOWEST, HIGHEST = -2.0, 2.0


def _slope(t: Any, y: Any, theta: Any) -> Any:
    del t, y
    return jnp.asarray(SLOPES, theta.dtype) @ theta


def linear_gaussian(
    noise: float = LINEAR_NOISE, missing: float = 0.0, name: str = "linear"
) -> InverseProblem:
    """y(t) = t A θ with two unknowns, read three times of ten with Gaussian noise."""
    prior = dist.Uniform(LOWEST, HIGHEST)
    return InverseProblem(
        name,
        ParameterSpace((Parameter("a", prior, "1/s"), Parameter("b", prior, "1/s"))),
        ODEModel(_slope, np.zeros(3), times=LINEAR_TIMES, states=("x", "y", "z")),
        Sensors(RandomTimes(3), missing=missing),
        Gaussian(noise),
    )


def linear_posterior(observation: Observation) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of θ in unit coordinates, as if the prior were without ends.

    With design matrix X and noise σ they are (XᵀX)⁻¹ Xᵀy and σ² (XᵀX)⁻¹; it takes readings with
    leading batch axes.
    """
    times, values, mask = (
        np.asarray(x, np.float64) for x in (observation.times, observation.values, observation.mask)
    )
    rows = mask[..., None] * times[..., None, None] * SLOPES
    X = rows.reshape(*rows.shape[:-3], -1, 2)
    y = (mask * values).reshape(*values.shape[:-2], -1, 1)
    transposed = np.swapaxes(X, -1, -2)
    inverse = np.linalg.inv(transposed @ X)
    width = HIGHEST - LOWEST
    mean = ((inverse @ transposed @ y)[..., 0] - LOWEST) / width
    return mean, (LINEAR_NOISE / width) ** 2 * inverse


# --- The tables -----------------------------------------------------------------------------

PROBLEMS: dict[str, Callable[[], InverseProblem]] = {
    "pollu": problems.pollu,
    "robertson": problems.robertson,
    "lotka_volterra": problems.lotka_volterra,
    "grn": problems.grn,
    "fitzhugh_nagumo": problems.fitzhugh_nagumo,
    "lotka_volterra_log_normal": problems.lotka_volterra_log_normal,
    "boehm": problems.boehm,
}

# For clean values of two channels, and two parameters of these names.
NOISE_PARAMETERS = ("sigma", "tau")
NOISES: dict[str, AbstractNoise] = {
    "gaussian": Gaussian(0.3),
    "gaussian_per_channel": Gaussian([0.3, 2.0]),
    "gaussian_standardized": Gaussian.standardized(0.1, np.array([3.0, 0.2])),
    "gaussian_unknown": Gaussian("sigma").bound(NOISE_PARAMETERS),
    "gaussian_unknown_in_one": Gaussian((0.3, "tau")).bound(NOISE_PARAMETERS),
    "log_normal": LogNormal((0.3, 0.5)),
    "log_normal_unknown": LogNormal("sigma").bound(NOISE_PARAMETERS),
    "ar1": AR1(Gaussian((0.3, 2.0)), 0.8, step=0.5),
    "ar1_unknown": AR1(Gaussian((0.3, "tau")), "sigma", step=2.0).bound(NOISE_PARAMETERS),
    "ar1_log_normal": AR1(LogNormal("sigma"), 0.5, step=1.0).bound(NOISE_PARAMETERS),
}

FNO_SETTINGS = FNOSettings(width=8, modes=6, blocks=2, hidden=16, heads=2)


# Networks are made and called in one compiled piece each: operation by operation, JAX compiles
# every one of them, which takes ten times as long.


@eqx.filter_jit
def _spectral(key: jax.Array) -> tuple[Any, tuple[Any, ...]]:
    return SpectralConv(4, 5, key=key), (jr.normal(key, (12, 2, 4)),)


@eqx.filter_jit
def _attention(key: jax.Array) -> tuple[Any, tuple[Any, ...]]:
    layer = ReadingAttention(4, 3, 2, key=key)
    present = jnp.array([[True, False, True], [False] * 3])
    return layer, (jr.normal(key, (12, 2, 4)), jr.normal(key, (2, 3, 3)), present)


@eqx.filter_jit
def _fno(key: jax.Array) -> tuple[Any, tuple[Any, ...]]:
    network = ConditionalFNO(2, 3, 4, reading_features=5, settings=FNO_SETTINGS, key=key)
    present = jnp.array([[True, False, True], [False] * 3])
    rows = jr.normal(key, (2, 3, 5))
    return network, (jr.normal(key, (12, 2)), jr.normal(key, (2, 3)), rows, present)


@eqx.filter_jit
def _mlp(key: jax.Array) -> tuple[Any, tuple[Any, ...]]:
    network = ConditionalMLP(3, 4, 2, (5, 6), width=8, depth=2, key=key)
    present = jnp.array([True, False, True])
    return network, (jr.normal(key, (3, 4)), present, jr.normal(key, (2,)))


@eqx.filter_jit
def _series(key: jax.Array) -> tuple[Any, tuple[Any, ...]]:
    network = Convolutional((3, 4), kernel=3, stride=2, widths=(5,))((12, 2), 4, key=key)
    return network, (jr.normal(key, (12, 2)),)


def _flax(key: jax.Array) -> tuple[Any, tuple[Any, ...]]:
    module = linen.Sequential([linen.Dense(5), linen.silu, linen.Dense(3)])
    return FlaxNetwork(module, (12, 2), key=key), (jr.normal(key, (12, 2)),)


@eqx.filter_jit
def _local(key: jax.Array) -> tuple[Any, tuple[Any, ...]]:
    return LocalOperator(2, 3, 2, width=8, train_embedding=True, key=key), (
        jr.normal(key, (2,)),
        jr.normal(key, (3,)),
    )


def _surface(key: jax.Array) -> tuple[Any, tuple[Any, ...]]:
    x = np.asarray(jr.uniform(key, (50, 2)), np.float64)
    surface = ResponseSurface.fit(x, np.stack([x, x**2], axis=1))
    # As a trainable network, for the properties that all of them share.
    return jax.tree.map(jnp.asarray, surface), (jnp.asarray(x[:4], jnp.float32),)


# Each takes a key and returns the network with inputs for one call.
NETWORKS: dict[str, Callable[[jax.Array], tuple[Any, tuple[Any, ...]]]] = {
    "SpectralConv": _spectral,
    "ReadingAttention": _attention,
    "ConditionalFNO": _fno,
    "ConditionalMLP": _mlp,
    "ResponseSurface": _surface,
    "SeriesNetwork": _series,
    "FlaxNetwork": _flax,
    "LocalOperator": _local,
}

# Large enough to come near the posterior of `linear_gaussian`, small enough for seconds.
METHODS: dict[str, Any] = {
    "INO": INO(
        SurrogateSettings(FNO_SETTINGS, steps=400, batch=64, correction=(32, 32)),
        DriftSettings(
            width=64, depth=2, steps=12_800, batch=128, pool=512, learning_rate=3e-3, mask_rate=0.2
        ),
        particles=2,
        moves=4,
        draws=64,
    ),
    "Regression": Regression(width=64, depth=2, steps=5000, batch=128, learning_rate=3e-3),
}

# The same methods, trained for a moment only: for what does not depend on how well.
UNTRAINED: dict[str, Any] = {
    "INO": INO(
        SurrogateSettings(FNO_SETTINGS, steps=4, batch=16, correction=(8,)),
        DriftSettings(width=16, depth=1, steps=4, batch=16, pool=32),
        particles=2,
        moves=2,
        draws=8,
    ),
    "Regression": Regression(width=16, depth=1, steps=4, batch=16, draws=8),
}


def linear_series() -> InverseProblem:
    """The linear problem, read at all of its ten times in every experiment."""
    whole = linear_gaussian()
    sensors = Sensors(RandomTimes(len(LINEAR_TIMES)))
    return InverseProblem("series", whole.parameters, whole.model, sensors, whole.noise)


# Every method at its smallest, with a problem that it takes: for the contract that all share.
EVERY_METHOD: dict[str, tuple[Callable[[], InverseProblem], Any]] = {
    **{name: (linear_gaussian, method) for name, method in UNTRAINED.items()},
    "InverseMap": (linear_series, InverseMap(Dense((8,)), steps=4, batch=16, draws=8)),
    "LeastSquares": (linear_gaussian, LeastSquares(starts=2, max_starts=2, draws=16)),
    "Posterior": (linear_gaussian, Posterior(chains=2, warmup=20, draws=20)),
    "SequentialMonteCarlo": (
        linear_gaussian,
        SequentialMonteCarlo(populations=2, particles=64, moves=4, draws=32),
    ),
    "BiLO": (
        problems.scalar_poisson,
        BiLO(
            width=8,
            weight_optimizer=GaussNewtonWeightOptimizer(points=16),
            pretraining=3,
            steps=3,
            draws=8,
        ),
    ),
    "PINN": (
        problems.scalar_poisson,
        PINN(
            width=8, weight_optimizer=GaussNewtonWeightOptimizer(points=16), pretraining=3, steps=3
        ),
    ),
}
