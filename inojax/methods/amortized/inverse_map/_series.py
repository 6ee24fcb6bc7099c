"""How a whole time series, its spectrum and the unknowns are put to a network."""

import enum
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from ...._blocks import in_blocks
from ...._inverse_problem import InverseProblem, measure
from ...._parameters import UNIT_PRECISION
from ...._x64 import is_traced
from ....nn._normal import Normal
from .._masking import mask_readings
from .._slots import Arranged, Slots
from .._training_data import SimulatedData

# As many noisy series settle the scales.
_SOME = 1024
# Series that are measured and encoded together.
_BLOCK = 512
# A channel that varies by less than this share of its size holds rounding errors only.
_CONSTANT = 1e-8
# Of the size of a series, its power, or its logarithm: less is rounding.
_SMALLEST = 1e-8
_MEASURED = ("center", "spread", "power_floor", "power_center", "power_spread", "low", "high")


class Inputs(enum.Enum):
    """What of a series a network sees.

    `SERIES` are its readings, `SPECTRUM` the logarithm of its power at each frequency, which
    does not say when something happens, `BOTH` one below the other.

    Example:
        >>> ij.methods.InverseMap(inputs=ij.methods.Inputs.BOTH).inputs.value
        'both'
    """

    SERIES = "series"
    SPECTRUM = "spectrum"
    BOTH = "both"


class Labels(enum.Enum):
    """In which coordinates a network predicts.

    `UNIT` is the prior's distribution function; `RANGE` runs from the smallest to the largest
    physical value among the training simulations, as published.

    Example:
        >>> ij.methods.InverseMap(labels=ij.methods.Labels.RANGE).labels.value
        'range'
    """

    UNIT = "unit"
    RANGE = "range"


class SeriesEncoder(eqx.Module):
    """Scales of a series and of what is predicted from it.

    Attributes:
        slots: When readings are taken, in every experiment.
        center: Mean of each channel.
        spread: Standard deviation of each channel.
        power_floor: Power of each channel below which nothing is told apart.
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

    slots: Slots
    center: Float[np.ndarray, " channel"]
    spread: Float[np.ndarray, " channel"]
    power_floor: Float[np.ndarray, " channel"]
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
        slots, channels = series_slots(problem), len(problem.channels)
        frequencies, size = slots.count // 2 + 1, problem.parameters.size
        numbers = Normal.size(size)
        # Outputs of zero mean the prior's variance.
        center = np.where(np.arange(numbers) < size, -np.log(UNIT_PRECISION), 0.0)
        arrays = (
            np.zeros(channels), np.ones(channels), np.full(channels, _SMALLEST),
            np.zeros((frequencies, channels)), np.ones((frequencies, channels)),
            np.zeros(size), np.ones(size), center, np.ones(numbers),
        )  # fmt: skip
        floats = [np.asarray(x, np.float32) for x in arrays]
        return cls(slots, *floats, inputs=inputs, labels=labels, masked=masked)

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
        kept = np.where(mask, values.astype(np.float64), np.nan)
        center, spread = np.nanmean(kept, axis=(0, 1)), np.nanstd(kept, axis=(0, 1))
        size = np.abs(kept).max(axis=(0, 1), where=mask, initial=0.0)
        # What is constant but for rounding is put in units of its size.
        spread = np.where(spread > _CONSTANT * size, spread, np.where(size > 0.0, size, 1.0))
        if not scaled:
            center, spread = np.zeros_like(center), np.ones_like(spread)
        thetas = np.asarray(problem.parameters.from_unit(np.asarray(data.z, np.float64)))
        series = np.where(mask, (values - center) / spread, 0.0)
        floor = _SMALLEST * np.square(series).mean(axis=(0, 1))
        # A power of nothing at all has a logarithm, too.
        floor = np.where(floor > np.finfo(np.float32).tiny, floor, _SMALLEST)
        power = _log_power(series, floor, axis=1)
        found = (
            center, spread, floor,
            power.mean(axis=0), np.maximum(power.std(axis=0), _SMALLEST),
            thetas.min(axis=0), thetas.max(axis=0),
        )  # fmt: skip
        return eqx.tree_at(
            lambda e: [getattr(e, name) for name in _MEASURED],
            self,
            [np.asarray(x, np.float32) for x in found],
        )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and features of what a network sees."""
        rows = {
            Inputs.SERIES: self.slots.count,
            Inputs.SPECTRUM: len(self.power_center),
            Inputs.BOTH: self.slots.count + len(self.power_center),
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
        return self.features(jnp.asarray(self.standardized(values, mask)), mask)

    def standardized(
        self,
        values: Float[Array | np.ndarray, "*batch reading channel"],
        mask: Bool[Array | np.ndarray, "*batch reading channel"],
    ) -> Float[Array | np.ndarray, "*batch reading channel"]:
        """Readings on the scale of a network, in float32, 0 where absent.

        Args:
            values: Readings at all of the times.
            mask: Which of them are there.

        Returns:
            The series.
        """
        xp = np if isinstance(values, np.ndarray) else jnp
        shape = (1,) * (values.ndim - 1) + (-1,)
        center, spread = (xp.asarray(x, values.dtype) for x in (self.center, self.spread))
        scaled = (values - center.reshape(shape)) / spread.reshape(shape)
        return xp.where(mask, scaled, 0.0).astype(np.float32)

    def features(
        self, series: Float[Array, "reading channel"], mask: Bool[Array, "reading channel"]
    ) -> Float[Array, "row feature"]:
        """Put a standardized series to a network.

        Args:
            series: What `standardized` returns.
            mask: Which readings are there.

        Returns:
            The inputs.
        """
        parts, masks = [], []
        if self.inputs is not Inputs.SPECTRUM:
            parts.append(series)
            masks.append(mask.astype(series.dtype))
        if self.inputs is not Inputs.SERIES:
            power = jnp.asarray(_log_power(series, self.power_floor, axis=0))
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
        return jnp.asarray(
            in_blocks(lambda rows: _encode(self, *rows), (values, mask), size=_BLOCK)
        )

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

    def check_complete(self, arranged: Arranged) -> None:
        """Refuse series that lack a reading which a network without masks needs.

        Args:
            arranged: Series in their slots, traced or not.

        Raises:
            ValueError: If one is missing; where series are traced, if none of them can be complete.
        """
        if self.masked or is_traced(arranged.mask):
            return
        kept = np.asarray(arranged.mask)[:, 0]
        if kept.all():
            return
        case, row, _ = np.argwhere(~kept)[0]
        raise ValueError(
            f"`observation` lacks {np.sum(~kept[case])} of {kept[case].size} readings, the "
            f"first at time {self.slots.read[row]:.12g}, but this map was trained on complete "
            "series. Train one that knows gaps, `InverseMap(mask_rate=0.5)`."
        )


def measure_series(
    problem: InverseProblem,
    z: Float[Array, "n parameter"],
    states: Float[Array, "n time state"],
    *,
    mask_rate: float = 0.0,
    key: Key[Array, ""],
) -> tuple[Float[np.ndarray, "n reading channel"], Bool[np.ndarray, "n reading channel"]]:
    """Measure every simulation once, in float32.

    Args:
        problem: The inverse problem.
        z: Unit coordinates.
        states: Trajectories.
        mask_rate: Share of the series that lose readings.
        key: Source of sensors, noise and losses.

    Returns:
        Readings, and which of them are there.
    """
    keys = np.asarray(jr.key_data(jr.split(key, (len(z), 2))))
    # Compiled for this problem, not with it as an argument, which would round its times.
    block = jax.jit(jax.vmap(partial(_measure, problem, mask_rate)))
    rows = np.asarray(z), np.asarray(states), keys
    return in_blocks(lambda rows: block(*rows), rows, size=_BLOCK)


def _measure(
    problem: InverseProblem, mask_rate: float, z: Array, states: Array, keys: Array
) -> tuple[Array, Array]:
    observe_key, lose_key = jr.wrap_key_data(keys)
    theta = jnp.asarray(problem.parameters.from_unit(z))
    seen = measure(problem, states, theta, key=observe_key)
    seen = mask_readings(seen, mask_rate, patterns=True, key=lose_key)
    return seen.values, seen.mask


@eqx.filter_jit
def _encode(encoder: SeriesEncoder, values: Array, mask: Array) -> Array:
    return jax.vmap(encoder)(values, mask)


def series_slots(problem: InverseProblem) -> Slots:
    """The slots of a problem that is read at the same times in every experiment.

    Args:
        problem: The inverse problem.

    Returns:
        The slots.

    Raises:
        ValueError: If times differ from one experiment to the next.
    """
    slots = Slots.of(problem)
    if slots.fixed is not None:
        return slots
    raise ValueError(
        f"`problem` {problem.name!r} draws other times for each experiment; an inverse map needs a "
        "series at fixed ones. Use sensors with `FixedTimes`, or a method for irregular readings, "
        "such as `Regression` or `INO`."
    )


def _log_power(series: Any, floor: Any, axis: int) -> Any:
    xp = np if isinstance(series, np.ndarray) else jnp
    power = xp.square(xp.abs(xp.fft.rfft(series, axis=axis)))
    floor = xp.asarray(floor).reshape((1,) * (series.ndim - 1) + (-1,))
    return xp.log(power / series.shape[axis] + floor).astype(xp.float32)
