"""Derivatives of a Rodas5P step, many directions at once, with the factors of the step itself.

The steps are chosen for the states alone; each accepted or rejected step is then differentiated
as it was made (the "staggered direct" way of forward sensitivities). With W = I / γ - h J(y) and

    W k_i = h f(t_i, u_i, θ) + Σ_j C_ij k_j + d_i h² ∂f/∂t,      u_i = y + Σ_j A_ij k_j

the derivatives of the stages obey, for the derivatives S of y and Θ of θ,

    W dk_i = h ∂f(t_i, u_i, θ) [du_i, Θ] + h ∂(J k_i) [S, Θ]
             + Σ_j C_ij dk_j + d_i h² ∂(∂f/∂t) [S, Θ]

where ∂(J k_i) is the derivative of the vector field's derivative along the constant k_i. So each
direction costs two derivatives of the vector field and one substitution for each stage, and no
elimination.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from . import _linalg as linalg, _rodas5p_tableau as tableau
from ._batch_last import BatchLast
from ._ensemble_step import RodasStep

Function = Callable[[Array, Array], Array]


class Tangents(NamedTuple):
    """Derivatives of a step's results."""

    y: Float[Array, "state direction lane"]
    dense: Float[Array, "3 state direction lane"]


def differentiate_step(
    field: BatchLast,
    t: Float[Array, " lane"],
    h: Float[Array, " lane"],
    theta: Float[Array, "parameter lane"],
    y: Float[Array, "state lane"],
    tangents: Float[Array, "state direction lane"],
    directions: Float[Array | np.ndarray, "parameter direction"],
    step: RodasStep,
) -> Tangents:
    """Carry derivatives through the step of size `h` that `rodas5p_step` took.

    Args:
        field: The vector field.
        t: Time at the start of the step.
        h: Its size.
        theta: Parameters.
        y: State at the start of the step.
        tangents: Its derivatives in each direction.
        directions: Derivatives of the parameters in each direction.
        step: The step itself.
    """
    spread = jnp.broadcast_to(directions[:, :, None], (*directions.shape, theta.shape[1]))

    def along(function: Function, point: Array, changes: Array) -> Array:
        """Derivatives of `function(y, θ)` at `point` in all directions."""

        def one(change: Array, direction: Array) -> Array:
            return jax.jvp(function, (point, theta), (change, direction))[1]

        return jax.vmap(one, in_axes=1, out_axes=1)(changes, spread)

    def sums(stages: int) -> Callable[[Array], tuple[Array, Array]]:
        # Written out with as many terms as there are stages so far: a product with the whole
        # triangle would read twice as much.
        def weigh(dks: Array) -> tuple[Array, Array]:
            change, known = tangents, zeros
            for j in range(stages):
                change = change + tableau.A[stages, j] * dks[j]
                known = known + tableau.C[stages, j] * dks[j]
            return change, known

        return weigh

    zeros = jnp.zeros_like(tangents)
    step_size = h[None, None, :]
    d, nodes = jnp.asarray(tableau.D), jnp.asarray(tableau.NODES)
    points = y[None] + jnp.tensordot(jnp.asarray(tableau.A), step.ks, 1)

    def slope_in_time(state: Array, parameters: Array) -> Array:
        return jax.jvp(lambda s: field(s, state, parameters), (t,), (jnp.ones_like(t),))[1]

    drift = step_size * along(slope_in_time, y, tangents) if field.depends_on_time else zeros

    def right_side(i: Array, dks: Array) -> Array:
        u, time = points[i], t + nodes[i] * h
        change, known = lax.switch(i, [sums(stages) for stages in range(tableau.STAGES)], dks)

        def slope(state: Array, parameters: Array) -> Array:
            return field(time, state, parameters)

        def slope_along_k(state: Array, parameters: Array) -> Array:
            return jax.jvp(lambda v: field(t, v, parameters), (state,), (step.ks[i],))[1]

        total = along(slope, u, change) + along(slope_along_k, y, tangents)
        if field.depends_on_time:
            total = total + d[i] * drift
        return step_size * total + known

    def substitute(substitution: linalg.Substitution, b: Array) -> Array:
        one = partial(substitution, field.elimination, step.factors)
        return jax.vmap(one, in_axes=1, out_axes=1)(b)

    def stage(i: Array, dks: Array) -> Array:
        value = right_side(i, dks)
        for substitution in linalg.substitutions(field.elimination):
            # The condition always holds. It keeps the compiler from merging the substitution with
            # what is around it, and so from computing the same values many times over.
            value = lax.cond(h[0] > 0.0, partial(substitute, substitution), lambda b: b, value)
        return lax.dynamic_update_index_in_dim(dks, value, i, 0)

    dks = lax.fori_loop(0, tableau.STAGES, stage, jnp.zeros((tableau.STAGES, *tangents.shape)))
    # One product, which reads the stages once.
    change, *dense = jnp.tensordot(jnp.asarray([tableau.B, *tableau.DENSE]), dks, 1)
    return Tangents(tangents + change, jnp.stack(dense))
