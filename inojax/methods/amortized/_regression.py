"""Regression: a dense network from readings straight to parameters."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Key

from ..._estimate import Estimate
from ..._inverse_problem import InverseProblem, measure
from ...nn._conditional_mlp import ConditionalMLP
from ...nn._truncated_normal import UnitNormal
from ...train import TrainLog
from ...train._loop import Loss
from ...train._sharding import shard_batch
from .._checks import check_counts, check_shares
from .._estimates import estimate_from_cloud
from ._encoding import Encoder, Readings
from ._familiar import Familiar
from ._inverter import AbstractAmortizedInverter
from ._masking import mask_readings
from ._method import AbstractAmortizedMethod, TrainingSession
from ._slots import Arranged, Slots
from ._training_data import SimulatedData, batch_keys, redraw


class Regression(AbstractAmortizedMethod["RegressionInverter"]):
    """Dense network on masked readings, trained by least squares on simulations.

    The plainest amortized method, and the baseline that any other should beat at the same
    cost. It sees what INO sees, but neither a surrogate nor its residual.

    Attributes:
        width: Units of each dense layer.
        depth: Dense layers.
        steps: Optimizer steps.
        batch: Simulations per step.
        learning_rate: Peak of the one-cycle schedule.
        mask_rate: Share of training observations that lose readings.
        draws: Draws from the predicted spread.

    Example:
        >>> problem = ij.problems.robertson()
        >>> dataset = ij.simulate(problem, 64, key=jr.key(0), progress=False)

        >>> inverter = ij.methods.Regression(steps=10).fit(
        ...     problem, dataset, key=jr.key(1), progress=False
        ... )
        >>> observation = problem.simulate(dataset.thetas[0], key=jr.key(2))
        >>> inverter(observation, key=jr.key(3)).value.shape
        (3,)
    """

    width: int = 512
    depth: int = 4
    steps: int = 6000
    batch: int = 512
    learning_rate: float = 1e-3
    mask_rate: float = 0.1
    draws: int = 128

    def __check_init__(self) -> None:
        """Refuse counts below one and shares outside of [0, 1]."""
        check_counts(self, "width", "depth", "steps", "batch", "draws")
        check_shares(self, "mask_rate")

    def _train(self, session: TrainingSession, *, key: Key[Array, ""]) -> "RegressionInverter":
        problem, encoder = session.problem, session.encoder
        init_key, train_key = jr.split(key)
        trained = session.trainer("regression", self, depends_on=self).fit(
            self._network(problem, encoder, init_key),
            self._loss(problem, encoder),
            session.data,
            held_out=self._held_out(problem, encoder),
            key=train_key,
        )
        familiar = Familiar.fit(problem, encoder.slots, mask_rate=self.mask_rate)
        return RegressionInverter(
            problem=problem,
            method=self,
            encoder=encoder,
            familiar=familiar,
            network=trained.model,
            logs=(trained.log,),
        )

    def _untrained(self, problem: InverseProblem, encoder: Encoder) -> "RegressionInverter":
        network = self._network(problem, encoder, jr.key(0))
        return RegressionInverter(
            problem=problem,
            method=self,
            encoder=encoder,
            familiar=Familiar.blank(encoder.slots),
            network=network,
        )

    def _network(
        self, problem: InverseProblem, encoder: Encoder, key: Key[Array, ""]
    ) -> ConditionalMLP:
        size = problem.parameters.size
        return ConditionalMLP(
            encoder.slots.count,
            encoder.row_features,
            0,
            (size, 2 * size),
            width=self.width,
            depth=self.depth,
            key=key,
        )

    def _loss(self, problem: InverseProblem, encoder: Encoder) -> Loss:
        def example(
            model: ConditionalMLP, z: Array, states: Array, observe_key: Array, lose_key: Array
        ) -> Array:
            theta = jnp.asarray(problem.parameters.from_unit(z))
            seen = measure(problem, states, theta, key=observe_key)
            readings, _ = encoder.measured(mask_readings(seen, self.mask_rate, key=lose_key))
            return _example_loss(model, encoder, readings, z)

        def loss(
            model: ConditionalMLP, carry: None, data: SimulatedData, *, key: Array
        ) -> tuple[Array, None]:
            pick, observe_keys, lose_keys = batch_keys(key, self.batch)
            index = jr.randint(pick, (self.batch,), 0, data.z.shape[0])
            z = redraw(problem, data.z[index], key=key)
            batch = shard_batch((z, data.states[index], observe_keys, lose_keys))
            return jnp.mean(jax.vmap(lambda *args: example(model, *args))(*batch)), carry

        return loss

    def _held_out(
        self, problem: InverseProblem, encoder: Encoder
    ) -> Callable[[ConditionalMLP, SimulatedData], Array]:
        def held_out(model: ConditionalMLP, data: SimulatedData) -> Array:
            def example(z: Array, states: Array, key: Array) -> Array:
                theta = jnp.asarray(problem.parameters.from_unit(z))
                readings, _ = encoder.measured(measure(problem, states, theta, key=key))
                return jnp.mean(jnp.square(predict(model, encoder, readings)[0] - z))

            # The same readings after each chunk, so that losses can be compared.
            keys = jr.split(jr.key(0), data.held_z.shape[0])
            return jnp.mean(jax.vmap(example)(data.held_z, data.held_states, keys))

        return held_out


class RegressionInverter(AbstractAmortizedInverter):
    """A trained regression, from `Regression.fit`.

    Attributes:
        problem: The problem it inverts.
        method: Its settings.
        encoder: Scales and features.
        familiar: Which readings are missing in training.
        network: The dense network.
        logs: Log of the training, empty after loading.
    """

    problem: InverseProblem
    method: Regression = eqx.field(static=True)
    encoder: Encoder
    familiar: Familiar
    network: ConditionalMLP
    logs: tuple[TrainLog, ...] = ()

    @property
    def _slots(self) -> Slots:
        return self.encoder.slots

    def _inputs(self, arranged: Arranged) -> Readings:
        return self.encoder.arranged(arranged)

    def _infer(self, inputs: Readings, keys: Key[Array, " batch"]) -> Estimate:
        return jax.vmap(self._infer_one)(inputs, keys)

    def _infer_one(self, groups: Readings, key: Key[Array, ""]) -> Estimate:
        values, outputs = jax.vmap(lambda r: predict(self.network, self.encoder, r))(groups)
        spread = UnitNormal.around(values, outputs)
        known = jnp.any(groups.mask, axis=(1, 2))[:, None]
        value, spread = spread.product(values, known)
        cloud = jax.vmap(lambda k: spread.sample(key=k))(jr.split(key, self.method.draws))
        return estimate_from_cloud(self.problem, value, cloud)


def predict(
    network: ConditionalMLP, encoder: Encoder, readings: Readings
) -> tuple[Float[Array, " parameter"], Float[Array, " two_parameter"]]:
    """Evaluate the network on one observation.

    Args:
        network: The dense network.
        encoder: Scales and features.
        readings: Scaled readings.

    Returns:
        Unit coordinates, and raw outputs for `UnitNormal.around`.
    """
    raw, outputs = network(encoder.rows(readings), readings.present, jnp.zeros(0, jnp.float32))
    return jax.nn.sigmoid(raw), outputs


def _example_loss(
    model: ConditionalMLP, encoder: Encoder, readings: Readings, z: Float[Array, " parameter"]
) -> Float[Array, ""]:
    value, outputs = predict(model, encoder, readings)
    spread = UnitNormal.around(value, outputs)
    return jnp.mean(jnp.square(value - z)) - 0.01 * jnp.mean(spread.log_prob(z))
