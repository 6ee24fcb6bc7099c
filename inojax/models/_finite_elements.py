"""Finite elements for linear boundary value problems in one coordinate."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..solvers._elimination import solve_tridiagonal
from ._derivatives import expansion
from ._equation import AbstractEquation
from ._pde_solver import AbstractDirectSolver

# Gauss's points and weights on the unit interval, exact for cubics.
_GAUSS = 0.5 + np.array([-0.5, 0.5]) / np.sqrt(3.0)


class FiniteElements(AbstractDirectSolver):
    """Piecewise linear elements for a linear equation of second order in one coordinate.

    The equation is read off the residual, which is a u'' + b u' + c u + d with coefficients that
    depend on the point, and integrated by parts:

        ∫ (-a u' v' + (b - a') u' v + c u v + d v) = 0 for all v

    so that coefficients may have kinks, as unknown functions do. That of the slope in a flux
    whose divergence the equation is may even jump, such as D in (D u')'; one of the value there may
    not. The system is tridiagonal; boundary values come from the ansatz.

    Attributes:
        elements: How many, of equal length; kinks of coefficients should lie between them.

    Source:
        Strang and Fix, An Analysis of the Finite Element Method (1973), chapter 1.

    Example:
        >>> ij.models.FiniteElements(elements=128).tightened().elements
        256
    """

    elements: int = 200

    def __check_init__(self) -> None:
        """Refuse meshes without interior."""
        if self.elements < 2:
            raise ValueError(f"`elements` must be at least 2; got {self.elements}.")

    def check(self, equation: AbstractEquation) -> None:
        """Raise unless the equation has a single coordinate and a single state."""
        if len(equation.coordinates) != 1 or len(equation.states) != 1:
            raise ValueError(
                "`FiniteElements` solves equations of one state in one coordinate; this one has "
                f"states {', '.join(equation.states)} and coordinates "
                f"{', '.join(equation.coordinates)}."
            )

    def check_parameters(self, equation: AbstractEquation, parameters: int) -> None:
        """Raise unless the equation is linear."""
        with jax.enable_x64(True), jax.ensure_compile_time_eval():
            theta = jnp.linspace(0.7, 1.3, parameters)
            low, high = equation.domain[0]
            x = jnp.asarray([low + 0.37 * (high - low)])
            jet = jnp.array([0.8, -1.1, 1.7])
            zero, one, two = (
                float(_residual(equation, size * jet, x, theta)) for size in (0.0, 1.0, 2.0)
            )
        # Rounding errors are those of the largest term, which may be a source.
        rounding = 1e-12 * np.max(np.abs([zero, one, two]))
        if not abs((two - one) - (one - zero)) <= rounding:
            raise ValueError(
                "`FiniteElements` solves linear equations; this `residual` is not linear in u and "
                "its derivatives. Use `Collocation`."
            )

    def edges(self, equation: AbstractEquation) -> Float[np.ndarray, "point coordinate"]:
        """Both ends."""
        return np.array(equation.domain).T

    def tightened(self) -> "FiniteElements":
        """Twice the elements."""
        return FiniteElements(2 * self.elements)

    def values(
        self, equation: AbstractEquation, theta: Float[Array, " parameter"], points: Array
    ) -> Float[Array, "point state"]:
        """The states at some points, linear between the nodes."""
        mesh = np.linspace(*equation.domain[0], self.elements + 1)
        matrices, loads = self._assembled(equation, theta, mesh)
        low, high = (equation.given(jnp.asarray(mesh[[end]]), theta)[0] for end in (0, -1))
        # Each inner node belongs to the elements on both of its sides.
        diagonal = matrices[:-1, 1, 1] + matrices[1:, 0, 0]
        lower, upper = matrices[:-1, 1, 0], matrices[1:, 0, 1]
        load = loads[:-1, 1] + loads[1:, 0]
        load = load.at[0].add(lower[0] * low).at[-1].add(upper[-1] * high)
        inner = solve_tridiagonal(lower, diagonal, upper, -load)
        nodal = jnp.concatenate([low[None], inner, high[None]])
        return jnp.interp(points[:, 0], jnp.asarray(mesh), nodal)[:, None]

    def _assembled(
        self, equation: AbstractEquation, theta: Array, mesh: Float[np.ndarray, " node"]
    ) -> tuple[Float[Array, "element 2 2"], Float[Array, "element 2"]]:
        """Matrix and load of each element, by its two nodes."""
        length = mesh[1] - mesh[0]
        places = mesh[:-1, None] + length * _GAUSS[None]
        read = jax.vmap(jax.vmap(lambda x: _coefficients(equation, x, theta)))
        a, b, c, d = read(jnp.asarray(places[..., None]))  # (element, point)
        shape = np.stack([1.0 - _GAUSS, _GAUSS])  # (node, point)
        slope = np.array([-1.0, 1.0]) / length
        weight = 0.5 * length
        matrices = weight * (
            -jnp.einsum("ep,i,j->eij", a, slope, slope)
            + jnp.einsum("ep,ip,j->eij", b, shape, slope)
            + jnp.einsum("ep,ip,jp->eij", c, shape, shape)
        )
        return matrices, weight * jnp.einsum("ep,ip->ei", d, shape)


def _residual(equation: AbstractEquation, jet: Array, x: Array, theta: Array) -> Array:
    """The residual of value, slope and second derivative at a point."""
    u = expansion(jet[:1], jet[None, 1:2], {(0, 0): jet[2:]}, x)
    return equation.residual_of(u, x, theta)[0]


def _coefficients(equation: AbstractEquation, x: Array, theta: Array) -> tuple[Any, Any, Any, Any]:
    """Coefficients a, b - a', c and d of the weak form at a point."""

    def read(x: Array) -> tuple[Array, Array]:
        blank = jnp.zeros(3, x.dtype)
        constant, slopes = jax.value_and_grad(lambda jet: _residual(equation, jet, x, theta))(blank)
        return slopes, constant

    (slopes, constant), (change, _) = jax.jvp(read, (x,), (jnp.ones_like(x),))
    return slopes[2], slopes[1] - change[2], slopes[0], constant
