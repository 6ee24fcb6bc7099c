"""The conditional Fourier neural operator (C-FNO): parameters and readings to trajectories."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Bool, Float, Key

from ._attention import ReadingAttention
from ._linear import MLP, Linear
from ._spectral import SpectralConv


class FourierBlock(eqx.Module):
    """Spectral plus pointwise map, modulated by parameters, with a residual connection.

    Attributes:
        spectral: The map across time.
        pointwise: The map across channels.
    """

    spectral: SpectralConv
    pointwise: Linear

    def __init__(self, width: int, modes: int, *, key: Key[Array, ""]) -> None:
        """Draw the weights.

        Args:
            width: Channels.
            modes: Fourier modes kept.
            key: Source of the initial weights.
        """
        spectral_key, pointwise_key = jr.split(key)
        self.spectral = SpectralConv(width, modes, key=spectral_key)
        self.pointwise = Linear(width, width, key=pointwise_key)

    def __call__(
        self,
        x: Float[Array, "time batch width"],
        scale: Float[Array, "batch width"],
        shift: Float[Array, "batch width"],
    ) -> Float[Array, "time batch width"]:
        """Apply the block: x + σ((1 + scale) · (spectral(x) + pointwise(x)) + shift).

        Args:
            x: Features on the grid.
            scale: FiLM scale of each channel, 0 for none.
            shift: FiLM shift of each channel, 0 for none.

        Returns:
            Features on the grid.
        """
        mixed = self.spectral(x) + self.pointwise(x)
        return x + jax.nn.silu(mixed * (1.0 + scale)[None] + shift[None])


class FNOSettings(eqx.Module):
    """Sizes and switches of a `ConditionalFNO`.

    Attributes:
        width: Channels of the features.
        modes: Fourier modes kept.
        blocks: Number of Fourier blocks.
        hidden: Width of the network that turns parameters into modulations.
        heads: Attention heads.
        film: FiLM modulation by the parameters; switched off, they are appended to the input.
        attention: Cross-attention to the readings.

    Example:
        >>> small = ij.methods.SurrogateSettings(network=ij.nn.FNOSettings(width=16, modes=8))
        >>> ij.methods.INO(surrogate=small).surrogate.network.width
        16
    """

    width: int = 16
    modes: int = 16
    blocks: int = 2
    hidden: int = 256
    heads: int = 4
    film: bool = True
    attention: bool = True

    def __check_init__(self) -> None:
        """Refuse counts below one."""
        for name in ("width", "modes", "blocks", "hidden", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1; got {getattr(self, name)}.")


class ConditionalFNO(eqx.Module):
    """Fourier neural operator on the time grid, conditioned on parameters and readings.

    The parameters modulate every block by FiLM, readings are attended to after the first
    block; either can be switched off for ablations.

    Attributes:
        lift: Map of the time features to the width.
        conditioner: Layers from the parameter features to all modulations; None without FiLM.
        blocks: Fourier blocks.
        attention: Cross-attention to the readings, None to switch it off.
        hidden: First half of the pointwise map to the channels.
        projection: Second half.

    Source:
        arXiv 2603.11854 (C-FNO); Perez et al. (arXiv 1709.07871) for FiLM.
    """

    lift: Linear
    conditioner: MLP | None
    blocks: tuple[FourierBlock, ...]
    attention: ReadingAttention | None
    hidden: Linear
    projection: Linear

    def __init__(
        self,
        grid_features: int,
        parameters: int,
        channels: int,
        *,
        reading_features: int,
        settings: FNOSettings,
        key: Key[Array, ""],
    ) -> None:
        """Draw the weights.

        Args:
            grid_features: Features of a grid point.
            parameters: Features of a parameter vector.
            channels: Channels of a trajectory.
            reading_features: Features of a reading.
            settings: Sizes and switches.
            key: Source of the initial weights.
        """
        width, lift_in = settings.width, grid_features
        keys = jr.split(key, 6)
        modulations = 2 * width * settings.blocks
        self.conditioner = None
        if settings.film:
            sizes = (parameters, settings.hidden, settings.hidden, modulations)
            self.conditioner = MLP(sizes, key=keys[0])
        else:
            lift_in += parameters
        self.lift = Linear(lift_in, width, key=keys[1])
        self.blocks = tuple(
            FourierBlock(width, settings.modes, key=k) for k in jr.split(keys[2], settings.blocks)
        )
        self.attention = (
            ReadingAttention(width, reading_features, settings.heads, key=keys[3])
            if settings.attention
            else None
        )
        self.hidden = Linear(width, 2 * width, key=keys[4])
        self.projection = Linear(2 * width, channels, gain=0.3, key=keys[5])

    def __call__(
        self,
        grid: Float[Array, "time grid_feature"],
        parameters: Float[Array, "batch parameter_feature"],
        rows: Float[Array, "batch reading feature"] | None = None,
        present: Bool[Array, "batch reading"] | None = None,
    ) -> Float[Array, "time batch channel"]:
        """Predict trajectories.

        Args:
            grid: Features of the grid points.
            parameters: Features of the parameters.
            rows: Features of the readings; None to predict from the parameters alone.
            present: Which readings are real.

        Returns:
            The trajectories, time first.
        """
        return self.project(self.features(grid, parameters, rows, present))

    def features(
        self,
        grid: Float[Array, "time grid_feature"],
        parameters: Float[Array, "batch parameter_feature"],
        rows: Float[Array, "batch reading feature"] | None = None,
        present: Bool[Array, "batch reading"] | None = None,
    ) -> Float[Array, "time batch width"]:
        """Everything but the last pointwise map, see `project`.

        Args:
            grid: Features of the grid points.
            parameters: Features of the parameters.
            rows: Features of the readings; None to predict from the parameters alone.
            present: Which readings are real.

        Returns:
            Features on the grid.
        """
        x, modulations = self._enter(grid, parameters)
        for number, (block, (scale, shift)) in enumerate(
            zip(self.blocks, modulations, strict=True)
        ):
            x = block(x, scale, shift)
            if number == 0 and self.attention is not None:
                x = x + self.attention(x, rows, present)
        return x

    def project(self, x: Float[Array, "*point width"]) -> Float[Array, "*point channel"]:
        """The last pointwise map; apart, so that it can be applied to some grid points only.

        Args:
            x: Features.

        Returns:
            Channels at the same points.
        """
        return self.projection(jax.nn.silu(self.hidden(x)))

    def _enter(
        self,
        grid: Float[Array, "time grid_feature"],
        parameters: Float[Array, "batch parameter_feature"],
    ) -> tuple[Float[Array, "time batch width"], list[tuple[Array, Array]]]:
        width, batch = self.hidden.weight.shape[0], parameters.shape[0]
        if self.conditioner is None:
            none = jnp.zeros((batch, width))
            both = jnp.concatenate(
                [
                    jnp.broadcast_to(grid[:, None, :], (grid.shape[0], batch, grid.shape[1])),
                    jnp.broadcast_to(parameters[None], (grid.shape[0], *parameters.shape)),
                ],
                axis=2,
            )
            return self.lift(both), [(none, none)] * len(self.blocks)
        films = self.conditioner(parameters)
        films = films.reshape(batch, len(self.blocks), 2, width)
        x = self.lift(grid)[:, None, :]
        x = jnp.broadcast_to(x, (grid.shape[0], batch, width))
        return x, [(films[:, n, 0], films[:, n, 1]) for n in range(len(self.blocks))]
