"""The posterior by tempering: particles walk from the prior to the posterior on the real solver."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, Float, Key
from scipy.special import expit

from ..._estimate import Estimate
from ..._estimate_status import EstimateStatus
from ..._inverse_problem import InverseProblem
from ..._observation import Observation
from ..._x64 import is_traced
from ...train import TrainLog
from .._batches import scan, split_each, while_loop
from .._checks import check_counts
from .._estimates import estimate_from_cloud
from .._inverter import AbstractExactInverter
from .._method import AbstractMethod, FitArguments
from .._penalty import Penalty
from ._diagnostics import mixing
from ._importance import resample, temper
from ._objective import Coordinates, Objective

# From one temperature to the next half of the particles stay worth something.
_EFFECTIVE = 0.5
_MOST_TEMPERATURES = 200
# Share of the moves that are as long as the distance between two particles, from peak to peak.
_LEAPS = 0.1
# Gelman, Roberts and Gilks (1996): what is accepted where steps explore a normal density fastest.
_ACCEPTED = 0.25
_GAIN = 2.0
# Steps are up to so much shorter, as a logarithm.
_SIZES = 2.0


class SequentialMonteCarlo(AbstractMethod["SequentialMonteCarloInverter"]):
    """Samples of the exact posterior, from the prior through a ladder of temperatures.

    Use it where the posterior is no single peak: several modes, curved ridges, ends of
    priors. Particles drawn from the prior are weighed, resampled and moved while the likelihood
    is raised to powers that grow from 0 to 1, each chosen so that half of the particles survive.
    They move in the logits of unit coordinates along differences of other particles, so steps
    have the size and direction of the posterior, and reach from one peak to another. It needs
    solutions of the model but no derivatives, and all particles of all observations advance
    together. Where one peak is expected and derivatives are at hand, `Posterior` needs fewer
    solutions.

    After each move all particles are kept (waste-free), so a temperature costs one solution for
    each particle. Several populations run independently; how they differ says whether there were
    enough particles (`diagnostics`), and each weighs what its evidence says. Least squares behind
    it (`LeastSquares(starts=64).refine(inverter)`) lists the optima, with the share of samples
    that descend to each (`optima.starts`).

    Attributes:
        populations: Independent runs.
        particles: Particles of each.
        moves: Particles that follow each other in a walk; divides `particles`.
        draws: Samples of an estimate, chosen among all particles.

    Source:
        Del Moral, Doucet and Jasra, J. R. Stat. Soc. B 68 (2006); Dau and Chopin, arXiv
        2011.02328 (waste-free); ter Braak, Stat. Comput. 16 (2006), for the moves.

    Example:
        >>> method = ij.methods.SequentialMonteCarlo(populations=2, particles=64, draws=64)
        >>> inverter = method.fit(ij.problems.robertson())
        >>> inverter.method.particles
        64
    """

    _trains: ClassVar[bool] = False

    populations: int = 4
    particles: int = 2048
    moves: int = 16
    draws: int = 512

    def __check_init__(self) -> None:
        """Refuse counts below one and walks that do not divide the particles."""
        check_counts(self, "populations", "particles", "moves", "draws")
        if self.moves < 2 or self.particles % self.moves or self.particles < 4 * self.moves:
            raise ValueError(
                "`particles` must be a multiple of `moves`, at least four times as many, and "
                f"`moves` at least 2; got {self.particles} and {self.moves}."
            )
        if self.draws > self.populations * self.particles:
            raise ValueError(
                f"`draws` must be at most `populations` x `particles`; got {self.draws}."
            )

    def _fit(self, arguments: FitArguments) -> "SequentialMonteCarloInverter":
        return self._blank(arguments.problem)

    def _blank(self, problem: InverseProblem) -> "SequentialMonteCarloInverter":
        return SequentialMonteCarloInverter(problem=problem, method=self)


class SequentialMonteCarloInverter(AbstractExactInverter):
    """From `SequentialMonteCarlo.fit`.

    Attributes:
        problem: The problem it inverts.
        method: Its settings.
        logs: Empty.
    """

    problem: InverseProblem
    method: SequentialMonteCarlo
    logs: tuple[TrainLog, ...] = ()

    def _infer(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        found = self._sample(observations, keys)
        if is_traced(found):
            return found[0]
        estimate, particles = jax.tree.map(np.asarray, found)
        if self.problem.coupled:
            # The factor of the prior that couples parameters has an integral that is not known.
            particles = particles._replace(
                log_evidence=np.full_like(particles.log_evidence, np.nan)
            )
        return _diagnosed(estimate, particles)

    def _sample(
        self, observations: Observation, keys: Key[Array, " batch"]
    ) -> tuple[Estimate, "Particles"]:
        """Estimates, and the last particles of all populations."""
        populations, size = self.method.populations, self.problem.parameters.size
        objective = Objective(self.problem, Coordinates.UNIT, Penalty.NONE, coupled=True)
        every = jax.tree.map(lambda x: jnp.repeat(x, populations, axis=0), observations)
        many = jax.vmap(lambda key: jr.split(key, populations + 1))(keys)

        def evaluate(x: Array) -> Array:
            return jnp.asarray(objective.log_densities(jax.nn.sigmoid(x), every))

        last = _anneal(evaluate, self.method, size, many[:, 1:].reshape(-1))
        grouped = jax.tree.map(lambda x: x.reshape(-1, populations, *x.shape[1:]), last)
        return jax.vmap(self._estimate)(grouped, many[:, 0]), grouped

    def _estimate(self, particles: "Particles", key: Array) -> Estimate:
        """Pool the populations of one observation."""
        size = self.problem.parameters.size
        known = jnp.isfinite(particles.log_evidence)
        evidence = jnp.where(known, particles.log_evidence, -jnp.inf)
        share = jax.nn.softmax(jnp.where(jnp.any(known), evidence, 0.0))
        each = self.method.particles
        index = resample(jnp.repeat(share / each, each), self.method.draws, key=key)
        z = jax.nn.sigmoid(particles.x.reshape(-1, size))
        mean = jnp.einsum("n,np->p", jnp.repeat(share / each, each), z)
        estimate = estimate_from_cloud(self.problem, mean, z[index])
        finished = jnp.all(particles.power >= 1.0)
        status = jnp.where(finished, estimate.status, int(EstimateStatus.NOT_MIXED))
        # Where particles were solved and none is possible, the readings are not.
        nothing = jnp.where(
            jnp.any(particles.solved),
            int(EstimateStatus.IMPOSSIBLE_READINGS),
            int(EstimateStatus.SOLVER_FAILED),
        )
        status = jnp.where(jnp.any(known), status, nothing)
        return eqx.tree_at(lambda e: e.status, estimate, status)


def _diagnosed(estimate: Estimate, particles: "Particles") -> Estimate:
    """The estimates with what the populations say about each other."""
    z = expit(particles.x)  # case, population, walk, move, parameter
    case, population, walk, move, size = z.shape
    populations = z.reshape(case, population, walk * move, size)
    diagnostics, mixed = mixing(populations, z.reshape(case, population * walk, move, size))
    diagnostics = dataclasses.replace(diagnostics, log_evidence=particles.log_evidence)
    fine = estimate.status == int(EstimateStatus.NOT_CHECKED)
    status = np.where(fine & ~mixed, int(EstimateStatus.NOT_MIXED), estimate.status)
    return eqx.tree_at(
        lambda e: (e.status, e.diagnostics),
        estimate,
        (status, diagnostics),
        is_leaf=lambda x: x is None,
    )


class Particles(NamedTuple):
    """A population, or many with leading axes.

    Attributes:
        x: Logits of unit coordinates, by the walks that they belong to.
        value: Log likelihood with what couples parameters, minus infinity where there is none.
        power: To which the likelihood is raised.
        log_evidence: Logarithm of the mean of that power of the likelihood over the prior.
        log_scale: Logarithm of the length of steps over that for normal densities.
        solved: Whether the solver succeeded for any of the first particles.
    """

    x: Float[Array, "*batch walk move parameter"]
    value: Float[Array, "*batch walk move"]
    power: Float[Array, "*batch"]
    log_evidence: Float[Array, "*batch"]
    log_scale: Float[Array, "*batch"]
    solved: Bool[Array, "*batch"]


class _Walkers(NamedTuple):
    """Where the walks of one temperature begin, and what tells them where to step."""

    x: Float[Array, "*batch walk parameter"]
    value: Float[Array, "*batch walk"]
    others: Float[Array, "*batch particle parameter"]


def _anneal(
    evaluate: Callable[[Array], Array], method: SequentialMonteCarlo, size: int, keys: Array
) -> Particles:
    """Walk populations from the prior to the posterior.

    Args:
        evaluate: Log likelihoods of logits of shape (row, particle, parameter); minus infinity
            where the readings are impossible, NaN where the solver failed.
        method: The settings.
        size: Number of parameters.
        keys: For each row.

    Returns:
        The last particles.
    """
    walks, moves = method.particles // method.moves, method.moves
    draw_keys, keys = split_each(keys)
    x = jax.vmap(lambda key: jr.logistic(key, (walks * moves, size), jnp.float64))(draw_keys)
    rows = jnp.zeros(len(keys))
    value = evaluate(x).reshape(-1, walks, moves)
    first = Particles(
        x.reshape(-1, walks, moves, size),
        jnp.where(jnp.isnan(value), -jnp.inf, value),
        rows, rows, rows,
        jnp.any(~jnp.isnan(value), axis=(1, 2)),
    )  # fmt: skip

    def likelihood(x: Array) -> Array:
        found = evaluate(x)
        return jnp.where(jnp.isnan(found), -jnp.inf, found)

    def unfinished(state: tuple[Particles, Array, Array]) -> Array:
        particles, _, count = state
        return jnp.any(particles.power < 1.0) & (count < _MOST_TEMPERATURES)

    def cool(state: tuple[Particles, Array, Array]) -> tuple[Particles, Array, Array]:
        particles, keys, count = state
        reweigh_keys, keys = split_each(keys)
        walk_keys, keys = split_each(keys)
        next_one, walkers = _reweighed(particles, reweigh_keys)
        done = particles.power >= 1.0
        walked = _walk(likelihood, next_one, walkers, moves, walk_keys)
        return _unless(done, particles, walked), keys, count + 1

    return while_loop(unfinished, cool, (first, keys, jnp.asarray(0)))[0]


def _walk(
    evaluate: Callable[[Array], Array],
    particles: Particles,
    walkers: _Walkers,
    moves: int,
    keys: Array,
) -> Particles:
    """All walks at one temperature; their places are the particles of the next."""

    def move(walkers: _Walkers, keys: Array) -> tuple[_Walkers, tuple[Array, Array, Array]]:
        step_keys, choose_keys = split_each(keys)
        x = _proposed(walkers, particles.log_scale, step_keys)
        moved, accepted = _chosen(walkers, x, evaluate(x), particles.power, choose_keys)
        return moved, (moved.x, moved.value, accepted)

    every = jnp.swapaxes(jax.vmap(lambda key: jr.split(key, moves - 1))(keys), 0, 1)
    _, (x, value, accepted) = scan(move, walkers, every)
    x = jnp.moveaxis(jnp.concatenate([walkers.x[None], x]), 0, 2)
    value = jnp.moveaxis(jnp.concatenate([walkers.value[None], value]), 0, 2)
    log_scale = particles.log_scale + _GAIN * (jnp.mean(accepted, axis=(0, 2)) - _ACCEPTED)
    return particles._replace(x=x, value=value, log_scale=log_scale)


@jax.jit
@jax.vmap
def _reweighed(particles: Particles, key: Array) -> tuple[Particles, _Walkers]:
    """Raise the power as far as half of the particles stay worth something, and resample."""
    walk_key, other_key, order_key = jr.split(key, 3)
    walks, moves, size = particles.x.shape
    x, value = particles.x.reshape(-1, size), particles.value.reshape(-1)
    left = 1.0 - particles.power
    weights, share = temper(left * value, jnp.zeros_like(value), _EFFECTIVE * walks * moves)
    power = jnp.where(share >= 1.0, 1.0, particles.power + share * left)
    # A particle that is impossible counts as zero at any power.
    ratio = jnp.where(jnp.isfinite(value), share * left * value, -jnp.inf)
    gain = jax.nn.logsumexp(ratio) - jnp.log(float(walks * moves))
    index = jr.permutation(order_key, resample(weights, walks, key=walk_key))
    others = x[resample(weights, walks * moves, key=other_key)]
    changed = particles._replace(power=power, log_evidence=particles.log_evidence + gain)
    return changed, _Walkers(x[index], value[index], others)


@jax.jit
@jax.vmap
def _proposed(walkers: _Walkers, log_scale: Array, key: Array) -> Array:
    """A step along the difference of two particles."""
    pair_key, size_key, leap_key, jitter_key = jr.split(key, 4)
    count, size = walkers.x.shape
    pairs = walkers.others[jr.randint(pair_key, (2, count), 0, len(walkers.others))]
    length = 2.38 / jnp.sqrt(2.0 * size) * jnp.exp(log_scale)
    # Ridges want steps of many sizes.
    length = length * jnp.exp(-_SIZES * jr.uniform(size_key, (count,), jnp.float64))
    length = jnp.where(jr.bernoulli(leap_key, _LEAPS, (count,)), 1.0, length)
    # Pairs are finite in number; a little noise lets steps go everywhere.
    jitter = 1e-3 * length[:, None] * jr.normal(jitter_key, (count, size), jnp.float64)
    return walkers.x + length[:, None] * (pairs[0] - pairs[1]) + jitter


@jax.jit
@jax.vmap
def _chosen(
    walkers: _Walkers, x: Array, value: Array, power: Array, key: Array
) -> tuple[_Walkers, Array]:
    """Metropolis' rule."""
    gain = power * (value - walkers.value) + _log_prior(x) - _log_prior(walkers.x)
    accepted = jnp.log(jr.uniform(key, gain.shape, jnp.float64)) < gain
    moved = _Walkers(
        jnp.where(accepted[:, None], x, walkers.x),
        jnp.where(accepted, value, walkers.value),
        walkers.others,
    )
    return moved, accepted.astype(float)


def _log_prior(x: Array) -> Array:
    """That of logits of uniform coordinates."""
    return -jnp.sum(jax.nn.softplus(x) + jax.nn.softplus(-x), axis=-1)


@jax.jit
def _unless(done: Bool[Array, " row"], old: Particles, new: Particles) -> Particles:
    def pick(old: Array, new: Array) -> Array:
        return jnp.where(done.reshape(-1, *[1] * (old.ndim - 1)), old, new)

    return jax.tree.map(pick, old, new)
