"""The one object that every method takes: unknowns, model, sensors and noise together."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key

from ._edges import absolute_errors, check_readable, name_impossible, relative_error
from ._observation import Observation, check_possible, check_times
from ._parameters import ParameterSpace
from ._sensors import Sensors
from ._x64 import in_x64, is_traced
from .models._field import Variation
from .models._ode import ODEModel
from .models._pde import PDEModel
from .noise import AbstractNoise, NoDensityError
from .solvers import SolveStatus


class InverseProblem(eqx.Module):
    """Which parameters made these readings?

    The methods that solve the model enter float64 themselves and return NumPy arrays on the
    host. Inside a transformation (`jax.grad`, `jax.jit`, ...) the caller's own setting must be
    64-bit: `with jax.enable_x64(True): jax.grad(problem.log_posterior)(theta, observation)`.

    Attributes:
        name: What observations and files made with this problem are marked with.
        parameters: The unknowns and their priors.
        model: The differential equation.
        sensors: What of its solution is read.
        noise: How readings scatter around it; levels that are unknowns have found theirs.

    Example:
        >>> import numpyro.distributions as dist
        >>> problem = ij.InverseProblem(
        ...     name="decay",
        ...     parameters=ij.ParameterSpace((ij.Parameter("k", dist.Uniform(0.1, 2.0)),)),
        ...     model=ij.ODEModel(
        ...         lambda t, y, theta: -theta["k"] * y,
        ...         initial_state=(1.0,), times=np.linspace(0.2, 2.0, 10), states=("y",),
        ...     ),
        ...     sensors=ij.Sensors(ij.RandomTimes(5)),
        ...     noise=ij.noise.Gaussian(0.02),
        ... )
        >>> observation = problem.simulate(np.array([1.0]), key=jr.key(0))
        >>> observation.values.shape
        (5, 1)
    """

    name: str = eqx.field(static=True)
    parameters: ParameterSpace
    model: ODEModel | PDEModel
    sensors: Sensors
    noise: AbstractNoise

    def __init__(
        self,
        name: str,
        parameters: ParameterSpace,
        model: ODEModel | PDEModel,
        sensors: Sensors,
        noise: AbstractNoise,
    ) -> None:
        """Put the parts of an inverse problem together.

        Raises:
            TypeError: If a part is of another type.
            ValueError: If the parts do not fit together.
        """
        self.name = name
        self.parameters = parameters
        self.model = model
        self.sensors = sensors
        self.noise = noise
        self._check_types()
        self.model = model.bound(parameters.binding)
        self.noise = noise.bound_to(parameters.binding)

    def _check_types(self) -> None:
        fields = {
            "name": str,
            "parameters": ParameterSpace,
            "model": (ODEModel, PDEModel),
            "sensors": Sensors,
            "noise": AbstractNoise,
        }
        for field, kind in fields.items():
            if not isinstance(getattr(self, field), kind):
                got = type(getattr(self, field)).__name__
                kinds = kind if isinstance(kind, tuple) else (kind,)
                wanted = " or ".join(f"`{one.__name__}`" for one in kinds)
                raise TypeError(f"`{field}` must be of type {wanted}; got {got}.")

    def __check_init__(self) -> None:
        """Refuse parts that do not fit together."""
        if not self.name.strip():
            raise ValueError("`name` must not be empty: observations are marked with it.")
        if self.sensors.observable is None:
            self._check_channels()
        else:
            _check_observable(self)
        if isinstance(self.model, PDEModel):
            self.model.check(self.parameters.names)
        if self.model.coordinate in self.channels:
            raise ValueError(
                f"`sensors` reads a channel named {self.model.coordinate!r}, as the places of "
                "readings are called in files; give it another name."
            )
        self.sensors.times.check(self.model.times)
        self.noise.check(len(self.channels))

    def _check_channels(self) -> None:
        unknown = [name for name in self.channels if name not in self.model.states]
        if unknown:
            raise ValueError(
                f"`sensors` reads channels {unknown} that the model does not have; its states are "
                f"{', '.join(self.model.states)}."
            )

    @property
    def channels(self) -> tuple[str, ...]:
        """Name of what is read: states, or the results of an observable."""
        return self.model.states if self.sensors.channels is None else self.sensors.channels

    @property
    def channel_index(self) -> tuple[int, ...]:
        """Where each channel stands among the model's states.

        Raises:
            ValueError: If channels are not states, but results of an observable.
        """
        if self.sensors.observable is not None:
            raise ValueError(
                f"The channels {', '.join(self.channels)} of problem {self.name!r} are results of "
                "an `observable`, but states are needed here. Use `InverseProblem.read`, or a "
                "method that compares readings with what it returns."
            )
        return tuple(self.model.states.index(name) for name in self.channels)

    @property
    def observation_parameters(self) -> Bool[np.ndarray, " parameter"]:
        """Which parameters say how readings come about, and leave the solution as it is.

        Levels and correlations of noise, gains of an observable: one solution serves any value of
        them. A `PDEModel` counts as if it used all parameters.
        """
        size = self.parameters.size
        if isinstance(self.model, PDEModel):
            return np.zeros(size, bool)
        return ~self.model.depends_on(size)

    @property
    def coupled(self) -> bool:
        """Whether the prior has a factor besides the densities of the parameters."""
        return isinstance(self.model, PDEModel) and self.model.coupled

    def coupling(self, theta: Float[ArrayLike, " parameter"]) -> Variation | None:
        """Minus the logarithm of that factor, the total variation of unknown functions.

        Args:
            theta: Physical parameter values.

        Returns:
            It and its derivatives; None if there is no such factor.
        """
        return self.model.variation(theta) if isinstance(self.model, PDEModel) else None

    def check_independent(self) -> None:
        """Refuse a prior whose parameters are coupled.

        Raises:
            ValueError: If a field has a total variation, which draws of the parameters ignore.
        """
        if self.coupled:
            raise ValueError(
                f"A total variation couples the parameters of {self.name!r}, but here they are "
                "drawn as if they were independent. Use `LeastSquares`, `Posterior`, "
                "`SequentialMonteCarlo`, `BiLO` or `PINN`, or a field without `total_variation`."
            )

    def read(
        self,
        states: Float[Array | np.ndarray, "*batch time state"],
        theta: Float[Array | np.ndarray, "*batch parameter"],
    ) -> Float[Array | np.ndarray, "*batch time channel"]:
        """Turn solutions into clean readings, without sensors' times and without noise.

        Pure and cheap, for use inside `jit`, in any precision. Where readings cannot be negative,
        what is below zero by no more than the solver's error is zero.

        Args:
            states: States at any times.
            theta: Physical parameter values, on which an observable may depend.

        Returns:
            The value of each channel at each of these times, in the dtype of `states`.
        """
        clean = _read(self, states, theta)
        if not (self.noise.positive or self.noise.counts):
            return clean
        absolute = _absolute_error(self, states, theta, clean)
        return self.noise.settled(clean, relative=relative_error(self.model), absolute=absolute)

    def simulate(
        self, theta: Float[ArrayLike, " parameter"], *, key: Key[Array, ""]
    ) -> Observation:
        """Solve the model and measure it, as an experiment would.

        Args:
            theta: Physical parameter values.
            key: Source of randomness of sensors and noise.

        Returns:
            A synthetic observation. Where the noise is log-normal and the model predicts zero, or
            too little for the solver to know it, no reading is present: its logarithm says nothing.

        Raises:
            ValueError: If `theta` has the wrong shape, or if the noise has no reading for what the
                model predicts, such as a count at a negative rate.
            TypeError: If `theta` is a dictionary.
            RuntimeError: If the solve fails; the message says how.
        """
        self._check_theta(theta)
        solution = self.model.solve(theta)
        if not is_traced(solution.status) and int(solution.status) != SolveStatus.SUCCESS:
            message = SolveStatus(int(solution.status)).message
            raise RuntimeError(f"The model could not be solved at this `theta`. {message}")
        found = _on_host(in_x64(_observe)(self, solution.states, theta, key))
        if not is_traced(found) and (self.noise.positive or self.noise.counts):
            rows = np.abs(np.subtract.outer(found.times, self.model.times)).argmin(axis=1)
            states = np.asarray(solution.states)[rows]
            check_readable(self, found, in_x64(self.read)(states, np.asarray(theta, np.float64)))
        return found

    def observe(
        self,
        trajectory: Float[Array | np.ndarray, "time state"],
        theta: Float[Array | np.ndarray, " parameter"],
        *,
        key: Key[Array, ""],
    ) -> Observation:
        """Measure a solution that is already there: draw sensors, read, add noise.

        Pure and cheap, for use inside `jit` and `vmap` in training, in any precision.

        Args:
            trajectory: States at the model's output times.
            theta: Physical parameter values, on which the noise may depend.
            key: Source of randomness of sensors and noise.

        Returns:
            An observation with `sensors.size` rows and the dtype of `trajectory`.

        Raises:
            RuntimeError: If output times are too far from zero to differ in that dtype.
        """
        return _observe(self, trajectory, theta, key)

    def predict(
        self, theta: Float[ArrayLike, " parameter"], observation: Observation
    ) -> Float[Any, "reading channel"]:
        """Solve the model at an observation's own times and read it without noise.

        Args:
            theta: Physical parameter values.
            observation: What to predict; padding rows are welcome.

        Returns:
            Clean readings; NaN where the solve failed.

        Raises:
            ValueError: If `theta` has the wrong shape or the observation is not of this problem.
            RuntimeError: If traced while 64-bit floats are off.
        """
        self._check_theta(theta)
        self.check_observation(observation)
        return _on_host(in_x64(_predict)(self, theta, observation))

    def whitened_residual(
        self, theta: Float[ArrayLike, " parameter"], observation: Observation
    ) -> Float[Any, "reading channel"]:
        """Compare readings and predictions in standard deviations of the noise.

        Use it for least squares: half its sum of squares is the negative log likelihood of
        Gaussian noise up to a constant.

        Args:
            theta: Physical parameter values.
            observation: The readings.

        Returns:
            Readings minus predictions, whitened by the noise model; 0 where no reading is, NaN
            where the solve failed, and infinite where a reading is `impossible`.
            Where the noise has a level that is unknown, the likelihood also needs its logarithm,
            `noise.log_scale`.

        Raises:
            ValueError: As `predict`, or if the noise has no density.
        """
        self._check_theta(theta)
        self.check_observation(observation)
        return _on_host(in_x64(_whitened_residual)(self, theta, observation))

    def log_likelihood(
        self, theta: Float[ArrayLike, " parameter"], observation: Observation
    ) -> Float[Any, ""]:
        """Evaluate the log density of the readings at given parameters.

        Args:
            theta: Physical parameter values.
            observation: The readings.

        Returns:
            The log density; NaN if the solve failed, and minus infinity if a reading is
            `impossible`.

        Raises:
            ValueError: As `predict`, or if the noise has no density.
        """
        self._check_theta(theta)
        self.check_observation(observation)
        return _on_host(in_x64(_log_likelihood)(self, theta, observation))

    def impossible(self, theta: Float[ArrayLike, " parameter"], observation: Observation) -> str:
        """Say which reading cannot be at given parameters, such as an event at a rate of zero.

        Use it where the log likelihood is minus infinity: the model was solved, and its noise
        leaves no chance to what was read. Not for use inside a transformation.

        Args:
            theta: Physical parameter values.
            observation: The readings.

        Returns:
            Sentences that name the reading, what the model predicts there and what to do about it;
            empty if the density of the readings is positive, if the noise has none, or if the
            solve failed.

        Raises:
            ValueError: As `predict`.
        """
        self._check_theta(theta)
        self.check_observation(observation)
        try:
            zero = np.isneginf(in_x64(_log_likelihood)(self, theta, observation))
        except NoDensityError:
            return ""
        return in_x64(_impossible)(self, theta, observation) if zero else ""

    def log_posterior(
        self, theta: Float[ArrayLike, " parameter"], observation: Observation
    ) -> Float[Any, ""]:
        """Evaluate log likelihood plus log prior, the posterior density up to a constant.

        A total variation of a field is part of the prior.

        Args:
            theta: Physical parameter values.
            observation: The readings.

        Returns:
            The log density; minus infinity outside the prior's support, whatever the solve does
            there, and NaN if a solve inside it failed.

        Raises:
            ValueError: As `predict`, or if the noise has no density.
        """
        self._check_theta(theta)
        self.check_observation(observation)
        return _on_host(in_x64(_log_posterior)(self, theta, observation))

    def _check_theta(self, theta: Any) -> None:
        space = self.parameters
        each = f"one value for each of the {space.size} parameters {', '.join(space.names)}"
        if isinstance(theta, Mapping):
            raise TypeError(
                f"`theta` must be {each}, an array in this order; got {type(theta).__name__}. "
                "Write `problem.parameters.from_dict(theta)`."
            )
        if np.shape(theta) == (space.size,):
            return
        if np.shape(theta) == (len(space.all_names),):
            raise ValueError(
                f"`theta` must be {each}, without those that are fixed; got shape "
                f"{np.shape(theta)}."
            )
        raise ValueError(
            f"`theta` must be {each}; got shape {np.shape(theta)}. For many parameter vectors use "
            "`jax.vmap`."
        )

    def check_observation(self, observation: Observation) -> None:
        """Raise unless an observation is a single one of this problem.

        Args:
            observation: What to check.

        Raises:
            TypeError: If it is no `Observation`.
            ValueError: If it belongs to another problem, has other channels or is a batch, if
                times are out of order or beyond the model's (but for rounding), or if a reading is
                NaN, or not positive where the noise makes them so.
        """
        if not isinstance(observation, Observation):
            raise TypeError(
                f"`observation` must be an `Observation`; got {type(observation).__name__}. "
                "Make one with `Observation.from_csv` or `Observation.from_arrays`."
            )
        if observation.problem not in ("", self.name):
            raise ValueError(
                f"`observation` belongs to problem {observation.problem!r}, not {self.name!r}."
            )
        if observation.coordinate not in ("", self.model.coordinate):
            raise ValueError(
                f"`observation` was read along {observation.coordinate!r}, but problem "
                f"{self.name!r} is along {self.model.coordinate!r}."
            )
        if observation.channels != self.channels:
            raise ValueError(
                f"`observation` has channels {observation.channels}, but problem {self.name!r} "
                f"reads {self.channels}. Make it with `Observation.from_csv(path, problem)`."
            )
        if np.ndim(observation.times) != 1:
            raise ValueError(
                "`observation` must be a single one; got a batch of shape "
                f"{np.shape(observation.times)[:-1]}. For many observations use `jax.vmap`."
            )
        if not is_traced(observation) and not isinstance(observation.mask, jax.ShapeDtypeStruct):
            _check_readings(self, observation)


def _read(problem: InverseProblem, states: Any, theta: Any) -> Any:
    if problem.sensors.observable is None:
        return states[..., np.array(problem.channel_index)]
    space = problem.parameters
    return problem.sensors.observed(
        states,
        space.complete(theta)[..., None, :],
        state_names=problem.model.states,
        parameter_names=space.all_names,
    )


def _absolute_error(problem: InverseProblem, states: Any, theta: Any, clean: Any) -> Any:
    """So near to zero the solver cannot tell a clean reading from zero."""
    errors = absolute_errors(problem.model, states)
    if problem.sensors.observable is None:
        return errors[..., np.array(problem.channel_index)]
    return abs(_read(problem, states + errors, theta) - clean)


def _impossible(problem: InverseProblem, theta: ArrayLike, observation: Observation) -> str:
    readings, clean, values, mask = _compare(problem, theta, observation)

    def alone(index: Array) -> Array:
        only = mask & (jnp.arange(mask.size) == index).reshape(mask.shape)
        return problem.noise.log_prob(readings, clean, values, only, times=observation.times)

    each = jax.lax.map(alone, jnp.arange(mask.size)).reshape(mask.shape)
    return name_impossible(problem, observation, np.asarray(clean), np.isneginf(each))


class Measured(NamedTuple):
    """One experiment on a solution; its times are rows of the output grid, which do not round.

    Attributes:
        rows: Output time of each row.
        clean: Readings without noise.
        values: Readings; 0 where the mask is False.
        mask: Which of them are there.
    """

    rows: Int[Array, " reading"]
    clean: Float[Array, "reading channel"]
    values: Float[Array, "reading channel"]
    mask: Bool[Array, "reading channel"]


def measure(
    problem: InverseProblem,
    trajectory: Float[Array | np.ndarray, "time state"],
    theta: Float[Array | np.ndarray, " parameter"],
    *,
    key: Key[Array, ""],
) -> Measured:
    """Draw sensors, read and add noise, as `InverseProblem.observe` does.

    In single precision the problem must be known when this is traced, not be an argument of what is
    traced: its output times would be rounded.

    Args:
        problem: The inverse problem.
        trajectory: States at the model's output times.
        theta: Physical parameter values.
        key: Source of randomness of sensors and noise.

    Returns:
        What was measured, in the dtype of `trajectory`.
    """
    states = jnp.asarray(trajectory)
    sensor_key, noise_key = jr.split(key)
    grid = problem.model.times
    # Looked up in double precision, whatever that of the states.
    rows, mask = problem.sensors.draw(grid, len(problem.channels), key=sensor_key)
    theta = jnp.asarray(theta, states.dtype)
    clean = jnp.asarray(problem.read(states[rows], theta))
    # Counted from the start where that may be: single precision then resolves them.
    origin = problem.model.initial_time if problem.noise.needs_differences_only else 0.0
    times = jnp.asarray(grid - origin, states.dtype)[rows]
    readings = problem.noise.sample(clean, theta, times=times, key=noise_key)
    if problem.noise.positive:
        # A logarithm of less than the solver knows says nothing, and of zero it has no value.
        known = jnp.abs(clean) > _absolute_error(problem, states[rows], theta, clean)
        mask = mask & (known | jnp.isnan(readings))
        # What is too small for a number is the smallest one: zero would be impossible.
        least = jnp.finfo(readings.dtype).tiny
        readings = jnp.where(known & (readings == 0.0), least, readings)
    return Measured(rows, clean, jnp.where(mask, readings, 0.0), mask)


def _observe(
    problem: InverseProblem,
    trajectory: Float[Array | np.ndarray, "time state"],
    theta: ArrayLike,
    key: Key[Array, ""],
) -> Observation:
    seen = measure(problem, trajectory, jnp.asarray(theta), key=key)
    dtype, grid = seen.values.dtype, problem.model.times
    if not is_traced(grid) and not resolves(grid, dtype):
        raise RuntimeError(
            f"Output times of problem {problem.name!r} near {grid[-1]:.10g} are too close to each "
            f"other for {dtype}. Observe in double precision, inside "
            "`with jax.enable_x64(True):` from float64 trajectories, or count time from a nearer "
            "origin."
        )
    return Observation(
        jnp.asarray(grid, dtype)[seen.rows],
        seen.values,
        seen.mask,
        problem.channels,
        problem.name,
        problem.model.coordinate,
    )


def resolves(times: Float[np.ndarray, " time"], dtype: Any) -> bool:
    """Whether increasing times are told apart in a precision, each step to a tenth."""
    rounding = float(jnp.finfo(dtype).eps) * np.maximum(np.abs(times[1:]), np.abs(times[:-1]))
    return bool(np.all(np.diff(times) > 10.0 * rounding))


def _solve(
    problem: InverseProblem, theta: ArrayLike, observation: Observation
) -> tuple[Array, Array]:
    # A time may lie before the start by rounding.
    times = jnp.maximum(jnp.asarray(observation.times, jnp.float64), problem.model.initial_time)
    states = jnp.asarray(problem.model.solve(theta, times=times).states)
    return states, jnp.asarray(theta, states.dtype)


def _predict(problem: InverseProblem, theta: ArrayLike, observation: Observation) -> Array:
    return jnp.asarray(problem.read(*_solve(problem, theta, observation)))


class _Compared(NamedTuple):
    """Readings beside predictions, with values of a double `where` where no reading is.

    What is masked may be zero, and its prediction NaN; neither must reach gradients.
    """

    readings: Array
    clean: Array
    theta: Array
    mask: Array


def _compare(problem: InverseProblem, theta: ArrayLike, observation: Observation) -> _Compared:
    mask = jnp.asarray(observation.mask)
    states, values = _solve(problem, theta, observation)
    if problem.sensors.observable is not None:
        # It may be singular where there is no reading, such as a logarithm at the start.
        present = jnp.any(mask, axis=1)
        states = jnp.where(present[:, None], states, states[jnp.argmax(present)][None, :])
    clean = jnp.asarray(problem.read(states, values))
    readings = jnp.asarray(observation.values, clean.dtype)
    readings, clean = (jnp.where(mask, x, 1.0) for x in (readings, clean))
    return _Compared(readings, clean, values, mask)


def _whitened_residual(
    problem: InverseProblem, theta: ArrayLike, observation: Observation
) -> Array:
    readings, clean, theta, mask = _compare(problem, theta, observation)
    whitened = problem.noise.whiten(readings, clean, theta, mask, times=observation.times)
    return jnp.where(mask, whitened, 0.0)


def _log_likelihood(problem: InverseProblem, theta: ArrayLike, observation: Observation) -> Array:
    compared = _compare(problem, theta, observation)
    return problem.noise.log_prob(*compared, times=observation.times)


def _log_posterior(problem: InverseProblem, theta: ArrayLike, observation: Observation) -> Array:
    prior = jnp.asarray(problem.parameters.log_prob(jnp.asarray(theta, jnp.float64)))
    likelihood = _log_likelihood(problem, theta, observation)
    coupling = problem.coupling(jnp.asarray(theta, jnp.float64))
    prior = prior if coupling is None else prior - coupling.value
    return jnp.where(jnp.isneginf(prior), -jnp.inf, prior + likelihood)


def _on_host(tree: Any) -> Any:
    """NumPy arrays, unless traced: a float64 JAX array is refused while 64-bit floats are off."""
    return tree if is_traced(tree) else jax.tree.map(np.asarray, tree)


def _check_observable(problem: InverseProblem) -> None:
    """Evaluate shapes only, so that a wrong one is told when the problem is made."""
    states = jax.ShapeDtypeStruct((1, len(problem.model.states)), jnp.float32)
    theta = jax.ShapeDtypeStruct((problem.parameters.size,), jnp.float32)

    def read(y: Array, p: Array) -> Array:  # a function, since a module of arrays has no hash
        return jnp.asarray(problem.read(y, p))

    jax.eval_shape(read, states, theta)


def _check_readings(problem: InverseProblem, observation: Observation) -> None:
    check_times(observation, problem)
    values, mask = np.asarray(observation.values), np.asarray(observation.mask)
    for row, column in np.argwhere(mask & np.isnan(values)):
        raise ValueError(
            f"`observation` row {row}, channel {observation.channels[column]!r}: the reading is "
            "NaN, but marked as present. Make its `mask` False there."
        )
    readings = np.where(mask, values, np.nan)
    rows = [f"`observation` row {index}" for index in range(len(readings))]
    check_possible(readings, observation.channels, rows, problem.noise)
