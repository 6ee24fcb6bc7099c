"""What the methods that train networks share: their data, their runs, their way back from disk."""

import abc
import math
import os
import pathlib
from typing import ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import equinox as eqx
import jax
import jax.random as jr
from jaxtyping import Array, Key

from ..._inverse_problem import InverseProblem
from ..._x64 import in_x32
from ...data import Dataset, simulate
from ...train import Trainer, one_cycle
from .._base import AbstractInverter
from .._storage import load
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


class AbstractAmortizedMethod(eqx.Module, Generic[_Inverter]):
    """A method that trains once on simulations and then inverts any observation.

    To add one, subclass it with its hyperparameters as fields; write `_fit`, which trains, and
    `_untrained`, which builds the same inverter with arbitrary weights. One that measures scales of
    its own sets `_scales` to False and does without those of the session; one that can do without
    held-out simulations says so by `_holds_out`.
    """

    _scales: ClassVar[bool] = True

    @property
    def _holds_out(self) -> bool:
        return True

    @abc.abstractmethod
    def _fit(self, session: TrainingSession, *, key: Key[Array, ""]) -> _Inverter:
        """Train on the simulations of a session."""

    @abc.abstractmethod
    def _untrained(self, problem: InverseProblem, encoder: Encoder) -> _Inverter:
        """An inverter of the right shapes, to load weights into."""

    @in_x32
    def fit(
        self,
        problem: InverseProblem,
        dataset: Dataset | None = None,
        *,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = True,
        mesh: jax.sharding.Mesh | None = None,
        accept: bool = False,
        key: Key[Array, ""],
    ) -> _Inverter:
        """Train the networks.

        Args:
            problem: The inverse problem.
            dataset: Simulations of it; 20,000 are made if there are none.
            checkpoint: Folder to save states in and resume from.
            progress: Whether to show progress bars.
            mesh: Devices to spread batches over.
            accept: Whether to accept simulations of equations that are written in another way.
                Some are solved again, and where they differ they are refused all the same.
            key: Source of randomness.

        Returns:
            The inverter.

        Raises:
            ValueError: If the data set is not of this problem or too small, if its readings have no
                finite value or are too large or small for single precision, or if a total variation
                couples its parameters.
            RuntimeError: If training diverges.
        """
        problem.check_independent()
        data_key, fit_key = jr.split(key)
        if dataset is None:
            dataset = simulate(problem, _SIMULATIONS, progress=progress, key=data_key)
        encoder, data = prepare(
            problem, dataset, scaled=self._scales, hold_out=self._holds_out, accept=accept
        )
        session = TrainingSession(problem, encoder, data, checkpoint, progress, mesh)
        return self._fit(session, key=fit_key)

    @in_x32
    def load(
        self, folder: str | os.PathLike[str], problem: InverseProblem, *, accept: bool = False
    ) -> _Inverter:
        """Read a trained inverter back.

        Args:
            folder: Where `save` put it.
            problem: The problem it was trained for.
            accept: Whether to accept a problem whose functions are written in another way, if a
                few trajectories and readings are the same.

        Returns:
            The inverter; its estimates have the same bits as before it was saved.

        Raises:
            FileNotFoundError: If there is nothing in the folder.
            ValueError: If it is of another problem, method or settings.
        """
        blank = self._untrained(problem, Encoder.blank(problem))
        return load(blank, folder, problem, accept=accept)
