"""PINN: one network for the solution, trained on equation and readings at once."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from .._estimate import Estimate
from .._inverse_problem import InverseProblem
from .._observation import Observation
from .._x64 import in_x32
from ..data import Dataset
from ..nn import LocalOperator
from ..train import TrainLog
from ._base import estimate_from_point
from ._checks import check_counts, check_positive, describe_settings
from ._descent import AbstractDescent, AdamDescent, Target, nothing
from ._equation import (
    AbstractEquationInverter,
    Equation,
    Weights,
    check_losses,
    equation_of,
    run_descent,
)
from ._search import AbstractSearch, AdamSearch


class PINN(eqx.Module):
    """Physics-informed network: the solution alone, with the parameters as further weights.

    Equation and readings share one loss, so the network gives up some of the equation for the
    readings, the more so the larger `data_weight`: the baseline of BiLO. It says nothing of the
    uncertainty of its estimates.

    Attributes:
        width: Units of each layer.
        depth: Layers from width to width.
        data_weight: Weight of the mean square of readings minus predictions, in standard deviations
            of the noise, beside the mean square of the residual. A published weight w for plain
            squares is w times the variance of the noise here.
        descent: How weights and parameters descend.
        search: In which coordinates parameters are; its steps are those of the descent.
        pretraining: Steps of the weights at the guess, on the equation alone.
        steps: Steps of both together for each observation.
        guess: Physical parameter values to begin with; by default the medians of the priors.

    Source:
        Raissi, Perdikaris and Karniadakis, J. Comput. Phys. 378 (2019); as a baseline in Zhang, Li
        and Lowengrub, arXiv 2404.17789.
    """

    width: int = 128
    depth: int = 2
    data_weight: float = 1e-6
    descent: AbstractDescent = AdamDescent()
    search: AbstractSearch = AdamSearch()
    pretraining: int = 10_000
    steps: int = 50_000
    guess: tuple[float, ...] | None = None

    def __check_init__(self) -> None:
        """Refuse counts below one and a weight that is not positive."""
        check_counts(self, "width", "depth", "pretraining", "steps")
        check_positive(self, "data_weight")

    @in_x32
    def fit(
        self, problem: InverseProblem, dataset: Dataset | None = None, *, key: Key[Array, ""]
    ) -> "PINNInverter":
        """Train the network at the guess.

        Args:
            problem: An inverse problem whose model is a `PDEModel`.
            dataset: Not needed.
            key: Source of the weights and of points.

        Returns:
            An inverter that starts from the guess.

        Raises:
            TypeError: If the model is not a `PDEModel`.
            ValueError: If `guess` does not fit the parameters.
            RuntimeError: If the training diverges.
        """
        del dataset
        equation = equation_of(problem, self.guess)
        init_key, train_key = jr.split(key)
        network = LocalOperator(
            len(equation.model.coordinates),
            outputs=len(equation.model.states),
            width=self.width,
            depth=self.depth,
            key=init_key,
        )
        network, losses = _pretrain(self, equation, network, train_key)
        check_losses(losses)
        return PINNInverter(
            problem=problem,
            method=self,
            equation=equation,
            network=network,
            losses=np.asarray(losses),
            settings=describe_settings(self),
        )


class PINNSolution(eqx.Module):
    """Parameters and network after both have descended for an observation.

    Attributes:
        theta: Physical parameter values.
        network: The solution there.
        losses: Loss of equation and readings before each step.
    """

    theta: Float[Array, " parameter"]
    network: LocalOperator
    losses: Float[Array, " step"]


class PINNInverter(AbstractEquationInverter[PINNSolution]):
    """A network pretrained at the guess, from `PINN.fit`.

    Attributes:
        problem: The problem it inverts.
        method: Its settings.
        equation: What the network is trained to fulfill.
        network: The solution at the guess.
        losses: Loss of each step of the pretraining.
        settings: The method as text.
        logs: Empty.
    """

    problem: InverseProblem
    method: PINN
    equation: Equation
    network: LocalOperator
    losses: np.ndarray
    settings: str = eqx.field(static=True)
    logs: tuple[TrainLog, ...] = ()

    def _follow(self, observation: Observation, key: Key[Array, ""]) -> PINNSolution:
        return _follow(self, observation, key)

    def _invert_one(self, observation: Observation, key: Key[Array, ""]) -> Estimate:
        theta = self._follow(observation, key).theta
        return estimate_from_point(
            self.problem, jnp.asarray(self.problem.parameters.to_unit(theta))
        )


@eqx.filter_jit
def _pretrain(
    method: PINN, equation: Equation, network: LocalOperator, key: Array
) -> tuple[LocalOperator, Array]:
    weights = Weights.of(network)
    theta = jnp.asarray(equation.guess, jnp.float32)

    def rows(vector: Array, points: Array) -> Array:
        return equation.residuals(weights.build(vector), theta, points)

    vector, losses = run_descent(
        method.descent,
        Target(rows, nothing),
        equation.region,
        weights.vector,
        method.pretraining,
        key=key,
    )
    return weights.build(vector), losses


@eqx.filter_jit
def _follow(inverter: PINNInverter, observation: Observation, key: Array) -> PINNSolution:
    method, problem, equation = inverter.method, inverter.problem, inverter.equation
    weights, space = Weights.of(inverter.network), problem.parameters
    guess, size = jnp.asarray(equation.guess, jnp.float32), problem.parameters.size
    count = jnp.maximum(jnp.sum(jnp.asarray(observation.mask)), 1)

    def theta_of(x: Array) -> Array:
        return method.search.physical(space, x, guess)

    def rows(vector: Array, points: Array) -> Array:
        network = weights.build(vector[size:])
        return equation.residuals(network, theta_of(vector[:size]), points)

    def extra(vector: Array) -> Array:
        network = weights.build(vector[size:])
        line = equation.line(network, theta_of, vector[:size], observation)
        return jnp.sqrt(method.data_weight / count) * line.residual

    start = jnp.concatenate([method.search.coordinates(space, guess, guess), weights.vector])
    vector, losses = run_descent(
        method.descent, Target(rows, extra), equation.region, start, method.steps, key=key
    )
    return PINNSolution(theta_of(vector[:size]), weights.build(vector[size:]), losses)
