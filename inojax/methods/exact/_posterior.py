"""The posterior itself: Hamiltonian Monte Carlo on the real solver."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Key

from ..._estimate import Estimate
from ..._estimate_status import EstimateStatus
from ..._inverse_problem import InverseProblem
from ..._observation import Observation
from ..._x64 import is_traced
from ...models._calls import compiled, in_calls
from ...train import TrainLog
from .._batches import split_each
from .._checks import check_counts
from .._estimates import estimate_from_cloud
from .._inverter import AbstractExactInverter, AbstractInverter
from .._method import AbstractMethod, FitArguments
from .._penalty import Penalty
from ._diagnostics import mixing
from ._objective import Coordinates, Objective, logit
from ._start import starting_from

# Draws from the prior that give the first mass matrix.
_FROM_PRIOR = 64


class Posterior(AbstractMethod["PosteriorInverter"]):
    """Samples of the exact posterior, by the No-U-Turn sampler on the real solver.

    Use it where the answer matters more than the minutes it takes, or to check faster methods.
    Chains start from samples of another inverter (`refine`), best least squares, with their
    spread as first guess of the mass matrix; or from the prior (`fit`), which takes a longer
    warmup. They move in the logits of unit coordinates, where every prior is the same and none has
    an end. Gradients come from forward sensitivities.

    The estimate is the posterior mean in unit coordinates; its `diagnostics` say whether the
    chains have mixed, and so does its status. Under a transformation both are left out.

    Attributes:
        chains: Chains, which advance together.
        warmup: Steps of adaptation of each chain, which are thrown away.
        draws: Samples of each chain.
        target_acceptance: Acceptance that the step size is adapted to.
        depth: Most doublings of a trajectory.

    Source:
        Hoffman and Gelman, arXiv 1111.4246 (in NumPyro); Vehtari et al., arXiv 1903.08008, for
        when chains have mixed.

    Example:
        >>> problem = ij.problems.lotka_volterra()
        >>> start = ij.methods.LeastSquares(draws=64, candidates=0).fit(problem)
        >>> sampler = ij.methods.Posterior(chains=4, warmup=500, draws=500).refine(start)
        >>> sampler.problem is problem  # to sample: `sampler(observation, key=key)`
        True
    """

    _trains: ClassVar[bool] = False

    chains: int = 4
    warmup: int = 500
    draws: int = 500
    target_acceptance: float = 0.8
    depth: int = 8

    def __check_init__(self) -> None:
        """Refuse counts below one and an acceptance outside of (0, 1)."""
        check_counts(self, "chains", "warmup", "draws", "depth")
        if self.draws < 4:
            raise ValueError(f"`draws` must be at least 4 to compare halves; got {self.draws}.")
        if not 0.0 < self.target_acceptance < 1.0:
            raise ValueError(
                f"`target_acceptance` must lie between 0 and 1; got {self.target_acceptance!r}."
            )

    def _fit(self, arguments: FitArguments) -> "PosteriorInverter":
        return self._blank(arguments.problem)

    def _blank(self, problem: InverseProblem) -> "PosteriorInverter":
        return PosteriorInverter(problem=problem, method=self)

    def refine(
        self, start: AbstractInverter | Estimate, problem: InverseProblem | None = None
    ) -> "PosteriorInverter":
        """Make an inverter whose chains start at samples of another one.

        Where that has none to give, as least squares that did not converge, they start from the
        prior.

        Args:
            start: An inverter that gives samples, or an estimate with samples.
            problem: The problem of an estimate.

        Returns:
            An inverter of the same problem.

        Raises:
            TypeError: If `start` is neither an inverter nor an estimate.
            ValueError: If the problem of an estimate is missing, or is not the one of its
                parameters.
        """
        first = starting_from(start, problem)
        return PosteriorInverter(problem=first.problem, method=self, first=first)


class PosteriorInverter(AbstractExactInverter):
    """From `Posterior.fit` or `Posterior.refine`.

    Attributes:
        problem: The problem it inverts.
        method: Its settings.
        first: The inverter at whose samples the chains start, if any.
        logs: Empty.
    """

    problem: InverseProblem
    method: Posterior
    first: AbstractInverter | None = None
    logs: tuple[TrainLog, ...] = ()

    @property
    def _inner(self) -> AbstractInverter | None:
        return self.first

    def _infer(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        start_keys, keys = split_each(keys)
        if self.first is None:
            starts = self._from_prior(start_keys)
        else:
            starts = self._starts(self.first._invert(observations, start_keys), start_keys)
        alone = eqx.tree_at(lambda i: i.first, self, None, is_leaf=lambda x: x is None)
        rows = observations, starts, jr.key_data(keys)
        # NumPyro factors mass matrices by LAPACK.
        estimate = in_calls(_block, alone, rows, sensitivities=True, one_by_one=True)
        return estimate if is_traced(estimate) else self._diagnosed(estimate)

    def _from_prior(self, keys: Array) -> Float[Array, "batch sample parameter"]:
        shape = (max(_FROM_PRIOR, self.method.chains), self.problem.parameters.size)
        return jax.vmap(lambda key: jr.uniform(key, shape, jnp.float64))(keys)

    def _starts(self, estimate: Estimate, keys: Array) -> Float[Array, "batch sample parameter"]:
        # The spread of the samples sets the first steps, so one would not do.
        least = max(2, self.method.chains)
        if estimate.samples is None or np.shape(estimate.samples)[1] < least:
            raise ValueError(
                f"`start` must give at least {least} samples, one for each of the `chains`. "
                "Set its `draws` higher."
            )
        samples = jnp.asarray(estimate.samples, jnp.float64)
        unit = jnp.asarray(self.problem.parameters.to_unit(samples))
        # Where the first inverter has no spread to give, chains start from the prior.
        prior = jax.vmap(lambda key: jr.uniform(key, unit.shape[1:], unit.dtype))(keys)
        return jnp.where(jnp.isfinite(unit), unit, prior)

    def _sample(
        self, observations: Observation, starts: Float[Array, "batch sample parameter"], keys: Array
    ) -> Estimate:
        objective = Objective(self.problem, Coordinates.UNIT, Penalty.NONE, coupled=True)
        run = partial(_run_chains, objective, self.method)
        x = jax.vmap(run)(observations, starts, keys)
        z = jax.nn.sigmoid(x).reshape(len(keys), -1, x.shape[-1])
        return jax.vmap(partial(estimate_from_cloud, self.problem))(jnp.mean(z, axis=1), z)

    def _diagnosed(self, estimate: Estimate) -> Estimate:
        """The estimate with what its chains say about each other."""
        unit = np.asarray(self.problem.parameters.to_unit(np.asarray(estimate.samples)))
        chains = unit.reshape(len(unit), self.method.chains, self.method.draws, -1)
        diagnostics, mixed = mixing(chains)
        status = np.where(mixed, estimate.status, int(EstimateStatus.NOT_MIXED))
        return eqx.tree_at(
            lambda e: (e.status, e.diagnostics),
            estimate,
            (status, diagnostics),
            is_leaf=lambda x: x is None,
        )


@compiled
def _block(inverter: PosteriorInverter, rows: Any, count: Any, lanes: int) -> Estimate:
    del lanes
    # A row that is not meant repeats the last that is.
    observations, starts, key_data = rows
    arrays, static = eqx.partition(inverter, eqx.is_array)

    # Under jit it is traced once, for its shape and for its work.
    @jax.jit
    def sample(
        arrays: PosteriorInverter, observations: Observation, starts: Array, key_data: Array
    ) -> Estimate:
        keys = jr.wrap_key_data(key_data)
        return eqx.combine(arrays, static)._sample(observations, starts, keys)

    work = partial(sample, arrays, observations, starts, key_data)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(work))
    return lax.cond(count > 0, work, lambda: nothing)


def _run_chains(
    objective: Objective, method: Posterior, observation: Observation, starts: Array, key: Array
) -> Float[Array, "chain draw parameter"]:
    from numpyro.infer import NUTS

    start_key, key = jr.split(key)
    space = objective.problem.parameters
    spread = logit(starts)
    start = spread[jr.choice(start_key, spread.shape[0], (method.chains,), replace=False)]
    kernel = NUTS(
        potential_fn=_potential(objective, observation),
        inverse_mass_matrix=jnp.cov(spread.T).reshape(space.size, space.size)
        + 1e-6 * jnp.eye(space.size),
        dense_mass=True,
        target_accept_prob=method.target_acceptance,
        max_tree_depth=method.depth,
    )
    state = kernel.init(jr.split(key, method.chains), method.warmup, start, (), {})

    def step(state: Any, _: None) -> tuple[Any, Array]:
        state = kernel.sample(state, (), {})
        return state, state.z

    state, _ = lax.scan(lambda s, _: (step(s, None)[0], None), state, None, method.warmup)
    _, draws = lax.scan(step, state, None, method.draws)
    return jnp.swapaxes(draws, 0, 1)


def _potential(objective: Objective, observation: Observation) -> Callable[[Array], Array]:
    """Negative log posterior of logits; many of them at once become one ensemble."""
    # Everything traced goes in as an argument: the rule for batches sees nothing else.
    arrays, static = eqx.partition(objective, eqx.is_array)
    evaluate = _evaluation(static)
    one = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], observation)

    def potential(x: Array) -> Array:
        fixed = lax.stop_gradient(x)
        value, gradient = evaluate(arrays, fixed[None], one)
        # Its derivative is the gradient that comes with the value.
        return value[0] + gradient[0] @ (x - fixed)

    return potential


def _evaluation(static: Objective) -> Callable[..., tuple[Array, Array]]:
    # The sampler mentions it some forty times; under jit it is traced once.
    @jax.jit
    def traced_once(arrays: Objective, x: Array, observations: Observation) -> tuple[Array, Array]:
        objective = eqx.combine(arrays, static)
        z = jax.nn.sigmoid(x)
        local = objective.misfit(z, observations, jnp.asarray(len(x)))
        # The uniform prior of z is a logistic one of its logit.
        value = local.value + jnp.sum(jax.nn.softplus(x) + jax.nn.softplus(-x), axis=1)
        gradient = local.gradient * z * (1.0 - z) + 2.0 * z - 1.0
        # Where the solver fails there is no posterior: a wall.
        good = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient), axis=1)
        return jnp.where(good, value, jnp.inf), jnp.where(good[:, None], gradient, 0.0)

    @jax.custom_batching.custom_vmap
    def evaluate(arrays: Objective, x: Array, observations: Observation) -> tuple[Array, Array]:
        return traced_once(arrays, x, observations)

    @evaluate.def_vmap
    def _(
        size: int, batched: Any, arrays: Objective, x: Array, observations: Observation
    ) -> tuple[Any, Any]:
        def flat(leaf: Array, is_batched: bool) -> Array:
            whole = leaf if is_batched else jnp.broadcast_to(leaf[None], (size, *leaf.shape))
            return whole.reshape(-1, *whole.shape[2:])

        joined = jax.tree.map(flat, (x, observations), tuple(batched[1:]))
        results = evaluate(arrays, *joined)
        return jax.tree.map(lambda y: y.reshape(size, -1, *y.shape[1:]), results), (True, True)

    return evaluate
