"""How unknown parameters follow the readings, as a local operator predicts them."""

import abc
from collections.abc import Callable
from typing import Any, cast

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ..._linearization import Linearization
from ..._parameters import ParameterSpace
from .._checks import check_positive
from .._penalty import Penalty, penalties
from ._unknowns import Unknowns
from ._weight_optimizers import last_third


class AbstractParameterOptimizer(eqx.Module):
    """Takes steps of the parameters downhill in the misfit, in coordinates of its own.

    To add one, subclass it and write what is abstract here; all of it is pure.
    """

    @abc.abstractmethod
    def coordinates(
        self, space: ParameterSpace, theta: Float[Array, " parameter"], guess: Array
    ) -> Float[Array, " parameter"]:
        """Coordinates of physical values."""

    @abc.abstractmethod
    def physical(
        self, space: ParameterSpace, x: Float[Array, " parameter"], guess: Array
    ) -> Float[Array, " parameter"]:
        """Physical values at coordinates, each of its own coordinate."""

    @abc.abstractmethod
    def init(self, x: Float[Array, " parameter"]) -> Any:
        """The state before the first step."""

    @abc.abstractmethod
    def step(
        self,
        x: Float[Array, " parameter"],
        gradient: Float[Array, " parameter"],
        curvature: Float[Array, "parameter parameter"],
        state: Any,
        progress: Float[Array, ""],
    ) -> tuple[Float[Array, " parameter"], Any]:
        """One step; `progress` goes from 0 to 1 over the run."""


class AdamParameterOptimizer(AbstractParameterOptimizer):
    """Adam on the parameters in units of the guess, as published.

    Attributes:
        learning_rate: Its learning rate, constant.
        amsgrad: Whether the second moment keeps its maximum.

    Example:
        >>> method = ij.methods.BiLO(parameter_optimizer=ij.methods.AdamParameterOptimizer())
        >>> method.parameter_optimizer == ij.methods.AdamParameterOptimizer()
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

    def coordinates(
        self, space: ParameterSpace, theta: Float[Array, " parameter"], guess: Array
    ) -> Float[Array, " parameter"]:
        """Physical values in units of the guess."""
        del space
        return theta / guess

    def physical(
        self, space: ParameterSpace, x: Float[Array, " parameter"], guess: Array
    ) -> Float[Array, " parameter"]:
        """Physical values."""
        del space
        return x * guess

    def init(self, x: Float[Array, " parameter"]) -> Any:
        """Moments of zero."""
        return self._optimizer.init(x)

    def step(
        self,
        x: Float[Array, " parameter"],
        gradient: Float[Array, " parameter"],
        curvature: Float[Array, "parameter parameter"],
        state: Any,
        progress: Float[Array, ""],
    ) -> tuple[Float[Array, " parameter"], Any]:
        """One step of Adam."""
        del curvature, progress
        updates, state = self._optimizer.update(gradient, state)
        return cast(Array, optax.apply_updates(x, updates)), state


class GaussNewtonParameterOptimizer(AbstractParameterOptimizer):
    """Damped Gauss-Newton in unconstrained coordinates, within a region of trust.

    Attributes:
        learning_rate: Share of the step that is taken. Along a valley of the misfit the operator
            must keep up: with 0.3, one of ten runs on Fisher-KPP wanders off.
        final_rate: Factor by which that share shrinks over the last third of the run, so that
            parameters do not follow what the operator's own descent shakes.
        reach: Most that a coordinate changes in one step.
        damping: What is added to the curvature, as a share of its diagonal.

    Example:
        >>> method = ij.methods.BiLO(parameter_optimizer=ij.methods.GaussNewtonParameterOptimizer())
        >>> method.parameter_optimizer == ij.methods.GaussNewtonParameterOptimizer()
        True
    """

    learning_rate: float = 0.1
    final_rate: float = 0.1
    reach: float = 0.05
    damping: float = 1e-4

    def __check_init__(self) -> None:
        """Refuse rates and a reach that are not positive."""
        check_positive(self, "learning_rate", "final_rate", "reach", "damping")

    def coordinates(
        self, space: ParameterSpace, theta: Float[Array, " parameter"], guess: Array
    ) -> Float[Array, " parameter"]:
        """Unconstrained values."""
        del guess
        return jnp.asarray(space.to_unconstrained(theta))

    def physical(
        self, space: ParameterSpace, x: Float[Array, " parameter"], guess: Array
    ) -> Float[Array, " parameter"]:
        """Physical values."""
        del guess
        return jnp.asarray(space.from_unconstrained(x))

    def init(self, x: Float[Array, " parameter"]) -> Any:
        """Nothing is kept between steps."""
        del x

    def step(
        self,
        x: Float[Array, " parameter"],
        gradient: Float[Array, " parameter"],
        curvature: Float[Array, "parameter parameter"],
        state: Any,
        progress: Float[Array, ""],
    ) -> tuple[Float[Array, " parameter"], Any]:
        """One damped Gauss-Newton step."""
        # Coordinates of different sensitivity are made alike before they are damped.
        size = jnp.sqrt(jnp.maximum(jnp.diagonal(curvature), 1e-30))
        alike = curvature / (size[:, None] * size[None, :])
        matrix = alike + self.damping * jnp.eye(len(x), dtype=x.dtype)
        rate = self.learning_rate * last_third(self.final_rate, progress)
        change = -rate * jnp.linalg.solve(matrix, gradient / size) / size
        return x + change * jnp.minimum(1.0, self.reach / jnp.max(jnp.abs(change))), state


def penalized(
    line: Linearization,
    space: ParameterSpace,
    penalty: Penalty,
    unknowns_of: Callable[[Array], Unknowns],
    x: Float[Array, " parameter"],
) -> tuple[Float[Array, " parameter"], Float[Array, "parameter parameter"]]:
    """Gradient and curvature of misfit and penalty together, by coordinates.

    Args:
        line: The linearized misfit, by the same coordinates.
        space: Priors.
        penalty: What is added.
        unknowns_of: Unknowns at coordinates, each scalar of its own coordinate.
        x: Where.
    """
    found = penalties(penalty, space, lambda x: unknowns_of(x).scalars, x)
    return line.gradient + found.slope, line.fisher + jnp.diag(found.curvature)
