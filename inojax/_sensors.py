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

from ._x64 import is_traced


def _floats(values: Any) -> tuple[float, ...]:
    try:
        return tuple(np.atleast_1d(np.asarray(values, np.float64)).tolist())
    except (TypeError, ValueError) as error:
        raise ValueError(f"`times` must be numbers; got {values!r}.") from error


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
        gaps = np.abs(np.subtract.outer(np.asarray(self.times), np.asarray(grid_times))).min(axis=1)
        # A time that was typed and a time that was computed may differ by rounding.
        off = [t for t, gap in zip(self.times, gaps, strict=True) if gap > 1e-9 * max(1.0, abs(t))]
        if off:
            raise ValueError(
                f"`times` of `FixedTimes` must be output times of the model; {off} are not. "
                "Add them to the model's `times`."
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
        # In double precision where that is possible: times may be far from zero.
        grid = grid_times if is_traced(grid_times) else np.asarray(grid_times)
        xp, wanted = (np if isinstance(grid, np.ndarray) else jnp), np.array(self.times)
        wanted = xp.asarray(wanted, grid.dtype)
        index = xp.argmin(xp.abs(wanted[:, None] - grid[None, :]), axis=1)
        return jnp.asarray(index), jnp.ones(self.size, bool)


class RandomTimes(AbstractTimes):
    """Distinct output times drawn uniformly, a fresh draw for every experiment.

    Attributes:
        least: The smallest number of times.
        most: The largest number of times; every number from `least` on is equally likely.
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
    ) -> Float[Array, "*batch channel"]:
        """Apply the observable to states.

        Args:
            states: States with any leading axes.
            theta: Physical parameter values with as many leading axes, each as long or 1.

        Returns:
            What the observable makes of each, in the dtype of the states.

        Raises:
            ValueError: If the observable returns another shape than one value per channel.
        """
        assert self.observable is not None
        assert self.channels is not None
        function, shape = self.observable, (len(self.channels),)
        states = jnp.asarray(states)

        def one(y: Array, parameters: Array) -> Array:
            result = jnp.asarray(function(y, parameters), states.dtype)
            if result.shape != shape:
                raise ValueError(
                    "`observable` must return one value for each of its channels "
                    f"{', '.join(self.channels or ())}, shape {shape}; got shape {result.shape}."
                )
            return result

        vectorized = jnp.vectorize(one, signature="(s),(p)->(c)")
        return vectorized(states, jnp.asarray(theta, states.dtype))
