"""What the methods that train networks share: their data, their runs, their way back from disk."""

import abc
import math
import os
import pathlib
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Key

from ..._inverse_problem import InverseProblem
from ..._x64 import in_x32
from ...data._simulate import simulate
from ...train._loop import Trainer
from ...train._schedule import one_cycle
from .._inverter import AbstractInverter
from .._method import AbstractMethod, FitArguments
from ._encoding import Encoder
from ._training_data import SimulatedData, identity, prepare

_Inverter = TypeVar("_Inverter", bound=AbstractInverter)

_SIMULATIONS = 20_000
# Often enough to see progress, seldom enough not to slow it.
_CHUNKS = 20


@runtime_checkable
class Schedule(Protocol):
    """Settings of a training stage; any object that has these two will do."""

    @property
    def steps(self) -> int:
        """Optimizer steps."""
        ...

    @property
    def learning_rate(self) -> float:
        """Peak learning rate."""
        ...


class TrainingSession(eqx.Module):
    """What `fit` was called with, ready for the networks.

    Attributes:
        problem: The inverse problem.
        encoder: Scales measured on the simulations.
        data: The simulations.
        checkpoint: Folder to save states in and resume from.
        progress: Whether to show progress bars.
        mesh: Devices to spread batches over.
    """

    problem: InverseProblem
    encoder: Encoder
    data: SimulatedData
    checkpoint: str | os.PathLike[str] | None
    progress: bool
    mesh: jax.sharding.Mesh | None

    def trainer(self, label: str, schedule: Schedule, *, depends_on: object) -> Trainer:
        """The training loop of one stage.

        Args:
            label: Name of the stage, for its progress bar and its folder.
            schedule: Its settings.
            depends_on: Every hyperparameter that its result depends on; a checkpoint made
                with others is refused.

        Returns:
            A loop that is yet to be given model, loss and data.
        """
        return Trainer(
            one_cycle(schedule.learning_rate, schedule.steps),
            schedule.steps,
            math.ceil(schedule.steps / _CHUNKS),
            None if self.checkpoint is None else pathlib.Path(self.checkpoint) / label,
            label=label,
            progress=self.progress,
            mesh=self.mesh,
            identity=identity(self.problem, self.data, depends_on),
        )


class AbstractAmortizedMethod(AbstractMethod[_Inverter]):
    """A method that trains once on simulations and then inverts any observation.

    To add one, subclass it with its hyperparameters as fields; write `_train`, and
    `_untrained`, which builds the same inverter with arbitrary weights. One that measures scales of
    its own sets `_scales` to False and does without those of the session; one that can do without
    held-out simulations says so by `_holds_out`.

    Example:
        >>> isinstance(ij.methods.INO(), ij.methods.AbstractAmortizedMethod)
        True
    """

    _trains: ClassVar[bool] = True
    _scales: ClassVar[bool] = True

    @property
    def _holds_out(self) -> bool:
        return True

    @abc.abstractmethod
    def _train(self, session: TrainingSession, *, key: Key[Array, ""]) -> _Inverter:
        """Train on the simulations of a session."""

    @abc.abstractmethod
    def _untrained(self, problem: InverseProblem, encoder: Encoder) -> _Inverter:
        """An inverter of the right shapes, to load weights into."""

    @in_x32
    def _fit(self, arguments: FitArguments) -> _Inverter:
        problem, dataset = arguments.problem, arguments.dataset
        problem.check_independent()
        assert arguments.key is not None
        data_key, train_key = jr.split(arguments.key)
        if dataset is None:
            dataset = simulate(problem, _SIMULATIONS, progress=arguments.progress, key=data_key)
        encoder, data = prepare(
            problem,
            dataset,
            scaled=self._scales,
            hold_out=self._holds_out,
            accept=arguments.accept,
        )
        session = TrainingSession(
            problem, encoder, data, arguments.checkpoint, arguments.progress, arguments.mesh
        )
        return self._train(session, key=train_key)

    def _blank(self, problem: InverseProblem) -> _Inverter:
        return self._untrained(problem, Encoder.blank(problem))

    def _warn_unused(self, **given: Any) -> None:
        del given
