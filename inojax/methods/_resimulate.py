"""Solving the model again at estimates: their misfit, status and trust tickets."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._estimate import Diagnostics, Estimate
from .._estimate_status import EstimateStatus
from .._inverse_problem import InverseProblem
from .._observation import Observation
from .._parameters import UNIT_PRECISION
from .._trust import P_VALUE, TrustTicket
from ..models._calls import compiled, in_calls
from ..noise import NoDensityError
from ..noise._misfit import degrees_of_freedom, misfit_p_value
from ._batches import in_precision

# Optima of less weight are no modes worth a warning.
_WORTH_WARNING = 0.05
# What a method says of its estimate, and a good fit does not mend.
_MORE_URGENT = (
    EstimateStatus.NOT_MIXED,
    EstimateStatus.NOT_CONVERGED,
    EstimateStatus.IMPOSSIBLE_READINGS,
)
# Samples that are looked at where the point of an estimate does not fit.
_TRIED = 32


class Misfit(NamedTuple):
    """How well estimates explain their readings, by the solver.

    Attributes:
        chi2: Sum of squared whitened residuals: NaN where the solve failed, infinite where readings
            are impossible.
        readings: How many there are.
        clean: What is predicted.
    """

    chi2: Float[np.ndarray, " batch"]
    readings: Int[np.ndarray, " batch"]
    clean: Float[np.ndarray, "batch reading channel"]


def misfit(
    problem: InverseProblem,
    thetas: Float[np.ndarray, "batch parameter"],
    observations: Observation,
) -> Misfit:
    """Solve the model and compare it with readings, on the host.

    Args:
        problem: The problem.
        thetas: Physical parameter values.
        observations: A batch, one for each.

    Returns:
        The misfit of each.

    Raises:
        NoDensityError: If the noise is zero.
    """
    thetas = np.asarray(thetas, np.float64)
    states = problem.model.solve_ensemble(thetas, np.asarray(observations.times)).states
    observations = jax.tree.map(np.asarray, observations)
    chi2, clean = in_calls(_compare, problem, (thetas, observations, np.asarray(states)))
    count = np.asarray(observations.mask).sum(axis=(1, 2))
    return Misfit(chi2, count, clean)


def _compare_block(
    problem: InverseProblem, rows: tuple[Any, Observation, Any], count: Any, lanes: int
) -> tuple[Float[Array, " batch"], Float[Array, "batch reading channel"]]:
    del count, lanes
    thetas, observations, states = rows
    observations = in_precision(observations, jnp.float64)
    clean = jnp.asarray(jax.vmap(problem.read)(states, thetas))
    return squared_residuals(problem, thetas, observations, clean), clean


_compare = compiled(_compare_block)


def squared_residuals(
    problem: InverseProblem,
    thetas: Float[Array, "batch parameter"],
    observations: Observation,
    clean: Any,
) -> Float[Array, " batch"]:
    """Sum of squared whitened residuals of predictions that are there already; pure.

    Args:
        problem: The problem.
        thetas: Physical parameter values.
        observations: A batch, one for each.
        clean: Predictions.
    """

    def one(theta: Array, observation: Observation, clean: Array) -> Array:
        mask = jnp.asarray(observation.mask)
        readings, clean = (jnp.where(mask, x, 1.0) for x in (observation.values, clean))
        residual = problem.noise.whiten(readings, clean, theta, mask, times=observation.times)
        return jnp.sum(jnp.where(mask, jnp.square(residual), 0.0))

    return jax.vmap(one)(thetas, observations, clean)


def resimulate(problem: InverseProblem, estimate: Estimate, observation: Observation) -> Estimate:
    """Solve the model at an estimate and say how well it explains the readings.

    Args:
        problem: The problem.
        estimate: A single estimate.
        observation: The readings it was made from.

    Returns:
        The estimate with `chi2_per_reading` (mean squared whitened residual) and `status`; as it
        was if the noise is zero.

    Example:
        >>> problem = ij.problems.robertson()
        >>> inverter = ij.methods.LeastSquares(starts=1, draws=16, candidates=0).fit(problem)
        >>> theta = problem.parameters.from_unit(np.full(3, 0.5))
        >>> observation = problem.simulate(theta, key=jr.key(1))
        >>> estimate = inverter(observation, key=jr.key(2))
        >>> again = ij.methods.resimulate(problem, estimate, observation)
        >>> bool(abs(again.chi2_per_reading - estimate.chi2_per_reading) < 1e-9)
        True
    """
    one, batch = (_with_axis(x) for x in (estimate, observation))
    problem.check_observation(observation)
    try:
        found = misfit(problem, np.asarray(one.value), batch)
    except NoDensityError:
        return estimate  # there is no misfit in units of a noise that is zero
    return jax.tree.map(lambda x: np.asarray(x[0]), with_status(problem, one, found, batch))


def _with_axis(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x)[None], tree)


def with_status(
    problem: InverseProblem, estimates: Estimate, found: Misfit, observations: Observation
) -> Estimate:
    """Estimates with their misfit, and the status that it implies.

    Args:
        problem: The problem.
        estimates: A batch.
        found: Their misfit.
        observations: The readings.

    Returns:
        The batch with `chi2_per_reading` and `status`.
    """
    before = np.asarray(estimates.status)
    poor = p_value(problem, estimates, found, observations) < P_VALUE
    status = np.where(poor, int(EstimateStatus.POOR_FIT), int(EstimateStatus.OK))
    status = np.where(np.isin(before, _MORE_URGENT), before, status)
    chi2 = found.chi2 / found.readings
    for row in np.flatnonzero(~np.isfinite(chi2)):
        estimate, observation = _row((estimates, observations), row)
        why = _why_infinite(problem, estimate, observation, found.clean[row])
        status[row] = int(why)
        chi2[row] = np.inf if why is EstimateStatus.POOR_FIT else np.nan
    return eqx.tree_at(lambda e: (e.chi2_per_reading, e.status), estimates, (chi2, status))


def _row(tree: Any, row: Any) -> Any:
    return jax.tree.map(lambda x: np.asarray(x)[row], tree)


def _why_infinite(
    problem: InverseProblem, estimate: Estimate, observation: Observation, clean: np.ndarray
) -> EstimateStatus:
    """What a single estimate with an infinite misfit suffers from."""
    if not np.isfinite(clean[np.asarray(observation.mask)]).all():
        return EstimateStatus.SOLVER_FAILED
    possible = np.isfinite(_least_chi2(problem, estimate, observation))
    return EstimateStatus.POOR_FIT if possible else EstimateStatus.IMPOSSIBLE_READINGS


def _least_chi2(problem: InverseProblem, estimate: Estimate, observation: Observation) -> float:
    """Chi-squared of the best fit among an estimate's samples and optima, or infinity."""
    thetas = np.empty((0, problem.parameters.size))
    if estimate.samples is not None:
        samples = np.asarray(estimate.samples, np.float64)
        thetas = samples[np.linspace(0, len(samples) - 1, _TRIED).astype(int)]
    if estimate.optima is not None:
        thetas = np.concatenate([thetas, np.asarray(estimate.optima.value, np.float64)[:1]])
    thetas = thetas[np.isfinite(thetas).all(axis=1)]
    if not len(thetas):
        return np.inf
    every = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], len(thetas), 0), observation)
    found = misfit(problem, thetas, every).chi2
    return float(np.min(found, where=np.isfinite(found), initial=np.inf))


def fitted_shares(
    estimates: Estimate, problem: InverseProblem, count: Int[np.ndarray, " batch"]
) -> Float[np.ndarray, "batch parameter"]:
    """How much of a residual each fitted parameter has taken out, from the samples of estimates.

    Of n readings linear in p parameters, with the prior's variance 1/12 in unit coordinates, an
    estimate leaves residuals with covariance I - H, where H has the eigenvalues 1 - 12 c and c are
    those of the posterior's covariance: one where the readings settle a direction, none where they
    say nothing of it. Their sum is the effective number of parameters.

    Args:
        estimates: A batch.
        problem: The problem.
        count: How many readings there are of each.

    Returns:
        Those eigenvalues, the largest first, no more than there are readings; zero where there are
        no samples or none that is finite.

    Source:
        MacKay, Bayesian interpolation, Neural Computation 4 (1992), section 4.4.
    """
    size = problem.parameters.size
    if estimates.samples is None:
        return np.zeros((len(count), size))
    samples = np.asarray(estimates.samples, np.float64)
    known = np.asarray(np.isfinite(samples).all(axis=(1, 2)))
    with np.errstate(invalid="ignore"):
        unit = np.asarray(problem.parameters.to_unit(samples), np.float64)
    unit = np.where(known[:, None, None], unit, 0.5)
    gap = unit - unit.mean(axis=1, keepdims=True)
    covariance = np.einsum("bsp,bsq->bpq", gap, gap) / max(samples.shape[1] - 1, 1)
    shares = np.clip(1.0 - UNIT_PRECISION * np.linalg.eigvalsh(covariance), 0.0, 1.0)
    seen = np.arange(size)[None] < count[:, None]
    return np.where(known[:, None] & seen, shares, 0.0)


def p_value(
    problem: InverseProblem, estimates: Estimate, found: Misfit, observations: Observation
) -> Float[np.ndarray, " batch"]:
    """Chance that estimates of a correct model miss their readings by more than these do.

    Args:
        problem: The problem.
        estimates: A batch.
        found: Their misfit.
        observations: The readings.
    """
    fitted = fitted_shares(estimates, problem, found.readings)
    return misfit_p_value(problem.noise, found.chi2, found.clean, observations.mask, fitted)


def issue_ticket(
    estimates: Estimate,
    found: Misfit | None,
    observations: Observation,
    *,
    problem: InverseProblem,
    exact: bool,
    corrected: bool,
    unfamiliar: Int[np.ndarray, "*batch"],
) -> TrustTicket:
    """The trust tickets of a batch, without what held-out simulations would add.

    Args:
        estimates: A batch with its status.
        found: Its misfit; None if the noise is zero.
        observations: The readings.
        problem: The problem.
        exact: Whether the estimates were inferred with the real solver.
        corrected: Whether their intervals were corrected on held-out simulations.
        unfamiliar: In what the observations are unlike those of training, as `Unfamiliar`.

    Returns:
        A ticket for each.
    """
    count = np.asarray(observations.mask).sum(axis=(1, 2))
    unknown = np.full(count.shape, np.nan)
    chance, freedom = unknown, unknown
    if found is not None:
        chance = p_value(problem, estimates, found, observations)
        fitted = fitted_shares(estimates, problem, found.readings)
        freedom = degrees_of_freedom(count, fitted)
    optima = np.ones(count.shape, int)
    if estimates.optima is not None:
        several = (np.asarray(estimates.optima.weight) > _WORTH_WARNING).sum(axis=-1)
        optima = np.asarray(np.maximum(several, 1))
    said = Diagnostics() if estimates.diagnostics is None else estimates.diagnostics
    spare = count - len(estimates.names)
    # The deviance of small counts is no chi-squared.
    tested = (spare > 0) & (not problem.noise.counts)
    best = unknown
    if exact and found is not None:
        best = _best_p_value(problem, estimates, found, observations, chance)

    def known(values: Any) -> Any:
        return unknown if values is None else np.asarray(values, np.float64)

    return TrustTicket(
        status=np.asarray(estimates.status),
        chi2_per_reading=np.asarray(estimates.chi2_per_reading, np.float64),
        p_value=chance,
        best_p_value=best,
        modes=optima,
        tempering_exponent=known(said.tempering_exponent),
        exact=exact,
        corrected=corrected,
        noise_known=not estimates_noise(problem),
        closer_p_value=np.where(tested, 1.0 - chance, np.nan),
        spare_readings=np.asarray(spare),
        solver_draws=known(said.solver_draws),
        search=said.search,
        unfamiliar=unfamiliar,
        degrees_of_freedom=freedom,
    )


def _best_p_value(
    problem: InverseProblem,
    estimates: Estimate,
    found: Misfit,
    observations: Observation,
    chance: Float[np.ndarray, " batch"],
) -> Float[np.ndarray, " batch"]:
    """The p-value of the best fit among samples and optima, where the estimate does not fit."""
    best = np.full(chance.shape, np.nan)
    for row in np.flatnonzero(chance < P_VALUE):
        estimate, observation = _row((estimates, observations), row)
        least = np.full(1, _least_chi2(problem, estimate, observation))
        some = slice(row, row + 1)
        there = Misfit(least, found.readings[some], found.clean[some])
        part = jax.tree.map(lambda x, some=some: np.asarray(x)[some], (estimates, observations))
        best[row] = p_value(problem, part[0], there, part[1])[0]
    return best


def estimates_noise(problem: InverseProblem) -> bool:
    """Whether the scale of the noise depends on unknown parameters.

    Args:
        problem: The problem.
    """
    clean = jnp.ones((2, len(problem.channels)))
    # Two times as far apart as output times are: a correlation may have faded after one unit.
    span = problem.model.horizon - problem.model.initial_time
    times = jnp.array([0.0, span / len(problem.model.times) or 1.0])
    center = jnp.asarray(problem.parameters.from_unit(jnp.full(problem.parameters.size, 0.5)))
    try:
        slopes = jax.jacfwd(lambda theta: problem.noise.log_scale(clean, theta, times=times))(
            center
        )
    except NoDensityError:
        return False
    return bool(jnp.any(slopes != 0.0))
