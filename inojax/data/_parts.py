"""Parts of a problem's identity: functions by their traced program, objects by their numbers."""

import dataclasses
import enum
import functools
import hashlib
import inspect
import re
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend import core

from ._program import canonical

_PLAIN = (bool, int, float, str, np.ndarray, np.generic, jax.Array)
_FEW = 64  # numbers of an array that are written down

# A JSON object; one that describes a function has the entry `program`.
Part = dict[str, Any]


def part_of(function: Callable[..., Any], *rows: np.ndarray) -> Part:
    """Describe a function of arrays by its program, and by its values at some places.

    Call it with 64-bit floats switched on.

    Args:
        function: What to trace; values that it takes from elsewhere are part of its program.
        rows: Its arguments at each of the places, along a leading axis.

    Returns:
        The program in canonical form and `values`, a row of numbers for each place.
    """
    shapes = [jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for x in rows]
    # A new function each time: JAX would hand out the trace of one that it knows, although what
    # it reads may have changed.
    closed = jax.make_jaxpr(lambda *one: function(*one))(*shapes)  # noqa: PLW0108
    run = jax.jit(core.jaxpr_as_fun(closed))
    values = []
    for one in zip(*rows, strict=True):
        found = [np.asarray(x, np.float64).ravel() for x in run(*one)]
        values.append(listed(np.concatenate([np.zeros(0), *found])))
    return {**canonical(closed), "values": values}


def listed(values: Any) -> Any:
    """Nested lists of floats; what is not finite becomes a word, which strict JSON allows."""
    array = np.asarray(values, np.float64)
    if array.ndim:
        return [listed(value) for value in array]
    return float(array) if np.isfinite(array) else str(float(array))


def array_digest(values: np.ndarray) -> str:
    """SHA-256 of an array's float64 content."""
    return hashlib.sha256(np.ascontiguousarray(values, "<f8").tobytes()).hexdigest()


def described(value: Any) -> Any:
    """Describe any object by what it holds, all numbers included, as JSON.

    Args:
        value: Numbers, text, arrays, containers, dataclasses, functions or other objects.

    Returns:
        The same in every process for objects that hold the same. Functions are described by their
        code and what they enclose, since nobody says what to call them with.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | np.floating):
        return listed(value)
    if isinstance(value, enum.Enum):
        return str(value)
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        if array.size <= _FEW and array.dtype.kind == "f":
            return listed(array)
        digest = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
        return f"array of shape {array.shape} {array.dtype} {digest[:32]}"
    if isinstance(value, Mapping):
        return {str(key): described(one) for key, one in sorted(value.items(), key=str)}
    if isinstance(value, tuple | list):
        return [described(one) for one in value]
    return _described_object(value)


def _described_object(value: Any) -> Any:
    if isinstance(value, functools.partial):
        return ["partial", *map(described, (value.func, value.args, value.keywords))]
    if isinstance(value, types.MethodType):
        return ["method", described(value.__func__), described(value.__self__)]
    if isinstance(value, types.FunctionType):
        return _described_code(value)
    if isinstance(value, type):
        return value.__qualname__
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        # What is derived from names of parameters, which are compared themselves.
        held = {name: getattr(value, name, None) for name in names if name != "_names"}
        return {"kind": type(value).__name__, **described(held)}
    leaves, structure = jax.tree.flatten(value)
    if not jax.tree_util.all_leaves([value]):
        return [type(value).__name__, stable(structure), described(leaves)]
    return stable(value)


def _described_code(function: types.FunctionType) -> Any:
    code = function.__code__
    enclosed = [cell.cell_contents for cell in function.__closure__ or ()]
    constants = [c for c in code.co_consts if not isinstance(c, types.CodeType | str)]
    held = [constants, function.__defaults__, function.__kwdefaults__, enclosed]
    return ["function", hashlib.sha256(code.co_code).hexdigest()[:32], *map(described, held)]


def stable(value: Any) -> str:
    """The text of an object without its place in memory."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def is_plain(value: Any) -> bool:
    """Whether an object is one of this package and holds nothing but numbers and the like."""
    if value is None or isinstance(value, bool | int | float | str | enum.Enum | np.ndarray):
        return True
    if isinstance(value, tuple | list):
        return all(map(is_plain, value))
    if not (dataclasses.is_dataclass(value) and written_by("inojax", value)):
        return False
    return all(is_plain(getattr(value, f.name, None)) for f in dataclasses.fields(value))


def prior_text(prior: Any) -> str:
    """A prior as one writes it, with all its numbers.

    Args:
        prior: A NumPyro distribution, or a part of one.

    Returns:
        Its class with the arguments it was made with, or, where they are not kept, with all that
        it holds.
    """
    if isinstance(prior, tuple | list):
        return f"[{', '.join(map(prior_text, prior))}]"
    if np.ndim(prior) == 0 and isinstance(prior, float | np.ndarray | np.generic | jax.Array):
        # As far as they are typed: a bound that is computed in another way is the same.
        return repr(float(f"{float(prior):.13g}"))
    if prior is None or isinstance(prior, bool | int | str):
        return repr(prior)
    if isinstance(prior, np.ndarray | jax.Array):
        return str(described(prior))
    if not _is_numpyro(prior):
        return str(described(prior))
    names = [n for n in inspect.signature(type(prior)).parameters if n != "validate_args"]
    held = {name: vars(prior).get(name) for name in names}
    if None in held.values():
        held = _public(prior)
    return f"{type(prior).__name__}({', '.join(f'{n}={prior_text(v)}' for n, v in held.items())})"


def is_known_prior(prior: Any) -> bool:
    """Whether a prior with all its parts is NumPyro's, so that its numbers say everything."""
    if isinstance(prior, tuple | list):
        return all(map(is_known_prior, prior))
    if prior is None or isinstance(
        prior, bool | int | float | str | np.ndarray | np.generic | jax.Array
    ):
        return True
    return _is_numpyro(prior) and all(map(is_known_prior, _public(prior).values()))


def _public(value: Any) -> dict[str, Any]:
    """What an object holds, with the distributions that mixtures keep for themselves."""
    return {
        name: one
        for name, one in sorted(vars(value).items())
        if not name.startswith("_") or _holds_numpyro(one)
    }


def _holds_numpyro(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return len(value) > 0 and all(map(_holds_numpyro, value))
    return _is_numpyro(value)


def _is_numpyro(value: Any) -> bool:
    return written_by("numpyro", value)


def written_by(module: str, value: Any) -> bool:
    """Whether the class of an object belongs to a package."""
    return type(value).__module__.split(".")[0] == module
