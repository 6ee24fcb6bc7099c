"""Vectorizing a per-trajectory function with the batch as the last axis of every array."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, Float

from ._linalg import Elimination, plan_elimination
from ._sparsity import jacobian_pattern

VectorField = Callable[[Float[Array, ""], Float[Array, " state"], Any], Float[Array, " state"]]


class BatchLast:
    """A vector field of one trajectory, evaluated for a batch that is the last axis.

    `jax.vmap` alone may move the batch to the front where values are joined (the batching rule of
    `concatenate` does), and the vector field then pays a transposition at each call. Here each
    primitive is batched by itself, with the batch last before and after.

    Attributes:
        depends_on_time: Whether the vector field uses its argument `t`.
        elimination: How to solve linear systems with its Jacobian.
    """

    depends_on_time: bool
    elimination: Elimination

    def __init__(self, vector_field: VectorField, n_state: int, n_parameter: int) -> None:
        """Trace `vector_field` once, in float64."""
        scalar = jax.ShapeDtypeStruct((), jnp.float64)
        state = jax.ShapeDtypeStruct((n_state,), jnp.float64)
        theta = jax.ShapeDtypeStruct((n_parameter,), jnp.float64)
        self._closed = jax.make_jaxpr(vector_field)(scalar, state, theta)
        _check_output(self._closed.out_avals, n_state)
        self.elimination = plan_elimination(jacobian_pattern(self._closed))
        # A step evaluates the field in many places, and each would batch it equation by equation
        # again: a function that is compiled within another one is traced once.
        self._evaluate = jax.jit(self._evaluate_by_equation, inline=True)
        jaxpr = self._closed.jaxpr
        time = jaxpr.invars[0]
        self.depends_on_time = any(
            time is variable for equation in jaxpr.eqns for variable in equation.invars
        )

    def __call__(
        self,
        t: Float[Array, " batch"],
        y: Float[Array, "state batch"],
        theta: Float[Array, "parameter batch"],
    ) -> Float[Array, "state batch"]:
        """The time derivative of each trajectory."""
        return self._evaluate(self._closed.consts, t, y, theta)

    def _evaluate_by_equation(self, consts: list[Any], t: Array, y: Array, theta: Array) -> Array:
        values = [(x, True) for x in (t, y, theta)]
        ((out, batched),) = _evaluate(self._closed.jaxpr, consts, values)
        return out if batched else jnp.broadcast_to(out[:, None], y.shape)


def _check_output(avals: list[Any], n_state: int) -> None:
    shapes = [aval.shape for aval in avals]
    if shapes != [(n_state,)]:
        raise ValueError(
            f"`vector_field` must return one array of shape ({n_state},), like the state, but "
            f"returned {shapes}. Stack the derivatives with `jnp.stack([...])`."
        )


def _evaluate(
    jaxpr: core.Jaxpr, consts: list[Any], inputs: list[tuple[Any, bool]]
) -> list[tuple[Any, bool]]:
    """Interpret `jaxpr`; each value goes with a flag: does it carry the batch (last)?"""
    environment: dict[Any, tuple[Any, bool]] = {}
    environment.update(zip(jaxpr.constvars, [(c, False) for c in consts], strict=True))
    environment.update(zip(jaxpr.invars, inputs, strict=True))

    for equation in jaxpr.eqns:
        results = _apply(equation, environment, jaxpr.debug_info)
        environment.update(zip(equation.outvars, results, strict=True))
    return [_read(atom, environment) for atom in jaxpr.outvars]


def _read(atom: Any, environment: dict[Any, tuple[Any, bool]]) -> tuple[Any, bool]:
    return (atom.val, False) if isinstance(atom, core.Literal) else environment[atom]


def _apply(
    equation: Any, environment: dict[Any, tuple[Any, bool]], debug_info: Any
) -> list[tuple[Any, bool]]:
    operands = [_read(atom, environment) for atom in equation.invars]
    if equation.primitive.name in ("jit", "pjit"):
        inner = equation.params["jaxpr"]
        return _evaluate(inner.jaxpr, inner.consts, operands)
    if equation.primitive.name in _JOINS and any(flag for _, flag in operands):
        return [(_JOINS[equation.primitive.name](_spread(operands), equation.params), True)]
    variables = list(dict.fromkeys(v for v in equation.invars if not isinstance(v, core.Literal)))
    values, flags = [], []
    for variable in variables:
        value, flag = environment[variable]
        values.append(value)
        flags.append(flag)
    # A jaxpr of one equation: running it needs no knowledge of the primitive's parameters,
    # whose conventions change between JAX versions.
    single = core.Jaxpr(
        (), variables, equation.outvars, [equation], equation.effects, debug_info=debug_info
    )
    run = core.jaxpr_as_fun(core.ClosedJaxpr(single, ()))
    if any(flags):
        axes = tuple(-1 if flag else None for flag in flags)
        run = jax.vmap(run, in_axes=axes, out_axes=-1)
    return [(out, any(flags)) for out in run(*values)]


_JOINS: dict[str, Callable[[list[Array], dict[str, Any]], Array]] = {
    "concatenate": lambda values, params: jnp.concatenate(values, params["dimension"]),
    "stack": lambda values, params: jnp.stack(values, params["axis"]),
}


def _spread(operands: list[tuple[Any, bool]]) -> list[Array]:
    size = next(value.shape[-1] for value, flag in operands if flag)
    return [
        value if flag else jnp.broadcast_to(value[..., None], (*value.shape, size))
        for value, flag in operands
    ]
