"""How parameters, times and readings are put to the networks of every amortized method."""

from typing import Any, NamedTuple, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..._inverse_problem import InverseProblem, Measured
from ..._observation import Observation
from ...data import SignedLog
from ...data._dataset import Dataset
from ._slots import Arranged, Slots, fraction

# Residuals below this share of the prior's own spread are rounding errors of the solver.
_LEAST_SPREAD = 0.02
# A scale is measured well enough on as many simulations.
_ENOUGH = 4096
_RATES, _WAVES = (10.0, 30.0), (1, 2, 3)


class Readings(NamedTuple):
    """An observation on the scale of the networks.

    Attributes:
        values: Scaled readings, 0 where absent.
        mask: Which readings are present.
        position: Time of each row as a fraction of the output grid, in [0, 1].
    """

    values: Float[Array, "reading channel"]
    mask: Bool[Array, "reading channel"]
    position: Float[Array, " reading"]

    @property
    def present(self) -> Bool[Array, " reading"]:
        """Which rows hold any reading."""
        return jnp.any(self.mask, axis=1)


class Encoder(eqx.Module):
    """Scales and features fitted to one problem and the simulations of it.

    Attributes:
        scale: Signed-log scale of every state, in units of `SimulatedData`.
        spread: Standard deviation of the scaled trajectories at each output time.
        reading_scale: Signed-log scale of every channel.
        reading_spread: Standard deviation of the scaled clean readings at each output time.
        lowest: Smallest scaled trajectory at each output time, where an observable is read.
        highest: The largest one.
        logarithmic: Which parameters have a positive prior, so that a logarithm is taken.
        log_center: Center of the logarithm of each parameter.
        log_half_width: Half width of the logarithm of each parameter.
        slots: Where readings go.
    """

    scale: SignedLog
    spread: Float[np.ndarray, "time state"]
    reading_scale: SignedLog
    reading_spread: Float[np.ndarray, "time channel"]
    lowest: Float[np.ndarray, "time state"]
    highest: Float[np.ndarray, "time state"]
    logarithmic: tuple[bool, ...] = eqx.field(static=True)
    log_center: Float[np.ndarray, " parameter"]
    log_half_width: Float[np.ndarray, " parameter"]
    slots: Slots

    @classmethod
    def fit(
        cls,
        problem: InverseProblem,
        dataset: Dataset,
        unit: Float[np.ndarray, " state"] | None = None,
    ) -> "Encoder":
        """Measure scales on the simulations.

        Args:
            problem: The inverse problem.
            dataset: Usable simulations of it.
            unit: What states are divided by before networks see them; 1 by default.

        Returns:
            The encoder.

        Raises:
            ValueError: If an observable is not finite where it is read.
        """
        every = max(1, len(dataset) // _ENOUGH)
        some = dataset.gathered(np.float64, every=every)
        scale, scaled = _measured_scale(some)
        reading_scale, spread = scale, np.maximum(scaled.std(axis=0), _LEAST_SPREAD)
        if problem.sensors.observable is None:
            index = problem.channel_index
            reading_scale, reading_spread = scale.take(index), spread[:, list(index)]
        else:
            clean = clean_readings(problem, some, dataset.thetas[::every])
            reading_scale, found = _measured_scale(clean)
            reading_spread = np.maximum(found.std(axis=0), _LEAST_SPREAD)
            reading_spread = _everywhere(problem, reading_spread)
        if unit is not None:
            scale = SignedLog(scale.floor / unit, scale.mean, scale.std)
        return cls(
            scale,
            spread,
            reading_scale,
            reading_spread,
            scaled.min(axis=0),
            scaled.max(axis=0),
            *_log_range(problem),
            Slots.of(problem),
        )

    @classmethod
    def blank(cls, problem: InverseProblem) -> "Encoder":
        """An encoder of the right shapes, to load a fitted one into.

        Args:
            problem: The inverse problem.

        Returns:
            The placeholder.
        """
        states, channels = np.ones(len(problem.model.states)), np.ones(len(problem.channels))
        trajectory = np.ones((len(problem.model.times), len(states)))
        return cls(
            SignedLog(states, states, states),
            trajectory,
            SignedLog(channels, channels, channels),
            np.ones((len(problem.model.times), len(channels))),
            trajectory,
            trajectory,
            *_log_range(problem),
            Slots.of(problem),
        )

    @property
    def length(self) -> int:
        """Number of output times."""
        return len(self.slots.times)

    def parameters(
        self, problem: InverseProblem, z: Float[Array, " parameter"]
    ) -> Float[Array, " feature"]:
        """Features of a parameter vector: unit coordinates, and logarithms where they exist.

        Args:
            problem: The inverse problem, for its priors.
            z: Unit coordinates.

        Returns:
            Features of order one.
        """
        return jnp.concatenate([2.0 * z - 1.0, self.smooth(problem, z)[np.array(self.logarithmic)]])

    def smooth(
        self, problem: InverseProblem, z: Float[Array, " parameter"]
    ) -> Float[Array, " parameter"]:
        """One feature of each parameter: its logarithm, or its unit coordinate where none exists.

        Args:
            problem: The inverse problem, for its priors.
            z: Unit coordinates.

        Returns:
            Features of order one.
        """
        positive = np.array(self.logarithmic)
        center = jnp.asarray(self.log_center, z.dtype)
        half = jnp.asarray(self.log_half_width, z.dtype)
        # Kept away from the ends: an unbounded prior has infinite logarithms there.
        theta = jnp.asarray(problem.parameters.from_unit(jnp.clip(z, 1e-4, 1.0 - 1e-4)))
        logs = (jnp.log(jnp.where(positive, theta, 1.0)) - center) / half
        return jnp.where(positive, logs, 2.0 * z - 1.0)

    def readings(self, observation: Observation) -> Readings:
        """Put rows on the scale of the networks, as they are written.

        Args:
            observation: A single observation, or on the host a batch of them.

        Returns:
            Its scaled readings in float32.
        """
        times, values = observation.times, observation.values
        if isinstance(times, np.ndarray) and isinstance(values, np.ndarray):
            # In double precision before anything is rounded.
            times, values = times.astype(np.float64), values.astype(np.float64)
        place, away = self.slots.locate(times)
        if self.slots.fixed is not None:
            xp = np if isinstance(place, np.ndarray) else jnp
            exact = xp.asarray(self.slots.fixed)[place.astype(int)]
            place = xp.where(away, self.slots.between(times), exact)
        return self._scaled(place, values, observation.mask)

    def arranged(self, arranged: Arranged) -> Readings:
        """Put readings in their slots on the scale of the networks.

        Args:
            arranged: Readings of one observation or many.

        Returns:
            Scaled readings in float32, in NumPy where they are.
        """
        return self._scaled(arranged.place, arranged.values, arranged.mask)

    def measured(self, seen: Measured) -> tuple[Readings, Float[Array, "reading channel"]]:
        """Put a simulated experiment on the scale of the networks, into slots; pure.

        Args:
            seen: What was measured.

        Returns:
            Its scaled readings in float32, and the same without noise.
        """
        if self.slots.fixed is None:
            # As an observation would be put there: rows without a reading do not count.
            slot = self.slots.spread(seen.rows.astype(jnp.float32), jnp.any(seen.mask, axis=1))
            from_row = slot[None] == jnp.arange(self.slots.count)[:, None]
            order = jnp.argmax(from_row, axis=1)
            kept = seen.mask[order] & jnp.any(from_row, axis=1)[:, None]
            seen = jax.tree.map(lambda x: x[order], seen)._replace(mask=kept)
        place = seen.rows.astype(jnp.float32)
        clean = jnp.asarray(self.reading_scale.apply(seen.clean)).astype(jnp.float32)
        return self._scaled(place, seen.values, seen.mask), clean

    def _scaled(self, place: Any, values: Any, mask: Any) -> Readings:
        xp = np if isinstance(values, np.ndarray) else jnp
        scaled = self.reading_scale.apply(xp.asarray(values))
        scaled = xp.where(mask, scaled, 0.0).astype(np.float32)
        position = fraction(place, self.length).astype(np.float32)
        return Readings(*(cast(Array, x) for x in (scaled, xp.asarray(mask), position)))

    @property
    def grid(self) -> Float[np.ndarray, "time feature"]:
        """Features of the output times."""
        return np.asarray(time_features((np.arange(self.length) + 1.0) / self.length), np.float32)

    def at_readings(
        self, table: Float[Array, "time column"], readings: Readings
    ) -> Float[Array, "reading column"]:
        """Look scaled numbers up at the times of an observation.

        Between output times they are interpolated linearly; before the first one they are held,
        since the scaled start can lie far away.

        Args:
            table: Numbers at the output times.
            readings: Where to look.

        Returns:
            The numbers at each row.
        """
        low, high, weight = self.neighbors(readings)
        return (1.0 - weight)[:, None] * table[low] + weight[:, None] * table[high]

    def read(
        self,
        problem: InverseProblem,
        theta: Float[Array, "batch parameter"],
        scaled: Float[Array, "batch reading state"],
        readings: Readings,
    ) -> Float[Array, "batch reading channel"]:
        """Read scaled states through the sensors of a problem.

        An observable sees states within the range of the simulations at that time: outside of it,
        where only a surrogate leads, it may have no value.

        Args:
            problem: The inverse problem.
            theta: Physical parameter values.
            scaled: Scaled states at each row of an observation.
            readings: The observations.

        Returns:
            Scaled readings.
        """
        if problem.sensors.observable is None:
            return scaled[..., np.array(problem.channel_index)]
        ends = (jnp.asarray(x, jnp.float32) for x in (self.lowest, self.highest))
        low, high = (jax.vmap(lambda r, x=x: self.at_readings(x, r))(readings) for x in ends)
        states = jnp.asarray(self.scale.invert(jnp.clip(scaled, low, high)))
        found = jnp.asarray(self.reading_scale.apply(jnp.asarray(problem.read(states, theta))))
        return jnp.where(jnp.isfinite(found), found, 0.0)

    def neighbors(
        self, readings: Readings
    ) -> tuple[Int[Array, " reading"], Int[Array, " reading"], Float[Array, " reading"]]:
        """The output times around each row of an observation.

        Args:
            readings: Where to read.

        Returns:
            Rows of the grid before and after, and the weight of the latter.
        """
        count = self.length
        exact = jnp.clip(readings.position * count - 1.0, 0.0, count - 1.0)
        # A reading at an output time must not be smeared by rounding.
        exact = jnp.where(jnp.abs(exact - jnp.round(exact)) < 1e-3, jnp.round(exact), exact)
        low = jnp.floor(exact).astype(jnp.int32)
        return low, jnp.minimum(low + 1, count - 1), exact - low

    def rows(self, readings: Readings) -> Float[Array, "reading feature"]:
        """Features of each row of an observation.

        Args:
            readings: Scaled readings.

        Returns:
            Values, mask and time features side by side.
        """
        mask = readings.mask.astype(jnp.float32)
        return jnp.concatenate([readings.values, mask, time_features(readings.position)], axis=1)

    @property
    def parameter_features(self) -> int:
        """Length of `parameters`."""
        return len(self.logarithmic) + sum(self.logarithmic)

    @property
    def row_features(self) -> int:
        """Length of one row of `rows`."""
        return 2 * len(self.slots.channels) + self.grid.shape[1]


def clean_readings(
    problem: InverseProblem,
    states: Float[np.ndarray, "n time state"],
    thetas: Float[np.ndarray, "n parameter"],
) -> Float[np.ndarray, "n read channel"]:
    """What an observable makes of simulations at the times that may be read, in float64.

    Args:
        problem: The inverse problem.
        states: Trajectories.
        thetas: Physical parameter values.

    Returns:
        Readings without noise.

    Raises:
        ValueError: If one is not finite.
    """
    rows = _read_rows(problem)
    with jax.enable_x64(True):
        found = np.asarray(_read_all(problem, states[:, rows], thetas))
    bad = ~np.isfinite(found)
    if bad.any():
        case, row, channel = np.argwhere(bad)[0]
        raise ValueError(
            f"`observable` of problem {problem.name!r} is not finite in {bad.any((1, 2)).sum()} of "
            f"{len(found)} simulations, first in channel {problem.channels[channel]!r} at time "
            f"{problem.model.times[rows[row]]:.12g} (simulation {case}). Read it at other times, "
            "or write one that is finite."
        )
    return found


@eqx.filter_jit
def _read_all(problem: InverseProblem, states: Any, thetas: Any) -> Array:
    return jnp.asarray(jax.vmap(problem.read)(jnp.asarray(states), jnp.asarray(thetas)))


def _read_rows(problem: InverseProblem) -> list[int]:
    fixed = Slots.of(problem).fixed
    return list(range(len(problem.model.times)) if fixed is None else fixed)


def _everywhere(
    problem: InverseProblem, table: Float[np.ndarray, "read channel"]
) -> Float[np.ndarray, "time channel"]:
    """The same at all output times; 1 where nothing is read."""
    whole = np.ones((len(problem.model.times), table.shape[1]))
    whole[_read_rows(problem)] = table
    return whole


def _measured_scale(
    values: Float[np.ndarray, "n time channel"],
) -> tuple[SignedLog, Float[np.ndarray, "n time channel"]]:
    scale = SignedLog.measured(values)
    return scale, np.asarray(scale.apply(values))


def _log_range(
    problem: InverseProblem,
) -> tuple[tuple[bool, ...], Float[np.ndarray, " parameter"], Float[np.ndarray, " parameter"]]:
    """Which priors are positive, and center and half width of the logarithms (else 0 and 1)."""
    levels = np.repeat(np.array([[1e-6], [0.01], [0.99]]), problem.parameters.size, axis=1)
    ends = np.asarray(problem.parameters.from_unit(levels), np.float64)
    positive = ends[0] > 0.0
    logs = np.log(np.where(positive[None, :], ends, 1.0))
    half = np.where(positive, np.maximum(0.5 * (logs[2] - logs[1]), 1e-6), 1.0)
    return tuple(positive.tolist()), 0.5 * (logs[1] + logs[2]), half


def time_features(
    position: Float[Array | np.ndarray, " time"],
) -> Float[Array | np.ndarray, "time feature"]:
    """Smooth functions of time that resolve both its start and its whole length.

    Args:
        position: Fraction of the time axis, in [0, 1].

    Returns:
        Line, logarithm, decaying exponentials and cosines.
    """
    xp = np if isinstance(position, np.ndarray) else jnp
    p = position[:, None]
    decays = [xp.exp(-rate * p) for rate in _RATES]
    waves = [xp.cos(np.pi * number * p) for number in _WAVES]
    return xp.concatenate([2.0 * p - 1.0, xp.log(p + 0.01) / 2.0 + 1.0, *decays, *waves], axis=1)
