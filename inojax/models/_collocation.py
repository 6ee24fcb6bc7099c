"""Spectral collocation of boundary value problems in one coordinate."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..solvers._elimination import solve_general
from ._derivatives import expansion
from ._equation import AbstractEquation
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
    conditions of the ansatz: as exact as float64 wherever the solution is smooth. Interfaces cut
    the interval into pieces with a polynomial each. Derivatives by the parameters come from the
    implicit function theorem.

    Attributes:
        nodes: Chebyshev points of each piece, ends included.
        iterations: Newton steps; a linear equation needs one. A solution that they do not reach
            is NaN and has a status that says so.

    Source:
        Trefethen, Spectral Methods in MATLAB (2000), chapters 6, 7 and 13.

    Example:
        >>> problem = ij.problems.scalar_poisson()
        >>> finer = problem.model.replace(solver=ij.models.Collocation(nodes=33))
        >>> finer.solver.nodes
        33
    """

    nodes: int = 33
    iterations: int = 12

    def __check_init__(self) -> None:
        """Refuse grids without interior and no iterations."""
        check_nodes(self.nodes)
        if self.iterations < 1:
            raise ValueError(f"`iterations` must be at least 1; got {self.iterations}.")

    @property
    def knows_interfaces(self) -> bool:
        """It solves on either side."""
        return True

    def check(self, equation: AbstractEquation) -> None:
        """Raise unless the equation has a single coordinate."""
        if len(equation.coordinates) != 1:
            raise ValueError(
                "`Collocation` solves equations in one coordinate; this one has "
                f"{', '.join(equation.coordinates)}. Use `MethodOfLines` where one of them is time."
            )

    def edges(self, equation: AbstractEquation) -> Float[np.ndarray, "point coordinate"]:
        """Both ends."""
        return np.array(equation.domain).T

    def tightened(self) -> "Collocation":
        """Twice the intervals and iterations."""
        return Collocation(2 * self.nodes - 1, 2 * self.iterations)

    def values(
        self, equation: AbstractEquation, theta: Float[Array, " parameter"], points: Array
    ) -> Float[Array, "point state"]:
        """The states at some points."""
        pieces = _Pieces(equation, self.nodes)

        def residual(free: Array, theta: Array) -> Array:
            return pieces.residual(free, theta)

        def newton(inner: Array, theta: Array) -> Array:
            slope = jax.lax.stop_gradient(jax.jacfwd(residual)(inner, theta))
            return inner - solve_general(slope, residual(inner, theta))

        fixed = jax.lax.stop_gradient(theta)
        start = pieces.start(fixed)
        inner, _ = jax.lax.scan(
            lambda y, _: (newton(y, fixed), None), start, length=self.iterations
        )
        # A last step from the solution has the derivative of the implicit function theorem.
        inner = jax.lax.stop_gradient(inner)
        last = newton(inner, theta)
        moved = jnp.max(jnp.abs(last - inner))
        arrived = moved <= _ARRIVED * (1.0 + jnp.max(jnp.abs(inner)))
        return jnp.where(arrived, pieces.states(last, theta, points[:, 0]), jnp.nan)


class _Pieces:
    """An interval cut at interfaces, with unknown states inside of each piece and at each cut."""

    def __init__(self, equation: AbstractEquation, nodes: int) -> None:
        cuts = [interface.at for interface in equation.interfaces]
        low, high = equation.domain[0]
        ends = [low, *cuts, high]
        self.equation = equation
        self.ends = np.array(ends)
        self.grids = [Grid(nodes, *pair) for pair in itertools.pairwise(ends)]
        self.inside = np.concatenate([grid.x[1:-1] for grid in self.grids] + [cuts])

    def start(self, theta: Array) -> Float[Array, " unknown"]:
        """The ansatz where the network is zero."""
        return jax.vmap(lambda x: self.equation.given(x, theta))(
            jnp.asarray(self.inside[:, None])
        ).ravel()

    def nodal(self, free: Array, theta: Array) -> list[Float[Array, "node state"]]:
        """States at the nodes of each piece."""
        sides = jnp.asarray(self.ends[[0, -1], None])
        low, high = jax.vmap(lambda x: self.equation.given(x, theta))(sides)
        rows = free.reshape(len(self.inside), -1)
        many, count = len(self.grids), len(self.grids[0].x) - 2
        inner = rows[: many * count].reshape(many, count, -1)
        ends = jnp.concatenate([low[None], rows[many * count :], high[None]])
        return [jnp.concatenate([ends[k][None], inner[k], ends[k + 1][None]]) for k in range(many)]

    def residual(self, free: Array, theta: Array) -> Float[Array, " unknown"]:
        """The equation inside of each piece, then the condition of each interface."""
        equation, found, functions = self.equation, [], []
        for grid, nodal in zip(self.grids, self.nodal(free, theta), strict=True):
            first, second = jnp.asarray(grid.first) @ nodal, jnp.asarray(grid.second) @ nodal

            def function(at: Any, x: Array) -> Any:
                value, slope, bend = at
                return expansion(value, slope[None], {(0, 0): bend}, x)

            def missed(at: Any, x: Array, function: Any = function) -> Array:
                return equation.residual_of(function(at, x), x, theta)

            jets, x = (nodal, first, second), jnp.asarray(grid.x[:, None])
            inner = jax.tree.map(lambda leaf: leaf[1:-1], (jets, x))
            found.append(jax.vmap(missed)(*inner))
            edges = [jax.tree.map(lambda leaf, k=k: leaf[k], (jets, x)) for k in (0, -1)]
            functions.append([function(*edge) for edge in edges])
        for index, interface in enumerate(equation.interfaces):
            below, above = functions[index][1], functions[index + 1][0]
            found.append(equation.jump_of(interface, below, above, theta)[None])
        return jnp.concatenate(found).ravel()

    def states(
        self, free: Array, theta: Array, x: Float[Array, " point"]
    ) -> Float[Array, "point state"]:
        """The polynomials of the pieces at some points."""
        piece = jnp.searchsorted(jnp.asarray(self.ends[1:-1]), x)
        total = jnp.zeros((len(x), len(self.equation.states)), x.dtype)
        for index, (grid, nodal) in enumerate(
            zip(self.grids, self.nodal(free, theta), strict=True)
        ):
            inside = jnp.clip(x, grid.x[0], grid.x[-1])
            total = jnp.where((piece == index)[:, None], grid.weights(inside) @ nodal, total)
        return total
