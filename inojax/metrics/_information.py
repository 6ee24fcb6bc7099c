"""What the readings say about the parameters, case by case over the prior."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from .._blocks import in_blocks
from .._inverse_problem import InverseProblem
from .._linearization import linearize
from .._observation import Observation
from .._parameters import UNIT_PRECISION, Design
from .._sensors import FixedTimes
from ..solvers import SolveStatus

# Enough for the variance of a prior.
_QUANTILES = 4096
# Cases that are linearized together.
_BLOCK = 128


class CaseInformation(NamedTuple):
    """Laplace approximation of each case drawn from the prior, in unit coordinates.

    Attributes:
        thetas: Physical parameter values of the cases whose solve succeeded.
        slopes: Derivative of each physical value with respect to its unit coordinate.
        fisher: Fisher information of the readings.
        covariance: Inverse of the information plus 12 I, the posterior covariance.
        failed: Number of cases whose solve failed, which are left out.
        undefined: Number of cases that were solved, but whose readings are not finite or have no
            density, which are left out, too.
    """

    thetas: Float[np.ndarray, "case parameter"]
    slopes: Float[np.ndarray, "case parameter"]
    fisher: Float[np.ndarray, "case parameter parameter"]
    covariance: Float[np.ndarray, "case parameter parameter"]
    failed: int
    undefined: int = 0


def case_information(
    problem: InverseProblem,
    cases: int,
    *,
    observation: Observation | None = None,
    at: Float[np.ndarray, " parameter"] | None = None,
    key: Key[Array, ""],
) -> CaseInformation:
    """Draw parameters and observations, solve, and linearize each case at its true parameters.

    Args:
        problem: The inverse problem.
        cases: Number of random cases.
        observation: Whose times and channels are read, instead of what the sensors draw.
        at: Parameters of all cases, instead of draws from the prior.
        key: Source of randomness.

    Returns:
        Information and posterior covariance of the cases that could be solved.

    Raises:
        ValueError: If `cases` is below 2, if the noise is zero, if a total variation couples the
            parameters, or if no solve succeeds or no readings are finite.
    """
    if cases < 2:
        raise ValueError(f"`cases` must be at least 2; got {cases}.")
    theta_key, sensor_key = jr.split(key)
    thetas = problem.parameters.design(cases, kind=Design.RANDOM, key=theta_key)
    if at is not None:
        alike = observation is not None or (
            isinstance(problem.sensors.times, FixedTimes) and problem.sensors.missing == 0.0
        )
        thetas = np.tile(at, (1 if alike else cases, 1))
    slopes, fisher, covariance, solved = _information(problem, thetas, sensor_key, observation)
    good = np.isfinite(covariance).all((1, 2))
    if not solved.any():
        raise ValueError("No solve succeeded: check the model with `solve_ensemble` first.")
    if not good.any():
        raise ValueError(
            "All solves succeeded that did not fail, but no case has readings that are finite and "
            "have a density: check the `observable` and the noise with `simulate`."
        )
    failed, undefined = int(np.sum(~solved)), int(np.sum(solved & ~good))
    return CaseInformation(
        thetas[good], slopes[good], fisher[good], covariance[good], failed, undefined
    )


def laplace_covariances(
    problem: InverseProblem,
    thetas: Float[np.ndarray, "case parameter"],
    *,
    unit: bool = False,
    key: Key[Array, ""],
) -> Float[np.ndarray, "case parameter parameter"]:
    """Covariance of the Laplace approximation at known parameters, readings drawn anew.

    Args:
        problem: The inverse problem.
        thetas: Physical parameter values.
        unit: Whether the posterior is approximated in unit coordinates. It is another normal
            distribution than in physical units: where a prior spans decades, its variance in
            physical units is that of its upper end.
        key: Source of randomness of sensors and noise.

    Returns:
        Posterior covariances in physical or in unit coordinates, the prior counted as a normal
        distribution of its own variance there; NaN where a solve fails.

    Raises:
        ValueError: If the noise is zero, or if a total variation couples the parameters.

    Example:
        >>> problem = ij.problems.robertson()
        >>> thetas = problem.parameters.design(4, key=jr.key(0))
        >>> found = ij.metrics.laplace_covariances(problem, thetas, unit=True, key=jr.key(1))
        >>> found.shape
        (4, 3, 3)
    """
    slopes, fisher, covariance, _ = _information(problem, thetas, key)
    if unit:
        return covariance
    levels = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    quantiles = np.repeat(levels[:, None], problem.parameters.size, axis=1)
    variance = np.var(np.asarray(problem.parameters.from_unit(quantiles)), axis=0)
    precision = fisher / slopes[:, :, None] / slopes[:, None, :] + np.diag(1.0 / variance)
    solved = np.isfinite(covariance).all((1, 2), keepdims=True)
    found = np.linalg.inv(np.where(solved, precision, np.eye(len(variance))))
    return np.where(solved, found, np.nan)


def _information(
    problem: InverseProblem,
    thetas: np.ndarray,
    key: Key[Array, ""],
    observation: Observation | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Slopes, information and covariance at known parameters, and where they were solved.

    Covariances are NaN where they were not, or where readings are not finite.
    """
    problem.check_independent()
    times = None if observation is None else np.asarray(observation.times, np.float64)
    solution, sensitivities = problem.model.sensitivities(thetas, times)
    rows = [np.asarray(x) for x in (solution.states, thetas, sensitivities)]
    rows.append(np.asarray(jr.key_data(jr.split(key, len(thetas)))))
    solved = np.asarray(solution.status) == SolveStatus.SUCCESS
    found = list(_in_blocks(problem, rows, observation, noisy=True))
    good = np.isfinite(found[2]).all((1, 2))
    if np.any(again := solved & ~good):
        # Draws of a wide noise overflow; what is expected of them does not.
        rest = [x[again] for x in rows]
        for whole, part in zip(
            found, _in_blocks(problem, rest, observation, noisy=False), strict=True
        ):
            whole[again] = part
    slopes, fisher, covariance = found
    return slopes, fisher, np.where(solved[:, None, None], covariance, np.nan), solved


def _in_blocks(
    problem: InverseProblem, rows: list[np.ndarray], observation: Observation | None, noisy: bool
) -> tuple[np.ndarray, ...]:
    """Calls of one shape, which compiles once for any number of cases."""

    def block(rows: list[np.ndarray]) -> tuple[Array, Array, Array]:
        states, thetas, sensitivities, keys = map(jnp.asarray, rows)
        return _observed(problem, states, thetas, sensitivities, keys, observation, noisy=noisy)

    with jax.enable_x64(True):
        return in_blocks(block, rows, size=_BLOCK)


@eqx.filter_jit
def _observed(
    problem: InverseProblem,
    states: Array,
    thetas: Array,
    sensitivities: Array,
    key_data: Array,
    observation: Observation | None,
    *,
    noisy: bool,
) -> tuple[Array, Array, Array]:
    """Slopes, information and covariance of readings of states, parameters and sensitivities."""

    def one(
        states: Array, theta: Array, sensitivities: Array, key: Array
    ) -> tuple[Array, Array, Array]:
        if observation is None:
            read = problem.observe(states, theta, key=key)
            grid = jnp.asarray(problem.model.times)
            gaps = jnp.abs(jnp.asarray(read.times)[:, None] - grid[None, :])
            index = jnp.argmin(gaps, axis=1)
            states, sensitivities = states[index], sensitivities[index]
        else:
            clean = jnp.asarray(problem.read(states, theta))
            times = jnp.asarray(observation.times, states.dtype)
            values = problem.noise.sample(clean, theta, times=times, key=key)
            read = dataclasses.replace(observation, times=times, values=values)
        if not noisy:
            read = dataclasses.replace(read, values=jnp.asarray(problem.read(states, theta)))
        return _linearized(problem, read, theta, states, sensitivities)

    return jax.vmap(one)(states, thetas, sensitivities, jr.wrap_key_data(key_data))


def _linearized(
    problem: InverseProblem,
    observation: Observation,
    theta: Float[Array, " parameter"],
    states: Float[Array, "reading state"],
    sensitivities: Float[Array, "reading state parameter"],
) -> tuple[Array, Array, Array]:
    # dθ/dz of the prior's inverse distribution function turns columns into unit coordinates.
    z = jnp.asarray(problem.parameters.to_unit(theta))
    slopes = jax.jacfwd(lambda u: jnp.asarray(problem.parameters.from_unit(u)))(z)
    columns = sensitivities @ slopes
    line = linearize(problem, observation, theta, states, columns, slopes)
    information = line.fisher
    covariance = jnp.linalg.inv(information + UNIT_PRECISION * jnp.eye(len(theta)))
    return jnp.diag(slopes), information, covariance
