"""Second stage of INO: a drifting model (ADM) that carries particles to the answer."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax import lax
from jaxtyping import Array, Bool, Float, Key

from ...._inverse_problem import InverseProblem, measure
from ....nn._conditional_mlp import ConditionalMLP
from ....nn._truncated_normal import UnitNormal
from ....train._loop import Loss
from ....train._sharding import shard_batch
from ..._checks import check_counts, check_shares
from .._encoding import Encoder, Readings
from .._masking import mask_readings
from .._training_data import SimulatedData, batch_keys, redraw
from ._drift_fields import AbstractDriftField, ResidualDrift
from ._surrogate import Surrogate

# Residuals matter at the size of the prior's spread, at the size of the noise, and between.
_RESIDUAL_SCALES = (3.0, 100.0)


class DriftSettings(eqx.Module):
    """How the drifting model is built and trained.

    Attributes:
        width: Units of each dense layer.
        depth: Dense layers.
        field: Where particles should move, the training target.
        steps: Optimizer steps.
        batch: Particles per step.
        group: Particles that share an observation.
        learning_rate: Peak of the one-cycle schedule.
        pool: Particles kept on their way between steps, a multiple of `batch`.
        restart: Chance, after each move, that a group starts anew with another observation.
        mask_rate: Share of training observations that lose readings.

    Example:
        >>> ij.methods.INO(drift=ij.methods.DriftSettings(steps=2000)).drift.steps
        2000
    """

    width: int = 512
    depth: int = 4
    field: AbstractDriftField = ResidualDrift()
    steps: int = 2500
    batch: int = 512
    group: int = 2
    learning_rate: float = 1e-3
    pool: int = 4096
    restart: float = 0.25
    mask_rate: float = 0.1

    def __check_init__(self) -> None:
        """Refuse counts below one, shares outside of [0, 1], sizes that do not divide."""
        check_counts(self, "width", "depth", "steps", "batch", "group", "pool")
        check_shares(self, "restart", "mask_rate")
        if self.batch % self.group or self.pool % self.batch:
            raise ValueError(
                "`group` must divide `batch`, and `batch` must divide `pool`; got "
                f"{self.group}, {self.batch} and {self.pool}."
            )


class Drift(eqx.Module):
    """The velocity of a particle, from what it is and what its surrogate residual says.

    Attributes:
        network: Dense network on the residual rows; its second head is the spread.
    """

    network: ConditionalMLP

    def __init__(
        self,
        problem: InverseProblem,
        encoder: Encoder,
        settings: DriftSettings,
        *,
        key: Key[Array, ""],
    ) -> None:
        """Draw the weights.

        Args:
            problem: The inverse problem.
            encoder: Its scales.
            settings: Sizes.
            key: Source of the initial weights.
        """
        parameters, channels = problem.parameters.size, len(encoder.slots.channels)
        conditions = encoder.parameter_features + 2
        self.network = ConditionalMLP(
            encoder.slots.count,
            encoder.row_features + len(_RESIDUAL_SCALES) * channels,
            conditions,
            (parameters, 2 * parameters),
            width=settings.width,
            depth=settings.depth,
            key=key,
        )

    def __call__(
        self,
        problem: InverseProblem,
        encoder: Encoder,
        z: Float[Array, "batch parameter"],
        readings: Readings,
        residual: Float[Array, "batch reading channel"],
        age: Float[Array, " batch"],
    ) -> tuple[Float[Array, "batch parameter"], Float[Array, "batch two_parameter"]]:
        """Evaluate velocity and spread of a batch of particles.

        Args:
            problem: The inverse problem.
            encoder: Its scales.
            z: The particles, unit coordinates.
            readings: The observation of each.
            residual: Readings minus surrogate at the particle, in units of the prior's spread.
            age: Pseudo-time: moves made so far.

        Returns:
            Displacements to the answer, and raw outputs for `UnitNormal.around`.
        """

        def one(z: Array, readings: Readings, residual: Array, age: Array) -> tuple[Array, Array]:
            rows, conditions = _inputs(problem, encoder, z, readings, residual, age)
            return self.network(rows, readings.present, conditions)

        return jax.vmap(one)(z, readings, residual, age)


def _inputs(
    problem: InverseProblem,
    encoder: Encoder,
    z: Float[Array, " parameter"],
    readings: Readings,
    residual: Float[Array, "reading channel"],
    age: Float[Array, ""],
) -> tuple[Float[Array, "reading feature"], Float[Array, " condition"]]:
    bent = [jnp.arcsinh(scale * residual) for scale in _RESIDUAL_SCALES]
    rows = jnp.concatenate([encoder.rows(readings), *bent], axis=1)
    size = jnp.log(jnp.sqrt(jnp.mean(jnp.square(residual))) + 1e-4)
    extra = jnp.stack([size / 3.0, jnp.exp(-age / 3.0)])
    return rows, jnp.concatenate([encoder.parameters(problem, z), extra])


def residual_of(
    problem: InverseProblem,
    encoder: Encoder,
    surrogate: Surrogate,
    z: Float[Array, "batch parameter"],
    readings: Readings,
) -> Float[Array, "batch reading channel"]:
    """How far the surrogate at each particle is from the readings.

    The surrogate does not look at the readings here: a hypothesis is tested by what it
    predicts, not by what a network that has seen the answer makes of it.

    Args:
        problem: The inverse problem.
        encoder: Its scales.
        surrogate: The trained first stage.
        z: The particles, unit coordinates.
        readings: The observation of each.

    Returns:
        Residuals in units of the prior's spread at each time, 0 where no reading is.
    """
    predicted = surrogate.at_readings(problem, encoder, z, readings)
    return jax.vmap(lambda r, p: _relative(encoder, r, p))(readings, predicted)


def _relative(
    encoder: Encoder, readings: Readings, predicted: Float[Array, "reading channel"]
) -> Float[Array, "reading channel"]:
    spread = encoder.at_readings(jnp.asarray(encoder.reading_spread, jnp.float32), readings)
    return jnp.where(readings.mask, (readings.values - predicted) / spread, 0.0)


class Pool(NamedTuple):
    """Groups of particles on their way, each group with its observation.

    Attributes:
        truth: True parameters, unit coordinates.
        truth_residual: Residual of the exact simulation, which is noise.
        readings: The observations.
        z: The particles.
        residual: Their surrogate residuals.
        age: Moves made since the start.
        block: Which block of groups is trained on next.
    """

    truth: Float[Array, "group parameter"]
    truth_residual: Float[Array, "group reading channel"]
    readings: Readings
    z: Float[Array, "group particle parameter"]
    residual: Float[Array, "group particle reading channel"]
    age: Float[Array, " group"]
    block: Array


def new_pool(
    problem: InverseProblem,
    encoder: Encoder,
    settings: DriftSettings,
    surrogate: Surrogate,
    data: SimulatedData,
    *,
    key: Key[Array, ""],
) -> Pool:
    """Random particles for random training observations.

    Args:
        problem: The inverse problem.
        encoder: Its scales.
        settings: Sizes.
        surrogate: The trained first stage.
        data: Simulations.
        key: Source of randomness.

    Returns:
        A pool of `settings.pool` particles of age 0.
    """
    groups, per_block = settings.pool // settings.group, settings.batch // settings.group

    @jax.jit
    def block(block_key: Array) -> Pool:
        start = _fresh(problem, encoder, settings, data, per_block, block_key)
        return start._replace(residual=_residuals(problem, encoder, surrogate, start))

    blocks = [block(k) for k in jr.split(key, groups // per_block)]
    joined = jax.tree.map(
        lambda *xs: jnp.concatenate(xs), *(b._replace(block=None) for b in blocks)
    )
    return joined._replace(block=jnp.asarray(0, jnp.int32))


def _fresh(
    problem: InverseProblem,
    encoder: Encoder,
    settings: DriftSettings,
    data: SimulatedData,
    groups: int,
    key: Array,
) -> Pool:
    start_key, rest = jr.split(key)
    pick, observe_keys, lose_keys = batch_keys(rest, groups)
    index = jr.randint(pick, (groups,), 0, data.z.shape[0])

    def one(z: Array, states: Array, observe_key: Array, lose_key: Array) -> tuple[Readings, Array]:
        theta = jnp.asarray(problem.parameters.from_unit(z))
        seen = measure(problem, states, theta, key=observe_key)
        readings, exact = encoder.measured(mask_readings(seen, settings.mask_rate, key=lose_key))
        return readings, _relative(encoder, readings, exact)

    truth = redraw(problem, data.z[index], key=rest)
    readings, truth_residual = jax.vmap(one)(truth, data.states[index], observe_keys, lose_keys)
    z = jr.uniform(start_key, (groups, settings.group, truth.shape[1]))
    residual = jnp.zeros((groups, settings.group, *truth_residual.shape[1:]))
    return Pool(truth, truth_residual, readings, z, residual, jnp.zeros(groups), jnp.asarray(0))


def _residuals(
    problem: InverseProblem, encoder: Encoder, surrogate: Surrogate, pool: Pool
) -> Float[Array, "group particle reading channel"]:
    z, readings, _, _ = _flat(pool)
    residual = residual_of(problem, encoder, surrogate, z, readings)
    return residual.reshape(pool.residual.shape)


def _flat(pool: Pool) -> tuple[Array, Readings, Array, Array]:
    """Particles with observation, residual and age each, as one batch."""
    members = pool.z.shape[1]

    def repeat(x: Array) -> Array:
        return jnp.repeat(x, members, axis=0)

    def merge(x: Array) -> Array:
        return x.reshape(-1, *x.shape[2:])

    readings = jax.tree.map(repeat, pool.readings)
    return merge(pool.z), readings, merge(pool.residual), repeat(pool.age)


def drift_loss(problem: InverseProblem, encoder: Encoder, settings: DriftSettings) -> Loss:
    """The training loss of the second stage.

    Each step trains on one block of the pool and then moves its particles by the network's
    own velocity, so that the network is trained where it will be used. The surrogate is
    only ever evaluated: the target is a constant to the optimizer, and what the particles
    became is carried over outside of the differentiated part.

    Args:
        problem: The inverse problem.
        encoder: Its scales.
        settings: Sizes and field.

    Returns:
        A loss for `Trainer.fit` whose data are simulations and a surrogate, and whose carry
        is a `Pool`.
    """
    groups = settings.batch // settings.group

    def loss(
        model: Drift, pool: Pool, data: tuple[SimulatedData, Surrogate], *, key: Array
    ) -> tuple[Array, Pool]:
        simulations, surrogate = data
        block = shard_batch(_slice(pool, groups))
        target = _targets(settings.field, block)
        velocity, outputs = _velocities(model, problem, encoder, block)
        regression = jnp.mean(jnp.square(velocity - lax.stop_gradient(target)))
        spread = UnitNormal.around(block.z + velocity, outputs)
        truth = jnp.broadcast_to(block.truth[:, None, :], block.z.shape)
        likelihood = jnp.mean(spread.log_prob(truth))
        moved = block._replace(
            z=jnp.clip(block.z + lax.stop_gradient(velocity), 0.0, 1.0), age=block.age + 1.0
        )
        moved = _restart(problem, encoder, settings, simulations, moved, key)
        moved = moved._replace(residual=_residuals(problem, encoder, surrogate, moved))
        return regression - 0.01 * likelihood, _put(pool, lax.stop_gradient(moved), groups)

    return loss


def _slice(pool: Pool, groups: int) -> Pool:
    start = pool.block * groups
    rest = pool._replace(block=None)
    cut = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, start, groups), rest)
    return cut._replace(block=None)


def _put(pool: Pool, block: Pool, groups: int) -> Pool:
    start = pool.block * groups

    def put(whole: Array, part: Array) -> Array:
        return lax.dynamic_update_slice_in_dim(whole, part.astype(whole.dtype), start, 0)

    rest, blocks = pool._replace(block=None), pool.z.shape[0] // groups
    written = jax.tree.map(put, rest, block._replace(block=None))
    return written._replace(block=(pool.block + 1) % blocks)


def _targets(field: AbstractDriftField, block: Pool) -> Float[Array, "group particle parameter"]:
    mask = block.readings.mask
    # Absent readings have residual zero; the mean square that a field takes is to be over the rest.
    share = jnp.mean(mask, axis=(1, 2), dtype=block.residual.dtype)
    weight = 1.0 / jnp.sqrt(jnp.maximum(share, 1.0 / mask[0].size))
    flat = block.residual.reshape(*block.residual.shape[:2], -1) * weight[:, None, None]
    noise = block.truth_residual.reshape(block.truth_residual.shape[0], -1) * weight[:, None]
    return jax.vmap(field)(block.z, flat, block.truth, noise)


def _velocities(
    model: Drift, problem: InverseProblem, encoder: Encoder, block: Pool
) -> tuple[Float[Array, "group particle parameter"], Float[Array, "group particle output"]]:
    velocity, outputs = model(problem, encoder, *_flat(block))
    return velocity.reshape(block.z.shape), outputs.reshape(*block.z.shape[:2], -1)


def _restart(
    problem: InverseProblem,
    encoder: Encoder,
    settings: DriftSettings,
    data: SimulatedData,
    block: Pool,
    key: Array,
) -> Pool:
    fresh_key, chance_key = jr.split(key)
    groups = block.z.shape[0]
    fresh = _fresh(problem, encoder, settings, data, groups, fresh_key)._replace(block=None)
    anew: Bool[Array, " group"] = jr.uniform(chance_key, (groups,)) < settings.restart

    def choose(new: Array, old: Array) -> Array:
        return jnp.where(anew.reshape(-1, *(1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(choose, fresh, block)
