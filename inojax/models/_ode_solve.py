"""Solves of an `ODEModel`: compiled calls on the host, one call inside a transformation."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._x64 import is_traced
from ..solvers import SolveStatus, solve_ensemble
from ..solvers._ensemble import EnsembleSolution
from ._calls import compiled, in_calls
from ._ode_solution import ODESolution

# Parameters and output times, a row for each trajectory.
Rows = tuple[Array | np.ndarray, Array | np.ndarray]


# An `ODEModel`, whose own module imports this one; or a part of one, while it is differentiated.
Solvable = Any


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


def solve_many(
    model: Solvable,
    thetas: Float[Array | np.ndarray, "batch parameter"],
    times: Float[Array | np.ndarray, "*rows time"],
    *,
    mesh: jax.sharding.Mesh | None = None,
    sensitivities: bool = False,
    count: Any = None,
) -> tuple[ODESolution, Any]:
    """Solve many, on the host or inside a transformation, with derivatives if these are wanted.

    Args:
        model: The model.
        thetas: Physical parameter values.
        times: Output times, one row or one for each.
        mesh: Devices to use, on the host.
        sensitivities: Whether derivatives by the parameters are wanted.
        count: Inside a transformation, how many rows are meant, if not all.

    Returns:
        The solutions and their derivatives, None where these are not wanted.

    Raises:
        ValueError: If `thetas` is not a matrix with at least one row, or `times` do not fit it.
    """
    call = _sensitivity_call if sensitivities else _solve_call
    rows = _rows(thetas, times)
    if not (traced := is_traced(model, rows, count)):
        model = with_traced_settings(model)
    ensemble = in_calls(call, model, rows, count=count, mesh=mesh, sensitivities=sensitivities)
    if not traced:
        ensemble = _without_hidden(ensemble)
    states, status, steps, work, tangents = ensemble
    return ODESolution(times, states, status, steps, work), tangents


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


def _rows(thetas: Any, times: Any) -> Rows:
    if thetas.ndim != 2 or thetas.shape[0] == 0:
        raise ValueError(
            f"`thetas` must have shape (batch, parameter), at least one row; got {thetas.shape}."
        )
    if times.ndim == 2 and len(times) != len(thetas):
        raise ValueError(
            f"`times` must be a vector, or have a row for each of the {len(thetas)} parameter "
            f"vectors; got shape {times.shape}."
        )
    xp = jnp if is_traced(thetas, times) else np
    return thetas, xp.broadcast_to(times, (len(thetas), times.shape[-1]))


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
