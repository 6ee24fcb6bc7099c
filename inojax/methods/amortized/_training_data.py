"""Simulations as training steps use them."""

import functools
import hashlib
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Key

from ..._inverse_problem import InverseProblem
from ...data._compare import compare
from ...data._dataset import Dataset
from ...data._manifest import describe_measurement, describe_problem
from ...data._second_look import few_of, remember, settle, some_of
from .._checks import describe_settings
from ._encoding import Encoder, clean_readings

_HELD_OUT = 512
# As many simulations show how large states are.
_ENOUGH = 512
# Squares aside, single precision leaves this room for readings, their noise and their differences.
_SMALLEST, _LARGEST = 1e-30, 1e30


class SimulatedData(NamedTuple):
    """Simulations as the training steps use them, float32.

    Attributes:
        z: Unit coordinates of the training simulations.
        states: Their trajectories in physical units; a state that is not read, and too large or
            small for single precision, in a unit of its own, see `units_of`.
        held_z: Unit coordinates of the held-out simulations.
        held_states: Their trajectories.
    """

    z: Float[Array, "n parameter"]
    states: Float[Array, "n time state"]
    held_z: Float[Array, "held parameter"]
    held_states: Float[Array, "held time state"]


def check_dataset(problem: InverseProblem, dataset: Dataset, *, accept: bool = False) -> None:
    """Refuse simulations that are not of a problem.

    Args:
        problem: The inverse problem.
        dataset: Simulations of it.
        accept: Whether to accept those of a problem that was written in another way, if some of
            them, solved again, are the same.

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
    _check_origin(problem, dataset, accept)


def prepare(
    problem: InverseProblem,
    dataset: Dataset,
    *,
    scaled: bool = True,
    hold_out: bool = True,
    accept: bool = False,
) -> tuple[Encoder, SimulatedData]:
    """Measure scales and put the simulations on the device in float32.

    Args:
        problem: The inverse problem.
        dataset: Simulations of it.
        scaled: Whether scales are needed; measuring them takes seconds.
        hold_out: Whether a tenth, at most 512, is held out; else all are for training.
        accept: As in `check_dataset`.

    Returns:
        The encoder, and training and held-out simulations.

    Raises:
        ValueError: If the data set is not of this problem or has too few usable simulations, or if
            readings are not finite, or too large or small for single precision.
    """
    check_dataset(problem, dataset, accept=accept)
    usable = dataset.usable()
    if len(usable) < 10:
        raise ValueError(
            f"`dataset` has {len(usable)} usable simulations; at least 10 are needed to hold "
            "some out."
        )
    held = min(_HELD_OUT, len(usable) // 10)
    train, held_out = usable.split(held) if hold_out else (usable, None)
    unit = units_of(problem, train)
    encoder = Encoder.fit(problem, train, unit) if scaled else Encoder.blank(problem)
    z, states = float32(train.unit), _divided(train, unit)
    if held_out is None:
        return encoder, SimulatedData(z, states, z[:0], states[:0])
    held_z, held_states = float32(held_out.unit), _divided(held_out, unit)
    return encoder, SimulatedData(z, states, held_z, held_states)


def units_of(problem: InverseProblem, dataset: Dataset) -> Float[np.ndarray, " state"]:
    """What states are divided by to be held in single precision.

    Args:
        problem: The inverse problem.
        dataset: Usable simulations of it.

    Returns:
        1, or for a state that is too large or too small a power of two near its largest value.

    Raises:
        ValueError: If such a state is read, or what an observable makes of states is as large or
            small, or not finite.
    """
    every = max(1, len(dataset) // _ENOUGH)
    some = dataset.gathered(np.float64, every=every)
    peak = np.abs(some).max(axis=(0, 1))
    wrong = (peak > 0.0) & ((peak < _SMALLEST) | (peak > _LARGEST))
    names = problem.model.states
    read = np.array([name in problem.channels for name in names])
    if problem.sensors.observable is not None:
        read[:] = True
        clean = clean_readings(problem, some, dataset.thetas[::every])
        values = np.abs(clean).max(axis=(0, 1))
        names = (*names, *problem.channels)
        peak, read = np.append(peak, values), np.append(read, np.ones(len(values), bool))
        wrong = np.append(wrong, (values > 0.0) & ((values < _SMALLEST) | (values > _LARGEST)))
    for index in np.flatnonzero(wrong & read):
        raise ValueError(
            f"`problem` {problem.name!r} has values of {names[index]!r} up to {peak[index]:.3g}, "
            f"but networks run in single precision, which is good for {_SMALLEST:g} to "
            f"{_LARGEST:g}. Choose another unit for it."
        )
    count = some.shape[2]
    exponent = np.round(np.log2(np.where(peak > 0.0, peak, 1.0)))[:count]
    return np.where(wrong[:count], np.exp2(exponent), 1.0)


def _divided(dataset: Dataset, unit: Float[np.ndarray, " state"]) -> Float[Array, "n time state"]:
    if np.all(unit == 1.0):
        return float32(dataset.gathered())
    blocks = [np.asarray(block / unit, np.float32) for block in dataset.blocks()]
    return float32(np.concatenate(blocks))


def _check_origin(problem: InverseProblem, dataset: Dataset, accept: bool) -> None:
    """Refuse simulations whose manifest says that they are of another problem."""
    if not dataset.manifest:
        return
    wanted = describe_problem(problem)
    stored = {name: dataset.manifest[name] for name in wanted if name in dataset.manifest}
    settle(
        # A data set built by hand may come with part of a manifest.
        compare(stored, {name: wanted[name] for name in stored}),
        functools.partial(some_of, dataset),
        problem,
        accept=accept,
        beginning=f"`dataset` is not of problem {problem.name!r}",
        remedy="Make one with `simulate(problem, n, key=key)`.",
    )
    if wanted.keys() <= dataset.manifest.keys():
        remember(wanted, few_of(dataset))


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
        The same with fresh values from the prior where `observation_parameters` says so.
    """
    free = problem.observation_parameters
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


def identity(problem: InverseProblem, data: SimulatedData, settings: object) -> str:
    """What a training run depends on beyond its key, as a digest.

    Args:
        problem: The inverse problem.
        data: Its simulations.
        settings: Hyperparameters.

    Returns:
        A line for each part, with its digest, for `Trainer.identity`.
    """
    problems = describe_problem(problem) | describe_measurement(problem)
    # Another version of JAX shows in the programs, where it matters.
    parts = {name: _exact(part) for name, part in problems.items() if name != "jax"}
    parts["settings"] = describe_settings(settings).encode()
    simulations = (data.z, data.states[:: max(1, len(data.states) // 256)])
    parts["simulations"] = b"".join(np.ascontiguousarray(x).tobytes() for x in simulations)
    return "\n".join(
        f"{name} {hashlib.sha256(content).hexdigest()[:16]}" for name, content in parts.items()
    )


def _exact(part: Any) -> bytes:
    """A part of a problem's identity without values that another machine rounds otherwise."""
    if isinstance(part, dict):
        part = {name: one for name, one in part.items() if name != "values"}
    return json.dumps(part).encode()
