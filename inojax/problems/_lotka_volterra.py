"""Predator and prey: the lynx and snowshoe hare of the Hudson's Bay Company."""

import dataclasses
import importlib.resources

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._inverse_problem import InverseProblem
from .._observation import Observation
from .._parameters import Parameter, ParameterSpace
from .._sensors import AbstractTimes, FixedTimes, RandomTimes, Sensors
from ..models._ode import ODEModel
from ..noise import AbstractNoise, Gaussian, LogNormal
from ._checks import check_count, check_noise

YEARS = tuple(float(year) for year in range(21))
_STATES = ("hare", "lynx")

_LOG_TEN = 2.302585092994046  # log(10): populations of a few tens of thousands of pelts


def lotka_volterra(
    *, noise: float = 5.0, readings: int | None = None, missing: float = 0.0
) -> InverseProblem:
    """Recover growth, predation, death and both initial populations of predator and prey.

    A smooth problem with measured data, `lynx_hare`. Hare h and lynx l follow
    dh/dt = (α - β l) h and dl/dt = (δ h - γ) l; the priors are those of the Stan case study,
    which has log-normal noise: see `lotka_volterra_log_normal`.

    Args:
        noise: Standard deviation of the noise in thousands of pelts, the same for both.
            Fitting the measured data by least squares leaves residuals of 3.8 thousand
            (root mean square), and 5 leaves room for the model being wrong.
        readings: Number of times, drawn from the yearly ones; all 21 years by default.
        missing: Chance that a single reading is lost.

    Returns:
        The inverse problem, with times in years after 1900 and thousands of pelts.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Carpenter (2018), Predator-Prey Population Dynamics: the Lotka-Volterra model in Stan.

    Example:
        >>> problem = ij.problems.lotka_volterra()
        >>> problem.parameters.size, len(problem.channels)
        (6, 2)
    """
    check_noise(noise)
    parameters = ParameterSpace(_dynamics())
    return _problem("lotka_volterra", parameters, Gaussian(noise), readings, missing)


def lotka_volterra_log_normal(
    *, readings: int | None = None, missing: float = 0.0
) -> InverseProblem:
    """Recover predator and prey from readings whose relative error is unknown too.

    The problem of the Stan case study: `lotka_volterra` with log-normal noise, the levels
    sigma_hare and sigma_lynx of which make eight unknowns. Use it for the posterior of measured
    data, and to test methods on noise of unknown level. Some prior draws let a population fall
    below what float64 holds; no reading is possible there.

    Args:
        readings: Number of times, drawn from the yearly ones; all 21 years by default.
        missing: Chance that a single reading is lost.

    Returns:
        The inverse problem, with times in years after 1900 and thousands of pelts.

    Raises:
        ValueError: If an argument is out of range.

    Source:
        Carpenter (2018), Predator-Prey Population Dynamics: the Lotka-Volterra model in Stan.

    Example:
        >>> problem = ij.problems.lotka_volterra_log_normal()
        >>> problem.parameters.size, len(problem.channels)
        (8, 2)
    """
    import numpyro.distributions as dist

    levels = tuple(f"sigma_{name}" for name in _STATES)
    unknown = (Parameter(level, dist.LogNormal(-1.0, 1.0)) for level in levels)
    parameters = ParameterSpace((*_dynamics(), *unknown))
    noise = LogNormal(levels)
    return _problem("lotka_volterra_log_normal", parameters, noise, readings, missing)


def _problem(
    name: str,
    parameters: ParameterSpace,
    noise: AbstractNoise,
    readings: int | None,
    missing: float,
) -> InverseProblem:
    if readings is not None:
        check_count("readings", readings, most=len(YEARS))
    model = ODEModel(
        _vector_field,
        _initial_state,
        times=np.array(YEARS),
        states=_STATES,
        rtol=1e-6,
        # Between outbreaks some prior draws fall to 1e-40, and from there the next one grows:
        # only relative accuracy counts.
        atol=1e-16,
        time_unit="year",
        state_unit="thousand pelts",
    )
    times: AbstractTimes = FixedTimes(YEARS) if readings is None else RandomTimes(readings)
    return InverseProblem(name, parameters, model, Sensors(times, missing=missing), noise)


def lynx_hare() -> Observation:
    """The pelts of lynx and hare that the Hudson's Bay Company collected from 1900 to 1920.

    Returns:
        21 yearly readings of both in thousands of pelts, for `lotka_volterra` and
        `lotka_volterra_log_normal`; time 0 is 1900.

    Source:
        Hewitt (1921), The Conservation of the Wild Life of Canada, by way of Howard (2009),
        Modeling Basics (lecture notes, Texas A&M), and Carpenter (2018).

    Example:
        >>> observation = ij.problems.lynx_hare()
        >>> observation.values.shape
        (21, 2)
    """
    data = importlib.resources.files("inojax.problems") / "_data" / "lynx_hare.csv"
    with importlib.resources.as_file(data) as path:
        observation = Observation.from_csv(path, lotka_volterra())
    # What was measured belongs to no single model of it.
    return dataclasses.replace(observation, problem="")


def _dynamics() -> tuple[Parameter, ...]:
    import numpyro.distributions as dist

    def positive(mean: float, std: float) -> dist.Distribution:
        return dist.TruncatedNormal(mean, std, low=0.0)

    rate, encounter, pelts = "1/year", "1/(year thousand pelts)", "thousand pelts"
    return (
        Parameter("alpha", positive(1.0, 0.5), rate),
        Parameter("beta", positive(0.05, 0.05), encounter),
        Parameter("gamma", positive(1.0, 0.5), rate),
        Parameter("delta", positive(0.05, 0.05), encounter),
        Parameter("hare0", dist.LogNormal(_LOG_TEN, 1.0), pelts),
        Parameter("lynx0", dist.LogNormal(_LOG_TEN, 1.0), pelts),
    )


def _initial_state(theta: Float[Array, " parameter"]) -> Float[Array, " state"]:
    return theta[4:6]


def _vector_field(
    t: Float[Array, ""], y: Float[Array, " state"], theta: Float[Array, " parameter"]
) -> Float[Array, " state"]:
    del t
    alpha, beta, gamma, delta = theta[0], theta[1], theta[2], theta[3]
    hare, lynx = y[0], y[1]
    return jnp.stack([(alpha - beta * lynx) * hare, (delta * hare - gamma) * lynx])
