"""BiLO: a local solution operator that follows its parameters to the data."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from ..._estimate import Estimate
from ..._inverse_problem import InverseProblem
from ..._linearization import Linearization
from ..._observation import Observation
from ...nn._local_operator import LocalOperator
from ...train import TrainLog
from .._checks import check_choices, check_counts, check_parts
from .._estimates import estimate_from_cloud, estimate_from_point
from .._penalty import Penalty
from ._equation import Equation, equation_of
from ._equation_inverter import AbstractEquationInverter, AbstractEquationMethod
from ._network_states import input_size
from ._parameter_optimizers import (
    AbstractParameterOptimizer,
    AdamParameterOptimizer,
    GaussNewtonParameterOptimizer,
    penalized,
)
from ._unknowns import Functions, Unknowns, diagonal
from ._weight_optimizers import (
    AbstractWeightOptimizer,
    AdamWeightOptimizer,
    GaussNewtonWeightOptimizer,
    Target,
    Weights,
    nothing,
)


class BiLO(AbstractEquationMethod["BiLOInverter"]):
    """Bilevel local operator learning for equations with unknown scalars and functions.

    A network of coordinates and parameters is trained to solve the equation at one guess of the
    parameters and, by its derivative there, at those nearby. Then both move together: the
    parameters downhill in the misfit of the readings, as the network predicts them, and the
    network toward the equation at the new parameters. The solver is not needed.

    Use it where solving the equation is expensive. Training happens once for each problem;
    observations are then inverted one by one or many at once. The defaults take second-order
    steps in both levels; `BiLO.published()` takes those of the paper.

    An unknown function is a network of its own, whose value at a point is a further input of the
    local operator there. So the operator knows what a constant added to the function does, and
    the function moves at each reading as if it were shifted everywhere by what it needs there:
    published so, and exact for no function that is not constant. What comes out is the fixed point
    of that, near the regularized minimizer but not it, and it has no samples.

    Attributes:
        width: Units of each layer of the network.
        field_width: The same of the network of an unknown function.
        depth: Layers from width to width.
        train_embedding: Whether the embedding of the parameters is trained.
        residual_gradient: Weight of the residual's derivative by the parameters.
        weight_optimizer: How the weights follow the equation.
        parameter_optimizer: How the parameters follow the readings.
        field_optimizer: How the networks of unknown functions follow the readings; Gauss-Newton
            steps should take all points (`points=None`), of which there are few, and be small, or
            the functions run ahead of the operator.
        penalty: What is added to the misfit of the readings; unknown functions know that of their
            prior, or none.
        pretraining: Steps of the weights at the guess.
        steps: Steps of both together for each observation.
        guess: Physical parameter values to begin with; by default the medians of the priors.
        draws: Samples of each estimate's posterior.

    Source:
        Zhang, Li and Lowengrub, arXiv 2404.17789 (J. Comput. Phys. 551, 114679).

    Example:
        >>> problem = ij.problems.scalar_poisson()
        >>> method = ij.methods.BiLO(
        ...     width=8, pretraining=20, steps=20,
        ...     weight_optimizer=ij.methods.AdamWeightOptimizer(),
        ...     parameter_optimizer=ij.methods.AdamParameterOptimizer(),
        ... )
        >>> inverter = method.fit(problem, key=jr.key(0))

        >>> observation = problem.simulate(
        ...     problem.parameters.from_unit(np.full(1, 0.4)), key=jr.key(1)
        ... )
        >>> inverter(observation, key=jr.key(2)).value.shape
        (1,)
    """

    width: int = 64
    field_width: int = 64
    depth: int = 2
    train_embedding: bool = False
    residual_gradient: float = 0.1
    weight_optimizer: AbstractWeightOptimizer = GaussNewtonWeightOptimizer()
    parameter_optimizer: AbstractParameterOptimizer = GaussNewtonParameterOptimizer()
    field_optimizer: AbstractWeightOptimizer = GaussNewtonWeightOptimizer(
        points=None, learning_rate=0.1
    )
    penalty: Penalty = Penalty.DENSITY
    pretraining: int = 80
    steps: int = 300
    guess: tuple[float, ...] | None = None
    draws: int = 128

    def __check_init__(self) -> None:
        """Refuse counts below one, unknown choices and a weight that is not positive."""
        check_counts(self, "width", "field_width", "depth", "pretraining", "steps", "draws")
        check_choices(self, penalty=Penalty)
        check_parts(
            self,
            weight_optimizer=AbstractWeightOptimizer,
            parameter_optimizer=AbstractParameterOptimizer,
            field_optimizer=AbstractWeightOptimizer,
        )
        if not self.residual_gradient > 0.0:
            raise ValueError(
                "`residual_gradient` must be positive: without it the network does not learn how "
                f"parameters move its solution; got {self.residual_gradient!r}."
            )

    @classmethod
    def published(
        cls,
        *,
        residual_gradient: float = 0.1,
        penalty: Penalty = Penalty.NONE,
        pretraining: int = 10_000,
        steps: int = 50_000,
    ) -> "BiLO":
        """The published network and schedule: Adam on all collocation points.

        Args:
            residual_gradient: Weight of the residual's derivative: the source's first code has
                1e-3 for unknown functions.
            penalty: What is added to the misfit: `DENSITY` for the published penalty on slopes of
                unknown functions, which is their prior.
            pretraining: Steps at the guess.
            steps: Steps of both levels; 50,000 for Fisher-KPP, 10,000 for unknown functions.

        Returns:
            The method.
        """
        return cls(
            width=128,
            weight_optimizer=AdamWeightOptimizer(),
            parameter_optimizer=AdamParameterOptimizer(),
            field_optimizer=AdamWeightOptimizer(),
            residual_gradient=residual_gradient,
            penalty=penalty,
            pretraining=pretraining,
            steps=steps,
        )

    def _untrained(
        self, problem: InverseProblem, init_key: Key[Array, ""], field_key: Key[Array, ""]
    ) -> "BiLOInverter":
        equation = equation_of(problem, self.guess)
        network = LocalOperator(
            input_size(equation.model),
            equation.scalars + len(equation.model.fields),
            len(equation.model.states),
            width=self.width,
            depth=self.depth,
            train_embedding=self.train_embedding,
            key=init_key,
        )
        return BiLOInverter(
            problem=problem,
            method=self,
            equation=equation,
            network=network,
            functions=equation.functions(self.field_width, self.depth, key=field_key),
            losses=np.zeros(self.pretraining, np.float32),
        )

    def _target(self, equation: Equation, weights: Weights, unknowns: Unknowns) -> Target:
        def rows(vector: Array, points: Array) -> Array:
            network = weights.build(vector)
            return equation.local_rows(network, unknowns, points, self.residual_gradient)

        def jumps(vector: Array) -> Array:
            network = weights.build(vector)
            return equation.local_jumps(network, unknowns, self.residual_gradient).ravel()

        return Target(rows, jumps if equation.model.interfaces else nothing)


class LocalSolution(NamedTuple):
    """Parameters and local operator after both have moved to an observation.

    Attributes:
        theta: Physical parameter values, coefficients of functions included.
        network: The local operator there; `BiLOInverter.predict` evaluates it with the ansatz.
        functions: The unknown functions there; `functions.at("D", x)` evaluates one.
        path: Physical parameter values before each step.
        residual_loss: Loss of the equation before each step.
        misfit: Misfit of the readings before each step, half a chi-squared.
    """

    theta: Float[Array, " parameter"]
    network: LocalOperator
    functions: Functions
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
        functions: The unknown functions of the guess.
        losses: Loss of each step of the pretraining.
        logs: Empty.

    Example:
        >>> problem = ij.problems.scalar_poisson()
        >>> method = ij.methods.BiLO(
        ...     width=8, pretraining=20, steps=20,
        ...     weight_optimizer=ij.methods.AdamWeightOptimizer(),
        ...     parameter_optimizer=ij.methods.AdamParameterOptimizer(),
        ... )
        >>> inverter = method.fit(problem, key=jr.key(0))

        >>> theta = problem.parameters.from_unit(np.full(1, 0.5))
        >>> inverter.predict(np.array([[0.25], [0.5]]), theta).shape
        (2, 1)
    """

    problem: InverseProblem
    method: BiLO
    equation: Equation
    network: LocalOperator
    functions: Functions
    losses: Float[Array | np.ndarray, " step"]
    logs: tuple[TrainLog, ...] = ()

    def _follow(self, observation: Observation, key: Key[Array, ""]) -> LocalSolution:
        return _follow(self, observation, key)

    def _invert_one(self, observation: Observation, key: Key[Array, ""]) -> Estimate:
        follow_key, draw_key = jr.split(key)
        found = self._follow(observation, follow_key)
        if self.functions.fields:
            return estimate_from_point(self.problem, found.theta)
        space = self.problem.parameters
        cloud = self._cloud(found, observation, draw_key)
        value = jnp.asarray(space.to_unit(found.theta))
        return estimate_from_cloud(self.problem, value, jnp.asarray(space.to_unit(cloud)))

    def _cloud(self, found: LocalSolution, observation: Observation, key: Array) -> Array:
        """Draws of the linearized posterior, in unconstrained coordinates."""
        space = self.problem.parameters
        x = jnp.asarray(space.to_unconstrained(found.theta))

        def unknowns_of(x: Array) -> Unknowns:
            return Unknowns(jnp.asarray(space.from_unconstrained(x)), self.functions)

        line = self.equation.line(found.network, unknowns_of, x, observation)
        _, curvature = penalized(line, space, self.method.penalty, unknowns_of, x)
        size = jnp.sqrt(jnp.maximum(jnp.diagonal(curvature), 1e-30))
        alike = curvature / (size[:, None] * size[None, :]) + 1e-6 * jnp.eye(len(x))
        noise = jr.normal(key, (len(x), self.method.draws))
        step = jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(alike).T, noise)
        return jax.vmap(lambda x: unknowns_of(x).scalars)(x[None] + (step / size[:, None]).T)


class _State(NamedTuple):
    """All that moves, each with the state of what moves it."""

    network: Array
    weight_optimizer: Any
    functions: Array
    field_optimizer: Any
    x: Array
    parameter_optimizer: Any


class _Upper(NamedTuple):
    """The level of the readings: what unknowns make small while the network stands still."""

    method: BiLO
    equation: Equation
    functions: Weights
    observation: Observation

    def unknowns(self, x: Array, vector: Array) -> Unknowns:
        scalars = self.equation.physical(self.method.parameter_optimizer, x)
        return Unknowns(scalars, self.functions.build(vector))

    def line(self, network: LocalOperator, x: Array, vector: Array) -> Linearization:
        def unknowns_of(x: Array) -> Unknowns:
            return self.unknowns(x, vector)

        return self.equation.line(network, unknowns_of, x, self.observation)

    def moved_scalars(self, line: Linearization, state: _State, progress: Array) -> Any:
        """Scalars after a step of their optimizer."""
        equation, method = self.equation, self.method
        if not equation.scalars:
            return state.x, state.parameter_optimizer

        def unknowns_of(x: Array) -> Unknowns:
            return self.unknowns(x, state.functions)

        slopes = penalized(line, equation.space, method.penalty, unknowns_of, state.x)
        return method.parameter_optimizer.step(
            state.x, *slopes, state.parameter_optimizer, progress
        )

    def moved_functions(
        self, network: LocalOperator, state: _State, progress: Array, key: Array
    ) -> Any:
        """Networks of unknown functions after a step of their optimizer."""
        if not self.equation.model.fields:
            return state.functions, state.field_optimizer
        # Half of all squares is minus the log posterior.
        half = np.float32(0.5**0.5)
        prior = 0.0 if self.method.penalty is Penalty.NONE else half

        def rows(vector: Array, points: Array) -> Array:
            return prior * self.functions.build(vector).slopes(points)

        def extra(vector: Array) -> Array:
            return half * self.line(network, state.x, vector).residual

        target, optimizer = Target(rows, extra), self.method.field_optimizer
        region = diagonal(self.equation.model, key=key)
        *moved, _ = optimizer.step(
            target, region, state.functions, state.field_optimizer, progress, key=key
        )
        return moved


@eqx.filter_jit
def _follow(inverter: BiLOInverter, observation: Observation, key: Array) -> LocalSolution:
    method, equation = inverter.method, inverter.equation
    weights, functions = Weights.of(inverter.network), Weights.of(inverter.functions)
    upper = _Upper(method, equation, functions, observation)

    def step(state: _State, given: Any) -> tuple[_State, Any]:
        progress, key = given
        lower_key, upper_key = jr.split(key)
        unknowns = upper.unknowns(state.x, state.functions)
        target = method._target(equation, weights, unknowns)
        *lower, loss = method.weight_optimizer.step(
            target, equation.region, state.network, state.weight_optimizer, progress, key=lower_key
        )
        # One level after the other: calls of LAPACK at once can wait for each other for ever.
        network = weights.build(lower[0])
        line = upper.line(network, state.x, state.functions)
        moved = upper.moved_functions(network, state, progress, upper_key)
        found = upper.moved_scalars(line, state, progress)
        return _State(*lower, *moved, *found), (unknowns.theta, loss, line.misfit)

    x = equation.start(method.parameter_optimizer)
    start = _State(
        weights.vector,
        method.weight_optimizer.init(weights.vector),
        functions.vector,
        method.field_optimizer.init(functions.vector),
        x,
        method.parameter_optimizer.init(x),
    )
    given = jnp.linspace(0.0, 1.0, method.steps), jr.split(key, method.steps)
    state, history = jax.lax.scan(step, start, given)
    unknowns, network = upper.unknowns(state.x, state.functions), weights.build(state.network)
    return LocalSolution(unknowns.theta, network, unknowns.functions, *history)
