"""Minimize many small problems at once: Levenberg-Marquardt steps inside bounds."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from ...solvers._cholesky import solve_positive

# Rounds in which parameters are held at a bound, or let go again (primal-dual active sets).
_ROUNDS = 6
# With so little damping a step is as long as it would be without.
_FREE = 1e-4
_ROUNDING = 1e-13
_FIRST_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-3, 1e-12, 1e10
# Where a step without damping would gain less than this of log density, the point is within a
# seventh of a standard deviation of the optimum: near enough for an interval.
NEAR = 0.01


class Local(NamedTuple):
    """An objective near a point, one row for each problem.

    Attributes:
        value: Its value; infinite where the readings are impossible, NaN where the solver failed.
        gradient: Its gradient.
        hessian: A positive semi-definite approximation of its second derivatives.
    """

    value: Float[Array, "*batch row"]
    gradient: Float[Array, "*batch row parameter"]
    hessian: Float[Array, "*batch row parameter parameter"]


class Minimum(NamedTuple):
    """Where the minimization of each row ended.

    Attributes:
        x: The best point found.
        local: The objective there.
        converged: Whether a step would gain less than the tolerance.
        steps: Evaluations behind the first one.
        left: What a step without damping would gain.
    """

    x: Float[Array, "*batch row parameter"]
    local: Local
    converged: Bool[Array, "*batch row"]
    steps: Int[Array, "*batch row"]
    left: Float[Array, "*batch row"] | float = math.inf

    @property
    def arrived(self) -> Any:
        """Whether it is at an optimum, or so near that nothing worth mentioning is left to gain.

        Where steps are used up, or rounding errors of the solver end them, it may be so.
        """
        return self.converged | (self.left < NEAR)


# `evaluate(x, count, which)`: the objective of the problems `which` at the first `count` rows of x;
# what it gives for the other rows has no meaning.
Evaluate = Callable[[Array, Array, Array], Local]


class _State(NamedTuple):
    x: Array
    local: Local
    damping: Array
    growth: Array
    converged: Array
    done: Array
    steps: Array


def minimize(
    evaluate: Evaluate,
    start: Float[Array, "row parameter"],
    bounds: tuple[Float[Array, " parameter"], Float[Array, " parameter"]],
    *,
    max_steps: int,
    tolerance: float,
    count: Int[Array, ""] | int | None = None,
) -> Minimum:
    """Minimize from each row of `start`; pure, traceable.

    Rows that are done are not evaluated again: the others are moved to the front. A row whose
    start could not be evaluated ends there, with the value that was found.

    Args:
        evaluate: The objective.
        start: Where to begin, within the bounds; rows of NaN are left out.
        bounds: Lower and upper bounds, infinite where there are none.
        max_steps: Most evaluations behind the first one.
        tolerance: Stop where a step gains less, in the unit of the objective.
        count: How many rows are meant, all by default.

    Returns:
        The best point of each row.

    Source:
        Nocedal and Wright, Numerical Optimization, 10.3; H. B. Nielsen, Damping parameter in
        Marquardt's method (1999), for the damping; Hintermüller, Ito and Kunisch, SIAM J. Optim.
        13 (2002), for the bounds.
    """
    rows = start.shape[0]
    meant = jnp.asarray(rows if count is None else count)
    size = start.shape[1]
    nowhere = Local(
        jnp.full(rows, jnp.inf), jnp.zeros_like(start), jnp.zeros((rows, size, size), start.dtype)
    )
    state = _State(
        x=start,
        local=nowhere,
        damping=jnp.full(rows, _FIRST_DAMPING),
        growth=jnp.full(rows, 2.0),
        converged=jnp.zeros(rows, dtype=bool),
        done=(jnp.arange(rows) >= meant) | jnp.any(jnp.isnan(start), axis=1),
        steps=jnp.full(rows, -1),
    )

    def advance(state: _State) -> _State:
        propose = jax.vmap(_candidate, in_axes=(0, 0, 0, 0, None, None))
        gradient, hessian = state.local.gradient, state.local.hessian
        candidate = propose(state.x, gradient, hessian, state.damping, *bounds)
        # The start is evaluated by the same code as all steps: another copy of it would take as
        # long to compile again.
        candidate = jnp.where((state.steps < 0)[:, None], state.x, candidate)
        # Those that still run come first, and only these are evaluated.
        order = jnp.argsort(state.done, stable=True)
        found = evaluate(candidate[order], jnp.sum(~state.done), order)
        back = jnp.argsort(order)
        return _judge(state, candidate, jax.tree.map(lambda x: x[back], found), tolerance)

    def unfinished(state: _State) -> Array:
        return jnp.any(~state.done & (state.steps < max_steps))

    state = lax.while_loop(unfinished, advance, state)
    left = jax.vmap(_left, in_axes=(0, 0, 0, None, None))
    gain = left(state.x, state.local.gradient, state.local.hessian, *bounds)
    gain = jnp.where(_usable(state.local), gain, jnp.inf)
    return Minimum(state.x, state.local, state.converged, state.steps, gain)


def _left(x: Array, gradient: Array, hessian: Array, lower: Array, upper: Array) -> Array:
    """What a step without damping gains, where what is pushed against a bound stays there."""
    held = ((x <= lower) & (gradient > 0.0)) | ((x >= upper) & (gradient < 0.0))
    slope = jnp.where(held, 0.0, gradient)
    diagonal = jnp.diagonal(hessian)
    scale = jnp.maximum(diagonal, 1e-12 * jnp.max(diagonal) + 1e-300)
    matrix = hessian + jnp.diag(_LEAST_DAMPING * scale)
    both = held[:, None] | held[None, :]
    system = jnp.where(both, jnp.diag(jnp.where(held, 1.0, 0.0)), matrix)
    return 0.5 * slope @ solve_positive(system, slope)


def _predicted(state: _State, candidate: Array) -> Array:
    """What the quadratic model gains from here to a candidate."""
    step = candidate - state.x
    change = jnp.einsum("rp,rp->r", step, state.local.gradient)
    curvature = jnp.einsum("rp,rpq,rq->r", step, state.local.hessian, step)
    return -(change + 0.5 * curvature)


def _usable(local: Local) -> Array:
    finite = jnp.isfinite(local.value) & jnp.all(jnp.isfinite(local.gradient), axis=1)
    return finite & jnp.all(jnp.isfinite(local.hessian), axis=(1, 2))


def _candidate(
    x: Array, gradient: Array, hessian: Array, damping: Array, lower: Array, upper: Array
) -> Array:
    """Minimize the damped quadratic model within the bounds, approximately."""
    diagonal = jnp.diagonal(hessian)
    scale = jnp.maximum(diagonal, 1e-12 * jnp.max(diagonal) + 1e-300)
    matrix = hessian + jnp.diag(damping * scale)
    start = (x <= lower) & (gradient > 0.0), (x >= upper) & (gradient < 0.0), jnp.zeros_like(x)

    def again(_: Array, last: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        at_lower, at_upper, _ = last
        held = at_lower | at_upper
        # Where held, the step is given; the others follow from the rest of the equations.
        fixed = jnp.where(at_lower, lower - x, jnp.where(at_upper, upper - x, 0.0))
        fixed = jnp.where(held, fixed, 0.0)
        right = jnp.where(held, fixed, -gradient - matrix @ fixed)
        both = held[:, None] | held[None, :]
        system = jnp.where(both, jnp.diag(jnp.where(held, 1.0, 0.0)), matrix)
        step = solve_positive(system, right)
        # Hold what went too far; let go what would rather come back.
        slope = gradient + matrix @ step
        at_lower = (~held & (x + step < lower)) | (at_lower & (slope > 0.0))
        at_upper = (~held & (x + step > upper)) | (at_upper & (slope < 0.0))
        return at_lower, at_upper, step

    # A loop: written out it would take as long to compile as many times.
    *_, step = lax.fori_loop(0, _ROUNDS, again, start)
    return jnp.clip(x + step, lower, upper)


def _judge(state: _State, candidate: Array, found: Local, tolerance: float) -> _State:
    first = state.steps < 0
    predicted = _predicted(state, candidate)
    gained = state.local.value - found.value
    # What the rounding errors of the objective leave open is no loss and no gain.
    rounding = _ROUNDING * jnp.abs(state.local.value)
    # With nothing left to gain the model is as good as it can be.
    expected = jnp.where(predicted > rounding, predicted, 1.0)
    ratio = jnp.where(jnp.abs(predicted) <= rounding, 1.0, gained / expected)
    ratio = jnp.where(predicted < -rounding, 0.0, ratio)
    # Solvers are not exact: where little is to gain, what seems lost or gained is mostly error,
    # and no reason to damp.
    least = tolerance + rounding
    settled = _usable(found) & (jnp.abs(predicted) < least) & (jnp.abs(gained) < least)
    ratio = jnp.where(settled, 1.0, ratio)
    better = ~state.done & _usable(found) & (first | (gained >= -rounding))
    good = better | settled
    shrink = jnp.clip(1.0 - (2.0 * ratio - 1.0) ** 3, 1.0 / 3.0, 2.0)
    damping = jnp.where(good, state.damping * shrink, state.damping * state.growth)
    damping = jnp.where(first, state.damping, damping)
    # A step that is damped says little about what is left to gain.
    small = (jnp.abs(predicted) < least) & (state.damping <= _FREE)
    converged = state.converged | (~state.done & small & good & ~first)

    def pick(new: Array, old: Array) -> Array:
        return jnp.where(better.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    local = jax.tree.map(pick, found, state.local)
    # Why a start could not be evaluated is for others to tell.
    unusable = jnp.where(jnp.isposinf(found.value), jnp.inf, jnp.nan)
    value = jnp.where(~state.done & first & ~better, unusable, local.value)
    return _State(
        x=pick(candidate, state.x),
        local=local._replace(value=value),
        damping=jnp.clip(damping, _LEAST_DAMPING, None),
        growth=jnp.where(good | first, 2.0, 2.0 * state.growth),
        converged=converged,
        done=state.done | converged | (damping > _MOST_DAMPING) | (first & ~better),
        steps=state.steps + jnp.where(state.done, 0, 1),
    )
