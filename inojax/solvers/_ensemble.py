"""Many trajectories at once, each with its own step sizes: the ensemble driver."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .._x64 import require_x64
from ._batch_last import BatchLast, VectorField
from ._ensemble_step import RodasStep, interpolate, rodas5p_step
from ._status import SolveStatus

_SAFETY = 0.9
_SHRINK_MOST = 0.2
_GROW_MOST = 6.0
_SHRINK_NON_FINITE = 0.1
_RUNNING = -1


class EnsembleSolution(NamedTuple):
    """Trajectories of an ensemble and how each solve ended.

    Attributes:
        states: State of each trajectory at each output time; NaN from a failure on.
        status: A `SolveStatus` for each trajectory.
        steps: Number of steps tried (accepted and rejected) for each trajectory.
    """

    states: Float[Array, "batch time state"]
    status: Int[Array, " batch"]
    steps: Int[Array, " batch"]


class _State(NamedTuple):
    t: Float[Array, " batch"]
    y: Float[Array, "state batch"]
    h: Float[Array, " batch"]
    error: Float[Array, " batch"]
    rejected: Bool[Array, " batch"]
    status: Int[Array, " batch"]
    steps: Int[Array, " batch"]
    next_output: Int[Array, " batch"]
    outputs: Float[Array, "batch time state"]


def solve_ensemble(
    vector_field: VectorField,
    initial_states: Float[Array, "batch state"],
    thetas: Float[Array, "batch parameter"],
    times: Float[Array, " time"],
    *,
    initial_time: float | Float[Array, ""] = 0.0,
    rtol: float = 1e-6,
    atol: float | Float[Array, " state"] = 1e-10,
    max_steps: int = 10_000,
) -> EnsembleSolution:
    """Solve one initial value problem for many parameter vectors at once.

    Use it where many trajectories of one stiff model are needed. It is a pure function, meant
    to be called under `jax.jit` on a chunk of trajectories; `jax.jvp` and `jax.jacfwd` through
    it give forward sensitivities. Each trajectory takes its own steps, and one that fails
    harms no other: its states are NaN from there on and its status says why.

    Steps are not cut at the output times: the states there come from the interpolation, whose
    error is not controlled. Where a stiff solution follows a smooth forcing, so that steps grow
    large, it can exceed the tolerance (y' = -1e6 (y - sin t) + cos t with rtol 1e-8: error 1.1e-5
    between steps, measured in `tests/solvers/test_ensemble.py`).

    Args:
        vector_field: Function `(t, y, theta) -> dy/dt` of one trajectory, with shapes (),
            (state,), (parameter,) and a result of shape (state,).
        initial_states: State at `initial_time`, one row for each trajectory, float64.
        thetas: Parameters, one row for each trajectory, float64.
        times: Output times in increasing order, none before `initial_time`.
        initial_time: Time of the initial states, in the unit of `times`.
        rtol: Relative tolerance of the error in one step.
        atol: Absolute tolerance of the error in one step: one number, or one for each state.
        max_steps: Largest number of steps tried for one trajectory.

    Returns:
        States at `times`, statuses and numbers of steps.

    Raises:
        RuntimeError: If 64-bit floats are off.
        ValueError: If the shapes do not match, naming the argument.

    Source:
        G. Steinebach, BIT Numer. Math. 63:27 (2023) for Rodas5P; E. Hairer and G. Wanner,
        Solving Ordinary Differential Equations I (II.4) and II (IV.2) for the step sizes.
    """
    require_x64("`solve_ensemble`")
    initial_states, thetas, times = (jnp.asarray(x) for x in (initial_states, thetas, times))
    _check_shapes(initial_states, thetas, times)
    field = BatchLast(vector_field, initial_states.shape[1], thetas.shape[1])
    theta = thetas.T
    y0 = initial_states.T
    t0 = jnp.full(y0.shape[1], initial_time, dtype=y0.dtype)
    atol_column = jnp.broadcast_to(jnp.asarray(atol, dtype=y0.dtype), y0.shape[:1])[:, None]
    step = _make_step(field, theta, times, rtol, atol_column, max_steps)
    h0 = _initial_step(field, t0, y0, theta, times[-1], rtol, atol_column)
    end = lax.while_loop(
        lambda state: jnp.any(state.status == _RUNNING), step, _start(t0, y0, h0, times)
    )
    return EnsembleSolution(end.outputs, end.status, end.steps)


def _check_shapes(initial_states: Array, thetas: Array, times: Array) -> None:
    for name, value, ndim in (
        ("initial_states", initial_states, 2),
        ("thetas", thetas, 2),
        ("times", times, 1),
    ):
        if value.ndim != ndim or value.size == 0 or value.dtype != jnp.float64:
            raise ValueError(
                f"`{name}` must be a float64 array with {ndim} axes and at least one element, "
                f"but has shape {value.shape} and type {value.dtype}."
            )
    if initial_states.shape[0] != thetas.shape[0]:
        raise ValueError(
            "`initial_states` and `thetas` must have one row for each trajectory, but have "
            f"{initial_states.shape[0]} and {thetas.shape[0]} rows."
        )


def _start(t0: Array, y0: Array, h0: Array, times: Array) -> _State:
    batch = y0.shape[1]
    at_start = times <= t0[0]
    outputs = jnp.where(at_start[None, :, None], y0.T[:, None, :], jnp.nan)
    none_left = jnp.all(at_start)
    return _State(
        t=t0,
        y=y0,
        h=h0,
        error=jnp.ones(batch),
        rejected=jnp.zeros(batch, dtype=bool),
        status=jnp.where(none_left, int(SolveStatus.SUCCESS), jnp.full(batch, _RUNNING)),
        steps=jnp.zeros(batch, dtype=int),
        next_output=jnp.full(batch, jnp.sum(at_start)),
        outputs=outputs,
    )


def _norm(error: Array, scale: Array) -> Array:
    return jnp.sqrt(jnp.mean(jnp.square(error / scale), axis=0))


def _initial_step(
    field: BatchLast, t0: Array, y0: Array, theta: Array, end: Array, rtol: float, atol: Array
) -> Array:
    """Hairer, Norsett & Wanner I, II.4: a guess from the sizes of y, y' and y''."""
    t0, y0, theta = lax.stop_gradient((t0, y0, theta))
    scale = atol + rtol * jnp.abs(y0)
    slope = field(t0, y0, theta)
    size, speed = _norm(y0, scale), _norm(slope, scale)
    small = (size < 1e-5) | (speed < 1e-5)
    h = jnp.where(small, 1e-6 * (end - t0), 0.01 * size / jnp.where(small, 1.0, speed))
    h = jnp.minimum(h, end - t0)
    curvature = _norm(field(t0 + h, y0 + h[None, :] * slope, theta) - slope, scale) / h
    largest = jnp.maximum(speed, curvature)
    flat = largest <= 1e-15
    least = jnp.maximum(1e-6 * (end - t0), 1e-3 * h)
    refined = jnp.where(flat, least, (0.01 / jnp.where(flat, 1.0, largest)) ** 0.2)
    h = jnp.minimum(jnp.minimum(100.0 * h, refined), end - t0)
    return jnp.where(jnp.isfinite(h) & (h > 0.0), h, 1e-6 * (end - t0))


def _make_step(
    field: BatchLast, theta: Array, times: Array, rtol: float, atol: Array, max_steps: int
) -> Callable[[_State], _State]:
    end = times[-1]

    def step(state: _State) -> _State:
        running = state.status == _RUNNING
        last = state.t + 1.0001 * state.h >= end
        h = jnp.where(last, end - state.t, state.h)
        h = lax.stop_gradient(jnp.where(running, h, 1.0))
        attempt = rodas5p_step(field, state.t, state.y, h, theta)
        numbers = jnp.isfinite(attempt.y) & jnp.isfinite(attempt.error)
        finite = attempt.solved & jnp.all(numbers, axis=0)
        scale = atol + rtol * jnp.maximum(jnp.abs(state.y), jnp.abs(attempt.y))
        error = lax.stop_gradient(_norm(attempt.error, scale))
        error = jnp.where(finite, error, jnp.inf)
        accepted = running & (error <= 1.0)
        t = lax.stop_gradient(jnp.where(accepted, jnp.where(last, end, state.t + h), state.t))
        next_output, outputs = _write_outputs(state, attempt, h, t, accepted, times)
        new_h = h * _factor(error, state.error, state.rejected, finite)
        steps = state.steps + running
        status = _status(state.status, accepted & last, finite, t, new_h, steps, end, max_steps)
        return _State(
            t=t,
            y=jnp.where(accepted[None, :], attempt.y, state.y),
            h=new_h,
            error=jnp.where(accepted, jnp.maximum(error, 1e-4), state.error),
            rejected=~accepted,
            status=jnp.where(running, status, state.status),
            steps=steps,
            next_output=next_output,
            outputs=outputs,
        )

    return step


def _factor(error: Array, previous: Array, rejected: Array, finite: Array) -> Array:
    """PI controller after Hairer & Wanner II, IV.2; no growth right after a rejection."""
    safe = jnp.maximum(error, 1e-8)
    factor = _SAFETY * safe ** (-0.2 * 0.85) * previous ** (0.2 * 0.2)
    factor = jnp.where(error <= 1.0, factor, _SAFETY * safe**-0.2)
    most = jnp.where(rejected | (error > 1.0), 1.0, _GROW_MOST)
    return jnp.where(finite, jnp.clip(factor, _SHRINK_MOST, most), _SHRINK_NON_FINITE)


def _status(
    status: Array,
    finished: Array,
    finite: Array,
    t: Array,
    h: Array,
    steps: Array,
    end: Array,
    max_steps: int,
) -> Array:
    smallest = 16 * jnp.finfo(t.dtype).eps * jnp.abs(t) + 1e-30 * jnp.abs(end)
    too_small = jnp.where(finite, int(SolveStatus.STEP_SIZE_TOO_SMALL), int(SolveStatus.NON_FINITE))
    status = jnp.where(steps >= max_steps, int(SolveStatus.MAX_STEPS_REACHED), status)
    status = jnp.where(h < smallest, too_small, status)
    return jnp.where(finished, int(SolveStatus.SUCCESS), status)


def _write_outputs(
    state: _State, attempt: RodasStep, h: Array, t: Array, accepted: Array, times: Array
) -> tuple[Array, Array]:
    """Write the outputs in (t, t + h], one for each lane and pass of the loop."""
    padded = jnp.append(times, jnp.inf)
    n_times = times.shape[0]
    lanes = jnp.arange(h.shape[0])

    def due(index: Array) -> Array:
        return accepted & (padded[index] <= t)

    def write(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        index, outputs = carry
        writes = due(index)
        value = interpolate(attempt, state.y, (padded[index] - state.t) / h)
        row = jnp.where(writes, index, n_times)
        outputs = outputs.at[lanes, row].set(value.T, mode="drop", unique_indices=True)
        return index + writes, outputs

    return lax.while_loop(
        lambda carry: jnp.any(due(carry[0])), write, (state.next_output, state.outputs)
    )
