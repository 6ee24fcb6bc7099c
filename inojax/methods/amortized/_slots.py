"""Where the rows of an observation belong in what a network sees, however they were written."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..._inverse_problem import InverseProblem, resolves
from ..._observation import Observation
from ..._sensors import FixedTimes, RandomTimes
from ...noise import AbstractIndependentNoise, Poisson

# Times nearer to each other than this share of a step between output times are the same time.
_SAME = 1e-3


class Arranged(NamedTuple):
    """Readings in the slots of a network.

    Attributes:
        place: Output time of each slot, counted from 0; between two of them a fraction, and down
            to -1 before the first one. Without meaning where no reading is.
        values: Readings in physical units, 0 where absent.
        mask: Which readings are there.
        fits: Whether every reading has found a slot of its own.
    """

    place: Float[Array | np.ndarray, "*batch group slot"]
    values: Float[Array | np.ndarray, "*batch group slot channel"]
    mask: Bool[Array | np.ndarray, "*batch group slot channel"]
    fits: Bool[Array | np.ndarray, "*batch"]


class Slots(eqx.Module):
    """The rows in which networks of one problem see readings.

    Where sensors read the same output times in every experiment, each time has a slot, and a
    reading goes to that of its time. Where they draw times, rows stand in order of time, each near
    the slot that its time mostly has, and more rows than slots are dealt into groups. Either way
    the set of readings decides: order of rows, rows without a reading and rows of one time that
    read different channels do not matter.

    On the host times are compared in double precision, and what has no slot is refused. Inside a
    transformation nothing can be refused: `fits` is False there.

    Attributes:
        name: Name of the problem.
        channels: What is read.
        times: Output times of the model.
        start: Where it begins.
        fixed: The output times that are read in every experiment; None where they are drawn.
        count: How many slots there are.
        independent: Whether rows of one experiment scatter independently, so that groups of them
            do.
    """

    # Static, so that none is traced, which would round it to single precision.
    name: str = eqx.field(static=True)
    channels: tuple[str, ...] = eqx.field(static=True)
    times: tuple[float, ...] = eqx.field(static=True)
    start: float = eqx.field(static=True)
    fixed: tuple[int, ...] | None = eqx.field(static=True)
    count: int = eqx.field(static=True)
    independent: bool = eqx.field(static=True)

    @classmethod
    def of(cls, problem: InverseProblem) -> "Slots":
        """The slots of a problem.

        Args:
            problem: The inverse problem.

        Returns:
            Its slots.
        """
        return cls(
            problem.name,
            problem.channels,
            tuple(np.asarray(problem.model.times, np.float64).tolist()),
            float(problem.model.initial_time),
            _fixed_rows(problem),
            problem.sensors.size,
            isinstance(problem.noise, AbstractIndependentNoise | Poisson),
        )

    @property
    def read(self) -> Float[np.ndarray, " time"]:
        """The times that a reading may be taken at: those of the slots, or all output times."""
        times = np.array(self.times)
        return times if self.fixed is None else times[list(self.fixed)]

    @property
    def position(self) -> Float[np.ndarray, " time"]:
        """Place of each output time as a fraction of the grid, in (0, 1]."""
        return fraction(np.arange(len(self.times)), len(self.times))

    def arrange(self, observations: Observation) -> Arranged:
        """Put a batch of observations into slots, on the host in double precision.

        Args:
            observations: What was measured, with a leading axis.

        Returns:
            The readings in their slots, as many groups as the longest observation needs.

        Raises:
            ValueError: If a reading has no slot, or a slot two readings.
        """
        times, mask = np.asarray(observations.times), np.asarray(observations.mask)
        real = mask.any(axis=-1)
        place, away = self.locate(times)
        if self.fixed is not None:
            self._refuse_away(times[away & real])
        case, row = np.nonzero(real)
        place = np.asarray(place)[real]
        if self.fixed is None:
            group, slot = self._dealt(case, place, len(mask))
        else:
            group, slot = np.zeros_like(case), place.astype(int)
        shape = (len(mask), 1 + int(group.max(initial=0)), self.count, mask.shape[-1])
        cell = np.ravel_multi_index((case, group, slot), shape[:3])
        which, channel = np.nonzero(mask[real])
        target = cell[which] * shape[3] + channel
        self._refuse_repeated(target, times[case[which], row[which]], channel)
        values, kept = np.zeros(shape), np.zeros(shape, bool)
        values.reshape(-1)[target] = np.asarray(observations.values, np.float64)[mask]
        kept.reshape(-1)[target] = True
        places = np.zeros(shape[:3])
        if self.fixed is None:
            places.reshape(-1)[cell] = place
        else:
            places[:] = np.array(self.fixed, float)
        return Arranged(places, values, kept, np.ones(len(mask), bool))

    def arranged(self, observation: Observation) -> Arranged:
        """Put a single observation into slots; pure, in the precision that it has.

        Args:
            observation: What was measured.

        Returns:
            The readings in their slots.

        Raises:
            RuntimeError: If that precision does not tell output times apart.
        """
        times, mask = jnp.asarray(observation.times), jnp.asarray(observation.mask)
        values = jnp.asarray(observation.values)
        real = jnp.any(mask, axis=1)
        place, away = self.locate(times)
        if self.fixed is not None:
            fits = ~jnp.any(away & real)
            groups, slot = 1, jnp.where(real, place.astype(int), self.count)
        else:
            fits = ~jnp.any(self._outside(times) & real)
            groups = max(1, -(-len(times) // self.count))
            slot, rows = self._traced_slots(jnp.where(real, place, jnp.inf), groups)
            if not self.independent:
                fits = fits & (rows <= self.count)
        ones = jnp.ones_like(place)
        columns = [jnp.where(mask, values, 0.0), mask, place[:, None], ones[:, None]]
        table = jnp.concatenate([x.astype(values.dtype) for x in columns], axis=1)
        blank = jnp.zeros((groups * self.count, table.shape[1]), table.dtype)
        # What has no reading lies beyond the table and is dropped.
        table = blank.at[slot].add(table, mode="drop")
        width = len(self.channels)
        times_read, weight = table[:, width : 2 * width], jnp.maximum(table[:, -1], 1.0)
        fits = fits & jnp.all(times_read < 1.5) & jnp.any(mask)
        kept, values = times_read > 0.5, table[:, :width]
        if self.fixed is None:
            place = table[:, -2] / weight
        else:
            place = jnp.asarray(self.fixed, table.dtype)
        split = (groups, self.count)
        return Arranged(
            place.reshape(split), values.reshape(*split, -1), kept.reshape(*split, -1), fits
        )

    def locate(
        self, times: Float[Array | np.ndarray, "*batch"]
    ) -> tuple[Float[Array | np.ndarray, "*batch"], Bool[Array | np.ndarray, "*batch"]]:
        """The slot of each time where times are fixed, else its place among the output times.

        Args:
            times: Any times, in any precision.

        Returns:
            The number of the nearest time, and whether it is another time; where times are drawn
            and it is, the fraction between two output times instead.

        Raises:
            ValueError: If output times are too close to each other for that precision.
            RuntimeError: If they are, and times are traced.
        """
        host = isinstance(times, np.ndarray)
        xp: Any = np if host else jnp
        read, dtype = self.read, np.dtype(times.dtype)
        self._require_resolved(dtype, host=host)
        grid, slack = (xp.asarray(x, dtype) for x in (read, self.slack(dtype)))
        middles = xp.asarray(0.5 * (read[1:] + read[:-1]), dtype)
        nearest = xp.searchsorted(middles, times)
        away = ~(xp.abs(times - grid[nearest]) <= slack[nearest])
        place = nearest.astype(dtype)
        if self.fixed is None:
            place = xp.where(away, self.between(times), place)
        return place, away

    def between(
        self, times: Float[Array | np.ndarray, "*batch"]
    ) -> Float[Array | np.ndarray, "*batch"]:
        """Place of times among the output times, -1 at the start if that is none of them."""
        xp: Any = np if isinstance(times, np.ndarray) else jnp
        axis, place = np.array(self.times), np.arange(len(self.times), dtype=float)
        if self.start < axis[0]:
            axis, place = np.append(self.start, axis), np.append(-1.0, place)
        # Differences of numbers near each other are exact, whatever the origin.
        origin = np.asarray(self.start, times.dtype)
        axis = xp.asarray(np.asarray(axis, times.dtype) - origin)
        return xp.interp(times - origin, axis, xp.asarray(place, times.dtype)).astype(times.dtype)

    def slack(self, dtype: Any) -> Float[np.ndarray, " time"]:
        """How far off each time may be: a little of the way to its neighbors, and rounding."""
        return slack(self.read, abs(self.times[-1] - self.start), dtype)

    def _outside(self, times: Array) -> Array:
        """Where the model is not solved."""
        ends = np.array([self.start, self.times[-1]])
        rounding = 2.0 * float(jnp.finfo(times.dtype).eps) * np.abs(ends)
        low, high = ends + np.array([-1.0, 1.0]) * (1e-6 * (ends[1] - ends[0]) + rounding)
        return ~(
            (times >= jnp.asarray(low, times.dtype)) & (times <= jnp.asarray(high, times.dtype))
        )

    def _dealt(
        self, case: Int[np.ndarray, " row"], place: Float[np.ndarray, " row"], cases: int
    ) -> tuple[Int[np.ndarray, " row"], Int[np.ndarray, " row"]]:
        """Group and slot of each row, by its rank among the times of its case alone."""
        order = np.lexsort((place, case))
        anew = np.diff(case[order], prepend=-1) != 0
        later = anew | (np.diff(place[order], prepend=-np.inf) > _SAME)
        number = np.cumsum(later) - 1
        first = np.maximum.accumulate(np.where(anew, number, 0))
        rank = np.empty_like(number)
        rank[order] = number - first
        rows = np.zeros(cases, int)
        np.maximum.at(rows, case, rank + 1)
        if not self.independent and rows.max(initial=0) > self.count:
            raise ValueError(
                f"`observation` has {rows.max()} rows, but the sensors of problem {self.name!r} "
                f"take {self.count}, and its noise correlates rows, so that they cannot be dealt "
                "into groups. Leave rows out, train with more (`RandomTimes`), or use a method "
                "that solves the model, such as `LeastSquares`."
            )
        groups = np.maximum(1, -(-rows // self.count))
        group, number = rank % groups[case], rank // groups[case]
        dense = np.zeros((cases, groups.max(initial=1), self.count))
        where = case, group, number
        dense[where] = place
        size = np.zeros(dense.shape[:2], int)
        np.maximum.at(size, where[:2], number + 1)
        there = np.arange(self.count) < size[..., None]
        return group, np.asarray(self.spread(dense, there))[where]

    def spread(
        self, place: Float[Array | np.ndarray, "*batch slot"], there: Any
    ) -> Int[Array | np.ndarray, "*batch slot"]:
        """Slots of rows in order of time where times are drawn.

        If none is missing they have the slots in order. Else each goes to the slot of the row that
        is mostly drawn near its time, or as near to it as the others allow.

        Args:
            place: Place of each row among the output times.
            there: Which rows there are.

        Returns:
            The slot of each row, beyond the last one for those that are not there.
        """
        xp: Any = np if isinstance(place, np.ndarray) else jnp
        rank = xp.cumsum(there, axis=-1) - 1
        # The k-th of S uniform numbers is k / (S + 1) on average. Whole numbers do not round.
        middle = 2 * xp.floor(place).astype(int) + 1
        usual = (middle * (self.count + 1) + len(self.times)) // (2 * len(self.times)) - 1
        ahead = xp.where(there, usual - rank, -self.count)
        if xp is np:
            ahead = np.maximum.accumulate(ahead, axis=-1)
        else:
            ahead = jax.lax.cummax(ahead, axis=ahead.ndim - 1)
        free = self.count - rank[..., -1:] - 1
        return xp.where(there, rank + xp.clip(ahead, 0, free), self.count)

    def _traced_slots(self, place: Array, groups: int) -> tuple[Array, Array]:
        """The same as rows of all groups one below the other, and how many times there are."""
        order = jnp.argsort(place)
        ordered = place[order]
        before = jnp.concatenate([jnp.full_like(ordered[:1], -jnp.inf), ordered[:-1]])
        real = jnp.isfinite(ordered)
        number = jnp.cumsum(real & (ordered - before > _SAME)) - 1
        rows = number[-1] + 1
        used = jnp.maximum(1, -(-rows // self.count))
        group, number = number % used, number // used
        # Rows of one time are one.
        beyond = jnp.where(real, group * self.count + number, groups * self.count)
        dense = jnp.full(groups * self.count, jnp.inf, place.dtype)
        dense = dense.at[beyond].set(ordered, mode="drop").reshape(groups, self.count)
        there = jnp.isfinite(dense)
        slots = self.spread(jnp.where(there, dense, 0.0), there).reshape(-1)
        slot = group * self.count + slots[jnp.minimum(beyond, len(slots) - 1)]
        slot = jnp.where(real, slot, groups * self.count)
        return jnp.zeros_like(slot).at[order].set(slot), rows

    def _require_resolved(self, dtype: Any, *, host: bool) -> None:
        if resolves(np.array(self.times), dtype):
            return
        near = max(self.times, key=abs)
        if host:
            raise ValueError(
                f"`observation` has times in {dtype}, too coarse for the output times of problem "
                f"{self.name!r} near {near:.10g}. Give them in double precision, or count time "
                "from a nearer origin."
            )
        raise RuntimeError(
            f"Output times of problem {self.name!r} near {near:.10g} are too close to each other "
            f"for {dtype}, in which times are being traced. Wrap the call in "
            "`with jax.enable_x64(True):`, call the inverter or `invert_batch` outside of "
            "transformations, or count time from a nearer origin."
        )

    def _refuse_away(self, wrong: Float[np.ndarray, " some"]) -> None:
        if not len(wrong):
            return
        read = self.read
        step = f" in steps of {np.median(np.diff(read)):g}" if len(read) > 1 else ""
        raise ValueError(
            f"`observation` has a reading at time {float(wrong[0]):.12g}, but this network was "
            f"trained on {len(read)} readings from {read[0]:.12g} to {read[-1]:.12g}{step}. "
            "Interpolating readings would change their noise: train one for these times."
        )

    def _refuse_repeated(
        self,
        target: Int[np.ndarray, " reading"],
        times: Float[np.ndarray, " reading"],
        channel: Int[np.ndarray, " reading"],
    ) -> None:
        _, first, count = np.unique(target, return_index=True, return_counts=True)
        if np.all(count == 1):
            return
        one = first[np.argmax(count > 1)]
        raise ValueError(
            f"`observation` has two rows at the same time {float(times[one]):.12g} that both read "
            f"{self.channels[channel[one]]!r}. Several readings at one time are not supported "
            "yet: keep one of them. Their mean would have less noise than this network was "
            "trained on."
        )


def slack(times: Float[np.ndarray, " time"], span: float, dtype: Any) -> Float[np.ndarray, " time"]:
    """How far off times may be from those of slots, in a precision.

    Args:
        times: Times of the slots.
        span: How long the model is solved, which stands in for the steps of a single time.
        dtype: The precision that times come in.

    Returns:
        A thousandth of the way to the nearest neighbor, twice as much where the times may have gone
        through single precision, and rounding.
    """
    steps = np.diff(times)
    step = np.minimum(np.append(np.inf, steps), np.append(steps, np.inf))
    step = np.where(np.isfinite(step), step, span)
    rounding = 2.0 * float(jnp.finfo(dtype).eps) * np.abs(times)
    return _SAME * step + np.minimum(2.0**-23 * np.abs(times), _SAME * step) + rounding


def fraction(place: Any, length: int) -> Any:
    """Place among so many output times as a fraction of the grid, from 0 to 1."""
    return (place + 1.0) / length


def _fixed_rows(problem: InverseProblem) -> tuple[int, ...] | None:
    """Output times that are read in every experiment; None where they differ."""
    times, grid = problem.sensors.times, problem.model.times
    if isinstance(times, FixedTimes):
        gaps = np.abs(np.subtract.outer(np.array(times.times), grid))
        return tuple(np.argmin(gaps, axis=1).tolist())
    if isinstance(times, RandomTimes) and times.least == len(grid):
        return tuple(range(len(grid)))
    return None


def is_between(place: Float[np.ndarray, "*batch"]) -> Bool[np.ndarray, "*batch"]:
    """Whether places are no output times."""
    return (place != np.round(place)) | (place < 0.0)  # the start may be no output time


def quarter(place: Float[np.ndarray, "*batch"], length: int) -> Int[np.ndarray, "*batch"]:
    """Which quarter of the output times places belong to, from 0 to 3."""
    return np.clip(np.floor(4.0 * np.maximum(place, 0.0) / length), 0, 3).astype(int)
