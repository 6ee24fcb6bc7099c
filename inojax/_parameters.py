"""The unknowns: named parameters, their priors, and the coordinates they are worked in."""

import enum
import functools
import inspect
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from ._binding import Binding
from ._quantiles import Columns, NoDensityFoundError, Quantiles, own_functions
from ._x64 import is_traced

if TYPE_CHECKING:
    from numpyro.distributions import Distribution as Prior
else:
    # Importing NumPyro would take a quarter of the time of `import inojax`. `_check_prior` is
    # stricter than this.
    Prior = Any


# In unit coordinates every prior is uniform on [0, 1], of variance 1/12.
UNIT_PRECISION = 12.0


class Design(enum.Enum):
    """How `ParameterSpace.design` fills the prior.

    `SOBOL` (scrambled) covers it most evenly and is the choice for training data;
    `LATIN_HYPERCUBE` is even in every single parameter; `RANDOM` is plain sampling.

    Example:
        >>> space = ij.problems.robertson().parameters
        >>> space.design(8, kind=ij.Design.LATIN_HYPERCUBE, key=jr.key(0)).shape
        (8, 3)
    """

    SOBOL = "sobol"
    LATIN_HYPERCUBE = "latin hypercube"
    RANDOM = "random"


class Parameter(eqx.Module):
    """One named parameter: an unknown with its prior, or a fixed number.

    A fixed parameter, `Parameter("k", 0.3)`, is seen by equations, observables and noise like any
    other, but is no unknown: no estimate, design or network knows of it.

    Attributes:
        name: What tables call it.
        prior: Its prior, a scalar continuous NumPyro distribution; or its value, if it is fixed.
        unit: Unit of its physical value, empty if it has none.

    Example:
        >>> import numpyro.distributions as dist
        >>> rate = ij.Parameter("k", dist.LogNormal(0.0, 1.0), unit="1/s")
        >>> rate.name, rate.unit
        ('k', '1/s')
    """

    name: str = eqx.field(static=True)
    prior: Prior
    unit: str = eqx.field(static=True)
    _clip: tuple[bool, bool] = eqx.field(static=True, repr=False)
    # The distribution function and its inverse, where the prior has none of its own.
    _quantiles: Quantiles | None = eqx.field(static=True, repr=False)

    def __init__(self, name: str, prior: Prior | float, unit: str = "") -> None:
        """Name a parameter and say what is believed about it beforehand, or known.

        Args:
            name: What tables call it; unique within a `ParameterSpace`.
            prior: For instance `numpyro.distributions.LogUniform(1e-3, 1.0)`; a number fixes
                the parameter at it.
            unit: Unit of the physical value, for tables and figures.

        Raises:
            TypeError: If `prior` is neither a NumPyro distribution nor a number, or `name` or
                `unit` not text.
            ValueError: If `name` is empty, `prior` is not scalar, not continuous, or a density
                that cannot be integrated, or a number is not finite.
        """
        if not isinstance(name, str) or not isinstance(unit, str):
            raise TypeError(f"`name` and `unit` must be strings; got {name!r} and {unit!r}.")
        if not name.strip():
            raise ValueError("`name` of a parameter must not be empty; give it a short symbol.")
        self.name = name
        self.unit = unit
        self._quantiles = None
        self._clip = False, False
        if _is_number(prior):
            self.prior = cast(Any, _as_value(name, prior))
            return
        _check_prior(name, cast(Any, prior))
        self.prior = _in_double(cast(Any, prior))
        _check_support(name, self.prior)
        if own_functions(self.prior):
            self._clip = _ends_to_clip(self.prior)
        else:
            self._quantiles = _quantiles_of(name, self.prior)
            # Densities may be zero or infinite where such a support ends.
            self._clip = True, True

    @property
    def fixed(self) -> float | None:
        """The value of a fixed parameter, None for an unknown."""
        return self.prior if isinstance(self.prior, float) else None

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

    Parameters that are fixed at a number are no part of these vectors. Equations see them where
    they were declared: `complete` puts them in.

    Attributes:
        parameters: The unknowns, in the order of every parameter axis.
        fixed: The parameters that are fixed at a number.
        binding: Names of all of them as declared, with the values of those that are fixed.

    Example:
        >>> import numpyro.distributions as dist
        >>> space = ij.ParameterSpace(
        ...     (
        ...         ij.Parameter("k", dist.Uniform(0.0, 4.0)),
        ...         ij.Parameter("y0", dist.Uniform(1.0, 2.0)),
        ...     )
        ... )
        >>> space.names
        ('k', 'y0')
        >>> np.asarray(space.from_unit(np.array([0.25, 0.5]))).round(6).tolist()
        [1.0, 1.5]
    """

    parameters: tuple[Parameter, ...]
    fixed: tuple[Parameter, ...]
    binding: Binding = eqx.field(static=True)

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        """Put parameters together, in the order in which equations see them.

        Args:
            parameters: Unknowns, at least one, and fixed parameters in any order.

        Raises:
            TypeError: If one is something else.
            ValueError: If no unknown is there, or a name appears twice.
        """
        declared = tuple(parameters)
        _check_declared(declared)
        self.parameters = tuple(each for each in declared if each.fixed is None)
        self.fixed = tuple(each for each in declared if each.fixed is not None)
        values = [(i, each.fixed) for i, each in enumerate(declared) if each.fixed is not None]
        self.binding = Binding(tuple(each.name for each in declared), tuple(values))

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

    @property
    def all_names(self) -> tuple[str, ...]:
        """Name of each parameter as declared, fixed ones included."""
        return self.binding.names

    @property
    def fixed_values(self) -> tuple[tuple[str, float, str], ...]:
        """Name, value and unit of each fixed parameter."""
        pairs = zip(self.fixed, self.binding.values.values(), strict=True)
        return tuple((parameter.name, value, parameter.unit) for parameter, value in pairs)

    def complete(
        self, theta: Float[ArrayLike, "*batch parameter"]
    ) -> Float[Any, "*batch declared"]:
        """Put fixed parameters in, as equations, observables and noise see them.

        Args:
            theta: Physical values of the unknowns.

        Returns:
            Physical values of all parameters in the order of `all_names`.

        Raises:
            ValueError: If `theta` has the wrong shape.
        """
        return self.binding.complete(theta)

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
            Name and value of each parameter as declared, fixed ones included.
        """
        values = np.asarray(theta, np.float64)
        if values.shape != (self.size,):
            raise ValueError(f"`theta` must have shape ({self.size},); got {values.shape}.")
        return dict(zip(self.all_names, self.complete(values).tolist(), strict=True))

    def from_dict(self, values: Mapping[str, float]) -> Float[np.ndarray, " parameter"]:
        """Order named values into a parameter vector.

        Args:
            values: A value for each parameter name, in any order. Fixed parameters may be
                left out.

        Returns:
            Physical values in the order of `names`.

        Raises:
            ValueError: If a name is missing or unknown, or a fixed parameter has another value.
        """
        missing = [name for name in self.names if name not in values]
        unknown = [name for name in values if name not in self.all_names]
        if missing or unknown:
            raise ValueError(
                f"`values` must name exactly {list(self.names)}; "
                f"missing: {missing}, unknown: {unknown}."
            )
        for name, value in self.binding.values.items():
            if name in values and float(values[name]) != value:
                raise ValueError(
                    f"`values` give {values[name]} for {name!r}, which is fixed at {value}. Leave "
                    "it out, or make a problem with the other value."
                )
        return np.array([float(values[name]) for name in self.names])


def _check_declared(declared: tuple[Any, ...]) -> None:
    """Refuse an empty space, a foreign object and a name that appears twice."""
    for parameter in declared:
        if not isinstance(parameter, Parameter):
            raise TypeError(
                f"`parameters` must hold `Parameter` objects; got {type(parameter).__name__}."
            )
    if all(parameter.fixed is not None for parameter in declared):
        got = "fixed ones only" if declared else "none"
        raise ValueError(
            f"`parameters` must hold at least one `Parameter` with a prior; got {got}."
        )
    names = [parameter.name for parameter in declared]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"`parameters` must have distinct names; repeated: {sorted(twice)}.")


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
            "`numpyro.distributions.Uniform(0.0, 1.0)`, or a number that it is fixed at; got "
            f"{type(prior).__name__}."
        )
    if prior.batch_shape or prior.event_shape:
        raise ValueError(
            f"`prior` of parameter {name!r} must be scalar; got batch shape {prior.batch_shape} "
            f"and event shape {prior.event_shape}. Make one `Parameter` for each element."
        )
    if prior.is_discrete:
        raise ValueError(f"`prior` of parameter {name!r} must be continuous; got {prior!r}.")
    low, high = (getattr(prior, end, None) for end in ("low", "high"))
    if low is not None and high is not None and not np.all(np.asarray(low) < np.asarray(high)):
        raise ValueError(
            f"`prior` of parameter {name!r} must have its lower end below its upper end; got {low} "
            f"and {high}. Exchange them."
        )


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


def _is_number(value: Any) -> bool:
    """Whether this is one number; not a distribution, nor a truth value, nor text."""
    if isinstance(value, bool | np.bool_) or is_traced(value):
        return False
    array = isinstance(value, np.ndarray | jax.Array) and value.dtype.kind in "iuf"
    return isinstance(value, numbers.Real) or (array and np.shape(value) == ())


def _as_value(name: str, value: Any) -> float:
    if not np.isfinite(float(value)):
        raise ValueError(f"`prior` of parameter {name!r} must be a finite number; got {value!r}.")
    return float(value)


def _check_support(name: str, prior: Prior) -> None:
    # NumPyro's Levy keeps its support where JAX does not see it.
    if prior.support is None:
        raise ValueError(
            f"`prior` of parameter {name!r} loses its support in JAX's transformations, as "
            f"{type(prior).__name__} of NumPyro does. Write the same distribution another way: a "
            "Levy prior of scale c is `InverseGamma(0.5, c / 2)`."
        )


def _ends_to_clip(prior: Prior) -> tuple[bool, bool]:
    """Whether z = 0 and z = 1 map to something that is not a point of the support."""
    with jax.enable_x64(True):
        ends = [prior.icdf(jnp.asarray(end)) for end in (0.0, 1.0)]
        support = cast(Any, prior.support)
        lower, upper = [not bool(jnp.isfinite(end) & support(end)) for end in ends]
        return lower, upper


def _quantiles_of(name: str, prior: Prior) -> Quantiles:
    try:
        return Quantiles(prior)
    except NoDensityFoundError as error:
        raise ValueError(
            f"`prior` of parameter {name!r} has no inverse CDF, and none can be made of its "
            f"density: {error}. Got {prior!r}; use a proper continuous distribution."
        ) from error


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
        functions: What has their `cdf` and `icdf`, the prior itself where it can.
    """

    columns: tuple[int, ...]
    prior: Prior
    clip: tuple[bool, bool]
    functions: Any


def _alike(space: ParameterSpace, values: Array) -> list[_Alike]:
    groups: dict[Any, list[int]] = {}
    for index, parameter in enumerate(space.parameters):
        leaves, structure = jax.tree.flatten(parameter.prior)
        single = all(isinstance(leaf, float) for leaf in leaves)
        kind = structure, parameter._clip, parameter._quantiles is None
        groups.setdefault(kind if single else index, []).append(index)
    return [_join(space, columns, values) for columns in groups.values()]


def _join(space: ParameterSpace, columns: list[int], values: Array) -> _Alike:
    parameters = [space.parameters[index] for index in columns]
    prior = parameters[0].prior
    if len(columns) > 1:
        shape = (1,) * (values.ndim - 1) + (-1,)

        def collect(*numbers: float) -> np.ndarray:
            return np.array(numbers, values.dtype).reshape(shape)

        prior = jax.tree.map(collect, *(parameter.prior for parameter in parameters))
    functions = prior
    each = [parameter._quantiles for parameter in parameters]
    found = tuple(quantiles for quantiles in each if quantiles is not None)
    if found:
        # Concrete numbers, which derivatives need that are taken later.
        functions = Columns(found, found[0].prior if len(columns) == 1 else prior)
    return _Alike(tuple(columns), prior, parameters[0]._clip, functions)


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
    return jnp.clip(group.functions.cdf(theta), 0.0, 1.0)


@_columnwise
def _from_unit(group: _Alike, z: Array) -> Array:
    inside = float(jnp.finfo(z.dtype).eps)
    lower, upper = group.clip
    z = jnp.clip(z, inside if lower else 0.0, 1.0 - inside if upper else 1.0)
    # Rounding in the inverse CDF can step over a finite end, where there is no density.
    support = group.prior.support
    low = getattr(support, "lower_bound", -jnp.inf)
    high = getattr(support, "upper_bound", jnp.inf)
    return jnp.clip(group.functions.icdf(z), low, high)


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
