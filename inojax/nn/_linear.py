"""Dense layers along the last axis."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key


class Linear(eqx.Module):
    """A linear map of the last axis, however many axes stand before it.

    All leading axes go through one matrix product. (Equinox's layer takes a single vector;
    under `vmap` it puts the outputs first and leaves transpositions behind, which on a CPU
    cost more than the product.) Outputs start out as large as inputs; with a third of that
    variance, Equinox's choice, a signal all but vanishes through four layers.

    Attributes:
        weight: The matrix.
        bias: Added to every output.
    """

    weight: Float[Array, "inputs outputs"]
    bias: Float[Array, " outputs"]

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        gain: float = 1.0,
        glorot: bool = False,
        fan_out: int | None = None,
        key: Key[Array, ""],
    ) -> None:
        """Draw the weights.

        Args:
            inputs: Number of inputs.
            outputs: Number of outputs.
            gain: Factor on the weights.
            glorot: Whether weights are uniform with the variance 2 / (inputs + fan_out).
            fan_out: How many numbers each input has a part in; more than `outputs` in a
                convolution, whose kernel comes by each input several times.
            key: Source of the weights.
        """
        shape = inputs, outputs
        if glorot:
            end = (6.0 / (inputs + (fan_out or outputs))) ** 0.5
            self.weight = gain * jr.uniform(key, shape, minval=-end, maxval=end)
        else:
            self.weight = gain * jr.normal(key, shape) / inputs**0.5
        self.bias = jnp.zeros(outputs)

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Apply the map.

        Args:
            x: Inputs.

        Returns:
            Outputs.
        """
        out = x @ self.weight
        return out + self.bias.reshape((1,) * (out.ndim - 1) + (-1,))


class MLP(eqx.Module):
    """Dense layers with a sigmoid-weighted linear unit (SiLU) between them.

    Attributes:
        layers: The layers; the last one starts out small.

    Example:
        >>> ij.nn.MLP((3, 8, 2), key=jr.key(0))(jnp.zeros(3)).shape
        (2,)
    """

    layers: tuple[Linear, ...]

    def __init__(self, sizes: tuple[int, ...], *, key: Key[Array, ""]) -> None:
        """Draw the layers.

        Args:
            sizes: Inputs, hidden widths, outputs.
            key: Source of the weights.
        """
        keys = jr.split(key, len(sizes) - 1)
        gains = [1.0] * (len(sizes) - 2) + [0.1]
        self.layers = tuple(
            Linear(n_in, n_out, gain=gain, key=k)
            for n_in, n_out, gain, k in zip(sizes[:-1], sizes[1:], gains, keys, strict=True)
        )

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        """Apply the layers.

        Args:
            x: Inputs.

        Returns:
            Outputs.
        """
        for layer in self.layers[:-1]:
            x = jax.nn.silu(layer(x))
        return self.layers[-1](x)
