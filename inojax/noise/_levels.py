"""Levels of noise: numbers, or names of parameters that are unknown."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._binding import Binding
from .._x64 import is_traced

Level = float | str
Scale = Level | tuple[Level, ...]


def as_scale(scale: Any) -> Scale:
    """Check a scale as a user writes it.

    Args:
        scale: A number or the name of a parameter, or a vector with one of either per channel.

    Returns:
        The same as floats, strings and a tuple.

    Raises:
        TypeError: If it is traced.
        ValueError: If it is none of these.
    """
    if is_traced(scale):
        raise TypeError(
            "`scale` must be a number known beforehand, not a traced value. Make the noise "
            "outside the transformed function, or name a parameter to make its level unknown."
        )
    several = np.iterable(scale) and not isinstance(scale, str)
    levels = [as_level(level) for level in (scale if several else [scale])]
    known = tuple(level for level in levels if level is not None)
    if not known or len(known) < len(levels):
        raise ValueError(
            "`scale` must be one finite number, zero or more, or the name of a parameter, or a "
            f"vector with one of either for each channel; got {scale!r}."
        )
    return known if several else known[0]


def as_level(level: Any) -> Level | None:
    """Check one level.

    Args:
        level: What a user wrote.

    Returns:
        The same as float or string; None if it is neither a number, zero or more, nor a name.
    """
    if isinstance(level, str):
        return level if level.strip() else None
    try:
        value = float(level) if np.ndim(level) == 0 else math.nan
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) and value >= 0.0 else None


def check_names(levels: Sequence[Level], binding: Binding, argument: str) -> None:
    """Raise unless every level that is a name is that of a parameter.

    Args:
        levels: Levels.
        binding: Names of the problem's parameters, with the values of fixed ones.
        argument: What the levels are called.

    Raises:
        ValueError: If a name is not there, or a fixed one is no level.
    """
    names = binding.names
    for level in levels:
        if isinstance(level, str) and as_level(binding.values.get(level, 0.0)) is None:
            raise ValueError(
                f"`{argument}` of the noise is the parameter {level!r}, fixed at "
                f"{binding.values[level]}; it must be a finite number, zero or more."
            )
    unknown = [level for level in levels if isinstance(level, str) and level not in names]
    if unknown:
        raise ValueError(
            f"`{argument}` of the noise names {', '.join(map(repr, unknown))}, not among the "
            f"parameters; they are {', '.join(names)}. Add a `Parameter` of that name."
        )


def value_of(level: Level, theta: Array, binding: Binding | None, argument: str) -> Array:
    """The number that a level stands for.

    Args:
        level: A number or the name of a parameter.
        theta: Physical values of the unknowns.
        binding: Names of the parameters with the values of fixed ones, once known.
        argument: What the level is called.

    Returns:
        The number, in the dtype of `theta`.

    Raises:
        ValueError: If it is a name, and the names are not known.
    """
    if not isinstance(level, str):
        return jnp.asarray(level, theta.dtype)
    if binding is None:
        raise ValueError(
            f"`{argument}` names the parameter {level!r}, but this noise belongs to no problem "
            "yet. Use the `noise` of an `InverseProblem` made with it, or `noise.bound(names)`."
        )
    if level in binding.values:
        return jnp.asarray(binding.values[level], theta.dtype)
    return theta[binding.unknown.index(level)]
