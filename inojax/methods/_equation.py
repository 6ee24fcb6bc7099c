"""What a network must fulfill, for methods that train it on a partial differential equation."""

import abc
from typing import Any, Generic, NamedTuple, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from equinox import AbstractVar
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, Key

from .._estimate import Estimate
from .._inverse_problem import InverseProblem
from .._linearization import Linearization, linearize
from .._observation import Observation
from .._x64 import in_x32, is_traced
from ..models import PDEModel
from ..nn import Jet, LocalOperator
from ._base import AbstractNetworkInverter, check_readings
from ._descent import AbstractDescent, Region, Target

_Solution = TypeVar("_Solution")


class Equation(eqx.Module):
    """The equation of a problem, for networks that see parameters in units of a guess.

    Attributes:
        problem: The inverse problem.
        model: Its model.
        pairs: Second derivatives that the equation needs.
        guess: Physical parameter values that set the scale.
    """

    problem: InverseProblem
    model: PDEModel
    pairs: tuple[tuple[int, int], ...] = eqx.field(static=True)
    guess: Float[np.ndarray, " parameter"]

    @property
    def region(self) -> Region:
        """Where it holds."""
        lower, upper = np.array(self.model.domain, np.float32).T
        points = jnp.asarray(self.model.collocation, jnp.float32)
        return Region(points, jnp.asarray(lower), jnp.asarray(upper))

    def states(
        self,
        network: LocalOperator,
        theta: Float[Array, " parameter"],
        points: Float[Array, "point coordinate"],
    ) -> Float[Array, "point state"]:
        """What a network predicts."""
        raw = network.jet(points, self._seen(network, theta), ()).value
        return self.model.fulfilled(raw, points, theta)

    def residuals(
        self,
        network: LocalOperator,
        theta: Float[Array, " parameter"],
        points: Float[Array, "point coordinate"],
    ) -> Float[Array, "point equation"]:
        """By how much it misses the equation."""
        jet = network.jet(points, self._seen(network, theta), self.pairs)
        return self.model.residuals(jet, points, theta)

    def _seen(self, network: LocalOperator, theta: Array) -> Array:
        # A network that knows no parameters sees none.
        scaled = theta / jnp.asarray(self.guess, theta.dtype)
        return scaled[: len(network.embedding)]

    def local_rows(
        self,
        network: LocalOperator,
        theta: Float[Array, " parameter"],
        points: Float[Array, "point coordinate"],
        weight: float,
    ) -> Float[Array, "point row"]:
        """The residual, and its weighted derivative by each parameter in units of the guess."""
        guess = jnp.asarray(self.guess, theta.dtype)
        jet, tangents = network.local_jet(points, theta / guess, self.pairs)

        def residuals(jet: Jet, theta: Array) -> Array:
            return self.model.residuals(jet, points, theta)

        found, derivative = jax.linearize(residuals, jet, theta)
        directions = jnp.diag(guess)
        slopes = [derivative(*pair) for pair in zip(tangents, directions, strict=True)]
        root = np.float32(np.sqrt(weight))
        return jnp.concatenate([found, *(root * slope for slope in slopes)], axis=1)

    def line(
        self,
        network: LocalOperator,
        theta_of: Any,
        x: Float[Array, " parameter"],
        observation: Observation,
    ) -> Linearization:
        """What the readings say, with derivatives by coordinates of the parameters."""
        points = self.model.points(jnp.asarray(observation.times, x.dtype))
        theta, slopes = jax.jvp(theta_of, (x,), (jnp.ones_like(x),))
        directions = jnp.diag(slopes)

        def states(theta: Array) -> Array:
            return self.states(network, theta, points)

        found, derivative = jax.linearize(states, theta)
        tangents = jax.vmap(derivative, in_axes=1, out_axes=-1)(directions)
        return linearize(self.problem, observation, theta, found, tangents, directions)


def equation_of(problem: InverseProblem, guess: tuple[float, ...] | None) -> Equation:
    """The equation of a problem.

    Args:
        problem: An inverse problem whose model is a `PDEModel`.
        guess: Physical parameter values; by default the medians of the priors.

    Returns:
        The equation.

    Raises:
        TypeError: If the model is not a `PDEModel`.
        ValueError: If `guess` does not fit the parameters, or functions are unknown.
    """
    if not isinstance(problem.model, PDEModel):
        raise TypeError(
            "`problem` must have a `PDEModel`, on whose residual networks are trained; got "
            f"{type(problem.model).__name__}."
        )
    if problem.model.fields:
        names = ", ".join(field.name for field in problem.model.fields)
        raise ValueError(
            f"`problem` has unknown functions ({names}), for which there is no network yet. Use "
            "`LeastSquares` with `Penalty.DENSITY`, the exact regularized minimizer."
        )
    space = problem.parameters
    values = space.from_unit(np.full(space.size, 0.5)) if guess is None else guess
    values = np.asarray(values, np.float64)
    if values.shape != (space.size,) or not np.isfinite(values).all() or np.any(values == 0.0):
        raise ValueError(
            f"`guess` must be a finite number other than zero for each of the {space.size} "
            f"parameters, whose scale it sets; got {values}."
        )
    return Equation(problem, problem.model, problem.model.second_derivatives(space.size), values)


class AbstractEquationInverter(AbstractNetworkInverter, Generic[_Solution]):
    """A network that was trained on an equation, and moves on with each observation.

    Subclasses have these fields and write `_follow`, which is pure, and `_invert_one`.

    Attributes:
        problem: The problem it inverts.
        equation: What the network is trained to fulfill.
        network: The network at the guess.
    """

    problem: AbstractVar[InverseProblem]
    equation: AbstractVar[Equation]
    network: AbstractVar[LocalOperator]

    @abc.abstractmethod
    def _follow(self, observation: Observation, key: Key[Array, ""]) -> _Solution:
        """Move parameters and network to one observation."""

    @abc.abstractmethod
    def _invert_one(self, observation: Observation, key: Key[Array, ""]) -> Estimate:
        """The estimate of one observation."""

    def _invert(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        return jax.vmap(self._invert_one)(observations, keys)

    @in_x32
    def follow(self, observation: Observation, *, key: Key[Array, ""]) -> _Solution:
        """Move parameters and network to an observation and say how they went.

        Args:
            observation: A single observation.
            key: Source of points.

        Returns:
            Parameters, network and how they came there; `predict` evaluates the network.

        Raises:
            ValueError: If the observation belongs to another problem, or holds no reading.
        """
        self.problem.check_observation(observation)
        if not is_traced(observation):
            check_readings(self.problem, observation, "`observation`")
        return self._follow(observation, key)

    def predict(
        self,
        points: Float[ArrayLike, "point coordinate"],
        theta: Float[ArrayLike, " parameter"],
        network: LocalOperator | None = None,
    ) -> Float[Array, "point state"]:
        """Evaluate a network, initial and boundary conditions included.

        Args:
            points: Where.
            theta: Physical parameter values, near those that the network was trained at.
            network: The network; by default the one at the guess.

        Returns:
            The states.
        """
        network = self.network if network is None else network
        return self.equation.states(network, jnp.asarray(theta), jnp.asarray(points))


class Weights(NamedTuple):
    """A network taken apart into a vector of what is trained and the rest.

    Attributes:
        vector: What is trained.
        network: The whole.
    """

    vector: Float[Array, " weight"]
    network: Any

    @classmethod
    def of(cls, network: LocalOperator) -> "Weights":
        """Take a network apart."""
        return cls(ravel_pytree(eqx.filter(network, _is_trained))[0], network)

    def build(self, vector: Float[Array, " weight"]) -> LocalOperator:
        """The network with other weights."""
        trained, fixed = eqx.partition(self.network, _is_trained)
        return eqx.combine(ravel_pytree(trained)[1](vector), fixed)


def _is_trained(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array)


def run_descent(
    descent: AbstractDescent,
    target: Target,
    region: Region,
    vector: Float[Array, " weight"],
    steps: int,
    *,
    key: Key[Array, ""],
) -> tuple[Float[Array, " weight"], Float[Array, " step"]]:
    """Run all steps of a descent; pure, for use inside `jit`.

    Args:
        descent: How steps are taken.
        target: What shall become small.
        region: Where.
        vector: Weights to begin with.
        steps: How many.
        key: Source of points.

    Returns:
        The weights, and the loss before each step.
    """

    def step(carry: Any, given: Any) -> tuple[Any, Array]:
        vector, state = carry
        progress, key = given
        *carry, loss = descent.step(target, region, vector, state, progress, key=key)
        return tuple(carry), loss

    start = vector, descent.init(vector)
    given = jnp.linspace(0.0, 1.0, steps), jr.split(key, steps)
    (vector, _), losses = jax.lax.scan(step, start, given)
    return vector, losses


def check_losses(losses: Float[Array, " step"]) -> None:
    """Raise a RuntimeError if a run has diverged."""
    if not np.isfinite(np.asarray(losses)[-1]):
        raise RuntimeError(
            f"The residual is no longer finite after {len(losses)} steps. Lower the "
            "`learning_rate` of `descent`, or raise its damping."
        )
