"""Positions beyond the end of an array, which JAX moves to the nearest entry without a word."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jaxtyping import Array

from ._x64 import is_traced

# Larger arrays are no positions.
_MOST_ENTRIES = 4096


def check_indices(closed: core.ClosedJaxpr, what: str) -> None:
    """Raise if a traced function reads or writes at a known position that is not there.

    Positions that follow from constants are known; what depends on an argument is not. Functions
    within the function are looked through, and so are branches and bodies of loops.

    Args:
        closed: A traced function.
        what: The argument that users gave it as, for the error.

    Raises:
        IndexError: If there is such a position.
    """
    with jax.ensure_compile_time_eval(), jax.debug_nans(False):
        _follow(closed.jaxpr, closed.consts, [None] * len(closed.jaxpr.invars), what)


def _follow(jaxpr: core.Jaxpr, consts: Any, inputs: list[Any], what: str) -> list[Any]:
    """Known values of the results; None where a value is not known."""
    known: dict[Any, Any] = {}

    def put(variables: Any, values: Any) -> None:
        for variable, value in zip(variables, values, strict=True):
            if value is not None and not is_traced(value):
                known[variable] = value

    def get(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else known.get(atom)

    put(jaxpr.constvars, consts)
    put(jaxpr.invars, inputs)
    for equation in jaxpr.eqns:
        values = [get(atom) for atom in equation.invars]
        _check(equation, values, what)
        found = _within(equation, values, what)
        if found is None:
            found = _evaluated(equation, values)
        put(equation.outvars, found)
    return [get(atom) for atom in jaxpr.outvars]


def _within(equation: Any, values: list[Any], what: str) -> list[Any] | None:
    """Look into functions that an equation calls; their results where it calls just one, once."""
    name = equation.primitive.name
    nothing = [None] * len(equation.outvars)
    inner = list(_jaxprs(equation.params))
    if not inner:
        return None
    if name in ("scan", "while", "cond"):
        for jaxpr, consts in inner:
            _follow(jaxpr, consts, _carried(equation, jaxpr, values), what)
        return nothing
    results = nothing
    for jaxpr, consts in inner:
        if len(jaxpr.invars) != len(values):
            _follow(jaxpr, consts, [None] * len(jaxpr.invars), what)
            continue
        results = _follow(jaxpr, consts, values, what)
    return results if len(inner) == 1 and len(results) == len(nothing) else nothing


def _carried(equation: Any, jaxpr: core.Jaxpr, values: list[Any]) -> list[Any]:
    """What is known within branches and bodies: what all branches and all rounds see alike."""
    if equation.primitive.name == "cond":
        return values[1:]
    if equation.primitive.name != "scan":
        return [None] * len(jaxpr.invars)
    number, _ = scan_counts(equation)
    return values[:number] + [None] * (len(jaxpr.invars) - number)


def scan_counts(equation: core.JaxprEqn) -> tuple[int, int]:
    """How many operands of a `lax.scan` are constants, and how many are carried along.

    Counted by shapes, since the names of these settings change between versions of JAX: what a loop
    runs over or stacks has one axis more outside of its body than inside.

    Args:
        equation: The equation of the loop.

    Returns:
        Both numbers; operands come in this order, then those that the loop runs over.
    """
    body = equation.params["jaxpr"]
    body = body.jaxpr if isinstance(body, core.ClosedJaxpr) else body
    same = [_rank(a) == _rank(b) for a, b in zip(equation.invars, body.invars, strict=True)]
    kept = [_rank(a) == _rank(b) for a, b in zip(equation.outvars, body.outvars, strict=True)]
    return sum(same) - sum(kept), sum(kept)


def _rank(atom: Any) -> int:
    return len(getattr(atom.aval, "shape", ()))


def _jaxprs(params: dict[str, Any]) -> Iterator[tuple[core.Jaxpr, Any]]:
    for param in params.values():
        for each in param if isinstance(param, tuple | list) else (param,):
            if isinstance(each, core.ClosedJaxpr):
                yield each.jaxpr, each.consts
            elif isinstance(each, core.Jaxpr) and not each.constvars:
                yield each, ()


def _evaluated(equation: Any, values: list[Any]) -> list[Any]:
    nothing = [None] * len(equation.outvars)
    sizes = [np.prod(variable.aval.shape) for variable in equation.outvars]
    if any(value is None for value in values) or max(sizes, default=0) > _MOST_ENTRIES:
        return nothing
    if equation.effects:
        return nothing
    # What cannot be evaluated by itself stays unknown, whatever the reason.
    with contextlib.suppress(Exception):
        results = equation.primitive.bind(*values, **equation.params)
        return list(results) if equation.primitive.multiple_results else [results]
    return nothing


def _check(equation: Any, values: list[Any], what: str) -> None:
    for axis, size, first, last in _places(equation, values):
        if size and (first < 0 or last >= size):
            shape = equation.invars[0].aval.shape
            # A negative position has had the size added to it.
            asked = first - size if first < 0 else last
            array = f"an array of shape {shape}" if len(shape) == 1 else f"axis {axis} of {shape}"
            raise IndexError(
                f"`{what}` uses position {asked} of {array}, where positions are 0 to {size - 1}. "
                f"JAX would {_instead(equation)} without a word."
            )


def _instead(equation: Any) -> str:
    if equation.primitive.name.startswith("scatter"):
        return "leave it out"
    filled = equation.params.get("mode") == jax.lax.GatherScatterMode.FILL_OR_DROP
    return "give NaN" if filled else "take the nearest one"


def _meant(equation: Any) -> bool:
    """Whether a user has said what to do beyond the end, by `mode` or `fill_value`."""
    mode, fill = equation.params["mode"], equation.params["fill_value"]
    if mode == jax.lax.GatherScatterMode.FILL_OR_DROP:
        return fill is not None and not np.isnan(fill)
    return mode == jax.lax.GatherScatterMode.CLIP


def _places(equation: Any, values: list[Any]) -> Iterator[tuple[int, int, int, int]]:
    """Axis, its size, and the first and the last position on it, wherever these are known."""
    name, params = equation.primitive.name, equation.params
    if not equation.invars:
        return
    shape = equation.invars[0].aval.shape
    if name in ("dynamic_slice", "dynamic_update_slice"):
        skipped = 1 if name == "dynamic_slice" else 2
        extent = params["slice_sizes"] if skipped == 1 else equation.invars[1].aval.shape
        for axis, start in enumerate(values[skipped : skipped + len(shape)]):
            if start is not None:
                yield axis, shape[axis], int(start), int(start) + extent[axis] - 1
    elif name == "gather" and values[1] is not None and not _meant(equation):
        numbers, extent = params["dimension_numbers"], params["slice_sizes"]
        yield from _ranges(values[1], numbers.start_index_map, shape, extent)
    elif name.startswith("scatter") and values[1] is not None:
        numbers = params["dimension_numbers"]
        ones = [1] * len(shape)  # windows that are wider say no more about their start
        yield from _ranges(values[1], numbers.scatter_dims_to_operand_dims, shape, ones)


def _ranges(indices: Array, axes: Any, shape: Any, extent: Any) -> Iterator[Any]:
    columns = np.asarray(indices).reshape(-1, len(axes))
    for axis, column in zip(axes, columns.T, strict=True):
        if column.size:
            yield axis, shape[axis], int(column.min()), int(column.max()) + extent[axis] - 1
