"""What every method returns: an inverter, from an observation to an estimate."""

import abc
import functools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, Float, Int, Key

from .._estimate import Estimate
from .._inverse_problem import InverseProblem
from .._observation import Observation, check_times
from .._trust import Calibration
from .._x64 import in_x32, is_traced, require_x64
from ..noise import NoDensityError
from ..train import TrainLog
from ._batches import in_precision
from ._checks import describe_settings
from ._resimulate import Misfit, issue_ticket, misfit, with_status


class AbstractInverter(eqx.Module):
    """Turns an observation into an estimate, `inverter(observation, key=key)`.

    It is a PyTree and works under `jax.jit` and `jax.vmap`. Called on concrete values it also
    solves the model again at the estimate and says how well that explains the readings;
    under a transformation that is left out (see `resimulate`), since the networks run in
    float32 and the solver does not.

    To add one, subclass `AbstractNetworkInverter` or `AbstractExactInverter` with the fields it
    needs, and write the one function that they ask for. It takes a batch of observations: one
    large matrix product is faster than many small ones.

    Attributes:
        problem: The problem it inverts.
        method: The `AbstractMethod` that made it; None where it was made by hand.
        logs: Logs of its training, empty after loading.

    Example:
        >>> inverter = ij.methods.LeastSquares().fit(ij.problems.robertson())
        >>> isinstance(inverter, ij.methods.AbstractInverter), inverter.problem.name
        (True, 'robertson')
    """

    # Whether it is put around another inverter, rather than made by a method.
    _wraps: ClassVar[bool] = False

    problem: AbstractVar[InverseProblem]
    method: AbstractVar[Any]
    logs: AbstractVar[tuple[TrainLog, ...]]

    @property
    def settings(self) -> str:
        """The method that made it, defaults included, as text."""
        own = type(self).__name__ if self.method is None else describe_settings(self.method)
        return own if self._inner is None else f"{own} after {self._inner.settings}"

    @property
    def _inner(self) -> "AbstractInverter | None":
        """The inverter that it builds upon, if any."""
        return None

    @abc.abstractmethod
    def _invert(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        """Invert a batch of observations, inside a transformation or on the host.

        In the precision that suits, whatever the caller's.
        """

    def __call__(self, observation: Observation, *, key: Key[Array, ""]) -> Estimate:
        """Estimate the parameters behind an observation.

        Args:
            observation: Readings of this inverter's problem.
            key: Source of randomness.

        Returns:
            The estimate; its misfit and ticket are filled in unless this call is being traced.

        Raises:
            TypeError: If `observation` is not an `Observation`.
            ValueError: If it belongs to another problem, is a batch, or holds no reading.
        """
        if isinstance(observation, Observation) and not is_traced(observation):
            observation = observation.in_order()
        self.problem.check_observation(observation)
        if is_traced(observation, key, self):
            batch, keys = jax.tree.map(lambda x: jnp.asarray(x)[None], (observation, key))
            return jax.tree.map(lambda x: x[0], _apart(self)._invert(batch, keys))
        check_readings(self.problem, observation, "`observation`")
        batch = jax.tree.map(lambda x: np.asarray(x)[None], observation)
        estimates = jax.tree.map(np.asarray, self._invert(batch, key[None]))
        return jax.tree.map(lambda x: np.asarray(x[0]), self._checked(estimates, batch))

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

    def _parts(self) -> dict[str, Any]:
        """What `_from_parts` needs besides arrays, where neither a method nor another one does."""
        return {}

    def _check_loaded(self) -> None:
        """Raise a ValueError if stored arrays do not belong to this inverter's code."""

    def _checked(self, estimates: Estimate, observations: Observation) -> Estimate:
        """A batch of estimates with their misfits, statuses and trust tickets."""
        try:
            found = misfit(self.problem, np.asarray(estimates.value), observations)
            estimates = with_status(self.problem, estimates, found, observations)
        except NoDensityError:
            found = None  # there is no misfit in units of a noise that is zero
        ticket = issue_ticket(
            estimates,
            found,
            observations,
            problem=self.problem,
            exact=self._is_exact,
            corrected=self._is_corrected,
            unfamiliar=self._unfamiliar(observations),
        )
        calibration = None if found is None else self._calibrated(estimates, found, observations)
        ticket = eqx.tree_at(
            lambda t: t.calibration, ticket, calibration, is_leaf=lambda x: x is None
        )
        return eqx.tree_at(lambda e: e.ticket, estimates, ticket, is_leaf=lambda x: x is None)

    def _calibrated(
        self, estimates: Estimate, found: Misfit, observations: Observation
    ) -> Calibration | None:
        """The estimates beside those of held-out simulations, where it knows some."""
        del estimates, found, observations
        return None

    # Equinox hashes a module by its leaves, which arrays do not allow; `jax.jit(inverter)`
    # needs a hash, and identity is the right one.
    __hash__ = object.__hash__  # pyright: ignore[reportAssignmentType]


class AbstractExactInverter(AbstractInverter):
    """An inverter that infers with the real solver, in float64; subclasses write `_infer`.

    Example:
        >>> inverter = ij.methods.LeastSquares().fit(ij.problems.robertson())
        >>> isinstance(inverter, ij.methods.AbstractExactInverter)
        True
    """

    @property
    def _is_exact(self) -> bool:
        return True

    def _invert(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        observations = in_precision(observations, np.float64)
        if is_traced(self, observations, keys):
            require_x64(f"`{type(self).__name__}`")
            return self._infer(observations, keys)
        with jax.enable_x64(True):
            return self._infer(observations, keys)

    @abc.abstractmethod
    def _infer(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        """Infer a batch by functions that are made for both, such as `in_calls`."""


class AbstractNetworkInverter(AbstractInverter):
    """An inverter whose networks run in float32; subclasses write `_evaluate`.

    Example:
        >>> issubclass(ij.methods.BiLOInverter, ij.methods.AbstractNetworkInverter)
        True
    """

    @in_x32
    def _invert(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        observations = in_precision(observations, np.float32)
        # Not compiled within what is: its NumPy arrays would stay constants of single precision,
        # for calls in double precision, too.
        traced = is_traced(self, observations, keys)
        return (self._evaluate if traced else functools.partial(_compiled, self))(
            observations, keys
        )

    @abc.abstractmethod
    def _evaluate(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        """Evaluate the networks on a batch; pure, traceable."""


@eqx.filter_jit
def _compiled(
    inverter: AbstractNetworkInverter, observations: Observation, keys: Array
) -> Estimate:
    return inverter._evaluate(observations, keys)


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


def invert_batch(
    inverter: AbstractInverter,
    observations: Observation,
    *,
    checked: bool = False,
    key: Key[Array, ""],
) -> Estimate:
    """Invert many observations in one compiled call.

    Args:
        inverter: A fitted inverter.
        observations: A batch, every array with a leading axis.
        checked: Whether to solve the model again at the estimates, as a single call does: each has
            its misfit, its status and a trust ticket then.
        key: Source of randomness.

    Returns:
        A batch of estimates.

    Raises:
        TypeError: If `observations` is not an `Observation`.
        ValueError: If it is not a batch, belongs to another problem, or holds readings that
            cannot be; or if `checked` inside of a transformation.

    Example:
        >>> problem = ij.problems.robertson()
        >>> inverter = ij.methods.LeastSquares(starts=1, draws=16, candidates=0).fit(problem)
        >>> thetas = problem.parameters.sample(3, key=jr.key(0))
        >>> seen = [problem.simulate(theta, key=jr.key(1)) for theta in np.asarray(thetas)]
        >>> batch = jax.tree.map(lambda *parts: np.stack(parts), *seen)
        >>> ij.methods.invert_batch(inverter, batch, key=jr.key(2)).value.shape
        (3, 3)
    """
    check_batch(inverter.problem, observations)
    keys = jax.random.split(key, observations.mask.shape[0])
    if is_traced(observations, key, inverter):
        if checked:
            raise ValueError(
                "`checked=True` solves the model on the host: call `invert_batch` outside of "
                "`jax.jit` and other transformations."
            )
        return _apart(inverter)._invert(observations, keys)
    observations = observations.in_order()
    check_readings(inverter.problem, observations, "`observations`")
    estimates = inverter._invert(observations, keys)
    if not checked:
        return estimates
    return inverter._checked(jax.tree.map(np.asarray, estimates), observations)


def _apart(inverter: AbstractInverter) -> AbstractInverter:
    """The same inverter with NumPy arrays of its own, to be traced.

    As constants of a program in single precision JAX keeps them in that precision, and while the
    program lives no other one can have them in double precision.
    """
    return jax.tree.map(lambda x: x.copy() if isinstance(x, np.ndarray) else x, inverter)


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
