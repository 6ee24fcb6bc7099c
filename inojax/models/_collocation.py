"""Spectral collocation of boundary value problems in one coordinate."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..solvers import solve_general
from ._derivatives import expansion
from ._formula import Formula
from ._pde_solver import AbstractDirectSolver

# Newton's last step, relative to the solution, where it has found one: it converges by squares.
_ARRIVED = 1e-6


class Grid:
    """Chebyshev points of an interval, ends included, with what polynomials need there.

    Attributes:
        x: The points, increasing.
        first: Matrix of the first derivative of the polynomial through values at the points.
        second: Matrix of its second derivative.

    Source:
        Trefethen, Spectral Methods in MATLAB (2000), chapter 6; Berrut and Trefethen,
        Barycentric Lagrange interpolation, SIAM Review 46 (2004).
    """

    x: Float[np.ndarray, " node"]
    first: Float[np.ndarray, "node node"]
    second: Float[np.ndarray, "node node"]

    def __init__(self, nodes: int, lower: float, upper: float) -> None:
        """Compute the matrices."""
        angle = np.pi * np.arange(nodes) / (nodes - 1)
        self.x = lower + (upper - lower) * np.sin(0.5 * angle) ** 2
        self._barycentric = np.where(np.arange(nodes) % 2, -1.0, 1.0)
        self._barycentric[[0, -1]] *= 0.5
        gaps = self.x[:, None] - self.x[None, :] + np.eye(nodes)
        ratio = self._barycentric[None, :] / self._barycentric[:, None] / gaps
        np.fill_diagonal(ratio, 0.0)
        # Rows of a derivative sum to zero; with it rounding errors cancel.
        self.first = ratio - np.diag(ratio.sum(axis=1))
        self.second = self.first @ self.first

    def weights(self, x: Float[Array, " point"]) -> Float[Array, "point node"]:
        """The matrix that takes values at the points to values of the polynomial anywhere."""
        gaps = x[:, None] - jnp.asarray(self.x, x.dtype)[None, :]
        hit = gaps == 0.0
        terms = jnp.asarray(self._barycentric, x.dtype)[None, :] / jnp.where(hit, 1.0, gaps)
        between = terms / jnp.sum(terms, axis=1, keepdims=True)
        at_node = jnp.any(hit, axis=1, keepdims=True)
        return jnp.where(at_node, hit.astype(x.dtype), between)


def check_nodes(nodes: int) -> None:
    """Refuse grids without interior."""
    if nodes < 3:
        raise ValueError(f"`nodes` must be at least 3; got {nodes}.")


class Collocation(AbstractDirectSolver):
    """Spectral collocation of a boundary value problem in one coordinate, by Newton's method.

    The solution is a polynomial that fulfills the equation at Chebyshev points and the boundary
    conditions of the ansatz: as exact as float64 wherever the solution is smooth. Derivatives
    by the parameters come from the implicit function theorem.

    Attributes:
        nodes: Chebyshev points, ends included.
        iterations: Newton steps; a linear equation needs one. A solution that they do not reach
            is NaN and has a status that says so.

    Source:
        Trefethen, Spectral Methods in MATLAB (2000), chapters 6, 7 and 13.
    """

    nodes: int = 33
    iterations: int = 12

    def __check_init__(self) -> None:
        """Refuse grids without interior and no iterations."""
        check_nodes(self.nodes)
        if self.iterations < 1:
            raise ValueError(f"`iterations` must be at least 1; got {self.iterations}.")

    def check(self, formula: Formula) -> None:
        """Raise unless the equation has a single coordinate."""
        if len(formula.coordinates) != 1:
            raise ValueError(
                "`Collocation` solves equations in one coordinate; this one has "
                f"{', '.join(formula.coordinates)}. Use `MethodOfLines` where one of them is time."
            )

    def edges(self, formula: Formula) -> Float[np.ndarray, "point coordinate"]:
        """Both ends."""
        return np.array(formula.domain).T

    def tightened(self) -> "Collocation":
        """Twice the intervals and iterations."""
        return Collocation(2 * self.nodes - 1, 2 * self.iterations)

    def values(
        self, formula: Formula, theta: Float[Array, " parameter"], points: Array
    ) -> Float[Array, "point state"]:
        """The states at some points."""
        grid = Grid(self.nodes, *formula.domain[0])
        shape = self.nodes - 2, len(formula.states)

        def whole(inner: Array, theta: Array) -> Array:
            ends = jnp.asarray(grid.x[[0, -1], None])
            low, high = jax.vmap(lambda x: formula.given(x, theta))(ends)
            return jnp.concatenate([low[None], inner.reshape(shape), high[None]])

        def residual(inner: Array, theta: Array) -> Array:
            nodal = whole(inner, theta)
            first, second = jnp.asarray(grid.first), jnp.asarray(grid.second)
            jets = nodal[1:-1], (first @ nodal)[1:-1], (second @ nodal)[1:-1]

            def at(value: Array, slope: Array, bend: Array, x: Array) -> Array:
                u = expansion(value, slope[None], {(0, 0): bend}, x)
                return formula.residual_of(u, x, theta)

            return jax.vmap(at)(*jets, jnp.asarray(grid.x[1:-1, None])).ravel()

        def newton(inner: Array, theta: Array) -> Array:
            slope = jax.lax.stop_gradient(jax.jacfwd(residual)(inner, theta))
            return inner - solve_general(slope, residual(inner, theta))

        fixed = jax.lax.stop_gradient(theta)
        blank = jax.vmap(lambda x: formula.given(x, fixed))
        start = blank(jnp.asarray(grid.x[1:-1, None])).ravel()
        inner, _ = jax.lax.scan(
            lambda y, _: (newton(y, fixed), None), start, length=self.iterations
        )
        # A last step from the solution has the derivative of the implicit function theorem.
        inner = jax.lax.stop_gradient(inner)
        last = newton(inner, theta)
        moved = jnp.max(jnp.abs(last - inner))
        arrived = moved <= _ARRIVED * (1.0 + jnp.max(jnp.abs(inner)))
        states = grid.weights(points[:, 0]) @ whole(last, theta)
        return jnp.where(arrived, states, jnp.nan)
