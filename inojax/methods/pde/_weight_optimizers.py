"""How the weights of networks descend: toward an equation, a guess or readings."""

import abc
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from ...nn._local_operator import LocalOperator
from .._checks import check_counts, check_positive


class Target(NamedTuple):
    """What weights should make small: mean squares over points, and a sum of squares.

    Attributes:
        rows: `rows(weights, points)`, what should be zero at each point.
        extra: `extra(weights)`, what else should be zero.
    """

    rows: Callable[[Any, Any], Float[Array, "point row"]]
    extra: Callable[[Any], Float[Array, " row"]]

    def loss(self, weights: Array, points: Array) -> Float[Array, ""]:
        """The loss of both together."""
        rows, extra = self.rows(weights, points), self.extra(weights)
        return jnp.mean(jnp.sum(jnp.square(rows), axis=1)) + jnp.sum(jnp.square(extra))


def nothing(weights: Float[Array, " weight"]) -> Float[Array, " row"]:
    """No further rows."""
    return jnp.zeros(0, weights.dtype)


class Region(NamedTuple):
    """Where an equation holds.

    Attributes:
        lattice: The points given for collocation.
        lower: Lower end of each coordinate.
        upper: Upper end of each coordinate.
    """

    lattice: Float[Array, "point coordinate"]
    lower: Float[Array, " coordinate"]
    upper: Float[Array, " coordinate"]

    def draw(self, count: int, *, key: Key[Array, ""]) -> Float[Array, "point coordinate"]:
        """Points drawn uniformly from the box."""
        share = jr.uniform(key, (count, len(self.lower)))
        return self.lower[None] + (self.upper - self.lower)[None] * share


class AbstractWeightOptimizer(eqx.Module):
    """Takes steps toward the smallest loss of a target.

    To add one, subclass it and write `init` and `step`, both pure.
    """

    @abc.abstractmethod
    def init(self, weights: Float[Array, " weight"]) -> Any:
        """The state before the first step."""

    @abc.abstractmethod
    def step(
        self,
        target: Target,
        region: Region,
        weights: Float[Array, " weight"],
        state: Any,
        progress: Float[Array, ""],
        *,
        key: Key[Array, ""],
    ) -> tuple[Float[Array, " weight"], Any, Float[Array, ""]]:
        """One step; `progress` goes from 0 to 1 over the run. Returns the loss as well."""


class AdamWeightOptimizer(AbstractWeightOptimizer):
    """Adam on the whole lattice of collocation points, as published.

    Attributes:
        learning_rate: Its learning rate, constant.
        amsgrad: Whether the second moment keeps its maximum.

    Example:
        >>> method = ij.methods.BiLO(weight_optimizer=ij.methods.AdamWeightOptimizer())
        >>> method.weight_optimizer == ij.methods.AdamWeightOptimizer()
        True
    """

    learning_rate: float = 1e-3
    amsgrad: bool = True

    def __check_init__(self) -> None:
        """Refuse a learning rate that is not positive."""
        check_positive(self, "learning_rate")

    @property
    def _optimizer(self) -> optax.GradientTransformation:
        return (optax.amsgrad if self.amsgrad else optax.adam)(self.learning_rate)

    def init(self, weights: Float[Array, " weight"]) -> Any:
        """Moments of zero."""
        return self._optimizer.init(weights)

    def step(
        self,
        target: Target,
        region: Region,
        weights: Float[Array, " weight"],
        state: Any,
        progress: Float[Array, ""],
        *,
        key: Key[Array, ""],
    ) -> tuple[Float[Array, " weight"], Any, Float[Array, ""]]:
        """One step of Adam."""
        del progress, key
        value, slope = jax.value_and_grad(target.loss)(weights, region.lattice)
        updates, state = self._optimizer.update(slope, state)
        return optax.apply_updates(weights, updates), state, value  # pyright: ignore


class GaussNewtonWeightOptimizer(AbstractWeightOptimizer):
    """Damped Gauss-Newton on a few points drawn anew for each step.

    The step is the shortest change of the weights that removes the rows at these points, up to
    damping: a linear system with as many unknowns as rows, however many weights there are.

    Where rows contradict each other, as equation and noisy readings of a `PINN` do, a step that
    fulfills them at a few points raises the loss at all others: take a smaller network, more
    points and more damping. On the heat equation with noisy readings (`experiments/pde/heat.py`)
    256 points, 32 units and a damping of 1e-5 come near the minimizer of that loss.

    Attributes:
        points: Points drawn for each step; None takes those given for collocation, as they are.
        learning_rate: Share of the step that is taken, at first.
        final_rate: Factor by which that share shrinks over the last third of the run, so that
            the noise of drawn points averages out.
        damping: Damping as a share of the trace of the rows' products; single precision wants
            about 1e-7 or more.
        cautious: Whether a step that would raise the loss at its own points is left out and
            damped tenfold the next time, up to 1e4; after steps that are taken, damping comes back.
            Large weights of a `PINN`'s readings want it.

    Source:
        Müller and Zeinhofer, Achieving high accuracy with PINNs via energy natural gradient
        descent, ICML 2023 (arXiv 2302.13163); the linear system in the space of points is that
        of arXiv 2401.10190.

    Example:
        >>> method = ij.methods.BiLO(weight_optimizer=ij.methods.GaussNewtonWeightOptimizer())
        >>> method.weight_optimizer == ij.methods.GaussNewtonWeightOptimizer()
        True
    """

    points: int | None = 128
    learning_rate: float = 0.3
    final_rate: float = 0.1
    damping: float = 1e-6
    cautious: bool = False

    def __check_init__(self) -> None:
        """Refuse no points, and rates and damping that are not positive."""
        if self.points is not None:
            check_counts(self, "points")
        check_positive(self, "learning_rate", "final_rate", "damping")

    def init(self, weights: Float[Array, " weight"]) -> Any:
        """How much more than `damping` a cautious optimizer damps."""
        return jnp.ones((), weights.dtype)

    def step(
        self,
        target: Target,
        region: Region,
        weights: Float[Array, " weight"],
        state: Any,
        progress: Float[Array, ""],
        *,
        key: Key[Array, ""],
    ) -> tuple[Float[Array, " weight"], Any, Float[Array, ""]]:
        """One damped Gauss-Newton step."""
        points = region.lattice
        if self.points is not None:
            points = region.draw(self.points, key=key)

        def one(weights: Array, point: Array) -> Array:
            return target.rows(weights, point[None])[0]

        share = len(points) ** -0.5
        found = share * target.rows(weights, points).ravel()
        slopes = share * jax.vmap(jax.jacrev(one), in_axes=(None, 0))(weights, points)
        found = jnp.concatenate([found, target.extra(weights)])
        extra = jax.jacrev(target.extra)(weights)
        slopes = jnp.concatenate([slopes.reshape(-1, weights.size), extra])
        products = slopes @ slopes.T
        ridge = self.damping * state * jnp.trace(products) + 1e-30
        factor = jax.scipy.linalg.cho_factor(products + ridge * jnp.eye(found.size))
        rate = self.learning_rate * last_third(self.final_rate, progress)
        step = slopes.T @ jax.scipy.linalg.cho_solve(factor, found)
        loss = jnp.sum(jnp.square(found))
        moved = weights - rate * step
        if self.cautious:
            # The same sum for both, or rounding would refuse steps near the end; none to a NaN.
            taken = target.loss(moved, points) <= target.loss(weights, points)
            moved = jnp.where(taken, moved, weights)
            state = jnp.where(
                taken, jnp.maximum(state / 3.0, 1.0), jnp.minimum(10.0 * state, 1e4 / self.damping)
            )
        return moved, state, loss


def last_third(factor: float, progress: Float[Array, ""]) -> Float[Array, ""]:
    """One over two thirds of a run, then geometrically down to a factor."""
    return factor ** jnp.maximum(3.0 * progress - 2.0, 0.0)


class Weights(NamedTuple):
    """A module taken apart into a vector of what is trained and the rest.

    Trained are its JAX arrays, but not an embedding that a `LocalOperator` keeps: that is a NumPy
    array, which nothing tells from the others inside of a compiled function.

    Attributes:
        vector: What is trained.
        module: The whole.
    """

    vector: Float[Array, " weight"]
    module: Any

    @classmethod
    def of(cls, module: Any) -> "Weights":
        """Take a module apart."""
        return cls(ravel_pytree(eqx.filter(module, _trained(module)))[0], module)

    def build(self, vector: Float[Array, " weight"]) -> Any:
        """The module with other weights."""
        trained, fixed = eqx.partition(self.module, _trained(self.module))
        return eqx.combine(ravel_pytree(trained)[1](vector), fixed)


def _trained(module: Any) -> Any:
    """True for each leaf that is trained."""

    def of(node: Any) -> Any:
        mask = jax.tree.map(eqx.is_array, node)
        if isinstance(node, LocalOperator) and not node.train_embedding:
            mask = eqx.tree_at(lambda m: m.embedding, mask, False)
        return mask

    return jax.tree.map(of, module, is_leaf=lambda node: isinstance(node, LocalOperator))


def optimize_weights(
    optimizer: AbstractWeightOptimizer,
    target: Target,
    region: Region,
    vector: Float[Array, " weight"],
    steps: int,
    *,
    key: Key[Array, ""],
) -> tuple[Float[Array, " weight"], Float[Array, " step"]]:
    """Take all steps of an optimizer; pure, for use inside `jit`.

    Args:
        optimizer: How steps are taken.
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
        *carry, loss = optimizer.step(target, region, vector, state, progress, key=key)
        return tuple(carry), loss

    start = vector, optimizer.init(vector)
    given = jnp.linspace(0.0, 1.0, steps), jr.split(key, steps)
    (vector, _), losses = jax.lax.scan(step, start, given)
    return vector, losses
