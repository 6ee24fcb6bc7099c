"""Rodas5P as a Diffrax solver."""

from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

import diffrax
import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from diffrax import RESULTS, AbstractTerm
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from . import _rodas5p_tableau as tableau

_SolverState: TypeAlias = None


class Rodas5PInterpolation(diffrax.AbstractLocalInterpolation):
    """The dense output of Rodas5P over one step, of order 4.

    Attributes:
        t0: Start of the step.
        t1: End of the step.
        y0: State at `t0`.
        y1: State at `t1`.
        k: The three combinations of stages, stacked along the first axis of each leaf.
    """

    t0: Any
    t1: Any
    y0: PyTree
    y1: PyTree
    k: PyTree

    def evaluate(self, t0: Any, t1: Any = None, left: bool = True) -> PyTree:
        """The state at `t0`, or its increment from `t0` to `t1`."""
        del left
        if t1 is not None:
            return jax.tree.map(jnp.subtract, self.evaluate(t1), self.evaluate(t0))
        length = self.t1 - self.t0
        # Diffrax evaluates steps of length zero too, where the solve has already ended.
        theta = jnp.where(length == 0, 0.0, (t0 - self.t0) / jnp.where(length == 0, 1.0, length))

        def leaf(y0: Array, y1: Array, k: Array) -> Array:
            s = theta.astype(y0.dtype)
            return (1 - s) * y0 + s * (y1 + (1 - s) * (k[0] + s * (k[1] + s * k[2])))

        return jax.tree.map(leaf, self.y0, self.y1, self.k)


class Rodas5P(diffrax.AbstractAdaptiveSolver[_SolverState]):
    """Rosenbrock method of order 5 with 8 stages, L-stable and stiffly accurate.

    Use it for stiff ODEs of up to some hundred states: each step costs one Jacobian, one
    LU factorization and 8 solves, and no iteration that could fail to converge. Non-autonomous
    equations keep the order, and the interpolation (order 4) needs no further evaluation.

    Pass it to `diffrax.diffeqsolve` with a step-size controller:

        diffrax.diffeqsolve(
            diffrax.ODETerm(vector_field), Rodas5P(), t0=0.0, t1=60.0, dt0=None, y0=y0, args=theta,
            stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-10),
        )

    The state may be any PyTree of real arrays. A step whose linear system is singular, or that
    meets NaN, reports an infinite error, so that the controller rejects it and tries a smaller
    one. In 32-bit floats stiff problems lose most of their digits; use 64-bit.

    Source:
        G. Steinebach, "Construction of Rosenbrock-Wanner method Rodas5P and numerical
        benchmarks within the Julia Differential Equations package", BIT Numer. Math. 63:27
        (2023); the transformed variables are those of Hairer & Wanner II, section IV.7.

    Example:
        >>> import diffrax
        >>> with jax.enable_x64(True):
        ...     solution = diffrax.diffeqsolve(
        ...         diffrax.ODETerm(lambda t, y, args: -50.0 * y),
        ...         ij.solvers.Rodas5P(), 0.0, 1.0, 0.01, jnp.ones(1),
        ...         stepsize_controller=diffrax.PIDController(rtol=1e-6, atol=1e-12),
        ...     )
        ...     print(bool(abs(solution.ys[-1, 0]) < 1e-10))
        True
    """

    term_structure: ClassVar = AbstractTerm
    interpolation_cls: ClassVar[Callable[..., Rodas5PInterpolation]] = Rodas5PInterpolation

    def order(self, terms: PyTree[AbstractTerm]) -> int:
        """The order of convergence, 5."""
        del terms
        return 5

    def init(
        self, terms: PyTree[AbstractTerm], t0: Any, t1: Any, y0: PyTree, args: PyTree
    ) -> _SolverState:
        """Nothing is carried from step to step."""
        del terms, t0, t1, y0, args
        return None

    def func(self, terms: AbstractTerm, t0: Any, y0: PyTree, args: PyTree) -> PyTree:
        """The vector field."""
        return terms.vf(t0, y0, args)

    def step(
        self,
        terms: AbstractTerm,
        t0: Any,
        t1: Any,
        y0: PyTree,
        args: PyTree,
        solver_state: _SolverState,
        made_jump: Any,
    ) -> tuple[PyTree, PyTree, dict[str, PyTree], _SolverState, RESULTS]:
        """One step from `t0` to `t1`."""
        del solver_state, made_jump
        flat, unravel = ravel_pytree(y0)
        t0 = jnp.asarray(t0)
        h = jnp.asarray(t1) - t0

        def increment(t: Array, y: Array) -> Array:
            control = terms.contr(t0, t1)
            return ravel_pytree(terms.vf_prod(t, unravel(y), args, control))[0]

        ks = _stages(increment, t0, h, flat)
        weights = jnp.concatenate([tableau.B[None, :], tableau.DENSE]).astype(flat.dtype)
        moved, *dense = weights @ ks
        finite = jnp.all(jnp.isfinite(ks))
        # The controller scales the error by the new state, and NaN there would pass through.
        y1 = unravel(jnp.where(finite, flat + moved, flat))
        error = unravel(jnp.where(finite, jnp.abs(ks[-1]), jnp.inf))
        k = jax.tree.map(lambda *rows: jnp.stack(rows), *[unravel(row) for row in dense])
        return y1, error, {"y0": y0, "y1": y1, "k": k}, None, RESULTS.successful


def _stages(
    increment: Callable[[Array, Array], Array],
    t0: Float[Array, ""],
    h: Float[Array, ""],
    y0: Float[Array, " state"],
) -> Float[Array, "8 state"]:
    """The stages k_1..k_8; `increment(t, y)` is h f(t, y)."""
    solve = _factored(increment, t0, y0)
    _, time_slope = jax.jvp(lambda t: increment(t, y0), (t0,), (h.astype(t0.dtype),))
    a, c, nodes, d = (
        jnp.asarray(x, dtype=y0.dtype) for x in (tableau.A, tableau.C, tableau.NODES, tableau.D)
    )

    def stage(ks: Array, row: tuple[Array, ...]) -> tuple[Array, None]:
        i, a_row, c_row, node, d_i = row
        slope = increment(t0 + (node * h).astype(t0.dtype), y0 + a_row @ ks)
        return ks.at[i].set(solve(slope + c_row @ ks + d_i * time_slope)), None

    start = jnp.zeros((tableau.STAGES, *y0.shape), y0.dtype)
    # A loop rather than eight copies, for the sake of compile time.
    ks, _ = lax.scan(stage, start, (jnp.arange(tableau.STAGES), a, c, nodes, d))
    return ks


def _factored(
    increment: Callable[[Array, Array], Array], t0: Array, y0: Array
) -> Callable[[Array], Array]:
    """Factor I / γ - h J once; derivatives of the solves reuse the factors."""
    identity = jnp.eye(y0.shape[0], dtype=y0.dtype)
    matrix = identity / tableau.GAMMA - jax.jacfwd(increment, argnums=1)(t0, y0)
    factors, pivots = jsl.lu_factor(lax.stop_gradient(matrix))
    diagonal = jnp.diagonal(factors)
    usable = jnp.all(jnp.isfinite(factors)) & jnp.all(diagonal != 0)
    # A singular system is replaced before it can put NaN into a gradient; its step is rejected
    # by the NaN that `poison` adds to the result.
    matrix = jnp.where(usable, matrix, identity)
    factors = jnp.where(usable, factors, identity)
    pivots = jnp.where(usable, pivots, jnp.arange(y0.shape[0], dtype=pivots.dtype))
    poison = jnp.where(usable, 0.0, jnp.nan).astype(y0.dtype)

    def solve(b: Array) -> Array:
        x = lax.custom_linear_solve(
            lambda v: matrix @ v,
            b,
            lambda _, rhs: jsl.lu_solve((factors, pivots), rhs),
            lambda _, rhs: jsl.lu_solve((factors, pivots), rhs, trans=1),
        )
        return x + poison

    return solve
