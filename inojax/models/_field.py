"""Unknown functions of an equation: a prior on their slope, coefficients, a form for networks."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._parameters import Parameter

# `transform(n, s)`: the function at coordinate s, from a number that may be anything.
Transform = Callable[[Any, Any], Any]


class TotalVariation(eqx.Module):
    """A penalty on how much a function goes up and down, which leaves jumps as they are.

    The prior's density is multiplied by exp(-∫ (√(f'² + ε²) - ε) / b) with `jump` b and `rounding`
    ε. Where the penalty on slopes makes a jump a ramp, this one prefers pieces that are flat.

    Attributes:
        jump: A rise that costs one unit of log density, in the function's unit. It is what each
            piece between two nodes is expected to go up or down, so samples of the prior, unlike
            the minimum, depend on how many there are.
        rounding: Slopes well below this cost their square, as smooth minimization needs it; in the
            function's unit per unit of the coordinate. Choose it well below the slopes of steps
            between two nodes, but not of what noise does: networks do not follow what is sharper.

    Source:
        Rudin, Osher and Fatemi, Physica D 60 (1992); Vogel and Oman, SIAM J. Sci. Comput. 17
        (1996), for the rounding and for `weights`; Lassas and Siltanen, Inverse Problems 20 (2004),
        for what nodes do to samples.

    Example:
        >>> problem = ij.problems.variable_poisson(variation=0.1)
        >>> isinstance(problem.model.fields[0].total_variation, ij.models.TotalVariation)
        True
    """

    jump: float = eqx.field(static=True)
    rounding: float = eqx.field(static=True)

    def __init__(self, jump: float, rounding: float) -> None:
        """Describe a penalty.

        Raises:
            ValueError: If a number is not positive.
        """
        self.jump, self.rounding = float(jump), float(rounding)

    def __check_init__(self) -> None:
        """Refuse numbers that are not positive."""
        for name in ("jump", "rounding"):
            if not 0.0 < getattr(self, name) < np.inf:
                raise ValueError(f"`{name}` must be positive; got {getattr(self, name)!r}.")

    def weights(self, slopes: Float[Array, "*point"]) -> Float[Array, "*point"]:
        """What the square of a slope weighs, so that half of it has the penalty's derivative.

        Args:
            slopes: Of the function.

        Returns:
            1 / (b √(f'² + ε²)): parabolas of this curvature lie above the penalty and touch it.
        """
        return 1.0 / (self.jump * self._rounded(slopes))

    def __call__(self, slopes: Float[Array, "*point"]) -> Float[Array, "*point"]:
        """The penalty for each unit of length.

        Args:
            slopes: Of the function.

        Returns:
            (√(f'² + ε²) - ε) / b, written without a difference.
        """
        return jnp.square(slopes) / (self.jump * (self._rounded(slopes) + self.rounding))

    def _rounded(self, slopes: Array) -> Array:
        return jnp.sqrt(jnp.square(slopes) + self.rounding**2)


class Variation(NamedTuple):
    """A total variation near some coefficients.

    Attributes:
        value: The penalty.
        gradient: Its derivative.
        curvature: Second derivatives of a parabola that lies above it and touches it here.
    """

    value: Float[Array, ""]
    gradient: Float[Array, " size"]
    curvature: Float[Array, "size size"]


class Field(eqx.Module):
    """An unknown function f of one coordinate, known at both ends and smooth in between.

    Its prior is the one that makes a penalty ∫ f'² quadratic: density proportional to
    exp(-∫ f'² / 2r²) with `roughness` r, between the values at the ends (a Brownian bridge). The
    function is piecewise linear through `nodes`, and its coefficients are ordinary parameters
    (`parameters`): standard normal weights of the prior's principal components, the smoothest
    first. So `LeastSquares` with `Penalty.DENSITY` finds the exact regularized minimizer. `BiLO`
    and `PINN` make it a smooth function, a network behind `transform`, under the same penalty.

    With `total_variation` its penalty is added. It couples the coefficients, which are no longer
    independent in the prior: `LeastSquares`, `Posterior` and `SequentialMonteCarlo` count it
    beside the readings, `BiLO` and `PINN` beside the penalty on slopes; what draws simulations
    from the prior refuses it. For uncertainties refine least squares by `Posterior`: the parabola
    at the minimum is narrower than the posterior.

    A penalty that is heavier than the truth deserves is a prior that it lies far outside of, where
    unit coordinates are 0 or 1 in floating point: then use `Coordinates.UNCONSTRAINED`.

    Attributes:
        name: What it is called; its coefficients are `name1`, `name2`, ...
        coordinate: Name of the coordinate that it depends on.
        nodes: Where the pieces of the linear function meet, ends included.
        ends: Its values there.
        roughness: Root mean square slope per unit length that is expected: after a length s the
            function has changed by about r √s.
        transform: `transform(n, s) -> f`: has the values at the ends whatever n is, and any bounds
            that the function should keep when it is a network. By default it adds n, times what
            vanishes at the ends, to the line between them.
        total_variation: A penalty for functions with jumps, beside a `roughness` that is large.

    Source:
        Stuart, Inverse problems: a Bayesian perspective, Acta Numerica 19 (2010).

    Example:
        >>> field = ij.problems.variable_poisson().model.fields[0]
        >>> field.name, field.size == len(field.parameters)
        ('D', True)
        >>> coefficients = field.coefficients(lambda x: 1.0 + x)  # of a function, at its nodes
    """

    name: str = eqx.field(static=True)
    coordinate: str = eqx.field(static=True)
    nodes: tuple[float, ...] = eqx.field(static=True)
    ends: tuple[float, float] = eqx.field(static=True)
    roughness: float = eqx.field(static=True)
    transform: Transform = eqx.field(static=True)
    total_variation: TotalVariation | None

    def __init__(
        self,
        name: str,
        coordinate: str,
        nodes: Float[ArrayLike, " node"] | Sequence[float],
        *,
        ends: tuple[float, float],
        roughness: float,
        transform: Transform | None = None,
        total_variation: TotalVariation | None = None,
    ) -> None:
        """Describe an unknown function.

        Raises:
            TypeError: If `total_variation` is of another type.
            ValueError: If `nodes` do not increase, `ends` are not finite, or `roughness` is not
                positive.
        """
        self.name, self.coordinate = name, coordinate
        self.nodes = tuple(np.asarray(nodes, np.float64).ravel().tolist())
        self.ends = float(ends[0]), float(ends[1])
        self.roughness = float(roughness)
        span = (self.nodes[0], self.nodes[-1]) if self.nodes else (0.0, 0.0)
        self.transform = _Between(span, self.ends) if transform is None else transform
        self.total_variation = total_variation

    def __check_init__(self) -> None:
        """Refuse what has no inside."""
        if len(self.nodes) < 3 or not np.all(np.diff(self.nodes) > 0.0):
            raise ValueError(
                f"`nodes` of {self.name!r} must increase, at least 3 of them; got {self.nodes}."
            )
        if not (0.0 < self.roughness < np.inf):
            raise ValueError(f"`roughness` must be positive; got {self.roughness!r}.")
        if not np.all(np.isfinite(self.ends)):
            raise ValueError(f"`ends` must be finite; got {self.ends}.")
        if not isinstance(self.total_variation, TotalVariation | None):
            raise TypeError(
                "`total_variation` must be a `TotalVariation`; got "
                f"{type(self.total_variation).__name__}."
            )

    @property
    def size(self) -> int:
        """Number of its coefficients."""
        return len(self.nodes) - 2

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its coefficients, to be the last parameters of a problem."""
        import numpyro.distributions as dist

        return tuple(Parameter(name, dist.Normal(0.0, 1.0)) for name in self.parameter_names)

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Name of each of them."""
        return tuple(f"{self.name}{index}" for index in range(1, self.size + 1))

    def nodal(self, coefficients: Float[ArrayLike, "*batch size"]) -> Float[Array, "*batch node"]:
        """Values at the nodes.

        Args:
            coefficients: Of the principal components.

        Returns:
            The values, those at both ends included.
        """
        coefficients = 1.0 * jnp.asarray(coefficients)
        mean, modes = (jnp.asarray(x, coefficients.dtype) for x in self._modes)
        rest = coefficients @ modes
        return jnp.broadcast_to(mean, rest.shape) + rest

    def at(
        self, coefficients: Float[ArrayLike, " size"], s: Float[ArrayLike, "*point"]
    ) -> Float[Array, "*point"]:
        """Values anywhere.

        Args:
            coefficients: Of the principal components.
            s: Values of its coordinate.

        Returns:
            The function there, linear between the nodes.
        """
        values = self.nodal(coefficients)
        return jnp.interp(s, jnp.asarray(self.nodes, values.dtype), values)

    def coefficients(
        self, function: Callable[[Any], Any] | Float[ArrayLike, "*batch node"]
    ) -> Float[Any, "*batch size"]:
        """The coefficients of a function.

        Args:
            function: A function of an array of coordinates, or its values at the nodes.

        Returns:
            Coefficients of the linear function with the same values at the nodes.

        Raises:
            ValueError: If values are given in a wrong number.
        """
        nodes = np.array(self.nodes)
        values = function(nodes) if callable(function) else function
        if np.shape(values)[-1:] != nodes.shape:
            raise ValueError(
                f"`function` must give a value at each of the {len(nodes)} `nodes` of "
                f"{self.name!r}; got shape {np.shape(values)}."
            )
        mean, modes = self._modes
        # Principal components are orthogonal.
        back = modes[:, 1:-1].T / np.sum(np.square(modes), axis=1)
        if isinstance(values, np.ndarray):
            return (values - mean)[..., 1:-1] @ back
        values = jnp.asarray(values)
        return (values - jnp.asarray(mean, values.dtype))[..., 1:-1] @ jnp.asarray(
            back, values.dtype
        )

    def slope_rows(self, slopes: Float[Array, " point"]) -> list[Float[Array, " point"]]:
        """What its prior says of slopes, for a function that is a network, as least squares.

        Args:
            slopes: At points that are spread evenly from end to end.

        Returns:
            Numbers whose mean square is ∫ f'² / r²; then, with a total variation, such whose mean
            square has twice its derivative.
        """
        length = self.nodes[-1] - self.nodes[0]
        found = [slopes * np.float32(length**0.5 / self.roughness)]
        if self.total_variation is not None:
            weights = jax.lax.stop_gradient(self.total_variation.weights(slopes))
            found.append(slopes * jnp.sqrt(np.float32(length) * weights))
        return found

    def variation(self, coefficients: Float[ArrayLike, " size"]) -> Variation:
        """The penalty of its total variation; zero if it has none.

        Args:
            coefficients: Of the principal components.

        Returns:
            The penalty with its derivatives by the coefficients.
        """
        coefficients = 1.0 * jnp.asarray(coefficients)
        if self.total_variation is None:
            zero = jnp.zeros_like(coefficients)
            return Variation(zero.sum(), zero, jnp.diag(zero))
        gaps = np.diff(self.nodes)
        modes = jnp.asarray(np.diff(self._modes[1], axis=1) / gaps, coefficients.dtype)
        gaps = jnp.asarray(gaps, coefficients.dtype)
        slopes = jnp.diff(self.nodal(coefficients)) / gaps
        weights = gaps * self.total_variation.weights(slopes)
        value = jnp.sum(gaps * self.total_variation(slopes))
        curvature = jnp.einsum("cs,s,ds->cd", modes, weights, modes)
        return Variation(value, modes @ (weights * slopes), curvature)

    @property
    def _modes(self) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, "size node"]]:
        mean = np.interp(self.nodes, [self.nodes[0], self.nodes[-1]], self.ends)
        return mean, self.roughness * _principal_components(self.nodes)


class _Between(eqx.Module):
    """The line between two ends, and anything that vanishes there."""

    places: tuple[float, float] = eqx.field(static=True)
    ends: tuple[float, float] = eqx.field(static=True)

    def __call__(self, n: Any, s: Any) -> Any:
        length = self.places[1] - self.places[0]
        share = (s - self.places[0]) / length
        line = self.ends[0] + (self.ends[1] - self.ends[0]) * share
        return line + share * (1.0 - share) * n


def check_field(field: Field, box: dict[str, tuple[float, float]]) -> None:
    """Raise a ValueError unless a field spans its coordinate and its transform keeps the ends."""
    if field.coordinate not in box:
        raise ValueError(
            f"Field {field.name!r} depends on {field.coordinate!r}, but the coordinates are "
            f"{', '.join(box)}."
        )
    ends = box[field.coordinate]
    if (field.nodes[0], field.nodes[-1]) != ends:
        raise ValueError(
            f"`nodes` of field {field.name!r} must reach from {ends[0]} to {ends[1]}, the ends of "
            f"{field.coordinate!r}; they reach from {field.nodes[0]} to {field.nodes[-1]}."
        )
    with jax.ensure_compile_time_eval():
        found = [
            [float(field.transform(jnp.asarray(n), jnp.asarray(s))) for n in (-1.0, 1.0)]
            for s in ends
        ]
    if not np.allclose(found, np.array(field.ends)[:, None], rtol=1e-6, atol=1e-6):
        raise ValueError(
            f"`transform` of field {field.name!r} must have the values {field.ends} at its ends, "
            f"whatever `n` is; got {found[0]} and {found[1]} for two of them."
        )


@functools.cache
def _principal_components(nodes: tuple[float, ...]) -> Float[np.ndarray, "size node"]:
    """Of a Brownian bridge, times the root of their variance, one in each row."""
    gaps = np.diff(nodes)
    stiffness = np.diag(1.0 / gaps[:-1] + 1.0 / gaps[1:])
    stiffness -= np.diag(1.0 / gaps[1:-1], 1) + np.diag(1.0 / gaps[1:-1], -1)
    precision, modes = np.linalg.eigh(stiffness)
    # One sign, whatever the machine's linear algebra.
    modes = modes * np.sign(modes[0])
    return np.pad((modes / np.sqrt(precision)).T, ((0, 0), (1, 1)))
