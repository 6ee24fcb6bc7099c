"""Programs in canonical form: equal where they compute the same, and only there."""

import functools
import itertools
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inojax.data._parts import part_of

TABLE = np.sin(np.arange(7.0))
S = np.array([[-2.0, 0.0, 0.0], [1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])


def described(function):
    """The part of a function of time, three states and three parameters."""
    random = np.random.RandomState(1)
    rows = random.random_sample(4), random.random_sample((4, 3)), random.random_sample((4, 3))
    with jax.enable_x64(True):
        return part_of(lambda t, y, p: jnp.asarray(function(t, y, p)), *rows)


def program(function):
    return described(function)["program"]


def chain(t, y, p):
    first, second, third = p * y
    return jnp.stack([-2.0 * first, first - second, second - third])


def renamed(time, state, constants):
    def rate(number):
        return constants[number] * state[number]

    a, b, c = (rate(i) for i in range(3))
    return jnp.array([-(2 * a), -b + a, b - c])


def unpacked(t, y, p):
    y1, y2, y3 = y
    k1, k2, k3 = p
    last = y2 * k2 - k3 * y3
    return jnp.concatenate([jnp.array([-2.0 * k1 * y1, k1 * y1 - k2 * y2]), last[None]])


def set_one_by_one(t, y, p):
    out = jnp.zeros(3).at[2].set(p[1] * y[1] - p[2] * y[2])
    return out.at[0].set(-y[0] * 2.0 * p[0]).at[1].set(p[0] * y[0] - p[1] * y[1])


class Chain(eqx.Module):
    matrix: jax.Array | np.ndarray

    def __call__(self, t, y, p):
        return self.matrix @ (p * y)


def with_matrix(matrix, t, y, p):
    return jnp.einsum("ij,j,j->i", matrix, p, y)


@jax.jit
def compiled(t, y, p):
    return jax.checkpoint(jax.jit(chain))(t, y, p)


@jax.custom_jvp
def with_rule(y, p):
    return chain(0.0, y, p)


@with_rule.defjvp
def _rule(primals, tangents):
    return jax.jvp(lambda y, p: chain(0.0, y, p), primals, tangents)


@jax.custom_vjp
def with_backward_rule(y, p):
    return chain(0.0, y, p)


with_backward_rule.defvjp(
    lambda y, p: (chain(0.0, y, p), None), lambda kept, cotangent: (cotangent, cotangent)
)


def looped(t, y, p):
    rows = []
    for row in S:
        total = 0.0
        for weight, k, state in zip(row.tolist(), p, y, strict=True):
            total = total + weight * k * state
        rows.append(total)
    return rows


SAME = {
    "chain": chain,
    "renamed": renamed,
    "lambda": lambda t, y, p: 1.0 * chain(t, y, p),
    "unpacked": unpacked,
    "set": set_one_by_one,
    "list": lambda t, y, p: [-2 * (f := p * y)[0], f[0] - f[1], -f[2] + f[1]],
    "matrix": lambda t, y, p: S @ (p * y),
    "module": Chain(jnp.asarray(S)),
    "module of numpy": Chain(S),
    "partial": functools.partial(with_matrix, S),
    "keyword": functools.partial(lambda t, y, p, *, matrix: jnp.dot(matrix, y * p), matrix=S),
    "jit": compiled,
    "custom_jvp": lambda t, y, p: with_rule(y, p),
    "custom_vjp": lambda t, y, p: with_backward_rule(y, p),
    "equinox": eqx.filter_jit(chain),
    "loop": looped,
    "dead code": lambda t, y, p: (jnp.sin(t) * TABLE, chain(t, y, p))[1],
    "vmap": lambda t, y, p: jax.vmap(lambda row: jnp.sum(row * p * y))(jnp.asarray(S)),
    "hoisted": lambda t, y, p: chain(t, y, p) + 0.0 * jnp.ones(3),
    "slices": lambda t, y, p: jnp.concatenate([-2 * (p * y)[:1], (p * y)[:-1] - (p * y)[1:]]),
    "printing": lambda t, y, p: (jax.debug.print("{}", t), chain(t, y, p))[1],
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_what_rewriting_does_leaves_the_program_the_same(name):
    assert program(SAME[name]) == program(chain)


def scanned(length=3, sign=1.0, table=TABLE):
    def function(t, y, p):
        def body(carry, x):
            return jnp.sin(carry) + sign * x * p[0], carry

        return jax.lax.scan(body, y, jnp.asarray(table)[:length])[0]

    return function


def branched(flipped=False, limit=0.5):
    def function(t, y, p):
        cases = (jnp.sin, jnp.cos)[:: -1 if flipped else 1]
        return jax.lax.cond(t < limit, *cases, y) * p

    return function


def looking_up(table, t):
    return jnp.interp(t, jnp.arange(7.0), jnp.asarray(table))


def changed(table, hour, by=1e-3):
    table = table.copy()
    table[hour] += by
    return table


OTHER = {
    "chain": chain,
    "minus": lambda t, y, p: -chain(t, y, p),
    "other constant": lambda t, y, p: chain(t, y, p).at[0].multiply(1.5),
    "last bit": lambda t, y, p: np.nextafter(S, 1.0) @ (p * y),
    "transposed": lambda t, y, p: S.T @ (p * y),
    "other state": lambda t, y, p: p[0] * y,
    "other index": lambda t, y, p: p[1] * y,
    "reversed": lambda t, y, p: (p[0] * y)[::-1],
    "rolled": lambda t, y, p: jnp.roll(p[0] * y, 1),
    "rolled on": lambda t, y, p: jnp.roll(p[0] * y, 2),
    "gathered": lambda t, y, p: y[jnp.array([0, 2, 2])],
    "gathered otherwise": lambda t, y, p: y[jnp.array([0, 2, 1])],
    "difference": lambda t, y, p: y - p,
    "turned difference": lambda t, y, p: p - y,
    "quotient": lambda t, y, p: y / p,
    "turned quotient": lambda t, y, p: p / y,
    "square": lambda t, y, p: y**2,
    "cube": lambda t, y, p: y**3,
    "power": lambda t, y, p: y**p,
    "turned power": lambda t, y, p: p**y,
    "max": lambda t, y, p: jnp.maximum(y, p),
    "min": lambda t, y, p: jnp.minimum(y, p),
    "where": lambda t, y, p: jnp.where(y < p, y * y * p, p),
    "where turned": lambda t, y, p: jnp.where(y < p, p, y * y * p),
    "where greater": lambda t, y, p: jnp.where(y > p, y * y * p, p * p),
    "single": lambda t, y, p: jnp.sin(y).astype(jnp.float32).astype(float),
    "double": lambda t, y, p: jnp.sin(y),
    "whole": lambda t, y, p: jnp.sin(y.astype(int).astype(float)) + y,
    "scan": scanned(),
    "shorter scan": scanned(2),
    "scan of other sign": scanned(sign=-1.0),
    "scan of another table": scanned(table=changed(TABLE, 1)),
    "cond": branched(),
    "turned cond": branched(flipped=True),
    "cond elsewhere": branched(limit=0.25),
    "cumsum": lambda t, y, p: jnp.cumsum(y),
    "cumprod": lambda t, y, p: jnp.cumprod(y),
    "backward": lambda t, y, p: jax.lax.cumsum(y, reverse=True),
    "sorted": lambda t, y, p: jnp.sort(y) * p,
    "sorted p": lambda t, y, p: jnp.sort(p) * y,
    "solve": lambda t, y, p: jnp.linalg.solve(S + jnp.diag(p), y),
    "solve turned": lambda t, y, p: jnp.linalg.solve((S + jnp.diag(p)).T, y),
    "table": lambda t, y, p: looking_up(TABLE, 5 * t) * y,
    "late in the table": lambda t, y, p: looking_up(changed(TABLE, 6), 5 * t) * y,
    "early in the table": lambda t, y, p: looking_up(changed(TABLE, 1), 5 * t) * y,
    "convolved": lambda t, y, p: jnp.convolve(y, p, mode="same"),
    "applied": lambda t, y, p: y.at[0].apply(jnp.sin),
    "applied otherwise": lambda t, y, p: y.at[0].apply(jnp.cos),
    "added": lambda t, y, p: y.at[0].add(p[1]),
    "added elsewhere": lambda t, y, p: y.at[1].add(p[1]),
    "multiplied": lambda t, y, p: y.at[0].multiply(p[1]),
    "taken": lambda t, y, p: jnp.take(y, jnp.array([0, 1, 7]), mode="clip"),
    "taken round": lambda t, y, p: jnp.take(y, jnp.array([0, 1, 7]), mode="wrap"),
    "padded": lambda t, y, p: jnp.pad(y[:2], (1, 0)),
    "padded behind": lambda t, y, p: jnp.pad(y[:2], (0, 1)),
    "outer": lambda t, y, p: jnp.sum(jnp.outer(y, jnp.sin(p)), axis=0) * y,
    "outer turned": lambda t, y, p: jnp.sum(jnp.outer(y, jnp.sin(p)), axis=1) * y,
    "clipped": lambda t, y, p: jnp.clip(y, 0.1, 0.6),
    "clipped lower": lambda t, y, p: jnp.clip(y, 0.1, 0.5),
    "argmax": lambda t, y, p: y[jnp.argmax(p)] * p,
    "argmin": lambda t, y, p: y[jnp.argmin(p)] * p,
    "drawn": lambda t, y, p: y * jax.random.normal(jax.random.key(1), (3,)),
    "drawn otherwise": lambda t, y, p: y * jax.random.normal(jax.random.key(2), (3,)),
    "norm": lambda t, y, p: y / jnp.linalg.norm(p),
    "late": lambda t, y, p: jnp.where(t < 0.9999, y, p) * y * p,
    "never": lambda t, y, p: jnp.where(t < 2.0, y, p) * y * p,
}  # fmt: skip


def test_other_programs_are_told_apart():
    found = {name: program(function) for name, function in OTHER.items()}
    alike = [pair for pair in itertools.combinations(found, 2) if len({found[n] for n in pair}) < 2]
    assert not alike


def large(weights, turned=False):
    """More states than are looked into one by one."""

    def function(t, y, p):
        x = jnp.repeat(y, 5000) * jnp.asarray(weights)
        x = x + jnp.roll(x, 1) if turned else jnp.roll(x, 1) + x
        return jnp.sum(x.reshape(3, 5000), axis=1) * p

    return function


def test_large_arrays_are_compared_as_a_whole():
    weights = np.linspace(0.0, 1.0, 15_000)
    assert program(large(weights)) == program(large(weights.copy(), turned=True))
    assert program(large(weights)) != program(large(changed(weights, 14_321, 1e-12)))


def test_numbers_that_python_rounds_otherwise_are_another_program():
    assert program(lambda t, y, p: 0.3 * y) != program(lambda t, y, p: (0.1 + 0.2) * y)


def test_repeated_doubling_ends():
    def doubled(t, y, p):
        for _ in range(60):
            y = (y + y) * (y * y)
        return y

    assert program(doubled) != program(lambda t, y, p: doubled(t, p, y))


def test_callbacks_are_seen_and_cannot_be_looked_into():
    def calling(t, y, p):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(y.shape, y.dtype), y)

    assert described(calling)["callbacks"]
    assert not described(chain)["callbacks"]


def test_what_a_function_reads_is_looked_up_anew():
    table = TABLE.copy()

    def function(t, y, p):
        return looking_up(table, t) * y

    before = program(function)
    assert program(function) == before
    table[3] = 7.0
    assert program(function) != before


def test_another_process_finds_the_same():
    text = (
        "from tests.data.test_program import *\n"
        "print(*(program(OTHER[n]) for n in ('scan', 'cond', 'table', 'solve', 'convolved')))"
    )
    command = [sys.executable, "-c", text]
    found = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"}
    )
    names = ("scan", "cond", "table", "solve", "convolved")
    assert found.stdout.split() == [program(OTHER[name]) for name in names]
