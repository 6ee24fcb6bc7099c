"""Classical solvers of partial differential equations, which read the equation off a `PDEModel`."""

import abc
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..solvers import SolveStatus
from ._ode import ODESolution

if TYPE_CHECKING:
    from ._pde import PDEModel


class AbstractPDESolver(eqx.Module):
    """Solves the equation of a `PDEModel` in float64, with derivatives by the parameters.

    To add one, subclass it and write `solve_ensemble` and `sensitivities`, which are called
    with 64-bit floats switched on, both from the host and inside transformations; `solve`,
    differentiable by reverse and forward mode; `check`, which refuses models it cannot solve;
    and `tightened`. All of them get places along the model's readings.
    """

    def check(self, model: "PDEModel") -> None:
        """Raise a ValueError if the solver does not suit a model."""
        del model

    @abc.abstractmethod
    def tightened(self) -> "AbstractPDESolver":
        """The same solver with a smaller error."""

    @abc.abstractmethod
    def solve(self, model: "PDEModel", theta: Array, times: Array) -> ODESolution:
        """Solve for one parameter vector, differentiably."""

    @abc.abstractmethod
    def solve_ensemble(
        self, model: "PDEModel", thetas: Array, times: Array, *, mesh: Any
    ) -> ODESolution:
        """Solve for many parameter vectors, with a row of places for each."""

    @abc.abstractmethod
    def sensitivities(
        self, model: "PDEModel", thetas: Array, times: Array, *, mesh: Any, count: Any
    ) -> tuple[ODESolution, Array]:
        """Solve for many parameter vectors together with the derivatives by them."""


class AbstractDirectSolver(AbstractPDESolver):
    """A solver that is a pure function of the parameters and the points.

    Subclasses write `values`; nothing else is different for one parameter vector and for many.
    """

    @abc.abstractmethod
    def values(
        self, model: "PDEModel", theta: Float[Array, " parameter"], points: Array
    ) -> Float[Array, "point state"]:
        """The states at some points; NaN where there is no solution."""

    def solve(self, model: "PDEModel", theta: Array, times: Array) -> ODESolution:
        """Solve for one parameter vector."""
        return _wrapped(times, _values(self, model, theta, times))

    def solve_ensemble(
        self, model: "PDEModel", thetas: Array, times: Array, *, mesh: Any
    ) -> ODESolution:
        """Solve for many, vectorized."""
        del mesh
        return _wrapped(times, _every(self, model, thetas, times))

    def sensitivities(
        self, model: "PDEModel", thetas: Array, times: Array, *, mesh: Any, count: Any
    ) -> tuple[ODESolution, Array]:
        """Solve for many with derivatives, vectorized."""
        del mesh, count
        states, tangents = _differentiated(self, model, thetas, times)
        return _wrapped(times, states), tangents


@eqx.filter_jit
def _values(solver: AbstractDirectSolver, model: "PDEModel", theta: Array, times: Array) -> Array:
    return solver.values(model, theta, model.points(times))


@eqx.filter_jit
def _every(solver: AbstractDirectSolver, model: "PDEModel", thetas: Array, times: Array) -> Array:
    return jax.vmap(lambda theta, row: _values(solver, model, theta, row))(thetas, times)


@eqx.filter_jit
def _differentiated(
    solver: AbstractDirectSolver, model: "PDEModel", thetas: Array, times: Array
) -> tuple[Array, Array]:
    def one(theta: Array, row: Array) -> tuple[Array, Array]:
        def states(theta: Array) -> tuple[Array, Array]:
            found = _values(solver, model, theta, row)
            return found, found

        tangents, found = jax.jacfwd(states, has_aux=True)(theta)
        return found, tangents

    return jax.vmap(one)(thetas, times)


def _wrapped(times: Array, states: Array) -> ODESolution:
    finite = jnp.all(jnp.isfinite(states), axis=(-2, -1))
    status = jnp.where(finite, int(SolveStatus.SUCCESS), int(SolveStatus.NON_FINITE))
    return ODESolution(times, states, status, jnp.ones_like(status))
