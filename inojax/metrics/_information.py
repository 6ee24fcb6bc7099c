"""What the readings say about the parameters, case by case over the prior."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from .._inverse_problem import InverseProblem
from .._linearization import linearize
from .._observation import Observation
from .._parameters import Design
from ..solvers import SolveStatus

# A uniform unit coordinate has variance 1/12.
PRIOR_PRECISION = 12.0
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
    """

    thetas: Float[np.ndarray, "case parameter"]
    slopes: Float[np.ndarray, "case parameter"]
    fisher: Float[np.ndarray, "case parameter parameter"]
    covariance: Float[np.ndarray, "case parameter parameter"]
    failed: int


def case_information(
    problem: InverseProblem, cases: int, *, key: Key[Array, ""]
) -> CaseInformation:
    """Draw parameters and observations, solve, and linearize each case at its true parameters.

    Args:
        problem: The inverse problem.
        cases: Number of random cases.
        key: Source of randomness.

    Returns:
        Information and posterior covariance of the cases that could be solved.

    Raises:
        ValueError: If `cases` is below 2, if the noise is zero, if a total variation couples the
            parameters, or if no solve succeeds.
    """
    if cases < 2:
        raise ValueError(f"`cases` must be at least 2; got {cases}.")
    theta_key, sensor_key = jr.split(key)
    thetas = problem.parameters.design(cases, kind=Design.RANDOM, key=theta_key)
    slopes, fisher, covariance = _information(problem, thetas, sensor_key)
    solved = np.isfinite(covariance).all((1, 2))
    if not solved.any():
        raise ValueError("No solve succeeded: check the model with `solve_ensemble` first.")
    failed = int(cases - solved.sum())
    return CaseInformation(
        thetas[solved], slopes[solved], fisher[solved], covariance[solved], failed
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
    """
    slopes, fisher, covariance = _information(problem, thetas, key)
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
    problem: InverseProblem, thetas: np.ndarray, key: Key[Array, ""]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Slopes, information and covariance at known parameters; covariances NaN where unsolved."""
    problem.check_independent()
    solution, sensitivities = problem.model.sensitivities(thetas)
    rows = [np.asarray(x) for x in (solution.states, thetas, sensitivities)]
    keys = np.asarray(jr.key_data(jr.split(key, len(thetas))))
    found = []
    # Calls of one shape, which compiles once for any number of cases.
    for start in range(0, len(thetas), _BLOCK):
        some = np.arange(start, start + _BLOCK) % len(thetas)
        meant = min(_BLOCK, len(thetas) - start)
        with jax.enable_x64(True):
            part = _observed(problem, *(jnp.asarray(x[some]) for x in (*rows, keys)))
            found.append([np.asarray(x)[:meant] for x in part])
    slopes, fisher, covariance = (np.concatenate(column) for column in zip(*found, strict=True))
    solved = np.asarray(solution.status) == SolveStatus.SUCCESS
    return slopes, fisher, np.where(solved[:, None, None], covariance, np.nan)


@eqx.filter_jit
def _observed(
    problem: InverseProblem, states: Array, thetas: Array, sensitivities: Array, key_data: Array
) -> tuple[Array, Array, Array]:
    """Slopes, information and covariance of readings of states, parameters and sensitivities."""

    def one(
        states: Array, theta: Array, sensitivities: Array, key: Array
    ) -> tuple[Array, Array, Array]:
        observation = problem.observe(states, theta, key=key)
        return _linearized(problem, observation, theta, states, sensitivities)

    return jax.vmap(one)(states, thetas, sensitivities, jr.wrap_key_data(key_data))


def _linearized(
    problem: InverseProblem,
    observation: Observation,
    theta: Float[Array, " parameter"],
    states: Float[Array, "time state"],
    sensitivities: Float[Array, "time state parameter"],
) -> tuple[Array, Array, Array]:
    grid = jnp.asarray(problem.model.times)
    index = jnp.argmin(jnp.abs(jnp.asarray(observation.times)[:, None] - grid[None, :]), axis=1)
    # dθ/dz of the prior's inverse distribution function turns columns into unit coordinates.
    z = jnp.asarray(problem.parameters.to_unit(theta))
    slopes = jax.jacfwd(lambda u: jnp.asarray(problem.parameters.from_unit(u)))(z)
    columns = sensitivities[index] @ slopes
    line = linearize(problem, observation, theta, states[index], columns, slopes)
    information = line.fisher
    covariance = jnp.linalg.inv(information + PRIOR_PRECISION * jnp.eye(len(theta)))
    return jnp.diag(slopes), information, covariance
