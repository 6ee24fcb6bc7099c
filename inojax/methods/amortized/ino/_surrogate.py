"""First stage of INO: a C-FNO that stands in for the solver, trained on simulations."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from ...._inverse_problem import InverseProblem, measure
from ....nn import MLP, FNOSettings
from ....nn._conditional_fno import ConditionalFNO
from ....nn._response_surface import ResponseSurface
from ....nn._spectral import cosine_basis
from ....train._loop import Loss
from ....train._sharding import shard_batch
from ..._checks import check_counts, check_shares
from .._encoding import Encoder, Readings
from .._masking import mask_readings
from .._training_data import SimulatedData, batch_keys, redraw

# More simulations than these no longer change a response surface, they only cost memory.
_ENOUGH = 16_384


class SurrogateSettings(eqx.Module):
    """How the C-FNO is built and trained.

    Attributes:
        network: Sizes and switches of the network.
        steps: Optimizer steps.
        batch: Simulations per step.
        learning_rate: Peak of the one-cycle schedule.
        surface: Whether a quadratic response surface carries the bulk, its weights corrected
            by a dense network; the C-FNO then adds what lies outside its components.
        correction: Hidden widths of that network.
        spectral_weight: Weight of the spectral regularization, 0 for none: squared error of
            each Fourier mode times the square of its frequency, relative to the highest. It
            penalizes the oscillations that cutting the modes brings about, and only where
            the simulations have none.
        reading_dropout: Share of examples in which the network sees no readings and must
            predict from the parameters alone. A network that always sees readings learns to
            copy them, and then no hypothesis ever contradicts them.

    Example:
        >>> ij.methods.INO(surrogate=ij.methods.SurrogateSettings(steps=2000)).surrogate.steps
        2000
    """

    network: FNOSettings = FNOSettings()
    steps: int = 600
    batch: int = 256
    learning_rate: float = 2e-3
    surface: bool = True
    correction: tuple[int, ...] = (512, 512, 512)
    spectral_weight: float = 0.1
    reading_dropout: float = 0.5

    def __check_init__(self) -> None:
        """Refuse counts below one and shares outside of [0, 1]."""
        check_counts(self, "steps", "batch")
        check_shares(self, "reading_dropout")
        if self.spectral_weight < 0.0:
            raise ValueError(f"`spectral_weight` must not be negative; got {self.spectral_weight}.")


class Surrogate(eqx.Module):
    """Predicts scaled trajectories from unit coordinates, with or without readings.

    Attributes:
        network: The C-FNO.
        surface: Response surface that the network's output is added to, None for none.
        correction: Dense network that corrects the weights of the surface's components.
        remainder: Size of what the network has to learn, at each time and state.
    """

    network: ConditionalFNO
    surface: ResponseSurface | None
    correction: MLP | None
    # NumPy, not JAX: fixed by the data, and training touches JAX arrays only.
    remainder: Float[np.ndarray, "time state"]

    def __call__(
        self,
        problem: InverseProblem,
        encoder: Encoder,
        z: Float[Array, "batch parameter"],
        rows: Float[Array, "batch reading feature"] | None = None,
        seen: Bool[Array, "batch reading"] | None = None,
    ) -> Float[Array, "time batch state"]:
        """Predict whole trajectories.

        Args:
            problem: The inverse problem.
            encoder: Its scales.
            z: Hypothesized parameters, unit coordinates.
            rows: Features of the readings; None to test a hypothesis without looking at them.
            seen: Which readings the network may look at.

        Returns:
            Scaled trajectories, time first.
        """
        parameters = _each(encoder.parameters, problem, z)
        learned = self.network(jnp.asarray(encoder.grid), parameters, rows, seen)
        learned = learned * jnp.asarray(self.remainder)[:, None, :]
        surface = self._surface(problem, encoder, z, parameters)
        return learned if surface is None else learned + surface

    def at_readings(
        self,
        problem: InverseProblem,
        encoder: Encoder,
        z: Float[Array, "batch parameter"],
        readings: Readings,
    ) -> Float[Array, "batch reading channel"]:
        """Predict, without looking at them, the readings of a batch of observations.

        Args:
            problem: The inverse problem.
            encoder: Its scales.
            z: Hypothesized parameters, unit coordinates.
            readings: A batch of observations.

        Returns:
            Scaled predictions of what the sensors read.
        """
        parameters = _each(encoder.parameters, problem, z)
        features = self.network.features(jnp.asarray(encoder.grid), parameters)
        surface = self._surface(problem, encoder, z, parameters)
        low, high, weight = jax.vmap(encoder.neighbors)(readings)
        examples = jnp.arange(z.shape[0])[:, None]

        def at(index: Array) -> Array:
            # The last map runs at the few points that are read, not on the whole grid.
            learned = self.network.project(features[index, examples])
            learned = learned * jnp.asarray(self.remainder)[index]
            return learned if surface is None else learned + surface[index, examples]

        mixed = (1.0 - weight)[..., None] * at(low) + weight[..., None] * at(high)
        return encoder.read(problem, jnp.asarray(problem.parameters.from_unit(z)), mixed, readings)

    def _surface(
        self, problem: InverseProblem, encoder: Encoder, z: Array, parameters: Array
    ) -> Float[Array, "time batch state"] | None:
        if self.surface is None or self.correction is None:
            return None
        correction = self.correction(parameters)
        return self.surface(_each(encoder.smooth, problem, z), correction)


def _each(
    function: Callable[[InverseProblem, Array], Array],
    problem: InverseProblem,
    z: Float[Array, "batch parameter"],
) -> Float[Array, "batch feature"]:
    return jax.vmap(lambda one: function(problem, one))(z)


def new_surrogate(
    problem: InverseProblem,
    encoder: Encoder,
    settings: SurrogateSettings,
    *,
    data: SimulatedData | None = None,
    key: Key[Array, ""],
) -> Surrogate:
    """An untrained surrogate; its response surface, if any, is fitted here.

    Args:
        problem: The inverse problem.
        encoder: Its scales.
        settings: Sizes and switches.
        data: Simulations to fit the surface to; None for a placeholder to load weights into.
        key: Source of the initial weights.

    Returns:
        The surrogate.
    """
    surface, correction, remainder = None, None, encoder.spread.astype(np.float32)
    network_key, correction_key = jr.split(key)
    if settings.surface:
        surface, remainder = _fit_surface(problem, encoder, data)
        sizes = (encoder.parameter_features, *settings.correction, len(surface.error))
        correction = MLP(sizes, key=correction_key)
    network = ConditionalFNO(
        encoder.grid.shape[1],
        encoder.parameter_features,
        encoder.spread.shape[1],
        reading_features=encoder.row_features,
        settings=_fitting(settings.network, encoder.length),
        key=network_key,
    )
    return Surrogate(network, surface, correction, remainder)


def _fitting(settings: FNOSettings, length: int) -> FNOSettings:
    """A grid of few output times has fewer modes than the default."""
    return dataclasses.replace(settings, modes=min(settings.modes, length))


def _fit_surface(
    problem: InverseProblem, encoder: Encoder, data: SimulatedData | None
) -> tuple[ResponseSurface, Float[np.ndarray, "time state"]]:
    blank = np.zeros(encoder.spread.shape, np.float32)
    if data is None:
        empty = np.zeros((1, 1), np.float32)
        return ResponseSurface(empty, blank[None], blank, empty[0]), blank
    featurize = jax.jit(jax.vmap(lambda z: encoder.smooth(problem, z)))
    rescale = eqx.filter_jit(encoder.scale.apply)
    surface = ResponseSurface.fit(
        np.asarray(featurize(data.z[:_ENOUGH])), np.asarray(rescale(data.states[:_ENOUGH]))
    )
    predicted = np.asarray(eqx.filter_jit(surface)(featurize(data.held_z)))
    exact = np.asarray(rescale(data.held_states)).swapaxes(0, 1)
    left = np.sqrt(np.square(predicted - exact).mean(axis=1))
    # Where the surface is exact, a scale of zero would stop the network from learning.
    return surface, np.maximum(left, 1e-4).astype(np.float32)


def surrogate_loss(
    problem: InverseProblem, encoder: Encoder, settings: SurrogateSettings, mask_rate: float
) -> Loss:
    """The training loss of the first stage, in units of the prior's spread at each time.

    Args:
        problem: The inverse problem.
        encoder: Its scales.
        settings: Batch size and weights.
        mask_rate: Share of examples that lose readings.

    Returns:
        A loss for `Trainer.fit`.
    """

    def encode(z: Array, states: Array, observe_key: Array, lose_key: Array) -> tuple[Array, Array]:
        hide_key, thin_key = jr.split(lose_key)
        theta = jnp.asarray(problem.parameters.from_unit(z))
        seen = measure(problem, states, theta, key=observe_key)
        readings, _ = encoder.measured(mask_readings(seen, mask_rate, key=thin_key))
        seen = readings.present & (jr.uniform(hide_key, ()) >= settings.reading_dropout)
        return encoder.rows(readings), seen

    def loss(
        model: Surrogate, carry: None, data: SimulatedData, *, key: Array
    ) -> tuple[Array, None]:
        pick, observe_keys, lose_keys = batch_keys(key, settings.batch)
        index = jr.randint(pick, (settings.batch,), 0, data.z.shape[0])
        z = redraw(problem, data.z[index], key=key)
        z, states, *keys = shard_batch((z, data.states[index], observe_keys, lose_keys))
        rows, seen = jax.vmap(encode)(z, states, *keys)
        gap = _relative_error(encoder, model(problem, encoder, z, rows, seen), states)
        return jnp.mean(jnp.square(gap)) + settings.spectral_weight * roughness(gap), carry

    return loss


def _relative_error(
    encoder: Encoder,
    predicted: Float[Array, "time batch state"],
    states: Float[Array, "batch time state"],
) -> Float[Array, "time batch state"]:
    exact = jnp.swapaxes(jnp.asarray(encoder.scale.apply(states)), 0, 1)
    return (predicted - exact) / jnp.asarray(encoder.spread, jnp.float32)[:, None, :]


def roughness(error: Float[Array, "time batch state"]) -> Float[Array, ""]:
    """Mean square of the Fourier modes, weighted by squared relative frequency.

    Args:
        error: Errors of predicted trajectories, time first.

    Returns:
        The weighted mean, at most the mean square error.
    """
    length = error.shape[0]
    modes = jnp.asarray(cosine_basis(length, length)) @ error.reshape(length, -1)
    frequency = jnp.arange(length, dtype=error.dtype) / length
    return jnp.mean(jnp.square(frequency[:, None] * modes))


def surrogate_error(
    problem: InverseProblem, encoder: Encoder
) -> Callable[[Surrogate, SimulatedData], Array]:
    """Held-out error of the surrogate on its own, without looking at readings.

    Args:
        problem: The inverse problem.
        encoder: Its scales.

    Returns:
        A held-out loss for `Trainer.fit`.
    """

    def error(model: Surrogate, data: SimulatedData) -> Array:
        predicted = model(problem, encoder, data.held_z)
        return jnp.mean(jnp.square(_relative_error(encoder, predicted, data.held_states)))

    return error
