"""Inversions of simulations that an inverter has not seen, to learn how far it can be trusted."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..._estimate import Estimate
from ..._inverse_problem import InverseProblem
from ..._observation import Observation
from ...data._dataset import Dataset
from .._inverter import AbstractInverter, invert_batch
from ..amortized._training_data import check_dataset

# With fewer, the coverage of 90 % intervals that one correction happens to have scatters by more
# than 3 % around its mean.
FEWEST = 100
_BATCH = 256


class HeldOut(NamedTuple):
    """A block of held-out simulations, measured and inverted.

    Attributes:
        rows: Their numbers in the data set. The last block repeats some, to be of one size.
        size: How many of them are meant.
        observations: What was measured.
        estimate: What the inverter makes of it.
    """

    rows: Int[np.ndarray, " case"]
    size: int
    observations: Observation
    estimate: Estimate

    @property
    def samples(self) -> Float[np.ndarray, "case particle parameter"]:
        """Samples of the estimate."""
        assert self.estimate.samples is not None  # checked before
        return np.asarray(self.estimate.samples)


def usable_cases(inverter: AbstractInverter, dataset: Dataset, *, accept: bool = False) -> Dataset:
    """The simulations that succeeded; `accept` is as in `check_dataset`.

    Raises:
        ValueError: If the data set is of another problem, or too small, or if its parameters are
            coupled in the prior.
    """
    inverter.problem.check_independent()
    check_dataset(inverter.problem, dataset, accept=accept)
    usable = dataset.usable()
    check_enough(len(usable), FEWEST, "for calibrated intervals")
    return usable


def check_enough(count: int, needed: int, reason: str) -> None:
    """Raise a ValueError if there are fewer simulations than needed."""
    if count < needed:
        raise ValueError(
            f"`dataset` has {count} usable simulations; at least {needed} are needed {reason}. "
            "Make more with `simulate`, with another key than those that the inverter was "
            "trained on."
        )


def invert_held_out(
    inverter: AbstractInverter, usable: Dataset, *, key: Key[Array, ""]
) -> Iterator[HeldOut]:
    """Measure and invert simulations, a block at a time."""
    observe_key, invert_key = jr.split(key)
    keys = jr.split(observe_key, len(usable))
    start = 0
    for block in usable.blocks(_BATCH):
        # The last block is filled up with its own cases, since another size is compiled anew.
        some = np.arange(_BATCH) % len(block)
        rows = start + some
        observations = _observe(inverter.problem, block[some], usable.thetas[rows], keys[rows])
        estimate = invert_batch(inverter, observations, key=jr.fold_in(invert_key, start))
        _check_samples(estimate)
        yield HeldOut(rows, len(block), observations, estimate)
        start += len(block)


def _check_samples(estimate: Estimate) -> None:
    """Raise a ValueError unless there are samples to take intervals of."""
    samples = estimate.samples
    if samples is None or np.shape(samples)[-2] < 3:
        count = 0 if samples is None else np.shape(samples)[-2]
        raise ValueError(
            f"`inverter` gives {count} samples with each estimate; at least 3 are needed. Use a "
            "method that gives samples, or set its `draws` higher."
        )
    bad = int(np.sum(~np.isfinite(np.asarray(samples)).all(axis=(1, 2))))
    if bad:
        raise ValueError(
            f"`inverter` gives samples that are not finite for {bad} of {len(samples)} held-out "
            "simulations. Check its training with `inverter.logs`, or raise `max_steps` where it "
            "minimizes."
        )


def _observe(
    problem: InverseProblem,
    states: Float[np.ndarray, "case time state"],
    thetas: Float[np.ndarray, "case parameter"],
    keys: Key[Array, " case"],
) -> Observation:
    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, _measure(problem, states, thetas, keys))


@eqx.filter_jit
def _measure(
    problem: InverseProblem, states: Any, thetas: Any, keys: Key[Array, " case"]
) -> Observation:
    measure = jax.vmap(lambda y, theta, k: problem.observe(y, theta, key=k))
    return measure(jnp.asarray(states), jnp.asarray(thetas), keys)
