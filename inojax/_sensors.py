"""How a solution becomes readings: at which times, of which channels, with what gaps."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from ._named_vector import NamedVector
from ._rounding import SINGLE, nearest, unresolved
from ._tables import as_times
from ._user_function import as_vector, called
from ._x64 import is_traced


def _floats(values: Any) -> tuple[float, ...]:
    times = np.atleast_1d(as_times(values)[0])
    if times.ndim != 1:
        raise ValueError(f"`times` must be one row of numbers; got shape {times.shape}.")
    return tuple(times.tolist())


def _single(times: np.ndarray) -> bool:
    """Whether single precision holds all of the times."""
    with np.errstate(over="ignore"):
        return bool(np.all(times == times.astype(np.float32)))


def _names(channels: Any) -> Any:
    # A bare string would fall apart into letters; the check afterwards refuses it.
    return channels if channels is None or isinstance(channels, str) else tuple(channels)


class AbstractTimes(eqx.Module):
    """When readings are taken, as rows of an output grid.

    To add a schedule, subclass it and write `size`, `check` and `draw`. The shape that `draw`
    returns must be fixed: a schedule with fewer rows than `size` repeats its last row and marks
    the repetitions absent, so that times never decrease.
    """

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """The largest number of rows that can be drawn."""

    @abc.abstractmethod
    def check(self, grid_times: Float[np.ndarray, " time"]) -> None:
        """Raise a ValueError, on the host, if the output grid cannot serve this schedule."""

    @abc.abstractmethod
    def draw(
        self, grid_times: Float[Array | np.ndarray, " time"], *, key: Key[Array, ""]
    ) -> tuple[Int[Array, " reading"], Bool[Array, " reading"]]:
        """Return sorted rows of the grid and which of them are real rather than padding."""


class FixedTimes(AbstractTimes):
    """The same times in every experiment.

    Attributes:
        times: The times; each must be an output time of the model.

    Example:
        >>> problem = ij.problems.robertson()
        >>> early = ij.FixedTimes(tuple(problem.model.times[:5].tolist()))
        >>> ij.Sensors(early, channels=("A", "B")).channels
        ('A', 'B')
    """

    times: tuple[float, ...] = eqx.field(static=True, converter=_floats)

    def __check_init__(self) -> None:
        """Refuse an empty or unsorted schedule."""
        if not self.times or not np.isfinite(self.times).all() or np.any(np.diff(self.times) <= 0):
            raise ValueError(
                "`times` must be finite and increase strictly, at least one; "
                f"got {self.times}. Sort them and drop duplicates."
            )

    @property
    def size(self) -> int:
        """The number of times."""
        return len(self.times)

    def check(self, grid_times: Float[np.ndarray, " time"]) -> None:
        """Raise if one of the times is not an output time.

        Args:
            grid_times: The model's output times.

        Raises:
            ValueError: If a time is not on the grid.
        """
        grid = np.asarray(grid_times, np.float64)
        # A time that was typed and a time that was computed may differ by rounding.
        times = np.asarray(self.times)
        index, near = nearest(times, grid)
        if _single(times):  # they may have been rounded to it, if the grid allows that
            near |= nearest(times, grid, SINGLE)[1] & ~unresolved(times, grid, SINGLE)
        off = [time for time, found in zip(self.times, near, strict=True) if not found]
        if off:
            raise ValueError(
                f"`times` of `FixedTimes` must be output times of the model; {off} are not. "
                "Add them to the model's `times`."
            )
        twice = np.flatnonzero(np.diff(index) == 0)
        if len(twice):
            raise ValueError(
                "`times` of `FixedTimes` must differ by more than rounding; "
                f"{times[twice[0] : twice[0] + 2].tolist()} are the same output time."
            )

    def draw(
        self, grid_times: Float[Array | np.ndarray, " time"], *, key: Key[Array, ""]
    ) -> tuple[Int[Array, " reading"], Bool[Array, " reading"]]:
        """Look the times up in the grid.

        Args:
            grid_times: The model's output times.
            key: Not needed.

        Returns:
            Rows of the grid, all of them real.
        """
        del key
        if not is_traced(grid_times):
            # In double precision: large times, such as Julian days, are all one in single.
            index, _ = nearest(np.asarray(self.times), np.asarray(grid_times, np.float64))
            return jnp.asarray(index), jnp.ones(self.size, bool)
        grid = jnp.asarray(grid_times)
        wanted = jnp.asarray(self.times, grid.dtype)
        index = jnp.argmin(jnp.abs(wanted[:, None] - grid[None, :]), axis=1)
        return index, jnp.ones(self.size, bool)


class RandomTimes(AbstractTimes):
    """Distinct output times drawn uniformly, a fresh draw for every experiment.

    Attributes:
        least: The smallest number of times.
        most: The largest number of times; every number from `least` on is equally likely.

    Example:
        >>> ij.Sensors(ij.RandomTimes(3), missing=0.1).missing
        0.1
    """

    least: int = eqx.field(static=True)
    most: int = eqx.field(static=True)

    def __init__(self, least: int, most: int | None = None) -> None:
        """Draw exactly `least` times, or a random number between `least` and `most`.

        Args:
            least: The smallest number of times, at least 1.
            most: The largest number of times; `least` by default.

        Raises:
            ValueError: If the numbers are not whole, or not 1 ≤ `least` ≤ `most`.
        """
        most = least if most is None else most
        whole = all(
            isinstance(n, int | np.integer) and not isinstance(n, bool) for n in (least, most)
        )
        if not whole or not 1 <= least <= most:
            raise ValueError(
                f"`least` and `most` must be whole numbers with 1 <= least <= most; "
                f"got {least!r} and {most!r}."
            )
        self.least = int(least)
        self.most = int(most)

    @property
    def size(self) -> int:
        """The largest number of times."""
        return self.most

    def check(self, grid_times: Float[np.ndarray, " time"]) -> None:
        """Raise if there are fewer output times than could be drawn.

        Args:
            grid_times: The model's output times.

        Raises:
            ValueError: If the grid is too short.
        """
        if self.most > len(grid_times):
            raise ValueError(
                f"`RandomTimes` draws up to {self.most} distinct times, but the model has only "
                f"{len(grid_times)} output times. Draw fewer, or refine the model's `times`."
            )

    def draw(
        self, grid_times: Float[Array | np.ndarray, " time"], *, key: Key[Array, ""]
    ) -> tuple[Int[Array, " reading"], Bool[Array, " reading"]]:
        """Draw rows of the grid without replacement.

        Args:
            grid_times: The model's output times.
            key: Source of randomness.

        Returns:
            Sorted rows of the grid, and which are real; padding repeats the last row.
        """
        if self.least == self.most == len(grid_times):
            return jnp.arange(self.most), jnp.ones(self.most, bool)
        row_key, number_key = jr.split(key)
        # The largest of random scores are a uniform subset in random order, so cutting it to
        # `number` leaves a uniform subset; unlike jr.choice this vectorizes over experiments.
        _, chosen = jax.lax.top_k(jr.uniform(row_key, (len(grid_times),), jnp.float32), self.most)
        number = jr.randint(number_key, (), self.least, self.most + 1)
        present = jnp.arange(self.most) < number
        last = jnp.max(jnp.where(present, chosen, 0))
        return jnp.sort(jnp.where(present, chosen, last)), present


Observable = Callable[[Any, Any], Any]


class Sensors(eqx.Module):
    """What is measured of a solution.

    Readings are states unless there is an `observable`, for instance a ratio of two species or
    a signal with an unknown gain:

        Sensors(times, channels=("signal",), observable=lambda y, theta: theta[3] * y[:1])

    Attributes:
        times: When: `FixedTimes` or `RandomTimes`.
        channels: Names of the observed states, all of them if None; or of what the observable
            returns.
        missing: Chance that a single reading is lost, in [0, 1). At least one always stays.
        observable: `g(y, theta) -> readings` with shapes `(state,)`, `(parameter,)` and
            `(channel,)`, written in `jax.numpy`; by default the states that `channels` names.
            Both are read by position or by name, `y.signal` and `theta.gain`.

    Example:
        >>> sensors = ij.Sensors(
        ...     ij.RandomTimes(4), channels=("all prey",),
        ...     observable=lambda state, theta: state["hare"]
        ... )
        >>> sensors.channels
        ('all prey',)
    """

    times: AbstractTimes
    channels: tuple[str, ...] | None = eqx.field(static=True, default=None, converter=_names)
    missing: float = eqx.field(static=True, default=0.0)
    observable: Observable | None = None

    def __check_init__(self) -> None:
        """Refuse foreign schedules, repeated channels, impossible chances and no functions."""
        if not isinstance(self.times, AbstractTimes):
            raise TypeError(
                "`times` must be `FixedTimes([...])` or `RandomTimes(count)`; "
                f"got {type(self.times).__name__}."
            )
        if self.channels is not None:
            if isinstance(self.channels, str) or not self.channels:
                raise ValueError(
                    "`channels` must be a tuple of state names, at least one, or None for all; "
                    f"got {self.channels!r}."
                )
            if len(set(self.channels)) != len(self.channels):
                raise ValueError(f"`channels` must be distinct; got {self.channels}.")
        if not 0.0 <= self.missing < 1.0:
            raise ValueError(f"`missing` must be a chance in [0, 1); got {self.missing!r}.")
        if self.observable is not None:
            self._check_observable()

    def _check_observable(self) -> None:
        if not callable(self.observable):
            raise TypeError(
                "`observable` must be a function of the states and the parameters; "
                f"got {type(self.observable).__name__}."
            )
        if self.channels is None:
            raise ValueError(
                "`channels` must name what the `observable` returns, one name for each value; "
                "got None."
            )

    @property
    def size(self) -> int:
        """The largest number of rows of an observation."""
        return self.times.size

    def draw(
        self,
        grid_times: Float[Array | np.ndarray, " time"],
        n_channels: int,
        *,
        key: Key[Array, ""],
    ) -> tuple[Int[Array, " reading"], Bool[Array, "reading channel"]]:
        """Decide what one experiment reads; pure, cheap, and ready for `vmap` over keys.

        Args:
            grid_times: The model's output times.
            n_channels: Number of channels.
            key: Source of randomness.

        Returns:
            Sorted rows of the grid, and which readings are present. Rows without a single
            present reading are padding.
        """
        time_key, loss_key = jr.split(key)
        index, present = self.times.draw(grid_times, key=time_key)
        shape = (self.size, n_channels)
        mask = jnp.broadcast_to(present[:, None], shape)
        if self.missing > 0.0:
            luck = jnp.where(mask, jr.uniform(loss_key, shape, jnp.float32), -1.0)
            # The luckiest reading stays: an observation of nothing cannot be inverted.
            mask = mask & ((luck >= self.missing) | (luck == jnp.max(luck)))
        return index, mask

    def observed(
        self,
        states: Float[Array | np.ndarray, "*batch state"],
        theta: Float[Array | np.ndarray, "*#batch parameter"],
        *,
        state_names: tuple[str, ...] | None = None,
        parameter_names: tuple[str, ...] | None = None,
    ) -> Float[Array, "*batch channel"]:
        """Apply the observable to states.

        Args:
            states: States with any leading axes.
            theta: Physical values of all parameters, fixed ones included, with as many leading
                axes, each as long or 1.
            state_names: A name for each state, by which the observable may read them.
            parameter_names: A name for each parameter.

        Returns:
            What the observable makes of each, in the dtype of the states.

        Raises:
            TypeError: If the observable takes other arguments, or does what cannot be done with
                traced values.
            ValueError: If the observable returns another shape than one value per channel.
        """
        function, channels = self.observable, self.channels
        assert function is not None
        assert channels is not None
        states = jnp.asarray(states)

        def one(y: Array, parameters: Array) -> Array:
            state = NamedVector(y, state_names, argument="y", noun="states")
            theta = NamedVector(parameters, parameter_names, argument="theta", noun="parameters")
            result = called(function, (state, theta), what="observable", form="(y, theta)")
            return as_vector(result, channels, y.dtype, what="observable", noun="channels")

        vectorized = jnp.vectorize(one, signature="(s),(p)->(c)")
        return vectorized(states, jnp.asarray(theta, states.dtype))
