"""Ordinary differential equations with unknown parameters."""

import dataclasses
from collections.abc import Callable
from typing import Any

import diffrax as dfx
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from .._x64 import in_x64, is_traced, require_x64
from ..solvers import EnsembleSolution, Rodas5P, SolveStatus, dependence, solve_ensemble
from ._calls import compiled, in_calls
from ._global_error import with_global_tolerance

# What a second attempt at a failed solve changes.
_RETRY_TOLERANCE = 1e-2
_RETRY_STEPS = 10

VectorField = Callable[[Any, Any, Any], Any]


class ODESolution(eqx.Module):
    """States at the requested times, with what became of each solve.

    Attributes:
        times: Output times.
        states: States at those times; NaN from the point on where a solve failed.
        status: A `SolveStatus` for each solve, 0 for success.
        steps: Accepted and rejected steps taken.
        work: Steps of all lanes of an ensemble, those without a trajectory included.
        retried: How many solves of an ensemble failed at first and were tried again.
    """

    times: Float[Array | np.ndarray, "*rows time"]
    states: Float[Array | np.ndarray, "*batch time state"]
    status: Int[Array | np.ndarray, "*batch"]
    steps: Int[Array | np.ndarray, "*batch"]
    work: Int[Array | np.ndarray, ""] | int = 0
    retried: int = eqx.field(static=True, default=0)

    @property
    def wasted(self) -> float:
        """Share of an ensemble's work done in lanes that had no trajectory, in [0, 1)."""
        work = int(self.work)
        return 1.0 - float(np.sum(np.asarray(self.steps))) / work if work else 0.0

    def replaced(self, rows: Int[np.ndarray, " some"], again: "ODESolution") -> "ODESolution":
        """The same with some rows from a second attempt, on the host."""

        def merge(old: Any, new: Any) -> np.ndarray:
            merged = np.array(old)
            merged[rows] = new
            return merged

        return dataclasses.replace(
            self,
            states=merge(self.states, again.states),
            status=merge(self.status, again.status),
            steps=merge(self.steps, np.asarray(self.steps)[rows] + again.steps),
            work=np.asarray(self.work + again.work),
            retried=len(rows),
        )


class ODEModel(eqx.Module):
    """An initial value problem dy/dt = f(t, y, θ) whose parameters θ are unknown.

    Use it for any system of up to a few hundred states; stiffness is expected, not an
    exception. Solves run in float64 with Rodas5P.

    Attributes:
        vector_field: `f(t, y, theta) -> dy/dt` with shapes `()`, `(state,)`,
            `(parameter,)` and `(state,)`, written in `jax.numpy`.
        initial_state: State at `initial_time`, or a function of θ that returns it.
        times: Output times, strictly increasing, none before `initial_time`.
        states: A name for each state.
        initial_time: Where the integration starts.
        rtol: Relative tolerance of each step.
        atol: Absolute tolerance of each step, a scalar or one for each state.
        max_steps: Steps after which a solve is given up.
        time_unit: Unit of time, for tables and figures.
        state_unit: Unit of the states, for tables and figures.
    """

    vector_field: VectorField
    initial_state: np.ndarray | Callable[[Any], Any]
    times: np.ndarray
    states: tuple[str, ...]
    initial_time: float
    rtol: float
    atol: float | np.ndarray
    max_steps: int
    time_unit: str
    state_unit: str

    def __init__(  # noqa: PLR0913 - flat keywords read better than an object of settings
        self,
        vector_field: VectorField,
        initial_state: ArrayLike | Callable[[Any], Any],
        *,
        times: ArrayLike,
        states: tuple[str, ...],
        initial_time: float = 0.0,
        rtol: float = 1e-6,
        atol: ArrayLike = 1e-10,
        max_steps: int = 10_000,
        time_unit: str = "",
        state_unit: str = "",
    ) -> None:
        """Describe the equation and where its solution is wanted.

        Raises:
            ValueError: If times are not strictly increasing, names are not unique, shapes
                disagree, or a tolerance is not positive.
        """
        self.vector_field = vector_field
        self.initial_state = (
            initial_state if callable(initial_state) else np.array(initial_state, np.float64)
        )
        self.times = np.array(times, np.float64)
        self.states = tuple(states)
        self.initial_time = float(initial_time)
        self.rtol = float(rtol)
        tolerance = np.array(atol, np.float64)
        self.atol = float(tolerance) if tolerance.ndim == 0 else tolerance
        self.max_steps = int(max_steps)
        self.time_unit = time_unit
        self.state_unit = state_unit

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
        if not (self.rtol > 0.0 and np.all(np.asarray(self.atol) > 0.0)):  # NaN is refused too
            raise ValueError(
                f"`rtol` and `atol` must be positive; got {self.rtol} and {self.atol}."
            )
        if np.shape(self.atol) not in ((), (count,)):
            raise ValueError(
                f"`atol` must be a scalar or have shape ({count},); got {np.shape(self.atol)}."
            )
        if self.max_steps < 1:
            raise ValueError(f"`max_steps` must be at least 1; got {self.max_steps}.")

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
            raise ValueError(f"`replace` knows {sorted(fields)}; got {sorted(unknown)}.")
        return ODEModel(**(fields | changes))

    def tightened(self) -> "ODEModel":
        """The same model with tolerances 100 times tighter and 10 times the steps."""
        # Below 1e-13 a relative tolerance asks for more than float64 holds.
        rtol = min(self.rtol, max(self.rtol * _RETRY_TOLERANCE, 1e-13))
        return self.replace(
            rtol=rtol, atol=self.atol * _RETRY_TOLERANCE, max_steps=self.max_steps * _RETRY_STEPS
        )

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

    def start(self, theta: Float[Array, " parameter"]) -> Float[Array, " state"]:
        """The initial state for parameters `theta`."""
        if callable(self.initial_state):
            return jnp.asarray(self.initial_state(theta), theta.dtype)
        return jnp.asarray(self.initial_state, theta.dtype)

    def depends_on(self, size: int) -> Bool[np.ndarray, " parameter"]:
        """Which parameters the trajectory may depend on, read off the traced equations.

        Args:
            size: Length of θ.

        Returns:
            False only for those that neither `vector_field` nor `initial_state` uses, such as the
            level of the noise.
        """
        dtype = jnp.zeros(()).dtype
        time, state, theta = (
            jax.ShapeDtypeStruct(shape, dtype) for shape in ((), (len(self.states),), (size,))
        )
        slope = jax.make_jaxpr(self.vector_field)(time, state, theta)
        start = jax.make_jaxpr(self.start)(theta)
        return np.any(np.concatenate([dependence(slope, 2), dependence(start, 0)]), axis=0)

    def solve(
        self,
        theta: Float[ArrayLike, " parameter"],
        times: Float[ArrayLike, " time"] | None = None,
        *,
        adjoint: dfx.AbstractAdjoint | None = None,
    ) -> ODESolution:
        """Solve for one parameter vector, differentiably.

        Args:
            theta: Parameters in physical units.
            times: Output times, non-decreasing; the model's own by default.
            adjoint: How Diffrax differentiates; `diffrax.ForwardMode()` for forward mode,
                reverse mode by default.

        Returns:
            The solution, as NumPy arrays unless traced; a failed solve has a status and NaN
            states, it does not raise.

        Raises:
            RuntimeError: If traced while 64-bit floats are off.
        """
        solution = _solve_in_x64(self, theta, self.times if times is None else times, adjoint)
        return solution if is_traced(solution) else jax.tree.map(np.asarray, solution)

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
        if is_traced(thetas, grid):
            require_x64("`solve_ensemble`")
            values = jnp.asarray(thetas)
            lanes = _traced_lanes(values, _TRACED_LANES)
            grid = jnp.asarray(grid)
            rows = values, grid
            return _solution(grid, _solve_traced(self, rows, values.shape[0], lanes))
        grid = _checked_grid(grid)
        values = np.array(thetas, np.float64)
        solution = _solve_many(self, values, grid, mesh)
        failed = np.flatnonzero(solution.status != SolveStatus.SUCCESS)
        if not (retry and len(failed)):
            return solution
        grid = grid[failed] if grid.ndim == 2 else grid
        again = _solve_many(self.tightened(), values[failed], grid, mesh)
        return solution.replaced(failed, again)

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
        if is_traced(thetas, grid, count):
            require_x64("`sensitivities`")
            values = jnp.asarray(thetas)
            lanes = _traced_lanes(values, _TRACED_SENSITIVITY_LANES)
            grid = jnp.asarray(grid)
            meant = values.shape[0] if count is None else count
            ensemble = _sensitivity_traced(self, (values, grid), meant, lanes)
            return _solution(grid, ensemble), _tangents(ensemble)
        if count is not None:
            raise ValueError("`count` serves transformations; here leave out the other `thetas`.")
        grid = _checked_grid(grid)
        values = np.array(thetas, np.float64)
        settled = _with_traced_settings(self)
        rows = _rows(values, grid)
        ensemble = in_calls(_sensitivity_call, settled, rows, mesh=mesh, sensitivities=True)
        return _solution(grid, _without_hidden(ensemble)), _tangents(ensemble)


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


@in_x64
def _solve_in_x64(
    model: ODEModel, theta: Any, times: Any, adjoint: dfx.AbstractAdjoint | None
) -> ODESolution:
    theta, times = jnp.asarray(theta, jnp.float64), jnp.asarray(times, jnp.float64)
    return _solve_one(model, theta, times, adjoint or dfx.RecursiveCheckpointAdjoint())


@eqx.filter_jit
def _solve_one(
    model: ODEModel, theta: Array, times: Array, adjoint: dfx.AbstractAdjoint
) -> ODESolution:
    solution = dfx.diffeqsolve(
        dfx.ODETerm(model.vector_field),  # pyright: ignore[reportArgumentType]
        Rodas5P(),
        t0=model.initial_time,
        t1=times[-1],
        dt0=None,
        y0=model.start(theta),
        args=theta,
        stepsize_controller=dfx.PIDController(rtol=model.rtol, atol=model.atol),
        saveat=dfx.SaveAt(ts=times),
        max_steps=model.max_steps,
        adjoint=adjoint,
        throw=False,
    )
    assert solution.ys is not None
    # Diffrax leaves infinity in the rows that a failed solve never reached.
    states = jnp.where(jnp.isfinite(solution.ys), solution.ys, jnp.nan)
    return ODESolution(times, states, _status(solution.result), solution.stats["num_steps"])


def _status(result: dfx.RESULTS) -> Array:
    success = result == dfx.RESULTS.successful
    too_many = result == dfx.RESULTS.max_steps_reached
    failed = jnp.where(too_many, SolveStatus.MAX_STEPS_REACHED, SolveStatus.STEP_SIZE_TOO_SMALL)
    return jnp.where(success, SolveStatus.SUCCESS, failed)


# Parameters and output times, a row for each trajectory.
_Rows = tuple[Array, Array]
# Lanes of an ensemble inside a transformation, on a CPU: as in calls from the host.
_TRACED_LANES, _TRACED_SENSITIVITY_LANES = 96, 32


def _traced_lanes(thetas: Array, lanes: int) -> int:
    # An accelerator has room for all at once.
    return lanes if jax.default_backend() == "cpu" else thetas.shape[0]


def _solve_block(model: ODEModel, rows: _Rows, count: Any, lanes: int) -> EnsembleSolution:
    return _ensemble(model, rows, count, lanes, None)


def _sensitivity_block(model: ODEModel, rows: _Rows, count: Any, lanes: int) -> EnsembleSolution:
    thetas = rows[0]
    tangents = jax.vmap(jax.jacfwd(model.start))(thetas), np.eye(thetas.shape[1])
    return _ensemble(model, rows, count, lanes, tangents)


def _ensemble(
    model: ODEModel, rows: _Rows, count: Any, lanes: int, tangents: tuple[Array, Any] | None
) -> EnsembleSolution:
    thetas, times = rows
    return solve_ensemble(
        model.vector_field,
        jax.vmap(model.start)(thetas),
        thetas,
        times,
        initial_time=model.initial_time,
        rtol=model.rtol,
        atol=jnp.asarray(model.atol),
        max_steps=model.max_steps,
        lanes=lanes,
        count=count,
        tangents=tangents,
    )


_solve_call = compiled(_solve_block)
_sensitivity_call = compiled(_sensitivity_block)
# Inside a transformation how to compile is decided outside.
_solve_traced = eqx.filter_jit(_solve_block)
_sensitivity_traced = eqx.filter_jit(_sensitivity_block)


def _solution(times: Any, ensemble: EnsembleSolution) -> ODESolution:
    return ODESolution(times, ensemble.states, ensemble.status, ensemble.steps, ensemble.work)


def _tangents(ensemble: EnsembleSolution) -> Array | np.ndarray:
    assert ensemble.tangents is not None
    return ensemble.tangents


def _solve_many(
    model: ODEModel, thetas: np.ndarray, times: np.ndarray, mesh: jax.sharding.Mesh | None
) -> ODESolution:
    rows = _rows(thetas, times)
    ensemble = in_calls(_solve_call, _with_traced_settings(model), rows, mesh=mesh)
    return _solution(times, _without_hidden(ensemble))


def _rows(thetas: np.ndarray, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if thetas.ndim != 2 or thetas.shape[0] == 0:
        raise ValueError(
            f"`thetas` must have shape (batch, parameter), at least one row; got {thetas.shape}."
        )
    if times.ndim == 2 and len(times) != len(thetas):
        raise ValueError(
            f"`times` must be a vector, or have a row for each of the {len(thetas)} parameter "
            f"vectors; got shape {times.shape}."
        )
    return thetas, np.broadcast_to(times, (len(thetas), times.shape[-1]))


def _without_hidden(ensemble: EnsembleSolution) -> EnsembleSolution:
    # A value beyond float64 between two good steps is no success either, nor is a derivative.
    finite = np.isfinite(ensemble.states).all((1, 2))
    if ensemble.tangents is not None:
        finite &= np.isfinite(ensemble.tangents).all((1, 2, 3))
    hidden = (ensemble.status == SolveStatus.SUCCESS) & ~finite
    return ensemble._replace(status=np.where(hidden, int(SolveStatus.NON_FINITE), ensemble.status))


def _with_traced_settings(model: ODEModel) -> ODEModel:
    """Tolerances as arrays: what is compiled for one of them then serves all."""

    def settings(model: ODEModel) -> tuple[Any, ...]:
        return model.rtol, model.atol, model.max_steps

    arrays = tuple(np.asarray(value) for value in settings(model))
    return eqx.tree_at(settings, model, arrays)
