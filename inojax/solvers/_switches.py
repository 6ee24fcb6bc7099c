"""Where a traced vector field jumps or has a kink: comparisons, steps, tables, found one by one.

Between such places the field is smooth. Each operation that turns numbers into a choice
(`t < 5`, `floor(t)`, the search in the table of `jnp.interp`) has a **mode**, what it came out as,
and a **margin**, a number that stays positive as long as it comes out the same and reaches zero
where it does not. Both follow from running the program equation by equation; and running it with
modes that are given instead of computed continues one smooth piece beyond its end.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jaxtyping import Array, Bool, Float

from .._indices import scan_counts
from ._interpret import alone, called, interpret, opened

# How a value runs in time between switches, with the state held.
_CONSTANT, _STRAIGHT, _CURVED = 0, 1, 2
# A loop of more turns is not written out; the search in a table of a million takes 20.
_MOST_TURNS = 128

_TIME, _STATE, _PARAMETER = "t", "y", "p"


class _Value(NamedTuple):
    """A number in the program, what it depends on, and how it runs in time."""

    array: Any
    reads: frozenset[str]
    curve: int


class Switch(NamedTuple):
    """An operation that comes out one way or another.

    Attributes:
        name: The primitive.
        begin: Where its modes begin among all.
        end: Where they end.
        of_state: Whether it depends on the state, not on time and parameters alone.
        of_time: Whether it depends on time.
        straight: Whether its margins run straight in time.
    """

    name: str
    begin: int
    end: int
    of_state: bool
    of_time: bool
    straight: bool


class Inspection(NamedTuple):
    """A vector field at one place.

    Attributes:
        slope: The time derivative of the state.
        modes: How each switch comes out.
        margins: How far each is from coming out otherwise, on either side; infinite where it has
            one side only.
        sizes: How large the numbers are that it compares, of which margins are differences.
    """

    slope: Float[Array, " state"]
    modes: Float[Array, " mode"]
    margins: Float[Array, "mode 2"]
    sizes: Float[Array, " mode"]


class Switches:
    """The switches of a vector field.

    Attributes:
        found: Each of them.
        opaque: Primitives that depend on time or state, turn numbers into choices, and could not
            be looked into.
        smooth: Whether the field runs in time otherwise than in straight lines from switch to
            switch, with the state held.
    """

    found: tuple[Switch, ...]
    opaque: frozenset[str]
    smooth: bool

    def __init__(self, program: core.ClosedJaxpr) -> None:
        """Look through a program with the inputs t, y and theta, in float64."""
        self._program = program
        run = _Run(None)
        jax.eval_shape(lambda *inputs: run.all(program, *inputs), *program.in_avals)
        self.found, self.opaque = tuple(run.found), frozenset(run.opaque)
        self.smooth = run.curve == _CURVED

    @property
    def count(self) -> int:
        """Number of modes."""
        return self.found[-1].end if self.found else 0

    @property
    def of_state(self) -> Bool[np.ndarray, " mode"]:
        """Which modes depend on the state."""
        return self._spread([switch.of_state for switch in self.found])

    @property
    def held(self) -> Bool[np.ndarray, " mode"]:
        """Which modes depend on the state and can be held; equality is true at single points."""
        return self._spread([s.of_state and s.name not in _EQUALITIES for s in self.found])

    @property
    def signs(self) -> Bool[np.ndarray, " mode"]:
        """Which modes are signs, of which zero is one at single points."""
        return self._spread([s.name == "sign" for s in self.found])

    @property
    def mixed(self) -> Bool[np.ndarray, " mode"]:
        """Which modes depend on time and on the state."""
        return self._spread([s.of_state and s.of_time for s in self.found])

    @property
    def straight(self) -> Bool[np.ndarray, " mode"]:
        """Which modes depend on time alone, and change where a straight line says."""
        return self._spread([s.straight and not s.of_state for s in self.found])

    @property
    def curved(self) -> Bool[np.ndarray, " mode"]:
        """Which modes depend on time alone in another way."""
        return self._spread([not s.straight and not s.of_state for s in self.found])

    def _spread(self, flags: list[bool]) -> np.ndarray:
        sizes = [switch.end - switch.begin for switch in self.found]
        return np.repeat(np.array(flags, bool), sizes)

    def inspect(
        self,
        t: Float[Array, ""],
        y: Float[Array, " state"],
        theta: Float[Array, " parameter"],
        modes: Float[Array, " mode"] | None = None,
    ) -> Inspection:
        """Run the vector field and look at each switch.

        Args:
            t: Time.
            y: State.
            theta: Parameters.
            modes: How switches shall come out; by default, and where it is NaN, as they do here.
        """
        return _Run(modes).all(self._program, t, y, theta)


class _Run:
    """One run through a program, with what it met."""

    def __init__(self, given: Array | None) -> None:
        self.given = given
        self.found: list[Switch] = []
        self.opaque: list[str] = []
        self.modes: list[Array] = []
        self.margins: list[Array] = []
        self.sizes: list[Array] = []
        self.curve = _CONSTANT

    def all(self, program: core.ClosedJaxpr, t: Any, y: Any, theta: Any) -> Inspection:
        """Run all of it."""
        inputs = [
            _Value(t, frozenset(_TIME), _STRAIGHT),
            _Value(y, frozenset(_STATE), _CONSTANT),
            _Value(theta, frozenset(_PARAMETER), _CONSTANT),
        ]
        (slope,) = self.run(program.jaxpr, program.consts, inputs)
        self.curve = slope.curve
        modes = [*self.modes, jnp.zeros(0)]
        margins = [*self.margins, jnp.zeros((0, 2))]
        sizes = jnp.concatenate([*self.sizes, jnp.zeros(0)])
        return Inspection(slope.array, jnp.concatenate(modes), jnp.concatenate(margins), sizes)

    def run(self, jaxpr: core.Jaxpr, consts: list[Any], inputs: list[_Value]) -> list[_Value]:
        return interpret(jaxpr, [_number(c) for c in consts], inputs, self._apply, _number)

    def _apply(self, equation: Any, operands: list[_Value], debug_info: Any) -> list[_Value]:
        name = equation.primitive.name
        if not equation.outvars:
            return []  # printing and the like
        inner = called(equation)
        of_state = any(_STATE in operand.reads for operand in operands)
        # A derivative of the user's own is kept where there is nothing to look into.
        if inner is not None:
            own = name.startswith("custom_")
            if not own or _switches_inside(inner[0], kinks=not of_state):
                return self.run(*inner, operands)
        if name == "cond":
            return self._choose(equation, operands)
        reads = frozenset().union(*(operand.reads for operand in operands))
        moves = bool(reads & {_TIME, _STATE})
        short = name == "scan" and equation.params["length"] <= _MOST_TURNS
        if short and moves and _any_inside(equation):
            return self._turns(equation, operands)
        if moves and _is_switch(equation) and not (name in _KINKS and _STATE in reads):
            return self._switch(equation, operands, reads)
        if moves and _is_closed(equation):
            self.opaque.append(name)
        run, taken = alone(equation, operands, debug_info)
        results = run(*(value.array for value in taken))
        curve = _curve(name, operands)
        return [_Value(x, reads, _CONSTANT if _is_discrete(x) else curve) for x in results]

    def _switch(self, equation: Any, operands: list[_Value], reads: frozenset[str]) -> list[_Value]:
        name = equation.primitive.name
        rule = _RULES[name]
        arrays = [jnp.asarray(operand.array, jnp.float64) for operand in operands]
        shape = equation.outvars[0].aval.shape
        size = int(np.prod(shape))
        begin = self.found[-1].end if self.found else 0
        mode = lax.stop_gradient(jnp.asarray(rule.mode(equation.params, *arrays), jnp.float64))
        if self.given is not None:
            given = self.given[begin : begin + size].reshape(shape)
            mode = jnp.where(jnp.isnan(given), mode, given)
        curve = max(operand.curve for operand in operands)
        straight = curve <= _STRAIGHT and name not in _SEARCHED and _STATE not in reads
        if name == "rem":
            straight = straight and operands[1].curve == _CONSTANT
        kinds = _STATE in reads, _TIME in reads, straight
        self.found.append(Switch(name, begin, begin + size, *kinds))
        sides = rule.margins(equation.params, mode, *arrays)
        sides = [jnp.broadcast_to(side, shape).ravel() for side in sides]
        sides += [jnp.full(size, jnp.inf)] * (2 - len(sides))
        self.modes.append(mode.ravel())
        self.margins.append(jnp.stack(sides, axis=1))
        largest = [jnp.max(jnp.abs(x), initial=0.0) for x in lax.stop_gradient(arrays)]
        self.sizes.append(jnp.full(size, sum(largest, jnp.zeros(()))))
        result = rule.result(mode, *arrays).astype(equation.outvars[0].aval.dtype)
        if not rule.continues or _is_discrete(result):
            curve = _CONSTANT
        elif name == "rem" and operands[1].curve != _CONSTANT:
            curve = _CURVED
        return [_Value(result, reads, curve)]

    def _choose(self, equation: Any, operands: list[_Value]) -> list[_Value]:
        """All branches, and of each result the one that is meant, as `vmap` does."""
        index, *inputs = operands
        branches = [self.run(*opened(b), inputs) for b in equation.params["branches"]]
        which = jnp.asarray(index.array)
        which = which if which.dtype == bool else which.astype(jnp.int32)
        chosen = []
        for results in zip(*branches, strict=True):
            dtype = jnp.result_type(*(result.array for result in results))
            arrays = [jnp.asarray(result.array, dtype) for result in results]
            reads = index.reads.union(*(result.reads for result in results))
            curve = max(result.curve for result in results)
            chosen.append(_Value(lax.select_n(which, *arrays), reads, curve))
        return chosen

    def _turns(self, equation: Any, operands: list[_Value]) -> list[_Value]:
        """A loop of known length, written out."""
        params = equation.params
        consts, carried = scan_counts(equation)
        fixed, carry = operands[:consts], operands[consts : consts + carried]
        rows = operands[consts + carried :]
        turns = range(params["length"])
        outputs = []
        for turn in reversed(turns) if params["reverse"] else turns:
            row = [x._replace(array=jnp.asarray(x.array)[turn]) for x in rows]
            results = self.run(*opened(params["jaxpr"]), [*fixed, *carry, *row])
            carry = results[:carried]
            outputs.append(results[carried:])
        outputs = outputs[::-1] if params["reverse"] else outputs
        return [*carry, *(_stacked(list(values)) for values in zip(*outputs, strict=True))]


def _stacked(values: list[_Value]) -> _Value:
    reads = frozenset().union(*(value.reads for value in values))
    array = jnp.stack([jnp.asarray(value.array) for value in values])
    return _Value(array, reads, max(value.curve for value in values))


def _number(value: Any) -> _Value:
    return _Value(value, frozenset(), _CONSTANT)


def _is_discrete(array: Any) -> bool:
    return not jnp.issubdtype(jnp.result_type(array), jnp.inexact)


class _Rule(NamedTuple):
    """What a primitive's mode, margins and result are.

    Attributes:
        mode: From the operands.
        margins: From a mode and the operands: one or two, shaped like the result.
        result: From a mode and the operands.
        continues: Whether the result goes on with its operands, rather than in steps.
    """

    mode: Callable[..., Any]
    margins: Callable[..., list[Array]]
    result: Callable[..., Array]
    continues: bool = False


def _comparison(compare: Callable[[Array, Array], Array], sign: float) -> _Rule:
    def margins(params: Any, mode: Array, a: Array, b: Array) -> list[Array]:
        del params
        return [sign * (2.0 * mode - 1.0) * (b - a)]

    return _Rule(lambda params, a, b: compare(a, b), margins, lambda mode, a, b: mode > 0.5)


def _equality(compare: Callable[[Array, Array], Array]) -> _Rule:
    # True at single points only, where nothing moves the state.
    return _Rule(
        lambda params, a, b: compare(a, b),
        lambda params, mode, a, b: [],
        lambda mode, a, b: mode > 0.5,
    )


def _steps(function: Callable[[Array], Array], low: float, high: float) -> _Rule:
    """Steps of one: `function` gives k where k + low < x < k + high."""
    return _Rule(
        lambda params, x: function(x),
        lambda params, mode, x: [x - (mode + low), (mode + high) - x],
        lambda mode, x: mode,
    )


def _truncated(mode: Array, x: Array) -> list[Array]:
    """How far `x` is from where rounding it towards zero gives another number."""
    low = jnp.where(mode > 0.0, mode, mode - 1.0)
    high = jnp.where(mode < 0.0, mode, mode + 1.0)
    return [x - low, high - x]


def _rounded(params: Any, x: Array) -> Array:
    return lax.round(x, params["rounding_method"])


def _to_other(params: Any, x: Array) -> Array:
    return x != 0.0 if jnp.issubdtype(params["new_dtype"], bool) else jnp.trunc(x)


def _to_other_margins(params: Any, mode: Array, x: Array) -> list[Array]:
    return [] if jnp.issubdtype(params["new_dtype"], bool) else _truncated(mode, x)


def _clamp_mode(params: Any, low: Array, x: Array, high: Array) -> Array:
    del params
    return jnp.where(x < low, -1.0, jnp.where(x > high, 1.0, 0.0))


def _clamp_margins(params: Any, mode: Array, low: Array, x: Array, high: Array) -> list[Array]:
    del params
    first = jnp.where(mode < 0.0, low - x, jnp.where(mode > 0.0, x - high, x - low))
    return [first, jnp.where(mode == 0.0, high - x, jnp.inf)]


def _clamp(mode: Array, low: Array, x: Array, high: Array) -> Array:
    low, high = jnp.broadcast_to(low, x.shape), jnp.broadcast_to(high, x.shape)
    return jnp.where(mode < 0.0, low, jnp.where(mode > 0.0, high, x))


def _extreme(sign: float) -> _Rule:
    """The larger of two numbers, or the smaller."""
    return _Rule(
        lambda params, a, b: sign * (a - b) >= 0.0,
        lambda params, mode, a, b: [sign * (2.0 * mode - 1.0) * (a - b)],
        lambda mode, a, b: jnp.where(mode > 0.5, a, b),
        continues=True,
    )


def _argument(sign: float) -> _Rule:
    """Where among some numbers the largest is, or the smallest."""

    def mode(params: Any, x: Array) -> Array:
        (axis,) = params["axes"]
        return jnp.argmax(sign * x, axis=axis)

    def margins(params: Any, mode: Array, x: Array) -> list[Array]:
        (axis,) = params["axes"]
        index = jnp.expand_dims(mode.astype(int), axis)
        best = jnp.take_along_axis(x, index, axis)
        shape = [1] * x.ndim
        shape[axis] = -1
        others = jnp.arange(x.shape[axis]).reshape(shape) != index
        return [jnp.min(jnp.where(others, sign * (best - x), jnp.inf), axis=axis)]

    return _Rule(mode, margins, lambda mode, x: mode)


def _along(sign: float) -> _Rule:
    """The largest of some numbers, or the smallest."""
    argument = _argument(sign)

    def margins(params: Any, mode: Array, x: Array) -> list[Array]:
        return argument.margins(params, mode, x)

    return _Rule(argument.mode, margins, lambda mode, x: x[mode.astype(int)], continues=True)


_ARGUMENTS = {"argmax": _argument(1.0), "argmin": _argument(-1.0)}
_LARGEST = {"reduce_max": _along(1.0), "reduce_min": _along(-1.0)}
# The nearest of many margins need not be the first to vanish.
_SEARCHED = frozenset((*_ARGUMENTS, *_LARGEST))
_EQUALITIES = frozenset(("eq", "ne"))
_KINKS = {
    **_LARGEST,
    "max": _extreme(1.0),
    "min": _extreme(-1.0),
    "abs": _Rule(
        lambda params, x: jnp.where(x < 0.0, -1.0, 1.0),
        lambda params, mode, x: [mode * x],
        lambda mode, x: mode * x,
        continues=True,
    ),
    "clamp": _Rule(_clamp_mode, _clamp_margins, _clamp, continues=True),
}
_RULES: dict[str, _Rule] = {
    "lt": _comparison(jnp.less, 1.0),
    "le": _comparison(jnp.less_equal, 1.0),
    "lt_to": _comparison(jnp.less, 1.0),
    "le_to": _comparison(jnp.less_equal, 1.0),
    "gt": _comparison(jnp.greater, -1.0),
    "ge": _comparison(jnp.greater_equal, -1.0),
    "eq": _equality(jnp.equal),
    "ne": _equality(jnp.not_equal),
    "sign": _Rule(
        lambda params, x: jnp.sign(x),
        lambda params, mode, x: [jnp.where(mode == 0.0, jnp.inf, mode * x)],
        lambda mode, x: mode,
    ),
    "floor": _steps(jnp.floor, 0.0, 1.0),
    "ceil": _steps(jnp.ceil, -1.0, 0.0),
    "round": _steps(jnp.round, -0.5, 0.5)._replace(mode=_rounded),
    "convert_element_type": _Rule(_to_other, _to_other_margins, lambda mode, x: mode),
    "rem": _Rule(
        lambda params, x, p: jnp.trunc(x / p),
        lambda params, mode, x, p: _truncated(mode, x / p),
        lambda mode, x, p: x - mode * p,
        continues=True,
    ),
    **_KINKS,
    **_ARGUMENTS,
}
# What is inside of these is not looked into.
_LOOPS = frozenset(("while", "scan"))


def _is_closed(equation: Any) -> bool:
    """Whether choices may hide here."""
    name = equation.primitive.name
    if name in _LOOPS:
        inner = [equation.params[n] for n in ("jaxpr", "body_jaxpr") if n in equation.params]
        return any(_switches_inside(opened(program)[0]) for program in inner)
    # Operations without a rule that make choices of numbers, whatever their names may become.
    discrete = any(_is_discrete_aval(variable.aval) for variable in equation.outvars)
    numbers = not all(_is_discrete_aval(atom.aval) for atom in equation.invars)
    return "callback" in name or (numbers and discrete and name not in _RULES)


def _switches_inside(jaxpr: core.Jaxpr, *, kinks: bool = True) -> bool:
    """Whether a program, or one that it calls, turns numbers into choices, or into kinks."""

    def here(equation: Any) -> bool:
        switch = _is_switch(equation) and (kinks or equation.primitive.name not in _KINKS)
        return switch or _is_closed(equation) or _any_inside(equation, kinks=kinks)

    return any(map(here, jaxpr.eqns))


def _any_inside(equation: Any, *, kinks: bool = True) -> bool:
    for param in equation.params.values():
        for inner in param if isinstance(param, tuple | list) else (param,):
            program = isinstance(inner, core.Jaxpr | core.ClosedJaxpr)
            if program and _switches_inside(opened(inner)[0], kinks=kinks):
                return True
    return False


def _is_switch(equation: Any) -> bool:
    """Whether numbers become a choice here."""
    name = equation.primitive.name
    if name not in _RULES or all(_is_discrete_aval(atom.aval) for atom in equation.invars):
        return False
    if name == "convert_element_type":
        return _is_discrete_aval(equation.outvars[0].aval)
    if name in _LARGEST:
        return equation.invars[0].aval.ndim == 1
    return name not in _ARGUMENTS or len(equation.params["axes"]) == 1


def _is_discrete_aval(aval: Any) -> bool:
    return not jnp.issubdtype(aval.dtype, jnp.inexact)


# fmt: off
_LINEAR = frozenset((
    "add", "add_any", "sub", "neg", "convert_element_type", "reshape", "broadcast_in_dim",
    "squeeze", "expand_dims", "slice", "concatenate", "stack", "unstack", "transpose", "rev",
    "reduce_sum", "cumsum", "copy", "copy_p", "select_n", "gather", "dynamic_slice",
    "dynamic_update_slice", "scatter", "scatter-add", "pad", "split", "stop_gradient", "real",
))
# fmt: on
_PRODUCTS = frozenset(("mul", "dot_general"))


def _curve(name: str, operands: list[_Value]) -> int:
    """How the result of an operation runs in time."""
    curves = [operand.curve for operand in operands]
    largest = max(curves, default=_CONSTANT)
    if largest == _CONSTANT or name in _LINEAR:
        return largest
    if name in _PRODUCTS:
        return largest if min(curves) == _CONSTANT else _CURVED
    if name == "div":
        return curves[0] if curves[1] == _CONSTANT else _CURVED
    return _CURVED
