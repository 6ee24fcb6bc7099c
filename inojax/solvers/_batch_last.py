"""Vectorizing a per-trajectory function with the batch as the last axis of every array."""

import copy
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, Float

from ._interpret import alone, interpret, opened
from ._linalg import Elimination, plan_elimination
from ._sparsity import jacobian_pattern

# `f(t, y, theta)`.
VectorField = Callable[..., Float[Array, " state"]]

# A value goes with a flag: does it carry the batch (last)?
_Value = tuple[Any, bool]


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

    def __init__(self, program: core.ClosedJaxpr) -> None:
        """Take a vector field from `trace_field`; inputs behind its three are given by `given`."""
        self._program = program
        self.elimination = plan_elimination(jacobian_pattern(program))
        # A step evaluates the field in many places, and each would batch it equation by equation
        # again: a function that is compiled within another one is traced once.
        self._evaluate = jax.jit(self._evaluate_by_equation, inline=True)
        self._moved: Callable[[Array], Array] = lambda t: t
        self._further: tuple[Array, ...] = ()
        jaxpr = program.jaxpr
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
        return self._evaluate(self._program.consts, self._moved(t), y, theta, *self._further)

    def at_times(self, moved: Callable[[Array], Array]) -> "BatchLast":
        """The same vector field, evaluated at other times than it is asked for."""
        field = copy.copy(self)
        field._moved = moved
        return field

    def given(self, *further: Float[Array, "number batch"]) -> "BatchLast":
        """The same vector field with its further inputs."""
        field = copy.copy(self)
        field._further = further
        return field

    def _evaluate_by_equation(self, consts: list[Any], *inputs: Array) -> Array:
        values = [(x, True) for x in inputs]
        ((out, batched),) = _evaluate(self._program.jaxpr, consts, values)
        return out if batched else jnp.broadcast_to(out[:, None], inputs[1].shape)


def trace_field(
    vector_field: VectorField, n_state: int, n_parameter: int, *further: int
) -> core.ClosedJaxpr:
    """Trace a vector field in float64.

    Args:
        vector_field: `f(t, y, theta)` of one trajectory.
        n_state: Length of `y`.
        n_parameter: Length of `theta`.
        further: Lengths of further inputs, if it has some.

    Returns:
        A program of three inputs, or more, and one output.

    Raises:
        ValueError: If it does not return one array like the state.
    """
    scalar = jax.ShapeDtypeStruct((), jnp.float64)
    state = jax.ShapeDtypeStruct((n_state,), jnp.float64)
    theta = jax.ShapeDtypeStruct((n_parameter,), jnp.float64)
    more = [jax.ShapeDtypeStruct((size,), jnp.float64) for size in further]
    program = jax.make_jaxpr(vector_field)(scalar, state, theta, *more)
    shapes = [aval.shape for aval in program.out_avals]
    if shapes != [(n_state,)]:
        raise ValueError(
            f"`vector_field` must return one array of shape ({n_state},), like the state, but "
            f"returned {shapes}. Stack the derivatives with `jnp.stack([...])`."
        )
    return program


def _evaluate(jaxpr: core.Jaxpr, consts: list[Any], inputs: list[_Value]) -> list[_Value]:
    unbatched = [(const, False) for const in consts]
    return interpret(jaxpr, unbatched, inputs, _apply, lambda number: (number, False))


def _apply(equation: Any, operands: list[_Value], debug_info: Any) -> list[_Value]:
    name = equation.primitive.name
    if name in ("jit", "pjit"):
        return _evaluate(*opened(equation.params["jaxpr"]), operands)
    if name in _JOINS and any(flag for _, flag in operands):
        return [(_JOINS[name](_spread(operands), equation.params), True)]
    run, taken = alone(equation, operands, debug_info)
    batched = any(flag for _, flag in taken)
    if batched:
        axes = tuple(-1 if flag else None for _, flag in taken)
        run = jax.vmap(run, in_axes=axes, out_axes=-1)
    return [(out, batched) for out in run(*(value for value, _ in taken))]


_JOINS: dict[str, Callable[[list[Array], dict[str, Any]], Array]] = {
    "concatenate": lambda values, params: jnp.concatenate(values, params["dimension"]),
    "stack": lambda values, params: jnp.stack(values, params["axis"]),
}


def _spread(operands: list[_Value]) -> list[Array]:
    size = next(value.shape[-1] for value, flag in operands if flag)
    # Numbers in a program are Python's own.
    arrays = [(jnp.asarray(value), flag) for value, flag in operands]
    return [
        value if flag else jnp.broadcast_to(value[..., None], (*value.shape, size))
        for value, flag in arrays
    ]
