"""A traced function in canonical form: what it computes, not how it is spelled.

The program is run on symbols. Small arrays are arrays of scalars, so that it does not matter
whether a state is indexed, unpacked or sliced and a result stacked, concatenated or set; names,
helper functions, `jax.jit` and the order of independent equations leave no trace, and what does
not reach the result does not count. Other operations are known by name, settings and operands.
"""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax.extend import core

from ._symbols import Node, Symbols

# Arrays of more entries, and sums of more products, are not looked into; where the whole program
# is larger than the last number, those of more than the second.
_LARGE, _MEDIUM, _WORK = 4096, 64, 60_000
# Entries of arrays that are written down one by one, and how many constants altogether.
_FEW, _LISTED = 8, 200

_INLINED = frozenset(
    ("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint", "custom_jvp_call",
     "custom_vjp_call", "custom_vjp_call_jaxpr")
)  # fmt: skip
_PROGRAMS = ("jaxpr", "call_jaxpr", "fun_jaxpr")
_CALLBACKS = frozenset(("pure_callback", "io_callback"))
_SAME = frozenset(("copy", "copy_p", "stop_gradient", "sharding_constraint", "reshard", "pvary"))
_IGNORED = frozenset(
    ("name", "sharding", "out_sharding", "weak_type", "source_info", "debug_info", "linear",
     "_split_transpose", "accuracy", "ctx_mesh")
)  # fmt: skip
_COMMUTATIVE = frozenset(("add", "add_any", "mul", "max", "min", "and", "or", "xor", "eq", "ne"))
_TURNED = {"gt": "lt", "ge": "le"}
_ELEMENTWISE = frozenset(
    ("abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh",
     "cbrt", "ceil", "clamp", "convert_element_type", "cos", "cosh", "digamma", "div", "eq",
     "erf", "erf_inv", "erfc", "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow",
     "is_finite", "le", "lgamma", "log", "log1p", "logistic", "lt", "max", "min", "mul", "ne",
     "neg", "nextafter", "not", "or", "pow", "rem", "round", "rsqrt", "select_n", "sign", "sin",
     "sinh", "sqrt", "square", "sub", "tan", "tanh", "xor")
)  # fmt: skip
# Operations whose result on known numbers is the same on any machine.
_EXACT: dict[str, Callable[..., Any]] = {
    "abs": np.abs, "add": np.add, "add_any": np.add, "ceil": np.ceil, "eq": np.equal,
    "floor": np.floor, "ge": np.greater_equal, "gt": np.greater, "le": np.less_equal,
    "lt": np.less, "max": np.maximum, "min": np.minimum, "mul": np.multiply, "ne": np.not_equal,
    "neg": np.negative, "sign": np.sign, "sqrt": np.sqrt, "square": np.square, "sub": np.subtract,
}  # fmt: skip


def canonical(closed: core.ClosedJaxpr) -> dict[str, Any]:
    """Describe a traced function so that two of them can be compared.

    Args:
        closed: The traced function.

    Returns:
        A JSON object: `program`, a digest of what it computes with all constants; `operations`,
        one of how many of which kind there are; `constants`; and `callbacks`, whether it calls
        back into Python, which cannot be seen.
    """
    reader = _Reader(_LARGE if _work(closed.jaxpr) <= _WORK else _MEDIUM)
    with np.errstate(all="ignore"), jax.ensure_compile_time_eval():
        outputs = reader.whole_program(closed)
    symbols = reader.symbols
    digest = hashlib.sha256(b"".join(symbols.digests[node] for node in outputs))
    reached = symbols.reached(outputs)
    names = Counter((n.name, len(n.inputs)) for n in reached if n.constant is None)
    return {
        "program": digest.hexdigest()[:32],
        "operations": hashlib.sha256(repr(sorted(names.items())).encode()).hexdigest()[:16],
        "constants": _constants(reached),
        "callbacks": any(node.name in _CALLBACKS for node in reached),
    }


def _constants(nodes: Sequence[Node]) -> dict[str, Any]:
    values = [node.constant for node in nodes if node.constant is not None]
    few = [v for v in values if v.size <= _FEW]
    numbers = sorted({repr(x) for v in few for x in v.ravel().tolist()})
    arrays = sorted(
        f"{v.shape} {hashlib.sha256(v.tobytes()).hexdigest()[:16]}" for v in values if v.size > _FEW
    )
    many = len(numbers) > _LISTED
    digest = hashlib.sha256(" ".join(numbers).encode()).hexdigest()[:16]
    return {"numbers": [f"{len(numbers)} numbers {digest}"] if many else numbers, "arrays": arrays}


def _work(jaxpr: core.Jaxpr) -> int:
    """About how many scalar operations a program has."""
    total = 0
    for equation in jaxpr.eqns:
        if inner := _inlined(equation):
            total += _work(inner[0])
            continue
        total += sum(math.prod(_shape(v)) for v in equation.outvars)
        if equation.primitive.name == "dot_general":
            total += _products(equation)
    return total


def _products(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left: Any = equation.invars[0].aval
    out: Any = equation.outvars[0].aval
    return math.prod(out.shape) * math.prod(left.shape[axis] for axis in contracted)


def _inlined(equation: core.JaxprEqn) -> tuple[core.Jaxpr, Sequence[Any]] | None:
    """The program that an equation only calls, with its constants."""
    if equation.primitive.name not in _INLINED:
        return None
    inner = next(equation.params[name] for name in _PROGRAMS if name in equation.params)
    return (inner.jaxpr, inner.consts) if isinstance(inner, core.ClosedJaxpr) else (inner, ())


class _Value:
    """An array of the program: known numbers, symbols of its entries, or a symbol of the whole."""

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        content: np.ndarray | None = None,
        entries: np.ndarray | None = None,
        whole: int | None = None,
    ) -> None:
        self.shape, self.content, self.entries, self.whole = shape, content, entries, whole


class _Reader:
    """Runs a program on symbols."""

    def __init__(self, large: int) -> None:
        self.symbols = Symbols()
        self.large = large

    def whole_program(self, closed: core.ClosedJaxpr) -> list[int]:
        """The symbols of the results of a program by itself."""
        inputs = [
            self._made("input", str(i), (), v.aval) for i, v in enumerate(closed.jaxpr.invars)
        ]
        return [self.whole(value) for value in self.run(closed.jaxpr, closed.consts, inputs)]

    def run(
        self, jaxpr: core.Jaxpr, consts: Sequence[Any], inputs: Sequence[_Value]
    ) -> list[_Value]:
        """The results of a program for some inputs."""
        values: dict[Any, _Value] = dict(zip(jaxpr.invars, inputs, strict=True))
        values |= {v: _known(c) for v, c in zip(jaxpr.constvars, consts, strict=True)}

        def read(atom: Any) -> _Value:
            if not isinstance(atom, core.Literal):
                return values[atom]
            kind = atom.aval.dtype  # pyright: ignore[reportAttributeAccessIssue]
            return _known(np.asarray(atom.val, kind))

        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            inner = _inlined(equation)
            found = self.run(*inner, operands) if inner else self._apply(equation, operands)
            values |= dict(zip(equation.outvars, found, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def whole(self, value: _Value) -> int:
        """One symbol for an array."""
        if value.whole is None:
            if value.content is None:
                assert value.entries is not None
                value.content = self._all_known(value.entries)
            if value.content is not None:
                value.whole = self.symbols.constant(value.content)
            elif not value.shape:
                value.whole = int(value.entries.item())  # pyright: ignore[reportOptionalMemberAccess]
            else:
                entries = value.entries.ravel().tolist()  # pyright: ignore[reportOptionalMemberAccess]
                value.whole = self.symbols.node("array", str(value.shape), entries)
        return value.whole

    def _all_known(self, entries: np.ndarray) -> np.ndarray | None:
        constants = [self.symbols.nodes[number].constant for number in entries.ravel().tolist()]
        if not constants or any(c is None or c.ndim for c in constants):
            return None
        return np.array(constants).reshape(entries.shape)

    def _entries(self, value: _Value) -> np.ndarray:
        """Symbols of the entries of an array that is not large."""
        if value.entries is None:
            if value.content is not None:
                made = [self.symbols.constant(np.asarray(x)) for x in value.content.ravel()]
            else:
                whole = self.whole(value)
                count = math.prod(value.shape)
                made = [self.symbols.node("entry", str(i), (whole,)) for i in range(count)]
            value.entries = np.array(made, np.int64).reshape(value.shape)
        return value.entries

    def _made(self, name: str, detail: str, inputs: Sequence[int], aval: Any) -> _Value:
        whole = self.symbols.node(name, detail, inputs)
        shape = tuple(getattr(aval, "shape", ()))
        return _Value(shape, whole=whole)

    # --- Equations ----------------------------------------------------------------------------

    def _apply(self, equation: core.JaxprEqn, operands: list[_Value]) -> list[_Value]:
        name = equation.primitive.name
        if not equation.outvars:  # printing, and the like
            return []
        if name in _SAME:
            return operands
        if (found := self._moved(equation, operands)) is not None:
            return found
        if (content := _evaluated(equation, operands)) is not None:
            return [_Value(content.shape, content=content)]
        atoms = (*equation.invars, *equation.outvars)
        small = all(math.prod(_shape(atom)) <= self.large for atom in atoms)
        if small and name in _ELEMENTWISE:
            return [self._elementwise(equation, operands)]
        kind = _kind(equation.outvars[0])
        if small and kind in ("float64", "int64", "int32"):
            if name == "reduce_sum":
                return [self._summed(equation, operands[0], kind)]
            if name == "dot_general" and _products(equation) <= self.large:
                kinds = [_kind(v) for v in equation.invars]
                if wide := _widened(operands, kinds, kind):
                    return [self._contracted(equation, wide, kind)]
        return self._opaque(equation, operands)

    def _opaque(self, equation: core.JaxprEqn, operands: list[_Value]) -> list[_Value]:
        """An operation that is known by its name, its settings and what it works on."""
        name = equation.primitive.name
        inputs = [self.whole(value) for value in operands]
        if name in _COMMUTATIVE:
            inputs = self.symbols.by_digest(inputs)
        texts = []
        for param, setting in sorted(equation.params.items()):
            programs = _programs(setting)
            if programs:
                for program in programs:
                    inputs += self.whole_program(program)
                texts.append(f"{param}={len(programs)} programs")
            elif param not in _IGNORED:
                texts.append(f"{param}={_text(setting)}")
        avals = [v.aval for v in equation.outvars]
        kinds = [f"{getattr(a, 'dtype', '')}{getattr(a, 'shape', '')}" for a in avals]
        node = self.symbols.node(name, f"{', '.join(texts)} -> {kinds}", inputs)
        return [self._made("result", str(i), (node,), aval) for i, aval in enumerate(avals)]

    def _elementwise(self, equation: core.JaxprEqn, operands: list[_Value]) -> _Value:
        aval: Any = equation.outvars[0].aval
        columns = [np.broadcast_to(self._entries(x), aval.shape).ravel().tolist() for x in operands]
        make = self._formula(equation)
        entries = [make(*scalars) for scalars in zip(*columns, strict=True)]
        return _Value(aval.shape, entries=np.array(entries, np.int64).reshape(aval.shape))

    def _formula(self, equation: core.JaxprEqn) -> Callable[..., int]:
        """What an elementwise operation makes of scalars."""
        name, symbols = equation.primitive.name, self.symbols
        kind = _kind(equation.outvars[0])
        if kind in ("float64", "int64", "int32"):
            if name in ("add", "add_any"):
                return lambda x, y: symbols.sum((x, y), kind)
            if name == "sub":
                return lambda x, y: symbols.sum((x, symbols.negative(y)), kind)
            if name == "neg":
                return symbols.negative
            if name == "mul":
                return lambda x, y: symbols.product((x, y), kind)
            if name == "square":
                return lambda x: symbols.product((x, x), kind)
            if name == "integer_pow" and 0 < equation.params["y"] <= 8:
                return lambda x: symbols.product([x] * equation.params["y"], kind)
        if kind == "float64" and name == "div":
            return lambda x, y: symbols.product((x,), kind, (y,))
        if name == "select_n":
            return self._chosen
        settings = [
            f"{param}={_text(value)}"
            for param, value in sorted(equation.params.items())
            if param not in _IGNORED
        ]
        operands = [_kind(v) for v in equation.invars]
        if name == "convert_element_type" and operands == [kind]:
            return lambda x: x
        detail = f"{operands} -> {kind} {', '.join(settings)}"
        return lambda *scalars: self._scalar(name, detail, scalars)

    def _scalar(self, name: str, detail: str, scalars: tuple[int, ...]) -> int:
        if name in _TURNED:
            name, scalars = _TURNED[name], scalars[::-1]
        if name in _COMMUTATIVE:
            scalars = tuple(self.symbols.by_digest(scalars))
        return self.symbols.node(name, detail, scalars)

    def _chosen(self, which: int, *cases: int) -> int:
        known = self.symbols.nodes[which].constant
        if known is not None:
            return cases[int(known)]
        return cases[0] if len(set(cases)) == 1 else self._scalar("select_n", "", (which, *cases))

    def _summed(self, equation: core.JaxprEqn, operand: _Value, kind: str) -> _Value:
        axes = equation.params["axes"]
        entries = np.moveaxis(self._entries(operand), axes, range(len(axes)))
        shape = entries.shape[len(axes) :]
        columns = entries.reshape(-1, math.prod(shape)).T.tolist()
        made = [self.symbols.sum(column, kind) for column in columns]
        return _Value(shape, entries=np.array(made, np.int64).reshape(shape))

    def _contracted(self, equation: core.JaxprEqn, operands: list[_Value], kind: str) -> _Value:
        (inner, batch), symbols = equation.params["dimension_numbers"], self.symbols
        sides, free = [], []
        for operand, over, along in zip(operands, inner, batch, strict=True):
            entries = self._entries(operand)
            rest = [axis for axis in range(entries.ndim) if axis not in (*over, *along)]
            shape = [entries.shape[axis] for axis in rest]
            size = [math.prod(entries.shape[axis] for axis in axes) for axes in (along, rest, over)]
            sides.append(entries.transpose(*along, *rest, *over).reshape(size))
            free += shape
        made = [
            symbols.sum((symbols.product(pair, kind) for pair in zip(x, y, strict=True)), kind)
            for left, right in zip(*(side.tolist() for side in sides), strict=True)
            for x in left
            for y in right
        ]
        shape = _shape(equation.outvars[0])
        return _Value(shape, entries=np.array(made, np.int64).reshape(shape))

    # --- Moving entries -----------------------------------------------------------------------

    def _moved(self, equation: core.JaxprEqn, operands: list[_Value]) -> list[_Value] | None:
        """Results of what only puts entries elsewhere; None where it does more."""
        name, params = equation.primitive.name, equation.params
        sizes = [math.prod(x.shape) for x in operands]
        sizes += [math.prod(_shape(v)) for v in equation.outvars]
        known = all(x.content is not None for x in operands)
        if not known and max(sizes, default=0) > self.large:
            return None
        if name in _MOVES:
            arrays = [x.content if known else self._entries(x) for x in operands]
            return [self._placed(a, known) for a in _MOVES[name](params, *arrays)]
        count = {"gather": 1, "scatter": 1, "dynamic_slice": 1, "dynamic_update_slice": 2}
        if name not in count or params.get("update_jaxpr") is not None:
            return None
        # Where entries go must be known. JAX itself says where, which counts from places on.
        places = operands[1:2] if name in ("gather", "scatter") else operands[count[name] :]
        if any(x.content is None for x in places):
            return None
        arrays = [x.content if any(x is p for p in places) else self._entries(x) for x in operands]
        found = np.asarray(equation.primitive.bind(*map(jnp.asarray, arrays), **params))
        if found.size and found.min() < 0:  # an entry from outside of the array
            return None
        return [_Value(found.shape, entries=found.astype(np.int64))]

    def _placed(self, array: np.ndarray, known: bool) -> _Value:
        if known:
            return _Value(array.shape, content=array)
        return _Value(array.shape, entries=array)


def _kind(var: Any) -> str:
    return str(getattr(var.aval, "dtype", ""))


def _shape(var: Any) -> tuple[int, ...]:
    return tuple(getattr(var.aval, "shape", ()))


def _known(constant: Any) -> _Value:
    if hasattr(constant, "dtype") and jnp.issubdtype(constant.dtype, jax.dtypes.prng_key):
        constant = jr.key_data(constant)
    content = np.asarray(constant)
    return _Value(content.shape, content=content)


def _widened(operands: list[_Value], kinds: list[str], kind: str) -> list[_Value]:
    """Operands of one dtype, known numbers made so; none where others would have to be."""
    if any(x.content is None and own != kind for x, own in zip(operands, kinds, strict=True)):
        return []
    return [x if x.content is None else _known(x.content.astype(kind)) for x in operands]


def _evaluated(equation: core.JaxprEqn, operands: list[_Value]) -> np.ndarray | None:
    """The result of an operation on known numbers, where it is exact."""
    contents = [x.content for x in operands if x.content is not None]
    if len(contents) < len(operands):
        return None
    name, aval = equation.primitive.name, equation.outvars[0].aval
    dtype = getattr(aval, "dtype", None)
    if name == "iota":
        shape, axis = equation.params["shape"], equation.params["dimension"]
        ramp = np.arange(shape[axis]).astype(dtype)
        return np.broadcast_to(
            np.expand_dims(ramp, [i for i in range(len(shape)) if i != axis]), shape
        )
    if name == "convert_element_type" and dtype is not None:
        return contents[0].astype(dtype)
    if name == "div" and dtype == np.float64:
        return np.asarray(np.divide(*contents))
    if name in _EXACT and all(x.dtype.kind in "fiub" for x in contents):
        return np.asarray(_EXACT[name](*contents)).astype(dtype)
    return None


def _programs(setting: Any) -> list[core.ClosedJaxpr]:
    """The programs in a setting of an operation, such as the body of a loop."""
    if isinstance(setting, core.ClosedJaxpr):
        return [setting]
    if isinstance(setting, core.Jaxpr):
        return [core.ClosedJaxpr(setting, ())]
    if isinstance(setting, tuple | list):
        return [program for one in setting for program in _programs(one)]
    return []


def _text(setting: Any) -> str:
    """A setting as text that is the same in every process."""
    if isinstance(setting, float):
        return setting.hex()
    if isinstance(setting, np.ndarray | jax.Array):
        value = np.asarray(setting)
        return f"{value.dtype}{value.shape}{hashlib.sha256(value.tobytes()).hexdigest()}"
    if isinstance(setting, Mapping):
        return str(sorted((str(key), _text(value)) for key, value in setting.items()))
    if isinstance(setting, set | frozenset):
        return str(sorted(map(_text, setting)))
    if type(setting) in (tuple, list):
        return f"({', '.join(map(_text, setting))})"
    if callable(setting) and not isinstance(setting, type):
        return "function"
    return re.sub(r" at 0x[0-9a-f]+", "", repr(setting))


def _broadcast(params: dict[str, Any], x: np.ndarray, *_: Any) -> list[np.ndarray]:
    shape, axes = params["shape"], params["broadcast_dimensions"]
    sizes = [1] * len(shape)
    for axis, size in zip(axes, x.shape, strict=True):
        sizes[axis] = size
    return [np.broadcast_to(x.reshape(sizes), shape)]


def _slice(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    strides = params["strides"] or (1,) * x.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return [x[tuple(slice(*bound) for bound in bounds)]]


def _split(params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    return np.split(x, np.cumsum(params["sizes"])[:-1].tolist(), axis=params["axis"])


_MOVES: dict[str, Callable[..., list[np.ndarray]]] = {
    "broadcast_in_dim": _broadcast,
    "concatenate": lambda p, *xs: [np.concatenate(xs, axis=p["dimension"])],
    "reshape": lambda p, x: [x.reshape(p["new_sizes"])],
    "rev": lambda p, x: [np.flip(x, p["dimensions"])],
    "slice": _slice,
    "split": _split,
    "squeeze": lambda p, x: [x.squeeze(tuple(p["dimensions"]))],
    "stack": lambda p, *xs: [np.stack(xs, axis=p["axis"])],
    "transpose": lambda p, x: [x.transpose(p["permutation"])],
    "unstack": lambda p, x: [np.asarray(part) for part in np.moveaxis(x, p["axis"], 0)],
}
