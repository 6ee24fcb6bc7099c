"""What networks see of a point, and what their outputs stand for there."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...models._derivatives import expansion
from ...models._pde import PDEModel
from ...nn._jet import Jet, all_pairs


def input_size(model: PDEModel) -> int:
    """How many numbers networks see of a point: coordinates, and distances to interfaces.

    Args:
        model: The model.
    """
    return len(model.coordinates) + len(model.interfaces)


def inputs_at(
    model: PDEModel,
    points: Float[Array, "point coordinate"],
    pairs: tuple[tuple[int, int], ...],
    *,
    above: bool = True,
) -> Jet:
    """What networks see of points, with derivatives by the coordinates.

    Args:
        model: The model.
        points: Where.
        pairs: Which second derivatives are wanted.
        above: Which side of an interface its own point belongs to.

    Returns:
        The inputs of a network.
    """
    jet = Jet.coordinates(points, pairs)
    if not model.interfaces:
        return jet
    gaps = points - _kinks(model, points)[:, 0][None]
    here = 1.0 if above else -1.0
    sides = jnp.where(gaps == 0.0, here, jnp.sign(gaps))
    value = jnp.concatenate([jet.value, jnp.abs(gaps)], axis=1)
    first = jnp.concatenate([jet.first, sides[None]], axis=2)
    blank = jnp.zeros((len(pairs), *gaps.shape), gaps.dtype)
    return Jet(value, first, jnp.concatenate([jet.second, blank], axis=2), jet.pairs)


def _kinks(model: PDEModel, like: Array) -> Float[Array, "interface coordinate"]:
    places = np.array([interface.at for interface in model.interfaces])
    return jnp.asarray(places, like.dtype)[:, None]


def states_of(
    model: PDEModel,
    raw: Float[Array, "point output"],
    points: Float[Array, "point coordinate"],
    theta: Float[Array, " parameter"],
    fields: Float[Array, "point field"] | None = None,
) -> Float[Array, "point state"]:
    """The states that outputs of a network stand for, by the ansatz.

    Args:
        model: The model.
        raw: Outputs of a network, one for each state.
        points: Where.
        theta: Physical parameter values, scalars alone where `fields` are given.
        fields: Values of the unknown functions; by default those of the coefficients.

    Returns:
        States that fulfill the initial and boundary conditions.
    """
    if fields is None:
        return jax.vmap(lambda n, x: model.state(n, x, theta))(raw, points)

    def one(n: Array, x: Array, values: Array) -> Array:
        return model.state(n, x, theta, tuple(lambda _, v=v: v for v in values))

    return jax.vmap(one)(raw, points, fields)


def residuals_of(
    model: PDEModel,
    jet: Jet,
    points: Float[Array, "point coordinate"],
    theta: Float[Array, " parameter"],
    fields: Jet | None = None,
) -> Float[Array, "point equation"]:
    """By how much outputs of a network miss the equation.

    Args:
        model: The model.
        jet: Outputs with their derivatives by the coordinates, one for each state.
        points: Where.
        theta: Physical parameter values, scalars alone where `fields` are given.
        fields: The unknown functions with their derivatives; by default those of the
            coefficients.

    Returns:
        The residual of each equation.
    """

    def one(x: Array, network: Any, known: Any) -> Array:
        n = _expanded(jet, network, x)
        functions = None if fields is None else _functions(model, fields, known, x)

        def u(y: Array) -> Array:
            return model.state(n(y), y, theta, functions)

        return model.residual_of(u, x, theta, functions)

    return jax.vmap(one)(points, _by_point(jet), _by_point(fields))


def jumps_of(
    model: PDEModel,
    below: Jet,
    above: Jet,
    theta: Float[Array, " parameter"],
    fields: Jet | None = None,
) -> Float[Array, "interface state"]:
    """By how much outputs of a network miss the conditions at interfaces.

    Args:
        model: The model.
        below: Outputs at each interface with the derivatives of the side below.
        above: The same of the side above.
        theta: Physical parameter values, scalars alone where `fields` are given.
        fields: The unknown functions there; by default those of the coefficients.

    Returns:
        The miss of each condition.
    """
    points = _kinks(model, theta)
    sides, known = [_by_point(jet) for jet in (below, above)], _by_point(fields)
    rows = []
    for index, interface in enumerate(model.interfaces):
        x = points[index]
        at = jax.tree.map(lambda leaf, index=index: leaf[index], (sides, known))
        functions = None if fields is None else _functions(model, fields, at[1], x)

        def side(which: int, at: Any = at, x: Array = x, functions: Any = functions) -> Any:
            n = _expanded(below, at[0][which], x)
            return lambda y: model.state(n(y), y, theta, functions)

        rows.append(model.jump_of(interface, side(0), side(1), theta, functions))
    return jnp.stack(rows)


def _functions(model: PDEModel, fields: Jet, at: Any, x: Array) -> tuple[Any, ...]:
    """The unknown functions around one point."""
    f = _expanded(fields, at, x)
    return tuple(lambda y, index=index: f(y)[index] for index in range(len(model.fields)))


def second_derivatives(model: PDEModel, parameters: int) -> tuple[tuple[int, int], ...]:
    """Pairs of coordinates by which the equation differentiates twice.

    Args:
        model: The model.
        parameters: Number of parameters, coefficients of fields included.

    Returns:
        Those second derivatives that the residual depends on at random points.
    """
    rng = np.random.default_rng(0)  # any generic values will do
    many, size, states = 8, len(model.coordinates), len(model.states)
    pairs = all_pairs(size)
    low, high = np.array(model.domain).T
    points = jnp.asarray(low + (high - low) * rng.uniform(0.1, 0.9, (many, size)))
    theta = jnp.asarray(rng.uniform(0.5, 1.5, parameters - model.coefficients))

    def generic(numbers: int) -> Jet:
        shapes = (many, numbers), (size, many, numbers), (len(pairs), many, numbers)
        value, first, second = (jnp.asarray(rng.uniform(0.5, 1.5, s)) for s in shapes)
        return Jet(value, first, second, pairs)

    jet = generic(states)
    fields = generic(len(model.fields)) if model.fields else None

    def of(second: Array) -> Array:
        bent = dataclasses.replace(jet, second=second)
        return residuals_of(model, bent, points, theta, fields)

    slopes = np.asarray(jax.jacfwd(of)(jet.second))  # (point, equation, pair, point, state)
    used = np.any(slopes != 0.0, axis=(0, 1, 3, 4))
    return tuple(pair for pair, wanted in zip(pairs, used, strict=True) if wanted)


def _by_point(jet: Jet | None) -> Any:
    """Arrays of a jet with points as first axis."""
    if jet is None:
        return None
    return jet.value, jnp.moveaxis(jet.first, 1, 0), jnp.moveaxis(jet.second, 1, 0)


def _expanded(jet: Jet, at: Any, x: Array) -> Any:
    """The polynomial with a jet's value and derivatives at one point."""
    value, first, second = at
    return expansion(value, first, dict(zip(jet.pairs, second, strict=True)), x)
