"""Inverters of known quality, and simulations of their problem in closed form."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from inojax import Dataset
from inojax._inverse_problem import InverseProblem
from inojax.methods import AbstractNetworkInverter
from inojax.methods._estimates import estimate_from_cloud
from tests.helpers import HIGHEST, LINEAR_NOISE, LINEAR_TIMES, LOWEST, SLOPES

WIDTH = HIGHEST - LOWEST
DRAWS = 128


class Toy(AbstractNetworkInverter):
    """The posterior of `linear_gaussian` without the prior's ends, made wrong on purpose."""

    problem: InverseProblem
    # Arrays, so that all toys share what is compiled.
    shrink: np.ndarray = eqx.field(default=1.0, converter=np.float32)
    bias: np.ndarray = eqx.field(default=0.0, converter=np.float32)
    draws: int = eqx.field(static=True, default=DRAWS)
    method: None = None
    logs: tuple = ()

    def _evaluate(self, observations, keys):
        return jax.vmap(self._invert_one)(observations, keys)

    def _invert_one(self, observation, key):
        mask, times = observation.mask[:, :, None], observation.times[:, None, None]
        rows = (mask * times * jnp.asarray(SLOPES, jnp.float32)[None]).reshape(-1, 2)
        covariance = jnp.linalg.inv(rows.T @ rows)
        best = covariance @ rows.T @ (observation.mask * observation.values).ravel()
        mean = (best - LOWEST) / WIDTH + self.bias * jnp.array([1.0, 0.0])
        root = jnp.linalg.cholesky(covariance) * (LINEAR_NOISE / WIDTH)
        cloud = mean[None] + self.shrink * jr.normal(key, (self.draws, 2)) @ root.T
        return estimate_from_cloud(self.problem, jnp.clip(mean, 0.0, 1.0), jnp.clip(cloud, 0, 1))


def simulations(n, seed):
    """Solutions in closed form, away from the prior's ends, which the toy does not know."""
    unit = np.random.default_rng(seed).uniform(0.25, 0.75, (n, 2))
    thetas = LOWEST + WIDTH * unit
    states = LINEAR_TIMES[None, :, None] * (thetas @ SLOPES.T)[:, None, :]
    return Dataset(
        thetas, unit, times=LINEAR_TIMES, trajectories=states, status=np.zeros(n, np.int32)
    )


def measured(problem, dataset):
    @jax.jit
    def measure(states, thetas, keys):
        return jax.vmap(lambda y, t, k: problem.observe(y, t, key=k))(states, thetas, keys)

    states, thetas = (np.asarray(x, np.float32) for x in (dataset.trajectories, dataset.thetas))
    observations = measure(states, thetas, jr.split(jr.key(77), len(dataset)))
    return jax.tree.map(np.asarray, observations)
