"""The error that no method can beat: what the readings leave open."""

import dataclasses

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
_PRIOR_PRECISION = 12.0


@dataclasses.dataclass(frozen=True)
class BayesFloor:
    """Mean Laplace posterior variance in unit coordinates.

    Attributes:
        parameter_mse: Mean over cases and parameters: the mean squared error of the best
            possible estimate, as far as the posterior is Gaussian.
        per_parameter: The same for each parameter.
        standard_error: Standard error of `parameter_mse` over the cases drawn.
        cases: Number of cases.
    """

    parameter_mse: float
    per_parameter: Float[np.ndarray, " parameter"]
    standard_error: float
    cases: int


def bayes_floor(problem: InverseProblem, cases: int = 256, *, key: Key[Array, ""]) -> BayesFloor:
    """Average the Laplace posterior variance over the prior and over random sensors.

    For each case it draws parameters and an observation, solves the model with its forward
    sensitivities, and inverts the Fisher information plus 12 I, 12 being the precision of the
    prior in unit coordinates. For independent normal readings of mean μ and standard deviation
    σ, in the coordinates in which they are normal, the information is the sum over them of
    ∇μ ∇μᵀ / σ² + 2 ∇log σ ∇log σᵀ; the second term is zero where σ is known.

    Args:
        problem: The inverse problem.
        cases: Number of random cases.
        key: Source of randomness.

    Returns:
        The floor.

    Raises:
        ValueError: If `cases` is below 2, if the noise is zero, or if no solve succeeds.
    """
    if cases < 2:
        raise ValueError(f"`cases` must be at least 2; got {cases}.")
    theta_key, sensor_key = jr.split(key)
    thetas = problem.parameters.design(cases, kind=Design.RANDOM, key=theta_key)
    solution, sensitivities = problem.model.sensitivities(thetas)
    with jax.enable_x64(True):
        observe = jax.vmap(lambda y, t, k: problem.observe(y, t, key=k))
        observations = observe(
            jnp.asarray(solution.states), jnp.asarray(thetas), jr.split(sensor_key, cases)
        )
        variances = np.asarray(
            jax.jit(jax.vmap(lambda *case: _variances(problem, *case)))(
                observations,
                jnp.asarray(thetas),
                jnp.asarray(solution.states),
                jnp.asarray(sensitivities),
            )
        )
    solved = (np.asarray(solution.status) == SolveStatus.SUCCESS) & np.isfinite(variances).all(1)
    if not solved.any():
        raise ValueError("No solve succeeded: check the model with `solve_ensemble` first.")
    good = variances[solved]
    error = good.mean(axis=1).std() / np.sqrt(len(good))
    return BayesFloor(float(good.mean()), good.mean(axis=0), float(error), len(good))


def _variances(
    problem: InverseProblem,
    observation: Observation,
    theta: Float[Array, " parameter"],
    states: Float[Array, "time state"],
    sensitivities: Float[Array, "time state parameter"],
) -> Float[Array, " parameter"]:
    grid = jnp.asarray(problem.model.times)
    index = jnp.argmin(jnp.abs(jnp.asarray(observation.times)[:, None] - grid[None, :]), axis=1)
    # dθ/dz of the prior's inverse distribution function turns columns into unit coordinates.
    z = jnp.asarray(problem.parameters.to_unit(theta))
    slopes = jax.jacfwd(lambda u: jnp.asarray(problem.parameters.from_unit(u)))(z)
    columns = sensitivities[index] @ slopes
    line = linearize(problem, observation, theta, states[index], columns, slopes)
    return jnp.diag(jnp.linalg.inv(line.fisher + _PRIOR_PRECISION * jnp.eye(len(theta))))
