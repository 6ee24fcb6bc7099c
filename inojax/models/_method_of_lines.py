"""The method of lines: space by spectral collocation, time by the library's stiff solver."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..solvers._elimination import solve_general
from ._collocation import Grid, check_nodes
from ._derivatives import Function, expansion
from ._equation import AbstractEquation, Residual
from ._ode import ODEModel
from ._pde_solver import AbstractPDESolver, Solved


class MethodOfLines(AbstractPDESolver):
    """Spectral collocation in space and the library's stiff solver in time.

    One coordinate is time, in which the equation is of first order: `residual` is linear in
    ∂u/∂t. The state at Chebyshev points of the other coordinate is an ordinary differential
    equation, whose initial and boundary values come from the ansatz. Without another coordinate
    the equation is an ordinary one already, and the ansatz gives its initial value.

    Attributes:
        nodes: Chebyshev points in space, ends included; enough for the steepest front.
        time: Name of the coordinate that is time.
        rtol: Relative tolerance of each step.
        atol: Absolute tolerance of each step.

    Source:
        Trefethen, Spectral Methods in MATLAB (2000), chapters 6 and 13.

    Example:
        >>> solver = ij.models.MethodOfLines(nodes=65)
        >>> ij.problems.fisher_kpp().model.replace(solver=solver).solver.time
        't'
    """

    nodes: int = 33
    time: str = "t"
    rtol: float = 1e-8
    atol: float = 1e-10

    def __check_init__(self) -> None:
        """Refuse grids without interior."""
        check_nodes(self.nodes)

    def check(self, equation: AbstractEquation) -> None:
        """Raise unless the equation has at most one coordinate besides time."""
        if self.time not in equation.coordinates or len(equation.coordinates) > 2:
            raise ValueError(
                f"`MethodOfLines` solves equations in time {self.time!r} and at most one other "
                f"coordinate; this one has {', '.join(equation.coordinates)}. Name time by "
                "`MethodOfLines(time=...)`."
            )

    def check_parameters(self, equation: AbstractEquation, parameters: int) -> None:
        """Raise unless the equation is of first order in time, and linear in that derivative."""
        lines = _Lines(equation, self)
        with jax.enable_x64(True), jax.ensure_compile_time_eval():
            theta = jnp.linspace(0.7, 1.3, parameters)
            x = equation.generic_point()
            u, along = equation.generic_function(x), lines.clock

            def residual(change: Function) -> np.ndarray:
                return np.asarray(equation.residual_of(lambda y: u(y) + change(y), x, theta))

            rates = jnp.linspace(0.8, 1.2, len(equation.states))
            zero, one, two = (
                residual(lambda y, s=s: s * (y - x)[along] * rates) for s in (0.0, 1.0, 2.0)
            )
            bent = residual(lambda y: (y - x)[along] * jnp.sum(y - x) * rates)
            mass = np.asarray(
                jax.jacfwd(
                    lambda v: equation.residual_of(lambda y: u(y) + (y - x)[along] * v, x, theta)
                )(rates)
            )
        if not np.array_equal(bent, zero, equal_nan=True):
            raise ValueError(
                f"`MethodOfLines` solves equations of first order in time {self.time!r}; this "
                "`residual` has second derivatives with it. Make the first one a state of its own."
            )
        # Rounding errors are those of the largest term. What is no number here says nothing.
        rounding = 1e-12 * np.max(np.abs([zero, one, two]))
        if np.any(np.abs((two - one) - (one - zero)) > rounding):
            raise ValueError(
                f"`MethodOfLines` solves equations that are linear in the derivative by time "
                f"{self.time!r}; this `residual` is not. Solve it for that derivative."
            )
        if np.isfinite(mass).all() and np.linalg.matrix_rank(mass) < len(mass):
            raise ValueError(
                f"`MethodOfLines` needs the derivative of every state by time {self.time!r}; this "
                "`residual` does not determine all of them. Use a solver of your own "
                "(`AbstractPDESolver`)."
            )

    def edges(self, equation: AbstractEquation) -> Float[np.ndarray, "point coordinate"]:
        """Some points of the start and of both ends."""
        lines = _Lines(equation, self)
        begin, end = equation.domain[lines.clock]
        if lines.space is None:
            return np.array([[begin]])
        low, high = equation.domain[lines.space]
        inside = np.array([0.3, 0.7])
        start = [(x, begin) for x in low + inside * (high - low)]
        sides = [(x, t) for x in (low, high) for t in begin + inside * (end - begin)]
        points = np.array([*start, *sides])
        return points[:, ::-1] if lines.clock == 0 else points

    def tightened(self) -> "MethodOfLines":
        """Twice the intervals, and tolerances 100 times tighter."""
        return MethodOfLines(2 * self.nodes - 1, self.time, 1e-2 * self.rtol, 1e-2 * self.atol)

    def solve(
        self,
        equation: AbstractEquation,
        theta: Float[Array, " parameter"],
        points: Float[Array, "point coordinate"],
    ) -> Solved:
        """Solve for one parameter vector, differentiably."""
        lines = _Lines(equation, self)
        clock, back = _clock(lines, points[None])
        solution = self._ode(lines).solve(theta, clock[0])
        states = jnp.asarray(solution.states)[back[0]]
        found = _read(lines, states[None], theta[None], points[None])[0]
        return Solved(found, jnp.asarray(solution.status), jnp.asarray(solution.steps))

    def solve_ensemble(
        self,
        equation: AbstractEquation,
        thetas: Float[Array, "batch parameter"],
        points: Float[Array, "batch point coordinate"],
        *,
        mesh: Any,
    ) -> Solved:
        """Solve for many parameter vectors."""
        lines = _Lines(equation, self)
        clock, back = _clock(lines, points)
        solution = self._ode(lines).solve_ensemble(thetas, clock, mesh=mesh)
        states = jnp.take_along_axis(jnp.asarray(solution.states), back[..., None], axis=1)
        found = _read(lines, states, thetas, points)
        return Solved(found, jnp.asarray(solution.status), jnp.asarray(solution.steps))

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
        lines = _Lines(equation, self)
        clock, back = _clock(lines, points)
        ode = self._ode(lines)
        solution, tangents = ode.sensitivities(thetas, clock, mesh=mesh, count=count)
        states = jnp.take_along_axis(jnp.asarray(solution.states), back[..., None], axis=1)
        tangents = jnp.take_along_axis(jnp.asarray(tangents), back[..., None, None], axis=1)
        states, tangents = _differentiated(lines, states, tangents, thetas, points)
        found = Solved(states, jnp.asarray(solution.status), jnp.asarray(solution.steps))
        return found, tangents

    def _ode(self, lines: "_Lines") -> ODEModel:
        start, end = lines.equation.domain[lines.clock]
        states = lines.equation.states
        inner = 1 if lines.space is None else self.nodes - 2
        return ODEModel(
            lines,
            _Start(lines),
            times=np.array([end]),
            states=tuple(f"{name}{i}" for i in range(inner) for name in states),
            initial_time=start,
            rtol=self.rtol,
            atol=self.atol,
        )


class _Lines(eqx.Module):
    """The equation at the inner points of space, as a vector field."""

    equation: AbstractEquation
    solver: MethodOfLines

    @property
    def made_of(self) -> Residual:
        """The function of the user's that it comes from."""
        return self.equation.residual

    @property
    def clock(self) -> int:
        """Number of the coordinate that is time."""
        return self.equation.coordinates.index(self.solver.time)

    @property
    def space(self) -> int | None:
        """Number of the other coordinate, if there is one."""
        return 1 - self.clock if len(self.equation.coordinates) == 2 else None

    @property
    def grid(self) -> Grid:
        """The points of space."""
        return Grid(self.solver.nodes, *self.equation.domain[1 - self.clock])

    def point(self, x: Any, t: Any) -> Array:
        """Coordinates in the order of the model."""
        return jnp.stack([t, x] if self.clock == 0 else [x, t])

    def given(self, x: Any, t: Any, theta: Array) -> Array:
        """What the ansatz says where it leaves no choice, at the start and at both ends."""
        return self.equation.given(self.point(x, t), theta)

    def whole(self, inner: Array, t: Array, theta: Array) -> Float[Array, "node state"]:
        """States at all points of space."""
        low, high = (self.given(jnp.asarray(x), t, theta) for x in self.grid.x[[0, -1]])
        rows = inner.reshape(-1, len(self.equation.states))
        return jnp.concatenate([low[None], rows, high[None]])

    def __call__(self, t: Array, y: Array, theta: Array) -> Array:
        """The rate of change of the states at the inner points."""
        if self.space is None:
            return self._rate(y, jnp.zeros((0, len(y)), y.dtype), {}, t[None], theta)
        grid, space = self.grid, self.space
        nodal = self.whole(y, t, theta)
        jets = (nodal, jnp.asarray(grid.first) @ nodal, jnp.asarray(grid.second) @ nodal)

        def rate(value: Array, slope: Array, bend: Array, x: Array) -> Array:
            return self._rate(value, slope[None], {(space, space): bend}, self.point(x, t), theta)

        value, slope, bend = (jet[1:-1] for jet in jets)
        return jax.vmap(rate)(value, slope, bend, jnp.asarray(grid.x[1:-1])).ravel()

    def _rate(
        self,
        value: Float[Array, " state"],
        slopes: Float[Array, "space state"],
        bends: dict[tuple[int, int], Array],
        center: Float[Array, " coordinate"],
        theta: Array,
    ) -> Float[Array, " state"]:
        """The rate of change at one point, in which the residual is linear."""

        def residual(speed: Array) -> Array:
            rows = [*slopes]
            rows.insert(self.clock, speed)
            u = expansion(value, jnp.stack(rows), bends, center)
            return self.equation.residual_of(u, center, theta)

        still = jnp.zeros_like(value)
        mass = jax.jacfwd(residual)(still)
        if mass.shape == (1, 1):
            return -residual(still) / mass[0]
        return -solve_general(mass, residual(still))


class _Start(eqx.Module):
    """The initial state at the inner points of space."""

    lines: _Lines

    def __call__(self, theta: Array) -> Array:
        begin = jnp.asarray(self.lines.equation.domain[self.lines.clock][0])
        if self.lines.space is None:
            return self.lines.equation.given(begin[None], theta)
        inner = jnp.asarray(self.lines.grid.x[1:-1])
        return jax.vmap(lambda x: self.lines.given(x, begin, theta))(inner).ravel()


def _clock(lines: _Lines, points: Array) -> tuple[Array, Array]:
    """Time at each point in increasing order, and the way back."""
    clock = points[..., lines.clock]
    order = jnp.argsort(clock, axis=-1)
    return jnp.take_along_axis(clock, order, axis=-1), jnp.argsort(order, axis=-1)


def _reading(lines: _Lines, y: Array, theta: Array, point: Array) -> Array:
    if lines.space is None:
        return y
    nodal = lines.whole(y, point[lines.clock], theta)
    return (lines.grid.weights(point[1 - lines.clock][None]) @ nodal)[0]


@eqx.filter_jit
def _read(lines: _Lines, states: Array, thetas: Array, points: Array) -> Array:
    def row(y: Array, theta: Array, points: Array) -> Array:
        return jax.vmap(lambda y, point: _reading(lines, y, theta, point))(y, points)

    return jax.vmap(row)(states, thetas, points)


@eqx.filter_jit
def _differentiated(
    lines: _Lines, states: Array, tangents: Array, thetas: Array, points: Array
) -> tuple[Array, Array]:
    def one(y: Array, columns: Array, theta: Array, point: Array) -> tuple[Array, Array]:
        def along(column: Array, direction: Array) -> Array:
            def read(y: Array, theta: Array) -> Array:
                return _reading(lines, y, theta, point)

            return jax.jvp(read, (y, theta), (column, direction))[1]

        derivatives = jax.vmap(along, in_axes=(1, 0), out_axes=1)(columns, jnp.eye(len(theta)))
        return _reading(lines, y, theta, point), derivatives

    rows = jax.vmap(one, in_axes=(0, 0, None, 0))
    return jax.vmap(rows)(states, tangents, thetas, points)
