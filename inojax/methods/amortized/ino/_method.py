"""INO: a surrogate operator and a drifting model that carries particles to the answer."""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key

from ...._estimate import Estimate
from ...._inverse_problem import InverseProblem, measure
from ...._observation import Observation
from ....nn._truncated_normal import UnitNormal
from ....train import TrainLog
from ..._checks import check_counts
from ..._estimates import estimate_from_cloud
from .._encoding import Encoder, Readings
from .._familiar import Familiar
from .._inverter import AbstractAmortizedInverter
from .._method import AbstractAmortizedMethod, TrainingSession
from .._slots import Arranged, Slots
from .._training_data import SimulatedData
from ._drift import Drift, DriftSettings, drift_loss, new_pool, residual_of
from ._surrogate import (
    Surrogate,
    SurrogateSettings,
    new_surrogate,
    surrogate_error,
    surrogate_loss,
)


class INO(AbstractAmortizedMethod["INOInverter"]):
    """Inverse neural operator: C-FNO surrogate, then a drift without surrogate gradients.

    Use it when one model must be inverted many times: after minutes of training an inversion
    takes milliseconds. The estimate is as good as the simulations cover the prior; check its
    `chi2_per_reading`, which comes from the real solver.

    First a conditional Fourier neural operator learns the trajectories on the time grid. Then
    a dense network learns, at particles it has itself moved, the displacement to the true
    parameters from the observation, the particle and the surrogate's residual there; the
    surrogate is only ever evaluated. At inference particles start at random, move, and the
    spread predicted at the end is drawn from.

    Attributes:
        surrogate: First stage.
        drift: Second stage.
        particles: Particles started for each observation.
        moves: Moves of each particle.
        draws: Draws from the final spread of each particle.

    Source:
        arXiv 2603.11854. Where it is silent the choices are ours; `docs` says which and why.

    Example:
        >>> problem = ij.problems.robertson()
        >>> dataset = ij.simulate(problem, 64, key=jr.key(0), progress=False)

        >>> method = ij.methods.INO(
        ...     surrogate=ij.methods.SurrogateSettings(
        ...         network=ij.nn.FNOSettings(width=8, modes=4), steps=4
        ...     ),
        ...     drift=ij.methods.DriftSettings(steps=4),
        ... )

        >>> inverter = method.fit(problem, dataset, key=jr.key(1), progress=False)
        >>> observation = problem.simulate(dataset.thetas[0], key=jr.key(2))
        >>> inverter(observation, key=jr.key(3)).value.shape
        (3,)
    """

    surrogate: SurrogateSettings = SurrogateSettings()
    drift: DriftSettings = DriftSettings()
    particles: int = 2
    moves: int = 8
    draws: int = 64

    def __check_init__(self) -> None:
        """Refuse counts below one."""
        check_counts(self, "particles", "moves", "draws")

    def _train(self, session: TrainingSession, *, key: Key[Array, ""]) -> "INOInverter":
        surrogate_key, drift_key = jr.split(key)
        surrogate, first = self._fit_surrogate(session, surrogate_key)
        drift, second = self._fit_drift(session, surrogate, drift_key)
        familiar = Familiar.fit(
            session.problem, session.encoder.slots, mask_rate=self.drift.mask_rate
        )
        return INOInverter(
            problem=session.problem,
            method=self,
            encoder=session.encoder,
            familiar=familiar,
            surrogate=surrogate,
            drift=drift,
            logs=(first, second),
        )

    def _fit_surrogate(
        self, session: TrainingSession, key: Key[Array, ""]
    ) -> tuple[Surrogate, TrainLog]:
        problem, encoder, settings = session.problem, session.encoder, self.surrogate
        init_key, train_key = jr.split(key)
        trained = session.trainer(
            "C-FNO", settings, depends_on=(settings, self.drift.mask_rate)
        ).fit(
            new_surrogate(problem, encoder, settings, data=session.data, key=init_key),
            surrogate_loss(problem, encoder, settings, self.drift.mask_rate),
            session.data,
            held_out=surrogate_error(problem, encoder),
            key=train_key,
        )
        return trained.model, trained.log

    def _fit_drift(
        self, session: TrainingSession, surrogate: Surrogate, key: Key[Array, ""]
    ) -> tuple[Drift, TrainLog]:
        problem, encoder, settings = session.problem, session.encoder, self.drift
        init_key, pool_key, train_key = jr.split(key, 3)
        trained = session.trainer("ADM", settings, depends_on=self).fit(
            Drift(problem, encoder, settings, key=init_key),
            drift_loss(problem, encoder, settings),
            (session.data, surrogate),
            carry=new_pool(problem, encoder, settings, surrogate, session.data, key=pool_key),
            held_out=self._held_out(problem, encoder),
            key=train_key,
        )
        return trained.model, trained.log

    def _untrained(self, problem: InverseProblem, encoder: Encoder) -> "INOInverter":
        key = jr.key(0)
        surrogate = new_surrogate(problem, encoder, self.surrogate, key=key)
        drift = Drift(problem, encoder, self.drift, key=key)
        familiar = Familiar.blank(encoder.slots)
        return INOInverter(
            problem=problem,
            method=self,
            encoder=encoder,
            familiar=familiar,
            surrogate=surrogate,
            drift=drift,
        )

    def _held_out(
        self, problem: InverseProblem, encoder: Encoder
    ) -> Callable[[Drift, tuple[SimulatedData, Surrogate]], Array]:
        """Mean squared error of the estimates for held-out simulations, one particle each."""

        def error(drift: Drift, data: tuple[SimulatedData, Surrogate]) -> Array:
            simulations, surrogate = data
            z, states = simulations.held_z, simulations.held_states
            single = eqx.tree_at(lambda m: m.particles, self, 1)
            familiar = Familiar.blank(encoder.slots)
            inverter = INOInverter(
                problem=problem,
                method=single,
                encoder=encoder,
                familiar=familiar,
                surrogate=surrogate,
                drift=drift,
            )
            # The same readings and starts after each chunk, so that errors can be compared.
            keys = jr.split(jr.key(0), z.shape[0])
            thetas = jnp.asarray(problem.parameters.from_unit(z))
            seen = jax.vmap(lambda y, theta, k: measure(problem, y, theta, key=k))
            readings, _ = jax.vmap(encoder.measured)(seen(states, thetas, keys))
            # All rows fit into one group.
            groups = jax.tree.map(lambda x: x[:, None], readings)
            estimate = inverter._infer(groups, keys)
            return jnp.mean(jnp.square(estimate.unit_value - z))

        return error


class INOInverter(AbstractAmortizedInverter):
    """A trained INO, from `INO.fit`.

    Attributes:
        problem: The problem it inverts.
        method: Its settings.
        encoder: Scales and features.
        familiar: Which readings are missing in training.
        surrogate: The C-FNO.
        drift: The drifting model.
        logs: Training logs of the two stages, empty after loading.

    Example:
        >>> # what `INO().fit(problem, dataset, key=key)` gives
        >>> issubclass(ij.methods.INOInverter, ij.methods.AbstractInverter)
        True
    """

    problem: InverseProblem
    method: INO = eqx.field(static=True)
    encoder: Encoder
    familiar: Familiar
    surrogate: Surrogate
    drift: Drift
    logs: tuple[TrainLog, ...] = ()

    @property
    def _slots(self) -> Slots:
        return self.encoder.slots

    def _inputs(self, arranged: Arranged) -> Readings:
        return self.encoder.arranged(arranged)

    def _infer(self, inputs: Readings, keys: Key[Array, " batch"]) -> Estimate:
        size = self.problem.parameters.size
        start = jax.vmap(lambda k: jr.uniform(k, (self.method.particles, size), jnp.float32))(keys)
        last, spread = self._travel(start, inputs)
        cloud = jax.vmap(self._draw)(spread, keys)
        make = partial(estimate_from_cloud, self.problem)
        return jax.vmap(make)(jnp.mean(last, axis=1), cloud)

    def _surrogate_readings(
        self, unit_value: Float[np.ndarray, "batch parameter"], observations: Observation
    ) -> Float[np.ndarray, "batch reading channel"]:
        readings = self.encoder.readings(jax.tree.map(np.asarray, observations))
        with jax.enable_x64(False):
            scaled = _predicted(self, np.asarray(unit_value, np.float32), readings)
        return np.asarray(self.encoder.reading_scale.invert(np.asarray(scaled, np.float64)))

    def _draw(self, spread: UnitNormal, key: Key[Array, ""]) -> Float[Array, "particle parameter"]:
        keys = jr.split(jr.fold_in(key, 1), self.method.draws)
        cloud = jax.vmap(lambda k: spread.sample(key=k))(keys)
        return cloud.reshape(-1, cloud.shape[-1])

    def _travel(
        self, start: Float[Array, "batch particle parameter"], groups: Readings
    ) -> tuple[Float[Array, "batch particle parameter"], UnitNormal]:
        def move(
            carry: tuple[Array, UnitNormal], age: Array
        ) -> tuple[tuple[Array, UnitNormal], None]:
            z, _ = carry
            velocity, spread = self._velocity(z, groups, age)
            return (jnp.clip(z + velocity, 0.0, 1.0), spread), None

        ages = jnp.arange(self.method.moves, dtype=start.dtype)
        # One body for all moves, the last one's spread included: half as much to compile.
        nothing = eqx.filter_eval_shape(self._velocity, start, groups, ages[0])[1]
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), nothing)
        return lax.scan(move, (start, nothing), ages)[0]

    def _velocity(
        self,
        z: Float[Array, "batch particle parameter"],
        groups: Readings,
        age: Float[Array, ""],
    ) -> tuple[Float[Array, "batch particle parameter"], UnitNormal]:
        """Velocity at each particle; every group of readings has the weight it deserves."""
        batch, particles, size = z.shape
        count = groups.mask.shape[1]
        # One flat batch of observation x particle x group, for one large matrix product.
        everyone = jnp.broadcast_to(z[:, :, None, :], (batch, particles, count, size))

        def spread_out(x: Array) -> Array:
            return jnp.repeat(x[:, None], particles, axis=1).reshape(-1, *x.shape[2:])

        readings = jax.tree.map(spread_out, groups)
        flat = everyone.reshape(-1, size)
        residual = residual_of(self.problem, self.encoder, self.surrogate, flat, readings)
        ages = jnp.broadcast_to(age, flat.shape[:1])
        velocity, outputs = self.drift(self.problem, self.encoder, flat, readings, residual, ages)
        arrived = (flat + velocity).reshape(batch, particles, count, size)
        spread = UnitNormal.around(arrived, outputs.reshape(batch, particles, count, -1))
        known = jnp.any(readings.mask, axis=(1, 2)).reshape(batch, particles, count, 1)
        arrived, spread = spread.product(arrived, known)
        return arrived - z, spread


@eqx.filter_jit
def _predicted(
    inverter: INOInverter, z: Float[Any, "batch parameter"], readings: Readings
) -> Float[Array, "batch reading channel"]:
    return inverter.surrogate.at_readings(
        inverter.problem, inverter.encoder, jnp.asarray(z), readings
    )
