"""Inverse maps: one network pass from a time series to parameters and their covariance."""

import dataclasses
import enum
import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Key

from ...._estimate import Estimate
from ...._inverse_problem import InverseProblem, measure
from ...._observation import Observation
from ...._parameters import UNIT_PRECISION
from ...._x64 import is_traced
from ....nn import NetworkBuilder
from ....nn._normal import Normal
from ....nn._series import ByLength
from ....noise import Gaussian
from ....train import TrainLog
from ....train._loop import Loss
from ....train._sharding import shard_batch
from ..._checks import (
    check_choices,
    check_counts,
    check_positive,
    check_shares,
)
from ..._estimates import estimate_from_cloud, estimate_from_point
from ..._inverter import check_batch, check_readings
from .._encoding import Encoder
from .._familiar import Familiar
from .._inverter import AbstractAmortizedInverter
from .._masking import mask_readings
from .._method import AbstractAmortizedMethod, TrainingSession
from .._slots import Arranged, Slots
from .._training_data import batch_keys, redraw
from ._examples import Epoch, Examples, MapData
from ._fingerprint import digest_network, fingerprint
from ._laplace_targets import with_targets
from ._online import Simulator, online_simulator
from ._series import Inputs, Labels, SeriesEncoder, measure_series


class Spread(enum.Enum):
    """What a network says besides a point.

    `NONE` is nothing, as published for parameters alone; `LIKELIHOOD` a normal distribution
    with full covariance, trained by the likelihood of the true parameters, which makes it as wide
    as its errors are; `LAPLACE` the covariance of the Laplace approximation at the true
    parameters, which is learned as a second answer. It leaves the network's own errors out, so its
    intervals are too narrow by as much as these count.

    Example:
        >>> ij.methods.InverseMap(spread=ij.methods.Spread.NONE).spread.value
        'none'
    """

    NONE = "none"
    LIKELIHOOD = "likelihood"
    LAPLACE = "laplace"


class InverseMap(AbstractAmortizedMethod["InverseMapInverter"]):
    """Network from a whole time series to parameters, and to their covariance.

    Use it where series are complete or nearly so and always read at the same times; one pass
    under `jax.jit` inverts in well under a millisecond (a plain call also solves the model, to say
    how well the estimate fits). The default is stronger than the published networks:
    noise is drawn anew in each step, unknown levels of it as well unless a Laplace covariance
    belongs to them, readings are standardized, and the covariance comes with the answer.
    `published()` has the settings of the source.

    Attributes:
        network: Makes the network: `nn.Dense`, `nn.Convolutional`, by default one of them
            `nn.ByLength`, or any function of input shape, number of outputs and key that returns
            an Equinox module (`nn.FlaxNetwork` for one written with Flax).
        inputs: What of a series it sees.
        spread: What it says besides a point.
        labels: In which coordinates it predicts.
        scaled: Whether series are standardized.
        steps: Optimizer steps.
        batch: Simulations per step.
        learning_rate: Peak of the one-cycle schedule, or the constant one.
        constant_rate: Whether the learning rate stays constant, in plain Adam.
        fixed_noise: Whether each simulation is measured once, so that the network sees the same
            noise again.
        clean: Whether it is trained on series without noise, to see what that costs. A Laplace
            covariance is still that of the problem's noise.
        online: New simulations in each step, inside the training loop; they replace the oldest of
            the data set. For models that are not stiff.
        mask_rate: Share of training series that lose readings, at random, in a block or all but
            every n-th; then gaps are allowed.
        select: Whether a tenth of the simulations, at most 512, is held out and chooses among the
            weights of twenty moments; else all train, and the last weights are kept.
        draws: Samples of an estimate.

    Source:
        Rudi, Bessac and Lenzi, arXiv 2012.06691.

    Example:
        >>> problem = ij.problems.lotka_volterra()
        >>> dataset = ij.simulate(problem, 64, key=jr.key(0), progress=False)
        >>> method = ij.methods.InverseMap(network=ij.nn.Dense((8,)), steps=4)
        >>> inverter = method.fit(problem, dataset, key=jr.key(1), progress=False)

        >>> inverter(ij.problems.lynx_hare(), key=jr.key(3)).value.shape
        (6,)
    """

    _scales: ClassVar[bool] = False

    network: NetworkBuilder = ByLength()
    inputs: Inputs = Inputs.SERIES
    spread: Spread = Spread.LIKELIHOOD
    labels: Labels = Labels.UNIT
    scaled: bool = True
    steps: int = 6000
    batch: int = 128
    learning_rate: float = 1e-3
    constant_rate: bool = False
    fixed_noise: bool = False
    clean: bool = False
    online: int = 0
    mask_rate: float = 0.0
    select: bool = True
    draws: int = 128

    def __check_init__(self) -> None:
        """Refuse counts below one, shares outside of [0, 1], and what excludes each other."""
        check_counts(self, "steps", "batch", "draws")
        check_shares(self, "mask_rate")
        check_choices(self, inputs=Inputs, spread=Spread, labels=Labels)
        check_positive(self, "learning_rate")
        if self.online < 0:
            raise ValueError(f"`online` must be zero or more; got {self.online}.")
        if self.online and (self.fixed_noise or self.spread is Spread.LAPLACE):
            raise ValueError(
                "`online` simulations have neither `fixed_noise` nor a Laplace covariance to learn "
                "from; use `online=0`, or `Spread.LIKELIHOOD` and noise that is drawn anew."
            )
        if self.mask_rate and self.spread is Spread.LAPLACE:
            raise ValueError(
                "Series that lose readings have no one Laplace covariance to learn; use "
                "`mask_rate=0.0`, or `Spread.LIKELIHOOD`, which is wider where readings are lost."
            )

    @property
    def _holds_out(self) -> bool:
        return self.select

    @classmethod
    def published(
        cls, network: NetworkBuilder, *, simulations: int, epochs: int = 200
    ) -> "InverseMap":
        """The published training: a fixed noisy data set, plain Adam, squared error.

        Args:
            network: `nn.Dense.published()` or `nn.Convolutional.published()`.
            simulations: Size of the data set, all of which is trained on.
            epochs: How often each simulation is seen, on average.

        Returns:
            The settings.

        Raises:
            ValueError: If a count is below one.
        """
        for name, count in (("simulations", simulations), ("epochs", epochs)):
            if count < 1:
                raise ValueError(f"`{name}` must be at least 1; got {count}.")
        return cls(
            network=network,
            spread=Spread.NONE,
            labels=Labels.RANGE,
            scaled=False,
            steps=max(1, epochs * simulations // 32),
            batch=32,
            learning_rate=2e-3,
            constant_rate=True,
            fixed_noise=True,
            select=False,
        )

    def _train(self, session: TrainingSession, *, key: Key[Array, ""]) -> "InverseMapInverter":
        problem, data = session.problem, session.data
        if self.spread is Spread.LAPLACE and problem.sensors.missing > 0.0:
            raise ValueError(
                "`spread=Spread.LAPLACE` learns one covariance for each simulation, but the "
                f"sensors of {problem.name!r} lose readings. Use `Spread.LIKELIHOOD`."
            )
        if self.online > len(data.z):
            raise ValueError(
                f"`online` simulations replace those of the data set, of which {len(data.z)} are "
                f"for training; got {self.online}. Lower `online`, or simulate more."
            )
        scale_key, noise_key, target_key, init_key, train_key = jr.split(key, 5)
        measured = self._measured(problem)
        encoder = self._encoder(problem).fitted(measured, data, scaled=self.scaled, key=scale_key)
        train, held = Examples(data.z, data.states), Examples(data.held_z, data.held_states)
        if self.spread is Spread.LAPLACE:
            encoder, train, held = with_targets(problem, encoder, train, held, key=target_key)
        examples = self._with_inputs(measured, encoder, train, held, noise_key)
        simulate, carry = None, None
        if self.fixed_noise:
            carry = Epoch.first(len(train.z))
        if self.online:
            simulate = online_simulator(problem, self.online)
            # The pool is what the loss carries.
            carry = jnp.asarray(0), data.z, data.states
            examples = examples._replace(train=Examples(data.z[:0], data.states[:0]))
        network = self._network(problem, encoder, init_key)
        x = jax.ShapeDtypeStruct(encoder.shape, jnp.float32)
        trainer = session.trainer(
            "inverse_map", self, depends_on=(self, digest_network(network, x))
        )
        if self.constant_rate:
            trainer = dataclasses.replace(trainer, optimizer=optax.adam(self.learning_rate))
        trained = trainer.fit(
            network,
            self._loss(measured, simulate),
            examples,
            carry=carry,
            held_out=self._held_out(problem) if self.select else None,
            key=train_key,
        )
        familiar = Familiar.fit(problem, encoder.slots, mask_rate=self.mask_rate, patterns=True)
        return self._inverter(problem, encoder, familiar, trained.model, (trained.log,))

    def _untrained(self, problem: InverseProblem, encoder: Encoder) -> "InverseMapInverter":
        del encoder
        blank = self._encoder(problem)
        network = self._network(problem, blank, jr.key(0))
        return self._inverter(problem, blank, Familiar.blank(blank.slots), network)

    def _inverter(
        self,
        problem: InverseProblem,
        encoder: SeriesEncoder,
        familiar: Familiar,
        network: Any,
        logs: tuple[TrainLog, ...] = (),
    ) -> "InverseMapInverter":
        probe = fingerprint(network, encoder.shape)
        return InverseMapInverter(
            problem=problem,
            method=self,
            encoder=encoder,
            familiar=familiar,
            network=network,
            probe=probe,
            logs=logs,
        )

    def _encoder(self, problem: InverseProblem) -> SeriesEncoder:
        masked = self.mask_rate > 0.0 or problem.sensors.missing > 0.0
        return SeriesEncoder.blank(problem, self.inputs, self.labels, masked=masked)

    def _network(self, problem: InverseProblem, encoder: SeriesEncoder, key: Array) -> Any:
        size = problem.parameters.size
        outputs = size if self.spread is Spread.NONE else size + Normal.size(size)
        try:
            inspect.signature(self.network).bind(encoder.shape, outputs, key=key)
        except TypeError as error:
            raise TypeError(
                "`network` must make networks, not be one: a function of input shape and number "
                "of outputs with keyword `key`, such as `nn.Dense()` or "
                f"`lambda shape, outputs, *, key: ...`. {error}"
            ) from error
        network = self.network(encoder.shape, outputs, key=key)
        x = jax.ShapeDtypeStruct(encoder.shape, jnp.float32)
        try:
            found = getattr(eqx.filter_eval_shape(network, x), "shape", None)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`network` must take an array of shape {encoder.shape}, the features of each row "
                f"of a series: {error}"
            ) from error
        if found != (outputs,):
            raise ValueError(
                f"`network` must return {outputs} outputs for inputs of shape {encoder.shape}; "
                f"what it returned has shape {found}."
            )
        return network

    def _measured(self, problem: InverseProblem) -> InverseProblem:
        """The problem whose readings are trained on."""
        if not self.clean:
            return problem
        return InverseProblem(
            problem.name, problem.parameters, problem.model, problem.sensors, Gaussian(0.0)
        )

    def _with_inputs(
        self,
        measured: InverseProblem,
        encoder: SeriesEncoder,
        train: Examples,
        held: Examples,
        key: Array,
    ) -> MapData:
        """Measure held-out simulations once, and the others, too, where their noise is fixed."""
        train_key, held_key = jr.split(key)

        def inputs(part: Examples, key: Array) -> Examples:
            series = measure_series(
                measured, part.z, part.states, mask_rate=self.mask_rate, key=key
            )
            return part._replace(inputs=encoder.encode_all(*series))

        train = inputs(train, train_key) if self.fixed_noise else train
        held = inputs(held, held_key) if self.select else held
        return MapData(train, held, encoder)

    def _example(
        self, measured: InverseProblem, encoder: SeriesEncoder
    ) -> Callable[[Array, Array, Array, Array], Array]:
        def example(z: Array, states: Array, observe_key: Array, lose_key: Array) -> Array:
            theta = jnp.asarray(measured.parameters.from_unit(z))
            seen = measure(measured, states, theta, key=observe_key)
            seen = mask_readings(seen, self.mask_rate, patterns=True, key=lose_key)
            return encoder(seen.values, seen.mask)

        return example

    def _error(self, problem: InverseProblem, encoder: SeriesEncoder) -> Callable[..., Array]:
        def error(model: Any, x: Array, z: Array, numbers: Array | None) -> Array:
            wanted = encoder.to_labels(problem, z)
            labels, normal = predict(model, encoder, x, self.spread)
            if self.spread is Spread.LIKELIHOOD:
                return -normal.log_prob(wanted) / len(wanted)
            squares = jnp.mean(jnp.square(labels - wanted))
            if numbers is None:
                return squares
            raw = (model(x)[len(wanted) :] * encoder.number_spread) + encoder.number_center
            gap = (raw - numbers) / encoder.number_spread
            # Both terms begin near one.
            return UNIT_PRECISION * squares + jnp.mean(jnp.square(gap))

        return error

    def _loss(self, problem: InverseProblem, simulate: Simulator | None) -> Loss:
        def loss(model: Any, carry: Any, data: MapData, *, key: Array) -> tuple[Array, Any]:
            example = self._example(problem, data.encoder)
            pool = data.train
            if simulate is not None:
                simulate_key, key = jr.split(key)
                carry = simulate(carry, simulate_key)
                pool = pool._replace(z=carry[1], states=carry[2])
            pick, observe_keys, lose_keys = batch_keys(key, self.batch)
            if self.fixed_noise:
                index, carry = carry.draw(self.batch, key=pick)
            else:
                index = jr.randint(pick, (self.batch,), 0, pool.z.shape[0])
            batch = jax.tree.map(lambda x: x[index], pool)
            if batch.inputs is None and batch.numbers is None:
                batch = batch._replace(z=redraw(problem, batch.z, key=key))
            batch = shard_batch(batch)
            x = batch.inputs
            if x is None:
                x = jax.vmap(example)(batch.z, batch.states, observe_keys, lose_keys)
            error = self._error(problem, data.encoder)
            return jnp.mean(_errors(error, model, x, batch)), carry

        return loss

    def _held_out(self, problem: InverseProblem) -> Callable[[Any, MapData], Array]:
        def held_out(model: Any, data: MapData) -> Array:
            assert data.held.inputs is not None
            error = self._error(problem, data.encoder)
            return jnp.mean(_errors(error, model, data.held.inputs, data.held))

        return held_out


class InverseMapInverter(AbstractAmortizedInverter):
    """A trained inverse map, from `InverseMap.fit`.

    It takes series read at the times it was trained for, in any order. On the host others are
    refused, with the time that does not fit; inside a transformation only those that are too short
    can be, and the estimate of a series that does not fit is NaN.

    Attributes:
        problem: The problem it inverts.
        method: Its settings.
        encoder: Scales of series and unknowns.
        familiar: Which readings are missing in training.
        network: From a series to numbers.
        probe: What it says about a certain series; a network that says something else on loading
            is another one.
        logs: Log of the training, empty after loading.

    Example:
        >>> # what `InverseMap().fit(problem, dataset, key=key)` gives
        >>> issubclass(ij.methods.InverseMapInverter, ij.methods.AbstractInverter)
        True
    """

    problem: InverseProblem
    method: InverseMap = eqx.field(static=True)
    encoder: SeriesEncoder
    familiar: Familiar
    network: Any
    probe: Float[np.ndarray, " output"]
    logs: tuple[TrainLog, ...] = ()

    def _check_loaded(self) -> None:
        found = fingerprint(self.network, self.encoder.shape)
        # Another version of the compiler may round otherwise.
        if not np.allclose(found, self.probe, rtol=1e-2, atol=1e-3 * np.abs(self.probe).max()):
            raise ValueError(
                "`network` does not compute what the stored one did: its arrays have the same "
                "shapes, but its code is another. Load with the `network` it was trained with."
            )

    @property
    def _slots(self) -> Slots:
        return self.encoder.slots

    def _invert(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        rows, expected = observations.mask.shape[1], self.encoder.slots.count
        # On the host `check_complete` names the reading that is missing.
        traced = is_traced(self, observations, keys)
        if traced and rows < expected and not self.encoder.masked:
            raise ValueError(
                f"`observation` has {rows} rows, but this map was trained on series of {expected}."
            )
        return super()._invert(observations, keys)

    def _fits(self, arranged: Arranged) -> Bool[Array, " batch"]:
        complete = self.encoder.masked | jnp.all(jnp.asarray(arranged.mask), axis=(1, 2, 3))
        return jnp.asarray(arranged.fits) & complete

    def _inputs(self, arranged: Arranged) -> tuple[Any, Any]:
        self.encoder.check_complete(arranged)
        # Fixed times make one group.
        values, mask = arranged.values[:, 0], arranged.mask[:, 0]
        return self.encoder.standardized(values, mask), mask

    def _infer(self, inputs: tuple[Any, Any], keys: Key[Array, " batch"]) -> Estimate:
        return jax.vmap(self._estimate)(self._features(inputs), keys)

    def _features(self, inputs: tuple[Any, Any]) -> Float[Array, "batch row feature"]:
        return jax.vmap(self.encoder.features)(*(jnp.asarray(x) for x in inputs))

    def _estimate(self, x: Float[Array, "row feature"], key: Key[Array, ""]) -> Estimate:
        labels, normal = predict(self.network, self.encoder, x, self.method.spread)
        unit = jnp.clip(self.encoder.to_unit(self.problem, labels), 0.0, 1.0)
        if self.method.spread is Spread.NONE:
            value = jnp.asarray(self.problem.parameters.from_unit(unit))
            return estimate_from_point(self.problem, value)
        cloud = self.encoder.to_unit(self.problem, normal.sample(self.method.draws, key=key))
        return estimate_from_cloud(self.problem, unit, _within_the_prior(unit, cloud))

    def mean_and_covariance(
        self, observations: Observation
    ) -> tuple[
        Float[np.ndarray, "batch parameter"], Float[np.ndarray, "batch parameter parameter"]
    ]:
        """The normal distribution that the network states for each of many series.

        Args:
            observations: A batch.

        Returns:
            Means and covariances in physical units. Where labels are unit coordinates, the
            covariance is linearized at the mean.

        Raises:
            TypeError: If `observations` is not an `Observation`.
            ValueError: If the network states no covariance, `observations` is not a batch of this
                problem, or a series does not fit.
        """
        if self.method.spread is Spread.NONE:
            raise ValueError(
                "This map gives points only; train one with `spread=Spread.LIKELIHOOD`."
            )
        check_batch(self.problem, observations)
        check_readings(self.problem, observations, "`observations`")
        inputs = self._inputs(self._slots.arrange(observations))
        with jax.enable_x64(False):
            found = _moments(self, inputs)
        return jax.tree.map(np.asarray, found)


def _within_the_prior(
    center: Float[Array, " parameter"], draws: Float[Array, "draw parameter"]
) -> Float[Array, "draw parameter"]:
    """Draws of a normal distribution, those beyond the unit interval at its ends.

    Not at the very ends, which may stand for infinity, but where the outermost of as many draws
    of the prior lie, or half as far from the end as the center.
    """
    outermost = 0.5 / len(draws)
    low = jnp.minimum(outermost, 0.5 * center)
    high = 1.0 - jnp.minimum(outermost, 0.5 * (1.0 - center))
    return jnp.clip(draws, low[None], high[None])


@eqx.filter_jit
def _moments(inverter: InverseMapInverter, inputs: tuple[Any, Any]) -> tuple[Array, Array]:
    encoder, problem = inverter.encoder, inverter.problem

    def one(x: Array) -> tuple[Array, Array]:
        labels, normal = predict(inverter.network, encoder, x, inverter.method.spread)
        unit = jnp.clip(encoder.to_unit(problem, labels), 0.0, 1.0)
        slopes = encoder.label_slopes(problem, unit)
        covariance = slopes[:, None] * normal.covariance * slopes[None, :]
        return jnp.asarray(problem.parameters.from_unit(unit)), covariance

    return jax.vmap(one)(inverter._features(inputs))


def predict(
    network: Any, encoder: SeriesEncoder, x: Float[Array, "row feature"], spread: Spread
) -> tuple[Float[Array, " parameter"], Normal]:
    """Evaluate a network on one series.

    Args:
        network: The network.
        encoder: Scales.
        x: A series, encoded.
        spread: What it says besides a point.

    Returns:
        Labels, and the normal distribution around them; without meaning where the network has
        outputs for a point only.
    """
    raw, size = network(x), encoder.low.shape[0]
    labels, numbers = jax.nn.sigmoid(raw[:size]), raw[size:]
    if numbers.shape[0] == 0:
        numbers = jnp.zeros(Normal.size(size), raw.dtype)
    numbers = jnp.asarray(encoder.number_center) + jnp.asarray(encoder.number_spread) * numbers
    read = Normal.of_logarithm if spread is Spread.LAPLACE else Normal.of
    return labels, read(labels, numbers)


def _errors(error: Callable[..., Array], model: Any, x: Array, batch: Examples) -> Array:
    if batch.numbers is None:
        return jax.vmap(lambda x, z: error(model, x, z, None))(x, batch.z)
    return jax.vmap(lambda x, z, n: error(model, x, z, n))(x, batch.z, batch.numbers)
