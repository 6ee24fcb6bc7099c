"""How a whole time series, its spectrum and the unknowns are put to a network."""

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from .._inverse_problem import InverseProblem
from .._observation import Observation
from .._sensors import FixedTimes, RandomTimes
from ..nn import Normal
from ._encoding import thin
from ._training_data import SimulatedData

# As many noisy series settle the scales.
_SOME = 1024
# Series that are measured and encoded together.
_BLOCK = 512
_SMALLEST = 1e-8


class Inputs(enum.Enum):
    """What of a series a network sees.

    `SERIES` are its readings, `SPECTRUM` the logarithm of its power at each frequency, which
    does not say when something happens, `BOTH` one below the other.
    """

    SERIES = "series"
    SPECTRUM = "spectrum"
    BOTH = "both"


class Labels(enum.Enum):
    """In which coordinates a network predicts.

    `UNIT` is the prior's distribution function; `RANGE` runs from the smallest to the largest
    physical value among the training simulations, as published.
    """

    UNIT = "unit"
    RANGE = "range"


class SeriesEncoder(eqx.Module):
    """Scales of a series and of what is predicted from it.

    Attributes:
        times: When readings are taken, in every experiment.
        slack: How far off each of them may be.
        center: Mean of each channel.
        spread: Standard deviation of each channel.
        power_center: Mean log power of each frequency and channel.
        power_spread: Its standard deviation.
        low: Physical value of each parameter at which its label is 0, if they are ranges.
        high: Where it is 1.
        number_center: Mean of each number that describes a covariance.
        number_spread: Its standard deviation.
        inputs: What a network sees.
        labels: What it predicts.
        masked: Whether it also sees which readings are there.
    """

    times: Float[np.ndarray, " reading"]
    slack: Float[np.ndarray, " reading"]
    center: Float[np.ndarray, " channel"]
    spread: Float[np.ndarray, " channel"]
    power_center: Float[np.ndarray, "frequency channel"]
    power_spread: Float[np.ndarray, "frequency channel"]
    low: Float[np.ndarray, " parameter"]
    high: Float[np.ndarray, " parameter"]
    number_center: Float[np.ndarray, " number"]
    number_spread: Float[np.ndarray, " number"]
    inputs: Inputs = eqx.field(static=True)
    labels: Labels = eqx.field(static=True)
    masked: bool = eqx.field(static=True)

    @classmethod
    def blank(
        cls, problem: InverseProblem, inputs: Inputs, labels: Labels, *, masked: bool
    ) -> "SeriesEncoder":
        """An encoder that changes nothing, of the right shapes.

        Args:
            problem: The inverse problem.
            inputs: What a network sees.
            labels: What it predicts.
            masked: Whether it sees which readings are there.

        Returns:
            The encoder.

        Raises:
            ValueError: If readings are not taken at the same times in every experiment.
        """
        times, channels = reading_times(problem), len(problem.channels)
        frequencies, size = len(times) // 2 + 1, problem.parameters.size
        numbers = Normal.size(size)
        # Outputs of zero mean a variance of 1/12, that of the prior.
        center = np.where(np.arange(numbers) < size, -np.log(12.0), 0.0)
        arrays = (
            np.zeros(channels), np.ones(channels),
            np.zeros((frequencies, channels)), np.ones((frequencies, channels)),
            np.zeros(size), np.ones(size), center, np.ones(numbers),
        )  # fmt: skip
        floats = [np.asarray(x, np.float32) for x in arrays]
        return cls(times, _slack(times), *floats, inputs=inputs, labels=labels, masked=masked)

    def fitted(
        self, problem: InverseProblem, data: SimulatedData, *, scaled: bool, key: Key[Array, ""]
    ) -> "SeriesEncoder":
        """Measure scales on noisy simulations.

        Args:
            problem: The inverse problem.
            data: Simulations of it.
            scaled: Whether series are standardized; spectra always are.
            key: Source of sensors and noise.

        Returns:
            The encoder with these scales.
        """
        count = min(_SOME, len(data.z))
        values, mask = measure_series(problem, data.z[:count], data.states[:count], key=key)
        kept = np.where(mask, values, np.nan)
        center, spread = np.nanmean(kept, axis=(0, 1)), np.nanstd(kept, axis=(0, 1))
        if not scaled:
            center, spread = np.zeros_like(center), np.ones_like(spread)
        thetas = np.asarray(problem.parameters.from_unit(np.asarray(data.z, np.float64)))
        rough = eqx.tree_at(
            lambda e: (e.center, e.spread, e.low, e.high),
            self,
            tuple(
                np.asarray(x, np.float32)
                for x in (
                    center,
                    np.maximum(spread, _SMALLEST),
                    thetas.min(axis=0),
                    thetas.max(axis=0),
                )
            ),
        )
        series = np.where(mask, (values - rough.center) / rough.spread, 0.0)
        power = _log_power(series, axis=1)
        scales = power.mean(axis=0), np.maximum(power.std(axis=0), _SMALLEST)
        return eqx.tree_at(
            lambda e: (e.power_center, e.power_spread),
            rough,
            tuple(np.asarray(x, np.float32) for x in scales),
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features of what a network sees."""
        rows = {
            Inputs.SERIES: len(self.times),
            Inputs.SPECTRUM: len(self.power_center),
            Inputs.BOTH: len(self.times) + len(self.power_center),
        }
        return rows[self.inputs], len(self.center) * (2 if self.masked else 1)

    def __call__(
        self,
        values: Float[Array, "reading channel"],
        mask: Bool[Array, "reading channel"],
    ) -> Float[Array, "row feature"]:
        """Put a series to a network.

        Args:
            values: Readings at all of the times.
            mask: Which of them are there.

        Returns:
            The inputs.
        """
        scaled = (values - self.center[None]) / self.spread[None]
        series = jnp.where(mask, scaled, 0.0)
        parts, masks = [], []
        if self.inputs is not Inputs.SPECTRUM:
            parts.append(series)
            masks.append(mask.astype(series.dtype))
        if self.inputs is not Inputs.SERIES:
            power = jnp.asarray(_log_power(series, axis=0))
            parts.append((power - self.power_center) / self.power_spread)
            share = jnp.mean(mask.astype(series.dtype), axis=0)
            masks.append(jnp.broadcast_to(share, power.shape))
        x = jnp.concatenate(parts)
        return jnp.concatenate([x, jnp.concatenate(masks)], axis=1) if self.masked else x

    def encode_all(
        self,
        values: Float[np.ndarray, "n reading channel"],
        mask: Bool[np.ndarray, "n reading channel"],
    ) -> Float[Array, "n row feature"]:
        """Put many series to a network, on the host.

        Args:
            values: Readings of each.
            mask: Which of them are there.

        Returns:
            The inputs of each.
        """
        return jnp.asarray(in_blocks(lambda *rows: _encode(self, *rows), values, mask))

    def to_labels(
        self, problem: InverseProblem, z: Float[Array, "*batch parameter"]
    ) -> Float[Array, "*batch parameter"]:
        """Labels of unit coordinates."""
        if self.labels is Labels.UNIT:
            return z
        theta = jnp.asarray(problem.parameters.from_unit(z))
        low, high = self._ends(theta)
        return (theta - low) / (high - low)

    def to_unit(
        self, problem: InverseProblem, labels: Float[Array, "*batch parameter"]
    ) -> Float[Array, "*batch parameter"]:
        """Unit coordinates of labels."""
        if self.labels is Labels.UNIT:
            return labels
        low, high = self._ends(labels)
        theta = low + labels * (high - low)
        return jnp.asarray(problem.parameters.to_unit(theta))

    def _ends(self, like: Array) -> tuple[Array, Array]:
        shape = (1,) * (like.ndim - 1) + (-1,)
        return jnp.asarray(self.low).reshape(shape), jnp.asarray(self.high).reshape(shape)

    def label_slopes(
        self, problem: InverseProblem, z: Float[Array, "*batch parameter"]
    ) -> Float[Array, "*batch parameter"]:
        """Derivative of each physical value by its label."""
        if self.labels is Labels.RANGE:
            return jnp.broadcast_to(jnp.asarray(self.high - self.low), z.shape)
        inside = jnp.clip(z, 1e-6, 1.0 - 1e-6)
        from_unit = problem.parameters.from_unit
        return jax.jvp(lambda u: jnp.asarray(from_unit(u)), (inside,), (jnp.ones_like(z),))[1]

    def fits(self, observation: Observation) -> Bool[Array, ""]:
        """Whether a series was read at these times, and is complete if it must be; pure."""
        mask, times = jnp.asarray(observation.mask), jnp.asarray(observation.times)
        grid = jnp.asarray(self.times, times.dtype)
        near = (jnp.abs(times - grid) <= jnp.asarray(self.slack, times.dtype)) | ~jnp.any(
            mask, axis=-1
        )
        complete = True if self.masked else jnp.all(mask)
        return jnp.all(near) & complete

    def placed(self, observations: Observation) -> Observation:
        """Put a batch of observations on the times of the series, on the host.

        Args:
            observations: What was measured, with a leading axis.

        Returns:
            The same with a row for each of the times.

        Raises:
            ValueError: If a reading was taken at another time, or one is missing that a network
                without masks needs.
        """
        times, mask = (np.asarray(x) for x in (observations.times, observations.mask))
        middles = 0.5 * (self.times[1:] + self.times[:-1])
        nearest = np.searchsorted(middles, times)
        away = np.abs(times - self.times[nearest]) > self.slack[nearest]
        if np.any(away & mask.any(axis=-1)):
            wrong = float(times[away & mask.any(axis=-1)][0])
            raise ValueError(
                f"`observation` has a reading at time {wrong:g}, but this map was trained on "
                f"{len(self.times)} readings from {self.times[0]:g} to {self.times[-1]:g} in steps "
                f"of {np.median(np.diff(self.times)):g}. Interpolating readings would change their "
                "noise: train a map for these times."
            )
        shape = (*times.shape[:-1], len(self.times), mask.shape[-1])
        values, kept = np.zeros(shape, np.float32), np.zeros(shape, bool)
        real = mask.any(axis=-1)
        if mask.all() and nearest.shape == shape[:-1] and np.all(nearest == np.arange(shape[-2])):
            values = np.asarray(observations.values, np.float32)
            everywhere = np.broadcast_to(self.times.astype(np.float32), shape[:-1])
            return dataclasses.replace(observations, times=everywhere, values=values, mask=mask)
        case = np.arange(len(times))[:, None]
        rows = np.broadcast_to(case, times.shape)[real], nearest[real]
        if np.bincount(rows[0] * len(self.times) + rows[1]).max(initial=0) > 1:
            raise ValueError("`observation` has two rows at the same time; combine them to one.")
        values[rows], kept[rows] = np.asarray(observations.values)[real], mask[real]
        if not self.masked and not kept.all():
            case, row, _ = np.argwhere(~kept)[0]
            raise ValueError(
                f"`observation` lacks {np.sum(~kept[case])} of {kept[case].size} readings, the "
                f"first at time {self.times[row]:g}, but this map was trained on complete series. "
                "Train one that knows gaps, `InverseMap(thinned=0.5)`."
            )
        everywhere = np.broadcast_to(self.times.astype(np.float32), shape[:-1])
        return dataclasses.replace(observations, times=everywhere, values=values, mask=kept)


def _slack(times: Float[np.ndarray, " reading"]) -> Float[np.ndarray, " reading"]:
    """How far off each time may be: a little of the way to its neighbors, and rounding."""
    rounding = 2.0**-21 * np.abs(times)  # of single precision, twice
    if len(times) == 1:
        return 1e-6 + rounding
    steps = np.diff(times)
    return 1e-3 * np.minimum(np.append(np.inf, steps), np.append(steps, np.inf)) + rounding


def measure_series(
    problem: InverseProblem,
    z: Float[Array, "n parameter"],
    states: Float[Array, "n time state"],
    *,
    thinned: float = 0.0,
    key: Key[Array, ""],
) -> tuple[Float[np.ndarray, "n reading channel"], Bool[np.ndarray, "n reading channel"]]:
    """Measure every simulation once, in float32.

    Args:
        problem: The inverse problem.
        z: Unit coordinates.
        states: Trajectories.
        thinned: Share of the series that lose readings.
        key: Source of sensors, noise and losses.

    Returns:
        Readings, and which of them are there.
    """
    keys = np.asarray(jr.key_data(jr.split(key, (len(z), 2))))
    return in_blocks(
        lambda *rows: _measure(problem, thinned, *rows), np.asarray(z), np.asarray(states), keys
    )


def in_blocks(block: Callable[..., Any], *rows: np.ndarray) -> Any:
    """Run a compiled function over many rows in calls of one size, which compile once.

    Args:
        block: From some rows to an array, or several, with as many.
        rows: Arrays with the same number of rows.

    Returns:
        The results of all, on the host.
    """
    count, parts = len(rows[0]), []
    for start in range(0, count, _BLOCK):
        some = np.arange(start, start + _BLOCK) % count
        meant = min(_BLOCK, count - start)
        found = block(*(x[some] for x in rows))
        parts.append(jax.tree.map(lambda x, meant=meant: np.asarray(x)[:meant], found))
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


@eqx.filter_jit
def _measure(
    problem: InverseProblem, thinned: float, z: Array, states: Array, keys: Array
) -> tuple[Array, Array]:
    def one(z: Array, states: Array, keys: Array) -> tuple[Array, Array]:
        observe_key, lose_key = jr.wrap_key_data(keys)
        theta = jnp.asarray(problem.parameters.from_unit(z))
        seen = problem.observe(states, theta, key=observe_key)
        seen = thin(seen, thinned, patterns=True, key=lose_key)
        return jnp.asarray(seen.values), jnp.asarray(seen.mask)

    return jax.vmap(one)(z, states, keys)


@eqx.filter_jit
def _encode(encoder: SeriesEncoder, values: Array, mask: Array) -> Array:
    return jax.vmap(encoder)(values, mask)


def reading_times(problem: InverseProblem) -> Float[np.ndarray, " reading"]:
    """The times of a problem that are read in every experiment.

    Args:
        problem: The inverse problem.

    Returns:
        The times.

    Raises:
        ValueError: If they differ from one experiment to the next.
    """
    times, grid = problem.sensors.times, np.asarray(problem.model.times, np.float64)
    if isinstance(times, FixedTimes):
        return np.asarray(times.times)
    if isinstance(times, RandomTimes) and times.least == len(grid):
        return grid
    raise ValueError(
        f"`problem` {problem.name!r} draws other times for each experiment; an inverse map needs a "
        "series at fixed ones. Use sensors with `FixedTimes`, or a method for irregular readings, "
        "such as `Regression` or `INO`."
    )


def _log_power(series: Any, axis: int) -> Any:
    xp = np if isinstance(series, np.ndarray) else jnp
    power = xp.square(xp.abs(xp.fft.rfft(series, axis=axis)))
    return xp.log(power / series.shape[axis] + _SMALLEST).astype(xp.float32)
