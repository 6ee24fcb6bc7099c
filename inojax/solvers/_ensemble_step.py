"""One step of Rodas5P for a batch of trajectories, with the batch as the last axis."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from . import _linalg as linalg, _rodas5p_tableau as tableau
from ._batch_last import BatchLast

# Rounding errors below this change the Jacobian by less than the method can feel.
_WORST_BACKWARD_ERROR = 1e-7


class RodasStep(NamedTuple):
    """What a step gives.

    Attributes:
        y: The new state.
        error: Estimate of its error.
        dense: Coefficients of the interpolation.
        dense_error: Estimate of the interpolation's error in the middle of the step.
        solved: Whether the linear systems were solved well.
        ks: The stages.
        factors: The factors of W = I / γ - h J.
        rounding: Computes how large rounding errors of the new state can be.
    """

    y: Float[Array, "state batch"]
    error: Float[Array, "state batch"]
    dense: Float[Array, "3 state batch"]
    dense_error: Float[Array, "state batch"]
    solved: Bool[Array, " batch"]
    ks: Float[Array, "stage state batch"]
    factors: linalg.Factors
    rounding: Callable[[], Float[Array, "state batch"]]


def rodas5p_step(
    field: BatchLast,
    t: Float[Array, " batch"],
    y: Float[Array, "state batch"],
    h: Float[Array, " batch"],
    theta: Float[Array, "parameter batch"],
) -> RodasStep:
    """Try one step of size `h` in each lane."""
    plan = field.elimination
    t_, y_, h_, theta_ = lax.stop_gradient((t, y, h, theta))
    jacobian = jacobian_at(field, t_, y_, theta_) * h_[None, None, :]
    # Not from the stopped values: where derivatives of derivatives are taken, these count.
    entries = jacobian_at(field, t, y, theta) * h[None, None, :]
    factors = linalg.factor(plan, entries, 1.0 / tableau.GAMMA)

    def matvec(x: Array) -> Array:
        _, jx = jax.jvp(lambda u: field(t, u, theta), (y,), (x,))
        return x / tableau.GAMMA - h[None, :] * jx

    def solve(b: Array) -> Array:
        # Forward sensitivities come from this structure's own rule, which reuses the factors:
        # dx = W⁻¹ (db - dW x).
        return lax.custom_linear_solve(matvec, b, lambda _, rhs: linalg.solve(plan, factors, rhs))

    time_slope = _time_slope(field, t, y, theta) * jnp.square(h)[None, :]
    nodes, d = jnp.asarray(tableau.NODES), jnp.asarray(tableau.D)

    def phase(index: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        i, ks, value = index // 3, *carry
        branches = (
            lambda: y + _combine(jnp.asarray(tableau.A)[i], ks),
            lambda: h[None, :] * field(t + nodes[i] * h, value, theta),
            lambda: solve(value + _combine(jnp.asarray(tableau.C)[i], ks) + d[i] * time_slope),
        )
        value = lax.switch(index % 3, branches)
        return ks.at[jnp.where(index % 3 == 2, i, tableau.STAGES)].set(value), value

    ks = jnp.zeros((tableau.STAGES + 1, *y.shape))
    ks, _ = lax.fori_loop(0, 3 * tableau.STAGES, phase, (ks, y))
    first = h[None, :] * field(t, y, theta) + d[0] * time_slope
    k1, first = lax.stop_gradient((ks[0], first))
    wrong = linalg.backward_error(plan, jacobian, 1.0 / tableau.GAMMA, k1, first)
    dense = jnp.stack([_combine(row, ks) for row in tableau.DENSE])
    new, error = y + _combine(tableau.B, ks), ks[tableau.STAGES - 1]
    # What is left of the equation in the middle of the step, carried through W⁻¹: hγ of it where
    # nothing is stiff, and the distance to the slow solution where everything is.
    y_, new_, dense_ = lax.stop_gradient((y, new, dense))
    middle = 0.5 * (y_ + new_) + 0.25 * (dense_[0] + 0.5 * dense_[1] + 0.25 * dense_[2])
    slope = new_ - y_ + 0.25 * (dense_[1] + dense_[2])
    left = slope - h_[None, :] * field(t_ + 0.5 * h_, middle, theta_)
    dense_error = linalg.solve(plan, factors, left)
    solved = wrong <= _WORST_BACKWARD_ERROR

    def rounding() -> Array:
        terms, diagonal = linalg.row_sizes(plan, jacobian, jnp.abs(y_))
        return jnp.finfo(y.dtype).eps * terms / (1.0 / tableau.GAMMA + diagonal)

    ks = ks[: tableau.STAGES]
    return RodasStep(new, error, dense, dense_error, solved, ks, factors, rounding)


def _combine(weights: Array | np.ndarray, ks: Array) -> Array:
    return sum(weights[j] * ks[j] for j in range(1, tableau.STAGES)) + weights[0] * ks[0]


def interpolation_weights(theta: Float[Array, " row"]) -> Float[Array, "row 5"]:
    """How much the states at both ends, and the coefficients of `dense`, count in between.

    Of order 4, at the fractions `theta` of the step.
    """
    bump = theta * (1.0 - theta)
    return jnp.stack([1.0 - theta, theta, bump, theta * bump, theta * theta * bump], axis=-1)


def jacobian_at(
    field: BatchLast,
    t: Float[Array, " batch"],
    y: Float[Array, "state batch"],
    theta: Float[Array, "parameter batch"],
) -> Float[Array, "color state batch"]:
    """The compressed Jacobian of a vector field."""

    def derivative(seed: Array) -> Array:
        tangent = jnp.broadcast_to(seed[:, None], y.shape)
        return jax.jvp(lambda u: field(t, u, theta), (y,), (tangent,))[1]

    return jax.vmap(derivative)(jnp.asarray(field.elimination.seeds))


def _time_slope(field: BatchLast, t: Array, y: Array, theta: Array) -> Array:
    if not field.depends_on_time:
        return jnp.zeros_like(y)
    return jax.jvp(lambda s: field(s, y, theta), (t,), (jnp.ones_like(t),))[1]
