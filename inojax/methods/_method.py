"""What every method is: hyperparameters, and `fit`, which makes an inverter of them."""

import abc
import os
import warnings
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import equinox as eqx
import jax
from jaxtyping import Array, Key

from .._inverse_problem import InverseProblem
from ..data._dataset import Dataset
from ._inverter import AbstractInverter

_Inverter = TypeVar("_Inverter", bound=AbstractInverter)


class FitArguments(NamedTuple):
    """What `fit` was called with.

    Attributes:
        problem: The inverse problem.
        dataset: Simulations of it.
        key: Source of randomness.
        progress: Whether to show progress bars.
        checkpoint: Folder to save states in and resume from.
        mesh: Devices to spread batches over.
        accept: Whether to accept simulations of equations that are written in another way.
    """

    problem: InverseProblem
    dataset: Dataset | None
    key: Key[Array, ""] | None
    progress: bool
    checkpoint: str | os.PathLike[str] | None
    mesh: jax.sharding.Mesh | None
    accept: bool


class AbstractMethod(eqx.Module, Generic[_Inverter]):
    """A method: hyperparameters as fields, and `fit`, which makes an inverter of a problem.

    All methods are fitted and called alike, so that one takes the place of another:

        inverter = method.fit(problem, dataset, key=key)
        estimate = inverter(observation, key=key)

    To add one, subclass it with its hyperparameters as fields, and write `_fit`, `_blank` and
    `_trains`, which says whether it trains anything.

    Example:
        >>> isinstance(ij.methods.LeastSquares(), ij.methods.AbstractMethod)
        True
    """

    _trains: ClassVar[bool]

    def fit(
        self,
        problem: InverseProblem,
        dataset: Dataset | None = None,
        *,
        key: Key[Array, ""] | None = None,
        progress: bool = True,
        checkpoint: str | os.PathLike[str] | None = None,
        mesh: jax.sharding.Mesh | None = None,
        accept: bool = False,
    ) -> _Inverter:
        """Make an inverter of a problem.

        Amortized methods train on simulations, `BiLO` and `PINN` on the equation, and those that
        infer on the real solver do nothing yet.

        Args:
            problem: The inverse problem.
            dataset: Simulations of it. Amortized methods make 20,000 if there are none; others do
                not look at them.
            key: Source of randomness; needed where something is trained.
            progress: Whether to show progress bars.
            checkpoint: Folder to save states of training in and resume from; amortized methods
                only.
            mesh: Devices to spread batches over; amortized methods only.
            accept: Whether to accept simulations of equations that are written in another way.
                Some are solved again, and where they differ they are refused all the same.

        Returns:
            The inverter.

        Raises:
            TypeError: If the method takes problems of another kind.
            ValueError: If `key` is missing where something is trained, or if the data set is not of
                this problem or does not suit the method.
            RuntimeError: If training diverges.

        Warns:
            UserWarning: If `checkpoint` or `mesh` is given to a method that has no use for it.
        """
        if self._trains and key is None:
            raise ValueError(
                f"`key` is needed: {type(self).__name__} draws at random what it trains. Give "
                "`key=jax.random.key(0)`."
            )
        self._warn_unused(checkpoint=checkpoint, mesh=mesh)
        return self._fit(FitArguments(problem, dataset, key, progress, checkpoint, mesh, accept))

    def _warn_unused(self, **given: Any) -> None:
        """Name what this method has no use for; those that use both write their own."""
        unused = [f"`{name}`" for name, value in given.items() if value is not None]
        if unused:
            warnings.warn(
                f"{type(self).__name__} has no use for {' and '.join(unused)}: leave it out. Only "
                "amortized methods, such as INO, train in steps that are kept and spread.",
                stacklevel=3,
            )

    @abc.abstractmethod
    def _fit(self, arguments: FitArguments) -> _Inverter:
        """Make an inverter."""

    @abc.abstractmethod
    def _blank(self, problem: InverseProblem) -> _Inverter:
        """An inverter with arrays of the right names, to load others into."""
