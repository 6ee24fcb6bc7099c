"""Distribution functions and their inverses, for priors that bring none of their own."""

import functools
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._quantile_table import (
    Line,
    NoDensityFoundError as NoDensityFoundError,
    Table,
    tabulate,
)

# Probabilities at which a distribution's own functions must undo each other, to this share.
_PROBES = (1e-6, 0.01, 0.3, 0.7, 0.99, 1.0 - 1e-6)
_SHARE = 1e-6


class Quantiles:
    """Distribution function of a scalar prior and its inverse, from its density alone.

    The density is integrated once on the host, in float64; what stays are polynomials, which are
    evaluated wherever arrays live, with nothing called back. Derivatives are those of the
    density. Two made from equal priors are equal, so that programs compiled for one serve both.

    Attributes:
        prior: The prior, of concrete numbers.
        table: Its integral.
    """

    prior: Any
    table: Table

    def __init__(self, prior: Any) -> None:
        """Integrate the density of `prior`.

        Raises:
            NoDensityFoundError: If that cannot be done.
        """
        self.prior = prior
        self._key = _key(prior)
        self.table = _tabulated(self._key, _Hidden(prior))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantiles) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self.prior).__name__})"


def own_functions(prior: Any) -> bool:
    """Whether a prior has a distribution function and an inverse that can be trusted.

    Args:
        prior: A scalar NumPyro distribution of concrete numbers.

    Returns:
        False also where another package must be there for them, or where rounding spoils them.
    """
    import numpyro.distributions as dist

    base = getattr(prior, "base_dist", prior)
    if isinstance(base, dist.Gamma | dist.Beta | dist.StudentT):
        return False  # what inverts these is TensorFlow Probability, where it is installed
    if type(prior) in (dist.Uniform, dist.LogUniform, dist.Normal, dist.LogNormal):
        return True  # closed forms; asking them takes longer than all else here
    with jax.ensure_compile_time_eval(), jax.enable_x64(True), jax.debug_nans(False):
        z = jnp.asarray(_PROBES)
        try:
            with jax.numpy_rank_promotion("allow"):
                again = np.asarray(prior.cdf(prior.icdf(z)))
        except (NotImplementedError, ImportError, AttributeError):
            return False
        allowed = _SHARE * np.minimum(_PROBES, 1.0 - np.asarray(_PROBES))
        return bool(np.all(np.abs(again - np.asarray(_PROBES)) <= allowed))


class _Hidden:
    """Something that is no part of what a result is kept under."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Hidden)

    def __hash__(self) -> int:
        return 0


@functools.lru_cache(maxsize=512)
def _tabulated(key: Any, prior: _Hidden) -> Table:
    del key
    return tabulate(prior.value)


def _key(prior: Any) -> Any:
    leaves, structure = jax.tree.flatten(prior)
    arrays = [np.asarray(leaf) for leaf in leaves]
    return type(prior), structure, tuple((x.shape, x.dtype.str, x.tobytes()) for x in arrays)


# --- One or several priors, each with a column of its own -------------------------------------


class Columns:
    """The functions of several priors of one kind at once, each for a column of its own.

    Attributes:
        prior: The prior of all, its numbers arrays along the last axis where there are several.
    """

    def __init__(self, each: tuple[Quantiles, ...], prior: Any) -> None:
        """Lay tables of one kind side by side."""
        self.prior = prior
        tables = [quantiles.table for quantiles in each]
        self._tables = tables
        panels = max(len(table.forward) for table in tables)
        # Rows that fill up have edges that nothing reaches.
        self._edges = {
            name: np.stack([_filled(getattr(t, name), panels + 1, np.inf) for t in tables])
            for name in ("u", "w")
        }
        self._coefficients = {
            "u": np.stack([_filled(t.forward, panels, 0.0) for t in tables]),
            "w": np.stack([_filled(t.backward, panels, 0.0) for t in tables]),
        }

    def cdf(self, x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Probability below each `x`, differentiable."""

        @jax.custom_jvp
        def function(x: Array) -> Array:
            return self._by_column(self._cdf, x)

        @function.defjvp
        def _(primals: Any, tangents: Any) -> Any:
            (x,), (dx,) = primals, tangents
            support = cast(Any, self.prior.support)(x)
            slope = jnp.where(support, self._density(self._by_column(self._inside, x)), 0.0)
            return function(x), (slope * dx).astype(x.dtype)

        return function(x)

    def icdf(self, z: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """The point with probability `z` below it, differentiable, always inside the support."""

        @jax.custom_jvp
        def function(z: Array) -> Array:
            return self._by_column(self._icdf, z)

        @function.defjvp
        def _(primals: Any, tangents: Any) -> Any:
            (z,), (dz,) = primals, tangents
            x = function(z)
            return x, (dz / self._density(x)).astype(z.dtype)

        return function(z)

    def _density(self, x: Array) -> Array:
        with jax.numpy_rank_promotion("allow"):
            return jnp.exp(self.prior.log_prob(x)).reshape(x.shape)

    def _by_column(self, function: Callable[[Array], Array], values: Array) -> Array:
        return function(values.reshape(-1, len(self._tables))).reshape(values.shape)

    def _cdf(self, x: Array) -> Array:
        line = self._line(x.dtype)
        u = line.coordinate(self._inside(x), jnp)
        found = jax.scipy.special.ndtr(self._evaluate("u", u))
        (below, slope_below), (above, slope_above) = self._tails(x.dtype)
        first, last = self._ends("u", x.dtype)
        found = jnp.where(u < first, jnp.exp(below + slope_below * (u - first)), found)
        found = jnp.where(u > last, -jnp.expm1(above - slope_above * (u - last)), found)
        found = jnp.where(x <= line.low, 0.0, jnp.where(x >= line.high, 1.0, found))
        return jnp.where(jnp.isnan(x), x, found)

    def _icdf(self, z: Array) -> Array:
        line, score = self._line(z.dtype), jax.scipy.special.ndtri(z)
        u = self._evaluate("w", score)
        (below, slope_below), (above, slope_above) = self._tails(z.dtype)
        first, last = self._ends("u", z.dtype)
        low, high = self._ends("w", z.dtype)
        u = jnp.where(score < low, first + (jnp.log(z) - below) / slope_below, u)
        u = jnp.where(score > high, last - (jnp.log1p(-z) - above) / slope_above, u)
        least, most = self._row([table.line.ends for table in self._tables], z.dtype)
        return self._inside(line.point(jnp.clip(u, least, most), jnp))

    def _inside(self, x: Array) -> Array:
        lower, upper = self._row([table.line.inside(x.dtype) for table in self._tables], x.dtype)
        return jnp.clip(x, lower, upper)

    def _line(self, dtype: Any) -> Line:
        names = "low", "high", "center", "scale"
        each = [[getattr(table.line, name) for name in names] for table in self._tables]
        return Line(*self._row(each, dtype))

    def _tails(self, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        both = ([table.tails[side] for table in self._tables] for side in (0, 1))
        below, above = (self._row(each, dtype) for each in both)
        return below, above

    def _ends(self, name: str, dtype: Any) -> np.ndarray:
        ends = [[getattr(table, name)[end] for end in (0, -1)] for table in self._tables]
        return self._row(ends, dtype)

    def _row(self, each: Any, dtype: Any) -> np.ndarray:
        """Numbers of each prior, as one row for each of the numbers."""
        with np.errstate(over="ignore"):  # what single precision has no number for is infinite
            return np.asarray(each, np.float64).T[:, None, :].astype(dtype)

    def _evaluate(self, name: str, values: Array) -> Array:
        """The polynomials of the panels that values fall into."""
        edges = self._edges[name].astype(values.dtype)
        coefficients = jnp.asarray(self._coefficients[name].astype(values.dtype))
        column = np.arange(len(self._tables))[None, :]
        last = np.array([len(table.forward) - 1 for table in self._tables])[None, :]
        beyond = values[:, :, None] >= edges[None, :, 1:-1]
        panel = jnp.minimum(jnp.sum(beyond, axis=-1), last)
        lower, upper = (jnp.asarray(edges)[column, panel + side] for side in (0, 1))
        width = jnp.where(upper > lower, upper - lower, 1.0)
        t = jnp.clip(((values - lower) - (upper - values)) / width, -1.0, 1.0)
        return _clenshaw(coefficients[column, panel], t)


def _filled(values: np.ndarray, size: int, with_what: float) -> np.ndarray:
    rest = np.full((size - len(values), *values.shape[1:]), with_what)
    return np.concatenate([values, rest])


def _clenshaw(coefficients: Array, t: Array) -> Array:
    """A sum of Chebyshev polynomials, the coefficients along the last axis."""
    ahead = beyond = jnp.zeros_like(t)
    for order in range(coefficients.shape[-1] - 1, 0, -1):
        ahead, beyond = coefficients[..., order] + 2.0 * t * ahead - beyond, ahead
    return coefficients[..., 0] + t * ahead - beyond
