"""Many trajectories at once, each with its own step sizes: the ensemble driver."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from .._x64 import require_x64
from ._batch_last import BatchLast, VectorField, trace_field
from ._breaks import Breakpoints, Breaks, Segment
from ._ensemble_step import RodasStep, interpolation_weights, rodas5p_step
from ._ensemble_tangents import differentiate_step
from ._pilot import in_blocks
from ._status import SolveStatus

_SAFETY = 0.9
_SHRINK_MOST = 0.2
_GROW_MOST = 6.0
_SHRINK_NON_FINITE = 0.1
_RUNNING = -1
# Lanes are refilled when one in so many is idle.
_REFILL_SHARE = 16
# Where no absolute tolerance is given it is this share of the relative one, times the largest value
# that a state has had; and no less than so many rounding errors of what makes it up.
_SHARE_OF_LARGEST, _ROUNDINGS = 1e-3, 256.0
# A step may go on behind a threshold as long as the wrong field changes the state by less than this
# share of what is allowed; where that is, is found by so many halvings.
_BEYOND, _BISECTIONS = 0.1, 40
# Shares of a step at which thresholds are looked for.
_LOOKED_AT = (0.25, 0.5, 0.75, 1.0)
# So many outputs of a trajectory are written at once, where no more lanes than these are.
_WINDOW, _FEW_LANES = 4, 128


def automatic_atol(rtol: Any, largest: Any) -> Any:
    """The absolute tolerance of a state where none is given.

    Args:
        rtol: Relative tolerance.
        largest: The largest value that the state has had.
    """
    return _SHARE_OF_LARGEST * rtol * largest


class EnsembleSolution(NamedTuple):
    """Trajectories of an ensemble and how each solve ended.

    Attributes:
        states: State of each trajectory at each output time; NaN from a failure on.
        status: A `SolveStatus` for each trajectory.
        steps: Number of steps tried (accepted and rejected) for each trajectory.
        work: Steps of all lanes, those without a trajectory included.
        tangents: Derivatives of the states in each direction, if these were asked for.
    """

    states: Float[Array | np.ndarray, "batch time state"]
    status: Int[Array | np.ndarray, " batch"]
    steps: Int[Array | np.ndarray, " batch"]
    work: Int[Array | np.ndarray, ""]
    tangents: Float[Array | np.ndarray, "batch time state direction"] | None = None


# The states, followed by their derivatives if these are wanted: axes (state, ..., trajectory).
Curve = tuple[Array, ...]


class _Ensemble(NamedTuple):
    """Everything that is given, with trajectories as the last axis."""

    start: Curve
    theta: Float[Array, "parameter batch"]
    directions: Float[Array | np.ndarray, "parameter direction"] | None
    h0: Float[Array, " batch"]
    stop: Float[Array, " batch"]  # the first break
    modes: Float[Array, "mode batch"]  # of switches that depend on the state, at the start
    sizes: Float[Array, "state batch"]  # of the states, roughly
    t0: Float[Array, ""]
    times: Float[Array, "batch time"]
    wanted: Int[Array, ""]

    @property
    def size(self) -> int:
        """Number of rows, the number that marks an idle lane."""
        return self.theta.shape[1]

    def end(self, which: Int[Array, " lane"]) -> Float[Array, " lane"]:
        """Last output time of the trajectories `which`."""
        return self.times[jnp.minimum(which, self.size - 1), -1]

    def due(self, which: Int[Array, " lane"], output: Int[Array, " lane"]) -> Float[Array, " lane"]:
        """Time of an output of the trajectories `which`, infinite behind the last one."""
        last = self.times.shape[1] - 1
        time = self.times[jnp.minimum(which, self.size - 1), jnp.minimum(output, last)]
        return jnp.where(output > last, jnp.inf, time)


class _Control(NamedTuple):
    """When a step is accepted, and when a solve is given up."""

    rtol: float | Float[Array, ""]
    atol: Float[Array, "state one"] | None
    max_steps: int | Int[Array, ""]
    max_step: float | Float[Array, ""]

    def scale(
        self, y: Float[Array, "state lane"], largest: Array, rounding: Array | float
    ) -> Float[Array, "state lane"]:
        """What an error is measured by.

        Args:
            y: Size of the states.
            largest: The largest that each has been.
            rounding: Rounding errors of a step.
        """
        if self.atol is not None:
            return self.atol + self.rtol * y
        by_size = self.rtol * y + automatic_atol(self.rtol, largest)
        # A state that is zero for all time has no scale, and no error either.
        return by_size + _ROUNDINGS * rounding + jnp.finfo(y.dtype).tiny


class _Lanes(NamedTuple):
    """The trajectories being advanced, one in each lane; `which` is their number."""

    which: Int[Array, " lane"]
    theta: Float[Array, "parameter lane"]
    t: Float[Array, " lane"]
    curve: Curve
    h: Float[Array, " lane"]
    error: Float[Array, " lane"]
    rejected: Bool[Array, " lane"]
    steps: Int[Array, " lane"]
    next_output: Int[Array, " lane"]
    segment: Segment
    largest: Float[Array, "state lane"]  # of each state so far, or what it will roughly be
    modes: Float[Array, "mode lane"]  # of switches that depend on the state, held in a step
    loose: Bool[Array, " lane"]  # whether they are not held, since that led to no number
    resumed: Float[Array, " lane"]  # the step to go on with behind a threshold


class _State(NamedTuple):
    lanes: _Lanes
    waiting: Int[Array, ""]  # the first trajectory that no lane has taken yet
    passes: Int[Array, ""]
    outputs: Curve  # with axes (batch, time, state, ...)
    status: Int[Array, " batch"]
    steps: Int[Array, " batch"]


def solve_ensemble(  # noqa: PLR0913 - flat keywords, as in ODEModel
    vector_field: VectorField,
    initial_states: Float[Array, "batch state"],
    thetas: Float[Array, "batch parameter"],
    times: Float[Array, " time"] | Float[Array, "batch time"],
    *,
    initial_time: float | Float[Array, ""] = 0.0,
    rtol: float | Float[Array, ""] = 1e-6,
    atol: float | Float[Array, ""] | Float[Array, " state"] | None = None,
    max_steps: int | Int[Array, ""] = 10_000,
    max_step: float | Float[Array, ""] = np.inf,
    breakpoints: Breakpoints | None = None,
    lanes: int = 64,
    count: int | Int[Array | np.ndarray, ""] | None = None,
    tangents: tuple[
        Float[Array, "batch state direction"], Float[Array | np.ndarray, "parameter direction"]
    ]
    | None = None,
) -> EnsembleSolution:
    """Solve one initial value problem for many parameter vectors at once.

    Use it where many trajectories of one stiff model are needed. It is a pure function, meant
    to be called under `jax.jit` on a chunk of trajectories. Each trajectory takes its own steps,
    and one that fails harms no other: its states are NaN from there on and its status says why.

    Forward sensitivities come with the `tangents` asked for, at a fraction of what `jax.jacfwd`
    through this function costs, which gives the same.

    So many lanes advance together. A lane whose trajectory has ended takes the next one that
    waits, so that a batch of very different stiffness costs little more than its steps: with
    eight or more trajectories for each lane `work` is little more than the sum of `steps`.

    Steps are not cut at the output times: the states there come from the interpolation. Where an
    output falls inside a step, its error is estimated, too, from what the interpolation leaves of
    the equation in the middle of the step, and the step is taken again if that is too large.

    At `breakpoints`, and where the traced vector field turns out to jump or bend in time (a
    comparison of `t` with something, a table, `jnp.floor`), a step ends and the next begins anew,
    so that none can skip a short input. Derivatives by parameters cross such a place, and one at
    which the state passes a threshold, with the jump that is theirs (`_breaks`).

    Args:
        vector_field: Function `(t, y, theta) -> dy/dt` of one trajectory, with shapes (),
            (state,), (parameter,) and a result of shape (state,).
        initial_states: State at `initial_time`, one row for each trajectory, float64.
        thetas: Parameters, one row for each trajectory, float64.
        times: Output times in increasing order, none before `initial_time`: the same for all
            trajectories, or a row for each.
        initial_time: Time of the initial states, in the unit of `times`.
        rtol: Relative tolerance of the error in one step.
        atol: Absolute tolerance of the error in one step: one number, or one for each state. By
            default 1e-3 times `rtol` times the largest value that each state has had so far in its
            own trajectory, or will roughly have if it begins at zero, and no less than rounding
            errors, so that units do not matter.
        max_steps: Largest number of steps tried for one trajectory.
        max_step: Longest step, in the unit of `times`.
        breakpoints: Function of one parameter vector that gives times at which the vector field
            jumps, in any order, beside those that are found.
        lanes: Most trajectories that advance together. On a CPU as many as keep the work in
            the second-level cache, on a GPU thousands.
        count: How many rows are meant, all by default. It may be traced, so that one compiled
            call serves many sizes; what lies behind has NaN states, 0 steps and no meaning.
        tangents: Derivatives of the initial states and of the parameters (the same for all
            trajectories) in some directions, to be carried along to all states. For dy/dθ the
            second is the identity, and the first zero where the start does not depend on θ.

    Returns:
        States at `times`, statuses, numbers of steps, the work, and tangents if asked for.

    Raises:
        RuntimeError: If 64-bit floats are off.
        ValueError: If the shapes do not match, naming the argument.

    Source:
        G. Steinebach, BIT Numer. Math. 63:27 (2023) for Rodas5P; E. Hairer and G. Wanner,
        Solving Ordinary Differential Equations I (II.4) and II (IV.2) for the step sizes.

    Example:
        >>> with jax.enable_x64(True):
        ...     found = ij.solvers.solve_ensemble(
        ...         lambda t, y, k: -k * y,
        ...         jnp.ones((2, 1)),
        ...         jnp.array([[1.0], [1000.0]]),
        ...         jnp.array([[0.5, 1.0]] * 2),
        ...         rtol=1e-8,
        ...         atol=jnp.array(1e-12),
        ...     )
        ...     print(np.asarray(found.states[0, :, 0]).round(6).tolist())
        [0.606531, 0.367879]
    """
    require_x64("`solve_ensemble`")
    initial_states, thetas, times = (jnp.asarray(x) for x in (initial_states, thetas, times))
    _check_shapes(initial_states, thetas, times)
    if tangents is not None:
        _check_tangents(initial_states, thetas, *tangents)
    if lanes < 1:
        raise ValueError(f"`lanes` must be at least 1; got {lanes}.")
    y0, theta = initial_states.T, thetas.T
    t0 = lax.stop_gradient(jnp.asarray(initial_time, y0.dtype))
    if atol is not None:
        atol = jnp.broadcast_to(jnp.asarray(atol, dtype=y0.dtype), y0.shape[:1])[:, None]
    control = _Control(rtol, atol, max_steps, max_step)
    times = jnp.broadcast_to(times, (y0.shape[1], times.shape[-1]))
    program = trace_field(vector_field, *initial_states.shape[1:], *thetas.shape[1:])
    breaks = Breaks(program, breakpoints, t0, jnp.max(times))
    field = BatchLast(breaks.frozen(y0.shape[0], theta.shape[0]) if breaks.of_state else program)
    begin, stop = jnp.full(y0.shape[1], t0), jnp.full(y0.shape[1], jnp.inf)
    if breaks.of_time:
        breaks = breaks.cleared(begin, y0, theta, jnp.max(times) - t0)
        stop = _each(breaks.next_break)(begin, y0, theta, times[:, -1])
    segment = Segment(begin, stop)
    modes = _modes(breaks, segment, begin, y0, theta)
    inside = _within(field, breaks, segment, modes)
    sizes = jnp.abs(lax.stop_gradient(y0))
    if atol is None:
        plain = BatchLast(program) if breaks.of_state else field
        rough = in_blocks(plain, begin, y0, theta, times[:, -1], lanes=min(lanes, y0.shape[1]))
        sizes = jnp.where(y0 == 0.0, rough, sizes)
    h0 = _initial_step(inside, begin, y0, theta, times[:, -1], control, sizes)
    wanted = jnp.asarray(y0.shape[1] if count is None else count)
    curve, directions = (y0,), None
    if tangents is not None:
        curve, directions = (y0, jnp.moveaxis(tangents[0], 0, -1)), tangents[1]
    ensemble = _Ensemble(curve, theta, directions, h0, stop, modes, sizes, t0, times, wanted)
    start = _start(ensemble, min(lanes, ensemble.size))
    end = lax.while_loop(
        lambda state: jnp.any(state.lanes.which < ensemble.size),
        _make_pass(field, breaks, ensemble, control),
        start,
    )
    work = end.passes * start.lanes.which.size
    states, *derivatives = end.outputs
    return EnsembleSolution(states, end.status, end.steps, work, *derivatives)


def _check_shapes(initial_states: Array, thetas: Array, times: Array) -> None:
    for name, value, ndim in (
        ("initial_states", initial_states, 2),
        ("thetas", thetas, 2),
        ("times", times, 2 if times.ndim == 2 else 1),
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
    if times.ndim == 2 and times.shape[0] != thetas.shape[0]:
        raise ValueError(
            "`times` must be one row for all trajectories or one for each, but has "
            f"{times.shape[0]} rows for {thetas.shape[0]} trajectories."
        )


def _check_tangents(initial_states: Array, thetas: Array, starts: Any, directions: Any) -> None:
    count = jnp.shape(directions)[-1]
    wanted = (*initial_states.shape, count), (thetas.shape[1], count)
    shapes = jnp.shape(starts), jnp.shape(directions)
    if shapes != wanted or {x.dtype for x in (starts, directions)} != {jnp.dtype(jnp.float64)}:
        raise ValueError(
            f"`tangents` must be float64 arrays of shapes {wanted[0]} and {wanted[1]}, but have "
            f"shapes {shapes[0]} and {shapes[1]} and types {starts.dtype} and {directions.dtype}."
        )


def _start(ensemble: _Ensemble, lanes: int) -> _State:
    batch, times = ensemble.size, ensemble.times
    at_start = times <= ensemble.t0
    wanted = jnp.arange(batch) < ensemble.wanted
    known = wanted[:, None] & at_start

    def fill(start: Array) -> Array:
        rows = jnp.moveaxis(start, -1, 0)[:, None]
        return jnp.where(known.reshape(*known.shape, *(1,) * (start.ndim - 1)), rows, jnp.nan)

    outputs = tuple(fill(start) for start in ensemble.start)
    # With no output after the start there is nothing to solve.
    none_left = jnp.all(at_start)
    which = jnp.arange(lanes)
    which = jnp.where(none_left | (which >= ensemble.wanted), batch, which)
    return _State(
        _load(ensemble, which),
        waiting=jnp.where(none_left, batch, lanes),
        passes=jnp.asarray(0),
        outputs=outputs,
        status=jnp.full(batch, int(SolveStatus.SUCCESS)),
        steps=jnp.zeros(batch, dtype=int),
    )


def _load(ensemble: _Ensemble, which: Int[Array, " lane"]) -> _Lanes:
    """Lanes at the start of the trajectories `which`; numbers beyond the last one are idle."""
    taken = jnp.minimum(which, ensemble.size - 1)
    count = which.size
    return _Lanes(
        which=which,
        theta=ensemble.theta[:, taken],
        t=jnp.full(count, ensemble.t0),
        curve=jax.tree.map(lambda start: start[..., taken], ensemble.start),
        h=ensemble.h0[taken],
        error=jnp.ones(count),
        rejected=jnp.zeros(count, dtype=bool),
        steps=jnp.zeros(count, dtype=int),
        next_output=jnp.sum(ensemble.times[taken] <= ensemble.t0, axis=1),
        segment=Segment(jnp.full(count, ensemble.t0), ensemble.stop[taken]),
        largest=ensemble.sizes[:, taken],
        modes=ensemble.modes[:, taken],
        loose=jnp.zeros(count, dtype=bool),
        resumed=jnp.zeros(count),
    )


def _norm(error: Array, scale: Array) -> Array:
    return jnp.sqrt(jnp.mean(jnp.square(error / scale), axis=0))


def _initial_step(
    field: BatchLast,
    t0: Array,
    y0: Array,
    theta: Array,
    end: Array,
    control: _Control,
    sizes: Array,
) -> Array:
    """Hairer, Norsett & Wanner I, II.4: a guess from the sizes of y, y' and y''."""
    t0, y0, theta = lax.stop_gradient((t0, y0, theta))
    slope = field(t0, y0, theta)
    scale = control.scale(jnp.abs(y0), sizes, 0.0)
    size, speed = _norm(y0, scale), _norm(slope, scale)
    # In units of the whole time, so that its own unit does not matter.
    span = end - t0
    speed = speed * span
    small = (size < 1e-5) | (speed < 1e-5)
    h = jnp.minimum(jnp.where(small, 1e-6, 0.01 * size / jnp.where(small, 1.0, speed)), 1.0)
    later = y0 + (h * span)[None, :] * slope
    curvature = _norm(field(t0 + h * span, later, theta) - slope, scale) * span / h
    largest = jnp.maximum(speed, curvature)
    flat = largest <= 1e-15
    refined = jnp.where(
        flat, jnp.maximum(1e-6, 1e-3 * h), (0.01 / jnp.where(flat, 1.0, largest)) ** 0.2
    )
    h = jnp.minimum(jnp.minimum(100.0 * h, refined), 1.0) * span
    return jnp.where(jnp.isfinite(h) & (h > 0.0), h, 1e-6 * (end - t0))


def _within(
    field: BatchLast, breaks: Breaks, segment: Segment, modes: Array | None = None
) -> BatchLast:
    """The vector field as it is inside of a segment, also at its ends, by modes that are held."""
    if breaks.of_state and modes is not None:
        field = field.given(lax.stop_gradient(modes))
    if not breaks.of_time:
        return field
    return field.at_times(lambda t: segment.inside(t, breaks.clearance))


def _modes(breaks: Breaks, segment: Segment, t: Array, y: Array, theta: Array) -> Array:
    """How switches that depend on the state come out; none where there are none."""
    if not breaks.of_state:
        return jnp.zeros((0, t.size))
    t = segment.inside(t, breaks.clearance) if breaks.of_time else t
    return _each(breaks.modes_at)(*lax.stop_gradient((t, y, theta)))


def _each(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of one trajectory, for lanes as the last axis."""
    return jax.vmap(function, in_axes=-1, out_axes=-1)


def _make_pass(
    field: BatchLast, breaks: Breaks, ensemble: _Ensemble, control: _Control
) -> Callable[[_State], _State]:
    """One step in every lane; then finished lanes take up what waits."""

    def advance(state: _State) -> _State:
        before = state.lanes
        running = before.which < ensemble.size
        lanes, status, outputs = _step(field, breaks, ensemble, control, before, state.outputs)
        over = running & (status != _RUNNING)
        row = jnp.where(over, before.which, ensemble.size)
        lanes = lanes._replace(which=jnp.where(over, ensemble.size, lanes.which))
        lanes, waiting = _refill(ensemble, lanes, state.waiting)
        return _State(
            lanes,
            waiting,
            state.passes + 1,
            outputs,
            state.status.at[row].set(status, mode="drop"),
            state.steps.at[row].set(before.steps + 1, mode="drop"),
        )

    return advance


def _step(
    field: BatchLast,
    breaks: Breaks,
    ensemble: _Ensemble,
    control: _Control,
    lanes: _Lanes,
    outputs: Curve,
) -> tuple[_Lanes, Array, Curve]:
    """One step in every lane, its status, and all outputs so far."""
    end = ensemble.end(lanes.which)
    limit = jnp.minimum(end, lanes.segment.stop) if breaks.of_time else end
    running = lanes.which < ensemble.size
    wanted = jnp.minimum(lanes.h, control.max_step)
    if breaks.mixed:
        reach = _each(breaks.reach)(*lax.stop_gradient((lanes.t, lanes.curve[0], lanes.theta)))
        wanted = jnp.minimum(wanted, reach)
    last = lanes.t + 1.0001 * wanted >= limit
    h = jnp.where(last, limit - lanes.t, wanted)
    h = lax.stop_gradient(jnp.where(running, h, 1.0))
    y, *derivatives = lanes.curve
    held = jnp.where(lanes.loose[None], jnp.nan, lanes.modes)
    field = _within(field, breaks, lanes.segment, held)
    attempt = rodas5p_step(field, lanes.t, y, h, lanes.theta)
    scale = _scale(attempt, control, lanes)
    error, finite = _error(attempt, ensemble, lanes, h, scale)
    threshold = _threshold(breaks, lanes, attempt, h, scale, error)
    accepted = running & (error <= 1.0) & ~threshold.too_far
    t = lax.stop_gradient(jnp.where(accepted, jnp.where(last, limit, lanes.t + h), lanes.t))
    curve, dense = (attempt.y,), (attempt.dense,)
    if ensemble.directions is not None:
        tangents = differentiate_step(
            field, lanes.t, h, lanes.theta, y, derivatives[0], ensemble.directions, attempt
        )
        curve, dense = (attempt.y, tangents.y), (attempt.dense, tangents.dense)
    piece = _Piece(lanes.t, h, lanes.curve, curve, dense)
    next_output, outputs = _write_outputs(piece, ensemble, lanes, t, accepted, outputs)
    after = lanes._replace(
        t=t,
        curve=jax.tree.map(lambda new, old: _where(accepted, new, old), curve, lanes.curve),
        h=jnp.where(
            threshold.too_far, threshold.h, h * _factor(error, lanes.error, lanes.rejected, finite)
        ),
        error=jnp.where(accepted, jnp.maximum(error, 1e-4), lanes.error),
        rejected=~accepted,
        steps=lanes.steps + 1,
        next_output=next_output,
        largest=jnp.maximum(lanes.largest, jnp.where(accepted[None], jnp.abs(attempt.y), 0.0)),
    )
    after = after._replace(largest=lax.stop_gradient(after.largest))
    if breaks.of_state:
        after = _passed(breaks, ensemble, lanes, after, threshold, finite)
    if breaks.of_time:
        after = _begun_anew(breaks, ensemble, lanes, after, accepted & last)
    return after, _status(after, accepted & (t >= end), finite, end, control.max_steps), outputs


def _scale(attempt: RodasStep, control: _Control, lanes: _Lanes) -> Float[Array, "state lane"]:
    """What the errors of a step are measured by."""
    size = jnp.maximum(jnp.abs(lanes.curve[0]), jnp.abs(attempt.y))
    rounding = attempt.rounding() if control.atol is None else 0.0
    return control.scale(size, jnp.maximum(lanes.largest, size), rounding)


def _error(
    attempt: RodasStep, ensemble: _Ensemble, lanes: _Lanes, h: Array, scale: Array
) -> tuple[Float[Array, " lane"], Bool[Array, " lane"]]:
    """The error of a step in units of what is allowed, infinite where it is no number."""
    # Where an output falls inside the step, the interpolation must be as good as the step.
    inside = ensemble.due(lanes.which, lanes.next_output) < lanes.t + h
    between = jnp.where(inside, _norm(attempt.dense_error, scale), 0.0)
    error = lax.stop_gradient(jnp.maximum(_norm(attempt.error, scale), between))
    finite = attempt.solved & jnp.all(jnp.isfinite(attempt.y) & jnp.isfinite(attempt.error), axis=0)
    finite = finite & jnp.isfinite(error)
    return jnp.where(finite, error, jnp.inf), finite


class _Threshold(NamedTuple):
    """What a step, by the modes of its start, says of thresholds.

    Attributes:
        modes: How switches come out at its end.
        too_far: Whether it went on behind one for so long that the other field matters.
        h: The step that ends just behind it.
    """

    modes: Float[Array, "mode lane"]
    too_far: Bool[Array, " lane"]
    h: Float[Array, " lane"]


def _threshold(
    breaks: Breaks, lanes: _Lanes, attempt: RodasStep, h: Array, scale: Array, error: Array
) -> _Threshold:
    """Look whether a step, whose field was that of its start, has passed a threshold."""
    never = jnp.zeros(h.size, dtype=bool)
    if not breaks.of_state:
        return _Threshold(lanes.modes, never, h)
    end, y, theta = lax.stop_gradient((lanes.t + h, attempt.y, lanes.theta))
    modes = _modes(breaks, lanes.segment, end, y, theta)
    piece = _Piece(lanes.t, h, (lanes.curve[0],), (attempt.y,), (attempt.dense,))
    piece = lax.stop_gradient(piece)

    def beyond_at(share: Array) -> Array:
        """Whether a threshold has been passed after a share of the step."""
        time = piece.t + share * piece.h
        (state,) = piece.at_each(time)
        return _each(breaks.beyond)(time, state, theta, lanes.modes)

    # A window of the state may be entered and left within the step.
    first = jnp.full(h.size, 2.0)
    for share in reversed(_LOOKED_AT):
        first = jnp.where(beyond_at(jnp.full(h.size, share)), share, first)
    passed = (first <= 1.0) & ~lanes.loose & (error <= 1.0)

    def locate() -> tuple[Array, Array]:
        share = _first_beyond(beyond_at, jnp.minimum(first, 1.0))
        time = piece.t + jnp.minimum(share * h + breaks.clearance, h)
        (state,) = piece.at_each(time)
        others = _modes(breaks, lanes.segment, time, state, theta)
        jump = _each(breaks.jump)(time, state, theta, lanes.modes, others)
        matters = _norm(((1.0 - share) * h)[None] * jump, scale) > _BEYOND
        step = share * h + breaks.clearance
        far = (1.0 - share) * h > 2.0 * breaks.clearance
        return passed & matters & far & (step < h), step

    too_far, step = lax.cond(jnp.any(passed), locate, lambda: (never, h))
    return _Threshold(modes, too_far, lax.stop_gradient(step))


def _first_beyond(
    beyond_at: Callable[[Array], Array], beyond: Float[Array, " lane"]
) -> Float[Array, " lane"]:
    """The share of a step at which a threshold is passed, by bisection before a share beyond."""

    def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = 0.5 * (low + high)
        passed = beyond_at(middle)
        return jnp.where(passed, low, middle), jnp.where(passed, middle, high)

    return lax.fori_loop(0, _BISECTIONS, halve, (jnp.zeros_like(beyond), beyond))[1]


def _passed(
    breaks: Breaks,
    ensemble: _Ensemble,
    before: _Lanes,
    after: _Lanes,
    threshold: _Threshold,
    finite: Array,
) -> _Lanes:
    """Lanes behind a step, with the jumps of derivatives where a threshold was passed."""
    accepted = after.t > before.t
    modes = jnp.where(accepted[None], threshold.modes, before.modes)
    passed = jnp.any((modes != before.modes) & ~jnp.isnan(modes), axis=0)
    t = before.segment.inside(after.t, breaks.clearance) if breaks.of_time else after.t

    def change(curve: Curve) -> Curve:
        def cross(y: Array, theta: Array) -> Array:
            return _each(breaks.cross_state)(t, y, theta, before.modes, modes)

        moved = _moved(cross, ensemble, curve, after.theta)
        return jax.tree.map(lambda new, old: _where(passed, new, old), moved, curve)

    curve = lax.cond(jnp.any(passed), change, lambda curve: curve, after.curve)
    # What a step was cut to says nothing of the next one.
    cut = jnp.where(threshold.too_far, jnp.maximum(before.resumed, before.h), before.resumed)
    h = jnp.where(passed, jnp.maximum(after.h, cut), after.h)
    return after._replace(
        curve=curve,
        modes=lax.stop_gradient(modes),
        loose=jnp.where(accepted, False, before.loose | ~finite),
        resumed=lax.stop_gradient(jnp.where(passed, 0.0, cut)),
        h=lax.stop_gradient(h),
    )


def _begun_anew(
    breaks: Breaks, ensemble: _Ensemble, before: _Lanes, after: _Lanes, arrived: Array
) -> _Lanes:
    """Lanes behind the breaks of time that they have met, `arrived` at the end of a segment."""
    arrived = arrived & (after.t >= before.segment.stop)
    h = jnp.where(arrived, jnp.maximum(after.h, before.h), after.h)

    def anew(lanes: _Lanes) -> _Lanes:
        t = jnp.where(arrived, lanes.t, lanes.segment.begin)

        def cross(y: Array, theta: Array) -> Array:
            return _each(breaks.cross_time)(t, y, theta)

        curve = _moved(cross, ensemble, lanes.curve, lanes.theta)
        stop = _each(breaks.next_break)(t, lanes.curve[0], lanes.theta, ensemble.end(lanes.which))
        curve = jax.tree.map(lambda new, old: _where(arrived, new, old), curve, lanes.curve)
        segment = Segment(t, jnp.where(arrived, stop, lanes.segment.stop))
        modes = lanes.modes
        if breaks.of_state:
            found = _modes(breaks, segment, t, lanes.curve[0], lanes.theta)
            modes = jnp.where(arrived[None], found, modes)
        return lanes._replace(curve=curve, segment=segment, modes=modes)

    after = after._replace(h=lax.stop_gradient(h))
    return lax.cond(jnp.any(arrived), anew, lambda lanes: lanes, after)


def _moved(
    function: Callable[[Array, Array], Array], ensemble: _Ensemble, curve: Curve, theta: Array
) -> Curve:
    """A function of state and parameters, applied to a curve with its derivatives."""
    y, *derivatives = curve
    new = function(y, theta)
    if ensemble.directions is None:
        return (new,)
    spread = jnp.broadcast_to(
        ensemble.directions[:, :, None], (*ensemble.directions.shape, theta.shape[1])
    )

    def along(tangent: Array, direction: Array) -> Array:
        return jax.jvp(function, (y, theta), (tangent, direction))[1]

    return new, jax.vmap(along, in_axes=1, out_axes=1)(derivatives[0], spread)


def _refill(ensemble: _Ensemble, lanes: _Lanes, waiting: Array) -> tuple[_Lanes, Array]:
    idle = lanes.which >= ensemble.size
    free = jnp.sum(idle)
    # Taking up a trajectory costs a look at all lanes, so a few wait for each other.
    enough = free >= -(-lanes.which.size // _REFILL_SHARE)

    def take(lanes: _Lanes) -> _Lanes:
        number = waiting + jnp.cumsum(idle) - 1
        number = jnp.where(number < ensemble.wanted, number, ensemble.size)
        which = jnp.where(idle, number, lanes.which)
        fresh = _load(ensemble, which)
        return jax.tree.map(lambda new, old: _where(idle, new, old), fresh, lanes)

    refill = enough & (waiting < ensemble.wanted)
    lanes = lax.cond(refill, take, lambda lanes: lanes, lanes)
    return lanes, jnp.where(refill, waiting + free, waiting)


def _factor(error: Array, previous: Array, rejected: Array, finite: Array) -> Array:
    """PI controller after Hairer & Wanner II, IV.2; no growth right after a rejection."""
    safe = jnp.maximum(error, 1e-8)
    factor = _SAFETY * safe ** (-0.2 * 0.85) * previous ** (0.2 * 0.2)
    factor = jnp.where(error <= 1.0, factor, _SAFETY * safe**-0.2)
    most = jnp.where(rejected | (error > 1.0), 1.0, _GROW_MOST)
    return jnp.where(finite, jnp.clip(factor, _SHRINK_MOST, most), _SHRINK_NON_FINITE)


def _status(lanes: _Lanes, finished: Array, finite: Array, end: Array, max_steps: Any) -> Array:
    smallest = 16 * jnp.finfo(lanes.t.dtype).eps * jnp.abs(lanes.t) + 1e-30 * jnp.abs(end)
    too_small = jnp.where(finite, int(SolveStatus.STEP_SIZE_TOO_SMALL), int(SolveStatus.NON_FINITE))
    status = jnp.where(lanes.steps >= max_steps, int(SolveStatus.MAX_STEPS_REACHED), _RUNNING)
    status = jnp.where(lanes.h < smallest, too_small, status)
    return jnp.where(finished, int(SolveStatus.SUCCESS), status)


def _where(lanes: Array, new: Array, old: Array) -> Array:
    return jnp.where(_last(lanes, new.ndim), new, old)


def _last(lanes: Array, ndim: int) -> Array:
    """Values of lanes as the last of so many axes."""
    return lanes.reshape(*(1,) * (ndim - 1), -1)


class _Piece(NamedTuple):
    """What is known of the curves between the ends of a step."""

    t: Float[Array, " lane"]
    h: Float[Array, " lane"]
    start: Curve
    end: Curve
    dense: Curve

    def at(self, lane: Array, times: Float[Array, " row"]) -> Curve:
        """The curve of one lane at some times, with axes (row, state, ...)."""

        def pick(x: Array) -> Array:
            return lax.dynamic_index_in_dim(x, lane, -1, keepdims=False)

        weights = interpolation_weights((times - self.t[lane]) / self.h[lane])

        def mix(start: Array, end: Array, dense: Array) -> Array:
            parts = zip(weights.T, (pick(start), pick(end), *pick(dense)), strict=True)
            return _sum(jnp.multiply.outer(weight, part) for weight, part in parts)

        return tuple(map(mix, self.start, self.end, self.dense))

    def at_each(self, times: Float[Array, " lane"]) -> Curve:
        """The curve of each lane at a time of its own."""
        weights = interpolation_weights((times - self.t) / self.h)

        def mix(start: Array, end: Array, dense: Array) -> Array:
            parts = zip(weights.T, (start, end, *dense), strict=True)
            return _sum(_last(weight, part.ndim) * part for weight, part in parts)

        return tuple(map(mix, self.start, self.end, self.dense))


def _sum(terms: Iterator[Array]) -> Array:
    return functools.reduce(jnp.add, terms)


def _write_outputs(
    piece: _Piece,
    ensemble: _Ensemble,
    lanes: _Lanes,
    t: Array,
    accepted: Array,
    outputs: Curve,
) -> tuple[Array, Curve]:
    """Write the outputs up to `t`.

    Of few lanes hardly one has outputs due in any step, and that may have several: each turn of the
    loop writes some of one lane. Of thousands many have: each turn writes one for each.
    """
    write_some = _write_of_one if lanes.which.size <= _FEW_LANES else _write_of_all

    def due(next_output: Array) -> Array:
        return accepted & (ensemble.due(lanes.which, next_output) <= t)

    def write(carry: tuple[Array, Array, Any]) -> tuple[Array, Array, Any]:
        next_output, waiting, outputs = carry
        next_output, outputs = write_some(
            piece, ensemble, lanes.which, t, next_output, waiting, outputs
        )
        return next_output, due(next_output), outputs

    start = lanes.next_output, due(lanes.next_output), outputs
    next_output, _, outputs = lax.while_loop(lambda carry: jnp.any(carry[1]), write, start)
    return next_output, outputs


def _write_of_one(
    piece: _Piece,
    ensemble: _Ensemble,
    which: Array,
    t: Array,
    next_output: Array,
    waiting: Array,
    outputs: Curve,
) -> tuple[Array, Curve]:
    count = ensemble.times.shape[1]
    lane, window = jnp.argmax(waiting), min(_WINDOW, count)
    # Near the last output the window begins with some that are written already.
    first = jnp.minimum(next_output[lane], count - window)
    rows = first + jnp.arange(window)
    at = ensemble.times[which[lane], rows]
    writes = (rows >= next_output[lane]) & (at <= t[lane])

    def put(output: Array, values: Array) -> Array:
        corner = (which[lane], first, *(0,) * (values.ndim - 1))
        old = lax.dynamic_slice(output, corner, (1, *values.shape))
        mask = writes.reshape(1, -1, *(1,) * (values.ndim - 1))
        return lax.dynamic_update_slice(output, jnp.where(mask, values[None], old), corner)

    outputs = jax.tree.map(put, outputs, piece.at(lane, at))
    return next_output.at[lane].add(jnp.sum(writes)), outputs


def _write_of_all(
    piece: _Piece,
    ensemble: _Ensemble,
    which: Array,
    t: Array,
    next_output: Array,
    waiting: Array,
    outputs: Curve,
) -> tuple[Array, Curve]:
    row = jnp.where(waiting, next_output, ensemble.times.shape[1])

    def put(output: Array, values: Array) -> Array:
        # Idle lanes all bear the number behind the last; none of them writes.
        return output.at[which, row].set(
            jnp.moveaxis(values, -1, 0), mode="drop", unique_indices=True
        )

    at = jnp.where(waiting, ensemble.due(which, row), t)
    return next_output + waiting, jax.tree.map(put, outputs, piece.at_each(at))
