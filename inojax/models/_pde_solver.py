"""Classical solvers of partial differential equations, which read it off its residual."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..solvers import SolveStatus
from ._equation import AbstractEquation


class Solved(NamedTuple):
    """What a classical solver found.

    Attributes:
        states: States at the points; NaN where there is no solution.
        status: A `SolveStatus` for each solve.
        steps: Steps taken.
    """

    states: Float[Array, "*batch point state"]
    status: Int[Array, "*batch"]
    steps: Int[Array, "*batch"]


class AbstractPDESolver(eqx.Module):
    """Solves an equation in float64, with derivatives by the parameters.

    To add one, subclass it and write `solve_ensemble` and `sensitivities`, which are called
    with 64-bit floats switched on, both from the host and inside transformations; `solve`,
    differentiable by reverse mode; `check` or `check_parameters`, which refuse what it cannot
    solve; `edges`, if it takes initial or boundary values from the ansatz; and `tightened`.
    Solvers that are pure functions subclass `AbstractDirectSolver`.

    Example:
        >>> isinstance(ij.problems.fisher_kpp().model.solver, ij.models.AbstractPDESolver)
        True
    """

    @property
    def knows_interfaces(self) -> bool:
        """Whether it solves equations whose solution has kinks at interfaces; by default not."""
        return False

    def check(self, equation: AbstractEquation) -> None:
        """Raise a ValueError if the solver does not suit an equation."""
        del equation

    def check_parameters(self, equation: AbstractEquation, parameters: int) -> None:
        """Raise a ValueError if it does not suit an equation with so many parameters."""
        del equation, parameters

    def edges(self, equation: AbstractEquation) -> Float[np.ndarray, "point coordinate"]:
        """Some points where the solver takes the state from the ansatz alone; none by default."""
        return np.zeros((0, len(equation.coordinates)))

    @abc.abstractmethod
    def tightened(self) -> "AbstractPDESolver":
        """The same solver with a smaller error."""

    @abc.abstractmethod
    def solve(
        self,
        equation: AbstractEquation,
        theta: Float[Array, " parameter"],
        points: Float[Array, "point coordinate"],
    ) -> Solved:
        """Solve for one parameter vector, differentiably."""

    @abc.abstractmethod
    def solve_ensemble(
        self,
        equation: AbstractEquation,
        thetas: Float[Array, "batch parameter"],
        points: Float[Array, "batch point coordinate"],
        *,
        mesh: Any,
    ) -> Solved:
        """Solve for many parameter vectors, with points for each."""

    @abc.abstractmethod
    def sensitivities(
        self,
        equation: AbstractEquation,
        thetas: Float[Array, "batch parameter"],
        points: Float[Array, "batch point coordinate"],
        *,
        mesh: Any,
        count: Any,
    ) -> tuple[Solved, Float[Array, "batch point state parameter"]]:
        """Solve for many parameter vectors together with the derivatives by them."""


class AbstractDirectSolver(AbstractPDESolver):
    """A solver that is a pure function of the parameters and the points.

    Subclasses write `values` and `tightened`.

    Example:
        >>> class Known(ij.models.AbstractDirectSolver):
        ...     def values(self, equation, theta, points):
        ...         return jnp.sin(jnp.pi * points) / (jnp.pi**2 * theta[0])
        ...
        ...     def tightened(self):
        ...         return self
        >>> model = ij.problems.scalar_poisson().model.replace(solver=Known())
        >>> model.solve(np.array([2.0])).states.shape[1]
        1
    """

    @abc.abstractmethod
    def values(
        self,
        equation: AbstractEquation,
        theta: Float[Array, " parameter"],
        points: Float[Array, "point coordinate"],
    ) -> Float[Array, "point state"]:
        """The states at some points; NaN where there is no solution."""

    def solve(
        self,
        equation: AbstractEquation,
        theta: Float[Array, " parameter"],
        points: Float[Array, "point coordinate"],
    ) -> Solved:
        """Solve for one parameter vector."""
        return _solved(_values(self, equation, theta, points))

    def solve_ensemble(
        self,
        equation: AbstractEquation,
        thetas: Float[Array, "batch parameter"],
        points: Float[Array, "batch point coordinate"],
        *,
        mesh: Any,
    ) -> Solved:
        """Solve for many, vectorized."""
        del mesh
        return _solved(_every(self, equation, thetas, points))

    def sensitivities(
        self,
        equation: AbstractEquation,
        thetas: Float[Array, "batch parameter"],
        points: Float[Array, "batch point coordinate"],
        *,
        mesh: Any,
        count: Any,
    ) -> tuple[Solved, Float[Array, "batch point state parameter"]]:
        """Solve for many with derivatives, vectorized."""
        del mesh, count
        states, tangents = _differentiated(self, equation, thetas, points)
        return _solved(states), tangents


@eqx.filter_jit
def _values(
    solver: AbstractDirectSolver, equation: AbstractEquation, theta: Array, points: Array
) -> Array:
    return solver.values(equation, theta, points)


@eqx.filter_jit
def _every(
    solver: AbstractDirectSolver, equation: AbstractEquation, thetas: Array, points: Array
) -> Array:
    return jax.vmap(lambda *row: solver.values(equation, *row))(thetas, points)


@eqx.filter_jit
def _differentiated(
    solver: AbstractDirectSolver, equation: AbstractEquation, thetas: Array, points: Array
) -> tuple[Array, Array]:
    def one(theta: Array, points: Array) -> tuple[Array, Array]:
        def states(theta: Array) -> tuple[Array, Array]:
            found = solver.values(equation, theta, points)
            return found, found

        tangents, found = jax.jacfwd(states, has_aux=True)(theta)
        return found, tangents

    return jax.vmap(one)(thetas, points)


def _solved(states: Array) -> Solved:
    finite = jnp.all(jnp.isfinite(states), axis=(-2, -1))
    status = jnp.where(finite, int(SolveStatus.SUCCESS), int(SolveStatus.NON_FINITE))
    return Solved(states, status, jnp.ones_like(status))
