"""The FitzHugh-Nagumo neuron with two unknown parameters, or more."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._inverse_problem import InverseProblem
from .._parameters import Parameter, ParameterSpace
from .._sensors import RandomTimes, Sensors
from ..models._ode import ODEModel
from ..noise import AR1, AbstractNoise, Gaussian
from ._checks import check_count, check_noise

_GAMMA, _CURRENT = 3.0, -0.4
_TIMES, _STEP = 1000, 0.2
# Name, mean and standard deviation of each prior, cut at two standard deviations.
_NEURON = (("theta0", 0.4, 0.3), ("theta1", 0.4, 0.4))
_THIRD = ("zeta", _CURRENT, 0.1)
# Standard deviations of the released noise parameters: of the level, relative to its mean, and of
# the correlation. Cut at four of them.
_LEVEL_SPREAD, _CORRELATION_SPREAD = 1.0 / 7.0, 0.05


def fitzhugh_nagumo(
    *,
    noise: float = 0.35,
    correlation: float = 0.8,
    unknown_noise: bool = False,
    unknown_current: bool = False,
    readings: int = 1000,
    missing: float = 0.0,
) -> InverseProblem:
    """Recover parameters of a spiking neuron from its noisy membrane potential.

    u' = γ (u - u³/3 + v + ζ) and v' = -(u - θ₀ + θ₁ v) / γ with γ = 3 and ζ = -0.4; only u is
    read, by default at all thousand times. Its noise is autoregressive. Use it to test methods on
    long series and on a response that jumps where a parameter adds or removes a spike.

    The published noise level has two readings: its marginal standard deviation is σ / Δt = 0.35
    with σ = 0.07 and Δt = 0.2 ms, which agrees with the published errors (the default), or it is
    σ itself, `noise=0.07`.

    Args:
        noise: Standard deviation of the noise of u; the mean of its prior if unknown.
        correlation: Correlation of the noise of neighbouring times, 0.2 ms apart; the mean of
            its prior if unknown.
        unknown_noise: Whether level and correlation are two more unknowns, `sigma` and `rho`.
        unknown_current: Whether the input current ζ is one more unknown, `zeta`. (The published
            variant with three parameters does not say in our sources which the third one is.)
        readings: Number of times, drawn from 1000 evenly spaced ones over 200 ms.
        missing: Chance that a single reading is lost.

    Returns:
        The inverse problem.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Rudi, Bessac and Lenzi, arXiv 2012.06691, section 2; γ, ζ and the start at the origin were
        fitted to its released series, the priors of the noise to its released parameters.

    Example:
        >>> problem = ij.problems.fitzhugh_nagumo()
        >>> problem.parameters.size, len(problem.channels)
        (2, 1)
    """
    check_noise(noise)
    check_count("readings", readings, most=_TIMES)
    neuron = (*_NEURON, _THIRD) if unknown_current else _NEURON
    unknowns = [_unknown(*one, 2.0) for one in neuron]
    if unknown_noise:
        unknowns += _noise_unknowns(noise, correlation)
    model = ODEModel(
        _with_current if unknown_current else _vector_field,
        np.zeros(2),
        times=np.arange(_TIMES) * _STEP,
        states=("u", "v"),
        rtol=1e-6,
        atol=1e-8,
        time_unit="ms",
    )
    sensors = Sensors(RandomTimes(readings), channels=("u",), missing=missing)
    scatter: AbstractNoise = Gaussian("sigma" if unknown_noise else noise)
    if unknown_noise or correlation != 0.0:
        scatter = AR1(scatter, "rho" if unknown_noise else correlation, step=_STEP)
    space = ParameterSpace(tuple(unknowns))
    return InverseProblem("fitzhugh_nagumo", space, model, sensors, scatter)


def _unknown(name: str, mean: float, deviation: float, cut: float) -> Parameter:
    import numpyro.distributions as dist

    low, high = mean - cut * deviation, mean + cut * deviation
    return Parameter(name, dist.TruncatedNormal(mean, deviation, low=low, high=high))


def _noise_unknowns(noise: float, correlation: float) -> list[Parameter]:
    import numpyro.distributions as dist

    spread = 4.0 * _CORRELATION_SPREAD
    if not (noise > 0.0 and spread <= correlation < 1.0 - spread + 1e-12):
        raise ValueError(
            "`unknown_noise` needs a positive `noise` and a `correlation` between "
            f"{spread:g} and {1.0 - spread:g}, around which their priors lie; got {noise!r} and "
            f"{correlation!r}."
        )
    level = _unknown("sigma", noise, _LEVEL_SPREAD * noise, 4.0)
    # The upper end of the prior stays below one, where there is no density.
    end = min(correlation + spread, 0.99)
    prior = dist.TruncatedNormal(
        correlation, _CORRELATION_SPREAD, low=correlation - spread, high=end
    )
    return [level, Parameter("rho", prior)]


def _vector_field(
    t: Float[Array, ""], y: Float[Array, " state"], theta: Float[Array, " parameter"]
) -> Float[Array, " state"]:
    return _slope(t, y, theta, _CURRENT)


def _with_current(
    t: Float[Array, ""], y: Float[Array, " state"], theta: Float[Array, " parameter"]
) -> Float[Array, " state"]:
    return _slope(t, y, theta, theta[2])


def _slope(t: Array, y: Array, theta: Array, current: float | Array) -> Array:
    del t
    u, v = y
    return jnp.stack(
        [_GAMMA * (u - u**3 / 3.0 + v + current), -(u - theta[0] + theta[1] * v) / _GAMMA]
    )
