"""What newcomers write, and what they are told."""

import functools
import math

import beartype
import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax import lax
from jaxtyping import Array, Float

from inojax._binding import Binding
from inojax.models._vector_field import (
    call_initial_state,
    call_vector_field,
    traced_initial_state,
    traced_vector_field,
)
from tests.refuses import refuses

STATES = ("prey", "predator")
BINDING = Binding(("k", "y0"))
TABLE = jnp.arange(5.0)


def rate(function, y=(2.0, 3.0), theta=(0.5, 7.0), names=BINDING.names):
    y, theta = (jnp.array(x) for x in (y, theta))
    return call_vector_field(function, 1.5, y, theta, states=STATES, parameters=names)


def traced(function):
    return traced_vector_field(function, states=STATES, binding=BINDING)


@jax.jit
def compiled(t, y, theta):
    return -theta.k * y


@eqx.filter_jit
def filtered(t, y, theta):
    return -theta["k"] * y


class Field(eqx.Module):
    factor: float

    def __call__(self, t, y, theta):
        return self.factor * theta.k * y


def annotated(
    t: Float[Array, ""], y: Float[Array, " state"], theta: Float[Array, " parameter"]
) -> Float[Array, " state"]:
    return -theta[0] * y


def in_single_arrays(t, y, theta):
    return -theta[0] * lax.add(y, lax.mul(y, 0.0))


# All of them are dy/dt = -k y.
SAME = {
    "position": lambda t, y, theta: -theta[0] * y,
    "attribute": lambda t, y, theta: -theta.k * y,
    "item": lambda t, y, theta: -theta["k"] * y,
    "list": lambda t, y, theta: [-theta.k * y.prey, -theta.k * y.predator],
    "tuple": lambda t, y, theta: (-theta.k * y["prey"], -theta.k * y[1]),
    "NumPy in a list": lambda t, y, theta: [-theta.k * y[0], np.float64(-1.0) * theta.k * y[1]],
    "unpacked": lambda t, y, theta: jnp.array([-theta[0] * each for each in y]),
    "any arguments": lambda *given: -given[2].k * given[1],
    "defaults": lambda t, y, theta, sign=-1.0: sign * theta.k * y,
    "partial": functools.partial(lambda sign, t, y, theta: sign * theta.k * y, -1.0),
    "module": Field(-1.0),
    "jit": compiled,
    "filter_jit": filtered,
    "lax": in_single_arrays,
    "jacobian": lambda t, y, theta: -theta[0] * (jax.jacfwd(lambda z: z)(y) @ y),
    "jvp": lambda t, y, theta: jax.jvp(lambda z: -theta[0] * z, (y,), (y * 1.0,))[1],
}


@pytest.mark.parametrize("function", SAME.values(), ids=SAME)
def test_many_ways_to_write_the_same(function):
    expected = [-1.0, -1.5]
    np.testing.assert_allclose(rate(function), expected, rtol=1e-7)
    found = jax.jit(lambda y, theta: rate(function, y, theta))(*np.array([[2.0, 3.0], [0.5, 7.0]]))
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    traced(function)


def strict(t, y, theta):
    return lax.neg(y) * jnp.asarray(theta)[5]


def test_where_plain_arrays_are_wanted_they_are_given():
    """By functions of JAX that take nothing else, and by annotations that are checked."""
    checked = jaxtyping.jaxtyped(typechecker=beartype.beartype)(annotated)
    np.testing.assert_allclose(rate(checked), [-1.0, -1.5])
    with refuses(IndexError, "position 5 of an array"):
        rate(strict)


def test_whole_numbers_and_constants_take_the_precision_of_the_state():
    for function in (lambda t, y, theta: [1, 2], lambda t, y, theta: np.array([1.0, 2.0])):
        with jax.enable_x64(True):
            y, theta = (jnp.ones(2, jnp.float32), jnp.ones(2, jnp.float32))
            found = call_vector_field(function, 0.0, y, theta, states=STATES, parameters=None)
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, [1.0, 2.0])


def test_one_state_may_be_a_number():
    def single(function, call=call_vector_field):
        y, theta = jnp.array([2.0]), jnp.array([0.5, 7.0])
        return call(function, 0.0, y, theta, states=("y",), parameters=("k", "y0"))

    for function in (lambda t, y, theta: -theta.k * y.y, lambda t, y, theta: [-theta.k * y[0]]):
        np.testing.assert_array_equal(single(function), [-1.0])
    with refuses(ValueError, r"entry 0 has shape \(1,\)"):
        single(lambda t, y, theta: [-theta.k * y])
    with refuses(ValueError, r"shape \(1,\); got shape \(2,\)"):
        single(lambda t, y, theta: jnp.stack([y[0], y[0]]))


def decides(t, y, theta):
    if t > 5:
        return y
    return -y


def loops(t, y, theta):
    while y[0] > 1.0:
        y = y / 2.0
    return y


def assigns(t, y, theta):
    dy = jnp.zeros(2)
    dy[0] = y[1]
    return dy


def assigns_in_numpy(t, y, theta):
    dy = np.zeros(2)
    dy[0] = y[1]
    return dy


def assigns_to_state(t, y, theta):
    y[0] = 0.0
    return y


def returns_nothing(t, y, theta):
    y * 2.0


def unpacks(t, y, theta):
    a, b, c = theta
    return y * a * b * c


TOLD = {
    "if": (decides, TypeError, r"decides.*`jnp.where.*line \d+: `if t > 5:`"),
    "while": (loops, TypeError, "decides"),
    "and": (lambda t, y, p: y * (t > 1 and t < 2), TypeError, "decides.*jnp.where"),
    "chained": (lambda t, y, p: y * (1 < t < 2), TypeError, "decides.*jnp.where"),
    "max": (lambda t, y, p: [max(y[0], 0.0), y[1]], TypeError, "jnp.maximum"),
    "if of a vector": (lambda t, y, p: y if y > 0 else -y, TypeError, "decides.*jnp.where"),
    "math": (lambda t, y, p: math.exp(-p[0]) * y, TypeError, r"`math.exp`.*`jnp.exp`"),
    "float": (lambda t, y, p: [float(y[0]), 0.0], TypeError, "turns a value into a number"),
    "int": (lambda t, y, p: int(t) * y, TypeError, "jnp.floor"),
    "item": (lambda t, y, p: y[0].item() * y, TypeError, r"`.item\(\)`"),
    "np.exp": (lambda t, y, p: np.exp(-p[0]) * y, TypeError, "`jnp` for `np`"),
    "np.exp of the vector": (lambda t, y, p: np.exp(y), TypeError, "`jnp` for `np`"),
    "np.array": (lambda t, y, p: np.array([y[1], -p[0] * y[0]]), TypeError, r"jnp.stack"),
    "np.interp": (lambda t, y, p: np.interp(t, [0, 1], [0, 1]) * y, TypeError, "jnp.interp"),
    "np.dot": (lambda t, y, p: np.dot(np.eye(2), y), TypeError, "`jnp` for `np`"),
    "range": (lambda t, y, p: sum(y for _ in range(t)), TypeError, "count or the position"),
    "list position": (lambda t, y, p: [1.0, 2.0][t.astype(int)] * y, TypeError, "jnp.asarray"),
    "mask": (lambda t, y, p: y[y > 0.0], TypeError, "selects.*jnp.where"),
    "assignment": (assigns, TypeError, r"assigns.*line \d+: `dy\[0\] = y\[1\]`"),
    "assignment in NumPy": (assigns_in_numpy, TypeError, "`jnp` for `np`"),
    "assignment to y": (assigns_to_state, TypeError, r"`y` must not be changed.*at\[0\]"),
    "text": (lambda t, y, p: f"{t:.2f}" and y, TypeError, "jax.debug.print"),
    "nothing": (returns_nothing, TypeError, "got None. Does it end with `return`"),
    "dictionary": (lambda t, y, p: {"prey": 1.0, "predator": 2.0}, TypeError, "got dict"),
    "generator": (lambda t, y, p: (a for a in y), TypeError, "got generator"),
    "None in a list": (lambda t, y, p: [y[0], None], TypeError, "entry 1 is NoneType"),
    "complex": (lambda t, y, p: 1j * y, TypeError, "real numbers; got complex"),
    "column": (lambda t, y, p: y[:, None], ValueError, r"got shape \(2, 1\).*jnp.ravel"),
    "row": (lambda t, y, p: y[None], ValueError, r"got shape \(1, 2\).*jnp.ravel"),
    "one value": (
        lambda t, y, p: y[0],
        ValueError,
        r"prey, predator, shape \(2,\); got shape \(\)",
    ),
    "slice": (lambda t, y, p: y[:1], ValueError, r"got shape \(1,\)"),
    "short list": (lambda t, y, p: [y[0]], ValueError, r"got shape \(1,\)"),
    "empty list": (lambda t, y, p: [], ValueError, "empty list"),
    "nested list": (lambda t, y, p: [[y[0]], [y[1]]], TypeError, "entry 0 is list"),
    "comma": (lambda t, y, p: (jnp.stack([y[0], y[1]]),), ValueError, "A comma at the end"),
    "two arguments": (
        lambda t, y: y,
        TypeError,
        r"`\(t, y, theta\)`; got a function of `\(t, y\)`",
    ),
    "four arguments": (lambda t, y, k, y0: y, TypeError, r"of `\(t, y, k, y0\)`.*`theta.k`"),
    "no arguments": (lambda: 1.0, TypeError, r"of `\(\)`"),
    "exchanged": (lambda y, t, theta: y, TypeError, "the time first.*Exchange"),
    "time second": (lambda conc, time, k: -conc, TypeError, "the time first.*Exchange"),
    "state last": (lambda t, theta, y: y, TypeError, "state before the parameters.*Exchange"),
    "name": (lambda t, y, p: -p.kk * y, AttributeError, "'kk' is not among.*Did you mean 'k'"),
    "item name": (lambda t, y, p: y["Prey"] * y, KeyError, "`y`: prey.*Did you mean 'prey'"),
    "entry of a number": (lambda t, y, p: -y[0] * p[0][0] * y, TypeError, "takes apart a single"),
    "other order": (lambda u, s, p: -u[0] * s, TypeError, "look at the order of the arguments"),
    "entries of the time": (lambda u, s, p: [*u], TypeError, "look at the order"),
    "times a list": (lambda t, y, p: [-p[0], 1.0] * y, TypeError, r"a list or.*`jnp.stack\("),
    "times a tuple": (lambda t, y, p: y * (1.0, 2.0), TypeError, r"list or a tuple.*jnp.stack"),
    "number": (unpacks, TypeError, "expected 3.*`theta` holds 2 parameters: k, y0"),
    "position": (lambda t, y, p: -p[5] * y, IndexError, r"`theta\[5\]`.*2 parameters k, y0"),
    "slice beyond": (lambda t, y, p: -p[1:3] * y, IndexError, r"`theta\[1:3\]`"),
    "table": (lambda t, y, p: TABLE[7] * y, IndexError, r"position 7 of an array of shape \(5,\)"),
    "converted": (lambda t, y, p: jnp.asarray(p)[2] * y, IndexError, "position 2 of an array"),
    "name inside jit": (lambda t, y, p: jax.jit(lambda q: q.k)(p) * y, TypeError, "read them befo"),
    "item inside vmap": (
        lambda t, y, p: jax.vmap(lambda a: a * jax.jit(lambda q: q["k"])(p))(y),
        TypeError,
        "read them before",
    ),
    "array wanted": (lambda t, y, p: p.k * lax.sin(y), TypeError, r"give it `jnp.asarray\(y\)`"),
}


@pytest.mark.parametrize(("function", "error", "match"), TOLD.values(), ids=TOLD)
def test_slips_are_told_in_a_sentence(function, error, match):
    with refuses(error, match):
        traced(function)


def test_the_error_of_jax_is_kept():
    with pytest.raises(TypeError) as found:
        traced(decides)
    assert isinstance(found.value.__cause__, jax.errors.TracerBoolConversionError)
    assert str(found.value).startswith("`vector_field` decides")
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyError, RuntimeError, ValueError])
def test_errors_of_users_pass_unchanged(error):
    def raises(t, y, theta):
        raise error("mine")

    with pytest.raises(error, match="mine") as found:
        traced(raises)
    assert found.value.__cause__ is None


def test_initial_states_are_checked_alike():
    def start(function):
        theta = jnp.array([0.5, 7.0])
        return call_initial_state(function, theta, states=STATES, parameters=BINDING.names)

    for function in (
        lambda theta: [theta.y0, 1.0],
        lambda theta: jnp.stack([theta[1], 1.0]),
        lambda theta: np.array([7.0, 1.0]),
    ):
        np.testing.assert_array_equal(start(function), [7.0, 1.0])
    told = {
        r"`initial_state` must return one value.*prey, predator, shape \(2,\); got shape \(1,\)": (
            lambda theta: theta[1:2]
        ),
        r"`initial_state`.*got shape \(\)": lambda theta: theta.y0,
        r"`initial_state`.*got shape \(2, 1\)": lambda theta: jnp.ones((2, 1)),
        r"`initial_state`.*got a function of `\(\)`": lambda: np.ones(2),
        "`initial_state` gives values to NumPy": lambda theta: np.array([theta.y0, 0.0]),
        "`initial_state` turns": lambda theta: [math.sqrt(theta.y0), 0.0],
        "`initial_state`.*got None": lambda theta: None,
    }
    for match, function in told.items():
        with refuses((TypeError, ValueError), match):
            traced_initial_state(function, states=STATES, binding=BINDING)
    with refuses(IndexError, r"`theta\[3\]`"):
        traced_initial_state(lambda theta: [theta[3], 0.0], states=STATES, binding=BINDING)
    with refuses(IndexError, "`initial_state` uses position 7"):
        traced_initial_state(lambda theta: [TABLE[7], 0.0], states=STATES, binding=BINDING)


def test_names_are_told_to_be_of_problems_only():
    with refuses(AttributeError, "`theta` knows no names here.*`InverseProblem`"):
        rate(lambda t, y, theta: -theta.k * y, names=None)
    np.testing.assert_allclose(rate(lambda t, y, theta: -theta[0] * y, names=None), [-1.0, -1.5])
    np.testing.assert_allclose(rate(lambda t, y, theta: [y.prey, 0.0], names=None), [2.0, 0.0])


def test_a_temperature_is_no_transpose():
    """Also where something asks for plain arrays, whose `T` is another thing."""

    def field(t, y, theta):
        return theta.T * lax.sin(y)

    def call(function):
        y, theta = jnp.array([1.0, 2.0]), jnp.array([3.0, 5.0])
        return call_vector_field(function, 0.0, y, theta, states=STATES, parameters=("k", "T"))

    with refuses(TypeError, "nothing but JAX arrays"):
        call(field)
    expected = 5.0 * np.sin([1.0, 2.0])
    np.testing.assert_allclose(call(lambda t, y, theta: theta.T * jnp.sin(y)), expected, rtol=1e-6)


def test_fixed_parameters_stand_where_they_were_declared():
    binding = Binding(("a", "b", "c", "d"), ((0, 10.0), (2, 30.0)))
    closed = traced_vector_field(
        lambda t, y, theta: [theta.a + theta[1], theta.c + theta["d"]],
        states=STATES,
        binding=binding,
    )
    found = jax.core.eval_jaxpr(
        closed.jaxpr, closed.consts, 0.0, jnp.zeros(2), jnp.array([2.0, 4.0])
    )
    np.testing.assert_array_equal(found[0], [12.0, 34.0])
