"""The one object that every method takes: unknowns, model, sensors and noise together."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Key

from ._observation import Observation, check_possible
from ._parameters import ParameterSpace
from ._sensors import Sensors
from ._x64 import in_x64, is_traced
from .models import ODEModel, PDEModel, Variation
from .noise import AbstractNoise
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
        self.model = getattr(model, "bound", lambda _: model)(parameters.binding)
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
    def only_measured(self) -> Bool[np.ndarray, " parameter"]:
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

        Pure and cheap, for use inside `jit`, in any precision.

        Args:
            states: States at any times.
            theta: Physical parameter values, on which an observable may depend.

        Returns:
            The value of each channel at each of these times, in the dtype of `states`.
        """
        if self.sensors.observable is None:
            return states[..., np.array(self.channel_index)]
        return self.sensors.observed(
            states,
            self.parameters.complete(theta)[..., None, :],
            state_names=self.model.states,
            parameter_names=self.parameters.all_names,
        )

    def simulate(
        self, theta: Float[ArrayLike, " parameter"], *, key: Key[Array, ""]
    ) -> Observation:
        """Solve the model and measure it, as an experiment would.

        Args:
            theta: Physical parameter values.
            key: Source of randomness of sensors and noise.

        Returns:
            A synthetic observation.

        Raises:
            ValueError: If `theta` has the wrong shape.
            RuntimeError: If the solve fails; the message says how.
        """
        self._check_theta(theta)
        solution = self.model.solve(theta)
        if not is_traced(solution.status) and int(solution.status) != SolveStatus.SUCCESS:
            message = SolveStatus(int(solution.status)).message
            raise RuntimeError(f"The model could not be solved at this `theta`. {message}")
        return _on_host(in_x64(_observe)(self, solution.states, theta, key))

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
            Readings minus predictions, whitened by the noise model; 0 where no reading is.
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
            The log density; NaN if the solve failed.

        Raises:
            ValueError: As `predict`, or if the noise has no density.
        """
        self._check_theta(theta)
        self.check_observation(observation)
        return _on_host(in_x64(_log_likelihood)(self, theta, observation))

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
        if np.shape(theta) != (self.parameters.size,):
            raise ValueError(
                f"`theta` must be one value for each of the {self.parameters.size} parameters; got "
                f"shape {np.shape(theta)}. For many parameter vectors use `jax.vmap`."
            )

    def check_observation(self, observation: Observation) -> None:
        """Raise unless an observation is a single one of this problem.

        Args:
            observation: What to check.

        Raises:
            TypeError: If it is no `Observation`.
            ValueError: If it belongs to another problem, has other channels or is a batch, or if
                a reading is not positive where the noise makes them so.
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
        _check_possible(self, observation)


def _observe(
    problem: InverseProblem, trajectory: ArrayLike, theta: ArrayLike, key: Key[Array, ""]
) -> Observation:
    states = jnp.asarray(trajectory)
    sensor_key, noise_key = jr.split(key)
    grid = jnp.asarray(problem.model.times, states.dtype)
    index, mask = problem.sensors.draw(grid, len(problem.channels), key=sensor_key)
    theta = jnp.asarray(theta, states.dtype)
    clean, times = problem.read(states[index], theta), grid[index]
    readings = problem.noise.sample(clean, theta, times=times, key=noise_key)
    values = jnp.where(mask, readings, 0.0)
    return Observation(
        times, values, mask, problem.channels, problem.name, problem.model.coordinate
    )


def _solve(
    problem: InverseProblem, theta: ArrayLike, observation: Observation
) -> tuple[Array, Array]:
    states = jnp.asarray(problem.model.solve(theta, times=observation.times).states)
    return states, jnp.asarray(theta, states.dtype)


def _predict(problem: InverseProblem, theta: ArrayLike, observation: Observation) -> Array:
    return jnp.asarray(problem.read(*_solve(problem, theta, observation)))


class _Compared(NamedTuple):
    """Readings beside predictions, with innocent values where no reading is.

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


def _check_possible(problem: InverseProblem, observation: Observation) -> None:
    values, mask = observation.values, observation.mask
    if not (problem.noise.positive or problem.noise.counts):
        return
    if is_traced(observation) or isinstance(values, jax.ShapeDtypeStruct):
        return
    readings = np.where(np.asarray(mask), np.asarray(values), np.nan)
    rows = [f"`observation` row {index}" for index in range(len(readings))]
    check_possible(readings, observation.channels, rows, problem.noise)
