"""What every method returns: an inverter, from an observation to an estimate."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from equinox import AbstractVar
from jaxtyping import Array, Float, Key

from .._estimate import Estimate, EstimateStatus
from .._inverse_problem import InverseProblem
from .._observation import Observation
from .._x64 import is_traced

# A fit is called poor where noise alone would do worse in one case of a thousand.
_P_VALUE = 1e-3


class AbstractInverter(eqx.Module):
    """Turns an observation into an estimate, `inverter(observation, key=key)`.

    It is a PyTree and works under `jax.jit` and `jax.vmap`. Called on concrete values it also
    solves the model again at the estimate and says how well that explains the readings;
    under a transformation that is left out (see `resimulate`), since the networks run in
    float32 and the solver does not.

    To add one, subclass it with the fields it needs and write `_invert`, which is pure and
    takes a batch of observations: one large matrix product is faster than many small ones.

    Attributes:
        problem: The problem it inverts.
    """

    problem: AbstractVar[InverseProblem]

    @abc.abstractmethod
    def _invert(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        """Invert a batch of observations; pure, traceable."""

    def __call__(self, observation: Observation, *, key: Key[Array, ""]) -> Estimate:
        """Estimate the parameters behind an observation.

        Args:
            observation: Readings of this inverter's problem.
            key: Source of randomness.

        Returns:
            The estimate; its misfit is filled in unless this call is being traced.

        Raises:
            TypeError: If `observation` is not an `Observation`.
            ValueError: If it belongs to another problem, is a batch, or holds no reading.
        """
        self.problem.check_observation(observation)
        if is_traced(observation, key, self):
            return _invert_one(self, observation, key)
        if not np.any(observation.mask):
            raise ValueError("`observation` holds no reading; at least one is needed.")
        estimate = _compiled(self, _in_float32(observation), key)
        return resimulate(self.problem, jax.tree.map(np.asarray, estimate), observation)

    # Equinox hashes a module by its leaves, which arrays do not allow; `jax.jit(inverter)`
    # needs a hash, and identity is the honest one.
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]


def _invert_one(inverter: AbstractInverter, observation: Observation, key: Array) -> Estimate:
    batch, keys = jax.tree.map(lambda x: jnp.asarray(x)[None], (observation, key))
    return jax.tree.map(lambda x: x[0], inverter._invert(batch, keys))


_compiled = eqx.filter_jit(_invert_one)


def _in_float32(observation: Observation) -> Observation:
    # JAX would round them too, but a large value would then become infinite unnoticed.
    def convert(x: Any) -> Any:
        return np.asarray(x, np.float32) if np.issubdtype(x.dtype, np.floating) else x

    return jax.tree.map(convert, observation)


def invert_batch(
    inverter: AbstractInverter, observations: Observation, *, key: Key[Array, ""]
) -> Estimate:
    """Invert many observations in one compiled call, without solving the model again.

    Args:
        inverter: A fitted inverter.
        observations: A batch, every array with a leading axis.
        key: Source of randomness.

    Returns:
        A batch of estimates.
    """
    return _compiled_batch(inverter, observations, key)


@eqx.filter_jit
def _compiled_batch(inverter: AbstractInverter, observations: Observation, key: Array) -> Estimate:
    keys = jax.random.split(key, observations.mask.shape[0])
    return inverter._invert(observations, keys)


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
    )


def resimulate(problem: InverseProblem, estimate: Estimate, observation: Observation) -> Estimate:
    """Solve the model at an estimate and say how well it explains the readings.

    Args:
        problem: The problem.
        estimate: A single estimate.
        observation: The readings it was made from.

    Returns:
        The estimate with `reduced_chi2` (mean squared whitened residual) and `status`.
    """
    try:
        residual = problem.whitened_residual(np.asarray(estimate.value, np.float64), observation)
    except ValueError as error:
        if "scale" not in str(error):
            raise
        return estimate  # noise-free problems have no misfit in units of the noise
    chi2 = float(np.sum(np.square(residual)))
    count = int(np.sum(observation.mask))
    status = EstimateStatus.OK
    if not np.isfinite(chi2):
        status = EstimateStatus.SOLVER_FAILED
    elif scipy.stats.chi2.sf(chi2, count) < _P_VALUE:
        status = EstimateStatus.POOR_FIT
    return _with_verdict(estimate, chi2 / count, status)


def _with_verdict(estimate: Estimate, reduced: float, status: EstimateStatus) -> Estimate:
    def verdict(e: Estimate) -> tuple[Any, Any]:
        return e.reduced_chi2, e.status

    return eqx.tree_at(verdict, estimate, (np.asarray(reduced), np.asarray(int(status))))
