"""What least squares minimizes: the misfit of the real solver plus a prior, in some coordinates."""

import enum
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._blocks import in_blocks
from ..._inverse_problem import InverseProblem
from ..._linearization import linearize
from ..._observation import Observation
from ..._x64 import is_traced
from ...models._calls import compiled, in_calls
from ...models._field import Variation
from .._penalty import Penalty, penalties
from ._levenberg_marquardt import Local

# Unit coordinates nearest to an end of a prior that goes on for ever.
_EDGE = 1e-9
# Numbers that the states of draws make up which are held at once.
_MOST_STATES = 2**24


class Coordinates(enum.Enum):
    """In which coordinates least squares works.

    `UNIT` (prior CDF) suits parameters known to lie within their priors; it keeps bounds exactly.
    `UNCONSTRAINED` suits wide priors and fits without one, which may end far out in a tail; an
    optimum at an end of a prior lies at infinity there, and is missed.

    Example:
        >>> wide = ij.methods.LeastSquares(coordinates=ij.methods.Coordinates.UNCONSTRAINED)
        >>> wide.coordinates.value
        'unconstrained'
    """

    UNIT = "unit"
    UNCONSTRAINED = "unconstrained"


class Objective(eqx.Module):
    """Misfit plus penalty of many observations as a function of coordinates.

    Attributes:
        problem: The inverse problem.
        coordinates: What `x` stands for.
        penalty: What is added to the misfit.
        coupled: Whether what couples parameters in the prior counts, as if it were read.
    """

    problem: InverseProblem
    coordinates: Coordinates = eqx.field(static=True)
    penalty: Penalty = eqx.field(static=True)
    coupled: bool = eqx.field(static=True)

    def theta(self, x: Float[Array, "*row parameter"]) -> Float[Array, "*row parameter"]:
        """Physical values."""
        space = self.problem.parameters
        unit = self.coordinates is Coordinates.UNIT
        return jnp.asarray(space.from_unit(x) if unit else space.from_unconstrained(x))

    def from_unit(self, z: Float[Array, "row parameter"]) -> Float[Array, "row parameter"]:
        """Coordinates of points given by unit coordinates."""
        lower, upper = self._unit_bounds()
        z = jnp.clip(z, lower[None], upper[None])
        if self.coordinates is Coordinates.UNIT:
            return z
        space = self.problem.parameters
        return jnp.asarray(space.to_unconstrained(space.from_unit(z)))

    def to_unit(self, x: Float[Array, "*row parameter"]) -> Float[Array, "*row parameter"]:
        """Unit coordinates."""
        if self.coordinates is Coordinates.UNIT:
            return x
        return jnp.asarray(self.problem.parameters.to_unit(self.theta(x)))

    @property
    def bounds(self) -> tuple[Float[Array, " parameter"], Float[Array, " parameter"]]:
        """Ends of each coordinate."""
        if self.coordinates is Coordinates.UNIT:
            return self._unit_bounds()
        infinite = jnp.full(self.problem.parameters.size, jnp.inf)
        return -infinite, infinite

    def _unit_bounds(self) -> tuple[Array, Array]:
        ends = np.array(
            [parameter.infinite_ends for parameter in self.problem.parameters.parameters]
        )
        # Inside even where an end is finite: densities may be zero or infinite there.
        inside = self.coordinates is Coordinates.UNCONSTRAINED
        lower = np.where(ends[:, 0] | inside, _EDGE, 0.0)
        upper = np.where(ends[:, 1] | inside, 1.0 - _EDGE, 1.0)
        return jnp.asarray(lower), jnp.asarray(upper)

    def slopes(self, x: Float[Array, "*row parameter"]) -> Float[Array, "*row parameter"]:
        """Derivative of each physical value by its own coordinate."""
        if self.coordinates is Coordinates.UNIT:
            # At the very ends inverse distribution functions are clipped, which halves derivatives.
            x = jnp.clip(x, _EDGE, 1.0 - _EDGE)
        return jax.jvp(self.theta, (x,), (jnp.ones_like(x),))[1]

    def misfit(
        self, x: Float[Array, "row parameter"], observations: Observation, count: Array
    ) -> Local:
        """Negative log likelihood and its Fisher information, from one ensemble.

        Both with what couples the parameters.
        """
        theta, slopes = self.theta(x), self.slopes(x)
        times = jnp.asarray(observations.times)
        solution, tangents = self.problem.model.sensitivities(theta, times, count=count)

        def one(
            observation: Observation, theta: Array, slopes: Array, states: Array, tangents: Array
        ) -> Local:
            columns = tangents * slopes[None, None, :]
            line = linearize(self.problem, observation, theta, states, columns, jnp.diag(slopes))
            found = Local(line.misfit, line.gradient, line.fisher)
            coupling = self.coupling(theta)
            if coupling is None:
                return found
            value, gradient, curvature = coupling
            curvature = slopes[:, None] * curvature * slopes[None, :]
            return jax.tree.map(jnp.add, found, Local(value, slopes * gradient, curvature))

        states, tangents = jnp.asarray(solution.states), jnp.asarray(tangents)
        return jax.vmap(one)(observations, theta, slopes, states, tangents)

    def coupling(self, theta: Float[Array, " parameter"]) -> Variation | None:
        return self.problem.coupling(theta) if self.coupled else None

    def log_measure(self, x: Float[Array, "row parameter"]) -> Float[Array, " row"]:
        """Log density of the prior in these coordinates, up to a constant; flat without one."""
        if self.penalty is Penalty.NONE or self.coordinates is Coordinates.UNIT:
            return jnp.zeros(len(x), x.dtype)
        slopes = jnp.sum(jnp.log(jnp.abs(self.slopes(x))), axis=1)
        return slopes + self.problem.parameters.log_prob(self.theta(x))

    def log_density(
        self,
        x: Float[Array, "row parameter"],
        observations: Observation,
        states: Float[Array, "row reading state"],
    ) -> Float[Array, " row"]:
        """Log density of the posterior in these coordinates, up to a constant.

        Args:
            x: Coordinates.
            observations: Readings, for each row.
            states: What the solver says at their times.
        """

        def one(observation: Observation, theta: Array, states: Array) -> Array:
            clean = jnp.asarray(self.problem.read(states, theta))
            readings, mask = jnp.asarray(observation.values), jnp.asarray(observation.mask)
            found = self.problem.noise.log_prob(
                readings, clean, theta, mask, times=observation.times
            )
            coupling = self.coupling(theta)
            return found if coupling is None else found - coupling.value

        return jax.vmap(one)(observations, self.theta(x), states) + self.log_measure(x)

    def log_densities(
        self, x: Float[Any, "batch draw parameter"], observations: Observation
    ) -> Float[Any, "batch draw"]:
        """Log density of the posterior at many draws for each observation, from the solver.

        Args:
            x: Coordinates.
            observations: A batch.

        Returns:
            As `log_density`; NaN where the solver failed. NumPy arrays unless traced.
        """
        batch, many, size = x.shape
        solve = self.problem.model.solve_ensemble
        rows = x.reshape(batch * many, size)
        if is_traced(x):
            every = jax.tree.map(lambda leaf: jnp.repeat(leaf, many, axis=0), observations)
            states = jnp.asarray(solve(self.theta(rows), every.times).states)
            return self.log_density(rows, every, states).reshape(batch, many)
        thetas = np.asarray(self.theta(jnp.asarray(rows)))
        each = observations.times.shape[-1] * len(self.problem.model.states)

        def block(part: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
            rows, thetas, owner = part
            every = jax.tree.map(lambda leaf: np.asarray(leaf)[owner], observations)
            states = solve(thetas, every.times).states
            return in_calls(_density_block, self, (rows, every, states))

        parts = np.asarray(rows), thetas, np.arange(len(rows)) // many
        some = max(1, _MOST_STATES // each)
        return in_blocks(block, parts, size=some, filled=False).reshape(batch, many)

    def prior(self, x: Float[Array, "row parameter"]) -> Local:
        """The penalty alone."""
        space = self.problem.parameters
        found = penalties(self.penalty, space, self.theta, x, unit=self.to_unit)
        diagonal = jax.vmap(jnp.diag)(found.curvature)
        return Local(jnp.sum(found.value, axis=1), found.slope, diagonal)

    def __call__(
        self, x: Float[Array, "row parameter"], observations: Observation, count: Array
    ) -> Local:
        """Both together."""
        return jax.tree.map(jnp.add, self.misfit(x, observations, count), self.prior(x))


@compiled
def _density_block(objective: Objective, rows: Any, count: Any, lanes: int) -> Array:
    del count, lanes
    return objective.log_density(*rows)


def logit(z: Float[Array, "*row parameter"]) -> Float[Array, "*row parameter"]:
    """Logits of unit coordinates, which have no end; those at an end lie far out."""
    inside = jnp.clip(z, 1e-6, 1.0 - 1e-6)
    return jnp.log(inside) - jnp.log1p(-inside)
