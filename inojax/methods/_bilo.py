"""BiLO: a local solution operator that follows its parameters to the data."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
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
from ._base import estimate_from_cloud
from ._checks import check_counts, describe_settings
from ._descent import AbstractDescent, AdamDescent, GaussNewtonDescent, Target, nothing
from ._equation import (
    AbstractEquationInverter,
    Equation,
    Weights,
    check_losses,
    equation_of,
    run_descent,
)
from ._objective import Penalty
from ._search import AbstractSearch, AdamSearch, GaussNewtonSearch, penalized


class BiLO(eqx.Module):
    """Bilevel local operator learning for partial differential equations with unknown scalars.

    A network of coordinates and parameters is trained to solve the equation at one guess of the
    parameters and, by its derivative there, at those nearby. Then both move together: the
    parameters downhill in the misfit of the readings, as the network predicts them, and the
    network toward the equation at the new parameters. The solver is not needed.

    Use it where solving the equation is expensive. Training happens once for each problem;
    observations are then inverted one by one or many at once. The defaults take second-order
    steps in both levels; `BiLO.published()` takes those of the paper.

    Attributes:
        width: Units of each layer of the network.
        depth: Layers from width to width.
        train_embedding: Whether the embedding of the parameters is trained, to show why not.
        residual_gradient: Weight of the residual's derivative by the parameters.
        descent: How the weights follow the equation.
        search: How the parameters follow the readings.
        penalty: What is added to the misfit of the readings.
        pretraining: Steps of the weights at the guess.
        steps: Steps of both together for each observation.
        guess: Physical parameter values to begin with; by default the medians of the priors.
        draws: Samples of each estimate's posterior.

    Source:
        Zhang, Li and Lowengrub, arXiv 2404.17789 (J. Comput. Phys. 551, 114679).
    """

    width: int = 64
    depth: int = 2
    train_embedding: bool = False
    residual_gradient: float = 0.1
    descent: AbstractDescent = GaussNewtonDescent()
    search: AbstractSearch = GaussNewtonSearch()
    penalty: Penalty = Penalty.DENSITY
    pretraining: int = 80
    steps: int = 100
    guess: tuple[float, ...] | None = None
    draws: int = 128

    def __check_init__(self) -> None:
        """Refuse counts below one and a weight that is not positive."""
        check_counts(self, "width", "depth", "pretraining", "steps", "draws")
        if not self.residual_gradient > 0.0:
            raise ValueError(
                "`residual_gradient` must be positive: without it the network does not learn how "
                f"parameters move its solution; got {self.residual_gradient!r}."
            )

    @classmethod
    def published(cls, *, pretraining: int = 10_000, steps: int = 50_000) -> "BiLO":
        """The published network and schedule: Adam on all collocation points, no prior.

        Args:
            pretraining: Steps at the guess.
            steps: Steps of both levels; 50,000 for Fisher-KPP.

        Returns:
            The method.
        """
        return cls(
            width=128,
            descent=AdamDescent(),
            search=AdamSearch(),
            penalty=Penalty.NONE,
            pretraining=pretraining,
            steps=steps,
        )

    @in_x32
    def fit(
        self, problem: InverseProblem, dataset: Dataset | None = None, *, key: Key[Array, ""]
    ) -> "BiLOInverter":
        """Train the local operator at the guess.

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
            problem.parameters.size,
            len(equation.model.states),
            width=self.width,
            depth=self.depth,
            train_embedding=self.train_embedding,
            key=init_key,
        )
        network, losses = _pretrain(self, equation, network, train_key)
        check_losses(losses)
        return BiLOInverter(
            problem=problem,
            method=self,
            equation=equation,
            network=network,
            losses=np.asarray(losses),
            settings=describe_settings(self),
        )


class LocalSolution(NamedTuple):
    """Parameters and local operator after both have moved to an observation.

    Attributes:
        theta: Physical parameter values.
        network: The local operator there.
        path: Physical parameter values before each step.
        residual_loss: Loss of the equation before each step.
        misfit: Misfit of the readings before each step, half a chi-squared.
    """

    theta: Float[Array, " parameter"]
    network: LocalOperator
    path: Float[Array, "step parameter"]
    residual_loss: Float[Array, " step"]
    misfit: Float[Array, " step"]


class BiLOInverter(AbstractEquationInverter[LocalSolution]):
    """A pretrained local operator, from `BiLO.fit`.

    Attributes:
        problem: The problem it inverts.
        method: Its settings.
        equation: What the network is trained to fulfill.
        network: The local operator at the guess.
        losses: Loss of each step of the pretraining.
        settings: The method as text.
        logs: Empty.
    """

    problem: InverseProblem
    method: BiLO
    equation: Equation
    network: LocalOperator
    losses: np.ndarray
    settings: str = eqx.field(static=True)
    logs: tuple[TrainLog, ...] = ()

    def _follow(self, observation: Observation, key: Key[Array, ""]) -> LocalSolution:
        return _follow(self, observation, key)

    def _invert_one(self, observation: Observation, key: Key[Array, ""]) -> Estimate:
        follow_key, draw_key = jr.split(key)
        found = self._follow(observation, follow_key)
        space = self.problem.parameters
        cloud = self._cloud(found, observation, draw_key)
        value = jnp.asarray(space.to_unit(found.theta))
        return estimate_from_cloud(self.problem, value, jnp.asarray(space.to_unit(cloud)))

    def _cloud(self, found: LocalSolution, observation: Observation, key: Array) -> Array:
        """Draws of the linearized posterior, in unconstrained coordinates."""
        space = self.problem.parameters
        x = jnp.asarray(space.to_unconstrained(found.theta))

        def theta_of(x: Array) -> Array:
            return jnp.asarray(space.from_unconstrained(x))

        line = self.equation.line(found.network, theta_of, x, observation)
        _, curvature = penalized(line, space, self.method.penalty, theta_of, x)
        size = jnp.sqrt(jnp.maximum(jnp.diagonal(curvature), 1e-30))
        alike = curvature / (size[:, None] * size[None, :]) + 1e-6 * jnp.eye(len(x))
        noise = jr.normal(key, (len(x), self.method.draws))
        step = jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(alike).T, noise)
        return jax.vmap(theta_of)(x[None] + (step / size[:, None]).T)


def _target(
    method: BiLO, equation: Equation, weights: Weights, theta: Float[Array, " parameter"]
) -> Target:
    def rows(vector: Array, points: Array) -> Array:
        network = weights.build(vector)
        return equation.local_rows(network, theta, points, method.residual_gradient)

    return Target(rows, nothing)


@eqx.filter_jit
def _pretrain(
    method: BiLO, equation: Equation, network: LocalOperator, key: Array
) -> tuple[LocalOperator, Array]:
    weights = Weights.of(network)
    target = _target(method, equation, weights, jnp.asarray(equation.guess, jnp.float32))
    vector, losses = run_descent(
        method.descent, target, equation.region, weights.vector, method.pretraining, key=key
    )
    return weights.build(vector), losses


@eqx.filter_jit
def _follow(inverter: BiLOInverter, observation: Observation, key: Array) -> LocalSolution:
    method, problem = inverter.method, inverter.problem
    weights, equation = Weights.of(inverter.network), inverter.equation
    descent, search, region = method.descent, method.search, equation.region
    space, guess = problem.parameters, jnp.asarray(equation.guess, jnp.float32)

    def theta_of(x: Array) -> Array:
        return search.physical(space, x, guess)

    def step(carry: Any, given: Any) -> tuple[Any, Any]:
        (vector, state), (x, search_state) = carry
        progress, key = given
        theta = theta_of(x)
        line = equation.line(weights.build(vector), theta_of, x, observation)
        slopes = penalized(line, space, method.penalty, theta_of, x)
        upper = search.step(x, *slopes, search_state, progress)
        target = _target(method, equation, weights, theta)
        *lower, loss = descent.step(target, region, vector, state, progress, key=key)
        return (tuple(lower), upper), (theta, loss, line.misfit)

    x = search.coordinates(space, guess, guess)
    start = (weights.vector, descent.init(weights.vector)), (x, search.init(x))
    given = jnp.linspace(0.0, 1.0, method.steps), jr.split(key, method.steps)
    ((vector, _), (x, _)), history = jax.lax.scan(step, start, given)
    return LocalSolution(theta_of(x), weights.build(vector), *history)
