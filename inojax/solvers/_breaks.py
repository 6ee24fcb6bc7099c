"""Where a solve ends a step and starts anew, and what crossing such a place does to derivatives.

At a time t* at which the vector field jumps from f⁻ to f⁺ the state is continuous, but its
derivatives by parameters θ on which t* depends are not:

    S⁺ = S⁻ + (f⁻ - f⁺) dt*/dθ,      dt*/dθ = -(∂g/∂θ + ∂g/∂y S⁻) / (∂g/∂t + ∂g/∂y f⁻)

for a margin g that is zero there (Hairer, Nørsett and Wanner I, II.6; Galán, Feehery and Barton,
Appl. Numer. Math. 31, 1999). Here the state is moved on by the old field for as long as t* is late,
and back by the new one: a delay that is zero and has the derivative of t*, so that any kind of
differentiation finds the jump.
"""

import copy
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core
from jaxtyping import Array, Bool, Float

from ._batch_last import trace_field
from ._switches import Switches

# Rounding errors of time by which steps keep away from a break.
_CLEARANCE, _MOST_CLEARANCE = 32.0, 1e-7
# Switches that do not run straight in time are looked for at so many places.
_PLACES = 1024
_BISECTIONS = 60

Breakpoints = Callable[[Float[Array, " parameter"]], Float[Array, " breakpoint"]]


class Segment(NamedTuple):
    """What lies between two breaks; a field is evaluated inside of it.

    Attributes:
        begin: The last break, or the start.
        stop: The next one, infinite if there is none.
    """

    begin: Float[Array, " lane"]
    stop: Float[Array, " lane"]

    def inside(self, t: Float[Array, " lane"], clearance: Float[Array, ""]) -> Array:
        """Times moved to where the field is that of this segment; derivatives by time stay."""
        low, high = self.begin + clearance, self.stop - clearance
        return t + lax.stop_gradient(jnp.clip(t, low, jnp.maximum(low, high)) - t)


class Breaks:
    """The breaks of a vector field; functions of one trajectory.

    Attributes:
        switches: Found in the traced program.
        of_time: Whether steps must end at certain times.
        of_state: Whether the field can jump where the state passes a threshold.
        mixed: Whether such a threshold moves in time.
        clearance: How near to a break no field is evaluated.
    """

    switches: Switches
    of_time: bool
    of_state: bool
    mixed: bool
    clearance: Float[Array, ""]

    def __init__(
        self,
        program: core.ClosedJaxpr,
        breakpoints: Breakpoints | None,
        start: Float[Array, ""],
        end: Float[Array, ""],
    ) -> None:
        """Look for the breaks of a traced vector field, beside those that are given."""
        self._run = core.jaxpr_as_fun(program)
        self.switches = Switches(program)
        self._given = breakpoints
        self.of_state = bool(self.switches.held.any())
        self.mixed = bool(self.switches.mixed.any())
        self.of_time = breakpoints is not None or bool((~self.switches.of_state).any())
        size = jnp.maximum(jnp.abs(start), jnp.abs(end))
        self.clearance = _CLEARANCE * jnp.finfo(size.dtype).eps * size

    def cleared(
        self, t: Float[Array, " lane"], y: Float[Array, "state lane"], theta: Array, span: Array
    ) -> "Breaks":
        """The same with as much clearance as the numbers that are compared need at some places.

        A comparison may be of larger numbers than times are, such as seconds since 1970.

        Args:
            t: Times.
            y: States.
            theta: Parameters.
            span: The whole time, of which the clearance is a small share at most.
        """

        def needed(t: Array, y: Array, theta: Array) -> Array:
            _, slopes = self._margins(t, y, theta)
            steep = jnp.max(jnp.abs(slopes), axis=1)
            sizes = self.switches.inspect(t, y, theta).sizes
            usable = jnp.asarray(self.switches.straight) & (steep > 0.0) & jnp.isfinite(sizes)
            return jnp.max(
                jnp.where(usable, sizes / jnp.where(usable, steep, 1.0), 0.0), initial=0.0
            )

        breaks = copy.copy(self)
        rounding = _CLEARANCE * jnp.finfo(y.dtype).eps
        found = rounding * jnp.max(jax.vmap(needed, in_axes=-1)(*lax.stop_gradient((t, y, theta))))
        most = jnp.minimum(found, _MOST_CLEARANCE * span)
        breaks.clearance = lax.stop_gradient(jnp.maximum(self.clearance, most))
        return breaks

    def frozen(self, n_state: int, n_parameter: int) -> core.ClosedJaxpr:
        """The vector field with modes as a fourth input; those that are NaN come out by themselves.

        Args:
            n_state: Number of states.
            n_parameter: Number of parameters.
        """
        return trace_field(self._slope, n_state, n_parameter, self.switches.count)

    def next_break(
        self,
        t: Float[Array, ""],
        y: Float[Array, " state"],
        theta: Float[Array, " parameter"],
        end: Float[Array, ""],
    ) -> Float[Array, ""]:
        """The first break after `t`; infinite if none comes before `end`."""
        t, y, theta, end = lax.stop_gradient((t, y, theta, end))
        begin = t + self.clearance
        found = [self._next_straight(begin, y, theta)]
        if self.switches.curved.any():
            found.append(self._next_curved(begin, y, theta, end)[None])
        if self._given is not None:
            found.append(jnp.asarray(self._given(theta), t.dtype).ravel())
        times = jnp.concatenate(found)
        ahead = times > t + 2.0 * self.clearance
        return jnp.min(jnp.where(ahead, times, jnp.inf), initial=jnp.inf)

    def _next_straight(self, begin: Array, y: Array, theta: Array) -> Array:
        margins, slopes = self._margins(begin, y, theta)
        falling = (slopes < 0.0) & jnp.asarray(self.switches.straight)[:, None]
        reach = -margins / jnp.where(falling, slopes, -1.0)
        return jnp.where(falling, begin + reach, jnp.inf).ravel()

    def _margins(self, t: Array, y: Array, theta: Array) -> tuple[Array, Array]:
        """Margins and their derivatives by time."""

        def margins(time: Array) -> Array:
            return self.switches.inspect(time, y, theta).margins

        return jax.jvp(margins, (t,), (jnp.ones_like(t),))

    def _next_curved(self, begin: Array, y: Array, theta: Array, end: Array) -> Array:
        curved = np.flatnonzero(self.switches.curved)

        def modes(time: Array) -> Array:
            return self.switches.inspect(time, y, theta).modes[curved]

        now = modes(begin)
        places = begin + (end - begin) * jnp.linspace(0.0, 1.0, _PLACES + 1)
        other = jnp.any(jax.vmap(modes)(places) != now[None, :], axis=1)
        first = jnp.argmax(other)

        def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = low + 0.5 * (high - low)
            past = jnp.any(modes(middle) != now)
            return jnp.where(past, low, middle), jnp.where(past, middle, high)

        bracket = places[jnp.maximum(first - 1, 0)], places[first]
        _, high = lax.fori_loop(0, _BISECTIONS, halve, bracket)
        return jnp.where(jnp.any(other), high, jnp.inf)

    def cross_time(
        self, t: Float[Array, ""], y: Float[Array, " state"], theta: Float[Array, " parameter"]
    ) -> Float[Array, " state"]:
        """The state behind a break at `t`: the same, with other derivatives."""
        t = lax.stop_gradient(t)
        before, after = t - self.clearance, t + self.clearance
        y_, theta_ = lax.stop_gradient((y, theta))
        modes = self.switches.inspect(before, y_, theta_).modes
        others = self.switches.inspect(after, y_, theta_).modes
        # Equalities change for nothing.
        changed = (modes != others) & ~jnp.asarray(self.switches.of_state)
        delays, due = self._delays(before, y_, theta)
        y, modes = self._flip(before, y, theta, modes, others, changed & due, delays)
        if self._given is not None:
            times = jnp.asarray(self._given(theta), t.dtype).ravel()
            here = jnp.abs(lax.stop_gradient(times) - t) <= 2.0 * self.clearance
            late = (times - lax.stop_gradient(times))[jnp.argmax(here)]

            def old(time: Array, state: Array) -> Array:
                return self._slope(jnp.minimum(time, before), state, theta, modes)

            def new(time: Array, state: Array) -> Array:
                return self._run(jnp.maximum(time, after), state, theta)[0]

            moved = _detour(old, new, before, y, late)
            y = jnp.where(jnp.any(here), moved, y)
        return y

    def _delays(
        self, t: Array, y: Array, theta: Array
    ) -> tuple[Float[Array, " mode"], Bool[Array, " mode"]]:
        """By how much each switch of time is late, zero with a derivative; and which is due."""
        margins, _ = self._margins(t, y, theta)
        _, slopes = lax.stop_gradient(self._margins(t, y, lax.stop_gradient(theta)))
        near = jnp.abs(margins) <= 4.0 * self.clearance * jnp.abs(slopes)
        near = near & (slopes < 0.0)
        if self.switches.curved.any():
            near = near | ((slopes < 0.0) & jnp.asarray(self.switches.curved)[:, None])
        # A side without an end has an infinite margin, whose differences are no numbers.
        usable = near & jnp.isfinite(margins)
        change = jnp.where(usable, margins, 0.0)
        late = -(change - lax.stop_gradient(change)) / jnp.where(usable, slopes, -1.0)
        side = jnp.argmin(jnp.where(usable, jnp.abs(lax.stop_gradient(margins)), jnp.inf), axis=1)
        return jnp.take_along_axis(late, side[:, None], axis=1)[:, 0], jnp.any(usable, axis=1)

    def _flip(
        self,
        t: Array,
        y: Array,
        theta: Array,
        modes: Array,
        others: Array,
        due: Array,
        delays: Array,
    ) -> tuple[Array, Array]:
        """Let the switches that are due come out otherwise, one after the other."""
        if not self.switches.count:
            return y, modes

        def flip(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            y, modes, due = carry
            which = jnp.argmax(due)
            due = due.at[which].set(False)
            # What follows from the last one, such as the path of a search, comes with it.
            now = jnp.where(jnp.any(due), modes.at[which].set(others[which]), others)

            def field(by: Array) -> Callable[[Array, Array], Array]:
                return lambda time, state: self._slope(time, state, theta, by)

            return _detour(field(modes), field(now), t, y, delays[which]), now, due

        y, modes, _ = lax.while_loop(lambda carry: jnp.any(carry[2]), flip, (y, modes, due))
        return y, modes

    def _slope(self, t: Array, y: Array, theta: Array, modes: Array) -> Array:
        return self.switches.inspect(t, y, theta, modes).slope

    def modes_at(
        self, t: Float[Array, ""], y: Float[Array, " state"], theta: Float[Array, " parameter"]
    ) -> Float[Array, " mode"]:
        """How switches that depend on the state come out; NaN for those of time alone."""
        modes = self.switches.inspect(t, y, theta).modes
        point = jnp.asarray(self.switches.signs) & (modes == 0.0)
        return jnp.where(jnp.asarray(self.switches.held) & ~point, modes, jnp.nan)

    def reach(
        self, t: Float[Array, ""], y: Float[Array, " state"], theta: Float[Array, " parameter"]
    ) -> Float[Array, ""]:
        """How long until a threshold that moves in time is met, if all goes on as it does here."""

        def margins(time: Array, state: Array) -> Array:
            return self.switches.inspect(time, state, theta).margins

        slope = self.switches.inspect(t, y, theta).slope
        found, slopes = jax.jvp(margins, (t, y), (jnp.ones_like(t), slope))
        falling = (slopes < 0.0) & jnp.asarray(self.switches.mixed)[:, None] & (found > 0.0)
        left = jnp.where(falling, -found / jnp.where(falling, slopes, -1.0), jnp.inf)
        return jnp.min(left, initial=jnp.inf) + 2.0 * self.clearance

    def beyond(
        self,
        t: Float[Array, ""],
        y: Float[Array, " state"],
        theta: Float[Array, " parameter"],
        modes: Float[Array, " mode"],
    ) -> Bool[Array, ""]:
        """Whether a switch that depends on the state comes out otherwise than by `modes`."""
        return jnp.any(_changed(modes, self.modes_at(t, y, theta)))

    def jump(
        self,
        t: Float[Array, ""],
        y: Float[Array, " state"],
        theta: Float[Array, " parameter"],
        modes: Float[Array, " mode"],
        others: Float[Array, " mode"],
    ) -> Float[Array, " state"]:
        """By how much the field differs between two sets of modes."""
        old, new = (self._slope(t, y, theta, m) for m in (modes, others))
        return _finite(old) - _finite(new)

    def cross_state(
        self,
        t: Float[Array, ""],
        y: Float[Array, " state"],
        theta: Float[Array, " parameter"],
        modes: Float[Array, " mode"],
        others: Float[Array, " mode"],
    ) -> Float[Array, " state"]:
        """The state where thresholds were passed: the same, with other derivatives.

        Args:
            t: Time, just behind the threshold.
            y: State there.
            theta: Parameters.
            modes: How switches came out before.
            others: How they come out now.
        """
        t = lax.stop_gradient(t)

        def margins(time: Array, state: Array, parameters: Array) -> Array:
            return self.switches.inspect(time, state, parameters, modes).margins

        found = margins(t, y, theta)
        fixed = lax.stop_gradient((y, theta))
        old = _finite(self._slope(t, *fixed, modes))
        _, slopes = jax.jvp(
            lambda s, x: margins(s, x, fixed[1]), (t, fixed[0]), (1.0 + 0.0 * t, old)
        )
        usable = (slopes < 0.0) & jnp.isfinite(found)
        change = jnp.where(usable, found, 0.0)
        late = -(change - lax.stop_gradient(change)) / jnp.where(usable, slopes, -1.0)
        side = jnp.argmin(jnp.where(usable, lax.stop_gradient(found), jnp.inf), axis=1)
        delays = jnp.take_along_axis(late, side[:, None], axis=1)[:, 0]
        due = _changed(modes, others) & jnp.any(usable & (found < 0.0), axis=1)
        return self._flip(t, y, theta, modes, others, due, delays)[0]


def _changed(modes: Array, others: Array) -> Array:
    """Which modes differ; those that are not given do not."""
    return (modes != others) & ~jnp.isnan(modes) & ~jnp.isnan(others)


def _detour(
    old: Callable[[Array, Array], Array],
    new: Callable[[Array, Array], Array],
    t: Array,
    y: Array,
    late: Array,
) -> Array:
    """On by the old field as long as the break is late, and back by the new one.

    By the midpoint rule, so that second derivatives come out as well.
    """
    middle = y + 0.5 * late * _finite(old(t, y))
    y = y + late * _finite(old(t + 0.5 * late, middle))
    middle = y - 0.5 * late * _finite(new(t + late, y))
    return y - late * _finite(new(t + 0.5 * late, middle))


def _finite(x: Array) -> Array:
    """Zero where a field continued beyond its piece is no number."""
    return jnp.where(jnp.isfinite(x), x, 0.0)
