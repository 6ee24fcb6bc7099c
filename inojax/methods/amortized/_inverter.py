"""What inverters that read observations through slots do, however these are written."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, Bool, Int, Key

from ..._estimate import Estimate
from ..._observation import Observation
from ..._unfamiliar import Unfamiliar
from ..._x64 import in_x32, is_traced
from .._inverter import AbstractInverter
from ._familiar import Familiar
from ._slots import Arranged, Slots, is_between


class AbstractAmortizedInverter(AbstractInverter):
    """An inverter of trained networks, which see readings in slots.

    On the host readings find their slots, and their scale, in double precision; what has no slot
    is refused, and what training did not meet is told by the trust ticket. Inside a transformation
    an observation with a reading that has no slot, or has to share one, has NaN for an estimate.

    To add one, subclass it with its fields and write `_slots`, `_inputs` and `_infer`.

    Attributes:
        familiar: Which readings are missing in training.
    """

    familiar: AbstractVar[Familiar]

    @property
    @abc.abstractmethod
    def _slots(self) -> Slots:
        """Where readings go."""

    @abc.abstractmethod
    def _inputs(self, arranged: Arranged) -> Any:
        """Scaled float32 inputs of a batch, in NumPy where its readings are."""

    @abc.abstractmethod
    def _infer(self, inputs: Any, keys: Key[Array, " batch"]) -> Estimate:
        """Evaluate the networks on a batch of inputs; pure, traceable."""

    @in_x32
    def _invert(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        if not is_traced(self, observations, keys):
            return _compiled(self, self._inputs(self._slots.arrange(observations)), keys)
        arranged = jax.vmap(self._slots.arranged)(observations)
        return _blanked(self._infer(self._inputs(arranged), keys), self._fits(arranged))

    def _fits(self, arranged: Arranged) -> Bool[Array, " batch"]:
        """Which of traced observations have an estimate."""
        return jnp.asarray(arranged.fits)

    def _unfamiliar(self, observations: Observation) -> Int[np.ndarray, "*batch"]:
        """In what observations are unlike those of training, as `Unfamiliar`."""
        single = np.ndim(observations.times) == 1
        if single:
            observations = jax.tree.map(lambda x: np.asarray(x)[None], observations)
        arranged = self._slots.arrange(observations)
        there = np.asarray(arranged.mask).any(axis=-1)
        between = is_between(np.asarray(arranged.place)) & there
        found = (
            (Unfamiliar.MORE_ROWS, there.sum(axis=(1, 2)) > self._slots.count),
            (Unfamiliar.BETWEEN_TIMES, between.any(axis=(1, 2))),
            (Unfamiliar.FEWER_READINGS, self.familiar.lacks(self._slots, arranged)),
        )
        flags = np.asarray(sum(int(flag) * np.asarray(where, int) for flag, where in found))
        return np.asarray(flags[0]) if single else flags


@eqx.filter_jit
def _compiled(
    inverter: AbstractAmortizedInverter, inputs: Any, keys: Key[Array, " batch"]
) -> Estimate:
    return inverter._infer(inputs, keys)


def _blanked(estimate: Estimate, fits: Bool[Array, " batch"]) -> Estimate:
    """NaN for estimates of observations that do not fit."""

    def blank(x: Array) -> Array:
        wanted = fits.reshape(-1, *(1,) * (x.ndim - 1))
        return jnp.where(wanted, x, jnp.nan) if jnp.issubdtype(x.dtype, jnp.inexact) else x

    return jax.tree.map(blank, estimate)
