"""Points where a solution has a kink."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import numpy as np

# `jump(below, above, x, theta, *fields)`, zero where the condition holds.
Jump = Callable[..., Any]


class Interface(eqx.Module):
    """A point inside of the domain where the solution is continuous but its slope is not.

    A source at a point, or a coefficient that changes there, gives such a kink:

        def jump(below, above, x, theta):
            return partial(above, 0)(x) - partial(below, 0)(x) + theta[0]

        Interface(0.5, jump)

    Networks get the distance to it as a further input, so that they have the kink and are smooth
    in their inputs; the classical solver solves on either side.

    Attributes:
        at: Where it is.
        jump: `jump(below, above, x, theta, *fields)`, zero where the condition holds: one number
            for each state. `below` and `above` are the solution on either side, functions of a
            point, and `x` is the interface.

    Source:
        Tseng, Lin, Hu and Lai, A cusp-capturing PINN for elliptic interface problems,
        J. Comput. Phys. 491 (2023).

    Example:
        >>> [interface.at for interface in ij.problems.particles().model.interfaces]
        [0.5]
    """

    at: float = eqx.field(static=True, converter=float)
    jump: Jump = eqx.field(static=True)


def check_interfaces(
    interfaces: tuple[Interface, ...], domain: tuple[tuple[float, float], ...]
) -> None:
    """Refuse interfaces that are not points inside of an interval, in order.

    Args:
        interfaces: What a user gave.
        domain: Ends of each coordinate.

    Raises:
        TypeError: If one is something else.
        ValueError: If there is more than one coordinate, or one lies elsewhere or out of order.
    """
    for interface in interfaces:
        if not isinstance(interface, Interface):
            raise TypeError(
                "`interfaces` must hold `Interface(at, jump)` only; got "
                f"{type(interface).__name__}."
            )
    if not interfaces:
        return
    if len(domain) != 1:
        raise ValueError(
            f"`interfaces` are points of an equation in one coordinate; this one has {len(domain)}."
        )
    places = [interface.at for interface in interfaces]
    low, high = domain[0]
    if not (np.all(np.diff([low, *places, high]) > 0.0)):
        raise ValueError(
            f"`interfaces` must lie inside of the domain from {low} to {high} and increase; got "
            f"{places}."
        )
