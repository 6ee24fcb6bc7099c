"""Explicit Runge-Kutta steps of fixed size: cheap trajectories of models that are not stiff."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float


def solve_explicit(
    vector_field: Callable[[Any, Any, Any], Array],
    starts: Float[Array, "batch state"],
    thetas: Float[Array, "batch parameter"],
    times: Float[Array | np.ndarray, " time"],
    *,
    initial_time: float,
    substeps: int,
) -> Float[Array, "batch time state"]:
    """Solve many trajectories by the classical method of order 4, in the precision of `starts`.

    Pure, for use inside training loops in single precision. There is no error control: compare
    with an adaptive solver before use.

    Args:
        vector_field: `f(t, y, theta)` of one trajectory.
        starts: Initial states.
        thetas: Parameters.
        times: Output times, non-decreasing.
        initial_time: When trajectories start.
        substeps: Steps from one output time to the next.

    Returns:
        States at the output times; not finite where steps are too long.
    """
    field = jax.vmap(vector_field, in_axes=(None, -1, -1), out_axes=-1)
    dtype = starts.dtype
    ends = jnp.asarray(times, dtype)
    begins = jnp.concatenate([jnp.asarray([initial_time], dtype), ends[:-1]])
    parameters = thetas.astype(dtype).T

    def interval(y: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
        begin, end = row
        h = (end - begin) / substeps

        def step(number: Array, y: Array) -> Array:
            t = begin + number * h
            k1 = field(t, y, parameters)
            k2 = field(t + 0.5 * h, y + 0.5 * h * k1, parameters)
            k3 = field(t + 0.5 * h, y + 0.5 * h * k2, parameters)
            k4 = field(t + h, y + h * k3, parameters)
            return y + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)

        y = lax.fori_loop(0, substeps, step, y)
        return y, y

    _, states = lax.scan(interval, starts.T, (begins, ends))
    return jnp.transpose(states, (2, 0, 1))
