"""Distribution functions from nothing but a density: integrated once, then kept as polynomials."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import chebyshev

from ._blocks import in_blocks

# Polynomials of this degree through Chebyshev points, on panels that are halved until they do.
_DEGREE = 14
_TOLERANCE = 1e-9
_MOST_HALVINGS = 40
_MOST_PANELS = 2048
# Error of the score between its nodes that is left.
_SCORE_ERROR = 1e-11
# Scores that float64 has probabilities for, on either side.
_SEEN = 9.0
# Densities are followed down to this share of the largest one, exp(-50).
_DEPTH = 50.0
# Nearest that a point may come to a finite end other than zero, as a share of the width there:
# closer by there are too few numbers.
_NEAREST = 1e-12
_SMALLEST, _LARGEST = 1e-300, 1e300
_DRAWS, _QUANTILES = 4001, 33
# A density whose integral is off by more is not believed.
_MASS_ERROR = 1e-6

# Logarithms of the density in u near given places, and where exactly: x has been rounded.
Density = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class NoDensityFoundError(ValueError):
    """A distribution whose density cannot be integrated, with the reason as message."""


@dataclasses.dataclass(frozen=True)
class Line:
    """The whole real line u in place of a support: u = 0 is about the median.

    Logarithm of the distance from the only end, logit between two ends, and the inverse of the
    hyperbolic sine where there is none. Densities are smooth there, whatever they do at an end.
    Several lines with the same ends bounded can be one, with arrays in place of numbers.

    Attributes:
        low: Lower end of the support, or minus infinity.
        high: Upper end, or infinity.
        center: Middle, where there is no end.
        scale: Typical distance from the end or the middle; half the width between two ends.
    """

    low: Any
    high: Any
    center: Any
    scale: Any

    @property
    def bounded(self) -> tuple[bool, bool]:
        """Whether there is a lower and an upper end."""
        return bool(np.isfinite(self.low).all()), bool(np.isfinite(self.high).all())

    def point(self, u: Any, xp: Any = np) -> Any:
        """The point of the support at u."""
        below, above = self.bounded
        if below and above:
            width = self.high - self.low
            share = 1.0 / (1.0 + xp.exp(xp.abs(u)))
            return xp.where(u < 0.0, self.low + width * share, self.high - width * share)
        if below:
            return self.low + self.scale * xp.exp(u)
        if above:
            return self.high - self.scale * xp.exp(-u)
        return self.center + self.scale * xp.sinh(u)

    def coordinate(self, x: Any, xp: Any = np) -> Any:
        """The inverse of `point`."""
        below, above = self.bounded
        if below and above:
            return xp.log(x - self.low) - xp.log(self.high - x)
        if below:
            return xp.log((x - self.low) / self.scale)
        if above:
            return -xp.log((self.high - x) / self.scale)
        return xp.arcsinh((x - self.center) / self.scale)

    def log_slope(self, u: np.ndarray) -> np.ndarray:
        """Logarithm of dx/du."""
        below, above = self.bounded
        size = np.abs(u)
        if below and above:
            return np.log(self.high - self.low) - size - 2.0 * np.log1p(np.exp(-size))
        if below or above:
            return np.log(self.scale) + (u if below else -u)
        return np.log(0.5 * self.scale) + size + np.log1p(np.exp(-2.0 * size))

    @property
    def ends(self) -> tuple[float, float]:
        """How far u may go before x is no number, or no other than the end."""
        if not np.isfinite(self.low) and not np.isfinite(self.high):
            far = float(np.arcsinh(_LARGEST / self.scale))
            return -far, far
        if np.isfinite(self.low) and np.isfinite(self.high):
            lower = _nearest(self.low, self.high - self.low)
            upper = _nearest(self.high, self.high - self.low)
            return float(np.log(lower)), float(-np.log(upper))
        end = self.low if np.isfinite(self.low) else self.high
        near = float(np.log(_nearest(end, self.scale)))
        far = float(np.log(_LARGEST) - np.log(self.scale))
        return (near, far) if np.isfinite(self.low) else (-far, -near)

    def inside(self, dtype: Any) -> tuple[float, float]:
        """The first and the last number of a precision between the ends."""
        info = np.finfo(dtype)

        def gap(end: float) -> float:
            return max(abs(end) * float(info.eps), float(info.tiny))

        lower = self.low + gap(self.low) if np.isfinite(self.low) else -float(info.max)
        upper = self.high - gap(self.high) if np.isfinite(self.high) else float(info.max)
        return lower, upper


def _nearest(end: float, width: float) -> float:
    return _SMALLEST / width if end == 0.0 else max(_NEAREST, _NEAREST * abs(end) / width)


class Table(NamedTuple):
    """Both functions between u and the normal score w of the probability, panel by panel.

    Attributes:
        line: What u is.
        u: Ends of the panels.
        w: The same in w.
        forward: Chebyshev coefficients of w in u.
        backward: Chebyshev coefficients of u in w.
        tails: Below and above: the logarithm of the probability beyond the table, and its slope
            in u there, positive in both.
    """

    line: Line
    u: Float[np.ndarray, " end"]
    w: Float[np.ndarray, " end"]
    forward: Float[np.ndarray, "panel coefficient"]
    backward: Float[np.ndarray, "panel coefficient"]
    tails: tuple[tuple[float, float], tuple[float, float]]


def tabulate(prior: Any) -> Table:
    """Integrate the density of a scalar distribution, on the host in float64.

    Args:
        prior: A NumPyro distribution with `log_prob`, and `sample` if it has several peaks.

    Returns:
        The table.

    Raises:
        NoDensityFoundError: If it has no density, or one that does not integrate to one.
    """
    # NumPyro adds axes inside, which is its to decide, and asks for densities where there is none.
    allowed = jax.numpy_rank_promotion("allow"), jax.debug_nans(False), np.errstate(all="ignore")
    with jax.ensure_compile_time_eval(), jax.enable_x64(True), allowed[0], allowed[1], allowed[2]:
        log_prob = _log_prob(prior)
        try:
            return _integrate(log_prob, *_around_peak(prior, log_prob))
        except NoDensityFoundError:
            # With several peaks, draws know where they are; they take a second to compile.
            return _integrate(log_prob, *_around_draws(prior))


def _log_prob(prior: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The log density, evaluated in calls of one shape."""

    @jax.jit
    def compiled(x: Array) -> Array:
        return prior.log_prob(x)

    def log_prob(x: np.ndarray) -> np.ndarray:
        logs = in_blocks(compiled, x.ravel(), size=1024).reshape(x.shape)
        # Terms of it may overflow on either side where there is none left.
        return np.where(logs < np.inf, logs, -np.inf)

    return log_prob


def _support(prior: Any) -> tuple[float, float]:
    support = prior.support
    low = float(getattr(support, "lower_bound", -np.inf))
    return low, float(getattr(support, "upper_bound", np.inf))


def _around_peak(prior: Any, log_prob: Callable[[np.ndarray], np.ndarray]) -> tuple[Line, Any]:
    """The line and points around the only peak of the density on it, found by zooming in."""
    low, high = _support(prior)
    line = Line(low, high, 0.0, 1.0)
    density = _density(log_prob, line)
    at = beside = np.linspace(*line.ends, 1001)
    for _ in range(_MOST_HALVINGS):
        logs = density(at)[0]
        best = int(np.clip(np.argmax(logs), 1, len(at) - 2))
        beside = at[best - 1 : best + 2]
        if logs[best] - logs[best - 1 : best + 2].min() < 1.0:
            break
        at = np.linspace(beside[0], beside[-1], 101)
    points = line.point(beside)
    middle, width = float(points[1]), float(points[2] - points[0])
    found = Line(low, high, middle, _scale(low, high, middle, width))
    return found, np.unique(found.coordinate(points))


def _around_draws(prior: Any) -> tuple[Line, Any]:
    """The line and points on it between which draws are: however narrow a peak, it has some."""
    try:
        draws = np.asarray(prior.sample(jr.key(0), (_DRAWS,)), np.float64)
    except NotImplementedError as error:
        raise NoDensityFoundError("it has none, and no draws") from error
    draws = draws[np.isfinite(draws)]
    if len(np.unique(draws)) < _DRAWS // 4:
        raise NoDensityFoundError("its draws repeat")
    low, high = _support(prior)
    quantiles = np.quantile(draws, np.linspace(0.0, 1.0, _QUANTILES))
    middle = float(np.median(draws))
    width = float(quantiles[2 * _QUANTILES // 3] - quantiles[_QUANTILES // 3])
    line = Line(low, high, middle, _scale(low, high, middle, width))
    return line, np.unique(line.coordinate(quantiles))


def _scale(low: float, high: float, middle: float, width: float) -> float:
    if np.isfinite(low) and np.isfinite(high):
        return 0.5 * (high - low)
    if np.isfinite(low) or np.isfinite(high):
        width = middle - low if np.isfinite(low) else high - middle
    if not 0.0 < width < np.inf:
        raise NoDensityFoundError("it is all in one point, or nowhere")
    return width


def _density(log_prob: Callable[[np.ndarray], np.ndarray], line: Line) -> Density:
    """The density in u."""

    def density(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = np.clip(line.point(u), *line.inside(np.float64))
        where = line.coordinate(x)
        return log_prob(x) + line.log_slope(where), where

    return density


class _Panels(NamedTuple):
    """Pieces of the line with the density at Chebyshev points of each."""

    begin: np.ndarray
    end: np.ndarray
    values: np.ndarray

    @property
    def u(self) -> np.ndarray:
        return 0.5 * (self.begin + self.end)[:, None] + 0.5 * self.width[:, None] * _NODES

    @property
    def width(self) -> np.ndarray:
        return self.end - self.begin

    def chosen(self, which: np.ndarray) -> "_Panels":
        return _Panels(*(part[which] for part in self))

    def with_more(self, others: "_Panels") -> "_Panels":
        joined = _Panels(*map(np.concatenate, zip(self, others, strict=True)))
        return joined.chosen(np.argsort(joined.begin))


def _integrate(
    log_prob: Callable[[np.ndarray], np.ndarray], line: Line, inner: np.ndarray
) -> Table:
    density = _density(log_prob, line)
    edges = _edges(line, density, inner)
    panels = _refined(density, edges[:-1], edges[1:])
    tails = _tails(density, panels)
    while True:
        table, good = _table(line, panels, _score(panels, tails), tails)
        if good.all() or len(good) > _MOST_PANELS:
            return table
        bad = panels.chosen(~good)
        middle = 0.5 * (bad.begin + bad.end)
        halves = np.append(bad.begin, middle), np.append(middle, bad.end)
        panels = panels.chosen(good).with_more(_refined(density, *halves))


def _edges(line: Line, density: Density, inner: np.ndarray) -> np.ndarray:
    """First panels: between given points, then outward until nothing is left."""
    least, most = line.ends
    inner = np.unique(np.clip(inner, least, most))
    step = np.maximum(inner[-1] - inner[0], 1e-6) * np.cumprod(np.full(120, 1.3))
    top = density(inner)[0].max()

    def outward(start: float, end: float, sign: float) -> np.ndarray:
        at = start + sign * np.cumsum(np.minimum(step, 20.0))
        at = np.append(at[sign * at < sign * end], end)
        gone = np.flatnonzero(density(at)[0] < top - _DEPTH)
        return at[: gone[0] + 1] if len(gone) else at

    below, above = outward(inner[0], least, -1.0), outward(inner[-1], most, 1.0)
    return np.unique(np.concatenate([below, inner, above]))


_NODES = -np.cos(np.pi * np.arange(_DEGREE + 1) / _DEGREE)
_TO_COEFFICIENTS = np.linalg.inv(chebyshev.chebvander(_NODES, _DEGREE))


def _integrals() -> np.ndarray:
    """Matrix from values at the nodes to integrals from -1 to each of them."""
    basis = np.array([chebyshev.chebint(row, lbnd=-1.0) for row in np.eye(_DEGREE + 1)])
    return chebyshev.chebvander(_NODES, _DEGREE + 1) @ basis.T @ _TO_COEFFICIENTS


_UP = _integrals()


def _refined(density: Density, begin: np.ndarray, end: np.ndarray) -> _Panels:
    """Panels halved until polynomials are the density, where there is any."""
    least = math.exp(-_DEPTH)
    done: list[_Panels] = []
    count = 0
    # A kink or a jump is closed in on by halving; what is left over then weighs nothing.
    for halving in range(_MOST_HALVINGS):
        panels = _panels(density, begin, end)
        good = _decayed(panels.values @ _TO_COEFFICIENTS.T) | (panels.values.max(1) < least)
        count += len(begin)
        if halving == _MOST_HALVINGS - 1 or count > _MOST_PANELS:
            good[:] = True
        done.append(panels.chosen(good))
        begin, end = begin[~good], end[~good]
        if not len(begin):
            break
        middle = 0.5 * (begin + end)
        begin, end = np.concatenate([begin, middle]), np.concatenate([middle, end])
    return functools.reduce(_Panels.with_more, done)


def _panels(density: Density, begin: np.ndarray, end: np.ndarray) -> _Panels:
    panels = _Panels(begin, end, np.zeros((len(begin), _DEGREE + 1)))
    logs, where = density(panels.u)
    values = np.exp(logs)
    # Near an end other than zero x is rounded coarsely: values there belong beside the nodes.
    t = (2.0 * where - begin[:, None] - end[:, None]) / panels.width[:, None]
    away = np.abs(t - _NODES).max(1)
    moved = (away > 1e-13) & (away < 0.01)
    if moved.any():
        basis = chebyshev.chebvander(t[moved], _DEGREE)
        coefficients = np.linalg.solve(basis, values[moved][..., None])[..., 0]
        values[moved] = coefficients @ chebyshev.chebvander(_NODES, _DEGREE).T
    return panels._replace(values=np.maximum(values, 0.0))


def _decayed(coefficients: np.ndarray) -> np.ndarray:
    sizes = np.abs(coefficients)
    return sizes[:, -2:].max(1) <= _TOLERANCE * np.maximum(sizes.max(1), np.finfo(float).tiny)


def _tails(density: Density, panels: _Panels) -> tuple[tuple[float, float], tuple[float, float]]:
    """What lies beyond, if the density goes on as exp(-slope |u|): exact for powers of x."""
    found = []
    for place, inward in ((panels.begin[0], 0.25), (panels.end[-1], -0.25)):
        logs, where = density(np.array([place, place + inward]))
        slope = (logs[1] - logs[0]) / abs(where[1] - where[0])
        if np.isfinite(slope) and slope > 0.0:
            rest = logs[0] - slope * abs(where[0] - place) * np.sign((place - where[0]) * -inward)
            found.append((float(rest - np.log(slope)), float(slope)))
        else:
            found.append((-np.inf, 1.0))
    return found[0], found[1]


def _score(panels: _Panels, tails: tuple[tuple[float, float], tuple[float, float]]) -> np.ndarray:
    """Normal score of the probability up to each node, from whichever side has less of it."""
    from scipy.special import ndtri

    half = 0.5 * panels.width[:, None]
    up, down = half * (panels.values @ _UP.T), half * (panels.values @ _UP[::-1, ::-1].T)
    below, above = (math.exp(log) for log, _ in tails)
    mass = up[:, -1]
    total = below + mass.sum() + above
    if not abs(total - 1.0) < _MASS_ERROR:
        raise NoDensityFoundError(f"its density integrates to {total:.8g} instead of 1")
    lower = below + np.concatenate([[0.0], np.cumsum(mass)[:-1]])[:, None] + up
    upper = above + np.concatenate([np.cumsum(mass[::-1])[::-1][1:], [0.0]])[:, None] + down
    lower, upper = (np.clip(part / total, 1e-300, 1.0) for part in (lower, upper))
    score = np.where(lower < 0.5, ndtri(lower), -ndtri(upper))
    return np.maximum.accumulate(score.ravel()).reshape(score.shape)


def _table(
    line: Line,
    panels: _Panels,
    w: np.ndarray,
    tails: tuple[tuple[float, float], tuple[float, float]],
) -> tuple[Table, np.ndarray]:
    """The table, and for which panels it is exact."""
    first, last = w[:, 0], w[:, -1]
    # Where there is no probability the score stands still, and no score leads there.
    flat = last - first <= 0.0
    width = np.where(flat, 1.0, last - first)
    t = np.clip((2.0 * w - first[:, None] - last[:, None]) / width[:, None], -1.0, 1.0)
    forward = w @ _TO_COEFFICIENTS.T
    backward = np.stack([_through(row, u) for row, u in zip(t, panels.u, strict=True)])
    # Panels at the edge of what float64 tells apart are as good as they get.
    tiny = flat | (panels.width < 1e-8) | (last - first < 1e-8)
    seen = (last > -_SEEN) & (first < _SEEN)
    good = tiny | ~seen | (_error(forward) & _error(backward))
    ends = np.append(panels.begin, panels.end[-1]), np.append(first, last[-1])
    return Table(line, *ends, forward, backward, tails), good


def _error(coefficients: np.ndarray) -> np.ndarray:
    return np.abs(coefficients[:, -2:]).max(1) <= _SCORE_ERROR


def _through(t: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Chebyshev coefficients of the polynomial through points; a mean where they coincide."""
    if len(np.unique(t)) < len(t):
        return np.append(np.mean(values), np.zeros(_DEGREE))
    return np.linalg.solve(chebyshev.chebvander(t, _DEGREE), values)
