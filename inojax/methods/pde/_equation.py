"""What a network must fulfill, for methods that train it on a partial differential equation."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..._inverse_problem import InverseProblem
from ..._linearization import Linearization, linearize
from ..._observation import Observation
from ..._parameters import ParameterSpace
from ...models._pde import PDEModel
from ...nn._jet import Jet
from ...nn._local_operator import LocalOperator
from ._network_states import inputs_at, jumps_of, residuals_of, second_derivatives, states_of
from ._parameter_optimizers import AbstractParameterOptimizer
from ._unknowns import Functions, Unknowns, fitted
from ._weight_optimizers import Region


class Equation(eqx.Module):
    """The equation of a problem, for networks that see parameters in units of a guess.

    Attributes:
        problem: The inverse problem.
        model: Its model.
        pairs: Second derivatives that the equation needs.
        guess: Physical parameter values: of scalars, whose scale they set, then the coefficients
            of unknown functions.
    """

    problem: InverseProblem
    model: PDEModel
    pairs: tuple[tuple[int, int], ...] = eqx.field(static=True)
    guess: Float[np.ndarray, " parameter"]

    @property
    def scalars(self) -> int:
        """How many parameters are not coefficients of functions."""
        return len(self.guess) - self.model.coefficients

    @property
    def space(self) -> ParameterSpace:
        """The scalars with their priors; there must be some."""
        return ParameterSpace(self.problem.parameters.parameters[: self.scalars])

    @property
    def scale(self) -> Float[Array, " scalar"]:
        """The guess of the scalars."""
        return jnp.asarray(self.guess[: self.scalars], jnp.float32)

    @property
    def region(self) -> Region:
        """Where it holds."""
        lower, upper = np.array(self.model.domain, np.float32).T
        points = jnp.asarray(self.model.collocation, jnp.float32)
        return Region(points, jnp.asarray(lower), jnp.asarray(upper))

    def functions(self, width: int, depth: int, *, key: Key[Array, ""]) -> Functions:
        """Networks that are the functions of the guess.

        Args:
            width: Units of each layer.
            depth: Layers from width to width.
            key: Source of the weights.

        Returns:
            A network for each unknown function.
        """
        drawn = Functions.draw(self.model, width, depth, key=key)
        if not drawn.fields:
            return drawn
        coefficients = jnp.asarray(self.guess[self.scalars :], jnp.float32)
        return fitted(drawn, self.model, coefficients, key)

    def start(self, optimizer: AbstractParameterOptimizer) -> Float[Array, " scalar"]:
        """Coordinates of the guess of the scalars."""
        if not self.scalars:
            return self.scale
        return optimizer.coordinates(self.space, self.scale, self.scale)

    def physical(
        self, optimizer: AbstractParameterOptimizer, x: Float[Array, " scalar"]
    ) -> Float[Array, " scalar"]:
        """Physical values of the scalars at coordinates, each of its own coordinate."""
        return optimizer.physical(self.space, x, self.scale) if self.scalars else x

    def states(
        self,
        network: LocalOperator,
        scalars: Float[Array, " scalar"],
        fields: Float[Array, "point field"],
        points: Float[Array, "point coordinate"],
    ) -> Float[Array, "point state"]:
        """What a network predicts, from the values of unknown functions at the points."""
        size = points.shape[1]
        blank = jnp.zeros((size, *fields.shape), fields.dtype)
        seen = self._seen(network, scalars, Jet(fields, blank, blank[:0], ()))
        raw = network.jet(inputs_at(self.model, points, ()), seen, ()).value
        return states_of(self.model, raw, points, scalars, fields)

    def values(
        self, theta: Float[Array, " parameter"], points: Float[Array, "point coordinate"]
    ) -> Float[Array, "point field"]:
        """Unknown functions by their coefficients."""
        _, functions = self.model.split(theta)
        found = [jax.vmap(function)(points) for function in functions]
        return jnp.stack(found, axis=1) if found else jnp.zeros((len(points), 0), theta.dtype)

    def residuals(
        self,
        network: LocalOperator,
        unknowns: Unknowns,
        points: Float[Array, "point coordinate"],
    ) -> Float[Array, "point equation"]:
        """By how much it misses the equation."""
        fields = unknowns.functions.jet(points, self.pairs)
        seen = self._seen(network, unknowns.scalars, fields)
        inputs = inputs_at(self.model, points, self.pairs)
        jet = network.jet(inputs, seen, self.pairs, reverse_only=True)
        return residuals_of(self.model, jet, points, unknowns.scalars, fields)

    def local_rows(
        self,
        network: LocalOperator,
        unknowns: Unknowns,
        points: Float[Array, "point coordinate"],
        weight: float,
    ) -> Float[Array, "point row"]:
        """The residual with its weighted derivatives.

        By each scalar in units of the guess, and by a constant added to each function.
        """

        def residuals(jets: tuple[Jet, ...], scalars: Array, fields: Jet) -> Array:
            return residuals_of(self.model, jets[0], points, scalars, fields)

        inputs = (inputs_at(self.model, points, self.pairs),)
        return self._with_slopes(residuals, network, unknowns, points, inputs, weight)

    def jumps(
        self, network: LocalOperator, unknowns: Unknowns
    ) -> Float[Array, "interface condition"]:
        """By how much it misses the conditions at interfaces."""
        points, sides = self._kinks()
        fields = unknowns.functions.jet(points, self.pairs)
        seen = self._seen(network, unknowns.scalars, fields)
        below, above = (network.jet(s, seen, self.pairs, reverse_only=True) for s in sides)
        return jumps_of(self.model, below, above, unknowns.scalars, fields)

    def local_jumps(
        self, network: LocalOperator, unknowns: Unknowns, weight: float
    ) -> Float[Array, "interface row"]:
        """The same with its weighted derivatives, as in `local_rows`."""

        def jumps(jets: tuple[Jet, ...], scalars: Array, fields: Jet) -> Array:
            return jumps_of(self.model, jets[0], jets[1], scalars, fields)

        points, sides = self._kinks()
        return self._with_slopes(jumps, network, unknowns, points, sides, weight)

    def _kinks(self) -> tuple[Array, tuple[Jet, ...]]:
        """Interfaces, and what networks see there from either side."""
        places = [[interface.at] for interface in self.model.interfaces]
        points = jnp.asarray(np.array(places), jnp.float32)
        sides = (inputs_at(self.model, points, self.pairs, above=above) for above in (False, True))
        return points, tuple(sides)

    def _with_slopes(
        self,
        of: Callable[[tuple[Jet, ...], Array, Jet], Array],
        network: LocalOperator,
        unknowns: Unknowns,
        points: Array,
        inputs: tuple[Jet, ...],
        weight: float,
    ) -> Array:
        """Something made of a network's outputs, and its weighted derivatives."""
        fields = unknowns.functions.jet(points, self.pairs)
        seen = self._seen(network, unknowns.scalars, fields)
        jets, pulls = zip(*(network.local_jet(x, seen, self.pairs) for x in inputs), strict=True)
        found, back = jax.vjp(lambda jets: of(jets, unknowns.scalars, fields), jets)

        def through(index: int) -> Array:
            """By the inputs of the network; each row depends on its own point."""
            (weights,) = back(jnp.zeros_like(found).at[:, index].set(1.0))
            each = [pull(jet) for pull, jet in zip(pulls, weights, strict=True)]
            return functools.reduce(jnp.add, each)

        inner = jnp.stack([through(index) for index in range(found.shape[1])], axis=2)
        _, outer = jax.linearize(lambda *own: of(jets, *own), unknowns.scalars, fields)
        still = jnp.zeros_like(unknowns.scalars)
        nowhere: Jet = jax.tree.map(jnp.zeros_like, fields)
        directions = [(row, nowhere) for row in jnp.diag(self.scale)]
        for index in range(len(self.model.fields)):
            one = jnp.zeros((1, len(self.model.fields)), found.dtype).at[0, index].set(1.0)
            directions.append((still, nowhere.shifted(one)))
        slopes = [inner[:, index] + outer(*d) for index, d in enumerate(directions)]
        root = np.float32(np.sqrt(weight))
        return jnp.concatenate([found, *(root * slope for slope in slopes)], axis=1)

    def line(
        self,
        network: LocalOperator,
        unknowns_of: Callable[[Array], Unknowns],
        x: Float[Array, " scalar"],
        observation: Observation,
    ) -> Linearization:
        """What the readings say, with derivatives by coordinates of the scalars.

        Args:
            network: The network.
            unknowns_of: Unknowns at coordinates, each scalar of its own coordinate.
            x: Coordinates.
            observation: The readings.

        Returns:
            The linearized misfit.
        """
        points = self.model.points(jnp.asarray(observation.times, x.dtype))
        unknowns, slopes = unknowns_of(x), _slopes(unknowns_of, x)
        theta = unknowns.theta
        directions = jnp.zeros((len(theta), len(x)), x.dtype).at[: len(x)].set(jnp.diag(slopes))

        fields = unknowns.functions.jet(points, ()).value

        def states(scalars: Array) -> Array:
            return self.states(network, scalars, fields, points)

        found, derivative = jax.linearize(states, unknowns.scalars)
        columns = [derivative(row) for row in jnp.diag(slopes)]
        blank = jnp.zeros((*found.shape, 0), found.dtype)
        tangents = jnp.stack(columns, axis=-1) if columns else blank
        return linearize(self.problem, observation, theta, found, tangents, directions)

    def _seen(self, network: LocalOperator, scalars: Array, fields: Jet) -> Any:
        """The inputs of a network besides coordinates; one that knows no parameters has none."""
        scaled = scalars / jnp.asarray(self.guess[: self.scalars], scalars.dtype)
        if not len(network.embedding) or not self.model.fields:
            return scaled[: len(network.embedding)]
        constant = jnp.broadcast_to(scaled, (len(fields.value), self.scalars))

        def with_scalars(rest: Array) -> Array:
            zero = jnp.zeros((*rest.shape[:-1], self.scalars), rest.dtype)
            return jnp.concatenate([zero, rest], axis=-1)

        value = jnp.concatenate([constant, fields.value], axis=1)
        first, second = with_scalars(fields.first), with_scalars(fields.second)
        return Jet(value, first, second, fields.pairs)


def _slopes(unknowns_of: Callable[[Array], Unknowns], x: Array) -> Array:
    """Derivative of each scalar by its coordinate."""
    return jax.jvp(lambda x: unknowns_of(x).scalars, (x,), (jnp.ones_like(x),))[1]


def equation_of(problem: InverseProblem, guess: tuple[float, ...] | None) -> Equation:
    """The equation of a problem.

    Args:
        problem: An inverse problem whose model is a `PDEModel`.
        guess: Physical parameter values; by default the medians of the priors.

    Returns:
        The equation.

    Raises:
        TypeError: If the model is not a `PDEModel`.
        ValueError: If `guess` does not fit the parameters.
    """
    if not isinstance(problem.model, PDEModel):
        raise TypeError(
            "`problem` must have a `PDEModel`, on whose residual networks are trained; got "
            f"{type(problem.model).__name__}."
        )
    with jax.ensure_compile_time_eval():  # nothing here depends on what is traced
        return _equation_of(problem, problem.model, guess)


def _equation_of(
    problem: InverseProblem, model: PDEModel, guess: tuple[float, ...] | None
) -> Equation:
    space = problem.parameters
    values = space.from_unit(np.full(space.size, 0.5)) if guess is None else guess
    values = np.asarray(values, np.float64)
    scalars = values[: space.size - model.coefficients]
    if values.shape != (space.size,) or not np.isfinite(values).all() or np.any(scalars == 0.0):
        raise ValueError(
            f"`guess` must be a finite number for each of the {space.size} parameters, other than "
            "zero for scalars, whose scale it sets; by default these are the medians of the "
            f"priors. Got {values}."
        )
    outside = np.flatnonzero(~np.isfinite(np.asarray(space.log_densities(values))))
    if len(outside):
        name = space.names[outside[0]]
        raise ValueError(
            f"`guess` must lie within the priors; {values[outside[0]]:g} is none of {name!r}."
        )
    return Equation(problem, model, second_derivatives(model, space.size), values)
