"""Estimates from what methods compute: a point and a cloud, or a point alone."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._estimate import Estimate
from .._estimate_status import EstimateStatus
from .._inverse_problem import InverseProblem


def estimate_from_cloud(
    problem: InverseProblem,
    unit_value: Float[Array, " parameter"],
    cloud: Float[Array, "particle parameter"],
) -> Estimate:
    """Make an estimate of a point and a cloud in unit coordinates.

    Args:
        problem: Names, units and priors.
        unit_value: The point estimate.
        cloud: Particles that stand for the posterior.

    Returns:
        The estimate in physical units, not yet checked by the solver.
    """
    samples = jnp.asarray(problem.parameters.from_unit(cloud))
    return Estimate(
        problem.parameters.names,
        problem.parameters.units,
        jnp.asarray(problem.parameters.from_unit(unit_value)),
        unit_value,
        jnp.std(samples, axis=0),
        samples,
        jnp.asarray(jnp.nan, unit_value.dtype),
        jnp.asarray(int(EstimateStatus.NOT_CHECKED)),
        fixed=problem.parameters.fixed_values,
    )


def estimate_from_point(problem: InverseProblem, value: Float[Array, " parameter"]) -> Estimate:
    """Make an estimate that says nothing of its uncertainty.

    Args:
        problem: Names, units and priors.
        value: The point estimate in physical units.

    Returns:
        The estimate, not yet checked by the solver.
    """
    unit_value = jnp.asarray(problem.parameters.to_unit(value))
    return Estimate(
        problem.parameters.names,
        problem.parameters.units,
        value,
        unit_value,
        jnp.full_like(value, jnp.nan),
        None,
        jnp.asarray(jnp.nan, unit_value.dtype),
        jnp.asarray(int(EstimateStatus.NOT_CHECKED)),
        fixed=problem.parameters.fixed_values,
    )
