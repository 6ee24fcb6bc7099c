"""A vector whose entries have names as well as positions."""

import difflib
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ._x64 import is_traced

# Attributes of arrays that JAX asks for as well as users.
_ASKED_FOR = "shape", "dtype", "ndim", "size"


class UnknownNameError(KeyError, AttributeError):
    """A name that is not there."""

    def __str__(self) -> str:
        return str(self.args[0])  # a KeyError would put its message in quotation marks


def position_of(name: str, names: Sequence[str], what: str) -> int:
    """Where a name stands among others.

    Args:
        name: The name.
        names: All names.
        what: What they are names of, for the error: "the parameters".

    Returns:
        Its position.

    Raises:
        UnknownNameError: If it is not there; names that are like it are proposed.
    """
    if name in names:
        return list(names).index(name)
    raise UnknownNameError(
        f"{name!r} is not among {what}: {', '.join(names)}.{_meant(name, names)}"
    )


def _meant(name: str, names: Sequence[str]) -> str:
    by_lower = {other.lower(): other for other in names}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" Did you mean {by_lower[close[0]]!r}?" if close else ""


class NamedVector:
    """A vector whose entries have names: `theta[0]`, `theta["k"]` and `theta.k` are the same.

    Equations, observables and formulas get their parameters and states as these. In all else it
    is the JAX array that it holds: slices, sums, products, `jnp` functions and transformations
    give arrays as those of the array would, and `jnp.asarray(theta)` is the array itself.

    Three things are stricter. A position beyond the end is an `IndexError`, also in slices, where
    JAX takes the nearest entry without a word. A name wins over an attribute of arrays, so that
    `theta.T` is a temperature of that name and not a transpose; for an entry called `shape`,
    `size`, `dtype` or `ndim`, which JAX asks for too, only `theta["shape"]` serves. And it cannot
    be assigned to.
    """

    # Names of this class win over those of entries: there must be few of them.
    __slots__ = ("_argument", "_array", "_names", "_noun", "_used")

    _argument: str
    _array: Array
    _names: tuple[str, ...] | None
    _noun: str
    _used: list[str]

    # NumPy then leaves `array * theta` to us.
    __array_priority__ = 1000
    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __init__(
        self, array: Array, names: Sequence[str] | None, *, argument: str, noun: str
    ) -> None:
        """Give names to the entries of a vector.

        Args:
            array: A vector, traced or not.
            names: A name for each entry; None where they are not known.
            argument: What its users call it, for errors: "theta".
            noun: What its entries are, for errors: "parameters".
        """
        if np.ndim(array) != 1 or (names is not None and len(names) != np.shape(array)[0]):
            raise ValueError(
                f"`{argument}` must be a vector with one value for each of its names, {names}; got "
                f"shape {np.shape(array)}."
            )
        own = {
            "_array": array,
            "_names": None if names is None else tuple(names),
            "_argument": argument,
            "_noun": noun,
            "_used": [],
        }
        for name, value in own.items():
            object.__setattr__(self, name, value)

    @property
    def shape(self) -> tuple[int, ...]:
        """As of the array."""
        return self._of_array("shape")

    @property
    def dtype(self) -> Any:
        """As of the array."""
        return self._of_array("dtype")

    @property
    def ndim(self) -> int:
        """As of the array."""
        return self._of_array("ndim")

    @property
    def size(self) -> int:
        """As of the array."""
        return self._of_array("size")

    def _of_array(self, name: str) -> Any:
        """An attribute that is not to be confused with an entry of its name."""
        if self._names is not None and name in self._names:
            raise UnknownNameError(
                f"`{self._argument}.{name}` could be the array's {name} as well as the entry of "
                f'that name: write `{self._argument}["{name}"]` or `len({self._argument})`.'
            )
        return getattr(self._array, name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _ASKED_FOR:
            return self._of_array(name)  # Python comes here when the property has raised
        if self._names is not None and name in self._names:
            return self._named(name)
        if name == "at":
            return _At(self)
        if hasattr(self._array, name):
            return getattr(self._array, name)
        return self._named(name)

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError(f"`{self._argument}` must not be changed; got `{self._argument}.{name} =`.")

    def __setitem__(self, index: Any, value: object) -> None:
        raise TypeError(
            f"`{self._argument}` must not be changed; got `{self._argument}[{index!r}] =`. Return "
            f"new values, or write `new = {self._argument}.at[{index!r}].set(value)`."
        )

    def __getitem__(self, index: Any) -> Array:
        return self._array[self._positions(index)]

    def __iter__(self) -> Iterator[Array]:
        return iter(self._array)

    def __len__(self) -> int:
        return len(self._array)

    def __contains__(self, value: object) -> bool:
        if isinstance(value, str):
            return self._names is not None and value in self._names
        return value in self._array

    def __repr__(self) -> str:
        entries = self._noun if self._names is None else ", ".join(self._names)
        return f"{type(self).__name__}({self._argument}: {entries})"

    def __jax_array__(self) -> Array:
        return self._array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._array, dtype=dtype, copy=copy)

    @property
    def _described(self) -> str:
        """What it holds, for errors."""
        names = "" if self._names is None else f": {', '.join(self._names)}"
        return f"`{self._argument}` holds {len(self)} {self._noun}{names}"

    @property
    def _what(self) -> str:
        return f"the {self._noun} of `{self._argument}`"

    def _named(self, name: str) -> Array:
        if self._names is None:
            raise UnknownNameError(
                f"`{self._argument}` knows no names here, where the model belongs to no problem "
                f"yet, so {name!r} cannot be read. Use the `model` of an `InverseProblem` made "
                f"with it, or read by position, `{self._argument}[0]`."
            )
        self._used.append(name)
        return self._array[position_of(name, self._names, self._what)]

    def _positions(self, index: Any) -> Any:
        """An index of the array, after a look at what is known of it."""
        if type(index) is int and 0 <= index < len(self):  # nearly all of them
            return index
        if isinstance(index, str):
            if self._names is None or index not in self._names:
                self._named(index)  # which raises
            assert self._names is not None
            self._used.append(index)
            return self._names.index(index)
        if isinstance(index, list):
            if index and all(isinstance(each, str) for each in index):
                return np.array([self._positions(each) for each in index])
            index = jnp.stack([*map(jnp.asarray, index)]) if is_traced(index) else np.array(index)
        for each in index if isinstance(index, tuple) else (index,):
            self._check(each)
        return index

    def _check(self, index: Any) -> None:
        """Refuse a position beyond either end."""
        size = len(self)
        if is_traced(index) or index is None or index is Ellipsis or isinstance(index, bool):
            return
        if isinstance(index, slice):
            ends = [end for end in (index.start, index.stop) if isinstance(end, int | np.integer)]
            beyond = [end for end in ends if not -size <= end <= size]
        else:
            values = np.asarray(index)
            if values.dtype.kind not in "iu":
                return
            beyond = values[(values < -size) | (values >= size)].ravel().tolist()
        if beyond:
            entries = "" if self._names is None else f" {', '.join(self._names)}"
            raise IndexError(
                f"`{self._argument}[{_written(index)}]` goes beyond the {size} {self._noun}"
                f"{entries}: positions are 0 to {size - 1}."
            )


def _written(index: Any) -> str:
    if not isinstance(index, slice):
        return str(np.asarray(index).tolist())
    parts = (index.start, index.stop) + (() if index.step is None else (index.step,))
    return ":".join("" if part is None else str(part) for part in parts)


class _At:
    """Updates that give a new array, at positions that are there."""

    def __init__(self, vector: NamedVector) -> None:
        self._vector = vector

    def __getitem__(self, index: Any) -> Any:
        return self._vector._array.at[self._vector._positions(index)]


def plain(value: Any) -> Any:
    """The array of a `NamedVector`; anything else as it is."""
    return value._array if isinstance(value, NamedVector) else value


def _binary(function: Callable[[Any, Any], Any], *, swapped: bool) -> Callable[..., Any]:
    def method(self: NamedVector, other: Any) -> Any:
        first, second = plain(self), plain(other)
        return function(second, first) if swapped else function(first, second)

    return method


def _unary(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: NamedVector, *rest: Any) -> Any:
        return function(plain(self), *rest)

    return method


_ARITHMETIC = "add", "sub", "mul", "truediv", "floordiv", "mod", "divmod", "pow", "matmul"
_LOGIC = "and_", "or_", "xor", "lshift", "rshift"
for _name in _ARITHMETIC + _LOGIC:
    _function = divmod if _name == "divmod" else getattr(operator, _name)
    _stem = _name.rstrip("_")
    setattr(NamedVector, f"__{_stem}__", _binary(_function, swapped=False))
    setattr(NamedVector, f"__r{_stem}__", _binary(_function, swapped=True))
for _name in ("eq", "ne", "lt", "le", "gt", "ge"):
    setattr(NamedVector, f"__{_name}__", _binary(getattr(operator, _name), swapped=False))
for _name in ("neg", "pos", "invert"):
    setattr(NamedVector, f"__{_name}__", _unary(getattr(operator, _name)))
for _name, _function in (
    ("abs", abs),
    ("bool", bool),
    ("float", float),
    ("int", int),
    ("complex", complex),
    ("index", operator.index),
    ("round", round),
):
    setattr(NamedVector, f"__{_name}__", _unary(_function))


# Transformations and compiled functions take it for its array, and so does what they call:
# inside of them there may be any number of axes, and rules for derivatives that want arrays.
jax.tree_util.register_pytree_node(
    NamedVector,
    lambda vector: ((vector._array,), None),
    lambda _, children: children[0],  # pyright: ignore[reportArgumentType]
)
