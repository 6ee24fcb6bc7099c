"""Partial differential equations with unknown parameters."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._binding import Binding
from .._x64 import in_x64, is_traced
from ._equation import AbstractEquation, Ansatz, Residual
from ._equation_checks import check_equation
from ._field import Field, Variation, check_field
from ._interface import Interface, check_interfaces
from ._ode import ODESolution
from ._pde_solver import AbstractPDESolver, Solved
from ._points import along, check_box, checked, lattice


class PDEModel(AbstractEquation):
    """A boundary value problem F(x, u, ∂u, ∂²u, θ) = 0 on a box, whose parameters θ are unknown.

    The equation is written once, at a point, with the derivative operators of `inojax.models`:

        def residual(u, x, theta):
            return partial(u, 1)(x) - theta[0] * partial(u, 0, 0)(x)

        def ansatz(n, x, theta):
            return jnp.sin(jnp.pi * x[0]) + x[0] * (1 - x[0]) * x[1] * n

    Local operators are trained on it, and the classical solver, which is the reference that
    simulates and checks, solves the same formula. Initial and boundary conditions are part of
    the ansatz: it turns any function n into one that has them. Derivatives of up to second order
    may appear. Unknown functions of the equation (`fields`) are further arguments of both,
    functions of a point as u is:

        def residual(u, x, theta, diffusivity):
            flux = lambda y: diffusivity(y) * gradient(u)(y)
            return divergence(flux)(x) + source(x)

    A solution is read along `readings`, a line of points; what an `ODEModel` has at times, this
    has along that line. So sensors, observations and all methods that use the solver serve both.

    Attributes:
        residual: `residual(u, x, theta, *fields)`, zero where the equation holds: `u` is a function
            of a point and `x` a point. `u(x)` is a number if there is one state, else a vector.
        ansatz: `ansatz(n, x, theta, *fields) -> u`, from the output of a network at a point.
        coordinates: A name for each coordinate.
        domain: Lower and upper end of each coordinate.
        collocation: Points where networks are asked to fulfill the equation.
        readings: Points where the solution may be read.
        times: How far along the readings each is: the coordinate that varies, else its number.
        coordinate: Name of that coordinate, else `number`.
        states: A name for each function that the equation determines.
        fields: The unknown functions that it depends on, besides scalar parameters. Their
            coefficients are the last parameters of a problem.
        interfaces: Points where the solution has a kink, in one coordinate.
        solver: The classical solver.
        time_unit: Unit of the coordinate that varies along the readings.
        state_unit: Unit of the states.

    Example:
        >>> from inojax.models import Collocation, partial
        >>> model = ij.PDEModel(
        ...     residual=lambda u, x, k: k[0] * partial(u, 0, 0)(x) + jnp.sin(jnp.pi * x[0]),
        ...     ansatz=lambda n, x, k: x[0] * (1.0 - x[0]) * n,
        ...     domain={"x": (0.0, 1.0)},
        ...     collocation=(33,),
        ...     readings=np.array([[0.25], [0.5]]),
        ...     solver=Collocation(),
        ... )
        >>> np.asarray(model.solve(np.array([2.0])).states).round(4).ravel().tolist()
        [0.0358, 0.0507]
    """

    residual: Residual
    ansatz: Ansatz
    coordinates: tuple[str, ...]
    domain: tuple[tuple[float, float], ...]
    collocation: Float[np.ndarray, "point coordinate"]
    readings: Float[np.ndarray, "time coordinate"]
    times: Float[np.ndarray, " time"]
    coordinate: str = eqx.field(static=True)
    states: tuple[str, ...]
    fields: tuple[Field, ...]
    interfaces: tuple[Interface, ...]
    solver: AbstractPDESolver
    time_unit: str
    state_unit: str
    _binding: Binding | None = eqx.field(static=True, repr=False)

    def __init__(  # noqa: PLR0913 - flat keywords, as in ODEModel
        self,
        residual: Residual,
        ansatz: Ansatz,
        *,
        domain: dict[str, tuple[float, float]],
        collocation: Sequence[int] | ArrayLike,
        readings: ArrayLike,
        solver: AbstractPDESolver,
        states: tuple[str, ...] = ("u",),
        fields: tuple[Field, ...] = (),
        interfaces: tuple[Interface, ...] = (),
        time_unit: str = "",
        state_unit: str = "",
        _binding: Binding | None = None,
    ) -> None:
        """Describe the equation, where it holds and where its solution is read.

        Args:
            residual: The equation, see the class.
            ansatz: Its initial and boundary conditions, see the class.
            domain: Name of each coordinate with its lower and upper end.
            collocation: Points along each coordinate, ends included, or the points themselves.
            readings: Points where the solution may be read.
            solver: The classical solver.
            states: Names of the functions that the equation determines.
            fields: The unknown functions.
            interfaces: Points where the solution has a kink, in increasing order.
            time_unit: Unit of the coordinate that varies along the readings.
            state_unit: Unit of the states.

        Raises:
            ValueError: If an end is not above the other, points lie outside of the domain, shapes
                disagree or names repeat.
        """
        self.residual = residual
        self.ansatz = ansatz
        self.coordinates = tuple(domain)
        self.domain = tuple((float(low), float(high)) for low, high in domain.values())
        check_box(self.box)
        self.states, self.fields = tuple(states), tuple(fields)
        self.interfaces = tuple(interfaces)
        self.collocation = checked("collocation", lattice(collocation, self.box), self.box)
        self.readings = checked("readings", np.array(readings, np.float64), self.box)
        self.times, number = along(self.readings)
        self.coordinate = "number" if number is None else self.coordinates[number]
        self.solver = solver
        self.time_unit = time_unit
        self.state_unit = state_unit
        self._binding = _binding

    def __check_init__(self) -> None:
        """Refuse what could never be solved."""
        if not self.states or len(set(self.states)) != len(self.states):
            raise ValueError(f"`states` must be distinct names, at least one; got {self.states}.")
        if not isinstance(self.solver, AbstractPDESolver):
            raise TypeError(
                "`solver` must be a classical solver such as `MethodOfLines()`; got "
                f"{type(self.solver).__name__}."
            )
        for field in self.fields:
            check_field(field, self.box)
        check_interfaces(self.interfaces, self.domain)
        if self.interfaces and not self.solver.knows_interfaces:
            raise ValueError(
                f"`solver` {type(self.solver).__name__} knows no `interfaces`: use `Collocation`, "
                "or where a coefficient jumps write the equation as a flux's divergence and use "
                "`FiniteElements` without them."
            )
        self.solver.check(self)

    def bound(self, binding: Binding) -> "PDEModel":
        """The same model, whose formulas see parameters by name and with the fixed ones.

        An `InverseProblem` calls this.

        Args:
            binding: Names and fixed values of the problem's parameters.

        Returns:
            A model for vectors of the unknowns.
        """
        return self.replace(_binding=binding)

    def check(self, names: tuple[str, ...]) -> None:
        """Refuse parameters, an ansatz or a residual that do not fit the states or the solver.

        Args:
            names: Names of the parameters.

        Raises:
            ValueError: If the last parameters are not the coefficients of the fields, if ansatz or
                residual return another shape than they must, or if the ansatz leaves initial or
                boundary values open that the solver takes from it.
        """
        last = tuple(parameter.name for field in self.fields for parameter in field.parameters)
        if names[len(names) - len(last) :] != last:
            fields = ", ".join(field.name for field in self.fields)
            raise ValueError(
                f"`parameters` must end in the coefficients of the fields {fields}: write "
                "`ParameterSpace((*scalars, *field.parameters))`."
            )
        check_equation(self, len(names), self.solver.edges(self))
        self.solver.check_parameters(self, len(names))

    @property
    def box(self) -> dict[str, tuple[float, float]]:
        """Name of each coordinate with its lower and upper end."""
        return dict(zip(self.coordinates, self.domain, strict=True))

    @property
    def coefficients(self) -> int:
        """Number of coefficients of all fields."""
        return sum(field.size for field in self.fields)

    @property
    def coupled(self) -> bool:
        """Whether a field has a total variation, so that its coefficients depend on each other."""
        return any(field.total_variation is not None for field in self.fields)

    def variation(self, theta: Float[ArrayLike, " parameter"]) -> Variation | None:
        """The penalty of the total variation of all fields.

        Args:
            theta: Physical parameter values.

        Returns:
            The penalty with its derivatives by all parameters; None if no field has one.
        """
        if not self.coupled:
            return None
        theta = 1.0 * jnp.asarray(theta)
        value, gradient = jnp.zeros((), theta.dtype), jnp.zeros_like(theta)
        curvature = jnp.zeros((len(theta), len(theta)), theta.dtype)
        begin = len(theta) - self.coefficients
        for field in self.fields:
            own = slice(begin, begin + field.size)
            found = field.variation(theta[own])
            value = value + found.value
            gradient = gradient.at[own].set(found.gradient)
            curvature = curvature.at[own, own].set(found.curvature)
            begin += field.size
        return Variation(value, gradient, curvature)

    @property
    def initial_time(self) -> float:
        """Where the readings begin."""
        return float(self.times[0])

    @property
    def horizon(self) -> float:
        """Where the readings end."""
        return float(self.times[-1])

    def replace(self, **changes: Any) -> "PDEModel":
        """The same model with some attributes changed, for instance `solver=...`."""
        derived = {"coordinates", "coordinate", "domain", "times"}
        names = {f.name for f in dataclasses.fields(self)} - derived
        fields: dict[str, Any] = {name: getattr(self, name) for name in names}
        fields["domain"] = self.box
        unknown = set(changes) - set(fields)
        if unknown:
            known = sorted(name for name in fields if not name.startswith("_"))
            raise ValueError(f"`replace` knows {known}; got {sorted(unknown)}.")
        return PDEModel(**(fields | changes))

    def tightened(self) -> "PDEModel":
        """The same model with a finer solver."""
        return self.replace(solver=self.solver.tightened())

    def points(self, times: Float[ArrayLike, "*batch time"]) -> Float[Array, "*batch time xyz"]:
        """The points at given places along the readings.

        Args:
            times: Numbers between the first and the last of `self.times`.

        Returns:
            The points, between those of `readings` where need be.
        """
        grid, times = jnp.asarray(self.times), jnp.asarray(times)
        columns = [jnp.interp(times, grid, jnp.asarray(column)) for column in self.readings.T]
        return jnp.stack(columns, axis=-1)

    def solve(
        self,
        theta: Float[ArrayLike, " parameter"],
        times: Float[ArrayLike, " time"] | None = None,
    ) -> ODESolution:
        """Solve for one parameter vector by the classical solver, differentiably.

        Args:
            theta: Parameters in physical units.
            times: Places along the readings; the model's own by default.

        Returns:
            The states there, as NumPy arrays unless traced; a failed solve has a status and NaN
            states, it does not raise.

        Raises:
            RuntimeError: If traced while 64-bit floats are off.
        """
        grid = self.times if times is None else times
        solution = _solve_one(self, theta, grid)
        return solution if is_traced(solution) else jax.tree.map(np.asarray, solution)

    def solve_ensemble(
        self,
        thetas: Float[ArrayLike, "batch parameter"],
        times: Float[ArrayLike, "*rows time"] | None = None,
        *,
        retry: bool = False,
        mesh: jax.sharding.Mesh | None = None,
    ) -> ODESolution:
        """Solve for many parameter vectors.

        Args:
            thetas: Parameters in physical units.
            times: Places along the readings, one row or one for each parameter vector; the
                model's own by default.
            retry: Whether to solve those that failed again, more finely.
            mesh: Devices to use, where the solver can.

        Returns:
            States with a status for each, as NumPy arrays unless traced.

        Raises:
            RuntimeError: If traced while 64-bit floats are off.
            ValueError: If `thetas` is not a matrix with at least one row.
        """
        solution = _solve_many(self, thetas, self.times if times is None else times, mesh)
        if is_traced(solution):
            return solution
        solution = jax.tree.map(np.asarray, solution)
        failed = np.flatnonzero(solution.status != 0)
        if not (retry and len(failed)):
            return solution
        grid = np.asarray(solution.times)
        grid = grid[failed] if grid.ndim == 2 else grid
        again = self.tightened().solve_ensemble(np.asarray(thetas)[failed], grid, mesh=mesh)
        return solution.replaced(failed, again)

    def sensitivities(
        self,
        thetas: Float[ArrayLike, "batch parameter"],
        times: Float[ArrayLike, "*rows time"] | None = None,
        *,
        mesh: jax.sharding.Mesh | None = None,
        count: Int[Array, ""] | None = None,
    ) -> tuple[ODESolution, Float[Array | np.ndarray, "batch time state parameter"]]:
        """Solve for many parameter vectors together with du/dθ.

        Args:
            thetas: Parameters in physical units.
            times: As in `solve_ensemble`.
            mesh: Devices to use, where the solver can.
            count: Inside a transformation, how many of the parameter vectors are meant, if not
                all; what the others give has no meaning.

        Returns:
            The solutions, and the derivative of every state with respect to every parameter.

        Raises:
            RuntimeError: If traced while 64-bit floats are off.
            ValueError: If `thetas` is not a matrix with at least one row.
        """
        grid = self.times if times is None else times
        found = _differentiate_many(self, thetas, grid, mesh, count)
        return found if is_traced(found) else jax.tree.map(np.asarray, found)


@in_x64
def _solve_one(model: PDEModel, theta: Any, times: Any) -> ODESolution:
    theta, times = jnp.asarray(theta, jnp.float64), jnp.asarray(times, jnp.float64)
    return _solution(times, model.solver.solve(model, theta, model.points(times)))


@in_x64
def _solve_many(model: PDEModel, thetas: Any, times: Any, mesh: Any) -> ODESolution:
    thetas, rows, times = _rows(thetas, times)
    found = model.solver.solve_ensemble(model, thetas, model.points(rows), mesh=mesh)
    return _solution(times, found)


@in_x64
def _differentiate_many(
    model: PDEModel, thetas: Any, times: Any, mesh: Any, count: Any
) -> tuple[ODESolution, Array]:
    thetas, rows, times = _rows(thetas, times)
    found, tangents = model.solver.sensitivities(
        model, thetas, model.points(rows), mesh=mesh, count=count
    )
    return _solution(times, found), tangents


def _solution(times: Array, found: Solved) -> ODESolution:
    return ODESolution(times, *found)


def _rows(thetas: Any, times: Any) -> tuple[Array, Array, Array]:
    thetas, times = jnp.asarray(thetas, jnp.float64), jnp.asarray(times, jnp.float64)
    if thetas.ndim != 2 or thetas.shape[0] == 0:
        raise ValueError(
            f"`thetas` must have shape (batch, parameter), at least one row; got {thetas.shape}."
        )
    if times.ndim == 2 and len(times) != len(thetas):
        raise ValueError(
            f"`times` must be a vector, or have a row for each of the {len(thetas)} parameter "
            f"vectors; got shape {times.shape}."
        )
    return thetas, jnp.broadcast_to(times, (len(thetas), times.shape[-1])), times
