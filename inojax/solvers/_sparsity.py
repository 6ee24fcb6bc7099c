"""Which entries of a Jacobian can be nonzero, found while the vector field is traced."""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Bool, Int

from .._x64 import is_traced

# Primitives through which NaN passes from any input that the output depends on. A choice between
# values (`select_n`, `cond`, loops) is not among them: it could hide the branch not taken.
# fmt: off
_PASSES_NAN = frozenset((
    "abs", "add", "add_any", "asin", "asinh", "atan", "atan2", "atanh", "broadcast_in_dim",
    "cbrt", "concatenate", "convert_element_type", "copy", "cos", "cosh", "cumsum",
    "custom_jvp_call", "div", "dot_general", "dynamic_slice", "erf", "erfc", "exp", "exp2",
    "expm1", "gather", "integer_pow", "jit", "lgamma", "log", "log1p", "logistic", "max", "min",
    "mul", "neg", "pad", "pjit", "pow", "reduce_prod", "reduce_sum", "reshape", "rev", "rsqrt",
    "scatter", "scatter-add", "sin", "sinh", "slice", "split", "sqrt", "square", "squeeze",
    "stack", "stop_gradient", "sub", "tan", "tanh", "transpose", "unstack",
))
# fmt: on


def jacobian_pattern(closed: core.ClosedJaxpr) -> Bool[np.ndarray, "state state"]:
    """Entries of ∂f/∂y that can be nonzero, True where nothing is known.

    Args:
        closed: The traced vector field with inputs t, y and theta.

    Returns:
        Row i, column j: whether derivative i may depend on state j; the diagonal is True.
    """
    pattern = dependence(closed, 1)
    return pattern | np.eye(len(pattern), dtype=bool)


def dependence(closed: core.ClosedJaxpr, argument: int) -> Bool[np.ndarray, "output input"]:
    """Which entries of a traced function's result may depend on which entries of an argument.

    The function is run with one of these at a time set to NaN: what turns NaN depends on it.
    Where a primitive that may swallow a NaN is applied to something made of the argument, or with
    constants that are themselves being traced, everything counts as dependent.

    Args:
        closed: A traced function of scalars and vectors that returns one vector.
        argument: Which of its inputs, a vector.

    Returns:
        Row i, column j: whether entry i of the result may depend on entry j of the argument.
    """
    avals = [var.aval for var in closed.jaxpr.invars]
    (outputs,), (inputs,) = closed.out_avals[0].shape, avals[argument].shape
    made_of_it = [index == argument for index in range(len(avals))]
    if is_traced(closed.consts) or _may_swallow(closed.jaxpr, made_of_it):
        return np.ones((outputs, inputs), dtype=bool)
    rng = np.random.default_rng(0)  # any generic point will do
    probes = rng.uniform(0.5, 1.5, (inputs, inputs))
    np.fill_diagonal(probes, np.nan)
    run = core.jaxpr_as_fun(closed)
    with jax.ensure_compile_time_eval(), jax.debug_nans(False):
        point = [jnp.asarray(rng.uniform(0.5, 1.5, aval.shape), aval.dtype) for aval in avals]
        before, after = point[:argument], point[argument + 1 :]
        columns = jax.vmap(lambda probe: run(*before, probe, *after)[0])(
            jnp.asarray(probes, avals[argument].dtype)
        )
        return np.isnan(np.asarray(columns)).T


def _may_swallow(jaxpr: core.Jaxpr, made_of_it: Sequence[bool]) -> bool:
    """Whether a NaN in some of the inputs may be lost on its way, rather than passed on."""
    reached = {var for var, made in zip(jaxpr.invars, made_of_it, strict=True) if made}
    for equation in jaxpr.eqns:
        made = [isinstance(var, core.Var) and var in reached for var in equation.invars]
        if not any(made):
            continue
        if equation.primitive.name not in _PASSES_NAN or _to_integer(equation):
            return True
        for inner in _nested(equation):
            # Of a call whose inputs are not those of its body, any may be it.
            same = len(inner.invars) == len(made)
            if _may_swallow(inner, made if same else [True] * len(inner.invars)):
                return True
        reached.update(equation.outvars)
    return False


def _to_integer(equation: core.JaxprEqn) -> bool:
    """Whether numbers become whole numbers or truth values, of which none is NaN."""
    if equation.primitive.name != "convert_element_type":
        return False
    parts: Any = equation.invars[0].aval, equation.outvars[0].aval
    before, after = (aval.dtype for aval in parts)
    return bool(jnp.issubdtype(before, jnp.inexact) and not jnp.issubdtype(after, jnp.inexact))


def _nested(equation: core.JaxprEqn) -> Iterator[core.Jaxpr]:
    """The bodies that an equation calls."""
    for param in equation.params.values():
        if isinstance(param, core.ClosedJaxpr):
            yield param.jaxpr
        elif isinstance(param, core.Jaxpr):
            yield param


def color_columns(pattern: Bool[np.ndarray, "state state"]) -> Int[np.ndarray, " state"]:
    """Colors such that two columns of one color share no row (greedy, fullest column first).

    One directional derivative for each color then gives the whole Jacobian: Curtis, Powell and
    Reid, "On the estimation of sparse Jacobian matrices", IMA J. Appl. Math. 13 (1974).
    """
    colors = np.full(pattern.shape[1], -1)
    taken: list[np.ndarray] = []
    for column in np.argsort(-pattern.sum(0), kind="stable"):
        rows = pattern[:, column]
        color = next((c for c, used in enumerate(taken) if not (used & rows).any()), len(taken))
        if color == len(taken):
            taken.append(np.zeros(pattern.shape[0], dtype=bool))
        taken[color] |= rows
        colors[column] = color
    return colors
