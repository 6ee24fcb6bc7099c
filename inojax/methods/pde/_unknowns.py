"""What is unknown of an equation: scalars, and functions that are networks."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ...models import Field
from ...models._pde import PDEModel
from ...nn._jet import Jet
from ...nn._local_operator import LocalOperator
from ._weight_optimizers import (
    GaussNewtonWeightOptimizer,
    Region,
    Target,
    Weights,
    nothing,
    optimize_weights,
)

# Points along the coordinate of each function where its slope counts; published are as many.
_ALONG = 101
# Steps that fit networks to the functions of the guess, and how they are taken.
_FITTING = 100
_FIT = GaussNewtonWeightOptimizer(points=None, final_rate=1.0, cautious=True)


class Functions(eqx.Module):
    """The unknown functions of an equation as networks of their coordinates.

    Attributes:
        fields: What they are called, where they live and what they keep.
        axes: Number of the coordinate of each.
        networks: A network for each.
    """

    fields: tuple[Field, ...]
    axes: tuple[int, ...] = eqx.field(static=True)
    networks: tuple[LocalOperator, ...]

    @classmethod
    def draw(cls, model: PDEModel, width: int, depth: int, *, key: Key[Array, ""]) -> "Functions":
        """Networks with random weights.

        Args:
            model: The model.
            width: Units of each layer.
            depth: Layers from width to width.
            key: Source of the weights.

        Returns:
            One network for each field of the model.
        """
        fields = model.fields
        keys = jr.split(key, max(len(fields), 1))
        networks = [LocalOperator(1, width=width, depth=depth, key=k) for k in keys]
        axes = [model.coordinates.index(field.coordinate) for field in fields]
        return cls(fields, tuple(axes), tuple(networks[: len(fields)]))

    def at(self, name: str, s: Float[ArrayLike, " point"]) -> Float[Array, " point"]:
        """Values of one function.

        Args:
            name: What it is called.
            s: Values of its coordinate.

        Returns:
            The function there.

        Raises:
            ValueError: If there is no function of this name.
        """
        names = [field.name for field in self.fields]
        if name not in names:
            raise ValueError(f"`name` must be one of {', '.join(names) or 'none'}; got {name!r}.")
        index = names.index(name)
        return _along(self.fields[index], self.networks[index], jnp.asarray(s, jnp.float32))[0]

    def jet(
        self, points: Float[Array, "point coordinate"], pairs: tuple[tuple[int, int], ...]
    ) -> Jet:
        """The functions with their derivatives by the coordinates.

        Args:
            points: Where.
            pairs: Which second derivatives are wanted.

        Returns:
            One number for each function.
        """
        count, size = points.shape
        shape = count, len(self.fields)
        value = jnp.zeros(shape, points.dtype)
        first = jnp.zeros((size, *shape), points.dtype)
        second = jnp.zeros((len(pairs), *shape), points.dtype)
        for index, (field, axis, network) in enumerate(self._each()):
            f, slope, bend = _along(field, network, points[:, axis])
            value = value.at[:, index].set(f)
            first = first.at[axis, :, index].set(slope)
            if (axis, axis) in pairs:
                second = second.at[pairs.index((axis, axis)), :, index].set(bend)
        return Jet(value, first, second, pairs)

    def coefficients(self) -> Float[Array, " coefficient"]:
        """The parameters that stand for them: their values at the nodes as coefficients."""
        found = [
            field.coefficients(_along(field, network, _nodes(field))[0])
            for field, _, network in self._each()
        ]
        return jnp.concatenate([jnp.zeros(0, jnp.float32), *map(jnp.asarray, found)])

    def slopes(self, points: Float[Array, "point coordinate"]) -> Float[Array, "point row"]:
        """Their slopes in units of what the priors expect.

        Args:
            points: Where; each function looks at its own coordinate.

        Returns:
            Numbers whose mean square over evenly spread points is ∫ f'² / r² of each function;
            then, of each total variation, such whose mean square has twice its derivative.
        """
        columns = [jnp.zeros((len(points), 0), points.dtype)]
        for field, axis, network in self._each():
            columns += [
                x[:, None] for x in field.slope_rows(_along(field, network, points[:, axis])[1])
            ]
        return jnp.concatenate(columns, axis=1)

    def _each(self) -> Any:
        return zip(self.fields, self.axes, self.networks, strict=True)


def _along(field: Field, network: LocalOperator, s: Array) -> tuple[Array, Array, Array]:
    """A function with its first and second derivative."""
    raw = network.jet(s[:, None], jnp.zeros(0, s.dtype), ((0, 0),))
    n, slope, bend = raw.value[:, 0], raw.first[0, :, 0], raw.second[0, :, 0]

    def function(d: Array) -> Array:
        return jax.vmap(field.transform)(n + d * (slope + 0.5 * d * bend), s + d)

    def derivative(d: Array) -> tuple[Array, Array]:
        return jax.jvp(function, (d,), (jnp.ones_like(d),))

    zero = jnp.zeros_like(s)
    (f, first), (_, second) = jax.jvp(derivative, (zero,), (jnp.ones_like(s),))
    return f, first, second


def _nodes(field: Field) -> Array:
    return jnp.asarray(np.array(field.nodes), jnp.float32)


def diagonal(model: PDEModel, *, key: Key[Array, ""]) -> Region:
    """Points along which each coordinate goes from one end to the other.

    One is drawn from each of equal parts: where they stay the same, networks bend between them.

    Args:
        model: The model.
        key: Source of the points.

    Returns:
        The domain with these points.
    """
    lower, upper = (jnp.asarray(ends) for ends in np.array(model.domain, np.float32).T)
    share = (jnp.arange(_ALONG) + jr.uniform(key, (_ALONG,))) / _ALONG
    return Region(lower[None] + (upper - lower)[None] * share[:, None], lower, upper)


@eqx.filter_jit
def fitted(
    functions: Functions, model: PDEModel, coefficients: Float[Array, " coefficient"], key: Array
) -> Functions:
    """Train the networks to be given functions.

    Args:
        functions: Networks.
        model: The model.
        coefficients: Of the functions, linear between nodes.
        key: Source of points.

    Returns:
        Networks of the same size, close to these functions.
    """
    weights = Weights.of(functions)

    def rows(vector: Array, points: Array) -> Array:
        begin, gaps = 0, []
        for field, axis, network in weights.build(vector)._each():
            s = points[:, axis]
            wanted = field.at(coefficients[begin : begin + field.size], s)
            gaps.append(_along(field, network, s)[0] - wanted)
            begin += field.size
        return jnp.stack(gaps, axis=1)

    target, region = Target(rows, nothing), diagonal(model, key=key)
    vector, _ = optimize_weights(_FIT, target, region, weights.vector, _FITTING, key=key)
    return weights.build(vector)


class Unknowns(NamedTuple):
    """What is unknown of an equation.

    Attributes:
        scalars: Physical values of the scalar parameters.
        functions: The unknown functions.
    """

    scalars: Float[Array, " scalar"]
    functions: Functions

    @property
    def theta(self) -> Float[Array, " parameter"]:
        """All parameters of the problem, coefficients of functions included."""
        return jnp.concatenate([self.scalars, self.functions.coefficients()])
