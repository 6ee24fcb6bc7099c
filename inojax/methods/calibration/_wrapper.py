"""What is common to inverters that are put around another one."""

import abc
from typing import ClassVar

import numpy as np
from equinox import AbstractVar
from jaxtyping import Array, Float, Int, Key

from ..._estimate import Estimate
from ..._inverse_problem import InverseProblem
from ..._observation import Observation
from ...train import TrainLog
from .._inverter import AbstractInverter
from .._method import AbstractMethod


class AbstractWrapper(AbstractInverter):
    """An inverter around another one, which it is in all that it does not write itself.

    Subclasses have a field `inner`, and write `_around`.

    Attributes:
        inner: The inverter that it is put around.
    """

    _wraps: ClassVar[bool] = True

    inner: AbstractVar[AbstractInverter]

    @classmethod
    @abc.abstractmethod
    def _around(cls, inner: AbstractInverter) -> "AbstractWrapper":
        """One around another inverter, with arrays that are yet to be filled in."""

    @property
    def problem(self) -> InverseProblem:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The problem it inverts."""
        return self.inner.problem

    @property
    def method(self) -> AbstractMethod | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The method that made the inner inverter."""
        return self.inner.method

    @property
    def settings(self) -> str:
        """The method that made the inner inverter, as text."""
        return self.inner.settings

    @property
    def logs(self) -> tuple[TrainLog, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Logs of the inner inverter's training, empty after loading."""
        return self.inner.logs

    @property
    def _inner(self) -> AbstractInverter:
        return self.inner

    @property
    def _is_exact(self) -> bool:
        return self.inner._is_exact

    @property
    def _is_corrected(self) -> bool:
        return self.inner._is_corrected

    def _check_loaded(self) -> None:
        self.inner._check_loaded()

    def _unfamiliar(self, observations: Observation) -> Int[np.ndarray, "*batch"]:
        return self.inner._unfamiliar(observations)

    def _surrogate_readings(
        self, unit_value: Float[np.ndarray, "batch parameter"], observations: Observation
    ) -> Float[np.ndarray, "batch reading channel"] | None:
        return self.inner._surrogate_readings(unit_value, observations)

    def _invert(self, observations: Observation, keys: Key[Array, " batch"]) -> Estimate:
        return self.inner._invert(observations, keys)
