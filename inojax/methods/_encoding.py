"""How parameters, times and readings are put to the networks of every amortized method."""

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from .._inverse_problem import InverseProblem
from .._observation import Observation
from ..data import Dataset, SignedLog

# Residuals below this share of the prior's own spread are rounding errors of the solver.
_LEAST_SPREAD = 0.02
_RATES, _WAVES = (10.0, 30.0), (1, 2, 3)
# Of regular patterns, the fewest rows that stay: every tenth.
_RAREST = 10


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
        scale: Signed-log scale of every state.
        spread: Standard deviation of the scaled trajectories at each output time.
        axis: The start of the model, if no output time, and its output times.
        position: Where they stand as a fraction of the output grid.
        length: Number of output times.
        logarithmic: Which parameters have a positive prior, so that a logarithm is taken.
        log_center: Center of the logarithm of each parameter.
        log_half_width: Half width of the logarithm of each parameter.
        channels: Positions of the observed channels among the states.
        slots: Rows of an observation.
    """

    scale: SignedLog
    spread: Float[np.ndarray, "time state"]
    axis: Float[np.ndarray, " node"]
    position: Float[np.ndarray, " node"]
    length: int = eqx.field(static=True)
    logarithmic: tuple[bool, ...] = eqx.field(static=True)
    log_center: Float[np.ndarray, " parameter"]
    log_half_width: Float[np.ndarray, " parameter"]
    channels: tuple[int, ...] = eqx.field(static=True)
    slots: int = eqx.field(static=True)

    @classmethod
    def fit(cls, problem: InverseProblem, dataset: Dataset) -> "Encoder":
        """Measure scales on the simulations.

        Args:
            problem: The inverse problem.
            dataset: Usable simulations of it.

        Returns:
            The encoder.
        """
        scale = SignedLog.from_dataset(dataset)
        some = dataset.gathered(np.float64, every=max(1, len(dataset) // 4096))
        spread = np.maximum(np.asarray(scale.apply(some)).std(axis=0), _LEAST_SPREAD)
        return cls(
            scale,
            spread,
            *_axis(problem),
            *_log_range(problem),
            problem.channel_index,
            problem.sensors.size,
        )

    @classmethod
    def blank(cls, problem: InverseProblem) -> "Encoder":
        """An encoder of the right shapes, to load a fitted one into.

        Args:
            problem: The inverse problem.

        Returns:
            The placeholder.
        """
        states = len(problem.model.states)
        ones = np.ones(states)
        return cls(
            SignedLog(ones, ones, ones),
            np.ones((len(problem.model.times), states)),
            *_axis(problem),
            *_log_range(problem),
            problem.channel_index,
            problem.sensors.size,
        )

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
        """Put an observation on the scale of the networks.

        Args:
            observation: A single observation.

        Returns:
            Its scaled readings in float32.
        """
        mask = jnp.asarray(observation.mask)
        times = jnp.asarray(observation.times, jnp.float32)
        values = jnp.asarray(observation.values, jnp.float32)
        scaled = jnp.asarray(self.scale.take(self.channels).apply(values))
        axis, where = (jnp.asarray(x, jnp.float32) for x in (self.axis, self.position))
        return Readings(jnp.where(mask, scaled, 0.0), mask, jnp.interp(times, axis, where))

    def groups(self, observation: Observation) -> Readings:
        """Scaled readings of an observation of any length, in groups that fit the networks.

        Args:
            observation: A single observation.

        Returns:
            Readings with a leading axis, one entry if the observation is not too long.
        """
        return jax.vmap(self.readings)(grouped(observation, self.slots))

    @property
    def grid(self) -> Float[np.ndarray, "time feature"]:
        """Features of the output times."""
        return np.asarray(time_features((np.arange(self.length) + 1.0) / self.length), np.float32)

    def at_readings(
        self, trajectory: Float[Array, "time state"], readings: Readings
    ) -> Float[Array, "reading channel"]:
        """Read a scaled trajectory at the times of an observation.

        Between output times it is interpolated linearly; before the first one it is held,
        since the scaled start can lie far away.

        Args:
            trajectory: Scaled states at the output times.
            readings: Where to read.

        Returns:
            Scaled values of the observed channels.
        """
        low, high, weight = self.neighbors(readings)
        seen = trajectory[:, np.array(self.channels)]
        return (1.0 - weight)[:, None] * seen[low] + weight[:, None] * seen[high]

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
        return 2 * len(self.channels) + self.grid.shape[1]


def _axis(
    problem: InverseProblem,
) -> tuple[Float[np.ndarray, " node"], Float[np.ndarray, " node"], int]:
    """Times with a known place on the grid, that place, and the number of output times."""
    times, start = problem.model.times, problem.model.initial_time
    position = (np.arange(len(times)) + 1.0) / len(times)
    if start < times[0]:
        return np.append(start, times), np.append(0.0, position), len(times)
    return times, position, len(times)


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


def thin(
    observation: Observation, share: float, *, patterns: bool = False, key: Key[Array, ""]
) -> Observation:
    """Lose readings of an observation at random, so that networks meet incomplete ones.

    Args:
        observation: A complete observation.
        share: Chance that this observation loses anything; then every row and every single
            reading stays with a chance that is itself drawn from [0, 1].
        patterns: Whether as many lose one block of rows instead, and as many all rows but every
            n-th: what is lost at random says little about what is lost together.
        key: Source of randomness.

    Returns:
        The observation with fewer readings, at least one.
    """
    if share <= 0.0:
        return observation
    any_key, chance_key, row_key, reading_key = jr.split(key, 4)
    rows, channels = observation.mask.shape
    row_chance, reading_chance = jr.uniform(chance_key, (2,))
    luck = jr.uniform(reading_key, (rows, channels))
    kept = (luck < reading_chance) & (jr.uniform(row_key, (rows, 1)) < row_chance)
    mask = jnp.asarray(observation.mask)
    # The luckiest reading stays: an observation of nothing cannot be inverted.
    luckiest = jnp.where(mask, luck, 2.0)
    luckiest = luckiest == jnp.min(luckiest)
    kept = kept | luckiest
    if patterns:
        kept = _patterned(kept, key=row_key)
        kept = kept | (luckiest & ~jnp.any(kept & mask))
    kept = mask & (kept | (jr.uniform(any_key, ()) >= share))
    values = jnp.where(kept, jnp.asarray(observation.values), 0.0)
    return dataclasses.replace(observation, values=values, mask=kept)


def _patterned(
    kept: Bool[Array, "row channel"], *, key: Key[Array, ""]
) -> Bool[Array, "row channel"]:
    """Rows that stay: those given, all but a block, or every n-th, by equal chances."""
    kind_key, start_key, length_key, step_key = jr.split(jr.fold_in(key, 1), 4)
    row = jnp.arange(len(kept))[:, None]
    place = row / len(kept) - jr.uniform(start_key)
    block = (place < 0.0) | (place > jr.uniform(length_key))
    step = jnp.exp(jr.uniform(step_key, minval=np.log(2.0), maxval=np.log(_RAREST + 1.0)))
    step = jnp.floor(step).astype(int)
    regular = (row - jr.randint(start_key, (), 0, step)) % step == 0
    kind = jr.randint(kind_key, (), 0, 3)
    return jnp.where(kind == 0, kept, jnp.where(kind == 1, block, regular))


def grouped(observation: Observation, slots: int) -> Observation:
    """Deal the rows of a long observation into groups that fit the networks.

    Args:
        observation: A single observation with any number of rows.
        slots: Rows of a group.

    Returns:
        A batch of observations with `slots` rows each, every n-th row in the same group;
        padding repeats the last time.
    """
    rows = observation.mask.shape[0]
    groups = max(1, -(-rows // slots))
    extra = groups * slots - rows

    def deal(leaf: Array | np.ndarray, fill: str) -> Array:
        x = jnp.asarray(leaf)
        tail = jnp.repeat(x[-1:], extra, axis=0)
        x = jnp.concatenate([x, tail if fill == "edge" else jnp.zeros_like(tail)])
        return jnp.swapaxes(x.reshape(slots, groups, *x.shape[1:]), 0, 1)

    return dataclasses.replace(
        observation,
        times=deal(observation.times, "edge"),
        values=deal(observation.values, "zero"),
        mask=deal(observation.mask, "zero"),
    )
