"""Solves of an `ODEModel`: compiled calls on the host, one call inside a transformation."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..solvers import EnsembleSolution, SolveStatus, solve_ensemble
from ._calls import compiled, in_calls
from ._ode_solution import ODESolution

# Parameters and output times, a row for each trajectory.
Rows = tuple[Array | np.ndarray, Array | np.ndarray]
# Lanes of an ensemble inside a transformation, on a CPU: as in calls from the host.
_TRACED_LANES, _TRACED_SENSITIVITY_LANES = 96, 32


# An `ODEModel`, whose own module imports this one; or a part of one, while it is differentiated.
Solvable = Any


def traced_lanes(thetas: Array, *, sensitivities: bool) -> int:
    """How many trajectories of a call inside a transformation advance together."""
    lanes = _TRACED_SENSITIVITY_LANES if sensitivities else _TRACED_LANES
    # An accelerator has room for all at once.
    return lanes if jax.default_backend() == "cpu" else thetas.shape[0]


def _solve_block(model: Solvable, rows: Rows, count: Any, lanes: int) -> EnsembleSolution:
    return _ensemble(model, rows, count, lanes, None)


def _sensitivity_block(model: Solvable, rows: Rows, count: Any, lanes: int) -> EnsembleSolution:
    thetas = jnp.asarray(rows[0])
    tangents = jax.vmap(jax.jacfwd(model.start))(thetas), np.eye(thetas.shape[1])
    return _ensemble(model, rows, count, lanes, tangents)


def _ensemble(
    model: Solvable, rows: Rows, count: Any, lanes: int, tangents: tuple[Array, Any] | None
) -> EnsembleSolution:
    thetas, times = (jnp.asarray(x) for x in rows)
    return solve_ensemble(
        model.slope,
        jax.vmap(model.start)(thetas),
        thetas,
        times,
        initial_time=model.initial_time,
        rtol=model.rtol,
        atol=None if model.atol is None else jnp.asarray(model.atol),
        max_steps=model.max_steps,
        max_step=model.max_step,
        breakpoints=model.breaks,
        lanes=lanes,
        count=count,
        tangents=tangents,
    )


_solve_call = compiled(_solve_block)
_sensitivity_call = compiled(_sensitivity_block)
# Inside a transformation how to compile is decided outside.
_solve_traced = eqx.filter_jit(_solve_block)
_sensitivity_traced = eqx.filter_jit(_sensitivity_block)


def solve_many(
    model: Solvable,
    thetas: Float[np.ndarray, "batch parameter"],
    times: Float[np.ndarray, "*rows time"],
    mesh: jax.sharding.Mesh | None,
    *,
    sensitivities: bool = False,
) -> tuple[ODESolution, np.ndarray | None]:
    """Solve many, on the host: trajectories, and their derivatives if these are wanted.

    Raises:
        ValueError: If `thetas` is not a matrix with at least one row, or `times` do not fit it.
    """
    call = _sensitivity_call if sensitivities else _solve_call
    rows = _rows(thetas, times)
    settled = with_traced_settings(model)
    ensemble = in_calls(call, settled, rows, mesh=mesh, sensitivities=sensitivities)
    ensemble = _without_hidden(ensemble)
    tangents = None if ensemble.tangents is None else np.asarray(ensemble.tangents)
    return _solution(times, ensemble), tangents


def solve_many_traced(model: Solvable, thetas: Array, times: Array) -> ODESolution:
    """Solve many inside a transformation."""
    lanes = traced_lanes(thetas, sensitivities=False)
    return _solution(times, _solve_traced(model, (thetas, times), thetas.shape[0], lanes))


def sensitivities_traced(
    model: Solvable, thetas: Array, times: Array, count: Any
) -> tuple[ODESolution, Array]:
    """Solve many with their derivatives inside a transformation."""
    lanes = traced_lanes(thetas, sensitivities=True)
    ensemble = _sensitivity_traced(model, (thetas, times), count, lanes)
    assert ensemble.tangents is not None
    return _solution(times, ensemble), jnp.asarray(ensemble.tangents)


@eqx.filter_jit
def solve_one_traced(model: Solvable, theta: Array, times: Array) -> ODESolution:
    """Solve one inside a transformation, to be differentiated in any way once.

    Both modes are given the derivatives that forward sensitivities compute, so that the reverse
    one costs as many of them as there are parameters; and they are as right across breaks.
    """
    states, status, steps = _states((theta, times), model)
    return ODESolution(times, states, status, steps)


@eqx.filter_custom_jvp
def _states(inputs: tuple[Array, Array], model: Solvable) -> tuple[Array, Array, Array]:
    theta, times = inputs
    found = _solve_block(model, (theta[None], times[None]), 1, 1)
    return jnp.asarray(found.states)[0], jnp.asarray(found.status)[0], jnp.asarray(found.steps)[0]


@_states.def_jvp
def _states_jvp(
    primals: tuple[tuple[Array, Array], Solvable], tangents: tuple[Any, Any]
) -> tuple[tuple[Array, Array, Array], tuple[Array, None, None]]:
    (theta, times), model = primals
    (along_theta, along_times), along_model = tangents
    rows = theta[None], times[None]
    found = _sensitivity_block(model, rows, 1, 1)
    assert found.tangents is not None
    states = jnp.asarray(found.states)[0]
    change = jnp.zeros_like(states)
    if along_theta is not None:
        change = change + jnp.asarray(found.tangents)[0] @ along_theta
    if along_times is not None:
        slopes = jax.vmap(lambda t, y: model.slope(t, y, theta))(times, states)
        change = change + slopes * along_times[:, None]
    if any(leaf is not None for leaf in jax.tree.leaves(along_model)):
        # Numbers inside of the equations; forward mode only.
        def by_model(model: Solvable) -> Array:
            return jnp.asarray(_solve_block(model, rows, 1, 1).states)[0]

        change = change + eqx.filter_jvp(by_model, (model,), (along_model,))[1]
    status, steps = jnp.asarray(found.status)[0], jnp.asarray(found.steps)[0]
    return (states, status, steps), (change, None, None)


def _solution(times: Any, ensemble: EnsembleSolution) -> ODESolution:
    return ODESolution(times, ensemble.states, ensemble.status, ensemble.steps, ensemble.work)


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


def with_traced_settings(model: Any) -> Any:
    """Tolerances as arrays: what is compiled for one of them then serves all."""

    def settings(model: Any) -> tuple[Any, ...]:
        found = model.rtol, model.max_steps, model.max_step
        return found if model.atol is None else (*found, model.atol)

    arrays = tuple(np.asarray(value) for value in settings(model))
    return eqx.tree_at(settings, model, arrays)
