"""Networks trained at the guess, one for each set of readings, which they then follow at once."""

import dataclasses
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Key

import inojax as ij
from experiments.common.evaluation import Row
from experiments.common.runner import stage
from inojax.methods import PINN, BiLO, BiLOInverter, PINNInverter


class ParameterPaths(NamedTuple):
    """What became of some networks.

    Attributes:
        inverter: The first one at the guess.
        solutions: What all of them found, as a batch.
        row: Times of the training and of each inversion, without compilation, and the settings.
    """

    inverter: BiLOInverter | PINNInverter
    solutions: Any
    row: Row


def parameter_paths(
    label: str,
    method: BiLO | PINN,
    problem: ij.InverseProblem,
    readings: ij.Observation,
    *,
    key: Key[Array, ""],
) -> ParameterPaths:
    """Train a network for each set of readings and let all of them follow theirs.

    Args:
        label: What to call it on the screen.
        method: Its settings, the guess included.
        problem: What the readings are inverted as.
        readings: The sets, as a batch.
        key: Source of weights and of points.

    Returns:
        The networks.

    Raises:
        RuntimeError: If a training diverges.
    """
    seeds = len(readings.times)
    # One for the structure: inside of a transformation the problem is not traced, but weights are.
    made: list[Any] = []

    def train(key: Array) -> Any:
        made.append(method.fit(problem, key=key))
        return made[-1].network, made[-1].functions, made[-1].losses

    def follow(network: Any, functions: Any, observation: ij.Observation, key: Array) -> Any:
        start = dataclasses.replace(inverter, network=network, functions=functions)
        return start.follow(observation, key=key)

    fit_key, follow_key = jr.split(key)
    stage(f"{label}, {method.pretraining} steps at the guess")
    with jax.enable_x64(False):
        (networks, functions, losses), fit_seconds = _timed(train, jr.split(fit_key, seeds))
        if not np.isfinite(np.asarray(losses)[:, -1]).all():
            raise RuntimeError(f"{label}: a residual is no longer finite after the pretraining.")
        network, function, loss = jax.tree.map(lambda x: x[0], (networks, functions, losses))
        inverter = dataclasses.replace(
            made[0], network=network, functions=function, losses=np.asarray(loss)
        )
        stage(f"{label}, {method.steps} steps for {seeds} sets of readings at once")
        batch = jax.tree.map(jnp.asarray, readings)
        solutions, seconds = _timed(follow, networks, functions, batch, jr.split(follow_key, seeds))
    row = {
        "fit_seconds": fit_seconds / seeds,
        "seconds": seconds / seeds,
        "settings": inverter.settings,
        "residual_loss": float(np.mean(np.asarray(losses)[:, -1])),
    }
    return ParameterPaths(inverter, solutions, row)


def _timed(function: Any, *arguments: Any) -> tuple[Any, float]:
    """What a function gives for a batch of arguments, and the seconds of that once compiled."""
    compiled = jax.jit(jax.vmap(function)).lower(*arguments).compile()
    began = time.perf_counter()
    found = jax.block_until_ready(compiled(*arguments))
    return found, time.perf_counter() - began
