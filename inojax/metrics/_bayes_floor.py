"""The error that no method can beat: what the readings leave open."""

import dataclasses

import numpy as np
from jaxtyping import Array, Float, Key

from .._inverse_problem import InverseProblem
from ._information import CaseInformation, case_information


@dataclasses.dataclass(frozen=True)
class BayesFloor:
    """Mean Laplace posterior variance in unit coordinates.

    Attributes:
        parameter_mse: Mean over cases and parameters: the mean squared error of the best
            possible estimate, as far as the posterior is Gaussian.
        per_parameter: The same for each parameter.
        standard_error: Standard error of `parameter_mse` over the cases drawn.
        cases: Number of cases.

    Example:
        >>> floor = ij.metrics.bayes_floor(ij.problems.robertson(), 16, key=jr.key(0))
        >>> floor.per_parameter.shape
        (3,)
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
        ValueError: If `cases` is below 2, if the noise is zero, if a total variation couples the
            parameters, or if no solve succeeds.

    Example:
        >>> floor = ij.metrics.bayes_floor(ij.problems.robertson(), 16, key=jr.key(0))
        >>> 0.0 < floor.parameter_mse < 1.0 / 12.0
        True
    """
    return floor_of(case_information(problem, cases, key=key))


def floor_of(information: CaseInformation) -> BayesFloor:
    """Average the posterior variance over cases that are already there.

    Args:
        information: Posterior covariance of each case.

    Returns:
        The floor.
    """
    good = np.diagonal(information.covariance, axis1=1, axis2=2)
    error = good.mean(axis=1).std() / np.sqrt(len(good))
    return BayesFloor(float(good.mean()), good.mean(axis=0), float(error), len(good))
