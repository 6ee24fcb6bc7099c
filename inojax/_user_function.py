"""Calling what users write: equations, initial states, observables, formulas."""

import inspect
import linecache
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._indices import check_indices
from ._named_vector import NamedVector, UnknownNameError, plain

_HERE = Path(__file__).parent
_LONGEST_LINE = 80
_NUMBERS = jax.Array | np.ndarray | np.generic | int | float | complex
_TIME, _PARAMETERS = ("t", "time"), ("theta", "params", "parameters")

_DECIDES = (
    "decides by a value that is known only while solving (`if`, `while`, `and`, `min`, `max`): "
    "write `jnp.where(condition, a, b)`, `jnp.minimum` or `jnp.maximum` instead"
)
_NUMPY = (
    "gives values to NumPy or SciPy that are known only while solving: write `jnp` for `np`, after "
    "`import jax.numpy as jnp`, as in `jnp.exp(x)`, `jnp.stack([...])` or `jnp.interp(t, xs, ys)`"
)
_NUMBER = (
    "turns a value into a number that is known only while solving (`math.exp`, `float`, `int`, "
    "`.item()`): use `jnp.exp`, `jnp.floor` and the like, which take arrays"
)
_POSITION = (
    "takes a value that is known only while solving as a count or the position in a list: make "
    "the list an array, `jnp.asarray(list)[i]`, and let counts be constants"
)
_SELECTS = (
    "selects entries by a condition that is known only while solving: write "
    "`jnp.where(condition, y, 0.0)`, which keeps the shape"
)
_ASSIGNS = (
    "assigns to entries of an array, which cannot be changed: return a list of the entries, or "
    "write `dy = dy.at[0].set(value)`"
)
_FORMATS = (
    "writes a value into text that is known only while solving: leave it out, or use "
    "`jax.debug.print('{}', value)`"
)
_NAMELESS = (
    "reads by name from an array that has none: within `jax.jit`, `jax.vmap`, `lax.scan` and the "
    "like names are gone, so read them before, as in `k = theta.k`"
)
_PLAIN = (
    "gives `y` or `theta` to a function that takes nothing but JAX arrays: give it "
    "`jnp.asarray(y)` or `jnp.asarray(theta)`"
)
_INDEXES = (
    "takes apart a single number, such as the time, a state `y[0]` or a parameter `theta[0]`, "
    "which has no entries: look at the order of the arguments"
)
_LISTS = (
    "calculates with a list or a tuple, which is no array: write `jnp.stack([...]) * y` for "
    "`[...] * y`"
)
_UNPACKS = "takes apart `y` or `theta` into another number of values than there are"

# The kind of an error, a part of its message, and what is to be done; the first that fits.
_REMEDIES: tuple[tuple[type[Exception], str, str], ...] = (
    (jax.errors.TracerBoolConversionError, "", _DECIDES),
    (jax.errors.TracerArrayConversionError, "", _NUMPY),
    (jax.errors.TracerIntegerConversionError, "", _POSITION),
    (jax.errors.NonConcreteBooleanIndexError, "", _SELECTS),
    (jax.errors.ConcretizationTypeError, "", _NUMBER),
    (TypeError, "Only integer scalar arrays can be converted", _POSITION),
    (TypeError, "JAX arrays are immutable", _ASSIGNS),
    (TypeError, "unsupported format string passed to", _FORMATS),
    (TypeError, "does not support string indexing", _NAMELESS),
    (AttributeError, "Tracer has no attribute", _NAMELESS),
    (IndexError, "array is 0-dimensional", _INDEXES),
    (TypeError, "iteration over a 0-d array", _INDEXES),
    (TypeError, "len() of unsized object", _INDEXES),
    *((TypeError, part, _LISTS) for part in ("'list' and '", "' and 'list'")),
    *((TypeError, part, _LISTS) for part in ("'tuple' and '", "' and 'tuple'")),
    (ValueError, "setting an array element with a sequence", _NUMPY),
    (ValueError, "The truth value of an array", _DECIDES),
)


def called(function: Callable[..., Any], arguments: Sequence[Any], *, what: str, form: str) -> Any:
    """Call a user's function, and tell usual slips in one sentence.

    Args:
        function: What the user wrote.
        arguments: Its arguments; vectors with names are `NamedVector`s.
        what: The argument by which the user gave the function, for errors.
        form: How it must be called, for errors: "(t, y, theta)".

    Returns:
        What the function returns.

    Raises:
        TypeError: If it takes other arguments, or does what cannot be done with traced values.
        IndexError: If it uses a position of a vector that is not there.
    """
    function = _unwrapped(function)
    _check_signature(function, len(arguments), what, form)
    try:
        return function(*arguments)
    except Exception as error:
        named = [each for each in arguments if isinstance(each, NamedVector)]
        if _wants_arrays(error) and not _by_name(function, named):
            return _with_arrays(function, arguments, what)
        if (sentence := _explained(error, named)) is None:
            raise
        raise TypeError(f"`{what}` {sentence}{_place(error)}.") from error


def as_vector(
    result: Any,
    names: Sequence[str],
    dtype: Any,
    *,
    what: str,
    noun: str,
) -> Float[Array, " entry"]:
    """What a user's function returned, as a vector of exactly one value for each name.

    Args:
        result: An array of that shape, or a list or tuple of numbers; a number if there is one
            name.
        names: What the entries are called.
        dtype: Of the vector.
        what: The argument by which the user gave the function, for errors.
        noun: What the entries are, for errors: "states".

    Returns:
        The vector.

    Raises:
        TypeError: If it is no array of real numbers.
        ValueError: If it has another shape; nothing is broadcast.
    """
    each = f"one value for each of its {noun} {', '.join(names)}"
    array = as_array(result, what, each)
    shape = (len(names),)
    if array.shape == () and shape == (1,):
        array = array.reshape(1)
    if array.shape != shape:
        column = array.size == len(names) and array.ndim > 1
        remedy = " Flatten it by `jnp.ravel(...)`." if column else ""
        raise ValueError(
            f"`{what}` must return {each}, shape {shape}; got shape {array.shape}.{remedy}"
        )
    return array if array.dtype == dtype else array.astype(dtype)


def as_array(result: Any, what: str, each: str = "numbers") -> Array:
    """What a user's function returned, as an array.

    Args:
        result: An array, a number, or a list or tuple of numbers.
        what: The argument by which the user gave the function, for errors.
        each: What it must return, for errors.

    Returns:
        The array, of real numbers.

    Raises:
        TypeError: If it is something else.
        ValueError: If entries of a list are no numbers.
    """
    result = plain(result)
    if result is None:
        raise TypeError(f"`{what}` must return {each}; got None. Does it end with `return`?")
    if isinstance(result, list | tuple):
        array = _stacked(result, what, each)
    elif isinstance(result, _NUMBERS):
        array = jnp.asarray(result)
    else:
        raise TypeError(
            f"`{what}` must return {each}, as an array or a list in this order; got "
            f"{type(result).__name__}."
        )
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(
            f"`{what}` must return real numbers; got {array.dtype}. Take real and imaginary parts "
            "apart, each a number of its own."
        )
    return array


def _stacked(result: Sequence[Any], what: str, each: str) -> Array:
    if len(result) == 0:
        raise ValueError(f"`{what}` must return {each}; got an empty {type(result).__name__}.")
    entries = []
    for number, entry in enumerate(map(plain, result)):
        if not isinstance(entry, _NUMBERS):
            raise TypeError(
                f"`{what}` must return {each}; entry {number} is {type(entry).__name__}."
            )
        if np.shape(entry) != ():
            comma = len(result) == 1 and isinstance(result, tuple)
            hint = " A comma at the end makes a tuple." if comma else ""
            raise ValueError(
                f"`{what}` must return {each}, each a number; entry {number} has shape "
                f"{np.shape(entry)}. Take a number of it, as `y[0]` is.{hint}"
            )
        entries.append(jnp.asarray(entry))
    return jnp.stack(entries)


def _unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Without `jax.jit` around it, in which names would be lost: it is compiled anyway."""
    while hasattr(function, "lower") and hasattr(function, "__wrapped__"):
        function = function.__wrapped__  # pyright: ignore[reportFunctionMemberAccess]
    return function


def _check_signature(function: Callable[..., Any], count: int, what: str, form: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in functions have none
        return
    try:
        signature.bind(*range(count))
    except TypeError as error:
        raise TypeError(
            f"`{what}` must take the arguments `{form}`; got a function of `{signature}`. Take all "
            "of them, in this order, also those that you do not need; parameters come together, "
            "to be read by name or position: `theta.k` or `theta[0]`."
        ) from error
    names = list(signature.parameters)
    if form.startswith("(t, y") and names[1:2] and names[1] in _TIME and names[0] not in _TIME:
        raise TypeError(
            f"`{what}` must take the arguments `{form}`, the time first; got a function of "
            f"`{signature}`. Exchange them."
        )
    first, second = [*names[form.startswith("(t, y") :], "", ""][:2]
    if "y, theta" in form and first in _PARAMETERS and second not in _PARAMETERS:
        raise TypeError(
            f"`{what}` must take the arguments `{form}`, the state before the parameters; got a "
            f"function of `{signature}`. Exchange them."
        )


def _wants_arrays(error: Exception) -> bool:
    """Whether an error says that something takes arrays, and nothing that stands for one."""
    if type(error).__module__.split(".")[0] in ("jaxtyping", "beartype"):
        return True
    return any(word in str(error) for word in ("__jax_array__", NamedVector.__name__))


def _by_name(function: Callable[..., Any], named: Sequence[NamedVector]) -> bool:
    """Whether a function has read by name, or may read what arrays have an attribute for."""
    if any(vector._used for vector in named):
        return True
    names = {name for vector in named for name in vector._names or ()}
    code = getattr(function, "__code__", None)
    shared = {name for name in names if hasattr(jax.Array, name)}
    return bool(shared) and (code is None or bool(shared & _attributes(code)))


def _attributes(code: Any) -> set[str]:
    inner = (each for each in code.co_consts if inspect.iscode(each))
    return set(code.co_names).union(*map(_attributes, inner))


def _with_arrays(function: Callable[..., Any], arguments: Sequence[Any], what: str) -> Any:
    """The same with plain arrays, and another way to find positions that are not there."""
    arrays = [plain(each) for each in arguments]
    if all(isinstance(each, jax.Array | np.ndarray | float) for each in arrays):
        try:
            check_indices(jax.make_jaxpr(function)(*arrays), what)
        except IndexError:
            raise
        except Exception as error:
            if (sentence := _explained(error, [])) is None:
                raise
            raise TypeError(f"`{what}` {sentence}{_place(error)}.") from error
    return function(*arrays)


def _explained(error: Exception, named: Sequence[NamedVector]) -> str | None:
    """What the function does, and what to write instead; None where that is not known."""
    if isinstance(error, UnknownNameError):
        return None
    if _wants_arrays(error):
        return _PLAIN
    message = str(error)
    if isinstance(error, ValueError) and "values to unpack" in message and named:
        held = " and ".join(vector._described for vector in named)
        return f"{_UNPACKS}: {message}, but {held}"
    for kind, part, sentence in _REMEDIES:
        if isinstance(error, kind) and part in message:
            return sentence
    return None


def _place(error: Exception) -> str:
    """The user's line that an error comes from."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        foreign = "site-packages" in path.parts or path.is_relative_to(_HERE)
        line = linecache.getline(frame.filename, frame.lineno or 0).strip()
        if not foreign and line:
            short = line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."
            return f" (line {frame.lineno}: `{short}`)"
    return ""
