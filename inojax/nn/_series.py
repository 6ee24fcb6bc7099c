"""Networks on a whole time series: dense and convolutional."""

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key

from ._linear import Linear

Network = Callable[[Float[Array, "row feature"]], Float[Array, " output"]]


@runtime_checkable
class NetworkBuilder(Protocol):
    """Makes a network for a given shape; `Dense` and `Convolutional` are two, a lambda will do.

    Example:
        >>> isinstance(ij.nn.Dense((8,)), ij.nn.NetworkBuilder)
        True
    """

    def __call__(self, shape: tuple[int, int], outputs: int, /, *, key: Key[Array, ""]) -> Any:
        """Draw a network that takes arrays of this shape and returns so many outputs."""
        ...


class SeriesNetwork(eqx.Module):
    """Strided convolutions, each followed by an average over neighbours, then dense layers.

    A convolution gathers the rows under its kernel and multiplies them by one matrix; on a CPU
    that is several times faster than a general convolution of few channels.

    Attributes:
        convolutions: Matrices of the convolutions; none in a dense network.
        layers: Dense layers; the last one is linear.
        kernel: Rows under a convolution.
        stride: Rows from one place of it to the next.
        pool: Neighbours averaged between two convolutions.

    Example:
        >>> isinstance(ij.nn.Dense((8,))((20, 1), 2, key=jr.key(0)), ij.nn.SeriesNetwork)
        True
    """

    convolutions: tuple[Linear, ...]
    layers: tuple[Linear, ...]
    kernel: int = eqx.field(static=True)
    stride: int = eqx.field(static=True)
    pool: int = eqx.field(static=True)

    def __call__(self, x: Float[Array, "row feature"]) -> Float[Array, " output"]:
        """Evaluate it.

        Args:
            x: Features of each row of a series.

        Returns:
            The outputs.
        """
        for index, convolution in enumerate(self.convolutions):
            x = _averaged(x, self.pool) if index else x
            x = jax.nn.silu(convolution(_gathered(x, self.kernel, self.stride)))
        x = x.reshape(-1)
        for layer in self.layers[:-1]:
            x = jax.nn.silu(layer(x))
        return self.layers[-1](x)


def _check_sizes(name: str, sizes: Any) -> None:
    if not isinstance(sizes, tuple) or not sizes or not all(map(_is_size, sizes)):
        raise ValueError(
            f"`{name}` must be whole numbers, at least 1, such as (64, 64); got {sizes!r}."
        )


def _check_size(name: str, size: Any) -> None:
    if not _is_size(size):
        raise ValueError(f"`{name}` must be a whole number, at least 1; got {size!r}.")


def _is_size(size: Any) -> bool:
    return isinstance(size, int) and size >= 1


class Dense(eqx.Module):
    """Dense layers with SiLU (swish) between them.

    Attributes:
        widths: Units of each hidden layer.
        glorot: Whether weights start out uniform after Glorot and Bengio.

    Example:
        >>> network = ij.nn.Dense((16, 16))((100, 1), 2, key=jr.key(0))
        >>> network(jnp.zeros((100, 1))).shape
        (2,)
    """

    widths: tuple[int, ...] = (256, 256, 256, 256)
    glorot: bool = False

    @classmethod
    def published(cls) -> "Dense":
        """Eight layers of 32 units: 39,490 parameters on 1,000 readings with two outputs.

        The source's slides give this size where they compare times, and four layers of 32 units
        where they state accuracies of dense networks: `Dense((32,) * 4, glorot=True)`.

        Returns:
            The settings.

        Source:
            Rudi, Bessac and Lenzi, arXiv 2012.06691.
        """
        return cls((32,) * 8, glorot=True)

    def __check_init__(self) -> None:
        """Refuse layers without units."""
        _check_sizes("widths", self.widths)

    def __call__(
        self, shape: tuple[int, int], outputs: int, *, key: Key[Array, ""]
    ) -> SeriesNetwork:
        """Draw a network.

        Args:
            shape: Rows and features of its inputs.
            outputs: Number of outputs.
            key: Source of the weights.

        Returns:
            The network.
        """
        layers = _dense((math.prod(shape), *self.widths, outputs), self.glorot, key)
        return SeriesNetwork((), layers, kernel=1, stride=1, pool=1)


class Convolutional(eqx.Module):
    """Strided convolutions with averages between them, then dense layers.

    By default two with wide kernels and large strides, which take a long series apart with little
    work, and dense layers that still know where in the series something happens.

    Attributes:
        filters: Channels after each convolution.
        kernel: Rows under a convolution.
        stride: Rows from one place of it to the next.
        pool: Neighbours averaged between two convolutions.
        widths: Units of each hidden dense layer.
        glorot: Whether weights start out uniform after Glorot and Bengio.

    Example:
        >>> network = ij.nn.Convolutional()((100, 1), 2, key=jr.key(0))
        >>> network(jnp.zeros((100, 1))).shape
        (2,)
    """

    filters: tuple[int, ...] = (16, 32)
    kernel: int = 9
    stride: int = 4
    pool: int = 1
    widths: tuple[int, ...] = (256, 256, 256)
    glorot: bool = False

    @classmethod
    def published(cls) -> "Convolutional":
        """Filters 8, 16, 32: 33,874 parameters on 1,000 readings with two outputs.

        Returns:
            The settings.

        Source:
            Rudi, Bessac and Lenzi, arXiv 2012.06691, and its released code.
        """
        return cls((8, 16, 32), kernel=3, stride=2, pool=2, widths=(32, 32), glorot=True)

    def __check_init__(self) -> None:
        """Refuse sizes below one."""
        for name in ("filters", "widths"):
            _check_sizes(name, getattr(self, name))
        for name in ("kernel", "stride", "pool"):
            _check_size(name, getattr(self, name))

    def __call__(
        self, shape: tuple[int, int], outputs: int, *, key: Key[Array, ""]
    ) -> SeriesNetwork:
        """Draw a network.

        Args:
            shape: Rows and features of its inputs.
            outputs: Number of outputs.
            key: Source of the weights.

        Returns:
            The network.

        Raises:
            ValueError: If the series is too short for the convolutions.
        """
        rows, features = shape
        convolution_key, dense_key = jr.split(key)
        convolutions = []
        keys = jr.split(convolution_key, len(self.filters))
        for index, (filters, one) in enumerate(zip(self.filters, keys, strict=True)):
            rows = (rows // self.pool if index else rows) - self.kernel
            if rows < 0:
                raise ValueError(
                    f"A series of {shape[0]} rows is too short for {len(self.filters)} `filters` "
                    f"of `kernel` {self.kernel} with `stride` {self.stride} and `pool` {self.pool}."
                )
            rows = rows // self.stride + 1
            convolutions.append(
                Linear(
                    self.kernel * features,
                    filters,
                    glorot=self.glorot,
                    fan_out=self.kernel * filters,
                    key=one,
                )
            )
            features = filters
        sizes = rows * features, *self.widths, outputs
        layers = _dense(sizes, self.glorot, dense_key)
        settings = {"kernel": self.kernel, "stride": self.stride, "pool": self.pool}
        return SeriesNetwork(tuple(convolutions), layers, **settings)


class ByLength(eqx.Module):
    """One network for long series, another one for short ones, which convolutions do not fit.

    Attributes:
        long: For series of `rows` or more.
        short: For shorter ones.
        rows: Where a series begins to be long.

    Example:
        >>> build = ij.nn.ByLength(short=ij.nn.Dense((8,)), rows=64)
        >>> build((20, 1), 2, key=jr.key(0))(jnp.zeros((20, 1))).shape
        (2,)
    """

    long: NetworkBuilder = Convolutional()
    short: NetworkBuilder = Dense()
    rows: int = 64

    def __check_init__(self) -> None:
        """Refuse a length below one."""
        _check_size("rows", self.rows)

    def __call__(self, shape: tuple[int, int], outputs: int, *, key: Key[Array, ""]) -> Any:
        """Draw the network that suits the length.

        Args:
            shape: Rows and features of its inputs.
            outputs: Number of outputs.
            key: Source of the weights.

        Returns:
            The network.
        """
        return (self.long if shape[0] >= self.rows else self.short)(shape, outputs, key=key)


def _dense(sizes: tuple[int, ...], glorot: bool, key: Key[Array, ""]) -> tuple[Linear, ...]:
    keys = jr.split(key, len(sizes) - 1)
    # Outputs near zero to begin with, but for weights as published.
    gains = [1.0] * (len(sizes) - 2) + [1.0 if glorot else 0.1]
    return tuple(
        Linear(n_in, n_out, gain=gain, glorot=glorot, key=k)
        for n_in, n_out, gain, k in zip(sizes[:-1], sizes[1:], gains, keys, strict=True)
    )


def _gathered(x: Array, kernel: int, stride: int) -> Array:
    """The rows under each place of a kernel, side by side."""
    places = (x.shape[0] - kernel) // stride + 1
    last = stride * (places - 1) + 1
    return jnp.concatenate([x[i : i + last : stride] for i in range(kernel)], axis=-1)


def _averaged(x: Array, pool: int) -> Array:
    if pool == 1:
        return x
    groups = x.shape[0] // pool
    return jnp.mean(x[: groups * pool].reshape(groups, pool, -1), axis=1)
