"""Ordinary differential equations with unknown parameters."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._binding import Binding
from .._x64 import is_traced, require_x64
from ..solvers import SolveStatus
from ..solvers._sparsity import dependence
from ._global_error import with_global_tolerance
from ._ode_checks import (
    check_derivatives,
    check_small_states,
    check_time_course,
    first_derivatives,
)
from ._ode_solution import ODESolution
from ._ode_solve import solve_many, solve_one_traced
from ._vector_field import call_breakpoints, call_initial_state, call_vector_field, check_functions

# What a second attempt at a failed solve changes.
_RETRY_TOLERANCE = 1e-2
_RETRY_STEPS = 10

# Trajectories whose derivatives are computed twice, once for each vector field.
_LOOKED_AT = 256

VectorField = Callable[[Any, Any, Any], Any]
Breakpoints = np.ndarray | Callable[[Any], Any] | None


class ODEModel(eqx.Module):
    """An initial value problem dy/dt = f(t, y, θ) whose parameters θ are unknown.

    Use it for any system of up to a few hundred states; stiffness is expected, not an
    exception. Solves run in float64 with Rodas5P.

    Where the vector field jumps or bends in time steps end, and the next begins anew: at
    `breakpoints`, and where its traced program compares `t` with something or looks it up in a
    table (`jnp.where`, `jnp.select`, `jnp.interp`, `jnp.floor`, `%`, ...), which needs no word.
    Derivatives cross these places, and thresholds that the state passes, with the jump that is
    theirs, also where a place depends on parameters.

    Attributes:
        vector_field: `f(t, y, theta) -> dy/dt` with shapes `()`, `(state,)`,
            `(parameter,)` and `(state,)`, written in `jax.numpy`.
        initial_state: State at `initial_time`, or a function of θ that returns it.
        times: Output times, strictly increasing, none before `initial_time`.
        states: A name for each state.
        initial_time: Where the integration starts.
        rtol: Relative tolerance of each step.
        atol: Absolute tolerance of each step, a scalar or one for each state; by default (None)
            1e-3 times `rtol` times the largest value that each state has had so far in its own
            trajectory, so that units do not matter.
        max_steps: Steps after which a solve is given up.
        max_step: Longest step, in `time_unit`, for inputs that tracing cannot find.
        breakpoints: Times at which steps must end, beside those that are found, in any order; or a
            function of θ that gives them, always as many.
        time_unit: Unit of time, for tables and figures.
        state_unit: Unit of the states, for tables and figures.

    Example:
        >>> def vector_field(t, state, theta):
        ...     return {"a": -theta["k"] * state["a"], "b": theta["k"] * state["a"]}
        >>> model = ij.ODEModel(
        ...     vector_field, initial_state=(1.0, 0.0), times=(0.5, 1.0), states=("a", "b")
        ... )
    """

    vector_field: VectorField
    initial_state: np.ndarray | Callable[[Any], Any]
    times: np.ndarray
    states: tuple[str, ...]
    initial_time: float
    rtol: float
    atol: float | np.ndarray | None
    max_steps: int
    max_step: float
    breakpoints: Breakpoints
    time_unit: str
    state_unit: str
    _binding: Binding | None = eqx.field(static=True, repr=False)

    def __init__(  # noqa: PLR0913 - flat keywords read better than an object of settings
        self,
        vector_field: VectorField,
        initial_state: ArrayLike | Sequence[float] | Callable[[Any], Any],
        *,
        times: ArrayLike | Sequence[float],
        states: tuple[str, ...],
        initial_time: float = 0.0,
        rtol: float = 1e-6,
        atol: ArrayLike | Sequence[float] | None = None,
        max_steps: int = 10_000,
        max_step: float = np.inf,
        breakpoints: ArrayLike | Sequence[float] | Callable[[Any], Any] | None = None,
        time_unit: str = "",
        state_unit: str = "",
        _binding: Binding | None = None,
    ) -> None:
        """Describe the equation and where its solution is wanted.

        Raises:
            TypeError: If `initial_state` is neither numbers nor a function.
            ValueError: If times are not strictly increasing, names are not unique, shapes
                disagree, or a tolerance is not positive.
        """
        self.vector_field = vector_field
        self.initial_state = initial_state if callable(initial_state) else _state(initial_state)
        self.times = np.array(times, np.float64)
        self.states = tuple(states)
        self.initial_time = float(initial_time)
        self.rtol = float(rtol)
        self.atol = None if atol is None else _number_or_vector(atol)
        self.max_steps = int(max_steps)
        self.max_step = float(max_step)
        if breakpoints is None or callable(breakpoints):
            self.breakpoints = breakpoints
        else:
            self.breakpoints = np.array(breakpoints, np.float64).ravel()
        self.time_unit = time_unit
        self.state_unit = state_unit
        self._binding = _binding

    def __check_init__(self) -> None:
        """Refuse what could never be solved."""
        _check_times(self.times, self.initial_time)
        if not self.states or len(set(self.states)) != len(self.states):
            raise ValueError(f"`states` must be distinct names, at least one; got {self.states}.")
        count = len(self.states)
        if isinstance(self.initial_state, np.ndarray):
            if self.initial_state.shape != (count,):
                raise ValueError(
                    f"`initial_state` must have one value for each of the {count} `states`, "
                    f"shape ({count},); got shape {self.initial_state.shape}."
                )
            if not np.isfinite(self.initial_state).all():
                raise ValueError("`initial_state` must be finite; it holds NaN or infinity.")
        atol = 1.0 if self.atol is None else self.atol
        if not (self.rtol > 0.0 and np.all(np.asarray(atol) > 0.0)):  # NaN is refused too
            raise ValueError(f"`rtol` and `atol` must be positive; got {self.rtol} and {atol}.")
        if np.shape(atol) not in ((), (count,)):
            raise ValueError(
                f"`atol` must be a scalar or have shape ({count},); got {np.shape(atol)}."
            )
        if self.max_steps < 1:
            raise ValueError(f"`max_steps` must be at least 1; got {self.max_steps}.")
        if not self.max_step > 0.0:
            raise ValueError(f"`max_step` must be positive; got {self.max_step}.")
        if isinstance(self.breakpoints, np.ndarray) and not np.isfinite(self.breakpoints).all():
            raise ValueError(
                f"`breakpoints` must be finite times, or a function of θ; got {self.breakpoints}."
            )

    @property
    def coordinate(self) -> str:
        """Along what it is read: time."""
        return "time"

    @property
    def horizon(self) -> float:
        """The last output time."""
        return float(self.times[-1])

    def replace(self, **changes: Any) -> "ODEModel":
        """The same model with some attributes changed, for instance `rtol=1e-9`."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        unknown = set(changes) - set(fields)
        if unknown:
            known = sorted(name for name in fields if not name.startswith("_"))
            raise ValueError(f"`replace` knows {known}; got {sorted(unknown)}.")
        return ODEModel(**(fields | changes))

    def tightened(self) -> "ODEModel":
        """The same model with tolerances 100 times tighter and 10 times the steps."""
        # Below 1e-13 a relative tolerance asks for more than float64 holds.
        rtol = min(self.rtol, max(self.rtol * _RETRY_TOLERANCE, 1e-13))
        atol = None if self.atol is None else self.atol * _RETRY_TOLERANCE
        return self.replace(rtol=rtol, atol=atol, max_steps=self.max_steps * _RETRY_STEPS)

    def with_rtol(self, rtol: float) -> "ODEModel":
        """The same model with another relative tolerance, and `atol` in proportion.

        Args:
            rtol: Relative tolerance of each step.
        """
        atol = None if self.atol is None else self.atol * rtol / self.rtol
        return self.replace(rtol=rtol, atol=atol)

    def with_global_tolerance(self, thetas: Float[ArrayLike, "batch parameter"]) -> "ODEModel":
        """The same model with tolerances at which whole trajectories are as exact as asked.

        `rtol` and `atol` bound the error of one step, as in all common solvers, and over
        thousands of steps the errors add up. Use it where a trajectory oscillates for long, or
        where its own accuracy matters more than the time it takes. The errors are measured
        against tighter solutions, and the tolerances of a step made smaller in proportion.

        Args:
            thetas: Parameters of some typical trajectories.

        Returns:
            A model whose error at these parameters is at most `atol` + `rtol` times the largest
            value of each state, with `atol` and `rtol` of this model.

        Raises:
            ValueError: If a trajectory fails, or float64 cannot reach that accuracy.
        """
        return with_global_tolerance(self, thetas)

    def slope(
        self, t: Float[Array, ""], y: Float[Array, " state"], theta: Float[Array, " parameter"]
    ) -> Float[Array, " state"]:
        """The time derivative of a state, checked.

        Raises:
            TypeError: If `vector_field` takes other arguments, does what cannot be traced, or
                returns no real numbers; the sentence says what to write instead.
            ValueError: If it returns another shape than one value for each state.
            IndexError: If it uses a position or a name that is not there.
        """
        every, names = self._complete(theta)
        return call_vector_field(
            self.vector_field, t, y, every, states=self.states, parameters=names
        )

    @property
    def breaks(self) -> Callable[[Any], Array] | None:
        """`breakpoints` as a function of θ."""
        given = self.breakpoints
        if given is None:
            return None
        if callable(given):
            return lambda theta: call_breakpoints(given, *self._complete(theta))
        return lambda theta: jnp.asarray(given, theta.dtype)

    def _complete(self, theta: Any) -> tuple[Any, tuple[str, ...] | None]:
        """All parameters with the fixed ones, and their names if they are known."""
        binding = self._binding
        return (theta, None) if binding is None else (binding.complete(theta), binding.names)

    def bound(self, binding: Binding) -> "ODEModel":
        """The same model, whose functions see parameters by name and with the fixed ones.

        An `InverseProblem` calls this.

        Args:
            binding: Names and fixed values of the problem's parameters.

        Returns:
            A model for vectors of the unknowns.

        Raises:
            TypeError: As `slope`, for what a user's function does wrong.
            ValueError: As `slope`.
            IndexError: As `slope`, and if a position beyond the end of any array is used.
        """
        check_functions(self.vector_field, self.initial_state, states=self.states, binding=binding)
        return self.replace(_binding=binding)

    def start(self, theta: Float[Array, " parameter"]) -> Float[Array, " state"]:
        """The initial state for parameters `theta`."""
        if callable(self.initial_state):
            every, names = self._complete(theta)
            return call_initial_state(
                self.initial_state, every, states=self.states, parameters=names
            )
        return jnp.asarray(self.initial_state, theta.dtype)

    def depends_on(self, size: int) -> Bool[np.ndarray, " parameter"]:
        """Which parameters the trajectory may depend on, read off the traced equations.

        Args:
            size: Length of θ.

        Returns:
            False only for those that neither `vector_field` nor `initial_state` uses, such as the
            level of the noise.
        """
        time, state, theta = (
            jax.ShapeDtypeStruct(shape, jnp.float64) for shape in ((), (len(self.states),), (size,))
        )
        # As it is solved, also where networks are being trained in single precision.
        with jax.enable_x64(True):
            found = [dependence(jax.make_jaxpr(self.slope)(time, state, theta), 2)]
            for function in (self.start, self.breaks):
                if function is not None:
                    found.append(dependence(jax.make_jaxpr(function)(theta), 0))
        return np.any(np.concatenate(found), axis=0)

    def solve(
        self,
        theta: Float[ArrayLike, " parameter"],
        times: Float[ArrayLike, " time"] | None = None,
    ) -> ODESolution:
        """Solve for one parameter vector, differentiably in forward and reverse mode.

        Args:
            theta: Parameters in physical units.
            times: Output times, non-decreasing; the model's own by default.

        Returns:
            The solution, as NumPy arrays unless traced; a failed solve has a status and NaN
            states, it does not raise.

        Raises:
            RuntimeError: If traced while 64-bit floats are off.
        """
        grid = self.times if times is None else times
        if is_traced(theta, grid, self):
            require_x64("`solve`")
            return solve_one_traced(self, jnp.asarray(theta, float), jnp.asarray(grid, float))
        many = self.solve_ensemble(np.asarray(theta, np.float64)[None], grid)
        states, status, steps = (np.asarray(x[0]) for x in (many.states, many.status, many.steps))
        return ODESolution(np.asarray(grid, np.float64), states, status, steps)

    def solve_ensemble(
        self,
        thetas: Float[ArrayLike, "batch parameter"],
        times: Float[ArrayLike, "*rows time"] | None = None,
        *,
        retry: bool = False,
        mesh: jax.sharding.Mesh | None = None,
    ) -> ODESolution:
        """Solve for many parameter vectors, each with its own steps and status.

        On the host the batch is cut into calls of few shapes that run on all cores, or all
        accelerators, and come back as NumPy arrays; inside a transformation it is one call.

        Args:
            thetas: Parameters in physical units.
            times: Output times, non-decreasing, one row or one for each parameter vector; the
                model's own by default.
            retry: Whether solves that fail are tried once more with the `tightened` model; on
                the host only.
            mesh: Devices to use; by default the CPU, or all accelerators of this process.

        Returns:
            The solutions with a leading batch axis.

        Raises:
            RuntimeError: If traced while 64-bit floats are off.
            ValueError: If `thetas` is not a matrix with at least one row, or `times` decrease.
        """
        grid = self.times if times is None else times
        if is_traced(thetas, grid, self):
            require_x64("`solve_ensemble`")
            return solve_many(self, jnp.asarray(thetas), jnp.asarray(grid))[0]
        grid = _checked_grid(grid)
        values = np.array(thetas, np.float64)
        solution, _ = solve_many(self, values, grid, mesh=mesh)
        failed = np.flatnonzero(solution.status != SolveStatus.SUCCESS)
        if retry and len(failed):
            rows = grid[failed] if grid.ndim == 2 else grid
            again, _ = solve_many(self.tightened(), values[failed], rows, mesh=mesh)
            solution = solution.replaced(failed, again)
        self._check(values, grid, solution)
        return solution

    def sensitivities(
        self,
        thetas: Float[ArrayLike, "batch parameter"],
        times: Float[ArrayLike, "*rows time"] | None = None,
        *,
        mesh: jax.sharding.Mesh | None = None,
        count: Int[Array, ""] | None = None,
    ) -> tuple[ODESolution, Float[Array | np.ndarray, "batch time state parameter"]]:
        """Solve for many parameter vectors together with dy/dθ, by forward mode.

        On the host it spreads over cores like `solve_ensemble`; inside a transformation it is
        one call.

        Args:
            thetas: Parameters in physical units.
            times: Output times, non-decreasing, one row or one for each parameter vector; the
                model's own by default.
            mesh: Devices to use; by default the CPU, or all accelerators of this process.
            count: Inside a transformation, how many of the parameter vectors are meant, if not
                all; what the others give has no meaning.

        Returns:
            The solutions, and the derivative of every state at every time with respect to
            every parameter.

        Raises:
            RuntimeError: If traced while 64-bit floats are off.
            ValueError: If `thetas` is not a matrix with at least one row, or `times` decrease.
        """
        grid = self.times if times is None else times
        if is_traced(thetas, grid, count, self):
            require_x64("`sensitivities`")
            values, grid = jnp.asarray(thetas), jnp.asarray(grid)
            return solve_many(self, values, grid, sensitivities=True, count=count)
        if count is not None:
            raise ValueError("`count` serves transformations; here leave out the other `thetas`.")
        grid = _checked_grid(grid)
        values = np.array(thetas, np.float64)
        solution, tangents = solve_many(self, values, grid, mesh=mesh, sensitivities=True)
        self._check(values, grid, solution)
        if first_derivatives(self):
            some = slice(_LOOKED_AT)
            rows = grid[some] if grid.ndim == 2 else grid
            finer = self.tightened()
            exact = solve_many(finer, values[some], rows, mesh=mesh, sensitivities=True)
            found = ODESolution(rows, *(x[some] for x in _results(solution))), tangents[some]
            names = None if self._binding is None else self._binding.unknown
            check_derivatives(names, values[some], found, exact)
        return solution, tangents

    def _check(self, thetas: np.ndarray, times: np.ndarray, solution: ODESolution) -> None:
        """Warn of what a solve cannot see by itself."""
        sizes = np.nan_to_num(np.abs(np.asarray(solution.states)[0])).max(axis=0)
        check_time_course(self, thetas[0], sizes, float(times.max()))
        check_small_states(self, thetas[0], times[0] if times.ndim == 2 else times, solution)


def _checked_grid(times: Any) -> np.ndarray:
    grid = np.asarray(times, np.float64)
    if grid.ndim not in (1, 2) or not np.isfinite(grid).all() or np.any(np.diff(grid) < 0.0):
        raise ValueError(f"`times` must be finite numbers that never decrease; got {times}.")
    return grid


def _check_times(times: np.ndarray, initial_time: float) -> None:
    if times.ndim != 1 or times.size == 0 or not np.isfinite(times).all():
        raise ValueError(
            f"`times` must be a non-empty vector of finite numbers; got shape {times.shape}."
        )
    if np.any(np.diff(times) <= 0.0):
        raise ValueError("`times` must increase strictly; sort them and drop duplicates.")
    if times[0] < initial_time:
        raise ValueError(
            f"`times` must not begin before `initial_time` = {initial_time}; got {times[0]}."
        )


def _results(solution: ODESolution) -> tuple[Any, Any, Any]:
    return solution.states, solution.status, solution.steps


def _state(values: ArrayLike | Sequence[float]) -> np.ndarray:
    try:
        return np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(
            "`initial_state` must be one number for each of the `states`, in their order, or a "
            f"function of the parameters that returns them; got {type(values).__name__}."
        ) from error


def _number_or_vector(values: ArrayLike | Sequence[float]) -> float | np.ndarray:
    array = np.array(values, np.float64)
    return float(array) if array.ndim == 0 else array
