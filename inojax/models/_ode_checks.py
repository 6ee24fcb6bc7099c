"""What is looked at beside a solve: inputs that a step could skip, states below their tolerance."""

import warnings
import weakref
from collections import defaultdict
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..solvers import SolveStatus
from ..solvers._batch_last import trace_field
from ..solvers._switches import Switches
from ._ode_solution import ODESolution

# The vector field is sampled at so many times.
_SAMPLES = 8192
# A stretch shorter than this share of the whole is one that steps may skip; what differs from the
# rest by less than this share of the largest difference is no stretch.
_SHORT, _SMALL = 0.05, 0.01
# What is unlike the rest for more of the time than this is met in any case.
_OFTEN = 0.2

# So many trajectories tell which states stay small.
_TRIED = 64

# An error of so many relative tolerances is one worth a word.
_WRONG = 1000.0

_looked_at: weakref.WeakSet[Any] = weakref.WeakSet()
_solved_again: weakref.WeakSet[Any] = weakref.WeakSet()
_differentiated_again: weakref.WeakSet[Any] = weakref.WeakSet()
_seen_by_number: defaultdict[int, set[int]] = defaultdict(set)

# Derivatives that differ by more than this share of their largest are worth a word; those that move
# a state by less than this share of its size, for the whole of a parameter, are not.
_DIFFERENT, _NEGLIGIBLE = 0.01, 1e-6


def check_time_course(
    model: Any,
    theta: Float[np.ndarray, " parameter"],
    sizes: Float[np.ndarray, " state"],
    end: float,
) -> None:
    """Warn if the vector field is at work for short times only, and nothing makes steps end there.

    What switches is found by tracing and needs no word. Here the field is sampled where it runs in
    time in other ways, such as a narrow Gaussian pulse, once for each vector field.

    Args:
        model: An `ODEModel`.
        theta: Parameters of a typical trajectory.
        sizes: The largest that its states have been.
        end: The last time of interest.

    Warns:
        UserWarning: Naming the times; or that choices hide where tracing does not look.
    """
    if model.breakpoints is not None or np.isfinite(model.max_step):
        return
    if _seen(_looked_at, model.vector_field):
        return
    with jax.enable_x64(True):
        switches = Switches(trace_field(model.slope, len(model.states), len(theta)))
    if switches.opaque:
        warnings.warn(
            f"`vector_field` chooses by time or state inside of {', '.join(switches.opaque)}, "
            "where tracing does not look: steps may skip what is short there, and derivatives "
            "miss its jumps. Give their times as `breakpoints`, or write it without.",
            stacklevel=4,
        )
    stretch = _shortest_stretch(model, theta, sizes, end) if switches.smooth else None
    if stretch is None:
        return
    begin, finish = stretch
    warnings.warn(
        f"`vector_field` does something between the times {begin:.6g} and {finish:.6g} that it "
        "does not do elsewhere, and steps may skip it. Give `breakpoints` there, or a `max_step` "
        f"of {0.5 * (finish - begin):.2g}.",
        stacklevel=4,
    )


def _shortest_stretch(
    model: Any, theta: np.ndarray, sizes: np.ndarray, end: float
) -> tuple[float, float] | None:
    with jax.enable_x64(True), jax.debug_nans(False):
        times = np.linspace(model.initial_time, end, _SAMPLES)
        point = jnp.asarray(theta)
        # What multiplies a state is not seen where that is zero.
        states = jnp.stack([model.start(point), jnp.asarray(np.where(sizes > 0.0, sizes, 1.0))])

        def slopes(t: Array) -> Array:
            return jax.vmap(lambda y: model.slope(t, y, point))(states).ravel()

        values = jax.jit(jax.vmap(slopes))(jnp.asarray(times))
    found = [_stretch(times, column) for column in np.asarray(values).T]
    return min(
        (stretch for stretch in found if stretch is not None),
        key=lambda stretch: stretch[1] - stretch[0],
        default=None,
    )


def _stretch(times: np.ndarray, values: np.ndarray) -> tuple[float, float] | None:
    """The shortest stretch that is unlike the rest and does not lie at the start."""
    if not np.isfinite(values).all():
        return None
    with np.errstate(over="ignore", invalid="ignore"):  # of the largest numbers there are
        distance = np.abs(values - np.median(values))
    if not np.isfinite(distance).all():
        return None
    # Rounding errors are no difference.
    least = max(_SMALL * distance.max(), 1e-12 * np.abs(values).max())
    unlike = distance > least
    if unlike.mean() > _OFTEN:  # as of a wave: no step is long enough to skip all of them
        return None
    edges = np.flatnonzero(np.diff(unlike.astype(int)))
    if unlike[0]:  # the first step sees what goes on at the start
        edges = edges[1:]
    pairs = [(edges[i], edges[i + 1]) for i in range(0, len(edges) - 1, 2)]
    short = [(a, b) for a, b in pairs if b - a < _SHORT * len(times)]
    if not short:
        return None
    first, last = min(short, key=lambda pair: pair[1] - pair[0])
    return float(times[first]), float(times[last + 1])


def check_small_states(
    model: Any,
    theta: Float[np.ndarray, " parameter"],
    times: Float[np.ndarray, " time"],
    solution: ODESolution,
) -> None:
    """Warn if a state that stays below its absolute tolerance comes out wrong.

    Nothing controls the error of such a state. Where it only follows others, in a
    quasi-equilibrium, it is right all the same: one trajectory is solved again with tolerances that
    follow the size of each state, once for each vector field. A few trajectories tell which states
    stay small: to look at all of many would cost a quarter of their solves.

    Args:
        model: An `ODEModel`.
        theta: Parameters of the first trajectory.
        times: Its output times.
        solution: Trajectories.

    Warns:
        UserWarning: Naming the states and their errors.
    """
    if model.atol is None or not (np.asarray(solution.status) == SolveStatus.SUCCESS).all():
        return
    largest = np.abs(np.asarray(solution.states)[:_TRIED]).max(axis=(0, 1))
    low = (largest > 0.0) & (largest < np.broadcast_to(model.atol, largest.shape))
    if not low.any() or _seen(_solved_again, model.vector_field):
        return
    exact = model.replace(atol=None).solve_ensemble(theta[None], times)
    found, right = np.asarray(solution.states)[0], np.asarray(exact.states)[0]
    error = np.abs(found - right).max(axis=0) / np.maximum(np.abs(right).max(axis=0), 1e-300)
    wrong = low & (error > _WRONG * model.rtol)
    if wrong.any():
        names = ", ".join(np.array(model.states)[wrong])
        warnings.warn(
            f"The states {names} stay below `atol`, so that nothing controls their errors: they "
            f"are off by up to {error[wrong].max():.1%} of their largest value. Give `atol` for "
            "each state, or leave it out: then it follows the size of each.",
            stacklevel=4,
        )


def first_derivatives(model: Any) -> bool:
    """Whether derivatives of a model have not been looked at before, nor will be again."""
    return not _seen(_differentiated_again, model.vector_field)


def check_derivatives(
    names: tuple[str, ...] | None,
    thetas: Float[np.ndarray, "batch parameter"],
    found: tuple[ODESolution, np.ndarray],
    exact: tuple[ODESolution, np.ndarray],
) -> None:
    """Warn if derivatives are less exact than a reader would expect: tolerances are for states.

    Args:
        names: Of the parameters, if they are known.
        thetas: Parameters of some trajectories.
        found: These, with their derivatives.
        exact: The same, with tolerances 100 times tighter.

    Warns:
        UserWarning: Naming the parameter whose derivatives are worst.
    """
    solved = [np.asarray(solution.status) == SolveStatus.SUCCESS for solution, _ in (found, exact)]
    both = solved[0] & solved[1]
    if not both.any():
        return
    right = exact[1][both]
    largest = np.abs(right).max(axis=1)
    size = np.abs(np.asarray(exact[0].states)[both]).max(axis=1)[:, :, None]
    matters = largest * np.abs(thetas[both])[:, None, :] > _NEGLIGIBLE * size
    error = np.abs(found[1][both] - right).max(axis=1)
    share = np.where(matters, error / np.where(matters, largest, 1.0), 0.0)
    if share.max() > _DIFFERENT:
        worst = int(np.argmax(share.max(axis=(0, 1))))
        name = f"parameter {worst}" if names is None else names[worst]
        warnings.warn(
            f"The derivatives by {name} are off by up to {share.max():.0%} of their largest value, "
            "since `rtol` and `atol` control the states and not their derivatives. Tighten them, "
            "for instance by `model.tightened()`.",
            stacklevel=4,
        )


def _seen(known: weakref.WeakSet[Any], function: Any) -> bool:
    """Whether a function is in a set, into which it is put.

    Of a field that is made of a user's function, as the lines of a PDE are, it is that function:
    the field itself is made anew for each solve.
    """
    function = getattr(function, "made_of", function)
    try:
        found = function in known
        known.add(function)
    except TypeError:  # without a hash or a weak reference
        found = id(function) in _seen_by_number[id(known)]
        _seen_by_number[id(known)].add(id(function))
    return found
