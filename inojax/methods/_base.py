"""What every method returns: an inverter, from an observation to an estimate."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, Float, Int, Key
from scipy.special import chdtr

from .._estimate import Diagnostics, Estimate
from .._estimate_status import EstimateStatus
from .._inverse_problem import InverseProblem
from .._observation import Observation, check_times
from .._trust import P_VALUE, TrustTicket
from .._x64 import is_traced
from ..noise import NoDensityError, misfit_p_value
from ..train import TrainLog

# Optima of less weight are no explanations worth a warning.
_WORTH_WARNING = 0.05
# What a method says of its estimate, and a good fit does not mend.
MORE_URGENT = (
    EstimateStatus.NOT_MIXED,
    EstimateStatus.NOT_CONVERGED,
    EstimateStatus.IMPOSSIBLE_READINGS,
)
# Samples that are looked at where the point of an estimate does not fit.
_TRIED = 32


class AbstractInverter(eqx.Module):
    """Turns an observation into an estimate, `inverter(observation, key=key)`.

    It is a PyTree and works under `jax.jit` and `jax.vmap`. Called on concrete values it also
    solves the model again at the estimate and says how well that explains the readings;
    under a transformation that is left out (see `resimulate`), since the networks run in
    float32 and the solver does not.

    To add one, subclass it with the fields it needs and write `_invert`, which is pure and
    takes a batch of observations: one large matrix product is faster than many small ones. And
    write `_on_host`, or subclass `AbstractNetworkInverter`, which has it for float32 networks.

    Attributes:
        problem: The problem it inverts.
        settings: The method that made it, as text.
        logs: Logs of its training, empty after loading.
    """

    problem: AbstractVar[InverseProblem]
    settings: AbstractVar[str]
    logs: AbstractVar[tuple[TrainLog, ...]]

    @abc.abstractmethod
    def _invert(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        """Invert a batch of observations; pure, traceable."""

    @abc.abstractmethod
    def _on_host(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        """Invert a batch of concrete observations, compiled in the precision that suits."""

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
        if isinstance(observation, Observation) and not is_traced(observation):
            observation = observation.in_order()
        self.problem.check_observation(observation)
        if is_traced(observation, key, self):
            batch, keys = jax.tree.map(lambda x: jnp.asarray(x)[None], (observation, key))
            return jax.tree.map(lambda x: x[0], self._invert(batch, keys))
        check_readings(self.problem, observation, "`observation`")
        batch = jax.tree.map(lambda x: np.asarray(x)[None], observation)
        estimate = self._on_host(batch, key[None])
        first = jax.tree.map(lambda x: np.asarray(x[0]), estimate)
        return self._checked(first, observation)

    def _surrogate_readings(
        self, unit_value: Float[np.ndarray, "batch parameter"], observations: Observation
    ) -> Float[np.ndarray, "batch reading channel"] | None:
        """Clean readings as the inverter's surrogate predicts them, if it has one."""
        del unit_value, observations

    @property
    def _is_exact(self) -> bool:
        """Whether it infers with the real solver."""
        return False

    @property
    def _is_corrected(self) -> bool:
        """Whether its intervals were corrected on held-out simulations."""
        return False

    def _unfamiliar(self, observations: Observation) -> Int[np.ndarray, "*batch"]:
        """In what observations, one or a batch, are unlike those of training, as `Unfamiliar`."""
        return np.zeros(np.shape(observations.times)[:-1], int)

    def _check_loaded(self) -> None:
        """Raise a ValueError if stored arrays do not belong to this inverter's code."""

    def _checked(self, estimate: Estimate, observation: Observation) -> Estimate:
        """A single estimate with its misfit, its status and a trust ticket."""
        if estimate.ticket is not None:
            return estimate
        checked = resimulate(self.problem, estimate, observation)
        clean = _clean(self.problem, checked, observation)
        ticket = issue_ticket(self, checked, observation, clean)
        if self._is_exact and float(ticket.p_value) < P_VALUE:
            least = _least_chi2(self.problem, checked, observation)
            best = misfit_p_value(self.problem.noise, least, clean, observation.mask)
            ticket = eqx.tree_at(lambda t: t.best_p_value, ticket, np.asarray(best))
        return eqx.tree_at(lambda e: e.ticket, checked, ticket, is_leaf=lambda x: x is None)

    # Equinox hashes a module by its leaves, which arrays do not allow; `jax.jit(inverter)`
    # needs a hash, and identity is the honest one.
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]


class AbstractExactInverter(AbstractInverter):
    """An inverter that infers with the real solver."""

    @property
    def _is_exact(self) -> bool:
        return True


class AbstractNetworkInverter(AbstractInverter):
    """An inverter whose networks run in float32."""

    def _on_host(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        with jax.enable_x64(False):
            return _compiled(self, in_float32(observations), keys)


@eqx.filter_jit
def _compiled(
    inverter: AbstractNetworkInverter, observations: Observation, keys: Array
) -> Estimate:
    return inverter._invert(observations, keys)


def check_readings(problem: InverseProblem, observation: Observation, name: str) -> None:
    """Refuse, on the host, what `Observation.from_arrays` would have refused."""
    mask, values = np.asarray(observation.mask), np.asarray(observation.values)
    if not mask.any(axis=(-2, -1)).all():
        raise ValueError(f"{name} holds no reading; at least one is needed.")
    largest = np.finfo(np.float32).max
    if not np.all(np.abs(values[mask]) <= largest):  # False for NaN, too
        raise ValueError(
            f"{name} has readings that are NaN, infinite or beyond {largest:.3g}. Mask what is "
            "missing, and check the unit."
        )
    check_times(observation, problem, name)


def in_float32(observation: Observation) -> Observation:
    """An observation for networks, on the host."""

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

    Raises:
        TypeError: If `observations` is not an `Observation`.
        ValueError: If it is not a batch, belongs to another problem, or holds readings that
            cannot be.
    """
    check_batch(inverter.problem, observations)
    keys = jax.random.split(key, observations.mask.shape[0])
    if is_traced(observations, key, inverter):
        return inverter._invert(observations, keys)
    observations = observations.in_order()
    check_readings(inverter.problem, observations, "`observations`")
    return inverter._on_host(observations, keys)


def check_batch(problem: InverseProblem, observations: Observation) -> None:
    """Refuse, with the remedy, what is not a batch of observations of a problem."""
    if not isinstance(observations, Observation):
        problem.check_observation(observations)
    shape = np.shape(observations.mask)
    if len(shape) != 3:
        raise ValueError(
            "`observations` must be a batch, its mask of shape (batch, reading, channel); got "
            f"{shape}. For a single observation call the inverter itself."
        )
    problem.check_observation(
        jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), observations)
    )


def check_inverter(inverter: Any) -> None:
    """Raise a TypeError unless a method may start where `inverter` ends."""
    if not isinstance(inverter, AbstractInverter):
        raise TypeError(
            f"`inverter` must be a fitted inverter; got {type(inverter).__name__}. Fit a method "
            "first, for instance `LeastSquares().fit(problem, key=key)`."
        )


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
    except NoDensityError:
        return estimate  # there is no misfit in units of a noise that is zero
    chi2 = float(np.sum(np.square(residual)))
    count = int(np.sum(observation.mask))
    if np.isfinite(chi2):
        before = EstimateStatus(int(estimate.status))
        clean = _clean(problem, estimate, observation)
        poor = misfit_p_value(problem.noise, chi2, clean, observation.mask) < P_VALUE
        fits = EstimateStatus.POOR_FIT if poor else EstimateStatus.OK
        return _with_verdict(estimate, chi2 / count, before if before in MORE_URGENT else fits)
    status = _why_infinite(problem, estimate, observation)
    chi2 = np.inf if status is EstimateStatus.POOR_FIT else np.nan
    return _with_verdict(estimate, chi2, status)


def _clean(problem: InverseProblem, estimate: Estimate, observation: Observation) -> Any:
    """Predictions at a single estimate, where what they leave of counts depends on them."""
    if problem.noise.counts:
        return problem.predict(np.asarray(estimate.value, np.float64), observation)
    return None


def _why_infinite(
    problem: InverseProblem, estimate: Estimate, observation: Observation
) -> EstimateStatus:
    """What an estimate with an infinite misfit suffers from."""
    clean = problem.predict(np.asarray(estimate.value, np.float64), observation)
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
    found = [np.sum(np.square(problem.whitened_residual(t, observation))) for t in thetas]
    return float(min((chi2 for chi2 in found if np.isfinite(chi2)), default=np.inf))


def _with_verdict(estimate: Estimate, reduced: float, status: EstimateStatus) -> Estimate:
    def verdict(e: Estimate) -> tuple[Any, Any]:
        return e.reduced_chi2, e.status

    return eqx.tree_at(verdict, estimate, (np.asarray(reduced), np.asarray(int(status))))


def issue_ticket(
    inverter: AbstractInverter, estimate: Estimate, observations: Observation, clean: Any = None
) -> TrustTicket:
    """The trust ticket of checked estimates, without what held-out simulations would add.

    Args:
        inverter: What made them.
        estimate: One estimate, or a batch, with its misfit.
        observations: The readings, one for each.
        clean: What is predicted at the estimates; needed for counts only.

    Returns:
        A ticket for each.
    """
    count = np.asarray(observations.mask).sum(axis=(-2, -1))
    reduced = np.asarray(estimate.reduced_chi2, np.float64)
    explanations = np.ones(reduced.shape, int)
    if estimate.optima is not None:
        several = (np.asarray(estimate.optima.weight) > _WORTH_WARNING).sum(axis=-1)
        explanations = np.asarray(np.maximum(several, 1))
    found = Diagnostics() if estimate.diagnostics is None else estimate.diagnostics
    unknown = np.full(reduced.shape, np.nan)
    spare = count - len(estimate.names)
    # The deviance of small counts is no chi-squared.
    tested = (spare > 0) & (not inverter.problem.noise.counts)
    closer = np.where(tested, chdtr(np.maximum(spare, 1), reduced * count), np.nan)

    def known(values: Any) -> Any:
        return unknown if values is None else np.asarray(values, np.float64)

    return TrustTicket(
        status=np.asarray(estimate.status),
        reduced_chi2=reduced,
        p_value=np.asarray(
            misfit_p_value(inverter.problem.noise, reduced * count, clean, observations.mask)
        ),
        best_p_value=unknown,
        explanations=explanations,
        solver_power=known(found.solver_power),
        exact=inverter._is_exact,
        corrected=inverter._is_corrected,
        noise_known=not estimates_noise(inverter.problem),
        closer_p_value=closer,
        spare_readings=np.asarray(spare),
        solver_draws=known(found.solver_draws),
        search=found.search,
        unfamiliar=inverter._unfamiliar(observations),
    )


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
