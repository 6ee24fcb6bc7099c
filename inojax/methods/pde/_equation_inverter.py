"""What methods share that train a network on an equation, and their inverters."""

import abc
import dataclasses
from typing import ClassVar, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, ArrayLike, Float, Key

from ..._estimate import Estimate
from ..._inverse_problem import InverseProblem
from ..._observation import Observation
from ..._x64 import in_x32, is_traced
from ...nn._local_operator import LocalOperator
from .._inverter import AbstractNetworkInverter, check_readings
from .._method import AbstractMethod, FitArguments
from ._equation import Equation
from ._unknowns import Functions, Unknowns
from ._weight_optimizers import AbstractWeightOptimizer, Target, Weights, optimize_weights

_Solution = TypeVar("_Solution")
_Inverter = TypeVar("_Inverter", bound="AbstractEquationInverter")


class AbstractEquationInverter(AbstractNetworkInverter, Generic[_Solution]):
    """A network that was trained on an equation, and moves on with each observation.

    Subclasses have these fields and write `_follow`, which is pure, and `_invert_one`.

    Attributes:
        equation: What the network is trained to fulfill.
        network: The network at the guess.
        functions: The unknown functions of the guess.
        losses: Loss of each step of the pretraining.
    """

    equation: AbstractVar[Equation]
    network: AbstractVar[LocalOperator]
    functions: AbstractVar[Functions]
    losses: AbstractVar[Float[Array | np.ndarray, " step"]]

    @abc.abstractmethod
    def _follow(self, observation: Observation, key: Key[Array, ""]) -> _Solution:
        """Move parameters and network to one observation."""

    @abc.abstractmethod
    def _invert_one(self, observation: Observation, key: Key[Array, ""]) -> Estimate:
        """The estimate of one observation."""

    def _evaluate(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
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
        *,
        functions: Functions | Float[ArrayLike, "point field"] | None = None,
    ) -> Float[Array, "point state"]:
        """Evaluate a network, initial and boundary conditions included.

        `predict(points, found.theta, found.network, functions=found.functions)` is the solution
        that `follow` found.

        Args:
            points: Where.
            theta: Physical parameter values, near those that the network was trained at.
                Coefficients stand for functions that are linear between nodes.
            network: The network; by default the one at the guess.
            functions: The unknown functions, or their values at the points; by default those of
                the coefficients.

        Returns:
            The states.
        """
        network = self.network if network is None else network
        theta, points = jnp.asarray(theta), jnp.asarray(points)
        if functions is None:
            fields = self.equation.values(theta, points)
        elif isinstance(functions, Functions):
            fields = functions.jet(points, ()).value
        else:
            fields = jnp.asarray(functions, points.dtype)
        return self.equation.states(network, theta[: self.equation.scalars], fields, points)


class AbstractEquationMethod(AbstractMethod[_Inverter]):
    """A method that trains a network on an equation.

    It may train many at once: under `jax.vmap` over keys, `network`, `functions` and `losses` of
    the inverter are pure functions of the key; then the losses of a run that diverges are not
    finite, and nothing is raised.

    Subclasses have these fields and write `_untrained`, which `fit` trains and `inojax.load` fills,
    and `_target`.

    Attributes:
        weight_optimizer: How the weights follow the equation.
        pretraining: Steps of the weights at the guess.
    """

    _trains: ClassVar[bool] = True

    weight_optimizer: AbstractVar[AbstractWeightOptimizer]
    pretraining: AbstractVar[int]

    @in_x32
    def _fit(self, arguments: FitArguments) -> _Inverter:
        assert arguments.key is not None
        init_key, train_key = jr.split(arguments.key)
        inverter = self._untrained(arguments.problem, *jr.split(init_key))
        network, losses = _pretrained(
            self, inverter.equation, inverter.network, inverter.functions, train_key
        )
        return dataclasses.replace(inverter, network=network, losses=_checked(losses))

    def _blank(self, problem: InverseProblem) -> _Inverter:
        return self._untrained(problem, *jr.split(jr.key(0)))

    @abc.abstractmethod
    def _untrained(
        self, problem: InverseProblem, init_key: Key[Array, ""], field_key: Key[Array, ""]
    ) -> _Inverter:
        """An inverter with the weights that the first key draws.

        The second one is for networks of unknown functions, which know the guess.
        """

    @abc.abstractmethod
    def _target(self, equation: Equation, weights: Weights, unknowns: Unknowns) -> Target:
        """What the weights of the network make small while unknowns stand still."""


@eqx.filter_jit
def _pretrained(
    method: AbstractEquationMethod,
    equation: Equation,
    network: LocalOperator,
    functions: Functions,
    key: Key[Array, ""],
) -> tuple[LocalOperator, Float[Array, " step"]]:
    """The network after its training at the guess, and the loss before each step."""
    weights = Weights.of(network)
    target = method._target(equation, weights, Unknowns(equation.scale, functions))
    vector, losses = optimize_weights(
        method.weight_optimizer,
        target,
        equation.region,
        weights.vector,
        method.pretraining,
        key=key,
    )
    return weights.build(vector), losses


def _checked(losses: Float[Array, " step"]) -> Float[Array | np.ndarray, " step"]:
    """Losses on the host, or as they are while traced; a RuntimeError if a run has diverged."""
    if is_traced(losses):
        return losses
    found = np.asarray(losses)
    if not np.isfinite(found[-1]):
        raise RuntimeError(
            f"The residual is no longer finite after {len(losses)} steps. Lower the "
            "`learning_rate` of `weight_optimizer`, or raise its damping where it has one."
        )
    return found
