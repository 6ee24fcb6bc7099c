"""Inputs u(t) that jump or bend, as vector fields u(t) - k y are written, and y in closed form."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

# Parameters: the rate k, a time a, a time b later than it.
THETA = np.array([0.5, 1.05, 1.62])
TIMES = np.array([0.7, 1.3, 2.25, 3.1, 4.7])


def solution(theta, knots, times=TIMES):
    """y' = u(t) - k y from y(0) = 0, u a polygon with jumps where two knots share a time."""
    k = theta[0]

    def until(t):
        y = 0.0
        for (s0, u0), (s1, u1) in itertools.pairwise(knots):
            end = min(s1, t)
            if end <= s0:
                continue
            slope, h = (u1 - u0) / (s1 - s0), end - s0
            grown = (u0 / k - slope / k**2) * -np.expm1(-k * h) + slope * h / k
            y = y * np.exp(-k * h) + grown
        return y

    return np.array([until(t) for t in times])


def pulses(*edges):
    """Knots of an input of 1 between the first and second edge, the third and fourth, ..."""
    knots = [(0.0, 0.0)]
    for i, edge in enumerate(edges):
        knots += [(edge, i % 2.0), (edge, (i + 1) % 2.0)]
    return [*knots, (10.0, len(edges) % 2.0)]


TABLE_TIMES, TABLE = np.array([0.0, 1.0, 1.01, 1.02, 6.0]), np.array([0.0, 0.0, 50.0, 0.0, 0.0])


def table(theta):
    lag = theta[1] - 0.5
    return [(0.0, 0.0), *zip(TABLE_TIMES[1:-1] + lag, TABLE[1:-1], strict=True), (10.0, 0.0)]


def sinusoid(theta):
    """Where sin(2 t / b) exceeds 1/2."""
    return pulses(*(theta[2] / 2.0 * np.array([1, 5, 13, 17]) * np.pi / 6.0))


def staircase(theta):
    knots, a = [(0.0, 0.0)], theta[1]
    for i in range(1, 6):
        knots += [(i * a, i - 1.0), (i * a, float(i))]
    return [*knots, (6.0 * a, 5.0)]


def periodic(theta):
    a = theta[1]
    return pulses(1e-12, 0.1, *(e for i in range(1, 5) for e in (i * a, i * a + 0.1)))


def looped(t, a):
    """What tracing cannot look into."""

    def body(carry):
        count, total = carry
        return count + 1, total + jnp.where(t >= a, 0.5, 0.0)

    return jax.lax.while_loop(lambda carry: carry[0] < 2, body, (0, 0.0))[1]


def after(theta):
    return pulses(theta[1])


def between(theta):
    return pulses(theta[1], theta[2])


# name: (u(t, theta), knots of theta)
INPUTS = {
    "where": (lambda t, p: jnp.where(t >= p[1], 1.0, 0.0), after),
    "a comparison as a factor": (lambda t, p: (t > p[1]) * 1.0, after),
    "reversed": (lambda t, p: jnp.where(p[1] > t, 0.0, 1.0), after),
    "window": (lambda t, p: jnp.where((t >= p[1]) & (t < p[2]), 1.0, 0.0), between),
    "a short window": (
        lambda t, p: jnp.where((t >= p[1]) & (t < p[1] + 1e-4), 1e4, 0.0),
        lambda p: [(s, 1e4 * u) for s, u in pulses(p[1], p[1] + 1e-4)],
    ),
    "heaviside": (lambda t, p: jnp.heaviside(t - p[1], 0.5), after),
    "sign": (lambda t, p: 0.5 + 0.5 * jnp.sign(t - p[1]), after),
    "select": (lambda t, p: jnp.select([t < p[1], t < p[2]], [0.0, 1.0], 0.0), between),
    "piecewise": (
        lambda t, p: jnp.piecewise(
            t, [t < p[1], t >= p[1]], [lambda t: 0 * t, lambda t: 0 * t + 1]
        ),
        after,
    ),
    "cond": (lambda t, p: jax.lax.cond(t > p[1], lambda: 1.0, lambda: 0.0), after),
    "switch": (
        lambda t, p: jax.lax.switch(
            (t > p[1]).astype(int) + (t > p[2]), [lambda: 0.0, lambda: 1.0, lambda: 0.0]
        ),
        between,
    ),
    "many at once": (
        lambda t, p: jnp.sum(jnp.where((t >= p[1:2]) & (t < p[2:3]), 1.0, 0.0)),
        between,
    ),
    "a loop": (
        lambda t, p: jax.lax.fori_loop(
            0, 2, lambda i, u: u + jnp.where((t >= p[1]) & (t < p[2]), 0.5, 0.0), 0.0
        ),
        between,
    ),
    "interp": (
        lambda t, p: jnp.interp(t - (p[1] - 0.5), jnp.asarray(TABLE_TIMES), jnp.asarray(TABLE)),
        table,
    ),
    "searchsorted": (
        lambda t, p: jnp.array([0.0, 1.0, 0.0])[jnp.searchsorted(p[1:3], t)],
        between,
    ),
    "digitize": (lambda t, p: jnp.array([0.0, 1.0, 0.0])[jnp.digitize(t, p[1:3])], between),
    "an index": (
        lambda t, p: jnp.array([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])[(t / p[1]).astype(int)],
        staircase,
    ),
    "floor": (lambda t, p: jnp.floor(t / p[1]), staircase),
    "floor division": (lambda t, p: t // p[1], staircase),
    "remainder": (lambda t, p: jnp.where(t % p[1] < 0.1, 1.0, 0.0), periodic),
    "a wave": (lambda t, p: jnp.where(jnp.sin(2.0 * t / p[2]) > 0.5, 1.0, 0.0), sinusoid),
    "ramp": (
        lambda t, p: jnp.clip((t - p[1]) / 0.01, 0.0, 1.0),
        lambda p: [(0.0, 0.0), (p[1], 0.0), (p[1] + 0.01, 1.0), (10.0, 1.0)],
    ),
    "triangle": (
        lambda t, p: jnp.maximum(0.0, 1.0 - jnp.abs(t - p[1]) / 0.01),
        lambda p: [(0.0, 0.0), (p[1] - 0.01, 0.0), (p[1], 1.0), (p[1] + 0.01, 0.0), (10.0, 0.0)],
    ),
    "a tent of minima": (
        lambda t, p: jnp.maximum(
            0.0, jnp.min(jnp.stack([1.0, (t - p[1]) / 1e-3, (p[1] + 4e-3 - t) / 1e-3]))
        ),
        lambda p: [
            (0.0, 0.0),
            (p[1], 0.0),
            (p[1] + 1e-3, 1.0),
            (p[1] + 3e-3, 1.0),
            (p[1] + 4e-3, 0.0),
            (10.0, 0.0),
        ],
    ),
    "relu": (
        lambda t, p: jax.nn.relu(t - p[1]),
        lambda p: [(0.0, 0.0), (p[1], 0.0), (10.0, 10.0 - p[1])],
    ),
}
