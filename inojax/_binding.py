"""Where the unknowns stand among all parameters of a problem."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float


@dataclasses.dataclass(frozen=True)
class Binding:
    """Names of all parameters as they were declared, and the values of those that are fixed.

    An `InverseProblem` binds its model to it, so that equations see all parameters where methods
    see the unknowns only.

    Attributes:
        names: Name of each parameter, unknown or fixed, in the order declared.
        fixed: Positions of the fixed ones among them with their values, in that order.
    """

    names: tuple[str, ...]
    fixed: tuple[tuple[int, float], ...] = ()

    @property
    def size(self) -> int:
        """Number of unknowns."""
        return len(self.names) - len(self.fixed)

    @property
    def values(self) -> dict[str, float]:
        """Value of each fixed parameter by its name."""
        return {self.names[position]: value for position, value in self.fixed}

    @property
    def unknown(self) -> tuple[str, ...]:
        """Name of each unknown."""
        fixed = {position for position, _ in self.fixed}
        return tuple(name for i, name in enumerate(self.names) if i not in fixed)

    def without(self, names: tuple[str, ...]) -> "Binding":
        """The same without some of the unknowns.

        Args:
            names: Which to leave out.

        Returns:
            Positions among the rest.
        """
        kept = [name for name in self.names if name not in names]
        return Binding(
            tuple(kept), tuple((kept.index(name), value) for name, value in self.values.items())
        )

    def complete(self, theta: Float[Any, "*batch unknown"]) -> Float[Any, "*batch parameter"]:
        """All parameters, from the unknowns.

        Args:
            theta: Values of the unknowns; NumPy arrays stay such.

        Returns:
            Values of all parameters in the order declared; `theta` itself where none is fixed.

        Raises:
            ValueError: If there is not one value for each unknown.
        """
        if np.shape(theta)[-1:] != (self.size,):
            raise ValueError(
                f"`theta` must end in an axis of {self.size} unknown parameters, "
                f"{', '.join(self.unknown)}; got shape {np.shape(theta)}."
            )
        if not self.fixed:
            return theta
        xp: Any = np if isinstance(theta, np.ndarray) else jnp
        theta = xp.asarray(theta)
        parts, begin = [], 0
        for number, (position, value) in enumerate(self.fixed):
            end = position - number
            parts += [theta[..., begin:end], xp.full((*theta.shape[:-1], 1), value, theta.dtype)]
            begin = end
        return xp.concatenate([*parts, theta[..., begin:]], axis=-1)
