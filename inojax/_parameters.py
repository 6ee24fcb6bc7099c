"""The unknowns: named parameters, their priors, and the coordinates they are worked in."""

import enum
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ._x64 import is_traced

if TYPE_CHECKING:
    from numpyro.distributions import Distribution as Prior
else:
    # Importing NumPyro would take a quarter of the time of `import inojax`. `_check_prior` is
    # stricter than this.
    Prior = Any


class Design(enum.Enum):
    """How `ParameterSpace.design` fills the prior.

    `SOBOL` (scrambled) covers it most evenly and is the choice for training data;
    `LATIN_HYPERCUBE` is even in every single parameter; `RANDOM` is plain sampling.
    """

    SOBOL = "sobol"
    LATIN_HYPERCUBE = "latin hypercube"
    RANDOM = "random"


class Parameter(eqx.Module):
    """One named unknown with its prior and unit.

    Attributes:
        name: What tables call it.
        prior: Its prior, a scalar continuous NumPyro distribution with a closed inverse CDF.
        unit: Unit of its physical value, empty if it has none.
    """

    name: str = eqx.field(static=True)
    prior: Prior
    unit: str = eqx.field(static=True)
    _clip: tuple[bool, bool] = eqx.field(static=True, repr=False)

    def __init__(self, name: str, prior: Prior, unit: str = "") -> None:
        """Name an unknown and say what is believed about it beforehand.

        Args:
            name: What tables call it; unique within a `ParameterSpace`.
            prior: For instance `numpyro.distributions.LogUniform(1e-3, 1.0)`.
            unit: Unit of the physical value, for tables and figures.

        Raises:
            TypeError: If `prior` is not a NumPyro distribution, or `name` or `unit` not text.
            ValueError: If `name` is empty, or `prior` is not scalar, not continuous, or has no
                CDF and inverse CDF.
        """
        if not isinstance(name, str) or not isinstance(unit, str):
            raise TypeError(f"`name` and `unit` must be strings; got {name!r} and {unit!r}.")
        if not name.strip():
            raise ValueError("`name` of a parameter must not be empty; give it a short symbol.")
        _check_prior(name, prior)
        self.name = name
        self.prior = _in_double(prior)
        self.unit = unit
        self._clip = _ends_to_clip(name, self.prior)

    @property
    def infinite_ends(self) -> tuple[bool, bool]:
        """Whether unit coordinates 0 and 1 stand for no point of the prior's support."""
        return self._clip


class ParameterSpace(eqx.Module):
    """All unknowns of a problem, with the maps between three sets of coordinates.

    Physical values θ are what models take. *Unit* coordinates z are the prior CDF of each
    parameter, so the prior is uniform on [0, 1] there (mean 1/2, standard deviation 1/√12)
    and errors of different parameters compare. *Unconstrained* coordinates x range over the
    real line, for samplers and optimizers that know no bounds.

    The maps work on the last axis with any leading axes, inside `jit` and `vmap`. Float64
    input from the host is computed in float64 and comes back as NumPy, whatever JAX's 64-bit
    setting; float32 stays float32.

    Attributes:
        parameters: The unknowns, in the order of every parameter axis.
    """

    parameters: tuple[Parameter, ...] = eqx.field(converter=tuple)

    def __check_init__(self) -> None:
        """Refuse an empty space, a foreign object and a name that appears twice."""
        if not self.parameters:
            raise ValueError("`parameters` must hold at least one `Parameter`; got none.")
        for parameter in self.parameters:
            if not isinstance(parameter, Parameter):
                raise TypeError(
                    f"`parameters` must hold `Parameter` objects; got {type(parameter).__name__}."
                )
        twice = {name for name in self.names if self.names.count(name) > 1}
        if twice:
            raise ValueError(f"`parameters` must have distinct names; repeated: {sorted(twice)}.")

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each parameter."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def units(self) -> tuple[str, ...]:
        """Unit of each parameter, empty where there is none."""
        return tuple(parameter.unit for parameter in self.parameters)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return len(self.parameters)

    def to_unit(
        self, theta: Float[ArrayLike, "*batch parameter"]
    ) -> Float[Any, "*batch parameter"]:
        """Map physical values to unit coordinates by the prior CDF.

        Args:
            theta: Physical values; outside a bounded prior they map to 0 or 1.

        Returns:
            Unit coordinates in [0, 1].
        """
        return _apply(_to_unit, self, theta, "theta")

    def from_unit(self, z: Float[ArrayLike, "*batch parameter"]) -> Float[Any, "*batch parameter"]:
        """Map unit coordinates to physical values by the inverse prior CDF.

        Args:
            z: Unit coordinates; values outside [0, 1] are clipped to it, and exactly 0 and 1
                move inside by one rounding error where the prior has no finite end.

        Returns:
            Physical values, always finite.
        """
        return _apply(_from_unit, self, z, "z")

    def to_unconstrained(
        self, theta: Float[ArrayLike, "*batch parameter"]
    ) -> Float[Any, "*batch parameter"]:
        """Map physical values to the real line (NumPyro's bijection to the prior's support).

        Args:
            theta: Physical values inside the prior's support.

        Returns:
            Unconstrained values.
        """
        return _apply(_to_unconstrained, self, theta, "theta")

    def from_unconstrained(
        self, x: Float[ArrayLike, "*batch parameter"]
    ) -> Float[Any, "*batch parameter"]:
        """Map unconstrained values to physical values, the inverse of `to_unconstrained`.

        Args:
            x: Any real values.

        Returns:
            Physical values inside the prior's support.
        """
        return _apply(_from_unconstrained, self, x, "x")

    def log_densities(
        self, theta: Float[ArrayLike, "*batch parameter"]
    ) -> Float[Any, "*batch parameter"]:
        """Evaluate the prior log density of each parameter by itself.

        Args:
            theta: Physical values.

        Returns:
            The log densities, minus infinity outside the support.
        """
        return _apply(_log_densities, self, theta, "theta")

    def log_prob(self, theta: Float[ArrayLike, "*batch parameter"]) -> Float[Any, "*batch"]:
        """Evaluate the joint prior log density with respect to physical values.

        Args:
            theta: Physical values.

        Returns:
            The log density, minus infinity outside the support.
        """
        return _apply(_log_prob, self, theta, "theta")

    def sample(self, n: int, *, key: Key[Array, ""]) -> Float[np.ndarray, "n parameter"]:
        """Draw independent parameter vectors from the prior, on the host in float64.

        Args:
            n: How many.
            key: Source of randomness.

        Returns:
            Physical values.

        Raises:
            ValueError: If `n` is negative.
        """
        _check_count(n)
        with jax.enable_x64(True):
            z = jr.uniform(key, (n, self.size), jnp.float64)
            return np.asarray(self.from_unit(z))

    def design(
        self, n: int, *, kind: Design = Design.SOBOL, key: Key[Array, ""]
    ) -> Float[np.ndarray, "n parameter"]:
        """Spread parameter vectors evenly over the prior, on the host in float64.

        Use it instead of `sample` for training data: the same count covers the prior better.

        Args:
            n: How many; any number, a Sobol sequence of the next power of two is cut short.
            kind: The point set.
            key: Source of the scrambling.

        Returns:
            Physical values.

        Raises:
            TypeError: If `kind` is not a `Design`.
            ValueError: If `n` is negative.
        """
        _check_count(n)
        if not isinstance(kind, Design):
            raise TypeError(f"`kind` must be a member of `Design`; got {kind!r}.")
        if n == 0:
            return np.empty((0, self.size))
        seed = np.asarray(jr.key_data(key)).ravel().tolist()
        z = _unit_design(n, self.size, kind, np.random.default_rng(seed))
        return np.asarray(self.from_unit(z))

    def as_dict(self, theta: Float[ArrayLike, " parameter"]) -> dict[str, float]:
        """Label one parameter vector.

        Args:
            theta: Physical values.

        Returns:
            Name and value of each parameter.
        """
        values = np.asarray(theta, np.float64)
        if values.shape != (self.size,):
            raise ValueError(f"`theta` must have shape ({self.size},); got {values.shape}.")
        return dict(zip(self.names, values.tolist(), strict=True))

    def from_dict(self, values: Mapping[str, float]) -> Float[np.ndarray, " parameter"]:
        """Order named values into a parameter vector.

        Args:
            values: A value for each parameter name, in any order.

        Returns:
            Physical values in the order of `names`.

        Raises:
            ValueError: If a name is missing or unknown.
        """
        missing = [name for name in self.names if name not in values]
        unknown = [name for name in values if name not in self.names]
        if missing or unknown:
            raise ValueError(
                f"`values` must name exactly {list(self.names)}; "
                f"missing: {missing}, unknown: {unknown}."
            )
        return np.array([float(values[name]) for name in self.names])


def _check_count(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0:
        raise ValueError(f"`n` must be a whole number, zero or more; got {n!r}.")


def _unit_design(n: int, size: int, kind: Design, rng: np.random.Generator) -> np.ndarray:
    if kind is Design.RANDOM:
        return rng.random((n, size))
    # Half a second, which `import inojax` need not take.
    from scipy.stats import qmc

    if kind is Design.LATIN_HYPERCUBE:
        return qmc.LatinHypercube(size, rng=rng).random(n)
    # Only whole powers of two are balanced, and SciPy warns about any other count.
    return qmc.Sobol(size, rng=rng).random_base2((n - 1).bit_length())[:n]


def _check_prior(name: str, prior: Prior) -> None:
    import numpyro.distributions as dist

    if not isinstance(prior, dist.Distribution):
        raise TypeError(
            f"`prior` of parameter {name!r} must be a NumPyro distribution such as "
            f"`numpyro.distributions.Uniform(0.0, 1.0)`; got {type(prior).__name__}."
        )
    if prior.batch_shape or prior.event_shape:
        raise ValueError(
            f"`prior` of parameter {name!r} must be scalar; got batch shape {prior.batch_shape} "
            f"and event shape {prior.event_shape}. Make one `Parameter` for each element."
        )
    if prior.is_discrete:
        raise ValueError(f"`prior` of parameter {name!r} must be continuous; got {prior!r}.")


def _in_double(prior: Prior) -> Prior:
    """The same prior with Python floats inside, derived constants recomputed in float64.

    NumPyro derives constants (log bounds, tail masses) when a distribution is made, in
    float32 unless 64-bit floats happen to be on; and Python floats, unlike arrays, let every
    result take the precision of its argument.
    """
    with jax.enable_x64(True):
        arguments = [
            name for name in inspect.signature(type(prior)).parameters if name != "validate_args"
        ]
        if all(name in vars(prior) for name in arguments):
            values = {name: jax.tree.map(_to_float, getattr(prior, name)) for name in arguments}
            prior = type(prior)(**values)
        return jax.tree.map(_to_float, prior)


def _to_float(leaf: Any) -> Any:
    values = np.asarray(leaf, np.float64)
    return float(values) if values.ndim == 0 else values


def _ends_to_clip(name: str, prior: Prior) -> tuple[bool, bool]:
    """Whether z = 0 and z = 1 map to something that is not a point of the support."""
    with jax.enable_x64(True):
        try:
            prior.cdf(prior.icdf(jnp.asarray(0.5)))
            ends = [prior.icdf(jnp.asarray(end)) for end in (0.0, 1.0)]
        except (NotImplementedError, ImportError, AttributeError) as error:
            raise ValueError(
                f"`prior` of parameter {name!r} has no CDF and inverse CDF: {prior!r}. Use "
                "one that has, for instance Uniform, LogUniform, Normal, LogNormal, HalfNormal, "
                "TruncatedNormal, Exponential."
            ) from error
        support = cast(Any, prior.support)
        lower, upper = [not bool(jnp.isfinite(end) & support(end)) for end in ends]
        return lower, upper


def _apply(
    function: Callable[[ParameterSpace, Array], Array],
    space: ParameterSpace,
    values: Any,
    argument: str,
) -> Any:
    if np.ndim(values) == 0 or np.shape(values)[-1] != space.size:
        raise ValueError(
            f"`{argument}` must end in an axis of {space.size} parameters; "
            f"got shape {np.shape(values)}."
        )
    single = getattr(values, "dtype", None) == np.float32
    if single or is_traced(values) or jnp.result_type(float) == jnp.float64:
        return function(space, jnp.asarray(values, jnp.float32 if single else float))
    with jax.enable_x64(True):
        return np.asarray(function(space, jnp.asarray(values, np.float64)))


class _Alike(NamedTuple):
    """Parameters whose priors differ in numbers only, so that one call serves them all.

    Attributes:
        columns: Their positions.
        prior: The prior of all; its numbers are arrays along the last axis, unless there is only
            one parameter.
        clip: Whether unit coordinates 0 and 1 must be avoided.
    """

    columns: tuple[int, ...]
    prior: Prior
    clip: tuple[bool, bool]


def _alike(space: ParameterSpace, values: Array) -> list[_Alike]:
    groups: dict[Any, list[int]] = {}
    for index, parameter in enumerate(space.parameters):
        leaves, structure = jax.tree.flatten(parameter.prior)
        single = all(isinstance(leaf, float) for leaf in leaves)
        groups.setdefault((structure, parameter._clip) if single else index, []).append(index)
    return [_join(space, columns, values) for columns in groups.values()]


def _join(space: ParameterSpace, columns: list[int], values: Array) -> _Alike:
    parameters = [space.parameters[index] for index in columns]
    prior = parameters[0].prior
    if len(columns) > 1:
        shape = (1,) * (values.ndim - 1) + (-1,)

        def collect(*numbers: float) -> np.ndarray:
            return np.array(numbers, values.dtype).reshape(shape)

        prior = jax.tree.map(collect, *(parameter.prior for parameter in parameters))
    return _Alike(tuple(columns), prior, parameters[0]._clip)


def _columnwise(
    function: Callable[[_Alike, Array], Array],
) -> Callable[[ParameterSpace, Array], Array]:
    """Apply an elementwise map to the columns of an array, compiled once.

    Columns with priors of one kind go together: five operations for each of a hundred
    parameters would take longer to compile than the network beside them.
    """

    @eqx.filter_jit
    @functools.wraps(function)
    def mapped(space: ParameterSpace, values: Array) -> Array:
        groups = _alike(space, values)
        parts = []
        for group in groups:
            one = len(group.columns) == 1
            part = values[..., group.columns[0] if one else np.array(group.columns)]
            part = function(group, part).astype(values.dtype)
            parts.append(part[..., None] if one else part)
        order = np.argsort(np.concatenate([group.columns for group in groups]))
        joined = jnp.concatenate(parts, axis=-1)
        return joined if len(groups) == 1 else joined[..., order]

    return mapped


@_columnwise
def _to_unit(group: _Alike, theta: Array) -> Array:
    return jnp.clip(group.prior.cdf(theta), 0.0, 1.0)


@_columnwise
def _from_unit(group: _Alike, z: Array) -> Array:
    inside = float(jnp.finfo(z.dtype).eps)
    lower, upper = group.clip
    z = jnp.clip(z, inside if lower else 0.0, 1.0 - inside if upper else 1.0)
    # Rounding in the inverse CDF can step over a finite end, where there is no density.
    support = group.prior.support
    low = getattr(support, "lower_bound", -jnp.inf)
    high = getattr(support, "upper_bound", jnp.inf)
    return jnp.clip(group.prior.icdf(z), low, high)


@_columnwise
def _to_unconstrained(group: _Alike, theta: Array) -> Array:
    import numpyro.distributions as dist

    return dist.biject_to(group.prior.support).inv(theta)


@_columnwise
def _from_unconstrained(group: _Alike, x: Array) -> Array:
    import numpyro.distributions as dist

    return cast(Array, dist.biject_to(group.prior.support)(x))


@_columnwise
def _log_densities(group: _Alike, theta: Array) -> Array:
    # NumPyro's truncated priors add axes inside, which is theirs to decide.
    with jax.numpy_rank_promotion("allow"):
        density = group.prior.log_prob(theta)
    return jnp.where(cast(Any, group.prior.support)(theta), density, -jnp.inf)


def _log_prob(space: ParameterSpace, theta: Array) -> Array:
    return jnp.sum(_log_densities(space, theta), axis=-1)
