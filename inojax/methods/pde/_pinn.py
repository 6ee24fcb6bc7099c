"""PINN: one network for the solution, trained on equation and readings at once."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..._estimate import Estimate
from ..._inverse_problem import InverseProblem
from ..._observation import Observation
from ...nn._local_operator import LocalOperator
from ...train import TrainLog
from .._checks import check_counts, check_parts, check_positive
from .._estimates import estimate_from_point
from ._equation import Equation, equation_of
from ._equation_inverter import AbstractEquationInverter, AbstractEquationMethod
from ._network_states import input_size
from ._parameter_optimizers import AbstractParameterOptimizer, AdamParameterOptimizer
from ._unknowns import Functions, Unknowns
from ._weight_optimizers import (
    AbstractWeightOptimizer,
    AdamWeightOptimizer,
    GaussNewtonWeightOptimizer,
    Target,
    Weights,
    nothing,
    optimize_weights,
)


class PINN(AbstractEquationMethod["PINNInverter"]):
    """Physics-informed network: the solution alone, with the parameters as further weights.

    Equation and readings share one loss, so the network gives up some of the equation for the
    readings, the more so the larger `data_weight`: the baseline of BiLO. Unknown functions are
    networks too, and what their priors say of their slopes counts as the readings do. It says
    nothing of the uncertainty of its estimates.

    Attributes:
        width: Units of each layer.
        field_width: The same of the network of an unknown function.
        depth: Layers from width to width.
        data_weight: Weight of the mean square of readings minus predictions, in standard deviations
            of the noise, beside the mean square of the residual. A published weight w for plain
            squares is w times the variance of the noise here.
        weight_optimizer: How weights and parameters descend.
        parameter_optimizer: In which coordinates parameters are; its steps are not used.
        pretraining: Steps of the weights at the guess, on the equation alone.
        steps: Steps of both together for each observation.
        guess: Physical parameter values to begin with; by default the medians of the priors.

    Source:
        Raissi, Perdikaris and Karniadakis, J. Comput. Phys. 378 (2019); as a baseline in Zhang, Li
        and Lowengrub, arXiv 2404.17789.

    Example:
        >>> problem = ij.problems.scalar_poisson()
        >>> method = ij.methods.PINN(
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
    data_weight: float = 1e-6
    weight_optimizer: AbstractWeightOptimizer = GaussNewtonWeightOptimizer()
    parameter_optimizer: AbstractParameterOptimizer = AdamParameterOptimizer()
    pretraining: int = 80
    steps: int = 300
    guess: tuple[float, ...] | None = None

    def __check_init__(self) -> None:
        """Refuse counts below one and a weight that is not positive."""
        check_counts(self, "width", "field_width", "depth", "pretraining", "steps")
        check_positive(self, "data_weight")
        check_parts(
            self,
            weight_optimizer=AbstractWeightOptimizer,
            parameter_optimizer=AbstractParameterOptimizer,
        )

    @classmethod
    def published(cls, *, pretraining: int = 10_000, steps: int = 50_000) -> "PINN":
        """The network and schedule of the published baseline: Adam on all collocation points.

        Args:
            pretraining: Steps at the guess.
            steps: Steps of weights and parameters together.

        Returns:
            The method.
        """
        return cls(
            width=128,
            weight_optimizer=AdamWeightOptimizer(),
            pretraining=pretraining,
            steps=steps,
        )

    def _untrained(
        self, problem: InverseProblem, init_key: Key[Array, ""], field_key: Key[Array, ""]
    ) -> "PINNInverter":
        equation = equation_of(problem, self.guess)
        network = LocalOperator(
            input_size(equation.model),
            outputs=len(equation.model.states),
            width=self.width,
            depth=self.depth,
            key=init_key,
        )
        return PINNInverter(
            problem=problem,
            method=self,
            equation=equation,
            network=network,
            functions=equation.functions(self.field_width, self.depth, key=field_key),
            losses=np.zeros(self.pretraining, np.float32),
        )

    def _target(self, equation: Equation, weights: Weights, unknowns: Unknowns) -> Target:
        def rows(vector: Array, points: Array) -> Array:
            return equation.residuals(weights.build(vector), unknowns, points)

        def jumps(vector: Array) -> Array:
            return equation.jumps(weights.build(vector), unknowns).ravel()

        return Target(rows, jumps if equation.model.interfaces else nothing)


class PINNSolution(eqx.Module):
    """Parameters and network after both have descended for an observation.

    Attributes:
        theta: Physical parameter values.
        network: The solution there; `PINNInverter.predict` evaluates it with the ansatz.
        functions: The unknown functions there; `functions.at("D", x)` evaluates one.
        losses: Loss of equation and readings before each step.
    """

    theta: Float[Array, " parameter"]
    network: LocalOperator
    functions: Functions
    losses: Float[Array, " step"]


class PINNInverter(AbstractEquationInverter[PINNSolution]):
    """A network pretrained at the guess, from `PINN.fit`.

    Attributes:
        problem: The problem it inverts.
        method: Its settings.
        equation: What the network is trained to fulfill.
        network: The solution at the guess.
        functions: The unknown functions of the guess.
        losses: Loss of each step of the pretraining.
        logs: Empty.

    Example:
        >>> # what `PINN().fit(problem, key=key)` gives
        >>> issubclass(ij.methods.PINNInverter, ij.methods.AbstractInverter)
        True
    """

    problem: InverseProblem
    method: PINN
    equation: Equation
    network: LocalOperator
    functions: Functions
    losses: Float[Array | np.ndarray, " step"]
    logs: tuple[TrainLog, ...] = ()

    def _follow(self, observation: Observation, key: Key[Array, ""]) -> PINNSolution:
        return _follow(self, observation, key)

    def _invert_one(self, observation: Observation, key: Key[Array, ""]) -> Estimate:
        return estimate_from_point(self.problem, self._follow(observation, key).theta)


@eqx.filter_jit
def _follow(inverter: PINNInverter, observation: Observation, key: Array) -> PINNSolution:
    method, equation, size = inverter.method, inverter.equation, inverter.equation.scalars
    weights = Weights.of((inverter.network, inverter.functions))
    count = jnp.maximum(jnp.sum(jnp.asarray(observation.mask)), 1)
    share = jnp.sqrt(method.data_weight / count)

    def taken_apart(vector: Array) -> tuple[LocalOperator, Functions]:
        return weights.build(vector[size:])

    def unknowns_of(x: Array, functions: Functions) -> Unknowns:
        return Unknowns(equation.physical(method.parameter_optimizer, x), functions)

    def rows(vector: Array, points: Array) -> Array:
        network, functions = taken_apart(vector)
        residuals = equation.residuals(network, unknowns_of(vector[:size], functions), points)
        return jnp.concatenate([residuals, share * functions.slopes(points)], axis=1)

    def extra(vector: Array) -> Array:
        network, functions = taken_apart(vector)

        def unknowns(x: Array) -> Unknowns:
            return unknowns_of(x, functions)

        line = equation.line(network, unknowns, vector[:size], observation)
        if not equation.model.interfaces:
            return share * line.residual
        jumps = equation.jumps(network, unknowns(vector[:size]))
        return jnp.concatenate([share * line.residual, jumps.ravel()])

    start = jnp.concatenate([equation.start(method.parameter_optimizer), weights.vector])
    vector, losses = optimize_weights(
        method.weight_optimizer, Target(rows, extra), equation.region, start, method.steps, key=key
    )
    network, functions = taken_apart(vector)
    theta = unknowns_of(vector[:size], functions).theta
    return PINNSolution(theta, network, functions, losses)
