"""Simulations as training steps use them."""

import hashlib
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from .._inverse_problem import InverseProblem
from ..data import Dataset, describe_problem, differences
from ._checks import describe_settings
from ._encoding import Encoder

_HELD_OUT = 512


class SimulatedData(NamedTuple):
    """Simulations as the training steps use them, float32.

    Attributes:
        z: Unit coordinates of the training simulations.
        states: Their trajectories in physical units.
        held_z: Unit coordinates of the held-out simulations.
        held_states: Their trajectories.
    """

    z: Float[Array, "n parameter"]
    states: Float[Array, "n time state"]
    held_z: Float[Array, "held parameter"]
    held_states: Float[Array, "held time state"]


def check_dataset(problem: InverseProblem, dataset: Dataset) -> None:
    """Refuse simulations that are not of a problem.

    Args:
        problem: The inverse problem.
        dataset: Simulations of it.

    Raises:
        ValueError: If shapes or manifest are those of another problem.
    """
    shape = (len(problem.model.times), len(problem.model.states))
    if dataset.shape[1:] != shape or dataset.unit.shape[1] != problem.parameters.size:
        raise ValueError(
            f"`dataset` holds trajectories of shape {dataset.shape[1:]} with "
            f"{dataset.unit.shape[1]} parameters, but problem {problem.name!r} has {shape} and "
            f"{problem.parameters.size}. Make one with `simulate(problem, n, key=key)`."
        )
    _check_origin(problem, dataset)


def prepare(
    problem: InverseProblem, dataset: Dataset, *, scaled: bool = True, hold_out: bool = True
) -> tuple[Encoder, SimulatedData]:
    """Measure scales and put the simulations on the device in float32.

    Args:
        problem: The inverse problem.
        dataset: Simulations of it.
        scaled: Whether scales are needed; measuring them takes seconds.
        hold_out: Whether a tenth, at most 512, is held out; else all are for training.

    Returns:
        The encoder, and training and held-out simulations.

    Raises:
        ValueError: If the data set is not of this problem or has too few usable simulations.
    """
    check_dataset(problem, dataset)
    usable = dataset.usable()
    if len(usable) < 10:
        raise ValueError(
            f"`dataset` has {len(usable)} usable simulations; at least 10 are needed to hold "
            "some out."
        )
    held = min(_HELD_OUT, len(usable) // 10)
    train, held_out = usable.split(held) if hold_out else (usable, None)
    encoder = Encoder.fit(problem, train) if scaled else Encoder.blank(problem)
    z, states = float32(train.unit), float32(train.gathered())
    if held_out is None:
        return encoder, SimulatedData(z, states, z[:0], states[:0])
    held_z, held_states = float32(held_out.unit), float32(held_out.gathered())
    return encoder, SimulatedData(z, states, held_z, held_states)


def _check_origin(problem: InverseProblem, dataset: Dataset) -> None:
    """Refuse simulations whose manifest says that they are of another problem."""
    wanted = describe_problem(problem)
    stored = {name: dataset.manifest[name] for name in wanted if name in dataset.manifest}
    # A data set built by hand may come without a manifest, or with part of one.
    changed = differences(stored, {name: wanted[name] for name in stored})
    if changed:
        raise ValueError(
            f"`dataset` is not of problem {problem.name!r}; it differs in: {'; '.join(changed)}. "
            "Make one with `simulate(problem, n, key=key)`."
        )


def batch_keys(key: Key[Array, ""], batch: int) -> tuple[Array, Array, Array]:
    """Keys for the three choices that make a training batch.

    Args:
        key: Key of the step.
        batch: Number of examples.

    Returns:
        One key to pick examples, and a key for each example's readings and its thinning.
    """
    pick, observe, lose = jr.split(key, 3)
    return pick, jr.split(observe, batch), jr.split(lose, batch)


def redraw(
    problem: InverseProblem, z: Float[Array, "batch parameter"], *, key: Key[Array, ""]
) -> Float[Array, "batch parameter"]:
    """Draw anew what a solution does not depend on, so that no network learns it by heart.

    Args:
        problem: The inverse problem.
        z: Unit coordinates of simulations.
        key: Key of the step.

    Returns:
        The same with fresh values from the prior where `only_measured` says so.
    """
    free = problem.only_measured
    if not free.any():
        return z
    # Apart from the keys that `batch_keys` splits from the same one.
    return jnp.where(free[None], jr.uniform(jr.fold_in(key, z.shape[0]), z.shape, z.dtype), z)


def float32(array: np.ndarray) -> Float[Array, "..."]:
    """Put host data on the device in the precision of the networks.

    Args:
        array: Any numbers.

    Returns:
        The same in float32.
    """
    return jax.device_put(np.asarray(array, np.float32))


def describe_measurement(problem: InverseProblem) -> str:
    """Sensors and noise of a problem as text, to compare them.

    Args:
        problem: The inverse problem.

    Returns:
        Every setting, in full.
    """
    return eqx.tree_pformat((problem.sensors, problem.noise), short_arrays=False)


def identity(problem: InverseProblem, data: SimulatedData, settings: object) -> str:
    """What a training run depends on beyond its key, as a digest.

    Args:
        problem: The inverse problem.
        data: Its simulations.
        settings: Hyperparameters.

    Returns:
        A digest for `Trainer.identity`.
    """
    digest = hashlib.sha256(describe_measurement(problem).encode())
    digest.update(describe_settings(settings).encode())
    for array in (data.z, data.states[:: max(1, len(data.states) // 256)]):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
